//! A crowd that asks: `query_range` of one device after the other, over many connections at once, by Debian's `wrk`. How many are answered a
//! second and how long each waits.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use crate::process::Process;
use crate::subjects::{Subject, Written};

const CONNECTIONS: u32 = 16;
const SECONDS: u32 = 10;
/// Devices that are asked about in turn.
const DEVICES: usize = 100;

/// Whether its program is there.
pub fn is_installed() -> bool {
    Path::new("/usr/bin/wrk").exists()
}

/// What they got, or `None` of who does not speak PromQL.
pub fn crowd(
    subject: Subject,
    process: &Process,
    written: Written,
    dir: &Path,
) -> Result<Option<String>, Box<dyn Error>> {
    let paths: Vec<String> =
        (0..DEVICES).filter_map(|device| subject.asks_range(Written { device, ..written })).collect();
    if paths.is_empty() {
        return Ok(None);
    }
    let script = dir.join("crowd.lua");
    let listed: Vec<String> = paths.iter().map(|path| format!("{path:?}")).collect();
    let lua = "local n = 0\nrequest = function()\n  n = n % #paths + 1\n  return wrk.format(\"GET\", paths[n])\nend\n";
    std::fs::write(&script, format!("local paths = {{{}}}\n{lua}", listed.join(", ")))?;
    let cpu = process.cost()?.cpu;
    let (connections, seconds) = (format!("-c{CONNECTIONS}"), format!("-d{SECONDS}s"));
    let output = Command::new("wrk")
        .args(["-t1", &connections, &seconds, "--latency", "-s"])
        .arg(&script)
        .arg(format!("http://{}", process.address))
        .output()?;
    let said = String::from_utf8(output.stdout)?;
    let find = |key: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(key));
        line.map(|rest| rest.trim().to_owned()).unwrap_or_default()
    };
    let errors = said.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    if !output.status.success() || errors.is_some() {
        return Err(format!("wrk: {said}").into());
    }
    let rate = find("Requests/sec:");
    let answered: f64 = rate.parse()?;
    let us = (process.cost()?.cpu - cpu).as_secs_f64() * 1e6 / (answered * f64::from(SECONDS));
    Ok(Some(format!(
        "query_range by {CONNECTIONS} connections: {rate} answers/s, p50 {}, p99 {}; {us:.0} us of processor each",
        find("50%"),
        find("99%")
    )))
}
