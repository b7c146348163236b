//! What a home makes of writes that demand something, of keys whose time is over, and of clients that want to fill keys.

use super::*;
use crate::cache::change::What;
use crate::cache::message::FillAnswer;
use trine_protocol::cache::OnlyIf;

/// A scene in which node 1 has a lease.
fn scene() -> (Scene, LeaseTag) {
    let mut scene = Scene::new();
    let tag = scene.registers(1).expect("a lease");
    (scene, tag)
}

fn write(tag: LeaseTag, request: u64, sequence: u64, change: Change, again: bool) -> ToHome {
    let (write, held) = (WriteId { session: 1, sequence }, LineState::I);
    ToHome::BusRdX { request, write, acked_below: 0, key: "k".into(), change, held, tag, again }
}

fn absent(value: &'static str) -> Change {
    Change { only_if: OnlyIf::Absent, through: true, ..Change::put(value.into()) }
}

fn version_read(said: &[ToNode]) -> Version {
    match said {
        [ToNode::Filled { value, .. }] => value.version,
        said => panic!("{said:?}"),
    }
}

/// What a write is told.
fn told(said: &[ToNode]) -> Result<(Index, Option<i64>), ErrorCode> {
    said.iter()
        .find_map(|message| match message {
            ToNode::Owned { epoch, sum, .. } => Some(Ok((*epoch, *sum))),
            ToNode::WriteFailed { error, .. } => Some(Err(error.code)),
            _ => None,
        })
        .unwrap_or_else(|| panic!("{said:?}"))
}

#[test]
fn one_absence_has_one_version_also_where_a_write_came_to_nothing() {
    let (mut scene, tag) = scene();
    // The copy is newer than the write, so the write does not end it by itself.
    let first = version_read(&reads(&mut scene, 5, tag));
    scene.memory.advance(50);
    let (_, proposed) = scene.says(write(tag, 2, 1, Change::put("v".into()), false), false);
    let (standing, mut out) = (scene.standing(), HomeOut::default());
    scene.home.refused(&proposed[0], &scene.memory, standing, &mut out);
    assert_eq!(version_read(&reads(&mut scene, 6, tag)), first, "the copy that was given is valid still");
    scene.index = 60;
    assert_eq!(told(&writes(&mut scene, tag, 9, "v")), Ok((61, None)));
}

#[test]
fn a_write_that_was_done_is_not_refused_when_it_is_repeated() {
    let (mut scene, tag) = scene();
    let done = told(&scene.says(write(tag, 2, 7, absent("v"), false), true).0).expect("it is done");
    // Its answer is lost. What it demands is not so any more, so the log says what became of it.
    for (request, again) in [(3, true), (2, false)] {
        let (said, proposed) = scene.says(write(tag, request, 7, absent("v"), again), false);
        assert!(said.is_empty(), "{said:?}");
        let [proposal] = &proposed[..] else { panic!("{proposed:?}") };
        assert!(matches!(&proposal.command, Command::Own(own) if own.refused), "{proposal:?}");
        let repeated = Committed::Repeated(Applied::Wrote { index: done.0, sum: None });
        let said = scene.hears(proposal, repeated);
        assert_eq!(told(&said), Ok(done));
    }
}

#[test]
fn a_write_that_may_not_be_done_is_refused_at_once_or_by_the_log_and_changes_nothing() {
    let (mut scene, tag) = scene();
    writes(&mut scene, tag, 2, "there");
    // Its owner gives way first: only then is it known what is there.
    let (said, _) = scene.says(write(tag, 4, 4, absent("v"), false), false);
    let [ToNode::SnoopInv { transaction, .. }] = said[..] else { panic!("{said:?}") };
    let ack = |snooped| {
        let key = "k".into();
        ToHome::SnoopAck { request: 5, transaction, key, tag, snooped, incarnation: LIFE }
    };
    let dirty = Versioned::new(Version { epoch: scene.index, count: 3 }, Some("newest".into()));
    let (_, proposed) = scene.says(ack(Snooped::Dirty(dirty.clone())), false);
    assert!(matches!(&proposed[0].command, Command::WriteBack(back) if back.end), "{proposed:?}");
    let said = scene.commit(&proposed[0]);
    assert_eq!(told(&said), Err(ErrorCode::ConditionFailed));
    assert_eq!(scene.memory.stored("k"), dirty, "what its owner had is in main memory");
    // The log refuses a repeated one, and remembers that.
    let (_, proposed) = scene.says(write(tag, 9, 6, absent("v"), true), false);
    assert_eq!(told(&scene.commit(&proposed[0])), Err(ErrorCode::ConditionFailed));
    assert_eq!(scene.memory.stored("k"), dirty);
}

