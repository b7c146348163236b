//! One connection: any number of requests in flight, answers in any order, matched by request id.
//!
//! ```text
//!  callers --(bounded channel)--> writer task ---> socket ---> node
//!     ^                              | notes the id
//!     |                              v
//!     +----- one-shot ------- requests in flight <--- reader task <--- socket
//! ```
//!
//! The writer notes a request as in flight *before* it writes its first byte. So when the connection ends, what was never
//! noted was certainly not sent, and what was noted may have been.
//!
//! # Caveats
//! - A caller that gives up leaves its request in flight until its answer comes: the node still counts it too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::codec::{Decoder, Encoder};
use tokio_util::sync::CancellationToken;

use crate::command::{Command, Request, RequestHeader, Response};
use crate::error::{Error, ErrorCode};
use crate::frame::{Frame, FrameCodec, FrameError, Kind};
use crate::handshake::{Hello, Welcome};
use crate::limits::{DEADLINE_MS_MAX, HANDSHAKE_MS_MAX, IN_FLIGHT_MAX};
use crate::push::Push;
use crate::queue::{Delivery, Pushed, Subscribe};

use super::clock;

/// Milliseconds without a byte from the node after which it is asked whether it is there, while it owes an answer.
pub(super) const QUIET_MS_MAX: u64 = 400;
/// Such spells in a row after which it is taken for lost: 1.2 s, in which the others elect a new leader where the node was one.
/// So a leader that freezes, with its connections open, costs a client little more than one that dies.
const QUIET_SPELLS_MAX: u32 = 3;
/// Bytes that are put together for one write.
const WRITE_BYTES: usize = 64 * 1024;
/// Places in the channel that requests do not use: for pings and pongs. When they are full, one is left out.
const CONTROL_PLACES: usize = 16;
/// How long after the deadline the node's own word is waited for: it may know that nothing was done.
const GRACE: Duration = Duration::from_millis(100);

/// What is done with a push.
pub(super) type OnPush = Box<dyn Fn(Push) + Send + Sync>;

/// Why a request got no answer that it wanted.
#[derive(Debug)]
pub(super) enum Failure {
    /// The node says so.
    Node(Error),
    /// The request did not leave this process.
    NotSent(Error),
    /// The request may have reached a node, and its answer did not come.
    CutOff(Error),
}

/// One connection to one node, open until it is dropped or lost.
pub(super) struct Connection {
    welcome: Welcome,
    ids: AtomicU64,
    permits: Arc<Semaphore>,
    sender: mpsc::Sender<Outgoing>,
    flight: Arc<Flight>,
    tasks: [JoinHandle<()>; 2],
}

/// Where the pushes of a subscription go; an error is the last thing that comes.
pub(super) type Pushes = mpsc::UnboundedSender<Result<Vec<Delivery>, Error>>;

/// What goes to the writer.
enum Outgoing {
    Request(Frame, Waiting),
    Control(Frame),
}

/// Who waits for an answer. The permit is given back with the answer, not when the caller gives up.
struct Waiting {
    command: Command,
    reply: oneshot::Sender<Result<Response, Failure>>,
    _permit: OwnedSemaphorePermit,
}

/// The requests in flight. Read by both tasks.
struct Flight {
    requests: Mutex<Requests>,
    /// Who gets what the node sends unasked, by subscription. No more than the credit of each waits there.
    subscribers: Mutex<HashMap<u64, Pushes>>,
    closed: CancellationToken,
}

#[derive(Default)]
struct Requests {
    waiting: HashMap<u64, Waiting>,
    lost: Option<Error>,
}

impl Connection {
    /// Connects and shakes hands, until `until` at the latest.
    ///
    /// # Errors
    /// The node's own where it refuses; `Unreachable` where there is none; `BadFrame` where it is no node of Trine.
    pub(super) async fn open(address: &str, hello: &Hello, until: Instant) -> Result<Self, Error> {
        Self::open_with(address, hello, until, None).await
    }

