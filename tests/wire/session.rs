//! A client's connection after its handshake: requests, answers, limits, and the end.

use std::collections::BTreeSet;
use std::time::Duration;

use trine_protocol::cache::Get;
use trine_protocol::command::RequestHeader;
use trine_protocol::frame::{Frame, Kind};
use trine_protocol::limits::IN_FLIGHT_MAX;
use trine_protocol::queue::Enqueue;
use trine_protocol::{Command, ErrorCode, Request, Response};

use crate::bench::{Bench, Client, PATIENCE};

fn get(key: impl Into<String>) -> Get {
    Get { key: key.into() }
}

fn enqueue(body: String) -> Enqueue {
    Enqueue { queue: "q".into(), body: body.into(), ..Enqueue::default() }
}

/// The next answer's id, and its error if it is one.
async fn answer(client: &mut Client) -> (u64, Option<ErrorCode>) {
    let frame = client.receive().await.expect("an answer");
    match frame.kind {
        Kind::Response => (frame.id, None),
        Kind::Error => (frame.id, Some(frame.decode_error().unwrap().code)),
        other => panic!("a {other:?} is no answer"),
    }
}

#[tokio::test]
async fn answers_come_when_they_are_ready_and_name_their_request() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    for id in [30, 10, 20] {
        client.put(id, get(format!("hold{id}")));
    }
    client.put(40, get("now3"));
    client.flush().await;
    let frame = client.receive().await.unwrap();
    assert_eq!((frame.id, frame.command), (40, Command::Get.code()), "a hit overtakes what waits");
    let Response::Get(got) = Response::decode(Command::Get, &frame.body).unwrap() else { panic!() };
    assert_eq!(got.value.as_deref(), Some([7, 7, 7].as_slice()));
    for id in [20, 30, 10] {
        bench.gateway.release(&format!("hold{id}"));
        assert_eq!(answer(&mut client).await, (id, None));
    }
}

#[tokio::test]
async fn what_one_connection_enqueues_arrives_in_its_order_however_it_is_answered() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let names: Vec<String> = (0..1_000).map(|number| format!("hold{number}")).collect();
    for (id, name) in (0..).zip(&names) {
        client.put(id, enqueue(name.clone()));
    }
    client.flush().await;
    assert_eq!(bench.gateway.seen(names.len()).await, names);
    for name in names.iter().rev() {
        bench.gateway.release(name);
    }
    let mut answered = BTreeSet::new();
    for _ in &names {
        let (id, error) = answer(&mut client).await;
        assert!(error.is_none() && answered.insert(id), "{id} has one answer: {error:?}");
    }
    assert_eq!(answered, (0..1_000).collect());
}

#[tokio::test]
async fn one_request_too_many_is_refused_and_an_answer_makes_room() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    for id in 0..IN_FLIGHT_MAX as u64 {
        client.put(id, get(format!("hold{id}")));
    }
    client.put(9_001, get("now1"));
    client.put(9_002, get("hold-too-many"));
    client.flush().await;
    assert_eq!(answer(&mut client).await, (9_001, Some(ErrorCode::TooManyInFlight)));
    assert_eq!(answer(&mut client).await, (9_002, Some(ErrorCode::TooManyInFlight)));
    bench.gateway.release("hold17");
    assert_eq!(answer(&mut client).await, (17, None));
    client.put(9_003, get("now1"));
    client.flush().await;
    assert_eq!(answer(&mut client).await, (9_003, None));
    assert_eq!(bench.gateway.count(), IN_FLIGHT_MAX + 1, "what was refused never reached the gateway");
}

#[tokio::test]
async fn a_request_that_cannot_be_read_costs_itself_only() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let body = Request::from(get("now1")).encode_body(&RequestHeader::default());
    let nested: Vec<u8> = std::iter::repeat_n(0x91, 10_000).chain([0xc0]).collect();
    let cases: Vec<(u16, Vec<u8>, ErrorCode)> = vec![
        (0x7777, body.to_vec(), ErrorCode::UnknownCommand),
        (0, Vec::new(), ErrorCode::UnknownCommand),
        (Command::Get.code(), Vec::new(), ErrorCode::MalformedBody),
        (Command::Get.code(), b"\xc1\xc1".to_vec(), ErrorCode::MalformedBody),
        (Command::Get.code(), nested, ErrorCode::MalformedBody),
        (Command::Get.code(), [&body[..], &[0]].concat(), ErrorCode::MalformedBody),
        // An array that claims 4 billion elements.
        (Command::Get.code(), vec![0x92, 0xdd, 0xff, 0xff, 0xff, 0xff], ErrorCode::MalformedBody),
        // A key that claims 4 GiB.
        (Command::Get.code(), vec![0x92, 0x90, 0x91, 0xdb, 0xff, 0xff, 0xff, 0xff], ErrorCode::MalformedBody),
        (Command::Enqueue.code(), body.to_vec(), ErrorCode::MalformedBody),
    ];
    for (id, (command, body, code)) in (1..).zip(cases) {
        client.send(&Frame { kind: Kind::Request, id, command, body: body.into() }).await;
        assert_eq!(answer(&mut client).await, (id, Some(code)), "case {id}");
    }
    client.put(99, get("now1"));
    client.flush().await;
    assert_eq!(answer(&mut client).await, (99, None), "the connection still serves");
    assert_eq!(bench.gateway.count(), 1);
}

