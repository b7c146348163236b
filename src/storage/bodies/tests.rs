//! The layer over the simulator's twins: files that lose what no sync covered, records of which a prefix survives.

use std::path::Path;

use super::*;
use crate::node::machine::body_key;
use crate::storage::sim_files::SimFiles;
use crate::storage::sim_state::SimState;
use crate::storage::testing::{Random, meta};

const G: GroupId = GroupId(1);
const FILE_BYTES: u64 = 4096;

type Layer = Bodies<SimState, SimFiles>;

fn open(records: SimState, files: &SimFiles) -> Layer {
    Bodies::open(records, files.clone(), 3, FILE_BYTES).unwrap()
}

fn fresh() -> (Layer, SimFiles) {
    let files = SimFiles::new(Path::new("bodies"));
    (open(SimState::default(), &files), files)
}

/// A body that names its message, and how often it was replaced.
fn body(group: GroupId, id: Index, version: u64) -> Vec<u8> {
    let length = 20 + usize::try_from(id * 37 % 400).unwrap();
    format!("{group} {id} {version} ").into_bytes().into_iter().cycle().take(length).collect()
}

fn put(id: Index, version: u64) -> Change {
    Change { key: body_key(id), value: Some(body(G, id, version)) }
}

fn gone(id: Index) -> Change {
    Change { key: body_key(id), value: None }
}

fn write(layer: &mut Layer, index: Index, changes: Vec<Change>) {
    layer.checkpoint(&Checkpoint { group: G, meta: meta(index, 1), changes, whole: false }).unwrap();
}

fn durable(layer: &mut Layer, index: Index, changes: Vec<Change>) {
    write(layer, index, changes);
    layer.sync().unwrap();
}

fn names(files: &SimFiles) -> Vec<String> {
    files.names().unwrap()
}

#[test]
fn a_body_can_be_read_until_it_is_removed() {
    let (mut layer, files) = fresh();
    durable(&mut layer, 5, vec![put(1, 0), put(2, 0), put(200, 0)]);
    durable(&mut layer, 6, vec![gone(2), put(3, 0), gone(77)]);
    let mut layer = open(layer.records().clone(), &files);
    for (id, expected) in [(1, true), (2, false), (3, true), (77, false), (200, true)] {
        let found = layer.read(G, &body_key(id)).unwrap();
        assert_eq!(found, expected.then(|| Bytes::from(body(G, id, 0))), "message {id}");
    }
    assert!(layer.read(G, b"b").is_err(), "no key of a body");
    let longer = Change { key: b"b000000001".to_vec(), value: None };
    assert!(layer.checkpoint(&Checkpoint { group: G, meta: meta(7, 1), changes: vec![longer], whole: false }).is_err());
}

#[test]
fn a_file_goes_when_nothing_lives_in_it_and_that_is_durable() {
    let (mut layer, files) = fresh();
    durable(&mut layer, 100, (1..=60).map(|id| put(id, 0)).collect());
    let full = names(&files);
    assert!(full.len() > 3, "{full:?}");
    write(&mut layer, 160, (1..=60).map(gone).collect());
    assert_eq!(names(&files), full, "the removal could still be lost");
    layer.sync().unwrap();
    assert_eq!((names(&files), layer.body_bytes().disk), (Vec::<String>::new(), 0));
    durable(&mut layer, 161, vec![put(161, 0)]);
    assert_eq!(names(&files).len(), 1, "and it goes on with the next");
}

#[test]
fn one_message_that_nobody_acknowledges_does_not_hold_much() {
    let (mut layer, files) = fresh();
    for round in 0..40 {
        let first = round * 100 + 1;
        let index = first + 99;
        durable(&mut layer, index, (first..=index).map(|id| put(id, 0)).collect());
        // Of each hundred, the first stays.
        durable(&mut layer, index, (first + 1..=index).map(gone).collect());
        while layer.tend().unwrap() {}
    }
    let live: usize = (0..40).map(|round| body(G, round * 100 + 1, 0).len()).sum();
    let most = 2 * live as u64 + FILES_SPARE * FILE_BYTES;
    assert!(layer.body_bytes().disk <= most, "{} bytes for {live}", layer.body_bytes().disk);
    let layer = open(layer.records().clone(), &files);
    for round in 0..40 {
        let id = round * 100 + 1;
        assert_eq!(layer.read(G, &body_key(id)).unwrap().unwrap(), body(G, id, 0), "message {id}");
    }
}

