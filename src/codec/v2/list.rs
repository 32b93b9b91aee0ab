//! The bodies of LIST and ENTRIES: what of a folder is wanted, and what is in it.

use bytes::{BufMut, Bytes, BytesMut};

use super::client_frame::{check_name, name, put_name};
use super::server_frame::{MODE_BITS, nanoseconds};
use super::{Body, CLIENT_FRAME_MAX, CURSOR_MAX, HEAD_LEN};
use crate::codec::WireError;
use crate::limits::{NAME_MAX, PATTERN_MAX, PATTERNS_MAX};
use crate::listing::{Entry, Kind, Selection};
use crate::patterns::{Pattern, PatternError, Patterns, Verdict};

const RECURSIVE: u8 = 1;
const FOLLOW_LINKS: u8 = 2;
const ITSELF: u8 = 4;
const EXCLUDE: u8 = 0;
const INCLUDE: u8 = 1;
const SPARSE: u8 = 1;
/// The length of a cursor.
const CURSOR_LEN: usize = 2;

/// The body of LIST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Also what is in the folders in it.
    pub recursive: bool,
    /// Links to folders are folders.
    pub follow_links: bool,
    /// Also the folder itself.
    pub itself: bool,
    /// The name of the folder, as bytes that nobody has looked at yet; empty for the root.
    pub name: Bytes,
    /// Where to go on; empty for the beginning.
    pub cursor: Bytes,
    /// The patterns, as bytes that nobody has looked at yet.
    pub patterns: Vec<(Verdict, Bytes)>,
}

/// The body of ENTRIES.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Where to go on behind these.
    pub cursor: Bytes,
    /// What was found.
    pub entries: Vec<Entry>,
}

impl List {
    /// Bytes that the client chose.
    #[must_use]
    pub fn weight(&self) -> usize {
        let patterns: usize = self.patterns.iter().map(|(_, pattern)| pattern.len()).sum();
        self.name.len() + self.cursor.len() + patterns
    }

    /// A request for what is selected of a folder.
    #[must_use]
    pub fn new(name: Bytes, selection: &Selection, cursor: Bytes) -> Self {
        let Selection { recursive, follow_links, itself, ref patterns } = *selection;
        let patterns = patterns.iter().map(|pattern| (pattern.verdict(), pattern.source().clone()));
        Self { recursive, follow_links, itself, name, cursor, patterns: patterns.collect() }
    }

    /// What is wanted.
    ///
    /// # Errors
    /// If a pattern is none.
    pub fn selection(&self) -> Result<Selection, PatternError> {
        let parsed = self.patterns.iter().map(|(verdict, source)| Pattern::parse(*verdict, source.clone()));
        let patterns = Patterns::new(parsed.collect::<Result<_, _>>()?)?;
        let Self { recursive, follow_links, itself, .. } = *self;
        Ok(Selection { recursive, follow_links, itself, patterns })
    }

    pub(super) fn parse(body: &mut Body) -> Result<Self, WireError> {
        let flags = body.u8()?;
        let name = name(body)?;
        let cursor = cursor(body)?;
        let count = usize::from(body.u8()?);
        if count > PATTERNS_MAX {
            return Err(TOO_MANY);
        }
        let mut patterns = Vec::with_capacity(count);
        for _ in 0..count {
            let verdict = match body.u8()? {
                EXCLUDE => Verdict::Exclude,
                INCLUDE => Verdict::Include,
                _ => return Err(WireError::Frame("a pattern is of an unknown kind")),
            };
            let len = usize::from(body.u16()?);
            if len > PATTERN_MAX {
                return Err(TOO_LONG);
            }
            patterns.push((verdict, body.bytes(len)?));
        }
        let [recursive, follow_links, itself] =
            [RECURSIVE, FOLLOW_LINKS, ITSELF].map(|flag| flags & flag != 0);
        Ok(Self { recursive, follow_links, itself, name, cursor, patterns })
    }

