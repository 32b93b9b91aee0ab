//! What one link does for an upload: it answers what the server asks for of the file that was offered.
//!
//! It runs in a thread of its own, with a runtime of its own, because it hashes where it sends: each block just before
//! its bytes go, one at a time, so that whatever the server says meanwhile is heard between two blocks. It reads also
//! while it waits for room. A server that asks for anything but the offered file, or for the same bytes again
//! and again, is not gone on with. Which blocks are sent is the server's business alone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::link::{Arrived, Link, Ungiven, Until};
use crate::client::FetchError;
use crate::client::put::offer::Offer;
use crate::codec::WireError;
use crate::codec::v2::{ClientFrame, ErrorCode, Frame, Put, RequestId, ServerFrame, Token, TransferId};
use crate::error::Code;
use crate::exchange::{Ask, Heard, Opened, Output, Responder};
use crate::limits::{
    PUT_FAREWELL, PUT_REPEATS_MAX, PUT_REQUESTS_MAX, PUT_REQUESTS_PER_BLOCK_MAX, PUT_SURPLUS_MAX,
    PUT_UNANSWERED_MAX, V2_FILL,
};
use crate::names::FileName;
use crate::text;
use crate::tree::{Root, block_count};

/// Stands for what the server has while it has not said so.
const UNSAID: u64 = u64::MAX;

/// What has come of a file that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::client) enum Stored {
    /// It is stored, and this is its root.
    New(Root),
    /// A file of the same size and time was there already.
    Same,
}

/// What the links of one attempt share.
pub(super) struct Shared {
    pub(super) offer: Arc<Offer>,
    /// What each of them says first.
    pub(super) put: Put,
    /// Who is to get it, if it is not for the server.
    pub(super) receiver: Option<Bytes>,
    pub(super) arrived: Arc<Arrived>,
    /// What the server had when it asked first, and the most that it has said to have.
    pub(super) had: AtomicU64,
    most: AtomicU64,
    /// Bytes that were given.
    given: AtomicU64,
    /// The name that the server has given the file.
    pub(super) given_name: OnceLock<FileName>,
    /// The server has asked for something.
    pub(super) asked: CancellationToken,
    /// Ended when one of the links fails, or nobody wants it any more.
    pub(super) stop: CancellationToken,
}

impl Shared {
    pub(super) fn new(offer: Arc<Offer>, put: Put, arrived: Arc<Arrived>, stop: CancellationToken) -> Self {
        let (had, most, given) = (AtomicU64::new(UNSAID), AtomicU64::new(0), AtomicU64::new(0));
        let (given_name, asked) = (OnceLock::new(), CancellationToken::new());
        Self { offer, put, receiver: None, arrived, had, most, given, given_name, asked, stop }
    }

    /// Bytes that the server had when it asked first, if it has.
    pub(super) fn had(&self) -> Option<u64> {
        Some(self.had.load(Ordering::Relaxed)).filter(|&had| had != UNSAID)
    }

    /// The most bytes that the server has said to have.
    pub(super) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    /// The server says that it has so many bytes.
    fn has(&self, have: u64) {
        let have = have.min(self.offer.size());
        if self.had.compare_exchange(UNSAID, have, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.arrived.begin(have, self.offer.size());
            self.asked.cancel();
        }
        self.most.fetch_max(have, Ordering::Relaxed);
    }
}

/// A link at work.
pub(super) struct Giving<'a> {
    shared: &'a Shared,
    link: &'a mut Link,
    /// The number of the PUT.
    put: RequestId,
    responder: Responder,
    until: Until,
    /// What all links had given when that was made.
    given: u64,
    /// Requests that the server has made.
    requests: u64,
    /// Bytes that were read since all that was due had been sent.
    unanswered: usize,
    /// Blocks whose values are asked for.
    values: VecDeque<(RequestId, u64)>,
    /// Requests that wait for the root.
    roots: Vec<RequestId>,
    /// What the server has made of it.
    ended: Option<Option<Root>>,
    /// Why the file cannot be given any further.
    failed: Option<FetchError>,
    /// The server has said something about the PUT.
    is_known: bool,
}

