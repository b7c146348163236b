//! Listeners and connections: how many, for how long, and how they end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::{self, Refused};
use crate::server::{Gateway, log_limit};

use super::HEAD_BYTES_MAX;
use super::dispatch::Door;
use super::io::WriteTimeout;

/// Milliseconds before the next try when the system gives no connection: it is out of descriptors, and one will be free.
const ACCEPT_RETRY_MS: u64 = 100;
/// Connections at a time that are told that there are too many; more are just closed, for telling costs memory, too.
const REFUSALS_MAX: usize = 64;
/// What a connection over the limit is told, before it is read.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json; charset=utf-8\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 65\r\n\r\n\
    {\"detail\":\"the node has as many HTTP connections as it may have\"}";

/// Accepts on every listener until `shutdown`, then lets what is under way end.
pub(crate) async fn serve<G: Gateway>(listeners: Vec<TcpListener>, door: Arc<Door<G>>, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(door.options().connections_max));
    let connections = TaskTracker::new();
    // Dropping this future must end the connections too, so they listen to a token of our own.
    let stop = shutdown.child_token();
    let _stop_on_drop = stop.clone().drop_guard();
    let mut loops = JoinSet::new();
    for listener in listeners {
        loops.spawn(accept(listener, door.clone(), places.clone(), connections.clone(), stop.clone()));
    }
    while loops.join_next().await.is_some() {}
    shutdown.cancelled().await;
    connections.close();
    connections.wait().await;
}

async fn accept<G: Gateway>(
    listener: TcpListener,
    door: Arc<Door<G>>,
    places: Arc<Semaphore>,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => match places.clone().try_acquire_owned() {
                Ok(place) => drop(connections.spawn(connection(stream, door.clone(), stop.clone(), place))),
                Err(_) => refuse(stream, &refusals),
            },
            Err(error) => {
                if let Some(suppressed) = log_limit::allow("HTTP accept failed") {
                    tracing::warn!(%error, suppressed, "no HTTP connection can be accepted now");
                }
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            }
        }
    }
}

/// Tells a connection that there is no place for it. What the socket's own buffer does not take is not waited for.
fn refuse(mut stream: TcpStream, refusals: &Arc<Semaphore>) {
    metrics::node().refuse(Refused::TooManyConnections);
    if let Some(suppressed) = log_limit::allow("too many HTTP connections") {
        tracing::warn!(suppressed, "an HTTP connection was refused: there are as many as may be");
    }
    let Ok(permit) = Arc::clone(refusals).try_acquire_owned() else { return };
    tokio::spawn(async move {
        let told = async {
            stream.write_all(FULL).await?;
            stream.shutdown().await
        };
        drop(tokio::time::timeout(Duration::from_secs(1), told).await);
        drop(permit);
    });
}

async fn connection<G: Gateway>(
    stream: TcpStream,
    door: Arc<Door<G>>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    // Answers are small and whole: waiting to fill a segment only adds latency. A failure costs just that.
    drop(stream.set_nodelay(true));
    let options = door.options().clone();
    let io = TokioIo::new(WriteTimeout::new(stream, Duration::from_millis(options.write_ms_max)));
    let service = service_fn(move |request| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(door.answer(request).await) }
    });
    let connection = http1::Builder::new()
        // Without a timer hyper's time limits are silently none.
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(options.head_ms_max))
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(Duration::from_millis(options.drain_ms_max), connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_says_its_own_length() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
