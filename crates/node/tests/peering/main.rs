//! Real stores, real TLS on loopback, the real driver. Between two nodes stands a proxy that can cut their connections.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod certificates;
mod claims;
mod late;
mod raw;
mod restored;
mod rot;
mod sessions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use raw::Raw;
use tidelog_node::peering::authority::{Authority, Grants, LIFETIME_DEFAULT};
use tidelog_node::settings::PeeringSettings;
use tidelog_node::{Identity, Metrics, NodeContext, StartError, StatusBoard, peering};
use tidelog_record::{Batch, Lsn, NodeId, Seal, Series, SiteName, Value};
use tidelog_replication::{FLOOR_WAIT_MS, Sites};
use tidelog_store::{Store, StoreOptions};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const CONVERGENCE: Duration = Duration::from_secs(30);

fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

fn authority() -> Authority {
    Authority::create("test", SystemTime::now() + LIFETIME_DEFAULT).unwrap()
}

/// A directory with a key, a certificate of `issuer` and the certificate of who is `believed`.
fn prepare(dir: &Path, issuer: &Authority, believed: &Authority, grants: impl Into<Grants>) {
    prepare_until(dir, issuer, believed, grants, SystemTime::now() + LIFETIME_DEFAULT);
}

fn prepare_until(
    dir: &Path,
    issuer: &Authority,
    believed: &Authority,
    grants: impl Into<Grants>,
    until: SystemTime,
) {
    let identity = Identity::load(dir, None).unwrap();
    let issued = issuer.issue("node", grants, &identity.key, until).unwrap();
    std::fs::write(dir.join("node.crt"), issued).unwrap();
    std::fs::write(dir.join("ca.crt"), believed.certificate_pem()).unwrap();
}

struct Running {
    context: NodeContext,
    dir: PathBuf,
    address: Option<std::net::SocketAddr>,
}

async fn start(dir: &Path, listen: bool, peers: &[std::net::SocketAddr]) -> Running {
    start_with(dir, listen, peers, StoreOptions::new).await
}

async fn start_with(
    dir: &Path,
    listen: bool,
    peers: &[std::net::SocketAddr],
    options: impl Fn(NodeId) -> StoreOptions,
) -> Running {
    start_waiting(dir, listen, peers, options, Duration::from_millis(FLOOR_WAIT_MS)).await
}

