//! The listening side of the handshake: what a hello must be for this node and this port.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use trine_protocol::frame::Frame;
use trine_protocol::handshake::{self, Hello, Role};
use trine_protocol::limits::HANDSHAKE_MS_MAX;
use trine_protocol::{Error, ErrorCode};

use crate::ids::{Incarnation, NodeId};
use crate::metrics::{self, Refused};
use crate::server::log_limit;

use super::Connection;

/// What a node says of itself in a handshake, and what it asks of the other side.
#[derive(Clone, Debug)]
pub struct Local {
    /// Its name.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// Its cluster.
    pub cluster_id: u64,
    /// Groups of the cluster.
    pub groups: u32,
    /// What the other side must show; empty where nothing.
    pub credentials: Bytes,
}

impl Local {
    /// Judges a hello that came in on the port for `role`, and makes the answer.
    fn judge(&self, hello: &Hello, role: Role) -> Result<Frame, Error> {
        let welcome = handshake::welcome(hello, self.node.as_str(), self.incarnation.0, self.cluster_id, self.groups)?;
        if hello.role != role {
            let message = format!("this port is for the role {role:?}, the hello says {:?}", hello.role);
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        if !self.credentials.is_empty() && !same(&self.credentials, &hello.credentials) {
            return Err(Error::new(ErrorCode::Unauthenticated, "the credentials are missing or wrong"));
        }
        // A client may mean any cluster. A peer of no cluster would pass for one of every cluster.
        if role == Role::Peer && hello.cluster_id != self.cluster_id {
            return Err(Error::new(ErrorCode::WrongCluster, "a peer must name its cluster"));
        }
        Ok(welcome.to_frame())
    }
}

/// Compares in a time that depends on the lengths only, so that an answer's delay tells nothing of the secret.
fn same(expected: &[u8], given: &[u8]) -> bool {
    let differing = expected.iter().zip(given).fold(0, |differing, (a, b)| differing | (a ^ b));
    expected.len() == given.len() && differing == 0
}

/// Takes the handshake of a fresh connection on the port for `role`. `admit` has the last word before the welcome.
/// None where it was refused: then the other side has been told, once, and the connection is closed.
pub(super) async fn greet<S, A>(
    mut connection: Connection<S>,
    local: &Local,
    role: Role,
    admit: A,
) -> Option<(Connection<S>, Hello)>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: AsyncFnOnce(&Hello) -> Result<(), Error>,
{
    let first = tokio::time::timeout(Duration::from_millis(HANDSHAKE_MS_MAX), connection.read_frame());
    let error = match first.await {
        Err(_) => Error::new(ErrorCode::BadFrame, format!("no handshake within {HANDSHAKE_MS_MAX} ms")),
        // Who connects and goes without a word is a port check, and no news.
        Ok(Ok(None)) => return None,
        Ok(Err(error)) => error.to_error(),
        Ok(Ok(Some(frame))) => match accept(&frame, local, role, admit).await {
            Ok((hello, welcome)) => {
                connection.put_frame(&welcome).expect("a welcome is a small frame");
                return Some((connection, hello));
            }
            Err(error) => error,
        },
    };
    refuse(connection, &error).await;
    None
}

async fn accept<A>(frame: &Frame, local: &Local, role: Role, admit: A) -> Result<(Hello, Frame), Error>
where
    A: AsyncFnOnce(&Hello) -> Result<(), Error>,
{
    let hello = Hello::from_frame(frame)?;
    let welcome = local.judge(&hello, role)?;
    admit(&hello).await?;
    Ok((hello, welcome))
}

/// Tells the other side why, and closes.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(connection: Connection<S>, error: &Error) {
    metrics::node().refuse(match error.code {
        ErrorCode::Unauthenticated => Refused::Unauthenticated,
        ErrorCode::WrongCluster => Refused::WrongCluster,
        _ => Refused::Handshake,
    });
    if let Some(suppressed) = log_limit::allow("handshake refused") {
        tracing::warn!(%error, suppressed, "handshake refused");
    }
    connection.close_with(&Frame::goodbye(error)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(credentials: &'static str) -> Local {
        let node = NodeId::numbered(1);
        Local { node, incarnation: Incarnation(7), cluster_id: 5, groups: 3, credentials: Bytes::from(credentials) }
    }

    fn code(local: &Local, hello: &Hello, role: Role) -> Option<ErrorCode> {
        local.judge(hello, role).err().map(|error| error.code)
    }

    #[test]
    fn credentials_must_be_the_same_whole() {
        for (given, expected) in
            [("secret", None), ("", Some(())), ("secre", Some(())), ("secretx", Some(())), ("Secret", Some(()))]
        {
            let hello = Hello::client("c", Bytes::from(given));
            let refused = code(&local("secret"), &hello, Role::Client);
            assert_eq!(refused, expected.map(|()| ErrorCode::Unauthenticated), "{given:?}");
        }
        assert_eq!(code(&local(""), &Hello::client("c", Bytes::from("any")), Role::Client), None);
    }

    #[test]
    fn a_peer_names_its_cluster_and_takes_the_right_port() {
        let peer = |cluster_id| Hello::peer("node2", 1, cluster_id, Bytes::new());
        assert_eq!(code(&local(""), &peer(5), Role::Peer), None);
        assert_eq!(code(&local(""), &peer(6), Role::Peer), Some(ErrorCode::WrongCluster));
        assert_eq!(code(&local(""), &peer(0), Role::Peer), Some(ErrorCode::WrongCluster));
        assert_eq!(code(&local(""), &peer(5), Role::Client), Some(ErrorCode::InvalidArgument));
        assert_eq!(code(&local(""), &Hello::client("c", Bytes::new()), Role::Peer), Some(ErrorCode::InvalidArgument));
    }
}
