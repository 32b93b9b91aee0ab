//! The edge of Conduit (`docs/protocol.md`): a password, then calls and what they give, pushes, and pings both ways.
//!
//! 1. The first frame shows the password; the answer to a wrong one waits for its turn.
//! 2. Frames are taken as they come. What concerns the connection is done at once; calls are answered one after the
//!    other (`calls`), while the connection is heard and pings are answered.
//! 3. What is pushed to the client goes out a few frames at a time (`pushing`), behind what it has asked for.
//! 4. A client that says PAUSE is sent nothing for a while. Whatever waits for that is bounded; beyond, the client is
//!    not heard.
//!
//! Nothing is sent right behind AUTH_SUCCESS: the published client reads that and throws away what comes with it.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::codec::{Decoder, Encoder};

use super::Context;
use super::connection::TLS_ONLY;
use super::end::End;
use super::v2::may_say;
use super::wire::Wire;
use crate::codec::conduit::words::replies::{AuthSuccess, Reason, ServerInfo};
use crate::codec::conduit::words::{Auth, Message, read, write};
use crate::codec::conduit::{Frame, FrameCodec, FrameError, Kind};
use crate::limits::{
    CONDUIT_AUTH_MAX, CONDUIT_CALLS_BYTES, CONDUIT_CALLS_MAX, CONDUIT_HELD_MAX, CONDUIT_NAME_MAX,
    CONDUIT_PAUSE_MAX, CONDUIT_PAYLOAD_MAX, CONDUIT_QUIET, CONDUIT_REPLY_MAX, CONDUIT_ROOM,
};
use crate::service::access::{Caller, NotAccepted};
use crate::service::accounts::Account;
use crate::service::conduits::Listening;
use crate::service::history::Dialect;
use crate::text;
use crate::token::TokenHash;

mod calls;
mod downloads;
mod heart;
mod pushing;
mod uploads;

use calls::{Answer, Calls};
use heart::{Due, Heart};
use pushing::{Pushing, Told};

/// What a client is told whose password is wrong.
const WRONG_PASSWORD: &str = "Invalid password";
/// What a client is told that has shown the password where others can read it.
const IN_CLEAR: &str = "passwords are not accepted over an unencrypted connection; use TLS";
/// What a client is told when the server ends.
const STOPPING: &str = "the server is stopping";
/// Digits of a session's token: as many as the dialect has always had.
const TOKEN_DIGITS: usize = 128;

/// Reads the frame that shows the password.
pub(super) async fn read_first(wire: &mut Wire, buffer: &mut BytesMut) -> Result<Frame, End> {
    let mut codec = FrameCodec::new(CONDUIT_AUTH_MAX);
    loop {
        match codec.decode(buffer)? {
            Some(frame) if frame.kind == Kind::AuthRequest => return Ok(frame),
            Some(_other) => return Err(End::NoPassword),
            None if wire.read(buffer).await? == 0 => return Err(FrameError::Truncated.into()),
            None => {}
        }
    }
}

/// Serves a connection from the frame that shows the password on. `input` is what has come behind it.
pub(super) async fn serve(
    first: Frame,
    input: BytesMut,
    wire: &mut Wire,
    peer: SocketAddr,
    context: &Context,
) -> Result<(), End> {
    if context.settings.require_tls && !wire.is_secured() {
        refuse(TLS_ONLY, wire).await?;
        return Err(End::Plain);
    }
    let (shown, name) = {
        let auth: Auth<'_> = read(&first.payload).unwrap_or_default();
        let name = auth.client_info.and_then(|info| info.name.text()).unwrap_or_default();
        (auth.password_hash.text().and_then(TokenHash::parse_hex), text::shortened(name, CONDUIT_NAME_MAX))
    };
    drop(first);
    let caller = Caller::new(peer, wire.is_secured());
    let caller = match context.service.authenticate_conduit(&caller, shown) {
        Ok(caller) => caller,
        Err(reason) => {
            if may_say(reason, peer, context).await {
                let text = if reason == NotAccepted::Clear { IN_CLEAR } else { WRONG_PASSWORD };
                refuse(text, wire).await?;
            }
            return Err(End::NotAccepted(reason));
        }
    };
    wire.presence().speaks(Dialect::Conduit);
    wire.presence().shows(caller.key_name());
    let mut connection = Connection::new(context, caller, &name, input);
    let ended = connection.run(wire).await;
    let reason = match &ended {
        Err(end @ (End::Conduit(_) | End::PasswordAgain)) => Some(end.to_string()),
        Err(End::Stopping) => Some(STOPPING.to_owned()),
        _ => None,
    };
    if let Err(end) = &ended {
        connection.blame(&end.to_string());
    }
    drop(connection);
    if let Some(reason) = &reason {
        wire.write_all(&one(Kind::Close, 0, &write(&Reason { reason }).unwrap_or_default())?, false).await?;
    }
    if reason.is_some() || ended.is_ok() {
        wire.say_farewell().await;
    }
    ended
}

