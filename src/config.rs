//! What a node is told when it starts: flags, environment, and what they must be.
//!
//! [`ServeArgs`] is the command line as clap reads it, each flag with its `TRINE_*` variable; [`ServeConfig`] is the same
//! checked and completed. A member has three **advertised** addresses, which others use; the addresses that a node
//! **listens** on are its own, and default to what it advertises. They differ behind NAT and in containers.
//!
//! # Invariants
//! - A [`ServeConfig`] is whole: the node is one of the members, names and addresses are unique, every address has a port.
//! - Every complaint is one line that says what was given and what would be right.
//!
//! # Caveats
//! - The members are those of the cluster's beginning. Once a node has heard of a newer list of nodes, it keeps that one and looks at
//!   `--member` no more, its own addresses included.
//! - Credentials on the command line can be seen in the process table; the environment variable is the better place.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use bytes::Bytes;
use trine_protocol::cluster::NodeStanding;
use trine_protocol::limits;

use crate::ids::NodeId;
use crate::node::Roster;
use crate::node::roster::{Listed, NODES_MAX};

/// Groups of a cluster where nothing else is said: with three nodes each leads one.
pub const GROUPS_DEFAULT: u32 = 3;
/// Voters of a group where nothing else is said: one may fail.
pub const REPLICAS_DEFAULT: u32 = 3;
/// MiB of memory that a node is sized for where nothing else is said.
pub const MEMORY_MB_DEFAULT: u32 = 1024;
/// The least that it can be told: below this a node would wait for its disk at every turn.
pub const MEMORY_MB_MIN: u32 = 64;
/// Members of a cluster: every node is on the bus of every group and connected to every other node.
pub const MEMBERS_MAX: usize = NODES_MAX;

/// The arguments of `trine serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Name of this node, one of the members.
    #[arg(long, env = "TRINE_NODE", value_name = "NAME")]
    pub node: NodeId,
    /// A member of the cluster with its advertised addresses; once for each, this node among them, the same on every node.
    #[arg(
        long = "member",
        env = "TRINE_MEMBERS",
        value_delimiter = ' ',
        required = true,
        value_name = "NAME,CLIENT_ADDR,PEER_ADDR,HTTP_ADDR"
    )]
    pub members: Vec<Member>,
    /// Directory for everything this node keeps; made where it does not exist.
    #[arg(long, env = "TRINE_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Address to listen on for clients; by default the advertised one.
    #[arg(long, env = "TRINE_LISTEN_CLIENT", value_name = "ADDR")]
    pub listen_client: Option<Address>,
    /// Address to listen on for the other nodes; by default the advertised one.
    #[arg(long, env = "TRINE_LISTEN_PEER", value_name = "ADDR")]
    pub listen_peer: Option<Address>,
    /// Address to listen on for HTTP, may be repeated; by default the advertised one.
    #[arg(long, env = "TRINE_LISTEN_HTTP", value_delimiter = ' ', value_name = "ADDR")]
    pub listen_http: Vec<Address>,
    /// The cluster's number, 16 hexadecimal digits; needed at the first start, read from the data directory after that.
    #[arg(long, env = "TRINE_CLUSTER_ID", value_name = "HEX", value_parser = parse_cluster_id)]
    pub cluster_id: Option<u64>,
    /// Join a cluster that is there: this node takes part when `trine cluster add` has let it in. The members are this node, and
    /// one or more of that cluster to hear of the others from.
    #[arg(long, env = "TRINE_JOIN")]
    pub join: bool,
    /// Raft groups of the cluster; fixed when it is created.
    #[arg(long, env = "TRINE_GROUPS", default_value_t = GROUPS_DEFAULT)]
    pub groups: u32,
    /// Voters of each group; at most as many as there are members.
    #[arg(long, env = "TRINE_REPLICAS", default_value_t = REPLICAS_DEFAULT)]
    pub replicas: u32,
    /// Answer lock requests over HTTP with 307 and the leader's address, where this node does not lead.
    #[arg(long, env = "TRINE_REDIRECT_LOCKS")]
    pub redirect_locks: bool,
    /// Redis as the cache's main memory, such as redis://:PASSWORD@HOST:6379/0: the same one for all nodes. Without it the nodes keep
    /// the values themselves.
    #[arg(long, env = "TRINE_MAIN_MEMORY", hide_env_values = true, value_name = "URL")]
    pub main_memory: Option<String>,
    /// Certificates (PEM) that a Redis behind rediss:// must have its own from; without it those that this machine trusts, or the
    /// file that SSL_CERT_FILE names.
    #[arg(long, env = "TRINE_MAIN_MEMORY_CA", value_name = "FILE", requires = "main_memory")]
    pub main_memory_ca: Option<PathBuf>,
    /// Cache keys that begin so are written through: acknowledged when a majority has the value, not when this node's disk has. May be given
    /// more than once.
    #[arg(long, env = "TRINE_WRITE_THROUGH", value_name = "PREFIX", value_delimiter = ' ')]
    pub write_through: Vec<String>,
    /// MiB of memory that this node sizes its caches and buffers for, 64 or more. State is not bounded by it: the index of queues, locks, the
    /// cache's main memory.
    #[arg(long, env = "TRINE_MEMORY_MB", default_value_t = MEMORY_MB_DEFAULT, value_name = "MIB", value_parser = clap::value_parser!(u32).range(i64::from(MEMORY_MB_MIN)..))]
    pub memory_mb: u32,
    /// Secret that clients and peers must show.
    #[arg(long, env = "TRINE_CREDENTIALS", hide_env_values = true, value_name = "SECRET")]
    pub credentials: Option<String>,
    /// What to log, as in RUST_LOG.
    #[arg(long = "log", env = "TRINE_LOG", default_value = "info", value_name = "FILTER")]
    pub log_filter: String,
    /// How to write log lines, on standard error.
    #[arg(long, env = "TRINE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// End when standard input is closed, so that a parent's children end with it however it ends.
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
    /// Times that tests shorten.
    #[command(flatten)]
    pub timing: TimingArgs,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a person.
    Text,
    /// One object a line.
    Json,
}

