//! Whether a request's fields are in their ranges: looked at by a client before it sends, by a node before it works.

use crate::cache::Put;
use crate::cluster::{NewNode, Reshaping};
use crate::command::Request;
use crate::error::{Error, ErrorCode};
use crate::limits::{
    CONTENT_TYPE_BYTES_MAX, FILL_MS_MAX, KEY_BYTES_MAX, MULTI_BYTES_MAX, MULTI_MAX, NAME_BYTES_MAX, SESSION_MS_MAX,
    SESSION_MS_MIN, TTL_MS_MAX, VALUE_BYTES_MAX,
};

mod queue;

use locks::if_token;

mod locks;

impl Request {
    /// Looks whether every field is in its range.
    ///
    /// # Errors
    /// `TooLarge` where a name, key, value or body is too long; `InvalidArgument` where a name or key is empty or a number is
    /// out of its range. Both say which field, what it is and what it may be.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Status(_) | Self::KeepAlive(_) => Ok(()),
            Self::OpenSession(open) if open.timeout_ms == 0 => Ok(()),
            Self::OpenSession(open) => in_range("timeout_ms", open.timeout_ms, SESSION_MS_MIN, SESSION_MS_MAX),
            Self::Backup(_) | Self::BackupRead(_) | Self::WriteBackAll(_) => Ok(()),
            Self::Reshape(reshape) => match &reshape.change {
                Reshaping::Promote(node) | Reshaping::Forget(node) | Reshaping::Remove { node, .. } => {
                    name("node", node)
                }
                Reshaping::Add(new) => new_node(new),
                Reshaping::Replace { node, by } => name("node", node).and_then(|()| new_node(by)),
            },
            Self::Transfer(transfer) => name("node", &transfer.node),
            Self::Enqueue(enqueue) => queue::enqueue(enqueue),
            Self::Dequeue(dequeue) => queue::dequeue(dequeue),
            Self::Ack(ack) => queue::ack(ack),
            Self::Extend(extend) => queue::extend(extend),
            Self::Nack(nack) => queue::nack(nack),
            Self::AckMany(ack) => queue::ack_many(ack),
            Self::Declare(declare) => queue::declare(declare),
            Self::Undeclare(undeclare) => name("queue", &undeclare.queue),
            Self::SetFlow(set) => name("queue", &set.queue),
            Self::Purge(purge) => name("queue", &purge.queue),
            Self::Redrive(redrive) => queue::redrive(redrive),
            Self::Peek(peek) => queue::peek(peek),
            Self::ListQueues(list) => queue::list(list),
            Self::ShowQueue(show) => name("queue", &show.queue),
            Self::ExplainQueue(explain) => queue::explain(explain),
            Self::HandOff(hand_off) => queue::hand_off(hand_off),
            Self::Subscribe(subscribe) => queue::subscribe(subscribe),
            Self::Credit(_) | Self::Unsubscribe(_) => Ok(()),
            Self::Acquire(_) | Self::Release(_) | Self::Renew(_) | Self::Inspect(_) => self.check_lock(),
            Self::Cancel(_) | Self::ForceRelease(_) | Self::Fence(_) => self.check_lock(),
            Self::ExplainLock(_) | Self::ExplainClient(_) | Self::ListLocks(_) | Self::Observe(_) => self.check_lock(),
            Self::Get(get) => key(&get.key),
            Self::Put(one) => put(one),
            Self::Delete(delete) => key(&delete.key).and_then(|()| if_token(&delete.if_token)),
            Self::Add(add) => key(&add.key).and_then(|()| if_token(&add.if_token)),
            Self::GetOrFill(fill) => {
                key(&fill.key)?;
                in_range("lease_ms", fill.lease_ms, 1, FILL_MS_MAX)
            }
            Self::MultiGet(get) => {
                in_range("keys", as_u32(get.keys.len()), 1, as_u32(MULTI_MAX))?;
                get.keys.iter().try_for_each(|one| key(one))
            }
            Self::MultiPut(multi) => {
                in_range("puts", as_u32(multi.puts.len()), 1, as_u32(MULTI_MAX))?;
                multi.puts.iter().try_for_each(put)?;
                let bytes = multi.puts.iter().map(|put| put.value.len()).sum();
                at_most("values", bytes, MULTI_BYTES_MAX)
            }
            Self::ListKeys(list) => {
                at_most("prefix", list.prefix.len(), KEY_BYTES_MAX)?;
                at_most("after", list.after.len(), KEY_BYTES_MAX)
            }
            Self::DeletePrefix(delete) => {
                not_empty("prefix", &delete.prefix)?;
                at_most("prefix", delete.prefix.len(), KEY_BYTES_MAX)
            }
            Self::Explain(explain) => key(&explain.key),
            Self::Evacuate(evacuate) => name("node", &evacuate.node),
            Self::WriteBack(write_back) => key(&write_back.key),
            Self::GetCopy(get) => key(&get.key).and_then(|()| copies(get.copies)),
            Self::KeepCopies(keep) => copies(keep.copies),
            Self::DropCopies(drop) => copies(drop.copies),
        }
    }
}

