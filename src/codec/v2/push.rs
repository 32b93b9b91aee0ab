//! The bodies of the frames that bring files to those who listen: LISTEN, PUSH, PUSHED and RECEIVED.

use bytes::{BufMut, Bytes, BytesMut};

use super::client_frame::{check_name, name, put_name};
use super::server_frame::{file, put_file, put_root, root};
use super::{Body, ERROR_TEXT_MAX, ErrorCode, File, Form, Put};
use crate::codec::WireError;
use crate::names::PushId;
use crate::tree::Root;

/// The body of LISTEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The name to listen under, as bytes that nobody has looked at yet.
    pub receiver: Bytes,
}

/// The body of PUSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Who is to get it, as bytes that nobody has looked at yet.
    pub receiver: Bytes,
    /// What is offered, and what it is called: a file of which the server asks for what it has not.
    pub put: Put,
}

/// The body of PUSHED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// What the file is called until it is received.
    pub id: PushId,
    /// What it is. Its root is known.
    pub file: File,
    /// What its sender calls it, as bytes that nobody has looked at yet.
    pub name: Bytes,
    /// What the sender's key is called, likewise.
    pub from: Bytes,
}

/// The body of RECEIVED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The file.
    pub id: PushId,
    /// Its root, if it was received; else why not.
    pub outcome: Result<Root, (ErrorCode, Bytes)>,
}

/// The code of a file that was received.
const RECEIVED_WELL: ErrorCode = ErrorCode(0);

impl Listen {
    pub(super) fn parse(body: &mut Body) -> Result<Self, WireError> {
        Ok(Self { receiver: name(body)? })
    }

    pub(super) fn check(&self) -> Result<(), WireError> {
        check_name(&self.receiver)
    }

    pub(super) fn put(&self, dst: &mut BytesMut) {
        put_name(&self.receiver, dst);
    }
}

impl Push {
    pub(super) fn parse(body: &mut Body) -> Result<Self, WireError> {
        let push = Self { receiver: name(body)?, put: Put::parse(body)? };
        push.check()?;
        Ok(push)
    }

    pub(super) fn check(&self) -> Result<(), WireError> {
        check_name(&self.receiver)?;
        self.put.check()?;
        match self.put.form {
            Form::Asked => Ok(()),
            Form::Whole | Form::Folder => Err(WireError::Frame("what is pushed is a file that is asked for")),
        }
    }

    pub(super) fn put(&self, dst: &mut BytesMut) {
        put_name(&self.receiver, dst);
        self.put.put(dst);
    }
}

impl Pushed {
    pub(super) fn parse(body: &mut Body) -> Result<Self, WireError> {
        let pushed = Self { id: body.array()?, file: file(body)?, name: name(body)?, from: name(body)? };
        match pushed.file.root {
            Some(_) => Ok(pushed),
            None => Err(WireError::Frame("the root of a file that is pushed is not told")),
        }
    }

    pub(super) fn put(&self, dst: &mut BytesMut) {
        dst.put_slice(&self.id);
        put_file(&self.file, dst);
        put_name(&self.name, dst);
        put_name(&self.from, dst);
    }
}

impl Received {
    pub(super) fn parse(body: &mut Body) -> Result<Self, WireError> {
        let (id, code, root) = (body.array()?, ErrorCode(body.u16()?), root(body)?);
        let outcome = match (code, root) {
            (RECEIVED_WELL, Some(root)) => Ok(root),
            (RECEIVED_WELL, None) => return Err(WireError::Frame("a file was received that has no root")),
            (code, _) => Err((code, body.0.split_to(body.0.len().min(ERROR_TEXT_MAX)))),
        };
        Ok(Self { id, outcome })
    }

    pub(super) fn put(&self, dst: &mut BytesMut) {
        dst.put_slice(&self.id);
        match &self.outcome {
            Ok(root) => {
                dst.put_u16(RECEIVED_WELL.0);
                put_root(Some(*root), dst);
            }
            Err((code, text)) => {
                dst.put_u16(code.0);
                put_root(None, dst);
                dst.put_slice(&text[..text.len().min(ERROR_TEXT_MAX)]);
            }
        }
    }

    /// As what was sent can be read: a failure has a code.
    pub(super) fn check(&self) -> Result<(), WireError> {
        match &self.outcome {
            Err((RECEIVED_WELL, _)) => Err(WireError::Frame("a failure has no code")),
            _ => Ok(()),
        }
    }
}
