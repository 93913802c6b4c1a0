//! Devices that keep a connection: what so many of them cost a node, how long a batch waits for its acknowledgement when each sends one every
//! ten seconds, and how many are acknowledged a second when each sends the next at once. Beside it mosquitto with publishers at QoS 1, which
//! stores nothing. Both are spoken to byte by byte, so that the client is cheap.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::process::{Cost, Process, free_address};

/// How long a connection, and an answer, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that are opened at a time.
const OPENED_AT_ONCE: usize = 64;
/// Batches that one connection may have under way.
pub const UNDER_WAY: u64 = 16;
/// Bytes that are read at once.
const READ_BYTES: usize = 4096;
const KIB: f64 = 1024.0;

/// How many, and for how long
#[derive(Args)]
pub struct Sockets {
    /// Folder of the daemons; by default where this program lies
    #[arg(long, env = "TIDELOG_BIN_DIR", value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// Devices that keep a connection
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    devices: u32,

    /// How often each sends a batch of four values, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    every_s: u64,

    /// How long that goes on, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    paced_s: u64,

    /// Connections of the closed loop
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    loops: u32,

    /// Batches that each has under way there
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=16))]
    depth: u32,

    /// How long it runs, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    loop_s: u64,

    /// Folder for the servers' files, on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// Who is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Tidelog,
    Mosquitto,
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "names, topics and batches are shorter than their length fields"
)]
impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Tidelog => "tidelog",
            Self::Mosquitto => "mosquitto",
        }
    }

    fn greeting(self, device: u32) -> Vec<u8> {
        match self {
            Self::Tidelog => b"GET /api/v1/sites/plant/socket?form=line HTTP/1.1\r\nhost: bench\r\nupgrade: websocket\r\n\
                connection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                .to_vec(),
            Self::Mosquitto => {
                let id = format!("bench-{device}");
                let mut packet = vec![0x10, 12 + id.len() as u8, 0, 4];
                // Protocol level 4, a clean session, no keep-alive.
                packet.extend_from_slice(b"MQTT\x04\x02\x00\x00\x00");
                packet.push(id.len() as u8);
                packet.extend_from_slice(id.as_bytes());
                packet
            }
        }
    }

    /// Length of the answer to the greeting, once all of it is there.
    fn greeted(self, read: &[u8]) -> Result<Option<usize>, String> {
        match self {
            Self::Tidelog => match read.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(_) if !read.starts_with(b"HTTP/1.1 101") => {
                    Err(String::from_utf8_lossy(read).into_owned())
                }
                end => Ok(end.map(|end| end + 4)),
            },
            Self::Mosquitto => match read {
                [0x20, 2, _, 0, ..] => Ok(Some(4)),
                [_, _, _, _, ..] => Err(format!("{read:?}")),
                _ => Ok(None),
            },
        }
    }

    /// A batch of four values, as it is sent.
    fn put(self, out: &mut Vec<u8>, device: u32, number: u64) {
        let (n, second) = ((number % 100) as f64 / 100.0, 1_700_000_000 + number);
        let line = format!(
            "field,device=d{device} temperature={:.2},humidity={:.1},battery={},light={} {second}000000000",
            21.0 + n,
            45.0 - n,
            3000 - number / 100,
            number % 7
        );
        match self {
            Self::Tidelog => put_batch(out, number, &line),
            Self::Mosquitto => {
                let topic = format!("bench/{device}");
                let length = 4 + topic.len() + line.len();
                out.extend_from_slice(&[0x32, 0x80 | (length % 128) as u8, (length / 128) as u8]);
                out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
                out.extend_from_slice(topic.as_bytes());
                out.extend_from_slice(&((number % 60_000 + 1) as u16).to_be_bytes());
                out.extend_from_slice(line.as_bytes());
            }
        }
    }

    /// How long the first packet of what was read is, and whether it is an acknowledgement.
    fn packet(self, read: &[u8]) -> Result<Option<(usize, Packet)>, String> {
        match (self, read) {
            (Self::Tidelog, [0x81, length @ ..125, rest @ ..]) => {
                let length = usize::from(*length);
                let Some(text) = rest.get(..length) else { return Ok(None) };
                let is_error = text.windows(7).any(|seven| seven == b"\"error\"");
                if is_error {
                    Err(String::from_utf8_lossy(text).into_owned())
                } else {
                    Ok(Some((2 + length, Packet::Acknowledged)))
                }
            }
            (Self::Tidelog, [0x89, 0, ..]) => Ok(Some((2, Packet::Ping))),
            (Self::Mosquitto, [0x40, 2, _, _, ..]) => Ok(Some((4, Packet::Acknowledged))),
            (Self::Tidelog, [0x81 | 0x89] | []) | (Self::Mosquitto, [] | [0x40, ..]) => Ok(None),
            _ => Err(format!("{read:?}")),
        }
    }
}

