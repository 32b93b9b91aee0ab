//! The edge of wire format v2 (`docs/protocol.md`): many requests on one connection.
//!
//! What is due is for the [`Responder`] to say. This edge opens, hashes and proves what it asks for,
//! sends what it gives out, and feeds it what comes in. One task does all of it, one thing after the
//! other: while a frame is being sent nothing is read, so a peer that asks and does not read is held
//! up by its own socket. Work that takes time runs beside it and is given up when nobody wants it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::Context;
use super::end::End;
use super::precedence::Standing;
use super::wire::Wire;
use crate::catalog::history::Direction;
use crate::codec::WireError;
use crate::codec::v2::{ClientFrame, Hello, RequestId, TransferId};
use crate::error::Code;
use crate::exchange::{Ask, Output, Responder};
use crate::limits::{PRIORITY_PROBE, V2_BATCH, V2_GATHER, V2_OPENING_MAX, V2_ROOM_MIN};
use crate::listing::Stretch;
use crate::names::FileName;
use crate::priority::Priority;
use crate::rights::Verb;
use crate::service::access::{Caller, Denied, NotAccepted, Permit};
use crate::service::accounts::Account;
use crate::service::control::{ControlError, Page};
use crate::service::digests::HashError;
use crate::service::history::Small;
use crate::service::listing::ListingError;
use crate::service::live::Presence;
use crate::service::pushes::Delivery;
use crate::service::small::{Lane, Reading};
use crate::service::uploads::{Begun, Room, Stored, UploadError};
use crate::service::versions::{self, Version};
use crate::service::{Event, ServiceError};
use crate::tree::{Tree, Value};

mod cancelling;
mod changing;
mod control;
mod hearing;
mod listing;
mod opening;
mod pushing;
mod receiving;
mod sending;

use control::Controls;
use listing::Listing;
use opening::Opening;
use pushing::Pushing;
use receiving::{Following, Kept, Puts, Wholes};
use sending::Whole;

/// The one text with which a name is refused, whatever the reason.
const NO_SUCH_FILE: &str = "there is no such file";
const CHANGED: &str = "the file changed while it was being sent";
/// What the client of a transfer is told that somebody else has cancelled.
const CANCELLED: &str = "the transfer was cancelled by an operator of the server";

/// Serves a connection whose hello has been read; `input` is what came behind it.
pub(super) async fn serve(
    hello: Hello,
    input: BytesMut,
    wire: &mut Wire,
    peer: SocketAddr,
    context: &Context,
) -> Result<(), End> {
    if let Some(lacking) = hello.need.into_iter().next() {
        // Nothing is known yet that a client could need.
        let text = format!("this server does not know the capability {lacking}");
        wire.write_all(&Responder::violated(Code::Unsupported, &text), false).await?;
        wire.say_farewell().await;
        return Err(End::Lacking(lacking));
    }
    let mut connection = Connection::new(hello.window, input, wire, peer, context);
    // The first thing that is said, whatever comes of the first request.
    if let Some(Output::Frames(welcome)) = connection.responder.next(Instant::now().into_std()) {
        connection.output.extend_from_slice(&welcome);
    }
    let ended = match hello.first {
        // A hello may go to a server that takes it for a name, and logs it.
        Some(ClientFrame::Auth(_)) => Err(WireError::Frame("a key is in the hello").into()),
        Some(first) => connection.hear_asked(first),
        None => Ok(()),
    };
    let ended = match ended {
        Ok(()) => connection.run(wire).await,
        Err(end) => Err(end),
    }
    .inspect_err(|end| connection.blame(&end.to_string()));
    context.service.note_small(&connection.sent_small);
    context.service.note_small(&connection.taken_small);
    if matches!(ended, Err(End::NotAccepted(_))) {
        // Whoever has to wait for a refusal should cost little.
        drop(connection);
    }
    let said = match &ended {
        Err(End::Protocol(error)) => Some(Responder::violated(Code::Protocol, &error.to_string())),
        Err(End::NotAccepted(reason)) if may_say(*reason, peer, context).await => {
            Some(Responder::violated(Code::NotAllowed, &reason.to_string()))
        }
        _ => None,
    };
    if let Some(said) = &said {
        wire.rank(None);
        wire.write_all(said, false).await?;
    }
    if said.is_some() || matches!(ended, Ok(()) | Err(End::Stopping)) {
        wire.say_farewell().await;
    }
    ended
}

