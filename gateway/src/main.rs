//! The gateway's process: parse, bind, run.

use std::process::ExitCode;

use tidelog_gateway::settings::GatewaySettings;
use tidelog_node::daemon;

fn main() -> ExitCode {
    let program = clap::Command::new("tidelog-gateway")
        .about("A Tidelog node with a radio: sensors, log, replication, MQTT and HTTP");
    daemon::run::<GatewaySettings>(program, env!("CARGO_PKG_VERSION"))
}
