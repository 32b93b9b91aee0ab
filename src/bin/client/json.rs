//! Events and results as JSON, one object a line, for scripts.
//!
//! Each has `version` (of this format; fields may be added without a new one), `event` and `file`.
//! The last one of a file is `result`: `ok`, and either `path`, `size`, `blake3` or `md5`, `seconds`,
//! `unchanged` and `resumed`, or `code`, `exit_status` and `error`.

use std::time::Duration;

use oneport::client::{
    Entry, Facts, FetchError, Fetched, FolderFetched, FolderPut, Kind, Put, Server, Verified,
};
use oneport::digest::Digest;
use oneport::pin::Pin;
use oneport::text::json_for_terminal;
use serde_json::{Value, json};

use crate::args::{Delivery, File, Folder, Local, Upload};

/// Version of the format.
pub(crate) const VERSION: u32 = 1;

fn line(event: &str, file: &File, fields: Value) -> String {
    let mut object =
        json!({ "version": VERSION, "event": event, "file": String::from_utf8_lossy(&file.name) });
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields);
    }
    json_for_terminal(&object.to_string())
}

/// The file begins to arrive.
pub(crate) fn started(file: &File, server_name: &[u8], size: u64, have: u64) -> String {
    let server_name = String::from_utf8_lossy(server_name);
    line("started", file, json!({ "server_name": server_name, "size": size, "have": have }))
}

/// The server has another version than that of which a part is here.
pub(crate) fn changed(file: &File, kept: u64, had: u64) -> String {
    line("changed", file, json!({ "kept": kept, "had": had }))
}

/// A step of ten percent.
pub(crate) fn progress(file: &File, percent: u8, done: u64, size: u64) -> String {
    line("progress", file, json!({ "percent": percent, "done": done, "size": size }))
}

/// An attempt failed; another one follows.
pub(crate) fn waiting(file: &File, retry: u32, retries: u32, wait: Duration, error: &FetchError) -> String {
    line("waiting", file, retry_fields(retry, retries, wait, error))
}

fn retry_fields(retry: u32, retries: u32, wait: Duration, error: &FetchError) -> Value {
    let (seconds, code) = (wait.as_secs_f64(), error.code().name());
    json!({ "retry": retry, "retries": retries, "seconds": seconds, "code": code, "error": error.to_string() })
}

/// The key of a server is remembered.
pub(crate) fn remembered(server: &Server, pin: Pin, known_hosts: &str, is_pinned: bool) -> String {
    let object = json!({
        "version": VERSION, "event": "remembered", "server": server.to_string(), "pin": pin.to_string(),
        "known_hosts": known_hosts, "is_pinned": is_pinned
    });
    json_for_terminal(&object.to_string())
}

/// The file is here.
pub(crate) fn finished(file: &File, fetched: &Fetched) -> String {
    let path = fetched.path.as_deref().map(|path| path.to_string_lossy().into_owned());
    let seconds = fetched.elapsed.as_secs_f64();
    line(
        "result",
        file,
        json!({
            "ok": true, "path": path, "size": fetched.size,
            fetched.digest.algorithm().to_ascii_lowercase(): fetched.digest.to_hex(),
            "seconds": seconds, "unchanged": fetched.unchanged, "resumed": fetched.resumed
        }),
    )
}

/// The file is on the server.
pub(crate) fn stored(file: &File, upload: &Upload, stored: &Put) -> String {
    line(
        "result",
        file,
        json!({
            "ok": true, "path": local_path(upload), "size": stored.size,
            "blake3": stored.root.map(|root| root.to_string()), "seconds": stored.elapsed.as_secs_f64(),
            "unchanged": stored.unchanged, "resumed": stored.resumed,
            "stored_as": stored.name.as_ref().map(|name| String::from_utf8_lossy(name.as_bytes()))
        }),
    )
}

