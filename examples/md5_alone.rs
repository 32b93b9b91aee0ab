//! Hashes a file and does nothing else: the least time that a download over wire format v1 can take.
//!
//! `bench/run` sets the client's time against this one's.

use std::fs::File;
use std::io::{self, Read, Write};

use anyhow::Context;
use oneport::digest::Md5Hasher;

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).context("usage: md5_alone FILE")?;
    let mut file = File::open(&path)?;
    let mut hasher = Md5Hasher::default();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            count => hasher.update(&piece[..count]),
        }
    }
    writeln!(io::stdout(), "{}", hasher.finish())?;
    Ok(())
}
