//! Calls over one connection: matching, bounds, order, and what a failure says.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use trine_protocol::cache::{Got, LineState, Source, Version, Written, WrittenBack};
use trine_protocol::client::{Client, ClientConfig};
use trine_protocol::error::Outcome;
use trine_protocol::frame::{Frame, Kind};
use trine_protocol::lock::{Granted, Released};
use trine_protocol::queue::{Ack, AckWhich, Acked, Delivery, Dequeue, Dequeued, Enqueue, Enqueued};
use trine_protocol::{Error, ErrorCode, Request, Response};

use super::server::{Incoming, Manner, Server, config};

fn enqueued(id: u64) -> Response {
    Response::Enqueue(Enqueued { id, ..Enqueued::default() })
}

fn body(incoming: &Incoming) -> u64 {
    match &incoming.request {
        Request::Enqueue(enqueue) => std::str::from_utf8(&enqueue.body).unwrap().parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn enqueue(client: &Client, number: u64) -> Result<Enqueued, Error> {
    client.enqueue("q", number.to_string()).await
}

#[tokio::test]
async fn every_method_sends_its_command_and_returns_its_answer() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    macro_rules! exchange {
        ($call:expr, $name:ident $answer:expr) => {{
            let answer = $answer;
            let (answered, request) = tokio::join!($call, async {
                let incoming = server.next().await;
                let request = incoming.request.clone();
                incoming.answer(Response::$name(answer.clone()));
                request
            });
            assert_eq!(answered.unwrap(), answer);
            request
        }};
    }
    let request = exchange!(client.enqueue("q", "b"), Enqueue Enqueued { id: 7, ..Enqueued::default() });
    assert_eq!(request, Enqueue { queue: "q".into(), body: "b".into(), ..Enqueue::default() }.into());
    let delivery = Delivery { id: 7, token: 9, deliveries: 1, body: "b".into(), attributes: None };
    let request = exchange!(client.dequeue("q", 5, 6), Dequeue Dequeued { deliveries: vec![delivery.clone()] });
    assert_eq!(request, Dequeue { queue: "q".into(), visibility_ms: 5, count_max: 6, ..Dequeue::default() }.into());
    let request = exchange!(client.ack("q", &delivery), Ack Acked { id: 7 });
    assert_eq!(request, Ack { queue: "q".into(), which: AckWhich::Receipt { id: 7, token: 9 }, if_token: None }.into());
    let granted = Granted { token: 3, lease_ms: 50, ..Granted::default() };
    exchange!(client.acquire("l", "c", 50), Acquire granted.clone());
    exchange!(client.renew("l", "c", 3, 50), Renew granted);
    exchange!(client.release("l", "c", 3), Release Released { was_held: true, ..Released::default() });
    let version = Version { epoch: 4, count: 1 };
    let got = Got {
        value: Some("v".into()),
        version,
        state: LineState::S,
        source: Source::MainMemory,
        content_type: String::new(),
    };
    exchange!(client.get("k"), Get got);
    exchange!(client.put("k", "v"), Put Written { version });
    exchange!(client.delete("k"), Delete Written { version });
    exchange!(client.write_back("k"), WriteBack WrittenBack { state: LineState::E });
    assert_eq!(client.status().await.unwrap().node, "node1");
    assert_eq!(client.ring().groups(), 1);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn answers_in_any_order_reach_who_asked() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let mut calls = JoinSet::new();
    for number in 0..200 {
        let client = client.clone();
        calls.spawn(async move { (number, enqueue(&client, number).await.unwrap().id) });
    }
    let mut waiting = Vec::new();
    for _ in 0..200 {
        waiting.push(server.next().await);
    }
    for incoming in waiting.into_iter().rev() {
        let number = body(&incoming);
        incoming.answer(enqueued(number + 1000));
    }
    while let Some(call) = calls.join_next().await {
        let (number, id) = call.unwrap();
        assert_eq!(id, number + 1000);
    }
}

#[tokio::test]
async fn calls_go_out_in_the_order_they_were_begun() {
    let mut server = Server::start(Manner { in_flight_max: 64, ..Manner::default() }).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let mut calls = JoinSet::new();
    for number in 0..1000 {
        let client = client.clone();
        // A runtime of one thread polls new tasks in the order of their making.
        calls.spawn(async move { enqueue(&client, number).await.unwrap() });
    }
    for number in 0..1000 {
        let incoming = server.next().await;
        assert_eq!(body(&incoming), number);
        incoming.answer(enqueued(number));
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
}

#[tokio::test]
async fn no_more_are_in_flight_than_the_node_takes() {
    let mut server = Server::start(Manner { in_flight_max: 3, ..Manner::default() }).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let mut calls = JoinSet::new();
    for number in 0..10 {
        let client = client.clone();
        calls.spawn(async move { enqueue(&client, number).await.unwrap() });
    }
    let mut waiting = std::collections::VecDeque::new();
    for _ in 0..3 {
        waiting.push_back(server.next().await);
    }
    for answered in 0..10 {
        // What the client sends is in order: a fourth request would be here before the pong.
        waiting[0].send(Frame::ping(answered));
        assert_eq!(server.pong().await, answered);
        assert!(server.is_idle(), "a fourth request after {answered} answers");
        waiting.pop_front().expect("three are in flight").answer(enqueued(1));
        if answered < 7 {
            waiting.push_back(server.next().await);
        } else if waiting.is_empty() {
            break;
        }
    }
    assert_eq!(calls.join_all().await.len(), 10);
}

#[tokio::test]
async fn what_was_cut_off_without_a_session_is_of_unknown_outcome_and_not_repeated() {
    let (mut server, mut other) = (Server::start(Manner::default()).await, Server::start(Manner::default()).await);
    let client = Client::connect(ClientConfig { session: false, ..config(&[&server, &other]) }).await.unwrap();
    let (result, ()) = tokio::join!(enqueue(&client, 1), async { server.next().await.cut() });
    assert_eq!(result.unwrap_err().code, ErrorCode::OutcomeUnknown);
    let (result, ()) = tokio::join!(client.put("k", "v"), async { server.next().await.cut() });
    assert_eq!(result.unwrap_err().code, ErrorCode::OutcomeUnknown);
    assert!(server.is_idle() && other.is_idle());
}

#[tokio::test]
async fn a_read_that_was_cut_off_is_sent_again() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(ClientConfig { session: false, ..config(&[&server]) }).await.unwrap();
    let got = Got {
        value: None,
        version: Version::default(),
        state: LineState::S,
        source: Source::MainMemory,
        content_type: String::new(),
    };
    let (result, ()) = tokio::join!(client.get("k"), async {
        server.next().await.cut();
        let again = server.next().await;
        assert_eq!(again.connection, 1);
        again.answer(Response::Get(got.clone()));
    });
    assert_eq!(result.unwrap(), got);
}

#[tokio::test]
async fn what_was_not_done_is_sent_again_and_what_was_refused_is_not() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(ClientConfig { session: false, ..config(&[&server]) }).await.unwrap();
    let (result, ()) = tokio::join!(enqueue(&client, 1), async {
        for code in [ErrorCode::Overloaded, ErrorCode::NoLeader, ErrorCode::QueueFull] {
            server.next().await.fail(code);
        }
        server.next().await.answer(enqueued(5));
    });
    assert_eq!(result.unwrap().id, 5);
    let held = Error::new(ErrorCode::LockHeld, "held").with_hint("c2");
    let (result, ()) = tokio::join!(client.acquire("l", "c", 5), async { server.next().await.error(held.clone()) });
    assert_eq!(result.unwrap_err(), held);
    assert!(server.is_idle());
}

