//! The edge of wire format v1 (`docs/protocol.md`): one request, one file, close.
//!
//! 1. The request is decoded; the service says whether the name may be asked for, and opens the file or refuses.
//! 2. `OK` goes out alone, as soon as the digest is there or the client's patience is at risk.
//! 3. After a pause the header follows in one write, with the data right behind it.
//! 4. The last bytes are held back until the file is known not to have changed.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::codec::{Decoder, Encoder};

use super::end::End;
use super::wire::{Farewell, Wire};
use super::{CANCELLED, Context};
use crate::catalog::history::Direction;
use crate::codec::v1::{self, Header, Request, RequestCodec, Response, ResponseCodec};
use crate::digest::Md5;
use crate::limits::{LAST_CHUNK, SEND_CHUNK, V1_OK_PATIENCE};
use crate::names::{FileName, NameError};
use crate::priority::Priority;
use crate::rights::Verb;
use crate::service::access::{Caller, Denied, Permit};
use crate::service::accounts::NO_TRANSFER;
use crate::service::transfer::Transfer;
use crate::service::{Event, ServiceError, Source};
use crate::storage::StoredFile;

/// Reads a whole request.
pub(super) async fn read_request(wire: &mut Wire, buffer: &mut BytesMut) -> Result<Request, End> {
    let mut codec = RequestCodec::default();
    loop {
        if let Some(request) = codec.decode(buffer)? {
            return Ok(request);
        }
        if wire.read(buffer).await? == 0 {
            codec.decode_eof(buffer)?;
            return Err(End::NoRequest);
        }
    }
}

/// Answers a request.
pub(super) async fn answer(
    request: Request,
    wire: &mut Wire,
    peer: SocketAddr,
    context: &Context,
) -> Result<(), End> {
    let (said, is_whole) = match request {
        Request::Name(said) => (said, true),
        Request::TooLong { beginning } => (beginning, false),
    };
    context.service.tell(&Event::Requested { peer, name: &said });
    // This dialect has no keys: whoever speaks it is anybody.
    let caller = Caller::new(peer, wire.is_secured());
    let permit = context.service.permit(&caller, Verb::Get, &said).and_then(|permit| match permit.name() {
        _ if !is_whole => Err(Denied::Name(NameError::TooLong)),
        name if name.as_text().is_none() => Err(Denied::Name(NameError::NotText)),
        _ => Ok(permit),
    });
    let permit = match permit {
        Ok(permit) => permit,
        Err(Denied::Name(error)) => return refuse(&said, &error.to_string(), wire, peer, context).await,
        Err(denied) => {
            let text = Response::Refused(denied.to_string().into());
            wire.write_all(&encoded(text)?, false).await?;
            wire.say_farewell().await;
            return Ok(());
        }
    };
    if context.service.is_cancelled(&permit, NO_TRANSFER, Direction::Download) {
        // This dialect had no words for it while the file was being sent.
        wire.write_all(&encoded(Response::Refused(Bytes::from_static(CANCELLED.as_bytes())))?, false).await?;
        wire.say_farewell().await;
        return Ok(());
    }
    match context.service.open(&permit).await {
        Ok(source) => send(&permit, source, wire, context).await,
        Err(ServiceError::Unavailable(cause)) => {
            context.service.tell(&Event::Unavailable { peer, name: permit.name(), cause: &cause });
            Err(End::Told)
        }
        Err(refused) => refuse(&said, &refused.to_string(), wire, peer, context).await,
    }
}

async fn refuse(
    name: &Bytes,
    cause: &str,
    wire: &mut Wire,
    peer: SocketAddr,
    context: &Context,
) -> Result<(), End> {
    context.service.tell(&Event::Refused { peer, name, cause });
    wire.write_all(&encoded(v1::not_found(name))?, false).await?;
    wire.say_farewell().await;
    Ok(())
}

