//! The server's end: which requests are in flight, and which frame goes out next.
//!
//! Requests take turns frame by frame, so that none waits for a larger one, unless one is more urgent (`ranks`); only those of one transfer
//! are served one after the other, so that a cut leaves but one block of it unfinished. No more than
//! [`V2_OPEN_MAX`](crate::limits::V2_OPEN_MAX) take turns; further ones wait in order (`waiting`), and nothing is opened for them. What
//! only the outside can know (a file, its tree, the value of a block) is asked for by [`Ask`] and given
//! back later; a request that waits for long is told so. What goes out is made only when there is room
//! for it, so a peer that does not read costs no memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::codec::WireError;
use crate::codec::v2::{
    ClientFrame, DATA_MAX, DATA_SHARED_MAX, ErrorCode, File, Get, List, RequestId, ServerFrame, Stat, Token,
    TransferId, Welcome,
};
use crate::error::Code;
use crate::limits::V2_WINDOW;
use crate::tree::{Tree, Value};

mod beginning;
mod listing;
mod patience;
mod ranks;
mod sending;
mod transfers;
mod waiting;

use listing::Listing;
use ranks::Ranks;
use sending::{Sending, Step};
use transfers::Transfers;
use waiting::Waiting;

/// Something that the outside has to do for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Open a file; [`Responder::opened`] or [`Responder::refused`] tells the end of it.
    Open {
        /// The request.
        request: RequestId,
        /// The name, as bytes that nobody has looked at yet.
        name: Bytes,
        /// The version that is wanted if it can still be had.
        token: Option<Token>,
        /// The transfer that this is a part of, and the bytes that it does not need; none for what moves
        /// no bytes of the file.
        transfer: Option<(TransferId, u64)>,
        /// If it is a whole file of at most so many bytes that is wanted, [`Responder::whole`] sends it
        /// at once, and nothing has to be kept open for it.
        small: Option<u64>,
    },
    /// Give the tree, computing it if it is not known: [`Responder::rooted`].
    Root(RequestId),
    /// Give the value of a block: [`Responder::valued`].
    Value(RequestId, u64),
    /// Give the next stretch of a listing, which begins at its cursor: [`Responder::listed`] or
    /// [`Responder::refused`].
    List(RequestId, Box<List>),
    /// The request has ended: whoever works on it may stop.
    Forget(RequestId),
}

/// A file that was opened for a request.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What it is; `root` is told only if `tree` is there.
    pub file: File,
    /// Its tree, if it is known.
    pub tree: Option<Arc<Tree>>,
}

/// What is to be sent next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// These frames.
    Frames(Bytes),
    /// These bytes, which end in the head of a DATA frame, and right behind them bytes of a file.
    Data {
        /// The request.
        request: RequestId,
        /// Frames and the head.
        head: Bytes,
        /// Where the bytes lie in the file.
        offset: u64,
        /// How many there are.
        len: u64,
        /// They end a block: whether the file is still what it was should be looked at first.
        ends_block: bool,
    },
}

/// The server's end of a connection.
#[derive(Debug)]
pub struct Responder {
    /// What a client lets be under way for each request.
    window: u64,
    /// The most bytes of a frame of data.
    data_max: u64,
    last: RequestId,
    /// Requests that were begun.
    requests: BTreeMap<RequestId, Active>,
    waiting: Waiting,
    transfers: Transfers,
    /// Requests that may have something to send, the next one first.
    turns: VecDeque<RequestId>,
    ranks: Ranks,
    asks: VecDeque<Ask>,
    listings: listing::Turns,
    frames: BytesMut,
}

#[derive(Debug)]
struct Active {
    wanted: Wanted,
    state: State,
    window: u64,
    /// When something was last said about it.
    said: Instant,
    /// It has its place among the turns.
    is_queued: bool,
}

#[derive(Debug)]
enum Wanted {
    Stat { root: bool },
    Get(Get),
    List(Box<listing::Wish>),
}

