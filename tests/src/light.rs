//! Light peers: each one the machine of replication with a few records in memory, over real TLS, so that one process can be as many
//! gateways as a cloud node should bear. They store nothing and pull nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tidelog_node::peering::authority::{Authority, LIFETIME_DEFAULT, SERVER_NAME};
use tidelog_record::{Batch, ChainHash, Lsn, NodeId, Record, Run, Series, SiteName, StreamId, Value};
use tidelog_replication::{
    Decoder, DiskReply, DiskRequest, Encoder, Head, Options, Peer, Replica, SessionId, Sites,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes read from a connection at once.
const READ_BYTES: usize = 16 * 1024;
const SESSION: SessionId = SessionId(1);

/// Why a light peer ended.
#[derive(Debug, thiserror::Error)]
pub enum LightError {
    /// The network or TLS.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A certificate could not be made or used.
    #[error("{0}")]
    Certificate(String),
    /// The other side said something that is no message, or broke a rule, or closed.
    #[error("{0}")]
    Session(String),
}

fn certificate(error: impl std::fmt::Display) -> LightError {
    LightError::Certificate(error.to_string())
}

fn session(error: impl std::fmt::Display) -> LightError {
    LightError::Session(error.to_string())
}

/// A light peer, between and in its sessions.
pub struct Light {
    node: NodeId,
    connector: TlsConnector,
    sites: Sites,
    streams: BTreeMap<StreamId, Vec<Record>>,
}

impl Light {
    /// A node with a key and a certificate of `authority` for so many sites of its own, named after `name`.
    ///
    /// # Errors
    /// [`LightError::Certificate`].
    pub fn new(authority: &Authority, name: &str, streams: u32) -> Result<Self, LightError> {
        let key = KeyPair::generate().map_err(certificate)?;
        let node = NodeId::of_public_key(&key.subject_public_key_info());
        let sites: Result<Vec<SiteName>, _> =
            (0..streams).map(|number| format!("{name}-{number}").parse()).collect();
        let sites = sites.map_err(certificate)?;
        let granted = Sites::Only(sites.iter().cloned().collect());
        let until = SystemTime::now() + LIFETIME_DEFAULT;
        let pem = authority.issue(name, &granted, &key, until).map_err(certificate)?;

        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(certificate);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der(authority.certificate_pem())?).map_err(certificate)?;
        let own = PrivateKeyDer::try_from(key.serialize_der()).map_err(certificate)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(certificate)?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![der(&pem)?], own)
            .map_err(certificate)?;
        let streams = sites.into_iter().map(|site| (StreamId { site, node, run: Run(1) }, Vec::new()));
        Ok(Self {
            node,
            connector: TlsConnector::from(Arc::new(config)),
            sites: granted,
            streams: streams.collect(),
        })
    }

    /// Adds a record of one point to each of its streams.
    ///
    /// # Errors
    /// [`LightError::Session`] when it cannot be encoded.
    pub fn append(&mut self) -> Result<(), LightError> {
        for (stream, records) in &mut self.streams {
            let (before, at) =
                records.last().map_or((ChainHash::GENESIS, 0), |last| (last.chain, last.lsn.0));
            let lsn = Lsn(at + 1);
            let time = i64::try_from(lsn.0).map_err(session)? * 1_000_000_000;
            let series = Series::new("temp", [("device", stream.site.as_str())]).map_err(session)?;
            let points = vec![(time, Value::F64(20.0))];
            let batch = Batch { authored_ms: time, origin: None, series: vec![(series, points)] };
            let body = batch.encode().map_err(session)?;
            let chain = before.after(&stream.key(), lsn, &body);
            records.push(Record { stream: stream.clone(), lsn, chain, body });
        }
        Ok(())
    }

    /// Holds a session with the node at `to` until the future is dropped.
    ///
    /// # Errors
    /// [`LightError`] says why it ended.
    pub async fn hold(&self, to: SocketAddr) -> Result<(), LightError> {
        let tcp = TcpStream::connect(to).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(certificate)?;
        let mut tls = self.connector.connect(name, tcp).await?;
        let (_, server) = tls.get_ref();
        let peer = tidelog_node::peering::certificate::node_of_chain(server.peer_certificates())
            .map_err(certificate)?;

        let held = self.streams.iter().filter_map(|(stream, records)| {
            records.last().map(|last| (stream.clone(), Head { lsn: last.lsn, chain: last.chain }))
        });
        let mut replica = Replica::new(Options::new(self.node, Run(1), self.sites.clone(), 1), held);
        let began = Instant::now();
        replica.connected(began.elapsed(), SESSION, Peer { node: peer, sites: Sites::All, dialled: true });
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let (mut bytes, mut frame) = (vec![0; READ_BYTES], Vec::new());
        loop {
            while let Some((_, message)) = replica.poll_transmit() {
                frame.clear();
                encoder.encode(&message, &mut frame).map_err(session)?;
                tls.write_all(&frame).await?;
                replica.transmitted(began.elapsed(), SESSION);
            }
            tls.flush().await?;
            let mut asked = false;
            while let Some(request) = replica.poll_disk() {
                asked = true;
                replica.handle_disk(began.elapsed(), self.answer(request));
            }
            if asked {
                continue;
            }
            while let Some(event) = replica.poll_event() {
                if let tidelog_replication::Event::Closed { reason, .. } = event {
                    return Err(session(reason));
                }
            }
            let due = replica.poll_timeout().unwrap_or(Duration::MAX).saturating_sub(began.elapsed());
            tokio::select! {
                read = tls.read(&mut bytes) => {
                    let count = read?;
                    if count == 0 {
                        return Err(session("closed"));
                    }
                    decoder.push(bytes.get(..count).unwrap_or_default());
                    while let Some(message) = decoder.next_message().map_err(session)? {
                        replica.handle_message(began.elapsed(), SESSION, message).map_err(session)?;
                    }
                }
                () = tokio::time::sleep(due) => replica.handle_timeout(began.elapsed()),
            }
        }
    }

    fn answer(&self, request: DiskRequest) -> DiskReply {
        match request {
            DiskRequest::Read { ticket, stream, after, .. } => {
                let records = self.streams.get(&stream).map(Vec::as_slice).unwrap_or_default();
                let behind = records.iter().filter(|record| record.lsn > after).cloned().collect();
                DiskReply::Read { ticket, outcome: Ok(behind) }
            }
            // Its sites are its own: nobody has records for it.
            DiskRequest::Adopt { ticket, .. } | DiskRequest::Skip { ticket, .. } => {
                DiskReply::Adopted { ticket, outcome: Ok(()) }
            }
        }
    }
}