/// Starts a node that waits so long for what peers say to have dropped.
async fn start_waiting(
    dir: &Path,
    listen: bool,
    peers: &[std::net::SocketAddr],
    options: impl Fn(NodeId) -> StoreOptions,
    floor_wait: Duration,
) -> Running {
    let identity = Identity::load(dir, None).unwrap();
    let (store, _) = Store::open(dir, options(identity.node)).unwrap();
    let context = NodeContext {
        store,
        metrics: Arc::new(Metrics::new().unwrap()),
        site: site("default"),
        dir: dir.to_owned(),
        held: Default::default(),
        ways: Default::default(),
        issuing: Default::default(),
        rooms: Default::default(),
        status: StatusBoard::default(),
        shutdown: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let settings = PeeringSettings {
        listen: listen.then(|| ([127, 0, 0, 1], 0).into()),
        peers: peers.iter().map(|peer| peer.to_string().parse().unwrap()).collect(),
        cert: Some(dir.join("node.crt")),
        key: None,
        ca: Some(dir.join("ca.crt")),
        crl: Some(dir.join("ca.crl")).filter(|path| path.exists()),
    };
    let address = peering::start_waiting(&context, &settings, &identity, floor_wait).await.unwrap();
    Running { context, dir: dir.to_owned(), address }
}

impl Running {
    async fn append(&self, site_name: &str, from: i64, count: i64) {
        let (store, name) = (self.context.store.clone(), site(site_name));
        let device = self.context.store.node().to_string();
        let write = move || {
            for i in from..from + count {
                let series = Series::new("temp", [("device", device.as_str())]).unwrap();
                let batch = Batch {
                    authored_ms: i,
                    origin: None,
                    series: vec![(series, vec![(i * 1_000_000_000, Value::I64(i))])],
                };
                store.append_blocking(&name, batch.encode().unwrap()).unwrap();
            }
        };
        tokio::task::spawn_blocking(write).await.unwrap();
    }

    fn counted(&self, needle: &str) -> u64 {
        let text = String::from_utf8(self.context.metrics.text().unwrap()).unwrap();
        let line = text.lines().find(|line| line.starts_with(needle));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |number| number.parse().unwrap())
    }

    fn peers(&self) -> serde_json::Value {
        self.context.status.read().remove("peers").unwrap()
    }

    async fn stop(self) -> PathBuf {
        let began = Instant::now();
        self.context.shutdown.cancel();
        self.context.tasks.close();
        self.context.tasks.wait().await;
        assert!(began.elapsed() < Duration::from_secs(4), "the end took {:?}", began.elapsed());
        let store = self.context.store;
        tokio::task::spawn_blocking(move || store.close()).await.unwrap().unwrap();
        self.dir
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < CONVERGENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn records(node: &Running) -> u64 {
    node.context.store.vector().iter().map(|(_, lsn, _)| lsn.0).sum()
}

async fn equal(nodes: &[&Running], expected: u64) {
    until("equal vectors", || nodes.iter().all(|node| records(node) == expected)).await;
    let first = nodes[0].context.store.vector();
    assert!(nodes.iter().all(|node| node.context.store.vector() == first));
}

/// Passes connections on; each new value of the watch cuts those that stand.
async fn proxy(to: std::net::SocketAddr) -> (std::net::SocketAddr, watch::Sender<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (cut, cuts) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut cuts = cuts.clone();
            cuts.mark_unchanged();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(to).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = cuts.changed() => {}
                }
            });
        }
    });
    (address, cut)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_converge_through_cuts_and_a_restart() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    for dir in &dirs {
        prepare(dir.path(), &authority, &authority, &Sites::All);
    }
    let cloud = start(dirs[0].path(), true, &[]).await;
    let (through, cut) = proxy(cloud.address.unwrap()).await;
    let east = start(dirs[1].path(), false, &[through]).await;
    let west = start(dirs[2].path(), false, &[through]).await;

    tokio::join!(cloud.append("plant", 0, 50), east.append("plant", 0, 100), west.append("house", 0, 100));
    equal(&[&cloud, &east, &west], 250).await;

    // Cuts while records are on their way.
    let cutting = async {
        for i in 1..=10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            cut.send_replace(i);
        }
    };
    tokio::join!(east.append("plant", 100, 300), west.append("house", 100, 300), cutting);
    equal(&[&cloud, &east, &west], 850).await;
    assert!(cloud.counted("tidelog_peer_sessions_total{direction=\"accepted\"}") > 2);

    // One is down while the others go on.
    let dir = west.stop().await;
    east.append("plant", 400, 100).await;
    cloud.append("house", 50, 50).await;
    let west = start(&dir, false, &[through]).await;
    west.append("house", 400, 50).await;
    equal(&[&cloud, &east, &west], 1_050).await;

    // A row says nothing of what is lacking before it was looked at: no count rather than none.
    until("the status to say so", || {
        let row = east.peers()[0].clone();
        let is_known = row["state"] == "connected" && !row["behind_records"].is_null();
        assert!(!is_known || row["node"] == cloud.context.store.node().to_string(), "{row}");
        let lacking =
            ["behind", "ahead"].map(|side| ["records", "bytes", "s"].map(|of| &row[format!("{side}_{of}")]));
        let even = lacking.into_iter().flatten().all(|count| *count == 0);
        is_known && even
    })
    .await;
    for node in [east, west, cloud] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seal_comes_to_a_peer_byte_for_byte() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    for dir in &dirs {
        prepare(dir.path(), &authority, &authority, &Sites::All);
    }
    let cloud = start(dirs[0].path(), true, &[]).await;
    let east = start(dirs[1].path(), false, &[cloud.address.unwrap()]).await;
    let seal = Seal { first: Lsn(1), last: Lsn(20), ordinal: 0, parts: 1, hash: [5; 16] };
    east.append("plant", 0, 20).await;
    let store = east.context.store.clone();
    let append = move || store.append_blocking(&site("plant"), seal.encode());
    let sealed = tokio::task::spawn_blocking(append).await.unwrap().unwrap();
    east.append("plant", 20, 20).await;
    equal(&[&cloud, &east], 41).await;
    let theirs = cloud.context.store.read(&sealed.stream, Lsn(sealed.lsn.0 - 1), 1).unwrap();
    assert_eq!(Seal::of_body(&theirs[0].body), Ok(Some(seal)));
    for node in [east, cloud] {
        node.stop().await;
    }
}