#[tokio::test]
async fn without_retries_every_failure_comes_back() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(ClientConfig { retry: false, ..config(&[&server]) }).await.unwrap();
    let (result, ()) = tokio::join!(enqueue(&client, 1), async { server.next().await.fail(ErrorCode::Overloaded) });
    assert_eq!(result.unwrap_err().code, ErrorCode::Overloaded);
    let (result, ()) = tokio::join!(client.get("k"), async { server.next().await.cut() });
    assert_eq!(result.unwrap_err().code, ErrorCode::OutcomeUnknown);
    assert!(server.is_idle());
}

#[tokio::test]
async fn the_deadline_is_told_to_the_node_and_kept() {
    let mut server = Server::start(Manner::default()).await;
    let deadline = Duration::from_millis(300);
    let client = Client::connect(ClientConfig { deadline, ..config(&[&server]) }).await.unwrap();
    let (result, incoming) = tokio::join!(enqueue(&client, 1), server.next());
    let error = result.unwrap_err();
    assert_eq!((error.code, error.code.outcome()), (ErrorCode::DeadlineExceeded, Outcome::Unknown));
    assert!((1..=300).contains(&incoming.header.remaining_ms), "{:?}", incoming.header);
    // An answer that comes too late disturbs nobody.
    incoming.answer(enqueued(1));
    let (result, ()) = tokio::join!(enqueue(&client, 2), async { server.next().await.answer(enqueued(2)) });
    assert_eq!(result.unwrap().id, 2);
}

