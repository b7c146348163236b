//! The connection of one group to Redis: opened while this node leads the group, and opened again whenever it is lost.
//!
//! ```text
//!   Open(term) --> connect --> raise the fence to (term, number of the connection) --> Opened
//!        ^            |  fails, or is lost: Lost, then again after [`AGAIN`]            | calls, several at once
//!        +------------+<----------------------------------------------------------------+ pushes
//! ```
//!
//! # Invariants
//! - Each connection of this process has a higher number than the one before, so that no late write over an older one lands.
//! - A call of another term, or one that comes while there is no connection, is dropped: the replica was told that it is lost, and asks again.
//! - The calls that wait are those that the home has under way, which bounds them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::cache::{Fetched, MemoryAnswer, MemoryCall, Versioned};
use crate::ids::{GroupId, Term};
use crate::node::behind::{MainMemory, MainMemoryEvent};
use crate::storage::redis::{Connection, Fence, MemoryError, Push, Server};

use super::inbox::Inbox;

/// Time from a failed attempt to connect to the next.
const AGAIN: Duration = Duration::from_millis(200);
/// What Redis has told and nobody has taken. One more ends the connection, and with it every copy.
const PUSHES_MAX: usize = 4_096;

/// Numbers of the connections of this process.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Starts the task of one group; it ends when the sender is dropped.
pub(super) fn start(group: GroupId, server: Server, inbox: Arc<Inbox>) -> mpsc::UnboundedSender<MainMemory> {
    let (sender, orders) = mpsc::unbounded_channel();
    tokio::spawn(Task { group, server, inbox, orders, said: String::new() }.run());
    sender
}

type Answers = FuturesUnordered<Pin<Box<dyn Future<Output = (MemoryAnswer, Option<MemoryError>)> + Send>>>;

struct Task {
    group: GroupId,
    server: Server,
    inbox: Arc<Inbox>,
    orders: mpsc::UnboundedReceiver<MainMemory>,
    /// The last complaint in the log of this node: each is said once.
    said: String,
}

impl Task {
    async fn run(mut self) {
        let mut open = None;
        loop {
            let next = match open {
                None => self.orders.recv().await.map(|order| open_in(None, &order)),
                Some(term) => self.serve(term).await,
            };
            match next {
                Some(term) => open = term,
                None => return,
            }
        }
    }

    /// Serves one term, over one connection after the other. The term that is to be served next; None where the node ends.
    async fn serve(&mut self, term: Term) -> Option<Option<Term>> {
        loop {
            let (sender, mut pushes) = mpsc::channel(PUSHES_MAX);
            let server = self.server.clone();
            let connecting = connect(&server, self.group, term, sender);
            let connected = tokio::select! {
                connected = connecting => connected,
                next = self.another(term) => return next,
            };
            match connected {
                Ok((connection, fence)) => {
                    self.said.clear();
                    for warning in &connection.durability.warnings {
                        tracing::warn!(group = %self.group, "{warning}");
                    }
                    self.inbox.main_memory(term, MainMemoryEvent::Opened);
                    if let Some(next) = self.over(term, Arc::new(connection), fence, &mut pushes).await {
                        return next;
                    }
                    self.inbox.main_memory(term, MainMemoryEvent::Lost);
                }
                Err(error) => self.complain(&error),
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                next = self.another(term) => return next,
            }
        }
    }

    fn complain(&mut self, error: &MemoryError) {
        let text = error.to_string();
        if self.said != text {
            tracing::warn!(group = %self.group, "main memory: {text}; trying again every {} ms", AGAIN.as_millis());
            self.said = text;
        }
    }

    /// Waits until another term is to be served, or none.
    async fn another(&mut self, term: Term) -> Option<Option<Term>> {
        loop {
            let order = self.orders.recv().await?;
            let open = open_in(Some(term), &order);
            if open != Some(term) {
                return Some(open);
            }
        }
    }

    /// Serves one term over one connection until that is lost: None; or until another term is to be served.
    async fn over(
        &mut self,
        term: Term,
        connection: Arc<Connection>,
        fence: Fence,
        pushes: &mut mpsc::Receiver<Push>,
    ) -> Option<Option<Option<Term>>> {
        let mut answers = Answers::new();
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    None => return Some(None),
                    Some(MainMemory::Call(of, call)) if of == term => {
                        answers.push(Box::pin(perform(Arc::clone(&connection), self.group, fence, call)));
                    }
                    Some(MainMemory::Call(..)) => {}
                    Some(order) => {
                        let open = open_in(Some(term), &order);
                        if open != Some(term) {
                            return Some(Some(open));
                        }
                    }
                },
                Some((answer, error)) = answers.next(), if !answers.is_empty() => {
                    self.inbox.main_memory(term, MainMemoryEvent::Said(answer));
                    if let Some(error) = error {
                        self.complain(&error);
                        if matches!(error, MemoryError::Lost(_) | MemoryError::Fenced(_)) {
                            return None;
                        }
                    }
                }
                push = pushes.recv() => match push {
                    Some(Push::Outside(keys)) => self.inbox.main_memory(term, MainMemoryEvent::Said(MemoryAnswer::Outside(keys))),
                    Some(Push::Emptied) => self.inbox.main_memory(term, MainMemoryEvent::Said(MemoryAnswer::All)),
                    Some(Push::Lost) | None => return None,
                },
            }
        }
    }
}

/// What is open after an order.
fn open_in(open: Option<Term>, order: &MainMemory) -> Option<Term> {
    match order {
        MainMemory::Open(term) => Some(*term),
        MainMemory::Close => None,
        MainMemory::Call(..) => open,
    }
}

async fn connect(
    server: &Server,
    group: GroupId,
    term: Term,
    pushes: mpsc::Sender<Push>,
) -> Result<(Connection, Fence), MemoryError> {
    let connection = server.connect(pushes).await?;
    let fence = Fence { term, connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1 };
    connection.raise(group, fence).await?;
    Ok((connection, fence))
}

/// Does one call. The error is what the connection, or whoever reads the log, has to know of.
async fn perform(
    connection: Arc<Connection>,
    group: GroupId,
    fence: Fence,
    call: MemoryCall,
) -> (MemoryAnswer, Option<MemoryError>) {
    match call {
        MemoryCall::Fetch { ticket, key } => {
            let read = connection.read(group, fence, &key).await;
            let error = read.as_ref().err().cloned();
            let result = read.map_err(|error| error.to_string()).map(|stored| {
                let ours = stored.version.is_some();
                let version = stored.version.unwrap_or_default();
                let value = Versioned { content_type: stored.content_type, ..Versioned::new(version, stored.value) };
                Fetched { value, ours }
            });
            (MemoryAnswer::Fetched { ticket, key, result }, error)
        }
        MemoryCall::Store { key, value } => {
            let bytes = value.value.as_ref().map(|bytes| (bytes, value.content_type.as_str()));
            let written = connection.write(group, fence, &key, bytes, value.version).await;
            let error = written.as_ref().err().cloned();
            let result = written.map_err(|error| error.to_string());
            (MemoryAnswer::Stored { key, version: value.version, result }, error)
        }
    }
}
