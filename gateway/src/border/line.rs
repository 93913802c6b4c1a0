//! The line to a radio co-processor: bytes to it and from it, over a TCP socket or a serial device, which are the same once they are open. What
//! the bytes mean, and when a line is opened again, it does not know.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

use super::serial::Serial;
use crate::settings::SpinelPlace;

/// What an open line is held by.
#[derive(Debug)]
enum Held {
    Tcp(File),
    Serial(Serial),
}

impl Held {
    fn file(&self) -> &File {
        match self {
            Self::Tcp(file) => file,
            Self::Serial(serial) => serial.file(),
        }
    }
}

impl AsRawFd for Held {
    fn as_raw_fd(&self) -> RawFd {
        self.file().as_raw_fd()
    }
}

/// An open line.
#[derive(Debug)]
pub struct Line(AsyncFd<Held>);

impl Line {
    /// Opens the line to `place`; a serial one has no rate of anybody's choice yet.
    ///
    /// # Errors
    /// Why it cannot be, in words.
    pub async fn open(place: SpinelPlace) -> io::Result<Self> {
        let held = match place {
            SpinelPlace::Tcp(address) => {
                let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
                // Frames are short, and each is waited for.
                stream.set_nodelay(true)?;
                Held::Tcp(File::from(OwnedFd::from(stream.into_std()?)))
            }
            SpinelPlace::Serial { device, .. } => {
                let opened = spawn_blocking(move || Serial::open(&device)).await;
                Held::Serial(opened.map_err(io::Error::other)??)
            }
        };
        #[expect(
            deprecated,
            reason = "the other way is unsafe; here it is sound, as the file stays open, and the same, while it is held"
        )]
        AsyncFd::new(held).map(Self)
    }

    /// Sets the rate of a serial line, and forgets what came at another; a socket has none.
    ///
    /// # Errors
    /// When the device does not run at it.
    pub fn set_baud(&self, baud: u32) -> io::Result<()> {
        match self.0.get_ref() {
            Held::Tcp(_) => Ok(()),
            Held::Serial(serial) => serial.set_baud(baud),
        }
    }

    /// Reads what is there, or waits for it. Cancel-safe.
    ///
    /// # Errors
    /// When the line is closed or broken.
    pub async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.0.async_io(Interest::READABLE, |held| held.file().read(bytes)).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the line was closed")),
            length => Ok(length),
        }
    }

    /// Writes as much as there is room for, or waits for room. Cancel-safe.
    ///
    /// # Errors
    /// When the line is closed or broken.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.async_io(Interest::WRITABLE, |held| held.file().write(bytes)).await
    }
}
