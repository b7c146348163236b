//! What other nodes send to this one.
//!
//! # Invariants
//! - Only a node of the list of members is heard, of this cluster, and of the incarnation that its name stands for.
//! - Of two connections from one node the newer one counts. The older one is told to end, and the newer one is not read
//!   before it has: messages never overtake each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use trine_protocol::frame::{Frame, Kind};
use trine_protocol::handshake::{Hello, Role};
use trine_protocol::{Error, ErrorCode};

use crate::ids::{Incarnation, NodeId};
use crate::metrics::{self, Refused};
use crate::server::log_limit;
use crate::transport::greeting::greet;
use crate::transport::{Connection, Local};

use super::{PeerDoor, batch};

/// Silence after which a sending peer is taken for gone; it pings every second.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Who is connected: makes sure that of each node only the newest connection is heard.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    slots: Arc<Mutex<BTreeMap<NodeId, Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    newest: CancellationToken,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Arrivals {
    /// Ends the older connection of a node. The newer one holds the lock while it is heard, and ends with its token.
    fn replace(&self, node: NodeId) -> (CancellationToken, Arc<tokio::sync::Mutex<()>>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(node).or_default();
        slot.newest.cancel();
        slot.newest = CancellationToken::new();
        (slot.newest.clone(), Arc::clone(&slot.turn))
    }
}

/// Serves one connection from a peer, from its handshake to its end.
pub async fn serve<D, S>(
    connection: Connection<S>,
    local: Arc<Local>,
    door: D,
    arrivals: Arrivals,
    close: CancellationToken,
) where
    D: PeerDoor,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let admit = async |hello: &Hello| {
        let node = named(hello)?;
        door.admit(node, Incarnation(hello.incarnation)).await
    };
    let Some((connection, hello)) = greet(connection, &local, Role::Peer, admit).await else { return };
    let Ok(node) = named(&hello) else { return };
    let (replaced, turn) = arrivals.replace(node);
    let _turn = turn.lock().await;
    tracing::info!(peer = %node, "peer connected");
    tokio::select! {
        () = hear(connection, node, door, close) => {}
        () = replaced.cancelled() => tracing::info!(peer = %node, "peer connected anew"),
    }
}

fn named(hello: &Hello) -> Result<NodeId, Error> {
    hello.name.parse().map_err(|complaint: String| Error::new(ErrorCode::WrongCluster, complaint))
}

async fn hear<D, S>(mut connection: Connection<S>, node: NodeId, door: D, close: CancellationToken)
where
    D: PeerDoor,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let error = loop {
        if let Err(error) = take_frames(&mut connection, node, &door) {
            break error;
        }
        let progress = tokio::select! {
            progress = tokio::time::timeout(SILENCE_MAX, connection.progress(true)) => progress,
            () = close.cancelled() => break Error::new(ErrorCode::ShuttingDown, "the node is about to stop"),
        };
        match progress {
            Ok(Ok(progress)) if !progress.ended => {}
            Ok(_) => return tracing::info!(peer = %node, "peer gone"),
            Err(_) => {
                metrics::node().refuse(Refused::Unresponsive);
                return tracing::warn!(peer = %node, "peer is silent: its connection is given up");
            }
        }
    };
    if error.code != ErrorCode::ShuttingDown {
        metrics::node().refuse(Refused::BadFrame);
        if let Some(suppressed) = log_limit::allow("bad peer frame") {
            tracing::warn!(peer = %node, %error, suppressed, "a peer's connection was closed");
        }
    }
    connection.close_with(&Frame::goodbye(&error)).await;
}

fn take_frames<D, S>(connection: &mut Connection<S>, node: NodeId, door: &D) -> Result<(), Error>
where
    D: PeerDoor,
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(frame) = connection.take_frame().map_err(|error| error.to_error())? {
        match frame.kind {
            Kind::Peer => take_batch(&frame, node, door)?,
            // The write buffer holds a pong for each ping, and a peer that reads none of them is silent to itself.
            Kind::Ping if connection.waiting_bytes() < batch::BATCH_BYTES_MAX => {
                connection.put_frame(&Frame::pong(frame.id)).expect("a pong is a small frame");
            }
            Kind::Ping | Kind::Pong => {}
            Kind::Goodbye => return Err(Error::new(ErrorCode::ShuttingDown, "the peer said goodbye")),
            other => {
                let message = format!("a peer may not send a frame of the kind {}", other.name());
                return Err(Error::new(ErrorCode::BadFrame, message));
            }
        }
    }
    Ok(())
}

fn take_batch<D: PeerDoor>(frame: &Frame, node: NodeId, door: &D) -> Result<(), Error> {
    let batch = batch::decode(&frame.body)?;
    let received = &metrics::node().received;
    received.frames.increment(1);
    received.bytes.increment(frame.wire_bytes() as u64);
    received.messages.increment(batch.messages.len() as u64);
    let share = frame.body.len() / batch.messages.len().max(1);
    for (group, message) in batch.messages {
        door.deliver(node, group, message, share);
    }
    Ok(())
}
