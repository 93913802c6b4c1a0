//! A gateway under a limit of memory that kills: the system counts all that it takes, the program's own pages and its files' among it, and
//! ends what goes beyond. Needs the released binaries in `TIDELOG_BIN_DIR` and the right to make a control group.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::operator::Operator;
use support::{bin_dir, until_within};
use tidelog_record::DeviceId;
use tidelog_record::uplink::{Reading, Sample};
use tidelog_sim::air::{Air, AirOptions};
use tidelog_sim::sensor::{Gateways, SensorOptions, VirtualSensor};

const SITE: &str = "plant";
/// What a gateway with the sensors below may take, in bytes.
const LIMIT_BYTES: u64 = 24 * 1024 * 1024;
const SENSORS: u8 = 100;
/// Series of each sensor: a thousand in all.
const METRICS: usize = 10;
const SAMPLES: u64 = 30;
const WITHIN: Duration = Duration::from_secs(180);
const FIRST_MS: i64 = 1_600_000_000_000;
const GATEWAY: DeviceId = DeviceId([2, 0, 0, 0, 0, 0, 0, 1]);

/// A control group whose processes may take so much memory together.
struct Limited(PathBuf);

impl Limited {
    /// `None`, with a word about it, where no group can be made.
    fn to(bytes: u64) -> Option<Self> {
        let name = format!("tidelog-{}", std::process::id());
        let found = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        for (root, limit) in found {
            let group = Path::new(root).join(&name);
            if fs::create_dir(&group).is_ok() {
                let group = Self(group);
                if fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                    return Some(group);
                }
            }
        }
        eprintln!(
            "skipped: no control group for memory can be made here (needs root and a writable /sys/fs/cgroup)"
        );
        None
    }

    /// A command line that begins within the group.
    fn line(&self, words: &[&str]) -> Vec<String> {
        let enter = format!("echo $$ > {} && exec \"$@\"", self.0.join("cgroup.procs").display());
        ["sh", "-c", &enter, "sh"].iter().chain(words).map(|word| (*word).to_owned()).collect()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// As many samples of all metrics.
struct Walk;

impl tidelog_sim::sensor::Feed for Walk {
    fn sample(&self, index: u64) -> Option<Sample> {
        let number = i64::try_from(index).ok().filter(|_| index < SAMPLES)?;
        let mut values = [None; 16];
        values[..METRICS].fill(Some(Reading::I64(number)));
        Some(Sample { ticks: FIRST_MS + number * 1_000, values })
    }
}

#[test]
fn a_gateway_with_a_hundred_sensors_and_a_thousand_series_lives_under_a_limit_that_kills() {
    let Some(bin_dir) = bin_dir() else { return };
    let Some(group) = Limited::to(LIMIT_BYTES) else { return };
    let greedy = group.line(&["sh", "-c", "head -c 64M /dev/zero | tail -c 64M | wc -c"]);
    let taken = Command::new(&greedy[0]).args(&greedy[1..]).output().unwrap();
    if taken.stdout.trim_ascii() == b"67108864" {
        return eprintln!("skipped: the limit does not kill here (swap, perhaps), so nothing would be shown");
    }

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let air = runtime.block_on(Air::start(AirOptions { seed: 1, ..AirOptions::default() })).unwrap();
    let operator = Operator::new(bin_dir);
    operator.said(&["ca", "init"]);
    let mut flags = operator.issue(&["gateway", "--site", SITE]);
    let (eui, radio) = (GATEWAY.to_string(), format!("zep://{}", air.address()));
    let own = ["--site", SITE, "--eui", &eui, "--radio", &radio, "--store-memory-mib", "8"];
    flags.extend(own.map(str::to_owned));
    let program = operator.bin_dir.join("tidelog-gateway").display().to_string();
    let mut gateway = operator.start_program(&group.line(&[&program]), "gateway", &flags, None);
    let pid = gateway.process.0.id();

    let sensors: Vec<VirtualSensor> = runtime.block_on(async {
        let mut sensors = Vec::new();
        for n in 0..SENSORS {
            let options = SensorOptions {
                metrics: (0..METRICS).map(|m| (format!("metric_{m}"), None)).collect(),
                pace_hz: Some(2.0),
                ..SensorOptions::fast(
                    DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, n]),
                    air.address(),
                    Gateways { primary: GATEWAY, backup: None },
                    u64::from(n),
                )
            };
            sensors.push(VirtualSensor::start(options, Walk).await.unwrap());
        }
        sensors
    });
    until_within(WITHIN, "an acknowledgement of every sample", || {
        assert!(gateway.process.runs(), "the gateway was killed");
        sensors.iter().all(|sensor| sensor.acknowledged() >= SAMPLES).then_some(())
    });
    let url = format!("{}/api/v1/sites/{SITE}/aggregate?fn=count&format=csv", gateway.url());
    let counted = ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
    let of_sensors: Vec<&str> = counted.lines().filter(|line| line.contains("metric_")).collect();
    assert_eq!(of_sensors.len(), usize::from(SENSORS) * METRICS, "{counted}");
    let count = format!(",{SAMPLES}");
    assert!(of_sensors.iter().all(|line| line.contains(&count)), "{counted}");
    assert!(gateway.process.runs(), "the gateway was killed");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("RssAnon")) {
        println!("{line}");
    }
    drop(sensors);
    gateway.end();
}
