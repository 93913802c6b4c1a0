//! What the process has cost so far: the allocator's bytes, and what the system says of memory, time and disk.

use std::alloc::System;
use std::fs;
use std::io;
use std::path::Path;

use cap::Cap;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

pub const MIB: f64 = 1024.0 * 1024.0;

/// What took more heap than anything before it, and how many bytes.
#[derive(Default)]
pub struct Peaks(Vec<(&'static str, usize)>);

impl Peaks {
    /// Does something and notes whether it took more memory than anything before, with all that was held when it began.
    pub fn during<T>(&mut self, what: &'static str, work: impl FnOnce() -> T) -> T {
        let before = HEAP.max_allocated();
        let done = work();
        let bytes = HEAP.max_allocated();
        if bytes > before {
            self.0.retain(|(name, _)| *name != what);
            self.0.push((what, bytes));
        }
        done
    }

    /// In the order in which they came to their most.
    pub fn show(&self) -> String {
        let each = self.0.iter().map(|(what, bytes)| format!("{what} {:.2}", *bytes as f64 / MIB));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// Bytes of heap now.
pub fn heap_bytes() -> usize {
    HEAP.allocated()
}

/// Bytes of heap at most, so far.
pub fn heap_bytes_most() -> usize {
    HEAP.max_allocated()
}

fn number(file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Resident memory at most and now, in bytes; under an emulator its own included.
pub fn resident_bytes() -> Option<(u64, u64)> {
    let read = |key| number("/proc/self/status", key).map(|kib| kib * 1024);
    Some((read("VmHWM:")?, read("VmRSS:")?))
}

/// Bytes that went to a disk.
pub fn disk_bytes_written() -> Option<u64> {
    number("/proc/self/io", "write_bytes:")
}

/// Length of all files in a folder.
pub fn file_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { file_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
