//! The contract in another language: the client in `protocol/examples/client.py`, which was written from `protocol/README.md` alone, against
//! a real cluster. Where there is no `python3` with `msgpack` the test says so and passes, unless `TRINE_REQUIRE_PYTHON=1` says that they
//! have to be there.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::cluster::Cluster;

/// A Python of one's own may come first in the path; Debian's modules are there for Debian's alone.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];
const LOOK: &str = "import sys; assert sys.version_info >= (3, 11), 'it is older than 3.11'; import msgpack";

/// The first Python that has what the script needs.
fn python() -> Option<&'static str> {
    let complaint = |python: &str| match Command::new(python).args(["-c", LOOK]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()),
        Err(why) => Some(why.to_string()),
    };
    if let Some(python) = PYTHONS.into_iter().find(|python| complaint(python).is_none()) {
        return Some(python);
    }
    let why = complaint(PYTHONS[0]).unwrap_or_default();
    let required = std::env::var("TRINE_REQUIRE_PYTHON").is_ok_and(|value| value == "1");
    assert!(!required, "python3, 3.11 or newer, and its module msgpack must be there: {why}");
    println!("skipped: no python3 of 3.11 or newer with msgpack ({why})");
    None
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol/examples/client.py")
}

/// What the script prints and how it ends, against the node at this address.
fn run(python: &str, address: &str) -> (Option<i32>, String) {
    let ended = Command::new(python).arg("-B").arg(script()).arg(address).output();
    let Output { status, stdout, stderr } = ended.expect("python3 starts");
    let printed = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    println!("{printed}");
    (status.code(), printed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_written_from_the_contract_alone_works() {
    let Some(python) = python() else { return };
    let mut cluster = Cluster::start().await;
    for node in 1..=3 {
        let (code, printed) = run(python, &cluster.place.address(4101, node).to_string());
        assert_eq!(code, Some(0), "{printed}");
        let subjects =
            ["placement", "connected", "hint", "lock", "queue", "session", "push", "cache", "all as promised"];
        for subject in subjects {
            assert!(printed.lines().any(|line| line.starts_with(subject)), "nothing of '{subject}' in: {printed}");
        }
    }

    // With a node away, who leads what changes under the client; it finds its way.
    let leader = cluster.place.leader(0).await;
    cluster.node(leader).kill();
    let asked = leader % 3 + 1;
    let (code, printed) = run(python, &cluster.place.address(4101, asked).to_string());
    assert_eq!(code, Some(0), "{printed}");

    // And what is not as it should be ends with 1 and says why.
    let (code, printed) = run(python, &cluster.place.address(4101, leader).to_string());
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("not as promised: no connection to"), "{printed}");
    let (code, printed) = run(python, &cluster.place.address(8000, asked).to_string());
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("not as promised: "), "{printed}");
}
