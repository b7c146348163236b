//! What a queue promises beyond first in, first out: the order of keys, delays, ids, counted deliveries, turns, and hand-offs as a whole.
//!
//! As the other checkers of services it knows only what clients saw. Whatever may have been executed, because nobody knows, speaks for
//! the queue: a check fails only where no order of events could have led to what was seen.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use trine_protocol::queue::{
    Delivery, Dequeue, Dequeued, EnqueueOptions, Enqueued, HandOff, LockStep, Nacked, Receipt,
};
use trine_protocol::{Request, Response};

use super::{Check, Operation, Verdict, index_of, lasts_us};
use crate::ids::GroupId;
use crate::sim::workload::queue::{DELIVERIES_MAX, takes_turns};

type QueueName = (GroupId, String);

/// Longest that wall clocks may differ, and have differed: a minute either way.
const WALL_ERROR_US: u64 = 240_000_000;

/// Every job queue of the cluster, as its clients saw it.
#[derive(Debug, Default)]
pub(crate) struct JobsChecker {
    queues: BTreeMap<QueueName, Queue>,
    /// By body: the queue that a hand-off would take a job from, and the job.
    follows: BTreeMap<Bytes, (QueueName, u64)>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: BTreeMap<Bytes, Job>,
    by_id: BTreeMap<u64, Bytes>,
    /// Of each key: the token of the first delivery of each job that was not delayed.
    firsts: BTreeMap<String, BTreeMap<u64, u64>>,
    /// Of each id: the job that was taken under it, and when that was known.
    ids: BTreeMap<String, (u64, u64)>,
    /// Dead jobs may have come back.
    redriven: bool,
    /// When it was known to be declared.
    declared_us: Option<u64>,
    /// Dequeues that served one tenant again and again: token, when it was sent, and the tenants that it did not serve.
    unfair: Vec<(u64, u64, BTreeSet<String>)>,
}

#[derive(Debug, Default)]
struct Job {
    id: Option<u64>,
    options: EnqueueOptions,
    enqueue_sent_us: u64,
    enqueued_us: Option<u64>,
    /// It is certain not to be in the queue: refused, or a duplicate.
    absent: bool,
    acked_us: Option<u64>,
    /// The entry that has acknowledged it, where that is known.
    acked_at: Option<u64>,
    acks_open: u32,
    deliveries: BTreeMap<u64, Seen>,
    seen_us: u64,
}

/// One delivery that a client saw.
#[derive(Clone, Debug)]
struct Seen {
    operation: u64,
    sent_us: u64,
    answered_us: u64,
    count: u32,
    /// The earliest time at which it may have ended, by what was asked for and may have been done.
    ends_us: Vec<(u64, u64)>,
    /// An end that is certain, and counts alone.
    ended_us: Option<u64>,
}

impl Seen {
    /// Before this time nobody else may have the message.
    fn free_us(&self) -> u64 {
        let possible = self.ends_us.iter().map(|(_, ends_us)| *ends_us).min().unwrap_or(0);
        self.ended_us.map_or(possible, |ended_us| ended_us)
    }
}

/// Whether a request is about a job queue.
pub(crate) fn is_about_jobs(request: &Request) -> bool {
    let queue = match request {
        Request::Enqueue(enqueue) => &enqueue.queue,
        Request::Dequeue(dequeue) => &dequeue.queue,
        Request::Ack(ack) => &ack.queue,
        Request::HandOff(_) | Request::AckMany(_) | Request::Nack(_) | Request::Extend(_) => return true,
        Request::Redrive(_) | Request::Declare(_) => return true,
        _ => return false,
    };
    queue.starts_with('j')
}

impl JobsChecker {
    fn queue(&mut self, operation: &Operation, name: &str) -> &mut Queue {
        self.queues.entry((operation.group, name.to_owned())).or_default()
    }

