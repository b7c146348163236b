//! The truth, and the lies: queues, locks and keys in memory, with one index that every command raises.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use trine_protocol::cache::{Got, LineState, Source, Version, Written};
use trine_protocol::lock::{Acquire, Granted, Release, Released};
use trine_protocol::queue::{Ack, AckWhich, Acked, Delivery, Dequeue, Dequeued, Enqueued};
use trine_protocol::{Error, ErrorCode, Request, Response};

/// What the server does once that no correct one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Confirms a message and does not keep it.
    LoseMessage,
    /// Hands a message out again after its acknowledgement.
    DeliverAgain,
    /// Hands a message out to a second consumer within its visibility timeout.
    DeliverTwice,
    /// Hands out a body that nobody sent.
    InventBody,
    /// Reads the value before the newest, and says so.
    ReadStale,
    /// Reads the value before the newest under the newest one's version.
    ReadStaleWithNewVersion,
    /// Confirms a write and does not do it, nor any later one of the same key, which would hide it.
    LoseWrite,
    /// Reads a value that nobody wrote.
    InventValue,
    /// Grants a lock that is held.
    GrantTwice,
    /// Grants a lock with a token below the last one.
    LowerToken,
}

/// Lies wait for so many commands of their kind, so that there is a past to lie about.
const LIE_AFTER: u64 = 20;
/// A lie about the newest value waits until its writer certainly knows that it was written.
const SETTLED: Duration = Duration::from_millis(50);

struct Message {
    id: u64,
    body: Bytes,
    deliveries: u32,
    token: u64,
    hidden_until: Option<Instant>,
}

#[derive(Clone)]
struct Value {
    bytes: Bytes,
    version: Version,
    written: Instant,
}

struct Holder {
    client: String,
    token: u64,
    since: Instant,
    until: Instant,
}

/// The whole state.
pub(crate) struct Model {
    lie: Option<Lie>,
    lied: bool,
    occasions: u64,
    index: u64,
    queues: HashMap<String, VecDeque<Message>>,
    locks: HashMap<String, Holder>,
    /// The last token of each lock.
    tokens: HashMap<String, u64>,
    /// The key whose writes are not done any more.
    frozen: Option<String>,
    /// Newest value and the one before.
    values: HashMap<String, (Value, Option<Value>)>,
}

impl Model {
    pub(crate) fn new(lie: Option<Lie>) -> Self {
        Self {
            lie,
            lied: false,
            occasions: 0,
            index: 1_000,
            queues: HashMap::new(),
            locks: HashMap::new(),
            tokens: HashMap::new(),
            frozen: None,
            values: HashMap::new(),
        }
    }

    pub(crate) fn has_lied(&self) -> bool {
        self.lied
    }

    /// Whether to tell this lie now; where there was the occasion often enough, it is told once.
    fn lies(&mut self, lie: Lie) -> bool {
        if self.lie != Some(lie) || self.lied {
            return false;
        }
        self.occasions += 1;
        self.lied = self.occasions > LIE_AFTER;
        self.lied
    }

    pub(crate) fn execute(&mut self, request: &Request) -> Result<Response, Error> {
        self.index += 1;
        match request {
            Request::Enqueue(enqueue) => Ok(self.enqueue(&enqueue.queue, &enqueue.body)),
            Request::Dequeue(dequeue) => Ok(Response::Dequeue(self.dequeue(dequeue))),
            Request::Ack(ack) => self.ack(ack),
            Request::Acquire(acquire) => self.acquire(acquire),
            Request::Release(release) => self.release(release),
            Request::Get(get) => Ok(Response::Get(self.get(&get.key))),
            Request::Put(put) => Ok(self.put(&put.key, &put.value)),
            other => Err(Error::new(ErrorCode::UnknownCommand, format!("{:?}", other.command()))),
        }
    }

    fn message(&self, body: Bytes) -> Message {
        Message { id: self.index, body, deliveries: 0, token: 0, hidden_until: None }
    }

    fn enqueue(&mut self, queue: &str, body: &Bytes) -> Response {
        let message = self.message(body.clone());
        if !self.lies(Lie::LoseMessage) {
            self.queues.entry(queue.to_owned()).or_default().push_back(message);
        }
        Response::Enqueue(Enqueued { id: self.index, ..Enqueued::default() })
    }

