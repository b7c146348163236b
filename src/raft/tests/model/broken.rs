//! Known bugs, each switched on: the search must find what comes of it, or it proves nothing where it finds nothing.

use stateright::{Checker, HasDiscoveries, Model};

use super::Group;
use super::properties::{APPLIED_IS_DURABLE, ASSERTIONS, ELECTION_SAFETY, LEADER_COMPLETENESS, STATE_MACHINE_SAFETY};
use super::starts::Start;
use crate::rules::{OneLeftOut, Rule};

/// States that one search may make. The dearest bug takes a third of that.
const STATES_MAX: usize = 300_000;

/// Searches from `start` without `rule`, breadth first, so that what is found is short; what comes of it must violate `expected`.
fn found(rule: Rule, start: Start, expected: &str) {
    let search = Group::<OneLeftOut>::new(start, Some(rule)).checker();
    let search = search.finish_when(HasDiscoveries::AnyFailures).target_state_count(STATES_MAX).spawn_bfs().join();
    let states = search.unique_state_count();
    let violations = search.discoveries();
    println!("{rule:?} from {start:?}: {states} states");
    for (property, path) in &violations {
        println!("  {property}:");
        for action in path.clone().into_actions() {
            println!("    {action:?}");
        }
    }
    let found = violations.contains_key(expected);
    assert!(found, "{rule:?} is not found in {states} states from {start:?}: {:?}", violations.keys());
}

macro_rules! found {
    ($($test:ident: $rule:ident from $start:ident violates $property:ident;)*) => {
        $(#[test]
        fn $test() {
            found(Rule::$rule, Start::$start, $property);
        })*
    };
}

found! {
    a_second_vote_in_a_term_is_found: SecondVoteInATerm from Fresh violates ELECTION_SAFETY;
    a_vote_that_is_not_persisted_is_found: VoteNotPersisted from SlowVotes violates ELECTION_SAFETY;
    a_vote_without_a_look_at_the_log_is_found: VoteWithoutLogCheck from Fresh violates LEADER_COMPLETENESS;
    a_leader_that_counts_itself_early_is_found: LeaderCountsItselfEarly from SlowDisks violates LEADER_COMPLETENESS;
    an_append_that_is_acknowledged_early_is_found: AppendAcknowledgedEarly from SlowDisks violates LEADER_COMPLETENESS;
    figure_eight_is_found: EarlierTermCommittedByCount from FigureEight violates LEADER_COMPLETENESS;
    a_commit_beyond_what_is_proven_is_found: CommitBeyondWhatIsProven from OldSuffix violates STATE_MACHINE_SAFETY;
    a_deposed_leader_that_is_followed_is_found: DeposedLeaderFollowed from LateMessage violates LEADER_COMPLETENESS;
    a_cut_without_conflict_is_found: AppendCutsWithoutConflict from Pipeline violates ASSERTIONS;
    a_completion_that_speaks_for_later_entries_is_found:
        CompletionSpeaksForLaterEntries from LateWrite violates APPLIED_IS_DURABLE;
    voters_that_are_exchanged_at_once_are_found: VotersChangedAtOnce from Exchange violates LEADER_COMPLETENESS;
    a_joint_state_that_is_left_early_is_found:
        JointLeftEarly from ExchangeBehindProposal violates LEADER_COMPLETENESS;
    a_change_during_a_change_is_found: ChangeDuringAChange from TwoChanges violates LEADER_COMPLETENESS;
    learners_that_count_are_found: LearnersCounted from Learners violates LEADER_COMPLETENESS;
    a_membership_that_is_kept_when_cut_is_found:
        MembershipKeptWhenCut from CutByMembership violates LEADER_COMPLETENESS;
}
