//! A TCP link that can be cut: what stands between a gateway and the world in the demo. It passes bytes and knows no protocol.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One link from a port on loopback to a fixed address. Dropping it cuts it.
pub struct Uplink {
    address: SocketAddr,
    up: watch::Sender<bool>,
}

impl Uplink {
    /// Opens a link that leads to `target`, `HOST:PORT`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn open(target: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (up, watch) = watch::channel(true);
        tokio::spawn(accept(listener, target, watch));
        Ok(Self { address, up })
    }

    /// Where to dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops every connection and refuses new ones until [`Uplink::mend`].
    pub fn cut(&self) {
        self.up.send_replace(false);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.up.send_replace(true);
    }
}

async fn accept(listener: TcpListener, target: String, mut up: watch::Receiver<bool>) {
    loop {
        let incoming = tokio::select! {
            incoming = listener.accept() => incoming,
            changed = up.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        match incoming {
            Ok((stream, _)) if *up.borrow() => {
                tokio::spawn(pass(stream, target.clone(), up.clone()));
            }
            Ok((refused, _)) => drop(refused),
            Err(error) => tracing::warn!(%error, "the uplink cannot accept"),
        }
    }
}

async fn pass(mut near: TcpStream, target: String, mut up: watch::Receiver<bool>) {
    let both = async {
        let mut far = TcpStream::connect(&target).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        tokio::io::copy_bidirectional(&mut near, &mut far).await
    };
    tokio::select! {
        ended = both => if let Err(error) = ended {
            tracing::debug!(%error, %target, "a connection over the uplink ended");
        },
        _ = up.wait_for(|up| !up) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_cut_link_drops_and_refuses_until_it_is_mended() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uplink = Uplink::open(server.local_addr().unwrap().to_string()).await.unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = server.accept().await.unwrap();
                stream.write_all(b"hello").await.unwrap();
                tokio::spawn(async move { stream.read_u8().await });
            }
        });
        let mut buffer = [0; 5];
        let mut stream = TcpStream::connect(uplink.address()).await.unwrap();
        stream.read_exact(&mut buffer).await.unwrap();
        uplink.cut();
        assert!(stream.read_u8().await.is_err(), "the open connection is gone");
        let mut refused = TcpStream::connect(uplink.address()).await.unwrap();
        assert!(refused.read_u8().await.is_err(), "a new one leads nowhere");
        uplink.mend();
        let mut stream = TcpStream::connect(uplink.address()).await.unwrap();
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello");
    }
}
