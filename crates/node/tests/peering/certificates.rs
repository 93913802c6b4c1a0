//! Certificates that are revoked, expired and renewed while nodes run.

use std::path::Path;
use std::time::{Duration, SystemTime};

use tidelog_node::Identity;
use tidelog_node::peering::authority::{Authority, Grants, LIFETIME_DEFAULT};
use tidelog_node::peering::certificate::Certificate;
use tidelog_node::peering::revocation::{Revocations, Revoked};
use tidelog_replication::Sites;

use crate::{authority, equal, prepare, prepare_until, records, site, start, until};

/// Puts a file in the place of another at once, as who rotates certificates should.
fn put(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join("new"), text).unwrap();
    std::fs::rename(dir.join("new"), dir.join(name)).unwrap();
}

fn serial(dir: &Path) -> Vec<u8> {
    let read = Certificate::all_of_pem(&std::fs::read(dir.join("node.crt")).unwrap()).unwrap();
    let hex = |at: usize| u8::from_str_radix(&read[0].serial[at..at + 2], 16).unwrap();
    (0..read[0].serial.len()).step_by(2).map(hex).collect()
}

fn list(authority: &Authority, number: u64, serials: &[Vec<u8>]) -> String {
    let revoked =
        serials.iter().map(|serial| Revoked { serial: serial.clone(), since_s: 1_800_000_000 }).collect();
    authority.sign(&Revocations { number, revoked }, SystemTime::now()).unwrap()
}

