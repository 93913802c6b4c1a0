//! `tidelog ca revoke`: puts certificates on the authority's list. The list is the one file of an authority that is replaced, as a whole, and
//! only by one that holds all that the one before held.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tidelog_node::peering::authority::Authority;
use tidelog_node::peering::certificate::Certificate;
use tidelog_node::peering::revocation::{Revocations, Revoked};

use super::command::RevokeArguments;
use super::files::{read_text, replace_text};
use super::{CA_LIST_FILE, CaError, ISSUED_FOLDER, open_authority, unix_s};

/// Puts all certificates of a name on the list.
pub fn revoke(arguments: &RevokeArguments, now: SystemTime, out: &mut impl Write) -> Result<(), CaError> {
    let RevokeArguments { name, dir, cert } = arguments;
    let authority = open_authority(dir)?;
    let found = issued_to(name.as_str(), dir, cert, &authority)?;
    let path = dir.join(CA_LIST_FILE);
    let mut list = list_of(&path, &authority)?;
    let mut news = 0;
    for certificate in &found {
        let serial = bytes_of(&certificate.serial);
        if list.revoked.iter().any(|revoked| revoked.serial == serial) {
            continue;
        }
        news += 1;
        list.revoked.push(Revoked { serial, since_s: unix_s(now) });
        writeln!(out, "revoked: {name}, node {}, serial {}", certificate.key_id, certificate.serial)?;
    }
    if news == 0 {
        writeln!(out, "all {} certificates of {name} were revoked before", found.len())?;
        return Ok(());
    }
    list.number += 1;
    let pem = authority.sign(&list, now).map_err(|source| CaError::Authority { dir: dir.clone(), source })?;
    replace_text(&path, &pem)?;
    writeln!(out, "\n  {}  list {}, of {} certificates", path.display(), list.number, list.revoked.len())?;
    writeln!(
        out,
        "\nBring it to every node, to where its peering.crl is: a node that runs reads it within seconds, ends"
    )?;
    writeln!(out, "the sessions of who is on it, and refuses them from then on.")?;
    Ok(())
}

/// The certificates of a name, each once.
fn issued_to(
    name: &str,
    dir: &Path,
    elsewhere: &[PathBuf],
    authority: &Authority,
) -> Result<Vec<Certificate>, CaError> {
    let mut found: Vec<Certificate> = Vec::new();
    let issued = dir.join(ISSUED_FOLDER);
    let copies = match fs::read_dir(&issued) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let mut paths = copies.map_err(|source| CaError::Read { path: issued, source })?;
    let beside = dir.join(format!("{name}.pem"));
    paths.extend(beside.exists().then_some(beside));
    paths.sort();
    for (path, was_named) in
        paths.iter().map(|path| (path, false)).chain(elsewhere.iter().map(|path| (path, true)))
    {
        let text = read_text(path)?;
        let wrong = |source| CaError::Certificate { path: path.clone(), source };
        let Some(certificate) = Certificate::all_of_pem(text.as_bytes()).map_err(wrong)?.into_iter().next()
        else {
            continue;
        };
        let ours = certificate.issuer == authority.certificate().name;
        if certificate.name != name || !ours {
            if was_named {
                let (path, name) = (path.clone(), name.to_owned());
                return Err(CaError::OtherName { path, name, found: certificate.name });
            }
        } else if !found.iter().any(|other| other.serial == certificate.serial) {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(CaError::NeverIssued { name: name.to_owned(), dir: dir.to_owned() });
    }
    Ok(found)
}

/// The list as it is; an authority from before there were lists has none.
fn list_of(path: &Path, authority: &Authority) -> Result<Revocations, CaError> {
    match read_text(path) {
        Ok(text) => Revocations::of_pem(text.as_bytes(), authority.certificate_pem().as_bytes())
            .map_err(|source| CaError::List { path: path.to_owned(), source }),
        Err(CaError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Revocations::default())
        }
        Err(error) => Err(error),
    }
}

/// The bytes of a serial number that is shown in hexadecimal.
fn bytes_of(serial: &str) -> Vec<u8> {
    serial
        .as_bytes()
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
