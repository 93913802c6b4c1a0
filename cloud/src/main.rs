//! The cloud node's process: parse, bind, run.

use std::process::ExitCode;

use tidelog_node::{daemon, settings::Common};

fn main() -> ExitCode {
    let program =
        clap::Command::new("tidelog-cloud").about("A Tidelog node: log, replication, MQTT and HTTP");
    daemon::run::<Common>(program, env!("CARGO_PKG_VERSION"))
}
