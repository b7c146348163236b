//! The format: what was written comes back, and nothing else is taken for it.

use proptest::prelude::*;

use crate::record::Change;

use super::*;

fn header() -> Header {
    Header { cluster_id: 0xfeed, groups: 2, begun_ms: 1_800_000_000_000, program: "0.1.0".into() }
}

fn end(group: u32, records: u64, bytes: u64) -> GroupEnd {
    let voters = vec!["node1".into()];
    GroupEnd { group, index: 7, term: 2, stamp_ms: 3, wall_ms: 4, voters, learners: Vec::new(), records, bytes }
}

fn summary() -> Summary {
    let missing = vec![Missing { node: "node3".into(), why: "away".into(), keys: 1 }];
    Summary { generation: 3, records: 3, bytes: 0, missing }
}

fn pair(key: &[u8], value: Option<&[u8]>) -> Change {
    Change { key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
}

/// Two groups; the records of the first one are cut into two blocks in the middle of one.
fn small() -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
    let mut bytes = Vec::new();
    pairs::put(&mut bytes, b"qa", Some(b"first"));
    pairs::put(&mut bytes, b"la", Some(b"second"));
    writer.bytes(&bytes[..13]).unwrap();
    writer.bytes(&bytes[13..]).unwrap();
    writer.group_end(&end(0, 2, bytes.len() as u64)).unwrap();
    let mut other = Vec::new();
    pairs::put(&mut other, b"qa", None);
    writer.bytes(&other).unwrap();
    writer.group_end(&end(1, 1, other.len() as u64)).unwrap();
    writer.finish(&summary()).unwrap().0
}

fn read(bytes: &[u8]) -> Result<(Verified, Vec<(u32, Change)>), Damage> {
    let mut all = Vec::new();
    let verified = verify(bytes, |group, changes| {
        all.extend(changes.into_iter().map(|change| (group, change)));
        Ok(())
    })?;
    Ok((verified, all))
}

#[test]
fn what_was_written_comes_back() {
    let bytes = small();
    let (verified, all) = read(&bytes).unwrap();
    assert_eq!((&verified.header, &verified.summary), (&header(), &summary()));
    assert_eq!((verified.groups.len(), verified.bytes), (2, bytes.len() as u64));
    let expected = [(0, pair(b"qa", Some(b"first"))), (0, pair(b"la", Some(b"second"))), (1, pair(b"qa", None))];
    assert_eq!(all, expected);
}

#[test]
fn every_bit_that_flips_is_found_where_it_is() {
    let bytes = small();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let damage = read(&damaged).expect_err(&format!("bit {bit} of byte {at}"));
            let within = damage.from <= at as u64 && (at as u64) < damage.to;
            assert!(within, "byte {at} is said to be in {damage}");
        }
    }
}

#[test]
fn every_end_that_is_missing_and_whatever_follows_is_found() {
    let bytes = small();
    for length in 0..bytes.len() {
        let damage = read(&bytes[..length]).expect_err(&format!("cut to {length} bytes"));
        assert!(damage.from <= length as u64 && length as u64 <= damage.to, "cut to {length}: {damage}");
    }
    let damage = read(&[&bytes[..], &[0]].concat()).unwrap_err();
    assert_eq!((damage.from, damage.to), (bytes.len() as u64, bytes.len() as u64 + 1));
    assert!(read(&[&bytes[..], &bytes[..]].concat()).is_err());
}

#[test]
fn a_block_in_anothers_place_is_found() {
    let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
    writer.bytes(b"").unwrap();
    let bytes = {
        writer.group_end(&end(0, 0, 0)).unwrap();
        writer.group_end(&end(1, 0, 0)).unwrap();
        writer.finish(&summary()).unwrap().0
    };
    assert!(read(&bytes).is_ok());
    // The empty block is left out: all that follows has the wrong number.
    let from = small_header_bytes();
    let without = [&bytes[..from], &bytes[from + 13..]].concat();
    assert!(read(&without).unwrap_err().why.contains("this is block 2, not block 1"));
}

fn small_header_bytes() -> usize {
    let writer = Writer::begin(Vec::new(), &header()).unwrap();
    writer.finish(&summary()).unwrap().0.len() - 32 - 13 - crate::record::encode(&summary()).len()
}

#[test]
fn what_was_taken_back_leaves_no_trace() {
    let mut writer = Writer::begin(Vec::new(), &header()).unwrap();
    let mark = writer.mark();
    writer.bytes(b"a copy that broke off").unwrap();
    writer.back_to(&mark).unwrap();
    for group in 0..2 {
        writer.group_end(&end(group, 0, 0)).unwrap();
    }
    let (bytes, length, digest) = writer.finish(&summary()).unwrap();
    let (verified, all) = read(&bytes).unwrap();
    assert_eq!((verified.bytes, verified.digest, all.len()), (length, digest, 0));
}

#[test]
fn a_cluster_of_another_file_has_another_id() {
    let (one, _) = read(&small()).unwrap();
    let mut other = one.digest;
    other[31] ^= 1;
    assert_ne!(cluster_id(&one.digest), cluster_id(&other));
    assert_eq!(cluster_id(&one.digest), cluster_id(&one.digest.clone()));
}

proptest! {
    #[test]
    fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..400_usize) {
        let _ = read(&bytes);
        let good = small();
        let cut = cut.min(good.len());
        prop_assert!(read(&[&good[..cut], &bytes].concat()).is_err() || good[cut..] == bytes[..]);
    }
}
