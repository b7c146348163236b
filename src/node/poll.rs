//! Dequeues that wait for messages.
//!
//! They wait in the leader's memory: nothing goes into the log while nothing is ready. When a queue gets something to hand out,
//! the leader proposes those that have waited for longest, as many as there are messages for.
//!
//! ```text
//!   Dequeue, wait_ms --> parked at the leader --(a message is ready)--> Command::Poll in the log --> deliveries
//!                          |       ^                                          |
//!           time is over   v       '----------- found nothing ----------------'
//!                     no delivery
//! ```
//!
//! A dequeue that waits has **no session**. A place in one would keep the session's window open behind it for as long as it waits, and what a
//! session is for is not needed here: one that is executed and whose answer is lost has hidden some messages until their
//! visibility timeout, which is what becomes of a consumer that dies.
//!
//! # Invariants
//! - Each that is parked is parked once, under the node and the number that it came with; a copy of it changes nothing.
//! - Of one queue they are served in the order in which they came.
//! - A deposed leader forgets all of them: their nodes send them again, to whoever leads then.
//!
//! # Caveats
//! - A new leader does not know how long somebody has waited: fairness between those who wait begins anew.

use std::collections::{BTreeMap, BTreeSet};

use trine_protocol::queue::{Dequeue, Dequeued};
use trine_protocol::{Error, ErrorCode, Response};

use crate::ids::NodeId;
use crate::queue::{Askers, Handed};
use crate::record;
use crate::rules::Rules;

use super::apply::Waiter;
use super::machine::Command;
use super::{Replica, Step};

/// Dequeues that wait at one leader; one more gets `Overloaded`. Each costs about 300 bytes.
pub const POLLS_MAX: usize = 65_536;

/// One that waits.
#[derive(Debug)]
struct Poll {
    node: Option<NodeId>,
    id: u64,
    dequeue: Dequeue,
    since_us: u64,
    until_us: u64,
    /// It is in the log, and its entry is not applied.
    proposed: bool,
}

/// Those that wait at this leader.
#[derive(Debug, Default)]
pub(super) struct Polls {
    by_ticket: BTreeMap<u64, Poll>,
    by_origin: BTreeMap<(Option<NodeId>, u64), u64>,
    /// Of each queue, in the order in which they came.
    by_queue: BTreeMap<String, BTreeSet<u64>>,
    by_deadline: BTreeSet<(u64, u64)>,
    next_ticket: u64,
}

impl Polls {
    pub(super) fn clear(&mut self) {
        let next_ticket = self.next_ticket;
        *self = Self { next_ticket, ..Self::default() };
    }

    pub(super) fn len(&self) -> usize {
        self.by_ticket.len()
    }

    fn park(&mut self, poll: Poll) {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.by_origin.insert((poll.node, poll.id), ticket);
        self.by_queue.entry(poll.dequeue.queue.clone()).or_default().insert(ticket);
        self.by_deadline.insert((poll.until_us, ticket));
        self.by_ticket.insert(ticket, poll);
    }

    fn remove(&mut self, ticket: u64) -> Option<Poll> {
        let poll = self.by_ticket.remove(&ticket)?;
        self.by_origin.remove(&(poll.node, poll.id));
        self.by_deadline.remove(&(poll.until_us, ticket));
        if let Some(tickets) = self.by_queue.get_mut(&poll.dequeue.queue) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.by_queue.remove(&poll.dequeue.queue);
            }
        }
        Some(poll)
    }

    /// Those of a queue that are to be proposed so that so many messages find a taker.
    fn to_propose(&self, queue: &str, messages: u64) -> Vec<u64> {
        let Some(tickets) = self.by_queue.get(queue) else { return Vec::new() };
        let count = |poll: &Poll| u64::from(poll.dequeue.count_max.max(1));
        let mut promised: u64 = 0;
        let mut chosen = Vec::new();
        for ticket in tickets {
            let poll = &self.by_ticket[ticket];
            if poll.proposed {
                promised += count(poll);
            }
        }
        for ticket in tickets {
            let poll = &self.by_ticket[ticket];
            if promised >= messages {
                break;
            }
            if !poll.proposed {
                promised += count(poll);
                chosen.push(*ticket);
            }
        }
        chosen
    }

    /// Who asks for messages of a queue.
    pub(super) fn askers(&self, queue: &str, consumer: &str, now_us: u64) -> Askers {
        let Some(tickets) = self.by_queue.get(queue) else { return Askers::default() };
        let of_consumer = tickets.iter().map(|ticket| &self.by_ticket[ticket]);
        let since_us = of_consumer.filter(|poll| poll.dequeue.consumer == consumer).map(|poll| poll.since_us).min();
        let consumer_since_ms = since_us.map(|since_us| now_us.saturating_sub(since_us) / 1_000);
        Askers { waiting: tickets.len() as u64, consumer_since_ms }
    }
}

