//! What is due goes out: gathered frames and small files in one write, the bytes of large ones with
//! `sendfile`.

use std::sync::Arc;

use tokio::time::Instant;

use super::{CHANGED, Connection, End, Wire, Work};
use crate::codec::v2::RequestId;
use crate::digest::Digest;
use crate::error::Code;
use crate::exchange::Output;
use crate::limits::V2_FILL;
use crate::rights::Verb;
use crate::service::Event;
use crate::service::access::Permit;
use crate::tree::Root;

/// A small file that goes out as a whole.
pub(super) struct Whole {
    pub(super) permit: Permit,
    pub(super) size: u64,
    pub(super) root: Root,
}

impl Connection<'_> {
    /// Sends what is due: all frames that there are, or one frame of a large file; `true` if anything
    /// was sent.
    pub(super) async fn send(&mut self, wire: &mut Wire) -> Result<bool, End> {
        // At least once, so that small files do not keep a large one waiting.
        let mut is_first = true;
        while std::mem::take(&mut is_first) || self.has_room() {
            match self.responder.next(Instant::now().into_std()) {
                None => break,
                Some(Output::Frames(frames)) => self.output.extend_from_slice(&frames),
                Some(Output::Data { request, head, offset, len, ends_block }) => {
                    let Some(work) = self.works.get(&request).and_then(|slot| slot.work.as_ref()) else {
                        continue;
                    };
                    // What was revoked or has expired is over, also in the middle of a file.
                    let name = work.version.name().as_bytes();
                    if ends_block
                        && let Err(denied) = self.context.service.check(&self.caller, Verb::Get, name)
                    {
                        self.deny(request, denied);
                        continue;
                    }
                    if ends_block && !matches!(work.version.is_unchanged(), Ok(true)) {
                        self.fail(request, Code::SourceChanged, CHANGED);
                        continue;
                    }
                    if let Some(small) = work.version.small() {
                        self.output.extend_from_slice(&head);
                        self.rank = self.rank.max(self.responder.rank());
                        let start = usize::try_from(offset).unwrap_or(usize::MAX);
                        let end = start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
                        self.output.extend_from_slice(small.get(start..end).unwrap_or_default());
                        if let Some(account) = &work.account {
                            account.advance(len);
                        }
                        continue;
                    }
                    let file = Arc::clone(work.version.file());
                    self.rank = self.rank.max(self.responder.rank());
                    match Wire::warm(&file, offset, len).await {
                        Ok(()) => self.output.extend_from_slice(&head),
                        Err(error) => {
                            self.fail(request, Code::LocalIo, &error.to_string());
                            continue;
                        }
                    }
                    self.send_data(wire, request, offset, len).await?;
                    return Ok(true);
                }
            }
        }
        if self.output.is_empty() {
            return Ok(false);
        }
        self.write(wire, false).await?;
        Ok(true)
    }

    /// Sends what was gathered; with `more` something follows at once.
    async fn write(&mut self, wire: &mut Wire, more: bool) -> Result<(), End> {
        wire.rank(self.rank.take());
        wire.write_all(&self.output, more).await?;
        self.output.clear();
        for Whole { permit, size, root } in self.whole.drain(..) {
            let (peer, key) = (permit.caller().peer(), permit.caller().key_name());
            self.context.service.tell(&Event::Sent { peer, key, name: permit.name(), size, root });
            self.sent_small.add(permit.caller(), permit.name(), size, Digest::Blake3(root));
        }
        Ok(())
    }

    /// Sends the bytes of a DATA frame, whose head is the end of the output. What the file cannot give
    /// any more is filled up, and the request ends.
    async fn send_data(
        &mut self,
        wire: &mut Wire,
        request: RequestId,
        offset: u64,
        len: u64,
    ) -> Result<(), End> {
        self.write(wire, true).await?;
        let Some(Work { version, account }) = self.works.get(&request).and_then(|slot| slot.work.as_ref())
        else {
            return Ok(());
        };
        let mut done = 0;
        while done < len {
            let sending = wire.send_file(version.file(), offset + done, len - done);
            let sent = match account {
                None => sending.await,
                Some(account) => tokio::select! {
                    biased;
                    sent = sending => sent,
                    () = account.moving().overdue() => return Err(End::Cancelled),
                },
            };
            match sent {
                Ok(0) => break,
                Ok(sent) => {
                    done += sent;
                    if let Some(account) = account {
                        account.advance(sent);
                    }
                }
                Err(crate::server::wire::WireEnd::File(error)) => {
                    let text = format!("the file cannot be read: {error}");
                    fill(wire, len - done).await?;
                    self.fail(request, Code::LocalIo, &text);
                    return Ok(());
                }
                Err(end) => return Err(end.into()),
            }
        }
        if done < len {
            fill(wire, len - done).await?;
            self.fail(request, Code::SourceChanged, CHANGED);
        }
        Ok(())
    }
}

/// Sends zeros in place of bytes that are not there: the frame that was begun has to be ended.
async fn fill(wire: &mut Wire, mut count: u64) -> Result<(), End> {
    const ZEROS: [u8; V2_FILL] = [0; V2_FILL];
    while count > 0 {
        let part = usize::try_from(count).unwrap_or(V2_FILL).min(V2_FILL);
        wire.write_all(&ZEROS[..part], false).await?;
        count -= part as u64;
    }
    Ok(())
}