    /// A client has sent an operation.
    pub(crate) fn sent(&mut self, operation: &Operation) {
        let sent_us = operation.sent_us;
        match &operation.request {
            Request::Enqueue(enqueue) => {
                let options = enqueue.options.as_deref().cloned().unwrap_or_default();
                let job = Job { options, enqueue_sent_us: sent_us, ..Job::default() };
                self.queue(operation, &enqueue.queue).jobs.insert(enqueue.body.clone(), job);
            }
            Request::AckMany(ack) => {
                let queue = self.queue(operation, &ack.queue);
                ack.receipts.iter().for_each(|receipt| queue.ack_sent(operation, *receipt));
            }
            Request::HandOff(hand_off) => self.hand_off_sent(operation, hand_off),
            Request::Nack(nack) => {
                let queue = self.queue(operation, &nack.queue);
                // The last delivery's ends in death, at once.
                let delay_us = if queue.dies(nack.receipt) { 0 } else { nack.delay_ms.map_or(0, lasts_us) };
                queue.may_end(operation, nack.receipt, sent_us + delay_us);
            }
            Request::Extend(extend) => {
                let queue = self.queue(operation, &extend.queue);
                queue.may_end(operation, extend.receipt, sent_us + lasts_us(extend.visibility_ms));
            }
            Request::Redrive(redrive) => self.queue(operation, &redrive.queue).redriven = true,
            _ => {}
        }
    }

    fn hand_off_sent(&mut self, operation: &Operation, hand_off: &HandOff) {
        let (Some(ack), Some(enqueue)) = (&hand_off.ack, &hand_off.enqueue) else { return };
        self.queue(operation, &ack.queue).ack_sent(operation, ack.receipt);
        let options = enqueue.options.as_deref().cloned().unwrap_or_default();
        let job = Job { options, enqueue_sent_us: operation.sent_us, ..Job::default() };
        self.queue(operation, &enqueue.queue).jobs.insert(enqueue.body.clone(), job);
        let from = (operation.group, ack.queue.clone());
        self.follows.insert(enqueue.body.clone(), (from, ack.receipt.id));
    }

    /// A client knows what became of an operation.
    pub(crate) fn ended(&mut self, now_us: u64, operation: &Operation, verdict: &Verdict) -> Check {
        let checked = match &operation.request {
            Request::Enqueue(enqueue) => {
                let answer = match verdict {
                    Verdict::Answered(Response::Enqueue(enqueued)) => Ok(Some(*enqueued)),
                    Verdict::Answered(_) | Verdict::Unknown => Ok(None),
                    Verdict::NotExecuted(_) => Err(()),
                };
                self.queue(operation, &enqueue.queue).enqueued(now_us, &enqueue.body, answer)
            }
            Request::Dequeue(dequeue) => self.dequeued(now_us, operation, dequeue, verdict),
            Request::AckMany(ack) => {
                let queue = self.queue(operation, &ack.queue);
                let refused = match verdict {
                    Verdict::Answered(Response::AckMany(acked)) => Some(&acked.refused),
                    _ => None,
                };
                ack.receipts.iter().enumerate().try_for_each(|(place, receipt)| {
                    let good = refused.map(|refused| refused.iter().all(|one| one.place as usize != place));
                    queue.acked(now_us, operation, *receipt, good, verdict, None)
                })
            }
            Request::HandOff(hand_off) => self.handed_off(now_us, operation, hand_off, verdict),
            Request::Nack(nack) => {
                let delayed = matches!(verdict, Verdict::Answered(Response::Nack(Nacked { .. })));
                let dies = self.queue(operation, &nack.queue).dies(nack.receipt);
                let ends_us = operation.sent_us + if dies { 0 } else { nack.delay_ms.map_or(0, lasts_us) };
                self.queue(operation, &nack.queue).end_known(
                    operation,
                    nack.receipt,
                    verdict,
                    delayed.then_some(ends_us),
                );
                Ok(())
            }
            Request::Extend(extend) => {
                let done = matches!(verdict, Verdict::Answered(Response::Extend(_)));
                let queue = self.queue(operation, &extend.queue);
                queue.end_known(operation, extend.receipt, verdict, None);
                if done {
                    queue.extended(extend.receipt);
                }
                Ok(())
            }
            Request::Declare(declare) => {
                if matches!(verdict, Verdict::Answered(_)) {
                    self.queue(operation, &declare.queue).declared_us.get_or_insert(now_us);
                }
                Ok(())
            }
            _ => Ok(()),
        };
        checked.map_err(|what| format!("jobs of {}: {what}", operation.group))
    }

