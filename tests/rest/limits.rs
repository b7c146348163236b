//! Time limits, the limit of connections, and the end: each is seen to fire.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use trine::rest::RestOptions;
use trine_protocol::limits::VALUE_BYTES_MAX;

use super::http::{Answer, Service};

/// Longer than any limit that a test sets, far shorter than any default.
const SOON: Duration = Duration::from_secs(4);

/// Reads until the other side closes, which has to be soon.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is a way of closing, too.
    drop(timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("the connection is still open"));
    bytes
}

#[tokio::test]
async fn a_head_that_drips_in_is_cut_off() {
    let service = Service::start(RestOptions { head_ms_max: 400, ..Default::default() }).await;
    let (mut reading, mut writing) = service.connect().await.into_split();
    let dripping = tokio::spawn(async move {
        writing.write_all(b"GET /dequeue HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
        // Each line comes well inside of the limit; the head as a whole never ends.
        while writing.write_all(b"x-slow: loris\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut bytes = Vec::new();
    drop(timeout(SOON, reading.read_to_end(&mut bytes)).await.expect("a slow head is waited for without end"));
    assert!(bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes));
    timeout(SOON, dripping).await.expect("the socket still takes lines").unwrap();
    assert_eq!(service.node.last_asked(), None);
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_nothing_more_is_closed() {
    let service = Service::start(RestOptions { head_ms_max: 300, ..Default::default() }).await;
    assert!(closed(&mut service.connect().await).await.is_empty());
    let mut stream = service.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let answer = closed(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "kept alive, answered, then closed");
}

#[tokio::test]
async fn a_kept_connection_serves_request_after_request() {
    let service = Service::start(RestOptions::default()).await;
    let mut stream = service.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed between requests");
        }
    }
}

#[tokio::test]
async fn a_body_that_drips_in_is_told_so() {
    let service = Service::start(RestOptions { body_ms_max: 300, ..Default::default() }).await;
    let mut stream = service.connect().await;
    let head = "POST /enqueue HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"mess";
    stream.write_all(head.as_bytes()).await.unwrap();
    timeout(SOON, Answer::read(&mut stream)).await.expect("a slow body is waited for").detail(408);
    assert_eq!(service.node.last_asked(), None);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let service = Service::start(RestOptions { write_ms_max: 300, ..Default::default() }).await;
    let message = "x".repeat(VALUE_BYTES_MAX - 2);
    service.post("/cache/write", &json!({ "key": "k", "data": message }).to_string()).await;
    let mut stream = service.connect().await;
    // More than the buffers of two sockets hold, asked for without a look at any of it.
    let request = "GET /cache/read?key=k HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(40);
    stream.write_all(request.as_bytes()).await.unwrap();
    // Reading would help it along, so what tells is that a write fails once the other side is gone.
    let gone = async {
        while stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, gone).await.expect("an answer that nobody takes is kept without end");
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_503_at_the_deadline() {
    let service = Service::start(RestOptions { deadline_ms: 100, ..Default::default() }).await;
    service.node.change(|world| world.silent = true);
    let answer = timeout(SOON, service.get("/dequeue")).await.expect("a request hangs");
    answer.detail(503);
    assert_eq!((answer.json()["outcome"].as_str(), answer.header("retry-after")), (Some("unknown"), Some("1")));
    assert_eq!(service.get("/healthz").await.status, 200, "what asks no group is served");
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_a_free_place_is_used_again() {
    let service = Service::start(RestOptions { connections_max: 2, ..Default::default() }).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = service.connect().await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
        kept.push(stream);
    }
    let mut third = service.connect().await;
    let answer = timeout(SOON, Answer::read(&mut third)).await.expect("no refusal");
    answer.detail(503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    drop(kept);
    let served = async {
        loop {
            let mut stream = service.connect().await;
            let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            if Answer::read(&mut stream).await.status == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, served).await.expect("places do not become free");
}

#[tokio::test]
async fn at_shutdown_idle_connections_close_and_requests_under_way_are_answered() {
    let service = Service::start(RestOptions { deadline_ms: 300, ..Default::default() }).await;
    let mut idle = service.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert_ne!(idle.read(&mut [0; 1024]).await.unwrap(), 0);
    service.node.change(|world| world.silent = true);
    let mut busy = service.connect().await;
    busy.write_all(b"GET /dequeue HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    while service.node.last_asked().is_none() {
        tokio::task::yield_now().await;
    }
    service.shutdown.cancel();
    assert!(closed(&mut idle).await.is_empty());
    timeout(SOON, Answer::read(&mut busy)).await.expect("no answer").detail(503);
    timeout(SOON, service.task).await.expect("the service does not end").unwrap();
    assert!(TcpStream::connect(service.addresses[0]).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn what_is_no_http_is_turned_away() {
    let service = Service::start(RestOptions::default()).await;
    let head_too_long = [&b"GET / HTTP/1.1\r\nx: "[..], &[b'x'; 100_000]].concat();
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00"[..], b"hello\r\n\r\n", &head_too_long]
    {
        let mut stream = service.connect().await;
        // The other side may close before it has read everything.
        drop(stream.write_all(bytes).await);
        let answer = closed(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(service.get("/healthz").await.status, 200);
}
