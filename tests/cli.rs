//! The subcommands that are clients, as a user starts them: what they print, and the exit codes that scripts rely on.
//! The node that they talk to speaks the real protocol, and has a fake behind its door.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trine::ids::{Incarnation, NodeId};
use trine::transport::{Local, Permits, listener, session};
use trine_protocol::limits::VALUE_BYTES_MAX;
use trine_protocol::queue::{About, BackOff, DeadReason};
use trine_protocol::{ErrorCode, Request};

use fake::Fake;

#[path = "rest/fake.rs"]
mod fake;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOTHING: i32 = 3;
const REFUSED: i32 = 4;
const NOT_DONE: i32 = 5;
const UNKNOWN: i32 = 6;

struct Node {
    fake: Fake,
    address: SocketAddr,
}

/// How a process ended, and what it printed.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: Vec<u8>,
    complaint: String,
}

impl Ended {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    fn json(&self) -> Value {
        assert_eq!(self.code, DONE, "{self:?}");
        serde_json::from_slice(&self.out).unwrap()
    }

    /// Its arguments were refused, in words that these are among.
    #[track_caller]
    fn is_refused(&self, word: &str) {
        assert_eq!((self.code, self.out.len()), (USAGE, 0), "{self:?}");
        assert!(self.complaint.contains(word), "{self:?}");
    }

    /// It failed with this code, one line that has all the words, and nothing on standard output.
    #[track_caller]
    fn complains(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.out.is_empty(), "{self:?}");
        assert_eq!(self.complaint.lines().count(), 1, "{self:?}");
        assert!(self.complaint.starts_with("trine: "), "{self:?}");
        for word in words {
            assert!(self.complaint.contains(word), "no '{word}' in {}", self.complaint);
        }
    }
}

/// Runs `trine` with the words of a line.
async fn trine(endpoints: &str, line: &str, input: &[u8]) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_trine"))
        .args(line.split_whitespace())
        .env("TRINE_ENDPOINTS", endpoints)
        .env("TRINE_CLIENT", "tester")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that takes no input may be gone before it is written.
    drop(stdin.write_all(input).await);
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    Ended { code: output.status.code().expect("an exit code"), out: output.stdout, complaint }
}

impl Node {
    async fn start() -> Self {
        let fake = Fake::new();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let local = Arc::new(Local {
            node: NodeId::numbered(1),
            incarnation: Incarnation(1),
            cluster_id: 0xabc,
            groups: 3,
            credentials: Bytes::from_static(b"secret"),
        });
        let (gateway, close) = (fake.clone(), CancellationToken::new());
        let serve =
            move |connection| session::serve(connection, Arc::clone(&local), gateway.clone(), CancellationToken::new());
        tokio::spawn(listener::accept(socket, Permits::for_clients(), TaskTracker::new(), close, serve));
        // The cluster that this node knows is itself: `status` asks everybody.
        fake.change(|world| {
            world.status.nodes.truncate(1);
            world.status.nodes[0].client = address.to_string();
        });
        Self { fake, address }
    }

    async fn trine(&self, line: &str) -> Ended {
        self.trine_with(line, b"").await
    }

    async fn trine_with(&self, line: &str, input: &[u8]) -> Ended {
        trine(&self.address.to_string(), &format!("{line} --credentials secret"), input).await
    }
}

#[tokio::test]
async fn keys_are_written_read_and_removed() {
    let node = Node::start().await;
    node.trine("cache get greeting").await.complains(NOTHING, &["greeting"]);
    assert_eq!(node.trine("cache put greeting hello").await.code, DONE);
    assert_eq!(node.trine("cache get greeting").await.text(), "hello\n");
    let object = node.trine("cache get greeting --json").await.json();
    let want = json!({ "key": "greeting", "value": "hello", "state": "M", "source": "local_cache", "version": "3.4" });
    assert_eq!(object, want);
    assert_eq!(node.trine("cache delete greeting").await.code, DONE);
    node.trine("cache get greeting").await.complains(NOTHING, &["greeting"]);
}

