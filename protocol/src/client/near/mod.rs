//! Copies of values in this process, which are read without asking anybody and are never stale.
//!
//! ```no_run
//! # async fn example(client: trine_protocol::client::Client) -> Result<(), trine_protocol::Error> {
//! let near = client.near_cache(64 * 1024 * 1024);
//! let first = near.get("greeting").await?;  // from the node
//! let second = near.get("greeting").await?; // from this process's memory, until somebody writes the key
//! # Ok(())
//! # }
//! ```
//!
//! The node counts a copy here as one of its own: a write of the key, on whichever node, waits until this process has dropped the
//! copy or the lease of its copies has run out ([`COPY_LEASE_MS`]). So a read here is as new as a read
//! from the node: it sees every write that was acknowledged before it began.
//!
//! # Invariants
//! - One connection of its own carries requests and notices; when it is lost, all copies are, and the next read makes another.
//! - A notice is followed on the task that reads the connection, before anything that came after it is looked at.
//! - A lease is begun anew while its copies are read; one that is not used runs out, and costs nobody anything.
//!
//! # Caveats
//! - A process that is stopped makes a writer wait for up to a lease; it drops what it has when it wakes up.
//! - Where a node gives no lease (it has none itself, or counts as many copies as it can), every read goes to the node.

mod kept;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cache::{CopiesGone, DropCopies, Get, GetCopy, Got, KeepCopies};
use crate::command::{RequestHeader, Response};
use crate::error::Error;
use crate::handshake::Hello;
use crate::limits::COPY_LEASE_MS;
use crate::push::Push;

use super::connection::Connection;
use super::{Client, clock, mismatch};

pub use kept::{Kept, Ticket};

/// Time between two looks at which leases are to be begun anew: two may be lost.
const KEEP_EVERY: Duration = Duration::from_millis(COPY_LEASE_MS as u64 / 3);

/// How a near cache has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NearStats {
    /// Reads that were answered from this process's memory.
    pub hits: u64,
    /// Reads that went to a node.
    pub misses: u64,
    /// Notices that copies are gone.
    pub notices: u64,
    /// Copies that are kept.
    pub copies: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// Copies of one node's lines in this process. Clones share them.
#[derive(Clone)]
pub struct NearCache {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    bytes_max: usize,
    begun: Instant,
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
    current: Mutex<Option<Arc<Link>>>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    notices: AtomicU64,
}

/// One connection with its copies.
struct Link {
    copies: u64,
    connection: Connection,
    kept: Arc<Mutex<Kept>>,
}

impl Client {
    /// Begins to keep copies of what is read through it, of at most so many bytes. They are copies of the lines of the node whose cache
    /// this client uses.
    pub fn near_cache(&self, bytes_max: usize) -> NearCache {
        let inner = Inner {
            client: self.clone(),
            bytes_max,
            begun: clock::now(),
            link: tokio::sync::Mutex::default(),
            current: Mutex::default(),
            counts: Counts::default(),
        };
        NearCache { inner: Arc::new(inner) }
    }
}

impl NearCache {
    /// Reads a key: from this process's memory where it has a copy that may be read, otherwise through the node.
    ///
    /// # Errors
    /// Those of [`Client::get`].
    pub async fn get(&self, key: &str) -> Result<Got, Error> {
        let inner = &self.inner;
        if let Some(got) = inner.hit(key) {
            inner.counts.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(got);
        }
        inner.counts.misses.fetch_add(1, Ordering::Relaxed);
        if let Some(got) = inner.fetch(key).await {
            return Ok(got);
        }
        // Whatever was wrong, the client's own way of asking copes with it, or says what it is.
        match inner.client.call(Get { key: key.to_owned() }).await? {
            Response::Get(got) => Ok(got),
            other => Err(mismatch(&other)),
        }
    }

    /// How it has done so far.
    pub fn stats(&self) -> NearStats {
        let Counts { hits, misses, notices } = &self.inner.counts;
        let (copies, bytes) = self.inner.current().map_or((0, 0), |link| link.kept().size());
        NearStats {
            hits: hits.load(Ordering::Relaxed),
            misses: misses.load(Ordering::Relaxed),
            notices: notices.load(Ordering::Relaxed),
            copies,
            bytes,
        }
    }
}