#[tokio::test]
async fn an_unreachable_node_is_not_an_unknown_outcome() {
    let mut server = Server::start(Manner::default()).await;
    let deadline = Duration::from_millis(300);
    let client = Client::connect(ClientConfig { deadline, ..config(&[&server]) }).await.unwrap();
    assert!(server.is_idle());
    server.stop().await;
    let error = enqueue(&client, 1).await.unwrap_err();
    // The connection may turn out closed only when the request is on its way.
    assert!(matches!(error.code, ErrorCode::Unreachable | ErrorCode::OutcomeUnknown), "{error}");
    let error = enqueue(&client, 1).await.unwrap_err();
    assert_eq!((error.code, error.code.outcome()), (ErrorCode::Unreachable, Outcome::NotDone), "{error}");
}

#[tokio::test]
async fn a_node_that_comes_back_is_found_again() {
    let server = Server::start(Manner::default()).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let address = server.stop().await;
    let late = client.clone();
    let call = tokio::spawn(async move { enqueue(&late, 1).await });
    let mut server = Server::start_at(&address, Manner::default()).await;
    server.next().await.answer(enqueued(9));
    assert_eq!(call.await.unwrap().unwrap().id, 9);
    assert_eq!(server.hellos()[0].cluster_id, super::server::CLUSTER_ID, "a node of another cluster is to refuse");
}

#[tokio::test]
async fn a_silent_node_is_taken_for_lost() {
    let mut server = Server::start(Manner { silent: true, ..Manner::default() }).await;
    let client = Client::connect(ClientConfig { session: false, ..config(&[&server]) }).await.unwrap();
    let (result, _incoming) = tokio::join!(enqueue(&client, 1), server.next());
    let error = result.unwrap_err();
    assert_eq!(error.code, ErrorCode::OutcomeUnknown);
    assert!(error.message.contains("silent"), "{error}");
}

#[tokio::test]
async fn a_slow_node_that_answers_pings_is_not_lost() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(ClientConfig { session: false, ..config(&[&server]) }).await.unwrap();
    let (result, ()) = tokio::join!(enqueue(&client, 1), async {
        let incoming = server.next().await;
        // Longer than a silent node is waited for: slowness is what is tested, so time has to pass.
        tokio::time::sleep(Duration::from_millis(2_000)).await;
        incoming.answer(enqueued(3));
    });
    assert_eq!(result.unwrap().id, 3);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_slow_link_is_not_a_silent_node() {
    let mut server = Server::start(Manner { silent: true, ..Manner::default() }).await;
    let client = Client::connect(ClientConfig { session: false, ..config(&[&server]) }).await.unwrap();
    let (result, ()) = tokio::join!(enqueue(&client, 1), async {
        let incoming = server.next().await;
        let answer = Frame::response(incoming.id(), &enqueued(3)).to_bytes().unwrap();
        for piece in answer.chunks(3) {
            // The link is slow: a piece each 700 ms, five of them, no pong.
            tokio::time::sleep(Duration::from_millis(700)).await;
            incoming.send_bytes(Bytes::copy_from_slice(piece));
        }
    });
    assert_eq!(result.unwrap().id, 3);
}

