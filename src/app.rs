//! The assembly: what the binaries start. Here, and only here, everything comes together.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use tokio::signal::unix::SignalKind;

use crate::error::Code;

mod address;
mod audit;
pub mod command;
pub mod control;
pub mod embed;
mod folders;
mod hangup;
mod identity;
mod keys;
mod owner;
mod pushing;
pub mod received;
pub mod server;

/// Why a program ends, for a person and as an exit status.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// Kind of the failure.
    pub code: Code,
    /// What happened, to what, and what to do.
    pub text: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(code: Code, text: impl Display) -> Self {
        Self { code, text: text.to_string() }
    }
}

/// Ends a program because of `error`: says it on standard error and gives the exit status.
#[must_use]
pub fn fail(program: &str, error: &anyhow::Error) -> ExitCode {
    say(&format!("{program}: {error:#}"));
    exit_code(error)
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let code = error.downcast_ref::<Failure>().map_or(Code::Other, |failure| failure.code);
    ExitCode::from(code.exit_status())
}

/// A line on standard error, if anybody is there to read it.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Whether whoever started this program wants it to outlive the terminal, as `nohup` does.
#[must_use]
pub fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim);
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    let hangup = SignalKind::hangup().as_raw_value() - 1;
    mask >> hangup & 1 == 1
}