/// A batch as it goes down a socket of Tidelog's: a text, masked with zeros.
#[allow(clippy::cast_possible_truncation, reason = "batches are shorter than their length field")]
fn put_batch(out: &mut Vec<u8>, number: u64, lines: &str) {
    let payload = format!("{number}\n{lines}");
    out.extend_from_slice(&[0x81, 0x80 | 126]);
    out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload.as_bytes());
}

enum Packet {
    Acknowledged,
    Ping,
}

/// A device's connection.
struct Device {
    peer: Peer,
    number: u32,
    sent: u64,
    stream: TcpStream,
    read: Vec<u8>,
}

pub type Failure = Box<dyn Error + Send + Sync>;

impl Device {
    async fn open(peer: Peer, address: SocketAddr, number: u32) -> Result<Self, Failure> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&peer.greeting(number)).await?;
        let mut read = Vec::new();
        let length = loop {
            if let Some(length) = peer.greeted(&read)? {
                break length;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Err("it hung up".into());
            }
        };
        read.drain(..length);
        Ok(Self { peer, number, sent: 1, stream, read })
    }

    async fn send(&mut self, batches: u32) -> Result<(), Failure> {
        let mut out = Vec::new();
        for _ in 0..batches {
            self.peer.put(&mut out, self.number, self.sent);
            self.sent += 1;
        }
        Ok(self.stream.write_all(&out).await?)
    }

    /// Waits for acknowledgements, and says how many came at once.
    async fn acknowledged(&mut self) -> Result<u32, Failure> {
        let mut count = 0;
        loop {
            let mut at = 0;
            while let Some((length, packet)) = self.peer.packet(&self.read[at..])? {
                at += length;
                match packet {
                    Packet::Acknowledged => count += 1,
                    Packet::Ping => self.stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await?,
                }
            }
            self.read.drain(..at);
            if count > 0 {
                return Ok(count);
            }
            self.read.reserve(READ_BYTES);
            if timeout(PATIENCE, self.stream.read_buf(&mut self.read))
                .await
                .map_err(|_| "no answer in time")??
                == 0
            {
                return Err("it hung up".into());
            }
        }
    }
}

