//! Which node listens where, and what its process is told.

use std::path::PathBuf;

use super::UpArgs;

/// What a port is for, and the port of node 0: the first node has the next one.
pub(super) const PORTS: [(&str, u16); 5] =
    [("clients", 4_100), ("peers", 4_200), ("queue HTTP", 7_999), ("lock HTTP", 8_999), ("cache HTTP", 6_999)];

/// The port of a node, counted from 1, for one of [`PORTS`]. The range of `--port-offset` keeps it a port.
pub(super) fn port(base: u16, number: u8, offset: u16) -> u16 {
    base + u16::from(number) + offset
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) client: String,
    pub(super) peer: String,
    pub(super) queue_http: String,
    pub(super) lock_http: String,
    pub(super) cache_http: String,
    /// Its own directory: `data` in it is the node's, `log` is ours.
    pub(super) directory: PathBuf,
    /// Everything after the program's name.
    pub(super) arguments: Vec<String>,
}

impl Node {
    fn new(args: &UpArgs, number: u8) -> Self {
        let name = format!("node{number}");
        let [client, peer, queue_http, lock_http, cache_http] =
            PORTS.map(|(_, base)| address(port(base, number, args.port_offset)));
        let directory = args.data_dir.join(&name);
        Self { name, client, peer, queue_http, lock_http, cache_http, directory, arguments: Vec::new() }
    }

    /// As `--member` takes it. Of the three HTTP addresses the lock's is advertised, for redirects point there.
    pub(super) fn member(&self) -> String {
        [self.name.as_str(), &self.client, &self.peer, &self.lock_http].join(",")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}

/// The whole cluster.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) nodes: Vec<Node>,
    cluster_id: u64,
    data_dir: PathBuf,
    port_offset: u16,
}

impl Plan {
    pub(super) fn new(args: &UpArgs, cluster_id: u64) -> Self {
        let mut nodes: Vec<Node> = (1..=args.nodes).map(|number| Node::new(args, number)).collect();
        let members: Vec<String> = nodes.iter().map(Node::member).collect();
        for node in &mut nodes {
            node.arguments = arguments(node, &members, args, cluster_id);
        }
        Self { nodes, cluster_id, data_dir: args.data_dir.clone(), port_offset: args.port_offset }
    }

    /// What a person reads when the cluster is ready: where everything listens, and three things to try.
    pub(super) fn announcement(&self) -> String {
        let count = self.nodes.len();
        let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
        let (id, data_dir) = (self.cluster_id, self.data_dir.display());
        let mut out =
            format!("Trine {}: {nodes}, cluster {id:016x}, data in {data_dir}\n\n", env!("CARGO_PKG_VERSION"));
        let row = |cells: [&str; 6]| {
            let [name, queue, lock, cache, client, peer] = cells;
            format!("  {name:8}{queue:24}{lock:24}{cache:24}{client:18}{peer}\n")
        };
        out += &row(["", "queue", "lock", "cache", "clients", "peers"]);
        for node in &self.nodes {
            let [queue, lock, cache] =
                [&node.queue_http, &node.lock_http, &node.cache_http].map(|at| format!("http://{at}"));
            out += &row([&node.name, &queue, &lock, &cache, &node.client, &node.peer]);
        }
        let http = &self.nodes[0].queue_http;
        out += &format!("\n  documentation  http://{http}/docs\n  metrics        http://{http}/metrics\n");
        out += "\nTry, in another terminal:\n";
        let endpoints: Vec<&str> = self.nodes.iter().map(|node| node.client.as_str()).collect();
        if self.port_offset != 0 || count < 3 {
            out += &format!("  export TRINE_ENDPOINTS={}\n", endpoints.join(","));
        }
        out += "  trine status\n  trine queue push orders 'the first one'\n";
        out += &format!(
            "  curl -H 'Content-Type: application/json' -d '{{\"message\": \"Halo dari node 1\"}}' http://{http}/enqueue\n"
        );
        out += "\nCtrl-C stops the cluster; its data stays.\n";
        out
    }
}

