//! What is in use at the moment, found by its key and shared by all who ask for the same.
//!
//! Only weak references are kept. Each entry takes itself out when it is dropped
//! ([`Registry::forget`]), so there are never more than there are users.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, Weak};

use super::lock;

/// Weak references by key. No entry's last reference is ever dropped under its lock.
pub(super) struct Registry<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> Registry<K, V> {
    /// What is in use under this key.
    pub(super) fn get(&self, key: &K) -> Option<Arc<V>> {
        lock(&self.0).get(key).and_then(Weak::upgrade)
    }

    /// What is in use under this key, if it `fits`; otherwise, and from now on, `new`.
    pub(super) fn get_or_insert(&self, key: K, new: &Arc<V>, fits: impl FnOnce(&V) -> bool) -> Arc<V> {
        let mut entries = lock(&self.0);
        let used = entries.get(&key).and_then(Weak::upgrade);
        let is_fit = used.as_deref().is_some_and(fits);
        if !is_fit {
            entries.insert(key, Arc::downgrade(new));
        }
        // What is not fit may die here, and then forgets itself.
        drop(entries);
        used.filter(|_| is_fit).unwrap_or_else(|| Arc::clone(new))
    }

    /// Takes out an entry that is being dropped, unless its key belongs to another by now.
    pub(super) fn forget(&self, key: &K) {
        let mut entries = lock(&self.0);
        if entries.get(key).is_some_and(|entry| entry.strong_count() == 0) {
            entries.remove(key);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}
