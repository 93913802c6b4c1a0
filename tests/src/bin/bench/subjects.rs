//! Who is measured: Tidelog, and its peers as Debian packages them. How each is started, written to, and asked the five questions.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::forms::{Form, device_name};
use crate::http::{Connection, quoted};
use crate::process::{Process, free_address};
use crate::workload::POINTS_PER_SAMPLE;

/// A server under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Subject {
    Tidelog,
    VictoriaMetrics,
    Influxdb,
    Prometheus,
}

/// The questions, over what was written between `start` and `end` (Unix seconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// The last value of one metric of every device.
    Q1,
    /// One device, one metric: the mean of each minute.
    Q2,
    /// All devices, one metric: mean and greatest of each hour, by device.
    Q3,
    /// How many points there are.
    Q4,
    /// One device, all metrics, one hour as it was written.
    Q5,
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub start: u64,
    pub end: u64,
    /// A device to ask for.
    pub device: usize,
}

impl Question {
    pub const ALL: [Self; 5] = [Self::Q1, Self::Q2, Self::Q3, Self::Q4, Self::Q5];

    pub fn says(self) -> &'static str {
        match self {
            Self::Q1 => "Q1 last value of every device",
            Self::Q2 => "Q2 one device, 1-minute mean over all",
            Self::Q3 => "Q3 all devices, hourly mean and max",
            Self::Q4 => "Q4 count of all points",
            Self::Q5 => "Q5 one device, one hour raw",
        }
    }
}

/// How long Tidelog may take to pack all that it has.
const PACKS_WITHIN: Duration = Duration::from_secs(90);
/// What stays in its log then, in bytes: what it wrote about packing.
const LOG_BYTES_LEFT_MAX: u64 = 64 * 1024;

fn log_bytes(process: &Process) -> Result<u64, Box<dyn Error>> {
    let status = Connection::open(process.address)?.get("/api/v1/status")?.body;
    let status: serde_json::Value = serde_json::from_slice(&status)?;
    status["store"]["log_bytes"].as_u64().ok_or_else(|| "the status says nothing about the log".into())
}

