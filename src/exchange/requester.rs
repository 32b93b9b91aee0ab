//! The client's end: which answers are due, and whether what arrives is what it has to be.
//!
//! It checks the order of everything, proves what can be proven, and tells the outside where the
//! bytes behind each head belong. It holds no bytes of a file.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::codec::WireError;
use crate::codec::v2::{
    ClientFrame, Entries, ErrorCode, File, Get, List, Listen, Move, Push, Pushed, Put, Remove, RequestId,
    SERVER_FRAME_MAX, ServerFrame, Stat, Values, Welcome,
};
use crate::control::Question;
use crate::limits::V2_WINDOW;
use crate::priority::Priority;

use crate::tree::{BlockHash, HASH_LEN, Need, ProofError, Root, Verifier, block_span};

mod listing;

use listing::Listing;

/// What a frame of the server means.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// The server speaks this version.
    Welcome(Welcome),
    /// What the file of a request is. It ends a STAT.
    File(RequestId, File),
    /// The next things in a folder.
    Entries(RequestId, Entries),
    /// Something that the server says of itself, as text that nobody has looked at yet.
    Record(RequestId, Bytes),
    /// The head of some bytes, which follow.
    Data(Data),
    /// All of it has arrived. `values` holds what was asked for with
    /// [`Get::values_only`]: the value of each block (or the root, of a sole one).
    End {
        /// The request.
        request: RequestId,
        /// The file's root, if it is known by now.
        root: Option<Root>,
        /// Values of blocks.
        values: Vec<(u64, [u8; HASH_LEN])>,
    },
    /// What was put is stored, under this name of the server's instead of the one that was asked for. Nobody has looked at
    /// the name.
    Stored(RequestId, Root, Bytes),
    /// The request has failed; number 0 stands for the whole connection.
    Failed(RequestId, ErrorCode, Bytes),
    /// A file waits for whoever listens with this request.
    Pushed(RequestId, Pushed),
    /// The answer to a PING.
    Pong(RequestId, [u8; 8]),
    /// Values came that bring a request on.
    Proof,
    /// The server is still at it: nothing has come yet, but it may.
    Waiting,
    /// Something that needs no action, and brings nothing on.
    Nothing,
}

/// Where the bytes behind a head belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// The request.
    pub request: RequestId,
    /// Their place in the file.
    pub offset: u64,
    /// How many there are.
    pub len: u64,
    /// The block that they belong to; none if nobody wants them any more.
    pub block: Option<u64>,
    /// They end the block: [`Requester::check`] has to be asked next about this request.
    pub ends_block: bool,
}

/// The client's end of a connection.
#[derive(Debug)]
pub struct Requester {
    last: RequestId,
    is_welcome: bool,
    requests: BTreeMap<RequestId, Due>,
    /// How urgent all of it is, if that was said.
    priority: Option<Priority>,
}

#[derive(Debug)]
enum Due {
    Stat,
    /// FILE has not come yet.
    Get(Get),
    Arriving(Box<Arriving>),
    Listing(Listing),
    /// Something is being changed: END says that it is done.
    Change,
    /// Something is asked of the server about itself.
    Control,
    /// Files are told of until it fails.
    Listening,
    /// Not wanted any more; what still comes is passed over: at most so many bytes of data.
    Cancelled(u64),
}

#[derive(Debug)]
struct Arriving {
    verifier: Verifier,
    size: u64,
    root: Option<Root>,
    values_only: bool,
    values: Vec<(u64, [u8; HASH_LEN])>,
    /// The block whose bytes are arriving, and what is still missing of it.
    block: Option<(u64, Range<u64>)>,
}

impl Default for Requester {
    fn default() -> Self {
        Self::new()
    }
}

impl Requester {
    /// A connection on which nothing has been said.
    #[must_use]
    pub fn new() -> Self {
        Self { last: 0, is_welcome: false, requests: BTreeMap::new(), priority: None }
    }

    /// A server that asks its client for what that has offered: hello and welcome are behind them.
    #[must_use]
    pub fn of_offers() -> Self {
        Self { is_welcome: true, ..Self::new() }
    }

    /// From now on all files that are asked for or offered have this priority.
    pub fn prefer(&mut self, priority: Priority) {
        self.priority = Some(priority);
    }

