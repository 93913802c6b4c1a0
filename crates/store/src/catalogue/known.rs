//! Which series need no entering, as hashes: two 64-bit hashes under keys of this process, so that no one can choose names that
//! collide. What it does not know may be known on disk all the same.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Mutex;

use tidelog_record::SiteName;

use super::generations::Generations;
use crate::shared::locked;

/// What one hash takes, in bytes: itself, its weight, and the room that a table leaves.
const BYTES_EACH: usize = 64;

/// The keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.0 ^= chunk.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

type Hash = (u64, u64);

/// Hashes of series that are entered.
#[derive(Debug)]
pub(super) struct Known {
    keys: (RandomState, RandomState),
    hashes: Mutex<Generations<Hash, (), BuildHasherDefault<Same>>>,
}

impl Known {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            keys: (RandomState::new(), RandomState::new()),
            hashes: Mutex::new(Generations::new(bytes_max / BYTES_EACH)),
        }
    }

    pub fn hash(&self, site: &SiteName, canonical: &[u8]) -> Hash {
        let hash = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write(site.as_str().as_bytes());
            hasher.write_u8(0);
            hasher.write(canonical);
            hasher.finish()
        };
        (hash(&self.keys.0), hash(&self.keys.1))
    }

    pub fn has(&self, hash: &Hash) -> bool {
        locked(&self.hashes).get(hash).is_some()
    }

    pub fn add(&self, hash: Hash) {
        locked(&self.hashes).put(hash, (), 1);
    }

    /// How many it can hold without letting one go.
    pub fn room(&self) -> u64 {
        locked(&self.hashes).weight_max() as u64
    }

    /// Whether all that were added are still there.
    pub fn has_all(&self) -> bool {
        !locked(&self.hashes).forgot()
    }

    pub fn clear(&self) {
        locked(&self.hashes).clear();
    }
}
