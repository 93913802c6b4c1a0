//! libFuzzer's door to the targets of `tidelog_tests::fuzz`. `TIDELOG_FUZZ_TARGET` names the target; with `TIDELOG_FUZZ_SEEDS` the
//! target's seeds are written to that folder and nothing else is done. Built only by tests/fuzz/run.

#![no_main]
#![allow(unsafe_code, reason = "libFuzzer calls a C function by its name, which the macro exports")]
#![allow(clippy::panic, reason = "a wrong call ends the program")]

use std::sync::OnceLock;

use tidelog_tests::fuzz::{TARGETS, Target, target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn choose() -> Target {
    let name = std::env::var("TIDELOG_FUZZ_TARGET").unwrap_or_default();
    let Some(chosen) = target(&name) else {
        let names = TARGETS.map(|target| target.name).join(" ");
        panic!("TIDELOG_FUZZ_TARGET is '{name}', and not one of: {names}");
    };
    chosen
}

fn begin() {
    let chosen = *CHOSEN.get_or_init(choose);
    let Some(folder) = std::env::var_os("TIDELOG_FUZZ_SEEDS").map(std::path::PathBuf::from) else { return };
    for (number, seed) in (chosen.seeds)().iter().enumerate() {
        if let Err(error) = std::fs::write(folder.join(format!("seed-{number}")), seed) {
            panic!("{}: {error}", folder.display());
        }
    }
    std::process::exit(0);
}

libfuzzer_sys::fuzz_target!(init: begin(), |input: &[u8]| {
    if let Some(chosen) = CHOSEN.get() {
        (chosen.run)(input);
    }
});
