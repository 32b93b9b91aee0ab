//! One connection: told by its first bytes, handed to its dialect, closed with care. Within TLS the first
//! bytes tell once more.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::end::End;
use super::precedence::Standing;
use super::wire::{Pace, Wire};
use super::{Context, Settings, conduit, v1, v2};
use crate::codec::conduit::Frame;
use crate::codec::v1::{Request, Response};
use crate::codec::v2::Hello;
use crate::error::Code;
use crate::exchange::Responder;
use crate::service::Event;
use crate::service::history::Dialect as Spoken;
use crate::sniff::{Dialect, sniff};

/// First buffer of a connection, in bytes: enough for most requests.
const FIRST_BUFFER: usize = 256;

/// What a peer is told that has to come with TLS.
pub(super) const TLS_ONLY: &str = "this server speaks TLS only; connect with --tls require";

/// What a peer says first.
enum First {
    Request(Request),
    /// Of Conduit.
    Frame(Frame),
}

/// Serves one connection from its first byte to its end.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, context: &Context) {
    let presence = context.service.live().enter(peer);
    context.service.tell(&Event::Opened { peer });
    let Settings { idle_timeout, rate_min, .. } = context.settings;
    let pace = Pace { idle_timeout, rate_min };
    let standing = Standing::new(&context.sending);
    let mut wire = Wire::new(stream, pace, context.rates.of(peer.ip()), standing, presence);
    let end = converse(&mut wire, peer, context).await;
    let cause = end.err().map(|end| end.to_string());
    context.service.tell(&Event::Closed { peer, cause: cause.as_deref() });
}

async fn converse(wire: &mut Wire, peer: SocketAddr, context: &Context) -> Result<(), End> {
    let deadline = Instant::now() + context.settings.request_timeout;
    let mut buffer = BytesMut::with_capacity(FIRST_BUFFER);
    let opening = async {
        let mut dialect = tell_dialect(wire, &mut buffer).await?;
        if dialect == Dialect::Tls
            && let Some(tls) = &context.tls
        {
            Box::pin(wire.secure(tls.config(), &mut buffer)).await?;
            context.service.tell(&Event::Secured { peer });
            wire.presence().secured();
            buffer.reserve(FIRST_BUFFER);
            dialect = tell_dialect(wire, &mut buffer).await?;
        }
        match dialect {
            Dialect::Native => v1::read_request(wire, &mut buffer).await.map(First::Request),
            Dialect::Conduit if context.service.serves_conduit() => {
                Box::pin(conduit::read_first(wire, &mut buffer)).await.map(First::Frame)
            }
            other => Err(End::NotServed(other)),
        }
    };
    let request = tokio::select! {
        biased;
        request = tokio::time::timeout_at(deadline, opening) => {
            request.map_err(|_| End::RequestTimeout(context.settings.request_timeout))??
        }
        () = context.stopping.cancelled() => return Err(End::Stopping),
    };
    // Whoever only connects should cost little: what answering needs is made when it is needed.
    match request {
        First::Request(request) => Box::pin(answer(request, buffer, wire, peer, context)).await,
        First::Frame(frame) => Box::pin(conduit::serve(frame, buffer, wire, peer, context)).await,
    }
}

/// Answers a peer's first request, in the version that it speaks.
async fn answer(
    request: Request,
    input: BytesMut,
    wire: &mut Wire,
    peer: SocketAddr,
    context: &Context,
) -> Result<(), End> {
    let hello = match &request {
        Request::Name(name) => Hello::parse(name).ok(),
        Request::TooLong { .. } => None,
    };
    if context.settings.require_tls && !wire.is_secured() {
        return refuse_plain(hello.is_some(), wire).await;
    }
    wire.presence().speaks(if hello.is_some() { Spoken::V2 } else { Spoken::V1 });
    match hello {
        Some(hello) => Box::pin(v2::serve(hello, input, wire, peer, context)).await,
        None => v1::answer(request, wire, peer, context).await,
    }
}

/// Tells a peer without TLS, in its dialect, that it has to come with it.
async fn refuse_plain(is_v2: bool, wire: &mut Wire) -> Result<(), End> {
    let refusal = if is_v2 {
        Responder::violated(Code::NotAllowed, TLS_ONLY)
    } else {
        v1::encoded(Response::Refused(Bytes::from_static(TLS_ONLY.as_bytes())))?.freeze()
    };
    wire.write_all(&refusal, false).await?;
    wire.say_farewell().await;
    Err(End::Plain)
}

async fn tell_dialect(wire: &mut Wire, buffer: &mut BytesMut) -> Result<Dialect, End> {
    loop {
        if let Some(dialect) = sniff(buffer) {
            return Ok(dialect);
        }
        if wire.read(buffer).await? == 0 {
            return Err(End::NoRequest);
        }
    }
}
