//! A queue user's tasks: ten enqueues to five dequeues with their acknowledgements.

use std::sync::Arc;

use serde_json::json;

use super::Rest;
use super::http::{Answer, User};
use crate::tag::Tag;
use crate::workload::{Failure, Worker};

/// Enqueues among [`TASKS`].
const ENQUEUES: u64 = 10;
/// All of a user's tasks, in proportion.
const TASKS: u64 = 15;

impl Rest {
    /// One task of a queue user. False where a request failed.
    pub(super) async fn queue_round(&self, worker: &mut Worker<Arc<User>>) -> bool {
        if worker.chance(TASKS) < ENQUEUES { self.enqueue(worker).await } else { self.dequeue(worker).await }
    }

    async fn enqueue(&self, worker: &mut Worker<Arc<User>>) -> bool {
        let message = Tag { writer: worker.number, number: worker.rounds }.text(self.run);
        let place = self.ring.place(&message);
        // Hexadecimal digits need no escapes.
        let body = format!("{{\"message\":\"{message}\"}}");
        let user = worker.connection.clone();
        let sending = async { user.post(place, "/enqueue", body).await?.require_success() };
        worker.measured("enqueue", sending).await.is_ok()
    }

    async fn dequeue(&self, worker: &mut Worker<Arc<User>>) -> bool {
        let place = self.random_queue_address(worker);
        let user = worker.connection.clone();
        let taking = async { message_of(&user.get(place, "/dequeue").await?.require_success()?) };
        let name = |result: &Result<Option<String>, Failure>| match result {
            Ok(None) => "dequeue empty",
            _ => "dequeue",
        };
        let message = match worker.measured_as(name, taking).await {
            Ok(Some(message)) => message,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let body = json!({ "message": message }).to_string();
        let user = worker.connection.clone();
        let acknowledging = async { user.post(place, "/ack", body).await?.require_success() };
        worker.measured("ack", acknowledging).await.is_ok()
    }
}

/// The message of a dequeue's answer; None where the queue was empty.
fn message_of(answer: &Answer) -> Result<Option<String>, Failure> {
    let wrong =
        || Failure { name: "bad answer", unknown: true, text: String::from_utf8_lossy(&answer.body).into_owned() };
    let json: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|_| wrong())?;
    match (json["status"].as_str(), json["message"].as_str()) {
        (Some("empty"), _) => Ok(None),
        (Some("dequeued"), Some(message)) => Ok(Some(message.to_owned())),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dequeue_that_says_neither_is_a_failure() {
        let answer = |body: &'static str| {
            let answer = Answer { status: hyper::StatusCode::OK, body: body.into() };
            message_of(&answer).map_err(|failure| failure.name)
        };
        assert_eq!(answer(r#"{"status":"empty","node":"node1"}"#), Ok(None));
        assert_eq!(answer(r#"{"status":"dequeued","message":"a \"b\""}"#), Ok(Some("a \"b\"".into())));
        for body in ["", "[]", r#"{"status":"dequeued"}"#, r#"{"status":"enqueued","message":"a"}"#] {
            assert_eq!(answer(body), Err("bad answer"), "{body}");
        }
    }
}
