//! The subscriptions of one connection: pushing deliveries, within the credit that the client has given.
//!
//! A subscription is a loop of dequeues that wait, each for no more messages than there is credit. What they bring is pushed. So the
//! leader needs to know nothing of subscriptions, and a change of leader is nothing that they see.
//!
//! ```text
//!   Subscribe, Credit --> credit > 0 --> Dequeue with wait_ms --> deliveries --> push, credit - n --+
//!                           ^  ^                                                                    |
//!                           |  '--------------------- credit left ----------------------------------'
//!                           '-- Credit
//! ```
//!
//! # Invariants
//! - Of each subscription one dequeue is under way at most.
//! - What was pushed and has not been seen to be acknowledged over this connection is given back at once when the connection or the
//!   subscription ends, and so is what a dequeue brings that was under way then.
//!
//! # Caveats
//! - An acknowledgement that goes over another connection is not seen here. The delivery is then given back in vain, which is
//!   `NotInFlight` or `StaleReceipt` and does no harm.
//! - Of each subscription the newest [`OUTSTANDING_MAX`] deliveries are remembered; older ones come back after their visibility timeout.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use trine_protocol::error::Outcome;
use trine_protocol::limits::{BATCH_MAX, CREDIT_MAX, SUBSCRIPTIONS_MAX};
use trine_protocol::queue::{
    AckWhich, Credited, Delivery, Dequeue, Nack, Pushed, Receipt, Subscribe, Subscribed, Unsubscribed,
};
use trine_protocol::{Error, ErrorCode, Request, Response};

use crate::metrics;
use crate::server::{CallOptions, Gateway};

/// Deliveries of one subscription that are remembered: as many as may be outstanding, and those whose acknowledgement went elsewhere.
const OUTSTANDING_MAX: usize = 2 * CREDIT_MAX as usize;
/// How long one dequeue waits. A leader that changes meanwhile costs no more than that.
const WAIT_MS: u32 = 20_000;
/// Time for the dequeue itself on top of its wait.
const DEADLINE: Duration = Duration::from_millis(WAIT_MS as u64 + 5_000);
/// Pause after a dequeue that was not done.
const PAUSE_MS: u32 = 100;

/// What a dequeue of a subscription came to.
pub(super) struct Polled {
    subscription: u64,
    queue: String,
    result: Result<Response, Error>,
}

struct Subscription {
    subscribe: Subscribe,
    credit: u32,
    outstanding: VecDeque<Receipt>,
    polling: bool,
}

/// All of one connection's.
pub(super) struct Subscriptions<G> {
    gateway: G,
    open: BTreeMap<u64, Subscription>,
    polls: FuturesUnordered<Pin<Box<dyn Future<Output = Polled> + Send>>>,
}

impl<G: Gateway> Subscriptions<G> {
    pub(super) fn new(gateway: G) -> Self {
        Self { gateway, open: BTreeMap::new(), polls: FuturesUnordered::new() }
    }

    /// Does what a request asks for that is about subscriptions; None where it is not. Notes what a request acknowledges.
    pub(super) fn take(&mut self, id: u64, request: &Request) -> Option<Result<Response, Error>> {
        match request {
            Request::Subscribe(subscribe) => Some(self.subscribe(id, subscribe)),
            Request::Credit(credit) => Some(self.give_credit(credit.subscription, credit.more)),
            Request::Unsubscribe(end) => Some(self.unsubscribe(end.subscription)),
            _ if self.open.is_empty() => None,
            Request::Ack(ack) => {
                if let AckWhich::Receipt { id, token } = ack.which {
                    self.is_done(&[Receipt { id, token }]);
                }
                None
            }
            Request::Nack(nack) => {
                self.is_done(&[nack.receipt]);
                None
            }
            Request::AckMany(ack) => {
                self.is_done(&ack.receipts);
                None
            }
            Request::HandOff(hand_off) => {
                if let Some(ack) = &hand_off.ack {
                    self.is_done(&[ack.receipt]);
                }
                None
            }
            _ => None,
        }
    }

