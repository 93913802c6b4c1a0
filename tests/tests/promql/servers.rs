//! The two servers, each with the same points, each ended with the test.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::points::{Kind, Series};

const WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Points in one post.
const POST_POINTS: usize = 5_000;

struct Server {
    child: Child,
    url: String,
    agent: ureq::Agent,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

impl Server {
    fn get(&self, path: &str) -> Value {
        let mut response = self.agent.get(format!("{}{path}", self.url)).call().unwrap();
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().unwrap();
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }
}

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

pub struct Prometheus(Server);

impl Prometheus {
    /// Makes blocks of the points with `promtool` and serves them.
    pub fn start(points: &[Series]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (text, data) = (folder.path().join("points.txt"), folder.path().join("data"));
        std::fs::write(&text, open_metrics(points)).unwrap();
        let made = Command::new("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([&text, &data])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self::serve(folder, |_| "global: {}\n".to_owned())
    }

    /// Looks at itself each second, and hands what it sees on to `receiver`.
    pub fn writing_to(receiver: &str) -> Self {
        Self::serve(tempfile::tempdir().unwrap(), |port| {
            let target = format!("[{{targets: ['127.0.0.1:{port}']}}]");
            format!(
                "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: self, static_configs: {target}}}]\n\
                 remote_write: [{{url: '{receiver}'}}]\n"
            )
        })
    }

    /// Serves what lies in `folder/data`, as the configuration says that is made of its port.
    fn serve(folder: tempfile::TempDir, configured: impl FnOnce(u16) -> String) -> Self {
        let (data, configuration) = (folder.path().join("data"), folder.path().join("prometheus.yml"));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        std::fs::write(&configuration, configured(port)).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--storage.tsdb.retention.time=100y")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server =
            Server { child, url: format!("http://127.0.0.1:{port}"), agent: agent(), _folder: folder };
        until("prometheus is ready", || {
            server.agent.get(format!("{}/-/ready", server.url)).call().ok().filter(|r| r.status() == 200)
        });
        Self(server)
    }

    pub fn get(&self, path: &str) -> Value {
        self.0.get(path)
    }

    pub fn url(&self) -> &str {
        &self.0.url
    }
}

/// The points as `promtool` reads them.
fn open_metrics(points: &[Series]) -> String {
    let mut text = String::new();
    for series in points {
        let labels: Vec<String> = series
            .labels
            .iter()
            .map(|(name, value)| {
                format!(
                    "{name}=\"{}\"",
                    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
                )
            })
            .collect();
        for (ms, value) in &series.points {
            let value = match *value {
                v if v.is_nan() => "NaN".to_owned(),
                f64::INFINITY => "+Inf".to_owned(),
                f64::NEG_INFINITY => "-Inf".to_owned(),
                v => v.to_string(),
            };
            writeln!(
                text,
                "{}{{{}}} {value} {}.{:03}",
                series.metric,
                labels.join(","),
                ms / 1000,
                ms % 1000
            )
            .unwrap();
        }
    }
    text.push_str("# EOF\n");
    text
}

pub struct Tidelog(Server);

impl Tidelog {
    /// Starts a cloud node and posts the points.
    pub fn start(bin_dir: &Path, points: &[Series]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let child = Command::new(bin_dir.join("tidelog-cloud"))
            .env_clear()
            .args(["--http", "127.0.0.1:0", "--log-level", "warn", "--data"])
            .arg(&data)
            .spawn()
            .unwrap();
        let address = until("the node is ready", || std::fs::read_to_string(data.join("http.addr")).ok());
        let server =
            Server { child, url: format!("http://{}", address.trim()), agent: agent(), _folder: folder };
        let flat: Vec<Value> = points
            .iter()
            .flat_map(|series| series.points.iter().map(|(ms, value)| point(series, *ms, *value)))
            .collect();
        for part in flat.chunks(POST_POINTS) {
            let body = json!({"points": part}).to_string();
            let mut response = server
                .agent
                .post(format!("{}/api/v1/sites/default/points", server.url))
                .header("content-type", "application/json")
                .send(body)
                .unwrap();
            assert_eq!(response.status(), 200, "{}", response.body_mut().read_to_string().unwrap());
        }
        Self(server)
    }

    pub fn get(&self, path: &str) -> Value {
        self.0.get(path)
    }

    pub fn url(&self) -> &str {
        &self.0.url
    }
}

fn point(series: &Series, ms: i64, value: f64) -> Value {
    let labels: serde_json::Map<String, Value> =
        series.labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let value_json = match (series.kind, value) {
        (Kind::Truth, v) => json!(v != 0.0),
        #[allow(clippy::cast_possible_truncation, reason = "a whole number of the test's own")]
        (Kind::Integer, v) => json!(v as i64),
        (Kind::Float, v) if v.is_nan() => json!("NaN"),
        (Kind::Float, f64::INFINITY) => json!("+Inf"),
        (Kind::Float, f64::NEG_INFINITY) => json!("-Inf"),
        (Kind::Float, v) => json!(v),
    };
    let mut point =
        json!({"metric": series.metric, "labels": labels, "timestamp_ms": ms, "value": value_json});
    if series.kind == Kind::Float {
        point["type"] = json!("f64");
    }
    point
}
