//! The accept loops: sockets become connections, as long as there are permits.
//!
//! # Invariants
//! - A connection lives in one task, which holds its permit and is counted by a tracker, so that a shutdown can wait for it.
//! - Who finds no permit left is told `TooManyConnections` before the socket closes, by a task of its own; of these
//!   tasks there are at most [`FAREWELLS_MAX`], and beyond that the socket just closes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trine_protocol::frame::Frame;
use trine_protocol::{Error, ErrorCode};

use crate::metrics::{self, Refused};
use crate::server::log_limit;

use super::{Connection, Permits};

/// Connections at a time that are told that there are too many.
pub const FAREWELLS_MAX: usize = 64;
/// Pause after a failed accept: out of file descriptors is not cured by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `shutdown`, and gives each connection to `serve` in a task of its own.
pub async fn accept<F, T>(
    listener: TcpListener,
    permits: Permits,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    serve: F,
) where
    F: Fn(Connection<TcpStream>) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let farewells = Arc::new(Semaphore::new(FAREWELLS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if let Some(suppressed) = log_limit::allow("accept failed") {
                    tracing::warn!(%error, suppressed, "a connection could not be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Where this fails the connection is gone already, which its first read finds out.
        let _ = stream.set_nodelay(true);
        match permits.take() {
            Some(permit) => {
                let serving = serve(Connection::new(stream));
                tracker.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            None => turn_away(stream, &farewells),
        }
    }
}

fn turn_away(stream: TcpStream, farewells: &Arc<Semaphore>) {
    metrics::node().refuse(Refused::TooManyConnections);
    if let Some(suppressed) = log_limit::allow("too many connections") {
        tracing::warn!(suppressed, "a connection was refused: there are as many as may be");
    }
    let Ok(permit) = Arc::clone(farewells).try_acquire_owned() else { return };
    tokio::spawn(async move {
        let error = Error::new(ErrorCode::TooManyConnections, "the node has as many connections as it takes");
        Connection::new(stream).close_with(&Frame::goodbye(&error.retry_after(1_000))).await;
        drop(permit);
    });
}
