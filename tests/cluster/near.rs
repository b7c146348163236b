//! Copies in clients' processes: read without the node, never stale, never after their lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use trine_protocol::cache::{CopyGot, GetCopy, LineState};
use trine_protocol::client::near::NearCache;
use trine_protocol::command::RequestHeader;
use trine_protocol::frame::{Frame, FrameCodec, Kind};
use trine_protocol::handshake::Hello;
use trine_protocol::limits::COPY_LEASE_MS;
use trine_protocol::{ErrorCode, Push, Request, Response, codec};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio_util::codec::Decoder;

use crate::cluster::{Cluster, NODES};
use crate::wait;

const BYTES_MAX: usize = 1024 * 1024;
const LEASE: Duration = Duration::from_millis(COPY_LEASE_MS as u64);

async fn near(cluster: &Cluster, node: usize) -> NearCache {
    cluster.place.patient_client(&[node]).await.near_cache(BYTES_MAX)
}

async fn number(near: &NearCache, key: &str) -> u64 {
    let got = near.get(key).await.expect("a read");
    String::from_utf8_lossy(&got.value.expect("a value")).parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_read_while_its_node_stands_still_and_not_after_its_lease() {
    let mut cluster = Cluster::start().await;
    cluster.place.client(1).await.put("key", "value").await.expect("a write");
    let near = near(&cluster, 2).await;
    near.get("key").await.expect("a read");
    near.get("key").await.expect("a read");
    assert_eq!(near.stats().hits, 1, "{:?}", near.stats());

    cluster.node(2).signal(Signal::STOP);
    let stopped = wait::now();
    let mut hits = 0;
    let lapsed = loop {
        let before = near.stats().hits;
        // A miss waits for a node that does not answer: that is the end.
        let read = tokio::time::timeout(Duration::from_millis(50), near.get("key")).await;
        if near.stats().hits == before {
            break stopped.elapsed();
        }
        assert_eq!(read.expect("a hit waits for nobody").expect("a hit").value.expect("a value"), "value");
        assert!(stopped.elapsed() < LEASE + Duration::from_millis(50), "a hit {:?} after", stopped.elapsed());
        hits += 1;
    };
    println!("{hits} hits until {lapsed:?} after the node stopped");
    assert!(hits > 100, "only {hits} hits: they did not come from this process's memory");
    cluster.node(2).signal(Signal::CONT);
    wait::until("a read after the node is back", Duration::from_secs(10), async || near.get("key").await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_written_before_a_read_of_a_copy_began_is_seen_by_it() {
    let cluster = Cluster::start().await;
    let (keys, written) = (4_usize, Arc::new([const { AtomicU64::new(0) }; 4]));
    let writer = cluster.place.client(3).await;
    for key in 0..keys {
        writer.put(format!("key{key}"), "0").await.expect("a write");
    }
    let ended = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    let mut nears = Vec::new();
    for node in 1..=NODES {
        let near = near(&cluster, node).await;
        nears.push(near.clone());
        for key in 0..keys {
            let (near, written, ended) = (near.clone(), Arc::clone(&written), Arc::clone(&ended));
            readers.spawn(async move {
                let (name, mut reads) = (format!("key{key}"), 0_u64);
                while !ended.load(Ordering::SeqCst) {
                    let floor = written[key].load(Ordering::SeqCst);
                    let read = number(&near, &name).await;
                    assert!(read >= floor, "{name} read as {read}, after {floor} was acknowledged");
                    reads += 1;
                    tokio::task::yield_now().await;
                }
                reads
            });
        }
    }
    let started = wait::now();
    let mut writes = 0_u64;
    while started.elapsed() < Duration::from_secs(3) {
        writes += 1;
        let key = writes as usize % keys;
        writer.put(format!("key{key}"), writes.to_string()).await.expect("a write");
        written[key].store(writes, Ordering::SeqCst);
        // Time for reads of copies: what is written without a pause is never a copy anywhere.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    ended.store(true, Ordering::SeqCst);
    let reads: u64 = readers.join_all().await.into_iter().sum();
    let hits: u64 = nears.iter().map(|near| near.stats().hits).sum();
    let notices: u64 = nears.iter().map(|near| near.stats().notices).sum();
    println!("{writes} writes, {reads} reads, {hits} of them of copies, {notices} notices");
    assert!(hits * 2 > reads, "{hits} of {reads} reads were of copies");
    assert!(notices > writes / 2, "{writes} writes took copies with {notices} notices");
}

/// A client that speaks for itself, and does only what the test wants.
struct Silent {
    stream: TcpStream,
    codec: FrameCodec,
    buffer: BytesMut,
}

impl Silent {
    async fn connect(cluster: &Cluster, node: usize) -> Self {
        let stream = TcpStream::connect(cluster.place.address(4101, node)).await.expect("a connection");
        let mut silent = Self { stream, codec: FrameCodec::new(), buffer: BytesMut::new() };
        let hello = Hello::client("silent", Bytes::new()).to_frame();
        silent.stream.write_all(&hello.to_bytes().expect("a hello")).await.expect("a hello");
        assert_eq!(silent.next().await.kind, Kind::Welcome);
        silent
    }

    async fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.codec.decode(&mut self.buffer).expect("a frame") {
                return frame;
            }
            assert_ne!(self.stream.read_buf(&mut self.buffer).await.expect("bytes"), 0, "the node closed it");
        }
    }

    async fn ask(&mut self, request: impl Into<Request>) -> Result<Response, trine_protocol::Error> {
        let frame = Frame::request(1, &RequestHeader::default(), &request.into());
        self.stream.write_all(&frame.to_bytes().expect("a request")).await.expect("a request");
        loop {
            let frame = self.next().await;
            match frame.kind {
                Kind::Response => return codec::decode_response(frame.command, &frame.body),
                Kind::Error => return Err(frame.decode_error().expect("an error")),
                _ => {}
            }
        }
    }

    async fn copy(&mut self, key: &str, copies: u64) -> Result<CopyGot, trine_protocol::Error> {
        match self.ask(GetCopy { key: key.into(), copies }).await? {
            Response::GetCopy(copy) => Ok(copy),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_answers_no_notice_holds_a_write_up_for_one_lease() {
    let cluster = Cluster::start().await;
    let writer = cluster.place.client(1).await;
    writer.put("key", "old").await.expect("a write");
    // Once where another node writes, and once where the client's own does.
    for (round, node) in [2, 1].into_iter().enumerate() {
        let mut silent = Silent::connect(&cluster, node).await;
        let copy = silent.copy("key", 7).await.expect("a read");
        let lease = copy.lease.unwrap_or_else(|| panic!("no lease in {copy:?}"));
        assert!(lease.lease_ms > 0 && lease.lease_ms < COPY_LEASE_MS, "{lease:?}");
        assert_ne!(copy.got.state, LineState::I);
        let asked = wait::now();
        writer.put("key", format!("new{round}")).await.expect("a write");
        let waited = asked.elapsed();
        println!("the write took {waited:?}");
        assert!(waited > LEASE / 2, "the write did not wait for the copy: {waited:?}");
        assert!(waited < LEASE * 3, "the write waited for more than the copy's lease: {waited:?}");
        let push = silent.next().await;
        assert_eq!((push.kind, push.id), (Kind::Push, 0));
        let Ok(Some(Push::CopiesGone(gone))) = Push::decode(push.command, &push.body) else { panic!("{push:?}") };
        assert_eq!((gone.group, gone.keys), (lease.group, vec!["key".to_owned()]));
        let asked = wait::now();
        writer.put("key", "once more").await.expect("a write");
        assert!(asked.elapsed() < LEASE / 2, "there is no copy any more: {:?}", asked.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_for_copies_is_one_connection_s() {
    let cluster = Cluster::start().await;
    let (mut first, mut second) = (Silent::connect(&cluster, 1).await, Silent::connect(&cluster, 1).await);
    first.copy("key", 7).await.expect("a read");
    for (another, copies) in [(false, 8), (true, 7), (true, 0)] {
        let silent = if another { &mut second } else { &mut first };
        let refused = silent.copy("key", copies).await.expect_err("a number that is not its own");
        assert_eq!(refused.code, ErrorCode::InvalidArgument, "{refused}");
    }
    second.copy("key", 8).await.expect("a number of its own");
    drop(first);
    let mut third = Silent::connect(&cluster, 1).await;
    let again = wait::until("the number to be free", Duration::from_secs(5), async || third.copy("key", 7).await.ok());
    assert_eq!(again.await.got.value, None);
}
