//! The words of `tidelog ca` on the command line, and what names may be.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use tidelog_record::SiteName;
use tidelog_replication::Sites;

/// Longest name in a certificate, in bytes: X.509 has no longer common names.
const NAME_BYTES_MAX: usize = 64;

/// Longest life of an authority, in years.
const YEARS_MAX: i64 = 100;
/// Longest life of a node's certificate, in days.
const DAYS_MAX: i64 = 36_525;

#[derive(Subcommand)]
pub enum CaVerb {
    /// Makes an authority: ca.pem, which all nodes believe, ca.key, which issues, and ca.crl, the list of what is revoked. Replaces nothing.
    Init(InitArguments),
    /// Issues a certificate to a node: NAME.pem, and NAME.key if the node has no key yet. Replaces nothing.
    Issue(IssueArguments),
    /// Revokes all certificates that were issued under a name: they stand in ca.crl then, which every node is to get.
    Revoke(RevokeArguments),
    /// Shows what certificates say: node, sites, validity, issuer.
    Show {
        /// File with one or more certificates, PEM.
        file: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub struct InitArguments {
    /// Folder of the authority; made when missing.
    #[arg(long, value_name = "DIR", default_value = "tidelog-ca")]
    pub dir: PathBuf,
    /// Name of the authority, for people.
    #[arg(long, value_name = "NAME", default_value = "Tidelog authority")]
    pub name: AuthorityName,
    /// How long it lasts, in years.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=YEARS_MAX))]
    pub years: u32,
}

#[derive(Args)]
pub struct IssueArguments {
    /// Name of the node, for people and for its files. What the node is follows from its key.
    pub name: NodeName,
    #[command(flatten)]
    pub granted: Granted,
    /// The node is of the cloud: what is durable there counts as durable in the cloud (ack=cloud).
    #[arg(long)]
    pub cloud: bool,
    /// Folder of the authority.
    #[arg(long, value_name = "DIR", default_value = "tidelog-ca")]
    pub dir: PathBuf,
    /// Folder for the node's files; the authority's without it.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Key of a node that has one, as DIR/node.key of a node that has run: it stays the same node. The public half
    /// (openssl pkey -pubout) is enough. Without it a key is made.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// How long the certificate lasts, in days; ten years without it, or as long as the authority.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    pub days: Option<u32>,
}

#[derive(Args)]
pub struct RevokeArguments {
    /// The name that they were issued under.
    pub name: NodeName,
    /// Folder of the authority.
    #[arg(long, value_name = "DIR", default_value = "tidelog-ca")]
    pub dir: PathBuf,
    /// File with a certificate of that name that the authority's folder does not hold; may stand more than once.
    #[arg(long, value_name = "FILE")]
    pub cert: Vec<PathBuf>,
}

/// What a node is granted: nothing is by default.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Granted {
    /// Site that the node may hold and serve; may stand more than once.
    #[arg(long = "site", value_name = "SITE")]
    sites: Vec<SiteName>,
    /// Every site, also those to come: for a cloud node.
    #[arg(long)]
    all_sites: bool,
}

impl Granted {
    pub fn sites(&self) -> Sites {
        if self.all_sites { Sites::All } else { Sites::Only(self.sites.iter().cloned().collect()) }
    }
}

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("expected 1 to {NAME_BYTES_MAX} bytes without control characters")]
    Authority,
    #[error(
        "expected 1 to {NAME_BYTES_MAX} of A-Z, a-z, 0-9, '-', '_' and '.', starting with a letter or digit"
    )]
    Node,
    #[error("'ca' is the authority's own name for its files")]
    Reserved,
}

/// An authority's name: a line of text.
#[derive(Clone, Debug)]
pub struct AuthorityName(String);

impl AuthorityName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AuthorityName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Authority)
        }
    }
}

/// A node's name: it can stand in a file's name on any system.
#[derive(Clone, Debug)]
pub struct NodeName(String);

impl NodeName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let first = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if !first || text.len() > NAME_BYTES_MAX || !text.as_bytes().iter().all(inner) {
            return Err(NameError::Node);
        }
        if text.eq_ignore_ascii_case("ca") {
            return Err(NameError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_name_stays_in_its_folder_and_off_the_authoritys_files() {
        let node = |text: &str| text.parse::<NodeName>().map(|name| name.to_string());
        for good in ["gateway-1", "A", "0.b_c", &"x".repeat(64)] {
            assert_eq!(node(good).as_deref(), Ok(good));
        }
        for bad in ["", ".", "..", "../up", "a/b", "-a", "ä", "a b", "a\0", &"x".repeat(65)] {
            assert_eq!(node(bad), Err(NameError::Node), "{bad}");
        }
        assert_eq!(node("ca"), Err(NameError::Reserved));
        assert_eq!(node("CA"), Err(NameError::Reserved), "some file systems know no case");
    }

    #[test]
    fn an_authoritys_name_is_a_line() {
        let authority = |text: &str| text.parse::<AuthorityName>().is_ok();
        assert!(authority("Werk Süd, Halle 3"));
        assert!(!authority("") && !authority("a\nb") && !authority(&"x".repeat(65)));
    }
}
