//! The frames that a client sends: requests, and what steers them.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::control;
use super::push::{Listen, Push, Received};
use super::put::{Move, Put, Remove};
use super::server_frame::{decode_data_head, put_head_of};
use super::{
    Body, CLIENT_FRAME_MAX, DATA_FRAME_MAX, List, OPTIONAL_KIND, RANGES_MAX, RawFrame, RequestId, Token,
    TransferId, WINDOW_MAX, peek_head, put_frame, take_frame,
};
use crate::codec::WireError;
use crate::control::Question;
use crate::limits::NAME_MAX;
use crate::priority::Priority;
use crate::token::{Token as ApiKey, TokenError};
use crate::tree::{BLOCK_LEN, BlockSet, block_count};

const STAT: u8 = 0x01;
const GET: u8 = 0x02;
const WINDOW: u8 = 0x03;
const CANCEL: u8 = 0x04;
const PING: u8 = 0x05;
const LIST: u8 = 0x06;
const AUTH: u8 = 0x07;
const PUT: u8 = 0x08;
const REMOVE: u8 = 0x09;
const MOVE: u8 = 0x0a;
const BYTES: u8 = 0x0b;
const CONTROL: u8 = 0x0c;
const LISTEN: u8 = 0x0d;
const PUSH: u8 = 0x0e;
const RECEIVED: u8 = 0x0f;

const STAT_ROOT: u8 = 1;
const GET_PROVEN: u8 = 1;
const GET_VALUES_ONLY: u8 = 2;

/// A frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientFrame {
    /// What is this file?
    Stat(RequestId, Stat),
    /// Send this file, or parts of it.
    Get(RequestId, Get),
    /// So many more bytes of DATA may be under way for a request.
    Window(RequestId, u64),
    /// A request is not wanted any more.
    Cancel(RequestId),
    /// Are you there? The bytes come back.
    Ping(RequestId, [u8; 8]),
    /// What is in this folder?
    List(RequestId, List),
    /// This is my key: what follows is asked by its holder.
    Auth(Result<ApiKey, TokenError>),
    /// Here is a file: fetch it and store it under this name.
    Put(RequestId, Put),
    /// Remove this file or folder.
    Remove(RequestId, Remove),
    /// Give this file or folder another name.
    Move(RequestId, Move),
    /// The head of BYTES: `len` bytes of a file that was put as a whole follow, which the decoder leaves where
    /// they are.
    Bytes {
        /// The request of the PUT.
        request: RequestId,
        /// Where they lie in the file.
        offset: u64,
        /// How many there are, at least 1 and at most [`DATA_MAX`](super::DATA_MAX).
        len: u64,
    },
    /// What is asked of the server about itself.
    Control(RequestId, Question),
    /// Tell me of files that are sent to this receiver.
    Listen(RequestId, Listen),
    /// Here is a file: fetch it, and give it to this receiver.
    Push(RequestId, Push),
    /// What has come of a file of which a listener was told.
    Received(RequestId, Received),
    /// An optional frame that is not known here.
    Unknown,
}

/// The body of STAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The root is wanted even if it has to be computed.
    pub root: bool,
    /// The name, as bytes that nobody has looked at yet.
    pub name: Bytes,
}

/// The body of GET.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Get {
    /// No data before the root is known.
    pub proven: bool,
    /// Values only, no data.
    pub values_only: bool,
    /// The name, as bytes that nobody has looked at yet.
    pub name: Bytes,
    /// The transfer that this is a part of.
    pub transfer: TransferId,
    /// Bytes of the file that this transfer does not need any more.
    pub have: u64,
    /// The version that is wanted if it can still be had; zero for any.
    pub token: Token,
    /// The wanted ranges; none for the whole file.
    pub ranges: Vec<ByteRange>,
    /// How urgent it is.
    pub priority: Priority,
}

/// A range of bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// Its first byte.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u64,
}

/// A range that begins behind the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a range begins at {offset}, but the file has {size} bytes")]
pub struct RangeError {
    offset: u64,
    size: u64,
}

impl ByteRange {
    /// The bytes of a run of blocks of a file of `size` bytes.
    #[must_use]
    pub fn of_blocks(run: &Range<u64>, size: u64) -> Self {
        let offset = run.start.saturating_mul(BLOCK_LEN);
        let end = run.end.saturating_mul(BLOCK_LEN).min(size.max(1));
        Self { offset, len: end.saturating_sub(offset) }
    }
}

