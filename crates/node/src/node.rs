//! The running node: its parts started in order, and ended in order. HTTP answers first (that the node is starting),
//! then the log is recovered, then the parts that read and write it begin.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidelog_record::Boot;
use tidelog_store::{Store, StoreOptions};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::ClockWatch;
use crate::command::{Issuing, Rooms};
use crate::context::{NodeContext, StartError, StatusBoard, wall_ms};
use crate::door::{Doors, Protection, check_binding, tokens_path};
use crate::files::write_whole;
use crate::held::HeldElsewhere;
use crate::http::{self, Api, Limits, TlsFiles, TlsReload};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::room::{Disk, Room};
use crate::rule::{self, Rules};
use crate::settings::Common;
use crate::ways::Ways;
use crate::{device, mqtt, peering};

/// The bound HTTP address stands in this file of the node's directory while the node runs.
pub const HTTP_ADDRESS_FILE: &str = "http.addr";

/// How often the store is told the time, and the disk is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(30);

/// How long parts may take to end, so that closing the store still fits into [`crate::SHUTDOWN_S_MAX`].
const PARTS_END: Duration = Duration::from_secs(4);

/// A node that runs. It goes on until [`Node::stop`]; dropping it without leaves its tasks to the runtime's end.
pub struct Node {
    context: NodeContext,
    http: SocketAddr,
}

impl Node {
    /// Binds, recovers the log, and starts every part that the settings ask for.
    ///
    /// # Errors
    /// [`StartError`] says which setting, file or address is at fault. Nothing keeps running then.
    pub async fn start(common: &Common, version: &'static str) -> Result<Self, StartError> {
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let started = start(common, version, &shutdown, &tasks).await;
        if started.is_err() {
            end_tasks(&shutdown, &tasks).await;
        }
        started
    }

    /// What parts of the node receive; a gateway starts its radio with it.
    #[must_use]
    pub fn context(&self) -> &NodeContext {
        &self.context
    }

    /// The bound address of the HTTP API.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Ends every part, closes the log, and returns within [`crate::SHUTDOWN_S_MAX`].
    pub async fn stop(self) {
        tracing::info!("ending");
        let address_file = self.context.dir.join(HTTP_ADDRESS_FILE);
        if let Err(error) = std::fs::remove_file(&address_file) {
            tracing::debug!(path = %address_file.display(), %error, "cannot remove");
        }
        end_tasks(&self.context.shutdown, &self.context.tasks).await;
        let store = self.context.store.clone();
        match tokio::task::spawn_blocking(move || store.close()).await {
            Ok(Ok(())) => tracing::info!("ended"),
            Ok(Err(error)) => tracing::error!(%error, "the store's state could not be flushed"),
            Err(error) => tracing::error!(%error, "closing the store"),
        }
    }
}

async fn end_tasks(shutdown: &CancellationToken, tasks: &TaskTracker) {
    shutdown.cancel();
    tasks.close();
    if timeout(PARTS_END, tasks.wait()).await.is_err() {
        tracing::warn!(tasks = tasks.len(), "some parts did not end in time");
    }
}

async fn start(
    common: &Common,
    version: &'static str,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Node, StartError> {
    std::fs::create_dir_all(&common.data)
        .map_err(|source| StartError::File { path: common.data.clone(), source })?;
    let metrics = Arc::new(Metrics::new()?);
    let (doors, missing) = open_doors(common)?;
    if let Some(missing) = missing {
        tracing::warn!(address = %common.http, missing, "other machines reach the HTTP API, as --insecure says");
    }
    let doors = Arc::new(doors);
    let (reload, present) = match TlsFiles::of(common)? {
        None => (None, None),
        Some(files) => {
            let (reload, present) = TlsReload::begin(files, &metrics)?;
            (Some(reload), Some(present))
        }
    };
    let bind = |source| StartError::Bind { purpose: "http", address: common.http, source };
    let listener = TcpListener::bind(common.http).await.map_err(bind)?;
    let http = listener.local_addr().map_err(bind)?;
    let api = Api::new(version, Arc::clone(&metrics), Limits::of(common), Arc::clone(&doors));
    tasks.spawn(http::serve(listener, present, api.clone(), shutdown.clone(), tasks.clone()));

    let identity = Identity::load(&common.data, common.peering.key.as_deref())?;
    let store = open_store(common, version, &identity).await?;
    metrics.build.with_label_values(&[version, &identity.node.to_string()]).set(1);
    let context = NodeContext {
        store,
        metrics,
        site: common.site.clone(),
        dir: common.data.clone(),
        held: HeldElsewhere::default(),
        ways: Ways::default(),
        issuing: Issuing::default(),
        rooms: Rooms::default(),
        status: StatusBoard::default(),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
    };
    tasks.spawn(keep_watch(context.clone()));
    start_parts(&context, common, &identity).await?;
    context.status.section("doors", move || doors.as_json());
    if let Some(reload) = reload {
        reload.show(&context.status);
        tasks.spawn(reload.run(shutdown.clone()));
    }
    api.recovered(context.clone());
    write_address(&common.data, HTTP_ADDRESS_FILE, http)?;
    tracing::info!(node = %identity.node, run = %context.store.run(), %http, version, "ready");
    Ok(Node { context, http })
}

