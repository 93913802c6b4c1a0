//! Ports on loopback for daemons and brokers that are killed and started again on the same one. It only finds them; whoever takes one
//! binds it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports that the system gives nobody by itself (its own choice begins at 32768): one of them stays free while its daemon is
/// being restarted, where a port of the system's choice may meanwhile become another connection's.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port on loopback that is free now and given out once by this process.
///
/// # Errors
/// When none can be bound.
pub fn free_port() -> io::Result<SocketAddr> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Runs beside each other begin at different places.
    let first = std::process::id().wrapping_mul(101);
    let mut last_error = io::ErrorKind::AddrInUse.into();
    for _ in 0..count {
        let place = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % count;
        let port = PORTS.start + u16::try_from(place).unwrap_or_default();
        match TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr()) {
            Ok(address) => return Ok(address),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_out_once_and_outside_the_systems_own_range() {
        let ports: Vec<u16> = (0..50).map(|_| free_port().unwrap().port()).collect();
        let once: std::collections::BTreeSet<&u16> = ports.iter().collect();
        assert_eq!(once.len(), ports.len());
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }
}
