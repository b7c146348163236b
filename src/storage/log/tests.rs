//! What crashes, damage and time do to the files. What the log means is in the conformance suite, `storage/suite.rs`.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::format::Record;
use super::*;
use crate::raft::Persist;
use crate::storage::testing::*;

const SMALL: LogOptions = LogOptions { segment_bytes: 4096 };

fn open(path: &Path) -> (SegmentLog, BTreeMap<GroupId, LogRecovered>) {
    SegmentLog::open(path, &identity(false), SMALL).unwrap()
}

fn files(path: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = all.filter(|path| path.extension().is_some_and(|it| it == "segment")).collect();
    segments.sort();
    segments
}

/// Flips one bit of a file.
fn flip(path: &Path, offset: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[usize::try_from(offset).unwrap()] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn corrupt(path: &Path) -> String {
    match SegmentLog::open(path, &identity(true), SMALL) {
        Err(StorageError::Corrupt { what }) => what,
        other => panic!("expected damage to be noticed, not {other:?}"),
    }
}

/// A round: the writes, a sync, and what follows it.
fn round(log: &mut SegmentLog, writes: &[Write]) {
    for write in writes {
        log.append(write).unwrap();
    }
    log.sync().unwrap();
    log.idle(0).unwrap();
}

/// A log of 40 rounds over several small segments.
fn several_segments() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path());
    round(&mut log, &[vote(G, 3, 1)]);
    for index in 1..=100 {
        round(&mut log, &[entries(G, index, index, 3), journal(GroupId(2), vec![written("k", 1, index)])]);
    }
    assert!(log.segments() >= 4, "{} segments", log.segments());
    directory
}

#[test]
fn a_torn_tail_is_cut_at_every_byte_and_the_log_goes_on() {
    let original = tempfile::tempdir().unwrap();
    let (mut log, _) = open(original.path());
    round(&mut log, &[vote(G, 3, 1), entries(G, 1, 2, 3)]);
    let start = log.segment.offset();
    log.append(&entries(G, 3, 4, 3)).unwrap();
    log.sync().unwrap();
    let end = log.segment.offset();
    let file = files(original.path()).remove(0);
    let whole = std::fs::read(&file).unwrap();
    for cut in start..end {
        for filler in [None, Some(0), Some(0xa5)] {
            let directory = tempfile::tempdir().unwrap();
            let mut bytes = whole[..usize::try_from(cut).unwrap()].to_vec();
            if let Some(filler) = filler {
                bytes.resize(whole.len(), filler);
            }
            std::fs::write(directory.path().join(file.file_name().unwrap()), bytes).unwrap();
            let (mut log, recovered) = open(directory.path());
            assert_eq!(recovered[&G].entries, [entry(1, 3), entry(2, 3)], "cut at {cut}, then {filler:?}");
            assert_eq!(log.segment.offset(), start);
            log.append(&replacing(G, 3, 5, 4)).unwrap();
            log.sync().unwrap();
            drop(log);
            let (_, recovered) = open(directory.path());
            assert_eq!(recovered[&G].entries.len(), 5, "cut at {cut}, then {filler:?}");
            assert_eq!(recovered[&G].entries[4], entry(5, 4));
        }
    }
    let (_, recovered) = open(original.path());
    assert_eq!(recovered[&G].entries.len(), 4, "the whole record counts");
}

#[test]
fn a_round_torn_in_its_middle_is_cut_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path());
    round(&mut log, &[entries(G, 1, 2, 3)]);
    let start = log.segment.offset();
    for index in 3..=5 {
        log.append(&entries(G, index, index, 3)).unwrap();
    }
    log.sync().unwrap();
    drop(log);
    // The disk wrote the blocks of the last two records, not that of the first: a power cut inside the sync.
    flip(&files(directory.path())[0], start + 40);
    let (mut log, recovered) = open(directory.path());
    assert_eq!(recovered[&G].entries.len(), 2);
    let rest = std::fs::read(&files(directory.path())[0]).unwrap();
    assert!(rest[usize::try_from(start).unwrap()..].iter().all(|byte| *byte == 0), "the rest is cleared");
    round(&mut log, &[entries(G, 3, 3, 4)]);
    drop(log);
    assert_eq!(open(directory.path()).1[&G].entries[2], entry(3, 4));
}

