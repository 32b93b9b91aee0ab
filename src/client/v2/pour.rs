//! A stream gets a file block by block, in order, each proven before it is passed on.
//!
//! What was passed on cannot be taken back: a connection that breaks is replaced by one that goes on
//! with the next block of the same version, and another version ends the stream with an error.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use super::answers::file_of;
use super::link::{Arrived, Link, Opening};
use super::{Remains, Stop, random};
use crate::client::attempt::{Attempt, Got, blocking};
use crate::client::checksum::Checking;
use crate::client::{Event, FetchError, Target};
use crate::codec::v2::{ByteRange, ClientFrame, Get, RequestId};
use crate::digest::Digest;
use crate::exchange::{Data, Heard};
use crate::limits::V2_RUN_BLOCKS_MAX;
use crate::names::base;
use crate::staged::Source;
use crate::tree::{BLOCK_LEN, BlockHash, block_count, block_span};

/// How far a stream has come, through any number of attempts.
#[derive(Default)]
pub(in crate::client) struct Poured {
    source: Option<Source>,
    /// The next block.
    next: u64,
    output: Option<Output>,
    checking: Option<Checking>,
}

/// Where the stream goes.
enum Output {
    Stdout,
    File(File),
}

/// Makes one attempt.
pub(super) async fn run(attempt: &Attempt<'_>, remains: &mut Remains) -> Result<Got, Stop> {
    let arrived = Arrived::at(attempt.pace);
    let poured = &remains.poured;
    let get = request(attempt, poured);
    let (settings, counted) = (attempt.settings, Arc::clone(&arrived));
    let opening =
        Link::open(attempt.server, settings, attempt.observer, counted, |requester| requester.get(get));
    let mut link = match attempt.unless_stopped(opening).await? {
        Opening::Link(link) => *link,
        Opening::Old { peer, said_so } => return Err(Stop::Old { peer, said_so }),
    };
    remains.has_spoken = true;
    let file = attempt.unless_stopped(file_of(&mut link, attempt.name)).await?;
    let Some(root) = file.root else { return Err(FetchError::Contradiction { peer: link.peer() }.into()) };
    let source = Source { size: file.size, root: file.root, token: file.token };
    let poured = &mut remains.poured;
    match &poured.source {
        Some(begun) if begun.is_same(&source) => {}
        Some(_) if poured.next > 0 => return Err(FetchError::StreamChanged { peer: link.peer() }.into()),
        _ => {
            if let Some(checksum) = &settings.checksum {
                checksum.compare(Digest::Blake3(root))?;
            }
            poured.checking = settings.checksum.clone().map(Checking::new);
            poured.source = Some(source);
        }
    }
    let have = block_span(file.size, poured.next).start;
    arrived.begin(have, file.size);
    let (name, size, digest) = (base(attempt.name), file.size, Digest::Blake3(root));
    attempt.observer.observe(&Event::Started { name, size, digest: Some(digest), have });
    let request = link.last();
    let pouring = Pouring { attempt, link: &mut link, request, size, poured, blocks: &mut remains.blocks };
    pouring.run().await?;
    Ok(Got { size, digest, unchanged: false, resumed: 0, attributes: None })
}

/// Asks for what is still to come.
fn request(attempt: &Attempt<'_>, poured: &Poured) -> Get {
    let size = poured.source.as_ref().map(|source| source.size);
    let rest = size.filter(|_| poured.next > 0).map(|size| {
        // The last block again if all of it is there: only FILE is of interest then.
        let first = poured.next.min(block_count(size) - 1);
        ByteRange::of_blocks(&(first..block_count(size)), size)
    });
    Get {
        proven: true,
        name: bytes::Bytes::copy_from_slice(attempt.name),
        transfer: random(),
        have: size.map_or(0, |size| block_span(size, poured.next).start),
        token: poured.source.as_ref().map_or([0; 16], |source| source.token),
        ranges: rest.into_iter().collect(),
        ..Get::default()
    }
}

struct Pouring<'a> {
    attempt: &'a Attempt<'a>,
    link: &'a mut Link,
    request: RequestId,
    size: u64,
    poured: &'a mut Poured,
    blocks: &'a mut u64,
}

impl Pouring<'_> {
    async fn run(mut self) -> Result<(), FetchError> {
        let mut buffer = vec![0; usize::try_from(self.size.min(BLOCK_LEN)).unwrap_or(0)];
        while self.poured.next < block_count(self.size) && self.size > 0 {
            let heard = self.attempt.unless_stopped(self.link.hear()).await?;
            match heard {
                Heard::Data(data) => buffer = self.data(data, buffer).await?,
                Heard::Failed(_, code, text) => return Err(self.link.failed(code, &text)),
                _ => {}
            }
        }
        self.poured.next = block_count(self.size);
        if let Some(checking) = self.poured.checking.take() {
            checking.finish()?;
        }
        self.write(Vec::new(), 0).await.map(drop)
    }

    async fn data(&mut self, data: Data, mut buffer: Vec<u8>) -> Result<Vec<u8>, FetchError> {
        let Some(block) = data.block else {
            self.attempt.unless_stopped(self.link.skip(data.len)).await?;
            return Ok(buffer);
        };
        let span = block_span(self.size, block);
        let within = |at: u64| usize::try_from(at - span.start).unwrap_or(usize::MAX);
        let place = buffer.get_mut(within(data.offset)..within(data.offset + data.len)).unwrap_or_default();
        self.attempt.unless_stopped(self.link.take(place)).await?;
        if !data.ends_block {
            return Ok(buffer);
        }
        let len = within(span.end);
        let hash = BlockHash::of(self.size, block, &buffer[..len]);
        if !self.link.check(data.request, hash)? {
            return Err(FetchError::Damaged { peer: self.link.peer(), block });
        }
        if block < self.poured.next {
            return Ok(buffer);
        }
        if let Some(checking) = &mut self.poured.checking {
            checking.update(&buffer[..len]);
        }
        let buffer = self.write(buffer, len).await?;
        self.poured.next = block + 1;
        *self.blocks += 1;
        self.attempt.observer.observe(&Event::Progress { done: span.end, size: self.size });
        // The window is opened again by what was passed on: a slow reader slows the server down.
        if block_count(self.size) > V2_RUN_BLOCKS_MAX {
            let window = ClientFrame::Window(self.request, len as u64);
            self.attempt.unless_stopped(self.link.send(&window)).await?;
        }
        Ok(buffer)
    }

    /// Passes bytes on. Whoever reads them may take its time, or never come.
    async fn write(&mut self, buffer: Vec<u8>, len: usize) -> Result<Vec<u8>, FetchError> {
        let target = self.attempt.target.clone();
        let output = self.poured.output.take();
        let writing = blocking(move || {
            let shown = target.shown();
            let failed = |source| FetchError::Output { path: shown.clone(), source };
            let mut output = match output {
                Some(output) => output,
                None => Output::open(&target).map_err(failed)?,
            };
            output.write_all(&buffer[..len]).map_err(failed)?;
            Ok((output, buffer))
        });
        let (output, buffer) = self.attempt.unless_stopped(writing).await?;
        self.poured.output = Some(output);
        Ok(buffer)
    }
}

impl Output {
    fn open(target: &Target) -> io::Result<Self> {
        match target.path() {
            Some(path) => File::options().write(true).open(path).map(Self::File),
            None => Ok(Self::Stdout),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(bytes),
        }
    }
}
