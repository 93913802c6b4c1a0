//! Real firmware on emulated boards: two Cortex-M programs in QEMU, each with a simulated co-processor on its serial line, a simulated air that
//! loses frames, and a real gateway. One board is killed as a power cut kills it. Needs the released binaries in `TIDELOG_BIN_DIR`,
//! the board's program in `TIDELOG_BOARD`, and qemu-system-arm.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use serde_json::Value;
use support::operator::Operator;
use support::{Process, bin_dir, until};
use tidelog_sim::board as sim;

const KEY: &str = "5b1f0e6c94d8a7723c11f06e88d2b94a";
const GATEWAY: &str = "0212000000000001";
/// Of twenty frames one is lost at each receiver.
const LOSS: &str = "0.05";
/// Readings that a board must have delivered before anything happens to it.
const DELIVERED_FIRST: u64 = 10;

/// Whether boards can run here, or a word why not.
fn boards_run() -> bool {
    if std::env::var_os("TIDELOG_BOARD").is_none() {
        eprintln!("skipped: TIDELOG_BOARD names no program of a board (tests/run board does)");
        return false;
    }
    if !sim::can_run() {
        eprintln!("skipped: there is no qemu-system-arm");
        return false;
    }
    true
}

/// Starts a process whose output is read.
fn told(command: &mut Command) -> (Process, BufReader<ChildStdout>) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    (Process(child), said)
}

/// A line of a process' output that begins with `prefix`, without it.
fn line(said: &mut impl BufRead, prefix: &str) -> String {
    let mut line = String::new();
    while said.read_line(&mut line).unwrap() > 0 {
        if let Some(rest) = line.strip_prefix(prefix) {
            return rest.trim_end().to_owned();
        }
        line.clear();
    }
    panic!("it ended without '{prefix}'");
}

/// A board, its number, and what tells one life from another.
struct Board {
    number: u8,
    board: sim::Board,
}

impl Board {
    fn new(folder: &Path, number: u8) -> Self {
        let file = |what: &str| folder.join(format!("{number}.{what}"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/boards/mps2-an386/run");
        let (flash, radio) = (file("flash"), file("radio"));
        let options = sim::BoardOptions { script, program: None, flash, radio, words: Vec::new() };
        Self { number, board: sim::Board::new(options) }
    }

    fn eui(&self) -> String {
        format!("02124b00000000{:02x}", self.number)
    }

    /// Gives it power.
    fn start(&mut self, interval_ms: u64) {
        let words =
            [format!("eui={}", self.eui()), format!("gateway={GATEWAY}"), format!("key={KEY}")].into_iter();
        let words = words.chain([format!("interval_ms={interval_ms}"), "linger_ms=800".to_owned()]);
        *self.board.words_mut() = words.map(Into::into).collect();
        let lives = self.count("flash log: ");
        self.board.power_on().unwrap();
        until("the board's first line", || (self.count("flash log: ") > lives).then_some(()));
    }

    /// How many lines begin with `prefix`.
    fn count(&self, prefix: &str) -> usize {
        self.board.console().lines().filter(|line| line.starts_with(prefix)).count()
    }

    fn sensed(&self) -> u64 {
        self.board.console().head()
    }

    fn acknowledged(&self) -> u64 {
        self.board.console().acknowledged()
    }

    /// Takes the power away, as `kill -9` does.
    fn cut(&mut self) {
        self.board.cut().unwrap();
        let console = self.board.console();
        println!("board {}: {:#?}", self.number, console.lines().collect::<Vec<_>>());
        assert_eq!(console.wrong(), []);
    }

    /// Everything in its flash as the gateway must answer it: metric, nanoseconds, thousandths.
    fn points(&self) -> Vec<(String, i64, i64)> {
        let console = self.board.console();
        let mut points = Vec::new();
        for sample in console.sensed().values() {
            let values = sample.parts.iter().zip(sim::METRICS);
            points.extend(values.filter_map(|(parts, (metric, of))| {
                Some((metric.to_owned(), sample.at_ms * 1_000_000, thousandths((*parts)?, of)))
            }));
        }
        points.sort();
        points
    }
}

/// Whole parts, so many of one, in thousandths.
fn thousandths(parts: i64, of: f64) -> i64 {
    if of < 1000.0 { parts * 10 } else { parts }
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
        command.arg("--radio").arg(&board.board.options().radio);
    }
    let (process, mut said) = told(&mut command);
    (process, line(&mut said, "air at "))
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
    let at_the_cut = victim.sensed();
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
    command.arg(&board.board.options().radio);
    let (_air, mut said) = told(&mut command);
    let dongle = format!("spinel:tcp://{}", line(&mut said, "radio at "));
    line(&mut said, "air at ");
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
    println!("{:#?}", board.board.console().lines().collect::<Vec<_>>());
    assert_eq!(board.count("outputs: 0x08"), 1);
    assert_eq!(board.count("outputs: 0x02"), 1, "dark after the restart");
    assert_eq!(board.count("starting anew"), 1);
    assert_eq!(board.count("flash log: "), 2);
    assert_eq!(board.count("a sample each 700 ms"), 2, "and after the restart");

    let listed = operator.said(&["commands", &url, "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = listed["commands"].as_array().unwrap();
    assert_eq!(all.iter().map(|it| (text(&it["id"]), text(&it["state"]))).collect::<Vec<_>>(), ids);
    let words = cloud.points("default").lines().filter(|line| line.contains("\"command_state\"")).count();
    assert_eq!(words, 2 * ids.len(), "each began once and ended once");
}
