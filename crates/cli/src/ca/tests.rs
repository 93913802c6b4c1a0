//! The authority as an operator keeps it: files made once, never overwritten, and certificates that the nodes' own TLS accepts or
//! refuses. Nothing here is asked over a network but the handshake itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use clap::{Args, Command, FromArgMatches, Parser};
use rcgen::PublicKeyData;
use tidelog_node::peering::revocation::Revocations;
use tidelog_node::settings::Common;
use tidelog_node::{Identity, peering};

use super::{CaError, CaVerb, DAY, YEAR, run};
use crate::new_files::NewFileError;

#[derive(Parser)]
struct Words {
    #[command(subcommand)]
    verb: CaVerb,
}

/// `tidelog ca …` at an instant.
fn ca_at(now: SystemTime, words: &[&str]) -> Result<String, CaError> {
    let arguments = Words::try_parse_from([&["ca"], words].concat()).unwrap();
    let mut out = Vec::new();
    run(arguments.verb, now, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn ca(words: &[&str]) -> Result<String, CaError> {
    ca_at(SystemTime::now(), words)
}

/// A folder with an authority.
struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let this = Self { dir: tempfile::tempdir().unwrap() };
        ca(&["init", "--dir", this.path(), "--name", "Plant authority"]).unwrap();
        this
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn issue(&self, words: &[&str]) -> Result<String, CaError> {
        ca(&[&["issue", "--dir", self.path()], words].concat())
    }

    /// The first certificate of a file.
    fn shown(&self, name: &str) -> serde_json::Value {
        let shown = ca(&["show", "--json", &self.at(name)]).unwrap();
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["certificates"][0].take()
    }

    /// Every file with what is in it.
    fn files(&self) -> Vec<(String, String)> {
        let entries = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap());
        let entries = entries.filter(|entry| entry.file_type().unwrap().is_file());
        let mut files: Vec<_> = entries
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }
}

/// What a daemon makes of the flags that were printed.
fn settings(said: &str) -> Common {
    let flags = said.lines().find(|line| line.trim_start().starts_with("--peering-")).unwrap();
    let words = ["test"].into_iter().chain(flags.split_whitespace()).chain(["--peering-listen", "[::]:0"]);
    Common::from_arg_matches(&Common::augment_args(Command::new("test")).get_matches_from(words)).unwrap()
}

#[test]
fn what_is_printed_is_what_a_daemon_can_be_started_with() {
    let folder = Folder::new();
    let said = folder.issue(&["gateway-1", "--site", "plant-1", "--site", "house"]).unwrap();
    let common = settings(&said);
    peering::check(&common.peering).unwrap();
    let peering = &common.peering;
    let flags = [&peering.cert, &peering.key, &peering.ca, &peering.crl];
    let files =
        ["gateway-1.pem", "gateway-1.key", "ca.pem", "ca.crl"].map(|name| folder.dir.path().join(name));
    assert_eq!(flags.map(|flag| flag.clone().unwrap()), files);

    let toml: String = said
        .lines()
        .skip_while(|line| line.trim() != "[peering]")
        .take(5)
        .fold(String::new(), |text, line| text + line + "\n");
    let read: toml::Table = toml.parse().unwrap();
    for (key, file) in ["cert", "key", "ca", "crl"].into_iter().zip(&files) {
        assert_eq!(read["peering"][key].as_str(), file.to_str());
    }

    let identity = Identity::load(Path::new(""), common.peering.key.as_deref()).unwrap();
    let shown = folder.shown("gateway-1.pem");
    assert_eq!(shown["node"], identity.node.to_string());
    assert!(said.contains(&identity.node.to_string()), "{said}");
    assert_eq!(shown["sites"], serde_json::json!(["house", "plant-1"]));
    assert_eq!((&shown["name"], &shown["issuer"]), (&"gateway-1".into(), &"Plant authority".into()));
    assert_eq!(shown["valid_now"], true);
}

#[test]
fn keys_are_their_owners_secret_and_certificates_are_not() {
    let folder = Folder::new();
    folder.issue(&["cloud", "--all-sites"]).unwrap();
    for (name, mode) in [("ca.key", 0o600), ("cloud.key", 0o600), ("ca.pem", 0o644), ("cloud.pem", 0o644)] {
        let found = fs::metadata(folder.at(name)).unwrap().permissions().mode() & 0o777;
        // The process's mask may take rights from a certificate.
        assert_eq!(found & mode, found, "{name}: {found:o}");
        assert_eq!(found & 0o600, 0o600, "{name}: {found:o}");
    }
}

