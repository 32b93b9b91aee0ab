//! Wire format v1: one request and one answer a connection, integers big-endian.
//!
//! ```text
//! request  u32 name length | name
//! refusal  "ERROR" | text | close
//! success  "OK" | u32 name length | base name | u64 size | MD5 as 32 hex digits | data | close
//! ```
//! `docs/protocol.md` says the rest. The file's bytes do not pass through these decoders: after
//! [`Response::Header`] whatever is left in the buffer is the beginning of the data.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::WireError;
use crate::digest::{MD5_HEX_LEN, Md5};
use crate::limits::{NAME_MAX, NAME_SHOWN, REFUSAL_MAX};
use crate::text;

const LENGTH_LEN: usize = 4;
const SIZE_LEN: usize = 8;
const STATUS_OK: &[u8] = b"OK";
const STATUS_ERROR: &[u8] = b"ERROR";
/// Bytes of a wrong status that are kept for the error message.
const STATUS_SHOWN: usize = STATUS_ERROR.len();

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The name of the wanted file, as bytes that nobody has looked at yet.
    Name(Bytes),
    /// A name longer than [`NAME_MAX`]: only its beginning was kept, the rest is not waited for.
    TooLong {
        /// The first [`NAME_SHOWN`] bytes.
        beginning: Bytes,
    },
}

/// The server's side of the request: decodes it. The client's: encodes it, in one piece.
///
/// ```
/// use bytes::BytesMut;
/// use oneport::codec::v1::{Request, RequestCodec};
/// use tokio_util::codec::{Decoder, Encoder};
///
/// let mut wire = BytesMut::new();
/// RequestCodec::default().encode(b"file.txt".as_slice(), &mut wire)?;
/// assert_eq!(wire, b"\0\0\0\x08file.txt"[..]);
/// let request = RequestCodec::default().decode(&mut wire)?;
/// assert_eq!(request, Some(Request::Name("file.txt".into())));
/// # Ok::<(), oneport::codec::WireError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct RequestCodec {
    name_len: Option<u32>,
}

impl Decoder for RequestCodec {
    type Item = Request;
    type Error = WireError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Request>, WireError> {
        let name_len = match self.name_len {
            Some(len) => len,
            None if src.len() < LENGTH_LEN => return Ok(None),
            None => *self.name_len.insert(src.get_u32()),
        };
        let within = usize::try_from(name_len).ok().filter(|&len| len <= NAME_MAX);
        let wanted = within.unwrap_or(NAME_SHOWN);
        if src.len() < wanted {
            // No room is made for what was only announced: the buffer grows with what comes.
            return Ok(None);
        }
        self.name_len = None;
        let name = src.split_to(wanted).freeze();
        Ok(Some(match within {
            Some(_) => Request::Name(name),
            None => Request::TooLong { beginning: name },
        }))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Request>, WireError> {
        match self.decode(src)? {
            None if self.name_len.is_some() || !src.is_empty() => Err(WireError::Truncated),
            request => Ok(request),
        }
    }
}

impl Encoder<&[u8]> for RequestCodec {
    type Error = WireError;

    fn encode(&mut self, name: &[u8], dst: &mut BytesMut) -> Result<(), WireError> {
        put_name(name, dst)
    }
}

/// What a server says of the file it is about to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The base name, as bytes that nobody has looked at yet: to be shown, never used as a path.
    pub name: Bytes,
    /// Count of the data bytes that follow.
    pub size: u64,
    /// MD5 of the data.
    pub md5: Md5,
}

/// A piece of the server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The file will follow, its header first.
    Ok,
    /// What follows is the file's data.
    Header(Header),
    /// There will be no file, for the reason given in the server's words (at most
    /// [`REFUSAL_MAX`] bytes of them).
    Refused(Bytes),
}

/// The client's side of the answer: decodes it. The server's: encodes it, piece by piece.
#[derive(Clone, Debug, Default)]
pub struct ResponseCodec {
    state: Answer,
}

#[derive(Clone, Copy, Debug, Default)]
enum Answer {
    #[default]
    Status,
    Header,
    Refusal,
    Data,
}

