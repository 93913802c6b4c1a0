//! A simulated radio co-processor: Spinel for one host on a Unix or TCP socket, the simulated air on the other side. As a real dongle it
//! keeps its settings while its host is away, and what it says to nobody is lost. Who hears whom is the air's business.

mod machine;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tidelog_lowpan::zep;
use tidelog_record::DeviceId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use machine::{Coprocessor, RcpCounters};
pub use tidelog_lowpan::Quality;

/// Bytes for a host that does not read; what comes on top is lost.
const UNREAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes read from a host at once.
const READ_BYTES: usize = 4096;
/// How well a frame from the simulated air is heard.
const RSSI_DBM: i8 = -60;

/// Where a co-processor waits for its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A Unix socket. What stands at the path is replaced.
    Unix(PathBuf),
    /// A TCP socket; port 0 picks a free one.
    Tcp(SocketAddr),
}

impl FromStr for Place {
    type Err = std::convert::Infallible;

    /// `ADDRESS:PORT`, else a path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| Self::Unix(PathBuf::from(text)), Self::Tcp))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// Why a co-processor can't be started.
#[derive(Debug, thiserror::Error)]
pub enum RcpError {
    /// Its place can't be listened on.
    #[error("{place}: {source}")]
    Place {
        /// The place asked for.
        place: Place,
        /// What the system said.
        source: io::Error,
    },
    /// The air can't be reached.
    #[error("air {air}: {source}")]
    Air {
        /// Its address.
        air: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

trait Line: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    async fn bind(place: &Place) -> io::Result<(Self, Place)> {
        match place {
            Place::Unix(path) => {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                Ok((Self::Unix(UnixListener::bind(path)?), place.clone()))
            }
            Place::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let bound = listener.local_addr()?;
                Ok((Self::Tcp(listener), Place::Tcp(bound)))
            }
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Line>> {
        match self {
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Frames are short, and each is waited for.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// A running co-processor. Dropping it stops it.
#[derive(Debug)]
pub struct Rcp {
    place: Place,
    counters: watch::Receiver<RcpCounters>,
    task: JoinHandle<()>,
}

impl Rcp {
    /// Starts one on the current tokio runtime.
    ///
    /// # Errors
    /// [`RcpError`].
    pub async fn start(place: &Place, air: SocketAddr, hardware: DeviceId) -> Result<Self, RcpError> {
        let (listener, bound) =
            Listener::bind(place).await.map_err(|source| RcpError::Place { place: place.clone(), source })?;
        let no_air = |source| RcpError::Air { air, source };
        let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await.map_err(no_air)?;
        socket.connect(air).await.map_err(no_air)?;
        let (counted, counters) = watch::channel(RcpCounters::default());
        let dongle = Dongle {
            machine: Coprocessor::new(hardware),
            listener,
            socket,
            host: None,
            unread: Vec::new(),
            sequence: 0,
            start: Instant::now(),
            counted,
        };
        Ok(Self { place: bound, counters, task: tokio::spawn(dongle.run()) })
    }

    /// Where it waits for its host.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What went through so far.
    #[must_use]
    pub fn counters(&self) -> RcpCounters {
        *self.counters.borrow()
    }
}

impl Drop for Rcp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Ends = (ReadHalf<Box<dyn Line>>, WriteHalf<Box<dyn Line>>);

struct Dongle {
    machine: Coprocessor,
    listener: Listener,
    socket: UdpSocket,
    host: Option<Ends>,
    unread: Vec<u8>,
    sequence: u32,
    start: Instant,
    counted: watch::Sender<RcpCounters>,
}

enum Happened {
    Host(io::Result<Box<dyn Line>>),
    Read(io::Result<usize>),
    Written(io::Result<usize>),
    Heard(io::Result<usize>),
    Due,
}

impl Dongle {
    async fn run(mut self) {
        let mut read = [0; READ_BYTES];
        let mut packet = [0; zep::PACKET_BYTES_MAX + 1];
        loop {
            let due = self.machine.poll_timeout().map(|due| self.start + due);
            let (reader, writer) = match &mut self.host {
                Some((reader, writer)) => (Some(reader), Some(writer)),
                None => (None, None),
            };
            let happened = tokio::select! {
                host = self.listener.accept() => Happened::Host(host),
                length = read_from(reader, &mut read) => Happened::Read(length),
                length = write_to(writer, &self.unread), if !self.unread.is_empty() => Happened::Written(length),
                length = self.socket.recv(&mut packet) => Happened::Heard(length),
                () = sleep_until(due) => Happened::Due,
            };
            let now = self.start.elapsed();
            match happened {
                // A host that was started again takes the line from one that is not known to be gone.
                Happened::Host(Ok(line)) => {
                    self.unread.clear();
                    self.host = Some(tokio::io::split(line));
                }
                Happened::Host(Err(error)) => tracing::debug!(%error, "no host"),
                Happened::Read(Ok(0) | Err(_)) | Happened::Written(Ok(0) | Err(_)) => {
                    self.host = None;
                    self.unread.clear();
                }
                Happened::Read(Ok(length)) => {
                    self.machine.handle_bytes(now, read.get(..length).unwrap_or_default());
                }
                Happened::Written(Ok(length)) => drop(self.unread.drain(..length)),
                Happened::Heard(Ok(length)) => self.hear(now, packet.get(..length).unwrap_or_default()),
                // An earlier datagram found no air: as if nothing was heard.
                Happened::Heard(Err(error)) => tracing::debug!(%error, "no air"),
                Happened::Due => self.machine.handle_timeout(now),
            }
            self.tell().await;
        }
    }

    fn hear(&mut self, now: Duration, packet: &[u8]) {
        if let Ok(zep::Packet::Data(header, frame)) = zep::decode(packet)
            && header.channel == self.machine.channel()
        {
            self.machine.handle_frame(now, frame, Quality { rssi_dbm: RSSI_DBM, lqi: header.lqi });
        }
    }

    /// Hands on what the machine has to say, to the air and to the host.
    async fn tell(&mut self) {
        while let Some(frame) = self.machine.poll_air() {
            self.sequence = self.sequence.wrapping_add(1);
            let channel = self.machine.channel();
            let header =
                zep::Header { channel, lqi: u8::MAX, sequence: self.sequence, ..zep::Header::default() };
            let mut packet = [0; zep::PACKET_BYTES_MAX];
            let Ok(length) = zep::encode(&header, &frame, &mut packet) else { continue };
            // A frame that the system does not take is lost on the air, as frames are.
            if let Err(error) = self.socket.send(packet.get(..length).unwrap_or_default()).await {
                tracing::debug!(%error, "frame not sent");
            }
        }
        while let Some(bytes) = self.machine.poll_host() {
            if self.host.is_some() && self.unread.len() + bytes.len() <= UNREAD_BYTES_MAX {
                self.unread.extend(bytes);
            }
        }
        self.counted.send_replace(self.machine.counters());
    }
}

async fn read_from(reader: Option<&mut ReadHalf<Box<dyn Line>>>, bytes: &mut [u8]) -> io::Result<usize> {
    match reader {
        Some(reader) => reader.read(bytes).await,
        None => std::future::pending().await,
    }
}

async fn write_to(writer: Option<&mut WriteHalf<Box<dyn Line>>>, bytes: &[u8]) -> io::Result<usize> {
    match writer {
        Some(writer) => writer.write(bytes).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
