//! Who may ask this node for what: tokens, each with scopes and sites, in a file beside the log, read again when it changes. It
//! refuses to know HTTP beyond the headers that carry a token, and routes at all: what a request needs, its route says.
//!
//! Without a file the doors are open, and only for this machine; from the moment there is one, whoever has no token stays outside.

mod access;
mod binding;
mod credential;
mod file;
mod keeper;
mod scope;
mod token;

pub use file::{Entry, TOKENS_MAX, TokenFileError, change, read, tokens_path};
pub use scope::Scope;
pub use tidelog_replication::Sites;
pub use token::{Hash, RandomError, Token, TokenId, TokenParseError};

pub(crate) use access::{Access, Denied};
pub(crate) use binding::{Protection, check as check_binding};
pub(crate) use credential::{Malformed, of_headers, of_influx_query};
pub(crate) use keeper::Doors;
