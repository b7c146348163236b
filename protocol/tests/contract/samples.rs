//! One or more of everything that travels, as whole frames. The golden files and the examples of the contract are made of these.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;
use trine_protocol::cache::{
    Add, Added, AllWrittenBack, CopiesDropped, CopiesGone, CopiesKept, CopyGot, CopyLease, Delete, DeletePrefix,
    DeletedPrefix, DropCopies, Evacuate, Evacuated, Explain, Explained, Filling, Get, GetCopy, GetOrFill, Got,
    HomeView, KeepCopies, Keys, LineState, ListKeys, MultiGet, MultiGot, MultiPut, MultiWritten, OnlyIf, Put, Source,
    Transition, Version, WriteBack, WriteBackAll, Written, WrittenBack,
};
use trine_protocol::cluster::{
    Backup, BackupBegun, BackupPart, BackupRead, BackupStands, GroupStatus, KeepAlive, Kept, NewNode, NodeAddresses,
    NodeStanding, NodeStatus, OpenSession, Reshape, Reshaped, Reshaping, Role, SessionOpened, Status, Transfer,
    Transferring,
};
use trine_protocol::command::RequestHeader;
use trine_protocol::frame::{Frame, FrameCodec, Kind};
use trine_protocol::handshake::{Hello, Limits, Welcome};
use trine_protocol::lock::{Granted, IfToken, Inspected, Released};
use trine_protocol::queue::{Ack, AckWhich, Acked, Delivery, Dequeue, Dequeued, Enqueue, Enqueued};
use trine_protocol::{Error, ErrorCode, Push, Request, Response, codec};

mod locks;

use super::queue_samples;

/// A frame with its name in the golden files.
pub(crate) struct Sample {
    /// The golden file it stands in.
    pub(crate) file: &'static str,
    pub(crate) name: String,
    pub(crate) frame: Frame,
    /// What it says, in Rust's own form.
    pub(crate) says: String,
}

/// The header of the examples: 5 s, the third command of session 1000, of which the first has been answered.
pub(crate) const HEADER: RequestHeader =
    RequestHeader { remaining_ms: 5_000, session: 1_000, sequence: 3, acked_below: 2 };

/// Everything.
pub(crate) fn all() -> Vec<Sample> {
    let mut samples = handshakes();
    samples.extend(others());
    for (name, header, request) in requests() {
        let frame = Frame::request(7, &header, &request);
        samples.push(Sample { file: request.command().module(), name, frame, says: format!("{header:?} {request:?}") });
    }
    for (name, response) in responses() {
        let frame = Frame::response(7, &response);
        samples.push(Sample { file: response.command().module(), name, frame, says: format!("{response:?}") });
    }
    samples
}

/// Reads a frame's bytes to the end, as a node or a client would, and says what it says.
pub(crate) fn read(bytes: &[u8]) -> Result<String, Error> {
    let (said, left) = read_damaged(bytes)?;
    assert_eq!(left, 0, "bytes are left behind the frame");
    Ok(said)
}

/// Reads the first frame of these bytes; says how many follow it.
pub(crate) fn read_damaged(bytes: &[u8]) -> Result<(String, usize), Error> {
    let mut source = BytesMut::from(bytes);
    let frame = FrameCodec::after_handshake().decode_eof(&mut source).map_err(|error| error.to_error())?;
    let frame = frame.ok_or_else(|| Error::new(ErrorCode::BadFrame, "no bytes at all"))?;
    Ok((read_body(&frame)?, source.len()))
}

/// Reads a frame's body and says what it says.
pub(crate) fn read_body(frame: &Frame) -> Result<String, Error> {
    Ok(match frame.kind {
        Kind::Hello => format!("{:?}", Hello::from_frame(frame)?),
        Kind::Welcome => format!("{:?}", Welcome::from_frame(frame)?),
        Kind::Request => {
            let (header, request) = codec::decode_request(frame.command, &frame.body)?;
            format!("{header:?} {request:?}")
        }
        Kind::Response => format!("{:?}", codec::decode_response(frame.command, &frame.body)?),
        Kind::Error | Kind::Goodbye => format!("{:?}", frame.decode_error()?),
        Kind::Push => match Push::decode(frame.command, &frame.body)? {
            Some(push) => format!("{push:?}"),
            None => format!("{:?}", frame.body),
        },
        Kind::Ping | Kind::Pong | Kind::Peer => format!("{:?}", frame.body),
    })
}

