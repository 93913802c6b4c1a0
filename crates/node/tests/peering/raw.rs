//! A peer that says exactly what a test wants, over real TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tidelog_node::Identity;
use tidelog_node::peering::authority::SERVER_NAME;
use tidelog_record::NodeId;
use tidelog_replication::{Decoder, Hello, Message, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// One connection of it.
pub struct Raw {
    pub node: NodeId,
    tls: TlsStream<TcpStream>,
    decoder: Decoder,
}

impl Raw {
    /// Dials with the key and the certificate in `dir`.
    pub async fn connect(dir: &Path, to: std::net::SocketAddr) -> Self {
        let read = |name| std::fs::read(dir.join(name)).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&read("ca.crt")).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(&read("node.crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&read("node.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        let tcp = TcpStream::connect(to).await.unwrap();
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        Self { node: Identity::load(dir, None).unwrap().node, tls, decoder: Decoder::default() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.tls.write_all(bytes).await.unwrap();
        self.tls.flush().await.unwrap();
    }

    pub async fn say(&mut self, message: &Message) {
        let mut frame = Vec::new();
        encode(message, &mut frame).unwrap();
        self.send(&frame).await;
    }

    /// Says hello as a node that speaks these versions.
    pub async fn hello(&mut self, version_min: u16, version_max: u16) {
        let hello = Hello { version_min, version_max, node: self.node, credit_bytes: 1 << 20, instance: 1 };
        self.say(&Message::Hello(hello)).await;
    }

    /// The next message, or nothing when the other side has closed.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return Some(message);
            }
            let mut bytes = [0; 4096];
            match self.tls.read(&mut bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.push(&bytes[..count]),
            }
        }
    }

    /// Reads until the other side closes; how is its affair.
    pub async fn read_on(&mut self) {
        let mut rest = Vec::new();
        drop(self.tls.read_to_end(&mut rest).await);
    }
}
