//! Two Tarantool masters on loopback, as Debian packages it, doing the same in the same run. What they do is written in
//! `tests/bench/tarantool.lua`.

use std::error::Error;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::Replication;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/tarantool.lua");

/// What was measured before on another machine of this kind: Tarantool 2.6, without and with fsync.
pub const REFERENCE: &str = "\
tarantool  steady, 1,000 a transaction        0.53 M/s without fsync, 0.39 M/s with; 3.5 us CPU a record over both; to reach 1.5 M/s and 1 us
tarantool  steady, one a transaction          63,000/s, 3,200/s; to reach 200,000/s
tarantool  caught up, 1 M records after 60 s  0.86 s, 0.96 s; to reach 0.3 s
tarantool  bytes written a record             16.8; to reach 3 live, 0.5 from segments, on the wire
tarantool  peak memory of who catches up      132 MiB; to reach 32 MiB
tarantool  most nodes that may write          31
";

/// Killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            eprintln!("tarantool could not be ended: {error}");
        }
    }
}

fn start(
    options: &Replication,
    dir: &Path,
    name: &str,
    own: u16,
    other: u16,
    wal_mode: &str,
) -> Result<Command, Box<dyn Error>> {
    let folder = dir.join(name);
    std::fs::create_dir(&folder)?;
    let mut command = Command::new("tarantool");
    command.arg(SCRIPT).arg(name).arg(folder);
    command.args([own.to_string(), other.to_string(), wal_mode.to_owned()]);
    command.args([options.points, options.singles, options.caught_up].map(|count| count.to_string()));
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    Ok(command)
}

pub fn measure(options: &Replication, wal_mode: &str) -> Result<(), Box<dyn Error>> {
    if Command::new("tarantool").arg("--version").output().is_err() {
        println!("tarantool  is not installed and left out (Debian: tarantool)");
        return Ok(());
    }
    let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.dir)?;
    let free =
        || -> Result<u16, Box<dyn Error>> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()) };
    let (a, b) = (free()?, free()?);
    let mut follower = start(options, dir.path(), "b", b, a, wal_mode)?;
    let follower = Killed(follower.stdout(Stdio::null()).spawn()?);
    let output = start(options, dir.path(), "a", a, b, wal_mode)?.output()?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", follower.0.id()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim();
    drop(follower);
    let how = if wal_mode == "fsync" { "with fsync" } else { "without fsync" };
    for line in String::from_utf8(output.stdout)?.lines() {
        let said: Value = serde_json::from_str(line)?;
        let number = |name: &str| said[name].as_f64().unwrap_or(f64::NAN);
        let (records, seconds) = (number("records"), number("seconds"));
        println!(
            "tarantool  {:<20} {how:<13} {:>10.0} records/s {seconds:>7.3} s  {:>6.2} CPU us/record",
            said["what"].as_str().unwrap_or_default(),
            records / seconds,
            number("cpu_s") * 1e6 / records,
        );
    }
    let mut log_bytes = 0;
    for entry in std::fs::read_dir(dir.path().join("a"))? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|end| end == "xlog") {
            log_bytes += entry.metadata()?.len();
        }
    }
    let records = options.points + options.singles + options.caught_up;
    let each = log_bytes as f64 / records as f64;
    println!("tarantool  {how}: {each:.1} bytes a record in the log that is sent, follower {peak} at most");
    if !output.status.success() {
        return Err(format!("tarantool ended: {}", output.status).into());
    }
    Ok(())
}
