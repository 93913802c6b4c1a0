//! How sessions begin, take each other's place, and end when nothing says that they have: real sockets.

use std::time::Duration;

use tidelog_replication::{KEEPALIVE_INTERVAL_MS, Message, PROTOCOL_VERSION, SILENCE_TIMEOUT_MS, Sites};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::raw::Raw;
use crate::{authority, equal, prepare, start, until};

/// A silent cut is to be found within this time.
const SILENT_CUT_FOUND_MS_MAX: u64 = 30_000;

async fn closing_words(peer: &mut Raw) -> String {
    loop {
        match peer.next().await {
            Some(Message::Close(words)) => return words,
            Some(_) => {}
            None => return String::new(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbouring_versions_speak_the_one_they_share_and_others_are_told_why_not() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    for dir in &dirs {
        prepare(dir.path(), &authority, &authority, &Sites::All);
    }
    let node = start(dirs[0].path(), true, &[]).await;
    let newest = PROTOCOL_VERSION;
    for (sessions, (min, max)) in
        [(newest, newest), (newest - 1, newest), (newest, newest + 1)].into_iter().enumerate()
    {
        let mut peer = Raw::connect(dirs[1].path(), node.address.unwrap()).await;
        peer.hello(min, max).await;
        let Some(Message::Hello(hello)) = peer.next().await else { panic!("no hello") };
        assert_eq!(hello.version_max, newest);
        let counted = || node.counted("tidelog_peer_sessions_total{direction=\"accepted\"}");
        until("a session", || counted() == sessions as u64 + 1).await;
    }
    let mut peer = Raw::connect(dirs[1].path(), node.address.unwrap()).await;
    peer.hello(newest + 1, newest + 2).await;
    let words = closing_words(&mut peer).await;
    assert_eq!(words, format!("no common version: the peer speaks {} to {}", newest + 1, newest + 2));
    until("it to be counted", || node.counted("tidelog_peer_refused_total{reason=\"version\"}") == 1).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_session_takes_the_place_of_the_one_before() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    for dir in &dirs {
        prepare(dir.path(), &authority, &authority, &Sites::All);
    }
    let node = start(dirs[0].path(), true, &[]).await;
    node.append("plant", 0, 3).await;
    let mut older = Raw::connect(dirs[1].path(), node.address.unwrap()).await;
    older.hello(PROTOCOL_VERSION, PROTOCOL_VERSION).await;
    let told = |message: &Message| matches!(message, Message::Hold(held) if held.len() == 1);
    while !older.next().await.is_some_and(|message| told(&message)) {}
    // Its socket lives on, as that of a peer whose address changed does.
    let mut newer = Raw::connect(dirs[1].path(), node.address.unwrap()).await;
    newer.hello(PROTOCOL_VERSION, PROTOCOL_VERSION).await;
    while !newer.next().await.is_some_and(|message| told(&message)) {}
    assert_eq!(closing_words(&mut older).await, "replaced by another session of the same node");
    let replaced = "tidelog_peer_sessions_ended_total{reason=\"replaced\"}";
    until("the end to be counted", || node.counted(replaced) == 1).await;
    until("one row, of the newer", || {
        let peers = node.peers();
        peers.as_array().unwrap().len() == 1 && peers[0]["state"] == "connected"
    })
    .await;
    node.stop().await;
}

/// A way that swallows everything without a sign while it is told to, for connections that stand and those that come.
async fn swallowing_way(to: std::net::SocketAddr) -> (std::net::SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (swallow, swallowing) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut swallowing = swallowing.clone();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(to).await else { return };
                let swallowed = tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => false,
                    swallowed = swallowing.wait_for(|swallows| *swallows) => swallowed.is_ok(),
                };
                if swallowed {
                    // Both sockets stay open, and nobody reads them.
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (address, swallow)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_without_an_end_is_found_on_both_sides_and_made_anew() {
    const { assert!(SILENCE_TIMEOUT_MS + KEEPALIVE_INTERVAL_MS <= SILENT_CUT_FOUND_MS_MAX) };
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    for dir in &dirs {
        prepare(dir.path(), &authority, &authority, &Sites::All);
    }
    let cloud = start(dirs[0].path(), true, &[]).await;
    let (through, swallow) = swallowing_way(cloud.address.unwrap()).await;
    let east = start(dirs[1].path(), false, &[through]).await;
    east.append("plant", 0, 10).await;
    equal(&[&cloud, &east], 10).await;
    let lost = || [&cloud, &east].map(|node| node.context.ways.are_lost());
    assert_eq!(lost(), [false, false]);

    swallow.send_replace(true);
    east.append("plant", 10, 10).await;
    let silent = "tidelog_peer_sessions_ended_total{reason=\"silent\"}";
    let found = || cloud.counted(silent) == 1 && east.counted(silent) == 1;
    // Neither side hears of the end from the other: each finds it by itself.
    let deadline = Duration::from_millis(2 * SILENT_CUT_FOUND_MS_MAX);
    tokio::time::timeout(deadline, async {
        while !found() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the silent cut is found");
    until("the row to say so", || {
        let row = cloud.peers()[0].clone();
        row["state"] == "gone" && row["last_error"] == "nothing heard for too long"
    })
    .await;
    until("no way to anyone on either side", || lost() == [true, true]).await;
    swallow.send_replace(false);
    equal(&[&cloud, &east], 20).await;
    assert_eq!(lost(), [false, false]);
    for node in [east, cloud] {
        node.stop().await;
    }
}
