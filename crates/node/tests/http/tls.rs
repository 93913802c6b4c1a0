//! TLS on the HTTP API: who may listen without it, and a certificate that changes while the node runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tidelog_node::Node;
use tidelog_node::door::Scope;

use crate::common::door::{bearer, make_token};
use crate::common::{Running, settings};
use crate::until;

/// Certificate and key in a folder.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(dir: &Path) -> Self {
        Self { certificate: dir.join("http.pem"), key: dir.join("http.key") }
    }

    /// Puts a new pair in their place, and gives the certificate.
    fn renew(&self) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        for (path, text) in [(&self.key, signing_key.serialize_pem()), (&self.certificate, cert.pem())] {
            let beside = path.with_extension("beside");
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(&beside, path).unwrap();
        }
        cert.der().clone()
    }

    fn flags(&self) -> [String; 4] {
        let text = |path: &Path| path.display().to_string();
        let [certificate, key] = ["--http-tls-certificate", "--http-tls-key"].map(str::to_owned);
        [certificate, text(&self.certificate), key, text(&self.key)]
    }
}

fn start(dir: &Path, flags: &[String], more: &[&str]) -> Running {
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Running::start(dir, &flags)
}

fn address(running: &Running) -> &str {
    running.url.strip_prefix("http://").unwrap()
}

/// A connection of a client that believes this certificate and no other.
fn connect(
    address: &str,
    believed: &CertificateDer<'_>,
) -> Result<StreamOwned<ClientConnection, TcpStream>, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(believed.clone().into_owned()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    Ok(StreamOwned::new(session, TcpStream::connect(address)?))
}

/// The answer to a GET by a client that believes this certificate and no other.
fn get(
    address: &str,
    believed: &CertificateDer<'_>,
    path: &str,
    head: &str,
) -> Result<String, std::io::Error> {
    let mut stream = connect(address, believed)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn with_a_certificate_the_node_speaks_tls_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::of(dir.path());
    let certificate = files.renew();
    let running = start(dir.path(), &files.flags(), &[]);
    let token = make_token(dir.path(), &[Scope::Read], &[]);
    let answer = get(address(&running), &certificate, "/api/v1/sites", &bearer(&token)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert;
    assert!(
        get(address(&running), other.der(), "/healthz", "A: b").is_err(),
        "another certificate is not its own"
    );

    let mut plain = TcpStream::connect(address(&running)).unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut said = Vec::new();
    // What remains unread at the node's end may reset the connection.
    drop(plain.read_to_end(&mut said));
    assert!(!said.starts_with(b"HTTP/"), "{said:?}");
    running.stop();
}

#[test]
fn a_certificate_is_renewed_without_a_restart_and_a_broken_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::of(dir.path());
    let first = files.renew();
    let running = start(dir.path(), &files.flags(), &[]);
    let status = |believed| get(address(&running), believed, "/api/v1/status", "A: b");
    assert!(status(&first).unwrap().contains("\"files_not_in_force\":null"));
    let second = files.renew();
    until(|| status(&second).ok());
    assert!(status(&first).is_err());
    std::fs::write(&files.key, "no key").unwrap();
    until(|| status(&second).ok().filter(|told| told.contains("http_tls_key")));
    let third = files.renew();
    until(|| status(&third).ok().filter(|told| told.contains("\"files_not_in_force\":null")));
    running.stop();
}

#[test]
fn a_client_that_never_begins_tls_is_cut_off_and_leaves_its_place_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::of(dir.path());
    let certificate = files.renew();
    let running =
        start(dir.path(), &files.flags(), &["--http-connections-max", "1", "--http-stall-s-max", "1"]);
    let mut silent = TcpStream::connect(address(&running)).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let answer = get(address(&running), &certificate, "/metrics", "A: b").unwrap();
    let line = "tidelog_http_connections_dropped_total{reason=\"tls_timeout\"} 1";
    assert!(answer.contains(line), "{answer}");
    assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0);
    running.stop();
}

#[test]
fn other_machines_are_answered_with_tokens_and_tls_or_when_the_settings_say_insecure() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::of(dir.path());
    files.renew();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let flags = files.flags();
    let tls: Vec<&str> = flags.iter().map(String::as_str).collect();
    let outcome = |flags: &[&str]| {
        let flags = [&["--http", "0.0.0.0:0"], flags].concat();
        let node = runtime.block_on(Node::start(&settings(dir.path(), &flags), "test"));
        node.map(|node| runtime.block_on(node.stop())).map_err(|error| error.to_string())
    };
    assert!(outcome(&[]).unwrap_err().contains("neither tokens nor TLS"));
    assert!(outcome(&tls).unwrap_err().contains("no tokens"));
    outcome(&["--insecure"]).unwrap();
    outcome(&["--http-insecure=true"]).unwrap();
    make_token(dir.path(), &[Scope::Read], &[]);
    assert!(outcome(&[]).unwrap_err().contains("no TLS"));
    outcome(&tls).unwrap();
    let broken = outcome(&["--http-tls-certificate", "nowhere.pem"]).unwrap_err();
    assert!(broken.contains("http_tls_key"), "{broken}");
}

#[test]
fn a_socket_stands_within_tls_too() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::of(dir.path());
    let certificate = files.renew();
    let running = start(dir.path(), &files.flags(), &[]);
    let stream = connect(address(&running), &certificate).unwrap();
    let target = format!("wss://{}/api/v1/sites/lab/socket?form=line", address(&running));
    let (mut socket, _) = tokio_tungstenite::tungstenite::client(target, stream).unwrap();
    socket.send("7\nt value=1 1".into()).unwrap();
    assert_eq!(socket.read().unwrap().to_text().unwrap(), r#"{"batch":7,"points":1}"#);
    running.stop();
    assert!(socket.read().unwrap().is_close());
}
