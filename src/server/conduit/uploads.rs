//! Files that a client brings: begun, brought chunk by chunk in their order, and stored when all of it has come and
//! is what was announced.

use base64ct::{Base64, Encoding};

use super::calls::{Calls, Fault, Given, NO_SUCH_TRANSFER, Open};
use crate::codec::conduit::words::Params;
use crate::codec::conduit::words::replies::{Begun, Failure, Received, Stored, done, done_itself};
use crate::limits::CONDUIT_CHUNK;
use crate::service::incoming::{Announced, Incoming, SHA256_LEN};

/// A file that is coming in.
pub(super) struct Upload {
    incoming: Incoming,
    /// Chunks that have come, of whatever length.
    chunks: u64,
}

impl Calls {
    pub(super) async fn start_upload(&mut self, params: &Params<'_>) -> Given {
        let filename = params.filename.text().ok_or_else(|| Fault::parameter("filename"))?;
        let size = params.size.number().ok_or_else(|| Fault::parameter("size"))?;
        let checksum = params.checksum.text().ok_or_else(|| Fault::parameter("checksum"))?;
        let mut sha256 = [0; SHA256_LEN];
        let decoded = base16ct::mixed::decode(checksum, &mut sha256).map(<[u8]>::len);
        if decoded != Ok(SHA256_LEN) {
            return Err(Fault::new(Failure::Value, "the checksum is not 64 hexadecimal digits"));
        }
        self.check_room()?;
        let announced = Announced { size, sha256 };
        let incoming = self.service.incoming(&self.caller, filename.as_bytes(), announced).await?;
        let id = format!("{:032x}", fastrand::u128(..));
        self.keep(&id, Open::In(Box::new(Upload { incoming, chunks: 0 })));
        let total_chunks = size.div_ceil(CONDUIT_CHUNK);
        Ok((done(Begun { transfer_id: &id, size, total_chunks, chunk_size: CONDUIT_CHUNK })?, None))
    }

    pub(super) async fn take_chunk(&mut self, params: &Params<'_>) -> Given {
        let id = params.transfer_id.text().ok_or_else(|| Fault::parameter("transfer_id"))?;
        let index = params.chunk_index.number().ok_or_else(|| Fault::parameter("chunk_index"))?;
        let data = params.data_b64.text().ok_or_else(|| Fault::parameter("data_b64"))?;
        let Upload { incoming, chunks } = *self.upload(id)?;
        let total_chunks = incoming.size().div_ceil(CONDUIT_CHUNK);
        if index > chunks {
            let text = format!("chunk {index} came out of its order: {chunks} is the next one");
            self.keep(id, Open::In(Box::new(Upload { incoming, chunks })));
            return Err(Fault::new(Failure::Value, text));
        }
        if index < chunks {
            // It is here already. What is in it now is not looked at: in the end all has to fit the checksum.
            self.keep(id, Open::In(Box::new(Upload { incoming, chunks })));
            let received =
                Received { received: true, chunk_index: index, chunks_received: chunks, total_chunks };
            return Ok((done(received)?, None));
        }
        let Ok(bytes) = Base64::decode_vec(data) else {
            self.keep(id, Open::In(Box::new(Upload { incoming, chunks })));
            return Err(Fault::new(Failure::Value, "data_b64 is not Base64"));
        };
        let (incoming, chunks) = (incoming.take(bytes).await?, chunks + 1);
        self.keep(id, Open::In(Box::new(Upload { incoming, chunks })));
        let received = Received { received: true, chunk_index: index, chunks_received: chunks, total_chunks };
        Ok((done(received)?, None))
    }

    pub(super) async fn complete(&mut self, params: &Params<'_>) -> Given {
        let id = params.transfer_id.text().ok_or_else(|| Fault::parameter("transfer_id"))?;
        let Upload { incoming, .. } = *self.upload(id)?;
        let (size, began) = (incoming.size(), incoming.began());
        let permit = incoming.store().await?;
        let name = String::from_utf8_lossy(permit.name().as_bytes());
        let elapsed = began.elapsed().as_secs_f64();
        Ok((done_itself(Stored { success: true, filename: &name, size, path: &name, elapsed })?, None))
    }

    /// Takes an upload out, to go on with it.
    fn upload(&mut self, id: &str) -> Result<Box<Upload>, Fault> {
        match self.open(id) {
            Some(Open::In(upload)) => Ok(upload),
            Some(other) => {
                self.keep(id, other);
                Err(Fault::new(Failure::NotFound, NO_SUCH_TRANSFER))
            }
            None => Err(Fault::new(Failure::NotFound, NO_SUCH_TRANSFER)),
        }
    }
}
