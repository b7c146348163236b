//! Values that are made anew from time to time: read on while one caller makes the next one.

use std::time::Duration;

use tokio::task::JoinSet;
use trine_protocol::ErrorCode;
use trine_protocol::client::Client;
use trine_protocol::client::fresh::{Fetched, Keep, Right};

use crate::cluster::{Cluster, NODES};
use crate::wait;

/// Callers at each node.
const CALLERS: usize = 5;
const LEASE_MS: u32 = 20_000;
const KEEP: Keep = Keep { fresh_ms: 1_500, stale_ms: 60_000 };

/// Everybody asks at once, on every node.
async fn all_ask(clients: &[Client]) -> Vec<Fetched> {
    let mut callers = JoinSet::new();
    for client in clients {
        for _ in 0..CALLERS {
            let client = client.clone();
            callers.spawn(async move {
                client.get_fresh("page", LEASE_MS).await.expect("a value, or the right to make it")
            });
        }
    }
    callers.join_all().await
}

fn value(fetched: &Fetched) -> (&str, bool) {
    let (got, fresh) = match fetched {
        Fetched::Fresh(got) => (got, true),
        Fetched::Stale { got, .. } => (got, false),
        Fetched::Missing(_) => panic!("{fetched:?}"),
    };
    (std::str::from_utf8(got.value.as_ref().expect("a value")).expect("text"), fresh)
}

fn rights(fetched: &[Fetched]) -> Vec<Right> {
    let right = |fetched: &Fetched| match fetched {
        Fetched::Stale { right, .. } => *right,
        _ => None,
    };
    fetched.iter().filter_map(right).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_due_is_read_on_while_one_caller_makes_the_next() {
    let cluster = Cluster::start().await;
    let mut clients = Vec::new();
    for node in 1..=NODES {
        clients.push(cluster.place.patient_client(&[node]).await);
    }
    let Fetched::Missing(right) = clients[0].get_fresh("page", LEASE_MS).await.expect("a right") else {
        panic!("there was no value")
    };
    // The others wait for the first value, on whichever node.
    let others = tokio::spawn({
        let clients = clients.clone();
        async move { all_ask(&clients).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!others.is_finished(), "nobody has made the value");
    clients[0].put_fresh("page", "first", KEEP, right).await.expect("the first value");
    let others = others.await.expect("no panic");
    assert!(others.iter().all(|fetched| value(fetched).0 == "first"), "{others:?}");
    let again = clients[0].put_fresh("page", "late", KEEP, right).await.expect_err("the right was used");
    assert_eq!(again.code, ErrorCode::StaleFill, "{again}");

    let due = wait::until("the value to be due", Duration::from_secs(10), async || {
        let fetched = clients[1].get_fresh("page", LEASE_MS).await.expect("a value");
        assert_eq!(value(&fetched).0, "first");
        rights(&[fetched]).pop()
    })
    .await;
    let asked = wait::now();
    let stale = all_ask(&clients).await;
    println!("{} callers had the stale value within {:?}", stale.len(), asked.elapsed());
    assert!(stale.iter().all(|fetched| value(fetched) == ("first", false)), "{stale:?}");
    assert_eq!(rights(&stale), [], "one has the right already");
    clients[1].put_fresh("page", "second", KEEP, due).await.expect("the next value");
    for client in &clients {
        assert_eq!(value(&client.get_fresh("page", LEASE_MS).await.expect("a value")), ("second", true));
    }
    let late = clients[1].put_fresh("page", "late", KEEP, due).await.expect_err("it is the next no more");
    assert_eq!(late.code, ErrorCode::ConditionFailed, "{late}");

    // All at once when it is due: one of them has the right.
    let won = wait::until("the value to be due", Duration::from_secs(10), async || {
        let won = rights(&all_ask(&clients).await);
        (!won.is_empty()).then_some(won)
    })
    .await;
    assert_eq!(won.len(), 1, "{won:?}");
    let never =
        clients[0].put_fresh("page", "x", Keep { fresh_ms: 0, stale_ms: 1 }, won[0]).await.expect_err("no time");
    assert_eq!(never.code, ErrorCode::InvalidArgument);
}
