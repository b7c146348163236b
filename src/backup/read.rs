//! Reading a backup, block by block; whatever differs from what was written is found, and said with its bytes.

use std::io::Read;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::record::{self, Change};

use super::pairs::Pairs;
use super::{
    BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, DIGEST_BYTES, FORMAT_VERSION, FileDigest, GroupEnd, Header, Kind, MAGIC,
    PREAMBLE_BYTES, Summary, checksum,
};

/// What is wrong with a backup, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes {from} to {to}: {why}")]
pub struct Damage {
    /// The first byte of what cannot be right.
    pub from: u64,
    /// The byte behind it.
    pub to: u64,
    /// What was expected.
    pub why: String,
}

/// What comes behind the header.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// Bytes of a group.
    Bytes(u32, Vec<u8>),
    /// A group is over.
    GroupEnd(GroupEnd),
}

/// Reads a backup.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    at: u64,
    number: u32,
    digest: Sha256,
    header: Header,
    /// The group whose bytes come next.
    group: u32,
    end: Option<(Summary, FileDigest)>,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(input: R) -> Result<Self, Damage> {
        let header = Header { cluster_id: 0, groups: 0, begun_ms: 0, program: String::new() };
        let mut reader = Self { input, at: 0, number: 0, digest: Sha256::new(), header, group: 0, end: None };
        let preamble = reader.take(PREAMBLE_BYTES as usize, "a backup's first bytes")?;
        let (magic, version) = preamble.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(damage(0, MAGIC.len() as u64, "this is no backup of trine's"));
        }
        let version = u32::from_be_bytes(version.try_into().expect("4 of 12 bytes"));
        if version != FORMAT_VERSION {
            let why = format!("the backup has format {version}, this program reads format {FORMAT_VERSION}");
            return Err(damage(MAGIC.len() as u64, PREAMBLE_BYTES, &why));
        }
        let (kind, payload, from) = reader.block()?;
        if kind != Kind::Header {
            return Err(reader.wrong(from, "a backup begins with its header"));
        }
        reader.header = reader.decode(from, &payload)?;
        Ok(reader)
    }

    /// What the file began with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What comes next; None at the end, which has been checked then.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn next_item(&mut self) -> Result<Option<Item>, Damage> {
        if self.end.is_some() {
            return Ok(None);
        }
        let (kind, payload, from) = self.block()?;
        let (group, groups) = (self.group, self.header.groups);
        match kind {
            Kind::Bytes if group < groups => Ok(Some(Item::Bytes(group, payload))),
            Kind::GroupEnd if group < groups => {
                let end: GroupEnd = self.decode(from, &payload)?;
                if end.group != group {
                    return Err(self.wrong(from, &format!("group {} ends where group {group} should", end.group)));
                }
                self.group += 1;
                Ok(Some(Item::GroupEnd(end)))
            }
            Kind::End if group == groups => {
                let summary = self.decode(from, &payload)?;
                self.finish(summary)?;
                Ok(None)
            }
            _ => Err(self.wrong(from, &format!("{kind:?} has no place after {group} of {groups} groups"))),
        }
    }

    /// What the file ended with, and its digest; None before the end was read.
    pub fn end(&self) -> Option<&(Summary, FileDigest)> {
        self.end.as_ref()
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    fn finish(&mut self, summary: Summary) -> Result<(), Damage> {
        let computed: FileDigest = self.digest.clone().finalize().into();
        let from = self.at;
        let stored = self.take(DIGEST_BYTES, "the digest")?;
        if stored != computed {
            return Err(damage(0, self.at, "the digest of the whole does not match"));
        }
        match self.input.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(damage(self.at, self.at + 1, "something follows the end of the backup")),
            Err(error) => return Err(damage(from, self.at, &format!("it cannot be read: {error}"))),
        }
        self.end = Some((summary, computed));
        Ok(())
    }

    /// Kind and payload of the next block, and where it began.
    fn block(&mut self) -> Result<(Kind, Vec<u8>, u64), Damage> {
        let from = self.at;
        let head = self.take(BLOCK_HEADER_BYTES, "a block")?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (length, code, number, crc) = (word(0), head[4], word(5), word(9));
        if length as usize > BLOCK_BYTES_MAX {
            return Err(self.wrong(from, &format!("a block of {length} bytes, {BLOCK_BYTES_MAX} are the most")));
        }
        // Where the length is what is damaged, the file may well end before it.
        let payload = self.take(length as usize, "a block").map_err(|damage| Damage { from, ..damage })?;
        if checksum(length, code, number, &payload) != crc {
            return Err(self.wrong(from, "the checksum of this block does not match"));
        }
        if number != self.number {
            return Err(self.wrong(from, &format!("this is block {number}, not block {}", self.number)));
        }
        self.number += 1;
        let kind = Kind::of(code).ok_or_else(|| self.wrong(from, &format!("no block has kind {code}")))?;
        Ok((kind, payload, from))
    }

    fn take(&mut self, length: usize, what: &str) -> Result<Vec<u8>, Damage> {
        let from = self.at;
        let mut bytes = Vec::new();
        // Read as far as there is something: no room is made for what a damaged length claims.
        let read = self.input.by_ref().take(length as u64).read_to_end(&mut bytes);
        self.at += bytes.len() as u64;
        if let Err(error) = read {
            return Err(damage(from, self.at, &format!("it cannot be read: {error}")));
        }
        if bytes.len() < length {
            let why = format!("the file ends here, within {what}");
            return Err(damage(from, from + length as u64, &why));
        }
        if what != "the digest" {
            self.digest.update(&bytes);
        }
        Ok(bytes)
    }

    fn decode<T: DeserializeOwned>(&self, from: u64, payload: &[u8]) -> Result<T, Damage> {
        record::decode(&[], payload).map_err(|bad| self.wrong(from, &bad.why))
    }

    /// From there to what was read last.
    fn wrong(&self, from: u64, why: &str) -> Damage {
        damage(from, self.at, why)
    }
}

