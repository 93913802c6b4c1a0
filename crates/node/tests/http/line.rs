//! Line protocol from outside: a node in this process, plain requests, and InfluxDB's own Python clients.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::common::{Answer, Running};

fn ndjson(running: &Running, site: &str) -> Vec<Value> {
    let answer = running.get(&format!("/api/v1/sites/{site}/points?format=ndjson"));
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn csv(running: &Running, site: &str) -> Vec<String> {
    let answer = running.get(&format!("/api/v1/sites/{site}/points?format=csv"));
    answer.text.lines().skip(1).map(str::to_owned).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn lines_become_points_of_the_site_that_bucket_or_database_names() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "own"]);
    let body = b"# telegraf\nroom,name=lab,floor=2 temperature=21.5,open=true,count=7i,value=3u,note=\"a \\\"b\\\"\" 1\r\n\n";
    for (path, site, factor) in [
        ("/api/v2/write?org=o&bucket=plant&precision=s", "plant", 1_000_000_000),
        ("/write?db=house&rp=autogen&precision=h", "house", 3_600_000_000_000_i64),
        ("/api/v2/write", "own", 1),
    ] {
        let answer = running.post(path, "text/plain; charset=utf-8", body);
        assert_eq!((answer.status, answer.text.as_str()), (204, ""), "{path}");
        let labels = r#""{""floor"":""2"",""name"":""lab""}""#;
        let expected = [
            format!("room,{labels},{factor},i64,3"),
            format!("room_count,{labels},{factor},i64,7"),
            format!(r#"room_note,{labels},{factor},text,"a ""b""""#),
            format!("room_open,{labels},{factor},bool,true"),
            format!("room_temperature,{labels},{factor},f64,21.5"),
        ];
        assert_eq!(csv(&running, site), expected, "{path}");
    }
    assert_eq!(running.metric("tidelog_ingest_points_total{via=\"line\"}"), 15.0);
    running.stop();
}

#[test]
fn a_line_without_time_gets_the_time_of_its_arrival_in_the_requests_precision() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let before = now();
    assert_eq!(running.post("/write?db=a&precision=s", "text/plain", b"a value=1\nb value=2\n").status, 204);
    let (points, after) = (ndjson(&running, "a"), now());
    let at = points[0]["timestamp_ns"].as_u64().unwrap();
    assert_eq!((points.len(), &points[1]["timestamp_ns"], at % 1_000_000_000), (2, &json!(at), 0));
    assert!((before.as_secs()..=after.as_secs()).contains(&(at / 1_000_000_000)));
    running.stop();
}

#[test]
fn a_partial_write_keeps_the_good_lines_and_names_the_bad_ones() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let body =
        b"a value=1 1\nbad\nb value=2 2\n\nc,x=1,x=2 value=3 3\nd value=4 9223372036854775807\ne value=5 5";
    let message = "partial write: 3 of 6 lines refused, the others are stored; line 2: unable to parse \"bad\": missing fields; \
                   line 5: unable to parse \"c,x=1,x=2 value=3 3\": duplicate tags \"x\"; \
                   line 6: unable to parse \"d value=4 9223372036854775807\": timestamp 9223372036854775807 is out of range in this precision \
                   dropped=3";
    let answer = running.post("/api/v2/write?bucket=a&precision=ms", "text/plain", body);
    assert_eq!((answer.status, answer.json()), (400, json!({"code": "invalid", "message": message})));
    let answer = running.post("/write?db=b&precision=ms", "text/plain", body);
    assert_eq!((answer.status, answer.json()), (400, json!({"error": message})));
    for site in ["a", "b"] {
        assert_eq!(
            csv(&running, site),
            [r#"a,"{}",1000000,f64,1.0"#, r#"b,"{}",2000000,f64,2.0"#, r#"e,"{}",5000000,f64,5.0"#]
        );
    }
    let many = "bad\n".repeat(100);
    let answer = running.post("/write?db=c", "text/plain", many.as_bytes());
    let text = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with("partial write: 100 of 100 lines refused, nothing is stored; line 1:"),
        "{text}"
    );
    assert!(
        text.ends_with("line 8: unable to parse \"bad\": missing fields; and 92 more dropped=100"),
        "{text}"
    );
    assert_eq!(running.metric("tidelog_ingest_lines_refused_total"), 106.0);
    assert_eq!(running.metric("tidelog_ingest_refused_total{reason=\"bad_line\",via=\"line\"}"), 3.0);
    running.stop();
}

