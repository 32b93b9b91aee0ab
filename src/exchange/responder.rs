//! The server's end: which requests are in flight, and which frame goes out next.
//!
//! Requests take turns frame by frame, so that none waits for a larger one; only those of one transfer
//! are served one after the other, so that a cut leaves but one block of it unfinished. What only the outside
//! can know (a file, its tree, the value of a block) is asked for by [`Ask`] and given back later;
//! a request that waits for it for long is told so. What goes out is made only when there is room for
//! it, so a peer that does not read costs no memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::codec::WireError;
use crate::codec::v2::{
    ClientFrame, DATA_MAX, DATA_SHARED_MAX, ErrorCode, File, Get, PAIRS_MAX, RequestId, ServerFrame, Stat,
    Token, TransferId, Values, Welcome, put_data_head,
};
use crate::error::Code;
use crate::limits::{V2_REQUESTS_MAX, V2_VALUES_AHEAD, V2_WAIT_INTERVAL, V2_WINDOW};
use crate::tree::{BlockSet, Node, Tree, Value, Walk, block_span};

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
    },
    /// Give the tree, computing it if it is not known: [`Responder::rooted`].
    Root(RequestId),
    /// Give the value of a block: [`Responder::valued`].
    Value(RequestId, u64),
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
    last: RequestId,
    requests: BTreeMap<RequestId, Active>,
    /// Requests that may have something to send, the next one first.
    turns: VecDeque<RequestId>,
    asks: VecDeque<Ask>,
    frames: BytesMut,
}

#[derive(Debug)]
struct Active {
    wanted: Wanted,
    state: State,
    window: u64,
    /// When something was last said about it.
    said: Instant,
}

#[derive(Debug)]
enum Wanted {
    Stat { root: bool },
    Get(Get),
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
}

