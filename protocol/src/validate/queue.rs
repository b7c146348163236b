//! Ranges of the queue's requests.

use super::locks::{self, if_token};
use super::{as_u32, at_most, in_range, name, not_empty};
use crate::error::{Error, ErrorCode};
use crate::limits::{
    BATCH_MAX, CONSUMER_BYTES_MAX, CREDIT_MAX, DEDUP_ID_BYTES_MAX, DEDUP_WINDOW_MS_MAX, KEY_IN_FLIGHT_MAX,
    NAME_BYTES_MAX, ORDER_KEY_BYTES_MAX, PARTITIONS_MAX, PRIORITY_MAX, REASON_BYTES_MAX, REDRIVE_MAX, TENANT_BYTES_MAX,
    VALUE_BYTES_MAX, VISIBILITY_MS_MAX, WAIT_MS_MAX, WEIGHT_MAX, WEIGHTS_MAX,
};
use crate::queue::{
    About, Ack, AckMany, AckWhich, BackOff, Declare, Dequeue, Enqueue, EnqueueOptions, ExplainQueue, Extend, HandOff,
    ListQueues, LockStep, Nack, Peek, Policy, Redrive, Subscribe,
};

pub(super) fn enqueue(enqueue: &Enqueue) -> Result<(), Error> {
    name("queue", &enqueue.queue)?;
    if_token(&enqueue.if_token)?;
    at_most("body", enqueue.body.len(), VALUE_BYTES_MAX)?;
    enqueue.options.as_deref().map_or(Ok(()), options)
}

fn options(options: &EnqueueOptions) -> Result<(), Error> {
    in_range("priority", options.priority.into(), 0, PRIORITY_MAX.into())?;
    at_most("key", options.key.len(), ORDER_KEY_BYTES_MAX)?;
    at_most("tenant", options.tenant.len(), TENANT_BYTES_MAX)?;
    at_most("dedup_id", options.dedup_id.len(), DEDUP_ID_BYTES_MAX)?;
    options.back_off.as_ref().map_or(Ok(()), back_off)
}

fn back_off(back_off: &BackOff) -> Result<(), Error> {
    match *back_off {
        BackOff::None => Ok(()),
        BackOff::Fixed { ms } => in_range("ms", ms, 0, VISIBILITY_MS_MAX),
        BackOff::Linear { step_ms, max_ms } => {
            in_range("step_ms", step_ms, 0, VISIBILITY_MS_MAX)?;
            in_range("max_ms", max_ms, 0, VISIBILITY_MS_MAX)
        }
        BackOff::Exponential { first_ms, max_ms, jitter_percent } => {
            in_range("first_ms", first_ms, 0, VISIBILITY_MS_MAX)?;
            in_range("max_ms", max_ms, 0, VISIBILITY_MS_MAX)?;
            in_range("jitter_percent", jitter_percent, 0, 100)
        }
    }
}

pub(super) fn dequeue(dequeue: &Dequeue) -> Result<(), Error> {
    name("queue", &dequeue.queue)?;
    in_range("visibility_ms", dequeue.visibility_ms, 0, VISIBILITY_MS_MAX)?;
    in_range("count_max", dequeue.count_max, 0, BATCH_MAX)?;
    in_range("wait_ms", dequeue.wait_ms, 0, WAIT_MS_MAX)?;
    at_most("consumer", dequeue.consumer.len(), CONSUMER_BYTES_MAX)
}

pub(super) fn ack(ack: &Ack) -> Result<(), Error> {
    name("queue", &ack.queue)?;
    if_token(&ack.if_token)?;
    match &ack.which {
        AckWhich::Receipt { .. } => Ok(()),
        AckWhich::Body(body) => at_most("body", body.len(), VALUE_BYTES_MAX),
    }
}

pub(super) fn extend(extend: &Extend) -> Result<(), Error> {
    name("queue", &extend.queue)?;
    in_range("visibility_ms", extend.visibility_ms, 0, VISIBILITY_MS_MAX)
}

pub(super) fn nack(nack: &Nack) -> Result<(), Error> {
    name("queue", &nack.queue)?;
    if_token(&nack.if_token)?;
    in_range("delay_ms", nack.delay_ms.unwrap_or(0), 0, VISIBILITY_MS_MAX)?;
    at_most("reason", nack.reason.len(), REASON_BYTES_MAX)
}

