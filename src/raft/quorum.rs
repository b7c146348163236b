//! Majority arithmetic. Everything that Raft promises rests on one fact: two majorities share a member.

/// Voters that one group may have. Majorities are computed in an array of this size, on the stack.
pub const VOTERS_MAX: usize = 15;

/// How many of `voters` are a majority.
pub(super) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest value that a majority has reached, given one value per voter.
pub(super) fn reached_by_majority(values: impl Iterator<Item = u64>) -> u64 {
    let mut sorted = [0; VOTERS_MAX];
    let mut count = 0;
    for value in values {
        assert!(count < VOTERS_MAX, "more than {VOTERS_MAX} voters");
        sorted[count] = value;
        count += 1;
    }
    assert!(count > 0, "a group without voters has no majority");
    let sorted = &mut sorted[..count];
    sorted.sort_unstable();
    sorted[count - majority(count)]
}

/// Where an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tally {
    /// A majority granted.
    Won,
    /// So many refused that no majority can grant any more.
    Lost,
    /// Neither yet.
    Open,
}

/// Counts an election.
pub(super) fn tally(voters: usize, granted: usize, refused: usize) -> Tally {
    assert!(granted + refused <= voters, "{granted} granted and {refused} refused of {voters} voters");
    if granted >= majority(voters) {
        Tally::Won
    } else if voters - refused < majority(voters) {
        Tally::Lost
    } else {
        Tally::Open
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn majorities_of_small_groups() {
        let table = [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)];
        for (voters, expected) in table {
            assert_eq!(majority(voters), expected, "{voters} voters");
        }
    }

    #[test]
    fn elections_of_small_groups() {
        use Tally::{Lost, Open, Won};
        let table = [
            (1, 1, 0, Won),
            (2, 1, 0, Open),
            (2, 1, 1, Lost),
            (3, 1, 1, Open),
            (3, 2, 0, Won),
            (3, 1, 2, Lost),
            (4, 2, 1, Open),
            (4, 2, 2, Lost),
            (5, 3, 2, Won),
            (5, 2, 2, Open),
        ];
        for (voters, granted, refused, expected) in table {
            assert_eq!(tally(voters, granted, refused), expected, "{granted}:{refused} of {voters}");
        }
    }

    proptest! {
        /// Brute force: try every value from the top, and count who has reached it.
        #[test]
        fn the_value_is_the_highest_that_a_majority_reached(values in prop::collection::vec(0u64..20, 1..=VOTERS_MAX)) {
            let reached = |value: u64| values.iter().filter(|v| **v >= value).count() * 2 > values.len();
            let expected = (0..20).rev().find(|value| reached(*value)).unwrap();
            prop_assert_eq!(reached_by_majority(values.iter().copied()), expected);
        }

        /// Brute force: whatever the silent voters will say, `Won` stays won and `Lost` can never become won.
        #[test]
        fn a_decided_election_stays_decided(
            (voters, granted, refused) in (1usize..=VOTERS_MAX)
                .prop_flat_map(|voters| (Just(voters), 0..=voters))
                .prop_flat_map(|(voters, granted)| (Just(voters), Just(granted), 0..=voters - granted)),
        ) {
            let outcomes: Vec<bool> = (granted..=voters - refused).map(|final_count| final_count * 2 > voters).collect();
            let expected = if outcomes.iter().all(|won| *won) {
                Tally::Won
            } else if outcomes.iter().all(|won| !won) {
                Tally::Lost
            } else {
                Tally::Open
            };
            prop_assert_eq!(tally(voters, granted, refused), expected);
        }
    }
}