    fn dequeued(&mut self, now_us: u64, operation: &Operation, dequeue: &Dequeue, verdict: &Verdict) -> Check {
        let Verdict::Answered(Response::Dequeue(Dequeued { deliveries })) = verdict else { return Ok(()) };
        if deliveries.len() > dequeue.count_max.max(1) as usize {
            return Err(format!("{} deliveries for a count of {}", deliveries.len(), dequeue.count_max));
        }
        let follows = std::mem::take(&mut self.follows);
        let queue = self.queue(operation, &dequeue.queue);
        let mut checked = Ok(());
        for delivery in deliveries {
            let ends_us = vec![(0, operation.sent_us + lasts_us(dequeue.visibility_ms))];
            let seen = Seen {
                operation: operation.number,
                sent_us: operation.sent_us,
                answered_us: now_us,
                count: delivery.deliveries,
                ends_us,
                ended_us: None,
            };
            checked = checked.and_then(|()| queue.delivered(delivery, seen));
        }
        checked = checked.and_then(|()| queue.turns(&dequeue.queue, operation, deliveries));
        self.follows = follows;
        checked?;
        // A job that follows from a hand-off says that the hand-off happened: the one before it is done.
        for delivery in deliveries {
            let Some((name, before)) = self.follows.remove(&delivery.body) else { continue };
            let queue = self.queues.entry(name).or_default();
            let Some(job) = queue.by_id.get(&before).cloned().and_then(|body| queue.jobs.get_mut(&body)) else {
                continue;
            };
            job.acked_at = Some(delivery.id);
            if let Some(token) = job.deliveries.keys().find(|token| index_of(**token) > delivery.id) {
                return Err(format!("{before} was handed on by entry {}, and delivered by token {token}", delivery.id));
            }
        }
        Ok(())
    }

    fn handed_off(&mut self, now_us: u64, operation: &Operation, hand_off: &HandOff, verdict: &Verdict) -> Check {
        let (Some(ack), Some(enqueue)) = (&hand_off.ack, &hand_off.enqueue) else { return Ok(()) };
        let (answer, good, at) = match verdict {
            Verdict::Answered(Response::HandOff(done)) => {
                let Some(enqueued) = done.enqueued else { return Err(format!("{done:?} for {hand_off:?}")) };
                if let Some(LockStep::Release(release)) = &hand_off.lock {
                    if release.token == 0 {
                        return Err(format!("a hand-off without a token was done: {release:?}"));
                    }
                }
                (Ok(Some(enqueued)), Some(done.acked == Some(ack.receipt.id)), Some(enqueued.id))
            }
            Verdict::Answered(other) => return Err(format!("HandOff answered by {other:?}")),
            Verdict::NotExecuted(_) => (Err(()), None, None),
            Verdict::Unknown => (Ok(None), None, None),
        };
        self.queue(operation, &ack.queue).acked(now_us, operation, ack.receipt, good, verdict, at)?;
        self.queue(operation, &enqueue.queue).enqueued(now_us, &enqueue.body, answer)
    }

