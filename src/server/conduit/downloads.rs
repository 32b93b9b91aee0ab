//! Files that a client fetches: opened once, as they are then, and given chunk by chunk.
//!
//! A download ends with its last chunk, if all were asked for in their order, so that nothing stays open that a client
//! has done with: this dialect has no word for that.

use std::sync::Arc;

use base64ct::{Base64, Encoding};
use sha2::{Digest as _, Sha256};

use super::calls::{Calls, Fault, Given, NO_SUCH_TRANSFER, Open};
use crate::codec::conduit::words::Params;
use crate::codec::conduit::words::replies::{Begun, Chunk, Failure, done};
use crate::limits::CONDUIT_CHUNK;
use crate::rights::Verb;
use crate::server::CANCELLED;
use crate::service::Event;
use crate::service::access::Permit;
use crate::service::accounts::Account;
use crate::service::versions::Version;

const CHANGED: &str = "the file changed while it was being sent";

/// A file that is being fetched.
pub(super) struct Download {
    version: Arc<Version>,
    account: Arc<Account>,
    /// The chunk that is next if all are asked for in their order, and what those before it make; none if they were
    /// not.
    next: u64,
    sha256: Option<Sha256>,
}

/// A chunk that was read.
struct Read {
    data: String,
    sha256: Option<Sha256>,
    is_same: bool,
}

impl Download {
    /// Says why it ends, should it not be whole by then.
    pub(super) fn cut(&self, cause: &str) {
        self.account.cut(cause);
    }
}

impl Calls {
    pub(super) async fn start_download(&mut self, params: &Params<'_>) -> Given {
        let filename = params.filename.text().ok_or_else(|| Fault::parameter("filename"))?;
        self.check_room()?;
        let permit = self.permit(Verb::Get, filename)?;
        let opened = self.service.open_version(&permit, None, None, None).await;
        let version = opened.map_err(|error| self.requested(&permit, &error))?;
        let size = version.size();
        let account = self.service.account(&permit, [0; 16], size, 0);
        let (id, total_chunks) = (format!("{:032x}", fastrand::u128(..)), size.div_ceil(CONDUIT_CHUNK));
        let answer = done(Begun { transfer_id: &id, size, total_chunks, chunk_size: CONDUIT_CHUNK })?;
        if size == 0 {
            // Nothing of it is ever asked for.
            return Ok((answer, Some((account, 0))));
        }
        let download = Download { version, account, next: 0, sha256: Some(Sha256::new()) };
        self.keep(&id, Open::Out(Box::new(download)));
        Ok((answer, None))
    }

    fn requested(&self, permit: &Permit, error: &crate::service::ServiceError) -> Fault {
        let (peer, name) = (self.caller.peer(), permit.name().as_bytes());
        self.service.tell(&Event::Requested { peer, name });
        self.unopened(permit, error)
    }

    pub(super) async fn give_chunk(&mut self, params: &Params<'_>) -> Given {
        let id = params.transfer_id.text().ok_or_else(|| Fault::parameter("transfer_id"))?;
        let index = params.chunk_index.number().ok_or_else(|| Fault::parameter("chunk_index"))?;
        let mut download = match self.open(id) {
            Some(Open::Out(download)) => download,
            other => {
                if let Some(open) = other {
                    self.keep(id, open);
                }
                return Err(Fault::new(Failure::NotFound, NO_SUCH_TRANSFER));
            }
        };
        let size = download.version.size();
        // What was taken away since is over, also in the middle of a file.
        let name = download.version.name().as_bytes();
        if let Err(denied) = self.service.check(&self.caller, Verb::Get, name) {
            download.cut(&denied.to_string());
            return Err(denied.into());
        }
        if download.account.moving().cancelled_by().is_some() {
            self.service.live().has_heard(download.account.moving());
            return Err(broken(&download, CANCELLED));
        }
        let Some(offset) = index.checked_mul(CONDUIT_CHUNK).filter(|&offset| offset < size) else {
            self.keep(id, Open::Out(download));
            return Err(Fault::new(Failure::Value, format!("the file has no chunk {index}")));
        };
        let len = CONDUIT_CHUNK.min(size - offset);
        let (is_next, is_last) = (index == download.next, offset + len == size);
        let sha256 = download.sha256.take().filter(|_| is_next);
        let read = match read(&download.version, offset, len, sha256).await {
            Ok(read) if read.is_same => read,
            Ok(_) => return Err(broken(&download, CHANGED)),
            Err(cause) => return Err(broken(&download, &format!("the file cannot be read: {cause}"))),
        };
        let account = Arc::clone(&download.account);
        let mut checksum = None;
        if is_next {
            download.next += 1;
        }
        if is_next && is_last {
            checksum = read.sha256.map(|sha256| base16ct::lower::encode_string(&sha256.finalize()));
        } else {
            download.sha256 = read.sha256;
            self.keep(id, Open::Out(download));
        }
        let (data_b64, checksum) = (&*read.data, checksum.as_deref());
        let chunk = Chunk { chunk_index: index, data_b64, size: len, checksum };
        Ok((done(chunk)?, Some((account, len))))
    }
}

/// Says why a download ends here.
fn broken(download: &Download, cause: &str) -> Fault {
    download.cut(cause);
    Fault::new(Failure::Internal, format!("Error in file_download_chunk: {cause}"))
}

/// Reads a chunk, off the async threads. With the last one it is looked whether the file is still the same.
async fn read(
    version: &Arc<Version>,
    offset: u64,
    len: u64,
    sha256: Option<Sha256>,
) -> Result<Read, std::io::Error> {
    let version = Arc::clone(version);
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        let is_whole = version.file().read_at(&mut bytes, offset)? == bytes.len();
        let is_last = offset + len == version.size();
        let is_same = is_whole && (!is_last || version.is_unchanged()?);
        let sha256 = sha256.map(|sha256| sha256.chain_update(&bytes));
        Ok(Read { data: Base64::encode_string(&bytes), sha256, is_same })
    });
    reading.await.map_err(std::io::Error::other)?
}
