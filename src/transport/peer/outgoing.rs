//! What this node sends: a queue and a connection for each peer.
//!
//! ```text
//!            +--> connecting --handshake--> connected --+
//!            |        |                         |       |
//!            |      failed                 failed, silent, or asked to stop
//!            |        v                         |
//!            +---- waiting <--------------------+
//! ```
//!
//! While it is not connected, the task of a peer throws away what is to be sent.
//!
//! # Invariants
//! - A connection on which nothing has been heard for [`Silence::max`] is given up: a ping goes out
//!   every [`Silence::ping_every`], and the other side must answer it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::metrics::Gauge;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use trine_protocol::frame::{Frame, Kind};
use trine_protocol::handshake::{Hello, Welcome};
use trine_protocol::{Error, ErrorCode};

use crate::clock;
use crate::ids::{GroupId, Incarnation, NodeId};
use crate::metrics;
use crate::node::message::GroupMessage;
use crate::server::log_limit;
use crate::transport::{Connection, Local};

use super::PeerDoor;
use super::batch::Batch;

/// Messages that wait for one peer; one more is dropped. A leader has at most 64 appends in flight per group and follower,
/// and forwards and bus messages are answered one by one, so only a peer that is not read comes here.
pub const QUEUE_MESSAGES_MAX: usize = 8192;
/// Messages of recent frames, each with half the weight of the one after it, from which on a message waits for company.
const SHARED_RECENT_MIN: usize = 2;
/// Messages taken from the queue at a time.
const TAKE_MAX: usize = 1024;
/// Bytes that wait to leave before more is taken from the queue.
const WRITE_BUFFER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Time for a connection and its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// First and longest pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// When a peer is taken for gone.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// Time between two pings.
    pub ping_every: Duration,
    /// Time without a byte from it after which its connection is given up.
    pub max: Duration,
}

impl Default for Silence {
    fn default() -> Self {
        Self { ping_every: Duration::from_secs(1), max: Duration::from_secs(5) }
    }
}

type Queued = (GroupId, Arc<GroupMessage>);

/// Where messages for other nodes are put. Never waits.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    queues: Arc<RwLock<BTreeMap<NodeId, Queue>>>,
}

/// One peer's queue; its task ends when this is dropped.
#[derive(Debug)]
struct Queue {
    address: String,
    sender: mpsc::Sender<Queued>,
}

impl Outbox {
    /// One queue for each peer, and the end that its task takes from.
    pub fn new(peers: impl IntoIterator<Item = (NodeId, String)>) -> (Self, Vec<Peer>) {
        let outbox = Self::default();
        let ends = outbox.set(peers.into_iter().collect());
        (outbox, ends)
    }

    /// These are the peers from now on: returns the ends for those that are new, or have another address. The tasks of those that are
    /// gone end by themselves.
    pub fn set(&self, peers: BTreeMap<NodeId, String>) -> Vec<Peer> {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|node, queue| peers.get(node) == Some(&queue.address));
        let mut ends = Vec::new();
        for (node, address) in peers {
            if queues.contains_key(&node) {
                continue;
            }
            let (sender, queue) = mpsc::channel(QUEUE_MESSAGES_MAX);
            queues.insert(node, Queue { address: address.clone(), sender });
            let connected = metrics::peer_connected(node.as_str());
            ends.push(Peer { node, address, queue, connected, silence: Silence::default() });
        }
        ends
    }

    /// Sends a message, or drops it.
    pub fn send(&self, to: NodeId, group: GroupId, message: Arc<GroupMessage>) {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queues.get(&to) else {
            return metrics::node().dropped_away.increment(1);
        };
        if queue.sender.try_send((group, message)).is_err() {
            metrics::node().dropped_full.increment(1);
        }
    }
}

/// The sending end of one direction.
#[derive(Debug)]
pub struct Peer {
    /// The other node.
    pub node: NodeId,
    /// Its advertised address for peers.
    pub address: String,
    /// When it is taken for gone.
    pub silence: Silence,
    queue: mpsc::Receiver<Queued>,
    connected: Gauge,
}

/// Why a connection to a peer ended, or did not come about.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] trine_protocol::frame::FrameError),
    #[error("{0}")]
    Refused(#[from] Error),
    /// This node does not take the other one for whom it says it is.
    #[error("{0}")]
    NotAdmitted(Error),
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error("the peer closed the connection")]
    Closed,
}

