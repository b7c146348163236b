//! One suite for every kind of storage: what holds on a simulated disk must hold on a real one, and the other way round.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tempfile::TempDir;

use super::testing::*;
use super::*;
use crate::ids::{GroupId, NodeId, ReplicaId};
use crate::node::effect::Write;
use crate::raft::{Entry, HardState, Persist};

/// A node's storage that can be cut off and started again.
pub(super) trait Disk {
    fn log(&mut self) -> &mut dyn LogStore;
    fn state(&mut self) -> &mut dyn StateStore;
    /// Loses what no sync has covered (the state store may lose less), and starts again.
    fn restart(&mut self);
    /// What a group found at the last start.
    fn recovered(&mut self, group: GroupId) -> Recovered;
    /// Loses some of what no sync has covered, as far as the disk can be made to, and starts again.
    fn crash(&mut self, _below: Draw<'_>) {
        self.restart();
    }
    /// How many segments the log has.
    fn segments(&mut self) -> u64 {
        0
    }
}

impl Disk for SimDisk {
    fn log(&mut self) -> &mut dyn LogStore {
        self
    }
    fn state(&mut self) -> &mut dyn StateStore {
        self
    }
    fn restart(&mut self) {
        self.crash(0);
    }
    fn recovered(&mut self, group: GroupId) -> Recovered {
        self.recover(group).unwrap()
    }
}

/// The simulated disk that is true to the byte.
pub(super) struct BytesDisk {
    disk: ByteDisk,
    recovered: BTreeMap<GroupId, Recovered>,
}

impl BytesDisk {
    fn new() -> Self {
        Self::with_segments_of(4096)
    }

    pub(super) fn with_segments_of(segment_bytes: u64) -> Self {
        let mut disk = ByteDisk::new(segment_bytes);
        let recovered = disk.start(claim().groups).unwrap();
        Self { disk, recovered }
    }
}

impl Disk for BytesDisk {
    fn log(&mut self) -> &mut dyn LogStore {
        &mut self.disk
    }
    fn state(&mut self) -> &mut dyn StateStore {
        &mut self.disk
    }
    fn restart(&mut self) {
        self.disk.die(true, &mut |_| 0);
        self.recovered = self.disk.start(claim().groups).unwrap();
    }
    fn recovered(&mut self, group: GroupId) -> Recovered {
        self.recovered[&group].clone()
    }
    fn crash(&mut self, below: Draw<'_>) {
        self.disk.hand_over().unwrap();
        self.disk.die(true, below);
        self.recovered = self.disk.start(claim().groups).unwrap();
    }
    fn segments(&mut self) -> u64 {
        self.disk.segments()
    }
}

/// Storage in a directory of the operating system.
pub(super) struct RealDisk {
    directory: TempDir,
    opened: Option<Opened>,
    segment_bytes: u64,
}

impl RealDisk {
    fn new() -> Self {
        Self::with_segments_of(4096)
    }

    pub(super) fn with_segments_of(segment_bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = Self { directory, opened: None, segment_bytes };
        disk.restart();
        disk
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("node1")
    }

    fn opened(&mut self) -> &mut Opened {
        self.opened.as_mut().unwrap()
    }
}

fn claim() -> Claim {
    Claim { node: NodeId::numbered(1), cluster: Some(7), groups: 3, joins: false }
}

impl Disk for RealDisk {
    fn log(&mut self) -> &mut dyn LogStore {
        &mut self.opened().log
    }
    fn state(&mut self) -> &mut dyn StateStore {
        &mut self.opened().state
    }
    fn restart(&mut self) {
        self.opened = None;
        let log = LogOptions { segment_bytes: self.segment_bytes };
        let state = StateOptions { cache_bytes: 1024 * 1024, body_file_bytes: self.segment_bytes };
        let options = StorageOptions { log, state };
        // A test beside this one may be starting a process, which shares every descriptor, the lock's too, until it runs.
        let tries = (0..500).find_map(|_| match open(&self.path(), &claim(), options.clone()) {
            Err(StorageError::Refused { .. }) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
                None
            }
            opened => Some(opened),
        });
        self.opened = Some(tries.expect("the lock is free within five seconds").unwrap());
    }
    fn recovered(&mut self, group: GroupId) -> Recovered {
        self.opened().recovered[&group].clone()
    }
    fn segments(&mut self) -> u64 {
        self.opened().log.segments()
    }
}

