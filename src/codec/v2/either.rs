//! Frames where both sides may ask: while a file is put, the server asks for its blocks and the client tells them.

use bytes::BytesMut;

use super::server_frame::is_told;
use super::{ClientFrame, DATA_FRAME_MAX, ServerFrame, peek_head};
use crate::codec::WireError;

/// A frame of whichever side. The two sides number their requests for themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The peer asks for something, or steers what it has asked for: as a client does.
    Asks(ClientFrame),
    /// The peer tells something that it was asked for: as a server does.
    Tells(ServerFrame),
}

impl Frame {
    /// Takes a frame off the beginning of `src`, of DATA and BYTES only the head; `None` while it is not there.
    ///
    /// # Errors
    /// [`WireError`] if the peer violates the protocol.
    pub fn decode(src: &mut BytesMut) -> Result<Option<Self>, WireError> {
        match peek_head(src, DATA_FRAME_MAX)? {
            None => Ok(None),
            Some((kind, ..)) if is_told(kind) => Ok(ServerFrame::decode(src)?.map(Self::Tells)),
            Some(_) => Ok(ClientFrame::decode(src)?.map(Self::Asks)),
        }
    }
}
