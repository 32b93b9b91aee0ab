//! The audit log: what happened on the server, as lines that people and programs read.
//!
//! It hears the service's events and the listener's, and counts them for the summary at the end.
//! Text of peers is escaped here. The form `N%` is kept for progress lines alone. Of small files that are
//! sent at once there may be a hundred thousand: each has one line, which the console does not show.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::{field, info, warn};

use crate::digest::{Digest, Md5};
use crate::keys::KeyName;
use crate::limits::NAME_LOGGED;
use crate::logging::FILE_ONLY;
use crate::server::Monitor;
use crate::service::{Event, Observer};
use crate::storage::Removed;
use crate::text::logged;
use crate::tree::Root;
use crate::units::Rate;

/// Turns events into log lines and counts.
#[derive(Debug)]
pub(super) struct Audit {
    began: Instant,
    connections: AtomicU64,
    sent: AtomicU64,
    bytes: AtomicU64,
    stored: AtomicU64,
    received: AtomicU64,
    cut: AtomicU64,
    refused: AtomicU64,
}

impl Audit {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            connections: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            received: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The last lines of a run.
    pub(super) fn summarize(&self) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (connections, sent, bytes) = (count(&self.connections), count(&self.sent), count(&self.bytes));
        let (stored, received) = (count(&self.stored), count(&self.received));
        let (cut, refused) = (count(&self.cut), count(&self.refused));
        let seconds = self.began.elapsed().as_secs();
        info!(
            event = "summary",
            connections,
            sent,
            bytes,
            stored,
            received,
            cut,
            refused,
            seconds,
            "Summary: {connections} connections, {sent} files sent ({bytes} bytes), {stored} files stored \
             ({received} bytes), {cut} transfers cut, {refused} requests refused, in {seconds} s"
        );
    }
}

impl Observer for Audit {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::Opened { peer } => {
                self.connections.fetch_add(1, Ordering::Relaxed);
                info!(event = "opened", %peer, "New connection from {peer}");
            }
            Event::Secured { peer } => {
                info!(event = "secured", %peer, tls = true, "Connection with {peer} is encrypted (TLS 1.3)");
            }
            Event::Closed { peer, cause: None } => {
                info!(event = "closed", %peer, "Connection closed with {peer}");
            }
            Event::Closed { peer, cause: Some(cause) } => {
                let cause = logged(cause.as_bytes());
                info!(event = "closed", %peer, %cause, "Connection closed with {peer}: {cause}");
            }
            Event::Requested { peer, name } => {
                let file = said(name);
                info!(event = "requested", %peer, %file, "Client {peer} requested file: {file}");
            }
            Event::Listing { peer, name, is_continued } => {
                let (folder, again) =
                    (said(name), if is_continued { ", from where it had stopped" } else { "" });
                info!(event = "listing", %peer, %folder, is_continued, "Listing '{folder}' to {peer}{again}");
            }
            Event::Listed { peer, name, entries } => {
                let folder = said(name);
                info!(event = "listed", %peer, %folder, entries, "Folder '{folder}' listed to {peer}: {entries} entries");
            }
            Event::Refused { peer, name, cause } => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let (file, cause) = (said(name), logged(cause.as_bytes()));
                warn!(event = "refused", %peer, %file, %cause, "Refused '{file}' to {peer}: {cause}");
            }
            Event::Swept { swept } => {
                let (files, bytes) = (swept.files, swept.bytes);
                info!(
                    event = "swept",
                    files, bytes, "Removed what uploads had left: {files} files, {bytes} bytes"
                );
            }
            Event::NotSwept { cause } => {
                let cause = logged(cause.as_bytes());
                warn!(event = "not-swept", %cause, "What uploads have left cannot be looked for: {cause}");
            }
            Event::Unavailable { peer, name, cause } => {
                let (file, cause) = (logged(name.as_bytes()), logged(cause.as_bytes()));
                warn!(event = "unavailable", %peer, %file, %cause, "No answer to {peer} for '{file}': {cause}");
            }
            Event::Started { .. }
            | Event::Progress { .. }
            | Event::Finished { .. }
            | Event::Sent { .. }
            | Event::HashedAhead { .. }
            | Event::Cut { .. } => self.observe_transfer(event),
            Event::Taken { .. }
            | Event::Made { .. }
            | Event::Removed { .. }
            | Event::Moved { .. }
            | Event::NotChanged { .. } => {
                self.observe_change(event);
            }
            Event::UploadStarted { .. }
            | Event::UploadProgress { .. }
            | Event::Stored { .. }
            | Event::UploadCut { .. } => self.observe_upload(event),
            ref access => self.observe_access(access),
        }
    }
}

