//! What a cache offers beside get and put, from several nodes at once.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;
use trine_protocol::ErrorCode;
use trine_protocol::cache::{Added, LineState, OnlyIf, Put, Source, Version};
use trine_protocol::client::Client;

use crate::cluster::{Cluster, GROUPS, NODES, name_where, others};
use crate::wait;

/// Writers of each node.
const WRITERS: usize = 4;
/// What each of them does.
const ROUNDS: i64 = 25;

async fn clients(cluster: &Cluster) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in 1..=NODES {
        clients.push(cluster.place.patient_client(&[node]).await);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn additions_from_every_node_count_once_each() {
    let cluster = Cluster::start().await;
    let mut adders = JoinSet::new();
    for client in clients(&cluster).await {
        for _ in 0..WRITERS {
            let client = client.clone();
            adders.spawn(async move {
                let mut sums = Vec::new();
                for _ in 0..ROUNDS {
                    sums.push(client.add("visits", 1).await.expect("an addition"));
                }
                sums
            });
        }
    }
    let all: Vec<Added> = adders.join_all().await.into_iter().flatten().collect();
    let total = (NODES * WRITERS) as i64 * ROUNDS;
    let sums: BTreeSet<i64> = all.iter().map(|added| added.sum).collect();
    assert_eq!(sums, (1..=total).collect(), "each sum once");
    let mut by_version: Vec<(Version, i64)> = all.iter().map(|added| (added.version, added.sum)).collect();
    by_version.sort_unstable();
    assert!(by_version.is_sorted_by_key(|(_, sum)| *sum), "sums in the order of their versions");
    for client in clients(&cluster).await {
        assert_eq!(client.get("visits").await.unwrap().value.unwrap(), total.to_string());
    }
    let client = &clients(&cluster).await[0];
    client.put("text", "no number").await.unwrap();
    assert_eq!(client.add("text", 1).await.unwrap_err().code, ErrorCode::NotANumber);
    client.put("most", i64::MAX.to_string()).await.unwrap();
    assert_eq!(client.add("most", 1).await.unwrap_err().code, ErrorCode::NotANumber);
    assert_eq!(client.get("most").await.unwrap().value.unwrap(), i64::MAX.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_who_put_if_absent_one_wins_and_a_swap_is_over_what_it_saw() {
    let cluster = Cluster::start().await;
    let clients = clients(&cluster).await;
    for round in 0..20 {
        let key = format!("leader-{round}");
        let mut racers = JoinSet::new();
        for (number, client) in clients.iter().cloned().enumerate() {
            let key = key.clone();
            racers.spawn(async move { client.put_if(key, format!("{number}"), OnlyIf::Absent).await.map(|_| number) });
        }
        let (won, lost): (Vec<_>, Vec<_>) = racers.join_all().await.into_iter().partition(Result::is_ok);
        assert!(lost.iter().all(|lost| lost.as_ref().is_err_and(|error| error.code == ErrorCode::ConditionFailed)));
        let [Ok(winner)] = won[..] else { panic!("{won:?} have won round {round}") };
        for client in &clients {
            let got = client.get(key.as_str()).await.unwrap();
            assert_eq!(got.value.unwrap(), winner.to_string(), "round {round}");
        }
    }
    // Every node takes turns with the others by compare-and-swap alone: no turn is lost.
    clients[0].put("list", "").await.unwrap();
    let mut swappers = JoinSet::new();
    for (number, client) in clients.iter().cloned().enumerate() {
        swappers.spawn(async move {
            for turn in 0..ROUNDS {
                loop {
                    let got = client.get("list").await.unwrap();
                    let text = format!("{}{number}.{turn} ", String::from_utf8_lossy(&got.value.unwrap()));
                    match client.put_if("list", text, OnlyIf::Version(got.version)).await {
                        Ok(_) => break,
                        Err(error) => assert_eq!(error.code, ErrorCode::ConditionFailed, "{error}"),
                    }
                }
            }
        });
    }
    swappers.join_all().await;
    let list = clients[1].get("list").await.unwrap().value.unwrap();
    let turns: BTreeSet<&str> = std::str::from_utf8(&list).unwrap().split_whitespace().collect();
    assert_eq!(turns.len(), NODES * ROUNDS as usize, "{turns:?}");
    let error = clients[2].put_if("list", "late", OnlyIf::Version(Version { epoch: 1, count: 0 })).await.unwrap_err();
    let version = clients[2].get("list").await.unwrap().version;
    assert_eq!(error.hint, format!("{}.{}", version.epoch, version.count), "it says what is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_goes_by_itself_and_not_early_wherever_it_is_read() {
    let cluster = Cluster::start().await;
    let clients = clients(&cluster).await;
    let ttl = Duration::from_millis(1_200);
    let began = wait::now();
    clients[0].put_for("token", "secret", ttl.as_millis() as u64).await.unwrap();
    let written = wait::now();
    for client in &clients {
        // Each node has a copy of its own, and a hit does not make the key live longer.
        assert_eq!(client.get("token").await.unwrap().value.unwrap(), "secret");
        assert_eq!(client.get("token").await.unwrap().source, Source::LocalCache);
    }
    for client in &clients {
        let gone = wait::until("the end of a key", ttl + Duration::from_secs(3), async || {
            client.get("token").await.unwrap().value.is_none().then(wait::now)
        });
        let gone = gone.await;
        assert!(gone - began >= ttl - Duration::from_millis(20), "it went after {:?}", gone - began);
        assert!(gone - written <= ttl + Duration::from_millis(1_000), "it stayed for {:?}", gone - written);
    }
    // Who writes it anew without a time takes that time away; an addition leaves it.
    clients[1].put_for("stays", "1", 300).await.unwrap();
    clients[1].put("stays", "2").await.unwrap();
    clients[1].put_for("goes", "1", 300).await.unwrap();
    assert_eq!(clients[2].add("goes", 1).await.unwrap().sum, 2);
    wait::until("the end of a key that was added to", Duration::from_secs(3), async || {
        clients[0].get("goes").await.unwrap().value.is_none().then_some(())
    })
    .await;
    assert_eq!(clients[0].get("stays").await.unwrap().value.unwrap(), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fills_and_the_others_get_what_it_filled() {
    let cluster = Cluster::start().await;
    let clients = clients(&cluster).await;
    let mut askers = JoinSet::new();
    for number in 0..30 {
        let client = clients[number % NODES].clone();
        askers.spawn(async move {
            let filling = client.get_or_fill("page", 5_000).await.expect("an answer");
            match filling.found {
                Some(got) => (false, got.value.expect("a value")),
                None => {
                    // The others must wait for this: they would be given the right by then, had they not been waiting.
                    client.get("other").await.expect("a read");
                    client.fill("page", "made once", filling.token).await.expect("a fill");
                    (true, "made once".into())
                }
            }
        });
    }
    let answers = askers.join_all().await;
    assert_eq!(answers.iter().filter(|(filled, _)| *filled).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|(_, value)| value == "made once"), "{answers:?}");

    // A right that runs out goes to the next who waits; what comes late under it is refused, and nothing is written over.
    let late = clients[0].get_or_fill("slow", 200).await.unwrap();
    assert!(late.found.is_none());
    let next = clients[1].get_or_fill("slow", 5_000).await.unwrap();
    assert!(next.found.is_none() && next.token != late.token, "{next:?}");
    let refused = clients[0].fill("slow", "late", late.token).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StaleFill);
    clients[2].put("slow", "by somebody").await.unwrap();
    assert_eq!(clients[1].fill("slow", "too late", next.token).await.unwrap_err().code, ErrorCode::StaleFill);
    assert_eq!(clients[0].get("slow").await.unwrap().value.unwrap(), "by somebody");
    assert_eq!(clients[0].fill("slow", "x", 1).await.unwrap_err().code, ErrorCode::StaleFill, "a token of nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absence_is_kept_and_ends_with_the_first_write() {
    let cluster = Cluster::start().await;
    let clients = clients(&cluster).await;
    for client in &clients {
        assert_eq!(client.get("nothing").await.unwrap().value, None);
        let again = client.get("nothing").await.unwrap();
        assert_eq!((again.value, again.source), (None, Source::LocalCache));
    }
    for (writer, round) in (0..NODES).cycle().zip(0..20) {
        clients[writer].put("nothing", format!("{round}")).await.unwrap();
        for client in &clients {
            assert_eq!(client.get("nothing").await.unwrap().value.unwrap(), format!("{round}"));
        }
        clients[(writer + 1) % NODES].delete("nothing").await.unwrap();
        for client in &clients {
            assert_eq!(client.get("nothing").await.unwrap().value, None, "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_keys_at_once_and_all_keys_of_a_prefix() {
    let cluster = Cluster::start().await;
    let clients = clients(&cluster).await;
    let keys: Vec<String> = (0..60).map(|number| format!("user:{number:02}")).collect();
    let groups: BTreeSet<u32> = keys.iter().map(|key| clients[0].ring().group_of_key(key)).collect();
    assert_eq!(groups.len(), GROUPS as usize, "the keys are in every group");
    let put = |key: &String| Put { key: key.clone(), value: key.clone().into(), ..Put::default() };
    let mut puts: Vec<Put> = keys.iter().map(put).collect();
    // One write that is refused is refused alone.
    puts[7].only_if = OnlyIf::Present;
    let results = clients[0].multi_put(puts).await.unwrap().results;
    let failed: Vec<usize> = (0..keys.len()).filter(|number| results[*number].is_err()).collect();
    assert_eq!(failed, [7]);
    assert_eq!(results[7].as_ref().unwrap_err().code, ErrorCode::ConditionFailed);
    let got = clients[1].multi_get(keys.clone()).await.unwrap().results;
    for (number, (key, got)) in keys.iter().zip(got).enumerate() {
        let expected = (number != 7).then(|| key.clone().into());
        assert_eq!(got.unwrap().value, expected, "{key}");
    }
    // Where the values are more than a frame takes, the later ones say so.
    for number in 0..3 {
        clients[0].put(format!("big:{number}"), vec![7; 1024 * 1024]).await.unwrap();
    }
    let big = clients[2].multi_get((0..3).map(|number| format!("big:{number}")).collect()).await.unwrap().results;
    assert_eq!(big.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(big[2].as_ref().unwrap_err().code, ErrorCode::TooLarge);
    assert_eq!(clients[0].multi_get(Vec::new()).await.unwrap_err().code, ErrorCode::InvalidArgument);

    clients[0].put("usher", "stays").await.unwrap();
    let mut listed = Vec::new();
    for group in 0..GROUPS {
        let page = clients[0].list_keys(group, "user:", "").await.unwrap();
        assert!(!page.more && page.keys.is_sorted());
        listed.extend(page.keys);
    }
    listed.sort_unstable();
    let mut expected = keys.clone();
    expected.remove(7);
    assert_eq!(listed, expected);
    assert_eq!(clients[2].delete_prefix("user:").await.unwrap().deleted, 59);
    assert_eq!(clients[2].delete_prefix("user:").await.unwrap().deleted, 0);
    for client in &clients {
        assert!(
            client.multi_get(keys.clone()).await.unwrap().results.iter().all(|got| got
                .as_ref()
                .unwrap()
                .value
                .is_none())
        );
        assert_eq!(client.get("usher").await.unwrap().value.unwrap(), "stays");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_through_is_there_when_its_writer_dies() {
    let mut cluster = Cluster::start_with(&["--write-through", "safe:"]).await;
    let group = 1;
    let home = cluster.place.leader(group).await;
    let [writer, reader] = others(home)[..] else { panic!("three nodes") };
    let client = cluster.place.patient_client(&[writer]).await;
    let key = name_where("through", |key| client.ring().group_of_key(key) == group);
    // The line is this node's, and dirty, when the write-through comes.
    for count in 0..10 {
        client.put(&key, format!("{count}")).await.unwrap();
    }
    let through = Put {
        key: key.clone(),
        value: "through".into(),
        through: true,
        content_type: "text/plain".into(),
        ..Put::default()
    };
    client.call(through).await.unwrap();
    // So are all keys that begin as this node was told.
    let safe = name_where("safe:", |key| client.ring().group_of_key(key) == group);
    for count in 0..10 {
        client.put(&safe, format!("{count}")).await.unwrap();
    }
    cluster.node(writer).kill();
    let other = cluster.place.patient_client(&[reader]).await;
    let got = other.get(&key).await.expect("nobody is waited for");
    assert_eq!((got.value.unwrap(), got.content_type.as_str()), ("through".into(), "text/plain"));
    assert_ne!(got.state, LineState::M);
    assert_eq!(other.get(&safe).await.expect("nobody is waited for").value.unwrap(), "9");
}
