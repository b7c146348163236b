//! What a queue promises: nothing acknowledged is lost, nothing comes from nowhere, nothing returns after its
//! acknowledgement, first deliveries keep the order, and a delivery is one consumer's until its time is over.

use std::collections::BTreeMap;

use bytes::Bytes;
use trine_protocol::queue::{AckWhich, Delivery, Dequeue};
use trine_protocol::{Request, Response};

use super::{Check, Operation, Verdict, lasts_us};
use crate::ids::GroupId;

pub(crate) type QueueName = (GroupId, String);

/// Every queue of the cluster, as its clients saw it.
#[derive(Debug, Default)]
pub(crate) struct QueueChecker {
    queues: BTreeMap<QueueName, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: BTreeMap<Bytes, Message>,
    by_id: BTreeMap<u64, Bytes>,
    /// The highest id of an answered enqueue.
    highest_id: u64,
    /// Of each enqueue that has no verdict yet: the highest id that was answered before it was sent.
    floors: BTreeMap<u64, u64>,
    /// Of first deliveries: token, then the ids that went out with it.
    first_deliveries: BTreeMap<u64, (u64, u64)>,
}

/// One body that some client enqueued.
#[derive(Debug, Default)]
struct Message {
    id: Option<u64>,
    /// The enqueue was answered.
    acknowledged: bool,
    /// The enqueue had the verdict that it was not executed.
    refused: bool,
    /// Acks that are under way or had no verdict: each may have removed the message.
    acks_open: u32,
    acked_us: Option<u64>,
    deliveries: BTreeMap<u64, Seen>,
    /// Last time that a client saw it.
    seen_us: u64,
}

/// One delivery that a client saw.
#[derive(Clone, Copy, Debug)]
struct Seen {
    operation: u64,
    sent_us: u64,
    answered_us: u64,
    visibility_ms: u32,
    count: u32,
}

impl QueueChecker {
    /// A client has sent an operation.
    pub(crate) fn sent(&mut self, operation: &Operation) {
        match &operation.request {
            Request::Enqueue(enqueue) => {
                let queue = self.queues.entry((operation.group, enqueue.queue.clone())).or_default();
                queue.floors.insert(operation.number, queue.highest_id);
                queue.messages.entry(enqueue.body.clone()).or_default();
            }
            Request::Ack(ack) => {
                let queue = self.queues.entry((operation.group, ack.queue.clone())).or_default();
                if let Some(message) = queue.named(&ack.which) {
                    message.acks_open += 1;
                }
            }
            _ => {}
        }
    }

    /// A client knows what became of an operation.
    pub(crate) fn ended(&mut self, now_us: u64, operation: &Operation, verdict: &Verdict) -> Check {
        let name = match &operation.request {
            Request::Enqueue(enqueue) => &enqueue.queue,
            Request::Dequeue(dequeue) => &dequeue.queue,
            Request::Ack(ack) => &ack.queue,
            _ => return Ok(()),
        };
        let queue = self.queues.entry((operation.group, name.clone())).or_default();
        let checked = match &operation.request {
            Request::Enqueue(enqueue) => queue.enqueued(operation, &enqueue.body, verdict),
            Request::Dequeue(dequeue) => queue.dequeued(now_us, operation, dequeue, verdict),
            Request::Ack(ack) => queue.acked(now_us, operation, &ack.which, verdict),
            _ => Ok(()),
        };
        checked.map_err(|what| format!("queue {name} of {}: {what}", operation.group))
    }

    /// The messages that must still be in the queue, and that no client has seen since that instant.
    pub(crate) fn missing(&self, group: GroupId, name: &str, since_us: u64) -> Vec<u64> {
        let Some(queue) = self.queues.get(&(group, name.to_string())) else { return Vec::new() };
        let must = |m: &&Message| m.acknowledged && m.acked_us.is_none() && m.acks_open == 0 && m.seen_us < since_us;
        queue.messages.values().filter(must).filter_map(|message| message.id).collect()
    }
}

impl Queue {
    fn named(&mut self, which: &AckWhich) -> Option<&mut Message> {
        let body = match which {
            AckWhich::Receipt { id, .. } => self.by_id.get(id)?.clone(),
            AckWhich::Body(body) => body.clone(),
        };
        self.messages.get_mut(&body)
    }

