//! Connections: accepted up to a bound, each with a time limit on its handshake, on its heads and on taking its answers, all ended
//! within the shutdown time. What is said on them is the router's affair.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::tls::Present;
use super::{Api, router};
use crate::metrics::Metrics;

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Longest time that a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How long open requests may take to finish once the node is to end.
const DRAIN: Duration = Duration::from_secs(3);

/// Pause after the system refused a connection (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until `shutdown`, each as a task of `tasks`; with `tls` in TLS alone.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Present>,
    api: Api,
    shutdown: CancellationToken,
    tasks: TaskTracker,
) {
    let connections_max = usize::try_from(api.limits.connections_max).unwrap_or(Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    let (metrics, stall) = (Arc::clone(&api.metrics), api.limits.stall);
    let service = router(api);
    loop {
        let accepted = async {
            // Past the bound a client waits in the system's queue. The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            () = shutdown.cancelled() => return,
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => (place, stream),
                Err(error) => {
                    metrics.http_dropped.with_label_values(&["accept"]).inc();
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let (metrics, service, shutdown) = (Arc::clone(&metrics), service.clone(), shutdown.clone());
        let acceptor = tls.as_ref().map(|tls| tls.borrow().acceptor());
        tasks.spawn(async move {
            metrics.http_connections.inc();
            match acceptor {
                None => converse(stream, service, stall, &shutdown, &metrics).await,
                Some(acceptor) => {
                    if let Some(stream) = shake_hands(&acceptor, stream, stall, &shutdown, &metrics).await {
                        converse(stream, service, stall, &shutdown, &metrics).await;
                    }
                }
            }
            metrics.http_connections.dec();
            drop(place);
        });
    }
}

/// The stream within TLS; none when the other side fails to begin it in time.
async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    stall: Duration,
    shutdown: &CancellationToken,
    metrics: &Metrics,
) -> Option<TlsStream<TcpStream>> {
    let shaken = tokio::select! {
        () = shutdown.cancelled() => return None,
        shaken = timeout(stall.min(HANDSHAKE_MAX), acceptor.accept(stream)) => shaken,
    };
    let reason = match shaken {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS");
            "tls"
        }
        Err(_) => "tls_timeout",
    };
    metrics.http_dropped.with_label_values(&[reason]).inc();
    None
}

async fn converse<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    service: Router,
    stall: Duration,
    shutdown: &CancellationToken,
    metrics: &Metrics,
) {
    let io = TokioIo::new(Patient { stream, stall, stalled: None });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(stall)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(io, TowerToHyperService::new(service))
        // One that becomes a WebSocket leaves its place here: those are bounded where they begin.
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN, connection).await.ok()
        }
    };
    let reason = match ended {
        Some(Ok(())) => return,
        None => "shutdown",
        Some(Err(error)) if error.is_timeout() => "timeout",
        Some(Err(error)) if error.is_parse() => "malformed",
        Some(Err(error)) if error.is_incomplete_message() || error.is_canceled() => "client_left",
        Some(Err(error)) => {
            tracing::debug!(%error, "an HTTP connection broke");
            "broken"
        }
    };
    metrics.http_dropped.with_label_values(&[reason]).inc();
}

/// A stream on which the other side must take bytes within a time.
struct Patient<S> {
    stream: S,
    stall: Duration,
    /// Runs while the other side takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn judge<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let stall = self.stall;
        let stalled =
            self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + stall)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.judge(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
