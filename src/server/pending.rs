//! Requests that wait for a replica's answer, each under the number that the replica knows it by.
//!
//! # Invariants
//! - At most [`PENDING_MAX`] requests and [`PENDING_BYTES_MAX`] bytes of them wait on a node; one more is refused.
//! - Who stops waiting, because its time is up or its connection is gone, takes its entry along. An answer that comes later
//!   finds nobody and is dropped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use trine_protocol::{Error, ErrorCode, Request, Response};

use crate::metrics;
use crate::node::effect::RequestId;

use super::listeners::Listeners;

/// Requests that wait: eight times what a group's inbox holds, and some hundred bytes each.
pub(super) const PENDING_MAX: usize = 65_536;
/// Bytes of queue bodies and cache values that wait with them.
pub(super) const PENDING_BYTES_MAX: usize = 256 * 1024 * 1024;
/// When it makes sense to come back to a node that is full.
pub(super) const RETRY_AFTER_MS: u32 = 100;

type Outcome = Result<Response, Error>;

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<u64, (oneshot::Sender<Outcome>, usize)>,
    bytes: usize,
}

/// The requests of one node that wait.
#[derive(Debug, Default)]
pub(super) struct Pending {
    state: Mutex<State>,
    next: AtomicU64,
    /// The connections that are told something unasked.
    pub(super) listeners: Arc<Listeners>,
}

/// One place among those who wait; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pending: Arc<Pending>,
    id: u64,
    answer: oneshot::Receiver<Outcome>,
}

impl Pending {
    /// A place for a request.
    pub(super) fn enter(self: &Arc<Self>, request: &Request) -> Result<Place, Error> {
        let bytes = payload_bytes(request);
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.waiting.len() >= PENDING_MAX || state.bytes + bytes > PENDING_BYTES_MAX {
            let message = "as many requests as this node takes wait for their answers";
            return Err(Error::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER_MS));
        }
        state.bytes += bytes;
        state.waiting.insert(id, (sender, bytes));
        metrics::node().requests_in_flight.set(state.waiting.len() as f64);
        Ok(Place { pending: Arc::clone(self), id, answer })
    }

    /// The answer of a replica.
    pub(super) fn answer(&self, id: RequestId, outcome: Outcome) {
        if let Some(sender) = self.remove(id.0) {
            // Who has just stopped waiting does not want it.
            let _ = sender.send(outcome);
        }
    }

    fn remove(&self, id: u64) -> Option<oneshot::Sender<Outcome>> {
        let mut state = self.lock();
        let (sender, bytes) = state.waiting.remove(&id)?;
        state.bytes -= bytes;
        metrics::node().requests_in_flight.set(state.waiting.len() as f64);
        Some(sender)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything in it can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().waiting.len()
    }
}

impl Place {
    /// The number that the replica knows the request by.
    pub(super) fn id(&self) -> RequestId {
        RequestId(self.id)
    }

    /// The answer. None where the replica is gone.
    pub(super) async fn answer(&mut self) -> Option<Outcome> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.remove(self.id);
    }
}

/// Bytes of a request that may be many.
fn payload_bytes(request: &Request) -> usize {
    match request {
        Request::Enqueue(enqueue) => enqueue.body.len(),
        Request::Put(put) => put.value.len(),
        Request::MultiPut(multi) => multi.puts.iter().map(|put| put.value.len()).sum(),
        Request::Ack(trine_protocol::queue::Ack { which: trine_protocol::queue::AckWhich::Body(body), .. }) => {
            body.len()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use trine_protocol::cache::{Get, Put};
    use trine_protocol::cluster::Kept;

    use super::*;

    fn get() -> Request {
        Get { key: "k".into() }.into()
    }

    #[tokio::test]
    async fn an_answer_finds_its_request_and_frees_its_place() {
        let pending = Arc::new(Pending::default());
        let (mut first, mut second) = (pending.enter(&get()).unwrap(), pending.enter(&get()).unwrap());
        assert_ne!(first.id(), second.id());
        pending.answer(second.id(), Err(Error::new(ErrorCode::NoLeader, "")));
        pending.answer(first.id(), Ok(Response::KeepAlive(Kept {})));
        assert_eq!(first.answer().await, Some(Ok(Response::KeepAlive(Kept {}))));
        assert_eq!(second.answer().await.unwrap().unwrap_err().code, ErrorCode::NoLeader);
        assert_eq!(pending.count(), 0);
        pending.answer(first.id(), Err(Error::new(ErrorCode::Internal, "a second one is nobody's")));
    }

    #[test]
    fn requests_are_bounded_by_count_and_by_bytes() {
        let pending = Arc::new(Pending::default());
        let places: Vec<Place> = (0..PENDING_MAX).map(|_| pending.enter(&get()).unwrap()).collect();
        assert_eq!(pending.enter(&get()).unwrap_err().code, ErrorCode::Overloaded);
        drop(places);
        assert_eq!(pending.count(), 0, "who stops waiting takes its place along");

        let put = Request::from(Put { key: "k".into(), value: vec![0; 1024 * 1024].into(), ..Put::default() });
        let places: Vec<Place> = (0..256).map(|_| pending.enter(&put).unwrap()).collect();
        assert_eq!(pending.enter(&put).unwrap_err().code, ErrorCode::Overloaded);
        assert!(pending.enter(&get()).is_ok(), "what has no payload still fits");
        drop(places);
        assert!(pending.enter(&put).is_ok());
    }
}