impl Audit {
    fn observe_access(&self, event: &Event<'_>) {
        match *event {
            Event::Denied { peer, key, verb, name, cause } => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let name = if name.is_empty() { b"." } else { name };
                let (verb, file, cause) = (verb.name(), said(name), logged(cause.as_bytes()));
                let with = with(key);
                warn!(
                    event = "denied", %peer, verb, %file, key = key.map(field::display), %cause,
                    "Denied {verb} '{file}' to {peer}{with}: {cause}"
                );
            }
            Event::KeyAccepted { peer, key } => {
                info!(event = "key-accepted", %peer, %key, "Client {peer} has shown a key: key={key}");
            }
            Event::KeyRefused { peer, cause } => {
                let cause = logged(cause.as_bytes());
                warn!(event = "key-refused", %peer, %cause, "Refused a key to {peer}: {cause}");
            }
            Event::KeyInClear { peer, is_allowed: true } => {
                warn!(
                    event = "key-in-clear", %peer, accepted = true,
                    "A key came in clear from {peer}, as --allow-plaintext-keys allows: others may have read it"
                );
            }
            Event::KeyInClear { peer, is_allowed: false } => {
                warn!(
                    event = "key-in-clear", %peer, accepted = false,
                    "Refused a key that came in clear from {peer}: others may have read it; revoke it and use TLS"
                );
            }
            Event::KeysUnreadable { cause } => {
                let cause = logged(cause.as_bytes());
                tracing::error!(event = "keys-unreadable", %cause, "Nobody is let in by a key: {cause}");
            }
            Event::Steered { peer, key, verb } => {
                let (verb, with) = (verb.name(), with(key));
                info!(
                    event = "steered", %peer, key = key.map(field::display), verb,
                    "Client {peer}{with} asked the server: {verb}"
                );
            }
            Event::Cancelled { peer, key, id, name, of, direction } => {
                let (file, with, direction) = (logged(name.as_bytes()), with(key), direction.name());
                warn!(
                    event = "cancelled", %peer, key = key.map(field::display), id, %file, of = %of, direction,
                    "Client {peer}{with} cancelled {id}, the {direction} of '{file}' by {of}"
                );
            }
            Event::KeysReadable => info!(event = "keys-readable", "The keys can be read again"),
            ref push => observe_push(push),
        }
    }

    fn observe_transfer(&self, event: &Event<'_>) {
        match *event {
            Event::Started { peer, key, name, size, have } => {
                let (file, there) = (logged(name.as_bytes()), saved(have, "of which ", "are"));
                let with = with(key);
                info!(
                    event = "started", %peer, key = key.map(field::display), %file, size, have = resumed(have),
                    "Sending file '{file}' ({size} bytes) to {peer}{with}{there}"
                );
            }
            Event::Progress { peer, name, percent, done, size } => {
                let file = logged(name.as_bytes());
                info!(
                    event = "progress", %peer, %file, percent, done, size,
                    "Progress to {peer}: {percent}% ({done}/{size} bytes)"
                );
            }
            Event::Finished { peer, key, name, size, have, elapsed, digest } => {
                let moved = size.saturating_sub(have);
                self.sent.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(moved, Ordering::Relaxed);
                let (file, seconds, rate) =
                    (logged(name.as_bytes()), elapsed.as_secs_f64(), Rate::new(moved, elapsed));
                let (md5, blake3) = by_algorithm(digest);
                let shown = digest.map(|digest| format!(", {digest}")).unwrap_or_default();
                let (there, with) = (saved(have, "", "were"), with(key));
                info!(
                    event = "finished", %peer, key = key.map(field::display), %file, size, have = resumed(have), seconds,
                    md5 = md5.map(field::display), blake3 = blake3.map(field::display),
                    "File '{file}' sent successfully to {peer}{with}: {size} bytes in {seconds:.3} s ({rate}){shown}{there}"
                );
            }
            Event::Sent { peer, key, name, size, root } => {
                self.sent.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(size, Ordering::Relaxed);
                let (file, with) = (logged(name.as_bytes()), with(key));
                info!(
                    target: FILE_ONLY, event = "sent", %peer, key = key.map(field::display), %file, size, blake3 = %root,
                    "Sent '{file}' to {peer}{with}: {size} bytes, BLAKE3 {root}"
                );
            }
            Event::HashedAhead { name, size, elapsed, md5 } => {
                let (file, seconds) = (logged(name.as_bytes()), elapsed.as_secs_f64());
                info!(
                    event = "hashed-ahead", %file, size, seconds, %md5,
                    "Hashed '{file}' ahead: {size} bytes in {seconds:.3} s, MD5 {md5}"
                );
            }
            Event::Cut { peer, key, name, done, size, have, cause } => {
                self.cut.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(done.saturating_sub(have), Ordering::Relaxed);
                let (file, cause) = (logged(name.as_bytes()), logged(cause.as_bytes()));
                let (there, with) = (saved(have, "", "were"), with(key));
                warn!(
                    event = "cut", %peer, key = key.map(field::display), %file, done, size, have = resumed(have), %cause,
                    "Transfer of '{file}' to {peer}{with} cut after {done} of {size} bytes{there}: {cause}"
                );
            }
            _ => {}
        }
    }
}

