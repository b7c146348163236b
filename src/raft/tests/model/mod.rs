//! The Raft core, model-checked: every order of events within small bounds, on the code that the server runs.
//!
//! The random runs beside this draw few of very many paths; here all of them are walked that a start and its budgets allow. The model is
//! no second Raft: its state holds [`Raft`](crate::raft::Raft) machines, cloned at every step, and all that the model itself knows is the world
//! around them (`world`): a network that delivers in any order or never, disks that forget, clocks, and budgets for what may
//! still happen. stateright walks the states, and gives the shortest path to one that breaks a property.
//!
//! # Time
//! Clocks would make every state another one. So all times are shorter than the millisecond that stamps count in, and a clock moves only
//! with an action that needs it to: an election timeout runs out whenever the model says so, and by then nobody else has heard a leader for as
//! long. That is more than true clocks could do, and therefore safe to search; what rests on true clocks, the leader lease, is
//! left to the random runs.
//!
//! # What is found
//! `properties` holds in every state: election safety, log matching, leader completeness and state machine safety of the paper's figure 3,
//! that what is applied is durable, and the code's own assertions. Each start also names what its search must come by. The bugs of `broken` are
//! switched on one by one, and each must be found.
//!
//! | start | nodes | may happen | states | depth |
//! | --- | --- | --- | --- | --- |
//! | `Fresh` | 3 | 2 timeouts, 1 proposal | over 1,856,237 | 29 |
//! | `PreVotes` | 3 | 2 timeouts, pre-votes as messages | 442,536, all | 32 |
//! | `SlowDisks` | 3 | 1 timeout, 1 proposal, 1 crash, disks of 2 | 224,719, all | 36 |
//! | `SlowVotes` | 3 | 2 timeouts, 1 crash, disk of 1 | 105,432, all | 31 |
//! | `FigureEight` | 3 | 2 timeouts | 54,975, all | 37 |
//! | `OldSuffix` | 3 | 1 timeout, 1 heartbeat, 1 silence | 72,460, all | 28 |
//! | `Exchange` | 4 of 5 | 1 timeout, 1 change | 97,151, all | 36 |
//! | `ExchangeBehindProposal` | 4 of 5 | 1 timeout, 1 change | over 1,746,418 | 14 |
//! | `TwoChanges` | 4 of 5 | 1 timeout, 1 change | over 1,959,239 | 17 |
//! | `JointElection` | 4 of 5 | 1 timeout | 98, all | 26 |
//! | `Learners` | 5 | 1 timeout, 1 proposal | over 1,398,098 | 16 |
//! | `Pipeline` | 3 | 1 timeout, 1 repeat | over 1,981,213 | 13 |
//! | `LateMessage` | 3 | 2 timeouts, 1 crash | 152,424, all | 36 |
//! | `LateWrite` | 5 | 1 timeout, 1 crash, disk of 1 | over 381,058 | 43 |
//! | `CutByMembership` | 5 | 1 timeout, 1 heartbeat | 9,216, all | 22 |
//! | `Transfer` | 3 | 1 timeout, 1 transfer, 1 proposal | over 564,029 | 37 |
//!
//! Where a number says *over*, the walk was stopped: breadth first after six million steps, `LateWrite` and `Transfer` depth first after two. The
//! long run, two million steps from each start, walked 4,212,934 states in 124 seconds of a core, optimised as tests are: 34,000 in a
//! second. Breadth first and depth first come to the same number wherever both come to an end.
//!
//! # Caveats
//! - Nothing is compacted, so snapshots do not occur; neither do reads.
//! - In all starts but one the question before an election is answered at once: it changes nothing at who is asked, and doubles the messages.
//! - A node that crashes starts again at once. One that stays away is one whose messages are not delivered.
//! - Two states are told apart by a hash of 64 bits: of ten million states, two would be mistaken for one in about one of 400,000 searches.

mod action;
mod broken;
mod digest;
mod properties;
mod starts;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use stateright::{Checker, Model, Property};

use crate::raft::Entry;
use crate::rules::{Faithful, OneLeftOut, Rule, Rules};

use action::Action;
use starts::Start;
use world::{Limits, World};

/// A start, as the checker takes it.
struct Group<R: Rules> {
    start: Start,
    limits: Limits,
    first: World<R>,
    /// Entries that are durable somewhere at the start, and not committed.
    uncommitted: Vec<Entry>,
    /// Which rule is left out, where `R` can leave one out.
    rule: Option<Rule>,
}

impl<R: Rules> Group<R> {
    fn new(start: Start, rule: Option<Rule>) -> Self {
        let first: World<R> = without(rule, || start.world());
        let committed: Vec<&Entry> = first.seen.committed.iter().map(|(entry, _)| entry).collect();
        let durable = first.members.iter().flat_map(|member| &member.disk.entries);
        let uncommitted = durable.filter(|entry| !committed.contains(entry)).cloned().collect();
        Self { start, limits: start.limits(), first, uncommitted, rule }
    }
}