/// Times in milliseconds that replace the defaults; for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct TimingArgs {
    /// Between two heartbeats.
    #[arg(long, hide = true)]
    pub heartbeat_ms: Option<u64>,
    /// Shortest election timeout; the longest is twice that.
    #[arg(long, hide = true)]
    pub election_ms: Option<u64>,
    /// Leader lease.
    #[arg(long, hide = true)]
    pub leader_lease_ms: Option<u64>,
    /// Bus lease; renewed four times in it.
    #[arg(long, hide = true)]
    pub bus_lease_ms: Option<u64>,
    /// Longest time that a value stays dirty.
    #[arg(long, hide = true)]
    pub dirty_ms_max: Option<u64>,
}

/// `host:port`; the host may be a name or an address, IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(String);

impl Address {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host alone.
    pub fn host(&self) -> &str {
        self.0.rsplit_once(':').map_or("", |(host, _)| host)
    }

    /// The port alone.
    pub fn port(&self) -> u16 {
        self.0.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let complaint = || format!("'{text}' is no address: host:port is, such as 127.0.0.1:4101");
        let (host, port) = text.rsplit_once(':').ok_or_else(complaint)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || host.contains(char::is_whitespace) || (host.contains(':') && !bracketed) {
            return Err(complaint());
        }
        port.parse::<u16>().map_err(|_| complaint())?;
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One node of the cluster with its advertised addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: NodeId,
    /// For clients of the binary protocol.
    pub client: Address,
    /// For the other nodes.
    pub peer: Address,
    /// The lock address of its HTTP service.
    pub http: Address,
}

impl FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let [name, client, peer, http] = text.split(',').collect::<Vec<_>>()[..] else {
            return Err(format!("'{text}' is no member: NAME,CLIENT_ADDR,PEER_ADDR,HTTP_ADDR is"));
        };
        Ok(Self { name: name.parse()?, client: client.parse()?, peer: peer.parse()?, http: http.parse()? })
    }
}

fn parse_cluster_id(text: &str) -> Result<u64, String> {
    match u64::from_str_radix(text, 16) {
        Ok(id) if id != 0 => Ok(id),
        _ => Err(format!("'{text}' is no cluster id: 1 to 16 hexadecimal digits are, not all of them 0")),
    }
}

