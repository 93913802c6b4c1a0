//! Replication as an operator deploys it: `tidelog ca` makes the files, daemons are started with the flags that it prints, `tidelog
//! peers` says how they are. Needs the released binaries in `TIDELOG_BIN_DIR`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::operator::{Node, Operator};
use support::{bin_dir, until};

fn node_of(operator: &Operator, certificate: &str) -> String {
    let shown: Value = serde_json::from_str(&operator.said(&["ca", "show", "--json", certificate])).unwrap();
    shown["certificates"][0]["node"].as_str().unwrap().to_owned()
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[test]
fn a_lone_node_joins_the_cloud_with_issued_certificates_and_each_gets_its_sites_only() {
    let Some(bin_dir) = bin_dir() else { return };
    let operator = Operator::new(bin_dir);
    operator.said(&["ca", "init"]);

    // A node that ran for itself, and has a key and a point of its own.
    let lone = operator.start("plant", &[], None);
    lone.post("plant", 1);
    assert!(operator.said(&["peers", &lone.url()]).contains("replicates with nobody"));
    lone.end();

    let key = operator.data("plant").join("node.key").display().to_string();
    let cloud_flags = operator.issue(&["cloud", "--all-sites"]);
    let plant_flags = operator.issue(&["plant", "--site", "plant", "--key", &key]);
    let house_flags = operator.issue(&["house", "--site", "house", "--days", "30"]);
    assert!(!exists(&operator.folder.path().join("tidelog-ca/plant.key")), "the node has its key");

    let cloud = operator.start("cloud", &cloud_flags, None);
    let plant = operator.start("plant", &plant_flags, Some(&cloud));
    let house = operator.start("house", &house_flags, Some(&cloud));
    cloud.post("plant", 2);
    plant.post("plant", 3);
    cloud.post("house", 4);
    until("the plant's three points on both", || {
        let points = cloud.points("plant");
        (points.lines().count() == 3 && points == plant.points("plant")).then_some(())
    });
    until("the house's point on both", || {
        let points = cloud.points("house");
        (points.lines().count() == 1 && points == house.points("house")).then_some(())
    });

    // A certificate for one site gets nothing of another, and what its node holds of another goes nowhere.
    house.post("plant", 5);
    house.post("house", 6);
    plant.post("plant", 7);
    until("the later points", || {
        (cloud.points("house").lines().count() == 2 && cloud.points("plant").lines().count() == 4)
            .then_some(())
    });
    let own = house.points("plant");
    assert_eq!(own.lines().count(), 1, "only what was posted there: {own}");
    let house_node = node_of(&operator, "tidelog-ca/house.pem");
    let streams = house.status()["streams"].as_array().unwrap().clone();
    assert!(streams.iter().all(|stream| stream["site"] == "house" || stream["node"] == house_node.as_str()));
    assert!(plant.points("house").is_empty());

    // What the operator sees.
    let (cloud_node, plant_node) =
        (node_of(&operator, "tidelog-ca/cloud.pem"), node_of(&operator, "tidelog-ca/plant.pem"));
    assert_eq!(plant.status()["node"], plant_node.as_str());
    let peers = |node: &Node| -> Value {
        let said = operator.said(&["peers", "--json", &node.url()]);
        serde_json::from_str::<Value>(&said).unwrap()["peers"].take()
    };
    until("all caught up", || {
        let rows = [peers(&plant), peers(&cloud)].map(|peers| peers.as_array().unwrap().clone()).concat();
        let even = |row: &Value| {
            row["state"] == "connected" && row["behind_records"] == 0 && row["ahead_records"] == 0
        };
        (rows.len() == 3 && rows.iter().all(even)).then_some(())
    });
    let table = operator.said(&["peers", &plant.url()]);
    let row = table.lines().nth(1).unwrap();
    assert!(row.starts_with(&cloud_node) && row.contains("connected"), "{table}");
    let table = operator.said(&["peers", &cloud.url()]);
    assert!(table.contains(&plant_node) && table.contains(&house_node), "{table}");
    for node in [house, plant, cloud] {
        node.end();
    }
}

#[test]
fn a_certificate_of_another_authority_opens_no_session_and_the_operator_sees_why() {
    let Some(bin_dir) = bin_dir() else { return };
    let operator = Operator::new(bin_dir);
    operator.said(&["ca", "init"]);
    operator.said(&["ca", "init", "--dir", "other", "--name", "Another"]);
    let again = operator.run(&["ca", "init"]);
    assert_eq!(again.status.code(), Some(1));
    let refusal = String::from_utf8(again.stderr).unwrap();
    assert!(refusal.contains("tidelog-ca/ca.key exists"), "{refusal}");

    let cloud = operator.start("cloud", &operator.issue(&["cloud", "--all-sites"]), None);
    let stranger = operator.start(
        "stranger",
        &operator.issue(&["stranger", "--all-sites", "--dir", "other", "--out", "mine"]),
        Some(&cloud),
    );
    cloud.post("plant", 1);
    let row = until("the refusal in the table", || {
        let table = operator.said(&["peers", &stranger.url()]);
        table.lines().nth(1).filter(|row| row.contains("certificate")).map(str::to_owned)
    });
    assert!(row.starts_with('-'), "nobody has proved itself there: {row}");
    assert!(stranger.points("plant").is_empty());
    assert!(operator.said(&["peers", &cloud.url()]).starts_with("No peers"));
    stranger.end();
    cloud.end();
}

#[test]
fn a_revoked_gateway_is_shown_out_and_a_certificate_is_renewed_while_the_node_runs() {
    let Some(bin_dir) = bin_dir() else { return };
    let operator = Operator::new(bin_dir);
    operator.said(&["ca", "init"]);
    let cloud = operator.start("cloud", &operator.issue(&["cloud", "--all-sites", "--cloud"]), None);
    let flags = operator.issue(&["plant", "--site", "plant"]);
    let plant = operator.start("plant", &flags, Some(&cloud));
    plant.post("plant", 1);
    until("the point in the cloud", || (cloud.points("plant").lines().count() == 1).then_some(()));

    let said = operator.said(&["ca", "revoke", "plant"]);
    assert!(said.contains(&node_of(&operator, "tidelog-ca/plant.pem")), "{said}");
    let last_error = |words: &str| {
        until(words, || {
            let table = operator.said(&["peers", &plant.url()]);
            table.lines().nth(1).filter(|row| row.contains(words)).map(drop)
        });
    };
    last_error("refused this node's certificate: it is revoked");
    plant.post("plant", 2);
    assert_eq!(cloud.points("plant").lines().count(), 1);

    let key = operator.folder.path().join("tidelog-ca/plant.key").display().to_string();
    operator.said(&["ca", "issue", "plant", "--site", "plant", "--key", &key, "--out", "renewed"]);
    fs::rename(
        operator.folder.path().join("renewed/plant.pem"),
        operator.folder.path().join("tidelog-ca/plant.pem"),
    )
    .unwrap();
    until("the later point in the cloud", || (cloud.points("plant").lines().count() == 2).then_some(()));
    plant.end();
    cloud.end();
}
