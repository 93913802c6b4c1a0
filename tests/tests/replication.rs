//! Replication as an operator deploys it: `tidelog ca` makes the files, daemons are started with the flags that it prints, `tidelog
//! peers` says how they are. Needs the released binaries in `TIDELOG_BIN_DIR`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{Process, bin_dir, until};

/// The operator: the command, and a folder to work in.
struct Operator {
    bin_dir: PathBuf,
    folder: tempfile::TempDir,
}

impl Operator {
    fn new(bin_dir: PathBuf) -> Self {
        Self { bin_dir, folder: tempfile::tempdir().unwrap() }
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.bin_dir.join("tidelog"));
        command.current_dir(self.folder.path()).args(words).output().unwrap()
    }

    fn said(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// `tidelog ca issue …`, and the flags that it says.
    fn issue(&self, words: &[&str]) -> Vec<String> {
        let said = self.said(&[&["ca", "issue"], words].concat());
        let flags = said.lines().find(|line| line.trim_start().starts_with("--peering-")).unwrap();
        flags.split_whitespace().map(str::to_owned).collect()
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    /// Starts a cloud node, listening for peers if it has a certificate.
    fn start(&self, name: &str, flags: &[String], peer: Option<&Node>) -> Node {
        let data = self.data(name);
        let mut command = Command::new(self.bin_dir.join("tidelog-cloud"));
        command.arg("--data").arg(&data).args(["--http", "127.0.0.1:0", "--log-level", "warn"]).args(flags);
        if !flags.is_empty() {
            command.args(["--peering-listen", "127.0.0.1:0"]);
        }
        if let Some(peer) = peer {
            command.args(["--peering-peers", peer.peering.as_deref().unwrap()]);
        }
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let mut node = Node { process: Process(child), http: String::new(), peering: None };
        let address =
            |file: &str| fs::read_to_string(data.join(file)).ok().map(|text| text.trim().to_owned());
        node.http = until("the address of HTTP", || {
            assert!(node.process.runs(), "{name} does not run");
            address("http.addr")
        });
        if !flags.is_empty() {
            node.peering = address("peering.addr");
        }
        node
    }
}

struct Node {
    process: Process,
    http: String,
    peering: Option<String>,
}

impl Node {
    fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    fn post(&self, site: &str, value: i64) {
        let body = format!(
            r#"{{"points":[{{"metric":"temp","labels":{{"at":"{site}"}},"timestamp_ns":{value},"value":{value}}}]}}"#
        );
        let posting = ureq::post(format!("{}/api/v1/sites/{site}/points", self.url()));
        posting.header("content-type", "application/json").send(body).unwrap();
    }

    /// The site's points, a line each; nothing for a site that is not held.
    fn points(&self, site: &str) -> String {
        let url = format!("{}/api/v1/sites/{site}/points?format=ndjson", self.url());
        ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap()
    }

    fn status(&self) -> Value {
        let url = format!("{}/api/v1/status", self.url());
        let text = ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Ends it with SIGTERM.
    fn end(self) {
        let status = self.process.end();
        assert!(status.success(), "{status}");
    }
}

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
