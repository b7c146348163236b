//! The simulated disk of one node, true to the byte: the real log, its format and its recovery, over files in memory.
//!
//! What is appended goes through [`SegmentLog`] into [`SimFiles`]; a start reads it back with the code that the server starts with. So blocks that
//! are lost out of order, torn sectors, errors of the disk and flipped bits meet what has to deal with them, not a model
//! of it. So do the files of bodies ([`Bodies`]). The records behind the log are a model ([`SimState`]): sled does not run in memory.
//!
//! # Rot
//! A bit flips only in what a later durable record proves to have been durable; what was synced last passes for a torn write, which
//! the log's essay admits. A start must then refuse, or find exactly what it would have found without the flip: the end of a
//! segment, or one that nothing needs any more, holds no secret.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use crate::ids::{GroupId, Incarnation, NodeId};
use crate::node::effect::{Checkpoint, Write};
use crate::raft::{Snapshot, SnapshotMeta};

use super::assemble::assemble_groups;
use super::bodies::{Bodies, BodyBytes};
use super::identity::{FORMAT_VERSION, Identity};
use super::log::{LogsRecovered, Medium as _, segment_number};
use super::sim_files::SimFiles;
use super::sim_state::SimState;
use super::simulated::{Draw, Failing, SimulatedDisk};
use super::{LogOptions, LogStore, Records, Recovered, SegmentLog, StateLoad, StateStore, StorageError, Visit};

/// A node's disk in a simulation, with the bytes of its log.
#[derive(Debug)]
pub struct ByteDisk {
    files: SimFiles,
    /// None while the process is down.
    log: Option<SegmentLog<SimFiles>>,
    /// The files of bodies.
    bodies: SimFiles,
    state: Bodies<SimState, SimFiles>,
    identity: Identity,
    options: LogOptions,
    /// Where the log ended at the last sync.
    synced: (u64, u64),
    /// A record that was synced later says that everything before here was durable.
    proven: (u64, u64),
    /// The files as they were before the first bit flipped.
    sound: Option<SimFiles>,
}

impl ByteDisk {
    /// An empty disk, with segments of so many bytes.
    pub fn new(segment_bytes: u64) -> Self {
        let (node, incarnation) = (NodeId::numbered(1), Incarnation(0x5eed));
        let bodies = SimFiles::new(Path::new("bodies"));
        let state = Bodies::open(SimState::default(), bodies.clone(), 0, segment_bytes).expect("nothing is in it");
        Self {
            files: SimFiles::new(Path::new("log")),
            log: None,
            bodies,
            state,
            identity: Identity {
                format: FORMAT_VERSION,
                node,
                incarnation,
                cluster: None,
                groups: 0,
                ready: false,
                joins: false,
            },
            options: LogOptions { segment_bytes },
            synced: (0, 0),
            proven: (0, 0),
            sound: None,
        }
    }

    fn log(&mut self) -> &mut SegmentLog<SimFiles> {
        self.log.as_mut().expect("the process is up")
    }

    fn open_log(&self, files: SimFiles) -> Result<(SegmentLog<SimFiles>, LogsRecovered), StorageError> {
        SegmentLog::open_on(files, &self.identity, self.options.clone())
    }

    /// From now on the state store refuses everything. A sync of bodies that fails takes them for clean.
    fn fail_state(&mut self) {
        self.state.records_mut().refuses = true;
        self.bodies.fail(Failing::Sync);
    }

    /// How many segment files there are.
    pub fn segments(&self) -> u64 {
        self.log.as_ref().map_or(0, SegmentLog::segments)
    }

    /// A flip that the start did not notice must have changed nothing.
    fn compare_with_sound(&mut self, found: &LogsRecovered) -> Result<(), StorageError> {
        let Some(sound) = self.sound.take() else { return Ok(()) };
        // The copy may have been made of a disk that was failing at the time.
        sound.mend();
        let (_, expected) = self.open_log(sound)?;
        if *found == expected {
            return Ok(());
        }
        // Not what a damaged disk may say: it is the log that has failed.
        Err(StorageError::Refused { what: "a flipped bit passed unnoticed, and changed what was recovered".to_owned() })
    }
}

impl LogStore for ByteDisk {
    fn append(&mut self, write: &Write) -> Result<(), StorageError> {
        self.state.records().check_order(write)?;
        self.log().append(write)
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.log().sync()?;
        let end = self.log().end();
        if end > self.synced {
            self.proven = self.synced;
            self.synced = end;
        }
        Ok(())
    }

    fn idle(&mut self, now_us: u64) -> Result<(), StorageError> {
        self.log().idle(now_us)
    }

    fn bytes_on_disk(&self) -> u64 {
        self.log.as_ref().map_or(0, LogStore::bytes_on_disk)
    }
}

impl StateStore for ByteDisk {
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        self.state.checkpoint(checkpoint)
    }

    fn install(&mut self, group: GroupId, snapshot: &Snapshot) -> Result<(), StorageError> {
        self.state.install(group, snapshot)
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.state.sync()
    }

    fn read(&self, group: GroupId, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.state.read(group, key)
    }

    fn tend(&mut self) -> Result<bool, StorageError> {
        self.state.tend()
    }

    fn body_bytes(&self) -> BodyBytes {
        self.state.body_bytes()
    }
}

