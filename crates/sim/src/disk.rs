//! A disk in memory that loses power, tears and reorders writes, fills up, fails to write or to sync, rots, writes to the
//! wrong place and lies, on command or as a seed decides. It counts operations, so that the power can go at every single one.
//! It knows no format: what must hold after each fault is its user's affair.
//!
//! Until a file is synced, each sector of each write may be lost on its own, and the writes may reach the disk in any order;
//! until a folder is synced, so may the newest of its names.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a simulated disk that is misused fails its test"
)]
#![allow(clippy::missing_panics_doc, reason = "as above")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tidelog_store::{Disk, DiskFile, Lock, OpenMode};

/// The smallest piece that a disk writes whole, unless [`SimDisk::tear_at`] says otherwise.
const SECTOR_BYTES: u64 = 512;

#[derive(Clone, Debug)]
enum Pending {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
struct NameOp {
    from: Option<PathBuf>,
    to: PathBuf,
    inode: u64,
}

#[derive(Debug, Default)]
struct Sim {
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    name_ops: Vec<NameOp>,
    inodes: HashMap<u64, Inode>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    syncs: u64,
    cut_at: Option<u64>,
    dead: bool,
    room_bytes: Option<u64>,
    sync_fails_at: Option<u64>,
    lies: bool,
    dir_lies: bool,
    writes: u64,
    write_fails_at: Option<u64>,
    misdirect: Option<(u64, u64)>,
    sector_bytes: Option<u64>,
}

/// See the module. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<Sim>>);

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: u64,
}

struct Held(SimDisk, PathBuf);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.sim().locks.remove(&self.1);
    }
}

fn put(bytes: &mut Vec<u8>, offset: u64, what: &[u8]) {
    let offset = usize::try_from(offset).unwrap();
    if bytes.len() < offset + what.len() {
        bytes.resize(offset + what.len(), 0);
    }
    bytes[offset..offset + what.len()].copy_from_slice(what);
}

impl Sim {
    /// Counts an operation that changes the disk; an error when there is no power. `true` when it is the last one.
    fn operate(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(io::Error::other("no power"));
        }
        self.operations += 1;
        if self.cut_at == Some(self.operations) {
            self.dead = true;
            return Ok(true);
        }
        Ok(false)
    }

    fn settle_names(&mut self, ops: Vec<NameOp>) {
        for op in ops {
            if let Some(from) = op.from {
                self.durable_names.remove(&from);
            }
            self.durable_names.insert(op.to, op.inode);
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[inode].current.len() as u64).sum()
    }
}

fn after(last: bool) -> io::Result<()> {
    if last { Err(io::Error::other("power cut")) } else { Ok(()) }
}

