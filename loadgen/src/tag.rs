//! What tells one message or value from every other one: the run, who wrote it, and the writer's count.
//!
//! A tag stands at the front of the bytes, and the rest is filled up with dots, so that bytes which were cut, mixed or made up read
//! as no tag at all. A REST message is text: the same numbers as hexadecimal digits.

use bytes::Bytes;

/// Bytes of a tag, and so the fewest that a body or a value of a checked run has.
pub(crate) const TAG_BYTES: usize = 24;
/// What follows a tag.
const FILLING: u8 = b'.';

/// Who wrote something, and which of the writer's it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tag {
    /// The worker's number.
    pub(crate) writer: u64,
    /// The worker's count.
    pub(crate) number: u64,
}

impl Tag {
    /// The bytes of a message or value, `length` of them but not fewer than [`TAG_BYTES`].
    pub(crate) fn bytes(self, run: u64, length: usize) -> Bytes {
        let mut bytes = vec![FILLING; length.max(TAG_BYTES)];
        for (place, number) in [run, self.writer, self.number].into_iter().enumerate() {
            bytes[8 * place..8 * place + 8].copy_from_slice(&number.to_be_bytes());
        }
        bytes.into()
    }

    /// The tag of bytes that [`Tag::bytes`] made with the same run and length.
    pub(crate) fn of_bytes(bytes: &[u8], run: u64, length: usize) -> Option<Self> {
        let number = |place: usize| Some(u64::from_be_bytes(bytes.get(8 * place..8 * place + 8)?.try_into().ok()?));
        let whole = bytes.len() == length.max(TAG_BYTES) && number(0)? == run;
        let tag = Self { writer: number(1)?, number: number(2)? };
        (whole && bytes[TAG_BYTES..].iter().all(|byte| *byte == FILLING)).then_some(tag)
    }

    /// The text of a REST message.
    pub(crate) fn text(self, run: u64) -> String {
        format!("{run:016x}{:016x}{:016x}", self.writer, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: Tag = Tag { writer: 3, number: 77 };

    #[test]
    fn a_tag_is_read_back_and_nothing_else_is() {
        for length in [0, 24, 25, 300] {
            assert_eq!(Tag::of_bytes(&TAG.bytes(9, length), 9, length), Some(TAG));
        }
        let bytes = TAG.bytes(9, 40);
        assert_eq!(Tag::of_bytes(&bytes, 8, 40), None, "another run");
        assert_eq!(Tag::of_bytes(&bytes[..39], 9, 40), None, "cut");
        assert_eq!(Tag::of_bytes(&[], 9, 40), None);
        let mut spoilt = bytes.to_vec();
        spoilt[39] ^= 1;
        assert_eq!(Tag::of_bytes(&spoilt, 9, 40), None);
    }

    #[test]
    fn texts_differ_as_tags_do() {
        assert_eq!(TAG.text(9), "00000000000000090000000000000003000000000000004d");
        assert_ne!(TAG.text(9), Tag { writer: 4, ..TAG }.text(9));
    }
}
