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

use crate::options::Options;

/// Something is lost, doubled or changed.
const EXIT_NOT_RIGHT: u8 = 1;
/// There is no verdict.
const EXIT_FAILED: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error,rumqttd=off")),
        )
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
