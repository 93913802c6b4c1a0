//! What was decoded of segments and may be needed again, up to so many bytes, for all segments of a store together. What was not
//! used since the hand came by the last time goes first. It knows no file and no format.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::shared::locked;

use super::directory::Page;
use super::ints::Chunk;
use super::read::Reading;
use super::sequence::Sequence;

/// Workspaces that are kept for the next reader.
const WORKSPACES_MAX: usize = 8;

#[derive(Clone)]
pub(super) enum Cached {
    Page(Arc<Page>),
    Table(Arc<Vec<Sequence>>),
    Chunk(Arc<Chunk>),
    Text(Arc<Vec<u8>>),
}

impl Cached {
    fn weight(&self) -> usize {
        match self {
            Self::Page(page) => page.weight(),
            Self::Table(table) => table.len() * size_of::<Sequence>(),
            Self::Chunk(chunk) => chunk.weight(),
            Self::Text(bytes) => bytes.len(),
        }
    }
}

/// Which segment, and which block of it.
type Key = (u64, u32);

struct Slot {
    key: Key,
    value: Cached,
    weight: usize,
    used: bool,
}

#[derive(Default)]
struct Inner {
    places: HashMap<Key, usize>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    hand: usize,
    bytes: usize,
}

/// Decoded parts of segments, bounded in bytes.
pub struct Cache {
    bytes_max: usize,
    next_segment: AtomicU64,
    inner: Mutex<Inner>,
    workspaces: Mutex<Vec<Reading>>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

/// What an entry costs beside its content, in bytes, about.
const ENTRY_BYTES: usize = 128;

impl Cache {
    /// A cache of at most `bytes_max` bytes. What is larger alone is decoded each time.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            next_segment: AtomicU64::new(0),
            inner: Mutex::default(),
            workspaces: Mutex::default(),
        }
    }

    /// Bytes that it holds now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        locked(&self.inner).bytes
    }

    pub(super) fn number_segment(&self) -> u64 {
        self.next_segment.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn get<E>(&self, key: Key, load: impl FnOnce() -> Result<Cached, E>) -> Result<Cached, E> {
        if let Some(found) = locked(&self.inner).get(key) {
            return Ok(found);
        }
        let value = load()?;
        locked(&self.inner).put(key, value.clone(), self.bytes_max);
        Ok(value)
    }

    /// Forgets a segment.
    pub(super) fn forget(&self, segment: u64) {
        let mut inner = locked(&self.inner);
        for place in 0..inner.slots.len() {
            if inner
                .slots
                .get(place)
                .is_some_and(|slot| slot.as_ref().is_some_and(|slot| slot.key.0 == segment))
            {
                inner.drop_slot(place);
            }
        }
    }

    pub(super) fn workspace(&self) -> Reading {
        locked(&self.workspaces).pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, workspace: Reading) {
        let mut workspaces = locked(&self.workspaces);
        if workspaces.len() < WORKSPACES_MAX && workspace.is_small() {
            workspaces.push(workspace);
        }
    }
}

impl Inner {
    fn get(&mut self, key: Key) -> Option<Cached> {
        let place = *self.places.get(&key)?;
        let slot = self.slots.get_mut(place)?.as_mut()?;
        slot.used = true;
        Some(slot.value.clone())
    }

    fn drop_slot(&mut self, place: usize) {
        if let Some(slot) = self.slots.get_mut(place).and_then(Option::take) {
            self.places.remove(&slot.key);
            self.bytes -= slot.weight;
            self.free.push(place);
        }
    }

    fn put(&mut self, key: Key, value: Cached, bytes_max: usize) {
        let weight = value.weight() + ENTRY_BYTES;
        if weight > bytes_max || self.places.contains_key(&key) {
            return;
        }
        while self.bytes + weight > bytes_max {
            let place = self.hand;
            self.hand = if place + 1 < self.slots.len() { place + 1 } else { 0 };
            match self.slots.get_mut(place) {
                Some(Some(slot)) if slot.used => slot.used = false,
                Some(_) => self.drop_slot(place),
                None => return,
            }
        }
        let slot = Some(Slot { key, value, weight, used: false });
        let place = if let Some(place) = self.free.pop() {
            if let Some(empty) = self.slots.get_mut(place) {
                *empty = slot;
            }
            place
        } else {
            self.slots.push(slot);
            self.slots.len() - 1
        };
        self.places.insert(key, place);
        self.bytes += weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Cached {
        Cached::Text(Arc::new(vec![0; bytes]))
    }

    #[test]
    fn the_bound_holds_and_what_is_used_stays() {
        const BYTES_MAX: usize = 10_000;
        let cache = Cache::new(BYTES_MAX);
        let mut loads_of_first = 0;
        for number in 0..500u32 {
            let loaded: Result<Cached, ()> = cache.get((1, number), || Ok(text(1_000)));
            assert!(loaded.is_ok() && cache.bytes() <= BYTES_MAX);
            let again: Result<Cached, ()> = cache.get((1, 0), || {
                loads_of_first += 1;
                Ok(text(1_000))
            });
            assert!(again.is_ok());
        }
        assert_eq!(loads_of_first, 0, "it was used between any two others");
        assert!(cache.get((2, 0), || Ok::<_, ()>(text(2 * BYTES_MAX))).is_ok());
        assert!(cache.bytes() <= BYTES_MAX, "what is larger than all is not kept");
        cache.forget(1);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn what_cannot_be_loaded_is_not_kept() {
        let cache = Cache::new(1_000);
        assert!(cache.get((1, 1), || Err("no")).is_err());
        assert!(cache.get((1, 1), || Ok::<_, ()>(text(10))).is_ok());
    }
}
