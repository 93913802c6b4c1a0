//! A follower on a WebSocket: what is told goes out as messages, held back by its reader; nothing but signs of life comes in.

use std::time::Duration;

use tidelog_store::Position;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::super::socket::{End, Handshake, Socket, ping_every};
use super::super::stream::Piece;
use super::Tail;
use crate::context::NodeContext;

/// Longest message that may come, in bytes. None means anything.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Why a client that says something hears no more.
const NOTHING_TO_SAY: &str = "a follower has nothing to say";

/// Tells a follower what it wants, until one of them ends.
pub(super) async fn tell(
    handshake: Handshake,
    stall: Duration,
    tail: Tail,
    commits: watch::Receiver<Position>,
    pieces: mpsc::Receiver<Piece>,
    context: NodeContext,
) {
    // The answer to a ping may stand behind megabytes that a slow reader has not read: silence ends nothing here. Who is gone takes no
    // bytes, and that ends it.
    let mut socket = match handshake.finish(MESSAGE_BYTES_MAX, ping_every(stall), None).await {
        Ok(socket) => socket,
        Err(end) => return count(&context, end),
    };
    let end = tell_on(&mut socket, tail, commits, pieces).await;
    count(&context, end);
    socket.end(end).await;
}

async fn tell_on(
    socket: &mut Socket,
    tail: Tail,
    commits: watch::Receiver<Position>,
    mut pieces: mpsc::Receiver<Piece>,
) -> End {
    let mut telling = std::pin::pin!(tail.run(commits));
    let mut end = None;
    loop {
        tokio::select! {
            ended = telling.as_mut(), if end.is_none() => {
                // What waits is told still, but to nobody who may not hear it.
                if ended != End::Told {
                    return ended;
                }
                end = Some(ended);
            }
            piece = pieces.recv() => match piece {
                Some(Ok(bytes)) => {
                    let Ok(text) = Utf8Bytes::try_from(bytes) else { return End::Unreadable };
                    if let Err(end) = socket.say(text).await {
                        return end;
                    }
                }
                // The tail says why it ends.
                Some(Err(_)) => {}
                None => return end.unwrap_or(End::Told),
            },
            heard = socket.hear() => match heard {
                Ok(_) => return End::Unwanted(NOTHING_TO_SAY),
                Err(end) => return end,
            },
        }
    }
}

fn count(context: &NodeContext, end: End) {
    context.metrics.sockets_ended.with_label_values(&[end.name()]).inc();
}