#[test]
fn a_flipped_bit_in_what_was_synced_is_damage_even_in_the_last_round() {
    let original = tempfile::tempdir().unwrap();
    let (mut log, _) = open(original.path());
    let mut starts = Vec::new();
    for index in 1..=3 {
        starts.push(log.segment.offset());
        round(&mut log, &[entries(G, index, index, 3)]);
    }
    drop(log);
    let file = files(original.path()).remove(0);
    let mark = record_ends(&file, 1) as u64;
    for offset in starts[0]..mark {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join(file.file_name().unwrap());
        std::fs::copy(&file, &copy).unwrap();
        flip(&copy, offset);
        let what = corrupt(directory.path());
        assert!(what.contains(copy.to_str().unwrap()), "{what}");
        let named = format!("offset {}:", record_start(&file, offset));
        assert!(what.contains(&named), "flip at {offset}: {what}, not {named}");
    }
}

fn log_owner() -> Owner {
    Owner { node: identity(true).node, incarnation: identity(true).incarnation }
}

/// Where the record that holds this byte begins.
fn record_start(file: &Path, byte: u64) -> usize {
    let data = std::fs::read(file).unwrap();
    let mut offset = SEGMENT_HEADER_BYTES;
    while let Some(record) = Record::read(&log_owner(), 1, &data, offset) {
        if (offset + record.bytes()) as u64 > byte {
            return offset;
        }
        offset += record.bytes();
    }
    panic!("no record holds byte {byte}");
}

#[test]
fn a_flipped_bit_anywhere_in_an_older_segment_is_damage() {
    let original = several_segments();
    for (number, file) in files(original.path()).iter().enumerate() {
        let last = number + 1 == files(original.path()).len();
        let used = record_ends(file, number as u64 + 1);
        for offset in (0..used).step_by(if last { 61 } else { 97 }) {
            let directory = tempfile::tempdir().unwrap();
            for source in files(original.path()) {
                std::fs::copy(&source, directory.path().join(source.file_name().unwrap())).unwrap();
            }
            let target = directory.path().join(file.file_name().unwrap());
            flip(&target, offset as u64);
            let what = corrupt(directory.path());
            assert!(what.contains(target.to_str().unwrap()), "{what}");
        }
    }
}

/// Where the records of a segment end, the last mark and the end record not counted.
fn record_ends(file: &Path, segment: u64) -> usize {
    let data = std::fs::read(file).unwrap();
    let (mut offset, mut before) = (SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES);
    while let Some(record) = Record::read(&log_owner(), segment, &data, offset) {
        if record.kind == Kind::End {
            return offset;
        }
        (before, offset) = (offset, offset + record.bytes());
    }
    before
}