#[tokio::test]
async fn a_frame_that_is_not_a_clients_to_send_ends_the_connection() {
    let bench = Bench::start().await;
    for kind in [Kind::Hello, Kind::Welcome, Kind::Response, Kind::Error, Kind::Push, Kind::Peer] {
        let mut client = bench.client().await;
        client.send(&Frame::new(kind, vec![0x90].into())).await;
        let error = client.last_words().await;
        assert_eq!(error.code, ErrorCode::BadFrame, "{kind:?}");
        assert!(error.message.contains(kind.name()), "{error}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_the_connection_after_what_was_whole() {
    for (bytes, code) in [
        (vec![0xff, 0xff, 0xff, 0xff], ErrorCode::FrameTooLarge),
        (vec![0, 0, 0, 11, 77], ErrorCode::BadFrame),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), ErrorCode::FrameTooLarge),
    ] {
        let bench = Bench::start().await;
        let mut client = bench.connect().await;
        let hello = trine_protocol::handshake::Hello::client("test", Default::default());
        let request = Frame::request(5, &RequestHeader::default(), &get("now1").into());
        for frame in [hello.to_frame(), request] {
            client.send_raw(&frame.to_bytes().unwrap()).await;
        }
        client.send_raw(&bytes).await;
        assert_eq!(client.receive().await.unwrap().kind, Kind::Welcome);
        assert_eq!(answer(&mut client).await, (5, None));
        assert_eq!(client.last_words().await.code, code);
    }
}

#[tokio::test]
async fn a_ping_is_answered_between_requests() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.put(1, get("hold"));
    client.send(&Frame::ping(77)).await;
    assert_eq!(client.receive().await, Some(Frame::pong(77)));
    client.send(&Frame::pong(3)).await;
    bench.gateway.release("hold");
    assert_eq!(answer(&mut client).await, (1, None));
}

#[tokio::test]
async fn who_takes_no_answers_gets_to_ask_no_more() {
    const ASKED: u64 = 64;
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    for id in 0..ASKED {
        client.put(id, get("now1000000"));
    }
    client.flush().await;
    // The node's buffer and the two sockets' take a few answers, and that is it. There is no event for "nothing more
    // happens": it is so when nothing has happened for a while.
    let mut count = bench.gateway.seen(1).await.len();
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if std::mem::replace(&mut count, bench.gateway.count()) == bench.gateway.count() {
            break;
        }
    }
    assert!(count < ASKED as usize / 2, "{count} of {ASKED} requests were taken from a client that reads nothing");
    let ids: BTreeSet<u64> = {
        let mut ids = BTreeSet::new();
        for _ in 0..ASKED {
            ids.insert(answer(&mut client).await.0);
        }
        ids
    };
    assert_eq!(ids, (0..ASKED).collect(), "once it reads, it gets them all");
}

#[tokio::test]
async fn a_closing_node_answers_what_is_in_flight_and_says_goodbye() {
    let bench = Bench::start().await;
    let (mut busy, mut idle) = (bench.client().await, bench.client().await);
    busy.put(1, get("hold"));
    busy.flush().await;
    bench.gateway.seen(1).await;
    bench.close.cancel();
    assert_eq!(idle.last_words().await.code, ErrorCode::ShuttingDown);
    bench.gateway.release("hold");
    assert_eq!(answer(&mut busy).await, (1, None));
    assert_eq!(busy.last_words().await.code, ErrorCode::ShuttingDown);
}

#[tokio::test]
async fn a_client_that_goes_takes_its_requests_along() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.put(1, get("hold"));
    client.flush().await;
    bench.gateway.seen(1).await;
    client.send(&Frame::new(Kind::Goodbye, Default::default())).await;
    bench.gateway.release("hold");
    assert_eq!(answer(&mut client).await, (1, None));
    let end = tokio::time::timeout(PATIENCE, client.receive()).await.unwrap();
    assert_eq!(end, None, "the node closes after the last answer");
}
