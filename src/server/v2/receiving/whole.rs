//! Small files that come as a whole: PUT, and right behind it all bytes.
//!
//! One of them arrives at a time; those that have arrived are stored beside this task, many at once. A file that is
//! refused comes as well, and its bytes are dropped. While a file finds no room in memory, or too many are
//! being stored, nothing more is heard of the client: then it is held up by its own socket.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::codec::WireError;
use crate::codec::v2::{ErrorCode, Form, Put, RequestId, ServerFrame};
use crate::digest::Digest;
use crate::limits::V2_STORING_MAX;
use crate::names::FileName;
use crate::server::end::End;
use crate::server::v2::receiving::{Following, Of};
use crate::server::v2::{Connection, Done};
use crate::service::access::Permit;
use crate::service::uploads::{Room, Stored, UploadError, WholeFile};

/// The files of a connection that come as a whole.
#[derive(Default)]
pub(in crate::server::v2) struct Wholes {
    /// The one whose bytes have not all come yet.
    arriving: Option<Arriving>,
    /// One that waits for room.
    waiting: Option<(RequestId, Wanted)>,
    storing: BTreeSet<RequestId>,
}

struct Arriving {
    request: RequestId,
    /// Where the next bytes belong.
    next: u64,
    size: u64,
    /// Nothing if it was refused or given up.
    wanted: Option<Wanted>,
}

/// A file that is to be stored.
struct Wanted {
    permit: Permit,
    file: WholeFile,
    /// The number that all attempts at it share.
    transfer: [u8; 16],
}

impl Wholes {
    /// Whether more bytes may be held.
    pub(in crate::server::v2) fn has_room(&self) -> bool {
        self.waiting.is_none() && self.storing.len() < V2_STORING_MAX
    }

    /// Whether bytes are still to come.
    pub(in crate::server::v2) fn lack_bytes(&self) -> bool {
        self.arriving.is_some()
    }

    /// Whether nothing is arriving or being stored.
    pub(in crate::server::v2) fn is_empty(&self) -> bool {
        self.arriving.is_none() && self.in_hand().next().is_none()
    }

    /// The requests whose files have arrived and are not stored yet.
    pub(in crate::server::v2) fn in_hand(&self) -> impl Iterator<Item = RequestId> {
        self.storing.iter().copied().chain(self.waiting.as_ref().map(|&(request, _)| request))
    }
}

