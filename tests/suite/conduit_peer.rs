//! Conduit spoken by hand: frames as the page says them, calls and their answers as JSON, and sites whose servers have a
//! password.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::serving::{Server, Site};

pub(crate) const MESSAGE: u16 = 1;
pub(crate) const CALL: u16 = 2;
pub(crate) const ANSWER: u16 = 3;
pub(crate) const PING: u16 = 5;
pub(crate) const PONG: u16 = 6;
pub(crate) const AUTH: u16 = 7;
pub(crate) const SUCCESS: u16 = 8;
pub(crate) const FAILURE: u16 = 9;
pub(crate) const PAUSE: u16 = 10;
pub(crate) const RESUME: u16 = 11;
pub(crate) const ACK: u16 = 12;
pub(crate) const CLOSE: u16 = 14;
pub(crate) const CLOSE_ACK: u16 = 15;
pub(crate) const LIST: u16 = 16;
pub(crate) const HEAD_LEN: usize = 32;
/// Bytes of a chunk.
pub(crate) const CHUNK: usize = 65_536;

/// The password of all servers here.
pub(crate) const PASSWORD: &str = "correct horse";
/// The file with it, in the folder where a site's servers run.
const FILE: &str = "password";

/// Writes the password of a site's servers.
pub(crate) fn write_password(site: &Site, mode: u32) {
    let path = site.path().join(FILE);
    fs::write(&path, format!("{PASSWORD}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A server with the password, and these options besides.
pub(crate) fn serve(site: &Site, options: &[&str]) -> Server {
    write_password(site, 0o600);
    site.serve(&[&["--conduit-password-file", FILE], options].concat())
}

/// A frame.
pub(crate) fn frame(kind: u16, correlation: u64, payload: &[u8]) -> Vec<u8> {
    flagged(kind, 0, correlation, payload)
}

/// A frame with flags.
pub(crate) fn flagged(kind: u16, flags: u16, correlation: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"CNDT\x01\0".to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(correlation.to_be_bytes());
    bytes.extend(1_700_000_000_000_u64.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A value as MessagePack.
pub(crate) fn packed(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(value).unwrap()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The frame that shows a password.
pub(crate) fn auth(password: &str, name: &str) -> Vec<u8> {
    let said =
        json!({ "password_hash": hex(password.as_bytes()), "client_info": { "name": name, "version": "1" } });
    frame(AUTH, 0, &packed(&said))
}

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Came {
    pub(crate) kind: u16,
    pub(crate) correlation: u64,
    /// Null if there is none.
    pub(crate) said: Value,
}

/// A client.
pub(crate) struct Peer<S = TcpStream> {
    pub(crate) stream: S,
    calls: u64,
}

impl Peer {
    /// One that has been let in.
    #[track_caller]
    pub(crate) fn new(server: &Server) -> Self {
        Self::named(server, "peer")
    }

    /// As [`Self::new`], with a name of its own.
    #[track_caller]
    pub(crate) fn named(server: &Server, name: &str) -> Self {
        Self::over(server.connect(), name)
    }
}

impl<S: Read + Write> Peer<S> {
    /// As [`Peer::named`], over a connection that is there.
    #[track_caller]
    pub(crate) fn over(mut stream: S, name: &str) -> Self {
        stream.write_all(&auth(PASSWORD, name)).unwrap();
        let mut peer = Self { stream, calls: 0 };
        let success = peer.hear().unwrap();
        assert_eq!(success.kind, SUCCESS, "{success:?}");
        assert_eq!(success.said["session_token"].as_str().unwrap().len(), 128);
        assert_eq!(success.said["server_info"]["name"], "oneport");
        peer
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next frame that is no ping. On a slow machine one may come at any time, and is answered.
    pub(crate) fn hear(&mut self) -> io::Result<Came> {
        loop {
            match self.hear_any()? {
                Came { kind: PING, .. } => self.say(&frame(PONG, 0, &[])),
                other => return Ok(other),
            }
        }
    }

    /// The next frame.
    pub(crate) fn hear_any(&mut self) -> io::Result<Came> {
        let mut head = [0; HEAD_LEN];
        self.stream.read_exact(&mut head)?;
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        assert_eq!((&head[..6], word(8), word(10)), (&b"CNDT\x01\0"[..], 0, 0), "never packed");
        let len = u32::from_be_bytes(head[12..16].try_into().unwrap());
        let mut payload = vec![0; len as usize];
        self.stream.read_exact(&mut payload)?;
        let said = if payload.is_empty() { Value::Null } else { rmp_serde::from_slice(&payload).unwrap() };
        let correlation = u64::from_be_bytes(head[16..24].try_into().unwrap());
        Ok(Came { kind: word(6), correlation, said })
    }

    /// Whether nothing more comes.
    pub(crate) fn is_over(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }

    /// Sends a call, and does not wait for its answer.
    pub(crate) fn send(&mut self, method: &str, params: &Value) -> u64 {
        self.calls += 1;
        let call = frame(CALL, self.calls, &packed(&json!({ "method": method, "params": params })));
        self.say(&call);
        self.calls
    }

    /// The answer to a call: whatever came of it.
    #[track_caller]
    pub(crate) fn answer(&mut self, call: u64) -> Value {
        let Came { kind, correlation, said } = self.hear().unwrap();
        assert_eq!((kind, correlation, &said["success"]), (ANSWER, call, &json!(true)), "{said}");
        said["result"].clone()
    }

    /// What came of a call.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let call = self.send(method, &params);
        self.answer(call)
    }

    /// What a call gives that has to succeed.
    #[track_caller]
    pub(crate) fn get(&mut self, method: &str, params: Value) -> Value {
        let result = self.call(method, params);
        assert_eq!(result["success"], true, "{method}: {result}");
        result.get("data").cloned().unwrap_or(result)
    }

    /// The code of a call that has to fail.
    #[track_caller]
    pub(crate) fn fault(&mut self, method: &str, params: Value) -> u64 {
        let result = self.call(method, params);
        assert_eq!(result["success"], false, "{method}: {result}");
        assert!(result["error"].as_str().is_some_and(|text| !text.is_empty()), "{result}");
        result["code"].as_u64().unwrap()
    }

    /// Begins to upload; the transfer.
    #[track_caller]
    pub(crate) fn start(&mut self, name: &str, bytes: &[u8]) -> Value {
        let params = json!({ "filename": name, "size": bytes.len(), "checksum": hex(bytes) });
        let begun = self.get("file_upload_start", params);
        assert_eq!(begun["total_chunks"], bytes.len().div_ceil(CHUNK));
        begun["transfer_id"].clone()
    }

    /// Brings a chunk.
    #[track_caller]
    pub(crate) fn bring(&mut self, transfer: &Value, index: usize, bytes: &[u8]) -> Value {
        self.get("file_upload_chunk", chunk(transfer, index, bytes))
    }

    /// Uploads a file; the name that it got.
    #[track_caller]
    pub(crate) fn upload(&mut self, name: &str, bytes: &[u8]) -> String {
        let transfer = self.start(name, bytes);
        for (index, part) in bytes.chunks(CHUNK).enumerate() {
            let received = self.bring(&transfer, index, part);
            assert_eq!(received["chunks_received"], index + 1);
        }
        let stored = self.get("file_upload_complete", json!({ "transfer_id": transfer }));
        assert_eq!((&stored["size"], &stored["path"]), (&json!(bytes.len()), &stored["filename"]));
        stored["filename"].as_str().unwrap().to_owned()
    }

    /// Downloads a file.
    #[track_caller]
    pub(crate) fn download(&mut self, name: &str) -> Vec<u8> {
        let begun = self.get("file_download_start", json!({ "filename": name }));
        let (mut bytes, mut checksum) = (Vec::new(), None);
        for index in 0..begun["total_chunks"].as_u64().unwrap() {
            let part = self.get("file_download_chunk", wanted(&begun["transfer_id"], index));
            let data = Base64::decode_vec(part["data_b64"].as_str().unwrap()).unwrap();
            assert_eq!((&part["size"], &part["chunk_index"]), (&json!(data.len()), &json!(index)));
            assert_eq!(checksum, None, "it comes with the last chunk");
            checksum = part.get("checksum").map(|checksum| checksum.as_str().unwrap().to_owned());
            bytes.extend(data);
        }
        assert_eq!(begun["size"], bytes.len());
        assert_eq!(checksum, (!bytes.is_empty()).then(|| hex(&bytes)));
        bytes
    }
}

pub(crate) fn chunk(transfer: &Value, index: usize, bytes: &[u8]) -> Value {
    json!({ "transfer_id": transfer, "chunk_index": index, "data_b64": Base64::encode_string(bytes) })
}

pub(crate) fn wanted(transfer: &Value, index: u64) -> Value {
    json!({ "transfer_id": transfer, "chunk_index": index })
}
