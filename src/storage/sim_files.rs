//! Files in memory that lose what no sync has covered: the simulator's twin of [`Folder`](super::log::Folder).
//!
//! ```text
//!   write_at --> what a reader sees --- sync_bytes --> durable
//!                      |                                  ^
//!                      +-- power cut: of each 4 KiB block that no sync covered either the new bytes or those from before;
//!                          one of them torn at a sector of 512 bytes
//! ```
//!
//! Names are apart from bytes: what was created, renamed or removed survives as far as some prefix of it, until [`Medium::sync_names`].
//! A process that is killed loses nothing of this, for the operating system has it; but none of it is durable by that.
//!
//! A disk can be told to fail. A write that fails writes nothing. A sync that fails takes the blocks for clean, as Linux does
//! (Rebello et al., ATC 2020): they can be read, a later sync writes nothing of them, and a power cut may lose them.
//!
//! # Caveats
//! - A new file's zeros and a file's length are durable at once, as the log asks for both before it rests on them.
//! - A sector is written as a whole or not at all, and in its place: no misdirected writes.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::StorageError;
use super::files::failed;
use super::log::{Medium, MediumFile};
use super::simulated::{Draw, Failing};

/// Bytes that the operating system writes out as one.
const BLOCK_BYTES: usize = 4096;
/// Bytes that a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// One directory of a simulated disk. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub(super) struct SimFiles {
    path: PathBuf,
    disk: Rc<RefCell<Disk>>,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    files: BTreeMap<u64, Contents>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// The names after each change that no sync has covered, oldest first.
    unsynced_names: Vec<BTreeMap<String, u64>>,
    files_made: u64,
    failing: Option<Failing>,
    full: bool,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    /// Of each block that no sync has covered the bytes that are durable.
    unsynced: BTreeMap<usize, Vec<u8>>,
    /// Those of them that count as clean, since a sync of them has failed.
    forgotten: BTreeSet<usize>,
}

impl Contents {
    fn block(&self, number: usize) -> &[u8] {
        let begin = number * BLOCK_BYTES;
        &self.bytes[begin..self.bytes.len().min(begin + BLOCK_BYTES)]
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        assert!(end <= self.bytes.len(), "a write to {end} of a file of {} bytes", self.bytes.len());
        for number in offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            if !self.unsynced.contains_key(&number) {
                self.unsynced.insert(number, self.block(number).to_vec());
            }
            self.forgotten.remove(&number);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    fn sync(&mut self) {
        let Self { unsynced, forgotten, .. } = self;
        unsynced.retain(|number, _| forgotten.contains(number));
    }

    /// Of each block that is not durable the new bytes survive or the old ones; `torn` says of one how many sectors are new.
    fn lose(&mut self, below: Draw<'_>) {
        let unsynced = std::mem::take(&mut self.unsynced);
        self.forgotten.clear();
        let torn = (!unsynced.is_empty()).then(|| below(unsynced.len() as u64) as usize);
        for (rank, (number, durable)) in unsynced.into_iter().enumerate() {
            let sectors = durable.len().div_ceil(SECTOR_BYTES) as u64;
            let kept = if torn == Some(rank) { below(sectors + 1) } else { below(2) * sectors };
            let begin = number * BLOCK_BYTES;
            let from = (kept as usize * SECTOR_BYTES).min(durable.len());
            self.bytes[begin + from..begin + durable.len()].copy_from_slice(&durable[from..]);
        }
    }
}

impl SimFiles {
    /// An empty directory; `path` is only for messages.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), disk: Rc::default() }
    }

    /// The power goes. `below` draws a number below its argument.
    pub(super) fn cut_power(&self, below: Draw<'_>) {
        let disk = &mut *self.disk.borrow_mut();
        let survived = below(disk.unsynced_names.len() as u64 + 1) as usize;
        if let Some(last) = survived.checked_sub(1) {
            disk.durable_names = disk.unsynced_names.swap_remove(last);
        }
        disk.unsynced_names.clear();
        disk.names = disk.durable_names.clone();
        let there: BTreeSet<u64> = disk.names.values().copied().collect();
        disk.files.retain(|number, _| there.contains(number));
        for contents in disk.files.values_mut() {
            contents.lose(below);
        }
    }

    /// Operations of that kind fail until [`SimFiles::mend`].
    pub(super) fn fail(&self, failing: Failing) {
        self.disk.borrow_mut().failing = Some(failing);
    }

    /// There is no room for a new file.
    pub(super) fn fill(&self) {
        self.disk.borrow_mut().full = true;
    }

    /// The disk works again.
    pub(super) fn mend(&self) {
        let mut disk = self.disk.borrow_mut();
        (disk.failing, disk.full) = (None, false);
    }

    /// A copy that shares nothing with this one.
    pub(super) fn copy(&self) -> Self {
        Self { path: self.path.clone(), disk: Rc::new(RefCell::new(self.disk.borrow().clone())) }
    }