impl Get {
    /// The blocks of a file of `size` bytes that are asked for.
    ///
    /// # Errors
    /// If a range does not lie in the file.
    pub fn blocks(&self, size: u64) -> Result<BlockSet, RangeError> {
        if self.ranges.is_empty() {
            return Ok(BlockSet::all(size));
        }
        let mut blocks = BlockSet::default();
        for (index, &ByteRange { offset, len }) in self.ranges.iter().enumerate() {
            let is_begin_of_empty = index == 0 && offset == 0;
            if offset >= size && !is_begin_of_empty {
                return Err(RangeError { offset, size });
            }
            let end = offset.saturating_add(len).div_ceil(BLOCK_LEN).min(block_count(size));
            // Ranges ascend, as was checked when they were decoded; so do their blocks.
            let _ = blocks.push(offset / BLOCK_LEN..end);
        }
        Ok(blocks)
    }
}

impl ClientFrame {
    /// Takes a frame off the beginning of `src`; `None` while it is not whole.
    ///
    /// # Errors
    /// [`WireError`] if the client violates the protocol.
    pub fn decode(src: &mut BytesMut) -> Result<Option<Self>, WireError> {
        match peek_head(src, DATA_FRAME_MAX)? {
            None => Ok(None),
            Some((BYTES, request, len)) => {
                let head = decode_data_head(src, len)?;
                Ok(head.map(|(offset, len)| Self::Bytes { request, offset, len }))
            }
            Some(_) => take_frame(src, CLIENT_FRAME_MAX)?.map(Self::parse).transpose(),
        }
    }

    /// Reads a frame that comes without its length field.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_bare(mut bytes: Bytes) -> Result<Self, WireError> {
        let mut body = Body(bytes.split_to(bytes.len().min(CLIENT_FRAME_MAX)));
        let (kind, request) = (body.u8()?, body.u32()?);
        Self::parse(RawFrame { kind, request, body: body.0 })
    }

    fn parse(RawFrame { kind, request, body }: RawFrame) -> Result<Self, WireError> {
        let mut body = Body(body);
        match kind {
            STAT => {
                Ok(Self::Stat(request, Stat { root: body.u8()? & STAT_ROOT != 0, name: name(&mut body)? }))
            }
            GET => Ok(Self::Get(request, get(&mut body)?)),
            WINDOW => match body.u64()? {
                bytes @ 0..=WINDOW_MAX => Ok(Self::Window(request, bytes)),
                _ => Err(WireError::Frame("a window is larger than any file")),
            },
            CANCEL => Ok(Self::Cancel(request)),
            PING => Ok(Self::Ping(request, body.array()?)),
            LIST => Ok(Self::List(request, List::parse(&mut body)?)),
            AUTH => match request {
                0 => Ok(Self::Auth(ApiKey::parse(&body.0))),
                _ => Err(WireError::Frame("a key is not for one request but for the connection")),
            },
            PUT => Ok(Self::Put(request, Put::parse(&mut body)?)),
            REMOVE => Ok(Self::Remove(request, Remove::parse(&mut body)?)),
            MOVE => Ok(Self::Move(request, Move::parse(&mut body)?)),
            CONTROL => Ok(Self::Control(request, control::parse(&mut body)?)),
            LISTEN => Ok(Self::Listen(request, Listen::parse(&mut body)?)),
            PUSH => Ok(Self::Push(request, Push::parse(&mut body)?)),
            RECEIVED => Ok(Self::Received(request, Received::parse(&mut body)?)),
            optional if optional & OPTIONAL_KIND != 0 => Ok(Self::Unknown),
            unknown => Err(WireError::Kind(unknown)),
        }
    }

    /// Appends the frame to `dst`; of BYTES only its head.
    ///
    /// # Errors
    /// If a name or a count is larger than the protocol allows.
    pub fn encode(&self, dst: &mut BytesMut) -> Result<(), WireError> {
        match self {
            Self::Stat(request, stat) => {
                check_name(&stat.name)?;
                put_frame(STAT, *request, dst, |dst| {
                    dst.put_u8(if stat.root { STAT_ROOT } else { 0 });
                    put_name(&stat.name, dst);
                });
            }
            Self::Get(request, get) => {
                check_name(&get.name)?;
                if get.ranges.len() > RANGES_MAX {
                    return Err(WireError::Frame("there are too many ranges"));
                }
                put_frame(GET, *request, dst, |dst| put_get(get, dst));
            }
            Self::Window(request, bytes) => put_frame(WINDOW, *request, dst, |dst| dst.put_u64(*bytes)),
            Self::Cancel(request) => put_frame(CANCEL, *request, dst, |_| {}),
            Self::Ping(request, bytes) => put_frame(PING, *request, dst, |dst| dst.put_slice(bytes)),
            Self::List(request, list) => {
                list.check()?;
                put_frame(LIST, *request, dst, |dst| list.put(dst));
            }
            Self::Auth(Ok(key)) => put_frame(AUTH, 0, dst, |dst| dst.put_slice(key.expose().as_bytes())),
            Self::Put(request, put) => {
                put.check()?;
                put_frame(PUT, *request, dst, |dst| put.put(dst));
            }
            Self::Listen(request, listen) => {
                listen.check()?;
                put_frame(LISTEN, *request, dst, |dst| listen.put(dst));
            }
            Self::Push(request, push) => {
                push.check()?;
                put_frame(PUSH, *request, dst, |dst| push.put(dst));
            }
            Self::Received(request, received) => {
                received.check()?;
                put_frame(RECEIVED, *request, dst, |dst| received.put(dst));
            }
            Self::Remove(request, remove) => {
                check_name(&remove.name)?;
                put_frame(REMOVE, *request, dst, |dst| remove.put(dst));
            }
            Self::Move(request, moved) => {
                moved.check()?;
                put_frame(MOVE, *request, dst, |dst| moved.put(dst));
            }
            Self::Control(request, question) => {
                control::check(question)?;
                put_frame(CONTROL, *request, dst, |dst| control::put(question, dst));
            }
            Self::Bytes { request, offset, len } => put_head_of(BYTES, *request, *offset, *len, dst),
            Self::Auth(Err(_)) => return Err(WireError::Frame("what is to be sent as a key is none")),
            Self::Unknown => {}
        }
        Ok(())
    }
}

