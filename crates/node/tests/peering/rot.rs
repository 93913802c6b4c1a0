//! A segment that rots while its node is at work: the peers send again what stood in it, without a restart, and what the node writes
//! meanwhile reaches them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tidelog_record::Lsn;
use tidelog_replication::Sites;
use tidelog_store::StoreOptions;

use crate::{Running, authority, prepare, records, segments, start_with, until};

async fn start(dir: &Path, listen: bool, peers: &[SocketAddr]) -> Running {
    start_with(dir, listen, peers, |node| {
        let mut options = StoreOptions { log_file_bytes_max: 4096, ..StoreOptions::new(node) };
        options.upkeep.seal_points = 500;
        options.upkeep.seal_when_idle = Duration::from_millis(200);
        options
    })
    .await
}

/// Changes a byte of the first segment and lets the scrub find it.
async fn rot(node: &Running) {
    let name = segments(node).into_keys().next().unwrap();
    let path = node.dir.join("segments").join(&name);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let store = node.context.store.clone();
    tokio::task::spawn_blocking(move || store.scrub()).await.unwrap();
    until("the segment is set apart", || node.context.store.stats().segments_rotten == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rots_at_work_is_fetched_again_without_a_restart_whoever_wrote_it() {
    for writer_rots in [false, true] {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let authority = authority();
        for dir in &dirs {
            prepare(dir.path(), &authority, &authority, &Sites::All);
        }
        let writer = start(dirs[0].path(), true, &[]).await;
        let follower = start(dirs[1].path(), false, &[writer.address.unwrap()]).await;
        writer.append("plant", 0, 3_000).await;
        let alike = |a: &Running, b: &Running| a.context.store.vector() == b.context.store.vector();
        until("both hold and have packed the same", || {
            let packed = segments(&writer);
            let trimmed = |node: &Running| node.context.store.stats().files_trimmed > 3;
            let is_packed = trimmed(&writer) && trimmed(&follower) && packed.len() > 3;
            is_packed && packed == segments(&follower) && alike(&writer, &follower)
        })
        .await;
        let before = segments(&writer);

        rot(if writer_rots { &writer } else { &follower }).await;
        writer.append("plant", 3_000, 10).await;
        until("nothing is lacking anywhere", || alike(&writer, &follower) && records(&writer) > 3_010).await;
        until("the segment is made again", || {
            let [writer, follower] = [&writer, &follower].map(segments);
            before.iter().all(|(name, bytes)| writer.get(name) == Some(bytes) || writer.len() < before.len())
                && writer == follower
        })
        .await;
        for node in [writer, follower] {
            node.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_behind_rot_that_nobody_can_mend_goes_on_to_the_peers_under_another_run() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    for dir in &dirs {
        prepare(dir.path(), &authority, &authority, &Sites::All);
    }
    let writer = start(dirs[0].path(), true, &[]).await;
    writer.append("plant", 0, 3_000).await;
    until("it is packed", || writer.context.store.stats().files_trimmed > 3 && segments(&writer).len() > 3)
        .await;
    let run = writer.context.store.run();
    rot(&writer).await;
    until("another run", || writer.context.store.run() != run).await;
    writer.append("plant", 3_000, 10).await;
    let follower = start(dirs[1].path(), false, &[writer.address.unwrap()]).await;
    let held = |node: &Running, of| {
        let vector = node.context.store.vector();
        vector.into_iter().find(|(stream, ..)| stream.run == of).map(|(_, lsn, _)| lsn)
    };
    let now = writer.context.store.run();
    until("the peer has what came after", || held(&follower, now) >= Some(Lsn(10))).await;
    assert_eq!(
        held(&follower, run).unwrap_or_default(),
        held(&writer, run).unwrap_or_default(),
        "no more than is proven"
    );
    for node in [writer, follower] {
        node.stop().await;
    }
}