/// Keys of bodies.
const BODY_1: &str = "b\0\0\0\0\0\0\0\u{1}";
const BODY_2: &str = "b\0\0\0\0\0\0\0\u{2}";

/// Appends, syncs, and does what follows.
fn round(disk: &mut dyn Disk, writes: &[Write]) {
    for write in writes {
        disk.log().append(write).unwrap();
    }
    disk.log().sync().unwrap();
    disk.log().idle(0).unwrap();
}

/// What a group finds after a restart.
fn after_restart(disk: &mut dyn Disk, group: GroupId) -> Recovered {
    disk.restart();
    disk.recovered(group)
}

fn checkpointed(disk: &mut dyn Disk, checkpoint: &Checkpoint) {
    disk.state().checkpoint(checkpoint).unwrap();
    disk.state().sync().unwrap();
}

fn state_of(pairs: &[(&str, &str)]) -> Records {
    pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), Bytes::copy_from_slice(value.as_bytes()))).collect()
}

fn range(from: u64, through: u64, term: u64) -> Vec<Entry> {
    (from..=through).map(|index| entry(index, term)).collect()
}

fn a_new_disk_is_empty(disk: &mut dyn Disk) {
    assert_eq!(disk.recovered(G), Recovered::default());
    assert_eq!(after_restart(disk, G), Recovered::default());
}

fn what_was_synced_comes_back_in_order(disk: &mut dyn Disk) {
    round(disk, &[vote(G, 2, 3), entries(G, 1, 3, 1), entries(G, 4, 4, 2)]);
    round(disk, &[entries(G, 5, 9, 2), vote(G, 5, 0)]);
    let recovered = after_restart(disk, G);
    assert_eq!(recovered.hard_state, HardState { term: 5, vote: None });
    assert_eq!(recovered.entries, [range(1, 3, 1), range(4, 9, 2)].concat());
    assert_eq!(after_restart(disk, G), recovered);
    round(disk, &[entries(G, 10, 10, 5)]);
    assert_eq!(after_restart(disk, G).entries.len(), 10);
}

fn what_no_sync_covered_is_gone(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 3, 1)]);
    disk.log().append(&entries(G, 4, 4, 1)).unwrap();
    disk.log().append(&vote(G, 9, 1)).unwrap();
    let recovered = after_restart(disk, G);
    assert_eq!((recovered.entries, recovered.hard_state.term), (range(1, 3, 1), 0));
}

fn a_write_counts_as_a_whole(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 5, 1)]);
    checkpointed(disk, &checkpoint(G, 2, 1, &[]));
    let mut write = replacing(G, 4, 6, 3);
    write.raft.as_mut().unwrap().hard_state =
        Some(HardState { term: 3, vote: Some(ReplicaId::founder(NodeId::numbered(2))) });
    write.journal = vec![written("k", 1, 1)];
    write.compact = Some(meta(2, 1));
    disk.log().append(&write).unwrap();
    let without = after_restart(disk, G);
    assert_eq!((without.entries, without.journal, without.base.index), (range(1, 5, 1), vec![], 0));
    round(disk, &[write]);
    let with = after_restart(disk, G);
    assert_eq!(with.hard_state, HardState { term: 3, vote: Some(ReplicaId::founder(NodeId::numbered(2))) });
    assert_eq!(with.entries, [range(3, 3, 1), range(4, 6, 3)].concat());
    assert_eq!((with.journal, with.base), (vec![written("k", 1, 1)], meta(2, 1)));
}

fn a_conflicting_suffix_is_replaced(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 9, 1)]);
    round(disk, &[replacing(G, 4, 5, 2), replacing(G, 5, 5, 3)]);
    assert_eq!(after_restart(disk, G).entries, [range(1, 3, 1), range(4, 4, 2), range(5, 5, 3)].concat());
    round(disk, &[raft(G, Persist { truncate_from: Some(1), ..Persist::default() })]);
    assert_eq!(after_restart(disk, G).entries, []);
}

