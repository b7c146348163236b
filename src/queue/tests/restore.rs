//! Records that are not ours, or damaged: an error, never a panic, never a state that breaks its invariants.

use proptest::prelude::*;
use trine_protocol::queue::{Ack, AckWhich, Declare, Dequeue, Enqueue, EnqueueOptions, Expired, Nack, Policy, Receipt};

use super::super::state::{Delivery, DeliveryMore};
use super::super::stored::{StoredBucket, StoredMessage, key};
use super::disk::Disk;
use crate::ids::At;
use crate::queue::due::DUE_MAX;
use crate::queue::{Answer, Command, Handed, State};
use crate::record::encode;

fn message(offset: u8) -> StoredMessage {
    StoredMessage { offset, queue: 0, digest_high: 1, digest_low: 2, bytes: 3, enqueued_ms: 4, delivery: None }
}

fn bucket(messages: Vec<StoredMessage>) -> StoredBucket {
    StoredBucket { queues: vec!["orders".into()], messages }
}

/// Why the record is refused.
fn refusal(key: &[u8], bucket: &StoredBucket) -> String {
    let error = State::default().restore(key, &encode(bucket)).unwrap_err();
    assert_eq!(error.key, key);
    error.why
}

#[test]
fn a_sound_record_is_taken_once() {
    let (key, value) = (key(7), encode(&bucket(vec![message(0), message(63)])));
    let mut state = State::default();
    state.restore(&key, &value).unwrap();
    state.finish().unwrap();
    state.check_invariants();
    assert_eq!(state.live_bodies(0, u64::MAX), [448, 511]);
    assert_eq!(state.restore(&key, &value).unwrap_err().why, "the record is there twice");
}

#[test]
fn a_delayed_message_that_dies_of_its_age_is_as_dead_after_a_restart() {
    let (mut state, mut disk) = (State::default(), Disk::default());
    let at = |index, ms| At { index, stamp_ms: ms, wall_ms: ms, generation: 0 };
    let policy = Policy { expired: Expired::Bury, ..Policy::default() };
    state.apply(at(1, 0), &Command::Declare(Declare { queue: "q".into(), policy })).unwrap();
    let options = EnqueueOptions { ttl_ms: 100, ..EnqueueOptions::default() };
    let enqueue = Enqueue { queue: "q".into(), options: Some(Box::new(options)), ..Enqueue::default() };
    state.apply(at(2, 0), &Command::Enqueue(enqueue)).unwrap();
    let dequeue = Dequeue { queue: "q".into(), visibility_ms: 50, ..Dequeue::default() };
    let handed = state.apply(at(3, 10), &Command::Dequeue(dequeue)).unwrap();
    let Answer::Delivered(handed) = handed else { panic!("{handed:?}") };
    let receipt = Receipt { id: handed[0].id, token: handed[0].token };
    let nack = Nack { queue: "q".into(), receipt, delay_ms: Some(1_000), ..Nack::default() };
    state.apply(at(4, 20), &Command::Nack(nack)).unwrap();
    disk.checkpoint(&mut state);
    state.expire(100, 100);
    disk.checkpoint(&mut state);
    assert_eq!(disk.restore(state.limits).records(), state.records());
}

/// Everything happens at that instant, of both clocks.
struct Group {
    state: State,
    index: u64,
    now_ms: u64,
}

impl Group {
    fn new() -> Self {
        Self { state: State::default(), index: 0, now_ms: 0 }
    }

    fn command(&mut self, command: Command) -> Answer {
        self.index += 1;
        let at = At { index: self.index, stamp_ms: self.now_ms, wall_ms: self.now_ms, generation: 0 };
        self.state.apply(at, &command).unwrap()
    }

    fn put(&mut self, queue: &str, ttl_ms: u64) {
        let options = Some(Box::new(EnqueueOptions { ttl_ms, ..EnqueueOptions::default() }));
        self.command(Command::Enqueue(Enqueue { queue: queue.into(), options, ..Enqueue::default() }));
    }

    fn take(&mut self, queue: &str, count_max: u32) -> Vec<Handed> {
        let dequeue = Dequeue { queue: queue.into(), visibility_ms: 600_000, count_max, ..Dequeue::default() };
        let Answer::Delivered(handed) = self.command(Command::Dequeue(dequeue)) else { panic!("no deliveries") };
        handed
    }

    /// What comes due at that instant is the same for one that was restored meanwhile.
    fn is_alike_after_a_restart_at(&mut self, ms: u64) {
        let mut disk = Disk::default();
        disk.checkpoint(&mut self.state);
        let mut restored = disk.restore(self.state.limits);
        for state in [&mut self.state, &mut restored] {
            state.expire(ms, ms);
            state.check_invariants();
        }
        assert!(self.state.records() == restored.records(), "two replicas, two states");
    }
}

#[test]
fn what_outlived_its_time_in_flight_takes_no_turn_from_others_after_a_restart() {
    let mut group = Group::new();
    (0..DUE_MAX).for_each(|_| group.put("q", 1_000));
    let mut taken = 0;
    while taken < DUE_MAX {
        taken += group.take("q", 256).len();
    }
    group.put("q", 5_000);
    group.state.expire(2_000, 2_000);
    group.is_alike_after_a_restart_at(6_000);
}

