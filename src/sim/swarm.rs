//! What one seed is like: its size, its workload, and which faults it has.
//!
//! Every seed draws its own configuration and leaves most faults out of it (swarm testing, Groce et al., 2012): a run
//! in which everything fails at once hardly ever gets far enough to find the bug that needs a calm minute first.

use super::node::WALL_ERROR_MS_MAX;
use super::random::{Random, split_mix};
use super::redis::RedisFaults;
use crate::node::Timing;

/// Largest difference of one clock's speed from the true one, in parts per million. Two clocks then differ by at
/// most 1.0049 / 0.9951, which is inside the drift bound of 1 % that leases allow for.
pub const RATE_PPM_MAX: u64 = 4_900;

/// Furthest that a wall clock is wrong which somebody keeps right, in milliseconds.
pub(crate) const WALL_ERROR_MS_KEPT: u64 = 100;
/// Which seeds have managed queues; chosen so that those of the bank have none, unless their world has.
const MANAGED_STREAM: u64 = 2_226_479 << 20;

/// What a test may change of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Microseconds of virtual time with faults and clients.
    pub faulty_us: u64,
    /// Microseconds of virtual time that healing may take; what is not answered or drained then never will be.
    pub healing_us_max: u64,
    /// Keep one line per event in [`super::Report::trace`].
    pub trace: bool,
    /// Changes what the seed drew, before the run begins.
    pub adjust: Option<fn(&mut Swarm)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { faulty_us: 10_000_000, healing_us_max: 30_000_000, trace: false, adjust: None }
    }
}

/// Mean time between two faults of a kind, in microseconds; None where the seed has none of them.
pub type Every = Option<u64>;

/// What a seed drew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swarm {
    /// Nodes, 1 to 7.
    pub nodes: usize,
    /// Nodes that an operator may add, 0 to 2.
    pub spares: usize,
    /// Voters of a group, as far as there are nodes: 3 or 5.
    pub replicas: usize,
    /// Raft groups: 1 to 3, and now and then 16 or 64.
    pub groups: u32,
    /// Clients, 2 to 8; each is attached to a node at a time.
    pub clients: usize,
    /// Requests that a client has in flight at most, 1 to 3.
    pub lanes: usize,
    /// Longest pause of a client between two requests.
    pub think_us_max: u64,
    /// Keys, queues and locks per group: few, so that they are hot.
    pub names: u64,
    /// Out of ten requests, how many go to the queue, to the lock and to the cache.
    pub weights: [u64; 3],
    /// Whether clients have sessions of their own and repeat what got no answer.
    pub sessions: bool,
    /// Deadline of a request.
    pub deadline_us: u64,
    /// How far each node's clock is from the true speed, in parts per million.
    pub rates_ppm: Vec<i64>,
    /// How the network behaves.
    pub network: NetworkFaults,
    /// How the disks behave.
    pub disk: DiskFaults,
    /// What happens to nodes.
    pub process: ProcessFaults,
    /// The bounds that the replicas are given.
    pub bounds: Bounds,
    /// How Redis behaves, where the cache's values lie there.
    pub redis: Option<RedisFaults>,
    /// Of ten faults that hit a node, how many hit a leader.
    pub leaders_first: u64,
    /// Whether there are managed queues: with priorities, times to live and limits, paused and purged.
    pub managed: bool,
    /// Furthest that a node's wall clock is wrong, either way.
    pub wall_error_ms: u64,
}

/// Bounds of the replicas, small enough that a run of seconds reaches them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Entries from one checkpoint to the next.
    pub checkpoint_entries: u64,
    /// Bytes of applied entries that stay in the log.
    pub retain_bytes: usize,
    /// Bytes of one snapshot chunk.
    pub snapshot_chunk_bytes: usize,
    /// Bytes of entries in one append message.
    pub append_bytes_max: usize,
    /// Append messages to one follower that wait for their answer.
    pub in_flight_max: usize,
    /// Bytes of a leader's proposals that are not committed.
    pub uncommitted_bytes_max: usize,
    /// Requests of a node's clients that wait for one group.
    pub pending_max: usize,
    /// Requests that wait for one key, on a node and at its home.
    pub waiting_max: usize,
    /// Keys whose copies the home knows of.
    pub directory_max: usize,
    /// Bytes of the lines that a node keeps of one group.
    pub lines_bytes_max: usize,
    /// How long a value stays dirty.
    pub dirty_us_max: u64,
}

