//! One address of a node, and the connection to it: made when it is first asked for, made anew when it was lost.
//!
//! While an endpoint cannot be reached it is left alone for a while that grows with each failure; who asks meanwhile is told at
//! once what the last try found, and goes on to another endpoint.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, ErrorCode};
use crate::handshake::Hello;

use super::backoff::Backoff;
use super::clock;
use super::connection::Connection;

/// One address of a node.
pub(super) struct Endpoint {
    address: String,
    connection: Mutex<Option<Arc<Connection>>>,
    connecting: AsyncMutex<Failures>,
    failed_at: Mutex<Option<Instant>>,
}

/// What went wrong since the last connection.
#[derive(Default)]
struct Failures {
    backoff: Backoff,
    last: Option<(Instant, Error)>,
}

/// How long an address that could not be reached is no leader's by hearsay. It may be one that only the nodes can reach.
const SHUNNED: Duration = Duration::from_secs(30);

impl Endpoint {
    pub(super) fn new(address: &str) -> Arc<Self> {
        Arc::new(Self {
            address: address.into(),
            connection: Mutex::default(),
            connecting: AsyncMutex::default(),
            failed_at: Mutex::default(),
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// True where it could not be reached lately.
    pub(super) fn is_shunned(&self) -> bool {
        let failed_at = *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        failed_at.is_some_and(|failed_at| clock::now() < failed_at + SHUNNED)
    }

    fn open_connection(&self) -> Option<Arc<Connection>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.as_ref().filter(|connection| connection.is_open()).cloned()
    }

    /// The connection, made if there is none. Many may ask at once; one of them connects.
    ///
    /// # Errors
    /// As [`Connection::open`]; or the last of those, while the endpoint is left alone.
    pub(super) async fn connection(&self, hello: &Hello, until: Instant) -> Result<Arc<Connection>, Error> {
        if let Some(connection) = self.open_connection() {
            return Ok(connection);
        }
        let Ok(mut failures) = timeout_at(until, self.connecting.lock()).await else {
            return Err(Error::new(ErrorCode::Unreachable, format!("{} did not answer in time", self.address)));
        };
        if let Some(connection) = self.open_connection() {
            return Ok(connection);
        }
        if let Some((left_alone_until, error)) = &failures.last {
            if clock::now() < *left_alone_until {
                return Err(error.clone());
            }
        }
        match Connection::open(&self.address, hello, until).await {
            Ok(connection) => {
                *failures = Failures::default();
                let connection = Arc::new(connection);
                *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                let now = clock::now();
                *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                failures.last = Some((now + failures.backoff.next(), error.clone()));
                Err(error)
            }
        }
    }
}