fn local_path(upload: &Upload) -> Option<String> {
    match &upload.local {
        Local::File(path) | Local::Folder(path, _) => Some(path.to_string_lossy().into_owned()),
        Local::Input => None,
    }
}

/// A receiver has the file.
pub(crate) fn delivered(file: &File, delivery: &Delivery, sent: &Put) -> String {
    line(
        "result",
        file,
        json!({
            "ok": true, "receiver": delivery.receiver.as_str(), "path": local_path(&delivery.upload),
            "size": sent.size, "blake3": sent.root.map(|root| root.to_string()),
            "seconds": sent.elapsed.as_secs_f64(), "resumed": sent.resumed
        }),
    )
}

/// A receiver has not got the file.
pub(crate) fn not_delivered(file: &File, delivery: &Delivery, error: &FetchError) -> String {
    let code = error.code();
    let receiver = delivery.receiver.as_str();
    line(
        "result",
        file,
        json!({
            "ok": false, "receiver": receiver, "code": code.name(), "exit_status": code.exit_status(),
            "error": error.to_string()
        }),
    )
}

/// All that could be stored of a folder is on the server.
pub(crate) fn folder_stored(upload: &Upload, put: &FolderPut) -> String {
    let mut fields = json!({
        "ok": put.failed == 0, "path": local_path(upload), "files": put.files, "folders": put.folders,
        "bytes": put.bytes, "unchanged": put.unchanged, "failed": put.failed, "skipped": put.skipped,
        "resumed": put.resumed, "seconds": put.elapsed.as_secs_f64()
    });
    if put.failed > 0 {
        let code = oneport::error::Code::Partial;
        fields["code"] = code.name().into();
        fields["exit_status"] = code.exit_status().into();
    }
    folder_line("result", &upload.name, fields)
}

/// Something on the server was removed, or has another name.
pub(crate) fn changed_there(file: &File, event: &str, to: Option<&[u8]>) -> String {
    let mut fields = json!({ "ok": true, "change": event });
    if let Some(to) = to {
        fields["to"] = String::from_utf8_lossy(to).into();
    }
    line("result", file, fields)
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

/// What the server says of a file.
pub(crate) fn facts(file: &File, facts: &Facts) -> String {
    let mut fields = fields_of(facts);
    fields["ok"] = true.into();
    line("result", file, fields)
}

/// How a local file compares.
pub(crate) fn verified(file: &File, verified: &Verified) -> String {
    let mut fields = fields_of(&verified.facts);
    fields["ok"] = verified.is_same().into();
    fields["path"] = file.target.path().map(|path| path.to_string_lossy().into_owned()).into();
    fields["local_size"] = verified.size.into();
    fields["local_blake3"] = verified.root.to_string().into();
    if !verified.is_same() {
        let code = oneport::error::Code::Checksum;
        fields["code"] = code.name().into();
        fields["exit_status"] = code.exit_status().into();
    }
    line("result", file, fields)
}

fn fields_of(facts: &Facts) -> Value {
    json!({
        "size": facts.size, "modified": facts.modified.0, "modified_nanoseconds": facts.modified.1,
        "mode": format!("{:04o}", facts.mode), "identity": facts.identity, "blake3": facts.root.to_string()
    })
}

/// Something in a folder.
pub(crate) fn entry(folder: &File, entry: &Entry) -> String {
    let kind = match entry.kind {
        Kind::File => "file",
        Kind::Folder => "folder",
        Kind::Link => "link",
        Kind::Closed => "closed",
    };
    let mut fields = json!({
        "name": String::from_utf8_lossy(&entry.name), "kind": kind, "size": entry.size,
        "modified": entry.modified.0, "modified_nanoseconds": entry.modified.1,
        "mode": format!("{:04o}", entry.mode), "sparse": entry.sparse
    });
    if std::str::from_utf8(&entry.name).is_err() {
        fields["name_hex"] = entry.name.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    }
    line("entry", folder, fields)
}

/// All of a folder was listed, except what is in folders that the server cannot list.
pub(crate) fn listed(folder: &File, entries: u64, closed: u64) -> String {
    let mut fields = json!({ "ok": closed == 0, "entries": entries, "closed": closed });
    if closed > 0 {
        let code = oneport::error::Code::Partial;
        fields["code"] = code.name().into();
        fields["exit_status"] = code.exit_status().into();
    }
    line("result", folder, fields)
}

/// The answers to pings: milliseconds.
pub(crate) fn pings(server: &str, peer: &str, times: &[Duration]) -> String {
    let millis: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
    let object = json!({
        "version": VERSION, "event": "result", "ok": true, "server": server, "peer": peer, "milliseconds": millis
    });
    json_for_terminal(&object.to_string())
}

/// A server that was asked something did not answer, or not well.
pub(crate) fn unanswered(server: &str, error: &FetchError) -> String {
    let code = error.code();
    let object = json!({
        "version": VERSION, "event": "result", "ok": false, "server": server,
        "code": code.name(), "exit_status": code.exit_status(), "error": error.to_string()
    });
    json_for_terminal(&object.to_string())
}

/// A line about a folder, or about one of its files.
fn folder_line(event: &str, name: &[u8], fields: Value) -> String {
    let mut object = json!({ "version": VERSION, "event": event, "folder": String::from_utf8_lossy(name) });
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields);
    }
    json_for_terminal(&object.to_string())
}

