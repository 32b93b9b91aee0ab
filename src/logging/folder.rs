//! The folder of the log files: how they are named and created.
//!
//! A file is created, never opened: two programs never share one, and no link is ever followed at
//! its name. Nothing here removes a file; a log for auditing is kept until its owner decides.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::Role;
use super::line::Clock;
use crate::limits::LOG_NAMES_MAX;

/// Where new log files come from. Tests have one whose disk fills up.
pub(super) trait Disk: Send + 'static {
    /// A file that has just been created.
    type File: Write + Send + 'static;

    /// Creates an empty file that nobody else writes, under a name of this moment.
    fn create(&mut self) -> io::Result<(PathBuf, Self::File)>;
}

/// A folder on disk.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    prefix: &'static str,
    clock: Clock,
}

impl Folder {
    /// The folder `dir`, which need not exist yet, for the files of one program.
    pub(super) fn new(dir: PathBuf, role: Role, clock: Clock) -> Self {
        let prefix = match role {
            Role::Server => "server",
            Role::Client => "client",
        };
        Self { dir, prefix, clock }
    }
}

impl Disk for Folder {
    type File = File;

    fn create(&mut self) -> io::Result<(PathBuf, File)> {
        make_dir(&self.dir)?;
        let stamp = self.clock.local().strftime("%Y%m%d_%H%M%S").to_string();
        claim(&self.dir, &format!("{}_{stamp}", self.prefix))
    }
}

/// Creates `stem.log`, or `stem_2.log` and so on where that is taken.
pub(super) fn claim(dir: &Path, stem: &str) -> io::Result<(PathBuf, File)> {
    for number in 1..=LOG_NAMES_MAX {
        let path = match number {
            1 => dir.join(format!("{stem}.log")),
            _ => dir.join(format!("{stem}_{number}.log")),
        };
        // Appending: a file that its owner cuts short meanwhile does not get a hole.
        let mut options = OpenOptions::new();
        options.append(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
        match options.open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(ErrorKind::AlreadyExists, "too many log files of this second"))
}

fn make_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o750);
    builder.create(dir)
}
