//! Listings: what the responder asks of a folder, and what it is told.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Connection, Done, NO_SUCH_FILE, Slot};
use crate::codec::v2::{List, RequestId};
use crate::error::Code;
use crate::listing::{Selection, Stretch};
use crate::names::FileName;
use crate::service::access::Denied;
use crate::service::listing::ListingError;
use crate::service::{Event, ServiceError};

const NO_CURSOR: &str = "the cursor is not one that this server gave";
/// What the log calls the folder that is served.
const ROOT: &[u8] = b".";

/// What is known of a listing in flight.
pub(super) struct Listing {
    /// None for the root.
    folder: Option<FileName>,
    selection: Arc<Selection>,
    /// Entries that were found so far.
    entries: u64,
}

impl Listing {
    fn shown(&self) -> &[u8] {
        self.folder.as_ref().map_or(ROOT, FileName::as_bytes)
    }
}

impl Connection<'_> {
    /// Begins to work on the next stretch of a listing.
    pub(super) fn list(&mut self, request: RequestId, list: &List) {
        if !self.works.contains_key(&request) && !self.begin_listing(request, list) {
            return;
        }
        let Some(listing) = self.works.get(&request).and_then(|slot| slot.listing.as_ref()) else { return };
        let name = listing.folder.as_ref().map_or(&b""[..], FileName::as_bytes);
        // Anew for each stretch, because a listing may take long.
        let permit = match self.context.service.permit_listing(&self.caller, name) {
            Ok(permit) => permit,
            Err(denied) => return self.deny(request, denied),
        };
        let (selection, service) = (Arc::clone(&listing.selection), self.context.service.clone());
        let cursor = list.cursor.clone();
        self.start(
            request,
            Box::pin(async move { Done::Listed(request, service.list(permit, selection, cursor).await) }),
        );
    }

    /// Looks at a LIST; `false` if it was refused.
    fn begin_listing(&mut self, request: RequestId, list: &List) -> bool {
        let service = &self.context.service;
        let (peer, is_continued) = (self.caller.peer(), !list.cursor.is_empty());
        let name = if list.name.is_empty() { ROOT } else { &list.name };
        service.tell(&Event::Listing { peer, name, is_continued });
        let permit = match service.permit_listing(&self.caller, &list.name) {
            Ok(permit) => Ok(permit),
            Err(Denied::Name(error)) => Err(error),
            Err(denied) => {
                self.deny(request, denied);
                return false;
            }
        };
        let (code, text, cause) = match (permit, list.selection()) {
            (Ok(permit), Ok(selection)) => {
                let folder = permit.name().clone();
                let listing = Listing { folder, selection: Arc::new(selection), entries: 0 };
                self.works.insert(request, Slot { listing: Some(listing), ..Slot::default() });
                return true;
            }
            (Err(error), _) => (Code::NotFound, NO_SUCH_FILE.to_owned(), error.to_string()),
            (_, Err(error)) => (Code::Usage, error.to_string(), error.to_string()),
        };
        service.tell(&Event::Refused { peer, name, cause: &cause });
        self.responder.refused(request, code, &text);
        false
    }

    /// Takes a stretch of a listing.
    pub(super) fn listed(&mut self, request: RequestId, listed: Result<Stretch, ListingError>) {
        let (peer, service) = (self.caller.peer(), &self.context.service);
        let Some(listing) = self.works.get_mut(&request).and_then(|slot| slot.listing.as_mut()) else {
            return;
        };
        let error = match listed {
            Ok(stretch) => {
                listing.entries += stretch.entries.len() as u64;
                if stretch.is_last {
                    let (name, entries) = (listing.shown(), listing.entries);
                    service.tell(&Event::Listed { peer, name, entries });
                }
                return self.responder.listed(request, stretch, Instant::now().into_std());
            }
            Err(error) => error,
        };
        let (name, cause) = (listing.shown(), error.to_string());
        service.tell(&Event::Refused { peer, name, cause: &cause });
        match error {
            ListingError::Cursor => self.responder.refused(request, Code::Usage, NO_CURSOR),
            ListingError::Service(ServiceError::Refused(_)) => {
                self.responder.refused(request, Code::NotFound, NO_SUCH_FILE);
            }
            ListingError::Service(_) => self.responder.refused(request, Code::LocalIo, &cause),
        }
    }
}