/// Writes points `0..until`, each a batch of its own, over so many connections with so many batches under way each; `line` is a point.
pub async fn write_points(
    address: SocketAddr,
    until: u64,
    connections: u32,
    line: fn(u64) -> String,
) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for mut device in opened(Peer::Tidelog, address, connections).await? {
        let next = Arc::clone(&next);
        running.spawn(async move {
            let mut out = Vec::new();
            loop {
                let first = next.fetch_add(UNDER_WAY, Ordering::Relaxed).min(until);
                let mut left = u32::try_from(UNDER_WAY.min(until - first))?;
                if left == 0 {
                    return Ok::<_, Failure>(());
                }
                out.clear();
                for number in first..first + u64::from(left) {
                    put_batch(&mut out, number, &line(number));
                }
                device.stream.write_all(&out).await?;
                while left > 0 {
                    left = left.saturating_sub(device.acknowledged().await?);
                }
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

/// Sends the first batch of each device over one connection, so that what the node knows of their series is not taken for what their
/// connections cost.
async fn acquaint(address: SocketAddr, devices: u32) -> Result<(), Failure> {
    let mut device = Device::open(Peer::Tidelog, address, 0).await?;
    for number in 0..devices {
        (device.number, device.sent) = (number, 0);
        device.send(1).await?;
        device.acknowledged().await?;
    }
    Ok(())
}

/// Opens so many connections.
async fn opened(peer: Peer, address: SocketAddr, count: u32) -> Result<Vec<Device>, Failure> {
    let (mut opening, mut devices) = (JoinSet::new(), Vec::new());
    for number in 0..count {
        if opening.len() >= OPENED_AT_ONCE
            && let Some(device) = opening.join_next().await
        {
            devices.push(device??);
        }
        opening.spawn(Device::open(peer, address, number));
    }
    while let Some(device) = opening.join_next().await {
        devices.push(device??);
    }
    Ok(devices)
}

/// Each sends a batch now and then, at a moment of its own; gives how long each waited, and the connections.
async fn paced(
    devices: Vec<Device>,
    every: Duration,
    lasts: Duration,
) -> Result<(Vec<Duration>, Vec<Device>), Failure> {
    let (begun, count) = (tokio::time::Instant::now(), devices.len().max(1));
    let mut running = JoinSet::new();
    for (index, mut device) in devices.into_iter().enumerate() {
        let first = begun + every.mul_f64(index as f64 / count as f64);
        running.spawn(async move {
            let (mut at, mut waited) = (first, Vec::new());
            while at < begun + lasts {
                sleep_until(at).await;
                let sent = Instant::now();
                device.send(1).await?;
                device.acknowledged().await?;
                waited.push(sent.elapsed());
                at += every;
            }
            Ok::<_, Failure>((waited, device))
        });
    }
    let (mut all, mut devices) = (Vec::new(), Vec::new());
    while let Some(done) = running.join_next().await {
        let (waited, device) = done??;
        all.extend(waited);
        devices.push(device);
    }
    all.sort_unstable();
    Ok((all, devices))
}

/// Each sends the next as soon as one is acknowledged; gives how many were, and how long the last of each round waited.
async fn looped(devices: Vec<Device>, depth: u32, lasts: Duration) -> Result<(u64, Vec<Duration>), Failure> {
    let over = Arc::new(AtomicBool::new(false));
    let mut running = JoinSet::new();
    for mut device in devices {
        let over = Arc::clone(&over);
        running.spawn(async move {
            let (mut count, mut waited) = (0u64, Vec::new());
            while !over.load(Ordering::Relaxed) {
                let sent = Instant::now();
                device.send(depth).await?;
                let mut left = depth;
                while left > 0 {
                    left = left.saturating_sub(device.acknowledged().await?);
                }
                count += u64::from(depth);
                waited.push(sent.elapsed());
            }
            Ok::<_, Failure>((count, waited))
        });
    }
    sleep(lasts).await;
    over.store(true, Ordering::Relaxed);
    let (mut all, mut count) = (Vec::new(), 0);
    while let Some(done) = running.join_next().await {
        let (acknowledged, waited) = done??;
        count += acknowledged;
        all.extend(waited);
    }
    all.sort_unstable();
    Ok((count, all))
}

/// How long so many of a hundred waited at most, in milliseconds.
fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let index = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(index).map_or(0.0, |waited| waited.as_secs_f64() * 1e3)
}

fn start(peer: Peer, bin_dir: &Path, dir: &Path, devices: u32) -> Result<Process, Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    match peer {
        Peer::Tidelog => {
            let mut command = Command::new(bin_dir.join("tidelog-cloud"));
            command.arg("--data").arg(dir).args(["--http", "127.0.0.1:0", "--log-level", "warn"]);
            command.args(["--http-sockets-max", &devices.to_string()]);
            let address = dir.join("http.addr");
            Process::start(command, dir, || fs::read_to_string(&address).ok()?.trim().parse().ok())
        }
        Peer::Mosquitto => {
            let address = free_address()?;
            let configuration = dir.join("mosquitto.conf");
            let lines = "allow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n";
            fs::write(&configuration, format!("listener {} 127.0.0.1\n{lines}", address.port()))?;
            let mut command = Command::new("/usr/sbin/mosquitto");
            command.arg("-c").arg(configuration);
            Process::start(command, dir, || std::net::TcpStream::connect(address).ok().map(|_| address))
        }
    }
}

fn measure(options: &Sockets, peer: Peer, bin_dir: &Path) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.dir)?;
    let most = options.devices.max(options.loops);
    let process = start(peer, bin_dir, &dir.path().join("server"), most)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let failed = |error: Failure| -> Box<dyn Error> { error };
    if peer == Peer::Tidelog {
        runtime.block_on(acquaint(process.address, options.devices)).map_err(failed)?;
    }
    let before = process.resident_bytes()?;
    let devices = runtime.block_on(opened(peer, process.address, options.devices)).map_err(failed)?;
    let idle = process.resident_bytes()?;
    let (cpu, count) = (process.cost()?.cpu, f64::from(options.devices));
    let each = |bytes: u64| (bytes.saturating_sub(before)) as f64 / KIB / count;
    let (every, lasts) = (Duration::from_secs(options.every_s), Duration::from_secs(options.paced_s));
    let (waited, devices) = runtime.block_on(paced(devices, every, lasts)).map_err(failed)?;
    let Cost { cpu: after, .. } = process.cost()?;
    let name = peer.name();
    println!(
        "{name:<10} {} connections: {:.1} KiB each when they stand, {:.1} KiB while each sends a batch every {} s",
        options.devices,
        each(idle),
        each(process.resident_bytes()?),
        options.every_s
    );
    println!(
        "{name:<10} {} batches: acknowledged after p50 {:.2} ms, p99 {:.2} ms, greatest {:.2} ms; {:.1} us of processor each",
        waited.len(),
        quantile(&waited, 50),
        quantile(&waited, 99),
        quantile(&waited, 100),
        (after - cpu).as_secs_f64() * 1e6 / waited.len().max(1) as f64
    );
    drop(devices);
    let devices = runtime.block_on(opened(peer, process.address, options.loops)).map_err(failed)?;
    let (cpu, begun) = (process.cost()?.cpu, Instant::now());
    let looped = looped(devices, options.depth, Duration::from_secs(options.loop_s));
    let (count, waited) = runtime.block_on(looped).map_err(failed)?;
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{name:<10} closed loop, {} connections with {} under way: {:.0} batches/s, p50 {:.1} ms, p99 {:.1} ms; {:.1} us of processor each",
        options.loops,
        options.depth,
        count as f64 / took,
        quantile(&waited, 50),
        quantile(&waited, 99),
        (process.cost()?.cpu - cpu).as_secs_f64() * 1e6 / count.max(1) as f64
    );
    process.end()?;
    Ok(())
}

pub fn sockets(options: &Sockets) -> Result<(), Box<dyn Error>> {
    let beside = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
    let bin_dir = options.bin_dir.clone().unwrap_or(beside);
    println!(
        "batches of four values; tidelog acknowledges when they are on the disk (fdatasync), mosquitto (QoS 1, no subscriber) stores nothing"
    );
    measure(options, Peer::Tidelog, &bin_dir)?;
    if Path::new("/usr/sbin/mosquitto").exists() {
        measure(options, Peer::Mosquitto, &bin_dir)?;
    } else {
        eprintln!("mosquitto is not installed and left out");
    }
    Ok(())
}
