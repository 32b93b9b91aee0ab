//! What comes in: frames of either side, and the bytes that some of them have behind their heads.
//!
//! Nothing is taken in while more is held than this edge may hold: then the peer is held up by its own socket.

use tokio::time::Instant;

use super::receiving::Following;
use super::{Connection, End, Taken, Wire};
use crate::codec::WireError;
use crate::codec::v2::{ClientFrame, Frame};
use crate::limits::{V2_PIECE, V2_ROOM_MAX, V2_ROOM_SHARE};

impl Connection<'_> {
    /// Takes in what has arrived.
    pub(super) fn take_input(&mut self, wire: &mut Wire) -> Result<Taken, End> {
        // First what could not be heard before: else what waits would grow each time that there is room for some of it.
        let mut taken = Taken { bytes: false, frames: self.hear_all()? };
        self.is_held = self.must_wait();
        if !self.input_ended && self.may_hear() && !self.is_held {
            let most = if self.following.is_some() { V2_PIECE } else { V2_ROOM_MAX };
            let room = self.room.min(most);
            // What was taken out of it is still in use, so that each growth is a buffer of its own.
            if self.input.capacity() - self.input.len() < room.div_ceil(V2_ROOM_SHARE) {
                self.input.reserve(room);
            }
            let room = self.input.capacity() - self.input.len();
            match wire.read_now(&mut self.input)? {
                None => {}
                Some(0) => {
                    // Whatever came before is still answered: a peer may have closed only its own side.
                    self.input_ended = true;
                    taken = Taken { bytes: true, frames: true };
                }
                Some(count) => {
                    taken.bytes = true;
                    self.came += count as u64;
                    if self.takes_files() {
                        self.taking.moved(count as u64);
                    }
                    // Whoever says much is listened to in larger pieces.
                    self.room = if count == room { most.min(2 * self.room) } else { self.room };
                }
            }
        }
        taken.frames |= self.hear_all()?;
        Ok(taken)
    }

    /// Hears what has come in, as far as there is room for it; `true` if that was anything whole.
    fn hear_all(&mut self) -> Result<bool, End> {
        let mut has_heard = false;
        while self.may_hear() {
            if let Some(following) = self.following.take() {
                if self.input.is_empty() {
                    self.following = Some(following);
                    break;
                }
                self.take_following(following);
            } else {
                let Some(frame) = Frame::decode(&mut self.input)? else { break };
                self.hear(frame)?;
            }
            has_heard = true;
        }
        Ok(has_heard)
    }

    /// Takes those bytes that stand behind the head of a frame and have come by now.
    fn take_following(&mut self, following: Following) {
        let left = usize::try_from(following.left).unwrap_or(usize::MAX);
        let bytes = self.input.split_to(left.min(self.input.len()).min(V2_PIECE)).freeze();
        let left = following.left - bytes.len() as u64;
        if left > 0 {
            self.following = Some(Following { left, ..following });
        }
        self.take_bytes(following.of, bytes, left);
    }

    /// Hears a frame of whichever side.
    fn hear(&mut self, frame: Frame) -> Result<(), End> {
        match frame {
            Frame::Asks(asks) => self.hear_asked(asks),
            Frame::Tells(tells) => self.hear_told(tells),
        }
    }

    /// Hears what the client asks for.
    pub(super) fn hear_asked(&mut self, frame: ClientFrame) -> Result<(), End> {
        if let ClientFrame::Cancel(request) = frame
            && let Some(account) = self.account(request)
        {
            account.cut("the client cancelled it");
        }
        match frame {
            ClientFrame::Auth(_) if std::mem::replace(&mut self.has_shown_key, true) => {
                Err(WireError::Frame("a key was shown before").into())
            }
            ClientFrame::Auth(shown) => {
                self.caller =
                    self.context.service.authenticate(&self.caller, &shown).map_err(End::NotAccepted)?;
                self.presence.shows(self.caller.key_name());
                Ok(())
            }
            ClientFrame::Put(request, put) => self.hear_put(request, put),
            ClientFrame::Listen(request, listen) => self.hear_listen(request, &listen),
            ClientFrame::Push(request, push) => self.hear_push(request, push),
            ClientFrame::Received(request, received) => {
                self.hear_received(request, received);
                Ok(())
            }
            ClientFrame::Remove(request, remove) => self.hear_remove(request, &remove),
            ClientFrame::Move(request, names) => self.hear_move(request, &names),
            ClientFrame::Bytes { request, offset, len } => self.hear_bytes(request, offset, len),
            ClientFrame::Control(request, question) => self.hear_control(request, question),
            ClientFrame::Cancel(request) if self.give_up(request) => Ok(()),
            other => Ok(self.responder.handle(other, Instant::now().into_std())?),
        }
    }
}
