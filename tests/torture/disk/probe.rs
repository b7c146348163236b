//! The disk, tried with a small program of known deeds: what was synced must come through every cut, what was not must
//! be lost in some, and nothing may be there that was never written.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::FallocateFlags;
use rustix::process::{Signal, getpid, kill_process};

use super::{Cut, Disk, Manner, SECTOR_BYTES, library};
use crate::random::Random;

/// Tells the program where to work; without it, it does nothing.
const FOLDER: &str = "TORTURE_PROBE";
const CUTS: u64 = 60;
const BYTES: usize = 8192;

fn sync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn write(path: &Path, byte: u8) -> File {
    let file = File::create(path).unwrap();
    file.write_all_at(&[byte; BYTES], 0).unwrap();
    file
}

/// The program: makes some things durable, then does what it does not sync, then dies.
#[test]
fn works_and_dies() {
    let Some(root) = std::env::var_os(FOLDER) else { return };
    let at = |name: &str| Path::new(&root).join(name);
    fs::create_dir_all(at("folder/below")).unwrap();
    for name in
        ["written", "renamed", "removed", "replaced", "settled", "shortened", "folder/file", "folder/below/file"]
    {
        write(&at(name), b'a').sync_data().unwrap();
    }
    for folder in ["folder/below", "folder", ""] {
        sync(&at(folder));
    }
    write(&at("settled.new"), b'b').sync_all().unwrap();
    fs::rename(at("settled.new"), at("settled")).unwrap();
    let allocate = |name: &str| {
        let file = File::create(at(name)).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BYTES as u64).unwrap();
        file
    };
    allocate("allocated").sync_all().unwrap();
    allocate("reserved");
    write(&at("hollow"), b'b');
    sync(&at(""));

    File::options().write(true).open(at("written")).unwrap().write_all_at(&[b'b'; BYTES], 0).unwrap();
    write(&at("unnamed"), b'b').sync_all().unwrap();
    fs::rename(at("renamed"), at("renamed.to")).unwrap();
    fs::remove_file(at("removed")).unwrap();
    write(&at("replaced.new"), b'b').sync_all().unwrap();
    fs::rename(at("replaced.new"), at("replaced")).unwrap();
    File::options().write(true).open(at("shortened")).unwrap().set_len(0).unwrap();
    fs::remove_dir_all(at("folder")).unwrap();
    kill_process(getpid(), Signal::KILL).unwrap();
}

/// What is in a file, in words: which bytes, in how many places of a sector each, and how long.
fn content(path: &Path) -> String {
    let Ok(bytes) = fs::read(path) else { return "missing".to_owned() };
    let sectors: BTreeSet<&[u8]> = bytes.chunks(SECTOR_BYTES).collect();
    assert!(
        sectors.iter().all(|sector| sector.iter().all(|byte| *byte == sector[0])),
        "{}: a sector is torn",
        path.display()
    );
    let kinds: BTreeSet<char> =
        sectors.iter().map(|sector| if sector[0] == 0 { '0' } else { char::from(sector[0]) }).collect();
    let length = match bytes.len() {
        0 => "empty",
        BYTES => "whole",
        length if length < BYTES => "short",
        length => panic!("{}: {length} bytes, never so many", path.display()),
    };
    format!("{length} {}", kinds.into_iter().collect::<String>())
}

fn run_and_cut(seed: u64) -> Disk {
    let mut disk = Disk::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "disk::probe::works_and_dies", "--nocapture"]);
    command.env(FOLDER, disk.root()).envs(disk.environment(&Manner::Good)).stdout(Stdio::null());
    let output = command.output().unwrap();
    let ended = (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!(ended, (None, String::new()), "the program is killed by its own hand");
    disk.cut(Cut::Some, &mut Random::new(seed));
    disk
}

#[test]
fn what_was_synced_survives_and_what_was_not_may_be_lost() {
    if library().is_none() {
        println!("skipped: no cc to build the library with");
        return;
    }
    // Of each name, everything that may be seen after a cut. All of it must be seen, and nothing else.
    let expected = [
        ("settled", "whole b"),
        ("settled.new", "missing"),
        ("allocated", "whole 0"),
        ("written", "whole a/whole b/whole ab"),
        ("unnamed", "missing/whole b"),
        ("renamed", "whole a/missing"),
        ("renamed.to", "whole a/missing"),
        ("removed", "whole a/missing"),
        ("replaced", "whole a/whole b"),
        ("replaced.new", "missing/whole b"),
        ("reserved", "empty /short 0/whole 0"),
        ("hollow", "empty /short 0/short b/short 0b/whole 0/whole b/whole 0b"),
        ("shortened", "empty /short 0/short a/short 0a/whole 0/whole a/whole 0a"),
        ("folder/file", "whole a/missing"),
        ("folder/below/file", "whole a/missing"),
    ];
    let mut seen = expected.map(|_| BTreeSet::new());
    for seed in 0..CUTS {
        let disk = run_and_cut(seed);
        let is_there = |name: &str| disk.root().join(name).exists();
        assert!(is_there("renamed") != is_there("renamed.to"), "seed {seed}: a rename is there or not");
        for ((name, _), seen) in expected.iter().zip(&mut seen) {
            seen.insert(content(&disk.root().join(name)));
        }
    }
    for ((name, expected), seen) in expected.iter().zip(&seen) {
        let expected: BTreeSet<String> = expected.split('/').map(str::to_owned).collect();
        assert!(seen.is_subset(&expected), "{name}: {seen:?} was seen, only {expected:?} can be");
        assert!(seen.len() * 2 > expected.len(), "{name}: only {seen:?} was seen of {expected:?}");
    }
}
