//! The fuzz targets as ordinary tests: every seed, and every input that once failed (`tests/fuzz/regressions/TARGET/`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use tidelog_tests::fuzz::{TARGETS, target};

#[test]
fn no_seed_fails_its_target_nor_any_prefix_of_it() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        for seed in seeds {
            (target.run)(&seed);
            for length in (0..seed.len()).step_by(1 + seed.len() / 64) {
                (target.run)(&seed[..length]);
            }
        }
    }
}

#[test]
fn what_once_failed_fails_no_more() {
    let regressions = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    let Ok(folders) = std::fs::read_dir(regressions) else { return };
    for folder in folders.map(|folder| folder.unwrap().path()) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let target = target(&name).unwrap_or_else(|| panic!("{name} is no target"));
        for input in std::fs::read_dir(&folder).unwrap().map(|input| input.unwrap().path()) {
            println!("{}", input.display());
            (target.run)(&std::fs::read(&input).unwrap());
        }
    }
}

#[test]
fn two_targets_never_share_a_name() {
    let names: std::collections::BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len());
}