    /// Whether a frame can hold it.
    pub(super) fn check(&self) -> Result<(), WireError> {
        check_name(&self.name)?;
        if self.cursor.len() > CURSOR_MAX {
            return Err(CURSOR);
        }
        if self.patterns.len() > PATTERNS_MAX {
            return Err(TOO_MANY);
        }
        if self.patterns.iter().any(|(_, source)| source.len() > PATTERN_MAX) {
            return Err(TOO_LONG);
        }
        let patterns = self.patterns.iter().map(|(_, source)| 3 + source.len()).sum::<usize>();
        let len = HEAD_LEN + 1 + 2 + self.name.len() + CURSOR_LEN + self.cursor.len() + 1 + patterns;
        if len > CLIENT_FRAME_MAX {
            return Err(WireError::Frame("the patterns do not fit into one request"));
        }
        Ok(())
    }

    pub(super) fn put(&self, dst: &mut BytesMut) {
        let flags = [(self.recursive, RECURSIVE), (self.follow_links, FOLLOW_LINKS), (self.itself, ITSELF)];
        dst.put_u8(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
        put_name(&self.name, dst);
        put_name(&self.cursor, dst);
        // All of it was checked.
        dst.put_u8(u8::try_from(self.patterns.len()).unwrap_or(u8::MAX));
        for (verdict, source) in &self.patterns {
            dst.put_u8(match verdict {
                Verdict::Exclude => EXCLUDE,
                Verdict::Include => INCLUDE,
            });
            put_name(source, dst);
        }
    }
}

impl Entries {
    /// The length of the body, which counts against the window.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        let entries: usize = self.entries.iter().map(Entry::wire_len).sum();
        (CURSOR_LEN + self.cursor.len() + entries) as u64
    }

    pub(super) fn parse(body: &mut Body) -> Result<Self, WireError> {
        let cursor = cursor(body)?;
        let mut entries = Vec::new();
        while !body.0.is_empty() {
            entries.push(entry(body)?);
        }
        Ok(Self { cursor, entries })
    }

    pub(super) fn put(&self, dst: &mut BytesMut) {
        put_name(&self.cursor, dst);
        for entry in &self.entries {
            dst.put_u8(match entry.kind {
                Kind::File => 1,
                Kind::Folder => 2,
                Kind::Link => 3,
                Kind::Closed => 4,
            });
            dst.put_u8(if entry.sparse { SPARSE } else { 0 });
            dst.put_u64(entry.size);
            dst.put_i64(entry.modified.0);
            dst.put_u32(entry.modified.1);
            dst.put_u32(entry.mode & MODE_BITS);
            put_name(&entry.name, dst);
        }
    }
}

const CURSOR: WireError = WireError::Frame("a cursor is too long");
const TOO_MANY: WireError = WireError::Frame("there are too many patterns");
const TOO_LONG: WireError = WireError::Frame("a pattern is too long");

fn cursor(body: &mut Body) -> Result<Bytes, WireError> {
    let len = usize::from(body.u16()?);
    if len > CURSOR_MAX {
        return Err(CURSOR);
    }
    body.bytes(len)
}

fn entry(body: &mut Body) -> Result<Entry, WireError> {
    let number = usize::from(body.u8()?);
    let kind = number.checked_sub(1).and_then(|index| Kind::ALL.get(index).copied());
    let kind = kind.ok_or(WireError::Frame("an entry is of an unknown kind"))?;
    let (flags, size) = (body.u8()?, body.u64()?);
    let modified = (i64::from_be_bytes(body.array()?), nanoseconds(body)?);
    let mode = body.u32()? & MODE_BITS;
    let len = usize::from(body.u16()?);
    if len > NAME_MAX {
        return Err(WireError::NameLength(u32::try_from(len).unwrap_or(u32::MAX)));
    }
    Ok(Entry { kind, sparse: flags & SPARSE != 0, size, modified, mode, name: body.bytes(len)? })
}
