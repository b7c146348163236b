//! Stale while revalidate: a value that is due is read on, while one caller in the cluster makes the next one.
//!
//! ```no_run
//! # use trine_protocol::client::fresh::{Fetched, Keep};
//! # async fn make() -> &'static str { "a page" }
//! # async fn example(client: trine_protocol::client::Client) -> Result<(), trine_protocol::Error> {
//! let page = match client.get_fresh("page", 10_000).await? {
//!     Fetched::Fresh(got) => got.value,
//!     // Another caller makes the next one, or this one does, in its own time: what is there is good enough meanwhile.
//!     Fetched::Stale { got, right } => {
//!         if let Some(right) = right {
//!             client.put_fresh("page", make().await, Keep { fresh_ms: 60_000, stale_ms: 600_000 }, right).await?;
//!         }
//!         got.value
//!     }
//!     Fetched::Missing(right) => {
//!         let page = make().await;
//!         client.put_fresh("page", page, Keep { fresh_ms: 60_000, stale_ms: 600_000 }, right).await?;
//!         Some(page.into())
//!     }
//! };
//! # Ok(())
//! # }
//! ```
//!
//! It is made of what the cache has anyway. The value lives for `fresh_ms + stale_ms`; beside it lives, for `fresh_ms`, an empty key with
//! [`FRESH_SUFFIX`] that says that the value is fresh, and for the time of a right one with [`REFRESH_SUFFIX`], which one caller in the cluster
//! put there because it was absent. So a read of a fresh value is two hits of the node's cache, and of a stale one three.
//!
//! # What it promises
//! - Of those who find a stale value one at a time has the right to make the next one; nobody waits for it. Of those who find none one has the right to
//!   fill it, and the others wait for the value, as with [`crate::cache::GetOrFill`].
//! - Who is late does not overwrite: a value that somebody else wrote in the meantime stays, and the error is `ConditionFailed` or `StaleFill`.
//!
//! # Caveats
//! - A writer that dies between value and mark leaves a value that counts as stale, and one that was written by a plain put does: it is made once more.
//! - All callers must name the same key with these functions; a key may be [`KEY_BYTES_MAX`](crate::limits::KEY_BYTES_MAX) less eight bytes long.

use bytes::Bytes;

use crate::cache::{Got, OnlyIf, Put, Version, Written};
use crate::command::Response;
use crate::error::{Error, ErrorCode};

use super::{Client, mismatch};

/// What is put behind a key's name for the key that says that it is fresh.
pub const FRESH_SUFFIX: &str = ":fresh";
/// And for the one that says that somebody makes the next value.
pub const REFRESH_SUFFIX: &str = ":renews";

/// How long a value is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Milliseconds that it is fresh, at least 1.
    pub fresh_ms: u64,
    /// Milliseconds after that, in which it is read on while the next one is made.
    pub stale_ms: u64,
}

/// The right to make a key's next value, of one caller at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right(Made);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// There was none: the token of the fill lease.
    First(u64),
    /// The next after this one.
    After(Version),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// A value that is fresh.
    Fresh(Got),
    /// A value that is due. With a right this caller is to make the next one; otherwise another one does.
    Stale {
        /// What is there.
        got: Got,
        /// For [`Client::put_fresh`].
        right: Option<Right>,
    },
    /// Nothing, and this caller is to make the first one.
    Missing(Right),
}

impl Client {
    /// Reads a key that is made anew from time to time. A right lasts `lease_ms`; then another caller gets it.
    ///
    /// # Errors
    /// Those of `GetOrFill`.
    pub async fn get_fresh(&self, key: &str, lease_ms: u32) -> Result<Fetched, Error> {
        let filling = self.get_or_fill(key, lease_ms).await?;
        let Some(got) = filling.found else { return Ok(Fetched::Missing(Right(Made::First(filling.token)))) };
        if self.get(format!("{key}{FRESH_SUFFIX}")).await?.value.is_some() {
            return Ok(Fetched::Fresh(got));
        }
        let name = format!("{key}{REFRESH_SUFFIX}");
        let right = match self.get(name.as_str()).await?.value {
            Some(_) => None,
            None => {
                let claim = Put { only_if: OnlyIf::Absent, ttl_ms: lease_ms.into(), ..mark(name) };
                // Whoever cannot have the right, for whatever reason, has the value all the same.
                self.call(claim).await.is_ok().then_some(Right(Made::After(got.version)))
            }
        };
        Ok(Fetched::Stale { got, right })
    }

    /// Writes a key's next value under the right to make it.
    ///
    /// # Errors
    /// `ConditionFailed` or `StaleFill` where somebody else wrote the key in the meantime; those of a put. `InvalidArgument` where `fresh_ms` is 0.
    pub async fn put_fresh(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        keep: Keep,
        right: Right,
    ) -> Result<Written, Error> {
        if keep.fresh_ms == 0 {
            return Err(Error::new(ErrorCode::InvalidArgument, "fresh_ms is 0, at least 1 is allowed"));
        }
        let (only_if, fill) = match right.0 {
            Made::First(token) => (OnlyIf::Anything, token),
            Made::After(version) => (OnlyIf::Version(version), 0),
        };
        let ttl_ms = keep.fresh_ms.saturating_add(keep.stale_ms);
        let put = Put { key: key.to_owned(), value: value.into(), only_if, ttl_ms, fill, ..Put::default() };
        let fresh = Put { ttl_ms: keep.fresh_ms, ..mark(format!("{key}{FRESH_SUFFIX}")) };
        // Those who wait for a first value must find it fresh. Where there was one, the mark would be its predecessor's; but then nobody
        // else has the right while this caller has it.
        let first = matches!(right.0, Made::First(_));
        if first {
            self.call(fresh.clone()).await?;
        }
        let written = match self.call(put).await? {
            Response::Put(written) => written,
            other => return Err(mismatch(&other)),
        };
        if !first {
            self.call(fresh).await?;
            // It would go by itself; gone now, whoever comes when this value is due need not wait for that.
            let _ = self.delete(format!("{key}{REFRESH_SUFFIX}")).await;
        }
        Ok(written)
    }
}

fn mark(key: String) -> Put {
    Put { key, value: Bytes::from_static(b"1"), ..Put::default() }
}