    fn dequeue(&mut self, dequeue: &Dequeue) -> Dequeued {
        if self.lies(Lie::InventBody) {
            let invented = self.message(Bytes::from(vec![b'?'; 256]));
            self.queues.entry(dequeue.queue.clone()).or_default().push_front(invented);
        }
        let (index, now) = (self.index, moment());
        let visibility = Duration::from_millis(dequeue.visibility_ms.into());
        let most = usize::try_from(dequeue.count_max.max(1)).expect("a small number");
        let mut deliveries = Vec::new();
        let ready = |message: &&mut Message| message.hidden_until.is_none_or(|until| until <= now);
        let waiting = self.queues.entry(dequeue.queue.clone()).or_default();
        for message in waiting.iter_mut().filter(ready).take(most) {
            message.deliveries += 1;
            message.token = index;
            message.hidden_until = Some(now + visibility);
            let Message { id, deliveries: count, token, .. } = *message;
            deliveries.push(Delivery { id, token, deliveries: count, body: message.body.clone(), attributes: None });
        }
        if !deliveries.is_empty() && self.lies(Lie::DeliverTwice) {
            // The next consumer gets it too; the first receipt stays good, so that nothing else is wrong.
            let waiting = self.queues.entry(dequeue.queue.clone()).or_default();
            let message = waiting.iter_mut().find(|message| message.id == deliveries[0].id).expect("it was there");
            let copy = Message { body: message.body.clone(), hidden_until: None, ..*message };
            waiting.push_front(copy);
        }
        Dequeued { deliveries }
    }

    fn ack(&mut self, ack: &Ack) -> Result<Response, Error> {
        let AckWhich::Receipt { id, token } = ack.which else {
            return Err(Error::new(ErrorCode::InvalidArgument, "by receipt only"));
        };
        let waiting = self.queues.entry(ack.queue.clone()).or_default();
        let delivered = |message: &Message| message.id == id && message.hidden_until.is_some();
        let Some(place) = waiting.iter().position(|message| delivered(message) && message.token == token) else {
            let code = if waiting.iter().any(delivered) { ErrorCode::StaleReceipt } else { ErrorCode::NotInFlight };
            return Err(Error::new(code, "no such delivery"));
        };
        let message = waiting.remove(place).expect("its place was found");
        if self.lies(Lie::DeliverAgain) {
            let again = Message { hidden_until: None, ..message };
            self.queues.entry(ack.queue.clone()).or_default().push_front(again);
        }
        Ok(Response::Ack(Acked { id }))
    }

    fn acquire(&mut self, acquire: &Acquire) -> Result<Response, Error> {
        let now = moment();
        let holder = self.locks.get(&acquire.lock).filter(|holder| holder.until > now);
        // In the middle of the hold: its client certainly knows of it, and has not begun to release it.
        let middle = holder.is_some_and(|holder| (20..100).contains(&(now - holder.since).as_millis()));
        if holder.is_some() && !(middle && self.lies(Lie::GrantTwice)) {
            return Err(Error::new(ErrorCode::LockHeld, "held"));
        }
        let last = self.tokens.get(&acquire.lock).copied();
        let token = match last {
            Some(last) if self.lies(Lie::LowerToken) => last - 1,
            _ => self.index,
        };
        self.tokens.insert(acquire.lock.clone(), token);
        let until = now + Duration::from_millis(acquire.lease_ms.into());
        self.locks.insert(acquire.lock.clone(), Holder { client: acquire.client.clone(), token, since: now, until });
        Ok(Response::Acquire(Granted { token, lease_ms: acquire.lease_ms, ..Granted::default() }))
    }

    fn release(&mut self, release: &Release) -> Result<Response, Error> {
        let Some(holder) = self.locks.get(&release.lock) else {
            return Ok(Response::Release(Released { was_held: false, ..Released::default() }));
        };
        if holder.client != release.client {
            return Err(Error::new(ErrorCode::LockHeldByOther, "another's"));
        }
        if release.token != 0 && holder.token != release.token {
            return Err(Error::new(ErrorCode::StaleToken, "a later grant"));
        }
        self.locks.remove(&release.lock);
        Ok(Response::Release(Released { was_held: true, ..Released::default() }))
    }

    fn get(&mut self, key: &str) -> Got {
        let got = |value: Option<&Value>| Got {
            value: value.map(|value| value.bytes.clone()),
            version: value.map(|value| value.version).unwrap_or_default(),
            state: LineState::S,
            source: Source::LocalCache,
            content_type: String::new(),
        };
        let Some((newest, before)) = self.values.get(key).cloned() else { return got(None) };
        if let Some(before) = before.filter(|_| newest.written.elapsed() > SETTLED) {
            if self.lies(Lie::ReadStale) {
                return got(Some(&before));
            }
            if self.lies(Lie::ReadStaleWithNewVersion) {
                return got(Some(&Value { version: newest.version, ..before }));
            }
        }
        if self.lies(Lie::InventValue) {
            return got(Some(&Value { bytes: Bytes::from(vec![b'?'; 256]), ..newest }));
        }
        got(Some(&newest))
    }

    fn put(&mut self, key: &str, bytes: &Bytes) -> Response {
        let version = Version { epoch: self.index, count: 0 };
        if self.values.contains_key(key) && self.lies(Lie::LoseWrite) {
            self.frozen = Some(key.to_owned());
        }
        if self.frozen.as_deref() == Some(key) {
            return Response::Put(Written { version });
        }
        let value = Value { bytes: bytes.clone(), version, written: moment() };
        let before = self.values.remove(key).map(|(newest, _)| newest);
        self.values.insert(key.to_owned(), (value, before));
        Response::Put(Written { version })
    }
}

fn moment() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the server: leases and timeouts are counted by it")]
    Instant::now()
}