#[test]
fn what_the_log_has_refused_stays_refused_when_the_demand_is_met_later() {
    for (change, before, after, code) in [
        (absent("v"), Change::put("there".into()), Change::delete(), ErrorCode::ConditionFailed),
        (Change::of(What::Add(1)), Change::put("none".into()), Change::put("1".into()), ErrorCode::NotANumber),
    ] {
        let (mut scene, tag) = scene();
        let through = |change| Change { through: true, ..change };
        told(&scene.says(write(tag, 2, 2, through(before), false), true).0).expect("it is done");
        // The answer to the second copy is lost. The third one finds another value, and the log knows its number.
        let (_, proposed) = scene.says(write(tag, 4, 4, change.clone(), true), false);
        assert_eq!(told(&scene.commit(&proposed[0])), Err(code));
        told(&scene.says(write(tag, 5, 5, through(after), false), true).0).expect("it is done");
        let (_, proposed) = scene.says(write(tag, 6, 4, change, true), false);
        assert!(matches!(&proposed[0].command, Command::Own(own) if !own.refused), "{proposed:?}");
        let (standing, mut out) = (scene.standing(), HomeOut::default());
        scene.home.committed(&proposed[0], Committed::Repeated(Applied::Refused), &scene.memory, standing, &mut out);
        assert_eq!(out.propose, [], "it does not begin again");
        let said: Vec<ToNode> = out.to_node.into_iter().map(|(_, message)| message).collect();
        assert_eq!(told(&said), Err(code));
        // And the next one has its turn.
        told(&scene.says(write(tag, 7, 7, Change::put("next".into()), false), true).0).expect("it is done");
    }
}

#[test]
fn what_a_life_before_is_refused_silences_no_node_that_started_anew() {
    let (mut scene, tag) = scene();
    let (_, proposed) = scene.says(write(tag, 1_000, 1, Change::put("v".into()), false), false);
    // Its process starts anew meanwhile, and counts from the beginning.
    let tag = scene.registers(2).expect("another lease");
    let over = Error::new(ErrorCode::SessionExpired, "");
    assert_eq!(told(&scene.hears(&proposed[0], Committed::Refused(over))), Err(ErrorCode::SessionExpired));
    assert!(matches!(reads(&mut scene, 1, tag)[..], [ToNode::Filled { request: 1, .. }]));
}

#[test]
fn a_copy_that_joins_the_first_is_refused_by_the_log() {
    let (mut scene, tag) = scene();
    writes(&mut scene, tag, 2, "there");
    let (said, _) = scene.says(write(tag, 4, 4, absent("v"), false), false);
    let [ToNode::SnoopInv { transaction, .. }] = said[..] else { panic!("{said:?}") };
    assert_eq!(scene.says(write(tag, 5, 4, absent("v"), true), false), (vec![], vec![]), "that is under way");
    let (key, dirty) = ("k".into(), Versioned::new(Version { epoch: scene.index, count: 3 }, Some("newest".into())));
    let snooped = Snooped::Dirty(dirty);
    let ack = ToHome::SnoopAck { request: 6, transaction, key, tag, snooped, incarnation: LIFE };
    let (_, proposed) = scene.says(ack, false);
    let (standing, mut out, applied) = (scene.standing(), HomeOut::default(), scene.apply(&proposed[0]));
    scene.home.committed(&proposed[0], Committed::Applied(applied), &scene.memory, standing, &mut out);
    assert!(out.to_node.iter().all(|(_, said)| !matches!(said, ToNode::WriteFailed { .. })), "{:?}", out.to_node);
    let [refusal] = &out.propose[..] else { panic!("{:?}", out.propose) };
    let said = scene.commit(refusal);
    assert!(matches!(said[..], [ToNode::WriteFailed { request: 5, .. }]), "{said:?}");
}

