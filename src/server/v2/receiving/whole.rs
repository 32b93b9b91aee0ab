//! Small files that come as a whole: PUT, and right behind it all bytes.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::codec::WireError;
use crate::codec::v2::{Put, RequestId};
use crate::error::Code;
use crate::server::end::End;
use crate::server::v2::Connection;
use crate::server::v2::receiving::{Following, Of};
use crate::service::access::Permit;

/// Files whose bytes have not all come yet, whether they are wanted or not.
#[derive(Debug, Default)]
pub(in crate::server::v2) struct Wholes(BTreeMap<RequestId, Arriving>);

#[derive(Debug)]
struct Arriving {
    /// Where the next bytes belong.
    next: u64,
    size: u64,
}

impl Wholes {
    /// Whether more bytes may be held.
    pub(in crate::server::v2) fn has_room(&self) -> bool {
        true
    }

    /// Whether bytes are still to come.
    pub(in crate::server::v2) fn lack_bytes(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether nothing is arriving or being stored.
    pub(in crate::server::v2) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Connection<'_> {
    /// Takes note of the bytes that are to come; what is refused comes as well.
    pub(super) fn expect_whole(&mut self, request: RequestId, put: &Put) {
        if put.file.size > 0 {
            self.wholes.0.insert(request, Arriving { next: 0, size: put.file.size });
        }
    }

    /// Begins to take a file that comes as a whole.
    pub(super) fn put_whole(&mut self, request: RequestId, _permit: Permit, _put: &Put) {
        self.tell_failed(request, Code::Unsupported, "this server does not take files as a whole");
    }

    /// Hears the head of BYTES.
    pub(in crate::server::v2) fn hear_bytes(
        &mut self,
        request: RequestId,
        offset: u64,
        len: u64,
    ) -> Result<(), End> {
        let arriving = self.wholes.0.get_mut(&request);
        let fits = |arriving: &&mut Arriving| offset == arriving.next && len <= arriving.size - arriving.next;
        let Some(arriving) = arriving.filter(fits) else {
            return Err(WireError::Order("bytes came that no file is waiting for").into());
        };
        arriving.next += len;
        if arriving.next == arriving.size {
            self.wholes.0.remove(&request);
        }
        self.following = Some(Following { of: Of::Whole(request), left: len });
        Ok(())
    }

    /// Takes bytes of such a file, in order.
    pub(super) fn take_whole(&mut self, _request: RequestId, _bytes: Bytes) {}
}
