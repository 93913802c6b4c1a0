//! Real networks: real daemons in network namespaces, joined by a switch or by a link that is far, slow and lossy. Times
//! are compressed (a partition of seconds, not of an hour): what they could change is simulated elsewhere. Needs root, and the released
//! binaries in `TIDELOG_BIN_DIR`; without, each test says what is missing and is skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod kernel;
mod light;
mod space;
#[path = "../support/mod.rs"]
mod support;

use space::{Network, Node, PEERING_PORT, Space, converge, converge_within};
use std::time::Duration;
use support::until;

/// A bad link may need several attempts for one handshake.
const PATIENCE_WITH_A_BAD_LINK: Duration = Duration::from_secs(200);
/// Nodes in a topology.
const NODES: usize = 5;

/// Starts nodes of which each dials some before it, lets all write at once, and looks that every record came to every node once.
fn topology(dials: impl Fn(usize) -> Vec<usize>) {
    let Some(mut network) = Network::new() else { return };
    let spaces: Vec<Space> = (0..NODES).map(|_| network.space()).collect();
    let nodes: Vec<Node> = spaces
        .iter()
        .enumerate()
        .map(|(number, space)| {
            let peers: Vec<String> = dials(number).into_iter().map(|peer| spaces[peer].address()).collect();
            network.start(space, &peers)
        })
        .collect();
    let all: Vec<&Node> = nodes.iter().collect();
    std::thread::scope(|scope| {
        for (number, node) in (0..).zip(&nodes) {
            scope.spawn(move || node.write(number * 1_000..number * 1_000 + 40));
        }
    });
    converge(&all, NODES * 40);
    // However many ways there are: each record crossed into each node once, and at rest nothing goes round.
    let received = || -> Vec<u64> {
        nodes.iter().map(|node| node.counted("tidelog_peer_records_total{direction=\"received\"}")).collect()
    };
    let once: Vec<u64> = nodes.iter().map(Node::foreign_records).collect();
    assert_eq!(received(), once);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(received(), once, "records travel at rest");

    // One that others may depend on goes down without a word and comes back.
    let mut nodes = nodes;
    nodes[1].process.kill();
    nodes[NODES - 1].write(100_000..100_020);
    let peers: Vec<String> = dials(1).into_iter().map(|peer| spaces[peer].address()).collect();
    nodes[1] = network.start(&spaces[1], &peers);
    nodes[1].write(200_000..200_020);
    converge(&nodes.iter().collect::<Vec<_>>(), NODES * 40 + 40);
}

#[test]
fn a_star_converges() {
    topology(|number| if number == 0 { vec![] } else { vec![0] });
}

#[test]
fn a_chain_converges() {
    topology(|number| if number == 0 { vec![] } else { vec![number - 1] });
}

#[test]
fn a_ring_converges_and_nothing_goes_round() {
    topology(|number| match number {
        0 => vec![NODES - 1],
        number => vec![number - 1],
    });
}

#[test]
fn a_full_mesh_converges_and_carries_each_record_once() {
    topology(|number| (0..number).collect());
}

#[test]
fn two_sides_of_a_partition_go_on_and_are_one_again() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.space(), network.space());
    let cloud = network.start(&a, &[]);
    let gateway = network.start(&b, &[a.address()]);
    gateway.write(0..50);
    converge(&[&cloud, &gateway], 50);
    // Flapping first, then seconds apart: less than it takes to find out, so TCP may go on where it was.
    for round in 0..5 {
        b.cut();
        gateway.write(1_000 + round * 100..1_000 + round * 100 + 20);
        b.join();
        cloud.write(2_000 + round * 100..2_000 + round * 100 + 20);
    }
    b.cut();
    gateway.write(3_000..4_000);
    cloud.write(5_000..6_000);
    b.join();
    converge(&[&cloud, &gateway], 50 + 200 + 2_000);
    for node in [&cloud, &gateway] {
        assert_eq!(
            node.counted("tidelog_peer_records_total{direction=\"received\"}"),
            node.foreign_records()
        );
    }
}

#[test]
fn a_silent_cut_is_found_on_both_sides_and_the_session_comes_back() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.space(), network.space());
    let cloud = network.start(&a, &[]);
    let gateway = network.start(&b, &[a.address()]);
    gateway.write(0..50);
    converge(&[&cloud, &gateway], 50);
    b.cut();
    gateway.write(1_000..1_100);
    for node in [&cloud, &gateway] {
        until("the silence to be found", || {
            (node.counted("tidelog_peer_sessions_ended_total{reason=\"silent\"}") == 1).then_some(())
        });
    }
    b.join();
    converge(&[&cloud, &gateway], 150);
}

#[test]
fn a_link_of_two_seconds_and_fifty_kilobits_that_loses_a_twentieth_carries_each_record_once() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.space(), network.space());
    let Some(_link) = network.link(&a, &b, 1_000, 0.05, 50_000) else { return };
    let cloud = network.start(&a, &[]);
    // A backlog before the first session, and fresh points while it drains.
    let gateway = network.start(&b, &[]);
    gateway.write(0..150);
    drop(gateway);
    let gateway = network.start(&b, &[format!("10.78.0.1:{PEERING_PORT}")]);
    gateway.write(1_000..1_030);
    converge_within(PATIENCE_WITH_A_BAD_LINK, &[&cloud, &gateway], 180);
    assert_eq!(cloud.counted("tidelog_peer_records_total{direction=\"received\"}"), cloud.foreign_records());
}

#[test]
fn a_link_that_carries_one_way_only_is_found_on_the_side_that_hears_nothing() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.space(), network.space());
    let Some(mut link) = network.link(&a, &b, 10, 0.0, 10_000_000) else { return };
    let cloud = network.start(&a, &[]);
    let gateway = network.start(&b, &[format!("10.78.0.1:{PEERING_PORT}")]);
    gateway.write(0..50);
    converge(&[&cloud, &gateway], 50);
    // What the cloud says is lost, what the gateway says arrives.
    link.lose('a', 1.0);
    gateway.write(1_000..1_050);
    until("the gateway to find it", || {
        (gateway.counted("tidelog_peer_sessions_ended_total{reason=\"silent\"}") == 1).then_some(())
    });
    link.lose('a', 0.0);
    converge(&[&cloud, &gateway], 100);
}