fn handshakes() -> Vec<Sample> {
    let sample = |name: &str, frame: Frame, says: String| Sample { file: "handshake", name: name.into(), frame, says };
    let client = Hello::client("worker-7", Bytes::from_static(b"secret"));
    let peer = Hello::peer("node2", 0x1122_3344_5566_7788, 0xfeed, Bytes::new());
    let welcome = Welcome {
        version: 1,
        node: "node1".into(),
        incarnation: 0x99aa_bbcc_ddee_ff00,
        cluster_id: 0xfeed,
        groups: 3,
        limits: Limits::default(),
    };
    let refusal = Error::new(ErrorCode::Unauthenticated, "the credentials are wrong");
    vec![
        sample("hello of a client", client.to_frame(), format!("{client:?}")),
        sample("hello of a peer", peer.to_frame(), format!("{peer:?}")),
        sample("welcome", welcome.to_frame(), format!("{welcome:?}")),
        sample("goodbye", Frame::goodbye(&refusal), format!("{refusal:?}")),
    ]
}

fn others() -> Vec<Sample> {
    let sample = |name: &str, frame: Frame, says: String| Sample { file: "frames", name: name.into(), frame, says };
    let empty = || format!("{:?}", Bytes::new());
    let opaque = Bytes::from_static(b"\x00opaque\xff");
    let gone = Push::from(CopiesGone { group: 2, notice: 17, keys: vec!["user:123".into()] });
    let all_gone = Push::from(CopiesGone { group: 2, notice: 18, keys: Vec::new() });
    let push = Frame { kind: Kind::Push, id: 0, command: 0x0901, body: Bytes::from_static(b"\x90") };
    let held = Error::new(ErrorCode::LockHeld, "lock 'demo' is held by 'c1'").with_hint("c1").retry_after(250);
    let bare = Error::new(ErrorCode::UnknownCommand, "");
    let mut samples = vec![
        sample("ping", Frame::ping(7), empty()),
        sample("pong", Frame::pong(7), empty()),
        sample("push of a newer node", push.clone(), format!("{:?}", push.body)),
        sample("push: copies gone", gone.to_frame(), format!("{gone:?}")),
        sample("push: copies gone, all", all_gone.to_frame(), format!("{all_gone:?}")),
        sample("peer", Frame::peer(opaque.clone()), format!("{opaque:?}")),
        sample("error", Frame::error(7, 0x0301, &held), format!("{held:?}")),
        sample("error to an unknown command", Frame::error(u64::MAX, 0xffff, &bare), format!("{bare:?}")),
    ];
    for (name, pushed) in queue_samples::pushes() {
        let push = Push::from(pushed);
        samples.push(sample(name, push.to_frame(), format!("{push:?}")));
    }
    samples
}

