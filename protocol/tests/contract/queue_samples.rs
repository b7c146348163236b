//! Samples of the queue's commands beyond enqueue, dequeue and ack.

use bytes::Bytes;
use trine_protocol::lock::{IfToken, Release, Renew};
use trine_protocol::queue::{
    About, AckMany, AckedMany, Attempt, AttemptEnd, Attributes, BackOff, Cause, Credit, Credited, DeadLetter,
    DeadReason, Declare, Declared, Delivery, Dequeue, Dequeued, Durability, Enqueue, EnqueueOptions, Enqueued, Expired,
    ExplainQueue, ExplainedQueue, Extend, Extended, Flow, FlowSet, HandOff, HandedOff, ListQueues, LockStep,
    MessageState, Nack, Nacked, Overflow, Peek, Peeked, PeekedMessage, Policy, Purge, Purged, Pushed, QueueLine,
    QueueReceipt, QueueShown, Queues, Receipt, Redrive, RedriveFilter, Redriven, RefusedReceipt, SetFlow, ShowQueue,
    Subscribe, Subscribed, TenantWeight, Undeclare, Undeclared, Unsubscribe, Unsubscribed,
};
use trine_protocol::{Error, ErrorCode, Request, Response};

const RECEIPT: Receipt = Receipt { id: 41, token: 45 };

fn orders() -> String {
    "orders".to_owned()
}

fn two() -> Vec<Receipt> {
    vec![RECEIPT, Receipt { id: 42, token: 45 }]
}

fn demand() -> Option<IfToken> {
    Some(IfToken { lock: "{a}7".into(), token: 44 })
}

fn options() -> EnqueueOptions {
    EnqueueOptions {
        priority: 7,
        key: "customer:9".into(),
        tenant: "eu".into(),
        delay_ms: 60_000,
        at_ms: 1_800_000_000_000,
        ttl_ms: 3_600_000,
        dedup_id: "order-77".into(),
        max_deliveries: 5,
        back_off: Some(BackOff::Exponential { first_ms: 100, max_ms: 60_000, jitter_percent: 20 }),
    }
}

fn policy() -> Policy {
    Policy {
        max_deliveries: 5,
        back_off: BackOff::Linear { step_ms: 1_000, max_ms: 60_000 },
        visibility_ms: 10_000,
        messages_max: 1_000_000,
        bytes_max: 1 << 33,
        age_ms_max: 86_400_000,
        overflow: Overflow::DropOldest,
        expired: Expired::Bury,
        dedup_window_ms: 600_000,
        ageing_ms: 5_000,
        key_in_flight_max: 2,
        fair: true,
        weights: vec![TenantWeight { tenant: "eu".into(), weight: 3 }],
        partitions: 3,
    }
}

fn hand_off() -> HandOff {
    HandOff {
        ack: Some(QueueReceipt { queue: "{a}orders".into(), receipt: RECEIPT }),
        enqueue: Some(Enqueue { queue: "{a}mails".into(), body: Bytes::from_static(b"hello"), ..Enqueue::default() }),
        lock: Some(LockStep::Release(Release {
            lock: "{a}7".into(),
            client: "c1".into(),
            token: 44,
            ..Release::default()
        })),
    }
}

pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let queue = orders;
    let whole = Dequeue { queue: queue(), visibility_ms: 1, count_max: 2, wait_ms: 20_000, consumer: "worker1".into() };
    let filter = RedriveFilter {
        reason: Some(DeadReason::Rejected),
        key: "customer:9".into(),
        tenant: "eu".into(),
        ids: vec![41, 42],
    };
    let renew = Renew { lock: "{a}7".into(), client: "c1".into(), token: 44, lease_ms: 10_000, ..Renew::default() };
    let nack = Nack {
        queue: queue(),
        receipt: RECEIPT,
        delay_ms: Some(500),
        reason: "no JSON".into(),
        reject: true,
        if_token: None,
    };
    let fenced = Nack { if_token: demand(), ..nack.clone() };
    let with_options = Enqueue {
        queue: queue(),
        body: Bytes::from_static(b"hello"),
        options: Some(Box::new(options())),
        ..Enqueue::default()
    };
    vec![
        ("enqueue: everything", with_options.into()),
        ("dequeue: everything", whole.into()),
        ("extend", Extend { queue: queue(), receipt: RECEIPT, visibility_ms: 30_000 }.into()),
        ("nack", Nack { queue: queue(), receipt: RECEIPT, ..Nack::default() }.into()),
        ("nack: rejected", nack.into()),
        ("nack: everything", fenced.into()),
        ("ack many", AckMany { queue: queue(), receipts: two(), if_token: None }.into()),
        ("ack many: everything", AckMany { queue: queue(), receipts: two(), if_token: demand() }.into()),
        ("declare", Declare { queue: queue(), policy: Policy::default() }.into()),
        ("declare: everything", Declare { queue: queue(), policy: policy() }.into()),
        (
            "declare: fixed",
            Declare { queue: queue(), policy: Policy { back_off: BackOff::Fixed { ms: 100 }, ..Policy::default() } }
                .into(),
        ),
        ("undeclare", Undeclare { queue: queue() }.into()),
        ("set flow", SetFlow { queue: queue(), flow: Flow::Paused }.into()),
        ("purge", Purge { queue: queue(), state: Some(MessageState::Dead) }.into()),
        ("purge: all", Purge { queue: queue(), state: None }.into()),
        ("redrive", Redrive { queue: queue(), filter: Some(filter), count_max: 100, per_second: 10 }.into()),
        ("redrive: all", Redrive { queue: queue(), ..Redrive::default() }.into()),
        ("peek", Peek { queue: queue(), state: MessageState::InFlight, after: 41, count_max: 20 }.into()),
        ("list queues", ListQueues { group: 2, after: queue() }.into()),
        ("show queue", ShowQueue { queue: queue() }.into()),
        ("explain queue", ExplainQueue { queue: queue(), about: About::Queue }.into()),
        ("explain queue: a message", ExplainQueue { queue: queue(), about: About::Message(41) }.into()),
        ("explain queue: a consumer", ExplainQueue { queue: queue(), about: About::Consumer("worker1".into()) }.into()),
        ("hand off", hand_off().into()),
        ("hand off: renew", HandOff { lock: Some(LockStep::Renew(renew)), ..HandOff::default() }.into()),
        (
            "subscribe",
            Subscribe { queue: queue(), consumer: "worker1".into(), credit: 8, visibility_ms: 30_000 }.into(),
        ),
        ("credit", Credit { subscription: 7, more: 4 }.into()),
        ("unsubscribe", Unsubscribe { subscription: 7 }.into()),
    ]
}

pub(crate) fn enqueued() -> Enqueued {
    let reached = Durability { term: 5, index: 41, replicas: 2, voters: 3, flushed: true };
    Enqueued { id: 41, duplicate: false, reached: Some(reached) }
}

fn line() -> QueueLine {
    QueueLine {
        queue: orders(),
        declared: true,
        flow: Flow::Draining,
        ready: 9,
        held_by_key: 2,
        delayed: 3,
        in_flight: 4,
        dead: 1,
        bytes: 4_096,
        oldest_ready_ms: 1_500,
        waiting: 2,
    }
}

fn peeked() -> PeekedMessage {
    let attempt = |token, end| Attempt { token, consumer: "worker1".into(), end, ended_ms: 1_800_000_000_000 };
    PeekedMessage {
        id: 41,
        body: Bytes::from_static(b"hello"),
        state: MessageState::Dead,
        age_ms: 60_000,
        deliveries: 2,
        token: 45,
        consumer: "worker1".into(),
        due_in_ms: 0,
        attributes: Attributes { priority: 7, key: "customer:9".into(), tenant: "eu".into() },
        dead: Some(DeadLetter {
            reason: DeadReason::MaxDeliveries,
            note: "no JSON".into(),
            since_ms: 1_800_000_000_000,
        }),
        history: vec![attempt(43, AttemptEnd::TimedOut), attempt(45, AttemptEnd::GivenBack("no JSON".into()))],
    }
}

