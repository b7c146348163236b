//! Sessions: what is sent again, under which number, and what is not.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use trine_protocol::client::{Client, ClientConfig};
use trine_protocol::cluster::{Kept, SessionOpened};
use trine_protocol::error::Outcome;
use trine_protocol::frame::Frame;
use trine_protocol::queue::Enqueued;
use trine_protocol::{Command, Error, ErrorCode, Request, Response};

use super::server::{Incoming, Manner, Server, config};

fn enqueued(id: u64) -> Response {
    Response::Enqueue(Enqueued { id, ..Enqueued::default() })
}

/// Session, number and what is acknowledged, as the request says.
fn place(incoming: &Incoming) -> (u64, u64, u64) {
    let header = incoming.header;
    (header.session, header.sequence, header.acked_below)
}

async fn enqueue(client: &Client) -> Result<u64, Error> {
    client.enqueue("q", "body").await.map(|enqueued| enqueued.id)
}

#[tokio::test]
async fn commands_are_numbered_and_reads_are_not() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    for (sequence, acked_below) in [(1, 1), (2, 2), (3, 3)] {
        let (result, ()) = tokio::join!(enqueue(&client), async {
            let incoming = server.next().await;
            assert_eq!(place(&incoming), (100, sequence, acked_below));
            incoming.answer(enqueued(sequence));
        });
        assert_eq!(result.unwrap(), sequence);
    }
    let (_, ()) = tokio::join!(client.put("k", "v"), async {
        let incoming = server.next().await;
        assert_eq!(place(&incoming), (0, 0, 0), "a cache write is local to its node");
        incoming.fail(ErrorCode::InvalidArgument);
    });
    assert_eq!(server.sessions(), 1);
}

#[tokio::test]
async fn what_was_cut_off_is_repeated_under_its_number() {
    let (mut first, mut second) = (Server::start(Manner::default()).await, Server::start(Manner::default()).await);
    let client = Client::connect(config(&[&first, &second])).await.unwrap();
    let (result, ()) = tokio::join!(enqueue(&client), async {
        let once = first.next().await;
        let (number, request) = (place(&once), once.request.clone());
        once.cut();
        let twice = second.next().await;
        assert_eq!((place(&twice), &twice.request), (number, &request));
        twice.fail(ErrorCode::OutcomeUnknown);
        let thrice = tokio::select! { incoming = first.next() => incoming, incoming = second.next() => incoming };
        assert_eq!((place(&thrice), &thrice.request), (number, &request));
        thrice.answer(enqueued(4));
    });
    assert_eq!(result.unwrap(), 4);
    assert_eq!((first.sessions(), second.sessions()), (1, 0), "no second session was opened");
}

#[tokio::test]
async fn an_answer_that_is_still_wanted_is_not_acknowledged() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let slow = tokio::spawn({
        let client = client.clone();
        async move { enqueue(&client).await }
    });
    let oldest = server.next().await;
    assert_eq!(place(&oldest), (100, 1, 1));
    for sequence in [2, 3] {
        let (result, ()) = tokio::join!(enqueue(&client), async {
            let incoming = server.next().await;
            assert_eq!(place(&incoming), (100, sequence, 1));
            incoming.answer(enqueued(sequence));
        });
        result.unwrap();
    }
    oldest.answer(enqueued(1));
    slow.await.unwrap().unwrap();
    let (result, ()) = tokio::join!(enqueue(&client), async {
        let incoming = server.next().await;
        assert_eq!(place(&incoming), (100, 4, 4));
        incoming.answer(enqueued(4));
    });
    result.unwrap();
}

#[tokio::test]
async fn what_was_sent_once_under_an_expired_session_is_sent_in_a_new_one() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let (result, ()) = tokio::join!(enqueue(&client), async {
        let incoming = server.next().await;
        assert_eq!(place(&incoming), (100, 1, 1));
        incoming.fail(ErrorCode::SessionExpired);
        let again = server.next().await;
        assert_eq!(place(&again), (101, 1, 1));
        again.answer(enqueued(8));
    });
    assert_eq!(result.unwrap(), 8);
}

#[tokio::test]
async fn a_refusal_does_not_count_as_sent() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let (result, ()) = tokio::join!(enqueue(&client), async {
        server.next().await.fail(ErrorCode::Overloaded);
        server.next().await.fail(ErrorCode::SessionExpired);
        let again = server.next().await;
        assert_eq!(place(&again), (101, 1, 1));
        again.answer(enqueued(8));
    });
    assert_eq!(result.unwrap(), 8);
}

#[tokio::test]
async fn what_was_repeated_under_an_expired_session_is_of_unknown_outcome() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let (result, ()) = tokio::join!(enqueue(&client), async {
        server.next().await.cut();
        server.next().await.fail(ErrorCode::SessionExpired);
    });
    let error = result.unwrap_err();
    assert_eq!((error.code, error.code.outcome()), (ErrorCode::SessionExpired, Outcome::Unknown));
    assert!(server.is_idle());
}

#[tokio::test]
async fn an_attempt_that_was_not_sent_does_not_hide_one_that_was() {
    let mut server = Server::start(Manner::default()).await;
    let deadline = Duration::from_millis(500);
    let client = Client::connect(ClientConfig { deadline, ..config(&[&server]) }).await.unwrap();
    let call = tokio::spawn(async move { enqueue(&client).await });
    let _half_way = server.next().await;
    server.stop().await;
    // All further attempts find nobody; the first one may have been executed.
    assert_eq!(call.await.unwrap().unwrap_err().code, ErrorCode::OutcomeUnknown);
}

