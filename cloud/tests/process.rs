//! The daemon as a real process: what it takes from its command line, what it survives, how it ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use tidelog_node::door::{Entry, Scope, Sites, Token, TokenFileError, change, tokens_path};

/// Longest wait for a process to be ready or to end.
const PATIENCE: Duration = Duration::from_secs(30);

fn daemon() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog-cloud"));
    command.env_clear();
    command
}

fn output(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

struct Running {
    child: Child,
    url: String,
    /// A file, and no pipe: a process that says much would wait for somebody to read it.
    log: File,
}

impl Running {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    fn start_with(dir: &Path, flags: &[&str]) -> Self {
        // A process that was killed leaves its address behind.
        if dir.join("http.addr").exists() {
            std::fs::remove_file(dir.join("http.addr")).unwrap();
        }
        let log = tempfile::tempfile().unwrap();
        let mut command = daemon();
        let mut child = command
            .args(["--http", "127.0.0.1:0", "--log-format", "json", "--data"])
            .arg(dir)
            .args(flags)
            .stderr(log.try_clone().unwrap())
            .spawn()
            .unwrap();
        let address = wait_for(|| {
            assert!(child.try_wait().unwrap().is_none(), "ended instead of starting");
            std::fs::read_to_string(dir.join("http.addr")).ok()
        });
        Self { child, url: format!("http://{}", address.trim()), log }
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Exit code and log; no code when a signal ended it.
    fn ended(mut self) -> (Option<i32>, String) {
        let status = wait_for(|| self.child.try_wait().unwrap());
        let mut log = String::new();
        self.log.rewind().unwrap();
        self.log.read_to_string(&mut log).unwrap();
        (status.code(), log)
    }

    fn post(&self, from: i64, to: i64) {
        let point = |i| serde_json::json!({"metric": "m", "timestamp_ns": i, "value": i});
        let body = serde_json::json!({"points": (from..to).map(point).collect::<Vec<_>>()}).to_string();
        let url = format!("{}/api/v1/sites/s/points", self.url);
        ureq::post(url).header("content-type", "application/json").send(body).unwrap();
    }

    fn points(&self) -> String {
        let url = format!("{}/api/v1/sites/s/points?format=csv", self.url);
        ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap()
    }
}

fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn either_signal_ends_it_with_success_and_takes_its_address_away() {
    for name in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(dir.path());
        running.post(0, 10);
        let start = Instant::now();
        running.signal(name);
        let (code, log) = running.ended();
        assert_eq!(code, Some(0), "{name}: {log}");
        assert!(start.elapsed() < Duration::from_secs(5), "{name}");
        assert!(!dir.path().join("http.addr").exists(), "{name}");
        for line in log.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = String::new();
    for round in 0..3 {
        let running = Running::start(dir.path());
        if round > 0 {
            assert_eq!(running.points(), before, "round {round}");
        }
        running.post(round * 100, round * 100 + 100);
        before = running.points();
        assert_eq!(before.lines().count(), usize::try_from(round).unwrap() * 100 + 101);
        running.signal("-KILL");
        assert_eq!(running.ended().0, None);
    }
}

/// What a rule does, to a board for each number.
const RULE: &str = r#"
[[rule]]
name = "hot"
match = "t"
above = 30
clear_below = 28
command = { act = "read", clear_act = "reboot" }
point = { metric = "alarm" }
"#;

#[test]
fn a_rule_is_killed_at_any_moment_and_its_points_and_commands_are_all_there_or_none() {
    const ROUNDS: u32 = 24;
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules.toml");
    std::fs::write(&rules, RULE).unwrap();
    let flags = ["--site", "s", "--rules", rules.to_str().unwrap()];
    let values = |running: &Running, selector: &str| -> Vec<serde_json::Value> {
        let url = format!("{}/api/v1/sites/s/points?match={selector}", running.url);
        let text = ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let all = answer["series"].as_array().unwrap().iter();
        all.flat_map(|series| series["points"].as_array().unwrap().clone()).collect()
    };
    let (mut transitions, mut cut_off) = (0, 0);
    for round in 0..ROUNDS {
        let device = format!("02124b00000000{round:02x}");
        let running = Running::start_with(dir.path(), &flags);
        let is_judged = |running: &Running| {
            let text = ureq::get(format!("{}/api/v1/status", running.url))
                .call()
                .unwrap()
                .body_mut()
                .read_to_string();
            text.unwrap().contains(r#""watched":"#).then_some(())
        };
        wait_for(|| is_judged(&running));
        let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let posts = round % 9 + 1;
        let point = |n: u32| {
            let (value, at) = (if n.is_multiple_of(2) { 31 } else { 27 }, begun + u128::from(n));
            serde_json::json!({"metric": "t", "labels": {"device": device}, "timestamp_ms": at, "value": value})
        };
        let body = serde_json::json!({"points": (0..posts).map(point).collect::<Vec<_>>()}).to_string();
        let url = format!("{}/api/v1/sites/s/points", running.url);
        ureq::post(url).header("content-type", "application/json").send(body).unwrap();
        std::thread::sleep(Duration::from_micros(u64::from(round * 1_237 % 4_000)));
        running.signal("-KILL");
        assert_eq!(running.ended().0, None);

        let running = Running::start_with(dir.path(), &flags);
        let expected = serde_json::json!(posts % 2);
        let of = |metric: &str| format!("{metric}%7Bdevice%3D%22{device}%22%7D");
        let told = wait_for(|| {
            let told = values(&running, &of("tidelog_rule"));
            let state = told.last().map_or(serde_json::json!(0), |point| point[1].clone());
            (state == expected).then_some(told)
        });
        for (n, point) in told.iter().enumerate() {
            assert_eq!(
                point[1],
                serde_json::json!((n + 1) % 2),
                "round {round}: twice, or forgotten: {told:?}"
            );
        }
        assert_eq!(values(&running, &of("alarm")), told, "round {round}");
        let commands = values(&running, &of("tidelog_command"));
        let acts: Vec<bool> = commands.iter().map(|it| it[1].as_str().unwrap().contains("read")).collect();
        assert_eq!(acts, told.iter().map(|point| point[1] == 1).collect::<Vec<_>>(), "round {round}");
        transitions += told.len();
        cut_off += usize::from(told.len() < usize::try_from(posts).unwrap());
        running.signal("-KILL");
        running.ended();
    }
    println!("{transitions} transitions, {cut_off} of {ROUNDS} rounds killed before all were judged");
    assert!(transitions > 0);
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "site = \"file\"\n[mqtt]\nurl = \"mqtt://file\"\n").unwrap();
    let site = |text: &str| {
        text.lines().find(|line| line.trim_start_matches('#').starts_with("site")).unwrap().to_owned()
    };
    let print = |command: &mut Command| output(command.arg("--print-config")).1;
    assert_eq!(site(&print(&mut daemon())), "#site = \"default\"");
    let text = print(daemon().arg("--config").arg(&file));
    assert_eq!(site(&text), "site = \"file\"");
    assert!(text.contains("\nurl = \"mqtt://file\"\n"), "{text}");
    let text = print(daemon().env("TIDELOG_CONFIG", &file).env("TIDELOG_SITE", "variable"));
    assert_eq!(site(&text), "site = \"variable\"");
    let text = print(daemon().env("TIDELOG_SITE", "variable").args(["--site", "flag"]));
    assert_eq!(site(&text), "site = \"flag\"");
    // What it prints is a file that means the same.
    std::fs::write(&file, print(daemon().args(["--site", "flag", "--peering-peers", "a:1,b:2"]))).unwrap();
    let again = print(daemon().arg("--config").arg(&file));
    assert_eq!(again, std::fs::read_to_string(&file).unwrap());
}

#[test]
fn a_configuration_can_be_checked_without_starting() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let check = || output(daemon().args(["--check-config", "--config"]).arg(&file));
    std::fs::write(&file, "site = \"plant\"\n").unwrap();
    assert_eq!(check(), (0, "the configuration is valid\n".to_owned(), String::new()));
    for (text, expected) in [
        ("sitte = \"plant\"\n", "unknown key sitte, did you mean site?"),
        ("[mqtt]\npaylod = \"json\"\n", "unknown key mqtt.paylod, did you mean mqtt.payload?"),
        ("http = 8433\n", "http takes a string, not an integer"),
        ("log_level = \"info\n", "TOML parse error"),
        ("log_level = \"loud=loud\"\n", "log_level: invalid value 'loud=loud'"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (code, _, log) = check();
        assert_eq!(code, 2, "{text}: {log}");
        assert!(log.contains(expected) && log.contains("c.toml"), "{text}: {log}");
    }
    std::fs::write(&file, format!("rules = \"{}\"\n", dir.path().join("r.toml").display())).unwrap();
    for (text, expected) in [
        ("[[rule]]\nname = \"hot\"\nmatch = \"t\"\nabove = 30\n", "rule \"hot\": above needs clear_below"),
        ("[[rule]]\nname = \"hot\"\nmatch = \"t\"\nhigher = 30\n", "unknown field `higher`, expected one of"),
        (
            "[[rule]]\nname = \"hot\"\nmatch = \"t[5m]\"\nmissing_for = \"1m\"\n",
            "rule \"hot\": match: expected a selector",
        ),
    ] {
        std::fs::write(dir.path().join("r.toml"), text).unwrap();
        let (code, _, log) = check();
        assert!(code == 2 && log.contains(expected) && log.contains("r.toml"), "{text}: {log}");
    }
    // Each is right for itself, and together they cannot work.
    std::fs::write(&file, "[peering]\npeers = [\"a:1\"]\n").unwrap();
    let (code, _, log) = check();
    assert!(code == 2 && log.contains("peering.cert: "), "{log}");
    std::fs::remove_file(&file).unwrap();
    let (code, _, log) = check();
    assert!(code == 2 && log.contains("c.toml") && log.contains("No such file"), "{log}");
    let (code, _, log) = output(daemon().args(["--check-config"]).env("TIDELOG_HTTP", "nowhere"));
    assert!(code == 2 && log.contains("nowhere") && log.contains("--http"), "{log}");
}

#[test]
fn help_and_version_are_answers_and_a_secret_is_in_neither() {
    let (code, text, _) = output(daemon().arg("--version"));
    assert_eq!((code, text), (0, format!("tidelog-cloud {}\n", env!("CARGO_PKG_VERSION"))));
    for flag in ["--help", "--print-config"] {
        let (code, text, _) = output(daemon().arg(flag).env("TIDELOG_MQTT_PASSWORD", "hunter2"));
        assert_eq!(code, 0);
        assert!(text.contains("TIDELOG_MQTT_PASSWORD") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn what_keeps_it_from_starting_is_said_and_is_not_success() {
    let (taken, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let running = Running::start(taken.path());
    let (code, _, log) = output(daemon().args(["--http", "127.0.0.1:0", "--data"]).arg(taken.path()));
    assert!(code == 1 && log.contains("in use by another process"), "{log}");
    let address = running.url.strip_prefix("http://").unwrap();
    let (code, _, log) = output(daemon().args(["--http", address, "--data"]).arg(other.path()));
    assert!(code == 1 && log.contains("cannot listen on") && log.contains(address), "{log}");
    std::fs::write(other.path().join("node.key"), "no key").unwrap();
    let (code, _, log) = output(daemon().args(["--http", "127.0.0.1:0", "--data"]).arg(other.path()));
    assert!(code == 1 && log.contains("node.key"), "{log}");
    let (code, _, log) = output(daemon().args(["--http", "127.0.0.1:0", "--data", "/proc/nowhere"]));
    assert!(code == 1 && log.contains("/proc/nowhere"), "{log}");
    let empty = tempfile::tempdir().unwrap();
    let (code, _, log) = output(daemon().args(["--http", "0.0.0.0:0", "--data"]).arg(empty.path()));
    assert!(code == 2 && log.contains("neither tokens nor TLS") && log.contains("--insecure"), "{log}");
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
    running.signal("-TERM");
    assert_eq!(running.ended().0, Some(0));
}

#[test]
fn tokens_come_and_go_in_the_log_and_no_secret_ever_stands_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start_with(dir.path(), &["--log-level", "trace"]);
    let token = Token::draw().unwrap();
    let entry = Entry::of(&token, "telegraf".to_owned(), [Scope::Read].into(), Sites::All, 0);
    let set = |entries: Vec<Entry>| {
        let set = change(&tokens_path(dir.path(), None), |tokens| {
            *tokens = entries;
            Ok::<_, TokenFileError>(())
        });
        set.unwrap();
    };
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let statuses = || {
        let secret = token.reveal();
        let get = |scheme: &str| {
            let asked = agent.get(format!("{}/api/v1/status", running.url));
            asked.header("authorization", format!("{scheme} {secret}")).call().unwrap().status().as_u16()
        };
        let in_query = format!("{}/write?db=plant&u=x&p={secret}", running.url);
        let written = agent.post(in_query).send("t value=1 5").unwrap().status().as_u16();
        [get("Bearer"), get("Token"), get("Digest"), written]
    };
    set(vec![entry]);
    assert_eq!(statuses(), [200, 200, 401, 403]);
    set(Vec::new());
    assert_eq!(statuses(), [401; 4]);
    running.signal("-TERM");
    let (code, log) = running.ended();
    assert_eq!(code, Some(0));
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<_> = lines.iter().filter(|line| line["target"] == "audit").collect();
    let messages: Vec<_> = said.iter().map(|line| line["message"].as_str().unwrap()).collect();
    let locked = "doors locked: every request needs a token";
    assert_eq!(messages, [locked, "token in force", "token revoked"]);
    for line in &said[1..] {
        assert_eq!((&line["name"], &line["id"]), (&"telegraf".into(), &token.id().to_string().into()));
    }
    let revealed = token.reveal();
    let secret = revealed.rsplit('_').next().unwrap();
    assert!(!log.contains(secret) && !log.contains(&secret[..16]));
}