/// Waits until it is time to say that a key is not accepted; `false` if it must not be said at all.
pub(super) async fn may_say(reason: NotAccepted, peer: SocketAddr, context: &Context) -> bool {
    if reason == NotAccepted::Clear {
        // Nothing was tried: the key was not even looked at.
        return true;
    }
    let Some(turn) = context.service.failed_attempt(peer.ip(), Instant::now().into_std()) else {
        return false;
    };
    tokio::select! {
        () = sleep_until(Instant::from_std(turn.at)) => true,
        () = context.stopping.cancelled() => false,
    }
}

/// What is known of a request whose file is open.
#[derive(Clone)]
struct Work {
    version: Arc<Version>,
    account: Option<Arc<Account>>,
}

impl Work {
    fn is_same(&self, other: &Self) -> bool {
        let same_account = match (&self.account, &other.account) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (None, None) => true,
            _ => false,
        };
        same_account && Arc::ptr_eq(&self.version, &other.version)
    }
}

/// A piece of work that was done for a request.
enum Done {
    Opened(RequestId, Permit, Option<(TransferId, u64)>, Result<Arc<Version>, ServiceError>, Turn),
    Read(Opening, Vec<u8>, Result<Reading, ServiceError>, Turn),
    Rooted(RequestId, Result<Arc<Tree>, HashError>),
    Valued(RequestId, u64, Result<Value, HashError>),
    Listed(RequestId, Result<Stretch, ListingError>),
    Changed(RequestId, Result<(), UploadError>, Turn),
    Offered(RequestId, Result<Begun, UploadError>),
    Kept(Option<Kept>),
    Stirred(RequestId),
    Announce,
    Delivered(RequestId, Delivery),
    Roomed(Room),
    Stored(RequestId, Permit, u64, Result<(Stored, Option<FileName>), UploadError>),
    Paged(RequestId, Result<Page, ControlError>),
}

/// A turn to open a file, held until what came of it has been received or is gone.
type Turn = Option<Arc<OwnedSemaphorePermit>>;

type Running = Pin<Box<dyn Future<Output = Done> + Send>>;

struct Connection<'a> {
    context: &'a Context,
    caller: Caller,
    /// Whether it has shown a key: that is possible once.
    has_shown_key: bool,
    responder: Responder,
    works: HashMap<RequestId, Slot>,
    running: JoinSet<Done>,
    /// Turns to take a thread for opening a file. A request that is cancelled ends at once, its thread does
    /// not, and what it opened is closed only when that is noticed: without turns, whoever asks and cancels
    /// again and again would have all threads and descriptors.
    openings: Arc<Semaphore>,
    input: BytesMut,
    /// Room for what comes in next.
    room: usize,
    /// Bytes that come next, in place of a frame.
    following: Option<Following>,
    input_ended: bool,
    /// Requests to remove, rename or make something that have not ended.
    changing: BTreeSet<RequestId>,
    /// Small files that come as a whole.
    wholes: Wholes,
    /// Files that the client puts and that this end asks for.
    puts: Puts,
    /// What is asked of the server about itself.
    controls: Controls,
    /// Stirred whenever somebody cancels a transfer.
    cancels: watch::Receiver<()>,
    /// As others see this connection.
    presence: Arc<Presence>,
    /// Files for those who listen, and whether this client does.
    pushing: Pushing,
    /// Bytes that have come in.
    came: u64,
    /// Since when the client owes something, and what had come by then.
    demanded: Option<(Instant, u64)>,
    /// When the client is told next that what it waits for is still being done.
    still_at: Option<Instant>,
    /// Frames that go out with the next write.
    output: BytesMut,
    /// The highest priority of the files in it.
    rank: Option<Priority>,
    /// Where this connection stands among those that bring files.
    taking: Standing,
    /// It has to wait with reading, because others go first.
    is_held: bool,
    /// Small files that the output holds as a whole.
    whole: Vec<Whole>,
    /// Those that were sent, for the history.
    sent_small: Small,
    /// Small files that came in as a whole, likewise.
    taken_small: Small,
    /// Files and accounts of requests that have ended: the next one of the same transfer finds them
    /// as they were.
    held: VecDeque<Work>,
}

/// What has come in.
struct Taken {
    /// Anything at all.
    bytes: bool,
    /// At least one whole frame.
    frames: bool,
}

/// What this edge holds for a request in flight.
#[derive(Default)]
struct Slot {
    work: Option<Work>,
    listing: Option<Listing>,
    running: Vec<AbortHandle>,
}