/// The segments of a node: their bytes by name, which says of what and which bytes.
fn segments(node: &Running) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(node.dir.join("segments")).unwrap().map(Result::unwrap);
    let files = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    // What is just being made or merged may be gone again.
    let read = |(name, path): (String, PathBuf)| Some((name, std::fs::read(path).ok()?));
    files.filter(|(name, _)| name.ends_with(".seg")).filter_map(read).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_is_packed_comes_to_a_new_peer_which_packs_it_the_same() {
    let packing = |node| {
        let mut options = StoreOptions { log_file_bytes_max: 4096, ..StoreOptions::new(node) };
        options.upkeep.seal_points = 500;
        options.upkeep.seal_when_idle = Duration::from_millis(200);
        options
    };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let authority = authority();
    for dir in &dirs {
        prepare(dir.path(), &authority, &authority, &Sites::All);
    }
    let a = start_with(dirs[0].path(), true, &[], packing).await;
    a.append("plant", 0, 3_000).await;
    until("the author packs", || a.context.store.stats().files_trimmed > 3).await;
    let b = start_with(dirs[1].path(), false, &[a.address.unwrap()], packing).await;
    until("the peer has all", || records(&b) > 3_000 && b.context.store.vector() == a.context.store.vector())
        .await;
    until("both have packed the same", || {
        let packed = segments(&a);
        !packed.is_empty() && packed == segments(&b) && b.context.store.vector() == a.context.store.vector()
    })
    .await;
    assert_eq!(b.context.store.stats().segments_disagreed, 0);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gets_only_the_sites_of_its_certificate() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    prepare(dirs[0].path(), &authority, &authority, &Sites::All);
    prepare(dirs[1].path(), &authority, &authority, &Sites::Only([site("plant")].into()));
    let cloud = start(dirs[0].path(), true, &[]).await;
    cloud.append("plant", 0, 10).await;
    cloud.append("house", 0, 10).await;
    let leaf = start(dirs[1].path(), false, &[cloud.address.unwrap()]).await;
    leaf.append("plant", 0, 10).await;
    until("the leaf's records", || records(&cloud) == 30 && records(&leaf) == 20).await;
    assert!(leaf.context.store.vector().iter().all(|(stream, ..)| stream.site == site("plant")));
    leaf.stop().await;
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_are_not_believed_are_refused_and_counted() {
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let (authority, stranger) = (authority(), authority());
    prepare(dirs[0].path(), &authority, &authority, &Sites::All);
    prepare(dirs[1].path(), &stranger, &authority, &Sites::All);
    prepare(dirs[2].path(), &authority, &stranger, &Sites::All);
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    prepare_until(dirs[3].path(), &authority, &authority, &Sites::All, long_ago);
    let cloud = start(dirs[0].path(), true, &[]).await;
    cloud.append("plant", 0, 10).await;
    let peers = [cloud.address.unwrap()];
    let (wrong, doubtful) =
        (start(dirs[1].path(), false, &peers).await, start(dirs[2].path(), false, &peers).await);
    let expired = start(dirs[3].path(), false, &peers).await;
    until("the cloud to refuse", || {
        cloud.counted("tidelog_peer_refused_total{reason=\"certificate_unknown_issuer\"}") > 0
            && cloud.counted("tidelog_peer_refused_total{reason=\"certificate_expired\"}") > 0
    })
    .await;
    until("the doubtful to refuse the cloud", || {
        doubtful.counted("tidelog_peer_refused_total{reason=\"certificate_unknown_issuer\"}") > 0
    })
    .await;
    until("the reason in the status", || {
        let error = doubtful.peers()[0]["last_error"].as_str().unwrap_or_default().to_owned();
        error.contains("certificate")
    })
    .await;
    for node in [wrong, doubtful, expired] {
        assert_eq!(records(&node), 0);
        node.stop().await;
    }
    cloud.stop().await;
}

async fn garbage(dir: &Path, to: std::net::SocketAddr, bytes: &[u8]) {
    let mut raw = Raw::connect(dir, to).await;
    raw.send(bytes).await;
    raw.read_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_of_a_proven_peer_closes_its_session_and_nothing_else() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    for dir in &dirs {
        prepare(dir.path(), &authority, &authority, &Sites::All);
    }
    let cloud = start(dirs[0].path(), true, &[]).await;
    let to = cloud.address.unwrap();
    let mut keepalive = Vec::new();
    tidelog_replication::encode(&tidelog_replication::Message::Keepalive, &mut keepalive).unwrap();
    let cases: [(&[u8], &str); 4] = [
        (&[0xff; 64], "frame_too_long"),
        (&[4, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], "frame_checksum"),
        (&[0, 0, 0, 0, 0, 0, 0, 0], "frame_malformed"),
        (&keepalive, "hello"),
    ];
    for (bytes, reason) in cases {
        garbage(dirs[1].path(), to, bytes).await;
        let needle = format!("tidelog_peer_refused_total{{reason=\"{reason}\"}}");
        until(reason, || cloud.counted(&needle) == 1).await;
    }
    let mut raw = TcpStream::connect(to).await.unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until("no TLS", || cloud.counted("tidelog_peer_refused_total{reason=\"tls\"}") == 1).await;

    let honest = start(dirs[1].path(), false, &[to]).await;
    honest.append("plant", 0, 5).await;
    equal(&[&cloud, &honest], 5).await;
    honest.stop().await;
    cloud.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_key_is_refused_at_start() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let authority = authority();
    for dir in &dirs {
        prepare(dir.path(), &authority, &authority, &Sites::All);
    }
    std::fs::copy(dirs[1].path().join("node.crt"), dirs[0].path().join("node.crt")).unwrap();
    let identity = Identity::load(dirs[0].path(), None).unwrap();
    let (store, _) = Store::open(dirs[0].path(), StoreOptions::new(identity.node)).unwrap();
    let context = NodeContext {
        store,
        metrics: Arc::new(Metrics::new().unwrap()),
        site: site("default"),
        dir: dirs[0].path().to_owned(),
        held: Default::default(),
        ways: Default::default(),
        issuing: Default::default(),
        rooms: Default::default(),
        status: StatusBoard::default(),
        shutdown: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let settings = PeeringSettings {
        listen: Some(([127, 0, 0, 1], 0).into()),
        peers: vec![],
        cert: Some(dirs[0].path().join("node.crt")),
        key: None,
        ca: Some(dirs[0].path().join("ca.crt")),
        crl: None,
    };
    let refused = peering::start(&context, &settings, &identity).await;
    assert!(matches!(refused, Err(StartError::Setting { key: "peering.cert", .. })), "{refused:?}");
}