    /// The same, where pushes are handed to `on_push` in the order in which they come, before what comes after them is looked at.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub(super) async fn open_with(
        address: &str,
        hello: &Hello,
        until: Instant,
        on_push: Option<OnPush>,
    ) -> Result<Self, Error> {
        let until = until.min(clock::now() + Duration::from_millis(HANDSHAKE_MS_MAX));
        match timeout_at(until, Self::shake_hands(address, hello, on_push)).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(ErrorCode::Unreachable, format!("{address} did not answer in time"))),
        }
    }

    async fn shake_hands(address: &str, hello: &Hello, on_push: Option<OnPush>) -> Result<Self, Error> {
        let unreachable = |error: std::io::Error| Error::new(ErrorCode::Unreachable, format!("{address}: {error}"));
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let (read, mut write) = stream.into_split();
        let bytes = hello.to_frame().to_bytes().map_err(|error| error.to_error())?;
        write.write_all(&bytes).await.map_err(unreachable)?;
        let mut reader = Reader { read, codec: FrameCodec::new(), buffer: BytesMut::new() };
        let frame = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(Error::new(ErrorCode::Unreachable, format!("{address} closed the connection"))),
            Err(FrameError::Io(error)) => return Err(unreachable(error)),
            Err(error) => return Err(Error::new(ErrorCode::BadFrame, format!("{address}: {error}"))),
        };
        Ok(Self::start(Welcome::from_frame(&frame)?, reader, write, on_push))
    }

    fn start(welcome: Welcome, reader: Reader, write: OwnedWriteHalf, on_push: Option<OnPush>) -> Self {
        let in_flight_max = (welcome.limits.in_flight_max as usize).clamp(1, IN_FLIGHT_MAX);
        let (sender, receiver) = mpsc::channel(in_flight_max + CONTROL_PLACES);
        let flight = Arc::new(Flight {
            requests: Mutex::default(),
            subscribers: Mutex::default(),
            closed: CancellationToken::new(),
        });
        let tasks = [
            tokio::spawn(write_all(receiver, write, flight.clone())),
            tokio::spawn(read_all(reader, sender.downgrade(), flight.clone(), on_push)),
        ];
        let permits = Arc::new(Semaphore::new(in_flight_max));
        Self { welcome, ids: 1.into(), permits, sender, flight, tasks }
    }

    /// What the node said of itself.
    pub(super) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    fn in_flight_max(&self) -> usize {
        self.sender.max_capacity() - CONTROL_PLACES
    }

    /// False once it is lost; then it never comes back.
    pub(super) fn is_open(&self) -> bool {
        !self.flight.closed.is_cancelled()
    }

    /// Sends one request and waits for its answer, a little longer than `until`.
    pub(super) async fn call(
        &self,
        header: RequestHeader,
        request: &Request,
        until: Instant,
    ) -> Result<Response, Failure> {
        self.call_with(header, request, until, GRACE, None).await
    }

    /// The same, and waits for so much longer than `until` for the node's own word.
    pub(super) async fn call_patiently(
        &self,
        header: RequestHeader,
        request: &Request,
        until: Instant,
        grace: Duration,
    ) -> Result<Response, Failure> {
        self.call_with(header, request, until, grace, None).await
    }

    /// Subscribes: what the node sends goes to `pushes`, until the subscription ends.
    pub(super) async fn subscribe(&self, subscribe: Subscribe, until: Instant, pushes: Pushes) -> Result<u64, Failure> {
        let request = Request::Subscribe(subscribe);
        match self.call_with(RequestHeader::default(), &request, until, GRACE, Some(pushes)).await? {
            Response::Subscribe(subscribed) => Ok(subscribed.subscription),
            other => Err(Failure::Node(super::mismatch(&other))),
        }
    }

    /// What is sent to a subscription from now on is thrown away.
    pub(super) fn forget_subscription(&self, subscription: u64) {
        self.flight.subscribers().remove(&subscription);
    }

    async fn call_with(
        &self,
        mut header: RequestHeader,
        request: &Request,
        until: Instant,
        grace: Duration,
        pushes: Option<Pushes>,
    ) -> Result<Response, Failure> {
        let full = || {
            let message = format!("{} requests are in flight on this connection", self.in_flight_max());
            Failure::NotSent(Error::new(ErrorCode::TooManyInFlight, message))
        };
        let permit = match timeout_at(until, self.permits.clone().acquire_owned()).await {
            Ok(permit) => permit.map_err(|_| full())?,
            Err(_) => return Err(full()),
        };
        let remaining_ms = until.saturating_duration_since(clock::now()).as_millis();
        header.remaining_ms = u32::try_from(remaining_ms).unwrap_or(u32::MAX).clamp(1, DEADLINE_MS_MAX);
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        if let Some(pushes) = pushes {
            self.flight.subscribers().insert(id, pushes);
        }
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { command: request.command(), reply, _permit: permit };
        let outgoing = Outgoing::Request(Frame::request(id, &header, request), waiting);
        // There is a place for each permit, so the channel is not full; it is closed where the connection is.
        self.sender.try_send(outgoing).map_err(|_| not_sent(self.flight.why_lost()))?;
        match timeout_at(until + grace, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Failure::CutOff(self.flight.why_lost())),
            Err(_) => Err(Failure::CutOff(Error::new(ErrorCode::DeadlineExceeded, "no answer came in time"))),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.flight.close(Error::new(ErrorCode::OutcomeUnknown, "the client was closed"));
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Flight {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribers(&self) -> MutexGuard<'_, HashMap<u64, Pushes>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands deliveries to their subscription. One that has just gone gets them again, when their time is over.
    fn pushed(&self, pushed: Pushed) {
        let mut subscribers = self.subscribers();
        let Some(subscriber) = subscribers.get(&pushed.subscription) else { return };
        let ended = pushed.error.is_some();
        let _ = subscriber.send(pushed.error.map_or(Ok(pushed.deliveries), Err));
        if ended {
            subscribers.remove(&pushed.subscription);
        }
    }

    /// Notes a request before its first byte is written. False where the connection is lost.
    fn take_off(&self, id: u64, waiting: Waiting) -> bool {
        let mut requests = self.requests();
        if let Some(error) = requests.lost.clone() {
            drop(requests);
            let _ = waiting.reply.send(Err(not_sent(error)));
            return false;
        }
        requests.waiting.insert(id, waiting);
        true
    }

    fn land(&self, id: u64) -> Option<Waiting> {
        self.requests().waiting.remove(&id)
    }

    /// Whether more than one request is in flight.
    fn is_shared(&self) -> bool {
        self.requests().waiting.len() > 1
    }

    fn is_empty(&self) -> bool {
        self.requests().waiting.is_empty()
    }

    /// The first reason counts. Every request in flight is told.
    fn close(&self, error: Error) {
        let mut requests = self.requests();
        let error = requests.lost.get_or_insert(error).clone();
        let waiting = std::mem::take(&mut requests.waiting);
        drop(requests);
        self.closed.cancel();
        self.subscribers().clear();
        for (_, waiting) in waiting {
            let _ = waiting.reply.send(Err(Failure::CutOff(error.clone())));
        }
    }

    fn why_lost(&self) -> Error {
        let lost = self.requests().lost.clone();
        lost.unwrap_or_else(|| Error::new(ErrorCode::OutcomeUnknown, "the connection was closed"))
    }
}

fn lost(reason: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::OutcomeUnknown, format!("the connection was lost: {reason}"))
}