impl Inner {
    fn now_us(&self) -> u64 {
        u64::try_from((clock::now() - self.begun).as_micros()).unwrap_or(u64::MAX)
    }

    fn current(&self) -> Option<Arc<Link>> {
        let link = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        link.as_ref().filter(|link| link.connection.is_open()).cloned()
    }

    fn hit(&self, key: &str) -> Option<Got> {
        let link = self.current()?;
        link.kept().read(key, || self.now_us())
    }

    /// Asks the node for a value to keep. None where that did not come to an answer.
    async fn fetch(self: &Arc<Self>, key: &str) -> Option<Got> {
        let until = clock::now() + self.client.shared.config.deadline;
        let link = self.link(until).await?;
        let ticket = link.kept().ask(key);
        let sent_us = self.now_us();
        let request = GetCopy { key: key.to_owned(), copies: link.copies }.into();
        let answer = link.connection.call(RequestHeader::default(), &request, until).await;
        match answer {
            Ok(Response::GetCopy(answer)) => {
                link.kept().got(ticket, sent_us, &answer);
                Some(answer.got)
            }
            _ => {
                link.kept().give_up(ticket);
                None
            }
        }
    }

    /// The connection, made if there is none.
    async fn link(self: &Arc<Self>, until: Instant) -> Option<Arc<Link>> {
        let mut place = self.link.lock().await;
        if let Some(link) = self.current() {
            return Some(link);
        }
        let shared = &self.client.shared;
        let hello = Hello::client(&shared.config.name, shared.config.credentials.clone());
        let mut number = [0; 8];
        getrandom::fill(&mut number).ok()?;
        let copies = u64::from_le_bytes(number) | 1;
        let kept = Arc::new(Mutex::new(Kept::new(self.bytes_max)));
        let (notices, mut to_answer) = tokio::sync::mpsc::unbounded_channel();
        let (told, counted) = (kept.clone(), Arc::downgrade(self));
        let on_push = move |push: Push| {
            if let Push::CopiesGone(gone) = push {
                told.lock().unwrap_or_else(PoisonError::into_inner).gone(&gone);
                if let Some(inner) = counted.upgrade() {
                    inner.counts.notices.fetch_add(1, Ordering::Relaxed);
                }
                // Bounded by the notices that the node has out, one for each copy at most.
                let _ = notices.send(gone);
            }
        };
        let address = self.client.cache_endpoint();
        let connection = Connection::open_with(address, &hello, until, Some(Box::new(on_push))).await.ok()?;
        let link = Arc::new(Link { copies, connection, kept });
        let weak = Arc::downgrade(&link);
        tokio::spawn(async move {
            while let Some(gone) = to_answer.recv().await {
                let Some(link) = weak.upgrade() else { return };
                link.answer(&gone).await;
            }
        });
        tokio::spawn(keep(Arc::downgrade(self), Arc::downgrade(&link)));
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(link.clone());
        *place = Some(link.clone());
        Some(link)
    }
}

impl Link {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that what the notice named is dropped. Where that does not arrive, the node waits for the lease.
    async fn answer(&self, gone: &CopiesGone) {
        let request = DropCopies { group: gone.group, copies: self.copies, notice: gone.notice }.into();
        let _ = self.connection.call(RequestHeader::default(), &request, clock::now() + KEEP_EVERY).await;
    }
}

/// Begins the leases of copies anew while they are read, until the connection is gone or nobody wants it.
async fn keep(inner: Weak<Inner>, link: Weak<Link>) {
    loop {
        sleep(KEEP_EVERY).await;
        let (Some(inner), Some(link)) = (inner.upgrade(), link.upgrade()) else { return };
        if !link.connection.is_open() {
            return;
        }
        let leases = link.kept().to_keep();
        for (group, number) in leases {
            let sent_us = inner.now_us();
            let request = KeepCopies { group, copies: link.copies, number }.into();
            let until = clock::now() + KEEP_EVERY;
            if let Ok(Response::KeepCopies(kept)) =
                link.connection.call(RequestHeader::default(), &request, until).await
            {
                link.kept().kept(group, number, sent_us, kept.lease);
            }
        }
    }
}

impl fmt::Debug for NearCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NearCache").field("client", &self.inner.client).field("stats", &self.stats()).finish()
    }
}