#[tokio::test]
async fn a_value_may_come_from_standard_input_and_be_any_bytes() {
    let node = Node::start().await;
    let value = b"\xff\x00two\nlines\n";
    assert_eq!(node.trine_with("cache put bytes", value).await.code, DONE);
    assert_eq!(node.trine("cache get bytes").await.out, [&value[..], b"\n"].concat());
    assert_eq!(node.trine("cache get bytes --json").await.json()["value_base64"], "/wB0d28KbGluZXMK");
    let most = vec![b'x'; VALUE_BYTES_MAX];
    assert_eq!(node.trine_with("queue push q", &most).await.code, DONE);
    let more = [&most[..], b"x"].concat();
    node.trine_with("queue push q", &more).await.complains(REFUSED, &["1048576"]);
}

#[tokio::test]
async fn messages_are_pushed_pulled_and_acknowledged() {
    let node = Node::start().await;
    node.trine("queue pull orders").await.complains(NOTHING, &["orders"]);
    let id: u64 = node.trine("queue push orders first").await.text().trim().parse().unwrap();
    assert_eq!(node.trine("queue push orders second --json").await.json()["status"], "enqueued");
    let pulled = node.trine("queue pull orders --visibility-ms 700").await;
    let (receipt, message) = pulled.text().split_once('\t').unwrap();
    assert_eq!(message, "first\n");
    let Some(Request::Dequeue(dequeue)) = node.fake.last_asked() else { panic!("no dequeue") };
    assert_eq!((dequeue.visibility_ms, dequeue.count_max), (700, 1));
    let acked = node.trine(&format!("queue ack orders {receipt} --json")).await.json();
    assert_eq!(acked["id"], id);
    node.trine(&format!("queue ack orders {receipt}")).await.complains(NOTHING, &["NotInFlight"]);
    node.trine("queue ack orders no-receipt").await.complains(USAGE, &["no-receipt"]);
    assert_eq!(node.trine("queue pull orders --ack").await.text(), "second\n");
    node.trine("queue ack orders --message second").await.complains(NOTHING, &["NotInFlight"]);
}

#[tokio::test]
async fn locks_are_taken_renewed_and_given_back() {
    let node = Node::start().await;
    let taken = node.trine("lock acquire demo --lease-ms 5000").await;
    let token = taken.text().trim().to_owned();
    let Some(Request::Acquire(acquire)) = node.fake.last_asked() else { panic!("no acquire") };
    assert_eq!((acquire.client.as_str(), acquire.lease_ms), ("tester", 5000));
    node.trine("lock acquire demo --client other").await.complains(REFUSED, &["LockHeld"]);
    let renewed = node.trine(&format!("lock renew demo --token {token} --json")).await.json();
    assert_eq!((&renewed["fencing_token_str"], &renewed["lease_ms"]), (&json!(token), &json!(10_000)));
    node.trine("lock renew demo --token 1").await.complains(REFUSED, &["StaleToken"]);
    node.trine("lock release demo --client other").await.complains(REFUSED, &["LockHeldByOther"]);
    assert_eq!(node.trine("lock release demo").await.text(), "released demo\n");
    node.trine("lock release demo").await.complains(NOTHING, &["demo"]);
}

#[tokio::test]
async fn status_shows_every_node_and_says_whether_all_is_well() {
    let node = Node::start().await;
    let status = node.trine("status").await;
    assert_eq!(status.code, DONE);
    for word in ["cluster 0000000000000abc", "node1", "ready", "leader 80"] {
        assert!(status.text().contains(word), "no '{word}' in:\n{}", status.text());
    }
    node.fake.change(|world| {
        (world.status.groups[2].ready, world.status.groups[2].why_not_ready) = (false, "no leader".into());
    });
    let status = node.trine("status").await;
    assert_eq!(status.code, NOT_DONE);
    assert!(status.text().contains("group 2: no leader"), "{}", status.text());
    // A node that nobody can reach is shown, not waited for.
    node.fake.change(|world| {
        let mut gone = world.status.nodes[0].clone();
        (gone.node, gone.client) = ("node2".into(), "127.0.0.1:1".into());
        world.status.nodes.push(gone);
    });
    let status = node.trine("status --json").await;
    let object: Value = serde_json::from_slice(&status.out).unwrap();
    assert_eq!((status.code, &object["nodes"][1]["node"]), (NOT_DONE, &json!("node2")));
    assert!(object["nodes"][1]["error"].as_str().unwrap().contains("Unreachable"), "{object}");
}