    /// Flips one bit of what a file holds durably.
    pub(super) fn flip(&self, name: &str, offset: u64, bit: u32) {
        let mut contents = self.contents(name).expect("a file that is there");
        let offset = usize::try_from(offset).expect("an offset in memory");
        contents.bytes[offset] ^= 1 << bit;
        if let Some(durable) = contents.unsynced.get_mut(&(offset / BLOCK_BYTES)) {
            durable[offset % BLOCK_BYTES] ^= 1 << bit;
        }
    }

    fn contents(&self, name: &str) -> Result<RefMut<'_, Contents>, StorageError> {
        let disk = self.disk.borrow_mut();
        let missing = || failed("open", &self.path.join(name))(io::ErrorKind::NotFound.into());
        let number = *disk.names.get(name).ok_or_else(missing)?;
        Ok(RefMut::map(disk, |disk| disk.files.get_mut(&number).expect("a name leads to a file")))
    }

    /// Changes the names, unless the disk fails.
    fn rename_with(&self, name: &str, change: impl FnOnce(&mut BTreeMap<String, u64>)) -> Result<(), StorageError> {
        let disk = &mut *self.disk.borrow_mut();
        disk.may(Failing::Write).map_err(failed("change", &self.path.join(name)))?;
        change(&mut disk.names);
        disk.unsynced_names.push(disk.names.clone());
        Ok(())
    }
}

impl Disk {
    /// An error where that operation is to fail.
    fn may(&self, operation: Failing) -> io::Result<()> {
        if self.failing == Some(operation) {
            return Err(io::Error::other("input/output error"));
        }
        Ok(())
    }
}

impl Medium for SimFiles {
    type File = SimFile;

    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Result<Vec<String>, StorageError> {
        Ok(self.disk.borrow().names.keys().cloned().collect())
    }

    fn read_at(&self, name: &str, offset: u64, bytes: usize) -> Result<Vec<u8>, StorageError> {
        let contents = self.contents(name)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(contents.bytes.len());
        let to = from.saturating_add(bytes).min(contents.bytes.len());
        Ok(contents.bytes[from..to].to_vec())
    }

    fn length(&self, name: &str) -> Result<u64, StorageError> {
        Ok(self.contents(name)?.bytes.len() as u64)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        Ok(self.contents(name)?.bytes.clone())
    }

    fn allocate(&self, name: &str, bytes: u64) -> Result<SimFile, StorageError> {
        if self.disk.borrow().full {
            return Err(failed("allocate", &self.path.join(name))(io::ErrorKind::StorageFull.into()));
        }
        let number = {
            let disk = &mut *self.disk.borrow_mut();
            disk.files_made += 1;
            let bytes = vec![0; usize::try_from(bytes).expect("a length in memory")];
            disk.files.insert(disk.files_made, Contents { bytes, ..Contents::default() });
            disk.files_made
        };
        self.rename_with(name, |names| {
            names.insert(name.to_owned(), number);
        })?;
        Ok(SimFile { number, disk: Rc::clone(&self.disk) })
    }

    fn open(&self, name: &str) -> Result<SimFile, StorageError> {
        drop(self.contents(name)?);
        let number = self.disk.borrow().names[name];
        Ok(SimFile { number, disk: Rc::clone(&self.disk) })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        self.rename_with(to, |names| {
            let number = names.remove(from).expect("a file that is there");
            names.insert(to.to_owned(), number);
        })
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        self.rename_with(name, |names| {
            names.remove(name).expect("a file that is there");
        })
    }

    fn sync_names(&self) -> Result<(), StorageError> {
        let disk = &mut *self.disk.borrow_mut();
        disk.may(Failing::Sync).map_err(failed("sync directory", &self.path))?;
        disk.unsynced_names.clear();
        disk.durable_names = disk.names.clone();
        let there: BTreeSet<u64> = disk.names.values().copied().collect();
        disk.files.retain(|number, _| there.contains(number));
        Ok(())
    }
}

/// An open file of [`SimFiles`].
#[derive(Debug)]
pub(super) struct SimFile {
    number: u64,
    disk: Rc<RefCell<Disk>>,
}

