//! Real firmware on emulated boards: two Cortex-M programs in QEMU, each with a simulated co-processor on its serial line, a simulated air that
//! loses frames, and a real gateway. One board is killed as a power cut kills it. Needs the released binaries in `TIDELOG_BIN_DIR`,
//! the board's program in `TIDELOG_BOARD`, and qemu-system-arm.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use support::operator::Operator;
use support::{Process, bin_dir, until};

const KEY: &str = "5b1f0e6c94d8a7723c11f06e88d2b94a";
const GATEWAY: &str = "0212000000000001";
/// Of twenty frames one is lost at each receiver.
const LOSS: &str = "0.05";
/// Readings that a board must have delivered before anything happens to it.
const DELIVERED_FIRST: u64 = 10;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/boards/mps2-an386/run")
}

/// Whether boards can run here, or a word why not.
fn boards_run() -> bool {
    if std::env::var_os("TIDELOG_BOARD").is_none() {
        eprintln!("skipped: TIDELOG_BOARD names no program of a board (tests/run board does)");
        return false;
    }
    let emulator = Command::new("qemu-system-arm").arg("--version").stdout(Stdio::null()).status();
    if !emulator.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no qemu-system-arm");
        return false;
    }
    true
}

/// What a process says, line by line, as it says it.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn of(child: &mut Child) -> Self {
        let lines = Self::default();
        let (mut said, into) = (BufReader::new(child.stdout.take().unwrap()), lines.clone());
        std::thread::spawn(move || {
            let mut line = String::new();
            while said.read_line(&mut line).is_ok_and(|length| length > 0) {
                // A line that a cut left without its end was never said.
                if let Some(whole) = std::mem::take(&mut line).strip_suffix('\n') {
                    into.0.lock().unwrap().push(whole.to_owned());
                }
            }
        });
        lines
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// How many lines begin with `prefix`.
    fn count(&self, prefix: &str) -> usize {
        self.all().iter().filter(|line| line.starts_with(prefix)).count()
    }

    /// What stands behind `prefix` in the last line that begins so.
    fn last(&self, prefix: &str) -> Option<String> {
        self.all().iter().rev().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned)
    }
}

