//! What the lock manager offers beyond one client that asks and is told: waiting in line over nodes and leaders, sharing, counting, several
//! at once, leaders and those who follow them; and that a holder that slept through the end of its lease is refused.

use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;
use trine_protocol::cache::Put;
use trine_protocol::client::{Client, ClientConfig};
use trine_protocol::lock::{Acquire, Ending, IfToken};
use trine_protocol::queue::{AckMany, AckedMany, Enqueue, Nack, Receipt};
use trine_protocol::{ErrorCode, Request, Response};

use crate::cluster::{Cluster, NODES, others};
use crate::wait;

/// Longer than any takeover here.
const LONG: Duration = Duration::from_secs(20);

async fn clients(cluster: &Cluster) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in 1..=NODES {
        clients.push(cluster.place.patient_client(&[node]).await);
    }
    clients
}

async fn waiters(client: &Client, lock: &str, count: u32) {
    wait::until(&format!("{count} waiters of {lock}"), LONG, async || {
        let explained = client.explain_lock(lock).await.ok()?;
        (explained.waiters_total == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_on_every_node_are_served_in_their_order_also_when_the_leader_dies() {
    let mut cluster = Cluster::start().await;
    let clients = clients(&cluster).await;
    let all = cluster.place.patient_client(&[1, 2, 3]).await;
    let lock = "line/7";
    let first = all.lock(lock).holder("first").lease(LONG).acquire().await.unwrap();
    let mut line = JoinSet::new();
    for number in 0..6 {
        let client = if number % 2 == 0 { clients[number % NODES].clone() } else { all.clone() };
        line.spawn(async move {
            let guard = client.lock(lock).holder(format!("w{number}")).lease(Duration::from_secs(3)).acquire().await;
            (number, guard)
        });
        waiters(&all, lock, number as u32 + 1).await;
    }
    let leader = cluster.place.leader(all.ring().group_of_lock(lock)).await;
    // The waiters of the node that dies ask nobody any more; those of the others are kept.
    let alive: Vec<usize> = (0..6).filter(|number| number % 2 == 1 || number % NODES + 1 != leader).collect();
    cluster.node(leader).kill();
    cluster.place.leader_among(&others(leader), all.ring().group_of_lock(lock)).await;
    let began = wait::now();
    assert!(first.release().await.unwrap().was_held);
    let mut served = Vec::new();
    let mut last_token = 0;
    while served.len() < alive.len() {
        let Some(Ok((number, guard))) = line.join_next().await else { panic!("{served:?} of {alive:?}") };
        let Ok(guard) = guard else { continue };
        guard.check().unwrap();
        assert!(guard.token() > last_token, "tokens grow from holder to holder");
        last_token = guard.token();
        served.push(number);
        guard.release().await.unwrap();
    }
    assert_eq!(served, alive, "in the order in which they came");
    println!("{} served in {:?} after the leader was killed", served.len(), wait::now() - began);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_waiting_gets_nothing_and_holds_up_nobody() {
    let cluster = Cluster::start().await;
    let client = cluster.place.patient_client(&[1]).await;
    let other = cluster.place.patient_client(&[2]).await;
    let held = client.lock("demo").holder("a").acquire().await.unwrap();
    let dropped = tokio::time::timeout(Duration::from_millis(500), client.lock("demo").holder("b").acquire());
    assert!(dropped.await.is_err(), "it is dropped while it waits");
    waiters(&other, "demo", 0).await;
    let timed = other.lock("demo").holder("c").wait(Duration::from_millis(300)).acquire().await.unwrap_err();
    assert_eq!(timed.code, ErrorCode::LockTimeout);
    let refused = other.lock("demo").holder("c").try_acquire().await.unwrap_err();
    assert_eq!((refused.code, refused.hint.as_str()), (ErrorCode::LockHeld, "a"));
    held.release_leaving("half way").await.unwrap();
    let next = other.lock("demo").holder("c").try_acquire().await.unwrap();
    assert_eq!(next.previous()[0].left, "half way");
    // A raw acquire of this very session that is cancelled before it comes does not wait when it does.
    let gone = client.lock("demo").holder("d").lease(Duration::from_millis(400)).through_session();
    assert_eq!(gone.try_acquire().await.unwrap_err().code, ErrorCode::LockHeld);
    drop(next);
    wait::until("the guard's release", LONG, async || {
        client.explain_lock("demo").await.ok()?.holders.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_of_clients_on_two_nodes_is_refused_and_named() {
    let cluster = Cluster::start().await;
    let clients = clients(&cluster).await;
    let a = clients[0].lock("pair/1").holder("a").acquire().await.unwrap();
    let b = clients[1].lock("pair/2").holder("b").acquire().await.unwrap();
    let waiting = tokio::spawn(clients[0].lock("pair/2").holder("a").acquire());
    waiters(&clients[2], "pair/2", 1).await;
    let began = wait::now();
    let error = clients[1].lock("pair/1").holder("b").acquire().await.unwrap_err();
    assert_eq!((error.code, error.hint.as_str()), (ErrorCode::Deadlock, "b→pair/1→a→pair/2→b"));
    assert!(wait::now() - began < Duration::from_secs(2), "at once");
    let client = clients[2].explain_client(clients[2].ring().group_of_lock("pair/1"), "a").await.unwrap();
    assert_eq!((client.holds[0].lock.as_str(), client.waits[0].lock.as_str()), ("pair/1", "pair/2"));
    assert_eq!(client.waits[0].holders[0].client, "b");
    b.release().await.unwrap();
    let second = waiting.await.unwrap().unwrap();
    second.release().await.unwrap();
    a.release().await.unwrap();
    let elsewhere = clients[0].lock("pair/1").and("other/1").try_acquire().await;
    let ring = clients[0].ring();
    let together = ring.group_of_lock("pair/1") == ring.group_of_lock("other/1");
    match elsewhere {
        Ok(_) => assert!(together),
        Err(error) => assert_eq!((error.code, error.hint.as_str()), (ErrorCode::NotColocated, "other/1")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_share_permits_are_counted_and_several_are_one() {
    let cluster = Cluster::start().await;
    let clients = clients(&cluster).await;
    let readers = [
        clients[0].lock("rw").holder("r0").shared().acquire().await.unwrap(),
        clients[1].lock("rw").holder("r1").shared().acquire().await.unwrap(),
    ];
    let writer = tokio::spawn(clients[2].lock("rw").holder("w").acquire());
    waiters(&clients[0], "rw", 1).await;
    let late = clients[0].lock("rw").holder("r2").shared().try_acquire().await.unwrap_err();
    assert_eq!(late.code, ErrorCode::LockHeld, "a reader does not overtake the writer");
    for reader in readers {
        reader.release().await.unwrap();
    }
    writer.await.unwrap().unwrap().release().await.unwrap();

    let mut pool = Vec::new();
    for client in &clients {
        pool.push(client.lock("pool").holder("p").permits(1, 3).acquire().await.unwrap());
    }
    let none = clients[0].lock("pool").holder("q").permits(1, 3).try_acquire().await.unwrap_err();
    assert_eq!(none.code, ErrorCode::LockHeld);
    let wrong = clients[0].lock("pool").holder("q").permits(1, 4).try_acquire().await.unwrap_err();
    assert_eq!((wrong.code, wrong.hint.as_str()), (ErrorCode::InvalidArgument, "3"));
    pool.pop().unwrap().release().await.unwrap();
    let fourth = clients[0].lock("pool").holder("q").permits(1, 3).try_acquire().await.unwrap();
    assert_eq!(fourth.release().await.unwrap().depth, 0);

    let both = clients[0].lock("set/a").and("set/b").holder("one").acquire().await.unwrap();
    let busy = clients[1].lock("set/b").holder("two").try_acquire().await.unwrap_err();
    assert_eq!(busy.hint, "one");
    assert_eq!(both.reenter().await.unwrap(), 2);
    assert_eq!(both.leave().await.unwrap(), 1);
    both.release().await.unwrap();
    clients[1].lock("set/b").holder("two").try_acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_through_a_session_lives_as_long_as_its_client() {
    let cluster = Cluster::start().await;
    let mut config = ClientConfig::new([cluster.place.address(4101, 1).to_string()]);
    config.session_timeout = Duration::from_secs(2);
    let mortal = Client::connect(config).await.unwrap();
    let guard = mortal.lock("session").holder("mortal").through_session().acquire().await.unwrap();
    let other = cluster.place.patient_client(&[2]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    guard.check().expect("the client sends signs of life by itself");
    let explained = other.explain_lock("session").await.unwrap();
    assert!(explained.holders[0].session > 0 && explained.holders[0].lease_left_ms == 0);
    let began = wait::now();
    let _ = guard.keep();
    drop(mortal);
    let next = other.lock("session").holder("next").acquire().await.unwrap();
    let took = wait::now() - began;
    assert_eq!((next.previous()[0].ending, next.previous()[0].client.as_str()), (Ending::Expired, "mortal"));
    assert!(took < Duration::from_secs(6), "{took:?} after a session of 2 s");
    println!("taken over {took:?} after the client was gone, with a session of 2 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observers_on_every_node_hear_of_each_new_leader() {
    let cluster = Cluster::start().await;
    let clients = clients(&cluster).await;
    let mut observers: Vec<_> = clients.iter().map(|client| client.election("chief").observe()).collect();
    for observer in &mut observers {
        assert_eq!(observer.next().await.unwrap().token, 0, "nobody leads yet");
    }
    let first = clients[0].election("chief").lead("n1", "10.0.0.1").await.unwrap();
    let second = tokio::spawn({
        let election = clients[1].election("chief");
        async move { election.lead("n2", "10.0.0.2").await }
    });
    for observer in &mut observers {
        let leader = observer.next().await.unwrap();
        assert_eq!((leader.client.as_str(), leader.token, &leader.note[..]), ("n1", first.token(), &b"10.0.0.1"[..]));
    }
    waiters(&clients[2], "chief", 1).await;
    let forced = clients[2].force_release("chief").await.unwrap();
    assert_eq!(forced.holders, ["n1"]);
    let second = second.await.unwrap().unwrap();
    assert!(second.token() >= forced.token && forced.token > first.token());
    for observer in &mut observers {
        let leader = wait::until("the second leader", LONG, async || {
            let leader = observer.next().await.unwrap();
            (leader.client == "n2").then_some(leader)
        })
        .await;
        assert_eq!(leader.token, second.token());
    }
    let lost = tokio::time::timeout(LONG, first.lost()).await.expect("the first leader is told");
    assert_eq!(lost.token, first.token());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_ends_in_time_when_nobody_can_renew_it() {
    let mut cluster = Cluster::start().await;
    let client = cluster.place.patient_client(&[1, 2, 3]).await;
    let lease = Duration::from_secs(3);
    let guard = client.lock("alone").holder("h").lease(lease).acquire().await.unwrap();
    tokio::time::sleep(lease + Duration::from_secs(1)).await;
    guard.check().expect("it is renewed by itself");
    let began = wait::now();
    for node in [1, 2, 3] {
        cluster.node(node).signal(Signal::STOP);
    }
    let lost = tokio::time::timeout(LONG, guard.lost()).await.expect("it is told");
    let took = wait::now() - began;
    assert!(guard.check().is_err() && lost.lock == "alone");
    assert!(took <= lease, "{took:?} with a lease of {lease:?}");
    for node in [1, 2, 3] {
        cluster.node(node).signal(Signal::CONT);
    }
}

/// A process that takes a lock, is stopped past its lease, and then goes on as if nothing had happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_holder_is_refused_by_the_queue_and_by_the_cache() {
    let cluster = Cluster::start().await;
    let client = cluster.place.patient_client(&[2]).await;
    let endpoints: Vec<String> = (1..=NODES).map(|node| cluster.place.address(4101, node).to_string()).collect();
    let (lock, queue, key) = ("{zombie}lock", "{zombie}queue", "{zombie}key");
    let script = r#"
        token=$("$TRINE" lock acquire "$LOCK" --client zombie --lease-ms 1500) || exit 10
        echo "$token" > token.new && mv token.new token
        while [ ! -e go ]; do sleep 0.05; done
        "$TRINE" queue push "$QUEUE" late --if-token "$LOCK:$token" 2> push.err; echo $? > push
        "$TRINE" cache put "$KEY" late --if-token "$LOCK:$token" 2> put.err; echo $? > put
    "#;
    let folder = tempfile::tempdir().unwrap();
    let mut zombie = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(folder.path())
        .env("TRINE", env!("CARGO_BIN_EXE_trine"))
        .env("TRINE_ENDPOINTS", endpoints.join(","))
        .envs([("LOCK", lock), ("QUEUE", queue), ("KEY", key)])
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&zombie);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok().filter(|text| text.ends_with('\n'));
    let token: u64 = wait::blocking("the zombie's token", LONG, || read("token")).trim().parse().unwrap();
    let demand = |token: u64| Some(IfToken { lock: lock.into(), token });
    let put = |value: &'static str, token| Put {
        key: key.into(),
        value: value.into(),
        if_token: demand(token),
        ..Put::default()
    };
    let enqueue = |body: &'static str, token| Enqueue {
        queue: queue.into(),
        body: body.into(),
        if_token: demand(token),
        ..Enqueue::default()
    };
    client.call(put("in time", token)).await.expect("a write under the grant that holds");
    client.call(enqueue("in time", token)).await.expect("the same for the queue");
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    let heir = client.lock(lock).holder("heir").lease(LONG).acquire().await.unwrap();
    assert_eq!((heir.previous()[0].ending, heir.previous()[0].client.as_str()), (Ending::Expired, "zombie"));
    assert!(heir.token() > token);
    let written = client.call(put("by the heir", heir.token())).await;
    assert!(matches!(written, Ok(Response::Put(_))), "{written:?}");
    std::fs::write(folder.path().join("go"), "").unwrap();
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    zombie.wait().unwrap();
    for (name, error) in [("push", "push.err"), ("put", "put.err")] {
        let (code, why) = (read(name).unwrap(), read(error).unwrap());
        assert_eq!(code.trim(), "4", "{name}: {why}");
        assert!(why.contains("StaleToken"), "{name}: {why}");
    }
    assert_eq!(client.get(key).await.unwrap().value.unwrap(), "by the heir");
    let deliveries = client.dequeue(queue, 60_000, 10).await.unwrap().deliveries;
    assert_eq!(deliveries.iter().map(|delivery| &delivery.body[..]).collect::<Vec<_>>(), [b"in time"]);
    // What becomes of a delivery is a write, too: the old grant ends none, the new one does.
    let receipt = Receipt::from(&deliveries[0]);
    let nack = |token| Nack { queue: queue.into(), receipt, if_token: demand(token), ..Nack::default() };
    let ack = |token| AckMany { queue: queue.into(), receipts: vec![receipt], if_token: demand(token) };
    assert_eq!(client.call(nack(token)).await.unwrap_err().code, ErrorCode::StaleToken);
    assert_eq!(client.call(ack(token)).await.unwrap_err().code, ErrorCode::StaleToken);
    let acked = client.call(ack(heir.token())).await;
    assert_eq!(acked, Ok(Response::AckMany(AckedMany::default())), "it was in flight all the time");
    assert_eq!(client.fence("{zombie}disk", heir.token()).await.unwrap().before, 0);
    assert_eq!(client.fence("{zombie}disk", token).await.unwrap_err().code, ErrorCode::StaleToken);
    let elsewhere = ["a", "b", "c", "d", "e", "f"]
        .into_iter()
        .find(|name| client.ring().group_of_lock(&format!("{name}/x")) != client.ring().group_of_queue(queue));
    let lock = format!("{}/x", elsewhere.unwrap());
    let demand = Some(IfToken { lock: lock.clone(), token: 1 });
    let apart: [Request; 3] = [
        Enqueue { queue: queue.into(), if_token: demand.clone(), ..Enqueue::default() }.into(),
        Nack { queue: queue.into(), if_token: demand.clone(), ..Nack::default() }.into(),
        AckMany { queue: queue.into(), receipts: vec![receipt], if_token: demand }.into(),
    ];
    for apart in apart {
        assert_eq!(client.call(apart).await.unwrap_err().code, ErrorCode::NotColocated);
    }
    heir.release().await.unwrap();
    let after = client.call(put("nobody holds it", token)).await.unwrap_err();
    assert_eq!(after.code, ErrorCode::LockNotHeld);
    let raw = Acquire { wait_ms: 100, ..Acquire::new("{zombie}lock", "heir", 0) };
    assert_eq!(client.call(raw).await.unwrap_err().code, ErrorCode::InvalidArgument);
}

/// `trine lock run` ends its command before the lock can be another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_under_a_lock_is_ended_before_the_lease_can_be() {
    let mut cluster = Cluster::start().await;
    let client = cluster.place.patient_client(&[1, 2, 3]).await;
    let endpoints: Vec<String> = (1..=NODES).map(|node| cluster.place.address(4101, node).to_string()).collect();
    let folder = tempfile::tempdir().unwrap();
    let run = |script: &str| {
        std::process::Command::new(env!("CARGO_BIN_EXE_trine"))
            .args(["lock", "run", "job", "--client", "runner", "--lease-ms", "3000", "--", "sh", "-c", script])
            .current_dir(folder.path())
            .env("TRINE_ENDPOINTS", endpoints.join(","))
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let code = |child: &mut std::process::Child| child.wait().unwrap().code();
    assert_eq!(code(&mut run(r#"test "$TRINE_LOCK" = job -a -n "$TRINE_FENCING_TOKEN""#)), Some(0));
    assert_eq!(code(&mut run("exit 17")), Some(17));
    assert!(client.explain_lock("job").await.unwrap().holders.is_empty(), "it is given back when the command ends");
    // A stubborn command, and a cluster that does not answer any more.
    let mut stubborn = run("trap '' TERM; touch begun; while :; do sleep 0.1; touch alive; done");
    wait::blocking("the command", LONG, || folder.path().join("begun").exists().then_some(()));
    let began = wait::now();
    for node in [1, 2, 3] {
        cluster.node(node).signal(Signal::STOP);
    }
    let ended = stubborn.wait().unwrap();
    let took = wait::now() - began;
    assert_eq!(ended.code(), Some(4));
    assert!(took < Duration::from_millis(3_000 + 500), "{took:?} with a lease of 3 s");
    std::fs::remove_file(folder.path().join("alive")).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(!folder.path().join("alive").exists(), "nothing of the command is left");
    for node in [1, 2, 3] {
        cluster.node(node).signal(Signal::CONT);
    }
    println!("the command was ended {took:?} after the cluster froze");
}
