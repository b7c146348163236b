//! The bank of bugs: each switch of [`Rules`], where the field has met it, and a seed that finds it.
//!
//! A simulator that finds nothing has either nothing to find or no eyes. So every rule that this code keeps on purpose is left out once,
//! and a run with it left out has to fail. `tests/seeds.rs` asserts that each seed of [`BANK`] finds its bug, and that the faithful rules
//! pass the same seed; `trine-sim --bugs` looks for every one of them from seed 0 on, and counts the seeds that it took.
//!
//! # Caveats
//! - A bug counts as found by whatever check sees it first: a broken promise, an invariant of the replicas, or an assertion in their code.
//! - Some need a world that a seed rarely draws by itself; [`Bug::adjust`] makes it, and nothing else of the run.
//! - Any change of what a run does shifts which seeds find what: look for them anew with `trine-sim --bugs`.

use super::{Options, ProcessFaults, Report, Sim, Swarm};
use crate::rules::Rules;

/// One rule left out.
#[derive(Clone, Copy)]
pub struct Bug {
    /// The switch of [`Rules`].
    pub name: &'static str,
    /// Where it happened, or which text forbids it.
    pub precedent: &'static str,
    /// A seed that finds it.
    pub seed: u64,
    /// Seconds of virtual time with faults.
    pub seconds: u64,
    /// What is changed of each seed's world.
    pub adjust: fn(&mut Swarm),
    run: fn(u64, &Options) -> Report,
}

impl Bug {
    /// What a run needs to find it.
    pub fn options(&self) -> Options {
        Options { adjust: Some(self.adjust), faulty_us: self.seconds * 1_000_000, ..Options::default() }
    }

    /// Runs a seed with the bug in.
    pub fn run(&self, seed: u64, options: &Options) -> Report {
        (self.run)(seed, options)
    }
}

macro_rules! bank {
    ($($type:ident $rule:ident $seed:literal $seconds:literal $adjust:ident $precedent:literal;)*) => {
        $(
            #[derive(Clone, Copy, Debug, Default)]
            struct $type;

            impl Rules for $type {
                const $rule: bool = true;
            }
        )*

        /// Every bug that has to be found.
        pub const BANK: &[Bug] = &[$(Bug {
            name: stringify!($rule),
            precedent: $precedent,
            seed: $seed,
            seconds: $seconds,
            adjust: $adjust,
            run: Sim::<$type>::run,
        }),*];
    };
}

