//! What a home tells Redis, and when.

use super::*;
use crate::cache::change::Change;

/// A home whose values lie in Redis, with one that Redis lacks; and the calls that follow from a tick.
fn lacking(scene: &mut Scene, value: &'static str) -> Index {
    scene.index += 1;
    let at = At { index: scene.index, stamp_ms: 0, wall_ms: 0, generation: 0 };
    let own = Own::refusal("k".into(), NodeId::numbered(1), LIFE, WriteId { session: 1, sequence: scene.index });
    let Change { through, .. } = Change { through: true, ..Change::delete() };
    scene.memory.apply(at, &Command::Own(Own { value: Some(value.into()), through, refused: false, ..own }));
    scene.index
}

fn stores(scene: &mut Scene) -> Vec<Version> {
    let (standing, mut out) = (Standing { redis: Redis::Ready, ..scene.standing() }, HomeOut::default());
    scene.home.tick(&scene.memory, standing, &mut out);
    let store = |call: &MemoryCall| match call {
        MemoryCall::Store { value, .. } => Some(value.version),
        MemoryCall::Fetch { .. } => None,
    };
    out.memory.iter().filter_map(store).collect()
}

fn stored(scene: &mut Scene, epoch: Index) -> Vec<Proposal> {
    let (standing, mut out) = (Standing { redis: Redis::Ready, ..scene.standing() }, HomeOut::default());
    let version = Version { epoch, count: 0 };
    let answer = MemoryAnswer::Stored { key: "k".into(), version, result: Ok(()) };
    scene.home.hear(answer, &scene.memory, standing, &mut out);
    out.propose
}

#[test]
fn of_one_key_one_value_is_on_its_way_to_redis_at_a_time() {
    let mut scene = Scene::new();
    scene.memory.apply(At { index: 1, stamp_ms: 0, wall_ms: 0, generation: 0 }, &Command::Behind);
    scene.index = 1;
    let first = lacking(&mut scene, "first");
    assert_eq!(stores(&mut scene), [Version { epoch: first, count: 0 }]);
    let proposed = stored(&mut scene, first);
    assert!(matches!(&proposed[..], [Proposal { command: Command::Flushed(_), .. }]), "{proposed:?}");
    // The log has no room for the word of it: Redis is told again, and a newer value waits for that.
    let (standing, mut out) = (Standing { redis: Redis::Ready, ..scene.standing() }, HomeOut::default());
    scene.home.refused(&proposed[0], &scene.memory, standing, &mut out);
    assert_eq!(stores(&mut scene), [Version { epoch: first, count: 0 }]);
    let second = lacking(&mut scene, "second");
    scene.hears(&proposed[0], Committed::Applied(Applied::Void));
    assert_eq!(stores(&mut scene), [], "the older one may still be on its way");
    stored(&mut scene, first);
    scene.hears(&proposed[0], Committed::Applied(Applied::Void));
    assert_eq!(stores(&mut scene), [Version { epoch: second, count: 0 }]);
}
