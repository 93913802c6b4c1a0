//! What stands before a body's entries.

use super::super::coder::{Coder, index, plain_bytes, plain_u64};
use super::{Flag, Foretells, Known};
use crate::body::{BodyHead, Origin, Relay};
use crate::device::DeviceId;
use crate::ids::{Lsn, NodeId, Run};
use crate::varint::Malformed;

/// A device that sent batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    device: DeviceId,
    epoch: u32,
    next_seq: u64,
    count: u32,
    /// Who sent the next body the last time.
    next: u32,
}

impl Known {
    /// Codes what stands before the entries, and how many there are.
    pub fn head(
        &mut self,
        coder: &mut impl Coder,
        head: &BodyHead,
        entries: u64,
    ) -> Result<(BodyHead, u64), Malformed> {
        self.stamp += 1;
        let relay = self.relay(coder, head.relay)?;
        let foretold = self.authored.0.wrapping_add(self.authored.1);
        let off = self.all.authored.code(coder, head.authored_ms.wrapping_sub(foretold));
        let authored_ms = foretold.wrapping_add(off);
        self.authored = (authored_ms, authored_ms.wrapping_sub(self.authored.0));
        let origin = self.origin(coder, head.origin)?;
        let more = self.all.entries.code(coder, entries.wrapping_sub(self.entries).cast_signed());
        self.entries = self.entries.wrapping_add(more.cast_unsigned());
        coder.check()?;
        Ok((BodyHead { authored_ms, origin, relay }, self.entries))
    }

    fn relay(&mut self, coder: &mut impl Coder, relay: Option<Relay>) -> Result<Option<Relay>, Malformed> {
        if !self.flag(coder, Flag::Copied, relay.is_some()) {
            return Ok(None);
        }
        let none = Relay { node: NodeId([0; 16]), run: Run(0), lsn: Lsn(0), first_point: None };
        let mut relay = relay.unwrap_or(none);
        plain_bytes(coder, &mut relay.node.0);
        relay.run = Run(plain_u64(coder, relay.run.0));
        relay.lsn = Lsn(plain_u64(coder, relay.lsn.0));
        let is_part = self.flag(coder, Flag::Part, relay.first_point.is_some());
        relay.first_point = is_part.then(|| plain_u64(coder, relay.first_point.unwrap_or_default()));
        coder.check()?;
        Ok(Some(relay))
    }

    fn origin(
        &mut self,
        coder: &mut impl Coder,
        origin: Option<Origin>,
    ) -> Result<Option<Origin>, Malformed> {
        if !self.flag(coder, Flag::Sent, origin.is_some()) {
            return Ok(None);
        }
        let across = self.foretells == Foretells::Across;
        let last = self.sender.filter(|_| across).and_then(|last| self.senders.get(last as usize));
        let foretold = last.map(|last| last.next);
        let found = origin.and_then(|of| self.sender_of(&of, foretold));
        let at = if let Some(foretold) = foretold
            && self.flag(coder, Flag::SenderNext, found == Some(foretold))
        {
            foretold
        } else if self.flag(coder, Flag::SenderKnown, found.is_some()) {
            index(coder, found.unwrap_or_default(), self.senders.len())?
        } else {
            let mut device = origin.map(|it| it.device).unwrap_or(DeviceId([0; 8]));
            plain_bytes(coder, &mut device.0);
            let epoch = coder.plain(origin.map_or(0, |it| it.epoch), 32);
            let at = u32::try_from(self.senders.len()).map_err(|_| Malformed)?;
            self.senders.push(Sender { device, epoch, next_seq: 0, count: 0, next: 0 });
            at
        };
        if let Some(last) = self.sender.and_then(|last| self.senders.get_mut(last as usize)) {
            last.next = at;
        }
        self.sender = Some(at);
        let sender = self.senders.get_mut(at as usize).ok_or(Malformed)?;
        let is =
            origin.unwrap_or(Origin { device: sender.device, epoch: sender.epoch, first_seq: 0, count: 0 });
        let off = self.all.seqs.code(coder, is.first_seq.wrapping_sub(sender.next_seq).cast_signed());
        let first_seq = sender.next_seq.wrapping_add(off.cast_unsigned());
        let more = self.all.seq_counts.code(coder, i64::from(is.count) - i64::from(sender.count));
        let count = i64::from(sender.count).checked_add(more).and_then(|count| u32::try_from(count).ok());
        sender.count = count.ok_or(Malformed)?;
        sender.next_seq = first_seq.wrapping_add(u64::from(sender.count));
        Ok(Some(Origin { device: sender.device, epoch: sender.epoch, first_seq, count: sender.count }))
    }

    /// The place of an origin's device among those known; where it is foretold, it is looked for there first.
    fn sender_of(&self, of: &Origin, foretold: Option<u32>) -> Option<u32> {
        let is = |it: &Sender| it.device == of.device && it.epoch == of.epoch;
        let is_there = |at: &u32| self.senders.get(*at as usize).is_some_and(is);
        foretold.filter(is_there).or_else(|| u32::try_from(self.senders.iter().position(is)?).ok())
    }
}