impl<'a> Giving<'a> {
    /// After `put` was said on `link`.
    pub(super) fn new(shared: &'a Shared, link: &'a mut Link, put: RequestId) -> Self {
        let (until, given) = (link.until(), shared.given.load(Ordering::Relaxed));
        let (values, roots) = (VecDeque::new(), Vec::new());
        let responder = Responder::of_offers();
        let (requests, unanswered, is_known) = (0, 0, false);
        Self {
            shared,
            link,
            put,
            responder,
            until,
            given,
            requests,
            unanswered,
            values,
            roots,
            ended: None,
            failed: None,
            is_known,
        }
    }

    /// Answers until the server says what has come of the file.
    pub(super) async fn run(self) -> Result<Stored, FetchError> {
        let stop = self.shared.stop.clone();
        stop.run_until_cancelled(self.serve_on()).await.unwrap_or(Err(FetchError::Interrupted))
    }

    async fn serve_on(mut self) -> Result<Stored, FetchError> {
        loop {
            self.listen()?;
            if let Some(root) = self.ended {
                return self.stored(root);
            }
            let is_busy = self.serve()?;
            match self.responder.next(now()) {
                Some(Output::Frames(frames)) => self.write(&frames).await?,
                Some(Output::Data { request, head, offset, len, ends_block }) => {
                    self.data(request, &head, offset, len, ends_block).await?;
                }
                None if is_busy => self.responder.tick(now()),
                None => {
                    self.unanswered = 0;
                    self.wait().await?;
                }
            }
            if let Some(error) = self.failed.take() {
                self.give_up().await;
                return Err(error);
            }
            // Whoever always has something to do must not be the only one: the socket is looked at here, too.
            yield_now().await;
        }
    }

    /// Reads what has come, unless the server asks for more than it takes.
    fn listen(&mut self) -> Result<(), FetchError> {
        if self.unanswered < PUT_UNANSWERED_MAX {
            match self.link.read_now() {
                Ok(count) => self.unanswered += count,
                Err(error) => {
                    // Why it ended may have been said before.
                    self.hear()?;
                    return if self.ended.is_some() { Ok(()) } else { Err(error) };
                }
            }
        }
        self.hear()?;
        if Instant::now() >= self.until.deadline { Err(self.link.silent()) } else { Ok(()) }
    }

    /// Takes in all that is here.
    fn hear(&mut self) -> Result<(), FetchError> {
        while self.ended.is_none() {
            let Some(frame) = self.link.frame()? else { break };
            match frame {
                Frame::Asks(frame) => self.asked(frame)?,
                Frame::Tells(frame) => self.told(frame)?,
            }
        }
        Ok(())
    }

    fn asked(&mut self, frame: ClientFrame) -> Result<(), FetchError> {
        if let ClientFrame::Get(..) | ClientFrame::Stat(..) = frame {
            self.requests += 1;
            let blocks = block_count(self.shared.offer.size());
            if self.requests > PUT_REQUESTS_MAX + blocks.saturating_mul(PUT_REQUESTS_PER_BLOCK_MAX) {
                return Err(self.violated("it asks again and again for the file that it is given"));
            }
            self.is_known = true;
            self.moves();
        }
        if let ClientFrame::Get(_, get) = &frame {
            self.shared.has(get.have);
        }
        self.responder.handle(frame, now()).map_err(|source| self.link.violated(source))
    }

