//! The console: lines on standard error, and whole lines on any writer.
//!
//! Runs on the console channel's own thread, where it may block as long as it likes. A console that
//! fails is counted and otherwise ignored.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::batch::Batch;
use super::channel::Sink;
use super::line::LEVEL_WIDTH;

/// A writer of lines. After a line that was written in part the next one begins on a fresh line.
#[derive(Debug)]
pub(super) struct Healed<W> {
    out: W,
    is_torn: bool,
    size: u64,
}

impl<W: Write> Healed<W> {
    /// Writes to `out`, which is empty.
    pub(super) fn new(out: W) -> Self {
        Self { out, is_torn: false, size: 0 }
    }

    /// Bytes written so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Writes one line.
    pub(super) fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.put(b"\n")?;
            self.is_torn = false;
        }
        let before = self.size;
        let result = self.put(line);
        self.is_torn = result.is_err() && self.size > before;
        result
    }

    /// Writes several lines; says how many were written whole, and what kept the next one from it.
    pub(super) fn lines(&mut self, batch: &Batch) -> (usize, io::Result<()>) {
        if self.is_torn {
            if let Err(error) = self.put(b"\n") {
                return (0, Err(error));
            }
            self.is_torn = false;
        }
        let before = self.size;
        let result = self.put(batch.text());
        let written = usize::try_from(self.size - before).unwrap_or(usize::MAX);
        let (whole, end) = batch.within(written);
        self.is_torn = written > end;
        (whole, result)
    }

    fn put(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.size += count as u64;
                    rest = rest.get(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Shows lines to a person.
#[derive(Debug)]
pub(super) struct Terminal<W> {
    out: Healed<W>,
    color: bool,
    painted: Vec<u8>,
    all_painted: Batch,
    failed: Arc<AtomicU64>,
}

impl<W: Write> Terminal<W> {
    /// Lines on `out`, with coloured levels if so wished.
    pub(super) fn new(out: W, color: bool) -> Self {
        Self {
            out: Healed::new(out),
            color,
            painted: Vec::new(),
            all_painted: Batch::default(),
            failed: Arc::default(),
        }
    }

    /// The count of lines that could not be written.
    pub(super) fn failed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.failed)
    }
}

impl<W: Write + Send + 'static> Sink for Terminal<W> {
    fn line(&mut self, line: &[u8]) {
        let is_painted = self.color && paint(line, &mut self.painted).is_some();
        if self.out.line(if is_painted { &self.painted } else { line }).is_err() {
            self.failed.fetch_add(1, SeqCst);
        }
    }

    fn lines(&mut self, batch: &Batch) {
        if self.color {
            self.all_painted.clear();
            for line in batch.lines_from(0) {
                let is_painted = paint(line, &mut self.painted).is_some();
                self.all_painted.push(if is_painted { &self.painted } else { line });
            }
        }
        let shown = if self.color { &self.all_painted } else { batch };
        if let (whole, Err(_)) = self.out.lines(shown) {
            self.failed.fetch_add(1, SeqCst);
            for line in batch.lines_from(whole + 1) {
                self.line(line);
            }
        }
    }
}

/// Makes of a line in text format one with a coloured level (ECMA-48, SGR), if there is a level in it.
fn paint(line: &[u8], painted: &mut Vec<u8>) -> Option<()> {
    let start = line.iter().position(|&byte| byte == b' ')? + 1;
    let (time, rest) = line.split_at_checked(start)?;
    let (level, rest) = rest.split_at_checked(LEVEL_WIDTH)?;
    let color: &[u8] = match level {
        b"ERROR" => b"\x1b[31m",
        b"WARN " => b"\x1b[33m",
        b"INFO " => b"\x1b[32m",
        b"DEBUG" => b"\x1b[34m",
        b"TRACE" => b"\x1b[35m",
        _ => return None,
    };
    painted.clear();
    for part in [time, color, level, b"\x1b[0m", rest] {
        painted.extend_from_slice(part);
    }
    Some(())
}