/// Does something on this thread without that rule. The checker has threads of its own.
fn without<T>(rule: Option<Rule>, act: impl FnOnce() -> T) -> T {
    match rule {
        Some(rule) => OneLeftOut::during(rule, act),
        None => act(),
    }
}

impl<R: Rules> Model for Group<R> {
    type State = World<R>;
    type Action = Action;

    fn init_states(&self) -> Vec<World<R>> {
        vec![self.first.clone()]
    }

    fn actions(&self, world: &World<R>, actions: &mut Vec<Action>) {
        // What follows from a bug that was found is of no interest.
        if self.rule.is_none() || !properties::violated(world) {
            world.actions(&self.limits, actions);
        }
    }

    fn next_state(&self, world: &World<R>, action: Action) -> Option<World<R>> {
        let act = || catch_unwind(AssertUnwindSafe(|| world.after(&self.limits, &action)));
        without(self.rule, act).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let mut failed = world.clone();
            Arc::make_mut(&mut failed.seen).failed = Some(text.unwrap_or_else(|| "a panic".into()));
            Some(failed)
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = properties::always();
        if self.rule.is_none() {
            all.extend(properties::sometimes(self.start));
        }
        all
    }
}

/// How much of a start was walked.
#[derive(Debug, PartialEq)]
struct Walked {
    states: usize,
    depth: usize,
    /// There was nothing left to walk.
    all: bool,
}

/// Panics where a property does not hold, with the path; or where something was not reached, by a walk that must have come by it.
fn judge(start: Start, search: impl Checker<Group<Faithful>>, steps_max: usize, must_reach: bool) -> Walked {
    let (states, depth, steps) = (search.unique_state_count(), search.max_depth(), search.state_count());
    println!("{start:?}: {states} states by {steps} steps, depth {depth}");
    let all = steps < steps_max;
    if must_reach || all {
        search.assert_properties();
    }
    for property in properties::always::<Faithful>() {
        search.assert_no_discovery(property.name);
    }
    Walked { states, depth, all }
}

/// Walks from a start, breadth first, up to that many steps. On one thread, so that it is the same walk each time.
fn walk(start: Start, steps_max: usize) -> Walked {
    let search = Group::<Faithful>::new(start, None).checker().target_state_count(steps_max);
    judge(start, search.spawn_bfs().join(), steps_max, true)
}

/// Steps of the starts that are not walked to the end every day.
const STEPS_MAX: usize = 150_000;

macro_rules! walks {
    ($($test:ident: $start:ident $(all $states:literal)? $(at_least $least:literal)?;)*) => {
        const ALL: &[Start] = &[$(Start::$start),*];

        $(#[test]
        fn $test() {
            $(let walked = walk(Start::$start, usize::MAX);
            assert_eq!((walked.states, walked.all), ($states, true), "another space than it was: why?");)?
            $(let walked = walk(Start::$start, STEPS_MAX);
            assert!(walked.states >= $least, "{walked:?}");)?
        })*
    };
}

walks! {
    a_new_group_elects_and_commits: Fresh at_least 60_000;
    pre_votes_travel: PreVotes at_least 60_000;
    disks_take_their_time: SlowDisks all 224_719;
    votes_wait_for_the_disk: SlowVotes all 105_432;
    figure_eight: FigureEight all 54_975;
    an_old_suffix_meets_a_new_leader: OldSuffix all 72_460;
    voters_are_exchanged: Exchange all 97_151;
    voters_are_exchanged_behind_a_proposal: ExchangeBehindProposal at_least 50_000;
    two_changes_are_asked_for: TwoChanges at_least 50_000;
    both_majorities_elect: JointElection all 98;
    learners_do_not_count: Learners at_least 50_000;
    what_arrives_arrives_again: Pipeline at_least 60_000;
    a_message_of_a_deposed_leader_arrives: LateMessage all 152_424;
    a_write_is_overtaken: LateWrite at_least 40_000;
    a_membership_cuts_a_log: CutByMembership all 9_216;
    leadership_is_handed_over: Transfer at_least 60_000;
}

/// `TRINE_MODEL_STEPS=1000000` walks that far from each start. Depth first: what breadth first keeps of its widest level would not fit in memory.
#[test]
#[ignore = "takes two minutes of a core"]
fn a_million_states() {
    let steps = std::env::var("TRINE_MODEL_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(2_000_000);
    let states = ALL.iter().map(|start| {
        let search = Group::<Faithful>::new(*start, None).checker().target_state_count(steps);
        judge(*start, search.spawn_dfs().join(), steps, false).states
    });
    let states: usize = states.sum();
    println!("{states} states in all");
    assert!(states >= 1_000_000, "only {states} states");
}
