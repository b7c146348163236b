//! A node for tests: it shakes hands and answers `Status` by itself; every other request is handed to the test, which
//! answers it, in any order, or cuts the connection.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;
use trine_protocol::client::ClientConfig;
use trine_protocol::cluster::{GroupStatus, NodeAddresses, NodeStanding, NodeStatus, Role, SessionOpened};
use trine_protocol::command::RequestHeader;
use trine_protocol::frame::{Frame, FrameCodec, Kind, LENGTH_BYTES};
use trine_protocol::handshake::{Hello, Welcome, welcome};
use trine_protocol::{Command, Error, ErrorCode, Request, Response, codec};

pub(crate) const CLUSTER_ID: u64 = 0xc1;
const PATIENCE: Duration = Duration::from_secs(10);

/// How the node behaves by itself.
#[derive(Clone)]
pub(crate) struct Manner {
    pub(crate) groups: u32,
    pub(crate) in_flight_max: u32,
    /// Refuses each hello so.
    pub(crate) refusal: Option<Error>,
    /// Answers no ping.
    pub(crate) silent: bool,
    /// Client address of the leader of every group, as the status says.
    pub(crate) leader: Option<String>,
    /// Answers `OpenSession` and `KeepAlive` itself, with sessions of this timeout.
    pub(crate) session_timeout_ms: Option<u32>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            groups: 1,
            in_flight_max: 4096,
            refusal: None,
            silent: false,
            leader: None,
            session_timeout_ms: Some(60_000),
        }
    }
}

/// A request that waits for the test.
pub(crate) struct Incoming {
    pub(crate) connection: u32,
    pub(crate) header: RequestHeader,
    pub(crate) request: Request,
    id: u64,
    line: Line,
}

#[derive(Clone)]
struct Line {
    bytes: mpsc::UnboundedSender<Bytes>,
    cut: CancellationToken,
}

impl Incoming {
    pub(crate) fn answer(self, response: Response) {
        assert_eq!(response.command(), self.request.command());
        self.send(Frame::response(self.id, &response));
    }

    pub(crate) fn error(self, error: Error) {
        self.send(Frame::error(self.id, self.request.command().code(), &error));
    }

    pub(crate) fn fail(self, code: ErrorCode) {
        self.error(Error::new(code, "as the test says"));
    }

    /// Sends whatever the test likes.
    pub(crate) fn send(&self, frame: Frame) {
        self.send_bytes(frame.to_bytes().unwrap());
    }

    /// Sends a piece of whatever the test likes.
    pub(crate) fn send_bytes(&self, bytes: Bytes) {
        let _ = self.line.bytes.send(bytes);
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Closes the connection without an answer.
    pub(crate) fn cut(self) {
        self.line.cut.cancel();
    }
}

struct Inner {
    manner: Manner,
    incoming: mpsc::UnboundedSender<Incoming>,
    hellos: Mutex<Vec<Hello>>,
    pongs: mpsc::UnboundedSender<u64>,
    connections: AtomicU32,
    sessions: AtomicU32,
    stopped: CancellationToken,
}

pub(crate) struct Server {
    pub(crate) address: String,
    incoming: mpsc::UnboundedReceiver<Incoming>,
    pongs: mpsc::UnboundedReceiver<u64>,
    inner: Arc<Inner>,
    accepting: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(manner: Manner) -> Self {
        Self::start_at("127.0.0.1:0", manner).await
    }

    pub(crate) async fn start_at(address: &str, manner: Manner) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, incoming) = mpsc::unbounded_channel();
        let (pong_sender, pongs) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            manner,
            incoming: sender,
            hellos: Mutex::default(),
            pongs: pong_sender,
            connections: AtomicU32::new(0),
            sessions: AtomicU32::new(0),
            stopped: CancellationToken::new(),
        });
        let serving = inner.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        Self { address, incoming, pongs, inner, accepting }
    }

    /// The next request that is for the test.
    pub(crate) async fn next(&mut self) -> Incoming {
        tokio::time::timeout(PATIENCE, self.incoming.recv()).await.expect("a request in time").expect("a server")
    }

    /// Whether no request is waiting now.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.incoming.try_recv().is_err()
    }

    pub(crate) fn hellos(&self) -> Vec<Hello> {
        self.inner.hellos.lock().unwrap().clone()
    }

    /// The id of the next pong.
    pub(crate) async fn pong(&mut self) -> u64 {
        tokio::time::timeout(PATIENCE, self.pongs.recv()).await.expect("a pong in time").expect("a server")
    }

    pub(crate) fn connections(&self) -> u32 {
        self.inner.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn sessions(&self) -> u32 {
        self.inner.sessions.load(Ordering::SeqCst)
    }

    /// Closes the listener and every connection.
    pub(crate) async fn stop(self) -> String {
        self.inner.stopped.cancel();
        self.accepting.abort();
        let _ = self.accepting.await;
        self.address
    }
}

