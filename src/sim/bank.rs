//! The bank of bugs: each [`Rule`], where the field has met it, and a seed that finds it.
//!
//! A simulator that finds nothing has either nothing to find or no eyes. So every rule that this code keeps on purpose is left out once,
//! and a run with it left out has to fail. `tests/seeds.rs` asserts that each seed of [`BANK`] finds its bug, and that the faithful rules
//! pass the same seed; `trine-sim --bugs` looks for every one of them from seed 0 on, and counts the seeds that it took.
//!
//! # Caveats
//! - A bug counts as found by whatever check sees it first: a broken promise, an invariant of the replicas, or an assertion in their code.
//! - Some need a world that a seed rarely draws by itself; [`Bug::adjust`] makes it, and nothing else of the run.
//! - Any change of what a run does shifts which seeds find what: look for them anew with `trine-sim --bugs`.

use super::swarm::WALL_ERROR_MS_KEPT;
use super::{DiskFaults, Options, ProcessFaults, RedisFaults, Report, Sim, Swarm};
use crate::rules::{OneLeftOut, Rule};

/// One rule left out.
#[derive(Clone, Copy)]
pub struct Bug {
    /// What is left out.
    pub rule: Rule,
    /// Its name in [`Rule`].
    pub name: &'static str,
    /// Where it happened, or which text forbids it.
    pub precedent: &'static str,
    /// A seed that finds it.
    pub seed: u64,
    /// Seconds of virtual time with faults.
    pub seconds: u64,
    /// What is changed of each seed's world.
    pub adjust: fn(&mut Swarm),
}

impl Bug {
    /// What a run needs to find it.
    pub fn options(&self) -> Options {
        Options { adjust: Some(self.adjust), faulty_us: self.seconds * 1_000_000, ..Options::default() }
    }

    /// Runs a seed with the bug in.
    pub fn run(&self, seed: u64, options: &Options) -> Report {
        OneLeftOut::during(self.rule, || Sim::<OneLeftOut>::run(seed, options))
    }
}