#[derive(Debug)]
struct Sending {
    size: u64,
    walk: Walk<()>,
    tree: Option<Arc<Tree>>,
    values_only: bool,
    is_whole: bool,
    /// What is left of the block that is being sent.
    block: Range<u64>,
    /// Without a tree: blocks whose values have not been asked for, and values not used yet.
    unasked: VecDeque<Range<u64>>,
    asked: BTreeSet<u64>,
    values: BTreeMap<u64, Value>,
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
        let (requests, turns, asks) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
        Self { window, last: 0, requests, turns, asks, frames }
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
            ClientFrame::Get(request, get) => {
                let (name, token) = (get.name.clone(), get.token);
                self.begin(request, Wanted::Get(get), name, (token != Token::default()).then_some(token), now)
            }
            ClientFrame::Window(request, bytes) => {
                if let Some(active) = self.requests.get_mut(&request) {
                    active.window = active.window.saturating_add(bytes);
                    self.queue(request);
                }
                Ok(())
            }
            ClientFrame::Cancel(request) => {
                if self.requests.contains_key(&request) {
                    self.fail(request, ErrorCode::CANCELLED, "cancelled");
                }
                Ok(())
            }
            ClientFrame::Ping(request, bytes) => {
                ServerFrame::Pong(request, bytes).encode(&mut self.frames);
                Ok(())
            }
            ClientFrame::Unknown => Ok(()),
        }
    }

    fn begin(
        &mut self,
        request: RequestId,
        wanted: Wanted,
        name: Bytes,
        token: Option<Token>,
        now: Instant,
    ) -> Result<(), WireError> {
        if request <= self.last {
            return Err(WireError::Order("the number of a request is not greater than all before it"));
        }
        self.last = request;
        if self.requests.len() >= usize::try_from(V2_REQUESTS_MAX).unwrap_or(usize::MAX) {
            self.say(request, Code::Limit.into(), "too many requests are in flight");
            return Ok(());
        }
        let transfer = match &wanted {
            Wanted::Stat { .. } => None,
            // Values move nothing of the file.
            Wanted::Get(get) => (!get.values_only).then_some((get.transfer, get.have)),
        };
        let active = Active { wanted, state: State::Opening, window: self.window, said: now };
        self.requests.insert(request, active);
        self.asks.push_back(Ask::Open { request, name, token, transfer });
        Ok(())
    }

    /// The next thing to be done outside.
    pub fn ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// Whether no request is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// A file was opened.
    pub fn opened(&mut self, request: RequestId, opened: Opened, now: Instant) {
        let Some(active) = self.requests.get_mut(&request) else { return };
        let wants_root = match &active.wanted {
            Wanted::Stat { root } => *root,
            Wanted::Get(get) => get.proven || get.values_only,
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
        if sending.asked.remove(&block) {
            sending.values.insert(block, value);
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
        while let Some(request) = self.turns.pop_front() {
            if self.has_to_wait(request) {
                continue;
            }
            let data_max = if self.is_alone(request) { DATA_MAX } else { DATA_SHARED_MAX };
            let Some(active) = self.requests.get_mut(&request) else { continue };
            let State::Sending(sending) = &mut active.state else { continue };
            let mut head = BytesMut::new();
            match sending.step(request, active.window.min(data_max), &mut head) {
                Step::Data { offset, len, ends_block } => {
                    active.window -= len;
                    active.said = now;
                    self.look_ahead(request);
                    self.turns.push_back(request);
                    return Some(Output::Data { request, head: head.freeze(), offset, len, ends_block });
                }
                Step::Values => {
                    active.said = now;
                    self.turns.push_back(request);
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

    /// Whether an earlier request of the same transfer has not ended.
    fn has_to_wait(&self, request: RequestId) -> bool {
        let transfer = |active: &Active| active.wanted.transfer();
        let Some(own) = self.requests.get(&request).and_then(transfer) else { return false };
        self.requests.range(..request).any(|(_, earlier)| transfer(earlier) == Some(own))
    }

    /// Whether no request of another transfer is in flight, which could have to wait.
    fn is_alone(&self, request: RequestId) -> bool {
        let transfer = |active: &Active| active.wanted.transfer();
        let own = self.requests.get(&request).and_then(transfer);
        let is_of_it = |active| own.is_some() && transfer(active) == own;
        self.requests.iter().all(|(&id, active)| id == request || is_of_it(active))
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

    /// When [`Self::tick`] has something to do, if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = self.requests.values().filter(|active| active.is_waiting());
        waiting.map(|active| active.said + V2_WAIT_INTERVAL).min()
    }

    /// Tells clients that wait for this server that it is still at it.
    pub fn tick(&mut self, now: Instant) {
        for (request, active) in &mut self.requests {
            if active.is_waiting() && now >= active.said + V2_WAIT_INTERVAL {
                active.said = now;
                ServerFrame::Wait(*request).encode(&mut self.frames);
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
        while ((sending.asked.len() + sending.values.len()) as u64) < V2_VALUES_AHEAD {
            let Some(run) = sending.unasked.front_mut() else { break };
            match run.next() {
                Some(block) => {
                    sending.asked.insert(block);
                    self.asks.push_back(Ask::Value(request, block));
                }
                None => drop(sending.unasked.pop_front()),
            }
        }
    }

    fn queue(&mut self, request: RequestId) {
        if !self.turns.contains(&request) {
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
        let ended = self.requests.remove(&request);
        self.asks.push_back(Ask::Forget(request));
        let Some(transfer) = ended.and_then(|ended| ended.wanted.transfer()) else { return };
        let mut held = self.requests.iter().filter(|(_, active)| active.wanted.transfer() == Some(transfer));
        if let Some((&next, _)) = held.next() {
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
            State::Sending(sending) => {
                sending.block.is_empty() && sending.values.is_empty() && !sending.asked.is_empty()
            }
        }
    }
}

enum Step {
    /// The head of a DATA frame was written, behind what proves its block.
    Data { offset: u64, len: u64, ends_block: bool },
    /// Values were written, and more may follow.
    Values,
    /// Nothing more can be sent until a window grows or a value comes.
    Stuck,
    /// All was sent.
    Done,
}

impl Sending {
    fn new(size: u64, wanted: BlockSet, tree: Option<Arc<Tree>>, values_only: bool) -> Self {
        let unasked = if tree.is_some() { VecDeque::new() } else { wanted.runs().to_vec().into() };
        Self {
            size,
            is_whole: wanted == BlockSet::all(size),
            walk: Walk::new(size, wanted, ()),
            tree,
            values_only,
            block: 0..0,
            unasked,
            asked: BTreeSet::new(),
            values: BTreeMap::new(),
        }
    }

    /// Goes on by one frame of data of at most `most` bytes, or by one frame of values where that is all
    /// there is.
    fn step(&mut self, request: RequestId, most: u64, head: &mut BytesMut) -> Step {
        let mut pairs = Vec::new();
        while self.block.is_empty() {
            if pairs.len() == PAIRS_MAX {
                put_pairs(request, &mut pairs, head);
                return Step::Values;
            }
            let Some(&(node, ())) = self.walk.peek() else {
                put_pairs(request, &mut pairs, head);
                return Step::Done;
            };
            match (&self.tree, node) {
                (Some(tree), node) if node.count > 1 => pairs.extend(tree.children(&node)),
                (None, Node { first, count: 1 }) => {
                    let Some(value) = self.values.remove(&first) else { return Step::Stuck };
                    ServerFrame::Values(request, Values::Single(value)).encode(head);
                }
                _ => {}
            }
            self.walk.take();
            match node.count {
                1 if self.values_only => {}
                1 => self.block = block_span(self.size, node.first),
                _ => self.walk.descend(node, (), ()),
            }
        }
        put_pairs(request, &mut pairs, head);
        if most == 0 {
            return Step::Stuck;
        }
        let len = (self.block.end - self.block.start).min(most);
        let offset = self.block.start;
        put_data_head(request, offset, len, head);
        self.block.start += len;
        Step::Data { offset, len, ends_block: self.block.is_empty() }
    }
}

fn put_pairs(request: RequestId, pairs: &mut Vec<(Value, Value)>, head: &mut BytesMut) {
    if !pairs.is_empty() {
        ServerFrame::Values(request, Values::Pairs(std::mem::take(pairs))).encode(head);
    }
}