    /// Asks what a file is; the frame is to be sent.
    pub fn stat(&mut self, stat: Stat) -> ClientFrame {
        let request = self.begin(Due::Stat);
        ClientFrame::Stat(request, stat)
    }

    /// Asks for a file or parts of it; the frame is to be sent.
    pub fn get(&mut self, mut get: Get) -> ClientFrame {
        get.priority = self.priority.unwrap_or(get.priority);
        let request = self.begin(Due::Get(get.clone()));
        ClientFrame::Get(request, get)
    }

    /// Asks what is in a folder; the frame is to be sent.
    pub fn list(&mut self, list: List) -> ClientFrame {
        let request = self.begin(Due::Listing(Listing::new(&list)));
        ClientFrame::List(request, list)
    }

    /// Offers a file; the frame is to be sent. END says that it is stored, and under which root; without one,
    /// that the very same was there.
    pub fn put(&mut self, mut put: Put) -> ClientFrame {
        put.priority = self.priority.unwrap_or(put.priority);
        ClientFrame::Put(self.begin(Due::Change), put)
    }

    /// Offers a file to a receiver; the frame is to be sent. END says that it has it, and its root.
    pub fn push(&mut self, push: Push) -> ClientFrame {
        ClientFrame::Push(self.begin(Due::Change), push)
    }

    /// Listens for files; the frame is to be sent. It does not end but by an error.
    pub fn listen(&mut self, listen: Listen) -> ClientFrame {
        ClientFrame::Listen(self.begin(Due::Listening), listen)
    }

    /// Removes something; the frame is to be sent. END says that it is gone.
    pub fn remove(&mut self, remove: Remove) -> ClientFrame {
        ClientFrame::Remove(self.begin(Due::Change), remove)
    }

    /// Gives something another name; the frame is to be sent. END says that it has it.
    pub fn rename(&mut self, names: Move) -> ClientFrame {
        ClientFrame::Move(self.begin(Due::Change), names)
    }

    /// Asks a server about itself; the frame is to be sent.
    pub fn control(&mut self, question: Question) -> ClientFrame {
        ClientFrame::Control(self.begin(Due::Control), question)
    }

    /// Gives a request up; the frame is to be sent, if there is one.
    pub fn cancel(&mut self, request: RequestId) -> Option<ClientFrame> {
        let due = self.requests.get_mut(&request)?;
        // A listing may overshoot its window by a frame.
        *due = Due::Cancelled(V2_WINDOW + SERVER_FRAME_MAX as u64);
        Some(ClientFrame::Cancel(request))
    }

    fn begin(&mut self, due: Due) -> RequestId {
        // After four billion requests the server refuses further ones.
        self.last = self.last.saturating_add(1);
        self.requests.insert(self.last, due);
        self.last
    }

    /// The number of the newest request.
    #[must_use]
    pub fn last(&self) -> RequestId {
        self.last
    }

    /// Whether a request has not ended.
    #[must_use]
    pub fn is_in_flight(&self, request: RequestId) -> bool {
        self.requests.contains_key(&request)
    }

    /// How many requests have not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Takes one frame off the beginning of `src`, of DATA only its head, and says what it means; `None`
    /// while it is not there.
    ///
    /// # Errors
    /// [`WireError`] if the server violates the protocol; nothing more can be made of the connection.
    pub fn hear(&mut self, src: &mut BytesMut) -> Result<Option<Heard>, WireError> {
        ServerFrame::decode(src)?.map(|frame| self.handle(frame)).transpose()
    }

