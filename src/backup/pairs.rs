//! Records as a stream of bytes: key and value, one pair behind the other, that may be cut anywhere.
//!
//! ```text
//!   key length u32 | key | 1 | value length u32 | value          the record has this value
//!   key length u32 | key | 0                                     there is no such record any more
//! ```
//!
//! Numbers are big-endian. A reader takes what is whole and keeps the rest until more comes; so it holds one record at a time,
//! however large, and makes room for no length that is merely claimed.

use crate::record::Change;

/// Appends one pair.
///
/// # Panics
/// For a key or a value of 4 GiB and more; what comes from a node is far below.
pub fn put(bytes: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    put_part(bytes, key);
    bytes.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put_part(bytes, value);
    }
}

fn put_part(bytes: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).expect("a record is far below 4 GiB");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(part);
}

/// Takes a stream apart.
#[derive(Debug, Default)]
pub struct Pairs {
    rest: Vec<u8>,
}

impl Pairs {
    /// Takes the next bytes; returns the pairs that are whole by now.
    ///
    /// # Errors
    /// Where the bytes are no pairs.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Change>, String> {
        self.rest.extend_from_slice(bytes);
        let (mut pairs, mut taken) = (Vec::new(), 0);
        while let Some((pair, length)) = first(&self.rest[taken..])? {
            pairs.push(pair);
            taken += length;
        }
        self.rest.drain(..taken);
        Ok(pairs)
    }

    /// The stream is over.
    ///
    /// # Errors
    /// Where it ends within a pair.
    pub fn end(&mut self) -> Result<(), String> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(format!("the records end {bytes} bytes into one")),
        }
    }
}

/// The first pair and its length, where it is whole.
fn first(bytes: &[u8]) -> Result<Option<(Change, usize)>, String> {
    let mut rest = bytes;
    let Some(key) = part(&mut rest) else { return Ok(None) };
    let Some((tag, after)) = rest.split_first() else { return Ok(None) };
    rest = after;
    let value = match tag {
        0 => None,
        1 => match part(&mut rest) {
            Some(value) => Some(value.to_vec()),
            None => return Ok(None),
        },
        other => return Err(format!("a record has a value or not, and this one says {other}")),
    };
    Ok(Some((Change { key: key.to_vec(), value }, bytes.len() - rest.len())))
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_at_checked(4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let (part, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_wherever_the_stream_is_cut() {
        let pairs: [(&[u8], Option<&[u8]>); 4] =
            [(b"", Some(b"")), (b"a", None), (b"bb", Some(b"value")), (b"c", None)];
        let mut bytes = Vec::new();
        for (key, value) in pairs {
            put(&mut bytes, key, value);
        }
        let expected: Vec<Change> =
            pairs.iter().map(|(key, value)| Change { key: key.to_vec(), value: value.map(<[u8]>::to_vec) }).collect();
        for cut in 0..=bytes.len() {
            let mut reader = Pairs::default();
            let mut found = reader.push(&bytes[..cut]).unwrap();
            found.extend(reader.push(&bytes[cut..]).unwrap());
            assert_eq!((found, reader.end()), (expected.clone(), Ok(())), "cut at {cut}");
        }
        let mut reader = Pairs::default();
        reader.push(&bytes[..bytes.len() - 1]).unwrap();
        assert!(reader.end().is_err());
    }

    #[test]
    fn what_is_no_pair_is_refused_and_lengths_are_not_believed() {
        assert!(Pairs::default().push(&[0, 0, 0, 0, 7]).is_err());
        let mut reader = Pairs::default();
        assert_eq!(reader.push(&[0xff; 4]), Ok(Vec::new()));
        assert!(reader.end().is_err());
    }
}
