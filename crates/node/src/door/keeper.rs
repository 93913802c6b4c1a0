//! The tokens that are in force: the file's, looked at with every request (one `stat`) and read again when it has changed, so that a
//! revoked token opens nothing from the moment that the command ends.
//!
//! A file that is gone lets nobody in once there was one: that the doors open again takes a start without it. A file that cannot be
//! used changes nothing but the status, which says why.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Value, json};

use super::access::{Access, Denied};
use super::file::{Entry, TokenFileError, read};
use super::token::{Token, TokenId};
use crate::files::{Look, look};

type Tokens = HashMap<TokenId, Arc<Entry>>;

/// The doors of one node.
#[derive(Debug)]
pub(crate) struct Doors {
    path: PathBuf,
    present: RwLock<Present>,
}

#[derive(Debug)]
struct Present {
    seen: Look,
    /// `None` leaves the doors open.
    tokens: Option<Tokens>,
    /// Why the file as it is now is not in force.
    fault: Option<String>,
}

impl Doors {
    /// Reads the file, if there is one.
    pub fn open(path: PathBuf) -> Result<Self, TokenFileError> {
        let seen = look(&path);
        let tokens = read(&path)?.map(by_id);
        Ok(Self { path, present: RwLock::new(Present { seen, tokens, fault: None }) })
    }

    /// Whether whoever comes without a token stays outside.
    pub fn are_locked(&self) -> bool {
        self.refresh();
        self.present.read().unwrap_or_else(PoisonError::into_inner).tokens.is_some()
    }

    /// What a request with this token, or without one, may do.
    pub fn admit<E>(&self, token: Result<Option<Token>, E>) -> Result<Access, Denied> {
        self.refresh();
        let present = self.present.read().unwrap_or_else(PoisonError::into_inner);
        // While the doors are open, whatever stands in the token's place does no harm.
        let Some(tokens) = &present.tokens else { return Ok(Access::OPEN) };
        let token = token.map_err(|_| Denied::Malformed)?.ok_or(Denied::NoToken)?;
        let entry = tokens.get(&token.id()).ok_or(Denied::Unknown)?;
        if entry.hash.is_of(&token) { Ok(Access::of(Arc::clone(entry))) } else { Err(Denied::Unknown) }
    }

    /// Whether what was granted once is granted now: the same token with the same scopes and sites, or still none.
    pub fn still_grant(&self, access: &Access) -> bool {
        self.refresh();
        let present = self.present.read().unwrap_or_else(PoisonError::into_inner);
        match (&present.tokens, access.token()) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(tokens), Some(entry)) => tokens.get(&entry.id).is_some_and(|now| **now == *entry),
        }
    }

    /// How they stand, for the status. No name of a token is in it.
    pub fn as_json(&self) -> Value {
        let present = self.present.read().unwrap_or_else(PoisonError::into_inner);
        json!({
            "locked": present.tokens.is_some(),
            "tokens": present.tokens.as_ref().map_or(0, HashMap::len),
            "file_not_in_force": present.fault,
        })
    }

    fn refresh(&self) {
        let now = look(&self.path);
        if self.present.read().unwrap_or_else(PoisonError::into_inner).seen == now {
            return;
        }
        let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
        // What was seen is older than what is read, so a change in between is found with the next request.
        present.seen = look(&self.path);
        present.fault = None;
        match read(&self.path) {
            Ok(Some(entries)) => {
                let tokens = by_id(entries);
                tell(present.tokens.as_ref(), &tokens);
                present.tokens = Some(tokens);
            }
            Ok(None) => {
                if let Some(before) = present.tokens.as_mut().filter(|before| !before.is_empty()) {
                    tracing::error!(path = %self.path.display(), "the file of tokens is gone: nobody is let in");
                    before.clear();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "changed tokens cannot be used: those from before stay in force");
                present.fault = Some(error.to_string());
            }
        }
    }
}

fn by_id(entries: Vec<Entry>) -> Tokens {
    entries.into_iter().map(|entry| (entry.id, Arc::new(entry))).collect()
}