#[tokio::test]
async fn pings_are_answered_and_strange_frames_skipped() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let (result, ()) = tokio::join!(enqueue(&client, 1), async {
        let incoming = server.next().await;
        incoming.send(Frame::ping(41));
        incoming.send(Frame { kind: Kind::Push, id: 0, command: 0x7777, body: Bytes::from_static(b"\xc0") });
        incoming.send(Frame::response(incoming.id() + 1000, &enqueued(1)));
        incoming.answer(enqueued(6));
    });
    assert_eq!((result.unwrap().id, server.pong().await), (6, 41));
}

#[tokio::test]
async fn an_unreadable_answer_is_no_refusal() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    for answer in [Frame::response(0, &Response::Ack(Acked { id: 1 })), Frame::error(0, 0x0201, &bad_error())] {
        let (result, ()) = tokio::join!(enqueue(&client, 1), async {
            let incoming = server.next().await;
            let body = if answer.kind == Kind::Error { Bytes::from_static(b"\xc0") } else { answer.body.clone() };
            incoming.send(Frame { id: incoming.id(), body, ..answer.clone() });
        });
        assert_eq!(result.unwrap_err().code.outcome(), Outcome::Unknown);
    }
}

fn bad_error() -> Error {
    Error::new(ErrorCode::Overloaded, "")
}

#[tokio::test]
async fn a_refused_hello_ends_the_attempt_to_connect() {
    let refusal = Error::new(ErrorCode::Unauthenticated, "who are you?");
    let server = Server::start(Manner { refusal: Some(refusal.clone()), ..Manner::default() }).await;
    let error = Client::connect(config(&[&server])).await.unwrap_err();
    assert_eq!((error.code, server.hellos().len()), (ErrorCode::Unauthenticated, 1));
    assert!(error.message.contains("who are you?"), "{error}");
}

#[tokio::test]
async fn something_else_on_the_port_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let error = Client::connect(ClientConfig::new([address.as_str()])).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BadFrame);
    assert!(error.message.contains(&address) && error.message.contains("HTTP"), "{error}");
}

#[tokio::test]
async fn configurations_have_their_ranges() {
    let good = || ClientConfig::new(["127.0.0.1:1"]);
    for bad in [
        ClientConfig { endpoints: vec![], ..good() },
        ClientConfig { endpoints: vec!["127.0.0.1:1".into(); 65], ..good() },
        ClientConfig { name: String::new(), ..good() },
        ClientConfig { name: "n".repeat(513), ..good() },
        ClientConfig { credentials: vec![0; 4097].into(), ..good() },
        ClientConfig { deadline: Duration::ZERO, ..good() },
        ClientConfig { deadline: Duration::from_secs(61), ..good() },
    ] {
        assert_eq!(Client::connect(bad).await.unwrap_err().code, ErrorCode::InvalidArgument);
    }
    let secret = ClientConfig { credentials: "hunter2".into(), ..good() };
    assert!(!format!("{secret:?}").contains("hunter2"));
}

#[tokio::test]
async fn what_is_out_of_range_is_not_sent() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let error = client.enqueue("q", vec![0; 1024 * 1024 + 1]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge);
    assert_eq!(client.get("").await.unwrap_err().code, ErrorCode::InvalidArgument);
    assert!(server.is_idle());
}
