use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::broker::Mosquitto;
use super::node::{TestNode, eventually};

over_both_versions! {
    a_broker_behind_tls_is_believed_by_the_given_authority_only,
    a_broker_that_asks_for_a_certificate_gets_the_nodes_own,
}

/// An authority and certificates by it, for 127.0.0.1 and for a client, as files.
fn make_certificates(dir: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.join("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    let own = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
    std::fs::write(dir.join("broker.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("broker.key"), own.serialize_pem()).unwrap();
    let own = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["node".to_owned()]).unwrap();
    // OpenSSL takes a certificate with its authority's name for one that signs itself.
    params.distinguished_name.push(DnType::CommonName, "node");
    let certificate = params.signed_by(&own, &issuer).unwrap();
    std::fs::write(dir.join("node.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("node.key"), own.serialize_pem()).unwrap();
}

async fn a_broker_behind_tls_is_believed_by_the_given_authority_only(version: &str) {
    let authorities = tempfile::tempdir().unwrap();
    make_certificates(authorities.path());
    let other = tempfile::tempdir().unwrap();
    make_certificates(other.path());
    let lines = "allow_anonymous true\ncertfile broker.pem\nkeyfile broker.key\n";
    let Some(broker) = Mosquitto::start_with(lines, |dir| {
        for file in ["broker.pem", "broker.key"] {
            std::fs::copy(authorities.path().join(file), dir.join(file)).unwrap();
        }
    }) else {
        return;
    };
    let url = format!("mqtts://127.0.0.1:{}", broker.port);
    let wrong = other.path().join("ca.pem").display().to_string();
    let node = TestNode::start(1, &["--mqtt-version", version, "--mqtt-url", &url, "--mqtt-ca", &wrong]);
    node.append(0..10).await;
    eventually("the certificate is refused", || {
        let status = node.status("mqtt");
        status["last_error"].as_str().is_some_and(|error| error.contains("certificate"))
    })
    .await;
    let dir = node.stop().await;
    let right = authorities.path().join("ca.pem").display().to_string();
    let node =
        TestNode::start_in(dir, 1, &["--mqtt-version", version, "--mqtt-url", &url, "--mqtt-ca", &right]);
    node.wait_until_published().await;
    drop(node.stop().await);
}

#[tokio::test]
async fn an_authority_file_that_cannot_be_used_stops_the_start_and_names_the_key() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let flags = ["--mqtt-url", "mqtts://broker", "--mqtt-ca", "/nonexistent/ca.pem"];
    let error = TestNode::try_start_in(dir, 1, &flags).err().unwrap().to_string();
    assert!(error.starts_with("mqtt.ca: /nonexistent/ca.pem"), "{error}");
}

async fn a_broker_that_asks_for_a_certificate_gets_the_nodes_own(version: &str) {
    let authorities = tempfile::tempdir().unwrap();
    make_certificates(authorities.path());
    let lines = "allow_anonymous true\ncertfile broker.pem\nkeyfile broker.key\ncafile ca.pem\nrequire_certificate true\n";
    let Some(broker) = Mosquitto::start_with(lines, |dir| {
        for file in ["broker.pem", "broker.key", "ca.pem"] {
            std::fs::copy(authorities.path().join(file), dir.join(file)).unwrap();
        }
    }) else {
        return;
    };
    let file = |name: &str| authorities.path().join(name).display().to_string();
    let (url, ca) = (format!("mqtts://127.0.0.1:{}", broker.port), file("ca.pem"));
    let node = TestNode::start(1, &["--mqtt-version", version, "--mqtt-url", &url, "--mqtt-ca", &ca]);
    node.append(0..10).await;
    eventually("who has none is refused", || !node.status("mqtt")["last_error"].is_null()).await;
    let dir = node.stop().await;
    let flags = [
        "--mqtt-version",
        version,
        "--mqtt-url",
        &url,
        "--mqtt-ca",
        &ca,
        "--mqtt-cert",
        &file("node.pem"),
        "--mqtt-key",
        &file("node.key"),
    ];
    let node = TestNode::start_in(dir, 1, &flags);
    node.wait_until_published().await;
    drop(node.stop().await);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_stops_the_start_and_names_the_key() {
    let files = tempfile::tempdir().unwrap();
    make_certificates(files.path());
    let file = |name: &str| files.path().join(name).display().to_string();
    let cases = [
        ("mqtts://broker", file("absent.pem"), file("node.key"), "absent.pem"),
        ("mqtts://broker", file("node.pem"), file("ca.pem"), "ca.pem"),
        ("mqtts://broker", file("node.pem"), file("broker.key"), "node.pem"),
        ("mqtt://broker", file("node.pem"), file("node.key"), "mqtts://"),
    ];
    for (url, cert, key, reason) in cases {
        let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
        let flags =
            ["--mqtt-url", url, "--mqtt-ca", &file("ca.pem"), "--mqtt-cert", &cert, "--mqtt-key", &key];
        let error = TestNode::try_start_in(dir, 1, &flags).err().unwrap().to_string();
        assert!(error.starts_with("mqtt.cert: ") && error.contains(reason), "{error}");
    }
}