fn causes() -> Vec<Cause> {
    vec![
        Cause::NoQuorum { group: 2 },
        Cause::NoQueue,
        Cause::NoMessage,
        Cause::Paused,
        Cause::Draining,
        Cause::NothingReady { in_ms: 40 },
        Cause::LimitReached { limit: "messages_max".into(), is: 2, max: 2 },
        Cause::NobodyAsks { ready: 9 },
        Cause::HeldByKey {
            key: "customer:9".into(),
            id: 41,
            token: 45,
            consumer: "worker1".into(),
            since_ms: 800,
            free_in_ms: 29_200,
        },
        Cause::HeldByKeys { messages: 5, keys: 2 },
        Cause::Delayed { due_in_ms: 60_000 },
        Cause::BackingOff { due_in_ms: 100, deliveries: 2 },
        Cause::InFlight { token: 45, consumer: "worker1".into(), since_ms: 800, free_in_ms: 29_200, deliveries: 1 },
        Cause::Dead { reason: DeadReason::Expired, note: String::new() },
        Cause::Behind { messages: 3 },
        Cause::Next,
        Cause::Asks { since_ms: 500 },
        Cause::NoCredit { holds: 8 },
        Cause::NoConsumer,
    ]
}

fn delivery() -> Delivery {
    let attributes = Some(Box::new(Attributes { priority: 7, key: "customer:9".into(), tenant: "eu".into() }));
    Delivery { id: 41, token: 45, deliveries: 2, body: Bytes::from_static(b"hello"), attributes }
}

/// What a subscription is sent: deliveries, and its end.
pub(crate) fn pushes() -> [(&'static str, Pushed); 2] {
    let end = Error::new(ErrorCode::QueuePartitioned, "queue 'orders' has 3 partitions");
    [
        ("push: deliveries", Pushed { subscription: 7, deliveries: vec![delivery()], error: None }),
        ("push: end of a subscription", Pushed { subscription: 7, deliveries: vec![], error: Some(end) }),
    ]
}

pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let refused = vec![RefusedReceipt { place: 1, code: ErrorCode::StaleReceipt }];
    let shown = QueueShown { line: line(), policy: Some(Box::new(policy())), group: 2 };
    let explained = |causes| ExplainedQueue { summary: "no quorum in group 2".into(), causes };
    let mut first = causes();
    let rest = first.split_off(10);
    vec![
        ("answer to enqueue, a duplicate", Response::Enqueue(Enqueued { duplicate: true, ..enqueued() })),
        ("answer to dequeue, attributes", Response::Dequeue(Dequeued { deliveries: vec![delivery()] })),
        ("answer to extend", Response::Extend(Extended { id: 41 })),
        ("answer to nack", Response::Nack(Nacked { state: MessageState::Delayed })),
        ("answer to ack many", Response::AckMany(AckedMany { refused })),
        ("answer to ack many, all good", Response::AckMany(AckedMany { refused: vec![] })),
        ("answer to declare", Response::Declare(Declared { made: true })),
        ("answer to undeclare", Response::Undeclare(Undeclared { was_declared: true })),
        ("answer to set flow", Response::SetFlow(FlowSet { before: Flow::Open })),
        ("answer to purge", Response::Purge(Purged { messages: 10_000, more: true })),
        ("answer to redrive", Response::Redrive(Redriven { messages: 2, more: false })),
        ("answer to peek", Response::Peek(Peeked { messages: vec![peeked(), PeekedMessage::default()], more: true })),
        ("answer to list queues", Response::ListQueues(Queues { queues: vec![line()], more: false })),
        ("answer to show queue", Response::ShowQueue(shown)),
        ("answer to show queue, none", Response::ShowQueue(QueueShown::default())),
        ("answer to explain queue", Response::ExplainQueue(explained(first))),
        ("answer to explain queue, more causes", Response::ExplainQueue(explained(rest))),
        ("answer to hand off", Response::HandOff(HandedOff { acked: Some(41), enqueued: Some(enqueued()) })),
        ("answer to hand off, a lock only", Response::HandOff(HandedOff::default())),
        ("answer to subscribe", Response::Subscribe(Subscribed { subscription: 7 })),
        ("answer to credit", Response::Credit(Credited { credit: 12 })),
        ("answer to unsubscribe", Response::Unsubscribe(Unsubscribed {})),
    ]
}
