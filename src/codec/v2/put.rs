//! The bodies of the frames that change what a server holds: PUT, REMOVE and MOVE.

use bytes::{BufMut, Bytes, BytesMut};

use super::client_frame::{check_name, name, priority, put_name, put_priority};
use super::server_frame::{file, put_file};
use super::{Body, DATA_MAX, File, TransferId};
use crate::codec::WireError;
use crate::priority::Priority;

const PUT_REPLACE: u8 = 1;
const PUT_UNLESS_SAME: u8 = 2;
const PUT_WHOLE: u8 = 4;
const PUT_FOLDER: u8 = 8;
const REMOVE_RECURSIVE: u8 = 1;
const MOVE_REPLACE: u8 = 1;

/// The body of PUT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// What has the name already is replaced, if it is a file.
    pub replace: bool,
    /// Nothing is to be done if a file of this size and time has the name already.
    pub unless_same: bool,
    /// What is offered, and how it comes.
    pub form: Form,
    /// The name, as bytes that nobody has looked at yet.
    pub name: Bytes,
    /// The upload that this is a part of, as in GET.
    pub transfer: TransferId,
    /// Which attempt at it this is: a higher one takes over from all lower ones.
    pub attempt: u32,
    /// What the file is on the client.
    pub file: File,
    /// How urgent it is.
    pub priority: Priority,
}

/// What is offered by a PUT, and how it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A file, of which the server asks for what it has not.
    Asked,
    /// A file of at most [`DATA_MAX`] bytes, all of which follow at once as BYTES.
    Whole,
    /// A folder: there are no bytes.
    Folder,
}

/// The body of REMOVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remove {
    /// A folder goes with all that is in it.
    pub recursive: bool,
    /// The name, as bytes that nobody has looked at yet.
    pub name: Bytes,
}

/// The body of MOVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// What has the new name already is replaced, if it is a file.
    pub replace: bool,
    /// The old name, as bytes that nobody has looked at yet.
    pub from: Bytes,
    /// The new one.
    pub to: Bytes,
}

impl Put {
    pub(super) fn parse(body: &mut Body) -> Result<Self, WireError> {
        let flags = body.u8()?;
        let (name, transfer, attempt) = (name(body)?, body.array()?, body.u32()?);
        let form = match (flags & PUT_WHOLE != 0, flags & PUT_FOLDER != 0) {
            (false, false) => Form::Asked,
            (true, false) => Form::Whole,
            (false, true) => Form::Folder,
            (true, true) => return Err(WireError::Frame("a folder has no bytes")),
        };
        let (replace, unless_same) = (flags & PUT_REPLACE != 0, flags & PUT_UNLESS_SAME != 0);
        let (file, priority) = (file(body)?, priority(body)?);
        let put = Self { replace, unless_same, form, name, transfer, attempt, file, priority };
        put.check()?;
        Ok(put)
    }

    pub(super) fn check(&self) -> Result<(), WireError> {
        check_name(&self.name)?;
        match self.form {
            Form::Whole if self.file.size > DATA_MAX => {
                Err(WireError::Frame("a file that is put as a whole is larger than a block"))
            }
            Form::Whole if self.file.root.is_none() => {
                Err(WireError::Frame("a file that is put as a whole has no root"))
            }
            Form::Folder if self.file.size > 0 => Err(WireError::Frame("a folder has no bytes")),
            _ => Ok(()),
        }
    }

    pub(super) fn put(&self, dst: &mut BytesMut) {
        let form = match self.form {
            Form::Asked => 0,
            Form::Whole => PUT_WHOLE,
            Form::Folder => PUT_FOLDER,
        };
        let replace = if self.replace { PUT_REPLACE } else { 0 };
        let unless_same = if self.unless_same { PUT_UNLESS_SAME } else { 0 };
        dst.put_u8(form | replace | unless_same);
        put_name(&self.name, dst);
        dst.put_slice(&self.transfer);
        dst.put_u32(self.attempt);
        put_file(&self.file, dst);
        put_priority(self.priority, dst);
    }
}

impl Remove {
    pub(super) fn parse(body: &mut Body) -> Result<Self, WireError> {
        Ok(Self { recursive: body.u8()? & REMOVE_RECURSIVE != 0, name: name(body)? })
    }

    pub(super) fn put(&self, dst: &mut BytesMut) {
        dst.put_u8(if self.recursive { REMOVE_RECURSIVE } else { 0 });
        put_name(&self.name, dst);
    }
}

impl Move {
    pub(super) fn parse(body: &mut Body) -> Result<Self, WireError> {
        Ok(Self { replace: body.u8()? & MOVE_REPLACE != 0, from: name(body)?, to: name(body)? })
    }

    pub(super) fn check(&self) -> Result<(), WireError> {
        check_name(&self.from)?;
        check_name(&self.to)
    }

    pub(super) fn put(&self, dst: &mut BytesMut) {
        dst.put_u8(if self.replace { MOVE_REPLACE } else { 0 });
        put_name(&self.from, dst);
        put_name(&self.to, dst);
    }
}
