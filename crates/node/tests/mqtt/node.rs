//! A node without its other parts: a store, its rules, and whatever `mqtt::start` makes of the settings.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use tempfile::TempDir;
use tidelog_node::rule::{self, Rules};
use tidelog_node::settings::Common;
use tidelog_node::{Metrics, NodeContext, StartError, StatusBoard, mqtt};
use tidelog_record::{Batch, DeviceId, NodeId, Origin, Series, SiteName, Value};
use tidelog_store::{Position, Store, StoreOptions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const ALL_TIME: RangeInclusive<i64> = i64::MIN..=i64::MAX;

pub struct TestNode {
    pub context: NodeContext,
    pub dir: Arc<TempDir>,
    pub id: u8,
}

impl TestNode {
    /// A node in a directory of its own, with these flags.
    pub fn start(id: u8, flags: &[&str]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), id, flags)
    }

    pub fn start_in(dir: Arc<TempDir>, id: u8, flags: &[&str]) -> Self {
        Self::try_start_in(dir, id, flags).unwrap()
    }

    pub fn try_start_in(dir: Arc<TempDir>, id: u8, flags: &[&str]) -> Result<Self, StartError> {
        let context = context(dir.path(), id);
        let common = settings(flags);
        let rules = Rules::load(&common)?;
        mqtt::start(&context, &common.mqtt, &common.ingest, &rules)?;
        rule::start(&context, &rules);
        Ok(Self { context, dir, id })
    }

    /// Ends it in order.
    pub async fn stop(self) -> Arc<TempDir> {
        self.context.shutdown.cancel();
        self.context.tasks.close();
        self.context.tasks.wait().await;
        self.context.store.close().unwrap();
        self.dir
    }

    pub fn site() -> SiteName {
        "plant".parse().unwrap()
    }

    /// Appends records as sensors and HTTP would: every second one by one of three devices.
    pub async fn append(&self, numbers: std::ops::Range<u64>) {
        let store = self.context.store.clone();
        let id = self.id;
        let appended = tokio::task::spawn_blocking(move || {
            let (answer, answers) = std::sync::mpsc::channel();
            let mut asked = 0;
            for number in numbers {
                let body = batch(id, number).encode().unwrap();
                let answer = answer.clone();
                store.append(&Self::site(), body, move |result| answer.send(result.map(drop)).unwrap());
                asked += 1;
            }
            answers.iter().take(asked).for_each(|result| result.unwrap());
        });
        appended.await.unwrap();
    }

    /// All points of the site, as text that can be compared.
    pub fn points(&self) -> Vec<String> {
        let scanned = self.context.store.scan(&Self::site(), &|_| true, ALL_TIME).unwrap();
        let each = scanned.iter().flat_map(|(series, points)| {
            points.iter().map(move |(timestamp, value)| format!("{series} {timestamp} {value:?}"))
        });
        each.collect()
    }

    pub fn status(&self, section: &str) -> serde_json::Value {
        self.context.status.read()[section].clone()
    }

    pub fn metric(&self, line: &str) -> u64 {
        let text = String::from_utf8(self.context.metrics.text().unwrap()).unwrap();
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' ')?.parse::<f64>().ok());
        format!("{:.0}", found.unwrap_or_default()).parse().unwrap()
    }

    /// Waits until the bridge's cursor, as it is saved, stands at the head of the log.
    pub async fn wait_until_published(&self) {
        let store = &self.context.store;
        eventually("the cursor reaches the head", || {
            store.cursor(mqtt::CURSOR).unwrap() == store.head() && store.head() > Position::ZERO
        })
        .await;
        let status = self.status("mqtt");
        assert_eq!((&status["lag_records"], &status["in_flight"]), (&0.into(), &0.into()), "{status}");
    }
}

pub fn context(dir: &Path, id: u8) -> NodeContext {
    let (store, _) = Store::open(dir, StoreOptions::new(NodeId([id; 16]))).unwrap();
    NodeContext {
        store,
        metrics: Arc::new(Metrics::new().unwrap()),
        site: "default".parse().unwrap(),
        dir: dir.to_path_buf(),
        held: Default::default(),
        ways: Default::default(),
        issuing: Default::default(),
        rooms: Default::default(),
        status: StatusBoard::default(),
        shutdown: CancellationToken::new(),
        tasks: TaskTracker::new(),
    }
}

pub fn settings(flags: &[&str]) -> Common {
    let command = Common::augment_args(Command::new("test"));
    let matches = command.try_get_matches_from(["test"].iter().chain(flags)).unwrap();
    Common::from_arg_matches(&matches).unwrap()
}

/// What node `id` writes as its record number `number`.
pub fn batch(id: u8, number: u64) -> Batch {
    let timestamp = 1_700_000_000_000_000_000 + i64::try_from(number).unwrap();
    let device = DeviceId([id, 0, 0, 0, 0, 0, 0, u8::try_from(number % 3).unwrap()]);
    let origin = number.is_multiple_of(2).then_some(Origin { device, epoch: 1, first_seq: number, count: 1 });
    let series = |metric: &str| Series::new(metric, [("device", device.to_string())]).unwrap();
    let values = vec![
        (series("count"), vec![(timestamp, Value::I64(i64::try_from(number).unwrap()))]),
        (series("level"), vec![(timestamp, Value::F64(f64::from(u32::try_from(number).unwrap()) / 8.0))]),
    ];
    Batch { authored_ms: 1_700_000_000_000, origin, series: values }
}

/// Waits for something that has to come by itself.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("30 s passed and not yet: {what}");
}
