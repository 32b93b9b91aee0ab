//! A journal that is being written: one record behind the other.
//!
//! A part owns one of these at a time. It only appends; a journal of which anything has to change is
//! written anew under another name, because what stood behind the place where writing goes on might
//! come back with a power cut. It does not decide what is worth a record.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::journal::{Entry, HEADER_LEN, Header, Key, RECORD_LEN, Record};
use crate::fileops;
use crate::limits::{JOURNAL_CHUNK, JOURNAL_RECORDS_MAX};
use crate::tree::HASH_LEN;

/// An open journal.
#[derive(Debug)]
pub(super) struct Log {
    file: Arc<File>,
    key: Key,
    records: u32,
}

impl Log {
    /// Goes on with a journal that has so many records and nothing behind them.
    pub(super) fn resume(file: File, header: &Header, records: u32) -> Self {
        Self { file: Arc::new(file), key: Key::of(&header.encode()), records }
    }

    /// Begins a journal in an empty file.
    pub(super) fn begin(file: File, header: &Header) -> io::Result<Self> {
        let bytes = header.encode();
        fileops::write_all_at(&file, &bytes, 0)?;
        Ok(Self { file: Arc::new(file), key: Key::of(&bytes), records: 0 })
    }

    /// Begins a journal that holds `blocks` already, of which those with a number below `covered`
    /// are on the disk; returns them with their new numbers, and how many records are covered now.
    pub(super) fn begin_with(
        file: File,
        header: &Header,
        blocks: &BTreeMap<u64, Entry>,
        covered: u32,
    ) -> io::Result<(Self, BTreeMap<u64, Entry>, u32)> {
        let mut log = Self::begin(file, header)?;
        let mut numbered = BTreeMap::new();
        let mut buffer = Vec::with_capacity(JOURNAL_CHUNK + RECORD_LEN);
        let mut covered_now = 0;
        for is_covered in [true, false] {
            for (&index, entry) in blocks.iter().filter(|(_, entry)| (entry.number < covered) == is_covered) {
                let number = log.gather(block(index, entry.hash)?, &mut buffer)?;
                numbered.insert(index, Entry { number, ..*entry });
            }
            if is_covered && log.records > 0 {
                covered_now = log.records;
                log.gather(Record::Synced { covered: covered_now }, &mut buffer)?;
            }
        }
        log.pour(&mut buffer)?;
        Ok((log, numbered, covered_now))
    }

    /// How many records there are.
    pub(super) fn records(&self) -> u32 {
        self.records
    }

    /// The file, to flush it while others append.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Appends a record; returns its number.
    pub(super) fn append(&mut self, record: Record) -> io::Result<u32> {
        let mut buffer = Vec::with_capacity(RECORD_LEN);
        let number = self.gather(record, &mut buffer)?;
        match self.pour(&mut buffer) {
            Ok(()) => Ok(number),
            Err(error) => {
                // The next one is written over what may stand there now.
                self.records = number;
                Err(error)
            }
        }
    }

    /// Appends the record of a block.
    pub(super) fn append_block(&mut self, index: u64, hash: [u8; HASH_LEN]) -> io::Result<u32> {
        self.append(block(index, hash)?)
    }

    /// Takes a record into the buffer, and writes the buffer when it is full.
    fn gather(&mut self, record: Record, buffer: &mut Vec<u8>) -> io::Result<u32> {
        let number = self.records;
        if number >= JOURNAL_RECORDS_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        buffer.extend_from_slice(&record.encode(&self.key, number));
        self.records += 1;
        if buffer.len() >= JOURNAL_CHUNK {
            self.pour(buffer)?;
        }
        Ok(number)
    }

    /// Writes the buffer, which ends with the last record.
    fn pour(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let end = HEADER_LEN as u64 + u64::from(self.records) * RECORD_LEN as u64;
        fileops::write_all_at(&self.file, buffer, end - buffer.len() as u64)?;
        buffer.clear();
        Ok(())
    }
}

fn block(index: u64, hash: [u8; HASH_LEN]) -> io::Result<Record> {
    let index = u32::try_from(index).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(Record::Block { index, hash })
}
