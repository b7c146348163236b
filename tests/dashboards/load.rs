//! Load that leaves a trace in every metric that a healthy cluster can leave one in.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use trine_protocol::Error;
use trine_protocol::client::{Client, ClientConfig, SubscriptionConfig};
use trine_protocol::queue::{EnqueueOptions, MessageState, Redrive};

/// Larger than anything that a node answers from its own cache in one piece of the log: a few of them make a checkpoint due.
const LARGE_BYTES: usize = 1_000_000;
/// Groups of a cluster where nobody says otherwise.
const GROUPS: usize = 3;
/// Time between two rounds, so that the test leaves the machine to others.
const PAUSE: Duration = Duration::from_millis(20);

/// A client of the node with this port.
pub(crate) async fn client(port: u16) -> Client {
    let mut config = ClientConfig::new([format!("127.0.0.1:{port}")]);
    config.deadline = Duration::from_secs(5);
    loop {
        match Client::connect(config.clone()).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Names that live in each of the groups.
fn names(what: &str) -> Vec<String> {
    (0..4 * GROUPS).map(|number| format!("{what}-{number}")).collect()
}

/// Works until it is dropped. A node that is away for a moment makes single commands fail, which is part of the load.
pub(crate) async fn work(ports: [u16; 3]) {
    let clients = [client(ports[0]).await, client(ports[1]).await, client(ports[2]).await];
    let [one, two, three] = &clients;
    let consumer = one.subscribe("nothing-comes", SubscriptionConfig::new("consumer"));
    let queues = async {
        for round in 0_u64.. {
            // Who fails here is the consumer whose messages come again.
            let _ = queue_round(one, round).await;
            let _ = special_round(two, round).await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    let locks = async {
        for round in 0_u64.. {
            let _ = lock_round(two, round).await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    let cache = async {
        for round in 0_u64.. {
            let _ = cache_round([one, two, three], round).await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    let strangers = async {
        loop {
            if let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", ports[0])).await {
                let _ = stream.write_all(b"this is no frame of the protocol, and far from being one\n").await;
            }
            tokio::time::sleep(10 * PAUSE).await;
        }
    };
    tokio::join!(queues, locks, cache, strangers);
    drop(consumer);
}

/// Messages that are acknowledged, messages that come again, and messages that wait.
async fn queue_round(client: &Client, round: u64) -> Result<(), Error> {
    for name in names("queue") {
        client.enqueue(&name, format!("message {round}")).await?;
        client.enqueue(&name, "waits for long").await?;
        for delivery in client.dequeue(&name, 30_000, 1).await?.deliveries {
            client.ack(&name, &delivery).await?;
        }
        // Taken by somebody who never comes back.
        if round % 8 == 0 {
            let forgotten = format!("forgotten-{name}");
            client.enqueue(&forgotten, "comes again").await?;
            client.dequeue(&forgotten, 300, 1).await?;
        }
        if round % 64 == 0 {
            let large = format!("large-{name}");
            client.enqueue(&large, vec![7; LARGE_BYTES]).await?;
            for delivery in client.dequeue(&large, 30_000, 1).await?.deliveries {
                client.ack(&large, &delivery).await?;
            }
        }
    }
    Ok(())
}

/// Messages that are given back, extended, scheduled, dead, redriven, expired, purged, or there twice.
async fn special_round(client: &Client, round: u64) -> Result<(), Error> {
    for name in names("special") {
        let delayed =
            EnqueueOptions { delay_ms: 600_000, dedup_id: format!("{}", round / 2), ..EnqueueOptions::default() };
        client.enqueue_with(&name, "later", delayed).await?;
        client.enqueue_with(&name, "soon gone", EnqueueOptions { ttl_ms: 1, ..EnqueueOptions::default() }).await?;
        client.enqueue(&name, "dies").await?;
        for delivery in client.dequeue(&name, 30_000, 8).await?.deliveries {
            client.extend(&name, &delivery, 30_000).await?;
            client.reject(&name, &delivery, "no JSON").await?;
        }
        client.redrive(Redrive { queue: name.clone(), count_max: 1, ..Redrive::default() }).await?;
        client.purge(&name, Some(MessageState::Ready)).await?;
    }
    Ok(())
}

/// Locks that are given back, one that somebody else wants, and leases that run out.
async fn lock_round(client: &Client, round: u64) -> Result<(), Error> {
    for name in names("lock") {
        let token = client.acquire(&name, "me", 10_000).await?.token;
        client.renew(&name, "me", token, 10_000).await?;
        // It is held.
        let _ = client.acquire(&name, "you", 10_000).await;
        // One gives up, one would wait for itself, one is granted it when it is given back, and it takes a while.
        let wait = |holder: &str, ms| client.lock(&name).holder(holder).wait(Duration::from_millis(ms));
        let _ = wait("late", 20).acquire().await;
        let _ = wait("me", 1_000).acquire().await;
        let _ = client.fence(&name, token).await;
        let (waited, _) = tokio::join!(wait("next", 5_000).acquire(), async {
            tokio::time::sleep(10 * PAUSE).await;
            client.release(&name, "me", token).await
        });
        if let Ok(guard) = waited {
            let _ = guard.release().await;
        }
        client.acquire(format!("hangs-{name}"), "me", 10_000).await?;
        client.force_release(format!("hangs-{name}")).await?;
        if round % 8 == 0 {
            let _ = client.acquire(format!("forgotten-{name}-{round}"), "me", 50).await;
            let _ = client.acquire(format!("kept-{name}"), "me", 600_000).await;
        }
    }
    Ok(())
}

/// Lines in each state, shared and taken back, and dirty ones.
async fn cache_round(nodes: [&Client; 3], round: u64) -> Result<(), Error> {
    for (number, name) in names("key").into_iter().enumerate() {
        let (writer, reader) = (nodes[number % 3], nodes[(number + 1) % 3]);
        writer.put(&name, format!("value {round}")).await?;
        writer.put(&name, format!("value {round}, dirty")).await?;
        writer.get(&name).await?;
        if round % 2 == 0 {
            for _ in 0..3 {
                reader.get(&name).await?;
            }
        }
        // Written by one, and read by nobody but another: alone there, in E, once the writer has let go of it.
        if round % 16 == 0 {
            let alone = format!("alone-{name}");
            if round == 0 {
                writer.put(&alone, "value").await?;
            }
            reader.get(&alone).await?;
            reader.get(&alone).await?;
        }
    }
    Ok(())
}
