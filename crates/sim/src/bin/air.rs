//! `tidelog-air`: a simulated air, and simulated radio co-processors on it, for boards (emulated ones, or anything that speaks Spinel
//! over a socket) and gateways (`--radio zep://…`). It only starts them, says where they are, and runs until it is told to end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tidelog_record::DeviceId;
use tidelog_sim::air::{Air, AirOptions};
use tidelog_sim::rcp::{Place, Rcp};

/// The EUI-64 of the first co-processor; those after it count up.
const HARDWARE_FIRST: u64 = 0x0212_4bff_0000_0001;

/// A simulated 802.15.4 air (ZEP over UDP) with simulated radio co-processors (Spinel) on it.
#[derive(Debug, Parser)]
#[command(name = "tidelog-air")]
struct Options {
    /// Where the air listens, for `--radio zep://ADDRESS:PORT` of a gateway; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:17754")]
    listen: SocketAddr,
    /// A co-processor that waits here for its host: a path (Unix socket) or ADDRESS:PORT (TCP). May be given more than once
    #[arg(long, value_name = "PLACE")]
    radio: Vec<Place>,
    /// Share of frames that a receiver does not hear, 0.0 to 1.0
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    loss: f64,
    /// Time from sender to receiver, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay_ms: u64,
    /// Seed of what chance decides
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write what is on the air to this file, for Wireshark
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidelog-air: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let air = Air::start(AirOptions {
        bind: options.listen,
        loss: options.loss,
        delay: Duration::from_millis(options.delay_ms),
        seed: options.seed,
        pcap: options.pcap,
        ..AirOptions::default()
    })
    .await?;
    let mut radios = Vec::new();
    for (hardware, place) in (HARDWARE_FIRST..).zip(&options.radio) {
        radios.push(Rcp::start(place, air.address(), DeviceId(hardware.to_be_bytes())).await?);
    }
    for radio in &radios {
        println!("radio at {}", radio.place());
    }
    // Last: who has read this line finds everything there.
    println!("air at zep://{}", air.address());
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        _ = terminated.recv() => {}
    }
    for radio in &radios {
        println!("{}: {:?}", radio.place(), radio.counters());
    }
    println!("{:?}", air.stop().await);
    Ok(())
}