async fn send(permit: &Permit, source: Source, wire: &mut Wire, context: &Context) -> Result<(), End> {
    let (peer, name) = (permit.caller().peer(), permit.name());
    wire.rank(Some(Priority::default()));
    let (md5, file) = match source {
        Source::Small { bytes, md5 } => {
            let pause_end = send_ok(wire, context).await?;
            let mut transfer = context.service.begin(permit, bytes.len() as u64);
            let moving = Arc::clone(transfer.moving());
            let sending = async {
                sleep_until(pause_end).await;
                send_small(name, md5, &bytes, &mut transfer, wire).await
            };
            let sent = tokio::select! {
                biased;
                sent = sending => sent,
                () = moving.cancelled() => Err(End::Cancelled),
            };
            if let Err(end) = sent {
                transfer.cut(&end.to_string());
                return Err(End::Told);
            }
            return finish(transfer, md5, wire).await;
        }
        Source::Large(file) => match digest_and_ok(&file, wire, context).await? {
            Ok(md5) => (md5, file),
            Err(cause) => {
                context.service.tell(&Event::Unavailable { peer, name, cause: &cause });
                return Err(End::Told);
            }
        },
    };
    let mut transfer = context.service.begin(permit, file.size());
    let moving = Arc::clone(transfer.moving());
    let sent = tokio::select! {
        biased;
        sent = send_large(name, md5, &file, &mut transfer, wire) => sent,
        () = moving.cancelled() => Err(Cut::End(End::Cancelled)),
    };
    match sent {
        Ok(()) => finish(transfer, md5, wire).await,
        Err(end) => {
            transfer.cut(&end.to_string());
            Err(End::Told)
        }
    }
}

/// Sends `OK` and says when the pause after it is over.
async fn send_ok(wire: &mut Wire, context: &Context) -> Result<Instant, End> {
    wire.write_all(&encoded(Response::Ok)?, false).await?;
    Ok(Instant::now() + context.settings.v1_pause)
}

/// Sends `OK` once the digest is known, or without it when the client must not wait longer;
/// returns when both are done and the pause is over.
async fn digest_and_ok(
    file: &Arc<StoredFile>,
    wire: &mut Wire,
    context: &Context,
) -> Result<Result<Md5, String>, End> {
    let mut digest = std::pin::pin!(context.service.md5(file));
    let early = timeout(V1_OK_PATIENCE, &mut digest).await.ok();
    if let Some(Err(error)) = early {
        return Ok(Err(error.to_string()));
    }
    let pause_end = send_ok(wire, context).await?;
    let md5 = match early {
        Some(md5) => md5,
        None => digest.await,
    };
    sleep_until(pause_end).await;
    Ok(md5.map_err(|error| error.to_string()))
}

async fn send_small(
    name: &FileName,
    md5: Md5,
    bytes: &[u8],
    transfer: &mut Transfer<'_>,
    wire: &mut Wire,
) -> Result<(), End> {
    let mut message = header(name, bytes.len() as u64, md5)?;
    message.extend_from_slice(bytes);
    wire.write_all(&message, false).await?;
    transfer.advance(bytes.len() as u64);
    Ok(())
}

async fn send_large(
    name: &FileName,
    md5: Md5,
    file: &Arc<StoredFile>,
    transfer: &mut Transfer<'_>,
    wire: &mut Wire,
) -> Result<(), Cut> {
    let size = file.size();
    wire.write_all(&header(name, size, md5)?, true).await.map_err(End::from)?;
    let held_back = size.saturating_sub(LAST_CHUNK);
    let mut warm = 0;
    while transfer.done() < size {
        let done = transfer.done();
        let limit = if done < held_back { held_back } else { size };
        if limit == size && !file.is_unchanged().map_err(Cut::File)? {
            return Err(Cut::Changed);
        }
        if done == warm {
            let count = (size - done).min(SEND_CHUNK);
            Wire::warm(file, done, count).await.map_err(End::from)?;
            warm += count;
        }
        let count = limit.min(warm) - done;
        match wire.send_file(file, done, count).await.map_err(End::from)? {
            0 => return Err(Cut::Changed),
            sent => transfer.advance(sent),
        }
    }
    Ok(())
}

/// Why a transfer ended before its end.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the file changed while it was being sent")]
    Changed,
    #[error("the file cannot be read: {0}")]
    File(std::io::Error),
    #[error(transparent)]
    End(#[from] End),
}

async fn finish(transfer: Transfer<'_>, md5: Md5, wire: &mut Wire) -> Result<(), End> {
    let sent = transfer.elapsed();
    match wire.say_farewell().await {
        Farewell::Closed => {
            let taken = transfer.elapsed();
            transfer.finish(md5, taken);
            Ok(())
        }
        Farewell::Silent => {
            transfer.finish(md5, sent);
            Ok(())
        }
        Farewell::Reset => {
            transfer.cut("the client reset the connection and may not have read everything");
            Err(End::Told)
        }
    }
}

fn header(name: &FileName, size: u64, md5: Md5) -> Result<BytesMut, End> {
    let name = Bytes::copy_from_slice(name.base());
    encoded(Response::Header(Header { name, size, md5 }))
}

/// An answer as it goes over the wire.
pub(super) fn encoded(response: Response) -> Result<BytesMut, End> {
    let mut message = BytesMut::new();
    ResponseCodec::default().encode(response, &mut message)?;
    Ok(message)
}
