//! A client's connection: requests in, answers out, in any order.
//!
//! One task reads, executes and writes. A request is handed to the gateway when its frame is complete, in the order of
//! the frames, and polled once on the spot: a hit in the local cache is answered without being put aside, and what goes to
//! a replica has its place in that replica's inbox before the next frame is looked at. So what one connection enqueues to one
//! queue keeps its order, although the answers come in whatever order they are ready.
//!
//! ```text
//!             +--------------- take_frames ----------------+
//!   bytes --> | frame -> decode -> gateway.call -> ready? -+--yes--> write buffer --> bytes
//!             +-------------------------------------+------+             ^
//!                                                   no                   |
//!                                                   +--> in flight ------+
//! ```
//!
//! # Invariants
//! - Each request gets one answer or error, unless the connection ends first.
//! - At most [`IN_FLIGHT_MAX`] requests are in flight; one more gets `TooManyInFlight` at once.
//! - The connection is not read while more than [`WRITE_BUFFER_BYTES_MAX`] of answers wait to be read by the
//!   client, or more than [`IN_FLIGHT_BYTES_MAX`] of its requests are in flight.
//! - A frame that is none ends the connection with one goodbye; a body that cannot be read costs its request only.
//!
//! # Caveats
//! - Answers are bounded one by one, not in sum: a client that has 4,096 reads of 1 MiB in flight can make the node
//!   hold them all until it reads them or the write deadline closes the connection.
//! - When a client ends its sending half, its requests in flight are still executed and answered.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use trine_protocol::codec;
use trine_protocol::command::RequestHeader;
use trine_protocol::frame::{Frame, FrameError, Kind};
use trine_protocol::handshake::Role;
use trine_protocol::limits::{DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX, IN_FLIGHT_MAX};
use trine_protocol::{Error, ErrorCode, Push, Request, Response};

use crate::clock;
use crate::metrics::{self, Refused};
use crate::node::effect::SessionRef;
use crate::server::{CallOptions, Gateway, Pushes, log_limit};

use super::greeting::greet;
use super::limits::{IDLE_MAX, IN_FLIGHT_BYTES_MAX, LOOK_EVERY, PING_AFTER, WRITE_BUFFER_BYTES_MAX, WRITE_DEADLINE};
use super::subscription::Subscriptions;
use super::{Connection, Local, Progress};

/// Serves one connection of a client from its handshake to its end. After `close` is cancelled nothing more is read, what
/// is in flight is answered, and the client gets a goodbye.
pub async fn serve<G, S>(connection: Connection<S>, local: Arc<Local>, gateway: G, close: CancellationToken)
where
    G: Gateway,
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some((connection, hello)) = greet(connection, &local, Role::Client, async |_| Ok(())).await else { return };
    tracing::debug!(client = hello.name, "client connected");
    let mut session = Session::new(connection, gateway);
    let end = session.run(&close).await;
    tracing::debug!(client = hello.name, ?end, "client gone");
    session.finish(end).await;
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client closed it, or said goodbye.
    Client,
    /// The stream failed.
    Failed(std::io::Error),
    /// The client sent what is no frame, or a frame that is not its to send.
    Bad(Error),
    /// The client does not read, or is silent.
    Unresponsive,
    /// The node is about to stop.
    ShuttingDown,
}

struct Answer {
    id: u64,
    command: u16,
    request_bytes: usize,
    result: Result<Response, Error>,
}

struct Session<G, S> {
    connection: Connection<S>,
    gateway: G,
    in_flight: FuturesUnordered<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    in_flight_bytes: usize,
    /// What the node says unasked of copies, once the client has said that it takes it.
    pushes: Option<Pushes>,
    subscriptions: Subscriptions<G>,
    /// The client sends nothing more, or nothing more is taken from it.
    ended: Option<End>,
    heard_us: u64,
    pinged: bool,
    /// Since when the client has taken nothing of what waits for it.
    stuck_us: Option<u64>,
}

impl<G: Gateway, S: AsyncRead + AsyncWrite + Unpin> Session<G, S> {
    fn new(connection: Connection<S>, gateway: G) -> Self {
        Self {
            connection,
            subscriptions: Subscriptions::new(gateway.clone()),
            gateway,
            in_flight: FuturesUnordered::new(),
            in_flight_bytes: 0,
            pushes: None,
            ended: None,
            heard_us: clock::mono_us(),
            pinged: false,
            stuck_us: None,
        }
    }