/// How messages travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFaults {
    /// Shortest and longest usual delay.
    pub delay_us: (u64, u64),
    /// Of 1,000 messages, how many take up to `tail_us_max`.
    pub tail_per_mille: u64,
    /// The longest delay.
    pub tail_us_max: u64,
    /// Of 1,000 messages, how many are lost.
    pub loss_per_mille: u64,
    /// Of 1,000 messages, how many come twice.
    pub duplicate_per_mille: u64,
    /// As on one connection: nothing overtakes, nothing comes twice, and a loss takes all that is under way on the link.
    pub in_order: bool,
    /// Partitions of any shape.
    pub partition: Every,
    /// Connections that break: what is under way on a link is lost in both directions.
    pub reset: Every,
    /// Messages on one link that its receiver has not taken out; more are dropped.
    pub inbox_messages_max: usize,
}

/// How disks behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// Shortest and longest usual time of a sync.
    pub sync_us: (u64, u64),
    /// A disk that answers only after 1 to 2 s.
    pub stall: Every,
    /// Bytes of a segment, where the log is true to the byte; None where it is a list of writes.
    pub segment_bytes: Option<u64>,
    /// A write or a sync that fails.
    pub error: Every,
    /// A disk without room for a while.
    pub full: Every,
    /// A bit that flips in what is durable.
    pub rot: Every,
}

/// What happens to nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFaults {
    /// The process dies with all that was not synced, and comes back later.
    pub crash: Every,
    /// Shortest and longest time until a dead process is started again.
    pub down_us: (u64, u64),
    /// Of 1,000 new leaders, how many die within 30 ms of their election, when most is half done.
    pub new_leader_dies_per_mille: u64,
    /// Of 1,000 changes of a group's voters, how many are cut in two the moment they begin: the leader and those who come do not hear the others.
    pub change_is_cut_per_mille: u64,
    /// Every node dies at once.
    pub blackout: Every,
    /// The process stops for 0.2 to 3 s, then gets all at once what came meanwhile.
    pub pause: Every,
    /// One replica's task gets no processor for up to 300 ms, while the node's readers go on.
    pub starve: Every,
    /// The node is told to drain, and is started again.
    pub drain: Every,
    /// The wall clock jumps by up to a minute, either way.
    pub wall_jump: Every,
    /// An operator adds, removes and replaces nodes.
    pub churn: Every,
}

impl Swarm {
    /// What this seed is like.
    pub fn draw(random: &mut Random) -> Self {
        let nodes = *random.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 3, 4, 5, 5, 7]);
        let rate = |random: &mut Random| random.between(0, 2 * RATE_PPM_MAX) as i64 - RATE_PPM_MAX as i64;
        let drifting = random.chance(700);
        let mut swarm = Self {
            nodes,
            spares: 0,
            replicas: *random.pick(&[3, 3, 5]),
            groups: if random.chance(10) { *random.pick(&[16, 64]) } else { random.between(1, 3) as u32 },
            clients: random.between(2, 8) as usize,
            lanes: random.between(1, 3) as usize,
            think_us_max: *random.pick(&[20_000, 100_000, 100_000, 300_000]),
            names: random.between(1, 3),
            weights: *random.pick(&[[3, 3, 4], [3, 3, 4], [1, 1, 8], [1, 1, 8], [8, 1, 1], [1, 8, 1]]),
            sessions: random.chance(500),
            deadline_us: *random.pick(&[500_000, 1_500_000, 3_000_000]),
            rates_ppm: (0..nodes).map(|_| if drifting { rate(random) } else { 0 }).collect(),
            network: NetworkFaults::draw(random),
            disk: DiskFaults::draw(random),
            process: ProcessFaults::draw(random),
            bounds: Bounds::draw(random),
            redis: None,
            leaders_first: random.between(2, 9),
            managed: false,
            wall_error_ms: WALL_ERROR_MS_MAX,
        };
        swarm.draw_churn(random);
        swarm.redis = random.chance(250).then(|| RedisFaults::draw(random));
        swarm
    }

    /// Whether a seed has managed queues, as one in three does. A stream of its own decides, so that the other seeds are what they were
    /// without. In half of those seeds the wall clocks are kept right: only there it is certain when a time to live is over.
    pub fn choose_managed(&mut self, seed: u64) {
        let drawn = split_mix(&mut (seed ^ MANAGED_STREAM));
        if drawn % 3 == 0 {
            self.managed = true;
            self.wall_error_ms = if drawn % 2 == 0 { WALL_ERROR_MS_KEPT } else { WALL_ERROR_MS_MAX };
        }
    }

    /// Whether there is an operator. Bits that flip take nodes away for good, and so may an operator: not both in one run.
    fn draw_churn(&mut self, random: &mut Random) {
        self.process.churn = every(random, 300, 300_000, 3_000_000);
        if self.process.churn.is_some() {
            self.spares = random.between(0, 2) as usize;
            self.disk.rot = None;
        }
    }
}