    fn told(&mut self, frame: ServerFrame) -> Result<(), FetchError> {
        match self.link.told(frame)? {
            Heard::End { request, root, .. } if request == self.put => self.ended = Some(root),
            Heard::Stored(request, root, name) if request == self.put => {
                let _ = self.shared.given_name.set(self.link.named(&name)?);
                self.ended = Some(Some(root));
            }
            Heard::Failed(request, code, text) if request == self.put => {
                return Err(self.refused(code, &text));
            }
            Heard::Failed(0, code, text) if self.is_known => return Err(self.link.failed(code, &text)),
            Heard::Failed(0, code, text) => return Err(self.link.ended(code, &text)),
            Heard::Waiting => {
                self.is_known = true;
                // What another link gives is what this one waits for.
                if self.given == self.shared.given.load(Ordering::Relaxed) {
                    self.until.waits();
                } else {
                    self.moves();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What it means that the server does not store the file.
    fn refused(&self, code: ErrorCode, said: &[u8]) -> FetchError {
        match code.kind() {
            Code::SourceChanged => self.shared.offer.changed(),
            _ => self.link.unchanged(code, said, &self.shared.put.name),
        }
    }

    /// Something has brought the file on.
    fn moves(&mut self) {
        (self.until, self.given) = (self.link.until(), self.shared.given.load(Ordering::Relaxed));
    }

    fn violated(&self, text: &'static str) -> FetchError {
        self.link.violated(WireError::Order(text))
    }

    /// Does what the server asks for, at most one block's hashing; `true` if there is more to be done.
    fn serve(&mut self) -> Result<bool, FetchError> {
        while let Some(ask) = self.responder.ask() {
            match ask {
                Ask::Open { request, name, token, transfer, .. } => {
                    self.check(&name, token, transfer)?;
                    self.open(request);
                }
                Ask::Root(request) => self.roots.push(request),
                Ask::Value(request, block) => self.values.push_back((request, block)),
                Ask::List(..) => return Err(self.violated("it asks for a folder of a client")),
                Ask::Forget(request) => {
                    self.roots.retain(|&waiting| waiting != request);
                    self.values.retain(|&(waiting, _)| waiting != request);
                }
            }
        }
        if let Some((request, block)) = self.values.pop_front() {
            match self.shared.offer.value(block) {
                Ok(value) => self.responder.valued(request, block, value),
                Err(error) => self.fail(request, error),
            }
            return Ok(true);
        }
        let Some(&request) = self.roots.first() else { return Ok(false) };
        match self.shared.offer.grow() {
            Ok(None) => {}
            Ok(Some(tree)) => {
                for request in self.roots.drain(..) {
                    self.responder.rooted(request, Arc::clone(&tree), now());
                }
            }
            Err(error) => self.fail(request, error),
        }
        Ok(true)
    }

    /// Nothing is told but the file that was offered.
    fn check(
        &self,
        name: &[u8],
        token: Option<Token>,
        transfer: Option<(TransferId, u64)>,
    ) -> Result<(), FetchError> {
        let put = &self.shared.put;
        let is_of_another = transfer.is_some_and(|(transfer, _)| transfer != put.transfer);
        if *name != *put.name || token.is_some_and(|token| token != put.file.token) || is_of_another {
            return Err(self.violated("it asks for a file that was not offered"));
        }
        Ok(())
    }

    fn open(&mut self, request: RequestId) {
        let offer = &self.shared.offer;
        // A sole block is proven by the root alone.
        let tree = if block_count(offer.size()) == 1 { offer.complete().map(Some) } else { Ok(offer.tree()) };
        match tree {
            Ok(tree) => self.responder.opened(request, Opened { file: offer.described(), tree }, now()),
            Err(error) => self.fail(request, error),
        }
    }

    /// The file cannot be given any further: the server is told, and the upload ends.
    fn fail(&mut self, request: RequestId, error: FetchError) {
        let code = if matches!(error, FetchError::LocalChanged { .. }) {
            Code::SourceChanged
        } else {
            Code::LocalIo
        };
        let said = if code == Code::SourceChanged { CHANGED } else { "the client cannot read the file" };
        self.responder.refused(request, code, said);
        self.failed = self.failed.take().or(Some(error));
    }

    /// Sends the bytes of a DATA frame behind their head.
    async fn data(
        &mut self,
        request: RequestId,
        head: &Bytes,
        offset: u64,
        len: u64,
        ends_block: bool,
    ) -> Result<(), FetchError> {
        if ends_block && !self.shared.offer.is_unchanged() {
            self.fail(request, self.shared.offer.changed());
            return Ok(());
        }
        self.write(head).await?;
        let pace = &self.shared.arrived.pace;
        let mut done = 0;
        while done < len && self.ended.is_none() {
            let stretch = (len - done).min(pace.stretch() as u64);
            match self.link.give_now(self.shared.offer.file(), offset + done, stretch) {
                Ok(None) => self.room().await?,
                Ok(Some(0)) => {
                    self.fill(len - done).await?;
                    self.fail(request, self.shared.offer.changed());
                    return Ok(());
                }
                Ok(Some(count)) => {
                    done += count as u64;
                    self.gave(count as u64)?;
                    pace.rest(count).await;
                }
                Err(Ungiven::File(error)) => {
                    self.fill(len - done).await?;
                    self.fail(request, self.shared.offer.unreadable(error));
                    return Ok(());
                }
                Err(Ungiven::Link(error)) => return self.why(error).await,
            }
        }
        Ok(())
    }

    /// So many bytes of the file were taken.
    fn gave(&mut self, count: u64) -> Result<(), FetchError> {
        let given = self.shared.given.fetch_add(count, Ordering::Relaxed) + count;
        self.shared.arrived.add(count);
        self.moves();
        if given > self.shared.offer.size().saturating_mul(PUT_REPEATS_MAX).saturating_add(PUT_SURPLUS_MAX) {
            return Err(self.violated("it asks for the same bytes again and again"));
        }
        Ok(())
    }

    /// Sends zeros in place of bytes that are not there: the frame that was begun has to be ended.
    async fn fill(&mut self, mut count: u64) -> Result<(), FetchError> {
        const ZEROS: [u8; V2_FILL] = [0; V2_FILL];
        while count > 0 && self.ended.is_none() {
            let part = usize::try_from(count).unwrap_or(V2_FILL).min(V2_FILL);
            self.write(&ZEROS[..part]).await?;
            count -= part as u64;
        }
        Ok(())
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), FetchError> {
        while !bytes.is_empty() && self.ended.is_none() {
            match self.link.write_now(bytes) {
                Ok(Some(count)) => bytes = &bytes[count..],
                Ok(None) => self.room().await?,
                Err(error) => return self.why(error).await,
            }
        }
        Ok(())
    }

    /// Waits for room, and hears meanwhile what the server says.
    async fn room(&mut self) -> Result<(), FetchError> {
        let may_read = self.unanswered < PUT_UNANSWERED_MAX;
        if let Err(error) = self.link.ready(may_read, true, self.until.deadline).await {
            return self.why(error).await;
        }
        self.listen()
    }

    /// Waits until the server says something.
    async fn wait(&mut self) -> Result<(), FetchError> {
        if self.link.has_unsent() && self.link.write_now(&[])?.is_some() && !self.link.has_unsent() {
            return Ok(());
        }
        self.link.ready(true, self.link.has_unsent(), self.until.deadline).await
    }

    /// What ended the connection: the server may have said why.
    async fn why(&mut self, error: FetchError) -> Result<(), FetchError> {
        self.link.read_rest().await;
        self.hear()?;
        if self.ended.is_some() { Ok(()) } else { Err(error) }
    }

    /// What the server says to have stored has to be what it was given.
    fn stored(&self, root: Option<Root>) -> Result<Stored, FetchError> {
        let Shared { offer, put, .. } = self.shared;
        let Some(root) = root else {
            return match put.unless_same {
                true => Ok(Stored::Same),
                false => Err(self.violated("it says that the file was there, which was not asked")),
            };
        };
        if offer.complete()?.root() == root {
            return Ok(Stored::New(root));
        }
        Err(FetchError::StoredOther { peer: self.link.peer(), name: text::shown(&put.name).to_string() })
    }

    /// Tells the server why nothing more comes, and waits until it has understood: closing with its words unread could
    /// take back what was told. Nobody waits for long.
    async fn give_up(&mut self) {
        let saying = async {
            while let Some(Output::Frames(frames)) = self.responder.next(now()) {
                self.write(&frames).await?;
            }
            while self.ended.is_none() {
                self.wait().await?;
                self.listen()?;
            }
            Ok::<_, FetchError>(())
        };
        let _ = timeout(PUT_FAREWELL, saying).await;
    }
}

const CHANGED: &str = "the file changed while it was being sent";

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