/// Says that a session does not begin.
async fn refuse(reason: &str, wire: &mut Wire) -> Result<(), End> {
    let payload = write(&Reason { reason }).unwrap_or_default();
    wire.write_all(&one(Kind::AuthFailure, 0, &payload)?, false).await?;
    wire.say_farewell().await;
    Ok(())
}

/// One frame as it goes over the wire.
fn one(kind: Kind, correlation: u64, payload: &Bytes) -> Result<BytesMut, FrameError> {
    let mut wire = BytesMut::new();
    let frame = frame(kind, correlation, payload.clone());
    FrameCodec::new(CONDUIT_REPLY_MAX).encode(&frame, &mut wire)?;
    Ok(wire)
}

/// A frame of now.
fn frame(kind: Kind, correlation: u64, payload: Bytes) -> Frame {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let sent_ms = u64::try_from(now.as_millis()).unwrap_or_default();
    Frame { kind, correlation, sent_ms, wants_ack: false, payload }
}

/// Who answers calls: at rest, or at one of them.
#[derive(Default)]
struct Worker {
    resting: Option<Box<Calls>>,
    working: Option<Working>,
}

type Working = Pin<Box<dyn Future<Output = (Box<Calls>, Answer)> + Send>>;

impl Worker {
    /// Waits for the answer to the call that is being answered; for ever if there is none.
    async fn answered(&mut self) -> Answer {
        let Some(working) = &mut self.working else { return std::future::pending().await };
        let (calls, answer) = working.as_mut().await;
        self.working = None;
        self.resting = Some(calls);
        answer
    }
}

/// A session.
struct Connection<'a> {
    context: &'a Context,
    input: BytesMut,
    input_ended: bool,
    output: BytesMut,
    worker: Worker,
    /// Calls that wait, and the bytes of them.
    waiting: VecDeque<Frame>,
    waiting_bytes: usize,
    /// Bytes of files in the output, to be accounted for when it is sent.
    moved: Vec<(Arc<Account>, u64)>,
    heart: Heart,
    pushing: Pushing,
    /// Given back when it ends.
    _listening: Option<Listening>,
    /// Frames of pushes that are due, and the tasks' end of what the client says to them.
    pushed: mpsc::Receiver<Frame>,
    told: mpsc::Sender<Told>,
    /// Whether a push is under way.
    is_pushing: Arc<AtomicBool>,
    /// Pings that were sent, pongs that came, and the pings whose pongs a push waits for.
    pings: u64,
    pongs: u64,
    awaited: VecDeque<u64>,
    /// Nothing is sent before this moment, because the client has said PAUSE.
    paused: Option<Instant>,
    /// Nothing that was not asked for is sent before this moment; none once the client was heard.
    quiet: Option<Instant>,
    is_closing: bool,
}