    async fn run(&mut self, close: &CancellationToken) -> End {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(error) = self.take_frames() {
                return End::Bad(error);
            }
            if self.ended.is_some() && self.in_flight.is_empty() && self.connection.waiting_bytes() == 0 {
                return self.ended.take().expect("looked at above");
            }
            let read = self.ended.is_none() && self.may_take();
            let answers = !self.in_flight.is_empty() && self.connection.waiting_bytes() < WRITE_BUFFER_BYTES_MAX;
            let pushes = self.subscriptions.is_polling() && self.may_put();
            tokio::select! {
                polled = self.subscriptions.polled(), if pushes && self.ended.is_none() => {
                    if let Some(pushed) = self.subscriptions.brought(polled) {
                        self.put(&Push::from(pushed).to_frame());
                    }
                }
                Some(answer) = self.in_flight.next(), if answers => self.answer_with_others(answer),
                Some(push) = next_push(&mut self.pushes), if self.may_put() => self.put(&push.to_frame()),
                progress = self.connection.progress(read) => match progress {
                    Ok(progress) => self.note(progress),
                    Err(error) => return End::Failed(error),
                },
                _ = look.tick() => if self.is_unresponsive(clock::mono_us()) { return End::Unresponsive },
                () = close.cancelled(), if self.ended.is_none() => self.ended = Some(End::ShuttingDown),
            }
        }
    }

    fn note(&mut self, progress: Progress) {
        metrics::node().client_bytes_received.increment(progress.read as u64);
        metrics::node().client_bytes_sent.increment(progress.written as u64);
        if progress.read > 0 {
            (self.heard_us, self.pinged) = (clock::mono_us(), false);
        }
        if progress.written > 0 {
            self.stuck_us = None;
        }
        if progress.ended {
            self.ended = Some(End::Client);
        }
    }

    /// Whether another frame may be taken: the bounds that the connection's reading stops at.
    fn may_take(&self) -> bool {
        self.connection.waiting_bytes() < WRITE_BUFFER_BYTES_MAX && self.in_flight_bytes < IN_FLIGHT_BYTES_MAX
    }

    /// Whether more may be put into the buffer of what is written.
    fn may_put(&self) -> bool {
        self.connection.waiting_bytes() < WRITE_BUFFER_BYTES_MAX
    }

    fn take_frames(&mut self) -> Result<(), Error> {
        while self.may_take() && !matches!(self.ended, Some(End::ShuttingDown)) {
            match self.connection.take_frame() {
                Ok(Some(frame)) => self.take_frame(frame)?,
                Ok(None) => return Ok(()),
                Err(error) => return Err(error.to_error()),
            }
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: Frame) -> Result<(), Error> {
        metrics::node().client_frames_received.increment(1);
        match frame.kind {
            Kind::Request => self.take_request(&frame),
            Kind::Ping => self.put(&Frame::pong(frame.id)),
            Kind::Pong => {}
            Kind::Goodbye => self.ended = Some(End::Client),
            Kind::Hello | Kind::Welcome | Kind::Response | Kind::Error | Kind::Push | Kind::Peer => {
                let message = format!("a client may not send a frame of the kind {}", frame.kind.name());
                return Err(Error::new(ErrorCode::BadFrame, message));
            }
        }
        Ok(())
    }

    fn take_request(&mut self, frame: &Frame) {
        let (id, command) = (frame.id, frame.command);
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            metrics::node().refuse(Refused::TooManyInFlight);
            let message = format!("{IN_FLIGHT_MAX} requests of this connection are unanswered");
            return self.put(&Frame::error(id, command, &Error::new(ErrorCode::TooManyInFlight, message)));
        }
        let (header, request) = match codec::decode_request(command, &frame.body) {
            Ok(decoded) => decoded,
            Err(error) => return self.put(&Frame::error(id, command, &error)),
        };
        if let Some(result) = self.subscriptions.take(id, &request) {
            return self.put_answer(&Answer { id, command, request_bytes: 0, result });
        }
        if let Err(error) = self.take_pushes(&request) {
            return self.put(&Frame::error(id, command, &error));
        }
        let call = self.gateway.clone();
        let request_bytes = frame.body.len();
        let mut answer: Pin<Box<dyn Future<Output = Answer> + Send>> = Box::pin(async move {
            let result = call.call(request, options(&header)).await;
            Answer { id, command, request_bytes, result }
        });
        // Polled once here and now: this is what gives the request its place, see above.
        match (&mut answer).now_or_never() {
            Some(answer) => self.put_answer(&answer),
            None => {
                self.in_flight_bytes += request_bytes;
                self.in_flight.push(answer);
            }
        }
    }

    /// From the first request on that speaks of a client's copies, the connection takes what is said of them.
    fn take_pushes(&mut self, request: &Request) -> Result<(), Error> {
        let Some(client) = copies_of(request) else { return Ok(()) };
        let what = match &self.pushes {
            Some(pushes) if pushes.client() == client => return Ok(()),
            Some(pushes) => {
                format!("copies is {client}, and was {} before: a connection has one number", pushes.client())
            }
            None => match self.gateway.listen(client) {
                Some(pushes) => {
                    self.pushes = Some(pushes);
                    return Ok(());
                }
                None => format!("copies is {client}, which another connection has: it is to be random"),
            },
        };
        Err(Error::new(ErrorCode::InvalidArgument, what))
    }

    /// Takes an answer that is ready, and all that are ready besides: they share one write.
    fn answer_with_others(&mut self, first: Answer) {
        let mut next = Some(first);
        while let Some(answer) = next {
            self.in_flight_bytes -= answer.request_bytes;
            self.put_answer(&answer);
            if self.connection.waiting_bytes() >= WRITE_BUFFER_BYTES_MAX {
                return;
            }
            next = self.in_flight.next().now_or_never().flatten();
        }
    }

    fn put_answer(&mut self, answer: &Answer) {
        self.put(&match &answer.result {
            Ok(response) => Frame::response(answer.id, response),
            Err(error) => Frame::error(answer.id, answer.command, error),
        });
    }

    fn put(&mut self, frame: &Frame) {
        metrics::node().client_frames_sent.increment(1);
        if let Err(error @ FrameError::TooLarge { .. }) = self.connection.put_frame(frame) {
            let error = Error::new(ErrorCode::Internal, format!("the answer is too long to be sent: {error}"));
            let instead = Frame::error(frame.id, frame.command, &error);
            self.connection.put_frame(&instead).expect("an error is a small frame");
        }
    }

    /// Looks at the deadlines, and asks a silent client whether it is there.
    fn is_unresponsive(&mut self, now_us: u64) -> bool {
        let passed = |since_us: u64| Duration::from_micros(now_us.saturating_sub(since_us));
        match (self.connection.waiting_bytes(), self.stuck_us) {
            (0, _) => self.stuck_us = None,
            (_, None) => self.stuck_us = Some(now_us),
            (_, Some(since_us)) if passed(since_us) >= WRITE_DEADLINE => return true,
            _ => {}
        }
        let silent = passed(self.heard_us);
        if self.ended.is_none() && silent >= PING_AFTER && !self.pinged {
            self.pinged = true;
            self.put(&Frame::ping(0));
        }
        // Where this side has stopped reading, silence is its own doing.
        self.ended.is_none() && self.may_take() && silent >= IDLE_MAX
    }

    async fn finish(self, end: End) {
        self.subscriptions.end();
        let error = match end {
            End::Client => return,
            End::Failed(error) => {
                tracing::debug!(%error, "a client's connection failed");
                return;
            }
            End::Bad(error) => {
                metrics::node().refuse(Refused::BadFrame);
                if let Some(suppressed) = log_limit::allow("bad frame") {
                    tracing::warn!(%error, suppressed, "a client's connection was closed");
                }
                error
            }
            End::Unresponsive => {
                metrics::node().refuse(Refused::Unresponsive);
                Error::new(ErrorCode::BadFrame, "the connection was silent, or took no answers, for too long")
            }
            End::ShuttingDown => Error::new(ErrorCode::ShuttingDown, "the node is about to stop"),
        };
        self.connection.close_with(&Frame::goodbye(&error)).await;
    }
}

