//! Large files of a folder that is put: each as a file of its own is, a few at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Item, PutShared, or_end};
use crate::client::folder::queue::Lane;
use crate::client::folder::{concerns_all, why};
use crate::client::put::{UploadSource, put_at};
use crate::client::v2::give::Stored;
use crate::client::{Event, FetchError, Observer};

/// Puts large files until there are no more, two at once.
pub(super) async fn run(shared: &Arc<PutShared>, observer: &dyn Observer) -> Result<(), FetchError> {
    let (one, other) =
        tokio::join!(or_end(shared, lane(shared, observer)), or_end(shared, lane(shared, observer)));
    why(one, other)
}

async fn lane(shared: &Arc<PutShared>, observer: &dyn Observer) -> Result<(), FetchError> {
    while shared.queue.wait(Lane::Large).await {
        let Some(item) = shared.queue.take(Lane::Large) else { continue };
        match one(shared, &item, observer).await {
            Ok((size, stored)) => shared.settled(&item, size, stored),
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
    shared: &Arc<PutShared>,
    item: &Item,
    observer: &dyn Observer,
) -> Result<(u64, Stored), FetchError> {
    let source = UploadSource::File(shared.path_of(item));
    let watch = Watch { shared, item, observer, counted: AtomicU64::new(0) };
    let (server, settings) = (&shared.server, &shared.settings);
    let stop = &shared.stop;
    let putting = put_at(&shared.pace, None, server, &source, &item.remote, settings, &watch, stop).await;
    let put = putting.inspect_err(|_| watch.count(0))?;
    watch.count(put.size);
    shared.resumed.fetch_add(put.resumed, Ordering::Relaxed);
    Ok((put.size, put.root.map_or(Stored::Same, Stored::New)))
}

/// Turns the progress of one file into that of the folder.
struct Watch<'a> {
    shared: &'a PutShared,
    item: &'a Item,
    observer: &'a dyn Observer,
    /// Bytes of this file that count as there.
    counted: AtomicU64,
}

impl Watch<'_> {
    /// So many bytes of the file are there now: it may be fewer than before.
    fn count(&self, done: u64) {
        let before = self.counted.swap(done, Ordering::Relaxed);
        self.shared.counts.moved(before, done);
    }
}

impl Observer for Watch<'_> {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::Started { have, .. } => self.count(have),
            Event::Progress { done, size } => {
                self.count(done);
                self.observer.observe(&Event::FileProgress { name: &self.item.name, done, size });
            }
            Event::Connecting { .. } | Event::Connected { .. } => {}
            _ => self.observer.observe(event),
        }
    }
}
