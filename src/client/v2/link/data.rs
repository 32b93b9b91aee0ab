//! The bytes of a file, from the socket to where they are wanted, at the pace of the file.

use std::io;

use bytes::Buf;
use tokio::io::Interest;
use tokio::time::timeout;

use super::{Link, closed};
use crate::client::FetchError;
use crate::limits::V2_INPUT;

impl Link {
    /// Takes the bytes of a file that come next, as many as `into` has room for, at the pace of the file. If not
    /// all of them come, none of them counts as here.
    pub(in crate::client::v2) async fn take(&mut self, into: &mut [u8]) -> Result<(), FetchError> {
        let mut taken = 0;
        for stretch in into.chunks_mut(self.arrived.pace.stretch()) {
            let filled = self.fill(stretch, &mut taken).await;
            filled.inspect_err(|_| self.arrived.take_back(taken))?;
            self.arrived.pace.rest(stretch.len()).await;
        }
        Ok(())
    }

    /// Fills all of `into`, and counts what has come for it.
    async fn fill(&mut self, into: &mut [u8], taken: &mut u64) -> Result<(), FetchError> {
        let mut filled = self.take_early(into);
        *taken += filled as u64;
        while filled < into.len() {
            match self.read_into(&mut into[filled..]) {
                Ok(0) => return Err(self.lost(closed())),
                Ok(count) => {
                    filled += count;
                    *taken += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match timeout(self.patience.timeout, self.stream.ready(Interest::READABLE)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return Err(self.lost(error)),
                        Err(_elapsed) => return Err(self.silent()),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(error)),
            }
        }
        Ok(())
    }

    /// Reads some bytes of a file without waiting; says how many.
    fn read_into(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // Many small files come in one call, and one that began in it does not end the reading ahead.
        if into.len() < self.read_ahead {
            self.input.reserve(self.read_ahead);
            return match self.stream.try_read_buf(&mut self.input)? {
                0 => Ok(0),
                _ => Ok(self.take_early(into)),
            };
        }
        // What comes behind these bytes is read in the same call, if it is there already.
        let count = self.stream.try_fill(into, &mut self.input)?;
        self.arrived.add(count as u64);
        Ok(count)
    }

    /// Takes bytes of a file that were read before they were wanted; says how many.
    fn take_early(&mut self, into: &mut [u8]) -> usize {
        let early = self.input.len().min(into.len());
        into[..early].copy_from_slice(&self.input[..early]);
        self.input.advance(early);
        self.arrived.add(early as u64);
        early
    }

    /// Passes over bytes that nobody wants.
    pub(in crate::client::v2) async fn skip(&mut self, mut count: u64) -> Result<(), FetchError> {
        let mut nowhere = [0; V2_INPUT];
        while count > 0 {
            let part = usize::try_from(count).unwrap_or(V2_INPUT).min(V2_INPUT);
            self.take(&mut nowhere[..part]).await?;
            self.arrived.take_back(part as u64);
            count -= part as u64;
        }
        Ok(())
    }
}
