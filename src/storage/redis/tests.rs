//! On a real `redis-server`. Where there is none they say so and pass, unless `TRINE_REQUIRE_REDIS=1` says that it has to be there.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use trine_protocol::cache::Version;

use super::*;
use crate::ids::GroupId;

const GROUP: GroupId = GroupId(3);
const CLUSTER: u64 = 0xfeed;

/// A server of its own, on a socket of its own: no port to collide on. Ends with the test.
struct Redis {
    process: Child,
    directory: tempfile::TempDir,
}

impl Redis {
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("redis.sock");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn();
        match process {
            Ok(process) => Some(Self { process, directory }),
            Err(why) if std::env::var("TRINE_REQUIRE_REDIS").is_ok_and(|value| value == "1") => {
                panic!("redis-server must be there: {why}")
            }
            Err(why) => {
                println!("skipped: no redis-server ({why})");
                None
            }
        }
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.directory.path().join("redis.sock").display())
    }

    /// Connects as soon as the server listens.
    async fn connect(&self) -> (Connection, mpsc::Receiver<Push>) {
        let server = Server::new(&self.url(), CLUSTER, None).expect("a URL");
        loop {
            let (sender, pushes) = mpsc::channel(100);
            match server.connect(sender).await {
                Ok(connection) => return (connection, pushes),
                Err(MemoryError::Lost(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Somebody else, as `redis-cli` would.
    async fn outside(&self, words: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.url()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut connection).await.expect("an answer")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn fence(term: u64, connection: u64) -> Fence {
    Fence { term, connection }
}

fn version(epoch: u64, count: u64) -> Version {
    Version { epoch, count }
}

#[tokio::test]
async fn what_is_written_is_read_with_its_version_and_is_plain_to_others() {
    let Some(redis) = Redis::start() else { return };
    let (connection, _pushes) = redis.connect().await;
    connection.raise(GROUP, fence(1, 1)).await.unwrap();
    let nothing = Stored { value: None, version: None, content_type: String::new() };
    assert_eq!(connection.read(GROUP, fence(1, 1), "k").await, Ok(nothing.clone()));
    let value = Bytes::from_static(b"\x00any\xff\r\n");
    connection.write(GROUP, fence(1, 1), "k", Some((&value, "text/plain")), version(7, 2)).await.unwrap();
    let stored = connection.read(GROUP, fence(1, 1), "k").await.unwrap();
    assert_eq!(
        stored,
        Stored { value: Some(value.clone()), version: Some(version(7, 2)), content_type: "text/plain".into() }
    );
    let plain = redis.outside(&["GET", "db:main_memory:k"]).await;
    assert_eq!(plain, redis::Value::BulkString(value.to_vec()));
    connection.write(GROUP, fence(1, 1), "k", None, version(7, 3)).await.unwrap();
    assert_eq!(connection.read(GROUP, fence(1, 1), "k").await, Ok(nothing));
    assert_eq!(redis.outside(&["EXISTS", "trine:line:k"]).await, redis::Value::Int(0));
}

#[tokio::test]
async fn no_older_home_and_no_older_connection_reads_or_writes() {
    let Some(redis) = Redis::start() else { return };
    let ((old, _a), (new, _b)) = (redis.connect().await, redis.connect().await);
    old.raise(GROUP, fence(9, 1)).await.unwrap();
    let value = Bytes::from_static(b"old");
    old.write(GROUP, fence(9, 1), "k", Some((&value, "")), version(1, 0)).await.unwrap();
    for higher in [fence(9, 2), fence(10, 1)] {
        new.raise(GROUP, higher).await.unwrap();
        let says = MemoryError::Fenced(higher.to_string());
        assert_eq!(old.write(GROUP, fence(9, 1), "k", None, version(1, 1)).await, Err(says.clone()));
        assert_eq!(old.read(GROUP, fence(9, 1), "k").await, Err(says.clone()));
        assert_eq!(old.raise(GROUP, fence(9, 1)).await, Err(says), "a fence is never lowered");
        assert_eq!(new.read(GROUP, higher, "k").await.unwrap().value, Some(value.clone()), "nothing of it landed");
    }
    old.raise(GroupId(4), fence(1, 1)).await.expect("the fence of another group is another one");
    redis.outside(&["FLUSHALL"]).await;
    let gone = MemoryError::Fenced("gone".into());
    assert_eq!(new.write(GROUP, fence(10, 1), "k", None, version(2, 0)).await, Err(gone));
}

/// The next push that is not about our own writes of `k`.
async fn told(pushes: &mut mpsc::Receiver<Push>) -> Push {
    loop {
        let push = pushes.recv().await.expect("the connection is there");
        if push != Push::Outside(vec!["k".into()]) {
            return push;
        }
    }
}

#[tokio::test]
async fn what_others_write_is_told_and_no_value_of_ours() {
    let Some(redis) = Redis::start() else { return };
    let (connection, mut pushes) = redis.connect().await;
    connection.raise(GROUP, fence(1, 1)).await.unwrap();
    let value = Bytes::from_static(b"ours");
    connection.write(GROUP, fence(1, 1), "k", Some((&value, "text/plain")), version(7, 2)).await.unwrap();
    assert_eq!(connection.read(GROUP, fence(1, 1), "k").await.unwrap().version, Some(version(7, 2)), "ours");
    redis.outside(&["SET", "unrelated", "x"]).await;
    redis.outside(&["SET", "db:main_memory:other", "theirs"]).await;
    assert_eq!(told(&mut pushes).await, Push::Outside(vec!["other".into()]));
    redis.outside(&["SET", "db:main_memory:k", "theirs"]).await;
    assert_eq!(pushes.recv().await, Some(Push::Outside(vec!["k".into()])));
    let stored = connection.read(GROUP, fence(1, 1), "k").await.unwrap();
    assert_eq!(
        stored,
        Stored { value: Some(Bytes::from_static(b"theirs")), version: None, content_type: String::new() }
    );
    redis.outside(&["FLUSHALL"]).await;
    assert_eq!(told(&mut pushes).await, Push::Emptied);
}

#[tokio::test]
async fn a_server_that_ends_is_told_and_its_successor_is_another() {
    let Some(mut redis) = Redis::start() else { return };
    let (connection, mut pushes) = redis.connect().await;
    connection.raise(GROUP, fence(1, 1)).await.unwrap();
    let value = Bytes::from_static(b"kept");
    connection.write(GROUP, fence(1, 1), "k", Some((&value, "")), version(1, 0)).await.unwrap();
    redis.process.kill().unwrap();
    redis.process.wait().unwrap();
    assert_eq!(told(&mut pushes).await, Push::Lost);
    assert!(matches!(connection.read(GROUP, fence(1, 1), "k").await, Err(MemoryError::Lost(_))));
    let restarted = Command::new("redis-server")
        .args(["--port", "0", "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--unixsocket"])
        .arg(redis.directory.path().join("redis.sock"))
        .arg("--dir")
        .arg(redis.directory.path())
        .stdout(Stdio::null())
        .spawn();
    redis.process = restarted.unwrap();
    let (again, _pushes) = redis.connect().await;
    assert_ne!(again.run_id, connection.run_id);
    again.raise(GROUP, fence(1, 2)).await.unwrap();
    assert_eq!(again.read(GROUP, fence(1, 2), "k").await.unwrap().value, Some(value), "appendfsync always");
}

#[tokio::test]
async fn what_redis_cannot_do_has_a_name() {
    let Some(redis) = Redis::start() else { return };
    let (connection, _pushes) = redis.connect().await;
    assert_eq!(connection.durability, Durability::default());
    connection.raise(GROUP, fence(1, 1)).await.unwrap();
    redis.outside(&["RPUSH", "db:main_memory:list", "x"]).await;
    assert_eq!(connection.read(GROUP, fence(1, 1), "list").await, Err(MemoryError::NoString("list".into())));
    redis.outside(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let value = Bytes::from_static(b"x");
    let full = connection.write(GROUP, fence(1, 1), "k", Some((&value, "")), version(1, 0)).await;
    assert!(matches!(full, Err(MemoryError::Full(_))), "{full:?}");
    for (setting, other) in
        [("maxmemory", "0"), ("appendfsync", "everysec"), ("appendonly", "no"), ("maxmemory-policy", "allkeys-lru")]
    {
        redis.outside(&["CONFIG", "SET", setting, other]).await;
    }
    let (warned, _pushes) = redis.connect().await;
    assert_eq!(warned.durability.warnings.len(), 3, "{:?}", warned.durability);
    redis.outside(&["SET", "trine:cluster", "0000000000000abc"]).await;
    let other = warned.raise(GROUP, fence(2, 1)).await;
    assert_eq!(other, Err(MemoryError::OtherCluster("0000000000000abc".into())));
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_with_what_would_be_one() {
    let error = Server::new("http://host", CLUSTER, None).unwrap_err();
    assert!(error.contains("redis://HOST:PORT/DB"), "{error}");
    let nobody = Server::new("redis://127.0.0.1:1", CLUSTER, None).expect("a URL");
    let (sender, _pushes) = mpsc::channel(1);
    assert!(matches!(nobody.connect(sender).await, Err(MemoryError::Lost(_))));
}

/// A server that speaks TLS only, with a certificate of its own for this machine's name.
fn start_with_tls() -> Option<(Redis, u16, String)> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let directory = tempfile::tempdir().expect("a directory");
    let (certificate, key) = (directory.path().join("certificate.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, certified.cert.pem()).expect("a file");
    std::fs::write(&key, certified.signing_key.serialize_pem()).expect("a file");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let process = Command::new("redis-server")
        .args(["--port", "0", "--bind", "127.0.0.1", "--save", "", "--tls-auth-clients", "no", "--tls-port"])
        .arg(port.to_string())
        .arg("--tls-cert-file")
        .arg(&certificate)
        .arg("--tls-key-file")
        .arg(&key)
        .arg("--tls-ca-cert-file")
        .arg(&certificate)
        .arg("--dir")
        .arg(directory.path())
        .stdout(Stdio::null())
        .spawn()
        .ok()?;
    Some((Redis { process, directory }, port, certified.cert.pem()))
}

#[tokio::test]
async fn a_connection_with_tls_trusts_the_authority_that_it_was_given_and_no_other() {
    // Where there is no redis-server, the other tests say so.
    let Some((_redis, port, pem)) = start_with_tls() else { return };
    let url = format!("rediss://localhost:{port}/0");
    let server = Server::new(&url, CLUSTER, Some(pem.into_bytes())).expect("a URL");
    let connection = loop {
        let (sender, _pushes) = mpsc::channel(100);
        match server.connect(sender).await {
            Ok(connection) => break connection,
            Err(MemoryError::Lost(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(other) => panic!("{other}"),
        }
    };
    connection.raise(GROUP, Fence { term: 1, connection: 1 }).await.expect("a fence, over TLS");
    // The server is up now: whoever does not know its certificate is not let down by its absence, but refuses it.
    let stranger = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate").cert.pem();
    for authority in [None, Some(stranger.into_bytes())] {
        let server = Server::new(&url, CLUSTER, authority).expect("a URL");
        let Err(refused) = server.connect(mpsc::channel(1).0).await else {
            panic!("a certificate that nobody vouches for was taken")
        };
        assert!(refused.to_string().contains("certificate"), "{refused}");
    }
    let plain = Server::new(&format!("redis://localhost:{port}/0"), CLUSTER, None).expect("a URL");
    assert!(plain.connect(mpsc::channel(1).0).await.is_err(), "without TLS there is no answer");
    let useless = Server::new("redis://localhost/0", CLUSTER, Some(Vec::new())).unwrap_err();
    assert!(useless.contains("rediss://"), "{useless}");
}