    /// What a frame means; as [`Self::hear`].
    ///
    /// # Errors
    /// As [`Self::hear`].
    pub fn handle(&mut self, frame: ServerFrame) -> Result<Heard, WireError> {
        if !self.is_welcome && !matches!(frame, ServerFrame::Welcome(_) | ServerFrame::Error(0, ..)) {
            return Err(WireError::Order("the first frame is no welcome"));
        }
        match frame {
            ServerFrame::Welcome(_) if self.is_welcome => Err(WireError::Order("a second welcome came")),
            ServerFrame::Welcome(welcome) => {
                self.is_welcome = true;
                Ok(Heard::Welcome(welcome))
            }
            ServerFrame::File(request, file) => self.file(request, file),
            ServerFrame::Values(request, values) => self.values(request, values),
            ServerFrame::Entries(request, entries) => self.entries(request, entries),
            ServerFrame::Record(request, json) => self.record(request, json),
            ServerFrame::Data { request, offset, len } => self.data(request, offset, len).map(Heard::Data),
            ServerFrame::End(request, root) => self.end(request, root),
            ServerFrame::Stored(request, root, name) => match self.requests.get(&request) {
                Some(Due::Change) => {
                    self.requests.remove(&request);
                    Ok(Heard::Stored(request, root, name))
                }
                // What is not put has no name to be stored under.
                _ => self.end(request, Some(root)),
            },
            ServerFrame::Error(_, ErrorCode(0), _) => Err(WireError::Order("an error came that is none")),
            ServerFrame::Error(0, code, text) => Ok(Heard::Failed(0, code, text)),
            ServerFrame::Error(request, code, text) => {
                self.requests.remove(&request).ok_or(UNKNOWN)?;
                Ok(Heard::Failed(request, code, text))
            }
            ServerFrame::Pushed(request, pushed) => match self.requests.get(&request) {
                Some(Due::Listening) => Ok(Heard::Pushed(request, pushed)),
                Some(Due::Cancelled(_)) => Ok(Heard::Nothing),
                _ => Err(UNKNOWN),
            },
            ServerFrame::Pong(request, bytes) => Ok(Heard::Pong(request, bytes)),
            ServerFrame::Wait(request) => {
                self.requests.get(&request).ok_or(UNKNOWN)?;
                Ok(Heard::Waiting)
            }
            ServerFrame::Unknown => Ok(Heard::Nothing),
        }
    }

    fn file(&mut self, request: RequestId, file: File) -> Result<Heard, WireError> {
        let due = self.requests.get_mut(&request).ok_or(UNKNOWN)?;
        match due {
            Due::Stat => drop(self.requests.remove(&request)),
            Due::Get(get) => {
                let Ok(wanted) = get.blocks(file.size) else {
                    // The server will say so.
                    *due = Due::Cancelled(0);
                    return Ok(Heard::File(request, file));
                };
                if file.root.is_none() && (get.proven || get.values_only) {
                    return Err(WireError::Order("the root is missing that was asked for"));
                }
                let mut verifier = Verifier::new(file.size, wanted, file.root);
                if file.size == 0 {
                    // There will be no data to check.
                    verifier.block(Some(BlockHash::of(0, 0, &[])))?;
                }
                let values_only = get.values_only;
                let (size, root, values, block) = (file.size, file.root, Vec::new(), None);
                *due = Due::Arriving(Box::new(Arriving { verifier, size, root, values_only, values, block }));
            }
            Due::Arriving(_) => return Err(WireError::Order("a file is described twice")),
            Due::Listing(_) | Due::Change | Due::Control | Due::Listening => {
                return Err(WireError::Order("a file is described that was not asked for"));
            }
            Due::Cancelled(_) => return Ok(Heard::Nothing),
        }
        Ok(Heard::File(request, file))
    }

    fn values(&mut self, request: RequestId, values: Values) -> Result<Heard, WireError> {
        let Some(arriving) = self.arriving(request)? else { return Ok(Heard::Nothing) };
        if arriving.block.is_some() {
            return Err(WireError::Order("values came in the middle of a block"));
        }
        match values {
            Values::Pairs(pairs) => {
                for (left, right) in pairs {
                    arriving.pass_over_blocks()?;
                    arriving.verifier.pair(left, right)?;
                }
            }
            Values::Single(value) => arriving.verifier.value(value)?,
        }
        Ok(Heard::Proof)
    }

    fn entries(&mut self, request: RequestId, entries: Entries) -> Result<Heard, WireError> {
        match self.requests.get_mut(&request).ok_or(UNKNOWN)? {
            Due::Listing(listing) => {
                listing.take(&entries)?;
                Ok(Heard::Entries(request, entries))
            }
            Due::Cancelled(left) => {
                *left = left.checked_sub(entries.body_len()).ok_or(GOES_ON)?;
                Ok(Heard::Nothing)
            }
            _ => Err(WireError::Order("entries came that were not asked for")),
        }
    }

