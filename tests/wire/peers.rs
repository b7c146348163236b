//! Connections between two nodes: who is let in, order, coalescing, and what happens when one goes and comes back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trine::ids::{GroupId, Incarnation, NodeId};
use trine::node::message::GroupMessage;
use trine::raft;
use trine::transport::peer::{self, Arrivals, QUEUE_MESSAGES_MAX, Silence};
use trine::transport::{Connection, Outbox, PeerDoor, Permits, listener};
use trine_protocol::frame::{Frame, Kind};
use trine_protocol::handshake::{Hello, Welcome};
use trine_protocol::{Error, ErrorCode};

use crate::bench::{CLUSTER, PATIENCE, local};

/// Lets in `node2`, remembers its incarnation, and keeps the terms of what arrives, by group.
#[derive(Clone)]
struct Kept {
    known: Arc<Mutex<BTreeMap<NodeId, Incarnation>>>,
    arrived: watch::Sender<Vec<(u32, u64)>>,
}

impl Kept {
    fn new() -> Self {
        Self { known: Arc::default(), arrived: watch::channel(Vec::new()).0 }
    }

    async fn arrived(&self, until: impl Fn(&[(u32, u64)]) -> bool) -> Vec<(u32, u64)> {
        let mut arrived = self.arrived.subscribe();
        let waited = tokio::time::timeout(PATIENCE, arrived.wait_for(|arrived| until(arrived))).await;
        waited.expect("they arrive").expect("the sender lives").clone()
    }
}

impl PeerDoor for Kept {
    async fn admit(&self, node: NodeId, incarnation: Incarnation) -> Result<(), Error> {
        if node != NodeId::numbered(1) && node != NodeId::numbered(2) {
            return Err(Error::new(ErrorCode::WrongCluster, format!("{node} is no member")));
        }
        let known = *self.known.lock().unwrap().entry(node).or_insert(incarnation);
        match known == incarnation {
            true => Ok(()),
            false => Err(Error::new(ErrorCode::WrongCluster, "another incarnation")),
        }
    }

    fn lost_data(&self, error: &trine_protocol::Error) {
        panic!("no peer of these tests has lost anything: {error}");
    }

    fn deliver(&self, from: NodeId, group: GroupId, message: GroupMessage, bytes: usize) {
        assert!(from == NodeId::numbered(2) && bytes > 0);
        let GroupMessage::Raft(message) = message else { panic!("{message:?}") };
        self.arrived.send_modify(|arrived| arrived.push((group.0, message.term)));
    }
}

fn message(term: u64) -> Arc<GroupMessage> {
    Arc::new(GroupMessage::Raft(raft::Message::new(term, raft::Body::TimeoutNow)))
}

/// Node 1, as far as it listens to peers.
struct Listening {
    door: Kept,
    address: String,
    close: CancellationToken,
    tracker: TaskTracker,
}

async fn listen(door: Kept, address: &str) -> Listening {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (close, tracker, arrivals) = (CancellationToken::new(), TaskTracker::new(), Arrivals::default());
    let (served, closed) = (door.clone(), close.clone());
    let serve =
        move |connection| peer::serve(connection, local(1, ""), served.clone(), arrivals.clone(), closed.clone());
    let permits = Permits::new(100, metrics::Gauge::noop());
    tracker.spawn(listener::accept(listener, permits, tracker.clone(), close.clone(), serve));
    tracker.close();
    Listening { door, address, close, tracker }
}

/// Node 2, as far as it sends to node 1.
fn sending(address: &str) -> (Outbox, CancellationToken) {
    let (outbox, peers) = Outbox::new([(NodeId::numbered(1), address.to_owned())]);
    let close = CancellationToken::new();
    for mut peer in peers {
        peer.silence = Silence { ping_every: Duration::from_millis(50), max: Duration::from_millis(500) };
        tokio::spawn(peer.run(local(2, ""), Kept::new(), close.clone()));
    }
    (outbox, close)
}

