//! Redis as main memory, by a real `redis-server`. Where there is none the tests say so and pass, unless `TRINE_REQUIRE_REDIS=1` says that it
//! has to be there.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use trine_protocol::ErrorCode;
use trine_protocol::cache::{OnlyIf, Source};
use trine_protocol::client::Client;

use crate::cluster::{Cluster, NODES};
use crate::http;
use crate::wait;

/// The promise for what somebody writes to Redis directly.
const SEEN_WITHIN: Duration = Duration::from_millis(100);
/// A value is written back after half a second of quiet, and then goes to Redis.
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// A server on a socket of its own. Ends with the test.
struct Redis {
    process: Option<Child>,
    directory: tempfile::TempDir,
}

impl Redis {
    /// A place for one; None where there is no `redis-server`.
    fn place() -> Option<Self> {
        let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        match found {
            Ok(_) => Some(Self { process: None, directory: tempfile::tempdir().expect("a directory") }),
            Err(why) if std::env::var("TRINE_REQUIRE_REDIS").is_ok_and(|value| value == "1") => {
                panic!("redis-server must be there: {why}")
            }
            Err(why) => {
                println!("skipped: no redis-server ({why})");
                None
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    fn start(&mut self) {
        let process = Command::new("redis-server")
            .args(["--port", "0", "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.directory.path())
            .stdout(Stdio::null())
            .spawn();
        self.process = Some(process.expect("redis-server starts"));
        wait::blocking("an answer of Redis", Duration::from_secs(10), || (self.cli(&["PING"]) == "PONG").then_some(()));
    }

    fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("it can be killed");
        process.wait().expect("it ends");
    }

    /// Somebody at a terminal.
    fn cli(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli").arg("-s").arg(self.socket()).args(words).output().expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn value(&self, key: &str) -> String {
        self.cli(&["GET", &format!("db:main_memory:{key}")])
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

async fn clients(cluster: &Cluster) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in 1..=NODES {
        clients.push(cluster.place.patient_client(&[node]).await);
    }
    clients
}

async fn reaches(redis: &Redis, key: &str, value: &str) {
    wait::until("a value in Redis", BACK_WITHIN, async || (redis.value(key) == value).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_is_in_redis_and_what_somebody_sets_there_is_seen_by_every_node() {
    let Some(mut redis) = Redis::place() else { return };
    redis.start();
    redis.cli(&["SET", "db:main_memory:before", "was there"]);
    let cluster = Cluster::start_with(&["--main-memory", &redis.url()]).await;
    let clients = clients(&cluster).await;
    for client in &clients {
        assert_eq!(client.get("before").await.unwrap().value.unwrap(), "was there");
        assert_eq!(client.get("nowhere").await.unwrap().value, None);
        let again = client.get("before").await.unwrap();
        assert_eq!((again.value.unwrap(), again.source), ("was there".into(), Source::LocalCache));
    }
    clients[0].put("key", "by node1").await.unwrap();
    reaches(&redis, "key", "by node1").await;
    clients[1].delete("key").await.unwrap();
    reaches(&redis, "key", "").await;
    // Every operation works on what Redis alone has.
    redis.cli(&["SET", "db:main_memory:number", "41"]);
    assert_eq!(clients[2].add("number", 1).await.unwrap().sum, 42);
    reaches(&redis, "number", "42").await;
    let refused = clients[0].put_if("before", "x", OnlyIf::Absent).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ConditionFailed);
    let got = clients[0].get("before").await.unwrap();
    clients[1].put_if("before", "swapped", OnlyIf::Version(got.version)).await.unwrap();
    reaches(&redis, "before", "swapped").await;
    let found = clients[2].get_or_fill("before", 1_000).await.unwrap().found.expect("it is there");
    assert_eq!(found.value.unwrap(), "swapped");
    let token = clients[2].get_or_fill("hole", 1_000).await.unwrap().token;
    clients[2].fill("hole", "filled", token).await.unwrap();
    reaches(&redis, "hole", "filled").await;

    let mut slowest = Duration::ZERO;
    for round in 0..50 {
        // Each node has a copy: somebody else's write ends all of them.
        for client in &clients {
            client.get("shared").await.unwrap();
        }
        let value = format!("outside {round}");
        redis.cli(&["SET", "db:main_memory:shared", &value]);
        let set = wait::now();
        for client in &clients {
            wait::until("an outside write", Duration::from_secs(5), async || {
                (client.get("shared").await.unwrap().value.as_deref() == Some(value.as_bytes())).then_some(())
            })
            .await;
        }
        slowest = slowest.max(wait::now() - set);
    }
    println!("outside writes were seen by every node within {slowest:?}");
    assert!(slowest <= SEEN_WITHIN, "an outside write was seen after {slowest:?}");
    redis.cli(&["FLUSHDB"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_be_away_and_what_is_written_meanwhile_is_there_when_it_is_back() {
    let Some(mut redis) = Redis::place() else { return };
    redis.start();
    let cluster = Cluster::start_with(&["--main-memory", &redis.url()]).await;
    let clients = clients(&cluster).await;
    clients[0].put("cached", "value").await.unwrap();
    clients[0].put("alone", "in redis").await.unwrap();
    reaches(&redis, "cached", "value").await;
    reaches(&redis, "alone", "in redis").await;
    for outage in 0..2 {
        clients[2].put("mine", format!("mine {outage}")).await.unwrap();
        redis.kill();
        // What a node owns is served and written as ever, for longer than a value may be dirty.
        for count in 0..40 {
            clients[2].put("mine", format!("{outage}.{count}")).await.unwrap();
            let got = clients[2].get("mine").await.unwrap();
            assert_eq!(got.value.unwrap(), format!("{outage}.{count}"));
            clients[count % NODES].put(format!("new-{outage}-{count}"), format!("{count}")).await.unwrap();
        }
        // The others read what is written, too.
        assert_eq!(clients[0].get("mine").await.unwrap().value.unwrap(), format!("{outage}.39"));
        // What Redis alone has cannot be read, and the error says why.
        let error = wait::until("a key that is in Redis alone", Duration::from_secs(5), async || {
            clients[1].get("never-read").await.err()
        })
        .await;
        assert_eq!(error.code, ErrorCode::MainMemoryAway, "{error}");
        assert_eq!(clients[1].add("never-read", 1).await.unwrap_err().code, ErrorCode::MainMemoryAway);
        redis.start();
        for count in 0..40 {
            reaches(&redis, &format!("new-{outage}-{count}"), &format!("{count}")).await;
        }
        reaches(&redis, "mine", &format!("{outage}.39")).await;
        for client in &clients {
            wait::until("Redis to be back", Duration::from_secs(5), async || {
                client.get("alone").await.ok().filter(|got| got.value.as_deref() == Some(b"in redis"))
            })
            .await;
            assert_eq!(client.get("cached").await.unwrap().value.unwrap(), "value");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_starts_without_its_redis_says_so_and_goes_on_when_it_comes() {
    let Some(mut redis) = Redis::place() else { return };
    let place = crate::cluster::Place::take();
    let _up = place.up(&["--main-memory", &redis.url()]);
    let said = wait::until("a node that says why it is not ready", Duration::from_secs(30), async || {
        let mut said = None;
        for node in 1..=NODES {
            if let Ok(answer) = http::get(place.address(9000, node), "/readyz")
                && answer.text.contains("Redis")
            {
                said = Some(answer);
            }
        }
        said
    })
    .await;
    assert_eq!(said.status, 503, "{}", said.text);
    // Queue and lock need no Redis.
    let client = place.patient_client(&[1]).await;
    client.enqueue("q", "message").await.unwrap();
    redis.start();
    place.ready(&[1, 2, 3]).await;
    client.put("key", "value").await.unwrap();
    reaches(&redis, "key", "value").await;
}
