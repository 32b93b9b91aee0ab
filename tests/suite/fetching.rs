//! The client's library in this process, and what a transfer through a proxy has cost.
//!
//! A test that needs hundreds of transfers calls the library itself: a program takes longer to start than
//! most of them last.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use oneport::client::{
    Backoff, Event, FetchError, Fetched, Observer, OldServers, Overwrite, Protocol, Security, Server,
    Settings, Target, fetch,
};
use oneport::digest::Digest;
use tokio_util::sync::CancellationToken;

use crate::harness::CLIENT_PATIENCE;
use crate::proxy::Traffic;

/// Bytes of a block (`docs/protocol.md`).
pub(crate) const BLOCK: u64 = 1 << 20;
/// A hello is longer, and a request of version 1 for one of our short names is shorter.
const HELLO_MIN: u64 = 40;

/// Most bytes of a WELCOME.
const WELCOME_MAX: u64 = 64;
/// FILE (82 bytes), END (42) and VALUES on the way from the root to a block: a head of 10 bytes and pairs of
/// 64, as many as the tree is deep (of at most 64 blocks).
const REQUEST_MAX: u64 = 82 + 42 + 10 + 64 * 6;
/// Requests of one connection that may be under way, or have come to nothing.
const REQUESTS: u64 = 3;
/// The heads of a block's DATA: 17 bytes each, for at most 256 KiB.
const HEADS: u64 = 4 * 17;

/// What was told during a fetch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// The digest was known when the file was described.
    pub(crate) warm: bool,
    /// It was not.
    pub(crate) cold: bool,
    /// Bytes that both versions have in common, and that the part had.
    pub(crate) changed: Option<(u64, u64)>,
    /// Attempts that failed and were followed by another one.
    pub(crate) retries: u32,
    /// What the client had read when the last attempt failed, until the next one says what it kept.
    read: u64,
    /// Bytes that the client had read and did not keep.
    pub(crate) lost: u64,
}

#[derive(Default)]
struct Watch(Mutex<(Seen, Vec<String>)>);

impl Observer for Watch {
    fn observe(&self, event: &Event<'_>) {
        let (seen, errors) = &mut *self.0.lock().unwrap();
        match event {
            Event::Started { digest, have, .. } => {
                seen.cold |= digest.is_none();
                seen.warm |= matches!(digest, Some(Digest::Blake3(_)));
                seen.lost += std::mem::take(&mut seen.read).saturating_sub(*have);
            }
            Event::Changed { kept, had } => seen.changed = Some((*kept, *had)),
            Event::Waiting { error, .. } => {
                seen.retries += 1;
                seen.read = read_by(&error.to_string());
                errors.push(error.to_string());
            }
            _ => {}
        }
    }
}

/// How many bytes a client had read of the file when it failed: "... after 5 of 7 bytes: ...".
fn read_by(error: &str) -> u64 {
    let behind = error.split_once(" after ").map_or("", |(_, behind)| behind);
    behind.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Settings with hardly any wait between attempts.
pub(crate) fn settings(links: u64, retries: u32) -> Settings {
    let (first, longest) = (Duration::from_millis(1), Duration::from_millis(5));
    Settings {
        backoff: Backoff { retries, first, longest },
        timeout: Duration::from_secs(10),
        wait_max: oneport::limits::V2_WAIT_MAX,
        overwrite: Overwrite::Always,
        sync: false,
        protocol: Protocol::Auto,
        links,
        limit_rate: None,
        priority: oneport::priority::Priority::default(),
        sparse: false,
        restart: false,
        checksum: None,
        old_servers: OldServers::default(),
        security: Security::default(),
    }
}

/// Fetches a file as one run of the client does. What it needs longer than [`CLIENT_PATIENCE`] for fails.
pub(crate) fn fetch_once(
    from: SocketAddr,
    name: &str,
    target: &Path,
    settings: &Settings,
) -> (Result<Fetched, FetchError>, Seen, Vec<String>) {
    let server: Server = from.to_string().parse().unwrap();
    let (target, watch) = (Target::File(target.to_owned()), Watch::default());
    let stopping = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(async {
        let fetching = fetch(&server, name.as_bytes(), &target, settings, &watch, &stopping);
        tokio::select! {
            result = fetching => result,
            () = tokio::time::sleep(CLIENT_PATIENCE) => Err(FetchError::Interrupted),
        }
    });
    let (seen, errors) = watch.0.into_inner().unwrap();
    (result, seen, errors)
}

/// Fetches a file and checks that it is whole and alone in its folder.
#[track_caller]
pub(crate) fn fetch_whole(
    from: SocketAddr,
    name: &str,
    target: &Path,
    settings: &Settings,
    data: &[u8],
) -> Seen {
    let (result, seen, errors) = fetch_once(from, name, target, settings);
    let result = result.unwrap_or_else(|error| panic!("{name}: {error} after {errors:?}"));
    assert_eq!(result.size, data.len() as u64, "{name}");
    whole_and_alone(target, data).unwrap_or_else(|wrong| panic!("{name}: {wrong} after {errors:?}"));
    seen
}

/// Whether a file holds these bytes and nothing else is in its folder; what is wrong if not.
pub(crate) fn whole_and_alone(target: &Path, data: &[u8]) -> Result<(), String> {
    let found = fs::read(target).map_err(|error| error.to_string())?;
    if found != data {
        let at = found.iter().zip(data).position(|(one, other)| one != other);
        return Err(format!("{} bytes, not {}, differ at {at:?}", found.len(), data.len()));
    }
    let beside: Vec<_> =
        fs::read_dir(target.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    if beside.len() == 1 { Ok(()) } else { Err(format!("something was left: {beside:?}")) }
}

/// What a transfer has cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Connections that did not come to their end, or were one of several.
    pub(crate) cuts: u64,
    /// Bytes given to the client beyond those of the file, heads of frames included.
    pub(crate) waste: u64,
    /// Most that it may be: a block for each cut, and the heads.
    pub(crate) bound: u64,
    /// A part of it came over version 1, which begins at nothing.
    pub(crate) by_v1: bool,
    /// All that was given to the client has come to it.
    pub(crate) is_told: bool,
}

impl Cost {
    /// The cost of a transfer of `size` bytes, all of whose connections are these.
    pub(crate) fn of(connections: &[Traffic], size: u64) -> Self {
        let down: u64 = connections.iter().map(|traffic| traffic.down).sum();
        let cuts = (connections.len() as u64).saturating_sub(1);
        let bound = cuts * BLOCK + heads_max(down, connections.len() as u64);
        let by_v1 = connections.iter().any(|traffic| traffic.up < HELLO_MIN && traffic.down > 0);
        Self { cuts, waste: down.saturating_sub(size), bound, by_v1, is_told: true }
    }

    /// The same where nobody knows how much of what was given to the client has come to it.
    pub(crate) fn untold(self) -> Self {
        Self { is_told: false, ..self }
    }
}

/// Most bytes of frames besides those of the file, if each block was a request of its own.
pub(crate) fn heads_max(down: u64, connections: u64) -> u64 {
    let blocks = down / BLOCK + connections;
    connections * (WELCOME_MAX + REQUESTS * REQUEST_MAX) + blocks * (REQUEST_MAX + HEADS)
}