fn requests() -> Vec<(String, RequestHeader, Request)> {
    let none = RequestHeader::default();
    let cache = RequestHeader { remaining_ms: 5_000, ..none };
    let text = |text: &str| text.to_string();
    let put = Put { key: text("user:123"), value: Bytes::from_static(b"{\"value\":42}"), ..Put::default() };
    let everything = Put {
        only_if: OnlyIf::Version(Version { epoch: 300, count: 2 }),
        ttl_ms: 60_000,
        through: true,
        content_type: text("text/plain"),
        fill: 5 << 32 | 7,
        if_token: Some(IfToken { lock: text("{user:123}"), token: 99 }),
        ..put.clone()
    };
    let list: Vec<(&str, RequestHeader, Request)> = vec![
        ("status", none, Status {}.into()),
        ("open session", cache, OpenSession { group: 2, timeout_ms: 0 }.into()),
        ("keep alive", HEADER, KeepAlive { group: 2 }.into()),
        ("transfer", cache, Transfer { group: 2, node: text("node3") }.into()),
        ("backup", cache, Backup { group: 2 }.into()),
        ("backup read", cache, BackupRead { backup: 1 << 40, part: 17 }.into()),
        (
            "enqueue",
            HEADER,
            Enqueue { queue: text("orders"), body: Bytes::from_static(b"hello"), ..Enqueue::default() }.into(),
        ),
        (
            "enqueue nothing",
            RequestHeader { remaining_ms: u32::MAX, session: u64::MAX, sequence: u64::MAX, acked_below: u64::MAX },
            Enqueue { queue: text("{é}"), ..Enqueue::default() }.into(),
        ),
        (
            "dequeue",
            HEADER,
            Dequeue { queue: text("orders"), visibility_ms: 30_000, count_max: 10, ..Dequeue::default() }.into(),
        ),
        (
            "ack",
            HEADER,
            Ack { queue: text("orders"), which: AckWhich::Receipt { id: 41, token: 45 }, if_token: None }.into(),
        ),
        (
            "ack by body",
            HEADER,
            Ack { queue: text("orders"), which: AckWhich::Body(Bytes::from_static(b"hello")), if_token: None }.into(),
        ),
        ("get", cache, Get { key: text("user:123") }.into()),
        ("put", cache, put.clone().into()),
        ("put: everything", cache, everything.into()),
        ("put: absent", cache, Put { only_if: OnlyIf::Absent, ..put.clone() }.into()),
        ("delete", cache, Delete { key: text("user:123"), ..Delete::default() }.into()),
        (
            "delete: everything",
            cache,
            Delete { key: text("user:123"), only_if: OnlyIf::Present, through: true, ..Delete::default() }.into(),
        ),
        ("add", cache, Add { key: text("visits"), by: -3, through: true, ..Add::default() }.into()),
        ("get or fill", cache, GetOrFill { key: text("user:123"), lease_ms: 2_000 }.into()),
        ("multi-get", cache, MultiGet { keys: vec![text("a"), text("b")] }.into()),
        ("multi-put", cache, MultiPut { puts: vec![put.clone(), Put { key: text("b"), ..put }] }.into()),
        ("list keys", cache, ListKeys { group: 2, prefix: text("user:"), after: text("user:123") }.into()),
        ("delete prefix", cache, DeletePrefix { prefix: text("user:") }.into()),
        ("explain", cache, Explain { key: text("user:123") }.into()),
        ("evacuate", cache, Evacuate { group: 2, node: text("node2") }.into()),
        ("get copy", cache, GetCopy { key: text("user:123"), copies: 0x1122_3344 }.into()),
        ("keep copies", cache, KeepCopies { group: 2, copies: 0x1122_3344, number: 41 }.into()),
        ("drop copies", cache, DropCopies { group: 2, copies: 0x1122_3344, notice: 17 }.into()),
        ("write back", cache, WriteBack { key: text("user:123") }.into()),
        ("write back all", cache, WriteBackAll { group: 2 }.into()),
    ];
    let queues = queue_samples::requests().into_iter().map(|(name, request)| (name, HEADER, request));
    let list = list.into_iter().chain(reshapes()).chain(locks::requests(HEADER, cache)).chain(queues);
    list.map(|(name, header, request)| (name.to_string(), header, request)).collect()
}

/// The changes of who belongs to the cluster.
fn reshapes() -> Vec<(&'static str, RequestHeader, Request)> {
    let text = |text: &str| text.to_string();
    vec![
        ("reshape: add", HEADER, Reshape { change: Reshaping::Add(new_node()), at_version: None }.into()),
        (
            "reshape: promote",
            HEADER,
            Reshape { change: Reshaping::Promote(text("node4")), at_version: Some(12) }.into(),
        ),
        (
            "reshape: remove",
            HEADER,
            Reshape { change: Reshaping::Remove { node: text("node2"), force: true }, at_version: None }.into(),
        ),
        (
            "reshape: replace",
            HEADER,
            Reshape { change: Reshaping::Replace { node: text("node3"), by: new_node() }, at_version: Some(u64::MAX) }
                .into(),
        ),
        ("reshape: forget", HEADER, Reshape { change: Reshaping::Forget(text("node3")), at_version: None }.into()),
    ]
}

