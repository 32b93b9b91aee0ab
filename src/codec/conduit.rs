//! Conduit's wire format: frames with a head of 32 bytes and a MessagePack payload, integers big-endian.
//!
//! ```text
//! head  "CNDT" | u16 version | u16 type | u16 flags | u16 0 | u32 length | u64 correlation | u64 time in ms
//! ```
//! `docs/protocol.md` says the rest. [`FrameCodec`] cuts frames out of what arrives, no longer than its bound,
//! packed (zlib) or not; [`words`] reads and writes what the payloads say.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};
use tokio_util::codec::{Decoder, Encoder};

pub mod words;

/// How every frame begins.
pub const MAGIC: [u8; 4] = *b"CNDT";
/// Bytes of a head.
pub const HEAD_LEN: usize = 32;
/// The only version: 1.0.
pub const VERSION: u16 = 0x0100;

/// The payload is packed with zlib.
const PACKED: u16 = 0x01;
/// The sender waits for an ACK.
const WANTS_ACK: u16 = 0x04;
/// Flags that change what a payload means in ways that nobody has specified: encrypted, fragments.
const UNKNOWABLE: u16 = 0x02 | 0x10 | 0x20;
/// Room that is made at first for a packed payload, in its own lengths.
const UNPACKED_GUESS: usize = 4;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// `{"type", "data"}`, to which nothing is answered.
    Message = 1,
    /// `{"method", "params"}`.
    RpcRequest = 2,
    /// What came of it: `{"success": true, "result"}`, with the request's correlation.
    RpcResponse = 3,
    /// As a response, of a call that could not be made at all.
    RpcError = 4,
    /// Are you there?
    Ping = 5,
    /// Yes.
    Pong = 6,
    /// `{"password_hash", "client_info"}`: the first frame of every connection.
    AuthRequest = 7,
    /// `{"session_token", "server_info"}`.
    AuthSuccess = 8,
    /// `{"reason"}`, before the connection is closed.
    AuthFailure = 9,
    /// Send nothing for the time being.
    Pause = 0xa,
    /// Go on.
    Resume = 0xb,
    /// The frame with this correlation has come.
    Ack = 0xc,
    /// It has not, or is of no use.
    Nack = 0xd,
    /// The sender is about to close: `{"reason"}`, or nothing.
    Close = 0xe,
    /// That was heard.
    CloseAck = 0xf,
    /// Which methods are there? And the answer: `{"methods"}`.
    RpcList = 0x10,
}

impl Kind {
    /// All of them, in the order of their numbers, which begin with 1.
    pub const ALL: [Self; 16] = [
        Self::Message,
        Self::RpcRequest,
        Self::RpcResponse,
        Self::RpcError,
        Self::Ping,
        Self::Pong,
        Self::AuthRequest,
        Self::AuthSuccess,
        Self::AuthFailure,
        Self::Pause,
        Self::Resume,
        Self::Ack,
        Self::Nack,
        Self::Close,
        Self::CloseAck,
        Self::RpcList,
    ];

