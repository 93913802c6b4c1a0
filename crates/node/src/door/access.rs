//! What whoever sent a request may do: everything while the doors are open, or what a token grants. Sites that are not granted
//! are refused alike, whether they exist or not.

use std::sync::Arc;

use tidelog_record::SiteName;

use super::file::Entry;
use super::scope::Scope;

/// Why a request is refused at the door. The names stand in the counter of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// There is no token in it.
    NoToken,
    /// There is something in the token's place that is none.
    Malformed,
    /// The token was never made here, or is revoked.
    Unknown,
    /// The token does not have this scope.
    Scope(Scope),
    /// The token does not have this site.
    Site,
}

impl Denied {
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown_token",
            Self::Scope(_) => "scope",
            Self::Site => "site",
        }
    }
}

/// What is granted to one request.
#[derive(Clone, Debug)]
pub(crate) struct Access(Option<Arc<Entry>>);

impl Access {
    /// Everything: there are no tokens.
    pub const OPEN: Self = Self(None);

    pub fn of(entry: Arc<Entry>) -> Self {
        Self(Some(entry))
    }

    /// The token that grants it, if the doors are not open.
    pub fn token(&self) -> Option<&Entry> {
        self.0.as_deref()
    }

    pub fn needs(&self, scope: Scope) -> Result<(), Denied> {
        let granted = self.token().is_none_or(|entry| entry.scopes.contains(&scope));
        if granted { Ok(()) } else { Err(Denied::Scope(scope)) }
    }

    /// Whether the site may be seen at all.
    pub fn sees(&self, site: &SiteName) -> bool {
        self.token().is_none_or(|entry| entry.sites.contains(site))
    }

    /// Whether what is of no site in particular may be seen: that of all sites together.
    pub fn sees_everything(&self) -> bool {
        self.token().is_none_or(|entry| entry.sites == tidelog_replication::Sites::All)
    }
}
