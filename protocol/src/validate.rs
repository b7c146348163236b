//! Whether a request's fields are in their ranges: looked at by a client before it sends, by a node before it works.

use crate::cluster::{NewNode, Reshaping};
use crate::command::Request;
use crate::error::{Error, ErrorCode};
use crate::limits::{BATCH_MAX, KEY_BYTES_MAX, LEASE_MS_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX, VISIBILITY_MS_MAX};
use crate::queue::AckWhich;

impl Request {
    /// Looks whether every field is in its range.
    ///
    /// # Errors
    /// `TooLarge` where a name, key, value or body is too long; `InvalidArgument` where a name or key is empty or a number is
    /// out of its range. Both say which field, what it is and what it may be.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Status(_) | Self::OpenSession(_) | Self::KeepAlive(_) => Ok(()),
            Self::Backup(_) | Self::BackupRead(_) | Self::WriteBackAll(_) => Ok(()),
            Self::Reshape(reshape) => match &reshape.change {
                Reshaping::Promote(node) | Reshaping::Forget(node) | Reshaping::Remove { node, .. } => {
                    name("node", node)
                }
                Reshaping::Add(new) => new_node(new),
                Reshaping::Replace { node, by } => name("node", node).and_then(|()| new_node(by)),
            },
            Self::Transfer(transfer) => name("node", &transfer.node),
            Self::Inspect(inspect) => name("lock", &inspect.lock),
            Self::Enqueue(enqueue) => {
                name("queue", &enqueue.queue)?;
                at_most("body", enqueue.body.len(), VALUE_BYTES_MAX)
            }
            Self::Dequeue(dequeue) => {
                name("queue", &dequeue.queue)?;
                in_range("visibility_ms", dequeue.visibility_ms, 0, VISIBILITY_MS_MAX)?;
                in_range("count_max", dequeue.count_max, 0, BATCH_MAX)
            }
            Self::Ack(ack) => {
                name("queue", &ack.queue)?;
                match &ack.which {
                    AckWhich::Receipt { .. } => Ok(()),
                    AckWhich::Body(body) => at_most("body", body.len(), VALUE_BYTES_MAX),
                }
            }
            Self::Acquire(acquire) => {
                name("lock", &acquire.lock)?;
                name("client", &acquire.client)?;
                in_range("lease_ms", acquire.lease_ms, 1, LEASE_MS_MAX)
            }
            Self::Release(release) => {
                name("lock", &release.lock)?;
                name("client", &release.client)
            }
            Self::Renew(renew) => {
                name("lock", &renew.lock)?;
                name("client", &renew.client)?;
                in_range("lease_ms", renew.lease_ms, 1, LEASE_MS_MAX)
            }
            Self::Get(get) => key(&get.key),
            Self::Put(put) => {
                key(&put.key)?;
                at_most("value", put.value.len(), VALUE_BYTES_MAX)
            }
            Self::Delete(delete) => key(&delete.key),
            Self::WriteBack(write_back) => key(&write_back.key),
        }
    }
}

fn name(field: &str, name: &str) -> Result<(), Error> {
    not_empty(field, name)?;
    at_most(field, name.len(), NAME_BYTES_MAX)
}

fn new_node(new: &NewNode) -> Result<(), Error> {
    name("node", &new.node)?;
    name("client", &new.client)?;
    name("peer", &new.peer)?;
    name("http", &new.http)
}

fn key(key: &str) -> Result<(), Error> {
    not_empty("key", key)?;
    at_most("key", key.len(), KEY_BYTES_MAX)
}

fn not_empty(field: &str, text: &str) -> Result<(), Error> {
    match text.is_empty() {
        true => Err(Error::new(ErrorCode::InvalidArgument, format!("{field} is empty"))),
        false => Ok(()),
    }
}

/// Shared with the handshake.
pub(crate) fn at_most(field: &str, bytes: usize, bytes_max: usize) -> Result<(), Error> {
    match bytes > bytes_max {
        true => Err(Error::new(ErrorCode::TooLarge, format!("{field} has {bytes} bytes, {bytes_max} are allowed"))),
        false => Ok(()),
    }
}

