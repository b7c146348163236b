//! Every command at random, on a replica that is restarted again and again and on its twin that never is: they must answer the same,
//! keep the same records, and break no invariant. That finds what is missing from the records, and what is derived from them in another
//! way than it came about.

use bytes::Bytes;
use proptest::prelude::*;
use trine_protocol::queue::{
    AckMany, BackOff, Declare, Dequeue, Enqueue, EnqueueOptions, Expired, Extend, Flow, MessageState, Nack, Overflow,
    Policy, Purge, Receipt, Redrive, SetFlow, TenantWeight, Undeclare,
};

use super::disk::Disk;
use crate::ids::At;
use crate::queue::state::Limits;
use crate::queue::{Answer, Command, State};

#[derive(Clone, Debug)]
enum Op {
    Command(Command),
    /// Something with the receipt of an earlier delivery.
    Receipt(prop::sample::Index, What),
    Advance(u64, u64),
    Checkpoint,
    Restart,
}

#[derive(Clone, Debug)]
enum What {
    Ack,
    Extend(u32),
    Nack { delay_ms: Option<u32>, reject: bool },
}

fn queue() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b"]).prop_map(str::to_owned)
}

fn options() -> impl Strategy<Value = EnqueueOptions> {
    let word = |words: &'static [&'static str]| prop::sample::select(words).prop_map(str::to_owned);
    let times = (prop_oneof![3 => Just(0), 1 => 1..200_u64], prop_oneof![4 => Just(0), 1 => 1..300_u64]);
    let limits = (0..3_u32, prop::option::of((1..50_u32).prop_map(|ms| BackOff::Fixed { ms })));
    let names = (word(&["", "", "k", "l"]), word(&["", "t", "u"]), word(&["", "", "", "d", "e"]));
    (0..3_u8, names, times, limits).prop_map(
        |(priority, (key, tenant, dedup_id), (delay_ms, ttl_ms), (max_deliveries, back_off))| EnqueueOptions {
            priority,
            key,
            tenant,
            delay_ms,
            at_ms: 0,
            ttl_ms,
            dedup_id,
            max_deliveries,
            back_off,
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let bounds = (0..4_u32, 0..30_u64, 0..40_u64, prop_oneof![2 => Just(0), 1 => 50..400_u64]);
    let ways = (any::<bool>(), any::<bool>(), any::<bool>(), 0..3_u32, prop_oneof![Just(0), Just(20_u32)]);
    (bounds, ways).prop_map(
        |(
            (max_deliveries, messages_max, bytes_max, age_ms_max),
            (drops, buries, fair, key_in_flight_max, ageing_ms),
        )| Policy {
            max_deliveries,
            back_off: BackOff::Exponential { first_ms: 10, max_ms: 100, jitter_percent: 50 },
            visibility_ms: 60,
            messages_max,
            bytes_max,
            age_ms_max,
            overflow: if drops { Overflow::DropOldest } else { Overflow::Reject },
            expired: if buries { Expired::Bury } else { Expired::Drop },
            dedup_window_ms: 150,
            ageing_ms,
            key_in_flight_max,
            fair,
            weights: vec![TenantWeight { tenant: "t".into(), weight: 3 }],
            partitions: 0,
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    let enqueue = (queue(), 0..4_usize, prop::option::of(options())).prop_map(|(queue, bytes, options)| {
        Command::Enqueue(Enqueue {
            queue,
            body: Bytes::from(vec![0; bytes]),
            options: options.map(Box::new),
            ..Enqueue::default()
        })
    });
    let dequeue = (queue(), 1..120_u32, 1..4_u32).prop_map(|(queue, visibility_ms, count_max)| {
        let consumer = if count_max == 1 { "c".to_owned() } else { String::new() };
        Command::Dequeue(Dequeue { queue, visibility_ms, count_max, wait_ms: 0, consumer })
    });
    let flow = prop::sample::select(vec![Flow::Open, Flow::Open, Flow::Paused, Flow::Draining]);
    let state =
        prop::option::of(prop::sample::select(vec![MessageState::Dead, MessageState::Delayed, MessageState::InFlight]));
    prop_oneof![
        12 => enqueue,
        10 => dequeue,
        2 => (queue(), policy()).prop_map(|(queue, policy)| Command::Declare(Declare { queue, policy })),
        1 => queue().prop_map(|queue| Command::Undeclare(Undeclare { queue })),
        1 => (queue(), flow).prop_map(|(queue, flow)| Command::SetFlow(SetFlow { queue, flow })),
        1 => (queue(), state).prop_map(|(queue, state)| Command::Purge(Purge { queue, state })),
        2 => (queue(), 0..3_u32, 0..40_u32).prop_map(|(queue, count_max, per_second)| {
            Command::Redrive(Redrive { queue, filter: None, count_max, per_second })
        }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let what = prop_oneof![
        4 => Just(What::Ack),
        1 => (1..100_u32).prop_map(What::Extend),
        3 => (prop::option::of(0..80_u32), prop::bool::weighted(0.2)).prop_map(|(delay_ms, reject)| What::Nack { delay_ms, reject }),
    ];
    prop_oneof![
        20 => command().prop_map(Op::Command),
        8 => (any::<prop::sample::Index>(), what).prop_map(|(which, what)| Op::Receipt(which, what)),
        8 => (0..60_u64, 0..60_u64).prop_map(|(stamp_ms, wall_ms)| Op::Advance(stamp_ms, wall_ms)),
        6 => Just(Op::Checkpoint),
        2 => Just(Op::Restart),
    ]
}

struct Twins {
    state: State,
    twin: State,
    disk: Disk,
    at: At,
    /// How far the ids of two commands are apart: beyond 63, no record holds two messages.
    stride: u64,
    receipts: Vec<(String, Receipt)>,
}

impl Twins {
    fn command(&mut self, command: &Command) {
        self.at.index += self.stride;
        let At { stamp_ms, wall_ms, .. } = self.at;
        assert_eq!(self.state.expire(stamp_ms, wall_ms), self.twin.expire(stamp_ms, wall_ms), "timeouts");
        let answer = self.state.apply(self.at, command);
        assert_eq!(answer, self.twin.apply(self.at, command), "two replicas answer {command:?}");
        if let (Ok(Answer::Delivered(handed)), Command::Dequeue(dequeue)) = (answer, command) {
            let receipt = |one: &crate::queue::Handed| Receipt { id: one.id, token: one.token };
            self.receipts.extend(handed.iter().map(|one| (dequeue.queue.clone(), receipt(one))));
        }
        self.state.check_invariants();
        self.twin.check_invariants();
        assert_eq!(self.state.records(), self.twin.records(), "records after {command:?}");
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Command(command) => self.command(command),
            Op::Receipt(which, what) => {
                if self.receipts.is_empty() {
                    return;
                }
                let (queue, receipt) = which.get(&self.receipts).clone();
                self.command(&match what {
                    What::Ack => Command::AckMany(AckMany { queue, receipts: vec![receipt], if_token: None }),
                    What::Extend(visibility_ms) => {
                        Command::Extend(Extend { queue, receipt, visibility_ms: *visibility_ms })
                    }
                    What::Nack { delay_ms, reject } => Command::Nack(Nack {
                        queue,
                        receipt,
                        delay_ms: *delay_ms,
                        reason: "why".into(),
                        reject: *reject,
                        if_token: None,
                    }),
                });
            }
            Op::Advance(stamp_ms, wall_ms) => {
                self.at.stamp_ms += stamp_ms;
                self.at.wall_ms += wall_ms;
            }
            Op::Checkpoint => drop(self.disk.checkpoint(&mut self.state)),
            Op::Restart => {
                self.disk.checkpoint(&mut self.state);
                self.state = self.disk.restore(self.state.limits);
                self.state.check_invariants();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn a_replica_that_restarts_is_as_one_that_never_does(
        ops in prop::collection::vec(op(), 1..150),
        stride in prop::sample::select(vec![1_u64, 64]),
    ) {
        let at = At { index: 0, stamp_ms: 0, wall_ms: 0, generation: 0 };
        let (state, twin) = (Disk::default().restore(Limits::default()), Disk::default().restore(Limits::default()));
        let mut twins = Twins { state, twin, disk: Disk::default(), at, stride, receipts: Vec::new() };
        for op in &ops {
            twins.step(op);
        }
        twins.step(&Op::Restart);
        twins.command(&Command::Dequeue(Dequeue { queue: "a".into(), visibility_ms: 1, count_max: 256, ..Dequeue::default() }));
    }
}
