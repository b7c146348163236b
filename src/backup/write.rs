//! Writing a backup, block by block.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write};

use sha2::{Digest, Sha256};

use crate::record;

use super::{FORMAT_VERSION, FileDigest, GroupEnd, Header, Kind, MAGIC, PREAMBLE_BYTES, Summary, checksum};

/// Where a backup is written to.
pub trait Cut: Write {
    /// Takes back what was written behind so many bytes.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
}

impl Cut for File {
    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)?;
        self.seek(SeekFrom::Start(bytes)).map(drop)
    }
}

impl Cut for Vec<u8> {
    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(())
    }
}

/// Writes a backup.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    at: Mark,
}

/// A place between two blocks, to come back to.
#[derive(Clone, Debug)]
pub struct Mark {
    bytes: u64,
    number: u32,
    digest: Sha256,
}

impl<W: Cut> Writer<W> {
    /// Begins a backup.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn begin(out: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self { out, at: Mark { bytes: 0, number: 0, digest: Sha256::new() } };
        writer.put(MAGIC)?;
        writer.put(&FORMAT_VERSION.to_be_bytes())?;
        debug_assert_eq!(writer.at.bytes, PREAMBLE_BYTES);
        writer.block(Kind::Header, &record::encode(header))?;
        Ok(writer)
    }

    /// Bytes of the group that is being written; at most [`super::BLOCK_BYTES_MAX`].
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.block(Kind::Bytes, bytes)
    }

    /// The group is written.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn group_end(&mut self, end: &GroupEnd) -> io::Result<()> {
        self.block(Kind::GroupEnd, &record::encode(end))
    }

    /// Everything is written: the output, its bytes and their digest.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn finish(mut self, summary: &Summary) -> io::Result<(W, u64, FileDigest)> {
        self.block(Kind::End, &record::encode(summary))?;
        let digest: FileDigest = self.at.digest.clone().finalize().into();
        self.put(&digest)?;
        Ok((self.out, self.at.bytes, digest))
    }

    /// Where it stands.
    pub fn mark(&self) -> Mark {
        self.at.clone()
    }

    /// Takes back everything since the mark: a group whose copy broke off is begun anew.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn back_to(&mut self, mark: &Mark) -> io::Result<()> {
        self.out.cut(mark.bytes)?;
        self.at = mark.clone();
        Ok(())
    }

    fn block(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let crc = checksum(length, kind as u8, self.at.number, payload);
        self.put(&length.to_be_bytes())?;
        self.put(&[kind as u8])?;
        self.put(&self.at.number.to_be_bytes())?;
        self.put(&crc.to_be_bytes())?;
        self.put(payload)?;
        self.at.number += 1;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.at.digest.update(bytes);
        self.at.bytes += bytes.len() as u64;
        Ok(())
    }
}
