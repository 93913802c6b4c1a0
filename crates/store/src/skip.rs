//! Passing over records that peers had dropped by policy before this node had them: a note in their place, durable before the stream goes on
//! behind it (invariants 2, 6). It comes between adoptions, on the writer's thread, so that what follows it is held to its chain hash.

use std::sync::Arc;

use tidelog_record::{ChainHash, Lsn, Record, StreamId};

use crate::disk::write_atomically;
use crate::errors::{AdoptError, AppendError};
use crate::gap::Gap;
use crate::sealed::{GAP_SUFFIX, SEGMENT_DIR, range_name};
use crate::shared::{read_locked, write_locked};
use crate::writer::{Stop, Writer, calm, is_full};

pub(crate) type SkipDone = Box<dyn FnOnce(Result<(), AdoptError>) + Send>;

/// Records of a stream that are not to come.
pub(crate) struct Skip {
    pub stream: StreamId,
    /// The end of what is held, and the chain hash there.
    pub after: (Lsn, ChainHash),
    /// The last that is passed over, and the chain hash there.
    pub to: (Lsn, ChainHash),
    pub done: SkipDone,
}

impl Writer {
    pub(crate) fn skip(&mut self, skip: Skip) {
        let Skip { stream, after, to, done } = skip;
        let noted = self.note_skip(stream, after, to);
        calm(|| done(noted));
    }

    fn note_skip(
        &mut self,
        stream: StreamId,
        after: (Lsn, ChainHash),
        to: (Lsn, ChainHash),
    ) -> Result<(), AdoptError> {
        let key = stream.key();
        let held = read_locked(&self.shared.index).streams.get(&key).map(|held| (held.upto, held.chain));
        let (upto, chain) = held.unwrap_or_default();
        let fork = |lsn, held, offered| AdoptError::Fork { stream: stream.clone(), lsn, held, offered };
        if to.0 <= upto {
            // All of it came meanwhile.
            return match self.shared.chain_of(&stream, to.0)? {
                Some(held) if held != to.1 => Err(fork(to.0, held, to.1)),
                _ => Ok(()),
            };
        }
        if after.0 != upto {
            return Err(AdoptError::Gap { stream, held: upto, found: after.0 });
        }
        if after.1 != chain {
            return Err(fork(upto, chain, after.1));
        }
        let to = self.up_to_next_piece(&stream, upto, to)?;
        let Some(gap) = Gap::never_held(stream.clone(), after, to) else { return Ok(()) };
        let rotten: Vec<String> = {
            let index = read_locked(&self.shared.index);
            let gaps = index.streams.get(&key).into_iter().flat_map(|held| &held.gaps);
            let touches = |rot: &&Gap| rot.seal.first <= to.0 && rot.seal.last >= gap.seal.first;
            gaps.filter(touches).map(note_name).collect()
        };
        let end = Record { stream: stream.clone(), lsn: to.0, chain: to.1, body: Vec::new() };
        self.joined(key, &end)?;
        let (dir, name) = (self.dir.join(SEGMENT_DIR), note_name(&gap));
        let refuse = |error: &std::io::Error| {
            AppendError::Failed(Arc::from(format!("cannot note what peers dropped: {error}")))
        };
        if let Err(error) = write_atomically(self.disk.as_ref(), &dir, &name, &gap.encode()) {
            let refused = if is_full(&error) { self.note(Stop::Full) } else { refuse(&error) };
            return Err(refused.into());
        }
        let records = gap.records();
        {
            let mut index = write_locked(&self.shared.index);
            index.declare(key, &stream);
            index.dig(&key, gap);
        }
        for rot in rotten.iter().filter(|rot| **rot != name) {
            // Its records will not come any more. If it stays, the next start finds it covered.
            if let Err(error) = self.disk.remove(&dir.join(rot)) {
                tracing::warn!(file = rot, %error, "a note of rot that is of no use any more was not removed");
            }
        }
        tracing::warn!(%stream, after = after.0.0, to = to.0.0, records, "dropped by all peers before it came here: passed over");
        Ok(())
    }
}

impl Writer {
    /// `to`, or the end of what is missing where something that is held stands before it: no note may cover that.
    fn up_to_next_piece(
        &self,
        stream: &StreamId,
        upto: Lsn,
        to: (Lsn, ChainHash),
    ) -> Result<(Lsn, ChainHash), AdoptError> {
        let index = read_locked(&self.shared.index);
        let held = index.streams.get(&stream.key());
        let piece = held.zip(upto.next()).and_then(|(held, first)| Some((held, held.next_piece(first)?)));
        let Some((held, lsn)) = piece.filter(|(_, lsn)| *lsn <= to.0) else { return Ok(to) };
        let last = Lsn(lsn.0.saturating_sub(1));
        let chain = held.hash_before_piece(lsn).or_else(|| held.chain_known(last));
        // What it follows stood in the records that are gone.
        let unknown = || AdoptError::BrokenChain { stream: stream.clone(), lsn };
        chain.map(|chain| (last, chain)).ok_or_else(unknown)
    }
}

fn note_name(gap: &Gap) -> String {
    range_name(&gap.stream.key(), gap.seal.first, gap.seal.last, GAP_SUFFIX)
}