impl Subject {
    pub const ALL: [Self; 4] = [Self::Tidelog, Self::VictoriaMetrics, Self::Influxdb, Self::Prometheus];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tidelog => "tidelog",
            Self::VictoriaMetrics => "victoria-metrics",
            Self::Influxdb => "influxdb",
            Self::Prometheus => "prometheus",
        }
    }

    /// Whether its program is there. Tidelog's is built by the one who asks, so it always should be.
    pub fn is_installed(self) -> bool {
        let Some(program) = self.program() else { return true };
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    }

    fn program(self) -> Option<&'static str> {
        match self {
            Self::Tidelog => None,
            Self::VictoriaMetrics => Some("victoria-metrics"),
            Self::Influxdb => Some("influxd"),
            Self::Prometheus => Some("prometheus"),
        }
    }

    pub fn form(self) -> Form {
        if self == Self::Prometheus { Form::RemoteWrite } else { Form::Lines }
    }

    /// Where bodies are posted, and the header lines that go with them.
    pub fn write_path(self) -> (&'static str, &'static str) {
        match self {
            Self::Tidelog => ("/api/v2/write?bucket=bench&precision=s", ""),
            Self::VictoriaMetrics | Self::Influxdb => ("/write?db=bench&precision=s", ""),
            Self::Prometheus => (
                "/api/v1/write",
                "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n",
            ),
        }
    }

    /// Starts it on an empty folder.
    pub fn start(self, bin_dir: &Path, dir: &Path) -> Result<Process, Box<dyn Error>> {
        match self {
            Self::Tidelog => start_tidelog(&bin_dir.join("tidelog-cloud"), dir),
            Self::VictoriaMetrics => start_victoria_metrics(dir),
            Self::Influxdb => start_influxdb(dir),
            Self::Prometheus => start_prometheus(dir),
        }
    }

    /// How an answer to [`Question::Q4`] says that there are `points`.
    pub fn says_points(self, points: u64) -> String {
        if self == Self::Influxdb { (points / POINTS_PER_SAMPLE).to_string() } else { points.to_string() }
    }

    /// Asks for what it would do in its own time: merge.
    pub fn settle(self, process: &Process) -> Result<(), Box<dyn Error>> {
        process.idle()?;
        if self == Self::VictoriaMetrics {
            let mut connection = Connection::open(process.address)?;
            connection.get("/internal/force_flush")?;
            connection.get("/internal/force_merge")?;
            process.idle()?;
        }
        if self == Self::Tidelog {
            // It packs what is left when nothing has come for half a minute.
            let begun = Instant::now();
            while begun.elapsed() < PACKS_WITHIN && log_bytes(process)? > LOG_BYTES_LEFT_MAX {
                std::thread::sleep(Duration::from_millis(500));
            }
            process.idle()?;
        }
        Ok(())
    }

    /// The path of a question in PromQL about one device, or none where it is not spoken.
    pub fn asks_range(self, written: Written) -> Option<String> {
        match self {
            Self::Tidelog => {
                let path = Self::Prometheus.asks(Question::Q2, written)?;
                Some(format!("/prometheus/bench{path}"))
            }
            Self::VictoriaMetrics | Self::Prometheus => self.asks(Question::Q2, written),
            Self::Influxdb => None,
        }
    }

    /// The path that asks a question, or none where there is no way to ask it.
    pub fn asks(self, question: Question, written: Written) -> Option<String> {
        let Written { start, end, device } = written;
        let (device, hour_end) = (device_name(device), (start + 3_600).min(end));
        let (span, range) = (end - start + 1, format!("start={start}&end={end}"));
        Some(match self {
            Self::Tidelog => {
                let one = quoted(&format!("env_temperature{{device=\"{device}\"}}"));
                let all = quoted(&format!("{{device=\"{device}\"}}"));
                let path = "/api/v1/sites/bench";
                match question {
                    Question::Q1 => format!("{path}/last?match=env_temperature"),
                    Question::Q2 => format!("{path}/aggregate?match={one}&{range}&step=60&fn=mean"),
                    Question::Q3 => {
                        format!(
                            "{path}/aggregate?match=env_temperature&{range}&step=3600&by=device&fn=mean,max"
                        )
                    }
                    Question::Q4 => format!("{path}/aggregate?fn=count&by="),
                    Question::Q5 => format!("{path}/points?match={all}&start={start}&end={hour_end}"),
                }
            }
            Self::VictoriaMetrics | Self::Prometheus => {
                let at_end = |query: &str| format!("/api/v1/query?query={}&time={end}", quoted(query));
                let steps = |query: &str, step: u64| {
                    format!("/api/v1/query_range?query={}&{range}&step={step}&nocache=1", quoted(query))
                };
                let one = format!("env_temperature{{device=\"{device}\"}}");
                match question {
                    Question::Q1 => at_end("env_temperature"),
                    Question::Q2 => steps(&format!("avg_over_time({one}[1m])"), 60),
                    Question::Q3 if self == Self::VictoriaMetrics => steps(
                        "aggr_over_time((\"avg_over_time\",\"max_over_time\"), env_temperature[1h])",
                        3_600,
                    ),
                    Question::Q3 => steps(
                        "label_replace(avg_over_time(env_temperature[1h]),\"fn\",\"mean\",\"\",\"\") or label_replace(max_over_time(env_temperature[1h]),\"fn\",\"max\",\"\",\"\")",
                        3_600,
                    ),
                    Question::Q4 => {
                        let of = |metric| format!("sum(count_over_time(env_{metric}[{span}s]))");
                        at_end(&["temperature", "humidity", "battery", "light"].map(of).join("+"))
                    }
                    Question::Q5 if self == Self::VictoriaMetrics => format!(
                        "/api/v1/export?match[]={}&start={start}&end={hour_end}",
                        quoted(&format!("{{device=\"{device}\"}}"))
                    ),
                    Question::Q5 => {
                        let query = format!("{{device=\"{device}\"}}[{}s]", hour_end - start);
                        format!("/api/v1/query?query={}&time={hour_end}", quoted(&query))
                    }
                }
            }
            Self::Influxdb => {
                let between = format!("time >= {start}s AND time <= {end}s");
                let query = match question {
                    Question::Q1 => "SELECT last(temperature) FROM env GROUP BY device".to_owned(),
                    Question::Q2 => format!(
                        "SELECT mean(temperature) FROM env WHERE device='{device}' AND {between} GROUP BY time(1m)"
                    ),
                    Question::Q3 => format!(
                        "SELECT mean(temperature), max(temperature) FROM env WHERE {between} GROUP BY time(1h), device"
                    ),
                    Question::Q4 => "SELECT count(*) FROM env".to_owned(),
                    Question::Q5 => format!(
                        "SELECT * FROM env WHERE device='{device}' AND time >= {start}s AND time <= {hour_end}s"
                    ),
                };
                format!("/query?db=bench&epoch=ms&q={}", quoted(&query))
            }
        })
    }
}