#[test]
fn a_missing_segment_is_noticed_wherever_it_was() {
    let original = several_segments();
    for missing in files(original.path()) {
        let directory = tempfile::tempdir().unwrap();
        for source in files(original.path()).iter().filter(|source| **source != missing) {
            std::fs::copy(source, directory.path().join(source.file_name().unwrap())).unwrap();
        }
        let what = corrupt(directory.path());
        let name = missing.file_name().unwrap().to_str().unwrap();
        assert!(what.contains(name) && what.contains("missing"), "{name}: {what}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(corrupt(empty.path()).contains("no segment"));
    assert!(corrupt(&empty.path().join("log")).contains("missing"));
}

#[test]
fn segments_of_another_node_or_format_are_refused() {
    let directory = several_segments();
    let other = Identity { node: crate::ids::NodeId::numbered(2), ..identity(true) };
    let error = SegmentLog::open(directory.path(), &other, SMALL).unwrap_err();
    assert!(matches!(&error, StorageError::Refused { what } if what.contains("belongs to node1")), "{error}");
    let file = files(directory.path()).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[11] = 9;
    let crc = crc32c::crc32c(&bytes[..60]).to_be_bytes();
    bytes[60..64].copy_from_slice(&crc);
    std::fs::write(&file, bytes).unwrap();
    let error = SegmentLog::open(directory.path(), &identity(true), SMALL).unwrap_err();
    assert!(matches!(&error, StorageError::Refused { what } if what.contains("format 9")), "{error}");
}

#[test]
fn segments_go_when_compaction_has_overtaken_them() {
    let directory = several_segments();
    let (mut log, _) = open(directory.path());
    let before = log.segments();
    round(&mut log, &[compaction(G, 95, 3)]);
    round(&mut log, &[vote(G, 4, 2)]);
    assert!(log.segments() < before && log.segments() <= 2, "{} of {before} segments", log.segments());
    assert_eq!(files(directory.path()).len() as u64, log.segments());
    drop(log);
    let (_, recovered) = open(directory.path());
    assert_eq!(recovered[&G].base, meta(95, 3));
    assert_eq!(recovered[&G].entries, (96..=100).map(|index| entry(index, 3)).collect::<Vec<_>>());
    assert_eq!(recovered[&G].hard_state.term, 4);
    assert_eq!(recovered[&GroupId(2)].journal, [written("k", 1, 100)]);
}

#[test]
fn a_crash_between_mark_and_removal_is_finished_later() {
    let directory = several_segments();
    let (mut log, _) = open(directory.path());
    round(&mut log, &[compaction(G, 95, 3)]);
    let before = log.segments();
    drop(log);
    let (mut log, _) = open(directory.path());
    assert_eq!(log.segments(), before);
    log.idle(0).unwrap();
    assert!(log.segments() <= 2, "{} segments", log.segments());
}

#[test]
fn a_log_that_has_nothing_to_do_shrinks_and_one_that_is_busy_with_small_rounds_is_left_alone() {
    let segments_after = |between_us: u64| {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path());
        round(&mut log, &[journal(GroupId(9), vec![written("held", 1, 1)])]);
        let mut index = 0;
        while log.segments() < 4 {
            index += 1;
            round(&mut log, &[entries(G, index, index, 3)]);
        }
        round(&mut log, &[compaction(G, index, 3)]);
        let (before, mut now_us) = (log.segments(), 10_000_000);
        for version in 2..=30 {
            log.append(&journal(GroupId(2), vec![written("k", version, 1)])).unwrap();
            log.sync().unwrap();
            now_us += between_us;
            log.idle(now_us).unwrap();
        }
        (before, log.segments())
    };
    let (before, busy) = segments_after(1_000);
    assert!(busy >= before, "{before} segments, then {busy}: it looked at all that counts again and again");
    let (before, quiet) = segments_after(20_000_000);
    assert!(quiet < before && quiet <= 2, "{before} segments, then {quiet}");
}

#[test]
fn a_group_that_hardly_writes_does_not_hold_old_segments() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path());
    let idle = GroupId(9);
    round(&mut log, &[vote(idle, 2, 1), entries(idle, 1, 3, 2), journal(idle, vec![written("held", 1, 1)])]);
    let mut most = 0;
    for index in 1..=3000u64 {
        let mut writes = vec![entries(G, index, index, 3)];
        if index % 10 == 0 {
            writes.push(compaction(G, index - 5, 3));
        }
        round(&mut log, &writes);
        most = most.max(log.segments());
    }
    assert!(log.segment.number > 30, "{} segments were written", log.segment.number);
    assert!(most <= CARRY_AGE_SEGMENTS + 3, "{most} segments at once");
    drop(log);
    let (_, recovered) = open(directory.path());
    assert_eq!(recovered[&idle].entries, (1..=3).map(|index| entry(index, 2)).collect::<Vec<_>>());
    assert_eq!(recovered[&idle].journal, [written("held", 1, 1)]);
    assert_eq!(recovered[&G].entries.last(), Some(&entry(3000, 3)));
}

