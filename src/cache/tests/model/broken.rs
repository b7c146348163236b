//! Known bugs, each switched on: the search must find what comes of it, or it proves nothing where it finds nothing.

use stateright::{Checker, HasDiscoveries, Model};

use super::Bus;
use super::starts::Start;
use super::step::{NO_STALE_LINE, NOTHING_LOST, READS, SINGLE_WRITER};
use crate::rules::{OneLeftOut, Rule};

/// Steps that one search may make.
const STEPS_MAX: usize = 300_000;

/// Searches from `start`, breadth first, so that what is found is short. Returns how many steps it took to what violates `expected`.
fn search(rule: Option<Rule>, start: Start, expected: &str, steps_max: usize) -> Option<usize> {
    let search = Bus::<OneLeftOut>::new(start, rule).checker();
    let search = search.finish_when(HasDiscoveries::AnyFailures).target_state_count(steps_max).spawn_bfs().join();
    let (states, steps) = (search.unique_state_count(), search.state_count());
    let violations = search.discoveries();
    println!("{rule:?} from {start:?}: {states} states");
    for (property, path) in &violations {
        let last = path.last_state();
        println!("  {property}: {:?}", last.seen.broken);
        for action in path.clone().into_actions() {
            println!("    {action:?}");
        }
    }
    violations.contains_key(expected).then_some(steps)
}

/// What comes of a rule that is left out must violate `expected`; with the rule, the same search finds nothing.
fn found(rule: Rule, start: Start, expected: &str) {
    let steps = search(Some(rule), start, expected, STEPS_MAX);
    let steps = steps.unwrap_or_else(|| panic!("{rule:?} is not found from {start:?}"));
    assert_eq!(search(None, start, expected, steps), None);
}

macro_rules! found {
    ($($test:ident: $rule:ident from $start:ident violates $property:ident;)*) => {
        /// Each rule, and the start from which its absence is found.
        const FOUND: &[(&str, &str)] = &[$((stringify!($rule), stringify!($start))),*];

        $(#[test]
        fn $test() {
            found(Rule::$rule, Start::$start, $property);
        })*
    };
}

found! {
    a_home_before_its_no_op_is_found: HomeBeforeNoOp from Lagging violates READS;
    a_new_home_that_is_not_silent_is_found: NewHomeNotSilent from Failover violates NO_STALE_LINE;
    a_grant_without_a_lease_is_found: GrantWithoutLeaseCheck from Failover violates NO_STALE_LINE;
    a_lease_before_the_join_is_found: LeaseBeforeJoin from Joining violates NO_STALE_LINE;
    a_lease_from_the_answer_is_found: BusLeaseFromAnswer from LateRenewal violates NO_STALE_LINE;
    a_lapsed_lease_that_is_renewed_is_found: LapsedLeaseRenewed from Lapse violates NO_STALE_LINE;
    lines_that_outlive_their_lease_are_found: LinesKeptAcrossLeases from Lapse violates NO_STALE_LINE;
    a_write_before_copies_are_gone_is_found: WriteBeforeCopiesAreGone from Sharers violates NO_STALE_LINE;
    an_invalidation_only_acknowledged_is_found: InvalidationOnlyAcknowledged from Sharers violates NO_STALE_LINE;
    a_fill_after_its_invalidation_is_found: FillInstalledAfterInvalidation from Sharers violates NO_STALE_LINE;
    a_write_before_the_journal_is_found: WriteBeforeJournal from Modified violates NOTHING_LOST;
    an_old_value_while_its_owner_is_away_is_found: OldValueWhileOwnerIsAway from OwnerAway violates READS;
    a_dirty_line_that_is_evicted_is_found: DirtyLineEvicted from Cramped violates NOTHING_LOST;
    leases_without_numbers_are_found: LeasesNotNumbered from LateGrant violates SINGLE_WRITER;
    a_late_registration_that_counts_is_found: LateRegistrationCounts from Reelected violates NO_STALE_LINE;
    an_ownership_without_its_value_is_found: OwnershipWithoutValue from Sharers violates NOTHING_LOST;
    a_line_handed_over_and_forgotten_is_found: HandedOverAndForgotten from Modified violates NOTHING_LOST;
    a_line_handed_over_and_shown_is_found: HandedOverAndShown from Modified violates NO_STALE_LINE;
    an_upgrade_before_the_retraction_is_found: UpgradeBeforeRetract from Sharers violates NO_STALE_LINE;
    a_write_shown_before_the_journal_is_found: ShownBeforeJournal from Modified violates NOTHING_LOST;
    an_owner_that_resumes_is_found: OwnerResumes from Crash violates SINGLE_WRITER;
    an_owner_known_by_name_is_found: OwnerByName from Replaced violates NOTHING_LOST;
    a_fill_for_any_request_is_found: FillForAnyRequest from Refill violates NO_STALE_LINE;
}

/// What the module says of each rule is what is tested here, and no rule of the cache is missing.
#[test]
fn every_rule_of_the_cache_is_found_and_told_of() {
    let rules = include_str!("../../../rules.rs");
    let (_, rules) = rules.split_once("// The cache.").expect("they stand together");
    let (rules, _) = rules.split_once('}').expect("they end");
    let names = rules.lines().filter_map(|line| line.trim().strip_suffix(',')).filter(|line| !line.starts_with("//"));
    // The model has no Redis, no clients that keep copies, and no writes that demand something: the simulator has.
    let copies = ["ClientCopiesNotWaitedFor", "CopiesOfAnEarlierLife", "CopyOutlivesBusLease"];
    let others = ["RedisFence", "FirstRefusalCounts"];
    let names = names.filter(|name| !others.contains(name) && !copies.contains(name));
    let mut names: Vec<&str> = names.collect();
    let mut found: Vec<&str> = FOUND.iter().map(|(rule, _)| *rule).collect();
    names.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, names);
    let rows: Vec<&str> = include_str!("../../mod.rs").lines().filter(|line| line.starts_with("//! | ")).collect();
    for (rule, start) in FOUND {
        let is_told = |row: &&str| row.contains(&format!("`{rule}`")) && row.ends_with(&format!("| `{start}` |"));
        assert!(rows.iter().any(is_told), "no row says that {rule} is found from {start}");
    }
}
