//! An emulated board does what it is told: real firmware in QEMU, a simulated co-processor and air, and a gateway of a few lines. Needs the board's
//! program in `TIDELOG_BOARD`, and qemu-system-arm.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod stand_in;

use std::path::Path;
use std::sync::{Arc, Mutex};

use tidelog_lowpan::NetworkKey;
use tidelog_record::DeviceId;
use tidelog_record::uplink::{Act, CommandState};
use tidelog_sim::air::{Air, AirOptions};
use tidelog_sim::board::{Board, BoardOptions, can_run};
use tidelog_sim::rcp::{Place, Rcp};

use stand_in::{GATEWAY, KEY, Kept, gateway, outcomes};

/// Whether boards can run here, or a word why not.
fn boards_run() -> bool {
    if std::env::var_os("TIDELOG_BOARD").is_none() {
        eprintln!("skipped: TIDELOG_BOARD names no program of a board (tests/run board does)");
        return false;
    }
    if !can_run() {
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
    let key = format!("key={}", "6b".repeat(16));
    let words = format!("eui=02124b0000000001 gateway={GATEWAY} {key} interval_ms=300 linger_ms=300");
    let words = words.split(' ').map(Into::into).collect();
    let (flash, radio) = (folder.join("flash"), folder.join("radio"));
    let mut board = Board::new(BoardOptions { script, program: None, flash, radio, words });
    board.power_on().unwrap();
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
    board.cut().unwrap();
    let said: Vec<String> = board.console().lines().map(str::to_owned).collect();
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
