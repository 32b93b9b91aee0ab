//! Wire format v2: a hello that looks like a v1 request, and then frames in both directions.
//!
//! ```text
//! hello   v1 request for the name "?oneport/2?KEY=VALUE&…"          ([`Hello`])
//! frame   u32 length | u8 kind | u32 request | body                   ([`ClientFrame`], [`ServerFrame`])
//! ```
//! `docs/protocol.md` says the rest. Data does not pass through here: after the head of a DATA frame
//! ([`ServerFrame::Data`]) its bytes are taken from the connection by whoever wants them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::WireError;
use crate::error::{Code, EXIT_INTERRUPTED};

mod client_frame;
mod control;
mod either;
mod hello;
mod list;
mod push;
mod put;
mod server_frame;

pub use client_frame::{ByteRange, ClientFrame, Get, RangeError, Stat};
pub use either::Frame;
pub use hello::{Fields, Hello, HelloError, WELCOME_MAX, Welcome};
pub use list::{Entries, List};
pub use push::{Listen, Push, Pushed, Received};
pub use put::{Form, Move, Put, Remove};
pub use server_frame::{File, ServerFrame, Values, put_data_head};

/// Number of a request; 0 stands for the connection itself.
pub type RequestId = u32;

/// What tells one version of a file from another on one server; never all zero.
pub type Token = [u8; TOKEN_LEN];
/// Length of a [`Token`], in bytes.
pub const TOKEN_LEN: usize = 16;

/// A random number that the requests of one transfer share; all zero for a request of its own.
pub type TransferId = [u8; TRANSFER_LEN];
/// Length of a [`TransferId`], in bytes.
pub const TRANSFER_LEN: usize = 16;

/// Most bytes of a file in one DATA frame: a block.
pub const DATA_MAX: u64 = 1 << 20;
/// Most bytes of a file in one DATA frame while other transfers have requests in flight on the connection.
pub const DATA_SHARED_MAX: u64 = 256 << 10;
/// Bytes before the data of a DATA frame.
pub const DATA_HEAD_LEN: usize = LENGTH_LEN + HEAD_LEN + OFFSET_LEN;
/// Most bytes behind the length field of a client's frame.
pub const CLIENT_FRAME_MAX: usize = 16 << 10;
/// Most bytes behind the length field of a server's DATA frame.
pub const DATA_FRAME_MAX: usize = HEAD_LEN + OFFSET_LEN + (1 << 20);
/// Most bytes behind the length field of any other frame of a server.
pub const SERVER_FRAME_MAX: usize = 64 << 10;
/// Ranges of one GET, at most.
pub const RANGES_MAX: usize = 256;
/// Longest cursor of a listing, in bytes.
pub const CURSOR_MAX: usize = 8192;
/// Pairs of values in one VALUES frame, at most.
pub const PAIRS_MAX: usize = 64;
/// Largest window, in bytes.
pub const WINDOW_MAX: u64 = 1 << 62;
/// Longest text of an ERROR, in bytes.
pub const ERROR_TEXT_MAX: usize = 1024;

const LENGTH_LEN: usize = 4;
/// Kind and request.
const HEAD_LEN: usize = 5;
const OFFSET_LEN: usize = 8;
/// Kinds with this bit are skipped by whoever does not know them.
const OPTIONAL_KIND: u8 = 0x80;

/// The code of an ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// The request was cancelled.
    pub const CANCELLED: Self = Self(EXIT_INTERRUPTED as u16);

    /// The kind of failure that it stands for; [`Code::Other`] if it is not known.
    #[must_use]
    pub fn kind(self) -> Code {
        Code::ALL.into_iter().find(|&code| Self::from(code) == self).unwrap_or(Code::Other)
    }
}

impl From<Code> for ErrorCode {
    fn from(code: Code) -> Self {
        Self(code.exit_status().into())
    }
}

/// A frame with its length and head taken off.
struct RawFrame {
    kind: u8,
    request: RequestId,
    body: Bytes,
}

/// Takes a whole frame off the beginning of `src`; `None` while it is not there. Nothing is reserved
/// for what was only announced: the buffer grows with what comes.
fn take_frame(src: &mut BytesMut, max: usize) -> Result<Option<RawFrame>, WireError> {
    let Some((kind, request, len)) = peek_head(src, max)? else { return Ok(None) };
    if src.len() < LENGTH_LEN + len {
        return Ok(None);
    }
    src.advance(LENGTH_LEN + HEAD_LEN);
    let body = src.split_to(len - HEAD_LEN).freeze();
    Ok(Some(RawFrame { kind, request, body }))
}

/// Kind, request and length of the frame that `src` begins with; `None` while that cannot be told.
fn peek_head(src: &[u8], max: usize) -> Result<Option<(u8, RequestId, usize)>, WireError> {
    let Some((length, rest)) = src.split_first_chunk::<LENGTH_LEN>() else { return Ok(None) };
    let announced = u32::from_be_bytes(*length);
    let len = usize::try_from(announced)
        .ok()
        .filter(|len| (HEAD_LEN..=max).contains(len))
        .ok_or(WireError::FrameLength(announced))?;
    let Some((&[kind, a, b, c, d], _)) = rest.split_first_chunk::<HEAD_LEN>() else { return Ok(None) };
    Ok(Some((kind, RequestId::from_be_bytes([a, b, c, d]), len)))
}

/// Appends a frame whose body is written by `body`.
fn put_frame(kind: u8, request: RequestId, dst: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = dst.len();
    dst.put_u32(0);
    dst.put_u8(kind);
    dst.put_u32(request);
    body(dst);
    // A body is far below 4 GiB: every part of it is bounded by a type or by its encoder.
    let len = u32::try_from(dst.len() - start - LENGTH_LEN).unwrap_or(u32::MAX);
    dst[start..start + LENGTH_LEN].copy_from_slice(&len.to_be_bytes());
}

/// The fields of a body, taken off one after the other.
struct Body(Bytes);

impl Body {
    fn bytes(&mut self, count: usize) -> Result<Bytes, WireError> {
        if self.0.len() < count {
            return Err(WireError::Frame("a frame is shorter than its fields"));
        }
        Ok(self.0.split_to(count))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}

#[cfg(test)]
#[path = "v2/tests.rs"]
mod tests;