macro_rules! bank {
    ($($rule:ident $seed:tt $seconds:literal $adjust:ident $precedent:literal;)*) => {
        /// Every bug that has to be found: the rule that is left out, where the field has met it, and the seed that finds it.
        ///
        /// | rule | precedent | seed |
        /// | --- | --- | --- |
        $(#[doc = concat!("| `", stringify!($rule), "` | ", $precedent, " | ", stringify!($seed), " |")])*
        pub const BANK: &[Bug] = &[$(Bug {
            rule: Rule::$rule,
            name: stringify!($rule),
            precedent: $precedent,
            seed: $seed,
            seconds: $seconds,
            adjust: $adjust,
        }),*];
    };
}

bank! {
    LeaderCountsItselfEarly 7 10 as_drawn "Raft, section 5.3: an entry counts where it is durable";
    AppendAcknowledgedEarly 2 10 slow_disks "NATS 2.12.1 (Jepsen): acknowledged before it was on disk";
    VoteNotPersisted 17 30 rival_candidates "hashicorp/raft 661: term and vote not written as one";
    VoteWithoutLogCheck 8 10 as_drawn "openraft 0.10-alpha.2: a higher term taken for a granted vote";
    SecondVoteInATerm 4 30 rival_candidates "Raft, figure 3: election safety";
    VoteRightAfterRestart 681 30 forgetful_voters "Raft thesis, section 6.4.1: a lease that a restarted voter forgot";
    EarlierTermCommittedByCount 2329 10 short_reigns "LogCabin 44: figure 8 of the paper";
    CommitBeyondWhatIsProven 32 10 as_drawn "Raft, figure 2: the index of the last new entry";
    AppendCutsWithoutConflict 0 10 as_drawn "camunda 14509: an old append cut off what was acknowledged";
    CompletionSpeaksForLaterEntries 4 10 as_drawn "etcd: ABA of asynchronous storage writes; Ra 3.1.8";
    DeposedLeaderFollowed 377 10 as_drawn "Raft, figure 2: reply false where the term is older";
    LeaderLeaseFromAnswer 38 10 as_drawn "sofa-jraft 34: a lease counted from the answer";
    LeaderLeaseKeptInTransfer 515 10 as_drawn "openraft 1748: a lease kept while leadership goes";
    VotersChangedAtOnce 423 10 far_moves "Raft, figure 10: two majorities without a common member";
    ChangeDuringAChange 1 10 cut_changes "Raft, section 6: one change at a time";
    JointLeftEarly 4 10 cut_changes "camunda 60086: the joint state left before it was committed";
    MembershipKeptWhenCut 451 10 as_drawn "NATS: a membership that was cut off, and stayed";
    LearnersCounted 3200 10 far_moves "etcd: learners do not count (raft learner design)";
    ReadBeforeNoOp 403 10 short_reigns_read "redisraft 22, etcd 7331: a read before the term's own entry";
    ReadRoundUsedAgain 192 10 leaders_cut_off "etcd 20418: late acknowledgements confirm a new read";
    CommandsTakenOutOfOrder 25 10 as_drawn "Trine itself: a lost command sent again behind later ones";
    RepeatedUnderANewNumber 1 10 as_drawn "iggy 3959: no client keeps its number, so nothing is recognised";
    SessionsLeftOutOfSnapshots 3 10 as_drawn "copycat 14: sessions missing from the snapshot";
    WaitersKeptAcrossTerms 32 10 as_drawn "Raft, section 8: an index answered with another leader's entry";
    LeasesByWallClock 7 10 as_drawn "Redlock: leases that a clock's jump ends";
    StaleReceiptTaken 1 10 busy_queues "bullmq 3183: the stalled worker and its replacement both finish";
    HandedOutEarly 1 10 busy_queues "pulsar 22716: delays that are lost with the broker";
    KeyOrderIgnored 1 10 busy_queues "nats-server 2043: no order of a key";
    DeliveriesNotCounted 1 30 busy_queues "nats-server 7817: messages beyond their deliveries";
    TurnsNotTaken 2 30 busy_queues "nats-server 7340: one tenant has it all";
    DedupLeftOutOfSnapshots 1 30 busy_queues "copycat 14, of ids: what a snapshot forgets is done twice";
    HandOffHalfDone 3 10 busy_queues "transactional outbox: one of two writes";
    ExpiredHandedOut 1 10 managed_queues "rabbitmq-server 10718: messages whose time to live is over stay";
    PausedHandsOut 3 10 managed_queues "bull 447: jobs that are processed after a pause";
    PriorityIgnored 1 10 managed_queues "bull 1775: priorities that nobody looks at";
    LimitNotKept 3 10 managed_queues "nats-server 2314: a limit that refuses nothing";
    PurgeSparesFlights 2 10 managed_queues "RabbitMQ's queue.purge: what waits for its acknowledgement stays";
    LapsedWaiterGranted 9 10 long_lines "etcd 9921, 11456: a lock granted on a lease that ran out while it was waited for";
    LineJumped 0 10 long_lines "Hazelcast: no fairness (its own documentation)";
    DeadlockSearch 0 10 long_lines "no lock service has it: two clients that wait for each other";
    SilentWaiterStays 0 10 long_lines "curator 600, 726: waiters that nobody waits for hold up everybody";
    GrantNotKept 0 10 long_lines "curator 727: a grant that its waiter never hears of";
    TokenNotDemanded 0 10 long_lines "Kleppmann, 2016: a write of a holder that was paused past its lease";
    HomeBeforeNoOp 364 10 as_drawn "etcd 7331, tikv 6340: reads before the term's own entry";
    NewHomeNotSilent 29 10 as_drawn "Gray and Cheriton, 1989: leases of a server that failed";
    GrantWithoutLeaseCheck 67 10 as_drawn "tikv 964: a lease not looked at again";
    LeaseBeforeJoin 12 10 as_drawn "Trine's model of sharing: a sharer that no new home knows of";
    BusLeaseFromAnswer 136 10 as_drawn "Gray and Cheriton, 1989: the holder counts from before it asked";
    LapsedLeaseRenewed 12 10 as_drawn "etcd 9921: a lease that ran out, granted on";
    LinesKeptAcrossLeases 0 10 as_drawn "Redisson's local cache: what is kept over a reconnect";
    WriteBeforeCopiesAreGone 1 10 as_drawn "Hazelcast 25304: invalidations that nobody waits for";
    InvalidationOnlyAcknowledged 2 10 as_drawn "MESI: a snoop answered before the line is gone";
    FillInstalledAfterInvalidation 14 10 as_drawn "Ignite 627; Redis' placeholder rule";
    WriteBeforeJournal 44 10 as_drawn "write-behind caches: acknowledged and then lost";
    OldValueWhileOwnerIsAway 71 10 as_drawn "MESI: memory is old where a cache has the line in M";
    RedisFence 2 10 late_redis "Redlock's critics, 2016: a client that was paused writes after its lease";
    DirtyLineEvicted 7 10 as_drawn "gem5's MI state: a copy is kept until the write-back is acknowledged";
    OwnershipWithoutValue 0 10 as_drawn "Trine's model of ownership: the right to write moves without the value";
    HandedOverAndForgotten 29 10 as_drawn "gem5's MI state: a copy is kept until the end is acknowledged";
    HandedOverAndShown 0 10 as_drawn "MESI: M is left before the snoop is answered";
    UpgradeBeforeRetract 2 10 as_drawn "MESI: an upgrade that loses against another's invalidation";
    ShownBeforeJournal 116 10 as_drawn "write-behind caches: seen and then lost";
    OwnerByName 637 10 as_drawn "Trine's model of ownership: an owner that lost its disk answers for what it had";
    FillForAnyRequest 179 10 as_drawn "Redis' client side caching: a late answer to an older read";
    FirstRefusalCounts 4299 10 as_drawn "two answers to one command: the client is told no, and the second copy is done";
    ClientCopiesNotWaitedFor 1 10 copies_in_clients "Hazelcast 25304: near caches that a lost invalidation leaves stale";
    CopiesOfAnEarlierLife 1 10 copies_and_restarts "Gray and Cheriton, 1989: leases that a server forgot";
}

/// Rules that no seed has been found for: 400 of one key under late messages or quick restarts pass without. What their absence does is shown
/// by the model of the cache, and of the last one by the tests of `cache::Copies`.
pub const MODELLED: &[(Rule, &str)] = &[
    (Rule::LeasesNotNumbered, "Gray and Cheriton, 1989: what one lease allows, the next does not"),
    (Rule::LateRegistrationCounts, "Trine's model of its cache: a registration at the home before"),
    (Rule::OwnerResumes, "Trine's model of ownership: two owners after a restart"),
    (Rule::CopyOutlivesBusLease, "Gray and Cheriton, 1989: a lease given on lasts no longer than one's own"),
];

fn as_drawn(_: &mut Swarm) {}

/// Most of the work is queues', of both kinds of jobs, by clients that do not think for long.
fn busy_queues(swarm: &mut Swarm) {
    (swarm.weights, swarm.names, swarm.groups) = ([8, 3, 1], 2, 1);
    swarm.clients = swarm.clients.max(6);
    swarm.think_us_max = 20_000;
}

/// Most of the work is queues', and half of that managed ones' of every kind, by clients that do not think for long; wall clocks are kept right.
fn managed_queues(swarm: &mut Swarm) {
    busy_queues(swarm);
    swarm.names = 4;
    (swarm.managed, swarm.wall_error_ms) = (true, WALL_ERROR_MS_KEPT);
}

/// Elections all the time, late votes, and voters that are back before the votes are.
fn rival_candidates(swarm: &mut Swarm) {
    swarm.nodes = 3;
    swarm.groups = 3;
    swarm.clients = 2;
    swarm.rates_ppm = vec![0; 3];
    swarm.network.in_order = false;
    swarm.network.tail_per_mille = 500;
    swarm.network.tail_us_max = 2_000_000;
    swarm.network.loss_per_mille = 0;
    swarm.process.crash = Some(400_000);
    swarm.process.down_us = (10_000, 50_000);
    swarm.process.new_leader_dies_per_mille = 900;
}

/// Disks of very different speed, and cuts of all power at once.
fn slow_disks(swarm: &mut Swarm) {
    swarm.nodes = 3;
    swarm.replicas = 3;
    swarm.groups = 1;
    swarm.rates_ppm = vec![0; 3];
    swarm.disk = DiskFaults { sync_us: (100, 100_000), ..DiskFaults::none() };
    swarm.process = ProcessFaults { blackout: Some(1_500_000), down_us: (20_000, 900_000), ..ProcessFaults::none() };
}

/// Leaders that die just after their election, with an entry here and another there.
fn short_reigns(swarm: &mut Swarm) {
    swarm.nodes = 3;
    swarm.rates_ppm = vec![0; 3];
    swarm.bounds.append_bytes_max = 1;
    swarm.network.loss_per_mille = 100;
    swarm.process.crash = Some(1_000_000);
    swarm.process.down_us = (20_000, 600_000);
    swarm.process.new_leader_dies_per_mille = 800;
}

/// Voters that are back at once, while links fall silent one way or the other: what a voter forgot is asked of it at once.
fn forgetful_voters(swarm: &mut Swarm) {
    swarm.nodes = 3;
    swarm.groups = 1;
    swarm.replicas = 3;
    // A candidate that was cut off wins only where nothing happened meanwhile.
    swarm.clients = 1;
    swarm.think_us_max = 3_000_000;
    swarm.rates_ppm = vec![0; 3];
    swarm.network.loss_per_mille = 0;
    swarm.network.partition = Some(500_000);
    swarm.process = ProcessFaults { crash: Some(900_000), down_us: (2_000, 20_000), ..ProcessFaults::none() };
    swarm.leaders_first = 0;
}

/// An operator without rest, and leaders that die or are cut off in the middle of what it asks for.
fn restless_operator(swarm: &mut Swarm) {
    swarm.nodes = 5;
    swarm.replicas = 3;
    swarm.groups = 1;
    swarm.clients = 2;
    swarm.rates_ppm = vec![0; 5];
    swarm.disk.rot = None;
    swarm.network.partition = Some(700_000);
    swarm.process.churn = Some(150_000);
    swarm.process.crash = Some(800_000);
    swarm.process.down_us = (20_000, 800_000);
    swarm.process.new_leader_dies_per_mille = 500;
}

/// The same with more groups and nodes to come, so that one change of the list moves two replicas of a group at once: then the
/// majorities before and after it need not meet.
fn far_moves(swarm: &mut Swarm) {
    restless_operator(swarm);
    swarm.groups = 5;
    swarm.spares = 2;
}

/// The same, and nothing else breaks but the changes themselves: each side of the cut has a majority, of the voters that were or that are to be.
fn cut_changes(swarm: &mut Swarm) {
    far_moves(swarm);
    swarm.network.partition = None;
    swarm.network.loss_per_mille = 0;
    swarm.process = ProcessFaults { churn: Some(150_000), change_is_cut_per_mille: 700, ..ProcessFaults::none() };
}

/// Values in Redis, calls that arrive seconds late, and homes that change meanwhile.
fn late_redis(swarm: &mut Swarm) {
    swarm.nodes = 3;
    swarm.groups = 1;
    swarm.weights = [1, 1, 8];
    swarm.names = 1;
    swarm.redis = Some(RedisFaults { late_per_mille: 200, late_us_max: 4_000_000, outage: None, reset: Some(700_000) });
}

/// Clients that keep copies of one key.
fn copies_in_clients(swarm: &mut Swarm) {
    swarm.nodes = 3;
    swarm.groups = 1;
    swarm.weights = [1, 1, 8];
    swarm.names = 1;
}

/// The same, and nodes that are back at once.
fn copies_and_restarts(swarm: &mut Swarm) {
    copies_in_clients(swarm);
    swarm.process.down_us = (1_000, 60_000);
    swarm.process.new_leader_dies_per_mille = 0;
}

/// Many who ask who holds one lock.
fn one_lock(swarm: &mut Swarm) {
    swarm.nodes = 3;
    swarm.replicas = 3;
    swarm.groups = 1;
    swarm.clients = 8;
    swarm.names = 1;
    swarm.think_us_max = 20_000;
    swarm.weights = [1, 8, 1];
    swarm.rates_ppm = vec![0; 3];
    swarm.network.loss_per_mille = 0;
}

/// Two locks and two semaphores that everybody wants, and much that is written under their tokens.
fn long_lines(swarm: &mut Swarm) {
    swarm.groups = 1;
    swarm.clients = 8;
    swarm.names = 2;
    swarm.think_us_max = 20_000;
    swarm.weights = [3, 8, 1];
    swarm.sessions = true;
    swarm.deadline_us = 500_000;
}

/// Leaders that die just after their election, while one lock is asked for.
fn short_reigns_read(swarm: &mut Swarm) {
    one_lock(swarm);
    swarm.process.crash = Some(800_000);
    swarm.process.down_us = (20_000, 600_000);
    swarm.process.new_leader_dies_per_mille = 500;
}

/// Leaders that do not know yet that they are none, and are asked.
fn leaders_cut_off(swarm: &mut Swarm) {
    one_lock(swarm);
    swarm.network.partition = Some(800_000);
}