fn damage(from: u64, to: u64, why: &str) -> Damage {
    Damage { from, to, why: why.to_owned() }
}

/// A backup that was read to its end and found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What it began with.
    pub header: Header,
    /// Where each group stands.
    pub groups: Vec<GroupEnd>,
    /// What it ended with.
    pub summary: Summary,
    /// Bytes of the file.
    pub bytes: u64,
    /// Digest of all but the last of them.
    pub digest: FileDigest,
}

/// Reads a backup to its end, and gives every pair to `each`.
///
/// # Errors
/// What is wrong, and where.
pub fn verify<R: Read>(
    input: R,
    mut each: impl FnMut(u32, Vec<Change>) -> Result<(), String>,
) -> Result<Verified, Damage> {
    let mut reader = Reader::open(input)?;
    let (mut groups, mut pairs, mut records, mut bytes) = (Vec::new(), Pairs::default(), 0, 0);
    loop {
        let from = reader.bytes();
        let Some(item) = reader.next_item()? else { break };
        let wrong = |to: u64| move |why: String| damage(from, to, &why);
        match item {
            Item::Bytes(group, part) => {
                let changes = pairs.push(&part).map_err(wrong(reader.bytes()))?;
                records += changes.len() as u64;
                bytes += part.len() as u64;
                each(group, changes).map_err(wrong(reader.bytes()))?;
            }
            Item::GroupEnd(end) => {
                pairs.end().map_err(wrong(reader.bytes()))?;
                if (end.records, end.bytes) != (records, bytes) {
                    let why = format!("{} records are said, and {records} are there", end.records);
                    return Err(damage(from, reader.bytes(), &why));
                }
                (records, bytes) = (0, 0);
                groups.push(end);
            }
        }
    }
    let bytes = reader.bytes();
    let (summary, digest) = reader.end().cloned().expect("the end was read");
    Ok(Verified { header: reader.header().clone(), groups, summary, bytes, digest })
}
