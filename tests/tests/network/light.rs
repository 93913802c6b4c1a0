//! Many light sessions at one cloud node: all come at once, all are served, and all come again at once after it was killed.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use serde_json::Value;
use tidelog_node::peering::authority::{Authority, Grants, LIFETIME_DEFAULT};
use tidelog_replication::Sites;
use tidelog_tests::light::Light;
use tokio::task::JoinSet;

use crate::support::{Process, bin_dir, until};

/// As many as fit into the file descriptors that a system usually gives to a process.
const GATEWAYS: usize = 400;
const STREAMS_EACH: u32 = 3;
const RECORDS: u64 = 5;
/// What one more session with its streams may take of the cloud's memory.
const SESSION_KIB_MAX: u64 = 512;

fn start(bin_dir: &Path, folder: &Path, listen: &str) -> (Process, String, SocketAddr) {
    let at = |name: &str| folder.join(name).display().to_string();
    let data = folder.join("data");
    for name in ["http.addr", "peering.addr"] {
        // A node that was killed leaves them.
        drop(fs::remove_file(data.join(name)));
    }
    let mut command = Command::new(bin_dir.join("tidelog-cloud"));
    command.arg("--data").arg(&data).args(["--http", "127.0.0.1:0", "--log-level", "error"]);
    command.args(["--peering-listen", listen, "--peering-cert", &at("node.pem")]);
    command.args(["--peering-key", &at("node.key"), "--peering-ca", &at("ca.pem")]);
    let process = Process(command.stdin(Stdio::null()).spawn().unwrap());
    let http = until("the address of HTTP", || fs::read_to_string(data.join("http.addr")).ok());
    let peering = fs::read_to_string(data.join("peering.addr")).unwrap();
    (process, http.trim().to_owned(), peering.trim().parse().unwrap())
}

fn resident_kib(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Waits until the cloud has so many records of each stream, and a session with each gateway.
fn all_served(http: &str, records: u64) {
    until("every gateway to be served", || {
        let text = ureq::get(format!("http://{http}/api/v1/status")).call().ok()?;
        let status: Value = serde_json::from_str(&text.into_body().read_to_string().ok()?).unwrap();
        let streams = status["streams"].as_array().unwrap();
        let whole = streams.iter().filter(|stream| stream["lsn"] == records).count();
        let peers = status["peers"].as_array().unwrap();
        let connected = peers.iter().filter(|peer| peer["state"] == "connected").count();
        (whole == GATEWAYS * STREAMS_EACH as usize && connected == GATEWAYS).then_some(())
    });
}

/// All of them in session, again and again, until the set is dropped.
fn hold_all(gateways: &[Arc<Light>], to: SocketAddr) -> JoinSet<()> {
    let mut sessions = JoinSet::new();
    for gateway in gateways {
        let gateway = Arc::clone(gateway);
        sessions.spawn(async move {
            loop {
                // Why a session ended shows in what the cloud has or has not.
                drop(gateway.hold(to).await);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    sessions
}

#[test]
fn hundreds_of_gateways_that_come_at_once_are_all_served_in_bounded_memory() {
    let Some(bin_dir) = bin_dir() else { return };
    let folder = tempfile::tempdir().unwrap();
    let until_then = SystemTime::now() + LIFETIME_DEFAULT;
    let authority = Authority::create("test", until_then).unwrap();
    let key = KeyPair::generate().unwrap();
    let grants = Grants { sites: Sites::All, cloud: true };
    let files = [
        ("ca.pem", authority.certificate_pem().to_owned()),
        ("node.pem", authority.issue("cloud", grants, &key, until_then).unwrap()),
        ("node.key", key.serialize_pem()),
    ];
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let mut gateways: Vec<Light> = (0..GATEWAYS)
        .map(|number| Light::new(&authority, &format!("gateway-{number}"), STREAMS_EACH).unwrap())
        .collect();
    gateways.iter_mut().for_each(|gateway| (0..RECORDS).for_each(|_| gateway.append().unwrap()));
    let mut gateways: Vec<Arc<Light>> = gateways.into_iter().map(Arc::new).collect();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (mut cloud, http, peering) = start(&bin_dir, folder.path(), "127.0.0.1:0");
    let before = resident_kib(&cloud);
    let sessions = hold_all(&gateways, peering);
    all_served(&http, RECORDS);
    let each = resident_kib(&cloud).saturating_sub(before) / GATEWAYS as u64;
    println!("{GATEWAYS} sessions of {STREAMS_EACH} streams: {each} KiB each");
    assert!(each <= SESSION_KIB_MAX, "{each} KiB for each session");

    // It dies; all come again at once, and each has something new.
    cloud.kill();
    drop(sessions);
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(100)).await });
    for gateway in &mut gateways {
        until("the session to let go", || Arc::get_mut(gateway).map(|gateway| gateway.append().unwrap()));
    }
    let (_cloud, http, _) = start(&bin_dir, folder.path(), &peering.to_string());
    let sessions = hold_all(&gateways, peering);
    all_served(&http, RECORDS + 1);
    drop(sessions);
}
