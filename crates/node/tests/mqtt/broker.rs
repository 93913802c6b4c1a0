//! A mosquitto of the test's own: on a port of its own, killed and started again at will, and a link to it that can be cut.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const START_S_MAX: u64 = 10;
const PROGRAMS: [&str; 2] = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"];

pub struct Mosquitto {
    pub port: u16,
    dir: TempDir,
    child: Child,
}

impl Mosquitto {
    /// `None`, and a word about it, when there is no mosquitto here.
    pub fn start() -> Option<Self> {
        Self::start_with("allow_anonymous true\n", |_| {})
    }

    /// With further lines of configuration, and files in its directory (the working directory for relative paths).
    pub fn start_with(lines: &str, files: impl FnOnce(&Path)) -> Option<Self> {
        if program().is_none() {
            eprintln!("SKIPPED: no mosquitto on this machine (Debian package mosquitto)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        files(dir.path());
        let port = free_port();
        let mut conf = format!("listener {port} 127.0.0.1\n{lines}");
        writeln!(conf, "persistence true\npersistence_location {}/", dir.path().display()).unwrap();
        for bound in ["max_queued_messages", "max_inflight_messages"] {
            if !lines.contains(bound) {
                writeln!(conf, "{bound} 0").unwrap();
            }
        }
        if is_root() {
            writeln!(conf, "user root").unwrap();
        }
        std::fs::write(dir.path().join("mosquitto.conf"), conf).unwrap();
        let child = spawn(dir.path());
        let mut broker = Self { port, dir, child };
        broker.wait_until_it_listens();
        Some(broker)
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Ends it as an operator would: it saves what it acknowledged and did not deliver.
    pub fn stop(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap();
    }

    /// As a power cut would. What it acknowledged and did not deliver is gone unless it was saved.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Writes one of its files, for its next start.
    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.dir.path().join(file), text).unwrap();
    }

    pub fn start_again(&mut self) {
        self.child = spawn(self.dir.path());
        self.wait_until_it_listens();
    }

    /// Has it write sessions and subscriptions to its disk now, so that a kill does not take them.
    pub fn save(&self) {
        let database = self.dir.path().join("mosquitto.db");
        let before = std::fs::metadata(&database).and_then(|meta| meta.modified()).ok();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-USR1", &pid]).status().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while std::fs::metadata(&database).and_then(|meta| meta.modified()).ok() == before {
            assert!(Instant::now() < deadline, "mosquitto did not save");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "mosquitto ended at the start");
            assert!(Instant::now() < deadline, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill() {
            eprintln!("mosquitto was gone already: {error}");
        }
        if let Err(error) = self.child.wait() {
            eprintln!("mosquitto: {error}");
        }
    }
}

fn program() -> Option<&'static str> {
    PROGRAMS.into_iter().find(|path| Path::new(path).exists())
}

fn spawn(dir: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("mosquitto.log")).unwrap();
    Command::new(program().unwrap())
        .arg("-c")
        .arg("mosquitto.conf")
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

/// A port that stays free while its broker is down.
pub fn free_port() -> u16 {
    tidelog_sim::ports::free_port().unwrap().port()
}

/// A way to the broker that breaks after so many bytes in either direction, again and again.
pub struct BrittleLink {
    pub port: u16,
    pub cuts: Arc<AtomicU64>,
}

impl BrittleLink {
    /// Connection number `n` breaks after `bytes(n)` bytes; `None` lets it stand.
    pub async fn to(port: u16, bytes: impl Fn(u64) -> Option<u64> + Send + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let cuts = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&cuts);
        tokio::spawn(async move {
            let to = SocketAddr::from(([127, 0, 0, 1], port));
            for n in 0.. {
                let Ok((mut near, _)) = listener.accept().await else { return };
                let Ok(mut far) = tokio::net::TcpStream::connect(to).await else { continue };
                let mut left = bytes(n);
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    let (mut up, mut down) = ([0u8; 512], [0u8; 512]);
                    loop {
                        let passed = tokio::select! {
                            read = near.read(&mut up) => match read {
                                Ok(count @ 1..) => far.write_all(&up[..count]).await.map(|()| count),
                                _ => break,
                            },
                            read = far.read(&mut down) => match read {
                                Ok(count @ 1..) => near.write_all(&down[..count]).await.map(|()| count),
                                _ => break,
                            },
                        };
                        let Ok(count) = passed else { break };
                        if let Some(left) = &mut left {
                            match left.checked_sub(count as u64) {
                                Some(rest) => *left = rest,
                                None => {
                                    counted.fetch_add(1, Ordering::Relaxed);
                                    break;
                                }
                            }
                        }
                    }
                });
            }
        });
        Self { port: own, cuts }
    }
}
