//! Events and results as JSON, one object a line, for scripts.
//!
//! Each has `version` (of this format; fields may be added without a new one), `event` and `file`.
//! The last one of a file is `result`: `ok`, and either `path`, `size`, `md5`, `seconds` and
//! `unchanged`, or `code`, `exit_status` and `error`.

use std::time::Duration;

use oneport::client::{FetchError, Fetched};
use oneport::text::json_for_terminal;
use serde_json::{Value, json};

use crate::args::File;

/// Version of the format.
const VERSION: u32 = 1;

fn line(event: &str, file: &File, fields: Value) -> String {
    let mut object = json!({ "version": VERSION, "event": event, "file": file.name });
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields);
    }
    json_for_terminal(&object.to_string())
}

/// The file begins to arrive.
pub(crate) fn started(file: &File, server_name: &[u8], size: u64) -> String {
    line("started", file, json!({ "server_name": String::from_utf8_lossy(server_name), "size": size }))
}

/// A step of ten percent.
pub(crate) fn progress(file: &File, percent: u8, done: u64, size: u64) -> String {
    line("progress", file, json!({ "percent": percent, "done": done, "size": size }))
}

/// An attempt failed; another one follows.
pub(crate) fn waiting(file: &File, retry: u32, retries: u32, wait: Duration, error: &FetchError) -> String {
    let (seconds, code) = (wait.as_secs_f64(), error.code().name());
    line(
        "waiting",
        file,
        json!({ "retry": retry, "retries": retries, "seconds": seconds, "code": code, "error": error.to_string() }),
    )
}

/// The file is here.
pub(crate) fn finished(file: &File, fetched: &Fetched) -> String {
    let path = fetched.path.as_deref().map(|path| path.to_string_lossy().into_owned());
    let seconds = fetched.elapsed.as_secs_f64();
    line(
        "result",
        file,
        json!({
            "ok": true, "path": path, "size": fetched.size, "md5": fetched.md5.to_string(),
            "seconds": seconds, "unchanged": fetched.unchanged
        }),
    )
}

/// The file did not come.
pub(crate) fn failed(file: &File, error: &FetchError) -> String {
    let code = error.code();
    line(
        "result",
        file,
        json!({
            "ok": false, "code": code.name(), "exit_status": code.exit_status(), "error": error.to_string()
        }),
    )
}

/// The user, or the system, stopped it.
pub(crate) fn interrupted(file: &File, status: u8) -> String {
    let error = FetchError::Interrupted.to_string();
    line("result", file, json!({ "ok": false, "code": "interrupted", "exit_status": status, "error": error }))
}
