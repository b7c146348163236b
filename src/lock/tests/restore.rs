//! Records that are not ours, or damaged: an error, never a panic, never a state that breaks its invariants.

use proptest::prelude::*;

use crate::lock::State;
use crate::record::encode;

/// Client, token, granted_ms, deadline_ms.
type Value<'a> = (&'a str, u64, u64, u64);

const SOUND: Value<'static> = ("c1", 5, 100, 600);

fn refusal(key: &[u8], value: Value<'_>) -> String {
    let error = State::default().restore(key, &encode(&value)).unwrap_err();
    assert_eq!(error.key, key);
    error.why
}

#[test]
fn a_sound_record_is_taken_once() {
    let mut state = State::default();
    state.restore(b"l\0\x04demo", &encode(&SOUND)).unwrap();
    state.check_invariants();
    let held = state.holder("demo").unwrap();
    assert_eq!((&*held.client, held.token, held.granted_ms, held.deadline_ms), SOUND);
    assert_eq!(state.records(), [(b"l\0\x04demo".to_vec(), encode(&SOUND))]);
    let again = state.restore(b"l\0\x04demo", &encode(&("c1", 6, 100, 600))).unwrap_err();
    assert_eq!(again.why, "the lock is there twice");
    let same_token = state.restore(b"l\0\x05other", &encode(&SOUND)).unwrap_err();
    assert_eq!(same_token.why, "token 5 is no grant's, or another lock's");
}

#[test]
fn a_key_of_another_shape_is_refused() {
    for key in [&b"l"[..], b"l\0", b"q\0\x04demo", b""] {
        assert_eq!(refusal(key, SOUND), "the key is not 'l', a length and a name");
    }
    assert_eq!(refusal(b"l\0\x05demo", SOUND), "the key says 5 bytes of a name and has 4");
    assert_eq!(refusal(b"l\x01\x04demo", SOUND), "the key says 260 bytes of a name and has 4");
    assert_eq!(refusal(b"l\0\x02\xff\xff", SOUND), "invalid utf-8 sequence of 1 bytes from index 0");
}

#[test]
fn a_record_that_would_break_an_invariant_is_refused() {
    assert_eq!(refusal(b"l\0\0", SOUND), "the lock's name is empty");
    assert_eq!(refusal(b"l\0\x04demo", ("", 5, 100, 600)), "the client's name is empty");
    assert_eq!(refusal(b"l\0\x04demo", ("c1", 0, 100, 600)), "token 0 is no grant's, or another lock's");
    let long = "x".repeat(513);
    assert_eq!(
        refusal(b"l\0\x04demo", (&long, 5, 100, 600)),
        "the client's name has 513 bytes, at most 512 are allowed"
    );
    let key = [b"l\x02\x01", long.as_bytes()].concat();
    assert_eq!(refusal(&key, SOUND), "the lock's name has 513 bytes, at most 512 are allowed");
}

proptest! {
    #[test]
    fn damage_is_an_error_or_a_sound_state(at in any::<prop::sample::Index>(), flip in 1..=255_u8, cut in any::<prop::sample::Index>()) {
        let sound = encode(&SOUND);
        let mut flipped = sound.clone();
        flipped[at.index(sound.len())] ^= flip;
        let mut state = State::default();
        if state.restore(b"l\0\x04demo", &flipped).is_ok() {
            state.check_invariants();
            prop_assert_eq!(state.expire(u64::MAX), 1);
        }
        prop_assert!(State::default().restore(b"l\0\x04demo", &sound[..cut.index(sound.len())]).is_err());
    }
}