/// A configuration that a node cannot start with; one line for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// What a node is told, checked.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// This node.
    pub node: NodeId,
    /// Every node of the cluster, this one included, in the order of their names.
    pub members: Vec<Member>,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// Bound for clients.
    pub listen_client: Address,
    /// Bound for peers.
    pub listen_peer: Address,
    /// Bound for HTTP.
    pub listen_http: Vec<Address>,
    /// The cluster's number, where it was given.
    pub cluster_id: Option<u64>,
    /// Groups of the cluster.
    pub groups: u32,
    /// Voters of each group.
    pub replicas: u32,
    /// Whether the node joins a cluster that is there.
    pub join: bool,
    /// Whether a follower redirects lock requests over HTTP.
    pub redirect_locks: bool,
    /// Redis as main memory; None where the nodes keep the values themselves.
    pub main_memory: Option<String>,
    /// Whose certificates are trusted in Redis, a file.
    pub main_memory_ca: Option<PathBuf>,
    /// Cache keys that begin so are written through.
    pub write_through: Vec<String>,
    /// MiB of memory that caches and buffers are sized for.
    pub memory_mb: u32,
    /// What clients and peers must show; empty where nothing.
    pub credentials: Bytes,
    /// Times that replace the defaults.
    pub timing: TimingArgs,
}