fn every(random: &mut Random, per_mille: u64, low_us: u64, high_us: u64) -> Every {
    random.chance(per_mille).then(|| random.between(low_us, high_us))
}

impl Bounds {
    fn draw(random: &mut Random) -> Self {
        if random.chance(150) {
            return Self::tiny(random);
        }
        let roomy = Timing::default();
        Self {
            checkpoint_entries: *random.pick(&[20, 50, 200, 8_192]),
            retain_bytes: *random.pick(&[200, 2_000, 4_000_000]),
            snapshot_chunk_bytes: *random.pick(&[500, 4_000, 1_000_000]),
            append_bytes_max: *random.pick(&[1, 1_000, 1_000_000, 1_000_000]),
            in_flight_max: *random.pick(&[roomy.in_flight_max, roomy.in_flight_max, 4]),
            uncommitted_bytes_max: roomy.uncommitted_bytes_max,
            pending_max: roomy.pending_max,
            waiting_max: roomy.cache.waiting_max,
            directory_max: roomy.cache.directory_max,
            lines_bytes_max: *random.pick(&[300, 64_000_000, 64_000_000]),
            dirty_us_max: *random.pick(&[200_000, 1_000_000]),
        }
    }

    /// What replicas with these bounds are made with.
    pub(crate) fn timing(&self) -> Timing {
        let mut timing = Timing {
            first_leads: false,
            checkpoint_entries: self.checkpoint_entries,
            retain_bytes: self.retain_bytes,
            snapshot_chunk_bytes: self.snapshot_chunk_bytes,
            append_bytes_max: self.append_bytes_max,
            in_flight_max: self.in_flight_max,
            uncommitted_bytes_max: self.uncommitted_bytes_max,
            pending_max: self.pending_max,
            ..Timing::default()
        };
        timing.cache.waiting_max = self.waiting_max;
        timing.cache.directory_max = self.directory_max;
        timing.cache.lines_bytes_max = self.lines_bytes_max;
        timing.cache.dirty_us_max = self.dirty_us_max;
        timing
    }

    /// Hardly room for anything: whoever is a little behind needs a snapshot, in many chunks, while the next one is made.
    fn tiny(random: &mut Random) -> Self {
        Self {
            checkpoint_entries: random.between(2, 6),
            retain_bytes: random.below(100) as usize,
            snapshot_chunk_bytes: random.between(60, 400) as usize,
            append_bytes_max: random.between(1, 300) as usize,
            in_flight_max: random.between(1, 2) as usize,
            uncommitted_bytes_max: random.between(500, 4_000) as usize,
            pending_max: random.between(4, 12) as usize,
            waiting_max: random.between(1, 3) as usize,
            directory_max: random.between(1, 3) as usize,
            lines_bytes_max: random.between(20, 300) as usize,
            dirty_us_max: *random.pick(&[200_000, 1_000_000]),
        }
    }
}