#[test]
fn compressed_bodies_are_taken_and_may_not_expand_past_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--http-body-bytes-max", "200000"]);
    let body: String = (0..5000).map(|i| format!("m,d=d{} value={i}i {i}\n", i % 10)).collect();
    assert!(body.len() > 65_536 && body.len() < 200_000);
    let post = |coding: &str, body: &[u8]| running.post_encoded("/api/v2/write?bucket=a", coding, body);
    assert_eq!(post("gzip", &gzip(body.as_bytes())).status, 204);
    let (first, second) = body.split_at(body.find("m,d=d7").unwrap());
    let members = [gzip(first.as_bytes()), gzip(second.as_bytes())].concat();
    assert_eq!(post("GZIP", &members).status, 204);
    assert_eq!(post("identity", b"m,d=d0 value=0i 0").status, 204);
    assert_eq!(ndjson(&running, "a").len(), 5000);

    let code = |answer: Answer| (answer.status, answer.json()["code"].as_str().unwrap().to_owned());
    let bomb = gzip(&vec![b'\n'; 50_000_000]);
    assert!(bomb.len() < 200_000);
    assert_eq!(code(post("gzip", &bomb)), (413, "request too large".to_owned()));
    assert_eq!(code(post("identity", &vec![b'\n'; 200_001])), (413, "request too large".to_owned()));
    assert_eq!(code(post("gzip", b"not gzip")), (400, "invalid".to_owned()));
    assert_eq!(code(post("gzip", &members[..members.len() - 9])), (400, "invalid".to_owned()));
    assert_eq!(code(post("br", b"x")), (415, "unsupported media type".to_owned()));
    // Long tags before many short fields: a small body that would be a big log.
    let fields: Vec<String> = (0..25).map(|i| format!("f{i}=1")).collect();
    let (tag, fields) = ("x".repeat(2_000), fields.join(","));
    let wide: String = (0..60).map(|i| format!("m,t={tag},u={i} {fields} 1\n")).collect();
    assert!(wide.len() < 200_000);
    assert_eq!(code(post("identity", wide.as_bytes())), (413, "request too large".to_owned()));
    assert_eq!(post("identity", b"m value=1 1").status, 204, "it goes on");
    running.stop();
}

#[test]
fn a_big_body_is_stored_whole_over_many_records() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let text = "z".repeat(900);
    let body: String =
        (0..8000).map(|i| format!("m,d=d{} text=\"{text}\",value={i}i {i}\n", i % 10)).collect();
    assert_eq!(running.post("/write?db=a", "", body.as_bytes()).status, 204);
    assert_eq!(ndjson(&running, "a").len(), 16_000);
    assert!(running.metric("tidelog_log_head_records") > 8.0);
    running.stop();
}

#[test]
fn bad_requests_are_refused_in_the_form_of_their_path() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let v2 = running.post("/api/v2/write?bucket=Upper", "text/plain", b"m value=1 1");
    assert_eq!((v2.status, &v2.json()["code"]), (400, &json!("invalid")), "{}", v2.text);
    let v1 = running.post("/write?db=a&precision=day", "text/plain", b"m value=1 1");
    assert_eq!(
        (v1.status, v1.json()),
        (400, json!({"error": "precision \"day\": there are n, u, ms, s, m and h"}))
    );
    assert_eq!(running.get("/write").status, 405);
    assert_eq!(running.post("/write?db=a", "text/plain", b"# nothing\n").status, 204);
    running.stop();
}

/// Python with InfluxDB's clients, made once and kept beside the other tools that tests need.
fn python() -> Result<PathBuf, String> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/tidelog"));
    let cache = std::env::var_os("TIDELOG_CACHE").map(PathBuf::from).or_else(home).ok_or("no HOME")?;
    let dir = cache.join("influxdb-clients-1");
    let (python, ready) = (dir.join("bin/python"), dir.join("ready"));
    if !ready.exists() {
        std::fs::create_dir_all(&cache).map_err(|error| error.to_string())?;
        let run = |program: &Path, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
            let error =
                || String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
            if output.status.success() { Ok(()) } else { Err(error()) }
        };
        let path = dir.display().to_string();
        run(Path::new("python3"), &["-m", "venv", &path])?;
        let pip =
            ["-m", "pip", "install", "-q", "--timeout", "20", "influxdb-client>=1.50,<2", "influxdb>=5.3,<6"];
        run(&python, &pip)?;
        std::fs::write(ready, b"").map_err(|error| error.to_string())?;
    }
    Ok(python)
}