#[tokio::test]
async fn health_is_that_of_the_nodes_named_and_of_no_other() {
    let node = Node::start().await;
    // Another node of the cluster is gone. That is `status`'s to tell: a health check must not end a node for it.
    node.fake.change(|world| {
        let mut gone = world.status.nodes[0].clone();
        (gone.node, gone.client) = ("node2".into(), "127.0.0.1:1".into());
        world.status.nodes.push(gone);
    });
    assert_eq!(node.trine("status").await.code, NOT_DONE);
    let health = node.trine("health").await;
    assert_eq!((health.code, health.text()), (DONE, "node1 is ready\n"));
    let object = json!({ "node": "node1", "endpoint": node.address.to_string(), "ready": true });
    assert_eq!(node.trine("health --json").await.json(), object);
    // A node that is well does not hide one that is not, whatever their order.
    let both = format!("{},127.0.0.1:1", node.address);
    let ended = trine(&both, "health --deadline-ms 200 --credentials secret", b"").await;
    assert!(ended.code == NOT_DONE && ended.complaint.contains("Unreachable"), "{ended:?}");
    node.fake.change(|world| {
        (world.status.groups[2].ready, world.status.groups[2].why_not_ready) = (false, "no leader".into());
    });
    node.trine("health").await.complains(NOT_DONE, &["node1 is not ready", "group 2: no leader"]);
}

#[tokio::test]
async fn errors_are_one_line_and_a_code_that_says_whether_to_try_again() {
    let node = Node::start().await;
    node.fake.fail(ErrorCode::Internal);
    node.trine("cache get k --deadline-ms 200").await.complains(UNKNOWN, &["Internal"]);
    node.fake.fail(ErrorCode::TooLarge);
    node.trine("cache get k").await.complains(REFUSED, &["TooLarge"]);
    node.fake.fail(ErrorCode::NoLeader);
    node.trine("cache get k --deadline-ms 200").await.complains(NOT_DONE, &["NoLeader"]);
    node.fake.change(|world| world.silent = true);
    node.trine("cache put k v --deadline-ms 200").await.complains(UNKNOWN, &["DeadlineExceeded"]);
    trine("127.0.0.1:1", "cache get k --deadline-ms 200", b"").await.complains(NOT_DONE, &["Unreachable"]);
    trine(&node.address.to_string(), "cache get k", b"").await.complains(REFUSED, &["Unauthenticated"]);
}

#[tokio::test]
async fn wrong_arguments_are_told_apart_from_everything_else() {
    for line in
        ["queue ack q", "lock acquire", "up --nodes 8", "cache get k --deadline-ms 0", "frobnicate", "lock renew l"]
    {
        let ended = trine("127.0.0.1:1", line, b"").await;
        assert_eq!((ended.code, ended.out.len()), (USAGE, 0), "{line}: {ended:?}");
    }
    for line in ["--help", "up --help", "--version"] {
        let ended = trine("127.0.0.1:1", line, b"").await;
        assert_eq!((ended.code, ended.complaint.as_str()), (DONE, ""), "{line}");
    }
    let ended = trine("127.0.0.1:1", "up --data-dir /dev/null", b"").await;
    ended.complains(FAILED, &["/dev/null"]);
}

