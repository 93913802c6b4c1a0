//! A client on a WebSocket, and one that speaks it byte by byte.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, HandshakeError, Message, WebSocket};

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A WebSocket, seen from the client.
pub struct Socket(pub WebSocket<TcpStream>);

impl Socket {
    /// Opens one, or gives the status and the body of the refusal.
    pub fn try_open(url: &str, target: &str, heads: &[(&'static str, &str)]) -> Result<Self, (u16, String)> {
        let address = url.strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("ws://{address}{target}").into_client_request().unwrap();
        for (name, value) in heads {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                let body = answer.body().as_ref().map(|body| String::from_utf8_lossy(body).into_owned());
                Err((answer.status().as_u16(), body.unwrap_or_default()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub fn open(url: &str, target: &str, heads: &[(&'static str, &str)]) -> Self {
        Self::try_open(url, target, heads).unwrap_or_else(|refusal| panic!("{target}: {refusal:?}"))
    }

    pub fn say(&mut self, message: impl Into<Message>) {
        self.0.send(message.into()).unwrap();
    }

    /// The next text, or the code with which the node closed; none where it went without a word.
    pub fn next(&mut self) -> Result<Value, Option<u16>> {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Ok(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(frame)) => {
                    let code = frame.map(|frame| u16::from(frame.code));
                    while self.0.read().is_ok() {}
                    return Err(code);
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    panic!("waited in vain")
                }
                Err(_) => return Err(None),
            }
        }
    }

    /// The code with which the node closes, whatever it says before.
    pub fn closed(&mut self) -> Option<u16> {
        loop {
            if let Err(code) = self.next() {
                return code;
            }
        }
    }
}
