//! A node whose folder is an older copy learns from its peers that its stream is further than it knows.

use std::path::Path;

use tidelog_record::{Lsn, StreamId};
use tidelog_replication::Sites;

use crate::{authority, equal, prepare, records, site, start, until};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_node_goes_on_under_another_run_without_a_restart_and_gets_its_tail_back() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    for dir in &dirs[..2] {
        prepare(dir.path(), &authority, &authority, &Sites::All);
    }
    let cloud = start(dirs[0].path(), true, &[]).await;
    let peers = [cloud.address.unwrap()];
    let node = start(dirs[1].path(), false, &peers).await;
    node.append("plant", 0, 20).await;
    equal(&[&cloud, &node], 20).await;
    let dir = node.stop().await;
    copy(&dir, dirs[2].path());
    let node = start(&dir, false, &peers).await;
    node.append("plant", 20, 30).await;
    equal(&[&cloud, &node], 50).await;
    node.stop().await;

    let restored = start(dirs[2].path(), false, &peers).await;
    let store = restored.context.store.clone();
    let before = store.vector().remove(0).0;
    until("another run", || store.run() != before.run).await;
    restored.append("plant", 50, 10).await;
    equal(&[&cloud, &restored], 60).await;
    let after = StreamId { site: site("plant"), node: store.node(), run: store.run() };
    let upto =
        |stream: &StreamId| store.vector().into_iter().find(|(id, ..)| id == stream).map(|(_, upto, _)| upto);
    assert_eq!((upto(&before), upto(&after)), (Some(Lsn(50)), Some(Lsn(10))));
    assert_eq!(restored.counted("tidelog_peer_refused_total{reason=\"fork\"}"), 0);
    assert_eq!(cloud.counted("tidelog_peer_refused_total{reason=\"fork\"}"), 0);

    let run = store.run();
    drop(store);
    let dir = restored.stop().await;
    let restored = start(&dir, false, &peers).await;
    assert_eq!((restored.context.store.run(), records(&restored)), (run, 60));
    restored.stop().await;
    cloud.stop().await;
}