#[test]
fn nothing_that_exists_is_replaced() {
    let folder = Folder::new();
    folder.issue(&["cloud", "--all-sites"]).unwrap();
    let before = folder.files();
    let exists = |result: Result<String, CaError>, name: &str| {
        let error = result.unwrap_err();
        let expected = folder.dir.path().join(name);
        assert!(matches!(&error, CaError::File(NewFileError::Exists(path)) if *path == expected), "{error}");
    };
    exists(ca(&["init", "--dir", folder.path()]), "ca.key");
    exists(folder.issue(&["cloud", "--site", "plant-1"]), "cloud.key");
    exists(folder.issue(&["cloud", "--all-sites", "--key", &folder.at("cloud.key")]), "cloud.pem");
    assert_eq!(folder.files(), before);

    fs::remove_file(folder.at("ca.key")).unwrap();
    exists(ca(&["init", "--dir", folder.path()]), "ca.crl");
    fs::remove_file(folder.at("ca.crl")).unwrap();
    exists(ca(&["init", "--dir", folder.path()]), "ca.pem");
    assert!(!Path::new(&folder.at("ca.key")).exists(), "half an authority would be a second one");
}

#[test]
fn a_node_that_has_a_key_stays_the_same_node_and_only_its_public_half_is_needed() {
    let folder = Folder::new();
    let data = tempfile::tempdir().unwrap();
    let identity = Identity::load(data.path(), None).unwrap();
    let said = folder.issue(&["old", "--site", "plant-1", "--key", identity.path.to_str().unwrap()]).unwrap();
    assert_eq!(folder.shown("old.pem")["node"], identity.node.to_string());
    assert_eq!(settings(&said).peering.key, Some(identity.path.clone()));

    fs::write(folder.at("public.pem"), identity.key.public_key_pem()).unwrap();
    let said = folder.issue(&["away", "--all-sites", "--key", &folder.at("public.pem")]).unwrap();
    let shown = folder.shown("away.pem");
    assert_eq!(shown["node"], identity.node.to_string());
    assert_ne!(shown["serial"], folder.shown("old.pem")["serial"]);
    assert_eq!(settings(&said).peering.key, None);
    assert!(said.contains("keeps its own key"), "{said}");
    let keys = folder.files().into_iter().filter(|(name, _)| name.ends_with(".key")).count();
    assert_eq!(keys, 1, "the authority's, and no copy of the node's");
    assert_eq!(identity.key.subject_public_key_info().len(), 91, "a P-256 key, as nodes make them");

    fs::write(folder.at("broken"), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").unwrap();
    let broken = folder.issue(&["x", "--all-sites", "--key", &folder.at("broken")]).unwrap_err();
    assert!(matches!(broken, CaError::PublicKey { .. }), "{broken}");
    let none = folder.issue(&["x", "--all-sites", "--key", &folder.at("ca.pem")]).unwrap_err();
    assert!(matches!(none, CaError::NodeKey(_)) && none.to_string().contains("ca.pem"), "{none}");
}

#[test]
fn a_certificate_never_outlives_its_authority() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    ca_at(now, &["init", "--dir", path, "--years", "1"]).unwrap();
    let issue_at = |now, name: &str, days: &[&str]| {
        ca_at(now, &[&["issue", name, "--all-sites", "--dir", path], days].concat())
    };
    let until = |name: &str| {
        let said = ca(&["show", "--json", dir.path().join(name).to_str().unwrap()]).unwrap();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        said["certificates"][0]["valid_until"].as_str().unwrap().to_owned()
    };
    issue_at(now, "month", &["--days", "30"]).unwrap();
    assert_eq!(until("month.pem"), "2027-02-14T08:00:00Z");
    issue_at(now, "longest", &[]).unwrap();
    assert_eq!(until("longest.pem"), until("ca.pem"));
    let error = issue_at(now, "longer", &["--days", "366"]).unwrap_err();
    assert!(matches!(error, CaError::OutlivesAuthority { days: 366, .. }), "{error}");
    let error = issue_at(now + YEAR, "late", &[]).unwrap_err();
    assert!(matches!(error, CaError::AuthorityEnded { .. }), "{error}");
    assert!(!dir.path().join("late.key").exists());

    let shown = |now| ca_at(now, &["show", dir.path().join("month.pem").to_str().unwrap()]).unwrap();
    assert!(!shown(now + DAY * 30).contains("EXPIRED"));
    assert!(shown(now + DAY * 30 + Duration::from_secs(1)).contains("EXPIRED"));
    assert!(shown(SystemTime::UNIX_EPOCH).contains("NOT YET VALID"));
}

#[test]
fn an_authority_that_is_not_there_or_not_whole_is_said_to_be_so() {
    let folder = Folder::new();
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().to_str().unwrap();
    let error = ca(&["issue", "x", "--all-sites", "--dir", path]).unwrap_err();
    assert!(matches!(error, CaError::NoAuthority { .. }), "{error}");
    assert!(error.to_string().contains("tidelog ca init --dir"), "{error}");

    fs::copy(folder.at("ca.pem"), empty.path().join("ca.pem")).unwrap();
    let error = ca(&["issue", "x", "--all-sites", "--dir", path]).unwrap_err();
    assert!(matches!(&error, CaError::Read { path, .. } if path.ends_with("ca.key")), "{error}");

    let other = Folder::new();
    fs::copy(other.at("ca.key"), empty.path().join("ca.key")).unwrap();
    let error = ca(&["issue", "x", "--all-sites", "--dir", path]).unwrap_err();
    assert!(error.to_string().contains("do not belong together"), "{error}");
}

