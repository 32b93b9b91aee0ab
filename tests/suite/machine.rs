//! What every test shares: the machine, patience, and a way to say what the machine lacks.

use std::cell::Cell;
use std::io::Write;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// How long anything that must happen may take, on a machine busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition that cannot be waited for is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `look` finds something; fails with `what` once [`PATIENCE`] is over.
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    poll(PATIENCE, look).unwrap_or_else(|| panic!("not within {PATIENCE:?}: {what}"))
}

/// Looks until something is found or the time is over.
pub(crate) fn poll<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// Says that this machine lacks what a test needs, past the capture of the test runner.
pub(crate) fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// The machine: most tests share it; one that measures time has it to itself.
static MACHINE: RwLock<()> = RwLock::new(());

thread_local! {
    /// Whether this thread has its share of the machine already: asking twice could wait for ever.
    static HAS_SHARE: Cell<bool> = const { Cell::new(false) };
}

/// A test's hold on the machine.
pub(crate) enum Share {
    /// Beside others. Nothing where another site of the same test holds it.
    Shared { guard: Option<RwLockReadGuard<'static, ()>> },
    /// Alone.
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

impl Share {
    /// Beside others.
    pub(crate) fn shared() -> Self {
        let is_first = !HAS_SHARE.replace(true);
        Self::Shared { guard: is_first.then(|| MACHINE.read().unwrap_or_else(PoisonError::into_inner)) }
    }

    /// With no other test beside it.
    pub(crate) fn alone() -> Self {
        assert!(!HAS_SHARE.replace(true), "whoever shares the machine cannot have it alone");
        Self::Alone { _guard: MACHINE.write().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if !matches!(self, Self::Shared { guard: None }) {
            HAS_SHARE.set(false);
        }
    }
}