impl Decoder for ResponseCodec {
    type Item = Response;
    type Error = WireError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Response>, WireError> {
        match self.state {
            Answer::Status => self.decode_status(src),
            Answer::Header => {
                let header = decode_header(src)?;
                if header.is_some() {
                    self.state = Answer::Data;
                }
                Ok(header.map(Response::Header))
            }
            Answer::Refusal if src.len() >= REFUSAL_MAX => {
                Ok(Some(Response::Refused(src.split_to(REFUSAL_MAX).freeze())))
            }
            Answer::Refusal | Answer::Data => Ok(None),
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Response>, WireError> {
        match (self.decode(src)?, self.state) {
            (None, Answer::Refusal) => Ok(Some(Response::Refused(src.split().freeze()))),
            (None, Answer::Status | Answer::Header) => Err(WireError::Truncated),
            (response, _) => Ok(response),
        }
    }
}

impl ResponseCodec {
    fn decode_status(&mut self, src: &mut BytesMut) -> Result<Option<Response>, WireError> {
        if src.starts_with(STATUS_OK) {
            src.advance(STATUS_OK.len());
            self.state = Answer::Header;
            Ok(Some(Response::Ok))
        } else if src.starts_with(STATUS_ERROR) {
            src.advance(STATUS_ERROR.len());
            self.state = Answer::Refusal;
            self.decode(src)
        } else if STATUS_OK.starts_with(src) || STATUS_ERROR.starts_with(src) {
            Ok(None)
        } else {
            let beginning = &src[..src.len().min(STATUS_SHOWN)];
            Err(WireError::Status(text::shown(beginning).to_string()))
        }
    }
}

impl Encoder<Response> for ResponseCodec {
    type Error = WireError;

    fn encode(&mut self, response: Response, dst: &mut BytesMut) -> Result<(), WireError> {
        match response {
            Response::Ok => dst.put_slice(STATUS_OK),
            Response::Header(header) => {
                put_name(&header.name, dst)?;
                dst.put_u64(header.size);
                dst.put_slice(&header.md5.to_hex());
            }
            Response::Refused(text) => {
                dst.put_slice(STATUS_ERROR);
                dst.put_slice(&text[..text.len().min(REFUSAL_MAX)]);
            }
        }
        Ok(())
    }
}

/// The one text with which a name is refused, whatever the reason: the original's own words. They
/// say nothing that a stranger could learn from.
#[must_use]
pub fn not_found(name: &[u8]) -> Response {
    const AROUND: usize = "File '' not found on server".len();
    let name = text::shortened(&text::shown(name).to_string(), REFUSAL_MAX - AROUND);
    Response::Refused(format!("File '{name}' not found on server").into())
}

/// Whether a refusal says, in the original's words, that there is no such file.
#[must_use]
pub fn says_not_found(text: &[u8]) -> bool {
    text.starts_with(b"File '") && text.ends_with(b"' not found on server")
}

fn put_name(name: &[u8], dst: &mut BytesMut) -> Result<(), WireError> {
    let len = u32::try_from(name.len()).unwrap_or(u32::MAX);
    if name.len() > NAME_MAX {
        return Err(WireError::NameLength(len));
    }
    dst.reserve(LENGTH_LEN + name.len() + SIZE_LEN + MD5_HEX_LEN);
    dst.put_u32(len);
    dst.put_slice(name);
    Ok(())
}

fn decode_header(src: &mut BytesMut) -> Result<Option<Header>, WireError> {
    let Some((length, _)) = src.split_first_chunk::<LENGTH_LEN>() else {
        return Ok(None);
    };
    let announced = u32::from_be_bytes(*length);
    let name_len = usize::try_from(announced)
        .ok()
        .filter(|&len| len <= NAME_MAX)
        .ok_or(WireError::NameLength(announced))?;
    let needed = LENGTH_LEN + name_len + SIZE_LEN + MD5_HEX_LEN;
    if src.len() < needed {
        src.reserve(needed - src.len());
        return Ok(None);
    }
    src.advance(LENGTH_LEN);
    let name = src.split_to(name_len).freeze();
    let size = src.get_u64();
    let md5 = Md5::parse_hex(&src.split_to(MD5_HEX_LEN)).ok_or(WireError::Checksum)?;
    if i64::try_from(size).is_err() {
        return Err(WireError::Size(size));
    }
    Ok(Some(Header { name, size, md5 }))
}

#[cfg(test)]
#[path = "v1/tests.rs"]
mod tests;