impl MediumFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let disk = &mut *self.disk.borrow_mut();
        disk.may(Failing::Write)?;
        let contents = disk.files.get_mut(&self.number).expect("an open file is there");
        contents.write(bytes, usize::try_from(offset).expect("an offset in memory"));
        Ok(())
    }

    fn sync_bytes(&self) -> io::Result<()> {
        let disk = &mut *self.disk.borrow_mut();
        let may = disk.may(Failing::Sync);
        let contents = disk.files.get_mut(&self.number).expect("an open file is there");
        if may.is_err() {
            contents.forgotten.extend(contents.unsynced.keys().copied());
        }
        contents.sync();
        may
    }

    fn sync_length(&self, bytes: u64) -> io::Result<()> {
        {
            let disk = &mut *self.disk.borrow_mut();
            let contents = disk.files.get_mut(&self.number).expect("an open file is there");
            let bytes = usize::try_from(bytes).expect("a length in memory");
            assert!(bytes >= contents.bytes.len(), "the log never shortens a segment");
            contents.bytes.resize(bytes, 0);
        }
        self.sync_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::draws;
    use super::*;

    const BLOCK: u64 = BLOCK_BYTES as u64;

    /// A file of four blocks of ones, durable under its name.
    fn ones() -> (SimFiles, SimFile) {
        let files = SimFiles::new(Path::new("disk"));
        let file = files.allocate("a", 4 * BLOCK).unwrap();
        file.write_at(&[1; 4 * BLOCK_BYTES], 0).unwrap();
        file.sync_bytes().unwrap();
        files.sync_names().unwrap();
        (files, file)
    }

    #[test]
    fn a_power_cut_loses_any_set_of_blocks_and_tears_one_at_a_sector() {
        let mut draw = draws(1);
        let (mut sets, mut torn) = (BTreeSet::new(), BTreeSet::<usize>::new());
        for _ in 0..500 {
            let (files, file) = ones();
            file.write_at(&[2; 3 * BLOCK_BYTES], BLOCK).unwrap();
            files.cut_power(&mut draw);
            let bytes = files.read("a").unwrap();
            assert_eq!(bytes[..BLOCK_BYTES], [1; BLOCK_BYTES], "what was synced stays");
            let new: Vec<usize> =
                bytes.chunks(BLOCK_BYTES).map(|block| block.iter().filter(|b| **b == 2).count()).collect();
            for (block, count) in bytes.chunks(BLOCK_BYTES).zip(&new) {
                assert!(count % SECTOR_BYTES == 0 && block[..*count].iter().all(|byte| *byte == 2), "{new:?}");
            }
            let torn_blocks = new.iter().filter(|count| !matches!(**count, 0 | BLOCK_BYTES)).count();
            assert!(torn_blocks <= 1, "{new:?}");
            torn.extend(new.iter().filter(|count| **count > 0 && **count < BLOCK_BYTES));
            sets.insert(new.iter().map(|count| *count == BLOCK_BYTES).collect::<Vec<_>>());
        }
        assert_eq!((sets.len(), torn.len()), (8, 7), "{sets:?}, {torn:?}");
    }

    #[test]
    fn what_a_sync_covered_survives_and_what_came_after_it_is_lost() {
        let (files, file) = ones();
        file.write_at(&[2; 10], 100).unwrap();
        file.sync_bytes().unwrap();
        file.write_at(&[3; 10], 105).unwrap();
        assert_eq!(files.read_at("a", 100, 15).unwrap(), [[2; 5].as_slice(), &[3; 10]].concat());
        files.cut_power(&mut |_| 0);
        assert_eq!(files.read_at("a", 99, 12).unwrap(), [[1].as_slice(), &[2; 10], &[1]].concat());
    }

    #[test]
    fn names_survive_up_to_some_change_that_no_sync_covered() {
        let mut found = BTreeSet::new();
        for kept in 0..=3 {
            let (files, _) = ones();
            files.allocate("b", 1).unwrap();
            files.rename("b", "c").unwrap();
            files.remove("a").unwrap();
            files.cut_power(&mut |bound| if bound == 4 { kept } else { 0 });
            found.insert(files.names().unwrap());
        }
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(found, BTreeSet::from([names(&["a"]), names(&["a", "b"]), names(&["a", "c"]), names(&["c"])]));
    }

    #[test]
    fn after_a_sync_that_failed_a_second_one_promises_what_it_does_not_keep() {
        let (files, file) = ones();
        file.write_at(&[2; 10], 0).unwrap();
        files.fail(Failing::Sync);
        assert!(file.sync_bytes().is_err());
        files.mend();
        file.sync_bytes().unwrap();
        let before = files.copy();
        files.cut_power(&mut |_| 0);
        assert_eq!(files.read_at("a", 0, 10).unwrap(), [1; 10]);
        // Written once more, the block is no longer taken for clean.
        let file = before.open("a").unwrap();
        file.write_at(&[2; 1], 0).unwrap();
        file.sync_bytes().unwrap();
        before.cut_power(&mut |_| 0);
        assert_eq!(before.read_at("a", 0, 10).unwrap(), [2; 10]);
    }

    #[test]
    fn a_disk_that_fails_changes_nothing_and_a_full_one_has_no_new_file() {
        let (files, file) = ones();
        files.fail(Failing::Write);
        assert!(file.write_at(&[2], 0).is_err() && files.rename("a", "b").is_err());
        files.mend();
        files.fill();
        assert!(matches!(files.allocate("b", 1), Err(StorageError::Io { .. })));
        file.write_at(&[1], 0).unwrap();
        assert_eq!((files.names().unwrap(), files.read_at("a", 0, 1).unwrap()), (vec!["a".to_owned()], vec![1]));
    }
}
