//! Files are opened for requests: small ones are read and sent as a whole at once, what cannot be had is
//! refused, and what is open is held for the requests after it.

use std::sync::Arc;

use tokio::time::Instant;

use super::sending::Whole;
use super::{Connection, Done, NO_SUCH_FILE, Slot, Work};
use crate::catalog::history::Direction;
use crate::codec::v2::{File, RequestId, TransferId};
use crate::error::Code;
use crate::exchange::Opened;
use crate::limits::V2_HELD_MAX;
use crate::names::FileName;
use crate::service::access::Permit;
use crate::service::small::{Lane, Reading, Small};
use crate::service::versions::{self, Version};
use crate::service::{Event, ServiceError};
use crate::storage::StoredFile;

/// What is to be opened for a request.
pub(super) struct Opening {
    pub(super) request: RequestId,
    pub(super) permit: Permit,
    pub(super) token: Option<versions::Token>,
    pub(super) transfer: Option<(TransferId, u64)>,
    /// The largest file that may be sent as a whole.
    pub(super) small: Option<u64>,
}

impl Connection<'_> {
    /// Sends a small file as a whole if that is wanted and can be; else opens it.
    pub(super) fn read(&mut self, opening: Opening, lane: &mut Lane) {
        let Some(most) = opening.small else { return self.open(opening, None) };
        let service = &self.context.service;
        match service.read_now(&opening.permit, most, lane) {
            Ok(Reading::Whole(small)) => self.send_whole(opening, &small, lane.bytes()),
            Ok(Reading::Open(file)) => self.open(opening, Some(file)),
            Ok(Reading::Cold) => {
                let (request, service) = (opening.request, service.clone());
                let (turns, permit) = (Arc::clone(&self.openings), opening.permit.clone());
                let handle = self.running.spawn(async move {
                    let turn = turns.acquire_owned().await.ok().map(Arc::new);
                    let reading = tokio::task::spawn_blocking(move || {
                        let mut bytes = Vec::new();
                        let read = service.read_cold(&opening.permit, most, &mut bytes);
                        Done::Read(opening, bytes, read, turn)
                    });
                    reading.await.unwrap_or_else(|aborted| {
                        let error = ServiceError::Unavailable(aborted.to_string());
                        Done::Opened(request, permit, None, Err(error), None)
                    })
                });
                self.works.insert(request, Slot { running: vec![handle], ..Slot::default() });
            }
            Err(error) => self.unopened(opening.request, opening.permit.name(), error),
        }
    }

    /// Sends a small file as a whole, unless another version is wanted, or other parts.
    fn send_whole(&mut self, opening: Opening, small: &Small, bytes: &[u8]) {
        let Small { size, modified, mode, token, root } = *small;
        let file = File { size, modified, mode, token: *token.as_bytes(), root: Some(root) };
        let priority = self.responder.priority(opening.request);
        let is_wanted = opening.token.is_none_or(|wanted| wanted == token);
        if is_wanted && self.responder.whole(opening.request, &file, bytes, &mut self.output) {
            self.rank = self.rank.max(priority);
            self.whole.push(Whole { permit: opening.permit, size, root });
        } else {
            self.open(opening, None);
        }
    }

    fn open(&mut self, opening: Opening, file: Option<StoredFile>) {
        let Opening { request, permit, token, transfer, .. } = opening;
        self.works.insert(request, Slot::default());
        let (service, turns) = (self.context.service.clone(), Arc::clone(&self.openings));
        // Whoever has to wait for a turn waits with nothing open.
        let (turn, file) =
            Arc::clone(&turns).try_acquire_owned().map_or((None, None), |turn| (Some(turn), file));
        self.start(
            request,
            Box::pin(async move {
                let turn = match turn {
                    Some(turn) => Some(turn),
                    None => turns.acquire_owned().await.ok(),
                };
                let turn = turn.map(Arc::new);
                let opened = service.open_version(&permit, token, file, turn.clone()).await;
                Done::Opened(request, permit, transfer, opened, turn)
            }),
        );
    }

    /// A small file was read from the disk, or something else was found.
    pub(super) fn read_beside(
        &mut self,
        opening: Opening,
        bytes: &[u8],
        read: Result<Reading, ServiceError>,
    ) {
        if self.works.remove(&opening.request).is_none() {
            // Nobody wants it any more.
            return;
        }
        match read {
            Ok(Reading::Whole(small)) => self.send_whole(opening, &small, bytes),
            Ok(Reading::Open(file)) => self.open(opening, Some(file)),
            Ok(Reading::Cold) => self.open(opening, None),
            Err(error) => self.unopened(opening.request, opening.permit.name(), error),
        }
    }

    pub(super) fn opened(
        &mut self,
        request: RequestId,
        permit: &Permit,
        transfer: Option<(TransferId, u64)>,
        opened: Result<Arc<Version>, ServiceError>,
    ) {
        let Some(slot) = self.works.get_mut(&request) else { return };
        let service = &self.context.service;
        let version = match opened {
            Ok(version) => version,
            Err(error) => return self.unopened(request, permit.name(), error),
        };
        if let Some((transfer, _)) = transfer
            && service.is_cancelled(permit, transfer, Direction::Download)
        {
            return self.end_request(request);
        }
        let tree = version.tree();
        let (size, modified, mode) = (version.size(), version.modified(), version.mode());
        let account = transfer.map(|(transfer, have)| service.account(permit, transfer, size, have));
        if let (Some(account), Some(priority)) = (&account, self.responder.priority(request)) {
            account.moving().rank(priority);
        }
        if account.is_none() {
            let (peer, name) = (permit.caller().peer(), permit.name().as_bytes());
            service.tell(&Event::Requested { peer, name });
        }
        let token = *version.token().as_bytes();
        let work = Work { version, account };
        slot.work = Some(work.clone());
        self.hold(work);
        if let Some(tree) = &tree {
            self.proven(request, tree);
        }
        let opened = Opened { file: File { size, modified, mode, token, root: None }, tree };
        self.responder.opened(request, opened, Instant::now().into_std());
    }

    /// Says that a file cannot be had, and the log why.
    fn unopened(&mut self, request: RequestId, name: &FileName, error: ServiceError) {
        let (code, cause) = match &error {
            ServiceError::Refused(cause) => return self.refuse(request, name.as_bytes(), &cause.to_string()),
            ServiceError::TooLarge(_) => (Code::Limit, error.to_string()),
            ServiceError::Unavailable(_) => (Code::LocalIo, error.to_string()),
        };
        self.context.service.tell(&Event::Unavailable { peer: self.caller.peer(), name, cause: &cause });
        self.responder.refused(request, code, &cause);
    }

    /// Keeps the file and the account of a request for the requests after it.
    fn hold(&mut self, work: Work) {
        self.held.retain(|held| !held.is_same(&work));
        self.held.push_back(work);
        if self.held.len() > V2_HELD_MAX {
            self.held.pop_front();
        }
    }

    pub(super) fn refuse(&mut self, request: RequestId, name: &[u8], cause: &str) {
        let peer = self.caller.peer();
        self.context.service.tell(&Event::Requested { peer, name });
        self.context.service.tell(&Event::Refused { peer, name, cause });
        self.responder.refused(request, Code::NotFound, NO_SUCH_FILE);
    }
}