#[test]
fn of_two_queues_with_more_that_is_too_old_than_one_entry_ends_the_same_goes_first_after_a_restart() {
    let mut group = Group::new();
    // The second queue that is made stands where the first one was.
    group.put("gone", 0);
    group.put("a", 0);
    let first = &group.take("gone", 1)[0];
    let which = AckWhich::Receipt { id: first.id, token: first.token };
    group.command(Command::Ack(Ack { queue: "gone".into(), which, if_token: None }));
    for queue in ["b", "a"] {
        let policy = Policy { age_ms_max: 100, expired: Expired::Drop, ..Policy::default() };
        group.command(Command::Declare(Declare { queue: queue.into(), policy }));
        (0..DUE_MAX * 3 / 5).for_each(|_| group.put(queue, 0));
    }
    group.is_alike_after_a_restart_at(1_000);
}

#[test]
fn a_key_of_another_shape_is_refused() {
    let sound = bucket(vec![message(1)]);
    for key in [b"q".to_vec(), b"l\0\0\0\0\0\0\0\0".to_vec(), b"q\0\0\0\0\0\0\0\0\0".to_vec(), Vec::new()] {
        assert_eq!(refusal(&key, &sound), "the key is not 'q' and the 8 bytes of a bucket");
    }
    assert_eq!(refusal(&key(1 << 42), &sound), "bucket 4398046511104 lies beyond every log");
}

#[test]
fn a_record_that_would_break_an_invariant_is_refused() {
    assert_eq!(refusal(&key(1), &bucket(vec![])), "no message in it");
    assert_eq!(refusal(&key(0), &bucket(vec![message(0)])), "a message at offset 0 where none can be");
    assert_eq!(refusal(&key(1), &bucket(vec![message(64)])), "a message at offset 64 where none can be");
    assert_eq!(refusal(&key(1), &bucket(vec![message(5), message(5)])), "a message at offset 5 where none can be");
    assert_eq!(refusal(&key(1), &bucket(vec![message(5), message(4)])), "a message at offset 4 where none can be");
    let elsewhere = StoredMessage { queue: 1, ..message(3) };
    assert_eq!(refusal(&key(1), &bucket(vec![elsewhere])), "message 3 is in queue 1 of 1");
    let huge = StoredMessage { bytes: 1_048_577, ..message(3) };
    assert_eq!(refusal(&key(1), &bucket(vec![huge])), "message 3 has a body of 1048577 bytes");
    for (token, deliveries) in [(1, 0), (0, 1)] {
        let never = StoredMessage {
            delivery: Some(Delivery { token, deadline_ms: None, deliveries, more: None }),
            ..message(3)
        };
        assert_eq!(refusal(&key(1), &bucket(vec![never])), "message 3 has a delivery that never was");
    }
    let nameless = StoredBucket { queues: vec![String::new()], messages: vec![message(3)] };
    assert_eq!(refusal(&key(1), &nameless), "a queue's name has 0 bytes");
    let long = StoredBucket { queues: vec!["x".repeat(513)], messages: vec![message(3)] };
    assert_eq!(refusal(&key(1), &long), "a queue's name has 513 bytes");
}

#[test]
fn the_largest_record_stays_below_64_kib() {
    let name = |number: usize| format!("{number:x<512}");
    let more = DeliveryMore { void: true, consumer: "c".repeat(64), since_ms: u64::MAX };
    let known = || Some(Box::new(more.clone()));
    let delivery = Some(Delivery { token: u64::MAX, deadline_ms: Some(u64::MAX), deliveries: u32::MAX, more: known() });
    let (digest_high, digest_low, bytes, enqueued_ms) = (u64::MAX, u64::MAX, 1 << 20, u64::MAX);
    let largest = |offset| {
        let delivery = delivery.clone();
        StoredMessage { offset, queue: offset, digest_high, digest_low, bytes, enqueued_ms, delivery }
    };
    let record = StoredBucket { queues: (0..64).map(name).collect(), messages: (0..64).map(largest).collect() };
    let value = encode(&record);
    assert!(value.len() <= 43 * 1024, "{} bytes", value.len());
    let mut state = State::default();
    state.restore(&key(1), &value).unwrap();
    state.finish().unwrap();
    assert_eq!(state.records(), [(key(1), value)]);
}

/// Lets time pass, takes everything and acknowledges it.
fn empty(mut state: State) {
    let at = |index, stamp_ms| At { index, stamp_ms, wall_ms: 0, generation: 9 };
    state.expire(u64::MAX, 0);
    let names: Vec<String> = state.stats().map(|stats| stats.queue.to_owned()).collect();
    for queue in names {
        let dequeue = Dequeue { queue: queue.clone(), visibility_ms: 1, count_max: 256, ..Dequeue::default() };
        let Ok(Answer::Delivered(handed)) = state.apply(at(1 << 47, 0), &Command::Dequeue(dequeue)) else {
            panic!("a dequeue that was refused");
        };
        for Handed { id, token, .. } in handed {
            let ack = Ack { queue: queue.clone(), which: AckWhich::Receipt { id, token }, if_token: None };
            assert_eq!(state.apply(at((1 << 47) + 1, 0), &Command::Ack(ack)), Ok(Answer::Acked { id }));
        }
    }
    state.check_invariants();
    assert!(state.is_empty());
}

proptest! {
    #[test]
    fn damage_is_an_error_or_a_state_that_works(at in any::<prop::sample::Index>(), flip in 1..=255_u8, cut in any::<prop::sample::Index>()) {
        let handed = Some(Delivery { token: 9, deadline_ms: Some(500), deliveries: 1, more: None });
        let sound = encode(&bucket(vec![StoredMessage { delivery: handed, ..message(2) }, message(9)]));
        let mut flipped = sound.clone();
        flipped[at.index(sound.len())] ^= flip;
        let mut state = State::default();
        if state.restore(&key(3), &flipped).is_ok() && state.finish().is_ok() {
            empty(state);
        }
        prop_assert!(State::default().restore(&key(3), &sound[..cut.index(sound.len())]).is_err());
    }
}
