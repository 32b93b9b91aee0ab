//! The frames that a server sends: what a file is, what proves it, and its bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Body, DATA_FRAME_MAX, DATA_HEAD_LEN, DATA_MAX, ERROR_TEXT_MAX, Entries, ErrorCode, HEAD_LEN, LENGTH_LEN,
    OFFSET_LEN, OPTIONAL_KIND, PAIRS_MAX, Pushed, RawFrame, RequestId, SERVER_FRAME_MAX, Token, WELCOME_MAX,
    Welcome, peek_head, put_frame, take_frame,
};
use crate::codec::WireError;
use crate::limits::{BLOCKS_MAX, NAME_MAX};
use crate::tree::{HASH_LEN, Root, Value, block_count};

const WELCOME: u8 = 0x41;
const FILE: u8 = 0x42;
const VALUES: u8 = 0x43;
const DATA: u8 = 0x44;
const END: u8 = 0x45;
const ERROR: u8 = 0x46;
const PONG: u8 = 0x47;
const WAIT: u8 = 0x48;
const ENTRIES: u8 = 0x49;
const RECORD: u8 = 0x4a;
const PUSHED: u8 = 0x4b;

const HAS_ROOT: u8 = 1;
const HAS_NAME: u8 = 2;
const FORM_PAIRS: u8 = 0;
const FORM_SINGLE: u8 = 1;
const NANOS_PER_SECOND: u32 = 1_000_000_000;
/// The permission bits of a mode.
pub(super) const MODE_BITS: u32 = 0o777;

/// Whether a frame of this kind tells something, and asks for nothing.
pub(super) fn is_told(kind: u8) -> bool {
    (WELCOME..=PUSHED).contains(&kind)
}

/// A frame of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerFrame {
    /// The answer to the hello.
    Welcome(Welcome),
    /// What a file is.
    File(RequestId, File),
    /// What proves the next blocks.
    Values(RequestId, Values),
    /// The head of DATA: `len` bytes of the file follow, which the decoder leaves where they are.
    Data {
        /// The request.
        request: RequestId,
        /// Where they lie in the file.
        offset: u64,
        /// How many there are, at least 1 and at most [`DATA_MAX`].
        len: u64,
    },
    /// All that was asked for has been sent.
    End(RequestId, Option<Root>),
    /// END of a PUT whose file the server has stored under another name than it was asked for: this one, as bytes.
    Stored(RequestId, Root, Bytes),
    /// A request, or the connection, ends here.
    Error(RequestId, ErrorCode, Bytes),
    /// The answer to a PING.
    Pong(RequestId, [u8; 8]),
    /// The server is still at it.
    Wait(RequestId),
    /// The next things in a folder.
    Entries(RequestId, Entries),
    /// Something that the server says of itself: a JSON object, as text that nobody has looked at yet.
    Record(RequestId, Bytes),
    /// A file waits for a listener.
    Pushed(RequestId, Pushed),
    /// An optional frame that is not known here.
    Unknown,
}

/// The body of FILE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Bytes.
    pub size: u64,
    /// When its bytes were last changed: seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// Permission bits.
    pub mode: u32,
    /// Its version.
    pub token: Token,
    /// Its root, if it is known.
    pub root: Option<Root>,
}

/// The body of VALUES.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// For each parent that is passed next, the values of its children.
    Pairs(Vec<(Value, Value)>),
    /// The value of the next block.
    Single(Value),
}

impl ServerFrame {
    /// Takes a frame off the beginning of `src`, of DATA only its head; `None` while it is not there.
    ///
    /// # Errors
    /// [`WireError`] if the server violates the protocol.
    pub fn decode(src: &mut BytesMut) -> Result<Option<Self>, WireError> {
        match peek_head(src, DATA_FRAME_MAX)? {
            None => Ok(None),
            Some((DATA, request, len)) => {
                let head = decode_data_head(src, len)?;
                Ok(head.map(|(offset, len)| Self::Data { request, offset, len }))
            }
            Some(_) => take_frame(src, SERVER_FRAME_MAX)?.map(Self::parse).transpose(),
        }
    }

