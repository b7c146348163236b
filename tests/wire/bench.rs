//! A listener on a port of its own, the gateway behind it, and a client that can send anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trine::ids::{Incarnation, NodeId};
use trine::server::{CallOptions, Gateway, Pushes};
use trine::transport::{Connection, Local, Permits, listener, session};
use trine_protocol::cache::{Got, LineState, Source, Version};
use trine_protocol::cluster::NodeStatus;
use trine_protocol::command::RequestHeader;
use trine_protocol::frame::{Frame, Kind};
use trine_protocol::handshake::{Hello, Welcome};
use trine_protocol::queue::Enqueued;
use trine_protocol::{Error, ErrorCode, Request, Response};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Cluster of the bench.
pub(crate) const CLUSTER: u64 = 0x5eed;

/// A gateway whose answers the test decides. A `Get` of a key that begins with `now` is answered at once, with as many
/// bytes as the number behind it says; everything else waits until the test releases it.
#[derive(Clone)]
pub(crate) struct Held {
    waiting: Arc<Mutex<BTreeMap<String, oneshot::Sender<()>>>>,
    /// Names in the order in which they were first polled.
    seen: watch::Sender<Vec<String>>,
}

impl Held {
    fn new() -> Self {
        Self { waiting: Arc::default(), seen: watch::channel(Vec::new()).0 }
    }

    /// What has arrived, once it is so much.
    pub(crate) async fn seen(&self, count: usize) -> Vec<String> {
        let mut seen = self.seen.subscribe();
        let arrived = seen.wait_for(|seen| seen.len() >= count);
        tokio::time::timeout(PATIENCE, arrived).await.expect("they arrive").expect("the sender lives").clone()
    }

    /// How much has arrived by now.
    pub(crate) fn count(&self) -> usize {
        self.seen.borrow().len()
    }

    /// Lets a request be answered.
    pub(crate) fn release(&self, name: &str) {
        let sender = self.waiting.lock().unwrap().remove(name).unwrap_or_else(|| panic!("{name} does not wait"));
        let _ = sender.send(());
    }
}

/// What the test calls a request by: the body of an `Enqueue`, the key of a `Get`.
fn name_of(request: &Request) -> String {
    match request {
        Request::Enqueue(enqueue) => String::from_utf8(enqueue.body.to_vec()).unwrap(),
        Request::Get(get) => get.key.clone(),
        other => format!("{other:?}"),
    }
}

impl Gateway for Held {
    async fn call(&self, request: Request, _: CallOptions) -> Result<Response, Error> {
        let name = name_of(&request);
        let answer = match &request {
            Request::Enqueue(_) => Response::Enqueue(Enqueued { id: name.len() as u64, ..Enqueued::default() }),
            _ => {
                let bytes = name.strip_prefix("now").and_then(|count| count.parse().ok()).unwrap_or(0);
                let (version, state) = (Version::default(), LineState::S);
                let (value, content_type) = (Some(vec![7; bytes].into()), String::new());
                Response::Get(Got { value, version, state, source: Source::LocalCache, content_type })
            }
        };
        self.seen.send_modify(|seen| seen.push(name.clone()));
        if !name.starts_with("now") {
            let (sender, released) = oneshot::channel();
            self.waiting.lock().unwrap().insert(name, sender);
            released.await.map_err(|_| Error::new(ErrorCode::Internal, "the test is over"))?;
        }
        Ok(answer)
    }

    fn listen(&self, _: u64) -> Option<Pushes> {
        None
    }

    fn status(&self) -> NodeStatus {
        unreachable!("no session asks for it")
    }

    fn readiness(&self) -> Result<(), String> {
        unreachable!("no session asks for it")
    }

    fn metrics(&self) -> String {
        unreachable!("no session asks for it")
    }
}

/// A node's front for clients.
pub(crate) struct Bench {
    pub(crate) gateway: Held,
    pub(crate) close: CancellationToken,
    address: SocketAddr,
}

