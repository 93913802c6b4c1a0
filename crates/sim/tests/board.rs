//! An emulated board does what it is told: real firmware in QEMU, a simulated co-processor and air, and a gateway of a few lines. Needs the board's
//! program in `TIDELOG_BOARD`, and qemu-system-arm.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod stand_in;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tidelog_lowpan::NetworkKey;
use tidelog_record::DeviceId;
use tidelog_record::uplink::{Act, CommandState};
use tidelog_sim::air::{Air, AirOptions};
use tidelog_sim::rcp::{Place, Rcp};

use stand_in::{GATEWAY, KEY, Kept, gateway, outcomes};

/// A board's process, gone when this goes.
struct Powered(Child);

impl Drop for Powered {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emulated_board_does_what_it_is_told_and_restarts_when_told_to() {
    if !boards_run() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("tidelog-board-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    assert_eq!(KEY, NetworkKey::new([0x6b; 16]));
    let air = Air::start(AirOptions::default()).await.unwrap();
    let place: Place = folder.join("radio").display().to_string().parse().unwrap();
    let _radio = Rcp::start(&place, air.address(), DeviceId([0x12; 8])).await.unwrap();
    let kept = Arc::new(Mutex::new(Kept::default()));
    tokio::spawn(gateway(air.address(), Arc::clone(&kept)));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../firmware/boards/mps2-an386/run");
    let mut child = Command::new(script)
        .arg(folder.join("flash"))
        .arg(folder.join("radio"))
        .args(["eui=02124b0000000001", &format!("gateway={GATEWAY}"), &format!("key={}", "6b".repeat(16))])
        .args(["interval_ms=300", "linger_ms=300"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let console = BufReader::new(child.stdout.take().unwrap());
    let powered = Powered(child);
    let said = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&said);
    let reader = std::thread::spawn(move || {
        console.lines().map_while(Result::ok).for_each(|line| into.lock().unwrap().push(line));
    });
    let acts = [
        Act::Switch { output: 3, on: true },
        Act::Switch { output: 0, on: true },
        Act::Switch { output: 8, on: true },
        Act::Identify { seconds: 1 },
        Act::Every { interval_ms: 200 },
        Act::Read,
        Act::Reboot,
        Act::Switch { output: 1, on: true },
    ];
    let told = outcomes(&kept, &acts).await;
    use CommandState::{Done, Failed};
    assert_eq!(told, [Done, Done, Failed, Done, Done, Done, Done, Done]);
    drop(powered);
    tokio::task::spawn_blocking(move || reader.join().unwrap()).await.unwrap();
    let said = said.lock().unwrap();
    println!("{said:#?}");
    let lines = |start: &str| said.iter().filter(|line| line.starts_with(start)).cloned().collect::<Vec<_>>();
    // Read back from the lights, which the restart put out.
    assert_eq!(lines("outputs: "), ["outputs: 0x08", "outputs: 0x09", "outputs: 0x02"]);
    assert_eq!(lines("starting anew").len(), 1);
    // Once at the command, and once by the life after it.
    assert_eq!(lines("a sample each 200 ms").len(), 2);
    let starts = lines("flash log: ");
    let epoch =
        |line: &String| line.split_whitespace().find(|word| word.starts_with("epoch=")).map(str::to_owned);
    assert!(starts.len() == 2 && epoch(&starts[0]) == epoch(&starts[1]), "{starts:?}");
    assert!(starts.iter().all(|line| line.ends_with("lost=0")), "{starts:?}");
    assert_eq!(kept.lock().unwrap().refused, 0);
    std::fs::remove_dir_all(&folder).unwrap();
}
