//! What many sensors cost a gateway: virtual ones with the real firmware, over an air that loses frames, at a process of its own. When they have
//! sensed for so long, everything must be in the log once; then it is printed what the gateway took for it.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use tidelog_record::DeviceId;
use tidelog_record::uplink::{Reading, Sample};
use tidelog_sim::air::{Air, AirOptions};
use tidelog_sim::sensor::{Feed, Gateways, SensorOptions, VirtualSensor};

use crate::http::Connection;
use crate::process::Process;

const GATEWAY: DeviceId = DeviceId([2, 0, 0, 0, 0, 0, 0, 1]);
const KEY: &str = "00112233445566778899aabbccddeeff";
const METRICS: [&str; 4] = ["count", "temperature", "humidity", "battery_volts"];
/// A batch each ten seconds, of as many samples as a frame has room for.
const LINGER: Duration = Duration::from_secs(10);
const SAMPLES_PER_BATCH: u64 = 4;
const FIRST_MS: i64 = 1_600_000_000_000;
/// How long everything may take to arrive when nothing is sensed any more.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(500);
const MIB: f64 = 1024.0 * 1024.0;

/// How many sense, for how long
#[derive(Args)]
pub struct Sensors {
    /// Folder of the daemons; by default where this program lies
    #[arg(long, env = "TIDELOG_BIN_DIR", value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// Sensors, each with a batch of four samples of four metrics every ten seconds
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..))]
    sensors: u16,

    /// How long they sense
    #[arg(long, value_name = "MINUTES", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,

    /// Frames that are lost, of one
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    loss: f64,

    /// Folder for the gateway's files
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,

    /// Where all dice begin
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// So many samples.
struct Counting(u64);

impl Feed for Counting {
    fn sample(&self, index: u64) -> Option<Sample> {
        let n = i64::try_from(index).ok().filter(|_| index < self.0)?;
        let mut values = [None; 16];
        let hundredths = |whole: i64| Some(Reading::F64(whole as f64 / 100.0));
        let wander = n * 7 % 23;
        values[0] = Some(Reading::I64(n));
        values[1] = hundredths(2_100 + wander);
        values[2] = hundredths(4_500 - 3 * wander);
        values[3] = hundredths(301 - n / 200);
        Some(Sample { ticks: FIRST_MS + n * 2_500, values })
    }
}

fn start(binary: &Path, dir: &Path, radio: &str) -> Result<Process, Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    let mut command = Command::new(binary);
    command.arg("--data").arg(dir).args(["--http", "127.0.0.1:0", "--log-level", "warn"]);
    command.args(["--radio", radio, "--eui", &GATEWAY.to_string()]).env("TIDELOG_RADIO_KEY", KEY);
    let address = dir.join("http.addr");
    Process::start(command, dir, || fs::read_to_string(&address).ok()?.trim().parse().ok())
}

pub fn sensors(options: &Sensors) -> Result<(), Box<dyn Error>> {
    let beside = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
    let bin_dir = options.bin_dir.clone().unwrap_or(beside);
    let each = options.minutes * 60 / LINGER.as_secs() * SAMPLES_PER_BATCH;
    let samples = each * u64::from(options.sensors);
    println!(
        "{} sensors at one gateway for {} min: {samples} samples of {} metrics; {} % of frames lost, link security on",
        options.sensors,
        options.minutes,
        METRICS.len(),
        options.loss * 100.0
    );
    let runtime = tokio::runtime::Runtime::new()?;
    let air = AirOptions { loss: options.loss, seed: options.seed, ..AirOptions::default() };
    let air = runtime.block_on(Air::start(air))?;
    let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.dir)?;
    let radio = format!("zep://{}", air.address());
    let process = start(&bin_dir.join("tidelog-gateway"), &dir.path().join("gateway"), &radio)?;
    let begun = Instant::now();
    let sensors = runtime.block_on(async {
        let mut sensors = Vec::new();
        for n in 0..options.sensors {
            let [high, low] = n.to_be_bytes();
            let device = DeviceId([2, 0x12, 0x4b, 0, 0, 0, high, low]);
            let gateways = Gateways { primary: GATEWAY, backup: None };
            let seed = options.seed.wrapping_add(u64::from(n));
            let options = SensorOptions {
                metrics: METRICS
                    .iter()
                    .zip([None, Some(2), Some(2), Some(2)])
                    .map(|(m, s)| ((*m).to_owned(), s))
                    .collect(),
                pace_hz: Some(SAMPLES_PER_BATCH as f64 / LINGER.as_secs_f64()),
                linger: LINGER,
                key: Some(KEY.parse()?),
                ..SensorOptions::fast(device, air.address(), gateways, seed)
            };
            sensors.push(VirtualSensor::start(options, Counting(each)).await?);
        }
        Ok::<_, Box<dyn Error>>(sensors)
    })?;

    let sensing = Duration::from_secs(options.minutes * 60);
    loop {
        std::thread::sleep(LOOK_EVERY);
        let acknowledged: u64 = sensors.iter().map(VirtualSensor::acknowledged).sum();
        if acknowledged >= samples {
            break;
        }
        if begun.elapsed() > sensing + PATIENCE {
            return Err(format!("{acknowledged} of {samples} samples are acknowledged").into());
        }
    }
    let took = begun.elapsed();
    let cost = process.cost()?;
    let mut gateway = Connection::open(process.address)?;
    let points = gateway.get("/api/v1/sites/default/points?format=csv&match=count")?.body;
    let lines: Vec<&str> = std::str::from_utf8(&points)?.lines().skip(1).collect();
    let distinct: BTreeSet<&&str> = lines.iter().collect();
    let lost: u64 = sensors.iter().map(|sensor| sensor.progress().lost).sum();
    let silences: u64 = sensors.iter().map(|sensor| sensor.progress().counters.silences).sum();
    println!(
        "in the log {}, of which {} are there once more; lost in flash {lost}; requests without answer {silences}",
        lines.len(),
        lines.len() - distinct.len()
    );
    println!(
        "gateway: at most {:.1} MiB resident, {:.1} s of processor in {:.0} s ({:.2} % of one), {:.0} us a sample, {:.2} bytes written a point",
        cost.peak_rss_bytes as f64 / MIB,
        cost.cpu.as_secs_f64(),
        took.as_secs_f64(),
        100.0 * cost.cpu.as_secs_f64() / took.as_secs_f64(),
        cost.cpu.as_secs_f64() * 1e6 / samples as f64,
        cost.written_bytes as f64 / (samples as f64 * METRICS.len() as f64)
    );
    if lines.len() as u64 != samples || distinct.len() != lines.len() || lost > 0 {
        return Err("something is lost or there twice".into());
    }
    process.end()?;
    Ok(())
}