    /// The jobs that must still be in the queue, and that no client has seen since that instant. Not those that were delayed: where
    /// a wall clock was ahead and is right now, their time comes a minute late.
    pub(crate) fn missing(&self, group: GroupId, name: &str, since_us: u64) -> Vec<u64> {
        let Some(queue) = self.queues.get(&(group, name.to_owned())) else { return Vec::new() };
        let must = |job: &&Job| {
            let there = job.options.delay_ms == 0 && job.enqueued_us.is_some() && !job.absent;
            there && job.acked_us.is_none() && job.acked_at.is_none() && job.acks_open == 0 && job.seen_us < since_us
        };
        queue.jobs.values().filter(must).filter_map(|job| job.id).collect()
    }
}

impl Queue {
    fn job(&mut self, id: u64) -> Option<&mut Job> {
        self.by_id.get(&id).and_then(|body| self.jobs.get_mut(body))
    }

    fn ack_sent(&mut self, operation: &Operation, receipt: Receipt) {
        if let Some(job) = self.job(receipt.id) {
            job.acks_open += 1;
        }
        self.may_end(operation, receipt, operation.sent_us);
    }

    /// Whether this is a job's last delivery.
    fn dies(&mut self, receipt: Receipt) -> bool {
        let seen = self.job(receipt.id).and_then(|job| job.deliveries.get(&receipt.token));
        seen.is_some_and(|seen| seen.count >= DELIVERIES_MAX)
    }

    /// The delivery may end at this time, if the operation is done.
    fn may_end(&mut self, operation: &Operation, receipt: Receipt, ends_us: u64) {
        let seen = self.job(receipt.id).and_then(|job| job.deliveries.get_mut(&receipt.token));
        if let Some(seen) = seen {
            seen.ends_us.push((operation.number, ends_us));
        }
    }

    /// The operation was refused, and ends nothing; or it is certain that it has ended the delivery, at this time.
    fn end_known(&mut self, operation: &Operation, receipt: Receipt, verdict: &Verdict, ended_us: Option<u64>) {
        let seen = self.job(receipt.id).and_then(|job| job.deliveries.get_mut(&receipt.token));
        let Some(seen) = seen else { return };
        if matches!(verdict, Verdict::NotExecuted(_)) {
            seen.ends_us.retain(|(number, _)| *number != operation.number);
        }
        seen.ended_us = ended_us.or(seen.ended_us);
    }

    /// The delivery was certainly extended: the end that it had before counts no more.
    fn extended(&mut self, receipt: Receipt) {
        let seen = self.job(receipt.id).and_then(|job| job.deliveries.get_mut(&receipt.token));
        if let Some(seen) = seen {
            seen.ends_us.retain(|(number, _)| *number != 0);
        }
    }

    /// `answer`: taken or a duplicate, not known, or certainly refused.
    fn enqueued(&mut self, now_us: u64, body: &Bytes, answer: Result<Option<Enqueued>, ()>) -> Check {
        let job = self.jobs.get_mut(body).expect("noted when it was sent");
        match answer {
            Ok(None) => Ok(()),
            Err(()) => {
                job.absent = true;
                match job.id {
                    Some(id) => Err(format!("{body:?} was refused, but is in the queue as {id}")),
                    None => Ok(()),
                }
            }
            Ok(Some(Enqueued { id, duplicate: true, .. })) => {
                job.absent = true;
                if let Some(own) = job.id {
                    return Err(format!("{body:?} is a duplicate of {id}, but is in the queue as {own}"));
                }
                self.id_is(now_us, body, id)
            }
            Ok(Some(Enqueued { id, .. })) => {
                job.enqueued_us = Some(now_us);
                self.identify(body, id)?;
                self.id_is(now_us, body, id)
            }
        }
    }

    /// The job of that client's id is the one with that number; and no other one, if it was known when this one was sent.
    fn id_is(&mut self, now_us: u64, body: &Bytes, first: u64) -> Check {
        let job = &self.jobs[body];
        let id = &job.options.dedup_id;
        if id.is_empty() {
            return Ok(());
        }
        let (known, known_us) = *self.ids.entry(id.clone()).or_insert((first, now_us));
        if known != first && known_us < job.enqueue_sent_us {
            return Err(format!("two jobs with the id '{id}' were taken: {known} and {first}"));
        }
        Ok(())
    }