impl<'a> Connection<'a> {
    /// A connection on which a window was allowed for each request, and nothing else was said; `input` is what came
    /// behind that.
    fn new(window: u64, input: BytesMut, wire: &Wire, peer: SocketAddr, context: &'a Context) -> Self {
        let mut responder = Responder::new(window);
        if let Some(frame_max) = wire.frame_max() {
            responder.limit_data(frame_max);
        }
        Self {
            context,
            caller: Caller::new(peer, wire.is_secured()),
            has_shown_key: false,
            responder,
            works: HashMap::new(),
            running: JoinSet::new(),
            openings: Arc::new(Semaphore::new(V2_OPENING_MAX)),
            input,
            room: V2_ROOM_MIN,
            following: None,
            input_ended: false,
            changing: BTreeSet::new(),
            wholes: Wholes::default(),
            puts: Puts::default(),
            pushing: Pushing::default(),
            controls: Controls::default(),
            cancels: context.service.live().cancels(),
            presence: Arc::clone(wire.presence()),
            came: 0,
            demanded: None,
            still_at: None,
            output: BytesMut::new(),
            rank: None,
            taking: Standing::new(&context.taking),
            is_held: false,
            whole: Vec::new(),
            sent_small: Small::new(Direction::Download),
            taken_small: Small::new(Direction::Upload),
            held: VecDeque::new(),
        }
    }
}