#[derive(Debug)]
enum State {
    /// The file is being opened.
    Opening,
    /// The tree is being computed before FILE can be sent.
    Proving(File),
    Sending(Sending),
    /// All data was sent; the tree is being computed for END.
    Ending,
    Listing(Listing),
}

impl Default for Responder {
    fn default() -> Self {
        Self::new(V2_WINDOW)
    }
}

impl Responder {
    /// A connection whose hello allowed `window` bytes for each request; the welcome is the first thing
    /// that it sends.
    #[must_use]
    pub fn new(window: u64) -> Self {
        let mut frames = BytesMut::new();
        ServerFrame::Welcome(Welcome::default()).encode(&mut frames);
        Self {
            window,
            data_max: DATA_MAX,
            last: 0,
            requests: BTreeMap::new(),
            waiting: Waiting::default(),
            transfers: Transfers::default(),
            turns: VecDeque::new(),
            ranks: Ranks::default(),
            asks: VecDeque::new(),
            listings: listing::Turns::default(),
            frames,
        }
    }

    /// A client that tells its server what that asks for of files that were offered: hello and welcome are behind
    /// them.
    #[must_use]
    pub fn of_offers() -> Self {
        Self { frames: BytesMut::new(), ..Self::default() }
    }

    /// Takes the number of a request that is served elsewhere.
    ///
    /// # Errors
    /// If it is not greater than all before it.
    pub fn claim(&mut self, request: RequestId) -> Result<(), WireError> {
        if request <= self.last {
            return Err(WireError::Order("the number of a request is not greater than all before it"));
        }
        self.last = request;
        Ok(())
    }

    /// From now on a frame of data has at most so many bytes: on a slow line, others would have to wait for
    /// longer ones.
    pub fn limit_data(&mut self, max: u64) {
        self.data_max = max.clamp(1, DATA_MAX);
    }

    /// A frame has arrived.
    ///
    /// # Errors
    /// If the client violates the protocol: [`Self::violated`] says so to it.
    pub fn handle(&mut self, frame: ClientFrame, now: Instant) -> Result<(), WireError> {
        match frame {
            ClientFrame::Stat(request, Stat { root, name }) => {
                self.begin(request, Wanted::Stat { root }, name, None, now)
            }
            ClientFrame::List(request, list) => {
                self.begin(request, Wanted::list(list), Bytes::new(), None, now)
            }
            ClientFrame::Get(request, mut get) => {
                let (name, token) = (std::mem::take(&mut get.name), get.token);
                self.begin(request, Wanted::Get(get), name, (token != Token::default()).then_some(token), now)
            }
            ClientFrame::Window(request, bytes) => {
                if let Some(active) = self.requests.get_mut(&request) {
                    active.window = active.window.saturating_add(bytes);
                    self.queue(request);
                    self.list_on(request);
                } else if let Some(held) = self.waiting.get_mut(request) {
                    held.window = held.window.saturating_add(bytes);
                }
                Ok(())
            }
            ClientFrame::Cancel(request) => {
                if let Some(held) = self.waiting.remove(request) {
                    self.say(request, ErrorCode::CANCELLED, "cancelled");
                    self.leave(request, &held.wanted);
                } else if self.requests.contains_key(&request) {
                    self.fail(request, ErrorCode::CANCELLED, "cancelled");
                }
                Ok(())
            }
            ClientFrame::Ping(request, bytes) => {
                ServerFrame::Pong(request, bytes).encode(&mut self.frames);
                Ok(())
            }
            // Who asks is not for this module to know: keys are taken out before.
            ClientFrame::Auth(_) | ClientFrame::Unknown => Ok(()),
            // Nor does it know how anything is changed.
            ClientFrame::Put(..)
            | ClientFrame::Listen(..)
            | ClientFrame::Push(..)
            | ClientFrame::Received(..)
            | ClientFrame::Remove(..)
            | ClientFrame::Move(..)
            | ClientFrame::Control(..)
            | ClientFrame::Bytes { .. } => Err(WireError::Order("nothing can be changed here")),
        }
    }

