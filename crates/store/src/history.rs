//! Records as they were written, wherever they are now: in the log or in segments, which give each record back byte for byte.
//! A stream is read by LSN, the whole by order of arrival. Knows no writer and no policy.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use tidelog_record::{ChainHash, Lsn, Record, StreamId, StreamKey};

use crate::errors::ReadError;
use crate::position::Position;
use crate::reader::Span;
use crate::recovery::read_map;
use crate::sealed::Sealed;
use crate::segment::READ_RECORD_COST_BYTES;
use crate::shared::{Shared, locked, read_locked};
use crate::trimmed::Map;

/// Bodies that are taken out of a segment at once when single records are asked for, in bytes.
const WINDOW_BYTES_MAX: usize = 256 * 1024;
/// How many such windows are kept.
const WINDOWS_MAX: usize = 4;
/// How often a reader looks again for what went from the log into a segment under its eyes.
const MOVES_MAX: u32 = 4;

/// What was taken out of segments and maps and may be asked for again.
#[derive(Debug, Default)]
pub(crate) struct History {
    windows: Mutex<VecDeque<Arc<Vec<Record>>>>,
    map: Mutex<Option<(Arc<str>, Arc<Map>)>>,
}

/// Where a record is.
enum Place {
    Log,
    Segment(Arc<Sealed>),
    Nowhere,
}

/// What holds the next position.
enum Arrivals {
    Log(Span),
    Map(Arc<Map>),
    None,
}

impl Shared {
    fn place(&self, key: StreamKey, lsn: Lsn) -> Place {
        let index = read_locked(&self.index);
        let Some(stream) = index.streams.get(&key) else { return Place::Nowhere };
        if stream.extent_of(lsn).is_some() {
            return Place::Log;
        }
        stream.sealed_of(lsn).map_or(Place::Nowhere, |sealed| Place::Segment(Arc::clone(sealed)))
    }

    /// Records of one stream behind `after`, contiguous: at least one if it is held, then up to `bytes_max` of bodies, each counted with
    /// [`READ_RECORD_COST_BYTES`].
    pub fn read(&self, stream: &StreamId, after: Lsn, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        let key = stream.key();
        let mut out: Vec<Record> = Vec::new();
        let mut bytes = 0usize;
        let mut next = after;
        let mut moves = 0;
        // Where a gap was filled, the stream goes on elsewhere: one round for each piece.
        while let Some(lsn) = next.next() {
            let before = out.len();
            let mut full = false;
            match self.place(key, lsn) {
                Place::Nowhere => break,
                Place::Log => self.walk_stream(key, lsn, |_, record| {
                    bytes = bytes.saturating_add(record.body.len() + READ_RECORD_COST_BYTES);
                    if !out.is_empty() && bytes > bytes_max {
                        full = true;
                        return ControlFlow::Break(());
                    }
                    let (lsn, chain, body) = (record.lsn, record.chain, record.body.to_vec());
                    out.push(Record { stream: stream.clone(), lsn, chain, body });
                    next = lsn;
                    full = bytes >= bytes_max;
                    if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })?,
                Place::Segment(sealed) => {
                    let room = bytes_max.saturating_sub(bytes);
                    for record in self.sealed_records(&sealed, next, room)? {
                        bytes = bytes.saturating_add(record.body.len() + READ_RECORD_COST_BYTES);
                        full = bytes >= bytes_max;
                        if !out.is_empty() && bytes > bytes_max {
                            break;
                        }
                        next = record.lsn;
                        out.push(record);
                        if full {
                            break;
                        }
                    }
                }
            }
            moves = if out.len() == before { moves + 1 } else { 0 };
            if full || moves > MOVES_MAX {
                break;
            }
        }
        Ok(out)
    }

    fn sealed_records(
        &self,
        sealed: &Arc<Sealed>,
        after: Lsn,
        bytes_max: usize,
    ) -> Result<Vec<Record>, ReadError> {
        sealed.segment.records(after, bytes_max).map_err(|error| self.bad_segment(sealed, &error))
    }

    /// The record at `lsn`, with some behind it, if it is held.
    fn window(&self, stream: &StreamId, lsn: Lsn) -> Result<Option<Arc<Vec<Record>>>, ReadError> {
        let has = |window: &&Arc<Vec<Record>>| {
            let (first, last) = (window.first(), window.last());
            first.is_some_and(|r| r.lsn <= lsn && r.stream == *stream) && last.is_some_and(|r| r.lsn >= lsn)
        };
        if let Some(window) = locked(&self.history.windows).iter().find(has) {
            return Ok(Some(Arc::clone(window)));
        }
        let records = self.read(stream, Lsn(lsn.0.saturating_sub(1)), WINDOW_BYTES_MAX)?;
        if records.first().is_none_or(|record| record.lsn != lsn) {
            return Ok(None);
        }
        let window = Arc::new(records);
        let mut windows = locked(&self.history.windows);
        windows.truncate(WINDOWS_MAX - 1);
        windows.push_front(Arc::clone(&window));
        Ok(Some(window))
    }

