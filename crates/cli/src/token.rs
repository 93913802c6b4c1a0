//! `tidelog token`: makes, lists and revokes the tokens in a node's file. What a token is and how the file is written are decided in
//! [`tidelog_node::door`]; here are the words. A node that runs need not be told: it looks at the file itself.

use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidelog_node::door::{
    Entry, RandomError, Scope, Sites, TOKENS_MAX, Token, TokenFileError, change, read, tokens_path,
};
use tidelog_record::SiteName;

use crate::words::{instant, printable, table};

/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 64;

const EXAMPLES: &str = "\
Examples, on the node, as its user or as root:
  tidelog token create --data /var/lib/tidelog --name grafana --scope read --site plant
  tidelog token create --data /var/lib/tidelog --name telegraf --scope write --site plant
  tidelog token create --data /var/lib/tidelog --name operator --scope read,write,command,admin --all-sites
  curl -H 'Authorization: Bearer TOKEN' https://node.example:8433/api/v1/sites

From the first token on, the node asks every client for one; /healthz and /readyz stay open.";

#[derive(Subcommand)]
pub enum TokenVerb {
    /// Makes a token and shows it, this once: only a hash of it is kept.
    #[command(after_help = EXAMPLES)]
    Create(CreateArguments),
    /// The tokens of a node, without their secrets.
    List {
        #[command(flatten)]
        place: Place,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revokes a token: it opens nothing from now on.
    Revoke {
        /// Name or id of the token.
        token: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args)]
pub struct CreateArguments {
    /// Name of the token, for people: who uses it, and for what.
    #[arg(long, value_name = "NAME")]
    name: TokenName,
    /// What it may be used for; several between commas.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',', required = true)]
    scopes: Vec<Scope>,
    #[command(flatten)]
    granted: Granted,
    #[command(flatten)]
    place: Place,
    /// As JSON, the token included.
    #[arg(long)]
    json: bool,
}

/// Where the token may be used: nowhere by default.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Granted {
    /// Site that it may be used for; may stand more than once.
    #[arg(long = "site", value_name = "SITE")]
    sites: Vec<SiteName>,
    /// Every site, also those to come.
    #[arg(long)]
    all_sites: bool,
}

/// Which node's tokens are meant.
#[derive(Args)]
pub struct Place {
    /// The node's data folder.
    #[arg(long, value_name = "DIR", env = "TIDELOG_DATA", default_value = "tidelog-data")]
    data: PathBuf,
    /// The node's file of tokens, if its settings name one (http_tokens).
    #[arg(long, value_name = "FILE", env = "TIDELOG_HTTP_TOKENS")]
    file: Option<PathBuf>,
}

impl Place {
    fn path(&self) -> PathBuf {
        tokens_path(&self.data, self.file.as_deref())
    }
}

/// A token's name: a line of text.
#[derive(Clone, Debug)]
struct TokenName(String);

/// Why a text is no name of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to {NAME_BYTES_MAX} bytes without control characters")]
pub struct TokenNameError;

impl FromStr for TokenName {
    type Err = TokenNameError;

    fn from_str(text: &str) -> Result<Self, TokenNameError> {
        if (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TokenNameError)
        }
    }
}

/// Why a token was not made, listed or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    File(#[from] TokenFileError),
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("a token named \"{name}\" exists in {}: take another name, or revoke it first", path.display())]
    Exists { name: String, path: PathBuf },
    #[error("{} holds {TOKENS_MAX} tokens, the most there may be: revoke some", .0.display())]
    TooMany(PathBuf),
    #[error("no token with the name or id \"{}\" in {}", printable(name), path.display())]
    Unknown { name: String, path: PathBuf },
    #[error("{0}")]
    Output(#[from] io::Error),
}

/// Does what was asked, at the instant `now`.
pub fn run(verb: TokenVerb, now: SystemTime, out: &mut impl Write) -> Result<(), TokenError> {
    match verb {
        TokenVerb::Create(arguments) => create(arguments, now, out),
        TokenVerb::List { place, json } => {
            let tokens = read(&place.path())?;
            if json {
                let tokens: Vec<_> = tokens.iter().flatten().map(as_json).collect();
                writeln!(out, "{:#}", json!({ "tokens": tokens }))?;
            } else {
                match tokens {
                    None => writeln!(
                        out,
                        "No tokens: {} does not exist, and no client needs one.",
                        place.path().display()
                    )?,
                    Some(tokens) if tokens.is_empty() => writeln!(out, "No tokens: nobody is let in.")?,
                    Some(tokens) => write!(out, "{}", in_words(&tokens))?,
                }
            }
            Ok(())
        }
        TokenVerb::Revoke { token, place } => revoke(&token, &place, out),
    }
}

fn create(arguments: CreateArguments, now: SystemTime, out: &mut impl Write) -> Result<(), TokenError> {
    let CreateArguments { name: TokenName(name), scopes, granted, place, json } = arguments;
    let (path, token) = (place.path(), Token::draw()?);
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let sites = if granted.all_sites { Sites::All } else { Sites::Only(granted.sites.into_iter().collect()) };
    let created_s = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let made = Entry::of(&token, name, scopes.into_iter().collect(), sites, created_s);
    let first = change(&path, |tokens| {
        if tokens.iter().any(|other| other.name == made.name) {
            return Err(TokenError::Exists { name: made.name.clone(), path: path.clone() });
        }
        if tokens.len() >= TOKENS_MAX {
            return Err(TokenError::TooMany(path.clone()));
        }
        tokens.push(made.clone());
        Ok(tokens.len() == 1)
    })?;
    if json {
        let mut told = as_json(&made);
        told["token"] = json!(token.reveal());
        writeln!(out, "{told:#}")?;
    } else {
        writeln!(out, "{}", token.reveal())?;
        // Beside the output, so that a script's variable holds the token and nothing else.
        eprintln!("This is the only time it is shown. Its hash is in {}.", path.display());
        if first {
            eprintln!("It is the first: from now on every client of this node needs a token.");
        }
    }
    Ok(())
}