impl Connection<'_> {
    async fn run(&mut self, wire: &mut Wire) -> Result<(), End> {
        let mut active = Instant::now();
        loop {
            self.do_asks();
            let mut has_moved = self.send(wire).await?;
            let Taken { bytes, frames } = self.take_input(wire)?;
            has_moved |= frames | self.end_cancelled();
            while self.has_room()
                && let Some(done) = self.running.try_join_next()
            {
                self.take(done.ok());
                has_moved = true;
            }
            // What was sent may have been the last thing before something has to be done outside.
            has_moved |= self.do_asks();
            if has_moved {
                active = Instant::now();
            } else if bytes && active.elapsed() < self.idle_timeout() {
                // Parts of a frame, which do not keep a connection open by themselves.
            } else if self.input_ended && self.is_idle() {
                return Ok(());
            } else if self.input_ended && self.lacks_input() && self.has_taken_all() {
                return Err(End::Unfinished);
            } else {
                self.wait(wire, active).await?;
            }
        }
    }

    /// Waits until something can be done.
    async fn wait(&mut self, wire: &mut Wire, active: Instant) -> Result<(), End> {
        let idle_timeout = self.idle_timeout();
        let tick = self.responder.deadline().map(Instant::from_std);
        let is_idle = self.is_idle();
        let still_at = self.still_at();
        let has_works = !self.works.is_empty();
        let may_hear = self.may_hear();
        let demanded = self.demanded();
        let held = self.is_held.then(|| Instant::now() + PRIORITY_PROBE);
        let may_hear = may_hear && !self.is_held;
        let told = tick.into_iter().chain(still_at).chain(demanded).chain(held).min();
        if self.input_ended && told.is_none() && self.running.is_empty() {
            // What is left waits for a window or an answer, which cannot come any more.
            return Err(End::Unfinished);
        }
        let deadline = told.unwrap_or(active + idle_timeout);
        if is_idle {
            // Whoever has nothing to ask for should cost little.
            wire.rest();
            self.output = BytesMut::new();
            self.room = V2_ROOM_MIN;
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
        }
        tokio::select! {
            ready = wire.readable(), if !self.input_ended && may_hear => ready?,
            Some(done) = self.running.join_next() => self.take(done.ok()),
            // It is looked at where everything is.
            Ok(()) = self.cancels.changed(), if has_works => self.cancels.mark_changed(),
            () = sleep_until(deadline) => match told {
                None => return Err(End::Idle(idle_timeout)),
                Some(_) => {
                    self.responder.tick(Instant::now().into_std());
                    self.tell_still_at();
                    self.demand()?;
                }
            },
            () = self.context.stopping.cancelled(), if is_idle => return Err(End::Stopping),
        }
        Ok(())
    }

    /// Does what the responder asks for, as far as there is room for what it gives; `true` if that was
    /// anything.
    fn do_asks(&mut self) -> bool {
        // All requests that are answered here have been heard already, as a lane demands.
        let mut lane = Lane::default();
        for done in 0..V2_BATCH {
            let ask = if self.has_room() { self.responder.ask() } else { None };
            let Some(ask) = ask else { return done > 0 };
            match ask {
                Ask::Open { request, name, token, transfer, small } => {
                    let token = token.and_then(versions::Token::from_bytes);
                    let verb = if transfer.is_some() { Verb::Get } else { Verb::Stat };
                    match self.context.service.permit(&self.caller, verb, &name) {
                        Ok(permit) => {
                            self.read(Opening { request, permit, token, transfer, small }, &mut lane);
                        }
                        Err(Denied::Name(error)) => self.refuse(request, &name, &error.to_string()),
                        Err(denied) => self.deny(request, denied),
                    }
                }
                Ask::Root(request) => {
                    let Some(version) = self.version(request) else { continue };
                    self.start(
                        request,
                        Box::pin(async move { Done::Rooted(request, version.complete().await) }),
                    );
                }
                Ask::Value(request, block) => {
                    let Some(version) = self.version(request) else { continue };
                    self.start(
                        request,
                        Box::pin(async move { Done::Valued(request, block, version.value(block).await) }),
                    );
                }
                Ask::List(request, list) => self.list(request, &list),
                Ask::Forget(request) => {
                    let slot = self.works.remove(&request).unwrap_or_default();
                    slot.running.iter().for_each(AbortHandle::abort);
                }
            }
        }
        true
    }

    fn has_room(&self) -> bool {
        self.output.len() < V2_GATHER
    }

    /// Whether nothing is in flight.
    fn is_idle(&self) -> bool {
        self.responder.is_idle() && self.changes_nothing()
    }

    fn version(&self, request: RequestId) -> Option<Arc<Version>> {
        let work = self.works.get(&request)?.work.as_ref()?;
        Some(Arc::clone(&work.version))
    }

    /// Does a piece of work: at once if nothing has to be waited for, else beside this task.
    fn start(&mut self, request: RequestId, mut work: Running) {
        match work.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Ready(done) => self.finish(done),
            Poll::Pending => {
                let handle = self.running.spawn(work);
                if let Some(slot) = self.works.get_mut(&request) {
                    slot.running.retain(|running| !running.is_finished());
                    slot.running.push(handle);
                }
            }
        }
    }

    /// Takes what a piece of work beside this task has given; none if it was given up.
    fn take(&mut self, done: Option<Done>) {
        if let Some(done) = done {
            self.finish(done);
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Opened(request, permit, transfer, opened, _turn) => {
                self.opened(request, &permit, transfer, opened);
            }
            Done::Read(opening, bytes, read, _turn) => self.read_beside(opening, &bytes, read),
            Done::Rooted(request, Ok(tree)) => {
                self.proven(request, &tree);
                self.responder.rooted(request, tree, Instant::now().into_std());
            }
            Done::Valued(request, block, Ok(value)) => self.responder.valued(request, block, value),
            Done::Listed(request, listed) => self.listed(request, listed),
            Done::Changed(request, changed, _turn) => self.changed(request, changed),
            Done::Offered(request, begun) => self.offered(request, begun),
            Done::Kept(kept) => self.kept(kept),
            Done::Stirred(request) => self.go_on(request),
            Done::Announce => self.announce(),
            Done::Delivered(request, delivery) => self.delivered(request, delivery),
            Done::Roomed(room) => self.roomed(room),
            Done::Stored(request, permit, size, stored) => self.stored(request, &permit, size, stored),
            Done::Paged(request, made) => self.paged(request, made),
            Done::Rooted(request, Err(error)) | Done::Valued(request, _, Err(error)) => {
                let (code, text) = match error {
                    HashError::Changed => (Code::SourceChanged, CHANGED.to_owned()),
                    other => (Code::LocalIo, other.to_string()),
                };
                self.fail(request, code, &text);
            }
        }
    }

    fn account(&self, request: RequestId) -> Option<&Arc<Account>> {
        self.works.get(&request)?.work.as_ref()?.account.as_ref()
    }

    /// The root of a request's file is known: all transfers of this file can say it.
    fn proven(&self, request: RequestId, tree: &Tree) {
        let Some(version) = self.version(request) else { return };
        for work in self.held.iter().filter(|held| Arc::ptr_eq(&held.version, &version)) {
            if let Some(account) = &work.account {
                account.proven(tree.root());
            }
        }
    }

    /// Says that a request is not allowed, or not any more.
    fn deny(&mut self, request: RequestId, denied: Denied) {
        self.fail(request, Code::NotAllowed, &denied.to_string());
    }

    fn fail(&mut self, request: RequestId, code: Code, text: &str) {
        if let Some(account) = self.account(request) {
            account.cut(text);
        }
        self.responder.refused(request, code, text);
    }

    /// Says why everything that is in flight ends here.
    fn blame(&self, cause: &str) {
        self.puts.blame(cause);
        let running = self.works.values().filter_map(|slot| slot.work.as_ref());
        for account in running.chain(&self.held).filter_map(|work| work.account.as_ref()) {
            account.cut(cause);
        }
        for Whole { permit, size, .. } in &self.whole {
            // How much of them has arrived is not known.
            self.context.service.tell(&Event::Cut {
                peer: permit.caller().peer(),
                key: permit.caller().key_name(),
                name: permit.name(),
                done: 0,
                size: *size,
                have: 0,
                cause,
            });
        }
    }
}
