//! A radio co-processor on a serial line, as the system sees one: a simulated co-processor behind a pseudo-terminal that can be plugged in and
//! out, and that understands what is said to it at one rate only, if so told.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::tcgetattr;
use tidelog_record::DeviceId;
use tidelog_sim::rcp::{Place, Rcp};
use tokio::runtime::Runtime;

/// What the co-processor was made with.
pub const HARDWARE: DeviceId = DeviceId([2, 0x12, 0x4b, 0xff, 0, 0, 0, 7]);

/// How long the line rests when there is nothing on it.
const REST: Duration = Duration::from_millis(1);

/// A co-processor on an air; it is on no line yet.
pub struct Coprocessor {
    rcp: Rcp,
    _runtime: Runtime,
}

impl Coprocessor {
    pub fn start(air: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let place = Place::Tcp(([127, 0, 0, 1], 0).into());
        let rcp = runtime.block_on(Rcp::start(&place, air, HARDWARE)).unwrap();
        Self { rcp, _runtime: runtime }
    }

    /// Plugs it in: `link` then leads to its device.
    pub fn plug_in(&self, link: &Path, only_at: Option<u32>) -> Line {
        let Place::Tcp(address) = *self.rcp.place() else { panic!("it is on TCP") };
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let device = std::ffi::OsStr::from_bytes(name.to_bytes());
        // Held open, so that the line stays the same while nobody else has it open.
        let held = rustix::fs::open(
            device,
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let far = std::thread::spawn(move || {
            carry(&File::from(master), &socket, only_at, &ended);
            drop(held);
        });
        // In one step, as udev does it.
        let new = link.with_extension("new");
        std::os::unix::fs::symlink(device, &new).unwrap();
        std::fs::rename(new, link).unwrap();
        Line { link: link.to_owned(), end, far: Some(far) }
    }
}

/// A plugged-in line; unplugged when it is dropped.
pub struct Line {
    link: PathBuf,
    end: Arc<AtomicBool>,
    far: Option<JoinHandle<()>>,
}

impl Drop for Line {
    fn drop(&mut self) {
        // First: the system gives the device's name to whoever opens the next one.
        std::fs::remove_file(&self.link).unwrap();
        self.end.store(true, Ordering::Relaxed);
        if let Some(far) = self.far.take() {
            far.join().unwrap();
        }
    }
}

/// What there is to read; nothing if there is nothing yet.
fn read(mut from: impl Read) -> Vec<u8> {
    let mut bytes = [0; 4096];
    match from.read(&mut bytes) {
        Ok(length) => bytes[..length].to_vec(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

fn write(mut to: impl Write, mut bytes: &[u8], ended: &AtomicBool) {
    while !bytes.is_empty() && !ended.load(Ordering::Relaxed) {
        match to.write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(REST),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Moves bytes between the line and the co-processor; what is said at another rate is noise to it, and what it says then is lost.
fn carry(line: &File, socket: &TcpStream, only_at: Option<u32>, ended: &AtomicBool) {
    let understood = || only_at.is_none_or(|baud| tcgetattr(line).unwrap().output_speed() == baud);
    while !ended.load(Ordering::Relaxed) {
        let (said, told) = (read(line), read(socket));
        if said.is_empty() && told.is_empty() {
            std::thread::sleep(REST);
        } else if understood() {
            write(socket, &said, ended);
            write(line, &told, ended);
        } else if !said.is_empty() {
            write(socket, b"\x7e\xff\x00noise\x7e", ended);
        }
    }
}
