//! The bytes of one file: which of them a power cut leaves.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::Cut;
use crate::random::Random;

/// What the page cache writes as one.
const BLOCK_BYTES: usize = 4096;
/// What a disk writes as one: within it a write is there or not.
pub(super) const SECTOR_BYTES: usize = 512;
/// Bytes that are compared at once.
const CHUNK_BYTES: usize = 64 * BLOCK_BYTES;

/// What a cut has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Blocks that were not synced and are as they were before.
    pub(crate) lost: u64,
    /// Blocks that were not synced and came through.
    pub(crate) kept: u64,
    /// Blocks of which only some sectors came through.
    pub(crate) torn: u64,
    /// Files whose new length came through not or half.
    pub(crate) lengths: u64,
    /// Changes of names that are lost.
    pub(crate) names: u64,
}

impl Damage {
    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.kept += other.kept;
        self.torn += other.torn;
        self.lengths += other.lengths;
        self.names += other.names;
    }

    /// Whether anything is other than the program left it.
    pub(crate) fn is_any(&self) -> bool {
        self.lost + self.torn + self.lengths + self.names > 0
    }
}

/// Bytes at an offset, zeros where the file has none.
fn read(file: &File, buffer: &mut [u8], offset: u64) {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64).expect("a file of ours can be read") {
            0 => break,
            count => filled += count,
        }
    }
    buffer[filled..].fill(0);
}

fn open(path: &Path) -> File {
    // The image of a file that was never synced is made here: it is empty.
    let options = File::options().read(true).write(true).create(true).truncate(false).clone();
    options.open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Makes the file at `path`, and the image of what of it is durable, what a cut leaves: of the blocks in which they
/// differ, some as in the one, some as in the other.
pub(crate) fn cut(path: &Path, image: &Path, cut: Cut, random: &mut Random) -> Damage {
    let (file, image) = (open(path), open(image));
    let length_of = |file: &File| file.metadata().expect("a length").len();
    let (after, before) = (length_of(&file), length_of(&image));
    let mut damage = Damage::default();
    let length = match random.below(3) {
        _ if after == before => after,
        _ if cut == Cut::All => before,
        0 => before,
        1 => after,
        _ => before.min(after) + random.below(before.abs_diff(after)),
    };
    damage.lengths += u64::from(length != after);
    let keep_percent = cut.keep_percent(&[0, 0, 20, 50, 80, 97, 100], random);
    let (mut new, mut old) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut offset = 0;
    while offset < length {
        read(&file, &mut new, offset);
        read(&image, &mut old, offset);
        if new != old {
            let blocks = new.chunks_exact_mut(BLOCK_BYTES).zip(old.chunks_exact(BLOCK_BYTES));
            for (new, old) in blocks {
                if new != old {
                    choose(new, old, keep_percent, random, &mut damage);
                }
            }
            file.write_all_at(&new, offset).expect("a file of ours can be written");
            image.write_all_at(&new, offset).expect("a file of ours can be written");
        }
        offset += CHUNK_BYTES as u64;
    }
    for file in [&file, &image] {
        file.set_len(length).expect("a file of ours can be cut");
    }
    damage
}

/// Makes `new` what the disk has of a block that was `old`.
fn choose(new: &mut [u8], old: &[u8], keep_percent: u64, random: &mut Random, damage: &mut Damage) {
    // Nothing is torn where everything, or nothing, had the time to be written.
    if keep_percent % 100 != 0 && random.chance(25) {
        for (new, old) in new.chunks_exact_mut(SECTOR_BYTES).zip(old.chunks_exact(SECTOR_BYTES)) {
            if !random.chance(keep_percent) {
                new.copy_from_slice(old);
            }
        }
        damage.torn += 1;
    } else if random.chance(keep_percent) {
        damage.kept += 1;
    } else {
        new.copy_from_slice(old);
        damage.lost += 1;
    }
}