fn issue(dir: &Path, authority: &Authority, grants: impl Into<Grants>) {
    let identity = Identity::load(dir, None).unwrap();
    let until = SystemTime::now() + LIFETIME_DEFAULT;
    put(dir, "node.crt", &authority.issue("node", grants, &identity.key, until).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_peer_is_shown_out_and_refused_until_it_has_another_certificate_and_nobody_else_notices() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    for dir in &dirs {
        prepare(dir.path(), &authority, &authority, &Sites::All);
        put(dir.path(), "ca.crl", &list(&authority, 1, &[]));
    }
    let [cloud_dir, east_dir, west_dir] = [0, 1, 2].map(|i: usize| dirs[i].path());
    let cloud = start(cloud_dir, true, &[]).await;
    let to = [cloud.address.unwrap()];
    let (east, west) = (start(east_dir, false, &to).await, start(west_dir, false, &to).await);
    east.append("plant", 0, 10).await;
    equal(&[&cloud, &east, &west], 10).await;

    put(cloud_dir, "ca.crl", &list(&authority, 2, &[serial(east_dir)]));
    let refused = "tidelog_peer_refused_total{reason=\"certificate_revoked\"}";
    until("the session to be ended, and the next one refused", || cloud.counted(refused) >= 2).await;
    let ended = "tidelog_peer_sessions_ended_total{reason=\"certificate\"}";
    until("the end to be counted", || cloud.counted(ended) == 1).await;
    let error = || east.peers()[0]["last_error"].as_str().unwrap_or_default().to_owned();
    until("the reason at the one who is refused", || {
        error().contains("this node's certificate: it is revoked")
    })
    .await;
    east.append("plant", 10, 10).await;
    west.append("plant", 0, 5).await;
    equal(&[&cloud, &west], 15).await;
    assert_eq!(
        west.counted("tidelog_peer_sessions_total{direction=\"dialled\"}"),
        1,
        "its session never ended"
    );

    // Another certificate, put in place while it runs.
    issue(east_dir, &authority, &Sites::All);
    equal(&[&cloud, &east, &west], 25).await;

    // The list counts for those who are dialled, too: the cloud is revoked, and both turn away.
    let revoked = list(&authority, 3, &[serial(cloud_dir)]);
    put(west_dir, "ca.crl", &revoked);
    let words = || west.peers()[0]["last_error"].as_str().unwrap_or_default().to_owned();
    until("the dialler to refuse", || words() == "handshake: the peer's certificate is revoked").await;
    for node in [east, west, cloud] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_certificate_expired_is_told_so_and_recovers_with_a_new_file() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    prepare(dirs[0].path(), &authority, &authority, &Sites::All);
    let a_month_ago = SystemTime::now() - Duration::from_secs(31 * 24 * 3600);
    prepare_until(dirs[1].path(), &authority, &authority, &Sites::All, a_month_ago);
    let cloud = start(dirs[0].path(), true, &[]).await;
    let east = start(dirs[1].path(), false, &[cloud.address.unwrap()]).await;
    east.append("plant", 0, 10).await;
    let error = || east.peers()[0]["last_error"].as_str().unwrap_or_default().to_owned();
    until("the reason", || error().contains("refused this node's certificate: it is expired")).await;
    let expired = "tidelog_peer_refused_total{reason=\"certificate_expired\"}";
    until("it to be counted", || cloud.counted(expired) > 0).await;
    assert_eq!(records(&cloud), 0);
    issue(dirs[1].path(), &authority, &Sites::All);
    equal(&[&cloud, &east], 10).await;

    // The other way round: the one who is dialled has expired.
    let identity = Identity::load(dirs[0].path(), None).unwrap();
    put(
        dirs[0].path(),
        "node.crt",
        &authority.issue("node", &Sites::All, &identity.key, a_month_ago).unwrap(),
    );
    until("the cloud to have read it", || {
        cloud.context.status.read()["certificate"]["valid_until_s"].as_u64().unwrap() < 1_900_000_000
    })
    .await;
    let dir = east.stop().await;
    let east = start(&dir, false, &[cloud.address.unwrap()]).await;
    let error = || east.peers()[0]["last_error"].as_str().unwrap_or_default().to_owned();
    until("the reason", || error().contains("the peer's certificate expired 31 days ago")).await;
    issue(dirs[0].path(), &authority, &Sites::All);
    east.append("plant", 10, 10).await;
    equal(&[&cloud, &east], 20).await;
    for node in [east, cloud] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_is_granted_anew_it_has_without_a_restart_and_files_that_are_none_change_nothing() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (authority, stranger) = (authority(), authority());
    let only = |names: &[&str]| Sites::Only(names.iter().map(|name| site(name)).collect());
    prepare(dirs[0].path(), &authority, &authority, &Sites::All);
    prepare(dirs[1].path(), &authority, &authority, &only(&["plant"]));
    put(dirs[0].path(), "ca.crl", &list(&authority, 1, &[]));
    let cloud = start(dirs[0].path(), true, &[]).await;
    let east = start(dirs[1].path(), false, &[cloud.address.unwrap()]).await;
    cloud.append("house", 0, 10).await;
    east.append("plant", 0, 10).await;
    until("what is granted", || records(&cloud) == 20).await;
    assert_eq!(records(&east), 10);

    // None of these is a list or a certificate that could be in force here.
    let fault =
        |node: &crate::Running| node.context.status.read()["certificate"]["files_not_in_force"].clone();
    for text in [list(&stranger, 9, &[serial(dirs[1].path())]), "garbage".to_owned(), String::new()] {
        put(dirs[0].path(), "ca.crl", &text);
        until("the fault in the status", || {
            fault(&cloud).as_str().is_some_and(|text| text.contains("peering.crl"))
        })
        .await;
        put(dirs[0].path(), "ca.crl", &list(&authority, 2, &[]));
        until("the fault to be gone", || fault(&cloud).is_null()).await;
    }
    issue(dirs[0].path(), &stranger, &Sites::All);
    std::fs::copy(dirs[1].path().join("node.crt"), dirs[0].path().join("node.crt")).unwrap();
    until("the certificate of another to be refused", || fault(&cloud).is_string()).await;
    assert_eq!(east.counted("tidelog_peer_sessions_total"), 1, "the session never ended");

    issue(dirs[1].path(), &authority, &only(&["plant", "house"]));
    equal(&[&cloud, &east], 20).await;
    for node in [east, cloud] {
        node.stop().await;
    }
}