#[test]
fn a_group_whose_first_write_begins_a_segment_is_recovered() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path());
    // One group after the other writes for the first time; now and then one of them finds its segment full.
    let mut groups = 0;
    while log.segments() < 6 {
        round(&mut log, &[entries(GroupId(groups), 1, 1, 1)]);
        groups += 1;
    }
    drop(log);
    let (_, recovered) = open(directory.path());
    assert_eq!(recovered.len(), groups as usize);
    assert!(recovered.values().all(|log| log.entries == [entry(1, 1)]));
}

#[test]
fn a_write_larger_than_a_segment_gets_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path());
    round(&mut log, &[entries(G, 1, 400, 3)]);
    round(&mut log, &[entries(G, 401, 401, 3)]);
    drop(log);
    assert_eq!(open(directory.path()).1[&G].entries.len(), 401);
}

#[test]
fn a_write_that_does_not_follow_stops_the_log() {
    let wrong = [
        ("gap", entries(G, 5, 5, 3)),
        ("overlap", entries(G, 3, 3, 3)),
        ("falling term", entries(G, 4, 4, 2)),
        ("second vote", vote(G, 3, 2)),
        ("falling hard state", vote(G, 2, 1)),
        ("compaction beyond the end", compaction(G, 4, 3)),
        ("compaction in another term", compaction(G, 2, 2)),
        ("truncation of the base", replacing(G, 0, 0, 3)),
    ];
    for (name, write) in wrong {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path());
        round(&mut log, &[vote(G, 3, 1), entries(G, 1, 3, 3)]);
        assert!(log.append(&write).is_err(), "{name}");
        assert!(log.sync().is_err() && log.append(&entries(G, 4, 4, 3)).is_err(), "{name}");
        drop(log);
        assert_eq!(open(directory.path()).1[&G].entries.len(), 3, "{name}");
    }
}

#[test]
fn a_failed_sync_is_final() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path());
    round(&mut log, &[entries(G, 1, 3, 3)]);
    // Takes writes and refuses a sync, as a disk that is failing does.
    let failing = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let healthy = std::mem::replace(&mut log.segment.file, failing);
    log.append(&entries(G, 4, 4, 3)).unwrap();
    assert!(matches!(log.sync(), Err(StorageError::Io { .. })));
    log.segment.file = healthy;
    assert!(log.sync().is_err() && log.idle(0).is_err() && log.append(&entries(G, 5, 5, 3)).is_err());
}

#[test]
fn a_snapshot_keeps_what_follows_although_the_deciding_entry_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path());
    round(&mut log, &[entries(G, 1, 20, 3)]);
    round(&mut log, &[restored(G, &snapshot(10, 3, &[]))]);
    for round_number in 0..100 {
        round(&mut log, &[journal(G, vec![written("k", 1, round_number)])]);
    }
    round(&mut log, &[compaction(G, 15, 3)]);
    drop(log);
    let (_, recovered) = open(directory.path());
    assert_eq!(recovered[&G].entries, (16..=20).map(|index| entry(index, 3)).collect::<Vec<_>>());
}

#[test]
fn leftovers_of_a_start_that_was_killed_do_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("spare"), b"half a segment").unwrap();
    std::fs::write(directory.path().join("README"), b"not ours").unwrap();
    let (mut log, recovered) = open(directory.path());
    assert_eq!(recovered, BTreeMap::new());
    round(&mut log, &[raft(G, Persist::default()), entries(G, 1, 1, 1)]);
    drop(log);
    assert_eq!(open(directory.path()).1[&G].entries, [entry(1, 1)]);
    assert!(directory.path().join("README").exists());
}
