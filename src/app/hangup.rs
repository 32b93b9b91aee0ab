//! What a SIGHUP means: that the terminal is gone, or that somebody wants files to be read again.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// The controlling terminal of this process, under whatever name.
const TERMINAL: &str = "/dev/tty";

/// What was known of the terminal when the program started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    was_there: bool,
}

impl Terminal {
    /// Looks for it, at the start.
    pub(super) fn look() -> Self {
        Self { was_there: open().is_ok() }
    }

    /// Whether it was there at the start and is not any more. The system takes it away before it sends the
    /// signal that says so.
    pub(super) fn has_gone(self) -> bool {
        self.was_there && open().is_err_and(|error| error == Errno::NXIO)
    }
}

fn open() -> Result<(), Errno> {
    let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open(TERMINAL) {
        Ok(_) => Ok(()),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}