impl Peer {
    /// Messages that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Keeps a connection to the peer until `close`, and sends what is put into its queue.
    pub async fn run<D: PeerDoor>(mut self, local: Arc<Local>, door: D, close: CancellationToken) {
        let mut pause = PAUSE_MIN;
        while !close.is_cancelled() {
            let connection = tokio::select! {
                connection = connect(self.node, &self.address, &local, &door) => connection,
                () = throw_away(&mut self.queue) => return,
                () = close.cancelled() => return,
            };
            let broken = match connection {
                Ok(connection) => {
                    tracing::info!(peer = %self.node, address = self.address, "connected to peer");
                    pause = PAUSE_MIN;
                    self.connected.set(1.0);
                    let end = self.converse(connection, &close).await;
                    self.connected.set(0.0);
                    match end {
                        Ok(()) => return,
                        Err(broken) => broken,
                    }
                }
                Err(broken) => broken,
            };
            // What the other side says of this node; what this node says of the other concerns the other.
            if let Broken::Refused(error) = &broken
                && error.code == ErrorCode::LostData
            {
                door.lost_data(error);
            }
            if let Some(suppressed) = log_limit::allow("peer unreachable") {
                tracing::warn!(peer = %self.node, address = self.address, error = %broken, suppressed, "no connection to peer");
            }
            let waited = timeout(pause, throw_away(&mut self.queue));
            tokio::select! {
                waited = waited => if waited.is_ok() { return },
                () = close.cancelled() => return,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Sends what comes out of the queue. Ok where the node is about to stop.
    async fn converse(
        &mut self,
        mut connection: Connection<TcpStream>,
        close: &CancellationToken,
    ) -> Result<(), Broken> {
        let mut ping = tokio::time::interval(self.silence.ping_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_us = clock::mono_us();
        let mut taken: Vec<Queued> = Vec::with_capacity(TAKE_MAX);
        let mut recent = 0;
        loop {
            let may_take = connection.waiting_bytes() < WRITE_BUFFER_BYTES_MAX;
            tokio::select! {
                count = self.queue.recv_many(&mut taken, TAKE_MAX), if may_take => {
                    if count == 0 {
                        return Ok(());
                    }
                    // While much is said, whoever woke this task is not alone: others that can run speak first, and what they say shares
                    // the frame.
                    if recent >= SHARED_RECENT_MIN {
                        tokio::task::yield_now().await;
                    }
                    while taken.len() < TAKE_MAX && let Ok(queued) = self.queue.try_recv() {
                        taken.push(queued);
                    }
                    recent = recent / 2 + taken.len();
                    put_batches(&mut connection, &mut taken)?;
                }
                progress = connection.progress(true) => {
                    let progress = progress?;
                    if progress.read > 0 {
                        heard_us = clock::mono_us();
                        listen(&mut connection)?;
                    }
                    if progress.ended {
                        return Err(Broken::Closed);
                    }
                }
                _ = ping.tick() => {
                    if Duration::from_micros(clock::mono_us().saturating_sub(heard_us)) > self.silence.max {
                        return Err(Broken::Silent(self.silence.max));
                    }
                    connection.put_frame(&Frame::ping(0))?;
                }
                () = close.cancelled() => {
                    let error = Error::new(ErrorCode::ShuttingDown, "the node is about to stop");
                    connection.close_with(&Frame::goodbye(&error)).await;
                    return Ok(());
                }
            }
        }
    }
}

/// Drops messages until the queue is closed.
async fn throw_away(queue: &mut mpsc::Receiver<Queued>) {
    while queue.recv().await.is_some() {
        metrics::node().dropped_away.increment(1);
    }
}

async fn connect<D: PeerDoor>(
    node: NodeId,
    address: &str,
    local: &Local,
    door: &D,
) -> Result<Connection<TcpStream>, Broken> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Connection::new(stream);
        let hello = Hello::peer(local.node.as_str(), local.incarnation.0, local.cluster_id, local.credentials.clone());
        connection.put_frame(&hello.to_frame())?;
        let frame = connection.read_frame().await?.ok_or(Broken::Closed)?;
        let welcome = Welcome::from_frame(&frame)?;
        if welcome.node != node.as_str() || welcome.cluster_id != local.cluster_id {
            let message = format!("{} of cluster {:016x} answers there, not {node}", welcome.node, welcome.cluster_id);
            return Err(Error::new(ErrorCode::WrongCluster, message).into());
        }
        door.admit(node, Incarnation(welcome.incarnation)).await.map_err(Broken::NotAdmitted)?;
        Ok(connection)
    };
    timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(Broken::Silent(CONNECT_TIMEOUT)))
}

fn put_batches(connection: &mut Connection<TcpStream>, taken: &mut Vec<Queued>) -> Result<(), Broken> {
    let mut batch = Batch::default();
    let mut put = |full: Option<(bytes::Bytes, u32)>| -> Result<(), Broken> {
        let Some((body, count)) = full else { return Ok(()) };
        let frame = Frame::peer(body);
        let sent = &metrics::node().sent;
        sent.frames.increment(1);
        sent.bytes.increment(frame.wire_bytes() as u64);
        sent.messages.increment(count.into());
        Ok(connection.put_frame(&frame)?)
    };
    for (group, message) in taken.drain(..) {
        match batch.add(group, &message) {
            Ok(full) => put(full)?,
            Err(error) => {
                metrics::node().dropped_full.increment(1);
                if let Some(suppressed) = log_limit::allow("message too large") {
                    tracing::error!(%group, %error, suppressed, "a message between nodes was dropped");
                }
            }
        }
    }
    put(batch.finish())
}

/// What the other side says on a connection that it only listens on: pongs, and a goodbye.
fn listen(connection: &mut Connection<TcpStream>) -> Result<(), Broken> {
    while let Some(frame) = connection.take_frame()? {
        match frame.kind {
            Kind::Pong => {}
            Kind::Goodbye => return Err(frame.decode_error()?.into()),
            other => {
                let message = format!("a listening peer may not send a frame of the kind {}", other.name());
                return Err(Error::new(ErrorCode::BadFrame, message).into());
            }
        }
    }
    Ok(())
}
