//! Two daemons that replicate with each other over a way that is counted: one is written to, and the other is of the cloud and follows.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rcgen::KeyPair;
use serde_json::Value;
use tidelog_node::peering::authority::{Authority, Grants, LIFETIME_DEFAULT};
use tidelog_replication::Sites;

use super::way::Way;
use crate::http::Connection;
use crate::process::{Cost, Process};

/// How often it is asked how far the follower is.
const POLL: Duration = Duration::from_millis(1);
/// How long the follower may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The two, on fresh folders.
pub struct Pair {
    pub writer: Process,
    pub follower: Process,
    pub way: Way,
    _dir: tempfile::TempDir,
}

/// An authority, and the files of its nodes in a folder.
pub struct Certificates {
    pub authority: Authority,
}

impl Certificates {
    pub fn new() -> Result<Self, Box<dyn Error>> {
        Ok(Self { authority: Authority::create("bench", SystemTime::now() + LIFETIME_DEFAULT)? })
    }

    /// The flags of a daemon with a new key.
    pub fn flags(&self, folder: &Path, name: &str, cloud: bool) -> Result<Vec<String>, Box<dyn Error>> {
        let key = KeyPair::generate()?;
        let grants = Grants { sites: Sites::All, cloud };
        let issued = self.authority.issue(name, grants, &key, SystemTime::now() + LIFETIME_DEFAULT)?;
        let mut flags = Vec::new();
        let ca = self.authority.certificate_pem().to_owned();
        for (flag, end, text) in
            [("cert", "pem", issued), ("key", "key", key.serialize_pem()), ("ca", "ca", ca)]
        {
            let path = folder.join(format!("{name}.{end}"));
            fs::write(&path, text)?;
            flags.extend([format!("--peering-{flag}"), path.display().to_string()]);
        }
        Ok(flags)
    }
}

/// Starts a daemon and says where it listens for peers.
pub fn start(
    binary: &Path,
    data: &Path,
    flags: &[String],
) -> Result<(Process, Option<SocketAddr>), Box<dyn Error>> {
    let mut command = Command::new(binary);
    command.arg("--data").arg(data).args(["--http", "127.0.0.1:0", "--log-level", "warn"]).args(flags);
    let address = |name: &str| fs::read_to_string(data.join(name)).ok()?.trim().parse::<SocketAddr>().ok();
    let process = Process::start(command, data, || address("http.addr"))?;
    Ok((process, address("peering.addr")))
}

impl Pair {
    pub fn start(binary: &Path, dir: &Path) -> Result<Self, Box<dyn Error>> {
        let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(dir)?;
        let certificates = Certificates::new()?;
        let mut flags = certificates.flags(dir.path(), "follower", true)?;
        flags.extend(["--peering-listen", "127.0.0.1:0"].map(str::to_owned));
        let (follower, peering) = start(binary, &dir.path().join("follower-data"), &flags)?;
        let way = Way::open(peering.ok_or("the follower does not listen for peers")?)?;
        let mut flags = certificates.flags(dir.path(), "writer", false)?;
        flags.extend(["--peering-peers".to_owned(), way.address.to_string()]);
        let (writer, _) = start(binary, &dir.path().join("writer-data"), &flags)?;
        let pair = Self { writer, follower, way, _dir: dir };
        let mut asking = Connection::open(pair.writer.address)?;
        let deadline = Instant::now() + PATIENCE;
        while status(&mut asking)?["peers"][0]["state"] != "connected" {
            late(deadline)?;
            std::thread::sleep(POLL);
        }
        Ok(pair)
    }

    /// Returns when the follower has so many points on its disk.
    pub fn follower_has(&self, points: u64) -> Result<(), Box<dyn Error>> {
        let mut asking = Connection::open(self.follower.address)?;
        let deadline = Instant::now() + PATIENCE;
        while points_of(&mut asking)? < points {
            late(deadline)?;
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// What both used so far; of memory what the follower took at most.
    pub fn cost(&self) -> Result<Cost, Box<dyn Error>> {
        let (writer, follower) = (self.writer.cost()?, self.follower.cost()?);
        Ok(Cost { cpu: writer.cpu + follower.cpu, ..follower })
    }

    pub fn end(self) -> Result<(), Box<dyn Error>> {
        self.writer.end()?;
        self.follower.end()?;
        Ok(())
    }
}

fn late(deadline: Instant) -> Result<(), Box<dyn Error>> {
    if Instant::now() > deadline { Err("the follower does not follow".into()) } else { Ok(()) }
}

pub fn status(asking: &mut Connection) -> Result<Value, Box<dyn Error>> {
    Ok(serde_json::from_slice(&asking.get("/api/v1/status")?.body)?)
}

/// Points that a node has on its disk.
pub fn points_of(asking: &mut Connection) -> Result<u64, Box<dyn Error>> {
    status(asking)?["store"]["points"].as_u64().ok_or_else(|| "the status tells no points".into())
}