    fn record(&self, request: RequestId, json: Bytes) -> Result<Heard, WireError> {
        match self.requests.get(&request).ok_or(UNKNOWN)? {
            Due::Control => Ok(Heard::Record(request, json)),
            Due::Cancelled(_) => Ok(Heard::Nothing),
            _ => Err(WireError::Order("a record came that was not asked for")),
        }
    }

    fn data(&mut self, request: RequestId, offset: u64, len: u64) -> Result<Data, WireError> {
        if let Some(Due::Cancelled(left)) = self.requests.get_mut(&request) {
            // What was under way may still come, and no more than was allowed to be.
            *left = left.checked_sub(len).ok_or(GOES_ON)?;
            return Ok(Data { request, offset, len, block: None, ends_block: false });
        }
        let Some(arriving) = self.arriving(request)? else { return Err(UNKNOWN) };
        let (block, missing) = match arriving.block.take() {
            Some(begun) => begun,
            None => match arriving.verifier.need() {
                Need::Block(block) if !arriving.values_only => (block, block_span(arriving.size, block)),
                _ => return Err(WireError::Order("data came that was not asked for, or before its proof")),
            },
        };
        if missing.is_empty() || offset != missing.start || len > missing.end - missing.start {
            return Err(WireError::Order("data does not follow the data before it"));
        }
        let missing = offset + len..missing.end;
        let ends_block = missing.is_empty();
        arriving.block = Some((block, missing));
        Ok(Data { request, offset, len, block: Some(block), ends_block })
    }

    /// Checks a block whose last bytes have been taken.
    ///
    /// # Errors
    /// [`ProofError::Block`] if they are not the file's: the request goes on without them.
    pub fn check(&mut self, request: RequestId, hash: BlockHash) -> Result<(), ProofError> {
        let Some(Due::Arriving(arriving)) = self.requests.get_mut(&request) else { return Ok(()) };
        arriving.block = None;
        let checked = arriving.verifier.block(Some(hash));
        if matches!(checked, Err(ProofError::Block(_))) {
            arriving.verifier.block(None)?;
        }
        checked.map(|_| ())
    }

    fn end(&mut self, request: RequestId, root: Option<Root>) -> Result<Heard, WireError> {
        match self.requests.remove(&request).ok_or(UNKNOWN)? {
            Due::Arriving(mut arriving) => {
                arriving.pass_over_blocks()?;
                if arriving.block.is_some() || arriving.verifier.need() != Need::Nothing {
                    return Err(WireError::Order("a request ends before all of it has arrived"));
                }
                if arriving.root.is_some() && arriving.root != root {
                    return Err(WireError::Order("a request ends with another root than it began with"));
                }
                Ok(Heard::End { request, root, values: arriving.values })
            }
            Due::Listing(_) if root.is_some() => Err(WireError::Order("a listing ends with a root")),
            Due::Listing(_) => Ok(Heard::End { request, root: None, values: Vec::new() }),
            Due::Change | Due::Control => Ok(Heard::End { request, root, values: Vec::new() }),
            Due::Cancelled(_) => Ok(Heard::Nothing),
            Due::Stat | Due::Get(_) | Due::Listening => {
                Err(WireError::Order("a request ends before it has begun"))
            }
        }
    }

    fn arriving(&mut self, request: RequestId) -> Result<Option<&mut Arriving>, WireError> {
        match self.requests.get_mut(&request) {
            Some(Due::Arriving(arriving)) => Ok(Some(arriving)),
            Some(Due::Cancelled(_)) => Ok(None),
            _ => Err(UNKNOWN),
        }
    }
}

const GOES_ON: WireError = WireError::Order("a cancelled request goes on and on");
const UNKNOWN: WireError = WireError::Order("a frame belongs to no request in flight");

impl Arriving {
    /// Where only values are wanted, blocks are passed over, and what they have to be is kept.
    fn pass_over_blocks(&mut self) -> Result<(), ProofError> {
        while self.values_only {
            let Need::Block(block) = self.verifier.need() else { break };
            let hash = self.verifier.block(None)?;
            self.values.push((block, hash));
        }
        Ok(())
    }
}
