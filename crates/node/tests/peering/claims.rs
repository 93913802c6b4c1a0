//! What a peer of the cloud says to hold counts only if it holds the same bytes.

use tidelog_node::peering::authority::Grants;
use tidelog_record::{ChainHash, Lsn};
use tidelog_replication::{Head, Held, Message, PROTOCOL_VERSION, Sites};

use crate::raw::Raw;
use crate::{authority, prepare, start, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_peer_of_the_cloud_that_holds_the_same_bytes_confirms_them() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    let cloud = Grants { sites: Sites::All, cloud: true };
    prepare(dirs[0].path(), &authority, &authority, &Sites::All);
    prepare(dirs[1].path(), &authority, &authority, cloud);
    prepare(dirs[2].path(), &authority, &authority, &Sites::All);
    let node = start(dirs[0].path(), true, &[]).await;
    node.append("plant", 0, 10).await;
    let (stream, ..) = node.context.store.vector()[0].clone();
    let chain = |lsn| node.context.store.chain_at(&stream, Lsn(lsn)).unwrap().unwrap();
    let hold = |lsn, chain| {
        Message::Hold(vec![Held { stream: stream.clone(), head: Head { lsn: Lsn(lsn), chain } }])
    };

    let mut peer = Raw::connect(dirs[2].path(), node.address.unwrap()).await;
    peer.hello(PROTOCOL_VERSION, PROTOCOL_VERSION).await;
    peer.say(&hold(10, chain(10))).await;
    until("a peer that holds all", || node.context.held.held_by(&stream).peers == 1).await;
    assert_eq!(node.context.held.confirmed(&stream), Lsn(0), "it is not of the cloud");

    let mut cloud = Raw::connect(dirs[1].path(), node.address.unwrap()).await;
    cloud.hello(PROTOCOL_VERSION, PROTOCOL_VERSION).await;
    // Another branch, more than was ever written, and then the truth.
    cloud.say(&hold(5, ChainHash([7; 16]))).await;
    cloud.say(&hold(7, chain(7))).await;
    until("the confirmation", || node.context.held.confirmed(&stream) == Lsn(7)).await;
    cloud.say(&hold(8, chain(7))).await;
    cloud.say(&hold(99, chain(10))).await;
    cloud.say(&hold(9, chain(9))).await;
    until("the next confirmation", || node.context.held.confirmed(&stream) >= Lsn(8)).await;
    assert_eq!(node.context.held.confirmed(&stream), Lsn(9));
    until("the status to know it", || node.context.held.cloud_sessions() == 1).await;
    drop((peer, cloud));
    node.stop().await;
}