/// A configuration for these servers, in their order.
pub(crate) fn config(servers: &[&Server]) -> ClientConfig {
    ClientConfig::new(servers.iter().map(|server| server.address.clone()))
}

async fn serve(stream: TcpStream, inner: Arc<Inner>) {
    stream.set_nodelay(true).unwrap();
    let connection = inner.connections.fetch_add(1, Ordering::SeqCst);
    let (mut read, mut write) = stream.into_split();
    let (bytes, mut to_write) = mpsc::unbounded_channel::<Bytes>();
    let line = Line { bytes, cut: inner.stopped.child_token() };
    let cut = line.cut.clone();
    let reading = read_frames(&mut read, connection, &inner, line);
    let writing = async {
        while let Some(bytes) = to_write.recv().await {
            let is_goodbye = bytes.get(LENGTH_BYTES) == Some(&(Kind::Goodbye as u8));
            if write.write_all(&bytes).await.is_err() || is_goodbye {
                return;
            }
        }
    };
    tokio::select! {
        () = cut.cancelled() => {}
        () = reading => {}
        () = writing => {}
    }
}

async fn read_frames(read: &mut OwnedReadHalf, connection: u32, inner: &Inner, line: Line) {
    let (mut codec, mut buffer) = (FrameCodec::new(), BytesMut::new());
    loop {
        while let Some(frame) = codec.decode(&mut buffer).expect("the client sends frames") {
            receive(frame, connection, inner, &line);
        }
        if !matches!(read.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

fn receive(frame: Frame, connection: u32, inner: &Inner, line: &Line) {
    let reply = |frame: Frame| drop(line.bytes.send(frame.to_bytes().unwrap()));
    match frame.kind {
        Kind::Hello => reply(greet(&frame, inner)),
        Kind::Ping if inner.manner.silent => {}
        Kind::Ping => reply(Frame::pong(frame.id)),
        Kind::Pong => drop(inner.pongs.send(frame.id)),
        Kind::Request => {
            let (header, request) = codec::decode_request(frame.command, &frame.body).expect("a good request");
            match (request.command(), inner.manner.session_timeout_ms) {
                (Command::Status, _) => reply(Frame::response(frame.id, &Response::Status(status(inner)))),
                (Command::OpenSession, Some(timeout_ms)) => {
                    let session = u64::from(inner.sessions.fetch_add(1, Ordering::SeqCst)) + 100;
                    let opened = Response::OpenSession(SessionOpened { session, timeout_ms });
                    reply(Frame::response(frame.id, &opened));
                }
                _ => {
                    let incoming = Incoming { connection, header, request, id: frame.id, line: line.clone() };
                    let _ = inner.incoming.send(incoming);
                }
            }
        }
        other => panic!("a client sent a {other:?}"),
    }
}

fn greet(frame: &Frame, inner: &Inner) -> Frame {
    let hello = Hello::from_frame(frame).expect("a good hello");
    let made = welcome(&hello, "node1", 1, CLUSTER_ID, inner.manner.groups);
    inner.hellos.lock().unwrap().push(hello);
    if let Some(refusal) = &inner.manner.refusal {
        return Frame::goodbye(refusal);
    }
    match made {
        Err(error) => Frame::goodbye(&error),
        Ok(mut welcome) => {
            welcome.limits.in_flight_max = inner.manner.in_flight_max;
            Welcome::to_frame(&welcome)
        }
    }
}

fn status(inner: &Inner) -> NodeStatus {
    let leader = inner.manner.leader.as_ref().map(|_| "node2".to_string());
    let addresses = |client: &String| NodeAddresses {
        node: "node2".into(),
        client: client.clone(),
        http: String::new(),
        peer: String::new(),
        standing: NodeStanding::Voter,
    };
    let group = |group| GroupStatus {
        group,
        role: Role::Follower,
        term: 1,
        voted_for: None,
        leader: leader.clone(),
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
    NodeStatus {
        node: "node1".into(),
        cluster_id: CLUSTER_ID,
        incarnation: 1,
        version: "0".into(),
        uptime_ms: 1,
        nodes: inner.manner.leader.iter().map(addresses).collect(),
        groups: (0..inner.manner.groups).map(group).collect(),
        nodes_version: 0,
        outside: String::new(),
    }
}