/// A number at the start of a text.
fn number(text: &str) -> u64 {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// The number behind `name=` in a line.
fn named(line: &str, name: &str) -> u64 {
    number(line.split_once(&format!("{name}=")).unwrap().1)
}

/// The metrics of a sample, in the order in which the console tells them, and how many thousandths one of what it tells is.
const METRICS: [(&str, i64); 4] =
    [("temperature_celsius", 10), ("humidity_percent", 10), ("illuminance_lux", 10), ("battery_volts", 1)];

/// One sample as the board's console told it: milliseconds, and the values in thousandths.
type Sensed = (i64, [Option<i64>; METRICS.len()]);

/// A line `sensed NUMBER at MILLISECONDS ms: …`.
fn sensed(line: &str) -> Option<(u64, Sensed)> {
    let (number, rest) = line.strip_prefix("sensed ")?.split_once(" at ")?;
    let (at, values) = rest.split_once(" ms: ")?;
    let mut values = values.split(' ').zip(METRICS).map(|(value, (_, thousandths))| match value {
        "none" => None,
        _ => Some(value.parse::<i64>().unwrap_or_else(|error| panic!("{line}: {error}")) * thousandths),
    });
    let values = std::array::from_fn(|_| values.next().unwrap_or_else(|| panic!("{line}: too short")));
    Some((number.parse().ok()?, (at.parse().ok()?, values)))
}

/// A board through all its lives: its flash file stays, its process comes and goes.
struct Board {
    folder: PathBuf,
    number: u8,
    process: Option<(Process, Lines)>,
    epoch: Option<u64>,
    /// What is in its flash, by sequence number.
    stored: BTreeMap<u64, Sensed>,
}

impl Board {
    fn new(folder: &Path, number: u8) -> Self {
        Self { folder: folder.to_owned(), number, process: None, epoch: None, stored: BTreeMap::new() }
    }

    fn eui(&self) -> String {
        format!("02124b00000000{:02x}", self.number)
    }

    fn file(&self, what: &str) -> String {
        self.folder.join(format!("{}.{what}", self.number)).display().to_string()
    }

    /// Gives it power. Whatever was sensed in earlier lives and is beyond the log's head never reached the flash.
    fn start(&mut self, interval_ms: u64) {
        let mut child = Command::new(script())
            .args([self.file("flash"), self.file("radio")])
            .args([format!("eui={}", self.eui()), format!("gateway={GATEWAY}"), format!("key={KEY}")])
            .args([format!("interval_ms={interval_ms}"), "linger_ms=800".to_owned()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Lines::of(&mut child);
        self.process = Some((Process(child), lines.clone()));
        let log = until("the board's first line", || lines.last("flash log: "));
        assert_eq!(named(&log, "lost"), 0);
        assert_eq!(*self.epoch.get_or_insert(named(&log, "epoch")), named(&log, "epoch"), "the same log");
        let head = named(&log, "head");
        let sensed = self.stored.last_key_value().map_or(0, |(seq, _)| *seq);
        assert!(
            head == sensed || head + 1 == sensed,
            "head {head}, and {sensed} was being stored at the cut"
        );
        self.stored.split_off(&(head + 1));
    }

    fn lines(&self) -> &Lines {
        &self.process.as_ref().unwrap().1
    }

    /// The number that its last line of this kind tells, or the one that its log had at the start.
    fn told(&self, what: &str, at_the_start: &str) -> u64 {
        let lines = self.lines();
        let log = || named(&lines.last("flash log: ").unwrap(), at_the_start);
        lines.last(what).map_or_else(log, |text| number(&text))
    }

    fn sensed(&self) -> u64 {
        self.told("sensed ", "head")
    }

    fn acknowledged(&self) -> u64 {
        self.told("acknowledged ", "acknowledged")
    }

    /// Takes the power away, as `kill -9` does, and reads what its console told to the end.
    fn cut(&mut self) {
        let (mut process, lines) = self.process.take().unwrap();
        process.kill();
        until("the console's end", || (Arc::strong_count(&lines.0) == 1).then_some(()));
        for (seq, sample) in lines.all().iter().filter_map(|line| sensed(line)) {
            let before = self.stored.insert(seq, sample);
            assert_eq!(before, None, "{seq}: that number was given before");
        }
        println!("board {}: {:#?}", self.number, lines.all());
    }

    /// Everything in its flash as the gateway must answer it.
    fn points(&self) -> Vec<(String, i64, i64)> {
        let numbers = self.stored.keys().copied();
        assert!(numbers.eq(1..=self.stored.len() as u64), "a number was left out: {:?}", self.stored);
        let mut points = Vec::new();
        for (ticks, values) in self.stored.values() {
            let values =
                values.iter().zip(METRICS).filter_map(|(value, (metric, _))| Some((metric, (*value)?)));
            points.extend(values.map(|(metric, value)| (metric.to_owned(), ticks * 1_000_000, value)));
        }
        points.sort();
        points
    }
}

/// A gateway on the air, and what it answers.
struct Gateway {
    _process: Process,
    url: String,
}

impl Gateway {
    fn start(bin_dir: &Path, folder: &Path, air: &str) -> Self {
        let data = folder.join("gateway");
        let child = Command::new(bin_dir.join("tidelog-gateway"))
            .arg("--data")
            .arg(&data)
            .args(["--http", "127.0.0.1:0", "--log-level", "warn", "--radio", air])
            .args(["--eui", GATEWAY, "--radio-key", KEY])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process(child);
        let address = until("the gateway's address", || fs::read_to_string(data.join("http.addr")).ok());
        Self { _process: process, url: format!("http://{}", address.trim()) }
    }

    fn get(&self, path: &str) -> String {
        ureq::get(format!("{}{path}", self.url)).call().unwrap().body_mut().read_to_string().unwrap()
    }

    /// Points that it stores, however often the same one.
    fn stored(&self) -> u64 {
        let status: Value = serde_json::from_str(&self.get("/api/v1/status")).unwrap();
        status["store"]["points"].as_u64().unwrap()
    }

    /// What it answers of each device: metric and time in nanoseconds, with the value in thousandths.
    fn points(&self) -> BTreeMap<String, Vec<(String, i64, i64)>> {
        let mut points: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for line in self.get("/api/v1/sites/default/points?format=ndjson").lines() {
            let point: Value = serde_json::from_str(line).unwrap();
            let value = point["value"].as_f64().unwrap() * 1000.0;
            #[expect(clippy::cast_possible_truncation, reason = "some millions")]
            let thousandths = value.round() as i64;
            assert!((value - value.round()).abs() < 1e-6, "{line}");
            let device = point["labels"]["device"].as_str().unwrap().to_owned();
            let metric = point["metric"].as_str().unwrap().to_owned();
            let at = point["timestamp_ns"].as_i64().unwrap();
            points.entry(device).or_default().push((metric, at, thousandths));
        }
        points.values_mut().for_each(|points| points.sort());
        points
    }
}

/// Starts the air; its address is the last that it says.
fn air(bin_dir: &Path, boards: &[Board]) -> (Process, String) {
    let mut command = Command::new(bin_dir.join("tidelog-air"));
    command.args(["--listen", "127.0.0.1:0", "--loss", LOSS, "--seed", "1"]);
    for board in boards {
        command.args(["--radio", &board.file("radio")]);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = Lines::of(&mut child);
    let process = Process(child);
    (process, until("the air's address", || lines.last("air at ")))
}

#[test]
fn what_boards_sense_arrives_once_as_sensed_though_power_goes_and_frames_are_lost() {
    let Some(bin_dir) = bin_dir().filter(|_| boards_run()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut boards = [Board::new(folder.path(), 1), Board::new(folder.path(), 2)];
    let (_air, address) = air(&bin_dir, &boards);
    let gateway = Gateway::start(&bin_dir, folder.path(), &address);

    boards.iter_mut().for_each(|board| board.start(150));
    until("readings of both boards", || {
        boards.iter().all(|board| board.acknowledged() >= DELIVERED_FIRST).then_some(())
    });

    // The power goes while some readings are in the flash and nowhere else.
    let victim = &mut boards[0];
    until("readings that wait", || (victim.sensed() >= victim.acknowledged() + 3).then_some(()));
    let acknowledged = victim.acknowledged();
    victim.cut();
    let at_the_cut = victim.stored.len() as u64;
    assert!(at_the_cut >= acknowledged + 3);
    victim.start(150);
    until("readings of its second life", || {
        (victim.acknowledged() > at_the_cut + DELIVERED_FIRST).then_some(())
    });

    // Each board's last life gives away what its flash holds, and senses nothing new: its first reading is an hour off once it knows the time.
    for board in &mut boards {
        board.cut();
        board.start(3_600_000);
        until("the rest", || (board.acknowledged() == board.sensed()).then_some(()));
        board.cut();
    }
    let mut sensed = BTreeMap::new();
    for board in &boards {
        sensed.insert(board.eui(), board.points());
    }
    assert_eq!(gateway.points(), sensed);
    assert_eq!(gateway.stored(), sensed.values().map(|points| points.len() as u64).sum::<u64>(), "each once");
}

#[test]
fn a_gateway_with_a_co_processor_of_its_own_hears_boards_and_is_heard() {
    let Some(bin_dir) = bin_dir().filter(|_| boards_run()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut board = Board::new(folder.path(), 1);
    let mut command = Command::new(bin_dir.join("tidelog-air"));
    command.args([
        "--listen",
        "127.0.0.1:0",
        "--loss",
        LOSS,
        "--seed",
        "2",
        "--radio",
        "127.0.0.1:0",
        "--radio",
    ]);
    let mut child =
        command.arg(board.file("radio")).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = Lines::of(&mut child);
    let _air = Process(child);
    until("the air", || lines.last("air at "));
    let dongle = lines.all().first().unwrap().replace("radio at ", "spinel:tcp://");
    let gateway = Gateway::start(&bin_dir, folder.path(), &dongle);
    board.start(150);
    until("readings", || (board.acknowledged() >= DELIVERED_FIRST).then_some(()));
    board.cut();
    board.start(3_600_000);
    until("the rest", || (board.acknowledged() == board.sensed()).then_some(()));
    board.cut();
    assert_eq!(gateway.points(), BTreeMap::from([(board.eui(), board.points())]));
    assert_eq!(gateway.stored(), board.points().len() as u64, "each once");
}

#[test]
fn what_is_commanded_in_the_cloud_a_board_does_once_and_says_so_there() {
    let Some(bin_dir) = bin_dir().filter(|_| boards_run()) else { return };
    let operator = Operator::new(bin_dir.clone());
    operator.said(&["ca", "init"]);
    let [in_cloud, at_gateway] =
        [&["cloud", "--all-sites", "--cloud"][..], &["gateway", "--site", "default"]]
            .map(|words| operator.issue(words));
    let cloud = operator.start("cloud", &in_cloud, None);
    let mut boards = [Board::new(operator.folder.path(), 1)];
    let (_air, address) = air(&bin_dir, &boards);
    let program = bin_dir.join("tidelog-gateway").display().to_string();
    let words = [&program, "--radio", &address, "--eui", GATEWAY, "--radio-key", KEY].map(str::to_owned);
    let _gateway = operator.start_program(&words, "gateway", &at_gateway, Some(&cloud));
    let [board] = &mut boards;
    board.start(400);
    let (url, device) = (cloud.url(), board.eui());
    until("the cloud knows the board", || cloud.points("default").contains(&device).then_some(()));

    // What is said of it when it has ended; `tidelog` waits for that.
    let told = |act: &[&str]| {
        let output = operator.run(&[&["command", &url, &device, "--wait", "2m"], act].concat());
        let said = String::from_utf8(output.stdout).unwrap();
        let (id, state) = said.trim_end().split_once('\n').unwrap_or_else(|| {
            panic!("{act:?}: {said} {}", String::from_utf8_lossy(&output.stderr));
        });
        assert_eq!(output.status.success(), state == "done", "{act:?}");
        (id.to_owned(), state.to_owned())
    };
    let acts: [(&[&str], &str); 6] = [
        (&["switch", "3", "on"], "done"),
        (&["switch", "200", "on"], "failed"),
        (&["every", "700ms"], "done"),
        (&["read"], "done"),
        (&["reboot"], "done"),
        (&["switch", "1", "on"], "done"),
    ];
    let mut ids = Vec::new();
    for (act, expected) in acts {
        let (id, state) = told(act);
        assert_eq!(state, expected, "{act:?}");
        ids.push((id, state));
    }
    let lines = board.lines();
    assert_eq!(lines.count("outputs: 0x08"), 1, "{:#?}", lines.all());
    assert_eq!(lines.count("outputs: 0x02"), 1, "dark after the restart: {:#?}", lines.all());
    assert_eq!(lines.count("starting anew"), 1);
    assert_eq!(lines.count("flash log: "), 2);
    assert_eq!(lines.count("a sample each 700 ms"), 2, "and after the restart: {:#?}", lines.all());

    let listed = operator.said(&["commands", &url, "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = listed["commands"].as_array().unwrap();
    assert_eq!(all.iter().map(|it| (text(&it["id"]), text(&it["state"]))).collect::<Vec<_>>(), ids);
    let words = cloud.points("default").lines().filter(|line| line.contains("\"command_state\"")).count();
    assert_eq!(words, 2 * ids.len(), "each began once and ended once");
}
