//! A bounded memory that forgets what has not been asked for the longest.
//!
//! It has two generations: when the young one is full it becomes the old one, and what the old one
//! held is forgotten. So it is bounded by count and by weight at no cost per entry, and what is asked
//! for between two such moments stays.

use std::collections::HashMap;
use std::hash::Hash;

/// A bounded map. The weight of an entry is whatever its user counts, usually bytes.
pub(super) struct Memory<K, V> {
    young: Generation<K, V>,
    old: Generation<K, V>,
    /// Bounds of one generation: half of those of the memory.
    count_max: usize,
    weight_max: usize,
}

struct Generation<K, V> {
    entries: HashMap<K, (V, usize)>,
    weight: usize,
}

impl<K, V> Default for Generation<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), weight: 0 }
    }
}

impl<K: Eq + Hash + Copy, V: Clone> Memory<K, V> {
    pub(super) fn new(count: usize, weight: usize) -> Self {
        Self {
            young: Generation::default(),
            old: Generation::default(),
            count_max: count.div_ceil(2),
            weight_max: weight.div_ceil(2),
        }
    }

    pub(super) fn recall(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.entries.get(key) {
            return Some(value.clone());
        }
        let (value, weight) = self.old.entries.remove(key)?;
        self.old.weight -= weight;
        self.remember(*key, value.clone(), weight);
        Some(value)
    }

    /// Remembers a value, unless it alone weighs more than half of what may be remembered.
    pub(super) fn remember(&mut self, key: K, value: V, weight: usize) {
        if weight > self.weight_max {
            return;
        }
        let young = &mut self.young;
        if young.entries.len() >= self.count_max || weight > self.weight_max - young.weight {
            self.old = std::mem::take(young);
        }
        self.young.weight += weight;
        if let Some((_, replaced)) = self.young.entries.insert(key, (value, weight)) {
            self.young.weight -= replaced;
        }
    }
}

#[cfg(test)]
#[path = "memory/tests.rs"]
mod tests;
