//! Deliberate bugs of a simulated node, each a known failure of other systems, so that it can be shown that the judge would see it.
//! They sit in the shell around the machine, as a careless driver would have them; no program that ships can have any.

use std::fmt;
use std::str::FromStr;

/// What every node of a run does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// A record is told to peers before it is on the disk, so that a crash gives its LSN to another one.
    ReusedLsn,
    /// What peers hold of a node's own streams is ignored: a tail that its disk lost never comes back.
    LostTail,
    /// Nothing is cleaned up before every peer that was ever configured confirmed it, even one that is gone for ever.
    StalePeer,
    /// What was sent is cleaned up as if it were confirmed.
    RemovedUnconfirmed,
    /// Everything is written to the connection at once, and only whole messages count as a sign of life.
    StuckKeepalive,
    /// What the disk holds above a gap is not looked at, and asked for again.
    BlindAbove,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ReusedLsn,
        Self::LostTail,
        Self::StalePeer,
        Self::RemovedUnconfirmed,
        Self::StuckKeepalive,
        Self::BlindAbove,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReusedLsn => "reused-lsn",
            Self::LostTail => "lost-tail",
            Self::StalePeer => "stale-peer",
            Self::RemovedUnconfirmed => "removed-unconfirmed",
            Self::StuckKeepalive => "stuck-keepalive",
            Self::BlindAbove => "blind-above",
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a flaw.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no flaw {0}: reused-lsn, lost-tail, stale-peer, removed-unconfirmed, stuck-keepalive or blind-above"
)]
pub struct UnknownFlaw(String);

impl FromStr for Flaw {
    type Err = UnknownFlaw;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|flaw| flaw.name() == text).ok_or_else(|| UnknownFlaw(text.to_owned()))
    }
}