/// Said in full, so that a `TRINE_*` variable meant for a client does not reach into the nodes.
fn arguments(node: &Node, members: &[String], args: &UpArgs, cluster_id: u64) -> Vec<String> {
    let data_dir = node.data().to_string_lossy().into_owned();
    let mut out: Vec<String> = vec!["serve".into()];
    let mut flag = |name: &str, value: &str| out.extend([name.to_owned(), value.to_owned()]);
    flag("--node", &node.name);
    for member in members {
        flag("--member", member);
    }
    flag("--data-dir", &data_dir);
    flag("--listen-client", &node.client);
    flag("--listen-peer", &node.peer);
    for at in [&node.queue_http, &node.lock_http, &node.cache_http] {
        flag("--listen-http", at);
    }
    flag("--cluster-id", &format!("{cluster_id:016x}"));
    flag("--groups", &args.groups.to_string());
    flag("--log", &args.log_filter);
    flag("--memory-mb", &args.memory_mb.to_string());
    if let Some(url) = &args.main_memory {
        flag("--main-memory", url);
    }
    for prefix in &args.write_through {
        flag("--write-through", prefix);
    }
    flag("--log-format", "text");
    if args.redirect_locks {
        out.push("--redirect-locks".into());
    }
    out.push("--until-stdin-closes".into());
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::PORT_OFFSET_MAX;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        up: UpArgs,
    }

    #[derive(Parser)]
    struct Serve {
        #[command(flatten)]
        serve: crate::config::ServeArgs,
    }

    fn plan(line: &str) -> Plan {
        let words = std::iter::once("up").chain(line.split_whitespace());
        Plan::new(&Line::try_parse_from(words).unwrap().up, 0xab)
    }

    #[test]
    fn nodes_listen_at_the_established_addresses() {
        let plan = plan("");
        let second = &plan.nodes[1];
        let at = [&second.client, &second.peer, &second.queue_http, &second.lock_http, &second.cache_http];
        assert_eq!(at, ["127.0.0.1:4102", "127.0.0.1:4202", "127.0.0.1:8001", "127.0.0.1:9001", "127.0.0.1:7001"]);
        let text = plan.announcement();
        for want in ["http://127.0.0.1:8000 ", "http://127.0.0.1:9002 ", "http://127.0.0.1:7001 ", "00000000000000ab"] {
            assert!(text.contains(want), "{text}");
        }
        assert!(!text.contains("TRINE_ENDPOINTS"));
        let moved = super::tests::plan("--port-offset 100 --nodes 1");
        assert_eq!(moved.nodes[0].cache_http, "127.0.0.1:7100");
        assert!(moved.announcement().contains("TRINE_ENDPOINTS=127.0.0.1:4201\n"));
    }

    #[test]
    fn the_highest_port_is_a_port() {
        let last = plan(&format!("--nodes 7 --port-offset {PORT_OFFSET_MAX}"));
        assert_eq!(last.nodes[6].lock_http, "127.0.0.1:65535");
    }

    #[test]
    fn a_node_understands_what_it_is_told() {
        for node in plan("--redirect-locks --groups 5 --data-dir /d --log warn").nodes {
            let args = Serve::try_parse_from(&node.arguments).unwrap().serve;
            assert!(args.until_stdin_closes && args.redirect_locks);
            assert_eq!((args.groups, args.cluster_id, args.log_filter.as_str()), (5, Some(0xab), "warn"));
            assert_eq!((args.members.len(), args.listen_http.len()), (3, 3));
            assert_eq!(args.data_dir, PathBuf::from(format!("/d/{}/data", node.name)));
            let config = crate::config::ServeConfig::new(args).unwrap();
            assert_eq!(config.own().http.as_str(), node.lock_http);
        }
    }
}
