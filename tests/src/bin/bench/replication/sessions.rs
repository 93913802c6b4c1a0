//! What a cloud node pays for many gateways that are there and say little: memory for each session and stream.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog_tests::light::Light;
use tokio::task::JoinSet;

use super::pair::{Certificates, start, status};
use crate::http::Connection;

const STREAMS_EACH: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

pub fn sessions(binary: &Path, dir: &Path, count: u64) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(dir)?;
    let certificates = Certificates::new()?;
    let mut flags = certificates.flags(dir.path(), "cloud", true)?;
    flags.extend(["--peering-listen", "127.0.0.1:0"].map(str::to_owned));
    let mut gateways = Vec::new();
    for number in 0..count {
        let mut gateway = Light::new(&certificates.authority, &format!("gateway-{number}"), STREAMS_EACH)?;
        gateway.append()?;
        gateways.push(Arc::new(gateway));
    }
    let (cloud, peering) = start(binary, &dir.path().join("data"), &flags)?;
    let peering = peering.ok_or("the cloud does not listen for peers")?;
    let mut asking = Connection::open(cloud.address)?;
    let before = cloud.cost()?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _entered = runtime.enter();
    let begun = Instant::now();
    let mut held = JoinSet::new();
    for gateway in gateways {
        held.spawn(async move {
            loop {
                // Whoever was refused in the crowd comes again.
                drop(gateway.hold(peering).await);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    let streams = usize::try_from(count * u64::from(STREAMS_EACH))?;
    while status(&mut asking)?["streams"].as_array().map_or(0, Vec::len) < streams {
        if begun.elapsed() > PATIENCE {
            return Err("the cloud does not have all streams".into());
        }
        std::thread::sleep(POLL);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let after = cloud.cost()?;
    let kib = after.peak_rss_bytes.saturating_sub(before.peak_rss_bytes) as f64 / 1024.0;
    println!(
        "tidelog    {count} sessions with {STREAMS_EACH} streams each came at once: all served in {seconds:.1} s, {:.1} KiB a session, {:.2} KiB a stream, {:.1} MiB at most",
        kib / count as f64,
        kib / streams as f64,
        after.peak_rss_bytes as f64 / (1024.0 * 1024.0),
    );
    drop(held);
    cloud.end()?;
    Ok(())
}
