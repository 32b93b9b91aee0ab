//! One connection: told by its first bytes, handed to its dialect, closed with care.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::end::End;
use super::wire::{Pace, Wire};
use super::{Context, Settings, v1, v2};
use crate::codec::v1::Request;
use crate::codec::v2::Hello;
use crate::service::Event;
use crate::sniff::{Dialect, sniff};

/// First buffer of a connection, in bytes: enough for most requests.
const FIRST_BUFFER: usize = 256;

/// Serves one connection from its first byte to its end.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, context: &Context) {
    context.service.tell(&Event::Opened { peer });
    let Settings { idle_timeout, rate_min, .. } = context.settings;
    let mut wire = Wire::new(stream, Pace { idle_timeout, rate_min }, context.rates.of(peer.ip()));
    let end = converse(&mut wire, peer, context).await;
    let cause = end.err().map(|end| end.to_string());
    context.service.tell(&Event::Closed { peer, cause: cause.as_deref() });
}

async fn converse(wire: &mut Wire, peer: SocketAddr, context: &Context) -> Result<(), End> {
    let deadline = Instant::now() + context.settings.request_timeout;
    let mut buffer = BytesMut::with_capacity(FIRST_BUFFER);
    let opening = async {
        let dialect = tell_dialect(wire, &mut buffer).await?;
        match dialect {
            Dialect::Native => v1::read_request(wire, &mut buffer).await,
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
    if let Request::Name(name) = &request
        && let Ok(hello) = Hello::parse(name)
    {
        return Box::pin(v2::serve(hello, buffer, wire, peer, context)).await;
    }
    // Whoever only connects should cost little: what answering needs is made when it is needed.
    Box::pin(v1::answer(request, wire, peer, context)).await
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
