//! What a client that listens tells scripts, one JSON object a line; `version` and `event` are as everywhere.
//!
//! `received` has `file`, `from`, `ok` and `size`, `path`, `blake3` and so on; or `code`, `exit_status` and `error`.

use std::time::Duration;

use oneport::client::{FetchError, Offered, Received};
use oneport::names::ReceiverName;
use oneport::text::json_for_terminal;
use serde_json::json;

use crate::json::VERSION;

/// The server knows that this client listens.
pub(crate) fn listening(name: &str, server: &str) -> String {
    told(&json!({ "version": VERSION, "event": "listening", "name": name, "server": server }))
}

/// There is no connection.
pub(crate) fn listen_waiting(name: &str, wait: Duration, error: &FetchError) -> String {
    let (seconds, code, error) = (wait.as_secs_f64(), error.code().name(), error.to_string());
    told(&json!({
        "version": VERSION, "event": "waiting", "name": name, "seconds": seconds, "code": code, "error": error
    }))
}

/// It does not listen any more.
pub(crate) fn listen_failed(name: &ReceiverName, error: &FetchError) -> String {
    let code = error.code();
    told(&json!({
        "version": VERSION, "event": "result", "name": name.as_str(), "ok": false, "code": code.name(),
        "exit_status": code.exit_status(), "error": error.to_string()
    }))
}

/// A file is here.
pub(crate) fn received(offered: &Offered, received: &Received) -> String {
    told(&json!({
        "version": VERSION, "event": "received", "ok": true,
        "file": String::from_utf8_lossy(offered.name.as_bytes()), "from": offered.from,
        "path": received.path.to_string_lossy(), "size": offered.size, "blake3": offered.root.to_string(),
        "seconds": received.elapsed.as_secs_f64(), "unchanged": received.unchanged, "resumed": received.resumed
    }))
}

/// A file is not here, and its sender is told so.
pub(crate) fn not_received(name: &str, from: &str, error: &FetchError) -> String {
    let code = error.code();
    told(&json!({
        "version": VERSION, "event": "received", "ok": false, "file": name, "from": from, "code": code.name(),
        "exit_status": code.exit_status(), "error": error.to_string()
    }))
}

fn told(object: &serde_json::Value) -> String {
    json_for_terminal(&object.to_string())
}
