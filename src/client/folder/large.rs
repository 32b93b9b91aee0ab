//! Large files of a folder: each into a part of its own, a few at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Item, Lane, Shared, concerns_all, or_end, why};
use crate::client::attempt::blocking;
use crate::client::{Event, FetchError, Observer, Overwrite, Protocol, Settings, Target, fetch_at};
use crate::digest::Digest;
use crate::limits::{SYNC_BYTES, V2_LINK_BLOCKS_MIN};
use crate::staged::{Attributes, Replace};
use crate::tree::block_count;

/// Fetches large files until there are no more, two at once; adds what was here of them to `resumed`.
pub(super) async fn run(
    shared: &Arc<Shared>,
    observer: &dyn Observer,
    resumed: &AtomicU64,
) -> Result<(), FetchError> {
    let (one, other) = tokio::join!(
        or_end(shared, lane(shared, observer, resumed)),
        or_end(shared, lane(shared, observer, resumed)),
    );
    why(one, other)
}

async fn lane(shared: &Arc<Shared>, observer: &dyn Observer, resumed: &AtomicU64) -> Result<(), FetchError> {
    while shared.queue.wait(Lane::Large).await {
        let Some(item) = shared.queue.take(Lane::Large) else { continue };
        match one(shared, &item, observer, resumed).await {
            Ok((size, digest)) => shared.got(item, size, digest),
            Err(error) if concerns_all(&error) => {
                shared.queue.give_back(Lane::Large, item);
                return Err(error);
            }
            Err(error) => shared.failed(item, error)?,
        }
    }
    Ok(())
}

async fn one(
    shared: &Arc<Shared>,
    item: &Item,
    observer: &dyn Observer,
    resumed: &AtomicU64,
) -> Result<(u64, Digest), FetchError> {
    let (own, name) = (Arc::clone(shared), item.name.clone());
    let place = blocking(move || Ok(own.staged.large(&name, own.replace())?)).await?;
    let overwrite = match place.replace {
        Replace::Never => Overwrite::Never,
        Replace::Always => Overwrite::Always,
    };
    let size = item.listed.as_ref().map_or(0, |(size, _)| *size);
    let links = (block_count(size) / V2_LINK_BLOCKS_MIN).clamp(1, shared.settings.links_max());
    let own = shared.settings.clone();
    let sparse = item.listed.as_ref().is_some_and(|(_, attributes)| attributes.sparse);
    // What is staged as a whole is flushed as a whole, unless it takes so long that it is worth doing before.
    let sync = own.sync && (!shared.staged.is_new() || size >= SYNC_BYTES);
    // A folder is version 2's: what its server says to one file must not lead elsewhere.
    let protocol = Protocol::V2;
    let settings = Settings { overwrite, sparse, sync, protocol, checksum: None, links, ..own };
    let target = Target::File(place.path);
    let watch = Watch { shared, item, observer, counted: AtomicU64::new(0) };
    let fetched =
        fetch_at(&shared.pace, None, &shared.server, &item.remote, &target, &settings, &watch, &shared.stop)
            .await;
    let fetched = fetched.inspect_err(|_| watch.count(0))?;
    watch.count(fetched.size);
    resumed.fetch_add(fetched.resumed, Ordering::Relaxed);
    let listed = item.listed.as_ref().map(|(_, attributes)| *attributes);
    let attributes: Option<Attributes> = fetched.attributes.or(listed);
    if let Some(attributes) = attributes {
        let (own, name) = (Arc::clone(shared), item.name.clone());
        blocking(move || Ok(own.staged.large_done(&name, &attributes)?)).await?;
    }
    Ok((fetched.size, fetched.digest))
}

/// Turns the progress of one file into that of the folder.
struct Watch<'a> {
    shared: &'a Shared,
    item: &'a Item,
    observer: &'a dyn Observer,
    /// Bytes of this file that count as here.
    counted: AtomicU64,
}

impl Watch<'_> {
    /// So many bytes of the file are here now: it may be fewer than before.
    fn count(&self, done: u64) {
        let before = self.counted.swap(done, Ordering::Relaxed);
        self.shared.count_bytes(before, done);
    }
}

impl Observer for Watch<'_> {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::Started { have, .. } => self.count(have),
            Event::Progress { done, size } => {
                self.count(done);
                let name = self.item.name.as_bytes();
                self.observer.observe(&Event::FileProgress { name, done, size });
            }
            Event::Connecting { .. } | Event::Connected { .. } => {}
            _ => self.observer.observe(event),
        }
    }
}