/// Opens the doors, if they may stand where the settings put them; what they lack there.
fn open_doors(common: &Common) -> Result<(Doors, Option<&'static str>), StartError> {
    let doors = Doors::open(tokens_path(&common.data, common.http_tokens.as_deref()))?;
    let (tokens, tls) = (doors.are_locked(), TlsFiles::of(common)?.is_some());
    let missing = check_binding(common.http, Protection { tokens, tls, insecure: common.http_insecure })?;
    Ok((doors, missing))
}

/// Whether the HTTP API may listen where the settings say, with what stands before it.
///
/// # Errors
/// [`StartError`] names the setting or the file that is at fault.
pub(crate) fn check_doors(common: &Common) -> Result<(), StartError> {
    open_doors(common).map(drop)
}

/// The memory that the machine has, where the kernel says it.
fn machine_bytes() -> Option<u64> {
    let said = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = said.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Tells the store the time as long as the clock can be trusted.
/// Tells the store the time as far as the clock can be trusted, and looks how much room there is.
async fn keep_watch(context: NodeContext) {
    let (mut watch, begun) = (ClockWatch::default(), Instant::now());
    let room = Arc::new(Mutex::new(Room::default()));
    let (shown, trusted) = (Arc::clone(&room), Arc::new(AtomicBool::new(false)));
    context.status.section("disk", move || lock(&shown).as_json());
    let is_trusted = Arc::clone(&trusted);
    context.status.section(
        "clock",
        move || serde_json::json!({"now_ms": wall_ms(), "trusted": is_trusted.load(Ordering::Relaxed)}),
    );
    loop {
        // A clock before 1970 is trusted no more than one at 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ns = watch.trusted_ns(wall, begun.elapsed());
        trusted.store(now_ns.is_some(), Ordering::Relaxed);
        if let Some(now_ns) = now_ns {
            context.store.trust_clock(now_ns);
        }
        look(&context, &room, begun.elapsed()).await;
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
    }
}

async fn look(context: &NodeContext, room: &Arc<Mutex<Room>>, steady: Duration) {
    let (asked, room) = (context.clone(), Arc::clone(room));
    let looked = tokio::task::spawn_blocking(move || {
        let disk = Disk::under(&asked.dir)?;
        let stats = asked.store.stats();
        lock(&room).look(steady, stats.log_bytes.saturating_add(stats.segment_bytes), disk);
        asked.metrics.disk_free.set(i64::try_from(disk.free_bytes).unwrap_or(i64::MAX));
        Ok::<_, io::Error>(())
    });
    match looked.await.map_err(io::Error::other) {
        Ok(Ok(())) => {}
        Ok(Err(error)) | Err(error) => {
            tracing::warn!(dir = %context.dir.display(), %error, "the disk does not say how much room it has");
        }
    }
}

fn lock(room: &Mutex<Room>) -> MutexGuard<'_, Room> {
    // A look is a few assignments.
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn open_store(common: &Common, version: &str, identity: &Identity) -> Result<Store, StartError> {
    let dir = common.data.clone();
    let options = common.store.options(identity.node, machine_bytes()).map_err(StartError::KeepTwice)?;
    let options = StoreOptions {
        commit_interval: Duration::from_millis(u64::from(common.commit_interval_ms)),
        boot: Some(Boot { started_ms: wall_ms(), program: format!("tidelog {version}"), ..Boot::default() }),
        ..options
    };
    let opened = tokio::task::spawn_blocking(move || Store::open(&dir, options)).await;
    let opened = opened
        .map_err(|error| StartError::File { path: common.data.clone(), source: io::Error::other(error) })?;
    let (store, recovery) =
        opened.map_err(|source| StartError::Store { dir: common.data.clone(), source })?;
    for finding in &recovery.findings {
        tracing::warn!(?finding, "found while recovering the log");
    }
    tracing::info!(
        records = recovery.records,
        files = recovery.files,
        created = recovery.created,
        "log recovered"
    );
    Ok(store)
}

/// Starts the edges: peers, the bridge, ingest, the rules, and what carries devices' labels.
async fn start_parts(context: &NodeContext, common: &Common, identity: &Identity) -> Result<(), StartError> {
    peering::start(context, &common.peering, identity).await?;
    let rules = Rules::load(common)?;
    mqtt::start(context, &common.mqtt, &common.ingest, &rules)?;
    rule::start(context, &rules);
    let options = common.store.options(identity.node, machine_bytes()).map_err(StartError::KeepTwice)?;
    device::carry(context, options.upkeep.retention);
    Ok(())
}

/// Writes a bound address where scripts and tests find it.
pub(crate) fn write_address(dir: &Path, name: &str, address: SocketAddr) -> Result<(), StartError> {
    let path: PathBuf = dir.join(name);
    write_whole(&path, format!("{address}\n").as_bytes(), false)
        .map_err(|source| StartError::File { path, source })
}
