//! Single answers of a server, waited for one at a time.

use std::ops::Range;

use super::link::Link;
use crate::client::FetchError;
use crate::codec::WireError;
use crate::codec::v2::{File, Get, RequestId, Stat};
use crate::exchange::Heard;
use crate::staged::Source;

/// Waits for the description of the file that was asked for last.
pub(super) async fn file_of(link: &mut Link, name: &[u8]) -> Result<File, FetchError> {
    loop {
        match link.hear().await? {
            Heard::File(_, file) => return Ok(file),
            Heard::Data(data) if data.block.is_none() => link.skip(data.len).await?,
            Heard::Failed(request, code, text) if request == link.last() => {
                return Err(not_there(link.failed(code, &text), name));
            }
            Heard::Failed(..) => {}
            _ => return Err(link.violated(WireError::Order("something else came than a file's description"))),
        }
    }
}

/// Tells a missing file as such.
pub(super) fn not_there(error: FetchError, name: &[u8]) -> FetchError {
    let name = crate::text::shown(name).to_string();
    match error {
        FetchError::Failed { code: crate::error::Code::NotFound, .. } => FetchError::NotFound(name),
        FetchError::Failed { code: crate::error::Code::NotAllowed, text, .. } => {
            FetchError::Refused { name, text }
        }
        other => other,
    }
}

/// The value of each block of the version `source`, or its root if it has only one.
pub(super) async fn values_of(
    link: &mut Link,
    get: Get,
    source: &Source,
) -> Result<Vec<(u64, [u8; crate::tree::HASH_LEN])>, FetchError> {
    let request = link.ask(|requester| requester.get(get)).await?;
    loop {
        match link.hear().await? {
            Heard::File(described, file)
                if described == request
                    && !source.is_same(&Source { size: file.size, root: file.root, token: file.token }) =>
            {
                return Err(FetchError::SourceChanged { peer: link.peer() });
            }
            Heard::End { request: ended, values, .. } if ended == request => return Ok(values),
            Heard::Failed(failed, code, text) if failed == request => return Err(link.failed(code, &text)),
            Heard::Data(data) => link.skip(data.len).await?,
            _ => {}
        }
    }
}

/// The size of a file as the server says it when it is asked again.
pub(super) async fn size_again(
    link: &mut Link,
    name: &[u8],
    running: Option<(RequestId, Range<u64>)>,
) -> Result<u64, FetchError> {
    if let Some((request, _)) = running {
        link.cancel(request).await?;
    }
    let said = bytes::Bytes::copy_from_slice(name);
    link.ask(|requester| requester.stat(Stat { root: false, name: said })).await?;
    Ok(file_of(link, name).await?.size)
}