impl StateLoad for ByteDisk {
    fn load(&self, group: GroupId) -> Result<(SnapshotMeta, Records), StorageError> {
        self.state.load(group)
    }

    fn stands(&self, group: GroupId) -> SnapshotMeta {
        self.state.stands(group)
    }

    fn each_body(&self, group: GroupId, visit: Visit<'_>) -> Result<(), StorageError> {
        self.state.each_body(group, visit)
    }
}

impl SimulatedDisk for ByteDisk {
    fn start(&mut self, groups: u32) -> Result<BTreeMap<GroupId, Recovered>, StorageError> {
        let (mut log, logs) = self.open_log(self.files.clone())?;
        self.compare_with_sound(&logs)?;
        (self.synced, self.proven) = (log.end(), (0, 0));
        let records = self.state.records().clone();
        // What was in the process is gone: the layer is made anew, over the records that are left.
        self.state = Bodies::open(records, self.bodies.clone(), groups, self.options.segment_bytes)?;
        let recovered = assemble_groups(groups, &mut log, logs, &self.state)?;
        self.log = Some(log);
        self.identity.ready = true;
        Ok(recovered)
    }

    fn hand_over(&mut self) -> Result<(), StorageError> {
        self.log().hand_over()
    }

    fn die(&mut self, power: bool, below: Draw<'_>) {
        // What the process had in its buffers is gone; what the operating system had is not.
        self.log = None;
        let keep = below(self.state.records().pending() as u64 + 1) as usize;
        self.state.records_mut().crash(keep);
        if power {
            self.files.cut_power(below);
            self.bodies.cut_power(below);
        }
    }

    fn fail(&mut self, failing: Failing) {
        match failing {
            Failing::State => self.fail_state(),
            Failing::Write | Failing::Sync => self.files.fail(failing),
        }
    }

    fn fill(&mut self) {
        self.files.fill();
        self.fail_state();
        self.bodies.fill();
    }

    fn mend(&mut self) {
        self.files.mend();
        self.bodies.mend();
        self.state.records_mut().refuses = false;
    }

    fn rot(&mut self, below: Draw<'_>) -> bool {
        assert!(self.log.is_none(), "a bit that flips under a running process is found at its next start");
        let (last, end) = self.proven;
        let mut places = Vec::new();
        for name in self.files.names().expect("names are in memory") {
            let Some(number) = segment_number(&name).filter(|number| *number <= last) else { continue };
            let bytes = self.files.read(&name).expect("bytes are in memory").len() as u64;
            places.push((name, if number == last { end.min(bytes) } else { bytes }));
        }
        let total: u64 = places.iter().map(|(_, bytes)| bytes).sum();
        if total == 0 {
            return false;
        }
        if self.sound.is_none() {
            self.sound = Some(self.files.copy());
        }
        let mut at = below(total);
        for (name, bytes) in places {
            if at < bytes {
                self.files.flip(&name, at, below(8) as u32);
                break;
            }
            at -= bytes;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    const SMALL: u64 = 1024;

    /// A disk with some rounds on it, over several segments.
    fn with_rounds(rounds: u64) -> ByteDisk {
        let mut disk = ByteDisk::new(SMALL);
        disk.start(3).unwrap();
        for index in 1..=rounds {
            disk.append(&entries(G, index, index, 3)).unwrap();
            disk.sync_log().unwrap();
            disk.idle(0).unwrap();
        }
        disk
    }

    fn found(disk: &mut ByteDisk) -> usize {
        disk.start(3).unwrap()[&G].entries.len()
    }

    #[test]
    fn a_restart_makes_durable_what_a_failed_sync_left_in_memory() {
        let mut disk = with_rounds(20);
        disk.append(&entries(G, 21, 21, 3)).unwrap();
        disk.fail(Failing::Sync);
        assert!(disk.sync_log().is_err());
        disk.die(false, &mut |_| 0);
        disk.mend();
        // The process reads it back, and may say so to its leader: from here on the group counts on it.
        assert_eq!(found(&mut disk), 21);
        disk.die(true, &mut |_| 0);
        assert_eq!(found(&mut disk), 21);
    }

    #[test]
    fn a_flipped_bit_is_found_or_has_changed_nothing() {
        let mut draw = draws(3);
        let (mut refused, mut harmless) = (0, 0);
        for _ in 0..400 {
            let mut disk = with_rounds(30);
            disk.append(&entries(G, 31, 31, 3)).unwrap();
            disk.hand_over().unwrap();
            disk.die(true, &mut draw);
            assert!(disk.rot(&mut draw));
            match disk.start(3) {
                Ok(_) => harmless += 1,
                Err(StorageError::Corrupt { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(refused > 250 && harmless > 0, "{refused} refused, {harmless} harmless");
    }

    #[test]
    fn nothing_flips_before_a_later_record_says_that_it_was_durable() {
        let mut disk = ByteDisk::new(SMALL);
        disk.start(3).unwrap();
        disk.append(&entries(G, 1, 1, 1)).unwrap();
        disk.die(true, &mut |_| 0);
        assert!(!disk.rot(&mut |_| 0));
    }

    #[test]
    fn a_full_disk_refuses_a_start_until_there_is_room() {
        let mut disk = with_rounds(5);
        disk.fill();
        disk.die(false, &mut |_| 0);
        assert!(matches!(disk.start(3), Err(StorageError::Io { .. })));
        disk.mend();
        assert_eq!(found(&mut disk), 5);
    }
}
