//! Which message of a queue is handed out next: by priority, then by turns of the tenants, then by age.
//!
//! ```text
//!   priority 7   tenant a: 12 15     tenant b: 13
//!   priority 0   tenant a: 3 4 9
//! ```
//!
//! A *lane* is one priority. In it each tenant has its messages in the order of their ids, and a *pass*: how much of its share it
//! has used. The tenant with the lowest pass is served, and its pass grows by [`STRIDE`] over its weight (stride scheduling:
//! Waldspurger and Weihl, 1995). A tenant that comes back after a pause begins at the lowest pass of those that are there,
//! so it has saved up nothing. Where the queue has no fair share, all messages belong to the tenant without a name.
//!
//! With **ageing**, a lane counts as so many priorities higher as its oldest message has waited steps; of equal lanes the one with the older
//! message is served. So a low priority waits long, but not for ever.
//!
//! # Invariants
//! - A lane that is there has a tenant, and a tenant in it has a message.
//! - The order of the tenants of a lane is that of their passes.

use std::collections::{BTreeMap, BTreeSet};

use super::table::Bitmap;
use crate::ids::Index;

/// By how much a delivery moves the pass of a tenant of weight 1. Divisible by every weight up to ten, and large against 1,000.
pub(super) const STRIDE: u64 = 2_520_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lane {
    tenants: BTreeMap<String, Bitmap>,
    order: BTreeSet<(u64, String)>,
}

/// The messages of one queue that may be handed out now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lanes {
    /// By priority.
    lanes: BTreeMap<u8, Lane>,
}

impl Lanes {
    /// Lanes of messages that have nothing special.
    pub(super) fn plain(messages: &Bitmap) -> Self {
        let mut lanes = Self::default();
        if messages.len() > 0 {
            let tenants = BTreeMap::from([(String::new(), messages.clone())]);
            lanes.lanes.insert(0, Lane { tenants, order: BTreeSet::from([(0, String::new())]) });
        }
        lanes
    }

    /// Whether a tenant has a message here.
    pub(super) fn has_tenant(&self, tenant: &str) -> bool {
        self.lanes.values().any(|lane| lane.tenants.contains_key(tenant))
    }

    /// The lowest pass of the tenants that have a message here.
    pub(super) fn least_pass(&self) -> Option<u64> {
        self.lanes.values().filter_map(|lane| lane.order.first()).map(|(pass, _)| *pass).min()
    }

    /// Number of messages.
    pub(super) fn len(&self) -> u64 {
        self.lanes.values().flat_map(|lane| lane.tenants.values()).map(Bitmap::len).sum()
    }

    /// Whether a message is here.
    pub(super) fn contains(&self, priority: u8, tenant: &str, id: Index) -> bool {
        let bits = self.lanes.get(&priority).and_then(|lane| lane.tenants.get(tenant));
        bits.is_some_and(|bits| bits.contains(id))
    }

    pub(super) fn insert(&mut self, priority: u8, tenant: &str, pass: u64, id: Index) {
        let lane = self.lanes.entry(priority).or_default();
        if !lane.tenants.contains_key(tenant) {
            lane.order.insert((pass, tenant.to_owned()));
            lane.tenants.insert(tenant.to_owned(), Bitmap::default());
        }
        let bits = lane.tenants.get_mut(tenant).expect("put in above");
        assert!(bits.insert(id), "message {id} is in its lane twice");
    }

    pub(super) fn remove(&mut self, priority: u8, tenant: &str, pass: u64, id: Index) {
        let lane = self.lanes.get_mut(&priority).expect("a message that may be handed out has a lane");
        let bits = lane.tenants.get_mut(tenant).expect("a message that may be handed out has a tenant");
        assert!(bits.remove(id), "message {id} is not in its lane");
        if bits.len() == 0 {
            lane.tenants.remove(tenant);
            assert!(lane.order.remove(&(pass, tenant.to_owned())), "tenant '{tenant}' has another pass than {pass}");
        }
        if lane.tenants.is_empty() {
            self.lanes.remove(&priority);
        }
    }

