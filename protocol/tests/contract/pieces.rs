//! A reader of MessagePack that knows only where a value ends: to cut bodies at their joints, and to see what type a
//! field is on the wire. Written apart from the library that makes the bodies, so that it can disagree with it.

use std::ops::Range;

/// What a value is, in the words of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Nil,
    Bool,
    Integer,
    Text,
    Bytes,
    Array(usize),
    Map(usize),
}

fn number(bytes: &[u8], at: usize, width: usize) -> usize {
    bytes[at..at + width].iter().fold(0, |value, byte| value << 8 | usize::from(*byte))
}

/// The type of the value at a place, and where its content starts.
pub(crate) fn head(bytes: &[u8], at: usize) -> (Type, usize, usize) {
    let wide = |width: usize| (number(bytes, at + 1, width), at + 1 + width);
    let first = bytes[at];
    match first {
        0x00..=0x7f | 0xe0..=0xff => (Type::Integer, at + 1, 0),
        0xcc..=0xcf => (Type::Integer, at + 1, 1 << (first - 0xcc)),
        0xc0 => (Type::Nil, at + 1, 0),
        0xc2 | 0xc3 => (Type::Bool, at + 1, 0),
        0xa0..=0xbf => (Type::Text, at + 1, usize::from(first & 0x1f)),
        0xd9..=0xdb => {
            let (length, start) = wide(1 << (first - 0xd9));
            (Type::Text, start, length)
        }
        0xc4..=0xc6 => {
            let (length, start) = wide(1 << (first - 0xc4));
            (Type::Bytes, start, length)
        }
        0x90..=0x9f => (Type::Array(usize::from(first & 0x0f)), at + 1, 0),
        0x80..=0x8f => (Type::Map(usize::from(first & 0x0f)), at + 1, 0),
        other => panic!("the contract uses no value that starts with {other:#04x}"),
    }
}

/// Where the value at a place ends.
pub(crate) fn end(bytes: &[u8], at: usize) -> usize {
    let (kind, start, length) = head(bytes, at);
    let inner = match kind {
        Type::Array(count) => count,
        Type::Map(count) => 2 * count,
        _ => 0,
    };
    (0..inner).fold(start + length, |at, _| end(bytes, at))
}

/// The places of the elements of the array at a place.
pub(crate) fn elements(bytes: &[u8], at: usize) -> Vec<Range<usize>> {
    let (Type::Array(count), mut start, _) = head(bytes, at) else { panic!("no array at {at} of {bytes:x?}") };
    let element = |_| {
        let place = start..end(bytes, start);
        start = place.end;
        place
    };
    (0..count).map(element).collect()
}

/// The same array with its elements from `keep` on replaced by these bytes, `more` of them.
pub(crate) fn with_elements(bytes: &[u8], at: usize, keep: usize, more: usize, elements_more: &[u8]) -> Vec<u8> {
    let places = elements(bytes, at);
    let cut = if keep == 0 { at + 1 } else { places[keep - 1].end };
    let count = u8::try_from(keep + more).unwrap();
    assert!(count < 16, "a short array is one byte long");
    [&bytes[..at], &[0x90 | count], &bytes[at + 1..cut], elements_more, &bytes[end(bytes, at)..]].concat()
}
