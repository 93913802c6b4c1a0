//! What a token may be used for. Scopes do not contain each other: each is given by name.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Ask for points, names, status and metrics.
    Read,
    /// Post points.
    Write,
    /// Send commands to devices.
    Command,
    /// Change how the node runs.
    Admin,
}

impl Scope {
    /// The word for it in files, flags and refusals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Command => "command",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_one_word_in_files_and_in_flags() {
        for scope in Scope::value_variants() {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.name());
            assert_eq!(Scope::from_str(scope.name(), false).as_ref(), Ok(scope));
        }
    }
}
