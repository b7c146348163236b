//! A node's two storage threads over its simulated disk: rounds of the log, and one operation after the other on the state.
//!
//! As in the server, the log's thread takes all that waits, appends it, and syncs once; what comes meanwhile goes into the
//! next round. A write that carries a snapshot waits until the state store holds that snapshot. The two halves of every
//! step (begin, finish) lie apart in time, so that a crash can come in between.
//!
//! Under it lies a [`ByteDisk`], which runs the real log over bytes in memory, or a [`SimDisk`], which is a list of writes and faster.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::random::Random;
use super::swarm::DiskFaults;
use crate::ids::GroupId;
use crate::node::effect::{Checkpoint, Fetch, Input, Write};
use crate::raft::{HardState, Snapshot};
use crate::storage::{ByteDisk, Failing, Recovered, SimDisk, SimulatedDisk, StorageError};

/// Which of the two threads has something finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    Log,
    State,
}

/// What a thread is to be asked again at.
pub(crate) type Begun = Option<(Thread, u64)>;

#[derive(Debug)]
enum StateWork {
    Install { group: GroupId, snapshot: Snapshot, sequence: u64 },
    Checkpoint(Checkpoint),
    Fetch(Fetch),
}

/// One node's storage.
#[derive(Debug)]
pub(crate) struct NodeDisk {
    disk: Box<dyn SimulatedDisk>,
    faults: DiskFaults,
    /// Writes that wait for the next round; those with a snapshot that is not installed yet hold up what is behind them.
    waiting: VecDeque<(Write, bool)>,
    /// What the running round makes durable.
    round: Option<Vec<(GroupId, u64, Option<HardState>)>>,
    state_work: VecDeque<StateWork>,
    state_busy: bool,
    /// The log has something to do that nobody waits for.
    idle_due: bool,
    /// The disk answers nothing before this instant.
    stalled_until_us: u64,
    /// It was told to fail.
    fails: bool,
    /// There is no room on it.
    is_full: bool,
    /// Bits of it have flipped.
    pub(crate) is_rotten: bool,
}

/// What a finished step tells the replicas.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    pub(crate) inputs: Vec<(GroupId, Input)>,
    /// Hard states that are durable from now on.
    pub(crate) hard_states: Vec<(GroupId, HardState)>,
}

impl NodeDisk {
    pub(crate) fn new(faults: DiskFaults) -> Self {
        let disk: Box<dyn SimulatedDisk> = match faults.segment_bytes {
            Some(segment_bytes) => Box::new(ByteDisk::new(segment_bytes)),
            None => Box::new(SimDisk::new()),
        };
        Self {
            disk,
            faults,
            waiting: VecDeque::new(),
            round: None,
            state_work: VecDeque::new(),
            state_busy: false,
            idle_due: false,
            stalled_until_us: 0,
            fails: false,
            is_full: false,
            is_rotten: false,
        }
    }

    /// The next operation of that kind fails.
    pub(crate) fn fail(&mut self, failing: Failing) {
        self.fails = true;
        self.disk.fail(failing);
    }

    /// There is no room on it until [`NodeDisk::make_room`].
    pub(crate) fn fill(&mut self) {
        self.is_full = true;
        self.disk.fill();
    }

    pub(crate) fn make_room(&mut self) {
        self.is_full = false;
        self.mend();
    }

    /// It works again, but for room that is missing.
    pub(crate) fn mend(&mut self) {
        self.fails = false;
        self.disk.mend();
        if self.is_full {
            self.disk.fill();
        }
    }

    /// Whether an error of it is no surprise.
    pub(crate) fn is_failing(&self) -> bool {
        self.fails || self.is_full
    }

    /// A bit of what is durable flips; false where there is none yet. The process must be dead.
    pub(crate) fn rot(&mut self, random: &mut Random) -> bool {
        let rotten = self.disk.rot(&mut |bound| random.below(bound));
        self.is_rotten |= rotten;
        rotten
    }

    /// The disk does nothing until then.
    pub(crate) fn stall(&mut self, until_us: u64) {
        self.stalled_until_us = self.stalled_until_us.max(until_us);
    }

    /// Takes a write for the next round.
    pub(crate) fn write(&mut self, write: Write) {
        let snapshot = write.raft.as_ref().and_then(|raft| raft.snapshot.clone());
        let ready = snapshot.is_none();
        if let Some(snapshot) = snapshot {
            let work = StateWork::Install { group: write.group, snapshot, sequence: write.sequence };
            self.state_work.push_back(work);
        }
        self.waiting.push_back((write, ready));
    }