fn responses() -> Vec<(String, Response)> {
    let version = Version { epoch: 300, count: 2 };
    let body = Bytes::from_static(b"hello");
    let delivery = Delivery { id: 41, token: 45, deliveries: 1, body, attributes: None };
    let got = Got {
        value: Some(Bytes::from_static(b"{\"value\":42}")),
        version,
        state: LineState::S,
        source: Source::LocalCache,
        content_type: "application/json".into(),
    };
    let (value, source, content_type) = (None, Source::MainMemory, String::new());
    let missing = Got { value, version: Version::default(), state: LineState::I, source, content_type };
    let lease = CopyLease { group: 2, number: 41, lease_ms: 396 };
    let away = Error::new(ErrorCode::OwnerAway, "node2 has the newest value and is away").with_hint("node2");
    let part = Bytes::from_static(b"\x00opaque\xff");
    let stands = Some(BackupStands {
        index: 41,
        term: 5,
        stamp_ms: 86_400_000,
        wall_ms: 1_800_000_000_000,
        voters: vec!["node1".into(), "node3.00000000000000af".into()],
        learners: Vec::new(),
    });
    let list = vec![
        ("answer to status", Response::Status(status())),
        ("answer to open session", Response::OpenSession(SessionOpened { session: 1_000, timeout_ms: 60_000 })),
        ("answer to keep alive", Response::KeepAlive(Kept {})),
        ("answer to reshape", Response::Reshape(Reshaped { version: 12 })),
        ("answer to transfer", Response::Transfer(Transferring {})),
        ("answer to backup", Response::Backup(BackupBegun { backup: 1 << 40, index: 41 })),
        ("answer to backup read", Response::BackupRead(BackupPart { bytes: part, stands: None })),
        ("answer to backup read, the last", Response::BackupRead(BackupPart { bytes: Bytes::new(), stands })),
        ("answer to inspect", Response::Inspect(Inspected { client: "c1".into(), token: 99 })),
        ("answer to inspect, not held", Response::Inspect(Inspected { client: String::new(), token: 0 })),
        ("answer to enqueue", Response::Enqueue(queue_samples::enqueued())),
        ("answer to enqueue, repeated", Response::Enqueue(Enqueued { id: 41, ..Enqueued::default() })),
        ("answer to dequeue", Response::Dequeue(Dequeued { deliveries: vec![delivery] })),
        ("answer to dequeue, empty", Response::Dequeue(Dequeued { deliveries: vec![] })),
        ("answer to ack", Response::Ack(Acked { id: 41 })),
        (
            "answer to acquire",
            Response::Acquire(Granted { token: 1 << 48 | 99, lease_ms: 10_000, ..Granted::default() }),
        ),
        ("answer to release", Response::Release(Released { was_held: true, ..Released::default() })),
        ("answer to release, not held", Response::Release(Released { was_held: false, ..Released::default() })),
        ("answer to renew", Response::Renew(Granted { token: 99, lease_ms: 10_000, ..Granted::default() })),
        ("answer to get", Response::Get(got.clone())),
        ("answer to add", Response::Add(Added { sum: -3, version })),
        ("answer to get or fill, there", Response::GetOrFill(Filling::found(got.clone()))),
        ("answer to get or fill, to be filled", Response::GetOrFill(Filling::yours(5 << 32 | 7))),
        ("answer to multi-get", Response::MultiGet(MultiGot { results: vec![Ok(got.clone()), Err(away.clone())] })),
        ("answer to multi-put", Response::MultiPut(MultiWritten { results: vec![Ok(Written { version }), Err(away)] })),
        ("answer to list keys", Response::ListKeys(Keys { keys: vec!["a".into(), "b".into()], more: true })),
        ("answer to explain", Response::Explain(explained(version))),
        ("answer to explain, nothing known", Response::Explain(Explained::default())),
        ("answer to evacuate", Response::Evacuate(Evacuated { keys: 3 })),
        ("answer to get copy", Response::GetCopy(CopyGot { got: got.clone(), lease: Some(lease) })),
        ("answer to get copy: not to be kept", Response::GetCopy(CopyGot { got, lease: None })),
        ("answer to keep copies", Response::KeepCopies(CopiesKept { lease: Some(lease) })),
        ("answer to keep copies: over", Response::KeepCopies(CopiesKept { lease: None })),
        ("answer to drop copies", Response::DropCopies(CopiesDropped {})),
        ("answer to delete prefix", Response::DeletePrefix(DeletedPrefix { deleted: 2 })),
        ("answer to get, no such key", Response::Get(missing)),
        ("answer to put", Response::Put(Written { version })),
        ("answer to delete", Response::Delete(Written { version: Version { epoch: u64::MAX, count: u64::MAX } })),
        ("answer to write back", Response::WriteBack(WrittenBack { state: LineState::E })),
        ("answer to write back all", Response::WriteBackAll(AllWrittenBack { lines: 3 })),
        ("answer to write back, modified again", Response::WriteBack(WrittenBack { state: LineState::M })),
    ];
    let list = list.into_iter().chain(locks::responses()).chain(queue_samples::responses());
    list.map(|(name, response)| (name.to_string(), response)).collect()
}

