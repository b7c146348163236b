//! A value that is newer at its owner than in main memory, and an owner that is killed.

use std::time::Duration;

use trine_protocol::ErrorCode;

use crate::cluster::{Cluster, name_where, others};
use crate::wait;

/// Reads at the other nodes while the owner is down, after the first refusal.
const READS_WHILE_AWAY: usize = 20;
/// The group that is looked at.
const GROUP: u32 = 0;
/// Rounds of write, kill, read, restart. The timed write-back may win the race of a round; it must not win all.
const ROUNDS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dirty_line_of_a_dead_node_is_refused_and_comes_back_with_it() {
    let mut cluster = Cluster::start().await;
    let mut refused_rounds = 0;
    for round in 0..ROUNDS {
        if kill_with_a_dirty_line(&mut cluster, round).await {
            refused_rounds += 1;
        }
    }
    assert!(refused_rounds > 0, "in none of {ROUNDS} rounds was the owner's value away");
}

/// Kills an owner with a dirty line. False where the value was in main memory already.
async fn kill_with_a_dirty_line(cluster: &mut Cluster, round: usize) -> bool {
    // The owner is not the home as well: its death is then no change of home.
    let home = cluster.place.leader(GROUP).await;
    let owner = others(home)[round % 2];
    let reader = cluster.place.client(others(owner)[round / 2 % 2]).await;
    let key = name_where(&format!("round-{round}"), |key| reader.ring().group_of_key(key) == GROUP);
    let writer = cluster.place.patient_client(&[owner]).await;
    // The first write goes through the log; the later ones are local, and only the owner's journal has them.
    for count in 0..=20 {
        writer.put(&key, format!("value {count}")).await.expect("a write");
    }
    cluster.node(owner).kill();

    let first = wait::until("an answer about a dead owner's line", Duration::from_secs(10), async || {
        match reader.get(&key).await {
            // The home waits for the owner's lease to end before it says anything of its line.
            Err(error) if error.code == ErrorCode::DeadlineExceeded => None,
            Err(error)
                if matches!(error.code, ErrorCode::NotLeader | ErrorCode::NoLeader | ErrorCode::BusLeaseLapsed) =>
            {
                None
            }
            other => Some(other),
        }
    })
    .await;
    let was_away = match first {
        Ok(got) => {
            assert_eq!(got.value.expect("a value"), "value 20", "round {round}");
            false
        }
        Err(error) => {
            assert_eq!(error.code, ErrorCode::OwnerAway, "round {round}: {error}");
            for _ in 0..READS_WHILE_AWAY {
                let error = reader.get(&key).await.expect_err("a read while the owner is away");
                assert_eq!(error.code, ErrorCode::OwnerAway, "round {round}: {error}");
            }
            true
        }
    };

    cluster.restart(owner);
    let got = wait::until("the value after the owner's restart", Duration::from_secs(20), async || {
        reader.get(&key).await.ok()
    })
    .await;
    assert_eq!(got.value.expect("a value"), "value 20", "round {round}");
    cluster.place.ready(&[1, 2, 3]).await;
    was_away
}
