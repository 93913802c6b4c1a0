//! Who is at the other end and what it may see. Decided from the certificate by the caller; this module only
//! answers questions about it (invariant 13).

use alloc::collections::BTreeSet;

use tidelog_record::{NodeId, SiteName};

/// One connection's name, never used again in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Sites that a certificate grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sites {
    /// Every site.
    All,
    /// These sites.
    Only(BTreeSet<SiteName>),
}

impl Sites {
    /// Whether the site is granted.
    #[must_use]
    pub fn contains(&self, site: &SiteName) -> bool {
        match self {
            Self::All => true,
            Self::Only(sites) => sites.contains(site),
        }
    }
}

/// The other end of a session, as its certificate proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// What it may see and send.
    pub sites: Sites,
    /// Whether this side opened the connection.
    pub dialled: bool,
}