/// The same reason, for what had not left when it came about.
fn not_sent(lost: Error) -> Failure {
    Failure::NotSent(Error::new(ErrorCode::Unreachable, lost.message))
}

/// Reads frames off the socket. `next` may be given up between bytes without losing any.
struct Reader {
    read: OwnedReadHalf,
    codec: FrameCodec,
    buffer: BytesMut,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.codec.decode(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return self.codec.decode_eof(&mut self.buffer);
            }
        }
    }
}

/// The writer task: puts what waits together into one write, until the connection is lost.
async fn write_all(mut receiver: mpsc::Receiver<Outgoing>, mut write: OwnedWriteHalf, flight: Arc<Flight>) {
    let mut buffer = BytesMut::new();
    let writing = async {
        while let Some(outgoing) = receiver.recv().await {
            put(outgoing, &mut buffer, &flight);
            // Callers that were woken by one batch of answers get to ask again before the write: they share it.
            if flight.is_shared() {
                tokio::task::yield_now().await;
            }
            while buffer.len() < WRITE_BYTES {
                let Ok(outgoing) = receiver.try_recv() else { break };
                put(outgoing, &mut buffer, &flight);
            }
            write.write_all(&buffer.split()).await?;
        }
        Ok::<(), std::io::Error>(())
    };
    tokio::select! {
        result = writing => match result {
            Ok(()) => flight.close(lost("the client was closed")),
            Err(error) => flight.close(lost(error)),
        },
        () = flight.closed.cancelled() => {}
    }
    // What is still in the channel was not sent; `take_off` tells it so.
    receiver.close();
    while let Ok(outgoing) = receiver.try_recv() {
        put(outgoing, &mut buffer, &flight);
    }
}

