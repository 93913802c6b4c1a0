//! The door for other people's CoAP devices on this machine's networks: a UDP socket, IPv6 or IPv4, and the task between it, the server
//! and the store. What is answered is [`server`]'s affair. A device proves nothing here, so the door is shut unless it is asked for, and
//! opens to other machines only where the configuration says that it may.

mod block;
pub(crate) mod server;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidelog_lowpan::time::Instant;
use tidelog_node::{NodeContext, StartError};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use self::server::{APPENDS_MAX, Append, Server};
use crate::append::{Settled, append};
use crate::entropy;
use crate::settings::CoapSettings;

/// Longest datagram that is taken, in bytes: a block of 1,024 bytes, and room for its options.
const DATAGRAM_BYTES_MAX: usize = 2048;

/// How long appends in hand may take when the gateway ends.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Pause after an error of the socket, so that one that lasts takes no processor.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Opens the door if the settings ask for it.
///
/// # Errors
/// [`StartError::Setting`] for an address that others reach and nobody said may be; [`StartError::Bind`].
pub async fn start(context: &NodeContext, settings: &CoapSettings) -> Result<(), StartError> {
    let Some(address) = settings.coap_listen else { return Ok(()) };
    if !settings.coap_insecure && !address.ip().to_canonical().is_loopback() {
        let reason = "whoever reaches this address could write points, because CoAP over UDP has no door: listen on [::1], or say \
                      --coap-insecure (coap_insecure = true) where the network is trusted";
        return Err(StartError::Setting { key: "coap_listen", reason: reason.to_owned() });
    }
    let bind = |source| StartError::Bind { purpose: "coap", address, source };
    let socket = UdpSocket::bind(address).await.map_err(bind)?;
    let address = socket.local_addr().map_err(bind)?;
    context.status.section("coap", move || json!({"listening": address}));
    let [a, b, ..] = entropy().to_be_bytes();
    let server = Server::new(Arc::clone(&context.metrics), "", u16::from_be_bytes([a, b]));
    let (outcome, outcomes) = mpsc::channel(APPENDS_MAX);
    let started = std::time::Instant::now();
    let door = Door { context: context.clone(), socket, server, outcome, outcomes, started };
    tracing::info!(%address, "CoAP is answered");
    context.tasks.spawn(door.run());
    Ok(())
}

struct Door {
    context: NodeContext,
    socket: UdpSocket,
    server: Server<SocketAddr>,
    outcome: mpsc::Sender<Settled<u64>>,
    outcomes: mpsc::Receiver<Settled<u64>>,
    started: std::time::Instant,
}

impl Door {
    async fn run(mut self) {
        let shutdown = self.context.shutdown.clone();
        let mut datagram = [0; DATAGRAM_BYTES_MAX];
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                received = self.socket.recv_from(&mut datagram) => self.hear(received, &datagram).await,
                Some((number, outcome)) = self.outcomes.recv() => self.server.handle_outcome(number, outcome),
            }
            self.pump().await;
        }
        let last = async {
            while self.server.appending() > 0
                && let Some((number, outcome)) = self.outcomes.recv().await
            {
                self.server.handle_outcome(number, outcome);
                self.pump().await;
            }
        };
        // Out of time: who was not answered asks another time.
        drop(tokio::time::timeout(FAREWELL_MAX, last).await);
    }

    async fn hear(&mut self, received: io::Result<(usize, SocketAddr)>, datagram: &[u8]) {
        match received {
            Ok((length, peer)) => {
                let since = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
                let sender = peer.ip().to_canonical().to_string();
                let datagram = datagram.get(..length).unwrap_or_default();
                let clock_ms = self.context.now_ms();
                self.server.handle_datagram(Instant::from_micros(since), clock_ms, (peer, &sender), datagram);
            }
            Err(error) => {
                tracing::debug!(%error, "the CoAP socket");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }

    async fn pump(&mut self) {
        while let Some(Append { number, body }) = self.server.poll_append() {
            append(&self.context, (number, body), &self.outcome, server::VIA);
        }
        while let Some((peer, answer)) = self.server.poll_transmit() {
            if let Err(error) = self.socket.send_to(&answer, peer).await {
                tracing::debug!(%peer, %error, "an answer cannot be sent");
                self.context.metrics.refused.with_label_values(&[server::VIA, "unsendable_answer"]).inc();
            }
        }
    }
}