impl NetworkFaults {
    fn draw(random: &mut Random) -> Self {
        let in_order = random.chance(400);
        let slow = random.chance(150);
        let tail = random.chance(400);
        Self {
            delay_us: if slow { (5_000, 30_000) } else { (50, 2_000) },
            tail_per_mille: if tail { random.between(5, 100) } else { 0 },
            tail_us_max: random.between(20_000, 2_500_000),
            loss_per_mille: if random.chance(500) { random.between(1, if in_order { 20 } else { 200 }) } else { 0 },
            duplicate_per_mille: if random.chance(500) && !in_order { random.between(1, 200) } else { 0 },
            in_order,
            partition: every(random, 500, 800_000, 4_000_000),
            reset: every(random, 300, 50_000, 1_500_000),
            inbox_messages_max: *random.pick(&[usize::MAX, usize::MAX, usize::MAX, 200, 20]),
        }
    }
}

impl DiskFaults {
    fn draw(random: &mut Random) -> Self {
        let sync_us = *random.pick(&[(100, 600), (100, 2_000), (1_000, 20_000)]);
        Self {
            sync_us,
            stall: every(random, 250, 2_000_000, 8_000_000),
            segment_bytes: random.chance(500).then(|| *random.pick(&[2_048, 8_192, 65_536])),
            error: every(random, 250, 1_000_000, 6_000_000),
            full: every(random, 150, 2_000_000, 8_000_000),
            rot: every(random, 300, 2_000_000, 12_000_000),
        }
    }

    /// A quick disk with a list of writes, and no fault at all.
    pub fn none() -> Self {
        Self { sync_us: (100, 600), stall: None, segment_bytes: None, error: None, full: None, rot: None }
    }
}

impl ProcessFaults {
    fn draw(random: &mut Random) -> Self {
        Self {
            crash: every(random, 600, 1_000_000, 5_000_000),
            down_us: *random.pick(&[(50_000, 3_000_000), (50_000, 3_000_000), (50_000, 400_000)]),
            new_leader_dies_per_mille: if random.chance(250) { random.between(50, 400) } else { 0 },
            change_is_cut_per_mille: 0,
            blackout: every(random, 100, 4_000_000, 8_000_000),
            pause: every(random, 450, 1_000_000, 5_000_000),
            starve: every(random, 350, 300_000, 3_000_000),
            drain: every(random, 200, 2_000_000, 6_000_000),
            wall_jump: every(random, 300, 1_000_000, 4_000_000),
            churn: None,
        }
    }

    /// No fault at all.
    pub fn none() -> Self {
        Self {
            crash: None,
            down_us: (50_000, 3_000_000),
            new_leader_dies_per_mille: 0,
            change_is_cut_per_mille: 0,
            blackout: None,
            pause: None,
            starve: None,
            drain: None,
            wall_jump: None,
            churn: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_seeds_has_managed_queues_and_half_of_those_right_clocks() {
        let chosen = |seed| {
            let mut swarm = Swarm::draw(&mut Random::new(seed));
            let before = swarm.clone();
            swarm.choose_managed(seed);
            assert!(swarm.managed || swarm == before, "seed {seed} is another than before");
            swarm
        };
        let managed: Vec<Swarm> = (0..1_000).map(chosen).filter(|swarm| swarm.managed).collect();
        assert!((280..390).contains(&managed.len()), "{} of 1,000", managed.len());
        let right = managed.iter().filter(|swarm| swarm.wall_error_ms == WALL_ERROR_MS_KEPT).count();
        assert!((100..250).contains(&right), "{right} of {} have right clocks", managed.len());
    }

    #[test]
    fn a_seed_draws_the_same_each_time_and_seeds_differ() {
        let draw = |seed| Swarm::draw(&mut Random::new(seed));
        assert_eq!(draw(5), draw(5));
        let swarms: Vec<Swarm> = (0..500).map(draw).collect();
        let calm = swarms.iter().filter(|s| s.process.crash.is_none() && s.network.loss_per_mille == 0).count();
        assert!((50..250).contains(&calm), "{calm} of 500 have neither crash nor loss");
        for nodes in [1, 2, 3, 4, 5, 7] {
            assert!(swarms.iter().any(|s| s.nodes == nodes), "no seed has {nodes} nodes");
        }
        assert!(swarms.iter().any(|s| s.groups == 64) && swarms.iter().any(|s| s.groups == 1));
        assert!(swarms.iter().all(|s| s.rates_ppm.len() == s.nodes));
    }
}
