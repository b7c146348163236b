//! The last phase: everything is healed, and what was promised is asked for.
//!
//! Every node reads every key; every queue is drained until all that must still be in it was seen; every lock can be taken
//! again. Each task asks until it gets what it wants; that it gets it in time is the liveness check.

use trine_protocol::Response;
use trine_protocol::cache::Get;
use trine_protocol::lock::{Acquire, Release};
use trine_protocol::queue::{AckMany, Delivery, Dequeue, Flow, Receipt, SetFlow};

use super::checker::{Operation, Services, Verdict};
use super::network::Place;
use super::swarm::Swarm;
use super::workload::queue::revive;
use super::workload::{Wish, name};
use crate::ids::GroupId;

/// Visibility of the deliveries while a queue is drained: an answer that is lost comes again after it.
const DRAIN_VISIBILITY_MS: u32 = 3_000;

/// One thing to find out, in turn with the others of its task.
#[derive(Clone, Debug)]
enum Question {
    Read {
        key: String,
    },
    Drain {
        queue: String,
    },
    /// A queue that may be paused is opened, then its dead messages are brought back.
    Open {
        queue: String,
    },
    /// Dead jobs are brought back, then the queue is drained.
    Revive {
        queue: String,
    },
    /// Jobs that were seen are done: what comes after them in their keys may come.
    Finish {
        queue: String,
        receipts: Vec<Receipt>,
    },
    Take {
        lock: String,
    },
    Free {
        lock: String,
        token: u64,
    },
}

/// One asker.
#[derive(Debug)]
struct Task {
    place: Place,
    group: GroupId,
    /// The last is asked next.
    questions: Vec<Question>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Audit {
    tasks: Vec<Task>,
    begun_us: u64,
}

impl Audit {
    /// One task per node and group for the keys, one per group for the queues and the locks.
    pub(crate) fn new(swarm: &Swarm, up: &[Place], begun_us: u64) -> Self {
        let groups = || (0..swarm.groups).map(GroupId);
        let named = |kind, group| (0..swarm.names).map(move |number| name(kind, group, number));
        let reads = up.iter().flat_map(|place| groups().map(move |group| (*place, group))).map(|(place, group)| Task {
            place,
            group,
            questions: named('k', group).chain(named('n', group)).map(|key| Question::Read { key }).collect(),
        });
        let drains = groups().map(|group| {
            let (queues, locks) = (named('q', group), named('l', group));
            let questions = queues.map(|queue| Question::Drain { queue });
            let jobs = named('j', group).map(|queue| Question::Revive { queue });
            let managed = named('m', group).filter(|_| swarm.managed).map(|queue| Question::Open { queue });
            let questions =
                questions.chain(jobs).chain(managed).chain(locks.map(|lock| Question::Take { lock })).collect();
            Task { place: up[group.0 as usize % up.len()], group, questions }
        });
        Self { tasks: reads.chain(drains).collect(), begun_us }
    }

    pub(crate) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Whether every question is answered.
    pub(crate) fn is_done(&self) -> bool {
        self.tasks.iter().all(|task| task.questions.is_empty())
    }

    /// What is still unanswered.
    pub(crate) fn open(&self) -> Vec<String> {
        let open = self.tasks.iter().filter_map(|task| task.questions.last().map(|question| (task, question)));
        open.map(|(task, question)| format!("{question:?} of {} at node {}", task.group, task.place)).collect()
    }

    /// The node that a task asks.
    pub(crate) fn place(&self, task: usize) -> Place {
        self.tasks[task].place
    }

    /// What a task asks now.
    pub(crate) fn next(&self, task: usize) -> Option<Wish> {
        let Task { group, questions, .. } = &self.tasks[task];
        let client = format!("audit-{task}");
        let request = match questions.last()?.clone() {
            Question::Read { key } => Get { key }.into(),
            Question::Drain { queue } => {
                Dequeue { queue, visibility_ms: DRAIN_VISIBILITY_MS, count_max: 64, ..Dequeue::default() }.into()
            }
            Question::Open { queue } => SetFlow { queue, flow: Flow::Open }.into(),
            Question::Revive { queue } => revive(&queue).into(),
            Question::Finish { queue, receipts } => AckMany { queue, receipts, if_token: None }.into(),
            Question::Take { lock } => Acquire { lock, client, lease_ms: 1_000, ..Acquire::default() }.into(),
            Question::Free { lock, token } => Release { lock, client, token, ..Release::default() }.into(),
        };
        Some(Wish { group: *group, request, session: None })
    }

    /// What the answer to a task's question means for it; asked `in_vain` where nobody will ever have another answer.
    pub(crate) fn ended(
        &mut self,
        now_us: u64,
        task: usize,
        operation: &Operation,
        verdict: &Verdict,
        in_vain: bool,
        services: &Services,
    ) {
        let Task { questions, group, .. } = &mut self.tasks[task];
        if in_vain {
            questions.pop();
        }
        let Verdict::Answered(response) = verdict else { return };
        match (questions.last().cloned(), response) {
            (Some(Question::Read { .. }), Response::Get(_)) | (Some(Question::Free { .. }), Response::Release(_)) => {
                questions.pop();
            }
            (Some(Question::Drain { queue }), Response::Dequeue(dequeued)) => {
                let kind = queue.chars().next();
                let missing = match kind {
                    Some('j') => services.jobs.missing(*group, &queue, self.begun_us),
                    Some('m') => services.managed.missing(*group, &queue, self.begun_us, now_us),
                    _ => services.queue.missing(*group, &queue, self.begun_us),
                };
                if !dequeued.deliveries.is_empty() {
                    if kind != Some('q') {
                        let receipts = dequeued.deliveries.iter().map(Delivery::receipt).collect();
                        questions.push(Question::Finish { queue, receipts });
                    }
                } else if missing.is_empty() {
                    questions.pop();
                } else if kind == Some('j') {
                    // What was in flight for the last time has died since.
                    questions.pop();
                    questions.push(Question::Revive { queue });
                } else if kind == Some('m') {
                    // A late command may have paused it again.
                    questions.pop();
                    questions.push(Question::Open { queue });
                }
            }
            (Some(Question::Open { queue }), Response::SetFlow(_)) => {
                questions.pop();
                questions.push(Question::Revive { queue });
            }
            (Some(Question::Revive { queue }), Response::Redrive(_)) => {
                questions.pop();
                questions.push(Question::Drain { queue });
            }
            (Some(Question::Finish { .. }), Response::AckMany(_)) => drop(questions.pop()),
            (Some(Question::Take { lock }), Response::Acquire(granted)) => {
                questions.pop();
                questions.push(Question::Free { lock, token: granted.token });
            }
            (question, response) => {
                panic!("operation {} of {question:?} was answered by {response:?}", operation.number)
            }
        }
    }
}