impl ServeConfig {
    /// Checks and completes the arguments.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line.
    pub fn new(args: ServeArgs) -> Result<Self, ConfigError> {
        let mut members = args.members;
        members.sort_by_key(|member| member.name);
        let own = members.iter().find(|member| member.name == args.node).cloned();
        let own = own.ok_or_else(|| {
            let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            ConfigError(format!("--node {} is none of the members: {}", args.node, names.join(", ")))
        })?;
        let listen_http = if args.listen_http.is_empty() { vec![own.http] } else { args.listen_http };
        let config = Self {
            node: args.node,
            data_dir: args.data_dir,
            listen_client: args.listen_client.unwrap_or(own.client),
            listen_peer: args.listen_peer.unwrap_or(own.peer),
            listen_http,
            cluster_id: args.cluster_id,
            groups: args.groups,
            replicas: args.replicas,
            join: args.join,
            redirect_locks: args.redirect_locks,
            main_memory: args.main_memory,
            main_memory_ca: args.main_memory_ca,
            write_through: args.write_through,
            memory_mb: args.memory_mb,
            credentials: args.credentials.map(Bytes::from).unwrap_or_default(),
            timing: args.timing,
            members,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let fail = |complaint: String| Err(ConfigError(complaint));
        if self.members.len() > MEMBERS_MAX {
            return fail(format!("{} members are too many: a cluster has at most {MEMBERS_MAX}", self.members.len()));
        }
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for member in &self.members {
            if !names.insert(member.name) {
                return fail(format!("--member {} is there twice", member.name));
            }
            for address in [&member.client, &member.peer, &member.http] {
                if address.port() == 0 {
                    return fail(format!(
                        "--member {}: {address} has port 0, which nobody can connect to",
                        member.name
                    ));
                }
                if !addresses.insert(address) {
                    return fail(format!("--member {}: {address} is there twice", member.name));
                }
            }
        }
        if !(1..=limits::GROUPS_MAX).contains(&self.groups) {
            return fail(format!("--groups {} is out of range: 1 to {} is right", self.groups, limits::GROUPS_MAX));
        }
        if self.replicas == 0 {
            return fail("--replicas 0 keeps nothing: 1 or more is right, 3 survives the loss of one node".into());
        }
        if self.credentials.len() > limits::CREDENTIALS_BYTES_MAX {
            let (given, bytes_max) = (self.credentials.len(), limits::CREDENTIALS_BYTES_MAX);
            return fail(format!("--credentials has {given} bytes, at most {bytes_max} are allowed"));
        }
        self.check_timing()
    }

    fn check_timing(&self) -> Result<(), ConfigError> {
        let TimingArgs { heartbeat_ms, election_ms, leader_lease_ms, bus_lease_ms, dirty_ms_max } = self.timing;
        if [heartbeat_ms, election_ms, leader_lease_ms, bus_lease_ms, dirty_ms_max].contains(&Some(0)) {
            return Err(ConfigError("a time of 0 ms is out of range: 1 or more is right".into()));
        }
        let (heartbeat_ms, election_ms) = (heartbeat_ms.unwrap_or(100), election_ms.unwrap_or(600));
        let leader_lease_ms = leader_lease_ms.unwrap_or(500);
        if heartbeat_ms >= leader_lease_ms || leader_lease_ms >= election_ms {
            return Err(ConfigError(format!(
                "heartbeat {heartbeat_ms} ms, leader lease {leader_lease_ms} ms and election timeout {election_ms} ms must grow in this order"
            )));
        }
        Ok(())
    }

    /// This node's own entry in the list of members.
    pub fn own(&self) -> &Member {
        self.members.iter().find(|member| member.name == self.node).expect("checked when it was made")
    }

    /// The list of nodes that the cluster begins with, or, for a node that joins, the one that it begins to ask with.
    pub fn roster(&self) -> Roster {
        roster_of(&self.members, self.replicas)
    }
}

/// The list of nodes that a cluster of these members begins with.
pub fn roster_of(members: &[Member], replicas: u32) -> Roster {
    let listed = |member: &Member| Listed {
        incarnation: None,
        client: member.client.to_string(),
        peer: member.peer.to_string(),
        http: member.http.to_string(),
        standing: NodeStanding::Voter,
    };
    let nodes = members.iter().map(|member| (member.name, listed(member))).collect();
    Roster { version: 0, replicas, nodes }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::ids::{GroupId, ReplicaId};

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn parse(line: &str) -> Result<ServeConfig, String> {
        let words = std::iter::once("serve").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        ServeConfig::new(line.args).map_err(|error| error.to_string())
    }

    fn member(number: u16) -> String {
        format!("--member node{number},h:{},h:{},h:{}", 4100 + number, 4200 + number, 8999 + number)
    }

    fn three() -> String {
        // Out of order: the order on the command line must not decide where groups live.
        format!("--node node2 --data-dir d {} {} {}", member(3), member(1), member(2))
    }

    #[test]
    fn what_is_not_said_comes_from_the_own_member() {
        let config = parse(&three()).unwrap();
        assert_eq!(config.roster().names(), [1, 2, 3].map(NodeId::numbered));
        assert_eq!((config.listen_client.as_str(), config.listen_peer.as_str()), ("h:4102", "h:4202"));
        assert_eq!(config.listen_http, ["h:9001".parse().unwrap()]);
        let config = parse(&format!("{} --listen-http [::1]:1 --listen-http 0.0.0.0:2", three())).unwrap();
        assert_eq!(config.listen_http, ["[::1]:1".parse().unwrap(), "0.0.0.0:2".parse().unwrap()]);
        assert!(config.listen_http[0].is_loopback() && !config.listen_http[1].is_loopback());
    }

    #[test]
    fn groups_are_spread_over_the_nodes() {
        let four = format!("{} {}", three(), member(4));
        let roster = parse(&four).unwrap().roster();
        let placement = |group| roster.placement(GroupId(group), false);
        let voters = |group| placement(group).iter().map(|id| id.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(voters(0), "node1 node2 node3");
        assert_eq!(voters(1), "node2 node3 node4");
        assert_eq!(voters(2), "node3 node4 node1");
        assert_eq!(voters(3), "node4 node1 node2");
        assert_eq!(voters(4), "node1 node2 node3");
        let one = parse(&format!("--node node1 --data-dir d {}", member(1))).unwrap();
        assert_eq!(one.roster().placement(GroupId(2), false), [ReplicaId::founder(NodeId::numbered(1))]);
    }

    #[test]
    fn each_mistake_has_its_line() {
        let cases = [
            (three().replace("node2 --data", "node9 --data"), "none of the members: node1, node2, node3"),
            (format!("{} {}", three(), member(1)), "node1 is there twice"),
            (three().replace("h:4103", "h:4101"), "h:4101 is there twice"),
            (three().replace("h:4103", "h:0"), "port 0"),
            (three().replace("h:4103", "h4103"), "'h4103' is no address"),
            (three().replace("h:4103", "::1:7"), "'::1:7' is no address"),
            (three().replace("h:4103", "h:70000"), "'h:70000' is no address"),
            (three().replace(",h:4103", ""), "is no member"),
            (three().replace("node3,", "Node3,"), "is no node name"),
            (format!("{} --groups 0", three()), "--groups 0 is out of range"),
            (format!("{} --replicas 0", three()), "--replicas 0"),
            (format!("{} --cluster-id xyz", three()), "'xyz' is no cluster id"),
            (format!("{} --cluster-id 0", three()), "'0' is no cluster id"),
            (format!("{} --heartbeat-ms 500", three()), "must grow in this order"),
            (format!("{} --bus-lease-ms 0", three()), "0 ms is out of range"),
            ("--node node1 --data-dir d".into(), "--member"),
        ];
        for (line, complaint) in cases {
            let error = parse(&line).expect_err(&line);
            assert!(error.contains(complaint), "{line}\n{error}");
        }
    }
}
