//! Whether this node was known before: asked once, when it has a new data directory.
//!
//! A node that lost its disk starts like one that never ran, and must not: it would vote as if it had promised nothing. The others
//! remember its incarnation, and refuse the new one. So a new directory asks them before anything is made of it. Where one
//! says that it knew another, the directory is marked as that of a node that joins; where none can be reached, nothing is lost
//! by going on, because none of them hears this node before it has said the same.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use trine_protocol::ErrorCode;
use trine_protocol::frame::Kind;
use trine_protocol::handshake::Hello;

use crate::config::ServeConfig;
use crate::transport::Connection;

/// Time for all of them to answer.
const ANSWER_MAX: Duration = Duration::from_millis(700);

/// Whether another node knows this one with another data directory.
pub(super) async fn was_known(config: &ServeConfig, incarnation: u64, cluster_id: u64) -> bool {
    let mut asked = JoinSet::new();
    for member in config.members.iter().filter(|member| member.name != config.node) {
        let hello = Hello::peer(config.node.as_str(), incarnation, cluster_id, config.credentials.clone());
        let address = member.peer.to_string();
        asked.spawn(async move { ask(&address, &hello).await });
    }
    let any = async {
        while let Some(answer) = asked.join_next().await {
            if matches!(answer, Ok(Some(ErrorCode::LostData))) {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(ANSWER_MAX, any).await.unwrap_or(false)
}

/// The error that the node there answers a handshake with, if it does.
async fn ask(address: &str, hello: &Hello) -> Option<ErrorCode> {
    let mut connection = Connection::new(TcpStream::connect(address).await.ok()?);
    connection.put_frame(&hello.to_frame()).ok()?;
    let frame = connection.read_frame().await.ok()??;
    (frame.kind == Kind::Goodbye).then(|| frame.decode_error().ok().map(|error| error.code))?
}
