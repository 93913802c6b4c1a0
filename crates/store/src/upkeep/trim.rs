//! Trimming: a log file goes once segments hold all its records and no cursor near it still wants them in order of arrival
//! from the log. Its map stays. The oldest file goes first, so that what the log holds of a stream is always its newest part.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidelog_record::StreamKey;

use super::{Keeper, UpkeepError, io};
use crate::disk::{OpenMode, write_atomically};
use crate::errors::ReadError;
use crate::frame::Stored;
use crate::reader::Span;
use crate::recovery::{LOG_DIR, map_name, move_to_quarantine};
use crate::shared::{read_locked, write_locked};
use crate::trimmed::Map;

impl Keeper {
    /// Puts the map of the oldest log file in its place. `false` when it must stay.
    pub(super) fn trim(&mut self) -> Result<bool, UpkeepError> {
        let Some(span) = self.oldest() else { return Ok(false) };
        let map = match self.candidate.take() {
            Some(map) if map.first == span.first => map,
            _ => self.map(&span)?,
        };
        if !self.is_sealed(&map) || self.is_wanted(&map) {
            self.candidate = Some(map);
            return Ok(false);
        }
        let dir = self.shared.dir.join(LOG_DIR);
        let (name, bytes) = (map_name(map.first), map.encode());
        let disk = &self.shared.disk;
        write_atomically(disk.as_ref(), &dir, &name, &bytes).map_err(io("write a map"))?;
        let file = disk.open(&dir.join(&name), OpenMode::Read).map_err(io("open a map"))?;
        {
            let mut index = write_locked(&self.shared.index);
            if let Some(entry) = index.files.iter_mut().find(|entry| entry.first == map.first) {
                entry.trim(Arc::from(name.as_str()), file, bytes.len() as u64);
            }
            for (stream, at) in map.streams.iter().zip(0u32..) {
                let of = |s: &&crate::trimmed::Stretch| s.stream == Some(at);
                let runs: Vec<_> =
                    map.stretches.iter().filter(of).map(|s| (s.lsn, s.lsn + s.records - 1)).collect();
                if let Some(stream) = index.streams.get_mut(&stream.key()) {
                    stream.forget_log(&runs, map.last());
                }
            }
        }
        if span.rot.is_empty() {
            disk.remove(&dir.join(span.name.as_ref())).map_err(io("remove a log file"))?;
            disk.sync_dir(&dir).map_err(io("sync the log's folder"))?;
        } else {
            // What rotted in it may still be mended by somebody; it is not deleted.
            let moved = move_to_quarantine(disk.as_ref(), &self.shared.dir, &dir, span.name.as_ref());
            moved.map_err(io("set a log file apart"))?;
        }
        self.shared.upkeep.counters.trimmed.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// The oldest log file, if it is not the one that is written.
    fn oldest(&self) -> Option<Span> {
        let index = read_locked(&self.shared.index);
        let (_, closed) = index.files.split_last()?;
        let file = closed.iter().find(|file| !file.trimmed)?;
        Some(Span::of(file, file.first))
    }

    fn map(&self, span: &Span) -> Result<Map, ReadError> {
        let mut map = Map::new(self.shared.node, self.shared.run(), span.first);
        let mut next = span.first;
        let mut places: HashMap<StreamKey, Option<u32>> = HashMap::new();
        let visit = |position: u64, record: &Stored<'_>| {
            while next < position {
                map.push(None, 0);
                next += 1;
            }
            if position == next {
                let place = *places.entry(record.key).or_insert_with(|| {
                    let index = read_locked(&self.shared.index);
                    index.streams.get(&record.key).map(|stream| map.stream(&stream.stream))
                });
                map.push(place, record.lsn.0);
                next += 1;
            }
            ControlFlow::Continue(())
        };
        if span.walk_heads(visit)?.is_continue() {
            while next <= span.last {
                map.push(None, 0);
                next += 1;
            }
        }
        Ok(map)
    }

    fn is_sealed(&self, map: &Map) -> bool {
        let index = read_locked(&self.shared.index);
        map.stretches.iter().filter_map(|s| Some((map.streams.get(s.stream? as usize)?, s))).all(
            |(stream, s)| {
                let held = index.streams.get(&stream.key());
                // A seal that is not followed yet may stand in this very file.
                held.is_some_and(|held| {
                    held.seals.is_empty() && held.sealed_through(s.lsn, s.lsn + s.records - 1)
                })
            },
        )
    }

    /// Whether a cursor stands before the end of the file and the log is not too long for it.
    fn is_wanted(&self, map: &Map) -> bool {
        !self.is_long(&read_locked(&self.shared.index))
            && self.shared.state.cursors().iter().any(|(_, at)| at.0 < map.last())
    }
}
