//! A real gateway process on loopback, and its HTTP answers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(20);
/// How long the radio may take: every rate is tried for seconds, and more than once on a busy machine.
const RADIO_MAX: Duration = Duration::from_secs(120);

/// Kills the process when it goes out of scope, however a test ends.
pub struct Gateway {
    process: Child,
    http: String,
}

impl Gateway {
    /// Starts one on `data` that dials the air at `air`, and waits until it is ready.
    pub fn start(data: &Path, air: SocketAddr, eui: &str) -> Self {
        Self::start_with(data, air, eui, &[])
    }

    /// The same with further flags.
    pub fn start_with(data: &Path, air: SocketAddr, eui: &str, flags: &[&str]) -> Self {
        Self::start_at(data, &format!("zep://{air}"), eui, flags)
    }

    /// Starts one with any radio.
    pub fn start_at(data: &Path, radio: &str, eui: &str, flags: &[&str]) -> Self {
        let address_file = data.join("http.addr");
        if address_file.exists() {
            std::fs::remove_file(&address_file).unwrap();
        }
        let process = Command::new(env!("CARGO_BIN_EXE_tidelog-gateway"))
            .arg("--data")
            .arg(data)
            .args(["--http", "127.0.0.1:0", "--log-level", "warn"])
            .args(["--radio", radio, "--eui", eui])
            .args(flags)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut gateway = Self { process, http: String::new() };
        let deadline = Instant::now() + START_MAX;
        while gateway.http.is_empty() {
            assert!(gateway.process.try_wait().unwrap().is_none(), "the gateway ended while starting");
            assert!(Instant::now() < deadline, "the gateway did not start in {START_MAX:?}");
            std::thread::sleep(Duration::from_millis(10));
            gateway.http = std::fs::read_to_string(&address_file).unwrap_or_default().trim().to_owned();
        }
        gateway
    }

    /// Ends it without a word, as a power cut would.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends it politely; the time it took, and whether it said that all was well.
    pub fn terminate(mut self) -> (Duration, bool) {
        let asked = Instant::now();
        let kill = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(kill.success());
        let status = self.process.wait().unwrap();
        (asked.elapsed(), status.success())
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    pub fn get(&self, path: &str) -> String {
        let mut response = ureq::get(format!("http://{}{path}", self.http)).call().unwrap();
        response.body_mut().read_to_string().unwrap()
    }

    /// All points of a metric, one NDJSON line each.
    pub fn points(&self, metric: &str) -> Vec<String> {
        let text = self.get(&format!("/api/v1/sites/default/points?match={metric}&format=ndjson"));
        text.lines().map(str::to_owned).collect()
    }

    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.get("/api/v1/status")).unwrap()
    }

    /// The radio's section of the status, once it says that this much is acknowledged to its first device.
    pub fn radio_acked(&self, seq: u64) -> serde_json::Value {
        self.radio_once(|radio| radio["devices"][0]["acked_seq"] == seq)
    }

    /// The radio's section of the status, once it knows this many devices.
    pub fn radio_with_devices(&self, least: usize) -> serde_json::Value {
        self.radio_once(|radio| radio["devices"].as_array().is_some_and(|devices| devices.len() >= least))
    }

    /// The radio's section of the status, once `ready` says so of it.
    pub fn radio_once(&self, ready: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + RADIO_MAX;
        loop {
            let radio = self.status()["radio"].take();
            if ready(&radio) {
                return radio;
            }
            assert!(Instant::now() < deadline, "still: {radio:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Position of the last record of the log.
    pub fn head(&self) -> u64 {
        self.status()["head"].as_u64().unwrap()
    }

    /// The sum of the samples of a metric whose line contains all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let text = self.get("/metrics");
        let samples =
            text.lines().filter(|line| line.starts_with(name) && labels.iter().all(|l| line.contains(l)));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Waits until the metric has at least this value.
    pub fn wait_for_metric(&self, name: &str, labels: &[&str], least: u64) {
        let deadline = Instant::now() + START_MAX;
        while self.metric(name, labels) < least {
            assert!(
                Instant::now() < deadline,
                "{name} {labels:?} stays below {least}:\n{}",
                self.get("/metrics")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already; there is nobody left to tell.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
