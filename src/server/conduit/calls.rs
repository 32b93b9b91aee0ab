//! What a client calls, one call after the other: what it says is looked at, the service is asked, and the answer is
//! made. Sockets are nobody's business here.
//!
//! Transfers are open from one call to the next: a bounded number of them, each for as long as somebody goes on with
//! it. All of them end with their connection.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::downloads::Download;
use super::frame;
use super::uploads::Upload;
use crate::codec::conduit::words::replies::{
    Client, Clients, Delivered, Deliveries, Failure, Files, Listed, Method, Methods, done, failed,
};
use crate::codec::conduit::words::{Call, Params, PayloadError, read, write};
use crate::codec::conduit::{Frame, Kind};
use crate::error::Code;
use crate::limits::{CONDUIT_LIST_MAX, CONDUIT_TRANSFERS_MAX, NAME_SHOWN};
use crate::listing::{self, Selection};
use crate::rights::Verb;
use crate::service::access::{Caller, Denied, Permit};
use crate::service::accounts::Account;
use crate::service::conduits::{Delivery, PushError};
use crate::service::incoming::Refusal;
use crate::service::{Event, Service, ServiceError};
use crate::text;

/// What the log calls the folder that is served.
const ROOT: &[u8] = b".";
pub(super) const NO_SUCH_FILE: &str = "File not found";
pub(super) const NO_SUCH_TRANSFER: &str = "Transfer not found";

/// A method: its name, what it does, and what it takes.
type Described = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// What can be called.
const METHODS: [Described; 9] = [
    ("listall", "Describes all methods.", &[]),
    ("file_list", "Lists the files in the folder that is served.", &[]),
    (
        "file_upload_start",
        "Begins to store a file; its checksum is SHA-256, in hexadecimal digits.",
        &[("filename", "str"), ("size", "int"), ("checksum", "str")],
    ),
    (
        "file_upload_chunk",
        "Brings the next chunk of a file.",
        &[("transfer_id", "str"), ("chunk_index", "int"), ("data_b64", "str")],
    ),
    ("file_upload_complete", "Verifies and stores a file that has come.", &[("transfer_id", "str")]),
    ("file_download_start", "Opens a file.", &[("filename", "str")]),
    ("file_download_chunk", "Gives a chunk of a file.", &[("transfer_id", "str"), ("chunk_index", "int")]),
    ("client_list", "Lists the clients that files can be pushed to.", &[]),
    (
        "file_push",
        "Sends a file of the server to a client: a session, or all clients of a name.",
        &[("client", "str"), ("filename", "str")],
    ),
];

/// The answer to a call, and the bytes of a file in it.
pub(super) struct Answer {
    pub(super) frame: Frame,
    pub(super) moved: Option<(Arc<Account>, u64)>,
}

/// Why a call has come to nothing.
#[derive(Debug)]
pub(super) struct Fault {
    code: Failure,
    text: String,
}

impl Fault {
    pub(super) fn new(code: Failure, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// A parameter that is missing, or of another type.
    pub(super) fn parameter(name: &str) -> Self {
        Self::new(Failure::Parameters, format!("the parameter {name} is missing or of another type"))
    }
}

impl From<PayloadError> for Fault {
    fn from(error: PayloadError) -> Self {
        Self::new(Failure::Internal, error.to_string())
    }
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Name(error) => {
                Self::new(Failure::Value, format!("nothing can have this name here: {error}"))
            }
            denied => Self::new(Failure::Denied, format!("Permission denied: {denied}")),
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(denied) => denied.into(),
            Refusal::Failed(Code::Checksum, _) => Self::new(Failure::Value, "Checksum mismatch"),
            Refusal::Failed(Code::NotAllowed, text) => Self::new(Failure::Denied, text),
            Refusal::Failed(Code::Limit | Code::NoSpace, text) => Self::new(Failure::NoRoom, text),
            Refusal::Failed(_, text) => Self::new(Failure::Internal, text),
        }
    }
}

