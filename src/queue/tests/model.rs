//! The same questions to the state machine and to a naive model: a list of all messages that ever were, scanned for each answer.
//!
//! The model shares no idea with the machine: nothing expires in it, for whether a message is hidden follows from its newest
//! delivery and the time; it keeps bodies and compares them; it has no queues, no buckets and no indexes.

use bytes::Bytes;
use proptest::prelude::*;
use trine_protocol::queue::{Ack, AckWhich, Dequeue, Enqueue};
use trine_protocol::{Error, ErrorCode};

use super::disk::Disk;
use crate::ids::{At, Index};
use crate::queue::state::Limits;
use crate::queue::{Answer, Command, Handed, State};

/// So that the small bodies of this model reach it.
const BATCH_BYTES_MAX: usize = 3;

struct Message {
    id: Index,
    queue: String,
    body: Bytes,
    enqueued_ms: u64,
    /// (token, deadline) of each delivery.
    handed: Vec<(u64, u64)>,
    gone: bool,
}

impl Message {
    fn hidden(&self, now_ms: u64) -> bool {
        self.handed.last().is_some_and(|(_, deadline_ms)| now_ms < *deadline_ms)
    }
}

#[derive(Default)]
struct Model {
    messages: Vec<Message>,
}

impl Model {
    fn apply(&mut self, at: At, command: &Command) -> Result<Answer, ErrorCode> {
        match command {
            Command::Enqueue(Enqueue { queue, body, .. }) => {
                let (queue, body) = (queue.clone(), body.clone());
                let message =
                    Message { id: at.index, queue, body, enqueued_ms: at.stamp_ms, handed: vec![], gone: false };
                self.messages.push(message);
                Ok(Answer::Enqueued { id: at.index, duplicate: false })
            }
            Command::Dequeue(Dequeue { queue, visibility_ms, count_max, .. }) => {
                let (mut handed, mut bytes) = (Vec::new(), 0);
                for message in &mut self.messages {
                    let wanted = message.queue == *queue && !message.gone && !message.hidden(at.stamp_ms);
                    if wanted {
                        bytes += message.body.len();
                        if handed.len() == (*count_max).max(1) as usize
                            || (bytes > BATCH_BYTES_MAX && !handed.is_empty())
                        {
                            break;
                        }
                        let visibility_ms = if *visibility_ms == 0 { 30_000 } else { u64::from(*visibility_ms) };
                        message.handed.push((at.token(), at.stamp_ms + visibility_ms));
                        let deliveries = message.handed.len() as u32;
                        handed.push(Handed { id: message.id, token: at.token(), deliveries, attributes: None });
                    }
                }
                Ok(Answer::Delivered(handed))
            }
            Command::Ack(Ack { queue, which, .. }) => {
                let id = self.which(at.stamp_ms, queue, which)?;
                self.messages.iter_mut().find(|message| message.id == id).unwrap().gone = true;
                Ok(Answer::Acked { id })
            }
            other => unreachable!("the model knows nothing of {other:?}"),
        }
    }

    fn which(&self, now_ms: u64, queue: &str, which: &AckWhich) -> Result<Index, ErrorCode> {
        let candidates = self.messages.iter().filter(|message| message.queue == queue && !message.gone);
        match which {
            AckWhich::Receipt { id, token } => {
                let message = candidates.into_iter().find(|message| message.id == *id).ok_or(ErrorCode::NotInFlight)?;
                match message.handed.last() {
                    Some((newest, _)) if newest == token => Ok(*id),
                    Some((newest, _)) if newest > token => Err(ErrorCode::StaleReceipt),
                    _ => Err(ErrorCode::NotInFlight),
                }
            }
            AckWhich::Body(body) => {
                let mut best: Option<(bool, u64, Index)> = None;
                for message in candidates.filter(|message| message.body == *body && !message.handed.is_empty()) {
                    let place = (!message.hidden(now_ms), message.handed.last().unwrap().0, message.id);
                    best = Some(best.map_or(place, |best| best.min(place)));
                }
                best.map(|(_, _, id)| id).ok_or(ErrorCode::NotInFlight)
            }
        }
    }

    /// (queue, ready, in flight, oldest, bytes) of each queue.
    fn stats(&self, now_ms: u64) -> Vec<(String, u64, u64, u64, u64)> {
        let mut all: Vec<(String, u64, u64, u64, u64)> = Vec::new();
        for message in self.messages.iter().filter(|message| !message.gone) {
            let place = all.iter().position(|(queue, ..)| *queue == message.queue).unwrap_or_else(|| {
                all.push((message.queue.clone(), 0, 0, message.enqueued_ms, 0));
                all.len() - 1
            });
            let (_, ready, in_flight, _, bytes) = &mut all[place];
            *(if message.hidden(now_ms) { in_flight } else { ready }) += 1;
            *bytes += message.body.len() as u64;
        }
        all.sort();
        all
    }

    fn next_deadline_ms(&self, now_ms: u64) -> Option<u64> {
        let hidden = self.messages.iter().filter(|message| !message.gone && message.hidden(now_ms));
        hidden.map(|message| message.handed.last().unwrap().1).min()
    }

