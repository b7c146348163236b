//! A disk that loses what was not synced: `unsynced.c` under the program, and the power cut after its death.
//!
//! ```text
//!   folder/root   where the program works: what the page cache shows     -- compared after the kill, -->  root: what
//!   folder/keep   what is durable of it, kept up to date by each sync    -- and mixed by a seed            the disk has
//! ```
//!
//! A cut takes each 4 KiB block that no sync has covered as it was or as it is, whatever the order in which blocks were written;
//! a quarter of them are torn between their sectors of 512 bytes. New lengths may be there, or not, or half. Names (created,
//! renamed, removed) may be lost until their folder was synced, in the order of a journal or in none. Then all that is
//! left is durable, and both folders are the same again.
//!
//! # What this cannot show
//! - A block has only two pasts: how it was at the last sync, and how it is. A disk may have one between the two.
//! - A block that was given out and not written reads as zeros, as on ext4 or XFS; there are file systems with less manners.
//! - fallocate is called by a raw system call, past any library. It gives a file its length, zeros in it, and nothing else, so it
//!   is seen by the length at the next sync; that it was not synced is seen by the image, which is shorter.
//! - That a disk says "synced" and lies is not Trine's to survive: it is how the test shows that it would notice.

mod blocks;
mod names;
mod probe;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

pub(crate) use blocks::Damage;
use blocks::SECTOR_BYTES;

use crate::random::Random;
use names::Tree;

/// Longest time of a sync in microseconds: that of a good disk, so that kills fall between a write and its sync.
const SYNC_US_MAX: u64 = 2_000;

/// The library, built once; None where no C compiler is.
pub(crate) fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<(TempDir, PathBuf)>> = OnceLock::new();
    let built = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let (source, library) =
            (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture/unsynced.c"), folder.path().join("unsynced.so"));
        let mut command = Command::new("cc");
        command.args(["-Wall", "-Wextra", "-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        match command.args(["-ldl", "-lpthread"]).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => panic!("cc cannot be run: {error}"),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && said.is_empty(), "cc says of {source}:\n{said}");
                Some((folder, library))
            }
        }
    });
    built.as_ref().map(|(_, library)| library.as_path())
}

/// How the disk is while a program works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// What is synced is durable.
    Good,
    /// Syncs by this call do nothing, and say that they did.
    Deaf(&'static str),
    /// The program dies before this one of its syncs and changes of names, from 1.
    DeadlyAt(u64),
}

/// What a cut takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Some of what was not synced.
    Some,
    /// All of it.
    All,
}

impl Cut {
    /// Of a hundred things that were not synced so many come through, one of `possible`.
    fn keep_percent(self, possible: &[u64], random: &mut Random) -> u64 {
        let drawn = usize::try_from(random.below(possible.len() as u64)).expect("an index");
        match self {
            Self::Some => possible[drawn],
            Self::All => 0,
        }
    }
}

/// A folder on such a disk.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: TempDir,
    /// Names as they were after the last cut: durable.
    tree: Tree,
}

impl Disk {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["root", "keep", "keep/files", "keep/held"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let tree = Tree::scan(&folder.path().join("root"));
        Self { folder, tree }
    }

    /// Where a program may work.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn keep(&self) -> PathBuf {
        self.folder.path().join("keep")
    }

    /// What a program needs in its environment to work on it.
    pub(crate) fn environment(&self, manner: &Manner) -> Vec<(&'static str, OsString)> {
        let library = library().expect("asked for only where there is one");
        let mut variables = vec![
            ("LD_PRELOAD", library.into()),
            ("UNSYNCED_ROOT", self.root().into()),
            ("UNSYNCED_KEEP", self.keep().into()),
            ("UNSYNCED_DELAY_US", SYNC_US_MAX.to_string().into()),
        ];
        match manner {
            Manner::Good => {}
            Manner::Deaf(call) => variables.push(("UNSYNCED_DEAF", call.into())),
            Manner::DeadlyAt(step) => variables.push(("UNSYNCED_DIE_AT", step.to_string().into())),
        }
        variables
    }

    /// Cuts the power. The program must be dead.
    pub(crate) fn cut(&mut self, cut: Cut, random: &mut Random) -> Damage {
        let (root, keep) = (self.root(), self.keep());
        let mut log = Vec::new();
        let journal = fs::read_to_string(keep.join("names")).unwrap_or_default();
        let tree = std::mem::take(&mut self.tree).after(&journal, cut, random, &mut log);
        let mut damage =
            Damage { names: log.iter().filter(|line| line.starts_with("loses")).count() as u64, ..Damage::default() };
        let files = tree.restore(&root, &keep.join("held"));
        for (path, inode) in &files {
            let of_file = blocks::cut(path, &keep.join("files").join(inode.to_string()), cut, random);
            log.push(format!("{}: {of_file:?}", path.display()));
            damage.add(of_file);
        }
        for image in fs::read_dir(keep.join("files")).expect("the images").map(|entry| entry.expect("an entry")) {
            let name = image.file_name();
            if !files.iter().any(|(_, inode)| *inode.to_string() == *name) {
                fs::remove_file(image.path()).expect("an image of ours");
            }
        }
        let _ = fs::remove_file(keep.join("names"));
        fs::write(keep.join("last-cut"), log.join("\n")).expect("a file of ours");
        self.tree = Tree::scan(&root);
        damage
    }

    /// Leaves everything as it is, for a person to look at; says where.
    pub(crate) fn leave(self) -> PathBuf {
        self.folder.keep()
    }
}