fn in_range(field: &str, value: u32, min: u32, max: u32) -> Result<(), Error> {
    match (min..=max).contains(&value) {
        true => Ok(()),
        false => Err(Error::new(ErrorCode::InvalidArgument, format!("{field} is {value}, {min} to {max} are allowed"))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cache::{Delete, Get, Put, WriteBack};
    use crate::lock::{Acquire, Release, Renew};
    use crate::queue::{Ack, Dequeue, Enqueue};

    /// What becomes of a request that is made with a text of so many bytes.
    fn with_text(bytes: usize, make: &dyn Fn(String) -> Request) -> Option<ErrorCode> {
        make("x".repeat(bytes)).check().err().map(|error| error.code)
    }

    #[test]
    fn names_and_keys_have_a_byte_and_at_most_their_limit() {
        let fine = || "x".to_string();
        type Make<'a> = &'a dyn Fn(String) -> Request;
        let names: [Make<'_>; 9] = [
            &|queue| Enqueue { queue, body: Bytes::new() }.into(),
            &|queue| Dequeue { queue, visibility_ms: 0, count_max: 0 }.into(),
            &|queue| Ack { queue, which: AckWhich::Body(Bytes::new()) }.into(),
            &|lock| Acquire { lock, client: fine(), lease_ms: 1 }.into(),
            &|client| Acquire { lock: fine(), client, lease_ms: 1 }.into(),
            &|lock| Release { lock, client: fine(), token: 0 }.into(),
            &|client| Release { lock: fine(), client, token: 0 }.into(),
            &|lock| Renew { lock, client: fine(), token: 0, lease_ms: 1 }.into(),
            &|client| Renew { lock: fine(), client, token: 0, lease_ms: 1 }.into(),
        ];
        let keys: [Make<'_>; 4] = [
            &|key| Get { key }.into(),
            &|key| Put { key, value: Bytes::new() }.into(),
            &|key| Delete { key }.into(),
            &|key| WriteBack { key }.into(),
        ];
        let all = names.iter().map(|make| (make, NAME_BYTES_MAX)).chain(keys.iter().map(|make| (make, KEY_BYTES_MAX)));
        for (make, bytes_max) in all {
            let command = make(fine()).command();
            assert_eq!(with_text(0, make), Some(ErrorCode::InvalidArgument), "{command:?}");
            assert_eq!(with_text(1, make), None, "{command:?}");
            assert_eq!(with_text(bytes_max, make), None, "{command:?}");
            assert_eq!(with_text(bytes_max + 1, make), Some(ErrorCode::TooLarge), "{command:?}");
        }
    }

    #[test]
    fn values_have_their_limit() {
        let q = || "q".to_string();
        type Make<'a> = &'a dyn Fn(Bytes) -> Request;
        let values: [Make<'_>; 3] = [
            &|body| Enqueue { queue: q(), body }.into(),
            &|body| Ack { queue: q(), which: AckWhich::Body(body) }.into(),
            &|value| Put { key: q(), value }.into(),
        ];
        for make in values {
            let code = |bytes: usize| make(vec![0; bytes].into()).check().err().map(|error| error.code);
            assert_eq!([code(0), code(VALUE_BYTES_MAX)], [None, None]);
            assert_eq!(code(VALUE_BYTES_MAX + 1), Some(ErrorCode::TooLarge));
        }
    }

    #[test]
    fn numbers_have_their_ranges() {
        let x = || "x".to_string();
        type Make<'a> = &'a dyn Fn(u32) -> Request;
        let numbers: [(Make<'_>, u32, u32); 4] = [
            (&|lease_ms| Acquire { lock: x(), client: x(), lease_ms }.into(), 1, LEASE_MS_MAX),
            (&|lease_ms| Renew { lock: x(), client: x(), token: 0, lease_ms }.into(), 1, LEASE_MS_MAX),
            (&|visibility_ms| Dequeue { queue: x(), visibility_ms, count_max: 1 }.into(), 0, VISIBILITY_MS_MAX),
            (&|count_max| Dequeue { queue: x(), visibility_ms: 1, count_max }.into(), 0, BATCH_MAX),
        ];
        for (make, min, max) in numbers {
            let code = |number: u32| make(number).check().err().map(|error| error.code);
            assert_eq!([code(min), code(max)], [None, None]);
            assert_eq!([code(max + 1), code(u32::MAX)], [Some(ErrorCode::InvalidArgument); 2]);
            assert!(min == 0 || code(min - 1) == Some(ErrorCode::InvalidArgument));
        }
    }
}
