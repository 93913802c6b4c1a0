//! Replication with other nodes: the sockets, certificates and threads around the machine of `tidelog_replication`, which
//! decides everything that is said. One task owns the machine; connections, the disk and the clock talk to it
//! through bounded channels, so a slow peer costs a bounded amount here and never blocks an append (invariant 9).
//!
//! Both ends of a connection prove themselves with a certificate of the cluster's authority ([`authority`]); node and sites
//! are read from it and from nothing else (invariant 13). Without peers and an address to listen on there is no peering.

pub mod authority;
mod board;
pub mod certificate;
mod claims;
mod connection;
mod dial;
mod disk;
mod driver;
mod lag;
mod listen;
mod refusal;
mod reload;
pub mod revocation;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidelog_replication::{FLOOR_WAIT_MS, Head, Options, Replica};
use tokio::sync::mpsc;

use crate::backoff::random;
use crate::context::{NodeContext, StartError};
use crate::held::Cloud;
use crate::identity::Identity;
use crate::node::write_address;
use crate::settings::PeeringSettings;

pub use board::{PeerState, PeerStatus};

/// The bound address for peers stands in this file of the node's directory.
pub const PEERING_ADDRESS_FILE: &str = "peering.addr";

/// Inputs waiting for the task that owns the machine. Each may be a message, so this bounds memory too.
const INPUTS_MAX: usize = 16;

/// Whether the settings name all that peering needs, without reading any of it.
///
/// # Errors
/// [`StartError::Setting`] names what is missing.
pub fn check(settings: &PeeringSettings) -> Result<(), StartError> {
    tls::Files::of(settings).map(drop)
}

/// Who can confirm that records are in the cloud, as this node's own certificate has it.
fn cloud_of(tls: &tls::Tls) -> Cloud {
    if tls.own().cloud { Cloud::Here } else { Cloud::Peers }
}

/// Starts replication, if the settings ask for it. The bound address, if it listens.
///
/// # Errors
/// [`StartError`] names the setting, file or address that is at fault.
pub async fn start(
    context: &NodeContext,
    settings: &PeeringSettings,
    identity: &Identity,
) -> Result<Option<SocketAddr>, StartError> {
    start_waiting(context, settings, identity, Duration::from_millis(FLOOR_WAIT_MS)).await
}

/// As [`start`]; so long is waited for what peers say to have dropped by policy.
///
/// # Errors
/// As [`start`].
pub async fn start_waiting(
    context: &NodeContext,
    settings: &PeeringSettings,
    identity: &Identity,
    floor_wait: Duration,
) -> Result<Option<SocketAddr>, StartError> {
    let Some(files) = tls::Files::of(settings)? else { return Ok(None) };
    let key = tls::OwnKey::of(identity);
    let tls = Arc::new(tls::Tls::load(&files, &key)?);
    let listening = match settings.listen {
        None => None,
        Some(address) => Some(listen::bind(address).await?),
    };
    let bound = listening.as_ref().map(|(_, bound)| *bound);
    if let Some(bound) = bound {
        write_address(&context.dir, PEERING_ADDRESS_FILE, bound)?;
    }
    context.held.open(cloud_of(&tls));
    context.ways.want();
    let board = board::Board::new(context.ways.clone());
    let (inputs, from_outside) = mpsc::channel(INPUTS_MAX);
    let vector = context.store.vector().into_iter().map(|(id, lsn, chain)| (id, Head { lsn, chain }));
    let instance = u64::from(random()) << 32 | u64::from(random());
    let sites = tls.own().sites.clone();
    let options = Options { floor_wait, ..Options::new(identity.node, context.store.run(), sites, instance) };
    let (reload, present) = reload::Reload::new(context, files, key, Arc::clone(&tls), inputs.clone());
    context.tasks.spawn(reload.run());
    let driver = driver::Driver::new(
        context,
        Replica::new(options, vector),
        tls,
        board.clone(),
        inputs.clone(),
        from_outside,
    );
    context.tasks.spawn(driver.run());
    for address in &settings.peers {
        let dialler =
            dial::Dialler::new(context, address.clone(), present.clone(), board.clone(), inputs.clone());
        context.tasks.spawn(dialler.run());
    }
    if let Some((listener, _)) = listening {
        context.tasks.spawn(listen::accept(context.clone(), listener, present, inputs));
    }
    context.status.section("peers", move || board.as_json());
    Ok(bound)
}