    fn live(&self) -> Vec<Index> {
        self.messages.iter().filter(|message| !message.gone).map(|message| message.id).collect()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Enqueue {
        queue: u8,
        body: u8,
    },
    Dequeue {
        queue: u8,
        visibility_ms: u32,
        count_max: u32,
    },
    /// The receipt of a delivery that was, or nearly so.
    Receipt {
        queue: Option<u8>,
        which: prop::sample::Index,
        id_off: bool,
        token_off: i64,
    },
    Body {
        queue: u8,
        body: u8,
    },
    Advance {
        ms: u64,
    },
    Skip {
        entries: u64,
    },
    Generation,
    Checkpoint,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let queue = 0..3_u8;
    let body = 0..3_u8;
    let visibility_ms = prop_oneof![1 => Just(0), 9 => 1..60_u32];
    let mostly_none = prop_oneof![9 => Just(None), 1 => queue.clone().prop_map(Some)];
    let token_off = prop_oneof![8 => Just(0), 1 => Just(-1), 1 => Just(1)];
    prop_oneof![
        8 => (queue.clone(), body.clone()).prop_map(|(queue, body)| Op::Enqueue { queue, body }),
        6 => (queue.clone(), visibility_ms, 0..5_u32)
            .prop_map(|(queue, visibility_ms, count_max)| Op::Dequeue { queue, visibility_ms, count_max }),
        5 => (mostly_none, any::<prop::sample::Index>(), prop::bool::weighted(0.05), token_off)
            .prop_map(|(queue, which, id_off, token_off)| Op::Receipt { queue, which, id_off, token_off }),
        3 => (queue, body).prop_map(|(queue, body)| Op::Body { queue, body }),
        5 => (0..40_u64).prop_map(|ms| Op::Advance { ms }),
        1 => (1..70_u64).prop_map(|entries| Op::Skip { entries }),
        1 => Just(Op::Generation),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Restart),
    ]
}

/// The machine, its twin that never restarts, the model and the disk, in step.
struct Bench {
    state: State,
    twin: State,
    model: Model,
    disk: Disk,
    at: At,
    /// (queue, id, token) of every delivery.
    receipts: Vec<(String, Index, u64)>,
}

impl Bench {
    fn new() -> Self {
        let at = At { index: 0, stamp_ms: 0, wall_ms: 0, generation: 0 };
        let limits = Limits { batch_bytes_max: BATCH_BYTES_MAX, ..Limits::default() };
        let (state, twin) = (Disk::default().restore(limits), Disk::default().restore(limits));
        Self { state, twin, model: Model::default(), disk: Disk::default(), at, receipts: Vec::new() }
    }

    fn step(&mut self, op: &Op) {
        let name = |queue: u8| format!("queue{queue}");
        let content = |body: u8| Bytes::from(vec![body; usize::from(body)]);
        let command = match op {
            Op::Enqueue { queue, body } => {
                Command::Enqueue(Enqueue { queue: name(*queue), body: content(*body), ..Enqueue::default() })
            }
            Op::Dequeue { queue, visibility_ms, count_max } => {
                let (visibility_ms, count_max) = (*visibility_ms, *count_max);
                Command::Dequeue(Dequeue { queue: name(*queue), visibility_ms, count_max, ..Dequeue::default() })
            }
            Op::Receipt { queue, which, id_off, token_off } => {
                if self.receipts.is_empty() {
                    return;
                }
                let (taken_from, id, token) = which.get(&self.receipts).clone();
                let which =
                    AckWhich::Receipt { id: id + u64::from(*id_off), token: token.wrapping_add_signed(*token_off) };
                Command::Ack(Ack { queue: queue.map_or(taken_from, name), which, if_token: None })
            }
            Op::Body { queue, body } => {
                Command::Ack(Ack { queue: name(*queue), which: AckWhich::Body(content(*body)), if_token: None })
            }
            Op::Advance { ms } => return self.at.stamp_ms += ms,
            Op::Skip { entries } => return self.at.index += entries,
            Op::Generation => return self.at.generation += 1,
            Op::Checkpoint => return drop(self.disk.checkpoint(&mut self.state)),
            Op::Restart => {
                self.disk.checkpoint(&mut self.state);
                self.state = self.disk.restore(self.state.limits);
                return;
            }
        };
        self.command(&command);
        self.compare();
    }

    fn command(&mut self, command: &Command) {
        self.at.index += 1;
        self.state.expire(self.at.stamp_ms, 0);
        self.twin.expire(self.at.stamp_ms, 0);
        let answer = self.state.apply(self.at, command);
        assert_eq!(answer, self.twin.apply(self.at, command), "two replicas answer {command:?}");
        let expected = self.model.apply(self.at, command);
        assert_eq!(answer.clone().map_err(|error: Error| error.code), expected, "machine and model answer {command:?}");
        if let (Ok(Answer::Delivered(handed)), Command::Dequeue(Dequeue { queue, .. })) = (answer, command) {
            self.receipts.extend(handed.iter().map(|one| (queue.clone(), one.id, one.token)));
        }
    }

    fn compare(&self) {
        self.state.check_invariants();
        self.twin.check_invariants();
        assert_eq!(
            self.state.records(),
            self.twin.records(),
            "a restored replica is the same as one that never stopped"
        );
        let now_ms = self.at.stamp_ms;
        let stats = self
            .state
            .stats()
            .map(|one| (one.queue.to_owned(), one.ready, one.in_flight, one.oldest_enqueued_ms, one.bytes));
        assert_eq!(stats.collect::<Vec<_>>(), self.model.stats(now_ms));
        assert_eq!(self.state.next_deadline_ms(), self.model.next_deadline_ms(now_ms));
        assert_eq!(self.state.live_bodies(0, self.at.index), self.model.live());
        assert_eq!(self.state.len(), self.model.live().len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn machine_and_model_give_the_same_answers(ops in prop::collection::vec(op(), 1..150)) {
        let mut bench = Bench::new();
        for op in &ops {
            bench.step(op);
        }
        bench.step(&Op::Restart);
        let dequeue = Dequeue { queue: "queue0".into(), visibility_ms: 1, count_max: 256, ..Dequeue::default() };
        bench.command(&Command::Dequeue(dequeue));
        bench.compare();
    }
}
