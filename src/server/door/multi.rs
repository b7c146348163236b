//! Requests that are several: each part goes to the group of its key like a request of its own, and the answers come together.

use std::time::Duration;

use trine_protocol::cache::{
    Delete, DeletePrefix, DeletedPrefix, Get, ListKeys, MultiGet, MultiGot, MultiPut, MultiWritten, OnlyIf,
};
use trine_protocol::limits::{MULTI_BYTES_MAX, MULTI_MAX};
use trine_protocol::{Error, ErrorCode, Request, Response};

use crate::clock;
use crate::server::gateway::CallOptions;

use super::{Handed, Shared};

/// Parts that were handed in, in order; reads, or else writes.
pub(super) struct Several {
    reads: bool,
    parts: Vec<Handed>,
}

/// A multi-get's parts.
pub(super) fn gets(get: MultiGet) -> (bool, Request, Vec<Request>) {
    let parts = get.keys.iter().map(|key| Get { key: key.clone() }.into()).collect();
    (true, get.into(), parts)
}

/// A multi-put's parts.
pub(super) fn puts(put: MultiPut) -> (bool, Request, Vec<Request>) {
    let parts = put.puts.iter().cloned().map(Request::from).collect();
    (false, put.into(), parts)
}

impl Shared {
    /// Hands in every part; none, where the whole is out of its ranges.
    pub(super) fn several(
        &self,
        (reads, whole, parts): (bool, Request, Vec<Request>),
        options: CallOptions,
    ) -> Several {
        let checked = super::check(&whole, &options);
        let hand_in = |part| match &checked {
            Ok(()) => self.hand_in(part, options),
            Err(error) => Handed::Answered(Err(error.clone())),
        };
        Several { reads, parts: parts.into_iter().map(hand_in).collect() }
    }

    /// Deletes page by page, group by group.
    pub(super) async fn delete_prefix(&self, delete: DeletePrefix, options: CallOptions) -> Result<Response, Error> {
        super::check(&delete.clone().into(), &options)?;
        let began_us = clock::mono_us();
        let left = || CallOptions { deadline: left(options.deadline, began_us), ..options };
        let mut deleted = 0;
        for group in 0..self.ring.groups() {
            let (mut after, mut more) = (String::new(), true);
            while more {
                let list = ListKeys { group, prefix: delete.prefix.clone(), after };
                let Response::ListKeys(page) = self.one(list.into(), left()).await? else {
                    return Err(Error::new(ErrorCode::Internal, "the answer to a listing is none"));
                };
                more = page.more;
                after = page.keys.last().cloned().unwrap_or_default();
                for keys in page.keys.chunks(MULTI_MAX) {
                    deleted += self.delete_present(keys, left()).await?;
                }
            }
        }
        Ok(Response::DeletePrefix(DeletedPrefix { deleted }))
    }

    /// Deletes those of the keys that exist, and says how many did: what does not was deleted by somebody else meanwhile.
    async fn delete_present(&self, keys: &[String], options: CallOptions) -> Result<u64, Error> {
        let delete =
            |key: &String| Delete { key: key.clone(), only_if: OnlyIf::Present, through: true, ..Delete::default() };
        let parts: Vec<Handed> = keys.iter().map(|key| self.hand_in(delete(key).into(), options)).collect();
        let mut deleted = 0;
        for part in parts {
            match self.answer(part, options.deadline).await {
                Ok(_) => deleted += 1,
                Err(error) if error.code == ErrorCode::ConditionFailed => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }

    async fn one(&self, request: Request, options: CallOptions) -> Result<Response, Error> {
        let handed = self.hand_in(request, options);
        self.answer(handed, options.deadline).await
    }

    /// The answer to what was handed in.
    pub(super) async fn answer(&self, handed: Handed, deadline: Duration) -> Result<Response, Error> {
        match handed {
            Handed::Answered(result) => result,
            Handed::Waits(place) => self.wait(place, deadline).await,
        }
    }
}

impl Several {
    /// The answers of all parts.
    pub(super) async fn join(self, shared: &Shared, deadline: Duration) -> Result<Response, Error> {
        let began_us = clock::mono_us();
        let mut results = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            results.push(shared.answer(part, left(deadline, began_us)).await);
        }
        if !self.reads {
            let results = results.into_iter().map(|result| match result? {
                Response::Put(written) => Ok(written),
                other => Err(unexpected(&other)),
            });
            return Ok(Response::MultiPut(MultiWritten { results: results.collect() }));
        }
        let mut bytes = 0;
        let results = results.into_iter().map(|result| match result? {
            Response::Get(got) => {
                bytes += got.value.as_ref().map_or(0, bytes::Bytes::len);
                if bytes > MULTI_BYTES_MAX {
                    let what =
                        format!("the values before this one and it have more than {MULTI_BYTES_MAX} bytes together");
                    return Err(Error::new(ErrorCode::TooLarge, what));
                }
                Ok(got)
            }
            other => Err(unexpected(&other)),
        });
        Ok(Response::MultiGet(MultiGot { results: results.collect() }))
    }
}

/// What is left of a deadline.
fn left(deadline: Duration, began_us: u64) -> Duration {
    deadline.saturating_sub(Duration::from_micros(clock::mono_us().saturating_sub(began_us)))
}

fn unexpected(other: &Response) -> Error {
    Error::new(ErrorCode::Internal, format!("a part was answered by one to {:?}", other.command()))
}