#[tokio::test]
async fn what_a_message_is_given_goes_to_the_node() {
    let node = Node::start().await;
    let push = "queue push orders hello --priority 7 --key k --tenant t --delay-ms 5 --ttl-ms 60 --dedup-id d";
    assert_eq!(node.trine(push).await.code, DONE);
    let Some(Request::Enqueue(enqueue)) = node.fake.last_asked() else { panic!("no enqueue") };
    let options = enqueue.options.expect("it has options");
    assert_eq!((options.priority, options.key.as_str(), options.tenant.as_str()), (7, "k", "t"));
    assert_eq!((options.delay_ms, options.ttl_ms, options.dedup_id.as_str()), (5, 60, "d"));
    node.trine("queue push orders hello --priority 32").await.is_refused("32");
    let pulled = node.trine("queue pull orders --wait-ms 100 --consumer me").await;
    let (receipt, _) = pulled.text().split_once('\t').unwrap();
    let Some(Request::Dequeue(dequeue)) = node.fake.last_asked() else { panic!("no dequeue") };
    assert_eq!((dequeue.wait_ms, dequeue.consumer.as_str()), (100, "me"));
    assert!(
        node.trine(&format!("queue extend orders {receipt} --visibility-ms 70")).await.text().starts_with("extended")
    );
    assert!(
        node.trine(&format!("queue nack orders {receipt} --delay-ms 9 --reason why")).await.text().contains("delayed")
    );
    let Some(Request::Nack(nack)) = node.fake.last_asked() else { panic!("no nack") };
    assert_eq!((nack.delay_ms, nack.reason.as_str(), nack.reject), (Some(9), "why", false));
    assert!(node.trine(&format!("queue nack orders {receipt} --reject")).await.text().contains("dead"));
}

#[tokio::test]
async fn a_queue_is_declared_paused_drained_and_emptied() {
    let node = Node::start().await;
    let declare = "queue declare orders --max-deliveries 5 --back-off 100:9000:20 --bytes-max 1000 --drop-oldest \
                   --bury-expired --fair --weight eu=3";
    assert_eq!(node.trine(declare).await.text(), "declared\n");
    let Some(Request::Declare(declared)) = node.fake.last_asked() else { panic!("no declare") };
    let policy = declared.policy;
    assert_eq!((policy.max_deliveries, policy.bytes_max, policy.fair, policy.weights[0].weight), (5, 1000, true, 3));
    assert_eq!(policy.back_off, BackOff::Exponential { first_ms: 100, max_ms: 9_000, jitter_percent: 20 });
    for (wrong, why) in
        [("--back-off 1:2:3:4", "three"), ("--back-off x", "x"), ("--fair --weight eu", "TENANT=WEIGHT")]
    {
        node.trine(&format!("queue declare orders {wrong}")).await.is_refused(why);
    }
    assert_eq!(node.trine("queue pause orders").await.text(), "paused\n");
    assert_eq!(node.trine("queue pause orders --off").await.text(), "open\n");
    assert_eq!(node.trine("queue drain orders").await.text(), "draining\n");
    node.trine("queue purge orders").await.is_refused("--accept-loss");
    assert!(node.trine("queue purge orders --state dead --accept-loss").await.text().starts_with("purged "));
    let redriven = node.trine("queue redrive orders --reason rejected --per-second 10 --count 2 --json").await.json();
    assert_eq!((&redriven["messages"], &redriven["more"]), (&json!(2), &json!(true)));
    let Some(Request::Redrive(redrive)) = node.fake.last_asked() else { panic!("no redrive") };
    assert_eq!((redrive.filter.unwrap().reason, redrive.per_second), (Some(DeadReason::Rejected), 10));
    assert_eq!(node.trine("queue undeclare orders").await.text(), "undeclared\n");
}

#[tokio::test]
async fn queues_are_listed_shown_looked_into_and_explained() {
    let node = Node::start().await;
    node.trine("queue show orders").await.complains(NOTHING, &["orders"]);
    node.trine("queue peek orders --state dead").await.complains(NOTHING, &["dead"]);
    assert_eq!(node.trine("queue push orders hello").await.code, DONE);
    assert!(node.trine("queue ls").await.text().starts_with("orders\t1 ready"));
    assert_eq!(node.trine("queue show orders --json").await.json()["group"], 2);
    assert!(node.trine("queue peek orders").await.text().ends_with("\thello\n"));
    assert_eq!(node.trine("queue peek orders --json").await.json()["message"], "hello");
    let explained = node.trine("queue explain orders --json").await.json();
    assert_eq!(explained["causes"], json!(["Paused", "HeldByKeys"]));
    assert!(node.trine("queue explain orders --message 7").await.text().starts_with("the queue is paused\n"));
    let Some(Request::ExplainQueue(explain)) = node.fake.last_asked() else { panic!("no explain") };
    assert_eq!(explain.about, About::Message(7));
}