impl Connection<'_> {
    /// Before anything else is asked for, all bytes of a file that is put as a whole have to be here.
    pub(in crate::server::v2) fn check_whole(&self) -> Result<(), End> {
        if self.wholes.lack_bytes() {
            return Err(WireError::Order("something is asked for in the middle of a file").into());
        }
        Ok(())
    }

    /// Takes note of the bytes that are to come; what is refused comes as well.
    pub(super) fn expect_whole(&mut self, request: RequestId, put: &Put) {
        if put.form == Form::Whole && put.file.size > 0 {
            let arriving = Arriving { request, next: 0, size: put.file.size, wanted: None };
            self.wholes.arriving = Some(arriving);
        }
    }

    /// Begins to take a file that comes as a whole.
    pub(super) fn put_whole(&mut self, request: RequestId, permit: Permit, put: &Put) {
        // One without a root does not pass the decoder.
        let Some(root) = put.file.root else { return };
        if let Some(max) = self.context.service.upload_max().filter(|&max| put.file.size > max) {
            let error = UploadError::TooLarge { size: put.file.size, max };
            return self.tell_failed(request, error.code(), &error.text());
        }
        let file = WholeFile {
            replace: put.replace,
            unless_same: put.unless_same,
            modified: put.file.modified,
            mode: put.file.mode,
            root,
            bytes: Vec::new(),
        };
        let wanted = Wanted { permit, file, transfer: put.transfer };
        match &mut self.wholes.arriving {
            Some(arriving) => arriving.wanted = Some(wanted),
            None => self.store(request, wanted),
        }
    }

    /// Hears the head of BYTES.
    pub(in crate::server::v2) fn hear_bytes(
        &mut self,
        request: RequestId,
        offset: u64,
        len: u64,
    ) -> Result<(), End> {
        let arriving = self.wholes.arriving.as_ref().filter(|arriving| arriving.request == request);
        match arriving {
            Some(Arriving { next, size, .. }) if offset == *next && len <= size - next => {
                self.following = Some(Following { of: Of::Whole(request), left: len });
                Ok(())
            }
            _ => Err(WireError::Order("bytes came that no file is waiting for").into()),
        }
    }

    /// Takes bytes of the file that arrives, in order.
    pub(super) fn take_whole(&mut self, request: RequestId, bytes: &Bytes) {
        let Some(mut arriving) = self.wholes.arriving.take() else { return };
        arriving.next += bytes.len() as u64;
        if let Some(Wanted { file, .. }) = &mut arriving.wanted {
            if file.bytes.is_empty() {
                file.bytes.reserve_exact(usize::try_from(arriving.size).unwrap_or_default());
            }
            file.bytes.extend_from_slice(bytes);
        }
        if arriving.next < arriving.size {
            self.wholes.arriving = Some(arriving);
        } else if let Some(wanted) = arriving.wanted {
            self.store(request, wanted);
        }
    }

    /// Has a file stored that has arrived, when there is room for it.
    fn store(&mut self, request: RequestId, wanted: Wanted) {
        let (service, size) = (self.context.service.clone(), wanted.file.bytes.len() as u64);
        match service.room_now(size) {
            Some(room) => self.store_in(request, wanted, room),
            None => {
                self.wholes.waiting = Some((request, wanted));
                self.running.spawn(async move { Done::Roomed(service.room(size).await) });
            }
        }
    }

    /// There is room for the file that waited for it.
    pub(in crate::server::v2) fn roomed(&mut self, room: Room) {
        if let Some((request, wanted)) = self.wholes.waiting.take() {
            self.store_in(request, wanted, room);
        }
    }

    fn store_in(&mut self, request: RequestId, Wanted { permit, file, transfer }: Wanted, room: Room) {
        let service = self.context.service.clone();
        self.wholes.storing.insert(request);
        self.running.spawn(async move {
            let size = file.bytes.len() as u64;
            let stored = service.take_whole(&permit, file, room, transfer).await;
            Done::Stored(request, permit, size, stored)
        });
    }

    /// Tells what came of a file.
    pub(in crate::server::v2) fn stored(
        &mut self,
        request: RequestId,
        permit: &Permit,
        size: u64,
        stored: Result<(Stored, Option<FileName>), UploadError>,
    ) {
        self.wholes.storing.remove(&request);
        match stored {
            Ok((Stored::New(root), given)) => {
                let name = given.as_ref().unwrap_or(permit.name());
                self.taken_small.add(permit.caller(), name, size, Digest::Blake3(root));
                self.tell_stored(request, root, given.as_ref());
            }
            Ok((Stored::Same, _)) => self.tell(&ServerFrame::End(request, None)),
            Err(error) => self.tell_failed(request, error.code(), &error.text()),
        }
    }

    /// Gives up a file that comes as a whole; `false` if there is none of this number. One that has arrived is stored
    /// all the same: the client hears how that ended.
    pub(super) fn give_up_whole(&mut self, request: RequestId) -> bool {
        match &mut self.wholes.arriving {
            Some(arriving) if arriving.request == request => {
                let was_wanted = arriving.wanted.is_some();
                self.wholes.arriving = None;
                // Nobody is told twice what came of it.
                if was_wanted {
                    let text = Bytes::from_static(b"cancelled");
                    self.tell(&ServerFrame::Error(request, ErrorCode::CANCELLED, text));
                }
                true
            }
            _ => self.wholes.in_hand().any(|one| one == request),
        }
    }
}