fn put(outgoing: Outgoing, buffer: &mut BytesMut, flight: &Flight) {
    let frame = match outgoing {
        Outgoing::Control(frame) => frame,
        Outgoing::Request(frame, waiting) => {
            let id = frame.id;
            if !flight.take_off(id, waiting) {
                return;
            }
            frame
        }
    };
    let id = frame.id;
    if let Err(error) = FrameCodec::after_handshake().encode(frame, buffer) {
        if let Some(waiting) = flight.land(id) {
            let _ = waiting.reply.send(Err(Failure::Node(error.to_error())));
        }
    }
}

/// The reader task: hands answers to who waits for them, until the connection is lost.
async fn read_all(
    mut reader: Reader,
    sender: mpsc::WeakSender<Outgoing>,
    flight: Arc<Flight>,
    on_push: Option<OnPush>,
) {
    let mut quiet_spells = 0;
    let reason = loop {
        let bytes_before = reader.buffer.len();
        match timeout(Duration::from_millis(QUIET_MS_MAX), reader.next()).await {
            Ok(Ok(Some(frame))) if frame.kind == Kind::Goodbye => break goodbye(&frame),
            Ok(Ok(Some(frame))) if frame.kind == Kind::Push => {
                quiet_spells = 0;
                // One that a newer node says is skipped.
                match (Push::decode(frame.command, &frame.body), &on_push) {
                    (Ok(Some(Push::Pushed(pushed))), _) => flight.pushed(pushed),
                    (Ok(Some(push)), Some(on_push)) => on_push(push),
                    _ => {}
                }
            }
            Ok(Ok(Some(frame))) => {
                quiet_spells = 0;
                receive(frame, &sender, &flight);
            }
            Ok(Ok(None)) => break lost("the node closed it"),
            Ok(Err(error)) => break lost(error),
            // Part of a large frame is a sign of life too.
            Err(_) if flight.is_empty() || reader.buffer.len() > bytes_before => quiet_spells = 0,
            Err(_) if quiet_spells + 1 == QUIET_SPELLS_MAX => break lost("the node is silent"),
            Err(_) => {
                quiet_spells += 1;
                send_control(&sender, Frame::ping(0));
            }
        }
    };
    flight.close(reason);
}

fn goodbye(frame: &Frame) -> Error {
    match frame.decode_error() {
        Ok(error) => lost(error),
        Err(error) => lost(format_args!("the node said goodbye unintelligibly: {error}")),
    }
}

fn send_control(sender: &mpsc::WeakSender<Outgoing>, frame: Frame) {
    if let Some(sender) = sender.upgrade() {
        let _ = sender.try_send(Outgoing::Control(frame));
    }
}

fn receive(frame: Frame, sender: &mpsc::WeakSender<Outgoing>, flight: &Flight) {
    match frame.kind {
        Kind::Ping => send_control(sender, Frame::pong(frame.id)),
        Kind::Response | Kind::Error => {
            // An id that nobody waits for is an answer to something else than was asked; nobody can use it.
            let Some(waiting) = flight.land(frame.id) else { return };
            let result = read_answer(&frame, waiting.command);
            let _ = waiting.reply.send(result.map_err(Failure::Node));
        }
        // The other kinds have no business here and do no harm.
        _ => {}
    }
}

/// An answer that cannot be read says nothing about what was done, so it must not look like a refusal.
fn read_answer(frame: &Frame, command: Command) -> Result<Response, Error> {
    let unreadable = |error: Error| Error::new(ErrorCode::Internal, format!("the answer cannot be read: {error}"));
    if frame.kind == Kind::Error {
        return Err(frame.decode_error().unwrap_or_else(unreadable));
    }
    if frame.command != command.code() {
        let message = format!("the answer is to command {:#06x}", frame.command);
        return Err(unreadable(Error::new(ErrorCode::MalformedBody, message)));
    }
    Response::decode(command, &frame.body).map_err(unreadable)
}

impl Failure {
    /// The error inside.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Node(error) | Self::NotSent(error) | Self::CutOff(error) => error,
        }
    }
}
