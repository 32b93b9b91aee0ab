//! What a command says, up to a bound. All of it is read, so that a command that says more is not held up.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::limits::{COMMAND_OUTPUT_GRACE, COMMAND_OUTPUT_MAX, COMMAND_READ};

/// Both outputs of a command, while it runs.
pub(super) struct Output {
    readers: JoinSet<()>,
    kept: Arc<Mutex<Kept>>,
}

/// What was said so far, in the order in which it was read.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    /// Bytes that were read and not kept.
    more: u64,
}

impl Output {
    /// Begins to read what a command says.
    pub(super) fn of(child: &mut Child) -> Self {
        let (mut readers, kept) = (JoinSet::new(), Arc::default());
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(keep(stdout, Arc::clone(&kept)));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(keep(stderr, Arc::clone(&kept)));
        }
        Self { readers, kept }
    }

    /// What a command has said that has ended. Who was started by it and goes on may have its outputs still; that one is
    /// not waited for.
    pub(super) async fn end(mut self) -> String {
        let all = async { while self.readers.join_next().await.is_some() {} };
        let _ = timeout(COMMAND_OUTPUT_GRACE, all).await;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let said = String::from_utf8_lossy(kept.bytes.trim_ascii_end()).into_owned();
        match kept.more {
            0 => said,
            more => format!("{said} ... and {more} bytes more"),
        }
    }
}

async fn keep(mut output: impl AsyncRead + Unpin, kept: Arc<Mutex<Kept>>) {
    let mut buffer = vec![0; COMMAND_READ];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = COMMAND_OUTPUT_MAX.saturating_sub(kept.bytes.len()).min(count);
        kept.bytes.extend_from_slice(&buffer[..room]);
        kept.more += (count - room) as u64;
    }
}
