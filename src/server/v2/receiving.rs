//! PUT: what clients bring. A folder is made; a small file comes as a whole (`whole`); of any other file this
//! end asks for what it has not, as a client does.

use bytes::Bytes;

use super::{Connection, End};
use crate::codec::WireError;
use crate::codec::v2::{Form, Put, RequestId, ServerFrame};
use crate::error::Code;
use crate::rights::Verb;

mod whole;

pub(super) use whole::Wholes;

/// Bytes that stand behind the head of a frame and are still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Following {
    pub(super) of: Of,
    pub(super) left: u64,
}

/// What bytes belong to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    /// A file that is put as a whole.
    Whole(RequestId),
}

impl Connection<'_> {
    pub(super) fn hear_put(&mut self, request: RequestId, put: Put) -> Result<(), End> {
        self.responder.claim(request)?;
        if put.form == Form::Whole {
            // Its bytes are on their way, whatever is said of it.
            self.expect_whole(request, &put);
        }
        let Some(permit) = self.permit(request, Verb::Put, &put.name) else { return Ok(()) };
        match put.form {
            Form::Folder => self.put_folder(request, permit, &put),
            Form::Whole => self.put_whole(request, permit, &put),
            Form::Asked => self.tell_failed(request, Code::Unsupported, "not yet"),
        }
        Ok(())
    }

    /// Takes bytes that stand behind the head of a frame.
    pub(super) fn take_bytes(&mut self, of: Of, bytes: Bytes) -> Result<(), End> {
        match of {
            Of::Whole(request) => self.take_whole(request, bytes),
        }
        Ok(())
    }

    /// Hears what the client tells of a file that it has offered.
    pub(super) fn hear_told(&mut self, _frame: ServerFrame) -> Result<(), End> {
        Err(WireError::Order("something is told that was not asked for").into())
    }

    /// Gives a request of this edge up; `false` if it has none of this number.
    pub(super) fn give_up(&mut self, request: RequestId) -> bool {
        // Something that is changed already is changed; the client hears how it ended.
        self.changing.contains(&request)
    }

    /// Whether there is room for more of what the client says.
    pub(super) fn may_hear(&self) -> bool {
        self.may_change() && self.wholes.has_room() && self.has_room()
    }

    /// Whether something is due that only the client can bring.
    pub(super) fn lacks_input(&self) -> bool {
        self.following.is_some() || self.wholes.lack_bytes()
    }

    /// Whether nothing is being put, removed or moved.
    pub(super) fn changes_nothing(&self) -> bool {
        self.changing.is_empty() && self.wholes.is_empty()
    }
}
