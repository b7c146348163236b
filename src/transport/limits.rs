//! How many connections there may be, as permits that come back by themselves, and the bounds of one connection.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trine_protocol::limits::CONNECTIONS_MAX;

/// Connections that are kept for peers, out of [`CONNECTIONS_MAX`]: clients cannot shut the other nodes out.
pub const PEER_CONNECTIONS_MAX: usize = 128;
/// Bytes of answers that wait for a client to read them. Above it the connection is not read: who does not take
/// answers gets to ask no more. Answers of requests in flight come on top.
pub const WRITE_BUFFER_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a connection's requests in flight, as they came. Above it the connection is not read until answers have left.
pub const IN_FLIGHT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Time in which the other side must take some of what waits for it; after it the connection is closed. As NATS.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Silence after which a client is asked whether it is there.
pub const PING_AFTER: Duration = Duration::from_secs(30);
/// Silence after which a client is taken for gone.
pub const IDLE_MAX: Duration = Duration::from_secs(75);
/// How often a connection looks at its deadlines.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A bounded number of permits; each connection holds one.
#[derive(Clone, Debug)]
pub struct Permits {
    semaphore: Arc<Semaphore>,
    gauge: Gauge,
}

impl Permits {
    /// So many, counted in a gauge.
    pub fn new(count: usize, gauge: Gauge) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(count)), gauge }
    }

    /// All that clients may have.
    pub fn for_clients() -> Self {
        Self::new(CONNECTIONS_MAX - PEER_CONNECTIONS_MAX, crate::metrics::node().connections_client.clone())
    }

    /// All that peers may have.
    pub fn for_peers() -> Self {
        Self::new(PEER_CONNECTIONS_MAX, crate::metrics::node().connections_peer.clone())
    }

    /// One permit, if one is left.
    pub fn take(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.semaphore).try_acquire_owned().ok()?;
        self.gauge.increment(1.0);
        Some(Permit { _permit: permit, gauge: self.gauge.clone() })
    }
}

/// The right to one connection; comes back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
    gauge: Gauge,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gauge.decrement(1.0);
    }
}