#[tokio::test]
async fn a_session_is_kept_alive_and_opened_anew_when_it_has_ended() {
    let mut server = Server::start(Manner { session_timeout_ms: None, ..Manner::default() }).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let open = |incoming: Incoming, session| {
        assert_eq!(incoming.request.command(), Command::OpenSession);
        incoming.answer(Response::OpenSession(SessionOpened { session, timeout_ms: 150 }));
    };
    let (result, ()) = tokio::join!(enqueue(&client), async {
        open(server.next().await, 7);
        server.next().await.answer(enqueued(1));
    });
    result.unwrap();
    for sequence in 2..5 {
        let kept = server.next().await;
        assert_eq!((kept.request.command(), place(&kept)), (Command::KeepAlive, (7, sequence, sequence)));
        kept.answer(Response::KeepAlive(Kept {}));
    }
    let ended = server.next().await;
    ended.send(Frame::error(ended.id(), Command::KeepAlive.code(), &Error::new(ErrorCode::SessionExpired, "")));
    // Behind the pong the client knows: the next command opens a new session before it is sent.
    ended.send(Frame::ping(1));
    assert_eq!(server.pong().await, 1);
    let (result, ()) = tokio::join!(enqueue(&client), async {
        open(server.next().await, 8);
        let incoming = server.next().await;
        assert_eq!(place(&incoming), (8, 1, 1));
        incoming.answer(enqueued(2));
    });
    assert_eq!(result.unwrap(), 2);
}

/// What a group does with sessions: executes each number once, and gives its first answer again.
#[derive(Default)]
struct Group {
    answers: BTreeMap<(u64, u64), u64>,
    executed: Vec<Bytes>,
}

impl Group {
    fn execute(&mut self, incoming: &Incoming) -> Response {
        let Request::Enqueue(enqueue) = &incoming.request else { panic!("{:?}", incoming.request) };
        let (session, sequence, acked_below) = place(incoming);
        assert!(sequence >= acked_below, "number {sequence} is sent, and was said not to be wanted");
        let executed = &mut self.executed;
        let id = self.answers.entry((session, sequence)).or_insert_with(|| {
            executed.push(enqueue.body.clone());
            executed.len() as u64
        });
        enqueued(*id)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_connection_that_is_cut_all_the_time_each_command_is_executed_once() {
    const CALLS: u64 = 200;
    let mut server = Server::start(Manner { in_flight_max: 8, ..Manner::default() }).await;
    let config = ClientConfig { deadline: Duration::from_secs(30), ..config(&[&server]) };
    let client = Client::connect(config).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..CALLS {
        let client = client.clone();
        calls.spawn(async move { (number, client.enqueue("q", number.to_string()).await.unwrap().id) });
    }
    let (mut group, mut turn, mut cuts, mut ids) = (Group::default(), 0_u64, 0, BTreeMap::new());
    while ids.len() < CALLS as usize {
        let incoming = tokio::select! {
            incoming = server.next() => incoming,
            Some(call) = calls.join_next() => {
                let (number, id) = call.unwrap();
                ids.insert(number, id);
                continue;
            }
        };
        turn += 1;
        match turn % 13 {
            0 => {
                cuts += 1;
                incoming.cut();
            }
            7 => {
                cuts += 1;
                group.execute(&incoming);
                incoming.cut();
            }
            10 => incoming.fail(ErrorCode::Overloaded),
            _ => {
                let answer = group.execute(&incoming);
                incoming.answer(answer);
            }
        }
    }
    assert!(cuts > 20, "only {cuts} cuts");
    assert_eq!(group.executed.len() as u64, CALLS, "each was executed, and none twice");
    for (number, id) in ids {
        assert_eq!(group.executed[id as usize - 1], number.to_string(), "the answer is the first one");
    }
}

#[tokio::test]
async fn many_calls_share_one_session() {
    let mut server = Server::start(Manner::default()).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        calls.spawn(async move { enqueue(&client).await.unwrap() });
    }
    let mut numbers = Vec::new();
    for _ in 0..50 {
        let incoming = server.next().await;
        numbers.push(place(&incoming).1);
        incoming.answer(enqueued(1));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
    assert_eq!((calls.join_all().await.len(), server.sessions()), (50, 1));
}

#[tokio::test]
async fn each_group_has_its_own_session() {
    let mut server = Server::start(Manner { groups: 3, ..Manner::default() }).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let mut sessions = BTreeMap::new();
    for number in 0..30 {
        let queue = format!("q{number}");
        let (result, session) = tokio::join!(client.enqueue(queue.as_str(), "b"), async {
            let incoming = server.next().await;
            let session = incoming.header.session;
            incoming.answer(enqueued(1));
            session
        });
        result.unwrap();
        let group = client.ring().group_of_queue(&queue);
        assert_eq!(*sessions.entry(group).or_insert(session), session);
    }
    assert_eq!(sessions.len(), 3);
    assert_eq!(server.sessions(), 3);
}

#[tokio::test]
async fn a_session_that_cannot_be_opened_keeps_the_command_back() {
    let mut server = Server::start(Manner { session_timeout_ms: None, ..Manner::default() }).await;
    let client = Client::connect(config(&[&server])).await.unwrap();
    let (result, ()) = tokio::join!(enqueue(&client), async {
        server.next().await.fail(ErrorCode::NoLeader);
        server.next().await.cut();
        let opening = server.next().await;
        assert_eq!(opening.request.command(), Command::OpenSession);
        opening.answer(Response::OpenSession(SessionOpened { session: 5, timeout_ms: 60_000 }));
        let command = server.next().await;
        assert_eq!(place(&command), (5, 1, 1));
        command.answer(enqueued(1));
    });
    assert_eq!(result.unwrap(), 1);
}
