//! What the log does with appends, cuts and compaction.

use bytes::Bytes;

use super::*;

fn entry(index: Index, term: Term) -> Entry {
    Entry {
        index,
        term,
        stamp_ms: index * 10,
        wall_ms: 0,
        data: Bytes::from(format!("{index}@{term}")),
        membership: None,
    }
}

/// Entries from `first` on with the given terms.
fn entries(first: Index, terms: &[Term]) -> Vec<Entry> {
    terms.iter().zip(first..).map(|(term, index)| entry(index, *term)).collect()
}

fn log(terms: &[Term]) -> Log {
    Log::new(SnapshotMeta::default(), entries(1, terms), Arc::default())
}

fn terms(log: &Log) -> Vec<Term> {
    (log.base().index + 1..=log.last_index()).map(|index| log.term_at(index).unwrap()).collect()
}

#[test]
fn merge_cuts_at_the_first_conflict_only() {
    // (log, first index of the message, its terms) -> (log after, where it was cut)
    type Case = (&'static [Term], Index, &'static [Term], &'static [Term], Option<Index>);
    let table: &[Case] = &[
        (&[], 1, &[1, 1], &[1, 1], None),
        (&[1, 1], 3, &[2], &[1, 1, 2], None),
        // An old message that the log has long gone past, and a short one, change nothing.
        (&[1, 1, 1, 1], 2, &[1], &[1, 1, 1, 1], None),
        (&[1, 1, 1, 1], 1, &[1, 1], &[1, 1, 1, 1], None),
        (&[1, 1, 1, 1], 5, &[], &[1, 1, 1, 1], None),
        // Overlap, then new.
        (&[1, 1, 1], 2, &[1, 1, 1, 2], &[1, 1, 1, 1, 2], None),
        // Conflicts: at the start, in the middle, and shorter than what is cut.
        (&[1, 2, 2, 2], 2, &[3], &[1, 3], Some(2)),
        (&[1, 1, 2, 2], 2, &[1, 3, 3], &[1, 1, 3, 3], Some(3)),
        (&[1, 2, 2], 1, &[1, 2, 3], &[1, 2, 3], Some(3)),
    ];
    for (before, first, message, after, cut) in table {
        let mut log = log(before);
        let result = log.merge(entries(*first, message), 0);
        assert_eq!((terms(&log).as_slice(), result), (*after, *cut), "{before:?} + {first}:{message:?}");
        log.check();
        assert_eq!(log.bytes(), log.range(1, log.last_index()).map(entry_bytes).sum::<usize>());
    }
}

#[test]
#[should_panic(expected = "entry 2 conflicts, but 2 is committed")]
fn a_committed_entry_is_never_cut() {
    log(&[1, 1, 1]).merge(entries(2, &[2]), 2);
}

#[test]
fn storage_hears_of_a_cut_only_where_it_was_given_the_entries() {
    let mut log = log(&[1, 1]);
    log.merge(entries(3, &[1, 1]), 0);
    log.merge(entries(4, &[2]), 0);
    assert_eq!(log.take_unhanded(), Unhanded { truncate_from: None, entries: entries(3, &[1, 2]) });
    assert_eq!(log.take_unhanded(), Unhanded::default());
    log.merge(entries(3, &[3, 3]), 0);
    log.merge(entries(2, &[4]), 0);
    assert_eq!(log.take_unhanded(), Unhanded { truncate_from: Some(2), entries: entries(2, &[4]) });
}

#[test]
fn a_cut_lowers_what_is_durable() {
    let mut log = log(&[1, 1, 1]);
    log.merge(entries(4, &[1, 1]), 0);
    log.take_unhanded();
    log.made_durable(5);
    log.merge(entries(3, &[2, 2, 2]), 0);
    assert_eq!(log.stable(), 2);
    log.take_unhanded();
    log.made_durable(4);
    assert_eq!(log.stable(), 4);
    log.check();
}

#[test]
fn places_are_found_by_term() {
    let log = log(&[1, 1, 3, 3, 5, 5]);
    let table = [
        ((6, 5), (6, 5)),
        ((9, 9), (6, 5)),
        ((6, 4), (4, 3)),
        ((3, 4), (3, 3)),
        ((6, 2), (2, 1)),
        ((1, 5), (1, 1)),
        ((6, 0), (0, 0)),
        ((0, 7), (0, 0)),
    ];
    for ((index, term), expected) in table {
        assert_eq!(log.last_at_or_below(index, term), expected, "at {index} term {term}");
    }
}

#[test]
fn a_batch_is_bounded_by_bytes_but_never_empty() {
    let log = log(&[1; 10]);
    let one = entry_bytes(&entry(1, 1));
    assert_eq!(log.batch(1, 0).len(), 1);
    assert_eq!(log.batch(1, one * 3).len(), 3);
    assert_eq!(log.batch(4, one * 4 - 1).len(), 3);
    assert_eq!(log.batch(9, usize::MAX), entries(9, &[1, 1]));
    assert_eq!(log.batch(11, 1000), vec![]);
}

#[test]
fn compaction_moves_the_base_and_keeps_its_term_and_stamps() {
    let mut log = log(&[1, 2, 2, 3]);
    log.compact(3);
    assert_eq!(*log.base(), SnapshotMeta { index: 3, term: 2, stamp_ms: 30, wall_ms: 0, membership: None });
    assert_eq!((log.term_at(2), log.term_at(3), log.term_at(4), log.term_at(5)), (None, Some(2), Some(3), None));
    assert_eq!((log.get(3), log.get(4).map(|e| e.index)), (None, Some(4)));
    log.compact(2);
    assert_eq!(log.base().index, 3, "an older compaction changes nothing");
    log.check();
}

#[test]
fn a_snapshot_drops_the_whole_log_and_what_storage_has_beyond_the_commit() {
    let mut log = log(&[1, 1, 1, 1]);
    log.restore(SnapshotMeta { index: 9, term: 3, stamp_ms: 90, wall_ms: 0, membership: None }, 2);
    assert_eq!((log.last_index(), log.last_term(), log.bytes()), (9, 3, 0));
    assert_eq!(log.take_unhanded(), Unhanded { truncate_from: Some(3), entries: vec![] });
    log.merge(entries(10, &[3]), 9);
    assert_eq!(log.take_unhanded(), Unhanded { truncate_from: None, entries: entries(10, &[3]) });
    log.check();
}

#[test]
#[should_panic(expected = "entry 3@1 follows 1@1")]
fn a_gap_on_disk_is_refused() {
    Log::new(SnapshotMeta::default(), vec![entry(1, 1), entry(3, 1)], Arc::default());
}