fn a_compacted_log_begins_at_its_base(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 300, 1)]);
    checkpointed(disk, &checkpoint(G, 290, 1, &[]));
    round(disk, &[compaction(G, 100, 1)]);
    round(disk, &[compaction(G, 290, 1), compaction(G, 200, 1), entries(G, 301, 302, 2)]);
    let recovered = after_restart(disk, G);
    assert_eq!(recovered.base, meta(290, 1));
    assert_eq!(recovered.entries, [range(291, 300, 1), range(301, 302, 2)].concat());
}

fn the_journal_folds_to_what_counts(disk: &mut dyn Disk) {
    let first = vec![written("b", 1, 1), written("a", 1, 5), written("b", 1, 2), written("c", 2, 0)];
    round(disk, &[journal(G, first), journal(G, vec![written("b", 1, 1), ended("c", 1, 9), ended("a", 1, 5)])]);
    let recovered = after_restart(disk, G);
    assert_eq!(recovered.journal, [written("b", 1, 2), written("c", 2, 0)]);
    round(disk, &[journal(G, vec![ended("b", 9, 0), written("a", 3, 0), ended("never", 1, 1)])]);
    assert_eq!(after_restart(disk, G).journal, [written("c", 2, 0), written("a", 3, 0)]);
}

fn groups_do_not_touch_each_other(disk: &mut dyn Disk) {
    let (one, two) = (GroupId(0), GroupId(2));
    round(
        disk,
        &[entries(one, 1, 5, 1), entries(two, 1, 2, 7), vote(two, 7, 1), journal(one, vec![written("k", 1, 1)])],
    );
    checkpointed(disk, &checkpoint(one, 4, 1, &[("q1", Some("one"))]));
    checkpointed(disk, &checkpoint(two, 1, 7, &[("q1", Some("two"))]));
    round(disk, &[compaction(one, 4, 1), replacing(two, 2, 2, 8), journal(two, vec![ended("k", 9, 9)])]);
    disk.restart();
    let (first, second) = (disk.recovered(one), disk.recovered(two));
    assert_eq!((first.entries, first.hard_state.term, first.journal.len()), (range(5, 5, 1), 0, 1));
    assert_eq!((second.entries, second.hard_state.term), ([range(1, 1, 7), range(2, 2, 8)].concat(), 7));
    assert_eq!((first.state, second.state), (state_of(&[("q1", "one")]), state_of(&[("q1", "two")])));
    assert_eq!(disk.recovered(G), Recovered::default());
}

fn a_checkpoint_comes_back_with_its_index(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 9, 1)]);
    checkpointed(disk, &checkpoint(G, 3, 1, &[("q2", Some("x")), ("q1", Some("y")), ("l1", Some(""))]));
    checkpointed(disk, &checkpoint(G, 5, 1, &[("q2", Some("z")), ("q1", None), ("q1", None), ("q3", Some("w"))]));
    let recovered = after_restart(disk, G);
    assert_eq!(recovered.applied, meta(5, 1));
    assert_eq!(recovered.state, state_of(&[("l1", ""), ("q2", "z"), ("q3", "w")]));
    assert_eq!(disk.state().read(G, b"q2").unwrap().as_deref(), Some(&b"z"[..]));
    assert_eq!(disk.state().read(G, b"q1").unwrap(), None);
    assert_eq!(disk.state().read(GroupId(0), b"q2").unwrap(), None);
}

fn of_several_changes_of_a_key_the_last_counts(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 9, 1)]);
    let large = "x".repeat(200_000);
    let changes = [("q1", Some(large.as_str())), ("q1", Some("small")), ("q2", Some("y")), ("q2", None)];
    checkpointed(disk, &checkpoint(G, 3, 1, &changes));
    assert_eq!(after_restart(disk, G).state, state_of(&[("q1", "small")]));
}

fn bodies_are_read_but_not_loaded(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 9, 1)]);
    checkpointed(
        disk,
        &checkpoint(G, 3, 1, &[("a", Some("m")), (BODY_1, Some("body")), (BODY_2, Some("")), ("c1", Some("k"))]),
    );
    assert_eq!(after_restart(disk, G).state, state_of(&[("a", "m"), ("c1", "k")]));
    assert_eq!(disk.state().read(G, BODY_1.as_bytes()).unwrap().as_deref(), Some(&b"body"[..]));
    assert_eq!(disk.state().read(G, BODY_2.as_bytes()).unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(disk.state().read(GroupId(2), BODY_1.as_bytes()).unwrap(), None);
}

