//! The first bytes of a connection: what is let in, and what everybody else is told.

use std::time::{Duration, Instant};

use bytes::Bytes;
use trine_protocol::ErrorCode;
use trine_protocol::cache::Get;
use trine_protocol::frame::{Frame, Kind};
use trine_protocol::handshake::{Hello, VERSION_MAX, VERSION_MIN};
use trine_protocol::limits::{HANDSHAKE_BYTES_MAX, HANDSHAKE_MS_MAX};

use crate::bench::{Bench, CLUSTER, raw_frame};

fn hello() -> Hello {
    Hello::client("test", Bytes::new())
}

fn nested(depth: usize) -> Vec<u8> {
    std::iter::repeat_n(0x91, depth).chain([0xc0]).collect()
}

#[tokio::test]
async fn whatever_is_no_handshake_gets_one_error_and_is_closed() {
    let bench = Bench::start().await;
    let kind = |kind: Kind| kind as u8;
    let cases: Vec<(&str, Vec<u8>, ErrorCode, &str)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: trine\r\n\r\n".to_vec(), ErrorCode::BadFrame, "HTTP"),
        ("TLS", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01], ErrorCode::BadFrame, "TLS"),
        ("a claim of 4 GiB", vec![0xff; 4], ErrorCode::FrameTooLarge, "4294967295"),
        ("a length of 3", vec![0, 0, 0, 3, 1, 0, 0], ErrorCode::BadFrame, "less than"),
        ("an unknown kind", raw_frame(99, 0, &[]), ErrorCode::BadFrame, "99"),
        ("a request first", raw_frame(kind(Kind::Request), 0x0401, &[]), ErrorCode::BadFrame, "handshake"),
        ("a peer frame first", raw_frame(kind(Kind::Peer), 0, &[]), ErrorCode::BadFrame, "handshake"),
        ("a welcome", raw_frame(kind(Kind::Welcome), 0, &[]), ErrorCode::BadFrame, "Welcome"),
        ("no MessagePack", raw_frame(kind(Kind::Hello), 0, b"\xc1\xc1\xc1"), ErrorCode::MalformedBody, "Hello"),
        ("an empty body", raw_frame(kind(Kind::Hello), 0, &[]), ErrorCode::MalformedBody, "Hello"),
        ("10,000 levels", raw_frame(kind(Kind::Hello), 0, &nested(10_000)), ErrorCode::MalformedBody, "Hello"),
        ("a long hello", raw_frame(kind(Kind::Hello), 0, &[0; HANDSHAKE_BYTES_MAX]), ErrorCode::FrameTooLarge, "limit"),
    ];
    for (what, bytes, code, word) in cases {
        let mut client = bench.connect().await;
        client.send_raw(&bytes).await;
        let error = client.last_words().await;
        assert_eq!(error.code, code, "{what}: {error}");
        assert!(error.message.contains(word), "{what}: {error}");
    }
    bench.client().await;
}

#[tokio::test]
async fn a_hello_that_does_not_fit_the_node_is_told_why() {
    let bench = Bench::start_with("open sesame", 1_000).await;
    let right = Hello::client("test", Bytes::from("open sesame"));
    let cases = [
        (Hello { version_min: VERSION_MAX + 1, version_max: 99, ..right.clone() }, ErrorCode::UnsupportedVersion),
        (Hello { cluster_id: CLUSTER + 1, ..right.clone() }, ErrorCode::WrongCluster),
        (Hello { credentials: Bytes::from("open says me"), ..right.clone() }, ErrorCode::Unauthenticated),
        (hello(), ErrorCode::Unauthenticated),
        (Hello::peer("node2", 2, CLUSTER, Bytes::from("open sesame")), ErrorCode::InvalidArgument),
        (Hello { name: String::new(), ..right.clone() }, ErrorCode::InvalidArgument),
    ];
    for (hello, code) in cases {
        let mut client = bench.connect().await;
        let error = client.greet(&hello).await.unwrap_err();
        assert_eq!(error.code, code, "{hello:?}: {error}");
        assert_eq!(client.receive().await, None, "{hello:?}");
    }
    for right in [right.clone(), Hello { version_min: VERSION_MIN, version_max: 99, cluster_id: CLUSTER, ..right }] {
        let welcome = bench.connect().await.greet(&right).await.unwrap();
        assert_eq!(welcome.version, VERSION_MAX);
    }
}

#[tokio::test]
async fn a_connection_cut_anywhere_leaves_the_node_as_it_was() {
    let bench = Bench::start().await;
    let request = Frame::request(1, &Default::default(), &Get { key: "now0".into() }.into());
    let hello = hello().to_frame().to_bytes().unwrap();
    let whole = [hello.clone(), request.to_bytes().unwrap()].concat();
    for length in 0..whole.len() {
        let mut client = bench.connect().await;
        client.send_raw(&whole[..length]).await;
        client.finish_sending().await;
        let first = client.receive().await.map(|frame| frame.kind);
        let expected = match length {
            0 => None,
            _ if length < hello.len() => Some(Kind::Goodbye),
            _ => Some(Kind::Welcome),
        };
        assert_eq!(first, expected, "cut after {length} bytes");
        assert_eq!(client.receive().await, None, "cut after {length} bytes");
    }
    assert_eq!(bench.gateway.count(), 0, "no request was whole");
    let mut client = bench.connect().await;
    client.send_raw(&whole).await;
    client.finish_sending().await;
    let kinds = [client.receive().await.unwrap().kind, client.receive().await.unwrap().kind];
    assert_eq!(kinds, [Kind::Welcome, Kind::Response], "what was whole is answered although nothing more comes");
    assert_eq!(client.receive().await, None);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "what is tested is how long something takes")]
async fn who_is_slow_with_its_hello_is_not_waited_for() {
    let bench = Bench::start().await;
    let bytes = hello().to_frame().to_bytes().unwrap();
    let mut silent = bench.connect().await;
    let mut dripping = bench.connect().await;
    let started = Instant::now();
    let drip = async {
        for byte in &bytes[..20] {
            dripping.send_raw(&[*byte]).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        dripping.last_words().await
    };
    let wait = async {
        let error = silent.last_words().await;
        (error, started.elapsed())
    };
    let (dripped, (error, took)) = tokio::join!(drip, wait);
    assert_eq!((error.code, dripped.code), (ErrorCode::BadFrame, ErrorCode::BadFrame));
    assert!(error.message.contains("2000 ms") && dripped.message.contains("2000 ms"), "{error}; {dripped}");
    let limit = Duration::from_millis(HANDSHAKE_MS_MAX);
    assert!((limit..limit * 3).contains(&took), "{took:?}");
}

#[tokio::test]
async fn one_connection_too_many_is_turned_away_and_a_closed_one_makes_room() {
    let bench = Bench::start_with("", 2).await;
    let (first, _second) = (bench.client().await, bench.client().await);
    let error = bench.connect().await.last_words().await;
    assert_eq!(error.code, ErrorCode::TooManyConnections);
    assert!(error.retry_after_ms > 0);
    drop(first);
    loop {
        // The node needs a moment to see that the first one is gone.
        match bench.connect().await.greet(&hello()).await {
            Ok(_) => break,
            Err(error) => assert_eq!(error.code, ErrorCode::TooManyConnections),
        }
    }
}
