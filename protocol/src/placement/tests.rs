use std::collections::BTreeMap;

use super::*;

#[test]
fn the_hash_is_xxh64_with_seed_zero() {
    // Published test values of XXH64.
    assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
    assert_eq!(hash(b"a"), 0xd24e_c4f1_a98c_6e5b);
    assert_eq!(hash(b"abc"), 0x44bc_2cf5_ad77_0999);
}

#[test]
fn tags_are_the_first_pair_of_braces_unless_empty() {
    for (name, key) in [
        ("orders", "orders"),
        ("{eu}orders", "eu"),
        ("orders{eu}", "eu"),
        ("a{b}c{d}", "b"),
        ("{}orders", "{}orders"),
        ("{}{eu}", "{}{eu}"),
        ("{{eu}}", "{eu"),
        ("{eu", "{eu"),
        ("}eu{", "}eu{"),
        ("}{eu}", "eu"),
    ] {
        assert_eq!(placement_key(name), key, "{name}");
    }
}

#[test]
fn a_lock_goes_by_its_namespace_unless_it_has_a_tag() {
    for (name, key) in [
        ("demo", "default"),
        ("billing/invoice/7", "billing"),
        ("/demo", ""),
        ("billing/{eu}", "eu"),
        ("{eu}/billing", "eu"),
        ("{}/billing", "{}"),
        ("{}", "default"),
        ("a{b/c}", "b/c"),
    ] {
        assert_eq!(lock_placement_key(name), key, "{name}");
    }
}

#[test]
fn the_number_of_groups_has_its_limits() {
    for groups in [0, GROUPS_MAX + 1, u32::MAX] {
        assert_eq!(Ring::new(groups).unwrap_err().code, ErrorCode::InvalidArgument);
    }
    assert_eq!(Ring::new(GROUPS_MAX).unwrap().groups(), GROUPS_MAX);
}

#[test]
fn every_group_gets_its_share() {
    for groups in [1, 2, 3, 7, 16] {
        let ring = Ring::new(groups).unwrap();
        let mut names = BTreeMap::<u32, u32>::new();
        for number in 0..groups * 1000 {
            *names.entry(ring.group_of_queue(&format!("queue-{number}"))).or_default() += 1;
        }
        assert_eq!(names.len() as u32, groups);
        assert!(names.values().all(|count| (700..=1300).contains(count)), "{groups} groups: {names:?}");
    }
}

#[test]
fn a_further_group_takes_names_and_moves_none_between_the_others() {
    let (before, after) = (Ring::new(3).unwrap(), Ring::new(4).unwrap());
    let groups = |name: &str| (before.group_of_queue(name), after.group_of_queue(name));
    let moved: Vec<_> =
        (0..1000).map(|number| groups(&format!("queue-{number}"))).filter(|(old, new)| old != new).collect();
    assert!(moved.iter().all(|(_, new)| *new == 3));
    assert!((150..350).contains(&moved.len()), "{} of 1000 moved", moved.len());
}

#[test]
fn positions_are_looked_up_as_the_contract_says() {
    let ring = Ring::new(3).unwrap();
    let points: Vec<(u64, u32)> = (0..3)
        .flat_map(|group| (0..256).map(move |point| (hash(format!("{group}/{point}").as_bytes()), group)))
        .collect();
    for number in 0..1000 {
        let name = format!("n{number}");
        let position = hash(name.as_bytes());
        let after = points.iter().filter(|(point, _)| *point >= position).min();
        let expected = after.or_else(|| points.iter().min()).expect("there are points").1;
        assert_eq!(ring.group_of(&name), expected, "{name}");
    }
}