fn values_of_any_size_come_back_and_leave_nothing_behind(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 9, 1)]);
    let sizes = [0, 65_535, 65_536, 1_048_576, 70_000, 3, 200_000];
    for (index, size) in (1..).zip(sizes) {
        let value = char::from(b'a' + u8::try_from(index).unwrap()).to_string().repeat(size);
        checkpointed(disk, &checkpoint(G, index, 1, &[("q", Some(&value))]));
        assert_eq!(disk.state().read(G, b"q").unwrap().unwrap(), value.as_bytes(), "{size} bytes");
        assert_eq!(after_restart(disk, G).state, state_of(&[("q", &value)]), "{size} bytes");
    }
    checkpointed(disk, &checkpoint(G, 8, 1, &[("q", None)]));
    assert_eq!(after_restart(disk, G).state, []);
}

fn a_large_checkpoint_comes_back(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 9, 1)]);
    let pairs: Vec<_> = (0..5000).map(|number| (format!("q{number:05}"), format!("value {number}"))).collect();
    let changes: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
    checkpointed(disk, &checkpoint(G, 3, 1, &changes));
    let recovered = after_restart(disk, G);
    assert_eq!((recovered.applied, recovered.state.len()), (meta(3, 1), 5000));
    assert_eq!(recovered.state[4321].1, pairs[4321].1.as_bytes());
    let removals: Vec<_> = pairs.iter().map(|(key, _)| (key.as_str(), None)).collect();
    checkpointed(disk, &checkpoint(G, 4, 1, &removals));
    assert_eq!(after_restart(disk, G).state, []);
}

fn a_snapshot_replaces_log_and_state(disk: &mut dyn Disk) {
    round(disk, &[vote(G, 1, 1), entries(G, 1, 9, 1)]);
    checkpointed(disk, &checkpoint(G, 5, 1, &[("q1", Some("old")), (BODY_1, Some("old body"))]));
    let snapshot = snapshot(20, 3, &[(BODY_2, "body"), ("q2", "new")]);
    disk.state().install(G, &snapshot).unwrap();
    let mut write = restored(G, &snapshot);
    write.raft.as_mut().unwrap().hard_state = Some(HardState { term: 3, vote: None });
    round(disk, &[write, entries(G, 21, 22, 3)]);
    let recovered = after_restart(disk, G);
    assert_eq!((&recovered.base, &recovered.applied), (&meta(20, 3), &meta(20, 3)));
    assert_eq!((recovered.entries, recovered.state), (range(21, 22, 3), state_of(&[("q2", "new")])));
    assert_eq!(disk.state().read(G, BODY_1.as_bytes()).unwrap(), None);
    assert_eq!(disk.state().read(G, BODY_2.as_bytes()).unwrap().as_deref(), Some(&b"body"[..]));
    checkpointed(disk, &checkpoint(G, 21, 3, &[("q3", Some("later"))]));
    assert_eq!(after_restart(disk, G).state, state_of(&[("q2", "new"), ("q3", "later")]));
}

fn a_snapshot_keeps_a_suffix_that_agrees_and_no_other(disk: &mut dyn Disk) {
    for (group, term, left) in [(GroupId(0), 2, range(7, 9, 2)), (GroupId(2), 3, vec![])] {
        round(disk, &[entries(group, 1, 9, 2)]);
        let snapshot = snapshot(6, term, &[("q", "v")]);
        disk.state().install(group, &snapshot).unwrap();
        round(disk, &[restored(group, &snapshot)]);
        let recovered = after_restart(disk, group);
        assert_eq!((recovered.base, recovered.entries), (meta(6, term), left));
    }
}

fn a_snapshot_with_entries_after_it_is_one_write(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 9, 2)]);
    let snapshot = snapshot(6, 3, &[]);
    disk.state().install(G, &snapshot).unwrap();
    let mut write = entries(G, 5, 8, 3);
    write.raft.as_mut().unwrap().snapshot = Some(snapshot);
    round(disk, &[write]);
    assert_eq!(after_restart(disk, G).entries, range(7, 8, 3));
}