impl<R: Rules> Replica<R> {
    /// A dequeue that waits has come to the leader: it is proposed if there is something for it, and parked until there is.
    pub(super) fn park_poll(&mut self, step: &mut Step, node: Option<NodeId>, id: u64, dequeue: Dequeue) {
        let polls = &mut self.member.polls;
        if polls.by_origin.contains_key(&(node, id)) {
            return;
        }
        if polls.len() >= POLLS_MAX {
            let what = format!("{POLLS_MAX} dequeues wait at the leader of {}, as many as may", self.setup.group);
            return self.answer(step, node, id, Err(Error::new(ErrorCode::Overloaded, what).retry_after(100)));
        }
        let (queue, since_us) = (dequeue.queue.clone(), step.now.mono_us);
        let until_us = since_us + u64::from(dequeue.wait_ms) * 1_000;
        polls.park(Poll { node, id, dequeue, since_us, until_us, proposed: false });
        self.serve_polls(step, &queue);
    }

    /// Proposes those who wait for a queue, as many as there are messages for.
    fn serve_polls(&mut self, step: &mut Step, queue: &str) {
        let member = &mut self.member;
        if !member.polls.by_queue.contains_key(queue) {
            return;
        }
        let messages = member.machine.queue().on_offer(queue);
        for ticket in member.polls.to_propose(queue, messages) {
            let poll = member.polls.by_ticket.get_mut(&ticket).expect("it waits");
            let command = Command::Poll(poll.dequeue.clone());
            // Where the log takes nothing now, it is served when the queue gets the next message, or when its time is over.
            let Ok(index) = member.raft.propose(step.now, record::encode(&command).into()) else { return };
            poll.proposed = true;
            member.waiting.insert(index, Waiter::Poll { ticket });
        }
    }

    /// Entries were applied: whoever waits for what they brought is served.
    pub(super) fn wake_polls(&mut self, step: &mut Step) {
        let waits = !self.member.polls.by_ticket.is_empty();
        for queue in self.member.machine.take_gained_queues(waits) {
            self.serve_polls(step, &queue);
        }
    }

    /// The entry of one that waits is applied.
    pub(super) fn polled(&mut self, step: &mut Step, ticket: u64, result: Result<Vec<Handed>, Error>) {
        let Some(poll) = self.member.polls.by_ticket.get_mut(&ticket) else { return };
        poll.proposed = false;
        let queue = poll.dequeue.queue.clone();
        match result {
            // Others were faster: it waits on.
            Ok(handed) if handed.is_empty() && step.now.mono_us < poll.until_us => self.serve_polls(step, &queue),
            Ok(handed) => {
                let Some(Poll { node, id, .. }) = self.member.polls.remove(ticket) else { return };
                self.deliver(step, node, id, handed, &BTreeMap::new());
            }
            Err(error) => {
                let Some(Poll { node, id, .. }) = self.member.polls.remove(ticket) else { return };
                self.answer(step, node, id, Err(error));
            }
        }
    }

    /// Answers those whose time is over. One whose entry is on its way is answered by that.
    pub(super) fn tick_polls(&mut self, step: &mut Step) {
        let due = self.member.polls.by_deadline.iter().take_while(|(until_us, _)| *until_us <= step.now.mono_us);
        let due: Vec<u64> = due.map(|(_, ticket)| *ticket).collect();
        for ticket in due {
            if self.member.polls.by_ticket[&ticket].proposed {
                continue;
            }
            let Some(Poll { node, id, .. }) = self.member.polls.remove(ticket) else { continue };
            self.answer(step, node, id, Ok(Response::Dequeue(Dequeued { deliveries: Vec::new() })));
        }
    }

    /// Dequeues that wait here for messages.
    pub fn polls(&self) -> usize {
        self.member.polls.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(id: u64, count_max: u32) -> Poll {
        let dequeue = Dequeue { queue: "q".into(), count_max, consumer: format!("c{id}"), ..Dequeue::default() };
        Poll { node: None, id, dequeue, since_us: id * 1_000, until_us: 1_000_000, proposed: false }
    }

    #[test]
    fn those_who_wait_for_longest_are_served_first_and_no_more_than_there_is() {
        let mut polls = Polls::default();
        [poll(1, 1), poll(2, 3), poll(3, 1)].into_iter().for_each(|poll| polls.park(poll));
        assert_eq!(polls.to_propose("q", 0), [0; 0]);
        assert_eq!(polls.to_propose("q", 1), [1]);
        assert_eq!(polls.to_propose("q", 2), [1, 2]);
        assert_eq!(polls.to_propose("q", 100), [1, 2, 3]);
        polls.by_ticket.get_mut(&1).unwrap().proposed = true;
        assert_eq!(polls.to_propose("q", 1), [0; 0], "the one message is promised");
        assert_eq!(polls.to_propose("q", 2), [2]);
        assert_eq!(polls.to_propose("r", 5), [0; 0]);
    }

    #[test]
    fn what_is_answered_leaves_nothing_behind() {
        let mut polls = Polls::default();
        [poll(1, 1), poll(2, 1)].into_iter().for_each(|poll| polls.park(poll));
        assert_eq!(polls.askers("q", "c2", 7_000), Askers { waiting: 2, consumer_since_ms: Some(5) });
        polls.remove(1);
        assert_eq!(polls.askers("q", "c1", 7_000), Askers { waiting: 1, consumer_since_ms: None });
        polls.remove(2);
        assert!(polls.by_origin.is_empty() && polls.by_queue.is_empty() && polls.by_deadline.is_empty());
    }
}