    /// A tenant has another pass now.
    pub(super) fn move_tenant(&mut self, tenant: &str, from: u64, to: u64) {
        for lane in self.lanes.values_mut() {
            if lane.order.remove(&(from, tenant.to_owned())) {
                lane.order.insert((to, tenant.to_owned()));
            }
        }
    }

    /// The message that is handed out next. With `ageing_ms`, `waited_ms` is asked how long a message has waited.
    pub(super) fn next(&self, ageing_ms: u32, waited_ms: impl Fn(Index) -> u64) -> Option<Index> {
        if ageing_ms == 0 {
            return self.lanes.last_key_value().map(|(_, lane)| lane.next());
        }
        let rank = |(priority, lane): (&u8, &Lane)| {
            let oldest =
                lane.tenants.values().filter_map(Bitmap::first).min().expect("a lane that is there has messages");
            let risen = waited_ms(oldest) / u64::from(ageing_ms);
            (u64::from(*priority).saturating_add(risen), std::cmp::Reverse(oldest), lane.next())
        };
        self.lanes.iter().map(rank).max().map(|(_, _, next)| next)
    }

    /// How many messages are handed out before this one, where none comes and goes: those of higher priority, and of its own
    /// priority those with lower ids. An estimate where tenants take turns.
    pub(super) fn before(&self, priority: u8, id: Index) -> u64 {
        let higher: u64 = self
            .lanes
            .range(priority.saturating_add(1)..)
            .flat_map(|(_, lane)| lane.tenants.values())
            .map(Bitmap::len)
            .sum();
        let own = self.lanes.get(&priority).into_iter().flat_map(|lane| lane.tenants.values());
        higher + own.map(|bits| bits.below(id)).sum::<u64>()
    }
}

impl Lane {
    fn next(&self) -> Index {
        let (_, tenant) = self.order.first().expect("a lane that is there has a tenant");
        self.tenants[tenant].first().expect("a tenant in a lane has a message")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_priority_goes_first_and_equals_go_by_age() {
        let mut lanes = Lanes::default();
        for (priority, id) in [(0, 1), (5, 9), (5, 4), (31, 20)] {
            lanes.insert(priority, "", 0, id);
        }
        assert_eq!(lanes.before(0, 1), 3);
        assert_eq!(lanes.before(5, 9), 2);
        let mut order = Vec::new();
        while let Some(id) = lanes.next(0, |_| 0) {
            let priority = [0, 5, 31].into_iter().find(|priority| lanes.contains(*priority, "", id)).unwrap();
            lanes.remove(priority, "", 0, id);
            order.push(id);
        }
        assert_eq!(order, [20, 4, 9, 1]);
        assert_eq!(lanes, Lanes::default());
    }

    #[test]
    fn waiting_raises_a_lane() {
        let mut lanes = Lanes::default();
        lanes.insert(0, "", 0, 1);
        lanes.insert(3, "", 0, 50);
        let waited = |old_ms: u64| move |id: Index| if id == 1 { old_ms } else { 0 };
        assert_eq!(lanes.next(100, waited(299)), Some(50));
        assert_eq!(lanes.next(100, waited(300)), Some(1), "of equal lanes the older message");
        assert_eq!(lanes.next(0, waited(u64::MAX)), Some(50), "without ageing it waits for ever");
    }

    #[test]
    fn the_tenant_with_the_lowest_pass_is_served() {
        let mut lanes = Lanes::default();
        lanes.insert(0, "a", 0, 1);
        lanes.insert(0, "b", 10, 2);
        assert_eq!((lanes.next(0, |_| 0), lanes.least_pass()), (Some(1), Some(0)));
        lanes.move_tenant("a", 0, 20);
        assert_eq!((lanes.next(0, |_| 0), lanes.least_pass()), (Some(2), Some(10)));
        lanes.remove(0, "b", 10, 2);
        assert!(!lanes.has_tenant("b") && lanes.has_tenant("a"));
        assert_eq!(lanes.len(), 1);
    }
}
