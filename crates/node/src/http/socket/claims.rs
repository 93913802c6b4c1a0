//! Which socket a device has: the newest that says it is of it. The one before is most often a connection that broke and does not know
//! it yet, so it is told to end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_record::{DeviceId, SiteName};
use tokio_util::sync::CancellationToken;

type Key = (SiteName, DeviceId);

/// The sockets that are of a device; as many as there may be sockets.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct Claims(Arc<Mutex<HashMap<Key, Arc<CancellationToken>>>>);

/// One socket's claim to be a device's. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    all: Claims,
    key: Key,
    lost: Arc<CancellationToken>,
}

impl Claims {
    /// Claims a device; whoever had it loses it.
    pub(super) fn take(&self, site: SiteName, device: DeviceId) -> Claim {
        let (key, lost) = ((site, device), Arc::new(CancellationToken::new()));
        if let Some(before) = self.lock().insert(key.clone(), Arc::clone(&lost)) {
            before.cancel();
        }
        Claim { all: self.clone(), key, lost }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<CancellationToken>>> {
        // What it holds is whole after each call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Returns once another socket has the device.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if all.get(&self.key).is_some_and(|token| Arc::ptr_eq(token, &self.lost)) {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_has_the_device_and_what_was_given_back_leaves_nothing() {
        let (claims, site) = (Claims::default(), |name: &str| name.parse::<SiteName>().unwrap());
        let device = DeviceId([1; 8]);
        let first = claims.take(site("a"), device);
        let elsewhere = claims.take(site("b"), device);
        assert!(!first.lost.is_cancelled() && !elsewhere.lost.is_cancelled());
        let second = claims.take(site("a"), device);
        assert!(first.lost.is_cancelled() && !second.lost.is_cancelled() && !elsewhere.lost.is_cancelled());
        drop(first);
        let third = claims.take(site("a"), device);
        assert!(second.lost.is_cancelled(), "the first gave back nothing of the second's");
        drop((second, third, elsewhere));
        assert!(claims.lock().is_empty());
    }
}