#[test]
fn certificates_are_shown_in_words_and_what_is_none_is_refused_by_name() {
    let folder = Folder::new();
    folder.issue(&["cloud", "--all-sites"]).unwrap();
    let shown = ca(&["show", &folder.at("cloud.pem")]).unwrap();
    for expected in [
        "node    ",
        "name    cloud\n",
        "sites   all\n",
        "valid   from 2000-01-01T00:00:00Z until 20",
        "issuer  Plant authority\n",
    ] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    assert_eq!(folder.shown("cloud.pem")["sites"], serde_json::json!(["*"]));
    assert_eq!(folder.shown("cloud.pem")["cloud"], false, "a role is granted by its own word only");
    folder.issue(&["core", "--all-sites", "--cloud"]).unwrap();
    assert!(ca(&["show", &folder.at("core.pem")]).unwrap().contains("role    cloud\n"));
    assert_eq!(folder.shown("core.pem")["cloud"], true);
    let shown = ca(&["show", &folder.at("ca.pem")]).unwrap();
    assert!(shown.starts_with("authority  Plant authority\n"), "{shown}");
    assert_eq!(folder.shown("ca.pem")["kind"], "authority");

    let error = ca(&["show", &folder.at("cloud.key")]).unwrap_err().to_string();
    assert!(error.ends_with("cloud.key: no certificate in it"), "{error}");
    let error = ca(&["show", &folder.at("missing")]).unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("missing"), "{error}");
}

#[test]
fn all_certificates_of_a_name_are_revoked_and_the_list_only_grows() {
    let folder = Folder::new();
    let revoke = |words: &[&str]| ca(&[&["revoke", "--dir", folder.path()], words].concat());
    let listed = || {
        let read = |name: &str| fs::read(folder.at(name)).unwrap();
        Revocations::of_pem(&read("ca.crl"), &read("ca.pem")).unwrap()
    };
    assert_eq!(listed(), Revocations { number: 1, revoked: vec![] });
    folder.issue(&["east", "--site", "plant"]).unwrap();
    folder
        .issue(&["east", "--site", "plant", "--key", &folder.at("east.key"), "--out", &folder.at("new")])
        .unwrap();
    folder.issue(&["east-2", "--site", "plant"]).unwrap();
    folder.issue(&["west", "--site", "plant"]).unwrap();

    let said = revoke(&["east"]).unwrap();
    assert_eq!(said.matches("revoked: east, node").count(), 2, "{said}");
    assert_eq!((listed().number, listed().revoked.len()), (2, 2));
    let shown = folder.shown("new/east.pem")["serial"].as_str().unwrap().to_owned();
    let serials: Vec<String> = listed()
        .revoked
        .iter()
        .map(|revoked| revoked.serial.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    assert!(serials.contains(&shown), "{serials:?} {shown}");
    let before = fs::read(folder.at("ca.crl")).unwrap();
    assert!(revoke(&["east"]).unwrap().contains("revoked before"));
    assert_eq!(fs::read(folder.at("ca.crl")).unwrap(), before);

    // One that was issued before copies were kept, and whose file is elsewhere.
    fs::rename(folder.at("west.pem"), folder.at("away.pem")).unwrap();
    fs::remove_dir_all(folder.at("issued")).unwrap();
    let error = revoke(&["west"]).unwrap_err();
    assert!(matches!(error, CaError::NeverIssued { .. }), "{error}");
    let error = revoke(&["east-2", "--cert", &folder.at("away.pem")]).unwrap_err();
    assert!(matches!(error, CaError::OtherName { .. }), "{error}");
    revoke(&["west", "--cert", &folder.at("away.pem")]).unwrap();
    assert_eq!((listed().number, listed().revoked.len()), (3, 3));

    let other = Folder::new();
    fs::copy(other.at("ca.crl"), folder.at("ca.crl")).unwrap();
    let error = revoke(&["east-2"]).unwrap_err();
    assert!(matches!(error, CaError::List { .. }), "a list of another is not built upon: {error}");
}

#[test]
fn a_node_without_a_word_about_its_sites_is_refused() {
    let parse = |words: &[&str]| Words::try_parse_from([&["ca", "issue", "x"], words].concat()).map(drop);
    assert!(parse(&["--site", "plant-1"]).is_ok() && parse(&["--all-sites"]).is_ok());
    for bad in [
        &[][..],
        &["--site", "plant-1", "--all-sites"],
        &["--site", "Plant 1"],
        &["--all-sites", "--days", "0"],
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}
