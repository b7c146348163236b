//! Names of files and folders: which of them a power cut leaves.
//!
//! `unsynced.c` writes a journal of what became of names. A change is durable from the sync of its folder on; of the
//! others the disk may have kept any, in the order in which they were made. Files and folders are known by their inodes, which the
//! library keeps from being used twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Cut;
use crate::random::Random;

/// Number of a file or folder.
pub(crate) type Inode = u64;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    inode: Inode,
    is_folder: bool,
}

/// Folders with what is in them; those that have lost their name too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    root: Inode,
    folders: BTreeMap<Inode, BTreeMap<String, Entry>>,
}

/// One change of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Create { folder: Inode, name: String, entry: (Inode, bool) },
    Remove { folder: Inode, name: String },
    Rename { folder: Inode, name: String, to_folder: Inode, to_name: String, inode: Inode },
}

/// A line of the journal.
enum Line {
    Changed(Change),
    Synced(Inode),
}

impl Line {
    /// # Panics
    /// Where it is no line of the library's, or says that the program did what the library cannot follow.
    fn parse(text: &str) -> Self {
        let number = |text: &str| text.parse::<Inode>().expect("an inode");
        match text.split('\t').collect::<Vec<_>>()[..] {
            ["create", folder, name, inode, kind] => Self::Changed(Change::Create {
                folder: number(folder),
                name: name.to_owned(),
                entry: (number(inode), kind == "folder"),
            }),
            ["remove", folder, name] => Self::Changed(Change::Remove { folder: number(folder), name: name.to_owned() }),
            ["rename", folder, name, to_folder, to_name, inode] => Self::Changed(Change::Rename {
                folder: number(folder),
                name: name.to_owned(),
                to_folder: number(to_folder),
                to_name: to_name.to_owned(),
                inode: number(inode),
            }),
            ["sync", folder] => Self::Synced(number(folder)),
            _ => panic!("the journal of names says '{text}'"),
        }
    }
}

impl Change {
    fn is_in(&self, synced: Inode) -> bool {
        match self {
            Self::Create { folder, .. } | Self::Remove { folder, .. } => *folder == synced,
            Self::Rename { folder, to_folder, .. } => *folder == synced || *to_folder == synced,
        }
    }
}

impl Tree {
    /// The tree below `root` as it is now.
    pub(crate) fn scan(root: &Path) -> Self {
        let mut tree = Self { root: inode(root), folders: BTreeMap::new() };
        let mut waiting = vec![root.to_path_buf()];
        while let Some(folder) = waiting.pop() {
            let mut entries = BTreeMap::new();
            for path in list(&folder) {
                let is_folder = path.is_dir();
                let name = path.file_name().expect("a listed name").to_string_lossy().into_owned();
                entries.insert(name, Entry { inode: inode(&path), is_folder });
                if is_folder {
                    waiting.push(path);
                }
            }
            tree.folders.insert(inode(&folder), entries);
        }
        tree
    }

    /// Makes one change; it comes to nothing where an earlier one that it rests on did not happen.
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { folder, name, entry: (inode, is_folder) } => {
                let entry = Entry { inode: *inode, is_folder: *is_folder };
                self.folders.entry(*folder).or_default().insert(name.clone(), entry);
                if *is_folder {
                    self.folders.entry(*inode).or_default();
                }
            }
            Change::Remove { folder, name } => {
                self.folders.entry(*folder).or_default().remove(name);
            }
            Change::Rename { folder, name, to_folder, to_name, inode } => {
                let entries = self.folders.entry(*folder).or_default();
                if entries.get(name).is_some_and(|entry| entry.inode == *inode) {
                    let entry = entries.remove(name).expect("looked at just now");
                    self.folders.entry(*to_folder).or_default().insert(to_name.clone(), entry);
                }
            }
        }
    }

    /// What a cut leaves of it after the changes of this journal. What was decided goes to `log`.
    pub(crate) fn after(mut self, journal: &str, cut: Cut, random: &mut Random, log: &mut Vec<String>) -> Self {
        let mut pending: Vec<Change> = Vec::new();
        // The last line is not whole where the kill came in the middle of it.
        let whole = journal.rfind('\n').map_or("", |end| &journal[..end]);
        for line in whole.lines() {
            match Line::parse(line) {
                Line::Changed(change) => pending.push(change),
                Line::Synced(folder) => {
                    let (synced, left) = pending.into_iter().partition(|change| change.is_in(folder));
                    pending = left;
                    let synced: Vec<Change> = synced;
                    synced.iter().for_each(|change| self.apply(change));
                }
            }
        }
        let keep_percent = cut.keep_percent(&[0, 0, 50, 80, 100], random);
        let in_order = random.chance(50);
        let mut over = false;
        for change in pending {
            // A journalling file system keeps them up to some moment; one that promises nothing may keep any.
            over |= !random.chance(keep_percent);
            let kept = if in_order { !over } else { random.chance(keep_percent) };
            log.push(format!("{} {change:?}", if kept { "keeps" } else { "loses" }));
            if kept {
                self.apply(&change);
            }
        }
        self
    }

    /// Makes the files and folders below `root` what this tree says. Files that have no name there any more are looked for
    /// in `held`, which is empty afterwards. Returns the files, in the order of their paths.
    pub(crate) fn restore(&self, root: &Path, held: &Path) -> Vec<(PathBuf, Inode)> {
        let pool = held.join("pool");
        fs::create_dir(&pool).expect("a folder");
        let mut folders = vec![root.to_path_buf(), held.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for path in list(&folder) {
                let pooled = pool.join(inode(&path).to_string());
                match path.is_dir() {
                    true if path != pool => folders.push(path),
                    false if !pooled.exists() => fs::rename(&path, pooled).expect("a file moves"),
                    _ => {}
                }
            }
        }
        for path in list(root) {
            remove(&path);
        }
        let mut files = Vec::new();
        let mut folders = vec![(root.to_path_buf(), self.root)];
        let mut made = BTreeSet::new();
        while let Some((path, number)) = folders.pop() {
            assert!(made.insert(number), "{} is in the tree twice", path.display());
            for (name, entry) in &self.folders[&number] {
                let path = path.join(name);
                if entry.is_folder {
                    fs::create_dir(&path).expect("a folder");
                    folders.push((path, entry.inode));
                } else {
                    fs::rename(pool.join(entry.inode.to_string()), &path).expect("a file that was held");
                    files.push((path, entry.inode));
                }
            }
        }
        for path in list(held) {
            remove(&path);
        }
        files.sort();
        files
    }
}

fn inode(path: &Path) -> Inode {
    fs::symlink_metadata(path).expect("a path of ours").ino()
}

fn list(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
}

fn remove(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
    .expect("what is below a folder of ours can be removed");
}
