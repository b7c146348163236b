//! Records that are not ours, or damaged: an error, never a panic, never a state that breaks its invariants.

use proptest::prelude::*;
use trine_protocol::lock::Mode;

use crate::ids::At;
use crate::lock::State;
use crate::record::encode;
use crate::rules::Faithful;

/// Client, token, granted_ms, deadline_ms, mode, rest.
type Hold<'a> = (&'a str, u64, u64, u64, Mode, Option<()>);
/// The grants, and until when nobody gets it.
type Value<'a> = (Vec<Hold<'a>>, u64);

const SOUND: Hold<'static> = ("c1", 5, 100, 600, Mode::Exclusive, None);

fn sound() -> Value<'static> {
    (vec![SOUND], 0)
}

fn of<'a>(client: &'a str, token: u64) -> Value<'a> {
    (vec![(client, token, 100, 600, Mode::Exclusive, None)], 0)
}

fn refusal(key: &[u8], value: Value<'_>) -> String {
    let error = State::default().restore(key, &encode(&value)).unwrap_err();
    assert_eq!(error.key, key);
    error.why
}

#[test]
fn a_sound_record_is_taken_once() {
    let mut state = State::default();
    state.restore(b"l\0\x04demo", &encode(&sound())).unwrap();
    state.check_invariants();
    let held = state.holder("demo").unwrap();
    assert_eq!((&*held.client, held.token, held.granted_ms, held.deadline_ms), ("c1", 5, 100, 600));
    assert_eq!(state.records(), [(b"l\0\x04demo".to_vec(), encode(&sound()))]);
    let again = state.restore(b"l\0\x04demo", &encode(&of("c1", 6))).unwrap_err();
    assert_eq!(again.why, "the lock is there twice");
    state.restore(b"l\0\x05other", &encode(&sound())).unwrap();
    state.check_invariants();
}

#[test]
fn a_key_of_another_shape_is_refused() {
    for key in [&b"l"[..], b"l\0", b"q\0\x04demo", b""] {
        assert_eq!(refusal(key, sound()), "the key is not 'l', a length and a name");
    }
    assert_eq!(refusal(b"l\0\x05demo", sound()), "the key says 5 bytes of a name and has 4");
    assert_eq!(refusal(b"l\x01\x04demo", sound()), "the key says 260 bytes of a name and has 4");
    assert_eq!(refusal(b"l\0\x02\xff\xff", sound()), "invalid utf-8 sequence of 1 bytes from index 0");
}

#[test]
fn a_record_that_would_break_an_invariant_is_refused() {
    assert_eq!(refusal(b"l\0\0", sound()), "the lock's name is empty");
    assert_eq!(refusal(b"l\0\x04demo", of("", 5)), "the client's name is empty");
    assert_eq!(refusal(b"l\0\x04demo", of("c1", 0)), "token 0 is no grant's, or out of order");
    let long = "x".repeat(513);
    assert_eq!(refusal(b"l\0\x04demo", of(&long, 5)), "the client's name has 513 bytes, at most 512 are allowed");
    let key = [b"l\x02\x01", long.as_bytes()].concat();
    assert_eq!(refusal(&key, sound()), "the lock's name has 513 bytes, at most 512 are allowed");
}

proptest! {
    #[test]
    fn damage_is_an_error_or_a_sound_state(at in any::<prop::sample::Index>(), flip in 1..=255_u8, cut in any::<prop::sample::Index>()) {
        let sound = encode(&sound());
        let mut flipped = sound.clone();
        flipped[at.index(sound.len())] ^= flip;
        let mut state = State::default();
        if state.restore(b"l\0\x04demo", &flipped).is_ok() {
            state.check_invariants();
            let last = At { index: 1 << 40, stamp_ms: u64::MAX - 1, wall_ms: 0, generation: 0 };
            state.expire::<Faithful>(last, &[]);
            state.check_invariants();
        }
        prop_assert!(State::default().restore(b"l\0\x04demo", &sound[..cut.index(sound.len())]).is_err());
    }
}
