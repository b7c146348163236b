//! Queue, lock and cache at once, on the same connections: each round is one of the three, by chance and their shares.

use std::str::FromStr;

use trine_protocol::client::Client;

use crate::cache::Keys;
use crate::lock::Locks;
use crate::queue::Queues;
use crate::workload::{Checks, Failure, Worker, Workload};

/// How many rounds of each, in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    queue: u64,
    lock: u64,
    cache: u64,
}

/// The largest share that may be named: their sum stays far below what a number holds.
const SHARE_MAX: u64 = 1_000_000;

impl FromStr for Shares {
    type Err = String;

    /// Reads `queue=1,lock=1,cache=2`; what is not named has no share.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut shares = Self { queue: 0, lock: 0, cache: 0 };
        for part in text.split(',') {
            let (name, share) = part.split_once('=').ok_or_else(|| format!("`{part}` is no NAME=SHARE"))?;
            let share = share.parse().ok().filter(|share| *share <= SHARE_MAX);
            let share = share.ok_or_else(|| format!("`{part}`: a share is 0 to {SHARE_MAX}"))?;
            match name.trim() {
                "queue" => shares.queue = share,
                "lock" => shares.lock = share,
                "cache" => shares.cache = share,
                other => return Err(format!("`{other}` is none of queue, lock, cache")),
            }
        }
        if shares.queue + shares.lock + shares.cache == 0 { Err("all shares are 0".into()) } else { Ok(shares) }
    }
}

/// The three workloads.
#[derive(Debug)]
pub(crate) struct Mixed {
    /// How many rounds of each.
    pub(crate) shares: Shares,
    /// The first.
    pub(crate) queues: Queues,
    /// The second.
    pub(crate) locks: Locks,
    /// The third.
    pub(crate) keys: Keys,
}

impl Workload for Mixed {
    type Connection = Client;

    async fn connect(&self, number: usize) -> Result<Client, Failure> {
        self.queues.connect(number).await
    }

    async fn prepare(&self, worker: &mut Worker<Client>) -> Result<(), Failure> {
        self.keys.prepare(worker).await
    }

    async fn round(&self, worker: &mut Worker<Client>) -> bool {
        let Shares { queue, lock, cache } = self.shares;
        let chosen = worker.chance(queue + lock + cache);
        if chosen < queue {
            self.queues.round(worker).await
        } else if chosen < queue + lock {
            self.locks.round(worker).await
        } else {
            self.keys.round(worker).await
        }
    }

    async fn verify(&self, worker: &mut Worker<Client>) -> Checks {
        let mut checks = self.locks.verify(worker).await;
        checks.merge(self.keys.verify(worker).await);
        checks.merge(self.queues.verify(worker).await);
        checks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_they_are_named() {
        assert_eq!("queue=1,lock=2,cache=3".parse(), Ok(Shares { queue: 1, lock: 2, cache: 3 }));
        assert_eq!("cache=5".parse(), Ok(Shares { queue: 0, lock: 0, cache: 5 }));
        for text in ["", "queue", "queue=-1", "queue=0", "disk=1", "queue=1,cache=1000001"] {
            assert!(text.parse::<Shares>().is_err(), "{text}");
        }
    }
}
