//! The ports of a node, bound before anything else is done: a port in use must not cost a data directory.

use std::io;

use tokio::net::TcpListener;

use crate::config::{Address, ServeConfig};

/// Every listener of a node.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) client: TcpListener,
    pub(super) peer: TcpListener,
    pub(super) http: Vec<TcpListener>,
}

/// An address that cannot be listened on; one line for a person.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}: {source}{hint}")]
pub struct CannotListen {
    address: Address,
    what: &'static str,
    source: io::Error,
    hint: &'static str,
}

impl Listeners {
    pub(super) async fn bind(config: &ServeConfig) -> Result<Self, CannotListen> {
        let client = bind(&config.listen_client, "clients").await?;
        let peer = bind(&config.listen_peer, "peers").await?;
        let mut http = Vec::new();
        for address in &config.listen_http {
            http.push(bind(address, "HTTP").await?);
        }
        Ok(Self { client, peer, http })
    }
}

async fn bind(address: &Address, what: &'static str) -> Result<TcpListener, CannotListen> {
    TcpListener::bind(address.as_str()).await.map_err(|source| {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => "; is another node running? `trine up --port-offset N` moves all ports by N",
            _ => "",
        };
        CannotListen { address: address.clone(), what, source, hint }
    })
}

/// Asks the system for as many open files as it gives: a connection is one, and the usual limit is 1,024.
pub(super) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!(limit = ?limit.current, "the limit of open files could not be raised");
    }
}