/// Starts it, also on a folder that it had before.
pub fn start_tidelog(binary: &Path, dir: &Path) -> Result<Process, Box<dyn Error>> {
    let mut command = Command::new(binary);
    command.args(["--http", "127.0.0.1:0", "--log-level", "warn", "--data"]).arg(dir);
    let address = dir.join("http.addr");
    // Of the life before.
    if let Err(error) = std::fs::remove_file(&address)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error.into());
    }
    Process::start(command, dir, || std::fs::read_to_string(&address).ok()?.trim().parse().ok())
}

fn start_victoria_metrics(dir: &Path) -> Result<Process, Box<dyn Error>> {
    let address = free_address()?;
    let mut command = Command::new("victoria-metrics");
    command.arg(format!("-storageDataPath={}", dir.display())).arg("-retentionPeriod=100y");
    command.arg(format!("-httpListenAddr={address}"));
    Process::start_at(command, dir, address, "/health")
}

fn start_influxdb(dir: &Path) -> Result<Process, Box<dyn Error>> {
    let address = free_address()?;
    let mut command = Command::new("influxd");
    command.args(["-config", "/dev/null"]);
    for (name, folder) in [("META_DIR", "meta"), ("DATA_DIR", "data"), ("DATA_WAL_DIR", "wal")] {
        command.env(format!("INFLUXDB_{name}"), dir.join(folder));
    }
    command.env("INFLUXDB_HTTP_BIND_ADDRESS", address.to_string());
    command.env("INFLUXDB_BIND_ADDRESS", free_address()?.to_string());
    for (name, value) in [
        ("REPORTING_DISABLED", "true"),
        ("HTTP_LOG_ENABLED", "false"),
        ("DATA_QUERY_LOG_ENABLED", "false"),
        ("MONITOR_STORE_ENABLED", "false"),
        // What it does when nothing comes, it shall do soon.
        ("DATA_CACHE_SNAPSHOT_WRITE_COLD_DURATION", "2s"),
        ("DATA_COMPACT_FULL_WRITE_COLD_DURATION", "5s"),
    ] {
        command.env(format!("INFLUXDB_{name}"), value);
    }
    let process = Process::start_at(command, dir, address, "/ping")?;
    let create = format!("/query?q={}", quoted("CREATE DATABASE bench"));
    let answer = Connection::open(address)?.post(&create, "", &[])?;
    if answer.status == 200 { Ok(process) } else { Err("no database was made".into()) }
}

fn start_prometheus(dir: &Path) -> Result<Process, Box<dyn Error>> {
    let address = free_address()?;
    std::fs::create_dir_all(dir)?;
    let config = dir.join("prometheus.yml");
    std::fs::write(&config, "storage: {tsdb: {out_of_order_time_window: 24h}}\n")?;
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
    command.arg(format!("--web.listen-address={address}"));
    command.args([
        "--storage.tsdb.retention.time=100y",
        "--web.enable-remote-write-receiver",
        "--log.level=warn",
    ]);
    Process::start_at(command, dir, address, "/-/ready")
}