    pub(crate) fn checkpoint(&mut self, checkpoint: Checkpoint) {
        self.state_work.push_back(StateWork::Checkpoint(checkpoint));
    }

    pub(crate) fn fetch(&mut self, fetch: Fetch) {
        self.state_work.push_back(StateWork::Fetch(fetch));
    }

    /// Lets an idle log thread begin what waits; tells when it will be finished.
    pub(crate) fn begin_log(&mut self, random: &mut Random, now_us: u64) -> Result<Begun, StorageError> {
        if self.round.is_some() {
            return Ok(None);
        }
        if std::mem::take(&mut self.idle_due) {
            self.disk.idle(now_us)?;
        }
        if self.waiting.front().is_none_or(|(_, ready)| !ready) {
            return Ok(None);
        }
        let mut round = Vec::new();
        while self.waiting.front().is_some_and(|(_, ready)| *ready) {
            let (write, _) = self.waiting.pop_front().expect("one was there");
            self.disk.append(&write)?;
            round.push((write.group, write.sequence, write.raft.and_then(|raft| raft.hard_state)));
        }
        self.disk.hand_over()?;
        self.round = Some(round);
        let (low, high) = self.faults.sync_us;
        Ok(Some((Thread::Log, now_us.max(self.stalled_until_us) + random.between(low, high))))
    }

    /// Lets an idle state thread begin its next work; tells when it will be finished.
    pub(crate) fn begin_state(&mut self, random: &mut Random, now_us: u64) -> Result<Begun, StorageError> {
        if self.state_busy {
            return Ok(None);
        }
        match self.state_work.front() {
            None => return Ok(None),
            Some(StateWork::Checkpoint(checkpoint)) => self.disk.checkpoint(checkpoint)?,
            Some(StateWork::Install { group, snapshot, .. }) => self.disk.install(*group, snapshot)?,
            Some(StateWork::Fetch(_)) => {}
        }
        self.state_busy = true;
        let (low, high) = self.faults.sync_us;
        Ok(Some((Thread::State, now_us.max(self.stalled_until_us) + random.between(low, high))))
    }

    /// Ends what a thread has begun.
    pub(crate) fn finish(&mut self, thread: Thread) -> Result<Finished, StorageError> {
        match thread {
            Thread::Log => self.finish_round(),
            Thread::State => self.finish_state_work(),
        }
    }

    fn finish_round(&mut self) -> Result<Finished, StorageError> {
        self.disk.sync_log()?;
        self.idle_due = true;
        let mut finished = Finished::default();
        let mut highest = BTreeMap::new();
        for (group, sequence, hard_state) in self.round.take().expect("a round is running") {
            highest.insert(group, sequence);
            finished.hard_states.extend(hard_state.map(|hard_state| (group, hard_state)));
        }
        let persisted = |(group, sequence)| (group, Input::Persisted { sequence });
        finished.inputs = highest.into_iter().map(persisted).collect();
        Ok(finished)
    }

    fn finish_state_work(&mut self) -> Result<Finished, StorageError> {
        self.state_busy = false;
        let mut finished = Finished::default();
        match self.state_work.pop_front().expect("a work is running") {
            StateWork::Checkpoint(checkpoint) => {
                self.disk.sync_state()?;
                // A piece at a time, so that a crash can come in between.
                self.disk.tend()?;
                finished.inputs.push((checkpoint.group, Input::Checkpointed { index: checkpoint.meta.index }));
            }
            StateWork::Install { group, sequence, .. } => {
                let of_it = |(write, _): &&mut (Write, bool)| write.group == group && write.sequence == sequence;
                self.waiting.iter_mut().find(of_it).expect("it waits for its snapshot").1 = true;
            }
            StateWork::Fetch(Fetch { group, ticket, keys }) => {
                let read = |key: Vec<u8>| self.disk.read(group, &key).map(|value: Option<Bytes>| (key, value));
                let records = keys.into_iter().map(read).collect::<Result<_, _>>()?;
                finished.inputs.push((group, Input::Fetched { ticket, records }));
            }
        }
        Ok(finished)
    }

    /// The process dies, and where `power` says so the machine with it: what waited is lost, and of what was under way all that the
    /// disk may lose.
    pub(crate) fn die(&mut self, random: &mut Random, power: bool) {
        self.disk.die(power, &mut |bound| random.below(bound));
        self.waiting.clear();
        self.round = None;
        self.state_work.clear();
        self.state_busy = false;
        self.idle_due = false;
    }

    /// What each group finds when its node starts.
    pub(crate) fn start(&mut self, groups: u32) -> Result<BTreeMap<GroupId, Recovered>, StorageError> {
        self.disk.start(groups)
    }