    fn in_flight(&self) -> usize {
        self.requests.len() + self.waiting.len()
    }

    /// Whether no request is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight() == 0
    }

    /// A file was opened.
    pub fn opened(&mut self, request: RequestId, opened: Opened, now: Instant) {
        let Some(active) = self.requests.get_mut(&request) else { return };
        let wants_root = match &active.wanted {
            Wanted::Stat { root } => *root,
            Wanted::Get(get) => get.proven || get.values_only,
            Wanted::List(_) => return,
        };
        match opened.tree {
            None if wants_root => {
                active.state = State::Proving(opened.file);
                self.asks.push_back(Ask::Root(request));
            }
            tree => self.describe(request, opened.file, tree, now),
        }
    }

    /// The request cannot be served, or not any further.
    pub fn refused(&mut self, request: RequestId, code: Code, text: &str) {
        if self.requests.contains_key(&request) {
            self.fail(request, code.into(), text);
        }
    }

    /// The tree of a file is known by now.
    pub fn rooted(&mut self, request: RequestId, tree: Arc<Tree>, now: Instant) {
        let Some(active) = self.requests.get_mut(&request) else { return };
        match std::mem::replace(&mut active.state, State::Ending) {
            State::Proving(file) => self.describe(request, file, Some(tree), now),
            State::Ending => {
                ServerFrame::End(request, Some(tree.root())).encode(&mut self.frames);
                self.forget(request);
            }
            other => active.state = other,
        }
    }

    /// The value of a block is known.
    pub fn valued(&mut self, request: RequestId, block: u64, value: Value) {
        let Some(Active { state: State::Sending(sending), .. }) = self.requests.get_mut(&request) else {
            return;
        };
        if sending.give(block, value) {
            self.queue(request);
        }
    }

    /// Sends FILE and begins with what was asked for.
    fn describe(&mut self, request: RequestId, mut file: File, tree: Option<Arc<Tree>>, now: Instant) {
        let Some(active) = self.requests.get_mut(&request) else { return };
        file.root = tree.as_ref().map(|tree| tree.root());
        let get = match &active.wanted {
            Wanted::Stat { .. } => {
                ServerFrame::File(request, file).encode(&mut self.frames);
                return self.forget(request);
            }
            Wanted::Get(get) => get,
            Wanted::List(_) => return,
        };
        let wanted = get.blocks(file.size);
        let size = file.size;
        ServerFrame::File(request, file).encode(&mut self.frames);
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(error) => return self.fail(request, Code::Usage.into(), &error.to_string()),
        };
        active.said = now;
        active.state = State::Sending(Sending::new(size, wanted, tree, get.values_only));
        self.look_ahead(request);
        self.queue(request);
    }

    /// What is to be sent next, if anything can be.
    pub fn next(&mut self, now: Instant) -> Option<Output> {
        if !self.frames.is_empty() {
            return Some(Output::Frames(self.frames.split().freeze()));
        }
        while let Some(request) = self.next_turn() {
            let Some(active) = self.requests.get_mut(&request) else { continue };
            active.is_queued = false;
            let transfer = active.wanted.transfer();
            if transfer.is_some_and(|transfer| !self.transfers.is_first(transfer, request)) {
                // It is queued when those before it have ended.
                continue;
            }
            if let Some(frames) = self.send_stretch(request, now) {
                return Some(Output::Frames(frames));
            }
            let of_it = transfer.map_or(1, |transfer| self.transfers.count(transfer));
            // Where all belong together, there is nobody who could have to wait.
            let data_max = if of_it == self.in_flight() { DATA_MAX } else { DATA_SHARED_MAX };
            let Some(active) = self.requests.get_mut(&request) else { continue };
            let State::Sending(sending) = &mut active.state else { continue };
            let mut head = BytesMut::new();
            match sending.step(request, active.window.min(data_max).min(self.data_max), &mut head) {
                Step::Data { offset, len, ends_block } => {
                    active.window -= len;
                    active.said = now;
                    self.look_ahead(request);
                    self.queue(request);
                    return Some(Output::Data { request, head: head.freeze(), offset, len, ends_block });
                }
                Step::Values => {
                    active.said = now;
                    self.queue(request);
                    return Some(Output::Frames(head.freeze()));
                }
                Step::Stuck if head.is_empty() => {}
                Step::Stuck => return Some(Output::Frames(head.freeze())),
                Step::Done => {
                    self.finish(request, &mut head, now);
                    if !head.is_empty() {
                        return Some(Output::Frames(head.freeze()));
                    }
                }
            }
        }
        None
    }

    /// All data of a request was sent.
    fn finish(&mut self, request: RequestId, head: &mut BytesMut, now: Instant) {
        let Some(active) = self.requests.get_mut(&request) else { return };
        let State::Sending(sending) = &active.state else { return };
        match &sending.tree {
            None if sending.is_whole => {
                active.said = now;
                active.state = State::Ending;
                self.asks.push_back(Ask::Root(request));
            }
            tree => {
                ServerFrame::End(request, tree.as_ref().map(|tree| tree.root())).encode(head);
                self.forget(request);
            }
        }
    }

    /// The last frame of a connection whose client violated the protocol, or cannot be served at all.
    #[must_use]
    pub fn violated(code: Code, text: &str) -> Bytes {
        let mut frames = BytesMut::new();
        ServerFrame::Error(0, code.into(), Bytes::copy_from_slice(text.as_bytes())).encode(&mut frames);
        frames.freeze()
    }

    /// Asks for the values that will be needed next, a few at a time.
    fn look_ahead(&mut self, request: RequestId) {
        let Some(Active { state: State::Sending(sending), .. }) = self.requests.get_mut(&request) else {
            return;
        };
        while let Some(block) = sending.ask() {
            self.asks.push_back(Ask::Value(request, block));
        }
    }

    fn queue(&mut self, request: RequestId) {
        if let Some(active) = self.requests.get_mut(&request).filter(|active| !active.is_queued) {
            active.is_queued = true;
            self.turns.push_back(request);
        }
    }

    fn fail(&mut self, request: RequestId, code: ErrorCode, text: &str) {
        self.say(request, code, text);
        self.forget(request);
    }

    fn say(&mut self, request: RequestId, code: ErrorCode, text: &str) {
        let text = Bytes::copy_from_slice(text.as_bytes());
        ServerFrame::Error(request, code, text).encode(&mut self.frames);
    }

    fn forget(&mut self, request: RequestId) {
        let ended = self.take_out(request);
        self.asks.push_back(Ask::Forget(request));
        if let Some(ended) = ended {
            self.listing_ended(request, &ended);
            self.leave(request, &ended.wanted);
        }
    }

    /// Lets the next request of its transfer have its turn.
    fn leave(&mut self, request: RequestId, wanted: &Wanted) {
        let next = wanted.transfer().and_then(|transfer| self.transfers.leave(transfer, request));
        if let Some(next) = next {
            self.queue(next);
        }
    }
}

impl Wanted {
    /// The transfer that it shares with other requests.
    fn transfer(&self) -> Option<TransferId> {
        match self {
            Self::Get(get) if get.transfer != TransferId::default() => Some(get.transfer),
            _ => None,
        }
    }
}

impl Active {
    /// Whether it is this server that keeps the client waiting.
    fn is_waiting(&self) -> bool {
        match &self.state {
            State::Opening | State::Proving(_) | State::Ending => true,
            State::Listing(listing) => listing.is_waiting(self.window),
            State::Sending(sending) => sending.is_waiting(),
        }
    }
}
