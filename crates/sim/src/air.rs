//! The air between stations: a ZEP version 2 dispatcher over UDP, with seeded loss, delay and duplication. A station
//! is known from its first datagram; a unicast frame goes only to the owner of its destination address. It reads
//! addresses and sequence numbers off frames and knows nothing of what they carry.

mod medium;

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidelog_lowpan::{pcap, zep};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use medium::Medium;

/// Datagrams read before what is due is handed out again.
const READS_IN_A_ROW_MAX: usize = 64;

/// How the air behaves. The odds are per frame and receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct AirOptions {
    /// Where to listen; port 0 picks a free one.
    pub bind: SocketAddr,
    /// Odds that a frame is not heard, 0.0 to 1.0.
    pub loss: f64,
    /// Time from sender to receiver.
    pub delay: Duration,
    /// Up to this much more time, drawn per frame: frames may overtake each other.
    pub jitter: Duration,
    /// Odds that a frame is heard twice, 0.0 to 1.0.
    pub duplicate: f64,
    /// Seed of every draw.
    pub seed: u64,
    /// Where to write what stations put on the air, each frame once, for Wireshark; it is begun anew.
    pub pcap: Option<PathBuf>,
}

impl Default for AirOptions {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            loss: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            duplicate: 0.0,
            seed: 0,
            pcap: None,
        }
    }
}

/// What went through the air.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AirCounters {
    /// Frames put on the air by stations.
    pub frames: u64,
    /// Their bytes, check sequence included.
    pub bytes: u64,
    /// Frames handed to receivers, copies included.
    pub delivered: u64,
    /// Frames that a receiver lost by the odds.
    pub lost: u64,
    /// Copies handed out by the odds.
    pub duplicated: u64,
    /// Frames to addresses that nobody owns, and acknowledgements that nobody waits for.
    pub unowned: u64,
    /// Datagrams that carry no frame that is understood.
    pub malformed: u64,
    /// Stations known.
    pub stations: u64,
}

/// Why the air can't be started as asked.
#[derive(Debug, thiserror::Error)]
pub enum AirError {
    /// Odds are shares of one.
    #[error("the odds of {name} are {odds}, and must lie between 0 and 1")]
    Odds {
        /// Which odds.
        name: &'static str,
        /// What was asked for.
        odds: f64,
    },
    /// The address can't be listened on.
    #[error("{address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The capture can't be written.
    #[error("{}: {source}", path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn check_odds(name: &'static str, odds: f64) -> Result<(), AirError> {
    if (0.0..=1.0).contains(&odds) { Ok(()) } else { Err(AirError::Odds { name, odds }) }
}

/// A running air. Dropping it stops it too.
#[derive(Debug)]
pub struct Air {
    address: SocketAddr,
    loss: watch::Sender<f64>,
    counters: watch::Receiver<AirCounters>,
    task: JoinHandle<()>,
}

impl Air {
    /// Starts the air on the current tokio runtime.
    ///
    /// # Errors
    /// Odds outside 0 to 1, or an address that can't be bound.
    pub async fn start(options: AirOptions) -> Result<Self, AirError> {
        check_odds("loss", options.loss)?;
        check_odds("duplication", options.duplicate)?;
        let bind = |source| AirError::Bind { address: options.bind, source };
        let socket = UdpSocket::bind(options.bind).await.map_err(bind)?;
        let address = socket.local_addr().map_err(bind)?;
        let capture = options.pcap.as_ref().map(|path| {
            Capture::create(path).map_err(|source| AirError::Capture { path: path.clone(), source })
        });
        let capture = capture.transpose()?;
        let (loss, loss_asked) = watch::channel(options.loss);
        let (counted, counters) = watch::channel(AirCounters::default());
        let task = tokio::spawn(run(socket, Medium::new(&options), capture, loss_asked, counted));
        Ok(Self { address, loss, counters, task })
    }

    /// The bound address, for `zep://` options.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the odds of loss while running.
    ///
    /// # Errors
    /// Odds outside 0 to 1; nothing changes then.
    pub fn set_loss(&self, loss: f64) -> Result<(), AirError> {
        check_odds("loss", loss)?;
        self.loss.send_replace(loss);
        Ok(())
    }

    /// What went through so far.
    #[must_use]
    pub fn counters(&self) -> AirCounters {
        *self.counters.borrow()
    }

    /// Stops the air, waits for its task to end, and says what went through.
    pub async fn stop(mut self) -> AirCounters {
        self.task.abort();
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            tracing::error!(%error, "the air ended by itself");
        }
        self.counters()
    }
}

impl Drop for Air {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A file of all frames. What can't be written ends the capture and not the air.
struct Capture(Option<BufWriter<File>>);

impl Capture {
    fn create(path: &std::path::Path) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&pcap::FILE_HEADER)?;
        file.flush()?;
        Ok(Self(Some(file)))
    }

    fn take(&mut self, datagram: &[u8]) {
        let Ok(zep::Packet::Data(header, frame)) = zep::decode(datagram) else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut record = [0; pcap::RECORD_BYTES_MAX];
        let unix_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let length = pcap::record(unix_us, header.channel, header.lqi, frame, &mut record);
        let Some(record) = length.and_then(|length| record.get(..length)) else { return };
        self.write(|file| file.write_all(record));
    }

    fn flush(&mut self) {
        self.write(|file| file.flush());
    }

    fn write(&mut self, what: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        if let Some(file) = &mut self.0
            && let Err(error) = what(file)
        {
            tracing::error!(%error, "the capture ends here");
            self.0 = None;
        }
    }
}

/// Moves datagrams between the socket and the medium until it is aborted.
async fn run(
    socket: UdpSocket,
    mut medium: Medium,
    mut capture: Option<Capture>,
    mut loss: watch::Receiver<f64>,
    counted: watch::Sender<AirCounters>,
) {
    let mut buffer = [0u8; zep::PACKET_BYTES_MAX + 1];
    loop {
        let due = medium.poll_timeout().map(tokio::time::Instant::from_std);
        tokio::select! {
            changed = loss.changed() => {
                if changed.is_err() {
                    return;
                }
                medium.set_loss(*loss.borrow_and_update());
            }
            heard = socket.recv_from(&mut buffer) => take(&mut medium, &mut capture, heard, &buffer),
            () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {}
        }
        for _ in 1..READS_IN_A_ROW_MAX {
            match socket.try_recv_from(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                heard => take(&mut medium, &mut capture, heard, &buffer),
            }
        }
        if let Some(capture) = &mut capture {
            capture.flush();
        }
        while let Some((to, datagram)) = medium.poll_delivery(Instant::now()) {
            // A station that is gone is no fault of the air.
            if let Err(error) = socket.send_to(&datagram, to).await {
                tracing::debug!(%to, %error, "not delivered");
            }
        }
        counted.send_replace(medium.counters());
    }
}

fn take(
    medium: &mut Medium,
    capture: &mut Option<Capture>,
    heard: io::Result<(usize, SocketAddr)>,
    buffer: &[u8],
) {
    match heard {
        Ok((length, from)) => {
            let datagram = buffer.get(..length).unwrap_or_default();
            if let Some(capture) = capture {
                capture.take(datagram);
            }
            medium.handle_datagram(Instant::now(), from, datagram);
        }
        // The system reports here that an earlier datagram found nobody.
        Err(error) => tracing::debug!(%error, "nothing received"),
    }
}
