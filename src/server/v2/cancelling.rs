//! Transfers that somebody else has cancelled: their requests end at once, and what was under way is not waited for
//! for long.

use super::{CANCELLED, Connection, Slot};
use crate::codec::v2::RequestId;
use crate::error::Code;
use crate::service::accounts::Account;

impl Connection<'_> {
    /// Ends what was cancelled since this was asked last; `true` if that was anything.
    pub(super) fn end_cancelled(&mut self) -> bool {
        if !self.cancels.has_changed().unwrap_or(false) {
            return false;
        }
        self.cancels.mark_unchanged();
        let is_cancelled = |account: &Account| account.moving().cancelled_by().is_some();
        let of = |slot: &Slot| slot.work.as_ref()?.account.clone();
        let ended: Vec<_> = self
            .works
            .iter()
            .filter_map(|(&request, slot)| Some((request, of(slot).filter(|account| is_cancelled(account))?)))
            .collect();
        for (request, account) in &ended {
            self.context.service.live().has_heard(account.moving());
            self.end_request(*request);
        }
        self.held.retain(|work| !work.account.as_deref().is_some_and(is_cancelled));
        !ended.is_empty()
    }

    /// Says that the transfer of a request was cancelled.
    pub(super) fn end_request(&mut self, request: RequestId) {
        self.fail(request, Code::Cancelled, CANCELLED);
    }
}