#[test]
fn what_an_addition_came_to_is_in_the_log_with_it() {
    let (mut scene, tag) = scene();
    let add = |through| Change { through, ..Change::of(What::Add(5)) };
    assert_eq!(told(&scene.says(write(tag, 2, 1, add(true), false), true).0), Ok((scene.index, Some(5))));
    assert_eq!(scene.memory.owner("k"), None);
    let (index, sum) = told(&scene.says(write(tag, 3, 2, add(false), false), true).0).expect("done");
    assert_eq!(
        (sum, scene.memory.owner("k").map(|owner| (owner.epoch, owner.sum))),
        (Some(10), Some((index, Some(10))))
    );
    assert_eq!(scene.memory.stored("k").value, Some("10".into()));
    // The same again: its owner has not heard that it is.
    assert_eq!(told(&scene.says(write(tag, 4, 2, add(false), true), true).0), Ok((index, Some(10))));
}

#[test]
fn a_key_goes_when_its_time_in_the_log_is_over_and_its_copies_first() {
    let (mut scene, tag) = scene();
    let what = What::Put { value: "v".into(), content_type: String::new(), ttl_ms: 500 };
    scene.says(write(tag, 2, 1, Change::of(what), false), true);
    reads(&mut scene, 3, tag);
    assert!(scene.ticks(499).1.is_empty(), "it is not over");
    let (said, proposed) = scene.ticks(500);
    let [ToNode::SnoopInv { transaction, .. }] = said[..] else { panic!("{said:?}") };
    assert!(matches!(&proposed[..], [Proposal { command: Command::Remove(_), .. }]), "{proposed:?}");
    assert!(scene.ticks(501).1.is_empty(), "it is under way");
    scene.commit(&proposed[0]);
    assert_eq!(scene.memory.stored("k").value, None);
    // A read waits for the copy to be gone.
    assert!(reads(&mut scene, 4, tag).is_empty());
    let (key, snooped) = ("k".into(), Snooped::Gone);
    let ack = ToHome::SnoopAck { request: 5, transaction, key, tag, snooped, incarnation: LIFE };
    let said = scene.says(ack, true).0;
    assert!(matches!(&said[..], [ToNode::Filled { value: Versioned { value: None, .. }, .. }]), "{said:?}");
}

#[test]
fn a_key_that_was_written_anew_does_not_go() {
    let (mut scene, tag) = scene();
    let what = What::Put { value: "v".into(), content_type: String::new(), ttl_ms: 500 };
    scene.says(write(tag, 2, 1, Change::of(what), false), true);
    let (_, proposed) = scene.ticks(500);
    // The removal is on its way when the write comes: the write waits, and is there afterwards.
    let (said, none) = scene.says(write(tag, 3, 2, Change::put("new".into()), false), false);
    assert!(said.is_empty() && none.is_empty());
    scene.index += 1;
    let at = At { index: scene.index, stamp_ms: 0, wall_ms: 0, generation: 0 };
    let other = Own::refusal("k".into(), NodeId::numbered(2), LIFE, WriteId { session: 9, sequence: 1 });
    scene.memory.apply(at, &Command::Own(Own { value: Some("other".into()), through: true, refused: false, ..other }));
    scene.commit(&proposed[0]);
    assert_eq!(scene.memory.stored("k").value, Some("other".into()), "the version was another");
}

fn wants(scene: &mut Scene, request: u64, tag: LeaseTag) -> Option<FillAnswer> {
    let said = scene.says(ToHome::FillLease { request, key: "k".into(), lease_ms: 100, tag }, true).0;
    answer_of(&said, request)
}

fn answer_of(said: &[ToNode], of: u64) -> Option<FillAnswer> {
    said.iter().find_map(|message| match message {
        ToNode::FillAnswered { request, answer, .. } if *request == of => Some(answer.clone()),
        _ => None,
    })
}