/// An attempt at a folder failed; another one follows.
pub(crate) fn folder_waiting(
    folder: &[u8],
    retry: u32,
    retries: u32,
    wait: Duration,
    error: &FetchError,
) -> String {
    folder_line("waiting", folder, retry_fields(retry, retries, wait, error))
}

/// A file of a folder is here; without a digest it was here already.
pub(crate) fn folder_file(folder: &[u8], name: &[u8], size: u64, digest: Option<Digest>) -> String {
    let mut fields = json!({
        "file": String::from_utf8_lossy(name), "ok": true, "size": size, "unchanged": digest.is_none()
    });
    if let Some(digest) = digest {
        fields[digest.algorithm().to_ascii_lowercase()] = digest.to_hex().into();
    }
    folder_line("file", folder, fields)
}

/// A file of a folder is not here.
pub(crate) fn folder_file_failed(folder: &[u8], name: &[u8], error: &FetchError) -> String {
    let fields = json!({
        "file": String::from_utf8_lossy(name), "ok": false, "code": error.code().name(),
        "error": error.to_string()
    });
    folder_line("file", folder, fields)
}

/// All that could be fetched of a folder is here.
pub(crate) fn folder_finished(folder: &Folder, fetched: &FolderFetched) -> String {
    let mut fields = json!({
        "ok": fetched.failed == 0, "path": fetched.path.to_string_lossy(), "files": fetched.files,
        "bytes": fetched.bytes, "unchanged": fetched.unchanged, "failed": fetched.failed,
        "skipped": fetched.skipped, "resumed": fetched.resumed, "seconds": fetched.elapsed.as_secs_f64()
    });
    if fetched.failed > 0 {
        let code = oneport::error::Code::Partial;
        fields["code"] = code.name().into();
        fields["exit_status"] = code.exit_status().into();
    }
    folder_line("result", &folder.name, fields)
}

/// A folder did not come.
pub(crate) fn folder_failed(folder: &[u8], error: &FetchError) -> String {
    let code = error.code();
    folder_line(
        "result",
        folder,
        json!({ "ok": false, "code": code.name(), "exit_status": code.exit_status(), "error": error.to_string() }),
    )
}

/// The user, or the system, stopped it.
pub(crate) fn folder_interrupted(folder: &[u8], status: u8) -> String {
    let error = FetchError::Interrupted.to_string();
    folder_line(
        "result",
        folder,
        json!({ "ok": false, "code": "interrupted", "exit_status": status, "error": error }),
    )
}
