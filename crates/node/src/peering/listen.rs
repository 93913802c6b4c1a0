//! Accepts peers: bounds how many there are, gives each a short time to prove itself, and hands it over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsStream;

use super::board::PeerKey;
use super::certificate::read_proven;
use super::connection::{Connected, Input};
use super::dial::{Believed, ConnectError, HANDSHAKE_TIMEOUT};
use super::reload::Present;
use super::tls::Tls;
use crate::context::{NodeContext, StartError};

/// Connections from peers at one time; more are closed at once.
const INBOUND_CONNECTIONS_MAX: usize = 2048;
/// Pause after the system refused to accept, for want of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let error = |source| StartError::Bind { purpose: "peering", address, source };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    Ok((listener, bound))
}

/// Accepts until the node ends.
pub(super) async fn accept(
    context: NodeContext,
    listener: TcpListener,
    present: Present,
    inputs: mpsc::Sender<Input>,
) {
    let room = Arc::new(Semaphore::new(INBOUND_CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = context.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            context.metrics.peer_refused.with_label_values(&["too_many_connections"]).inc();
            continue;
        };
        let tls = Arc::clone(&present.borrow());
        let (context, inputs) = (context.clone(), inputs.clone());
        let tasks = context.tasks.clone();
        tasks.spawn(async move {
            let shutdown = context.shutdown.clone();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = serve(&context, tcp, address, tls, inputs) => {}
            }
            drop(place);
        });
    }
}

/// From the first byte to the end of the session, so that its place is taken as long.
async fn serve(
    context: &NodeContext,
    tcp: TcpStream,
    address: SocketAddr,
    tls: Arc<Tls>,
    inputs: mpsc::Sender<Input>,
) {
    match prove(tcp, &tls).await {
        Ok((stream, proven, chain)) => {
            let (ended, over) = oneshot::channel();
            let key = PeerKey::Accepted(proven.node);
            let connected = Connected {
                stream,
                proven,
                chain,
                believed_by: tls,
                key,
                address: address.to_string(),
                ended: Some(ended),
            };
            if inputs.send(Input::Connected(Box::new(connected))).await.is_ok() {
                drop(over.await);
            }
        }
        Err(error) => {
            context.metrics.peer_ended.with_label_values(&[error.label()]).inc();
            context.metrics.peer_refused.with_label_values(&[error.label()]).inc();
            tracing::warn!(%address, %error, "a peer could not prove itself");
        }
    }
}

async fn prove(tcp: TcpStream, tls: &Tls) -> Result<Believed, ConnectError> {
    tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
    let tls = timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(tcp));
    let tls = tls.await.map_err(|_| ConnectError::Timeout)?.map_err(ConnectError::Tls)?;
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let proven = read_proven(Some(&chain))?;
    Ok((TlsStream::Server(tls), proven, chain))
}
