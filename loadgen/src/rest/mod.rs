//! The load that REST callers are known to put on a cluster: users that enqueue and dequeue, and users of one hot lock.
//!
//! ```text
//!   queue user   10 in 15: enqueue a message at the address that its body hashes to     then think
//!                 5 in 15: dequeue at a random address, and acknowledge what came       then think
//!   lock user    acquire the hot lock at a random address
//!                  200: hold it, release it at a random address, think
//!                  409: somebody holds it; think
//! ```
//!
//! A user has a connection to each address, kept alive and opened again where it broke. A 409 is an answer and has a row of its own
//! (`acquire 409`), so it is neither a failure nor in the latencies of a grant; an empty queue is a 200 with the row `dequeue empty`.
//! Anything else that is not 2xx is a failure.
//!
//! The requests are the old callers': a message is acknowledged by its body, and a lock released by its client's name. `--verify` checks
//! the hot lock by the tokens and moments of its grants, as it does natively.
//!
//! # Caveats
//! - The queues are the nodes' own, and what is in them is taken and acknowledged whoever sent it. So no message of this load
//!   can be called lost or out of nothing, and the load is not for a cluster with messages that somebody wants.
//! - With a think time of 0 there is no pause at all, so a lock is held for no time either.
//! - In the open loop users do not think: when a round begins is decided by the plan.

mod http;
mod lock;
mod queue;
mod ring;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::arguments::duration;
use crate::checks::lock::LockLedger;
use crate::workload::{Checks, Failure, Worker, Workload};

use http::Address;
use ring::Ring;

/// The first release of a lock is not before this, and not after the longest.
const HOLD_SHORTEST: Duration = Duration::from_millis(500);
/// The longest that a lock user holds the lock.
const HOLD_LONGEST: Duration = Duration::from_millis(1_500);

/// The addresses, and how the users behave.
#[derive(Clone, Debug, Args)]
pub(crate) struct RestArguments {
    /// Addresses of the queue service, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:8000,127.0.0.1:8001,127.0.0.1:8002")]
    queue_addresses: Vec<Address>,
    /// Addresses of the lock service, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:9000,127.0.0.1:9001,127.0.0.1:9002")]
    lock_addresses: Vec<Address>,
    /// Users of the queues.
    #[arg(long, default_value_t = 50)]
    users: usize,
    /// Users of the hot lock, beside those.
    #[arg(long, default_value_t = 10)]
    lock_users: usize,
    /// Pause of a user between two tasks: `100ms..500ms`, one duration, or `0s` for none at all.
    #[arg(long, default_value = "100ms..500ms")]
    think: Pause,
}

impl RestArguments {
    /// Users of both kinds, each a worker of its own.
    pub(crate) fn all_users(&self) -> usize {
        self.users + self.lock_users
    }
}

/// A pause between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pause {
    shortest: Duration,
    longest: Duration,
}

impl FromStr for Pause {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (shortest, longest) = text.split_once("..").unwrap_or((text, text));
        let pause = Self { shortest: duration(shortest)?, longest: duration(longest)? };
        if pause.shortest <= pause.longest { Ok(pause) } else { Err("the first is longer than the second".into()) }
    }
}

impl Pause {
    const NONE: Self = Self { shortest: Duration::ZERO, longest: Duration::ZERO };

    async fn take(self, worker: &mut Worker<Arc<http::User>>) {
        if self != Self::NONE {
            let pause = worker.between(self.shortest, self.longest);
            tokio::time::sleep(pause).await;
        }
    }
}

/// The workload.
#[derive(Debug)]
pub(crate) struct Rest {
    run: u64,
    users: u64,
    think: Pause,
    hold: Pause,
    queue_addresses: usize,
    lock_addresses: usize,
    /// Queue addresses, then lock addresses: their places are those of a user's connections.
    addresses: Vec<Address>,
    ring: Ring,
    lock: String,
    grants: Option<LockLedger>,
}

impl Rest {
    /// A run of its own; `open` where the plan decides when rounds begin.
    ///
    /// # Errors
    /// Where there are no addresses or no users.
    pub(crate) fn new(arguments: &RestArguments, run: u64, open: bool, keeps_ledger: bool) -> Result<Self, Failure> {
        let wrong = |text: &str| Failure { name: "arguments", unknown: false, text: text.into() };
        if arguments.queue_addresses.is_empty() || arguments.lock_addresses.is_empty() {
            return Err(wrong("the queue and the lock need an address each"));
        }
        if arguments.all_users() == 0 {
            return Err(wrong("there are no users"));
        }
        let pauses = !open && arguments.think != Pause::NONE;
        let hold = Pause { shortest: HOLD_SHORTEST, longest: HOLD_LONGEST };
        let addresses: Vec<Address> =
            arguments.queue_addresses.iter().chain(&arguments.lock_addresses).cloned().collect();
        Ok(Self {
            run,
            users: arguments.users as u64,
            think: if pauses { arguments.think } else { Pause::NONE },
            hold: if pauses { hold } else { Pause::NONE },
            queue_addresses: arguments.queue_addresses.len(),
            lock_addresses: arguments.lock_addresses.len(),
            ring: Ring::new(arguments.queue_addresses.iter().map(Address::as_str)),
            addresses,
            lock: format!("loadgen-hot-{run:x}"),
            grants: keeps_ledger.then(|| LockLedger::new(1)),
        })
    }

    /// The place of a random lock address among the connections.
    fn random_lock_address(&self, worker: &mut Worker<Arc<http::User>>) -> usize {
        self.queue_addresses + usize::try_from(worker.chance(self.lock_addresses as u64)).unwrap_or(0)
    }

    /// The place of a random queue address among the connections.
    fn random_queue_address(&self, worker: &mut Worker<Arc<http::User>>) -> usize {
        usize::try_from(worker.chance(self.queue_addresses as u64)).unwrap_or(0)
    }
}

impl Workload for Rest {
    type Connection = Arc<http::User>;

    async fn connect(&self, _number: usize) -> Result<Arc<http::User>, Failure> {
        Ok(Arc::new(http::User::new(&self.addresses)))
    }

    async fn prepare(&self, worker: &mut Worker<Arc<http::User>>) -> Result<(), Failure> {
        for place in 0..self.addresses.len() {
            let answer = worker.connection.get(place, "/").await?;
            answer.require_success()?;
        }
        Ok(())
    }

    async fn round(&self, worker: &mut Worker<Arc<http::User>>) -> bool {
        if worker.rounds == 0 && self.think != Pause::NONE {
            // Users do not all come in at the same moment.
            let pause = worker.between(Duration::ZERO, self.think.longest);
            tokio::time::sleep(pause).await;
        }
        let well =
            if worker.number < self.users { self.queue_round(worker).await } else { self.lock_round(worker).await };
        self.think.take(worker).await;
        well
    }

    async fn verify(&self, _worker: &mut Worker<Arc<http::User>>) -> Checks {
        self.grants.as_ref().map(LockLedger::checks).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_read_as_people_write_them() {
        let pause = |shortest, longest| {
            Ok(Pause { shortest: Duration::from_millis(shortest), longest: Duration::from_millis(longest) })
        };
        assert_eq!("100ms..500ms".parse(), pause(100, 500));
        assert_eq!("0.1..0.5".parse(), pause(100, 500));
        assert_eq!("2s".parse(), pause(2_000, 2_000));
        assert_eq!("0s".parse(), Ok(Pause::NONE));
        for text in ["", "..", "2s..1s", "soon"] {
            assert!(text.parse::<Pause>().is_err(), "{text}");
        }
    }
}
