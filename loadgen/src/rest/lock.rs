//! A lock user: acquires the one hot lock, holds it, releases it.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;

use super::Rest;
use super::http::{Answer, User};
use crate::checks::lock::Grant;
use crate::clock;
use crate::workload::{Failure, Worker};

/// The lease that users ask for.
const LEASE_SECONDS: u64 = 10;
/// The ledger's number of the one lock.
const HOT: usize = 0;

impl Rest {
    /// One try of a lock user. False where a request failed.
    pub(super) async fn lock_round(&self, worker: &mut Worker<Arc<User>>) -> bool {
        let client = format!("user-{}", worker.number);
        let known = self.grants.as_ref().map_or(0, |ledger| ledger.known(HOT));
        let asked = clock::now();
        let place = self.random_lock_address(worker);
        let user = worker.connection.clone();
        let body = json!({ "lock_name": self.lock, "client_id": client, "timeout_sec": LEASE_SECONDS }).to_string();
        let asking = async { token_of(user.post(place, "/lock/acquire", body).await?) };
        let name = |result: &Result<Option<u64>, Failure>| match result {
            Ok(None) => "acquire 409",
            _ => "acquire",
        };
        let token = match worker.measured_as(name, asking).await {
            Ok(Some(token)) => token,
            Ok(None) => return true,
            Err(_) => return false,
        };
        if let Some(ledger) = &self.grants {
            let lease = Duration::from_secs(LEASE_SECONDS);
            ledger.granted(HOT, Grant { worker: worker.number, token, known, asked, lease }, clock::now());
        }
        self.hold.take(worker).await;
        if let Some(ledger) = &self.grants {
            ledger.releasing(HOT, worker.number, token);
        }
        let place = self.random_lock_address(worker);
        let user = worker.connection.clone();
        let body = json!({ "lock_name": self.lock, "client_id": client }).to_string();
        let releasing = async { user.post(place, "/lock/release", body).await?.require_success() };
        worker.measured("release", releasing).await.is_ok()
    }
}

/// The fencing token of an acquire's answer; None where somebody else holds the lock.
fn token_of(answer: Answer) -> Result<Option<u64>, Failure> {
    if answer.status == StatusCode::CONFLICT {
        return Ok(None);
    }
    let answer = answer.require_success()?;
    let token = serde_json::from_slice::<serde_json::Value>(&answer.body)
        .ok()
        .and_then(|json| json["fencing_token_str"].as_str()?.parse().ok());
    let wrong = || String::from_utf8_lossy(&answer.body).into_owned();
    token.map(Some).ok_or_else(|| Failure { name: "bad answer", unknown: true, text: wrong() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_409_is_an_answer_and_a_200_has_a_token() {
        let answer = |status, body: &'static str| {
            let answer = Answer { status: StatusCode::from_u16(status).unwrap(), body: body.into() };
            token_of(answer).map_err(|failure| failure.name)
        };
        assert_eq!(answer(409, r#"{"detail":"held"}"#), Ok(None));
        assert_eq!(answer(200, r#"{"status":"acquired","fencing_token_str":"12"}"#), Ok(Some(12)));
        assert_eq!(answer(200, r#"{"status":"acquired"}"#), Err("bad answer"));
        assert_eq!(answer(403, ""), Err("403"));
    }
}