    fn subscribe(&mut self, id: u64, subscribe: &Subscribe) -> Result<Response, Error> {
        Request::Subscribe(subscribe.clone()).check()?;
        if self.open.len() >= SUBSCRIPTIONS_MAX {
            let message = format!("the connection has {SUBSCRIPTIONS_MAX} subscriptions, as many as it may");
            return Err(Error::new(ErrorCode::Overloaded, message));
        }
        if self.open.contains_key(&id) {
            let message = format!("subscription {id} is open: each needs a request id of its own");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let (subscribe, credit) = (subscribe.clone(), subscribe.credit);
        self.open.insert(id, Subscription { subscribe, credit, outstanding: VecDeque::new(), polling: false });
        metrics::node().queue_consumers.increment(1.0);
        metrics::node().queue_credit.increment(f64::from(credit));
        self.poll(id, Duration::ZERO);
        Ok(Response::Subscribe(Subscribed { subscription: id }))
    }

    fn give_credit(&mut self, id: u64, more: u32) -> Result<Response, Error> {
        let subscription = self.open.get_mut(&id).ok_or_else(|| unknown(id))?;
        let credit = subscription.credit.saturating_add(more).min(CREDIT_MAX);
        metrics::node().queue_credit.increment(f64::from(credit - subscription.credit));
        subscription.credit = credit;
        self.poll(id, Duration::ZERO);
        Ok(Response::Credit(Credited { credit }))
    }

    fn unsubscribe(&mut self, id: u64) -> Result<Response, Error> {
        let subscription = self.close(id).ok_or_else(|| unknown(id))?;
        let gateway = self.gateway.clone();
        tokio::spawn(give_back(gateway, subscription.subscribe.queue, subscription.outstanding.into()));
        Ok(Response::Unsubscribe(Unsubscribed {}))
    }

    fn close(&mut self, id: u64) -> Option<Subscription> {
        let subscription = self.open.remove(&id)?;
        metrics::node().queue_consumers.decrement(1.0);
        metrics::node().queue_credit.decrement(f64::from(subscription.credit));
        Some(subscription)
    }

    /// Asks for messages, where there is credit and nothing is asked for yet.
    fn poll(&mut self, id: u64, pause: Duration) {
        let Some(subscription) = self.open.get_mut(&id).filter(|of| of.credit > 0 && !of.polling) else { return };
        subscription.polling = true;
        let Subscribe { queue, consumer, visibility_ms, .. } = subscription.subscribe.clone();
        let count_max = subscription.credit.min(BATCH_MAX);
        let dequeue = Dequeue { queue: queue.clone(), visibility_ms, count_max, wait_ms: WAIT_MS, consumer };
        let gateway = self.gateway.clone();
        self.polls.push(Box::pin(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let result = gateway.call(dequeue.into(), CallOptions { session: None, deadline: DEADLINE }).await;
            Polled { subscription: id, queue, result }
        }));
    }

    /// Whether a dequeue is under way.
    pub(super) fn is_polling(&self) -> bool {
        !self.polls.is_empty()
    }

    /// The next dequeue that came to something. Pending for ever while none is under way.
    pub(super) async fn polled(&mut self) -> Polled {
        match self.polls.next().await {
            Some(polled) => polled,
            None => std::future::pending().await,
        }
    }

    /// What a dequeue has brought, as the client gets it.
    pub(super) fn brought(&mut self, polled: Polled) -> Option<Pushed> {
        let Polled { subscription: id, queue, result } = polled;
        let Some(subscription) = self.open.get_mut(&id) else {
            // It ended meanwhile.
            if let Ok(Response::Dequeue(dequeued)) = result {
                let receipts = dequeued.deliveries.iter().map(Delivery::receipt).collect();
                tokio::spawn(give_back(self.gateway.clone(), queue, receipts));
            }
            return None;
        };
        subscription.polling = false;
        match result {
            Ok(Response::Dequeue(dequeued)) => {
                let deliveries = dequeued.deliveries;
                subscription.outstanding.extend(deliveries.iter().map(Delivery::receipt));
                let over = subscription.outstanding.len().saturating_sub(OUTSTANDING_MAX);
                subscription.outstanding.drain(..over);
                let used = (deliveries.len() as u32).min(subscription.credit);
                subscription.credit -= used;
                metrics::node().queue_credit.decrement(f64::from(used));
                self.poll(id, Duration::ZERO);
                (!deliveries.is_empty()).then_some(Pushed { subscription: id, deliveries, error: None })
            }
            Ok(_) => None,
            Err(error) if error.code.outcome() == Outcome::Refused => {
                self.close(id);
                Some(Pushed { subscription: id, deliveries: Vec::new(), error: Some(error) })
            }
            Err(error) => {
                self.poll(id, Duration::from_millis(error.retry_after_ms.max(PAUSE_MS).into()));
                None
            }
        }
    }

    fn is_done(&mut self, receipts: &[Receipt]) {
        for subscription in self.open.values_mut() {
            subscription.outstanding.retain(|outstanding| !receipts.contains(outstanding));
        }
    }

    /// The connection has ended.
    pub(super) fn end(mut self) {
        let ids: Vec<u64> = self.open.keys().copied().collect();
        for id in ids {
            let Some(subscription) = self.close(id) else { continue };
            tokio::spawn(give_back(
                self.gateway.clone(),
                subscription.subscribe.queue,
                subscription.outstanding.into(),
            ));
        }
        if self.polls.is_empty() {
            return;
        }
        // A consumer that is gone must not be handed messages for a whole visibility timeout.
        tokio::spawn(async move {
            while let Some(polled) = self.polls.next().await {
                if let Ok(Response::Dequeue(dequeued)) = polled.result {
                    let receipts = dequeued.deliveries.iter().map(Delivery::receipt).collect();
                    give_back(self.gateway.clone(), polled.queue, receipts).await;
                }
            }
        });
    }
}

fn unknown(id: u64) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("this connection has no subscription {id}"))
}

/// Gives deliveries back to their queue, at once. What cannot be given back comes back after its visibility timeout.
async fn give_back<G: Gateway>(gateway: G, queue: String, receipts: Vec<Receipt>) {
    for receipt in receipts {
        let reason = "the consumer's connection ended".to_owned();
        let nack = Nack { queue: queue.clone(), receipt, delay_ms: Some(0), reason, ..Nack::default() };
        let _ = gateway.call(nack.into(), CallOptions::default()).await;
    }
}