#[test]
fn a_snapshot_replaces_every_body() {
    let (mut layer, files) = fresh();
    durable(&mut layer, 50, (1..=40).map(|id| put(id, 0)).collect());
    let keys: Vec<_> = (30..=60).map(|id| (body_key(id), body(G, id, 1))).collect();
    let records = keys.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
    let data = record::encode_records(records.chain([(&b"q1"[..], &b"v"[..])]));
    layer.install(G, &Snapshot { meta: meta(70, 2), data }).unwrap();
    layer.sync().unwrap();
    let mut layer = open(layer.records().clone(), &files);
    for id in 1..=60 {
        let expected = (id >= 30).then(|| Bytes::from(body(G, id, 1)));
        assert_eq!(layer.read(G, &body_key(id)).unwrap(), expected, "message {id}");
    }
    assert_eq!(layer.load(G).unwrap().1.len(), 1, "bodies are not loaded");
    durable(&mut layer, 71, (30..=60).map(gone).collect());
    assert_eq!(layer.body_bytes().disk, 0);
}

#[test]
fn a_body_that_is_damaged_or_gone_is_an_error() {
    let (mut layer, files) = fresh();
    durable(&mut layer, 9, vec![put(1, 0), put(2, 0)]);
    let name = names(&files).remove(0);
    files.flip(&name, 40, 3);
    let error = layer.read(G, &body_key(1)).unwrap_err();
    assert!(error.to_string().contains("the body of message 1 of g1 is damaged"), "{error}");
    assert_eq!(layer.read(G, &body_key(2)).unwrap().unwrap(), body(G, 2, 0), "its neighbour is not");
    files.remove(&name).unwrap();
    let error = Bodies::open(layer.records().clone(), files.clone(), 3, FILE_BYTES).unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
}

/// What the state named at an index: bodies by id.
type State = BTreeMap<Index, Vec<u8>>;

#[test]
fn whatever_a_power_cut_takes_the_state_that_is_left_has_its_bodies() {
    let mut carried = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        let (mut layer, files) = fresh();
        let mut states = BTreeMap::from([(0, State::new())]);
        let (mut index, mut synced) = (0, 0);
        for _ in 0..160 {
            let mut state = states[&index].clone();
            index += 1;
            let changes: Vec<Change> = (0..random.below(12))
                .map(|_| match 1 + random.below(150) {
                    id if random.below(3) == 0 => gone(id),
                    id => put(id, index),
                })
                .collect();
            for change in &changes {
                let id = id_of_key(G, &change.key).unwrap();
                match &change.value {
                    Some(body) => state.insert(id, body.clone()),
                    None => state.remove(&id),
                };
            }
            write(&mut layer, index, changes);
            states.insert(index, state);
            if random.below(3) == 0 {
                layer.sync().unwrap();
                synced = index;
            }
            let before = layer.body_bytes().disk;
            layer.tend().unwrap();
            carried += u64::from(layer.body_bytes().disk < before);
            if random.below(12) == 0 {
                let mut records = layer.records().clone();
                records.crash(random.below(records.pending() as u64 + 1) as usize);
                files.cut_power(&mut |bound| random.below(bound));
                layer = open(records, &files);
                index = layer.stands(G).index;
                assert!(index >= synced, "seed {seed}: {synced} was durable, {index} is left");
                states.split_off(&(index + 1));
                for id in 1..=150 {
                    let found = layer.read(G, &body_key(id)).unwrap();
                    assert_eq!(found.as_deref(), states[&index].get(&id).map(Vec::as_slice), "seed {seed}, {id}");
                }
            }
        }
    }
    assert!(carried > 20, "{carried} files were carried and removed");
}
