//! Where a request goes.
//!
//! - A **cache** request goes to the endpoint that the caller chose, because the node asked is the cache. Only with
//!   `cache_any` does it go on to another one.
//! - A **queue or lock** request goes to the leader of its group where that is known, else to the endpoint that worked last:
//!   any node forwards it.
//!
//! Who leads is learnt from a node's status when the client connects, and from the hint of a `NotLeader`; it is
//! forgotten when it turns out wrong, and then asked for again, not more than once a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::NodeStatus;
use crate::command::{Command, Request};

use super::clock;
use super::endpoint::Endpoint;

/// Addresses that the client keeps beside those it was given; hints beyond it are not followed.
const LEARNT_ENDPOINTS_MAX: usize = 64;
/// Time between two questions about who leads.
const REFRESH: Duration = Duration::from_secs(1);

/// The endpoints, and what is known of them.
pub(super) struct Routes {
    configured: Vec<Arc<Endpoint>>,
    learnt: Mutex<BTreeMap<String, Arc<Endpoint>>>,
    leaders: Mutex<BTreeMap<u32, Arc<Endpoint>>>,
    preferred: AtomicUsize,
    refreshed: Mutex<Option<Instant>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether only the chosen node may answer it: its cache is asked, or its own copy of a group.
pub(super) fn is_for_cache(request: &Request) -> bool {
    let command = request.command();
    let of_this_node = matches!(command, Command::Backup | Command::BackupRead);
    of_this_node || (command.module() == "cache" && !matches!(command, Command::ListKeys | Command::Evacuate))
}

impl Routes {
    /// # Panics
    /// Where there is no address; the caller has looked.
    pub(super) fn new(addresses: &[String]) -> Self {
        assert!(!addresses.is_empty(), "a client has at least one endpoint");
        Self {
            configured: addresses.iter().map(|address| Endpoint::new(address)).collect(),
            learnt: Mutex::default(),
            leaders: Mutex::default(),
            preferred: AtomicUsize::new(0),
            refreshed: Mutex::default(),
        }
    }

    /// The endpoints that the caller gave.
    pub(super) fn configured(&self) -> &[Arc<Endpoint>] {
        &self.configured
    }

    /// The endpoint of an address, given or learnt. None where too many have been learnt.
    pub(super) fn endpoint(&self, address: &str) -> Option<Arc<Endpoint>> {
        if let Some(endpoint) = self.configured.iter().find(|endpoint| endpoint.address() == address) {
            return Some(endpoint.clone());
        }
        let mut learnt = locked(&self.learnt);
        if let Some(endpoint) = learnt.get(address) {
            return Some(endpoint.clone());
        }
        if learnt.len() >= LEARNT_ENDPOINTS_MAX {
            return None;
        }
        Some(learnt.entry(address.into()).or_insert_with(|| Endpoint::new(address)).clone())
    }

    /// The endpoint that worked last.
    pub(super) fn preferred(&self) -> Arc<Endpoint> {
        self.configured[self.preferred.load(Ordering::Relaxed) % self.configured.len()].clone()
    }

    /// The leader of a group, or the endpoint that worked last.
    pub(super) fn leader_or_preferred(&self, group: Option<u32>) -> Arc<Endpoint> {
        let leader = group.and_then(|group| locked(&self.leaders).get(&group).cloned());
        leader.unwrap_or_else(|| self.preferred())
    }

    /// An endpoint did not work for a group: it is no leader any more, and not preferred where there are others.
    pub(super) fn forget(&self, group: Option<u32>, failed: &Arc<Endpoint>) {
        if let Some(group) = group {
            let mut leaders = locked(&self.leaders);
            if leaders.get(&group).is_some_and(|leader| Arc::ptr_eq(leader, failed)) {
                leaders.remove(&group);
            }
        }
        let preferred = self.preferred.load(Ordering::Relaxed);
        if Arc::ptr_eq(&self.configured[preferred % self.configured.len()], failed) {
            // Where two callers find out at once, the second one's exchange fails and one step is made.
            let next = (preferred + 1) % self.configured.len();
            let _ = self.preferred.compare_exchange(preferred, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Notes who leads a group.
    pub(super) fn learn(&self, group: u32, address: &str) {
        if let Some(endpoint) = self.endpoint(address) {
            locked(&self.leaders).insert(group, endpoint);
        }
    }

    /// Notes who leads the groups that no leader is known of.
    pub(super) fn learn_all(&self, status: &NodeStatus) {
        for group in &status.groups {
            let leader = group.leader.as_ref().and_then(|leader| status.nodes.iter().find(|node| node.node == *leader));
            let endpoint = leader.and_then(|node| self.endpoint(&node.client));
            if let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_shunned()) {
                locked(&self.leaders).entry(group.group).or_insert(endpoint);
            }
        }
    }

    /// True once a second where the leader of a group is not known: then it is time to ask for the status.
    pub(super) fn wants_refresh(&self, group: Option<u32>) -> bool {
        let Some(group) = group else { return false };
        if locked(&self.leaders).contains_key(&group) {
            return false;
        }
        let (now, mut refreshed) = (clock::now(), locked(&self.refreshed));
        match *refreshed {
            Some(last) if now < last + REFRESH => false,
            _ => {
                *refreshed = Some(now);
                true
            }
        }
    }
}