pub(super) fn name(field: &str, name: &str) -> Result<(), Error> {
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

/// A client's number for its copies.
fn copies(number: u64) -> Result<(), Error> {
    match number {
        0 => Err(Error::new(ErrorCode::InvalidArgument, "copies is 0, a random number is to be chosen")),
        _ => Ok(()),
    }
}

fn put(put: &Put) -> Result<(), Error> {
    key(&put.key)?;
    if_token(&put.if_token)?;
    at_most("value", put.value.len(), VALUE_BYTES_MAX)?;
    at_most("content_type", put.content_type.len(), CONTENT_TYPE_BYTES_MAX)?;
    match put.ttl_ms > TTL_MS_MAX {
        true => Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("ttl_ms is {}, 0 to {TTL_MS_MAX} are allowed", put.ttl_ms),
        )),
        false => Ok(()),
    }
}

pub(super) fn as_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
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

pub(super) fn in_range(field: &str, value: u32, min: u32, max: u32) -> Result<(), Error> {
    match (min..=max).contains(&value) {
        true => Ok(()),
        false => Err(Error::new(ErrorCode::InvalidArgument, format!("{field} is {value}, {min} to {max} are allowed"))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cache::{Add, Delete, DeletePrefix, Get, GetOrFill, ListKeys, MultiGet, MultiPut, WriteBack};
    use crate::limits::{BATCH_MAX, LEASE_MS_MAX, VISIBILITY_MS_MAX, WAIT_MS_MAX};
    use crate::lock::{Acquire, Release, Renew};
    use crate::queue::{Ack, AckWhich, Dequeue, Enqueue};

    /// What becomes of a request that is made with a text of so many bytes.
    fn with_text(bytes: usize, make: &dyn Fn(String) -> Request) -> Option<ErrorCode> {
        make("x".repeat(bytes)).check().err().map(|error| error.code)
    }

    #[test]
    fn names_and_keys_have_a_byte_and_at_most_their_limit() {
        let fine = || "x".to_string();
        type Make<'a> = &'a dyn Fn(String) -> Request;
        let names: [Make<'_>; 9] = [
            &|queue| Enqueue { queue, ..Enqueue::default() }.into(),
            &|queue| Dequeue { queue, ..Dequeue::default() }.into(),
            &|queue| Ack { queue, which: AckWhich::Body(Bytes::new()), if_token: None }.into(),
            &|lock| Acquire { lock, client: fine(), lease_ms: 1, ..Acquire::default() }.into(),
            &|client| Acquire { lock: fine(), client, lease_ms: 1, ..Acquire::default() }.into(),
            &|lock| Release { lock, client: fine(), token: 0, ..Release::default() }.into(),
            &|client| Release { lock: fine(), client, token: 0, ..Release::default() }.into(),
            &|lock| Renew { lock, client: fine(), token: 0, lease_ms: 1, ..Renew::default() }.into(),
            &|client| Renew { lock: fine(), client, token: 0, lease_ms: 1, ..Renew::default() }.into(),
        ];
        let keys: [Make<'_>; 8] = [
            &|key| Get { key }.into(),
            &|key| Put { key, ..Put::default() }.into(),
            &|key| Delete { key, ..Delete::default() }.into(),
            &|key| Add { key, ..Add::default() }.into(),
            &|key| GetOrFill { key, lease_ms: 1 }.into(),
            &|key| MultiGet { keys: vec![fine(), key] }.into(),
            &|key| MultiPut { puts: vec![Put { key, ..Put::default() }] }.into(),
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
            &|body| Enqueue { queue: q(), body, ..Enqueue::default() }.into(),
            &|body| Ack { queue: q(), which: AckWhich::Body(body), if_token: None }.into(),
            &|value| Put { key: q(), value, ..Put::default() }.into(),
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
        let (puts, all) = (|puts| vec![Put { key: x(), ..Put::default() }; puts as usize], MULTI_MAX as u32);
        let numbers: [(Make<'_>, u32, u32); 8] = [
            (&|lease_ms| GetOrFill { key: x(), lease_ms }.into(), 1, FILL_MS_MAX),
            (&|keys| MultiGet { keys: vec![x(); keys.min(all + 1) as usize] }.into(), 1, all),
            (&|count| MultiPut { puts: puts(count.min(all + 1)) }.into(), 1, all),
            (&|lease_ms| Acquire { lock: x(), client: x(), lease_ms, ..Acquire::default() }.into(), 1, LEASE_MS_MAX),
            (
                &|lease_ms| Renew { lock: x(), client: x(), token: 0, lease_ms, ..Renew::default() }.into(),
                1,
                LEASE_MS_MAX,
            ),
            (&|visibility_ms| Dequeue { queue: x(), visibility_ms, ..Dequeue::default() }.into(), 0, VISIBILITY_MS_MAX),
            (&|count_max| Dequeue { queue: x(), count_max, ..Dequeue::default() }.into(), 0, BATCH_MAX),
            (&|wait_ms| Dequeue { queue: x(), wait_ms, ..Dequeue::default() }.into(), 0, WAIT_MS_MAX),
        ];
        for (make, min, max) in numbers {
            let code = |number: u32| make(number).check().err().map(|error| error.code);
            assert_eq!([code(min), code(max)], [None, None]);
            assert_eq!([code(max + 1), code(u32::MAX)], [Some(ErrorCode::InvalidArgument); 2]);
            assert!(min == 0 || code(min - 1) == Some(ErrorCode::InvalidArgument));
        }
    }

    #[test]
    fn what_a_write_says_beside_its_value_has_its_limits() {
        let put = |content: usize, ttl_ms| Put {
            key: "k".into(),
            content_type: "x".repeat(content),
            ttl_ms,
            ..Put::default()
        };
        let code = |put: Put| Request::from(put).check().err().map(|error| error.code);
        assert_eq!([code(put(CONTENT_TYPE_BYTES_MAX, TTL_MS_MAX)), code(put(0, 0))], [None, None]);
        assert_eq!(code(put(CONTENT_TYPE_BYTES_MAX + 1, 0)), Some(ErrorCode::TooLarge));
        assert_eq!(code(put(0, TTL_MS_MAX + 1)), Some(ErrorCode::InvalidArgument));
        let half = Put { key: "k".into(), value: vec![0; MULTI_BYTES_MAX / 2].into(), ..Put::default() };
        let one_more = Put { key: "k".into(), value: "x".into(), ..Put::default() };
        let multi = |puts: &[&Put]| Request::from(MultiPut { puts: puts.iter().copied().cloned().collect() }).check();
        assert_eq!(multi(&[&half, &half]), Ok(()));
        assert_eq!(multi(&[&half, &half, &one_more]).map_err(|error| error.code), Err(ErrorCode::TooLarge));
    }

    #[test]
    fn prefixes_have_their_limits() {
        let list = |prefix: usize, after: usize| {
            Request::from(ListKeys { group: 0, prefix: "x".repeat(prefix), after: "x".repeat(after) }).check()
        };
        assert_eq!([list(0, 0), list(KEY_BYTES_MAX, KEY_BYTES_MAX)], [Ok(()), Ok(())]);
        for wrong in [list(KEY_BYTES_MAX + 1, 0), list(0, KEY_BYTES_MAX + 1)] {
            assert_eq!(wrong.map_err(|error| error.code), Err(ErrorCode::TooLarge));
        }
        let delete = |bytes: usize| Request::from(DeletePrefix { prefix: "x".repeat(bytes) }).check().err();
        let code = |bytes: usize| delete(bytes).map(|error| error.code);
        assert_eq!([code(0), code(1)], [Some(ErrorCode::InvalidArgument), None], "all keys are no prefix's");
        assert_eq!([code(KEY_BYTES_MAX), code(KEY_BYTES_MAX + 1)], [None, Some(ErrorCode::TooLarge)]);
    }
}