/// What a node of the bench says of itself.
pub(crate) fn local(number: usize, credentials: &'static str) -> Arc<Local> {
    let credentials = Bytes::from(credentials);
    let (node, incarnation) = (NodeId::numbered(number), Incarnation(number as u64));
    Arc::new(Local { node, incarnation, cluster_id: CLUSTER, groups: 3, credentials })
}

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::start_with("", 1_000).await
    }

    pub(crate) async fn start_with(credentials: &'static str, connections_max: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (gateway, close, local) = (Held::new(), CancellationToken::new(), local(1, credentials));
        let (served, closed) = (gateway.clone(), close.clone());
        let serve = move |connection| session::serve(connection, local.clone(), served.clone(), closed.clone());
        let permits = Permits::new(connections_max, metrics::Gauge::noop());
        tokio::spawn(listener::accept(listener, permits, TaskTracker::new(), close.clone(), serve));
        Self { gateway, close, address }
    }

    /// A connection that has said nothing yet.
    pub(crate) async fn connect(&self) -> Client {
        Client { connection: None, stream: Some(TcpStream::connect(self.address).await.unwrap()) }
    }

    /// A connection after its handshake.
    pub(crate) async fn client(&self) -> Client {
        let mut client = self.connect().await;
        let welcome = client.greet(&Hello::client("test", Bytes::new())).await.unwrap();
        assert_eq!((welcome.node.as_str(), welcome.cluster_id, welcome.groups), ("node1", CLUSTER, 3));
        client
    }
}

/// A client that can send anything.
pub(crate) struct Client {
    stream: Option<TcpStream>,
    connection: Option<Connection<TcpStream>>,
}

impl Client {
    /// Sends bytes as they are; only before the handshake.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        // The node may have closed already: then what counts is what it said before.
        let _ = self.stream.as_mut().expect("before the first frame").write_all(bytes).await;
    }

    /// Says that nothing more comes.
    pub(crate) async fn finish_sending(&mut self) {
        let _ = self.stream.as_mut().expect("before the first frame").shutdown().await;
    }

    fn connection(&mut self) -> &mut Connection<TcpStream> {
        let stream = &mut self.stream;
        self.connection.get_or_insert_with(|| Connection::new(stream.take().expect("one or the other")))
    }

    pub(crate) async fn greet(&mut self, hello: &Hello) -> Result<Welcome, Error> {
        self.send(&hello.to_frame()).await;
        let frame = self.receive().await.expect("an answer to the hello");
        Welcome::from_frame(&frame)
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, frame: &Frame) {
        let connection = self.connection();
        connection.put_frame(frame).unwrap();
        connection.flush().await.unwrap();
    }

    /// Puts a request behind what waits to be sent.
    pub(crate) fn put(&mut self, id: u64, request: impl Into<Request>) {
        self.connection().put_frame(&Frame::request(id, &RequestHeader::default(), &request.into())).unwrap();
    }

    /// Sends what waits.
    pub(crate) async fn flush(&mut self) {
        self.connection().flush().await.unwrap();
    }

    /// The next frame; None where the node has closed the connection.
    pub(crate) async fn receive(&mut self) -> Option<Frame> {
        let frame = tokio::time::timeout(PATIENCE, self.connection().read_frame());
        frame.await.expect("a frame or an end").unwrap_or(None)
    }

    /// The error that the node says last, before it closes.
    pub(crate) async fn last_words(&mut self) -> Error {
        let frame = self.receive().await.expect("one last frame");
        assert_eq!(frame.kind, Kind::Goodbye);
        let error = frame.decode_error().unwrap();
        assert_eq!(self.receive().await, None, "nothing comes after the goodbye");
        error
    }
}

/// The bytes of a frame with any kind and body, and a length that fits.
pub(crate) fn raw_frame(kind: u8, command: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(11 + body.len()).unwrap();
    [&length.to_be_bytes()[..], &[kind], &9_u64.to_be_bytes(), &command.to_be_bytes(), body].concat()
}
