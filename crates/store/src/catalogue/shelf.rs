//! Ordered keys with checked values, in a sled tree or in memory. Every value carries a CRC over its key and itself, and a
//! [`Batch`] is done whole or not at all.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::RwLock;

use super::error::CatalogueError;
use crate::shared::{read_locked, write_locked};

/// A key and its value.
pub type Page = (Vec<u8>, Vec<u8>);
/// What is done with each key and value.
pub(super) type Visit<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> Result<(), CatalogueError>;

const DAMAGED: CatalogueError = CatalogueError::Damaged("a page's checksum is wrong");

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// A value with a checksum over its key and itself before it, little-endian.
pub(super) fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 4);
    out.extend_from_slice(&checksum(key, value).to_le_bytes());
    out.extend_from_slice(value);
    out
}

/// The value behind a good checksum.
pub(super) fn unsealed<'v>(key: &[u8], bytes: &'v [u8]) -> Option<&'v [u8]> {
    let (crc, value) = bytes.split_first_chunk::<4>()?;
    (checksum(key, value) == u32::from_le_bytes(*crc)).then_some(value)
}

/// Changes that are made together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    sets: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub bytes: usize,
}

impl Batch {
    pub fn set(&mut self, key: Vec<u8>, value: &[u8]) {
        let value = sealed(&key, value);
        self.bytes += key.len() + value.len();
        self.sets.push((key, Some(value)));
    }

    pub fn remove(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.sets.push((key, None));
    }
}

/// Where pages stand.
#[derive(Debug)]
pub(super) enum Shelf {
    Sled(sled::Tree),
    Memory(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>),
}

impl Shelf {
    pub fn in_memory() -> Self {
        Self::Memory(RwLock::default())
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogueError> {
        let checked = |bytes: &[u8]| unsealed(key, bytes).map(<[u8]>::to_vec).ok_or(DAMAGED);
        match self {
            Self::Sled(tree) => tree.get(key)?.map(|bytes| checked(&bytes)).transpose(),
            Self::Memory(map) => read_locked(map).get(key).map(|bytes| checked(bytes)).transpose(),
        }
    }

    /// The last entry at or before the key.
    pub fn at_or_before(&self, key: &[u8]) -> Result<Option<Page>, CatalogueError> {
        let checked = |key: &[u8], bytes: &[u8]| {
            unsealed(key, bytes).map(|value| (key.to_vec(), value.to_vec())).ok_or(DAMAGED)
        };
        match self {
            Self::Sled(tree) => match tree.range(..=key).next_back() {
                Some(entry) => {
                    entry.map_err(CatalogueError::from).and_then(|(k, v)| checked(&k, &v)).map(Some)
                }
                None => Ok(None),
            },
            Self::Memory(map) => {
                let map = read_locked(map);
                let range = (Bound::Unbounded, Bound::Included(key));
                map.range::<[u8], _>(range).next_back().map(|(k, v)| checked(k, v)).transpose()
            }
        }
    }

    /// The first entry behind the key.
    pub fn after(&self, key: &[u8]) -> Result<Option<Page>, CatalogueError> {
        let checked = |key: &[u8], bytes: &[u8]| {
            unsealed(key, bytes).map(|value| (key.to_vec(), value.to_vec())).ok_or(DAMAGED)
        };
        let range = (Bound::Excluded(key), Bound::Unbounded);
        match self {
            Self::Sled(tree) => match tree.range::<&[u8], _>(range).next() {
                Some(entry) => {
                    entry.map_err(CatalogueError::from).and_then(|(k, v)| checked(&k, &v)).map(Some)
                }
                None => Ok(None),
            },
            Self::Memory(map) => {
                read_locked(map).range::<[u8], _>(range).next().map(|(k, v)| checked(k, v)).transpose()
            }
        }
    }

    /// Visits all entries whose key begins so.
    pub fn each(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), CatalogueError> {
        match self {
            Self::Sled(tree) => {
                for entry in tree.scan_prefix(prefix) {
                    let (key, value) = entry?;
                    visit(&key, unsealed(&key, &value).ok_or(DAMAGED)?)?;
                }
            }
            Self::Memory(map) => {
                let map = read_locked(map);
                for (key, value) in
                    map.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix))
                {
                    visit(key, unsealed(key, value).ok_or(DAMAGED)?)?;
                }
            }
        }
        Ok(())
    }

    pub fn apply(&self, batch: Batch) -> Result<(), CatalogueError> {
        match self {
            Self::Sled(tree) => {
                let mut changes = sled::Batch::default();
                for (key, value) in batch.sets {
                    match value {
                        Some(value) => changes.insert(key, value),
                        None => changes.remove(key),
                    }
                }
                Ok(tree.apply_batch(changes)?)
            }
            Self::Memory(map) => {
                let mut map = write_locked(map);
                for (key, value) in batch.sets {
                    match value {
                        Some(value) => drop(map.insert(key, value)),
                        None => drop(map.remove(&key)),
                    }
                }
                Ok(())
            }
        }
    }

    /// Removes all whose key begins so, a few at a time.
    pub fn remove_all(&self, prefix: &[u8], at_a_time: usize) -> Result<(), CatalogueError> {
        loop {
            let mut batch = Batch::default();
            match self {
                Self::Sled(tree) => {
                    for key in tree.scan_prefix(prefix).keys().take(at_a_time) {
                        batch.remove(key?.to_vec());
                    }
                }
                Self::Memory(map) => {
                    let map = read_locked(map);
                    let keys = map.range(prefix.to_vec()..).map(|(key, _)| key);
                    for key in keys.take_while(|key| key.starts_with(prefix)).take(at_a_time) {
                        batch.remove(key.clone());
                    }
                }
            }
            if batch.sets.is_empty() {
                return Ok(());
            }
            self.apply(batch)?;
        }
    }

    /// Makes everything durable.
    pub fn flush(&self) -> Result<(), CatalogueError> {
        match self {
            Self::Sled(tree) => Ok(tree.flush().map(drop)?),
            Self::Memory(_) => Ok(()),
        }
    }
}