bank! {
    LeaderCountsItselfEarly LEADER_COUNTS_ITSELF_EARLY 26 10 as_drawn "Raft, section 5.3: an entry counts where it is durable";
    AppendAcknowledgedEarly APPEND_ACKNOWLEDGED_EARLY 42 10 as_drawn "NATS 2.12.1 (Jepsen): acknowledged before it was on disk";
    VoteNotPersisted VOTE_NOT_PERSISTED 365 30 rival_candidates "hashicorp/raft 661: term and vote not written as one";
    VoteWithoutLogCheck VOTE_WITHOUT_LOG_CHECK 1 10 as_drawn "openraft 0.10-alpha.2: a higher term taken for a granted vote";
    SecondVoteInATerm SECOND_VOTE_IN_A_TERM 1 30 rival_candidates "Raft, figure 3: election safety";
    VoteRightAfterRestart VOTE_RIGHT_AFTER_RESTART 817 30 forgetful_voters "Raft thesis, section 6.4.1: a lease that a restarted voter forgot";
    EarlierTermCommittedByCount EARLIER_TERM_COMMITTED_BY_COUNT 414 10 short_reigns "LogCabin 44: figure 8 of the paper";
    CommitBeyondWhatIsProven COMMIT_BEYOND_WHAT_IS_PROVEN 0 10 as_drawn "Raft, figure 2: the index of the last new entry";
    AppendCutsWithoutConflict APPEND_CUTS_WITHOUT_CONFLICT 0 10 as_drawn "camunda 14509: an old append cut off what was acknowledged";
    CompletionSpeaksForLaterEntries COMPLETION_SPEAKS_FOR_LATER_ENTRIES 69 10 as_drawn "etcd: ABA of asynchronous storage writes; Ra 3.1.8";
    DeposedLeaderFollowed DEPOSED_LEADER_FOLLOWED 1086 10 as_drawn "Raft, figure 2: reply false where the term is older";
    LeaderLeaseFromAnswer LEADER_LEASE_FROM_ANSWER 17 10 as_drawn "sofa-jraft 34: a lease counted from the answer";
    LeaderLeaseKeptInTransfer LEADER_LEASE_KEPT_IN_TRANSFER 125 10 as_drawn "openraft 1748: a lease kept while leadership goes";
    CommandsTakenOutOfOrder COMMANDS_TAKEN_OUT_OF_ORDER 4 10 as_drawn "Trine itself: a lost command sent again behind later ones";
    RepeatedUnderANewNumber REPEATED_UNDER_A_NEW_NUMBER 1 10 as_drawn "iggy 3959: no client keeps its number, so nothing is recognised";
    SessionsLeftOutOfSnapshots SESSIONS_LEFT_OUT_OF_SNAPSHOTS 2 10 as_drawn "copycat 14: sessions missing from the snapshot";
    WaitersKeptAcrossTerms WAITERS_KEPT_ACROSS_TERMS 52 10 as_drawn "Raft, section 8: an index answered with another leader's entry";
    LeasesByWallClock LEASES_BY_WALL_CLOCK 0 10 as_drawn "Redlock: leases that a clock's jump ends";
    HomeBeforeNoOp HOME_BEFORE_NO_OP 13 10 as_drawn "etcd 7331, tikv 6340: reads before the term's own entry";
    NewHomeNotSilent NEW_HOME_NOT_SILENT 19 10 as_drawn "Gray and Cheriton, 1989: leases of a server that failed";
    GrantWithoutLeaseCheck GRANT_WITHOUT_LEASE_CHECK 244 10 as_drawn "tikv 964: a lease not looked at again";
    LeaseBeforeJoin LEASE_BEFORE_JOIN 14 10 as_drawn "Trine's model of sharing: a sharer that no new home knows of";
    BusLeaseFromAnswer BUS_LEASE_FROM_ANSWER 108 10 as_drawn "Gray and Cheriton, 1989: the holder counts from before it asked";
    LapsedLeaseRenewed LAPSED_LEASE_RENEWED 0 10 as_drawn "etcd 9921: a lease that ran out, granted on";
    LinesKeptAcrossLeases LINES_KEPT_ACROSS_LEASES 0 10 as_drawn "Redisson's local cache: what is kept over a reconnect";
    WriteBeforeCopiesAreGone WRITE_BEFORE_COPIES_ARE_GONE 0 10 as_drawn "Hazelcast 25304: invalidations that nobody waits for";
    InvalidationOnlyAcknowledged INVALIDATION_ONLY_ACKNOWLEDGED 0 10 as_drawn "MESI: a snoop answered before the line is gone";
    FillInstalledAfterInvalidation FILL_INSTALLED_AFTER_INVALIDATION 4 10 as_drawn "Ignite 627; Redis' placeholder rule";
    WriteBeforeJournal WRITE_BEFORE_JOURNAL 52 10 as_drawn "write-behind caches: acknowledged and then lost";
    OldValueWhileOwnerIsAway OLD_VALUE_WHILE_OWNER_IS_AWAY 80 10 as_drawn "MESI: memory is old where a cache has the line in M";
    DirtyLineEvicted DIRTY_LINE_EVICTED 53 10 as_drawn "gem5's MI state: a copy is kept until the write-back is acknowledged";
}

fn as_drawn(_: &mut Swarm) {}

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