fn explained(version: Version) -> Explained {
    let transition = Transition { ago_ms: 120, from: "I".into(), to: "M".into(), why: "Owned".into() };
    let home = HomeView {
        version: Some(version),
        bytes: 12,
        writer: "node1".into(),
        owner: "node1".into(),
        owner_present: true,
        sharers: vec!["node3".into()],
        busy: "a read of node2 waits for the value that node1 has".into(),
        waiting: 1,
        expires_in_ms: 0,
        filling: 0,
        in_redis: false,
    };
    Explained {
        node: "node1".into(),
        group: 2,
        state: "M".into(),
        version: Some(version),
        dirty: true,
        waiting: 0,
        lease_ms: 870,
        transitions: vec![transition],
        home: Some(Box::new(home)),
    }
}

fn new_node() -> NewNode {
    NewNode {
        node: "node4".into(),
        incarnation: 0x99aa_bbcc_ddee_ff00,
        client: "127.0.0.1:4104".into(),
        peer: "127.0.0.1:4204".into(),
        http: "127.0.0.1:9003".into(),
    }
}

fn status() -> NodeStatus {
    let node = |number: u16| NodeAddresses {
        node: format!("node{number}"),
        client: format!("127.0.0.1:{}", 4100 + number),
        http: format!("127.0.0.1:{}", 8999 + number),
        peer: format!("127.0.0.1:{}", 4200 + number),
        standing: if number == 1 { NodeStanding::Voter } else { NodeStanding::Learner },
    };
    let group = |group, role, leader: Option<&str>, ready| GroupStatus {
        group,
        role,
        term: 5,
        voted_for: leader.map(Into::into),
        leader: leader.map(Into::into),
        last_index: 1_000_000,
        commit_index: 999_999,
        applied_index: 999_998,
        bus_lease: ready,
        ready,
        why_not_ready: if ready { String::new() } else { "no leader".into() },
        voters: vec!["node1".into(), "node3.00000000000000af".into()],
        learners: if ready { vec!["node2".into()] } else { Vec::new() },
        change: if ready { "node2 to catch up".into() } else { String::new() },
    };
    NodeStatus {
        node: "node1".into(),
        cluster_id: 0xfeed,
        incarnation: 0x99aa_bbcc_ddee_ff00,
        version: "0.1.0".into(),
        uptime_ms: 86_400_000,
        nodes: vec![node(1), node(2)],
        groups: vec![
            group(0, Role::Leader, Some("node1"), true),
            group(1, Role::Follower, Some("node2"), true),
            group(2, Role::Candidate, None, false),
            group(3, Role::Outside, None, false),
        ],
        nodes_version: 12,
        outside: String::new(),
    }
}
