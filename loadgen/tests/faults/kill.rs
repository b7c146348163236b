//! Nodes are killed one after the other. The cluster is `trine up`, which starts a dead node again.

use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{Process, alone, endpoints, free_offset, says_yes, until};
use crate::generator::Generator;

/// For how long rounds are begun; the nodes are killed meanwhile.
const DURATION: &str = "25s";
/// Nodes that are killed.
const KILLS: usize = 3;
const NODES: u16 = 3;

/// The ids of a process's children.
fn children(parent: &Child) -> Vec<Pid> {
    let id = parent.id();
    let listed = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Kills nodes one after the other, each when all are ready again.
fn kill_nodes(cluster: &Child, offset: u16) {
    for number in 0..KILLS {
        let nodes = until("every node is ready", || {
            let nodes = children(cluster);
            let ready = nodes.len() == usize::from(NODES) && (0..NODES).all(|node| says_yes(offset, node, "/readyz"));
            ready.then_some(nodes)
        });
        let victim = nodes[number % nodes.len()];
        kill_process(victim, Signal::KILL).expect("a node of ours takes a signal");
        until("the killed node is gone", || (!children(cluster).contains(&victim)).then_some(()));
    }
}

#[test]
fn nothing_is_lost_or_stale_while_nodes_are_killed() {
    let _machine = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let offset = free_offset([16_000, 16_010, 16_020, 16_030]);
    let arguments = ["up", "--port-offset", &offset.to_string(), "--data-dir", "data"].map(str::to_owned);
    let cluster = Process::trine(folder.path(), "up", &arguments);
    until("the cluster is ready", || (0..NODES).all(|node| says_yes(offset, node, "/readyz")).then_some(()));
    let mut generator = Generator::start(&endpoints(offset, NODES), DURATION);
    kill_nodes(&cluster.0, offset);
    assert!(generator.is_running(), "the load ended before the last node was killed");
    generator.finish();
}