/// Says who was let in and shut out by a change of the file: names and ids, never a secret.
fn tell(before: Option<&Tokens>, now: &Tokens) {
    if before.is_none() {
        tracing::info!(target: "audit", "doors locked: every request needs a token");
    }
    let none = Tokens::new();
    let before = before.unwrap_or(&none);
    for (id, entry) in now.iter().filter(|(id, entry)| before.get(*id) != Some(*entry)) {
        let scopes: Vec<_> = entry.scopes.iter().map(|scope| scope.name()).collect();
        tracing::info!(target: "audit", %id, name = entry.name, ?scopes, sites = ?entry.sites, "token in force");
    }
    for (id, entry) in before.iter().filter(|(id, _)| !now.contains_key(*id)) {
        tracing::info!(target: "audit", %id, name = entry.name, "token revoked");
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::{change, tokens_path};
    use super::super::scope::Scope;
    use super::*;
    use tidelog_replication::Sites;

    type NoError = Result<Option<Token>, ()>;

    fn add(doors: &Doors) -> Token {
        let token = Token::draw().unwrap();
        let entry = Entry::of(
            &token,
            "n".to_owned(),
            [Scope::Read].into(),
            Sites::Only(["a".parse().unwrap()].into()),
            0,
        );
        let added = change(&doors.path, |tokens| {
            tokens.push(entry);
            Ok::<_, TokenFileError>(())
        });
        added.unwrap();
        token
    }

    fn revoke(doors: &Doors, id: TokenId) {
        let revoked = change(&doors.path, |tokens| {
            tokens.retain(|entry| entry.id != id);
            Ok::<_, TokenFileError>(())
        });
        revoked.unwrap();
    }

    #[test]
    fn a_token_opens_from_the_moment_it_is_made_until_the_moment_it_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let doors = Doors::open(tokens_path(dir.path(), None)).unwrap();
        let admit = |token: Option<&Token>| doors.admit(NoError::Ok(token.cloned()));
        assert!(admit(None).unwrap().sees_everything() && !doors.are_locked());
        assert!(doors.admit::<()>(Err(())).is_ok(), "open doors look at no token");
        let token = add(&doors);
        assert!(doors.are_locked());
        assert_eq!(admit(None).unwrap_err(), Denied::NoToken);
        assert_eq!(doors.admit::<()>(Err(())).unwrap_err(), Denied::Malformed);
        let access = admit(Some(&token)).unwrap();
        assert_eq!(access.needs(Scope::Read), Ok(()));
        assert_eq!(access.needs(Scope::Admin), Err(Denied::Scope(Scope::Admin)));
        assert!(access.sees(&"a".parse().unwrap()) && !access.sees(&"b".parse().unwrap()));
        let another = Token::draw().unwrap();
        assert_eq!(admit(Some(&another)).unwrap_err(), Denied::Unknown);
        revoke(&doors, token.id());
        assert_eq!(admit(Some(&token)).unwrap_err(), Denied::Unknown);
        assert_eq!(admit(None).unwrap_err(), Denied::NoToken, "the last token gone opens nothing");
    }

    #[test]
    fn a_file_that_is_gone_lets_nobody_in_and_one_that_is_broken_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let doors = Doors::open(tokens_path(dir.path(), None)).unwrap();
        let token = add(&doors);
        let admit = || doors.admit(NoError::Ok(Some(token.clone())));
        admit().unwrap();
        let good = std::fs::read(&doors.path).unwrap();
        std::fs::write(&doors.path, "{").unwrap();
        admit().unwrap();
        assert!(doors.as_json()["file_not_in_force"].as_str().unwrap().contains("tokens.json"));
        std::fs::remove_file(&doors.path).unwrap();
        assert_eq!(admit().unwrap_err(), Denied::Unknown);
        assert!(doors.are_locked());
        std::fs::write(&doors.path, good).unwrap();
        admit().unwrap();
        assert!(
            Doors::open(tokens_path(&dir.path().join("other"), None)).is_ok_and(|doors| !doors.are_locked())
        );
    }

    #[test]
    fn a_broken_file_keeps_a_node_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let path = tokens_path(dir.path(), None);
        std::fs::write(&path, "[]").unwrap();
        assert!(Doors::open(path).is_err());
    }
}
