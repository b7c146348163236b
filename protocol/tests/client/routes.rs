//! Which node a request goes to.

use std::time::Duration;

use trine_protocol::cache::{Got, LineState, Source, Version};
use trine_protocol::client::{Client, ClientConfig};
use trine_protocol::queue::Enqueued;
use trine_protocol::{Error, ErrorCode, Response};

use super::server::{Manner, Server, config};

fn enqueued(id: u64) -> Response {
    Response::Enqueue(Enqueued { id, ..Enqueued::default() })
}

fn got() -> Response {
    let version = Version::default();
    Response::Get(Got {
        value: None,
        version,
        state: LineState::S,
        source: Source::MainMemory,
        content_type: String::new(),
    })
}

#[tokio::test]
async fn a_hint_is_followed_and_remembered() {
    let (mut first, mut leader) = (Server::start(Manner::default()).await, Server::start(Manner::default()).await);
    // The leader is in no configuration: only the hint names it.
    let client = Client::connect(config(&[&first])).await.unwrap();
    let not_leader = Error::new(ErrorCode::NotLeader, "ask another").with_hint(&leader.address);
    let (result, ()) = tokio::join!(client.enqueue("q", "1"), async {
        first.next().await.error(not_leader);
        leader.next().await.answer(enqueued(1));
    });
    assert_eq!(result.unwrap().id, 1);
    let (result, ()) = tokio::join!(client.enqueue("q", "2"), async { leader.next().await.answer(enqueued(2)) });
    assert_eq!(result.unwrap().id, 2);
    assert!(first.is_idle());
}

#[tokio::test]
async fn the_status_tells_who_leads() {
    let mut leader = Server::start(Manner::default()).await;
    let manner = Manner { leader: Some(leader.address.clone()), ..Manner::default() };
    let mut first = Server::start(manner).await;
    let client = Client::connect(config(&[&first])).await.unwrap();
    let (result, ()) = tokio::join!(client.enqueue("q", "1"), async { leader.next().await.answer(enqueued(1)) });
    assert_eq!(result.unwrap().id, 1);
    // A cache request goes to the chosen node all the same.
    let (result, ()) = tokio::join!(client.get("k"), async { first.next().await.answer(got()) });
    result.unwrap();
    assert!(leader.is_idle());
}

#[tokio::test]
async fn a_leader_that_cannot_be_reached_is_gone_round() {
    let gone = Server::start(Manner::default()).await.stop().await;
    let mut first = Server::start(Manner { leader: Some(gone), ..Manner::default() }).await;
    let client = Client::connect(config(&[&first])).await.unwrap();
    for id in 1..3 {
        let (result, ()) = tokio::join!(client.enqueue("q", "1"), async { first.next().await.answer(enqueued(id)) });
        assert_eq!(result.unwrap().id, id);
    }
}

#[tokio::test]
async fn another_node_takes_over_queues_and_locks() {
    let (first, mut second) = (Server::start(Manner::default()).await, Server::start(Manner::default()).await);
    let client = Client::connect(config(&[&first, &second])).await.unwrap();
    first.stop().await;
    for id in 1..3 {
        let (result, ()) = tokio::join!(client.enqueue("q", "1"), async { second.next().await.answer(enqueued(id)) });
        assert_eq!(result.unwrap().id, id);
    }
}

#[tokio::test]
async fn a_first_endpoint_that_is_down_does_not_keep_from_connecting() {
    let gone = Server::start(Manner::default()).await.stop().await;
    let mut second = Server::start(Manner::default()).await;
    let endpoints = vec![gone, second.address.clone()];
    let client = Client::connect(ClientConfig { endpoints, ..config(&[&second]) }).await.unwrap();
    let (result, ()) = tokio::join!(client.enqueue("q", "1"), async { second.next().await.answer(enqueued(1)) });
    assert_eq!(result.unwrap().id, 1);
}

#[tokio::test]
async fn a_cache_request_never_goes_silently_to_another_node() {
    let (first, mut second) = (Server::start(Manner::default()).await, Server::start(Manner::default()).await);
    let deadline = Duration::from_millis(300);
    let client = Client::connect(ClientConfig { deadline, ..config(&[&first, &second]) }).await.unwrap();
    first.stop().await;
    for _ in 0..2 {
        let error = client.get("k").await.unwrap_err();
        assert!(matches!(error.code, ErrorCode::Unreachable | ErrorCode::OutcomeUnknown), "{error}");
    }
    assert!(second.is_idle());
    assert_eq!(second.connections(), 0);
    // Only by its name.
    let there = client.at(&second.address).unwrap();
    assert_eq!(there.cache_endpoint(), second.address);
    let (result, ()) = tokio::join!(there.get("k"), async { second.next().await.answer(got()) });
    result.unwrap();
}

#[tokio::test]
async fn a_cache_request_goes_on_where_any_cache_will_do() {
    let (first, mut second) = (Server::start(Manner::default()).await, Server::start(Manner::default()).await);
    let client = Client::connect(ClientConfig { cache_any: true, ..config(&[&first, &second]) }).await.unwrap();
    first.stop().await;
    let (result, ()) = tokio::join!(client.get("k"), async { second.next().await.answer(got()) });
    result.unwrap();
}

#[tokio::test]
async fn nodes_that_each_name_the_other_do_not_spin() {
    let (mut first, mut second) = (Server::start(Manner::default()).await, Server::start(Manner::default()).await);
    let deadline = Duration::from_millis(400);
    let client =
        Client::connect(ClientConfig { deadline, session: false, ..config(&[&first, &second]) }).await.unwrap();
    let hint = |address: &str| Error::new(ErrorCode::NotLeader, "not I").with_hint(address);
    let (to_first, to_second) = (hint(&first.address), hint(&second.address));
    let answering = async {
        let mut answers = 0;
        loop {
            tokio::select! {
                incoming = first.next() => incoming.error(to_second.clone()),
                incoming = second.next() => incoming.error(to_first.clone()),
            }
            answers += 1;
            assert!(answers < 100, "the client spins");
        }
    };
    let error = tokio::select! {
        result = client.enqueue("q", "1") => result.unwrap_err(),
        () = answering => unreachable!("it loops"),
    };
    assert_eq!(error.code, ErrorCode::NotLeader);
}