    fn of(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// A frame, with its payload unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// What an answer has in common with its request; else 0.
    pub correlation: u64,
    /// When it was sent, as its sender says: milliseconds since 1970.
    pub sent_ms: u64,
    /// Its sender waits for an ACK.
    pub wants_ack: bool,
    /// MessagePack, or nothing.
    pub payload: Bytes,
}

/// What is wrong with a frame. Nothing behind it can be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It does not begin as every frame does.
    #[error("a frame does not begin with CNDT")]
    Magic,
    /// It is of another version.
    #[error("a frame is of version {0:#06x}, and {VERSION:#06x} is spoken here")]
    Version(u16),
    /// It is of no known type.
    #[error("a frame is of the unknown type {0:#06x}")]
    Kind(u16),
    /// Its payload is encrypted or a fragment, which nothing specifies.
    #[error("a frame has the flags {0:#06x}, which are not served")]
    Flags(u16),
    /// Its payload is too long.
    #[error("a payload of {len} bytes is announced, and at most {max} are taken")]
    Length {
        /// Bytes.
        len: u32,
        /// Bytes.
        max: u32,
    },
    /// Its payload is not zlib's, or not all of it.
    #[error("a payload cannot be unpacked")]
    Packed,
    /// Its payload would become too long.
    #[error("a payload would have more than {0} bytes unpacked")]
    Unpacked(u32),
    /// The connection ended in the middle of it.
    #[error("the connection ended in the middle of a frame")]
    Truncated,
    /// The connection itself failed. The codec makes no such error; its traits want the conversion.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Decodes and encodes frames whose payloads, packed or not, are no longer than a bound.
#[derive(Clone, Copy, Debug)]
pub struct FrameCodec {
    payload_max: u32,
}

impl FrameCodec {
    /// For payloads of at most `payload_max` bytes.
    #[must_use]
    pub fn new(payload_max: u32) -> Self {
        Self { payload_max }
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(mut head) = src.get(..HEAD_LEN) else { return Ok(None) };
        let mut magic = [0; MAGIC.len()];
        head.copy_to_slice(&mut magic);
        let (version, kind, flags, _reserved) =
            (head.get_u16(), head.get_u16(), head.get_u16(), head.get_u16());
        let (len, correlation, sent_ms) = (head.get_u32(), head.get_u64(), head.get_u64());
        if magic != MAGIC {
            return Err(FrameError::Magic);
        }
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = Kind::of(kind).ok_or(FrameError::Kind(kind))?;
        if flags & UNKNOWABLE != 0 {
            return Err(FrameError::Flags(flags));
        }
        let max = self.payload_max;
        let count =
            usize::try_from(len).ok().filter(|_| len <= max).ok_or(FrameError::Length { len, max })?;
        if src.len() - HEAD_LEN < count {
            // No room is made for what was only announced: the buffer grows with what comes.
            return Ok(None);
        }
        src.advance(HEAD_LEN);
        let mut payload = src.split_to(count).freeze();
        if flags & PACKED != 0 && !payload.is_empty() {
            payload = unpack(&payload, max)?;
        }
        Ok(Some(Frame { kind, correlation, sent_ms, wants_ack: flags & WANTS_ACK != 0, payload }))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.decode(src)? {
            None if !src.is_empty() => Err(FrameError::Truncated),
            frame => Ok(frame),
        }
    }
}

impl Encoder<&Frame> for FrameCodec {
    type Error = FrameError;

    /// Never packed.
    fn encode(&mut self, frame: &Frame, dst: &mut BytesMut) -> Result<(), FrameError> {
        let (len, max) = (u32::try_from(frame.payload.len()).unwrap_or(u32::MAX), self.payload_max);
        if len > max {
            return Err(FrameError::Length { len, max });
        }
        dst.reserve(HEAD_LEN + frame.payload.len());
        dst.put_slice(&MAGIC);
        dst.put_u16(VERSION);
        dst.put_u16(frame.kind as u16);
        dst.put_u16(if frame.wants_ack { WANTS_ACK } else { 0 });
        dst.put_u16(0);
        dst.put_u32(len);
        dst.put_u64(frame.correlation);
        dst.put_u64(frame.sent_ms);
        dst.put_slice(&frame.payload);
        Ok(())
    }
}

/// Unpacks a payload into at most `max` bytes. Room is made as they come, not as a head says.
fn unpack(packed: &[u8], max: u32) -> Result<Bytes, FrameError> {
    let most = usize::try_from(max).unwrap_or(usize::MAX).saturating_add(1);
    let mut unpacked = Vec::with_capacity(packed.len().saturating_mul(UNPACKED_GUESS).min(most));
    let mut inflater = Decompress::new(true);
    loop {
        let taken = usize::try_from(inflater.total_in()).map_err(|_| FrameError::Packed)?;
        let left = packed.get(taken..).unwrap_or_default();
        let before = (inflater.total_in(), unpacked.len());
        let status = inflater.decompress_vec(left, &mut unpacked, FlushDecompress::None);
        let status = status.map_err(|_| FrameError::Packed)?;
        if unpacked.len() >= most {
            return Err(FrameError::Unpacked(max));
        }
        if status == Status::StreamEnd {
            let is_all = usize::try_from(inflater.total_in()).is_ok_and(|taken| taken == packed.len());
            return if is_all { Ok(unpacked.into()) } else { Err(FrameError::Packed) };
        }
        if unpacked.len() == unpacked.capacity() {
            unpacked.reserve_exact(unpacked.len().min(most - unpacked.len()));
        } else if before == (inflater.total_in(), unpacked.len()) {
            // There was room, so it is the input that has ended.
            return Err(FrameError::Packed);
        }
    }
}

#[cfg(test)]
mod tests;