/// What the node says next unasked; where the client takes nothing of the kind, this never is.
async fn next_push(pushes: &mut Option<Pushes>) -> Option<Push> {
    match pushes {
        Some(pushes) => pushes.next().await,
        None => None,
    }
}

/// The number that a client gave its copies, in a request about them. 0 is none, which the gateway will say.
fn copies_of(request: &Request) -> Option<u64> {
    let copies = match request {
        Request::GetCopy(get) => get.copies,
        Request::KeepCopies(keep) => keep.copies,
        Request::DropCopies(drop) => drop.copies,
        _ => 0,
    };
    (copies != 0).then_some(copies)
}

/// A request's header as the gateway gets it.
fn options(header: &RequestHeader) -> CallOptions {
    let remaining_ms = match header.remaining_ms {
        0 => DEADLINE_MS_DEFAULT,
        asked => asked.min(DEADLINE_MS_MAX),
    };
    let session = (header.session != 0).then_some(SessionRef {
        session: header.session,
        sequence: header.sequence,
        acked_below: header.acked_below,
    });
    CallOptions { session, deadline: Duration::from_millis(remaining_ms.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_becomes_options() {
        let header = |remaining_ms, session| RequestHeader { remaining_ms, session, sequence: 4, acked_below: 2 };
        let deadline_ms = |remaining_ms| options(&header(remaining_ms, 0)).deadline.as_millis();
        assert_eq!((deadline_ms(0), deadline_ms(7), deadline_ms(u32::MAX)), (5_000, 7, 60_000));
        assert_eq!(options(&header(0, 0)).session, None);
        let session = SessionRef { session: 9, sequence: 4, acked_below: 2 };
        assert_eq!(options(&header(0, 9)).session, Some(session));
    }
}
