//! Taking in other nodes' records, and this node's own when they come back: contiguous, chained, and never over other
//! bytes (invariants 1, 3, 11). What is held already is skipped; a gap that rot left is filled.

use std::collections::HashMap;
use std::ops::ControlFlow;

use tidelog_record::{ChainHash, Lsn, Record, StreamId, StreamKey};

use crate::errors::{AdoptError, ReadError};
use crate::frame::FrameWriter;
use crate::shared::read_locked;
use crate::writer::{Adopted, Commit, Tip, Writer, put};

/// The end of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tail {
    /// Everything up to here is held.
    pub upto: Lsn,
    pub chain: ChainHash,
    /// The highest held, above gaps too.
    pub top: Lsn,
    pub top_chain: ChainHash,
}

/// Whether a record is here already.
enum Held {
    Not,
    /// With this chain hash.
    As(ChainHash),
    /// It was, and policy dropped it; or peers had dropped it before it came.
    Dropped,
}

/// A record that has its place.
pub(crate) struct Placed {
    pub key: StreamKey,
    pub lsn: Lsn,
    pub chain: ChainHash,
    pub body: Vec<u8>,
}

impl Writer {
    /// Checks all of `records` before it places any.
    pub(crate) fn adopt(
        &self,
        tip: &Tip,
        frames: &mut FrameWriter,
        commit: &mut Commit,
        records: Vec<Record>,
    ) -> Result<Adopted, AdoptError> {
        let mut tails = HashMap::new();
        let mut accepted = Vec::with_capacity(records.len());
        let mut counts = Adopted::default();
        let mut keyed: Option<(StreamId, StreamKey)> = None;
        for record in records {
            let key = match &keyed {
                Some((stream, key)) if *stream == record.stream => *key,
                _ => keyed.insert((record.stream.clone(), record.stream.key())).1,
            };
            let tail = *tails.entry(key).or_insert_with(|| self.tail(commit, key));
            let held = match commit.adopted.get(&(key, record.lsn)) {
                _ if record.lsn > tail.top => Held::Not,
                Some(chain) => Held::As(*chain),
                None => self.held(&record)?,
            };
            let fork = |held| AdoptError::Fork {
                stream: record.stream.clone(),
                lsn: record.lsn,
                held,
                offered: record.chain,
            };
            match held {
                Held::As(held) if held != record.chain => return Err(fork(held)),
                Held::As(_) | Held::Dropped => {
                    counts.held += 1;
                    continue;
                }
                Held::Not => {}
            }
            if tail.upto.next() != Some(record.lsn) {
                let (stream, found) = (record.stream, record.lsn);
                return Err(AdoptError::Gap { stream, held: tail.upto, found });
            }
            if tail.chain.after(&key, record.lsn, &record.body) != record.chain {
                return Err(AdoptError::BrokenChain { stream: record.stream, lsn: record.lsn });
            }
            let mut after = Tail { upto: record.lsn, chain: record.chain, ..tail };
            if record.lsn > tail.top {
                (after.top, after.top_chain) = (record.lsn, record.chain);
            } else if let Some((upto, chain)) = self.joined(key, &record)? {
                (after.upto, after.chain) = (upto, chain);
            }
            tails.insert(key, after);
            counts.stored += 1;
            accepted.push((key, record));
        }
        for (key, record) in accepted {
            if !commit.tails.contains_key(&key) {
                let tail = self.tail(commit, key);
                commit.tails.insert(key, tail);
            }
            commit.adopted.insert((key, record.lsn), record.chain);
            let placed = Placed { key, lsn: record.lsn, chain: record.chain, body: record.body };
            put(tip, frames, commit, &record.stream, placed);
        }
        for (key, tail) in tails {
            if commit.tails.contains_key(&key) {
                commit.tails.insert(key, tail);
            }
        }
        Ok(counts)
    }

    fn held(&self, record: &Record) -> Result<Held, ReadError> {
        {
            let index = read_locked(&self.shared.index);
            let Some(stream) = index.streams.get(&record.stream.key()) else { return Ok(Held::Not) };
            match stream.gap_of(record.lsn) {
                Some(gap) if gap.by_policy() => return Ok(Held::Dropped),
                Some(_) if !stream.holds(record.lsn) => return Ok(Held::Not),
                _ => {}
            }
        }
        Ok(self.shared.chain_of(&record.stream, record.lsn)?.map_or(Held::Not, Held::As))
    }

    /// When `record` closes a gap: the end of what is held behind it, whose first record must follow.
    pub(crate) fn joined(
        &self,
        key: StreamKey,
        record: &Record,
    ) -> Result<Option<(Lsn, ChainHash)>, AdoptError> {
        let Some(next) = record.lsn.next() else { return Ok(None) };
        let (end, before) = {
            let index = read_locked(&self.shared.index);
            let Some(stream) = index.streams.get(&key) else { return Ok(None) };
            let Some(end) = stream.run_from(next) else { return Ok(None) };
            (end, stream.hash_before_piece(next))
        };
        if let Some(before) = before {
            return if before == record.chain {
                Ok(Some(end))
            } else {
                let (stream, lsn, offered) = (record.stream.clone(), record.lsn, record.chain);
                Err(AdoptError::Fork { stream, lsn, held: before, offered })
            };
        }
        let mut follows = None;
        self.shared.walk_stream(key, next, |_, held| {
            let after = record.chain.after(&key, held.lsn, held.body);
            follows = Some((after == held.chain, held.chain));
            ControlFlow::Break(())
        })?;
        match follows {
            Some((true, _)) => Ok(Some(end)),
            Some((false, held)) => Err(AdoptError::Fork {
                stream: record.stream.clone(),
                lsn: record.lsn,
                held,
                offered: record.chain,
            }),
            None => Err(ReadError::Rotten { file: String::from("log"), offset: 0 }.into()),
        }
    }
}
