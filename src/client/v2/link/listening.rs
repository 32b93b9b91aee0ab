//! A link on which nothing may be said for long: the server is heard when it has something to say.

use tokio::time::{Instant, timeout_at};

use super::{Link, closed};
use crate::client::FetchError;
use crate::codec::v2::ErrorCode;
use crate::error::Code;
use crate::exchange::Heard;

impl Link {
    /// The next thing that the server says and that matters, until `deadline`. Whoever gives up waiting loses nothing.
    pub(in crate::client::v2) async fn hear_until(&mut self, deadline: Instant) -> Result<Heard, FetchError> {
        loop {
            let heard = self.requester.hear(&mut self.input);
            match heard.map_err(|source| self.violated(source))? {
                Some(Heard::Failed(0, code, text)) => return Err(self.ended_listening(code, &text)),
                Some(Heard::Waiting | Heard::Proof | Heard::Nothing) => {}
                Some(heard) => return Ok(heard),
                None => match timeout_at(deadline, self.talk()).await {
                    Ok(Ok(0)) => return Err(self.lost(closed())),
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err(self.lost(error)),
                    Err(_elapsed) => return Err(self.silent()),
                },
            }
        }
    }

    /// How long an answer is waited for.
    pub(in crate::client::v2) fn patience(&self) -> std::time::Duration {
        self.patience.timeout
    }

    /// What it means that the server ends the connection of a listener. Whoever does not know of such takes them for a
    /// violation.
    fn ended_listening(&self, code: ErrorCode, said: &[u8]) -> FetchError {
        match code.kind() {
            Code::Protocol => FetchError::NoPushes { server: self.peer.to_string() },
            _ => self.failed(code, said),
        }
    }
}
