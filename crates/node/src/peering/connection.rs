//! One connection: bytes to messages on the way in, messages to bytes on the way out, each on its own task. It knows frames
//! and no rule of replication.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tidelog_replication::{Encoder, FrameError, FrameHeader, Message, SessionId, Unpacking};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

use super::board::PeerKey;
use super::certificate::Proven;
use super::refusal;
use super::tls::Tls;

/// How often a peer that is sending one long frame is reported as alive.
const HEARD_INTERVAL: Duration = Duration::from_secs(1);
/// How long what was said last may take to be written once the session is over.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes read from a connection at once.
const READ_BYTES: usize = 64 * 1024;
/// A buffer that grew beyond this is given back after use, in bytes.
const BUFFER_KEPT_BYTES_MAX: usize = 512 * 1024;

/// What reaches the task that owns the machine.
pub(super) enum Input {
    /// A connection whose peer is proven.
    Connected(Box<Connected>),
    /// A message came, in a frame of so many bytes.
    Message { session: SessionId, message: Message, bytes: usize },
    /// Bytes of a longer message came.
    Heard { session: SessionId },
    /// A message was written, in a frame of so many bytes.
    Written { session: SessionId, bytes: usize },
    /// Other certificates are in force.
    Trust(Arc<Tls>),
    /// The connection ended.
    Ended { session: SessionId, end: End },
}

/// A new connection.
pub(super) struct Connected {
    pub stream: TlsStream<TcpStream>,
    pub proven: Proven,
    /// The certificates that proved it, and who believed them.
    pub chain: Vec<CertificateDer<'static>>,
    pub believed_by: Arc<Tls>,
    pub key: PeerKey,
    pub address: String,
    /// Told when the session is over; whether both had said hello.
    pub ended: Option<oneshot::Sender<bool>>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the peer closed the connection")]
    Closed,
    #[error("connection: {}", refusal::in_words(.0))]
    Io(#[from] io::Error),
    #[error("garbage: {0}")]
    Frame(#[from] FrameError),
}

impl End {
    pub fn label(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Io(error) => refusal::label(error),
            Self::Frame(error) => error.label(),
        }
    }
}

/// Reads until the connection ends or `over` is said.
pub(super) async fn read(
    stream: impl AsyncRead + Unpin,
    session: SessionId,
    inputs: mpsc::Sender<Input>,
    over: CancellationToken,
) {
    let reading = read_messages(stream, session, &inputs);
    let end = tokio::select! {
        () = over.cancelled() => return,
        end = reading => end,
    };
    // A closed channel means that the node is ending.
    drop(inputs.send(Input::Ended { session, end }).await);
}

async fn read_messages(
    stream: impl AsyncRead + Unpin,
    session: SessionId,
    inputs: &mpsc::Sender<Input>,
) -> End {
    let mut stream = BufReader::with_capacity(READ_BYTES, stream);
    let (mut payload, mut unpacking) = (Vec::new(), Unpacking::default());
    let mut heard_at = Instant::now();
    loop {
        let read = read_payload(&mut stream, &mut payload, session, inputs, &mut heard_at).await;
        let read = read.and_then(|header| Ok(header.message(&payload, &mut unpacking)?));
        match read {
            Ok(message) => {
                let bytes = FrameHeader::BYTES + payload.len();
                heard_at = Instant::now();
                if inputs.send(Input::Message { session, message, bytes }).await.is_err() {
                    return End::Closed;
                }
            }
            Err(End::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return End::Closed,
            Err(end) => return end,
        }
    }
}

async fn read_payload(
    stream: &mut (impl AsyncRead + Unpin),
    payload: &mut Vec<u8>,
    session: SessionId,
    inputs: &mpsc::Sender<Input>,
    heard_at: &mut Instant,
) -> Result<FrameHeader, End> {
    let mut header = [0u8; FrameHeader::BYTES];
    stream.read_exact(&mut header).await?;
    let header = FrameHeader::parse(header)?;
    payload.clear();
    payload.shrink_to(BUFFER_KEPT_BYTES_MAX);
    // The buffer grows with what comes, not with what is claimed.
    payload.reserve(header.payload_bytes().min(READ_BYTES));
    let mut rest = stream.take(header.payload_bytes() as u64);
    while rest.read_buf(payload).await? > 0 {
        if heard_at.elapsed() >= HEARD_INTERVAL {
            *heard_at = Instant::now();
            // When the channel is full, the machine is busy and will hear of it with the next bytes.
            drop(inputs.try_send(Input::Heard { session }));
        }
    }
    if payload.len() < header.payload_bytes() {
        return Err(End::Closed);
    }
    Ok(header)
}

/// Writes until there is nothing more to say: the channel is closed and empty.
pub(super) async fn write(
    mut stream: impl AsyncWrite + Unpin,
    session: SessionId,
    mut messages: mpsc::Receiver<Message>,
    inputs: mpsc::Sender<Input>,
    over: CancellationToken,
) {
    let writing = write_messages(&mut stream, session, &mut messages, &inputs);
    let too_long = async {
        over.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    let outcome = tokio::select! {
        outcome = writing => outcome,
        () = too_long => return,
    };
    if let Err(error) = outcome {
        drop(inputs.send(Input::Ended { session, end: End::Io(error) }).await);
    }
}

async fn write_messages(
    stream: &mut (impl AsyncWrite + Unpin),
    session: SessionId,
    messages: &mut mpsc::Receiver<Message>,
    inputs: &mpsc::Sender<Input>,
) -> io::Result<()> {
    let (mut frame, mut encoder) = (Vec::new(), Encoder::default());
    while let Some(message) = messages.recv().await {
        frame.clear();
        frame.shrink_to(BUFFER_KEPT_BYTES_MAX);
        encoder.encode(&message, &mut frame).map_err(io::Error::other)?;
        drop(message);
        stream.write_all(&frame).await?;
        stream.flush().await?;
        // Nobody listens any more once the session is over; the rest is written all the same.
        drop(inputs.send(Input::Written { session, bytes: frame.len() }).await);
    }
    stream.shutdown().await
}