fn put_get(get: &Get, dst: &mut BytesMut) {
    let proven = if get.proven { GET_PROVEN } else { 0 };
    let values_only = if get.values_only { GET_VALUES_ONLY } else { 0 };
    dst.put_u8(proven | values_only);
    put_name(&get.name, dst);
    dst.put_slice(&get.transfer);
    dst.put_u64(get.have);
    dst.put_slice(&get.token);
    // At most RANGES_MAX, as was checked.
    dst.put_u16(u16::try_from(get.ranges.len()).unwrap_or(u16::MAX));
    for range in &get.ranges {
        dst.put_u64(range.offset);
        dst.put_u64(range.len);
    }
    put_priority(get.priority, dst);
}

fn get(body: &mut Body) -> Result<Get, WireError> {
    let flags = body.u8()?;
    let name = name(body)?;
    let (transfer, have, token) = (body.array()?, body.u64()?, body.array()?);
    let count = usize::from(body.u16()?);
    if count > RANGES_MAX {
        return Err(WireError::Frame("there are too many ranges"));
    }
    let mut ranges = Vec::new();
    let mut behind = 0;
    for _ in 0..count {
        let range = ByteRange { offset: body.u64()?, len: body.u64()? };
        let end = range.offset.checked_add(range.len).filter(|&end| i64::try_from(end).is_ok());
        let Some(end) = end.filter(|_| range.len > 0 && range.offset >= behind) else {
            return Err(WireError::Frame("ranges are empty, overlap, or do not ascend"));
        };
        behind = end;
        ranges.push(range);
    }
    let (proven, values_only) = (flags & GET_PROVEN != 0, flags & GET_VALUES_ONLY != 0);
    let priority = priority(body)?;
    Ok(Get { proven, values_only, name, transfer, have, token, ranges, priority })
}

/// The priority at the end of a body, where there is one.
pub(super) fn priority(body: &mut Body) -> Result<Priority, WireError> {
    if body.0.is_empty() { Ok(Priority::default()) } else { Ok(Priority::at_most(body.u8()?)) }
}

/// Nothing for whoever asks for none: older servers have never seen one.
pub(super) fn put_priority(priority: Priority, dst: &mut BytesMut) {
    if priority != Priority::default() {
        dst.put_u8(priority.number());
    }
}

pub(super) fn name(body: &mut Body) -> Result<Bytes, WireError> {
    let len = body.u16()?;
    if usize::from(len) > NAME_MAX {
        return Err(WireError::NameLength(len.into()));
    }
    body.bytes(len.into())
}

pub(super) fn check_name(name: &[u8]) -> Result<(), WireError> {
    if name.len() > NAME_MAX {
        return Err(WireError::NameLength(u32::try_from(name.len()).unwrap_or(u32::MAX)));
    }
    Ok(())
}

/// Bytes with their length before them.
pub(super) fn put_name(name: &[u8], dst: &mut BytesMut) {
    // Far below 64 KiB, as was checked.
    dst.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
    dst.put_slice(name);
}
