//! Properties that no bug of `broken` violates, each shown something that it must see.

use bytes::Bytes;
use trine_protocol::cache::{Got, LineState, Source, Version, Written, WrittenBack};
use trine_protocol::{Error, ErrorCode, Response};

use super::properties::stuck;
use super::starts::Start;
use super::step::{NOT_DONE, ONE_VALUE, VERSIONS_GROW, WRITTEN_BACK};
use super::world::{Waits, Want, World};
use super::{Bus, Faithful};

/// A client of node 2 waits, and nobody knows of it.
const CALLER: u64 = 99;

/// The world of `start`, in which such a client wants something.
fn asked(start: Start, want: Want) -> World<Faithful> {
    let mut world = start.world();
    let floor = world.seen.newest[&0].version;
    world.waits.insert(CALLER, Waits { node: 2, key: 0, want, floor });
    world
}

fn answered(start: Start, want: Want, result: Result<Response, Error>) -> Vec<&'static str> {
    let mut world = asked(start, want);
    world.replied(CALLER, result);
    world.look();
    world.seen.broken.keys().copied().collect()
}

/// The newest version that was seen at the beginning of `start`.
fn newest(start: Start) -> Version {
    start.world::<Faithful>().seen.newest[&0].version
}

#[test]
fn a_client_that_nobody_knows_of_is_seen() {
    let bus = Bus::<Faithful>::new(Start::Sharers, None);
    assert_eq!([true, false].map(|lost| bus.first.gets_stuck(&bus.limits, lost)), [None, None]);
    let mut world = asked(Start::Sharers, Want::Read);
    world.budget = super::world::Budget::default();
    assert!(stuck(&bus, &world).is_some_and(|why| why.contains("unanswered")), "nothing else is left to do");
}

#[test]
fn a_write_that_is_no_newer_than_what_was_seen_is_seen() {
    let (want, version) = (Want::Write(Some("x".into())), newest(Start::Sharers));
    let broken = answered(Start::Sharers, want, Ok(Response::Put(Written { version })));
    assert!(broken.contains(&VERSIONS_GROW), "{broken:?}");
}

#[test]
fn a_second_value_of_one_version_is_seen() {
    let (value, version) = (Some(Bytes::from("x")), newest(Start::Sharers));
    let got = Got { value, version, state: LineState::I, source: Source::MainMemory, content_type: String::new() };
    let broken = answered(Start::Sharers, Want::Read, Ok(Response::Get(got)));
    assert_eq!(broken, [ONE_VALUE]);
}

#[test]
fn a_refused_write_that_is_done_is_seen() {
    let value = Start::Sharers.world::<Faithful>().seen.newest[&0].value.clone();
    let refused = |code| answered(Start::Sharers, Want::Write(value.clone()), Err(Error::new(code, "")));
    assert_eq!(refused(ErrorCode::BusLeaseLapsed), [NOT_DONE]);
    assert_eq!(refused(ErrorCode::OutcomeUnknown), [""; 0], "nobody said that it was not done");
}

#[test]
fn a_write_back_that_did_not_happen_is_seen() {
    let answer = || Ok(Response::WriteBack(WrittenBack { state: LineState::E }));
    assert_eq!(answered(Start::Modified, Want::WriteBack, answer()), [WRITTEN_BACK], "node 2 alone has the value");
    assert_eq!(answered(Start::Sharers, Want::WriteBack, answer()), [""; 0]);
}
