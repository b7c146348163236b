//! Links between nodes: delay, loss, duplication, reordering, partitions.
//!
//! Two kinds of network are simulated. The *loose* one treats each message alone: it may be lost, come twice, or overtake.
//! That is harsher than TCP, and covers what a reconnect does to messages of the old connection. The *in order* one
//! is a connection: nothing overtakes, and what is lost takes with it everything that is still under way on the link.
//!
//! A link holds a bounded number of messages that its receiver has not taken out: a node that stands still has the rest dropped, as the
//! bounded inboxes of the server do.
//!
//! **Caveats.** No bandwidth: a snapshot takes as long as a heartbeat. A blocked link loses messages or brings them
//! long after; it does not push back.

use std::collections::BTreeMap;

use super::random::Random;
use super::swarm::NetworkFaults;

/// A node's number, from 0.
pub(crate) type Place = usize;

/// Names a message on an in-order link by the connection that it travels on; it is lost where that one broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    /// When it arrives.
    pub(crate) at_us: u64,
    /// The link's connection that it is on.
    pub(crate) connection: u64,
}

#[derive(Clone, Debug, Default)]
struct Link {
    /// How many partitions cut it.
    cuts: u32,
    /// Grows when the connection breaks.
    connection: u64,
    /// The last arrival so far.
    arrival_us: u64,
    /// Messages that were sent and not taken out at the other end.
    under_way: usize,
}

/// All links of a cluster.
#[derive(Debug)]
pub(crate) struct Network {
    faults: NetworkFaults,
    links: BTreeMap<(Place, Place), Link>,
    partitions: BTreeMap<u64, Vec<(Place, Place)>>,
    partitions_made: u64,
}

impl Network {
    pub(crate) fn new(nodes: usize, faults: NetworkFaults) -> Self {
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        let links = pairs.filter(|(from, to)| from != to).map(|pair| (pair, Link::default())).collect();
        Self { faults, links, partitions: BTreeMap::new(), partitions_made: 0 }
    }

    /// Sends one message: when its copies arrive, none to two of them.
    pub(crate) fn send(&mut self, random: &mut Random, now_us: u64, from: Place, to: Place) -> [Option<Passage>; 2] {
        let faults = &self.faults;
        let link = self.links.get_mut(&(from, to)).unwrap_or_else(|| panic!("no link {from} to {to}"));
        if link.under_way >= faults.inbox_messages_max {
            return [None, None];
        }
        let lost = link.cuts > 0 || random.chance(faults.loss_per_mille);
        if lost && faults.in_order {
            link.connection += 1;
        }
        if lost {
            return [None, None];
        }
        let mut copy = || {
            let (low, high) = faults.delay_us;
            let tail = random.chance(faults.tail_per_mille);
            let delay_us =
                if tail { random.between(high, faults.tail_us_max.max(high)) } else { random.between(low, high) };
            now_us + delay_us
        };
        if faults.in_order {
            link.arrival_us = link.arrival_us.max(copy());
            link.under_way += 1;
            return [Some(Passage { at_us: link.arrival_us, connection: link.connection }), None];
        }
        let first = copy();
        let second = random.chance(faults.duplicate_per_mille).then(|| now_us + random.between(50, faults.tail_us_max));
        link.under_way += 1 + usize::from(second.is_some());
        [Some(first), second].map(|at_us| at_us.map(|at_us| Passage { at_us, connection: link.connection }))
    }

    /// Takes a message out at its end; false where the connection that it was on does not stand any more.
    pub(crate) fn arrives(&mut self, from: Place, to: Place, passage: Passage) -> bool {
        let link = self.links.get_mut(&(from, to)).expect("it came on a link");
        link.under_way -= 1;
        link.connection == passage.connection
    }

    /// Breaks the connections of one link, both ways: what is under way on them is lost.
    pub(crate) fn reset(&mut self, one: Place, other: Place) {
        for direction in [(one, other), (other, one)] {
            let link = self.links.get_mut(&direction).expect("a direction of this network");
            link.connection += 1;
            link.arrival_us = 0;
        }
    }

    /// Breaks every connection from and to a node: its process has died.
    pub(crate) fn break_connections(&mut self, of: Place) {
        let others: Vec<Place> = self.links.keys().filter(|(from, _)| *from == of).map(|(_, to)| *to).collect();
        others.into_iter().for_each(|other| self.reset(of, other));
    }

    /// Cuts these directions; the number heals them again.
    pub(crate) fn cut(&mut self, directions: Vec<(Place, Place)>) -> u64 {
        for direction in &directions {
            self.links.get_mut(direction).expect("a direction of this network").cuts += 1;
        }
        self.partitions_made += 1;
        self.partitions.insert(self.partitions_made, directions);
        self.partitions_made
    }

    /// Ends one partition, if it lasts.
    pub(crate) fn heal(&mut self, partition: u64) {
        for direction in self.partitions.remove(&partition).unwrap_or_default() {
            self.links.get_mut(&direction).expect("a direction of this network").cuts -= 1;
        }
    }