const CLIENTS: &str = r#"
import sys
url, host, port = sys.argv[1:]
from influxdb_client import InfluxDBClient, Point, WritePrecision
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions
from influxdb_client.rest import ApiException
for gzip in (False, True):
    with InfluxDBClient(url=url, token="t", org="o", enable_gzip=gzip) as client:
        with client.write_api(write_options=SYNCHRONOUS) as api:
            point = Point("my room").tag("na,me", "l=a b").tag("gzip", str(gzip)) \
                .field("temp", 21.5).field("n", 7).field("on", True).field("text", 'say "x", \\ and\nmore')
            api.write(bucket="v2", record=point.time(1795248000, WritePrecision.S), write_precision=WritePrecision.S)
            api.write(bucket="v2", record={"measurement": "plain", "tags": {"gzip": str(gzip)},
                "fields": {"value": 1}, "time": 1795248000123}, write_precision=WritePrecision.MS)
with InfluxDBClient(url=url, token="t", org="o") as client:
    with client.write_api(write_options=WriteOptions(batch_size=500)) as api:
        for i in range(2000):
            api.write(bucket="batch", record=f"walk,device=d{i % 4} value={i} {i}")
    try:
        client.write_api(write_options=SYNCHRONOUS).write(bucket="part", record="a value=1 1\nbad\nb value=2 2")
        sys.exit("a partial write was no error")
    except ApiException as error:
        assert error.status == 400 and "line 2" in error.message, error
from influxdb import InfluxDBClient as V1
from influxdb.exceptions import InfluxDBClientError
for gzip in (False, True):
    v1 = V1(host=host, port=int(port), database="v1", gzip=gzip)
    assert v1.write_points([{"measurement": "cpu load", "tags": {"ho st": "a,b"}, "time": 1795248000 + gzip,
        "fields": {"value": 0.64, "n": 3, "up": False, "text": "x \"y\""}}], time_precision="s")
try:
    v1.write(["bad", "c value=3 3"], params={"db": "part"}, protocol="line")
    sys.exit("a partial write was no error")
except InfluxDBClientError as error:
    assert error.code == 400 and "partial write" in str(error), error
print("ok")
"#;

#[test]
fn the_python_clients_of_influxdb_write_unchanged() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return eprintln!("skipped: no Python with influxdb-client and influxdb: {reason}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let (host, port) = running.url.strip_prefix("http://").unwrap().split_once(':').unwrap();
    let output = Command::new(python).args(["-c", CLIENTS, &running.url, host, port]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut expected = Vec::new();
    let at =
        |metric: &str, labels: &str, at: &str, value: &str| format!("{metric},\"{{{labels}}}\",{at},{value}");
    for gzip in ["False", "True"] {
        let labels = format!(r#"""gzip"":""{gzip}"",""na_me"":""l=a b"""#);
        let s = "1795248000000000000";
        expected.push(at("my_room_n", &labels, s, "i64,7"));
        expected.push(at("my_room_on", &labels, s, "bool,true"));
        expected.push(at("my_room_temp", &labels, s, "f64,21.5"));
        let labels = format!(r#"""gzip"":""{gzip}"""#);
        expected.push(at("plain", &labels, "1795248000123000000", "i64,1"));
    }
    expected.sort();
    let mut got: Vec<String> = csv(&running, "v2");
    got.retain(|line| expected.contains(line));
    got.sort();
    assert_eq!(got, expected);
    let texts: Vec<_> =
        ndjson(&running, "v2").into_iter().filter(|p| p["metric"] == "my_room_text").collect();
    assert_eq!(texts.len(), 2);
    assert!(texts.iter().all(|p| p["value"] == "say \"x\", \\ and\nmore"), "{texts:?}");
    assert_eq!(ndjson(&running, "batch").len(), 2000);
    assert_eq!(ndjson(&running, "part").len(), 3);
    let v1 = ndjson(&running, "v1");
    assert_eq!(v1.len(), 8);
    assert_eq!(v1[0]["metric"], "cpu_load");
    assert_eq!((&v1[0]["labels"], &v1[0]["value"]), (&json!({"ho_st": "a,b"}), &json!(0.64)));
    running.stop();
}
