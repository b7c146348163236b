//! A node for tests that keeps its promises, from an in-memory model, except for one planted lie.
//!
//! It shakes hands, says that it leads every group, and answers every command of the queue, the lock and the cache as
//! `protocol/README.md` has them. Sessions are opened and their numbers not looked at: nothing is cut off here, so nothing
//! is sent twice.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::codec::Decoder;
use trine_protocol::cluster::{GroupStatus, NodeAddresses, NodeStanding, NodeStatus, Role, SessionOpened};
use trine_protocol::frame::{Frame, FrameCodec, Kind};
use trine_protocol::handshake::{Hello, Welcome, welcome};
use trine_protocol::{Request, Response, codec};

use crate::model::{Lie, Model};

const CLUSTER_ID: u64 = 0xc1;
const GROUPS: u32 = 3;

/// When the server answers nothing for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    /// After so many requests.
    pub(crate) after: u64,
    /// For so long.
    pub(crate) length: Duration,
}

struct Inner {
    address: String,
    model: Mutex<Model>,
    requests: AtomicU64,
    stall: Option<Stall>,
    stalled: AtomicBool,
}

/// A server on a port of its own, until the test's runtime ends.
pub(crate) struct Server {
    inner: Arc<Inner>,
}

impl Server {
    pub(crate) async fn start(lie: Option<Lie>, stall: Option<Stall>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let inner = Arc::new(Inner {
            address: listener.local_addr().expect("its address").to_string(),
            model: Mutex::new(Model::new(lie)),
            requests: AtomicU64::new(0),
            stall,
            stalled: AtomicBool::new(false),
        });
        let serving = inner.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        Self { inner }
    }

    pub(crate) fn address(&self) -> &str {
        &self.inner.address
    }

    /// Whether the lie has been told.
    pub(crate) fn has_lied(&self) -> bool {
        self.inner.model.lock().expect("the model").has_lied()
    }
}

async fn serve(stream: TcpStream, inner: Arc<Inner>) {
    let _ = stream.set_nodelay(true);
    let (mut read, mut write) = stream.into_split();
    let (frames, mut to_write) = mpsc::unbounded_channel::<Frame>();
    tokio::spawn(async move {
        while let Some(frame) = to_write.recv().await {
            let bytes: Bytes = frame.to_bytes().expect("an answer is below the limit");
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let (mut codec, mut buffer) = (FrameCodec::new(), BytesMut::new());
    loop {
        while let Some(frame) = codec.decode(&mut buffer).expect("the generator sends frames") {
            wait_out_the_stall(&inner).await;
            if let Some(answer) = answer(&frame, &inner) {
                let _ = frames.send(answer);
            }
        }
        if !matches!(read.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

/// Every connection waits while the stall lasts, the one that began it and those that come meanwhile.
async fn wait_out_the_stall(inner: &Inner) {
    let Some(stall) = inner.stall else { return };
    if inner.requests.fetch_add(1, Ordering::SeqCst) == stall.after {
        inner.stalled.store(true, Ordering::SeqCst);
        tokio::time::sleep(stall.length).await;
        inner.stalled.store(false, Ordering::SeqCst);
    }
    while inner.stalled.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn answer(frame: &Frame, inner: &Inner) -> Option<Frame> {
    match frame.kind {
        Kind::Hello => {
            let hello = Hello::from_frame(frame).expect("a good hello");
            let made = welcome(&hello, "node1", 1, CLUSTER_ID, GROUPS).expect("a version in common");
            Some(Welcome::to_frame(&made))
        }
        Kind::Ping => Some(Frame::pong(frame.id)),
        Kind::Request => {
            let (_, request) = codec::decode_request(frame.command, &frame.body).expect("a good request");
            let result = match request {
                Request::Status(_) => Ok(Response::Status(status(inner))),
                Request::OpenSession(_) => {
                    Ok(Response::OpenSession(SessionOpened { session: 100, timeout_ms: 600_000 }))
                }
                other => inner.model.lock().expect("the model").execute(&other),
            };
            Some(match result {
                Ok(response) => Frame::response(frame.id, &response),
                Err(error) => Frame::error(frame.id, frame.command, &error),
            })
        }
        _ => None,
    }
}

fn status(inner: &Inner) -> NodeStatus {
    let group = |group| GroupStatus {
        group,
        role: Role::Leader,
        term: 1,
        voted_for: None,
        leader: Some("node1".into()),
        last_index: 0,
        commit_index: 0,
        applied_index: 0,
        bus_lease: true,
        ready: true,
        why_not_ready: String::new(),
        voters: Vec::new(),
        learners: Vec::new(),
        change: String::new(),
    };
    let client = inner.address.clone();
    NodeStatus {
        node: "node1".into(),
        cluster_id: CLUSTER_ID,
        incarnation: 1,
        version: "0".into(),
        uptime_ms: 1,
        nodes: vec![NodeAddresses {
            node: "node1".into(),
            client,
            http: String::new(),
            peer: String::new(),
            standing: NodeStanding::Voter,
        }],
        groups: (0..GROUPS).map(group).collect(),
        nodes_version: 0,
        outside: String::new(),
    }
}