impl<'a> Connection<'a> {
    fn new(context: &'a Context, caller: Caller, name: &str, input: BytesMut) -> Self {
        let (service, idle_timeout) = (&context.service, context.settings.idle_timeout);
        let session = format!("{:032x}", fastrand::u128(..));
        let listening = service.may_listen(&caller).then(|| service.listen_conduit(&session, name)).flatten();
        let (listening, orders) = listening.unzip();
        let is_pushing = Arc::<AtomicBool>::default();
        let (pushing, pushed, told) =
            pushing::begin(Arc::clone(&is_pushing), service.clone(), caller.clone(), orders);
        let success = write(&AuthSuccess {
            session_token: &session_token(),
            server_info: ServerInfo { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") },
        });
        let mut connection = Self {
            context,
            input,
            input_ended: false,
            output: BytesMut::new(),
            worker: Worker {
                resting: Some(Box::new(Calls::new(service.clone(), caller, idle_timeout))),
                working: None,
            },
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            moved: Vec::new(),
            heart: Heart::new(std::time::Instant::now()),
            pushing,
            _listening: listening,
            pushed,
            told,
            pings: 0,
            pongs: 0,
            awaited: VecDeque::new(),
            is_pushing,
            paused: None,
            quiet: Some(Instant::now() + CONDUIT_QUIET),
            is_closing: false,
        };
        connection.say(Kind::AuthSuccess, 0, success.unwrap_or_default());
        connection
    }

    async fn run(&mut self, wire: &mut Wire) -> Result<(), End> {
        loop {
            self.send(wire).await?;
            let has_heard = self.hear(wire)?;
            self.begin_call();
            if self.is_closing && self.output.is_empty() {
                return Ok(());
            }
            if self.input_ended && self.is_idle() && !has_heard {
                self.input.is_empty().then_some(()).ok_or(FrameError::Truncated)?;
                return Ok(());
            }
            if !has_heard {
                self.wait(wire).await?;
            }
        }
    }

    /// Sends what there is, unless the client has said PAUSE.
    async fn send(&mut self, wire: &mut Wire) -> Result<(), End> {
        if self.output.is_empty() || self.is_paused() {
            return Ok(());
        }
        wire.write_all(&self.output, false).await?;
        self.output.clear();
        for (account, count) in self.moved.drain(..) {
            account.advance(count);
        }
        Ok(())
    }

    fn is_paused(&mut self) -> bool {
        self.paused = self.paused.filter(|&until| Instant::now() < until);
        self.paused.is_some()
    }

    /// Whether nothing is under way that the client has asked for.
    fn is_idle(&self) -> bool {
        self.worker.working.is_none() && self.waiting.is_empty() && self.output.is_empty()
    }

    fn is_at_rest(&self) -> bool {
        let is_pushing = self.is_pushing.load(Ordering::Relaxed);
        self.is_idle() && !is_pushing && self.worker.resting.as_ref().is_some_and(|calls| calls.is_at_rest())
    }

    /// Whether there is room for what the client says next.
    fn may_hear(&self) -> bool {
        !self.input_ended
            && !self.is_closing
            && self.output.len() < CONDUIT_HELD_MAX
            && self.waiting.len() < CONDUIT_CALLS_MAX
            && self.waiting_bytes < CONDUIT_CALLS_BYTES
    }

    /// Takes what has come; `true` if that was a whole frame or more.
    fn hear(&mut self, wire: &mut Wire) -> Result<bool, End> {
        let mut codec = FrameCodec::new(CONDUIT_PAYLOAD_MAX);
        let mut heard = false;
        while self.may_hear() {
            if let Some(frame) = codec.decode(&mut self.input)? {
                heard = true;
                self.take(frame)?;
                continue;
            }
            self.input.reserve(CONDUIT_ROOM);
            match wire.read_now(&mut self.input)? {
                None => break,
                Some(0) => self.input_ended = true,
                Some(_) => {}
            }
        }
        Ok(heard)
    }

    /// Does what a frame of the client says.
    fn take(&mut self, frame: Frame) -> Result<(), End> {
        self.heart.heard(std::time::Instant::now());
        self.quiet = None;
        if frame.wants_ack {
            self.say(Kind::Ack, frame.correlation, Bytes::new());
        }
        match frame.kind {
            Kind::RpcRequest | Kind::RpcList => {
                self.waiting_bytes += frame.payload.len();
                self.waiting.push_back(frame);
            }
            Kind::Ping => self.say(Kind::Pong, frame.correlation, Bytes::new()),
            Kind::Pong => {
                self.pongs += 1;
                while self.awaited.front().is_some_and(|&ping| self.pongs >= ping) {
                    self.awaited.pop_front();
                    let _ = self.told.try_send(Told::Through);
                }
            }
            Kind::Pause => self.paused = Some(Instant::now() + CONDUIT_PAUSE_MAX),
            Kind::Resume => self.paused = None,
            Kind::Close => {
                self.paused = None;
                self.say(Kind::CloseAck, frame.correlation, Bytes::new());
                self.is_closing = true;
            }
            Kind::Message => self.take_message(&frame.payload),
            // Nothing of the kind was asked for, and nothing has to be answered.
            Kind::RpcResponse | Kind::RpcError | Kind::Ack | Kind::Nack | Kind::CloseAck => {}
            Kind::AuthRequest | Kind::AuthSuccess | Kind::AuthFailure => return Err(End::PasswordAgain),
        }
        Ok(())
    }

    /// Messages of other types are for programs that this one knows nothing of.
    fn take_message(&mut self, payload: &[u8]) {
        let Ok(Message { kind, data: Some(said) }) = read::<Message<'_>>(payload) else { return };
        if kind.text() == Some("file_incoming_ack")
            && let Some(transfer) = said.transfer_id.text()
        {
            // Whoever says so again and again is heard once.
            let _ = self.told.try_send(Told::taken(transfer, said.ready));
        }
    }

    /// Lets the next call be answered, if none is.
    fn begin_call(&mut self) {
        if self.output.len() >= CONDUIT_HELD_MAX || self.is_closing {
            return;
        }
        if let Some(calls) = self.worker.resting.take() {
            match self.waiting.pop_front() {
                Some(frame) => {
                    self.waiting_bytes -= frame.payload.len();
                    self.worker.working = Some(Box::pin(calls.answer(frame)));
                }
                None => self.worker.resting = Some(calls),
            }
        }
    }

    /// Adds a frame to what goes out.
    fn say(&mut self, kind: Kind, correlation: u64, payload: Bytes) {
        // One that is too long cannot be: what calls give is bounded.
        let _ =
            FrameCodec::new(CONDUIT_REPLY_MAX).encode(&frame(kind, correlation, payload), &mut self.output);
    }

    /// Waits until something can be done, and does it.
    async fn wait(&mut self, wire: &mut Wire) -> Result<(), End> {
        let now = Instant::now();
        let may_hear = self.may_hear();
        let is_idle = self.is_at_rest();
        let may_push = !self.is_paused() && self.output.is_empty() && self.quiet.is_none_or(|at| at <= now);
        let deadline = match self.heart.due(now.into_std()) {
            Due::Dead => return Err(End::Dead(crate::limits::CONDUIT_DEAD_AFTER)),
            Due::Ping if self.output.len() < CONDUIT_HELD_MAX => {
                self.heart.asked(now.into_std());
                self.ping();
                return Ok(());
            }
            Due::Ping => now + CONDUIT_PAUSE_MAX,
            Due::At(at) => Instant::from_std(at),
        };
        let idle_at = self.worker.resting.as_mut().and_then(|calls| calls.expire(now));
        let ends = [Some(deadline), idle_at, self.paused, self.quiet.filter(|&at| at > now)];
        let deadline = ends.into_iter().flatten().min().unwrap_or(deadline);
        if is_idle {
            // Whoever has nothing to ask for should cost little.
            wire.rest();
            self.output = BytesMut::new();
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
        }
        tokio::select! {
            ready = wire.readable(), if may_hear => ready?,
            Answer { frame, moved } = self.worker.answered() => {
                self.say(frame.kind, frame.correlation, frame.payload);
                self.moved.extend(moved);
            }
            Some(frame) = self.pushed.recv(), if may_push => {
                if frame.kind == Kind::Ping {
                    self.ping();
                    self.awaited.push_back(self.pings);
                } else {
                    self.say(frame.kind, frame.correlation, frame.payload);
                }
            }
            () = self.pushing.as_mut() => self.pushing = Box::pin(std::future::pending()),
            () = sleep_until(deadline) => {}
            () = self.context.stopping.cancelled(), if is_idle => return Err(End::Stopping),
        }
        Ok(())
    }

    fn ping(&mut self) {
        self.pings += 1;
        self.say(Kind::Ping, 0, Bytes::new());
    }

    /// Says why everything that is under way ends here.
    fn blame(&self, cause: &str) {
        for (account, _) in &self.moved {
            account.cut(cause);
        }
        if let Some(calls) = &self.worker.resting {
            calls.blame(cause);
        }
    }
}

/// Random digits: the connection itself is the session, so nobody ever gains anything by them.
fn session_token() -> String {
    std::iter::repeat_with(|| fastrand::digit(16)).take(TOKEN_DIGITS).collect()
}