/// An answer's payload, and the bytes of a file in it.
pub(super) type Given = Result<(Bytes, Option<(Arc<Account>, u64)>), Fault>;

/// A transfer that is open.
pub(super) enum Open {
    In(Box<Upload>),
    Out(Box<Download>),
}

/// Who answers the calls of a connection.
pub(super) struct Calls {
    pub(super) service: Service,
    pub(super) caller: Caller,
    transfers: HashMap<String, (Open, Instant)>,
    idle_timeout: Duration,
}

impl Calls {
    pub(super) fn new(service: Service, caller: Caller, idle_timeout: Duration) -> Self {
        Self { service, caller, transfers: HashMap::new(), idle_timeout }
    }

    /// Whether no transfer is open.
    pub(super) fn is_at_rest(&self) -> bool {
        self.transfers.is_empty()
    }

    /// Ends the transfers that nobody has gone on with; says when the next one is to be looked at.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let idle_timeout = self.idle_timeout;
        self.transfers.retain(|_, (open, used)| {
            let is_idle = *used + idle_timeout <= now;
            if is_idle && let Open::Out(download) = open {
                download.cut(&format!("no chunk was asked for in {} s", idle_timeout.as_secs_f32()));
            }
            !is_idle
        });
        self.transfers.values().map(|(_, used)| *used + idle_timeout).min()
    }

    /// Says why all transfers end.
    pub(super) fn blame(&self, cause: &str) {
        for (open, _) in self.transfers.values() {
            if let Open::Out(download) = open {
                download.cut(cause);
            }
        }
    }

    /// Answers a call.
    pub(super) async fn answer(mut self: Box<Self>, request: Frame) -> (Box<Self>, Answer) {
        let correlation = request.correlation;
        if request.kind == Kind::RpcList {
            let payload = write(&methods()).unwrap_or_default();
            return (self, Answer { frame: frame(Kind::RpcList, correlation, payload), moved: None });
        }
        let (payload, moved) = match self.call(&request.payload).await {
            Ok(given) => given,
            Err(Fault { code, text }) => (failed(code, &text).unwrap_or_default(), None),
        };
        (self, Answer { frame: frame(Kind::RpcResponse, correlation, payload), moved })
    }

    async fn call(&mut self, payload: &[u8]) -> Given {
        let unreadable = |_| Fault::new(Failure::Parameters, "the call cannot be read");
        let call: Call<'_> = read(payload).map_err(unreadable)?;
        let (method, params) = (call.method.text().unwrap_or_default(), call.params.unwrap_or_default());
        match method {
            "listall" => Ok((done(methods())?, None)),
            "file_list" => self.list().await,
            "file_upload_start" => self.start_upload(&params).await,
            "file_upload_chunk" => self.take_chunk(&params).await,
            "file_upload_complete" => self.complete(&params).await,
            "file_download_start" => self.start_download(&params).await,
            "file_download_chunk" => self.give_chunk(&params).await,
            "client_list" => self.clients(),
            "file_push" => self.push(&params).await,
            other => {
                let shown = text::shortened(other, NAME_SHOWN);
                Err(Fault::new(Failure::NotFound, format!("RPC method not found: {shown}")))
            }
        }
    }

    /// Whether one more transfer may be open.
    pub(super) fn check_room(&self) -> Result<(), Fault> {
        if self.transfers.len() < CONDUIT_TRANSFERS_MAX {
            return Ok(());
        }
        let text =
            format!("{CONDUIT_TRANSFERS_MAX} transfers are open on this connection; end one of them first");
        Err(Fault::new(Failure::Busy, text))
    }

    /// Keeps a transfer open.
    pub(super) fn keep(&mut self, id: &str, open: Open) {
        self.transfers.insert(id.to_owned(), (open, Instant::now()));
    }

    /// Takes a transfer out, to go on with it.
    pub(super) fn open(&mut self, id: &str) -> Option<Open> {
        self.transfers.remove(id).map(|(open, _)| open)
    }

    /// Leave to do something to a file, which is told where the name can be none.
    pub(super) fn permit(&self, verb: Verb, name: &str) -> Result<Permit, Fault> {
        self.service.permit(&self.caller, verb, name.as_bytes()).map_err(|denied| {
            if let Denied::Name(error) = denied {
                let (peer, name, cause) = (self.caller.peer(), name.as_bytes(), error.to_string());
                self.service.tell(&Event::Refused { peer, name, cause: &cause });
            }
            denied.into()
        })
    }

    /// Says why a file cannot be had, and the log too.
    pub(super) fn unopened(&self, permit: &Permit, error: &ServiceError) -> Fault {
        let (peer, name, cause) = (self.caller.peer(), permit.name(), error.to_string());
        if let ServiceError::Refused(_) = error {
            self.service.tell(&Event::Refused { peer, name: name.as_bytes(), cause: &cause });
            return Fault::new(Failure::NotFound, NO_SUCH_FILE);
        }
        self.service.tell(&Event::Unavailable { peer, name, cause: &cause });
        Fault::new(Failure::Internal, cause)
    }

    /// The files of the folder that is served, without those in its folders.
    async fn list(&mut self) -> Given {
        let peer = self.caller.peer();
        self.service.tell(&Event::Listing { peer, name: ROOT, is_continued: false });
        let (selection, mut cursor) = (Arc::new(Selection::default()), Bytes::new());
        let (mut files, mut truncated) = (Vec::new(), false);
        while !truncated {
            let permit = self.service.permit_listing(&self.caller, b"")?;
            let listed = self.service.list(permit, Arc::clone(&selection), cursor).await;
            let stretch = listed.map_err(|error| {
                let cause = error.to_string();
                self.service.tell(&Event::Refused { peer, name: ROOT, cause: &cause });
                Fault::new(Failure::Internal, format!("Error in file_list: {cause}"))
            })?;
            for entry in stretch.entries.iter().filter(|entry| entry.kind == listing::Kind::File) {
                // A name that is no text cannot be said in this dialect.
                if let Ok(name) = std::str::from_utf8(&entry.name) {
                    files.push(Listed { name: name.to_owned(), size: entry.size });
                }
            }
            if stretch.is_last {
                break;
            }
            cursor = stretch.cursor;
            truncated = files.len() >= CONDUIT_LIST_MAX;
        }
        self.service.tell(&Event::Listed { peer, name: ROOT, entries: files.len() as u64 });
        Ok((done(Files { files, truncated })?, None))
    }

    /// Those who listen. To know them takes the right to push.
    fn clients(&self) -> Given {
        self.service.check(&self.caller, Verb::Push, b"")?;
        let listeners = self.service.conduit_listeners().into_iter();
        let clients = listeners.map(|(session, name)| Client { session, name }).collect();
        Ok((done(Clients { clients })?, None))
    }

    /// Pushes a file; the answer waits until all who are meant have it or have not taken it.
    async fn push(&mut self, params: &Params<'_>) -> Given {
        let client = params.client.text().ok_or_else(|| Fault::parameter("client"))?;
        let filename = params.filename.text().ok_or_else(|| Fault::parameter("filename"))?;
        let permit = self.permit(Verb::Get, filename)?;
        let deliveries = self.service.push_conduit(&permit, client).await.map_err(|error| match error {
            PushError::Denied(denied) => denied.into(),
            PushError::Nobody => Fault::new(Failure::NotFound, error.to_string()),
            PushError::File(error) => self.unopened(&permit, &error),
        })?;
        let told = |Delivery { session, name, outcome }| {
            let error = outcome.err();
            Delivered { session, name, delivered: error.is_none(), error }
        };
        let receivers = deliveries.into_iter().map(told).collect();
        Ok((done(Deliveries { filename, receivers })?, None))
    }
}

fn methods() -> Methods {
    let describe = |&(name, description, parameters): &Described| {
        let parameters = BTreeMap::from_iter(parameters.iter().copied());
        Method { name, description, parameters, return_type: "dict", requires_auth: true }
    };
    let methods: Vec<_> = METHODS.iter().map(describe).collect();
    Methods { count: methods.len(), methods }
}
