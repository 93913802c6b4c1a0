//! A node that comes after its peers dropped the beginning of a stream by policy.

use std::time::Duration;

use tidelog_record::{Lsn, NodeId, StreamId};
use tidelog_replication::Sites;
use tidelog_store::{Keep, Store, StoreOptions};

use crate::{Running, authority, prepare, site, start_waiting, start_with, until};

/// So long the late node waits for what its peers dropped.
const FLOOR_WAIT: Duration = Duration::from_millis(500);
/// Points before this time are dropped, ns.
const HORIZON_NS: i64 = 600 * 1_000_000_000;

/// Packs at once, and drops what is old as soon as the store is told the time.
fn forgetting(node: NodeId) -> StoreOptions {
    let mut options = StoreOptions { log_file_bytes_max: 4096, ..StoreOptions::new(node) };
    options.upkeep.seal_points = 100;
    options.upkeep.seal_when_idle = Duration::from_millis(200);
    options.upkeep.log_keep_bytes_max = 0;
    options.upkeep.retention.all = Keep { age: Some(Duration::ZERO), bytes: None };
    options
}

fn store(node: &Running) -> &Store {
    &node.context.store
}

fn floor(node: &Running, stream: &StreamId) -> Option<Lsn> {
    store(node).dropped_behind(stream, Lsn::ZERO).map(|(lsn, _)| lsn)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_after_its_peers_dropped_a_beginning_gets_all_that_is_left() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    for dir in &dirs {
        prepare(dir.path(), &authority, &authority, &Sites::All);
    }
    let a = start_with(dirs[0].path(), true, &[], forgetting).await;
    let b = start_with(dirs[1].path(), true, &[a.address.unwrap()], forgetting).await;
    a.append("plant", 0, 1_000).await;
    let stream = StreamId { site: site("plant"), node: store(&a).node(), run: store(&a).run() };
    until("both hold all", || store(&b).vector() == store(&a).vector()).await;
    for node in [&a, &b] {
        store(node).trust_clock(HORIZON_NS);
    }
    until("both have dropped the same beginning", || {
        let floors = [&a, &b].map(|node| floor(node, &stream));
        floors[0].is_some_and(|floor| floor > Lsn(300)) && floors[0] == floors[1]
    })
    .await;
    let dropped = floor(&a, &stream).unwrap();

    let peers = [a.address.unwrap(), b.address.unwrap()];
    let late = start_waiting(dirs[2].path(), false, &peers, forgetting, FLOOR_WAIT).await;
    until("the late node holds as far as its peers", || {
        let held = store(&late).vector();
        !held.is_empty() && held == store(&a).vector() && held == store(&b).vector()
    })
    .await;
    let never_held = store(&late).stats().records_never_held;
    let most = [&a, &b].into_iter().filter_map(|node| floor(node, &stream)).max().unwrap();
    assert!((dropped.0..=most.0).contains(&never_held), "{dropped} to {most}: {never_held}");
    let points = |node: &Running| store(node).scan(&site("plant"), &|_| true, HORIZON_NS..=i64::MAX).unwrap();
    let kept = points(&late);
    assert_eq!(kept.iter().map(|(_, points)| points.len()).sum::<usize>(), 400);
    assert!(kept == points(&a) && kept == points(&b));

    // What is written from now on goes every way, and a restart changes nothing.
    late.append("plant", 1_000, 10).await;
    until("the late node's records", || {
        [&a, &b]
            .into_iter()
            .all(|node| points(node).iter().map(|(_, points)| points.len()).sum::<usize>() == 410)
    })
    .await;
    let dir = late.stop().await;
    let late = start_waiting(&dir, false, &peers, forgetting, FLOOR_WAIT).await;
    assert_eq!(store(&late).stats().records_never_held, never_held);
    until("all are equal again", || {
        store(&late).vector() == store(&a).vector() && store(&late).vector() == store(&b).vector()
    })
    .await;
    for node in [late, b, a] {
        node.stop().await;
    }
}
