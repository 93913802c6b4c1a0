//! Messages of other programs: what is published on a topic in JSON, or as a bare value, becomes points as a file of forms says it
//! (`docs/MQTT.md`). A form is pure; how a message comes, is acknowledged and is known again is [`ingest`](super::ingest)'s affair.

mod document;
mod file;
mod pattern;
#[cfg(test)]
mod tests;

use tidelog_record::{Batch, Lsn, NodeId, Relay, Run, SiteName};

use document::Form;
pub use document::FormError;
pub(super) use pattern::overlap;

/// Most forms of a node; each is a subscription.
pub const FORMS_MAX: usize = 64;

/// The run in the origin of a record that no node wrote: runs of nodes are random numbers.
const RUN_OF_NOBODY: Run = Run(0);

/// The forms of a node.
#[derive(Clone, Debug, Default)]
pub struct Forms(Vec<Form>);

/// What becomes of a message.
#[derive(Debug)]
pub(super) struct Reading {
    pub site: SiteName,
    pub batch: Batch,
    /// Why the first value that could not be read could not, and how many there were.
    pub unfit: Option<(String, usize)>,
}

impl Forms {
    /// What to subscribe to.
    pub(super) fn filters(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|form| form.topic.filter())
    }

    /// Whether the time of a message's arrival is the time of its points.
    pub(super) fn need_clock(&self) -> bool {
        self.0.iter().any(|form| form.time.is_none())
    }

    /// What a message is by the form of its topic; `None` where no form has it.
    pub(super) fn read(
        &self,
        topic: &str,
        payload: &[u8],
        arrived_ns: i64,
    ) -> Option<Result<Reading, FormError>> {
        let (form, levels) = self.0.iter().find_map(|form| Some((form, form.topic.of(topic)?)))?;
        let read = || {
            let site = form.site(&levels)?;
            let read = form.read(&levels, payload, arrived_ns)?;
            Ok(Reading { site, batch: read.batch, unfit: read.unfit })
        };
        Some(read())
    }
}

/// A message by what it says and how the broker calls it. Without a number of its own that is all by which one can be known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Delivery {
    /// The start of a hash of topic and payload.
    pub fingerprint: [u8; 16],
    /// The packet identifier, which a message keeps when it is delivered again.
    pub packet: u16,
}

impl Delivery {
    pub fn of(topic: &str, payload: &[u8], packet: u16) -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(&(topic.len() as u64).to_le_bytes()).update(topic.as_bytes()).update(payload);
        let mut fingerprint = [0; 16];
        hash.finalize_xof().fill(&mut fingerprint);
        Self { fingerprint, packet }
    }

    /// As it stands in the record that was made of the message.
    pub fn relay(self) -> Relay {
        let node = NodeId(self.fingerprint);
        Relay { node, run: RUN_OF_NOBODY, lsn: Lsn(u64::from(self.packet)), first_point: None }
    }

    /// What a record was made of, if it was made of such a message.
    pub fn of_relay(relay: &Relay) -> Option<Self> {
        let packet = u16::try_from(relay.lsn.0).ok()?;
        (relay.run == RUN_OF_NOBODY).then_some(Self { fingerprint: relay.node.0, packet })
    }
}