    fn identify(&mut self, body: &Bytes, id: u64) -> Check {
        let job = self.jobs.get_mut(body).expect("a known body");
        if let Some(other) = job.id.replace(id).filter(|other| *other != id) {
            return Err(format!("{body:?} is in the queue twice, as {other} and {id}"));
        }
        match self.by_id.insert(id, body.clone()) {
            Some(other) if other != *body => Err(format!("id {id} is both {other:?} and {body:?}")),
            _ => Ok(()),
        }
    }

    fn delivered(&mut self, delivery: &Delivery, seen: Seen) -> Check {
        let Delivery { id, token, body, deliveries, .. } = delivery;
        let redriven = self.redriven;
        let Some(job) = self.jobs.get_mut(body) else { return Err(format!("{body:?} was never enqueued")) };
        if job.absent {
            return Err(format!("{id} was delivered, but its enqueue was refused or a duplicate"));
        }
        if let Some(acked_us) = job.acked_us.filter(|acked_us| *acked_us < seen.sent_us) {
            return Err(format!("{id} was delivered by token {token} after its acknowledgement at {acked_us} us"));
        }
        if job.acked_at.is_some_and(|at| at < index_of(*token)) {
            return Err(format!("{id} was delivered by token {token} after the entry that acknowledged it"));
        }
        if *deliveries > DELIVERIES_MAX && !redriven {
            return Err(format!("{id} was delivered {deliveries} times, {DELIVERIES_MAX} are allowed"));
        }
        let due_us = (job.enqueue_sent_us + job.options.delay_ms * 1_000).saturating_sub(WALL_ERROR_US);
        if seen.answered_us < due_us {
            return Err(format!("{id} was delivered at {} us, and was not due before {due_us} us", seen.answered_us));
        }
        job.seen_us = seen.answered_us;
        job.agrees(*id, *token, &seen)?;
        let (key, delayed) = (job.options.key.clone(), job.options.delay_ms > 0);
        job.deliveries.insert(*token, seen.clone());
        self.identify(body, *id)?;
        if key.is_empty() {
            return Ok(());
        }
        if *deliveries == 1 && !delayed {
            self.first_of_key(&key, *id, *token)?;
        }
        self.alone(&key, *id, *token, &seen)
    }

    /// First deliveries of a key leave in the order of the ids, each by an entry of its own.
    fn first_of_key(&mut self, key: &str, id: u64, token: u64) -> Check {
        let firsts = self.firsts.entry(key.to_owned()).or_default();
        let before = firsts.range(..id).next_back().filter(|(_, other)| **other >= token);
        let after = firsts.range(id + 1..).next().filter(|(_, other)| **other <= token);
        if let Some((other, by)) = before.or(after) {
            return Err(format!("key {key}: {id} was first delivered by token {token}, and {other} by {by}"));
        }
        firsts.insert(id, token);
        Ok(())
    }

    /// No other job of the key is in flight.
    fn alone(&self, key: &str, id: u64, token: u64, seen: &Seen) -> Check {
        let others = self.jobs.values().filter(|job| job.options.key == key && job.id != Some(id));
        for other in others {
            let Some((earlier, held)) = other.deliveries.range(..=token).next_back() else { continue };
            // One that was acknowledged may have been so in any order with this delivery.
            let done = other.acked_us.is_some() || other.acked_at.is_some() || other.acks_open > 0;
            if !done && seen.answered_us < held.free_us() {
                return Err(format!(
                    "key {key}: {id} was delivered by token {token} while {:?} was held by token {earlier}",
                    other.id
                ));
            }
        }
        Ok(())
    }