impl Audit {
    fn observe_upload(&self, event: &Event<'_>) {
        match *event {
            Event::UploadStarted { peer, key, name, size, have } => {
                let (file, there) = (logged(name.as_bytes()), saved(have, "of which ", "are"));
                let with = with(key);
                info!(
                    event = "upload-started", %peer, key = key.map(field::display), %file, size, have = resumed(have),
                    "Receiving file '{file}' ({size} bytes) from {peer}{with}{there}"
                );
            }
            Event::UploadProgress { peer, name, percent, done, size } => {
                let file = logged(name.as_bytes());
                info!(
                    event = "upload-progress", %peer, %file, percent, done, size,
                    "Progress from {peer}: {percent}% ({done}/{size} bytes)"
                );
            }
            Event::Stored { peer, key, name, size, have, elapsed, root, .. } => {
                let moved = size.saturating_sub(have);
                self.stored.fetch_add(1, Ordering::Relaxed);
                self.received.fetch_add(moved, Ordering::Relaxed);
                let (file, seconds, rate) =
                    (logged(name.as_bytes()), elapsed.as_secs_f64(), Rate::new(moved, elapsed));
                let (there, with) = (saved(have, "", "were"), with(key));
                info!(
                    event = "stored", %peer, key = key.map(field::display), %file, size, have = resumed(have), seconds,
                    blake3 = %root,
                    "File '{file}' stored for {peer}{with}: {size} bytes in {seconds:.3} s ({rate}), BLAKE3 {root}{there}"
                );
            }
            Event::UploadCut { peer, key, name, done, size, have, cause } => {
                self.cut.fetch_add(1, Ordering::Relaxed);
                self.received.fetch_add(done.saturating_sub(have), Ordering::Relaxed);
                let (file, cause) = (logged(name.as_bytes()), logged(cause.as_bytes()));
                let (there, with) = (saved(have, "", "were"), with(key));
                warn!(
                    event = "upload-cut", %peer, key = key.map(field::display), %file, done, size,
                    have = resumed(have), %cause,
                    "Upload of '{file}' from {peer}{with} cut after {done} of {size} bytes{there}: {cause}"
                );
            }
            _ => {}
        }
    }

    fn observe_change(&self, event: &Event<'_>) {
        match *event {
            Event::Taken { peer, key, name, size, root, .. } => {
                self.stored.fetch_add(1, Ordering::Relaxed);
                self.received.fetch_add(size, Ordering::Relaxed);
                let (file, with) = (logged(name.as_bytes()), with(key));
                info!(
                    target: FILE_ONLY, event = "stored", %peer, key = key.map(field::display), %file, size, blake3 = %root,
                    "Stored '{file}' from {peer}{with}: {size} bytes, BLAKE3 {root}"
                );
            }
            Event::Made { peer, key, name } => {
                let (folder, with) = (logged(name.as_bytes()), with(key));
                info!(
                    event = "made", %peer, key = key.map(field::display), %folder,
                    "Made the folder '{folder}' for {peer}{with}"
                );
            }
            Event::Removed { peer, key, name, removed: Removed { files, folders, bytes } } => {
                let (file, with) = (logged(name.as_bytes()), with(key));
                info!(
                    event = "removed", %peer, key = key.map(field::display), %file, files, folders, bytes,
                    "Removed '{file}' ({files} files, {folders} folders, {bytes} bytes) for {peer}{with}"
                );
            }
            Event::Moved { peer, key, from, to } => {
                let (from, to, with) = (logged(from.as_bytes()), logged(to.as_bytes()), with(key));
                info!(
                    event = "moved", %peer, key = key.map(field::display), %from, %to,
                    "Moved '{from}' to '{to}' for {peer}{with}"
                );
            }
            Event::NotChanged { peer, key, name, cause } => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let (file, cause, with) = (said(name), logged(cause.as_bytes()), with(key));
                warn!(
                    event = "not-changed", %peer, key = key.map(field::display), %file, %cause,
                    "Nothing was changed at '{file}' for {peer}{with}: {cause}"
                );
            }
            _ => {}
        }
    }
}