fn revoke(token: &str, place: &Place, out: &mut impl Write) -> Result<(), TokenError> {
    let path = place.path();
    if read(&path)?.is_none() {
        return Err(TokenError::Unknown { name: token.to_owned(), path });
    }
    let gone = change(&path, |tokens| {
        let by_id = tokens.iter().position(|entry| entry.id.to_string() == token);
        let at = by_id.or_else(|| tokens.iter().position(|entry| entry.name == token));
        let unknown = || TokenError::Unknown { name: token.to_owned(), path: path.clone() };
        at.map(|at| tokens.remove(at)).ok_or_else(unknown)
    })?;
    writeln!(out, "revoked: {}, id {}", printable(&gone.name), gone.id)?;
    Ok(())
}

fn sites(entry: &Entry) -> Vec<&str> {
    match &entry.sites {
        Sites::All => vec!["*"],
        Sites::Only(sites) => sites.iter().map(SiteName::as_str).collect(),
    }
}

fn as_json(entry: &Entry) -> Value {
    json!({
        "id": entry.id,
        "name": entry.name,
        "scopes": entry.scopes,
        "sites": sites(entry),
        "created": instant(entry.created_s),
        "last_digits": entry.last_digits,
    })
}

fn in_words(tokens: &[Entry]) -> String {
    let mut rows = vec![["ID", "NAME", "SCOPES", "SITES", "MADE", "ENDS WITH"].map(str::to_owned).to_vec()];
    rows.extend(tokens.iter().map(|entry| {
        let scopes: Vec<_> = entry.scopes.iter().map(|scope| scope.name()).collect();
        vec![
            entry.id.to_string(),
            printable(&entry.name),
            scopes.join(","),
            sites(entry).join(","),
            instant(entry.created_s),
            format!("…{}", entry.last_digits),
        ]
    }));
    table(&rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use clap::Parser;
    use std::path::Path;

    #[derive(Parser)]
    struct Words {
        #[command(subcommand)]
        verb: TokenVerb,
    }

    fn said(dir: &Path, words: &[&str]) -> Result<String, String> {
        let data = dir.display().to_string();
        let words = ["token"].iter().chain(words).copied().chain(["--data", &data]);
        let verb = Words::try_parse_from(words).map_err(|error| error.to_string())?.verb;
        let mut out = Vec::new();
        run(verb, UNIX_EPOCH, &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_token_is_shown_once_listed_without_its_secret_and_revoked_by_name_or_id() {
        let dir = tempfile::tempdir().unwrap();
        assert!(said(dir.path(), &["list"]).unwrap().starts_with("No tokens: "));
        let make = |name, more: &[&str]| {
            said(dir.path(), &[&["create", "--name", name, "--scope", "write,read"], more].concat())
        };
        let text = make("grafana", &["--site", "b", "--site", "a"]).unwrap();
        let token: Token = text.trim_end().parse().unwrap();
        let told: Value = serde_json::from_str(&make("all", &["--all-sites", "--json"]).unwrap()).unwrap();
        assert!(told["token"].as_str().unwrap().parse::<Token>().is_ok());
        assert!(make("grafana", &["--all-sites"]).unwrap_err().contains("exists"));

        let listed: Value = serde_json::from_str(&said(dir.path(), &["list", "--json"]).unwrap()).unwrap();
        let expected = json!({"id": token.id(), "name": "grafana", "scopes": ["read", "write"], "sites": ["a", "b"],
            "created": "1970-01-01T00:00:00Z", "last_digits": token.last_digits()});
        assert_eq!(listed["tokens"][0], expected);
        let words = said(dir.path(), &["list"]).unwrap();
        assert!(
            words.contains("grafana  read,write  a,b") && words.contains("all      read,write  *"),
            "{words}"
        );
        assert!(!words.contains(text.trim_end()));

        let revoked = said(dir.path(), &["revoke", "grafana"]).unwrap();
        assert_eq!(revoked, format!("revoked: grafana, id {}\n", token.id()));
        assert!(said(dir.path(), &["revoke", "grafana"]).unwrap_err().contains("no token"));
        said(dir.path(), &["revoke", told["id"].as_str().unwrap()]).unwrap();
        assert_eq!(said(dir.path(), &["list"]).unwrap(), "No tokens: nobody is let in.\n");
    }

    #[test]
    fn a_token_is_granted_nothing_that_was_not_said() {
        let dir = tempfile::tempdir().unwrap();
        let refused: [&[&str]; 6] = [
            &["create", "--name", "n", "--scope", "read"],
            &["create", "--name", "n", "--all-sites"],
            &["create", "--scope", "read", "--all-sites"],
            &["create", "--name", "n", "--scope", "read", "--all-sites", "--site", "a"],
            &["create", "--name", "n", "--scope", "root", "--all-sites"],
            &["create", "--name", "a\nb", "--scope", "read", "--all-sites"],
        ];
        for words in refused {
            assert!(said(dir.path(), words).is_err(), "{words:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