impl SimDisk {
    fn sim(&self) -> MutexGuard<'_, Sim> {
        self.0.lock().unwrap()
    }

    /// Operations that changed the disk, or tried to, so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.sim().operations
    }

    /// Cuts the power in the middle of the operation that comes `operations` from now (1 is the next).
    pub fn cut_power_in(&self, operations: u64) {
        let mut sim = self.sim();
        sim.cut_at = Some(sim.operations + operations);
    }

    /// Whether it has power.
    #[must_use]
    pub fn has_power(&self) -> bool {
        !self.sim().dead
    }

    /// Bytes that all files together may have.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.sim().room_bytes = bytes;
    }

    /// Bytes that all files together have.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.sim().used()
    }

    /// Lets the `n`-th write from now fail half-way, and no other.
    pub fn fail_write_in(&self, n: u64) {
        let mut sim = self.sim();
        sim.write_fails_at = Some(sim.writes + n);
    }

    /// Lets the `n`-th write from now go to `offset` of its file instead of where it was meant to.
    pub fn misdirect_write_in(&self, n: u64, offset: u64) {
        let mut sim = self.sim();
        sim.misdirect = Some((sim.writes + n, offset));
    }

    /// From now on what is torn is torn at multiples of so many bytes: 512, 4096, an erase block.
    pub fn tear_at(&self, sector_bytes: u64) {
        self.sim().sector_bytes = Some(sector_bytes.max(1));
    }

    /// From now on syncs of folders do nothing and say that they did.
    pub fn lose_names(&self, lose: bool) {
        self.sim().dir_lies = lose;
    }

    /// Flips one bit of one file; which one, the seed decides. Its path and offset, or `None` when all files are empty.
    pub fn rot(&self, seed: u64) -> Option<(PathBuf, usize)> {
        let mut rng = StdRng::seed_from_u64(seed);
        let files: Vec<PathBuf> =
            self.files().into_iter().filter(|path| !self.bytes(path).is_empty()).collect();
        let path = files.get(rng.random_range(0..files.len().max(1)))?.clone();
        let at = rng.random_range(0..self.bytes(&path).len());
        self.change(&path, |bytes| bytes[at] ^= 1 << rng.random_range(0..8u8));
        Some((path, at))
    }

    /// Some faults to come within the next `operations`, as the seed decides: a cut always, with others beside it. Equal seeds
    /// give equal faults.
    pub fn trouble(&self, seed: u64, operations: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        self.cut_power_in(rng.random_range(1..=operations.max(1)));
        self.tear_at([1, 512, 4096, 128 * 1024][rng.random_range(0..4usize)]);
        match rng.random_range(0..4u8) {
            0 => self.fail_write_in(rng.random_range(1..=operations.max(1))),
            1 => self.fail_sync_in(rng.random_range(1..=operations.max(1))),
            2 => self.set_room(Some(self.used() + rng.random_range(0..8192))),
            _ => {}
        }
    }

    /// Ends every fault that is still to come.
    pub fn mend(&self) {
        let mut sim = self.sim();
        (sim.cut_at, sim.write_fails_at, sim.sync_fails_at, sim.misdirect) = (None, None, None, None);
        (sim.room_bytes, sim.lies, sim.dir_lies) = (None, false, false);
    }

    /// Lets the `n`-th sync of a file from now fail, and no other.
    pub fn fail_sync_in(&self, n: u64) {
        let mut sim = self.sim();
        sim.sync_fails_at = Some(sim.syncs + n);
    }

    /// From now on syncs do nothing and say that they did.
    pub fn lie(&self, lies: bool) {
        self.sim().lies = lies;
    }

    /// What the disk holds when the power comes back: all that was synced and a random part of what was not.
    pub fn power_on(&self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut sim = self.sim();
        let kept = rng.random_range(0..=sim.name_ops.len());
        let ops = sim.name_ops.drain(..).take(kept).collect();
        sim.settle_names(ops);
        sim.names = sim.durable_names.clone();
        let sector = sim.sector_bytes.unwrap_or(SECTOR_BYTES);
        let mut inodes: Vec<_> = sim.inodes.iter_mut().collect();
        inodes.sort_unstable_by_key(|(number, _)| **number);
        for (_, inode) in inodes {
            let mood = rng.random_range(0..5u8);
            let mut bytes = std::mem::take(&mut inode.durable);
            let mut pending = std::mem::take(&mut inode.pending);
            if mood == 4 {
                pending.shuffle(&mut rng);
            }
            for pending in pending {
                match pending {
                    Pending::SetLen(length) if mood > 0 => bytes.resize(usize::try_from(length).unwrap(), 0),
                    Pending::SetLen(_) => {}
                    Pending::Write { offset, bytes: what } => {
                        let mut at = 0usize;
                        while at < what.len() {
                            let sector_end = ((offset + at as u64) / sector + 1) * sector;
                            let to = what.len().min(usize::try_from(sector_end - offset).unwrap());
                            let lost = match mood {
                                0 => true,
                                1 => false,
                                2 => rng.random_bool(0.5),
                                _ => rng.random_bool(0.1),
                            };
                            if !lost {
                                put(&mut bytes, offset + at as u64, &what[at..to]);
                            }
                            at = to;
                        }
                    }
                }
            }
            inode.current.clone_from(&bytes);
            inode.durable = bytes;
        }
        sim.dead = false;
        sim.cut_at = None;
    }

    /// Makes a file with these bytes, durable.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut sim = self.sim();
        let number = sim.inodes.len() as u64;
        let (durable, current) = (bytes.to_vec(), bytes.to_vec());
        sim.inodes.insert(number, Inode { durable, current, pending: Vec::new() });
        sim.names.insert(path.to_owned(), number);
        sim.durable_names.insert(path.to_owned(), number);
    }

    /// The bytes of a file.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let sim = self.sim();
        sim.inodes[&sim.names[path]].current.clone()
    }

    /// Changes a file behind the store's back.
    pub fn change(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut sim = self.sim();
        let number = sim.names[path];
        let inode = sim.inodes.get_mut(&number).unwrap();
        change(&mut inode.current);
        inode.durable.clone_from(&inode.current);
    }

    /// Takes a file away.
    pub fn remove(&self, path: &Path) {
        let mut sim = self.sim();
        sim.names.remove(path).unwrap();
        sim.durable_names.remove(path);
    }

    /// All files, in order of path.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.sim().names.keys().cloned().collect()
    }

    /// A disk with the same contents, all of it durable.
    #[must_use]
    pub fn copy(&self) -> Self {
        let sim = self.sim();
        let mut inodes = sim.inodes.clone();
        for inode in inodes.values_mut() {
            inode.durable.clone_from(&inode.current);
            inode.pending.clear();
        }
        let (names, durable_names) = (sim.names.clone(), sim.names.clone());
        Self(Arc::new(Mutex::new(Sim { names, durable_names, inodes, ..Sim::default() })))
    }
}