fn a_crash_between_install_and_write_is_finished(disk: &mut dyn Disk) {
    round(disk, &[vote(G, 2, 1), entries(G, 1, 9, 2), journal(G, vec![written("k", 1, 1)])]);
    disk.state().install(G, &snapshot(7, 4, &[("q", "v")])).unwrap();
    for _ in 0..2 {
        let recovered = after_restart(disk, G);
        assert_eq!((&recovered.base, &recovered.applied), (&meta(7, 4), &meta(7, 4)));
        assert_eq!((recovered.entries, recovered.state), (vec![], state_of(&[("q", "v")])));
        assert_eq!(recovered.hard_state, HardState { term: 4, vote: None });
        assert_eq!(recovered.journal, [written("k", 1, 1)]);
    }
    round(disk, &[entries(G, 8, 8, 4)]);
    assert_eq!(after_restart(disk, G).entries, range(8, 8, 4));
}

fn an_older_snapshot_is_an_error(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 9, 1)]);
    checkpointed(disk, &checkpoint(G, 5, 1, &[("q", Some("v"))]));
    assert!(disk.state().install(G, &snapshot(4, 1, &[])).is_err());
}

fn an_older_checkpoint_is_an_error(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 9, 1)]);
    checkpointed(disk, &checkpoint(G, 5, 1, &[("q", Some("v"))]));
    checkpointed(disk, &checkpoint(G, 5, 1, &[("q", Some("w"))]));
    assert!(disk.state().checkpoint(&checkpoint(G, 4, 1, &[("q", Some("x"))])).is_err());
    assert_eq!(after_restart(disk, G).state, state_of(&[("q", "w")]));
}

fn a_snapshot_that_cannot_be_read_changes_nothing(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 9, 1)]);
    checkpointed(disk, &checkpoint(G, 5, 1, &[("q", Some("v"))]));
    let mut broken = snapshot(7, 1, &[("q", "w")]);
    broken.data = broken.data.slice(..broken.data.len() - 1);
    assert!(disk.state().install(G, &broken).is_err());
    let recovered = after_restart(disk, G);
    assert_eq!((recovered.applied, recovered.state), (meta(5, 1), state_of(&[("q", "v")])));
}

fn a_write_that_leaves_a_gap_is_refused(disk: &mut dyn Disk) {
    round(disk, &[entries(G, 1, 3, 2)]);
    assert!(disk.log().append(&entries(G, 5, 5, 2)).is_err());
    assert_eq!(after_restart(disk, G).entries, range(1, 3, 2));
    assert!(disk.log().append(&entries(G, 4, 4, 1)).is_err());
    assert_eq!(after_restart(disk, G).entries, range(1, 3, 2));
}

macro_rules! conformance {
    ($($case:ident)*) => {
        mod simulated {
            $(#[test] fn $case() { super::$case(&mut super::SimDisk::new()); })*
        }
        mod bytes {
            $(#[test] fn $case() { super::$case(&mut super::BytesDisk::new()); })*
        }
        mod real {
            $(#[test] fn $case() { super::$case(&mut super::RealDisk::new()); })*
        }
    };
}

conformance! {
    a_new_disk_is_empty
    what_was_synced_comes_back_in_order
    what_no_sync_covered_is_gone
    a_write_counts_as_a_whole
    a_conflicting_suffix_is_replaced
    a_compacted_log_begins_at_its_base
    the_journal_folds_to_what_counts
    groups_do_not_touch_each_other
    a_checkpoint_comes_back_with_its_index
    of_several_changes_of_a_key_the_last_counts
    bodies_are_read_but_not_loaded
    values_of_any_size_come_back_and_leave_nothing_behind
    a_large_checkpoint_comes_back
    a_snapshot_replaces_log_and_state
    a_snapshot_keeps_a_suffix_that_agrees_and_no_other
    a_snapshot_with_entries_after_it_is_one_write
    a_crash_between_install_and_write_is_finished
    an_older_snapshot_is_an_error
    an_older_checkpoint_is_an_error
    a_snapshot_that_cannot_be_read_changes_nothing
    a_write_that_leaves_a_gap_is_refused
}