    fn enqueued(&mut self, operation: &Operation, body: &Bytes, verdict: &Verdict) -> Check {
        let floor = self.floors.remove(&operation.number).unwrap_or(0);
        let message = self.messages.get_mut(body).expect("noted when it was sent");
        match verdict {
            Verdict::Answered(Response::Enqueue(enqueued)) => {
                message.acknowledged = true;
                if enqueued.id <= floor {
                    return Err(format!("{body:?} got id {}, but {floor} was given before it was sent", enqueued.id));
                }
                self.highest_id = self.highest_id.max(enqueued.id);
                self.identify(body, enqueued.id)
            }
            Verdict::Answered(other) => Err(format!("Enqueue answered by {other:?}")),
            Verdict::NotExecuted(code) => {
                message.refused = true;
                match message.id {
                    Some(id) => Err(format!("{body:?} was refused with {code:?}, but is in the queue as {id}")),
                    None => Ok(()),
                }
            }
            Verdict::Unknown => Ok(()),
        }
    }

    /// The body has that id, no other one, and no other body has it.
    fn identify(&mut self, body: &Bytes, id: u64) -> Check {
        let message = self.messages.get_mut(body).expect("a known body");
        if let Some(other) = message.id.filter(|other| *other != id) {
            return Err(format!("{body:?} is in the queue twice, as {other} and {id}"));
        }
        message.id = Some(id);
        match self.by_id.insert(id, body.clone()) {
            Some(other) if other != *body => Err(format!("id {id} is both {other:?} and {body:?}")),
            _ => Ok(()),
        }
    }

    fn dequeued(&mut self, now_us: u64, operation: &Operation, dequeue: &Dequeue, verdict: &Verdict) -> Check {
        let Verdict::Answered(Response::Dequeue(dequeued)) = verdict else { return Ok(()) };
        if dequeued.deliveries.len() > dequeue.count_max.max(1) as usize {
            return Err(format!("{} deliveries for a count of {}", dequeued.deliveries.len(), dequeue.count_max));
        }
        if dequeued.deliveries.windows(2).any(|pair| pair[0].token != pair[1].token) {
            return Err(format!("one dequeue with several tokens: {:?}", dequeued.deliveries));
        }
        for delivery in &dequeued.deliveries {
            let seen = Seen {
                operation: operation.number,
                sent_us: operation.sent_us,
                answered_us: now_us,
                visibility_ms: dequeue.visibility_ms,
                count: delivery.deliveries,
            };
            self.delivered(delivery, seen)?;
        }
        Ok(())
    }

    fn delivered(&mut self, delivery: &Delivery, seen: Seen) -> Check {
        let Delivery { id, token, body, deliveries, .. } = delivery;
        let Some(message) = self.messages.get_mut(body) else { return Err(format!("{body:?} was never enqueued")) };
        if message.refused {
            return Err(format!("{body:?} was delivered, but its enqueue was refused"));
        }
        if let Some(acked_us) = message.acked_us.filter(|acked_us| *acked_us < seen.sent_us) {
            return Err(format!("{id} was delivered by token {token} after its acknowledgement at {acked_us} us"));
        }
        message.seen_us = seen.answered_us;
        message.agrees(*id, *token, seen)?;
        message.deliveries.insert(*token, seen);
        self.identify(body, *id)?;
        if *deliveries == 1 { self.first_delivery(*token, *id) } else { Ok(()) }
    }

    /// First deliveries leave in the order of the ids.
    fn first_delivery(&mut self, token: u64, id: u64) -> Check {
        let range = self.first_deliveries.entry(token).or_insert((id, id));
        *range = (range.0.min(id), range.1.max(id));
        let (low, high) = *range;
        if let Some((earlier, (_, before))) = self.first_deliveries.range(..token).next_back() {
            if *before >= low {
                return Err(format!("first delivery of {low} by token {token} after that of {before} by {earlier}"));
            }
        }
        if let Some((later, (after, _))) = self.first_deliveries.range(token + 1..).next() {
            if *after <= high {
                return Err(format!("first delivery of {after} by token {later} after that of {high} by {token}"));
            }
        }
        Ok(())
    }

    fn acked(&mut self, now_us: u64, operation: &Operation, which: &AckWhich, verdict: &Verdict) -> Check {
        if *verdict == Verdict::Unknown {
            return Ok(());
        }
        let Some(message) = self.named(which) else {
            return match verdict {
                Verdict::Answered(response) => Err(format!("{response:?} for {which:?}, which nobody enqueued")),
                _ => Ok(()),
            };
        };
        message.acks_open -= 1;
        let Verdict::Answered(Response::Ack(acked)) = verdict else { return Ok(()) };
        if message.id.is_some_and(|id| id != acked.id) {
            return Err(format!("{which:?} removed {} instead of {:?}", acked.id, message.id));
        }
        if let Some(earlier) = message.acked_us.replace(now_us) {
            return Err(format!("{} was acknowledged twice, at {earlier} and {now_us} us", acked.id));
        }
        if let AckWhich::Receipt { token, .. } = which {
            let newer = message.deliveries.range(token + 1..).find(|(_, seen)| seen.answered_us < operation.sent_us);
            if let Some((newer, _)) = newer {
                return Err(format!("the receipt of token {token} was good after a delivery by token {newer}"));
            }
        }
        match which {
            AckWhich::Body(body) => self.identify(body, acked.id),
            AckWhich::Receipt { .. } => Ok(()),
        }
    }
}