    fn parse(RawFrame { kind, request, body }: RawFrame) -> Result<Self, WireError> {
        let mut body = Body(body);
        match kind {
            WELCOME if body.0.len() > WELCOME_MAX => Err(WireError::Frame("the welcome is too long")),
            WELCOME => Welcome::parse(&body.0).map(Self::Welcome).map_err(WireError::Hello),
            FILE => Ok(Self::File(request, file(&mut body)?)),
            VALUES => Ok(Self::Values(request, values(&mut body)?)),
            END => end(request, &mut body),
            ERROR => {
                let code = ErrorCode(body.u16()?);
                let text = body.0.split_to(body.0.len().min(ERROR_TEXT_MAX));
                Ok(Self::Error(request, code, text))
            }
            PONG => Ok(Self::Pong(request, body.array()?)),
            WAIT => Ok(Self::Wait(request)),
            ENTRIES => Ok(Self::Entries(request, Entries::parse(&mut body)?)),
            RECORD => Ok(Self::Record(request, body.0)),
            PUSHED => Ok(Self::Pushed(request, Pushed::parse(&mut body)?)),
            optional if optional & OPTIONAL_KIND != 0 => Ok(Self::Unknown),
            unknown => Err(WireError::Kind(unknown)),
        }
    }

    /// Appends the frame to `dst`; of DATA only its head.
    pub fn encode(&self, dst: &mut BytesMut) {
        match self {
            Self::Welcome(welcome) => put_frame(WELCOME, 0, dst, |dst| welcome.write(dst)),
            Self::File(request, file) => put_frame(FILE, *request, dst, |dst| put_file(file, dst)),
            Self::Values(request, values) => put_frame(VALUES, *request, dst, |dst| put_values(values, dst)),
            Self::Data { request, offset, len } => put_data_head(*request, *offset, *len, dst),
            Self::End(request, root) => put_frame(END, *request, dst, |dst| put_root(*root, dst)),
            Self::Stored(request, root, name) => put_frame(END, *request, dst, |dst| {
                dst.put_u8(HAS_ROOT | HAS_NAME);
                dst.put_slice(root.as_bytes());
                // A name is never longer than 4 KiB.
                let name = &name[..name.len().min(NAME_MAX)];
                dst.put_u16(u16::try_from(name.len()).unwrap_or_default());
                dst.put_slice(name);
            }),
            Self::Error(request, code, text) => put_frame(ERROR, *request, dst, |dst| {
                dst.put_u16(code.0);
                dst.put_slice(&text[..text.len().min(ERROR_TEXT_MAX)]);
            }),
            Self::Pong(request, bytes) => put_frame(PONG, *request, dst, |dst| dst.put_slice(bytes)),
            Self::Wait(request) => put_frame(WAIT, *request, dst, |_| {}),
            Self::Entries(request, entries) => put_frame(ENTRIES, *request, dst, |dst| entries.put(dst)),
            // One that is longer than a frame would be refused by any receiver; none is.
            Self::Record(request, json) => put_frame(RECORD, *request, dst, |dst| dst.put_slice(json)),
            Self::Pushed(request, pushed) => put_frame(PUSHED, *request, dst, |dst| pushed.put(dst)),
            Self::Unknown => {}
        }
    }
}

/// Appends the head of a DATA frame for `len` bytes, which are to follow.
pub fn put_data_head(request: RequestId, offset: u64, len: u64, dst: &mut BytesMut) {
    put_head_of(DATA, request, offset, len, dst);
}

/// Appends the head of a frame of this kind for `len` bytes of a file, which are to follow.
pub(super) fn put_head_of(kind: u8, request: RequestId, offset: u64, len: u64, dst: &mut BytesMut) {
    // At most DATA_MAX, which the sender keeps to; a longer one would be refused by any receiver.
    let length = u32::try_from(len).unwrap_or(u32::MAX).saturating_add(13);
    dst.reserve(DATA_HEAD_LEN);
    dst.put_u32(length);
    dst.put_u8(kind);
    dst.put_u32(request);
    dst.put_u64(offset);
}