#[test]
fn one_has_the_right_to_fill_until_it_ends_and_then_the_next() {
    let (mut scene, tag) = scene();
    let Some(FillAnswer::Yours { token }) = wants(&mut scene, 11, tag) else { panic!("it is free") };
    assert_eq!(wants(&mut scene, 12, tag), None, "it waits");
    assert_eq!(wants(&mut scene, 12, tag), None, "a copy of it waits no second time");
    assert_eq!(wants(&mut scene, 11, tag), Some(FillAnswer::Yours { token }), "the answer was lost");
    scene.now_us += 99_999;
    assert_eq!(scene.ticks(0).0, []);
    scene.now_us += 1;
    let said = scene.ticks(0).0;
    let Some(FillAnswer::Yours { token: next }) = answer_of(&said, 12) else { panic!("{said:?}") };
    assert_ne!(token, next);
    let fill = |token| Change { fill: token, ..Change::put("v".into()) };
    assert_eq!(told(&scene.says(write(tag, 20, 1, fill(token), false), true).0), Err(ErrorCode::StaleFill));
    assert_eq!(wants(&mut scene, 13, tag), None);
    // The fill is there, and who waits reads it.
    let said = scene.says(write(tag, 21, 2, fill(next), false), false);
    let said = scene.commit(&said.1[0]);
    assert!(told(&said).is_ok());
    assert_eq!(answer_of(&said, 13), Some(FillAnswer::Written));
    assert_eq!(told(&scene.says(write(tag, 22, 3, fill(next), false), true).0), Err(ErrorCode::StaleFill), "used");
    assert_eq!(wants(&mut scene, 14, tag), Some(FillAnswer::Written), "the key exists");
}

#[test]
fn a_right_to_fill_is_over_where_somebody_owns_the_key_also_when_he_is_away() {
    let (mut scene, tag) = scene();
    let Some(FillAnswer::Yours { token }) = wants(&mut scene, 11, tag) else { panic!("it is free") };
    // Another node writes, and owns the key by the log; no home of its has heard of it.
    scene.index += 1;
    let at = At { index: scene.index, stamp_ms: 0, wall_ms: 0, generation: 0 };
    let other = Own::refusal("k".into(), NodeId::numbered(2), LIFE, WriteId { session: 9, sequence: 1 });
    scene.memory.apply(at, &Command::Own(Own { value: Some("other".into()), refused: false, ..other }));
    let fill = Change { fill: token, ..Change::put("v".into()) };
    assert_eq!(told(&scene.says(write(tag, 20, 1, fill.clone(), false), true).0), Err(ErrorCode::StaleFill));
    let (said, proposed) = scene.says(write(tag, 21, 2, fill, true), false);
    assert!(said.is_empty(), "the log is asked first: {said:?}");
    assert_eq!(told(&scene.commit(&proposed[0])), Err(ErrorCode::StaleFill));
    assert_eq!(scene.memory.stored("k").value, Some("other".into()));
}

#[test]
fn a_right_that_is_returned_is_the_next_ones() {
    let (mut scene, tag) = scene();
    let Some(FillAnswer::Yours { token }) = wants(&mut scene, 11, tag) else { panic!("it is free") };
    wants(&mut scene, 12, tag);
    let wrong = ToHome::FillReturn { key: "k".into(), token: token + 1, tag };
    assert_eq!(scene.says(wrong, true).0, []);
    let said = scene.says(ToHome::FillReturn { key: "k".into(), token, tag }, true).0;
    assert!(matches!(answer_of(&said, 12), Some(FillAnswer::Yours { .. })), "{said:?}");
}

#[test]
fn as_many_wait_to_fill_a_key_as_there_is_room_for() {
    let (mut scene, tag) = scene();
    wants(&mut scene, 10_000, tag);
    for request in 0..Config::default().waiting_max as u64 {
        assert_eq!(wants(&mut scene, 11_000 + request, tag), None);
    }
    let one_more = wants(&mut scene, 20_000, tag);
    assert!(
        matches!(&one_more, Some(FillAnswer::Refused(error)) if error.code == ErrorCode::Overloaded),
        "{one_more:?}"
    );
}