/// Sends numbered messages until one arrives: what is sent before the connection stands is lost, as it may be.
async fn until_connected(outbox: &Outbox, door: &Kept, marker: u64) {
    let arrived = door.arrived(|arrived| arrived.iter().any(|(_, term)| *term == marker));
    let send = async {
        loop {
            outbox.send(NodeId::numbered(1), GroupId(9), message(marker));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = arrived => {}
        () = send => {}
    }
}

#[tokio::test]
async fn messages_arrive_once_and_in_order_over_a_connection_that_opens_itself() {
    let listening = listen(Kept::new(), "127.0.0.1:0").await;
    let (outbox, close) = sending(&listening.address);
    until_connected(&outbox, &listening.door, 0).await;
    for term in 1..=5_000 {
        outbox.send(NodeId::numbered(1), GroupId((term % 3) as u32), message(term));
    }
    let arrived = listening.door.arrived(|arrived| arrived.last().is_some_and(|(_, term)| *term == 5_000)).await;
    let numbered: Vec<(u32, u64)> = arrived.into_iter().filter(|(group, _)| *group != 9).collect();
    assert_eq!(numbered, (1..=5_000).map(|term| ((term % 3) as u32, term)).collect::<Vec<_>>());
    close.cancel();
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_again() {
    let listening = listen(Kept::new(), "127.0.0.1:0").await;
    let (outbox, _close) = sending(&listening.address);
    until_connected(&outbox, &listening.door, 1).await;
    let Listening { door, address, close, tracker } = listening;
    close.cancel();
    tracker.wait().await;
    let listening = listen(door, &address).await;
    until_connected(&outbox, &listening.door, 2).await;
}

#[tokio::test]
async fn a_full_queue_drops_what_is_newest_and_never_waits() {
    // Nobody runs the sending end, so nothing leaves the queue.
    let (outbox, peers) = Outbox::new([(NodeId::numbered(1), "127.0.0.1:1".to_owned())]);
    for term in 0..2 * QUEUE_MESSAGES_MAX as u64 {
        outbox.send(NodeId::numbered(1), GroupId(0), message(term));
    }
    outbox.send(NodeId::numbered(7), GroupId(0), message(0));
    assert_eq!(peers[0].waiting(), QUEUE_MESSAGES_MAX);
}

async fn say_hello(address: &str, hello: &Hello) -> (Connection<TcpStream>, Result<Welcome, Error>) {
    let mut connection = Connection::new(TcpStream::connect(address).await.unwrap());
    connection.put_frame(&hello.to_frame()).unwrap();
    let frame = tokio::time::timeout(PATIENCE, connection.read_frame()).await.unwrap().unwrap().unwrap();
    (connection, Welcome::from_frame(&frame))
}

fn hello(node: &str, incarnation: u64) -> Hello {
    Hello::peer(node, incarnation, CLUSTER, Bytes::new())
}

#[tokio::test]
async fn only_a_known_node_of_this_cluster_in_its_first_incarnation_is_heard() {
    let listening = listen(Kept::new(), "127.0.0.1:0").await;
    let code = async |hello: Hello| say_hello(&listening.address, &hello).await.1.err().map(|error| error.code);
    assert_eq!(code(hello("node7", 2)).await, Some(ErrorCode::WrongCluster));
    assert_eq!(code(hello("Not A Node", 2)).await, Some(ErrorCode::WrongCluster));
    assert_eq!(code(Hello::peer("node2", 2, CLUSTER + 1, Bytes::new())).await, Some(ErrorCode::WrongCluster));
    assert_eq!(code(Hello::client("node2", Bytes::new())).await, Some(ErrorCode::InvalidArgument));
    assert_eq!(code(hello("node2", 2)).await, None);
    assert_eq!(code(hello("node2", 3)).await, Some(ErrorCode::WrongCluster));
    assert_eq!(code(hello("node2", 2)).await, None);
}

#[tokio::test]
async fn a_newer_connection_ends_the_older_one() {
    let listening = listen(Kept::new(), "127.0.0.1:0").await;
    let (mut older, welcome) = say_hello(&listening.address, &hello("node2", 2)).await;
    welcome.unwrap();
    let (mut newer, welcome) = say_hello(&listening.address, &hello("node2", 2)).await;
    welcome.unwrap();
    let end = tokio::time::timeout(PATIENCE, older.read_frame()).await.expect("the older one ends");
    assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
    newer.put_frame(&Frame::ping(4)).unwrap();
    let pong = tokio::time::timeout(PATIENCE, newer.read_frame()).await.unwrap().unwrap();
    assert_eq!(pong, Some(Frame::pong(4)));
}

#[tokio::test]
async fn a_peer_that_sends_what_is_no_batch_gets_one_error_and_is_closed() {
    let listening = listen(Kept::new(), "127.0.0.1:0").await;
    let nested: Vec<u8> = std::iter::repeat_n(0x91, 10_000).chain([0xc0]).collect();
    let cases = [
        (Frame::peer(nested.into()), ErrorCode::MalformedBody),
        (Frame::peer(vec![0x91, 0xdd, 0xff, 0xff, 0xff, 0xff].into()), ErrorCode::MalformedBody),
        (Frame::new(Kind::Request, Bytes::new()), ErrorCode::BadFrame),
    ];
    for (frame, code) in cases {
        let (mut connection, welcome) = say_hello(&listening.address, &hello("node2", 2)).await;
        welcome.unwrap();
        connection.put_frame(&frame).unwrap();
        let last = tokio::time::timeout(PATIENCE, connection.read_frame()).await.unwrap().unwrap().unwrap();
        assert_eq!((last.kind, last.decode_error().unwrap().code), (Kind::Goodbye, code));
        assert!(connection.read_frame().await.unwrap().is_none());
    }
    assert!(listening.door.arrived.borrow().is_empty());
}