    fn acked(
        &mut self,
        now_us: u64,
        operation: &Operation,
        receipt: Receipt,
        good: Option<bool>,
        verdict: &Verdict,
        at: Option<u64>,
    ) -> Check {
        let Some(job) = self.job(receipt.id) else { return Ok(()) };
        if *verdict == Verdict::Unknown {
            return Ok(());
        }
        job.acks_open -= 1;
        if good != Some(true) {
            if let Some(seen) = job.deliveries.get_mut(&receipt.token) {
                seen.ends_us.retain(|(number, _)| *number != operation.number);
            }
            return Ok(());
        }
        job.acked_at = at.or(job.acked_at);
        if let Some(earlier) = job.acked_us.replace(now_us) {
            return Err(format!("{} was acknowledged twice, at {earlier} and {now_us} us", receipt.id));
        }
        let newer = job.deliveries.range(receipt.token + 1..).find(|(_, seen)| seen.answered_us < operation.sent_us);
        match newer {
            Some((newer, _)) => {
                Err(format!("the receipt of token {} was good after a delivery by token {newer}", receipt.token))
            }
            None => Ok(()),
        }
    }

    /// Tenants take turns: one that was ready all along is not passed over three times for the same other one.
    fn turns(&mut self, name: &str, operation: &Operation, deliveries: &[Delivery]) -> Check {
        if !takes_turns(name) || self.declared_us.is_none_or(|declared_us| declared_us >= operation.sent_us) {
            return Ok(());
        }
        let tenant = |jobs: &BTreeMap<Bytes, Job>, delivery: &Delivery| {
            jobs.get(&delivery.body).map_or(String::new(), |job| job.options.tenant.clone())
        };
        for delivery in deliveries.iter().filter(|delivery| delivery.deliveries == 1) {
            let job = &self.jobs[&delivery.body];
            let waited = job.enqueued_us.filter(|_| job.options.delay_ms == 0);
            let of = tenant(&self.jobs, delivery);
            let passed_over = self.unfair.iter().find(|(token, sent_us, unserved)| {
                *token < delivery.token && waited.is_some_and(|since_us| since_us < *sent_us) && unserved.contains(&of)
            });
            if let Some((token, ..)) = passed_over {
                return Err(format!("{} of tenant '{of}' was ready and passed over by token {token}", delivery.id));
            }
        }
        let mut served: BTreeMap<String, usize> = BTreeMap::new();
        for delivery in deliveries {
            *served.entry(tenant(&self.jobs, delivery)).or_default() += 1;
        }
        if let Some(first) = deliveries.first().filter(|_| served.values().any(|count| *count >= 3)) {
            let all = ["", "t0", "t1"].map(str::to_owned);
            let unserved = all.into_iter().filter(|tenant| !served.contains_key(tenant)).collect();
            self.unfair.push((first.token, operation.sent_us, unserved));
        }
        Ok(())
    }
}

impl Job {
    /// A delivery agrees with those seen so far: one consumer each, counted up, none before the last one's time is over.
    fn agrees(&self, id: u64, token: u64, seen: &Seen) -> Check {
        if let Some(other) = self.deliveries.get(&token).filter(|other| other.operation != seen.operation) {
            return Err(format!("{id} by token {token} went to operations {} and {}", other.operation, seen.operation));
        }
        if let Some((earlier, before)) = self.deliveries.range(..token).next_back() {
            if before.count >= seen.count {
                return Err(format!(
                    "{id}: delivery {} by token {earlier}, then {} by {token}",
                    before.count, seen.count
                ));
            }
            // With one between them that nobody saw, the time of the earlier one says nothing.
            if before.count + 1 == seen.count && seen.answered_us < before.free_us() {
                let free_us = before.free_us();
                return Err(format!("{id} by token {token} at {} us, hidden until {free_us} us", seen.answered_us));
            }
        }
        if let Some((later, after)) = self.deliveries.range(token + 1..).next() {
            if after.count <= seen.count {
                return Err(format!("{id}: delivery {} by token {token}, then {} by {later}", seen.count, after.count));
            }
        }
        Ok(())
    }
}