    /// Ends every fault for good; the delays stay as they usually are, up to 2 ms.
    pub(crate) fn heal_all(&mut self) {
        for partition in self.partitions.keys().copied().collect::<Vec<_>>() {
            self.heal(partition);
        }
        self.faults = NetworkFaults {
            delay_us: (50, 2_000),
            tail_per_mille: 0,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            partition: None,
            reset: None,
            inbox_messages_max: usize::MAX,
            ..self.faults
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> NetworkFaults {
        NetworkFaults {
            delay_us: (100, 200),
            tail_per_mille: 0,
            tail_us_max: 1_000,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            in_order: false,
            partition: None,
            reset: None,
            inbox_messages_max: usize::MAX,
        }
    }

    #[test]
    fn a_partition_cuts_only_its_directions_until_healed() {
        let mut random = Random::new(1);
        let mut network = Network::new(3, calm());
        let partition = network.cut(vec![(0, 1)]);
        assert_eq!(network.send(&mut random, 0, 0, 1), [None, None]);
        let [Some(arrival), None] = network.send(&mut random, 1_000, 1, 0) else {
            panic!("the other direction stands")
        };
        assert!((1_100..=1_200).contains(&arrival.at_us), "{arrival:?}");
        network.heal(partition);
        network.heal(partition);
        assert!(network.send(&mut random, 0, 0, 1)[0].is_some());
    }

    #[test]
    fn a_loose_network_duplicates_and_reorders() {
        let mut random = Random::new(2);
        let mut network = Network::new(2, NetworkFaults { duplicate_per_mille: 200, tail_per_mille: 100, ..calm() });
        let sent: Vec<_> = (0..1_000).map(|at_us| network.send(&mut random, at_us, 0, 1)).collect();
        let doubles = sent.iter().filter(|copies| copies[1].is_some()).count();
        assert!((120..280).contains(&doubles), "{doubles} of 1,000 doubled");
        let overtaken = sent.windows(2).filter(|w| w[0][0].unwrap().at_us > w[1][0].unwrap().at_us).count();
        assert!(overtaken > 50, "{overtaken} overtaken");
    }

    #[test]
    fn on_a_connection_nothing_overtakes_and_a_loss_takes_the_rest_with_it() {
        let mut random = Random::new(3);
        let faults = NetworkFaults { in_order: true, loss_per_mille: 5, tail_per_mille: 100, ..calm() };
        let mut network = Network::new(2, faults);
        let sent: Vec<_> = (0..1_000).filter_map(|at_us| network.send(&mut random, at_us * 10, 0, 1)[0]).collect();
        assert!(sent.windows(2).all(|w| w[0].at_us <= w[1].at_us));
        assert!(sent.len() < 1_000, "nothing was lost");
        let (first, last) = (sent[0], sent[sent.len() - 1]);
        assert!(!network.arrives(0, 1, first) && network.arrives(0, 1, last));
    }

    #[test]
    fn healing_for_good_leaves_no_fault() {
        let mut random = Random::new(4);
        let mut network = Network::new(3, NetworkFaults { loss_per_mille: 1_000, ..calm() });
        network.cut(vec![(0, 1), (2, 1)]);
        network.heal_all();
        for from in [0, 2] {
            assert!(network.send(&mut random, 0, from, 1)[0].is_some());
        }
    }

    #[test]
    fn a_reset_loses_what_is_under_way_on_its_link_both_ways_and_nothing_else() {
        let mut random = Random::new(5);
        let mut network = Network::new(3, calm());
        let links = [(0, 1), (1, 0), (0, 2), (2, 1)];
        let before = links.map(|(from, to)| network.send(&mut random, 0, from, to)[0].unwrap());
        network.reset(0, 1);
        let after = links.map(|(from, to)| network.send(&mut random, 0, from, to)[0].unwrap());
        let mut arrives = |passages: [Passage; 4]| {
            let each = links.into_iter().zip(passages);
            each.map(|((from, to), passage)| network.arrives(from, to, passage)).collect::<Vec<_>>()
        };
        assert_eq!(arrives(before), [false, false, true, true]);
        assert_eq!(arrives(after), [true; 4]);
    }

    #[test]
    fn a_full_inbox_drops_what_comes_until_something_is_taken_out() {
        let mut random = Random::new(6);
        let mut network = Network::new(2, NetworkFaults { inbox_messages_max: 3, ..calm() });
        let sent: Vec<_> = (0..5).map(|_| network.send(&mut random, 0, 0, 1)[0]).collect();
        assert_eq!(sent.iter().flatten().count(), 3);
        assert!(network.send(&mut random, 0, 1, 0)[0].is_some(), "the other direction has room");
        assert!(network.arrives(0, 1, sent[0].unwrap()));
        assert!(network.send(&mut random, 0, 0, 1)[0].is_some() && network.send(&mut random, 0, 0, 1)[0].is_none());
    }
}
