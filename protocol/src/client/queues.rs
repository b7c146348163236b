//! The queue's commands beyond enqueue, dequeue and ack.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::{Client, mismatch};
use crate::command::Response;
use crate::error::{Error, ErrorCode};
use crate::queue::{
    About, AckMany, AckedMany, Declare, Declared, Dequeue, Dequeued, Enqueue, EnqueueOptions, Enqueued, ExplainQueue,
    ExplainedQueue, Extend, Extended, Flow, FlowSet, HandOff, HandedOff, ListQueues, MessageState, Nack, Nacked, Peek,
    Peeked, Policy, Purge, Purged, QueueShown, Queues, Receipt, Redrive, Redriven, SetFlow, ShowQueue, Undeclare,
    Undeclared,
};

answers! {
    /// Puts a message with a priority, a key, a delay and so on into a queue.
    enqueue_with(queue: impl Into<String>, body: impl Into<Bytes>, options: EnqueueOptions) -> Enqueued {
        Enqueue Enqueue { queue: queue.into(), body: body.into(), options: Some(Box::new(options)), ..Enqueue::default() }
    }
    /// Takes messages as the request says; with `wait_ms` it waits for some. The wait comes on top of the client's deadline.
    dequeue_with(dequeue: Dequeue) -> Dequeued {
        Dequeue dequeue
    }
    /// Starts the visibility timeout of a delivery anew; 0 means the queue's.
    extend(queue: impl Into<String>, receipt: impl Into<Receipt>, visibility_ms: u32) -> Extended {
        Extend Extend { queue: queue.into(), receipt: receipt.into(), visibility_ms }
    }
    /// Gives a delivery back; `delay_ms` None means the back-off of the queue.
    nack(queue: impl Into<String>, receipt: impl Into<Receipt>, delay_ms: Option<u32>, reason: impl Into<String>) -> Nacked {
        Nack Nack { queue: queue.into(), receipt: receipt.into(), delay_ms, reason: reason.into(), ..Nack::default() }
    }
    /// Gives a delivery back that nobody can digest: its message is dead.
    reject(queue: impl Into<String>, receipt: impl Into<Receipt>, reason: impl Into<String>) -> Nacked {
        Nack Nack { queue: queue.into(), receipt: receipt.into(), reason: reason.into(), reject: true, ..Nack::default() }
    }
    /// Acknowledges several deliveries of one queue in one command.
    ack_many(queue: impl Into<String>, receipts: Vec<Receipt>) -> AckedMany {
        AckMany AckMany { queue: queue.into(), receipts, if_token: None }
    }
    /// Declares a queue, or gives it another policy.
    declare(queue: impl Into<String>, policy: Policy) -> Declared {
        Declare Declare { queue: queue.into(), policy }
    }
    /// Ends the declaration of a queue.
    undeclare(queue: impl Into<String>) -> Undeclared {
        Undeclare Undeclare { queue: queue.into() }
    }
    /// Opens, pauses or drains a queue.
    set_flow(queue: impl Into<String>, flow: Flow) -> FlowSet {
        SetFlow SetFlow { queue: queue.into(), flow }
    }
    /// Removes some messages of a queue; `more` of the answer says whether there are others.
    purge(queue: impl Into<String>, state: Option<MessageState>) -> Purged {
        Purge Purge { queue: queue.into(), state }
    }
    /// Makes dead messages ready again.
    redrive(redrive: Redrive) -> Redriven {
        Redrive redrive
    }
    /// Looks at messages of one state without taking them.
    peek(queue: impl Into<String>, state: MessageState, after: u64, count_max: u32) -> Peeked {
        Peek Peek { queue: queue.into(), state, after, count_max }
    }
    /// Lists queues of a group.
    list_queues(group: u32, after: impl Into<String>) -> Queues {
        ListQueues ListQueues { group, after: after.into() }
    }
    /// Tells all about one queue.
    show_queue(queue: impl Into<String>) -> QueueShown {
        ShowQueue ShowQueue { queue: queue.into() }
    }
    /// Asks why a queue, a message or a consumer does not move.
    explain_queue(queue: impl Into<String>, about: About) -> ExplainedQueue {
        ExplainQueue ExplainQueue { queue: queue.into(), about }
    }
    /// Acknowledges, enqueues and releases or renews a lock in one step.
    hand_off(hand_off: HandOff) -> HandedOff {
        HandOff hand_off
    }
}

/// Messages of one batch that are under way at once: few enough to share a session's window with others.
const BATCH_IN_FLIGHT_MAX: usize = 1_024;

impl Client {
    /// Puts many messages into queues, in their order; they travel together and share the writes of the connection and of the disks. Each has its own
    /// answer, in the order of the messages: the batch is not atomic, some may be refused and others taken.
    pub async fn enqueue_many(&self, messages: Vec<Enqueue>) -> Vec<Result<Enqueued, Error>> {
        let mut answers: Vec<Result<Enqueued, Error>> =
            messages.iter().map(|_| Err(Error::new(ErrorCode::Internal, "no answer was noted"))).collect();
        let one = |place: usize, message: Enqueue| async move {
            let result = match self.call(message).await {
                Ok(Response::Enqueue(enqueued)) => Ok(enqueued),
                Ok(other) => Err(mismatch(&other)),
                Err(error) => Err(error),
            };
            (place, result)
        };
        let mut messages = messages.into_iter().enumerate();
        // The first one opens the session and finds the leader, where that is not done. From then on a call is on its way when it is polled first,
        // and all of them are polled first in their order, on this task.
        if let Some((place, message)) = messages.next() {
            answers[place] = one(place, message).await.1;
        }
        let mut under_way = FuturesUnordered::new();
        for (place, message) in messages {
            if under_way.len() >= BATCH_IN_FLIGHT_MAX
                && let Some((done, result)) = under_way.next().await
            {
                answers[done] = result;
            }
            under_way.push(one(place, message));
        }
        while let Some((place, result)) = under_way.next().await {
            answers[place] = result;
        }
        answers
    }
}