impl Message {
    /// A delivery agrees with those seen so far: one consumer each, counted up, none before the last one's time is over.
    fn agrees(&self, id: u64, token: u64, seen: Seen) -> Check {
        if let Some(other) = self.deliveries.get(&token).filter(|other| other.operation != seen.operation) {
            return Err(format!("{id} by token {token} went to operations {} and {}", other.operation, seen.operation));
        }
        if token <= id {
            return Err(format!("{id} was delivered by token {token}, an entry before it"));
        }
        if let Some((earlier, before)) = self.deliveries.range(..token).next_back() {
            if before.count >= seen.count {
                return Err(format!(
                    "{id}: delivery {} by token {earlier}, then {} by {token}",
                    before.count, seen.count
                ));
            }
            let free_us = before.sent_us + lasts_us(before.visibility_ms);
            if seen.answered_us < free_us {
                return Err(format!("{id} by token {token} at {} us, hidden until {free_us} us", seen.answered_us));
            }
        }
        if let Some((later, after)) = self.deliveries.range(token + 1..).next() {
            if after.count <= seen.count {
                return Err(format!("{id}: delivery {} by token {token}, then {} by {later}", seen.count, after.count));
            }
            let free_us = seen.sent_us + lasts_us(seen.visibility_ms);
            if after.answered_us < free_us {
                return Err(format!("{id} by token {later} at {} us, hidden until {free_us} us", after.answered_us));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use trine_protocol::ErrorCode;
    use trine_protocol::queue::{Ack, Acked, Dequeued, Enqueue, Enqueued};

    use super::super::history::History;
    use super::*;

    fn enqueue(body: &'static str) -> Enqueue {
        Enqueue { queue: "q".into(), body: Bytes::from_static(body.as_bytes()), ..Enqueue::default() }
    }

    fn enqueued(id: u64) -> Response {
        Response::Enqueue(Enqueued { id, ..Enqueued::default() })
    }

    fn dequeue() -> Dequeue {
        Dequeue { queue: "q".into(), visibility_ms: 100, count_max: 2, ..Dequeue::default() }
    }

    fn deliveries(of: &[(u64, u64, u32, &'static str)]) -> Response {
        let delivery = |(id, token, deliveries, body): &(u64, u64, u32, &'static str)| Delivery {
            id: *id,
            token: *token,
            deliveries: *deliveries,
            body: Bytes::from_static(body.as_bytes()),
            attributes: None,
        };
        Response::Dequeue(Dequeued { deliveries: of.iter().map(delivery).collect() })
    }

    fn receipt(id: u64, token: u64) -> Ack {
        Ack { queue: "q".into(), which: AckWhich::Receipt { id, token }, if_token: None }
    }

    fn with_two() -> History {
        let mut history = History::new();
        history.run(0, enqueue("a"), enqueued(10)).unwrap();
        history.run(2, enqueue("b"), enqueued(11)).unwrap();
        history
    }

    #[test]
    fn a_faithful_queue_passes() {
        let mut history = with_two();
        history.run(4, dequeue(), deliveries(&[(10, 12, 1, "a"), (11, 12, 1, "b")])).unwrap();
        history.run(6, receipt(10, 12), Response::Ack(Acked { id: 10 })).unwrap();
        assert_eq!(history.services.queue.missing(GroupId(0), "q", 10_000), [11]);
        history.run(200, dequeue(), deliveries(&[(11, 20, 2, "b")])).unwrap();
        assert!(history.services.queue.missing(GroupId(0), "q", 10_000).is_empty());
        let stale = history.send(210, receipt(11, 12));
        history.end(211, &stale, Verdict::NotExecuted(ErrorCode::StaleReceipt)).unwrap();
        assert_eq!(history.services.queue.missing(GroupId(0), "q", 300_000), [11]);
    }

    #[test]
    fn an_unknown_ack_may_have_removed_the_message_and_a_refused_one_may_not() {
        let mut history = with_two();
        history.run(4, dequeue(), deliveries(&[(10, 12, 1, "a"), (11, 12, 1, "b")])).unwrap();
        let (unknown, refused) = (history.send(5, receipt(10, 12)), history.send(5, receipt(11, 12)));
        history.end(6, &unknown, Verdict::Unknown).unwrap();
        history.end(6, &refused, Verdict::NotExecuted(ErrorCode::NoLeader)).unwrap();
        assert_eq!(history.services.queue.missing(GroupId(0), "q", 10_000), [11]);
    }

    fn rejected(history: &mut History, at_ms: u64, request: impl Into<Request>, response: Response, why: &str) {
        let what = history.run(at_ms, request, response).expect_err("a violation");
        assert!(what.contains(why), "{what}");
    }

    #[test]
    fn ids_must_grow_with_real_time_and_be_unique() {
        rejected(&mut with_two(), 4, enqueue("c"), enqueued(9), "11 was given before");
        let mut history = History::new();
        let late = history.send(0, enqueue("c"));
        history.run(2, enqueue("a"), enqueued(10)).unwrap();
        assert!(history.end(9, &late, Verdict::Answered(enqueued(10))).unwrap_err().contains("is both"));
    }

    #[test]
    fn a_body_delivered_under_another_id_was_enqueued_twice() {
        rejected(&mut with_two(), 4, dequeue(), deliveries(&[(12, 13, 1, "b")]), "twice");
    }

    #[test]
    fn nothing_comes_from_nowhere_or_from_a_refused_enqueue() {
        rejected(&mut with_two(), 4, dequeue(), deliveries(&[(12, 13, 1, "x")]), "never enqueued");
        let mut history = with_two();
        let refused = history.send(3, enqueue("c"));
        history.end(4, &refused, Verdict::NotExecuted(ErrorCode::NotReady)).unwrap();
        rejected(&mut history, 5, dequeue(), deliveries(&[(12, 13, 1, "c")]), "was refused");
        let mut history = with_two();
        let refused = history.send(3, enqueue("c"));
        history.run(4, dequeue(), deliveries(&[(12, 13, 1, "c")])).unwrap();
        let what = history.end(6, &refused, Verdict::NotExecuted(ErrorCode::NotReady)).unwrap_err();
        assert!(what.contains("is in the queue as 12"), "{what}");
    }

    #[test]
    fn what_was_acknowledged_never_returns_and_only_once_leaves() {
        let mut history = with_two();
        history.run(4, dequeue(), deliveries(&[(10, 12, 1, "a")])).unwrap();
        history.run(6, receipt(10, 12), Response::Ack(Acked { id: 10 })).unwrap();
        rejected(&mut history, 8, receipt(10, 12), Response::Ack(Acked { id: 10 }), "twice");
        rejected(&mut history, 200, dequeue(), deliveries(&[(10, 15, 2, "a")]), "after its acknowledgement");
    }

    #[test]
    fn first_deliveries_keep_the_order() {
        let mut history = with_two();
        history.run(4, dequeue(), deliveries(&[(11, 12, 1, "b")])).unwrap();
        rejected(&mut history, 6, dequeue(), deliveries(&[(10, 13, 1, "a")]), "first delivery of 10");
    }

    #[test]
    fn a_delivery_is_one_consumers_until_its_time_is_over() {
        let mut history = with_two();
        history.run(4, dequeue(), deliveries(&[(10, 12, 1, "a")])).unwrap();
        rejected(&mut history, 50, dequeue(), deliveries(&[(10, 14, 2, "a")]), "hidden until");
        rejected(&mut history, 200, dequeue(), deliveries(&[(10, 12, 1, "a")]), "went to operations");
        rejected(&mut history, 200, dequeue(), deliveries(&[(10, 14, 1, "a")]), "delivery 1 by token 12, then 1");
    }

    #[test]
    fn an_old_receipt_is_stale() {
        let mut history = with_two();
        history.run(4, dequeue(), deliveries(&[(10, 12, 1, "a")])).unwrap();
        history.run(200, dequeue(), deliveries(&[(10, 20, 2, "a")])).unwrap();
        rejected(&mut history, 210, receipt(10, 12), Response::Ack(Acked { id: 10 }), "was good after a delivery");
    }

    #[test]
    fn an_ack_by_body_removes_that_body() {
        let mut history = with_two();
        let ack = Ack { queue: "q".into(), which: AckWhich::Body(Bytes::from_static(b"a")), if_token: None };
        rejected(&mut history, 4, ack, Response::Ack(Acked { id: 11 }), "instead of Some(10)");
    }
}
