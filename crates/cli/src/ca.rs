//! `tidelog ca`: the cluster's authority as files in a folder, and the certificates that it issues to nodes. What stands in a
//! certificate is decided in [`tidelog_node::peering::authority`]; here are files, limits on time, and words.

mod command;
mod files;
mod revoke;
mod show;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidelog_node::StartError;
use tidelog_node::peering::authority::{Authority, AuthorityError, Grants, LIFETIME_DEFAULT};
use tidelog_node::peering::certificate::{Certificate, ReadError};
use tidelog_node::peering::revocation::{RevocationError, Revocations};

use crate::new_files::{NewFile, NewFileError, write_new};
use crate::words::{instant, shell_word};
use files::{NodeKey, absolute, read_text};

pub use command::{CaVerb, InitArguments, IssueArguments};

/// The authority's certificate in its folder; every node gets a copy.
const CA_CERTIFICATE_FILE: &str = "ca.pem";
/// What is revoked, in the authority's folder; every node gets a copy.
const CA_LIST_FILE: &str = "ca.crl";
/// Copies of all certificates that were issued, in the authority's folder, so that they can be revoked.
const ISSUED_FOLDER: &str = "issued";
/// The authority's key in its folder.
const CA_KEY_FILE: &str = "ca.key";

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A year of the calendar, on average.
const YEAR: Duration = Duration::from_secs(31_556_952);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error(transparent)]
    File(#[from] NewFileError),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("no authority in {0}: `tidelog ca init --dir {0}` makes one", dir.display())]
    NoAuthority { dir: PathBuf },
    #[error("the authority in {}: {source}", dir.display())]
    Authority { dir: PathBuf, source: AuthorityError },
    #[error("the authority in {} lasted until {until}: make another, and give its ca.pem to all nodes beside the old one", dir.display())]
    AuthorityEnded { dir: PathBuf, until: String },
    #[error("--days {days} is longer than the authority lasts, which is until {until}")]
    OutlivesAuthority { days: u32, until: String },
    #[error("cannot make a key: {0}")]
    MakeKey(rcgen::Error),
    #[error(transparent)]
    NodeKey(#[from] StartError),
    #[error("{}: not a public key: {source}", path.display())]
    PublicKey { path: PathBuf, source: rcgen::Error },
    #[error("{}: {source}", path.display())]
    Certificate { path: PathBuf, source: ReadError },
    #[error("{}: {source}", path.display())]
    List { path: PathBuf, source: RevocationError },
    #[error("no certificate was issued to {name} by the authority in {}; --cert FILE names one that is elsewhere", dir.display())]
    NeverIssued { name: String, dir: PathBuf },
    #[error("{} is a certificate of {found}, not of {name}", path.display())]
    OtherName { path: PathBuf, name: String, found: String },
    #[error("cannot write the settings: {0}")]
    Toml(#[from] toml::ser::Error),
    #[error("{0}")]
    Output(#[from] io::Error),
}

/// Does what was asked, at the instant `now`.
pub fn run(verb: CaVerb, now: SystemTime, out: &mut impl Write) -> Result<(), CaError> {
    match verb {
        CaVerb::Init(arguments) => init(&arguments, now, out),
        CaVerb::Issue(arguments) => issue(&arguments, now, out),
        CaVerb::Revoke(arguments) => revoke::revoke(&arguments, now, out),
        CaVerb::Show { file, json } => {
            let text = read_text(&file)?;
            let read = Certificate::all_of_pem(text.as_bytes())
                .map_err(|source| CaError::Certificate { path: file, source })?;
            if json {
                writeln!(out, "{:#}", show::as_json(&read, unix_s(now)))?;
            } else {
                write!(out, "{}", show::in_words(&read, unix_s(now)))?;
            }
            Ok(())
        }
    }
}

fn init(arguments: &InitArguments, now: SystemTime, out: &mut impl Write) -> Result<(), CaError> {
    let InitArguments { dir, name, years } = arguments;
    let wrong = |source| CaError::Authority { dir: dir.clone(), source };
    let made = Authority::create(name.as_str(), now + YEAR * *years).map_err(wrong)?;
    let (certificate, key) = (dir.join(CA_CERTIFICATE_FILE), dir.join(CA_KEY_FILE));
    let (list, key_text) = (dir.join(CA_LIST_FILE), made.key_pem());
    let nothing = made.sign(&Revocations { number: 1, revoked: Vec::new() }, now);
    let nothing = nothing.map_err(|source| CaError::Authority { dir: dir.clone(), source })?;
    // The certificate last: where it is, the key is.
    write_new(&[
        NewFile { path: key.clone(), text: &key_text, private: true },
        NewFile { path: list.clone(), text: &nothing, private: false },
        NewFile { path: certificate.clone(), text: made.certificate_pem(), private: false },
    ])?;
    let until = instant(made.certificate().valid_until_s);
    writeln!(out, "authority \"{}\", until {until}", made.certificate().name)?;
    writeln!(out, "  {}  every node gets a copy (peering.ca)", certificate.display())?;
    writeln!(
        out,
        "  {}  every node gets a copy (peering.crl), and each later one: what is revoked",
        list.display()
    )?;
    writeln!(out, "  {}  the secret: who has it can be any node. Keep it off the nodes", key.display())?;
    writeln!(out)?;
    let dir = shell_word(dir);
    writeln!(out, "A node's certificate: tidelog ca issue NAME --site SITE --dir {dir}")?;
    Ok(())
}

fn issue(arguments: &IssueArguments, now: SystemTime, out: &mut impl Write) -> Result<(), CaError> {
    let IssueArguments { name, granted, cloud, dir, out: folder, key, days } = arguments;
    let authority = open_authority(dir)?;
    let until = lasts_until(&authority, dir, *days, now)?;
    let key = NodeKey::of(key.as_deref())?;
    let grants = Grants { sites: granted.sites(), cloud: *cloud };
    let wrong = |source| CaError::Authority { dir: dir.clone(), source };
    let pem = key.issue(&authority, name.as_str(), &grants, until).map_err(wrong)?;

    let folder = folder.as_ref().unwrap_or(dir);
    let certificate_path = folder.join(format!("{name}.pem"));
    let made_key = key.made_pem().map(|pem| (folder.join(format!("{name}.key")), pem));
    let mut files = Vec::new();
    if let Some((path, text)) = &made_key {
        files.push(NewFile { path: path.clone(), text, private: true });
    }
    // What is told is what was written, not what was asked for.
    let read = Certificate::all_of_pem(pem.as_bytes())
        .map_err(|source| CaError::Certificate { path: certificate_path.clone(), source })?;
    let serial = read.first().map_or("", |certificate| certificate.serial.as_str());
    let copy = dir.join(ISSUED_FOLDER).join(format!("{name}-{serial}.pem"));
    files.push(NewFile { path: copy, text: &pem, private: false });
    files.push(NewFile { path: certificate_path.clone(), text: &pem, private: false });
    write_new(&files)?;

    writeln!(out, "{}", show::in_words(&read, unix_s(now)))?;
    writeln!(out, "  {}  its certificate", certificate_path.display())?;
    if let Some((path, _)) = &made_key {
        writeln!(out, "  {}  its key: who has it is this node. Leave no copy behind", path.display())?;
    }
    let key_path = made_key.as_ref().map(|(path, _)| path.as_path()).or(key.private_file());
    write_settings(&certificate_path, key_path, dir, out)
}

/// Says what the daemon has to be told, as flags and as its file.
fn write_settings(
    certificate: &Path,
    key: Option<&Path>,
    dir: &Path,
    out: &mut impl Write,
) -> Result<(), CaError> {
    let (ca, list) = (dir.join(CA_CERTIFICATE_FILE), dir.join(CA_LIST_FILE));
    // An authority from before there were lists has none until it revokes something.
    let list = list.exists().then_some(list.as_path());
    let files = [("cert", Some(certificate)), ("key", key), ("ca", Some(ca.as_path())), ("crl", list)];
    let files = files.into_iter().filter_map(|(name, path)| path.map(|path| (name, absolute(path))));
    let (mut flags, mut section) = (String::new(), toml::Table::new());
    for (name, path) in files {
        flags.push_str(&format!(" --peering-{name} {}", shell_word(&path)));
        section.insert(name.to_owned(), path.display().to_string().into());
    }
    writeln!(out, "\nThe daemon's flags:\n\n {flags}\n\nor its configuration file:\n")?;
    let mut settings = toml::Table::new();
    settings.insert("peering".to_owned(), section.into());
    for line in toml::to_string(&settings)?.lines() {
        writeln!(out, "  {line}")?;
    }
    writeln!(out)?;
    if key.is_none() {
        writeln!(out, "The node keeps its own key, where it is (DIR/node.key, or peering.key).")?;
    }
    writeln!(
        out,
        "On another machine, name the places that the files have there. A node that others dial also needs"
    )?;
    writeln!(
        out,
        "listen = \"0.0.0.0:8434\" (--peering-listen), and one that dials peers = [\"HOST:8434\"] (--peering-peers)."
    )?;
    Ok(())
}

fn open_authority(dir: &Path) -> Result<Authority, CaError> {
    let (certificate, key) = (dir.join(CA_CERTIFICATE_FILE), dir.join(CA_KEY_FILE));
    let read = |path: &Path| match read_text(path) {
        Err(CaError::Read { source, .. })
            if source.kind() == io::ErrorKind::NotFound && !certificate.exists() =>
        {
            Err(CaError::NoAuthority { dir: dir.to_owned() })
        }
        read => read,
    };
    Authority::from_pem(&read(&certificate)?, &read(&key)?)
        .map_err(|source| CaError::Authority { dir: dir.to_owned(), source })
}

/// The end of a certificate: what was asked for, and never after the authority's own.
fn lasts_until(
    authority: &Authority,
    dir: &Path,
    days: Option<u32>,
    now: SystemTime,
) -> Result<SystemTime, CaError> {
    let end_s = authority.certificate().valid_until_s;
    let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(end_s).unwrap_or(0));
    if end <= now {
        return Err(CaError::AuthorityEnded { dir: dir.to_owned(), until: instant(end_s) });
    }
    match days {
        None => Ok((now + LIFETIME_DEFAULT).min(end)),
        Some(days) if now + DAY * days > end => {
            Err(CaError::OutlivesAuthority { days, until: instant(end_s) })
        }
        Some(days) => Ok(now + DAY * days),
    }
}

/// Whole Unix seconds; a clock before 1970 is one that stands at 1970.
fn unix_s(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
