//! What this end says: answers to calls, doubly wrapped, and the frames of a session.
//!
//! The outer wrapping is the answer's, and always says that the call was made; the inner one says what came of it. A
//! result that has a `success` of its own is its own inner wrapping.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::{PayloadError, write};

/// Kinds of failure, as this dialect numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Failure {
    /// It cannot be done now.
    Internal = 1001,
    /// Parameters are missing, or of another type.
    Parameters = 2000,
    /// A parameter has a value that it cannot have.
    Value = 2003,
    /// It is not allowed.
    Denied = 3003,
    /// There is no such method, file or transfer.
    NotFound = 4000,
    /// Too many at once.
    Busy = 6000,
    /// There is no room.
    NoRoom = 6001,
}

#[derive(Serialize)]
struct Outer<T> {
    success: bool,
    result: T,
}

#[derive(Serialize)]
struct Inner<T> {
    success: bool,
    data: T,
}

#[derive(Serialize)]
struct Failed<'a> {
    success: bool,
    error: &'a str,
    code: u16,
}

/// The answer to a call that has given `data`.
///
/// # Errors
/// As [`write()`].
pub fn done<T: Serialize>(data: T) -> Result<Bytes, PayloadError> {
    write(&Outer { success: true, result: Inner { success: true, data } })
}

/// The answer to a call whose result says by itself whether it was a success.
///
/// # Errors
/// As [`write()`].
pub fn done_itself<T: Serialize>(result: T) -> Result<Bytes, PayloadError> {
    write(&Outer { success: true, result })
}

/// The answer to a call that has come to nothing.
///
/// # Errors
/// As [`write()`].
pub fn failed(code: Failure, error: &str) -> Result<Bytes, PayloadError> {
    write(&Outer { success: true, result: Failed { success: false, error, code: code as u16 } })
}

/// What a session begins with.
#[derive(Debug, Serialize)]
pub struct AuthSuccess<'a> {
    /// 128 hexadecimal digits. Nothing ever asks for them again.
    pub session_token: &'a str,
    /// Who serves.
    pub server_info: ServerInfo<'a>,
}

/// Who serves.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct ServerInfo<'a> {
    pub name: &'a str,
    pub version: &'a str,
}

/// Why a session does not begin, or ends.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Reason<'a> {
    pub reason: &'a str,
}

/// A message.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Said<'a, T> {
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub data: T,
}

/// What can be called.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Methods {
    pub methods: Vec<Method>,
    pub count: usize,
}

/// A method.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Method {
    pub name: &'static str,
    pub description: &'static str,
    pub parameters: BTreeMap<&'static str, &'static str>,
    pub return_type: &'static str,
    pub requires_auth: bool,
}

/// A file of a list.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Listed {
    pub name: String,
    pub size: u64,
}

/// The files of a folder.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Files {
    pub files: Vec<Listed>,
    /// There are more, which are not in it.
    pub truncated: bool,
}

/// A transfer that has begun.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Begun<'a> {
    pub transfer_id: &'a str,
    pub size: u64,
    pub total_chunks: u64,
    pub chunk_size: u64,
}

/// A chunk that has come.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Received {
    pub received: bool,
    pub chunk_index: u64,
    pub chunks_received: u64,
    pub total_chunks: u64,
}

/// A file that is stored.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Stored<'a> {
    pub success: bool,
    pub filename: &'a str,
    pub size: u64,
    pub path: &'a str,
    /// Seconds.
    pub elapsed: f64,
}

/// A chunk that was asked for.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Chunk<'a> {
    pub chunk_index: u64,
    pub data_b64: &'a str,
    pub size: u64,
    /// SHA-256 of the file, with its last chunk, if all were asked for in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<&'a str>,
}

/// Somebody who listens.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Client {
    pub session: String,
    pub name: String,
}

/// Those who listen.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Clients {
    pub clients: Vec<Client>,
}

/// What came of a push to one receiver.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Delivered {
    pub session: String,
    pub name: String,
    pub delivered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What came of a push.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Deliveries<'a> {
    pub filename: &'a str,
    pub receivers: Vec<Delivered>,
}

/// A file that is pushed is about to come.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Incoming<'a> {
    pub transfer_id: &'a str,
    pub filename: &'a str,
    pub size: u64,
    pub checksum: &'a str,
    pub total_chunks: u64,
}

/// A chunk of it.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct PushedChunk<'a> {
    pub transfer_id: &'a str,
    pub chunk_index: u64,
    pub data_b64: &'a str,
}

/// That was all of it.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Complete<'a> {
    pub transfer_id: &'a str,
    pub checksum: &'a str,
}
