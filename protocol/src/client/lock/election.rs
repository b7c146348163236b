//! Who leads: a lock whose holder says something of itself, and observers who hear of every new one.

use std::time::Duration;

use bytes::Bytes;

use super::{Guard, LockRequest};
use crate::client::call::Call;
use crate::client::{Client, mismatch};
use crate::command::{Request, Response};
use crate::error::Error;
use crate::lock::{Acquire, Observe, Observed};

/// How long one question for the next leader stands.
const SLICE: Duration = Duration::from_secs(10);

/// An election: candidates campaign, observers look.
#[derive(Clone, Debug)]
pub struct Election {
    client: Client,
    name: String,
}

/// Follows who leads.
#[derive(Clone, Debug)]
pub struct Observer {
    client: Client,
    lock: String,
    seen: u64,
}

impl Client {
    /// An election of that name, which is a lock's.
    pub fn election(&self, name: impl Into<String>) -> Election {
        Election { client: self.clone(), name: name.into() }
    }
}

impl Election {
    /// Stands for it, with something that observers are to know, such as an address. Ends with [`LockRequest::acquire`]: whoever gets the
    /// guard leads, until it is lost.
    pub fn campaign(&self, candidate: impl Into<String>, note: impl Into<Bytes>) -> LockRequest {
        self.client.lock(self.name.as_str()).holder(candidate).note(note)
    }

    /// Stands for it, and waits until it is won.
    ///
    /// # Errors
    /// As [`LockRequest::acquire`].
    pub async fn lead(&self, candidate: impl Into<String>, note: impl Into<Bytes>) -> Result<Guard, Error> {
        self.campaign(candidate, note).acquire().await
    }

    /// Follows it from now on: the first answer is who leads now.
    pub fn observe(&self) -> Observer {
        Observer { client: self.client.clone(), lock: self.name.clone(), seen: u64::MAX }
    }
}

impl Observer {
    /// The next leader that differs from the last one; a token of 0 says that there is none. Changes in between may be missed, the last
    /// one never.
    ///
    /// # Errors
    /// What [`Client::call`] adds. As long as nobody can be asked, it goes on asking.
    pub async fn next(&mut self) -> Result<Observed, Error> {
        let request: Request = Observe { lock: self.lock.clone(), seen: self.seen }.into();
        request.check()?;
        let call = Call::new(&self.client.shared, &request, &self.client.cache);
        let waited = call.run_waiting(&Acquire::default(), SLICE, None).await?;
        match waited.response {
            Response::Observe(observed) => {
                self.seen = observed.token;
                Ok(observed)
            }
            other => Err(mismatch(&other)),
        }
    }
}