    /// Every fault of the disk ends for good.
    pub(crate) fn heal(&mut self) {
        self.faults.sync_us = (100, 1_000);
        self.stalled_until_us = 0;
        self.make_room();
    }

    /// Whether nothing is under way or waits.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.round.is_none() && self.state_work.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Index;
    use crate::raft::{Entry, Persist};

    fn entry_write(sequence: u64, index: Index) -> Write {
        let entry = Entry { index, term: 1, stamp_ms: 0, wall_ms: 0, data: Bytes::new(), membership: None };
        let hard_state = Some(HardState { term: 1, vote: None });
        let raft = Persist { sequence, hard_state, entries: vec![entry], ..Persist::default() };
        Write { group: GroupId(0), sequence, raft: Some(raft), journal: Vec::new(), compact: None }
    }

    fn node_disk(segment_bytes: Option<u64>) -> (NodeDisk, Random) {
        let faults = DiskFaults { sync_us: (100, 200), segment_bytes, ..DiskFaults::none() };
        let mut disk = NodeDisk::new(faults);
        disk.start(1).unwrap();
        (disk, Random::new(1))
    }

    /// Both kinds of disk.
    const KINDS: [Option<u64>; 2] = [None, Some(4096)];

    #[test]
    fn what_comes_during_a_round_goes_into_the_next() {
        for kind in KINDS {
            let (mut disk, mut random) = node_disk(kind);
            disk.write(entry_write(1, 1));
            disk.write(entry_write(2, 2));
            let (thread, at_us) = disk.begin_log(&mut random, 1_000).unwrap().unwrap();
            assert!((1_100..=1_200).contains(&at_us));
            disk.write(entry_write(3, 3));
            assert_eq!(disk.begin_log(&mut random, 1_050).unwrap(), None);
            let finished = disk.finish(thread).unwrap();
            assert!(matches!(finished.inputs[..], [(GroupId(0), Input::Persisted { sequence: 2 })]), "{finished:?}");
            assert_eq!(finished.hard_states.len(), 2);
            assert!(disk.begin_log(&mut random, 1_300).unwrap().is_some());
        }
    }

    #[test]
    fn a_crash_keeps_what_a_finished_round_covered_and_nothing_that_waited() {
        for kind in KINDS {
            let mut kept = std::collections::BTreeSet::new();
            for seed in 0..50 {
                let (mut disk, _) = node_disk(kind);
                let mut random = Random::new(seed);
                disk.write(entry_write(1, 1));
                let (thread, at_us) = disk.begin_log(&mut random, 0).unwrap().unwrap();
                disk.finish(thread).unwrap();
                disk.write(entry_write(2, 2));
                disk.write(entry_write(3, 3));
                disk.begin_log(&mut random, at_us).unwrap();
                disk.write(entry_write(4, 4));
                disk.die(&mut random, true);
                assert!(disk.is_idle());
                kept.insert(disk.start(1).unwrap()[&GroupId(0)].entries.len());
            }
            assert!(kept.contains(&1) && kept.contains(&3) && kept.iter().all(|kept| *kept <= 3), "{kind:?}: {kept:?}");
        }
    }

    #[test]
    fn a_process_that_dies_alone_loses_nothing_that_it_had_handed_over() {
        let (mut disk, mut random) = node_disk(Some(4096));
        disk.write(entry_write(1, 1));
        disk.begin_log(&mut random, 0).unwrap();
        disk.die(&mut random, false);
        assert_eq!(disk.start(1).unwrap()[&GroupId(0)].entries.len(), 1);
    }

    #[test]
    fn a_disk_that_was_told_to_fail_does_until_it_is_mended() {
        for kind in KINDS {
            for failing in [Failing::Write, Failing::Sync] {
                let (mut disk, mut random) = node_disk(kind);
                disk.fail(failing);
                disk.write(entry_write(1, 1));
                let round = disk.begin_log(&mut random, 0).and_then(|begun| disk.finish(begun.expect("it waits").0));
                assert!(matches!(round, Err(StorageError::Io { .. })), "{kind:?}, {failing:?}: {round:?}");
                disk.die(&mut random, true);
                disk.mend();
                assert!(!disk.is_failing() && disk.start(1).is_ok(), "{kind:?}, {failing:?}");
            }
        }
    }

    #[test]
    fn a_stalled_disk_answers_only_after_the_stall() {
        let (mut disk, mut random) = node_disk(None);
        disk.stall(5_000);
        disk.write(entry_write(1, 1));
        let (_, at_us) = disk.begin_log(&mut random, 1_000).unwrap().unwrap();
        assert!(at_us >= 5_100, "{at_us}");
    }
}