/// What happens to files that are sent to those who listen. Their bytes are told as those of any upload and download,
/// under the name that they have on their way.
fn observe_push(event: &Event<'_>) {
    match *event {
        Event::Listens { peer, key, receiver } => {
            let with = with(key);
            info!(
                event = "listens", %peer, key = key.map(field::display), %receiver,
                "Client {peer}{with} listens as {receiver}"
            );
        }
        Event::ListensNoMore { peer, key, receiver } => {
            let with = with(key);
            info!(
                event = "listens-no-more", %peer, key = key.map(field::display), %receiver,
                "Client {peer}{with} does not listen as {receiver} any more"
            );
        }
        Event::Pushing { peer, key, receiver, name, size, file } => {
            let (name, with) = (logged(name.as_bytes()), with(key));
            info!(
                event = "pushing", %peer, key = key.map(field::display), %receiver, file = %name, size, spooled = %file,
                "Client {peer}{with} sends '{name}' ({size} bytes) to {receiver}, by way of '{file}'"
            );
        }
        Event::Delivered { peer, key, receiver, name, size, elapsed, root } => {
            let (name, with, seconds) = (logged(name.as_bytes()), with(key), elapsed.as_secs_f64());
            info!(
                event = "delivered", %peer, key = key.map(field::display), %receiver, file = %name, size, seconds,
                blake3 = %root,
                "File '{name}' from {peer}{with} received by {receiver}: {size} bytes in {seconds:.3} s, BLAKE3 {root}"
            );
        }
        Event::NotDelivered { peer, key, receiver, name, size, cause } => {
            let (name, with, cause) = (logged(name.as_bytes()), with(key), logged(cause.as_bytes()));
            warn!(
                event = "not-delivered", %peer, key = key.map(field::display), %receiver, file = %name, size, %cause,
                "File '{name}' from {peer}{with} was not received by {receiver}: {cause}"
            );
        }
        _ => {}
    }
}

impl Monitor for Audit {
    fn accept_failed(&self, error: &io::Error, wait: Duration) {
        warn!(event = "accept-failed", %error, "Cannot accept connections: {error}; trying again every {wait:?} or later");
    }

    fn accept_recovered(&self) {
        info!(event = "accepting", "Accepting connections again");
    }

    fn full(&self, connections: usize) {
        warn!(
            event = "full",
            connections, "All {connections} places are taken; further connections wait (--max-connections)"
        );
    }

    fn turned_away(&self, peer: SocketAddr) {
        warn!(event = "turned-away", %peer, "Turned {peer} away: too many connections from its address (--max-connections-per-address)");
    }
}

/// What a resumed transfer saved, as the end of a clause; nothing for one that began at the beginning.
fn saved(have: u64, of_which: &str, are: &str) -> String {
    resumed(have).map(|have| format!(", {of_which}{have} bytes {are} there already")).unwrap_or_default()
}

/// Whose key a peer has shown, behind its address.
fn with(key: Option<&KeyName>) -> String {
    // Nothing is allocated for those who have shown none.
    key.map(|key| format!(" (key={key})")).unwrap_or_default()
}

fn resumed(have: u64) -> Option<u64> {
    (have > 0).then_some(have)
}

fn by_algorithm(digest: Option<Digest>) -> (Option<Md5>, Option<Root>) {
    match digest {
        Some(Digest::Md5(md5)) => (Some(md5), None),
        Some(Digest::Blake3(root)) => (None, Some(root)),
        None => (None, None),
    }
}

/// A name as a peer said it, cut where it is longer than any that is worth a log's room.
fn said(name: &[u8]) -> String {
    let shown = &name[..name.len().min(NAME_LOGGED)];
    let ellipsis = if shown.len() < name.len() { "…" } else { "" };
    format!("{}{ellipsis}", logged(shown))
}

#[cfg(test)]
#[path = "audit/tests.rs"]
mod tests;