pub(super) fn ack_many(ack: &AckMany) -> Result<(), Error> {
    name("queue", &ack.queue)?;
    if_token(&ack.if_token)?;
    in_range("receipts", as_u32(ack.receipts.len()), 1, BATCH_MAX)
}

pub(super) fn declare(declare: &Declare) -> Result<(), Error> {
    name("queue", &declare.queue)?;
    policy(&declare.policy)
}

fn policy(policy: &Policy) -> Result<(), Error> {
    back_off(&policy.back_off)?;
    in_range("visibility_ms", policy.visibility_ms, 0, VISIBILITY_MS_MAX)?;
    in_range("dedup_window_ms", policy.dedup_window_ms, 0, DEDUP_WINDOW_MS_MAX)?;
    in_range("key_in_flight_max", policy.key_in_flight_max, 0, KEY_IN_FLIGHT_MAX)?;
    in_range("partitions", policy.partitions, 0, PARTITIONS_MAX)?;
    in_range("weights", as_u32(policy.weights.len()), 0, as_u32(WEIGHTS_MAX))?;
    for (place, weight) in policy.weights.iter().enumerate() {
        at_most("tenant", weight.tenant.len(), TENANT_BYTES_MAX)?;
        in_range("weight", weight.weight, 1, WEIGHT_MAX)?;
        if policy.weights[..place].iter().any(|other| other.tenant == weight.tenant) {
            let message = format!("tenant '{}' has two weights, one is allowed", weight.tenant);
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
    }
    Ok(())
}

pub(super) fn redrive(redrive: &Redrive) -> Result<(), Error> {
    name("queue", &redrive.queue)?;
    in_range("count_max", redrive.count_max, 0, REDRIVE_MAX)?;
    let Some(filter) = &redrive.filter else { return Ok(()) };
    at_most("key", filter.key.len(), ORDER_KEY_BYTES_MAX)?;
    at_most("tenant", filter.tenant.len(), TENANT_BYTES_MAX)?;
    in_range("ids", as_u32(filter.ids.len()), 0, BATCH_MAX)
}

pub(super) fn peek(peek: &Peek) -> Result<(), Error> {
    name("queue", &peek.queue)?;
    in_range("count_max", peek.count_max, 0, BATCH_MAX)
}

pub(super) fn list(list: &ListQueues) -> Result<(), Error> {
    at_most("after", list.after.len(), NAME_BYTES_MAX)
}

pub(super) fn explain(explain: &ExplainQueue) -> Result<(), Error> {
    name("queue", &explain.queue)?;
    match &explain.about {
        About::Consumer(consumer) => {
            not_empty("consumer", consumer)?;
            at_most("consumer", consumer.len(), CONSUMER_BYTES_MAX)
        }
        About::Queue | About::Message(_) => Ok(()),
    }
}

pub(super) fn hand_off(hand_off: &HandOff) -> Result<(), Error> {
    let HandOff { ack, enqueue: next, lock } = hand_off;
    if ack.is_none() && next.is_none() && lock.is_none() {
        let message = "a hand-off does nothing: an ack, an enqueue or a lock is to be named";
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    }
    ack.as_ref().map_or(Ok(()), |ack| name("queue", &ack.queue))?;
    next.as_ref().map_or(Ok(()), enqueue)?;
    match lock {
        Some(LockStep::Release(release)) => locks::release(release),
        Some(LockStep::Renew(renew)) => locks::renew(renew),
        None => Ok(()),
    }
}

pub(super) fn subscribe(subscribe: &Subscribe) -> Result<(), Error> {
    name("queue", &subscribe.queue)?;
    at_most("consumer", subscribe.consumer.len(), CONSUMER_BYTES_MAX)?;
    in_range("credit", subscribe.credit, 0, CREDIT_MAX)?;
    in_range("visibility_ms", subscribe.visibility_ms, 0, VISIBILITY_MS_MAX)
}

macro_rules! checked {
    ($($message:ident $check:ident;)*) => {
        $(impl $message {
            /// Looks whether every field is in its range.
            ///
            /// # Errors
            /// `InvalidArgument`, `TooLarge`: which field, what it is and what it may be.
            pub fn check(&self) -> Result<(), Error> {
                $check(self)
            }
        })*
    };
}

checked! {
    Enqueue enqueue;
    Dequeue dequeue;
    Ack ack;
    Extend extend;
    Nack nack;
    AckMany ack_many;
    Declare declare;
    Redrive redrive;
    HandOff hand_off;
    Peek peek;
    ExplainQueue explain;
}