impl Disk for SimDisk {
    fn make_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let sim = self.sim();
        let names = sim.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut sim = self.sim();
        let found = sim.names.get(path).copied();
        let inode = match (found, mode) {
            (Some(inode), OpenMode::Read | OpenMode::Write) => inode,
            (None, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (_, OpenMode::Create) => {
                let last = sim.operate()?;
                let number = sim.inodes.len() as u64;
                sim.inodes.insert(number, Inode::default());
                sim.names.insert(path.to_owned(), number);
                sim.name_ops.push(NameOp { from: None, to: path.to_owned(), inode: number });
                after(last)?;
                number
            }
        };
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut sim = self.sim();
        let last = sim.operate()?;
        let inode = sim.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        sim.names.insert(to.to_owned(), inode);
        sim.name_ops.push(NameOp { from: Some(from.to_owned()), to: to.to_owned(), inode });
        after(last)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut sim = self.sim();
        let last = sim.operate()?;
        after(last)?;
        if !sim.dir_lies {
            let ops = sim.name_ops.drain(..).collect();
            sim.settle_names(ops);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let taken = !self.sim().locks.insert(path.to_owned());
        Ok(if taken { None } else { Some(Lock::new(Held(self.clone(), path.to_owned()))) })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let sim = self.disk.sim();
        let bytes = &sim.inodes[&self.inode].current;
        let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut sim = self.disk.sim();
        let last = sim.operate()?;
        sim.writes += 1;
        let fails = sim.write_fails_at == Some(sim.writes);
        let bytes = if fails { &bytes[..bytes.len() / 2] } else { bytes };
        let offset =
            sim.misdirect.filter(|(at, _)| *at == sim.writes).map_or(offset, |(_, elsewhere)| elsewhere);
        let length = sim.inodes[&self.inode].current.len() as u64;
        let grows = (offset + bytes.len() as u64).saturating_sub(length);
        let room = sim.room_bytes.map_or(u64::MAX, |room| room.saturating_sub(sim.used()));
        let short = usize::try_from(grows.saturating_sub(room)).unwrap();
        let bytes = &bytes[..bytes.len() - short];
        let inode = sim.inodes.get_mut(&self.inode).unwrap();
        put(&mut inode.current, offset, bytes);
        inode.pending.push(Pending::Write { offset, bytes: bytes.to_vec() });
        after(last)?;
        if fails {
            return Err(io::Error::other("the write failed"));
        }
        if short > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut sim = self.disk.sim();
        let last = sim.operate()?;
        let inode = sim.inodes.get_mut(&self.inode).unwrap();
        inode.current.resize(usize::try_from(length).unwrap(), 0);
        inode.pending.push(Pending::SetLen(length));
        after(last)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.sim().inodes[&self.inode].current.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut sim = self.disk.sim();
        let last = sim.operate()?;
        after(last)?;
        sim.syncs += 1;
        if sim.sync_fails_at == Some(sim.syncs) {
            return Err(io::Error::other("the sync failed"));
        }
        if !sim.lies {
            let inode = sim.inodes.get_mut(&self.inode).unwrap();
            inode.durable.clone_from(&inode.current);
            inode.pending.clear();
        }
        Ok(())
    }
}