    /// The chain hash at a record, if it is held; the genesis hash at zero.
    pub fn chain_of(&self, stream: &StreamId, lsn: Lsn) -> Result<Option<ChainHash>, ReadError> {
        if lsn == Lsn::ZERO {
            return Ok(Some(ChainHash::GENESIS));
        }
        let key = stream.key();
        {
            let index = read_locked(&self.index);
            let Some(stream) = index.streams.get(&key) else { return Ok(None) };
            if let Some(chain) = stream.chain_known(lsn) {
                return Ok(Some(chain));
            }
            if !stream.holds(lsn) {
                return Ok(None);
            }
        }
        let mut chain = None;
        self.walk_stream(key, lsn, |_, record| {
            chain = Some(record.chain);
            ControlFlow::Break(())
        })?;
        if chain.is_none()
            && let Some(window) = self.window(stream, lsn)?
        {
            chain = window.iter().find(|record| record.lsn == lsn).map(|record| record.chain);
        }
        Ok(chain)
    }

    /// What holds `position`, or the first position after it.
    fn arrivals(&self, position: u64) -> Result<Arrivals, ReadError> {
        let trimmed = {
            let index = read_locked(&self.index);
            let file = index.file_at(position).and_then(|at| index.files.get(at));
            file.filter(|file| file.trimmed).map(|file| (Arc::clone(&file.name), Arc::clone(&file.file)))
        };
        let Some((name, file)) = trimmed else {
            return Ok(self.span_at(position).map_or(Arrivals::None, Arrivals::Log));
        };
        let mut kept = locked(&self.history.map);
        if let Some((_, map)) = kept.as_ref().filter(|(kept, _)| *kept == name) {
            return Ok(Arrivals::Map(Arc::clone(map)));
        }
        let map = match read_map(file.as_ref()) {
            Ok(Ok(map)) => Arc::new(map),
            Ok(Err(_)) => return Err(ReadError::Rotten { file: name.to_string(), offset: 0 }),
            Err(error) => {
                return Err(ReadError::Io { file: name.to_string(), reason: Arc::from(error.to_string()) });
            }
        };
        *kept = Some((name, Arc::clone(&map)));
        Ok(Arrivals::Map(map))
    }

    /// Records behind `after` in order of arrival: at least one if there is one, then up to `bytes_max` of bodies.
    pub fn follow(&self, after: Position, bytes_max: usize) -> Result<Vec<(Position, Record)>, ReadError> {
        let mut out = Followed { out: Vec::new(), bytes: 0, bytes_max };
        let mut streams = HashMap::new();
        let mut next = after.0.saturating_add(1);
        loop {
            let newest = self.recent.from(next);
            for record in &newest {
                next = record.position + 1;
                let Some(stream) = self.name_of(record.key, &mut streams) else { continue };
                let make =
                    || Record { stream, lsn: record.lsn, chain: record.chain, body: record.body.clone() };
                if out.push(record.position, record.body.len(), make).is_break() {
                    return Ok(out.out);
                }
            }
            if !newest.is_empty() {
                continue;
            }
            let flow = match self.arrivals(next)? {
                Arrivals::None => break,
                Arrivals::Map(map) => {
                    let flow = self.follow_map(&map, next, &mut out)?;
                    next = map.last() + 1;
                    flow
                }
                Arrivals::Log(span) => {
                    let visit = |position: u64, record: crate::frame::RecordFrame<'_>| {
                        if position < next {
                            return ControlFlow::Continue(());
                        }
                        let Some(stream) = self.name_of(record.key, &mut streams) else {
                            return ControlFlow::Continue(());
                        };
                        let (lsn, chain, body) = (record.lsn, record.chain, record.body);
                        out.push(position, body.len(), || Record { stream, lsn, chain, body: body.to_vec() })
                    };
                    let walked = self.walks.walk(&span, next, visit);
                    let flow = walked.inspect_err(|error| self.unreadable(error))?;
                    next = span.last + 1;
                    flow
                }
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(out.out)
    }

    fn name_of(&self, key: StreamKey, known: &mut HashMap<StreamKey, StreamId>) -> Option<StreamId> {
        if let Some(stream) = known.get(&key) {
            return Some(stream.clone());
        }
        let stream = read_locked(&self.index).streams.get(&key).map(|found| found.stream.clone())?;
        known.insert(key, stream.clone());
        Some(stream)
    }

    fn follow_map(&self, map: &Map, from: u64, out: &mut Followed) -> Result<ControlFlow<()>, ReadError> {
        let mut position = map.first;
        for stretch in &map.stretches {
            let stream = stretch.stream.and_then(|at| map.streams.get(at as usize));
            let Some(stream) = stream.filter(|_| position + stretch.records > from) else {
                position += stretch.records;
                continue;
            };
            let mut ahead = from.saturating_sub(position);
            while ahead < stretch.records {
                let lsn = Lsn(stretch.lsn + ahead);
                let Some(window) = self.window(stream, lsn)? else {
                    // Dropped by policy, or rotten: the gap says so. The cursor goes on behind it.
                    ahead += 1;
                    continue;
                };
                for record in window.iter().skip_while(|record| record.lsn < lsn) {
                    if ahead >= stretch.records {
                        break;
                    }
                    if out.push(position + ahead, record.body.len(), || record.clone()).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    ahead += 1;
                }
            }
            position += stretch.records;
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Records that are handed out, up to a bound.
struct Followed {
    out: Vec<(Position, Record)>,
    bytes: usize,
    bytes_max: usize,
}

impl Followed {
    fn push(&mut self, position: u64, bytes: usize, record: impl FnOnce() -> Record) -> ControlFlow<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if !self.out.is_empty() && self.bytes > self.bytes_max {
            return ControlFlow::Break(());
        }
        self.out.push((Position(position), record()));
        if self.bytes >= self.bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