/// Takes the head of a frame of data off the beginning of `src`: where its bytes lie in the file, and how many
/// there are; `None` while it is not there.
pub(super) fn decode_data_head(src: &mut BytesMut, len: usize) -> Result<Option<(u64, u64)>, WireError> {
    let Some(len) = len.checked_sub(HEAD_LEN + OFFSET_LEN).filter(|&len| len > 0) else {
        return Err(WireError::Frame("a data frame holds no data"));
    };
    if src.len() < DATA_HEAD_LEN {
        return Ok(None);
    }
    let mut head = Body(src.split_to(DATA_HEAD_LEN).freeze().split_off(LENGTH_LEN + HEAD_LEN));
    let (offset, len) = (head.u64()?, len as u64);
    debug_assert!(len <= DATA_MAX);
    Ok(Some((offset, len)))
}

pub(super) fn file(body: &mut Body) -> Result<File, WireError> {
    let size = body.u64()?;
    if block_count(size) > BLOCKS_MAX {
        return Err(WireError::Size(size));
    }
    let seconds = i64::from_be_bytes(body.array()?);
    let nanos = nanoseconds(body)?;
    let (mode, token) = (body.u32()? & MODE_BITS, body.array()?);
    if token == Token::default() {
        return Err(WireError::Frame("a file has no identity"));
    }
    Ok(File { size, modified: (seconds, nanos), mode, token, root: root(body)? })
}

pub(super) fn nanoseconds(body: &mut Body) -> Result<u32, WireError> {
    match body.u32()? {
        NANOS_PER_SECOND.. => Err(WireError::Frame("a second has too many nanoseconds")),
        nanos => Ok(nanos),
    }
}

pub(super) fn put_file(file: &File, dst: &mut BytesMut) {
    dst.put_u64(file.size);
    dst.put_i64(file.modified.0);
    dst.put_u32(file.modified.1);
    dst.put_u32(file.mode & MODE_BITS);
    dst.put_slice(&file.token);
    put_root(file.root, dst);
}

fn end(request: RequestId, body: &mut Body) -> Result<ServerFrame, WireError> {
    let (flags, bytes) = (body.u8()?, body.array()?);
    if flags & HAS_ROOT == 0 {
        return Ok(ServerFrame::End(request, None));
    }
    let root = Root::from_bytes(bytes);
    if flags & HAS_NAME == 0 {
        return Ok(ServerFrame::End(request, Some(root)));
    }
    let len = body.u16()?.into();
    Ok(ServerFrame::Stored(request, root, body.bytes(len)?))
}

pub(super) fn root(body: &mut Body) -> Result<Option<Root>, WireError> {
    let flags = body.u8()?;
    let bytes = body.array()?;
    Ok((flags & HAS_ROOT != 0).then(|| Root::from_bytes(bytes)))
}

pub(super) fn put_root(root: Option<Root>, dst: &mut BytesMut) {
    dst.put_u8(if root.is_some() { HAS_ROOT } else { 0 });
    dst.put_slice(&root.map_or([0; HASH_LEN], |root| *root.as_bytes()));
}

fn values(body: &mut Body) -> Result<Values, WireError> {
    match body.u8()? {
        FORM_PAIRS => {
            let count = body.0.len() / (2 * HASH_LEN);
            if !(1..=PAIRS_MAX).contains(&count) || !body.0.len().is_multiple_of(2 * HASH_LEN) {
                return Err(WireError::Frame("the values are not one to 64 pairs"));
            }
            let mut pairs = Vec::with_capacity(count);
            for _ in 0..count {
                pairs.push((Value::from_bytes(body.array()?), Value::from_bytes(body.array()?)));
            }
            Ok(Values::Pairs(pairs))
        }
        FORM_SINGLE => Ok(Values::Single(Value::from_bytes(body.array()?))),
        _ => Err(WireError::Frame("values come in an unknown form")),
    }
}

fn put_values(values: &Values, dst: &mut BytesMut) {
    match values {
        Values::Pairs(pairs) => {
            dst.put_u8(FORM_PAIRS);
            for (left, right) in pairs {
                dst.put_slice(left.as_bytes());
                dst.put_slice(right.as_bytes());
            }
        }
        Values::Single(value) => {
            dst.put_u8(FORM_SINGLE);
            dst.put_slice(value.as_bytes());
        }
    }
}
