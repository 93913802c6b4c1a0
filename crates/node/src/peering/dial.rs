//! Keeps a session with one configured peer: dials, waits for the end, waits a little, dials again. Whether a session
//! is needed at all (the peer may have dialled us) is read off the board.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tidelog_record::NodeId;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsStream;

use super::board::{Board, PeerKey, PeerState};
use super::certificate::{NoNode, Proven, read_proven};
use super::connection::{Connected, Input};
use super::refusal;
use super::reload::Present;
use super::tls::Tls;
use crate::backoff::{Backoff, random};
use crate::context::NodeContext;
use crate::settings::HostPort;

/// Time for the TCP connection and the TLS handshake, each.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether a peer that dialled us itself is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("cannot connect: {0}")]
    Tcp(io::Error),
    #[error("handshake: {}", refusal::in_words(.0))]
    Tls(io::Error),
    #[error("no connection in time")]
    Timeout,
    #[error(transparent)]
    NoNode(#[from] NoNode),
}

impl ConnectError {
    pub fn label(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "network",
            Self::Tls(error) => refusal::label(error),
            Self::Timeout => "timeout",
            Self::NoNode(error) => error.label(),
        }
    }

    /// Whether it is the peer that was refused and not the network that failed.
    pub fn is_refusal(&self) -> bool {
        self.label().starts_with("certificate")
    }
}

/// A connection, who is at its other end, and what proved that.
pub(super) type Believed = (TlsStream<TcpStream>, Proven, Vec<CertificateDer<'static>>);

pub(super) struct Dialler {
    context: NodeContext,
    address: HostPort,
    tls: Present,
    board: Board,
    inputs: mpsc::Sender<Input>,
    /// Who answered there last.
    node: Option<NodeId>,
}

impl Dialler {
    pub fn new(
        context: &NodeContext,
        address: HostPort,
        tls: Present,
        board: Board,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        Self { context: context.clone(), address, tls, board, inputs, node: None }
    }

    /// Goes on until the node ends.
    pub async fn run(mut self) {
        let shutdown = self.context.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep_connected() => {}
        }
    }

    async fn keep_connected(&mut self) {
        let name = self.address.to_string();
        let mut backoff = Backoff::new();
        loop {
            while self.node.is_some_and(|node| self.board.is_connected(&node)) {
                sleep(LOOK_AGAIN).await;
            }
            self.board.dial(&name, PeerState::Dialling, None);
            let tls = Arc::clone(&self.tls.borrow_and_update());
            match self.connect(&tls).await {
                Ok((stream, proven, chain)) => {
                    self.node = Some(proven.node);
                    let (ended, over) = oneshot::channel();
                    let connected = Connected {
                        stream,
                        proven,
                        chain,
                        believed_by: tls,
                        key: PeerKey::Dialled(name.clone()),
                        address: name.clone(),
                        ended: Some(ended),
                    };
                    if self.inputs.send(Input::Connected(Box::new(connected))).await.is_err() {
                        return;
                    }
                    if over.await.unwrap_or(false) {
                        backoff.reset();
                    }
                }
                Err(error) => {
                    let metrics = &self.context.metrics;
                    metrics.peer_ended.with_label_values(&[error.label()]).inc();
                    if error.is_refusal() {
                        metrics.peer_refused.with_label_values(&[error.label()]).inc();
                        tracing::warn!(peer = %name, %error, "peer refused");
                    } else {
                        tracing::debug!(peer = %name, %error, "cannot reach the peer");
                    }
                    self.board.dial(&name, PeerState::Waiting, Some(error.to_string()));
                }
            }
            tokio::select! {
                () = sleep(backoff.next(random())) => {}
                // What was refused may be believed now.
                Ok(()) = self.tls.changed() => backoff.reset(),
            }
        }
    }

    async fn connect(&self, tls: &Tls) -> Result<Believed, ConnectError> {
        let tcp =
            timeout(HANDSHAKE_TIMEOUT, TcpStream::connect((self.address.host.as_str(), self.address.port)));
        let tcp = tcp.await.map_err(|_| ConnectError::Timeout)?.map_err(ConnectError::Tcp)?;
        tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
        let (connector, name) = tls.connector();
        let tls = timeout(HANDSHAKE_TIMEOUT, connector.connect(name, tcp));
        let tls = tls.await.map_err(|_| ConnectError::Timeout)?.map_err(ConnectError::Tls)?;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let proven = read_proven(Some(&chain))?;
        Ok((TlsStream::Client(tls), proven, chain))
    }
}
