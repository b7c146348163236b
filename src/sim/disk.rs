//! A node's two storage threads over its [`SimDisk`]: rounds of the log, and one operation after the other on the state.
//!
//! As in the server, the log's thread takes all that waits, appends it, and syncs once; what comes meanwhile goes into the
//! next round. A write that carries a snapshot waits until the state store holds that snapshot. The two halves of every
//! step (begin, finish) lie apart in time, so that a crash can come in between.

use std::collections::VecDeque;

use bytes::Bytes;

use super::random::Random;
use super::swarm::DiskFaults;
use crate::ids::GroupId;
use crate::node::effect::{Checkpoint, Fetch, Input, Write};
use crate::raft::{HardState, Snapshot};
use crate::storage::{LogStore, Recovered, SimDisk, StateStore, StorageError};

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
    disk: SimDisk,
    faults: DiskFaults,
    /// Writes that wait for the next round; those with a snapshot that is not installed yet hold up what is behind them.
    waiting: VecDeque<(Write, bool)>,
    /// What the running round makes durable.
    round: Option<Vec<(GroupId, u64, Option<HardState>)>>,
    state_work: VecDeque<StateWork>,
    state_busy: bool,
    /// The disk answers nothing before this instant.
    stalled_until_us: u64,
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
        Self {
            disk: SimDisk::new(),
            faults,
            waiting: VecDeque::new(),
            round: None,
            state_work: VecDeque::new(),
            state_busy: false,
            stalled_until_us: 0,
        }
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
        if self.round.is_some() || self.waiting.front().is_none_or(|(_, ready)| !ready) {
            return Ok(None);
        }
        let mut round = Vec::new();
        while self.waiting.front().is_some_and(|(_, ready)| *ready) {
            let (write, _) = self.waiting.pop_front().expect("one was there");
            self.disk.append(&write)?;
            round.push((write.group, write.sequence, write.raft.and_then(|raft| raft.hard_state)));
        }
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
        self.disk.sync()?;
        let mut finished = Finished::default();
        let mut highest = std::collections::BTreeMap::new();
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

    /// The power goes. What waited is lost; of what was under way any prefix survives.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        let writes = random.between(0, self.disk.pending_writes() as u64) as usize;
        let checkpoints = random.between(0, self.disk.pending_checkpoints() as u64) as usize;
        self.disk.crash_keeping(writes, checkpoints);
        self.waiting.clear();
        self.round = None;
        self.state_work.clear();
        self.state_busy = false;
    }

    /// What a group finds when its node starts.
    pub(crate) fn recover(&mut self, group: GroupId) -> Result<Recovered, StorageError> {
        self.disk.recover(group)
    }

    /// Every fault of the disk ends for good.
    pub(crate) fn heal(&mut self) {
        self.faults = DiskFaults { sync_us: (100, 1_000), stall: None };
        self.stalled_until_us = 0;
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

    fn node_disk() -> (NodeDisk, Random) {
        (NodeDisk::new(DiskFaults { sync_us: (100, 200), stall: None }), Random::new(1))
    }

    #[test]
    fn what_comes_during_a_round_goes_into_the_next() {
        let (mut disk, mut random) = node_disk();
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

    #[test]
    fn a_crash_keeps_what_a_finished_round_covered_and_nothing_that_waited() {
        let mut kept = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let (mut disk, _) = node_disk();
            let mut random = Random::new(seed);
            disk.write(entry_write(1, 1));
            let (thread, at_us) = disk.begin_log(&mut random, 0).unwrap().unwrap();
            disk.finish(thread).unwrap();
            disk.write(entry_write(2, 2));
            disk.write(entry_write(3, 3));
            disk.begin_log(&mut random, at_us).unwrap();
            disk.write(entry_write(4, 4));
            disk.crash(&mut random);
            assert!(disk.is_idle());
            kept.insert(disk.recover(GroupId(0)).unwrap().entries.len());
        }
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_stalled_disk_answers_only_after_the_stall() {
        let (mut disk, mut random) = node_disk();
        disk.stall(5_000);
        disk.write(entry_write(1, 1));
        let (_, at_us) = disk.begin_log(&mut random, 1_000).unwrap().unwrap();
        assert!(at_us >= 5_100, "{at_us}");
    }
}
