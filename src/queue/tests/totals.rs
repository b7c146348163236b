//! What the metrics rest on: sums that are kept as things change, over deliveries, timeouts and a restart.

use trine_protocol::queue::{Ack, AckWhich, Dequeue, Enqueue};

use crate::ids::At;
use crate::queue::{Answer, Command, Counts, State, Totals};

struct Bench {
    state: State,
    index: u64,
}

impl Bench {
    fn apply(&mut self, stamp_ms: u64, command: Command) -> Answer {
        self.index += 1;
        self.state.expire(stamp_ms, 0);
        let at = At { index: self.index, stamp_ms, wall_ms: 0, generation: 0 };
        let answer = self.state.apply(at, &command).expect("the command is taken");
        self.state.check_invariants();
        answer
    }

    fn enqueue(&mut self, stamp_ms: u64, queue: &str, body: &str) {
        self.apply(
            stamp_ms,
            Command::Enqueue(Enqueue { queue: queue.into(), body: body.to_owned().into(), ..Enqueue::default() }),
        );
    }

    fn dequeue(&mut self, stamp_ms: u64, queue: &str) -> (u64, u64) {
        let dequeue = Dequeue { queue: queue.into(), visibility_ms: 100, count_max: 1, ..Dequeue::default() };
        match self.apply(stamp_ms, Command::Dequeue(dequeue)) {
            Answer::Delivered(handed) => (handed[0].id, handed[0].token),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn totals_follow_every_change_and_outlive_a_restart() {
    let mut bench = Bench { state: State::default(), index: 0 };
    assert_eq!(bench.state.totals(), Totals::default());
    bench.enqueue(1_000, "a", "four");
    bench.enqueue(2_000, "b", "seventy");
    bench.enqueue(3_000, "a", "x");
    let totals = bench.state.totals();
    assert_eq!((totals.queues, totals.ready, totals.in_flight, totals.bytes), (2, 3, 0, 12));
    assert_eq!(totals.oldest_ready_ms, Some(1_000));

    bench.dequeue(3_000, "a");
    assert_eq!(bench.state.totals().oldest_ready_ms, Some(2_000), "what is in flight waits for nobody");
    let (id, token) = bench.dequeue(3_010, "b");
    let totals = bench.state.totals();
    assert_eq!((totals.ready, totals.in_flight, totals.bytes), (1, 2, 12));
    bench.apply(3_020, Command::Ack(Ack { queue: "b".into(), which: AckWhich::Receipt { id, token }, if_token: None }));
    let totals = bench.state.totals();
    assert_eq!((totals.queues, totals.ready, totals.in_flight, totals.bytes), (1, 1, 1, 5));

    // The first message comes back when its time is over, at its old age.
    assert_eq!(bench.state.expire(3_100, 0), 1);
    assert_eq!(bench.state.totals().oldest_ready_ms, Some(1_000));
    bench.dequeue(3_110, "a");
    let counts =
        Counts { enqueued: 3, delivered: 3, redelivered: 1, acknowledged: 1, timed_out: 1, ..Counts::default() };
    assert_eq!(bench.state.totals().counts, counts);

    let mut restarted = State::default();
    for (key, value) in bench.state.records() {
        restarted.restore(&key, &value).expect("our own record");
    }
    restarted.finish().expect("our own records");
    restarted.check_invariants();
    assert_eq!(restarted.totals(), Totals { counts: Counts::default(), ..bench.state.totals() });
}
