//! `cargo demo`: a whole field on loopback, and the proof that nothing was lost.
//!
//! Everything that can be real is: the daemons are the released binaries as processes of their own, the sensors run the
//! firmware library byte for byte, boards run it in an emulator, TLS and MQTT are what they are in the field. Only the air and the flash chips are
//! simulated. The demo knows the daemons by their command line, HTTP and MQTT alone.

mod arrival;
mod boards;
mod broker;
mod certificates;
mod chaos;
mod daemon;
mod failover;
mod feed;
mod field;
mod judge;
mod key;
mod options;
mod program;
mod report;
mod run;
mod sensors;
mod target;
mod uplink;
mod verify;
mod watcher;

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::options::Options;

/// Something is lost, doubled or changed.
const EXIT_NOT_RIGHT: u8 = 1;
/// There is no verdict.
const EXIT_FAILED: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    let told = std::env::var("RUST_LOG").ok().and_then(|told| told.parse::<Targets>().ok());
    let quiet = || Targets::new().with_default(LevelFilter::ERROR).with_target("rumqttd", LevelFilter::OFF);
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(LevelFilter::TRACE)
        .finish()
        .with(told.unwrap_or_else(quiet))
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cargo demo: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    match runtime.block_on(run::run(&options)) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(report)) => {
            eprintln!("{}", report.text());
            if options.json {
                match serde_json::to_string_pretty(&report) {
                    Ok(json) => println!("{json}"),
                    Err(error) => eprintln!("cargo demo: {error}"),
                }
            }
            if report.is_right() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_RIGHT) }
        }
        Err(error) => {
            eprintln!("cargo demo: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
