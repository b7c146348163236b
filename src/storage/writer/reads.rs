//! The thread that looks records up while the state store's thread writes.
//!
//! A consumer that empties a deep queue asks for bodies all the time, and a checkpoint takes as long as a disk needs to sync: whoever
//! waits for the one should not wait for the other.
//!
//! A snapshot from the leader is the exception: between its arrival and its end on disk only the state's own thread knows in which order
//! things came. While one is under way, [`StateHandle::fetch`](super::StateHandle::fetch) goes there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::node::effect::{Fetch, Input};
use crate::storage::stats::add;
use crate::storage::{ReadBeside, StorageError, StorageStats};

use super::inbox::{Ending, Inbox, Stopped};
use super::state::Done;
use super::{Fatal, STATE_ROUND_MAX, STATE_WAITING_MAX, SharedFatal, spawn_thread};

type Waiting = VecDeque<Fetch>;

/// The thread, as the state's writer holds it.
#[derive(Debug)]
pub(super) struct Reads {
    inbox: Arc<Inbox<Waiting>>,
    thread: JoinHandle<()>,
}

/// Hands fetches to the thread.
#[derive(Clone, Debug)]
pub(super) struct ReadsHandle {
    inbox: Arc<Inbox<Waiting>>,
}

impl ReadsHandle {
    /// Asks for records; waits while many wait.
    pub(super) async fn fetch(&self, fetch: Fetch) -> Result<(), Stopped> {
        self.inbox.put(|waiting| waiting.push_back(fetch)).await
    }
}

impl Reads {
    pub(super) fn spawn(
        reader: Box<dyn ReadBeside>,
        done: Done,
        fatal: SharedFatal,
        stats: Arc<StorageStats>,
    ) -> Result<Self, StorageError> {
        let inbox = Inbox::new(STATE_WAITING_MAX);
        let taken = Arc::clone(&inbox);
        let thread = spawn_thread("trine-reads", move || {
            let mut fatal = Fatal::new("reads", fatal);
            let inbox = Ending(taken);
            if let Err(error) = run(&*reader, &inbox.0, &done, &stats) {
                fatal.call(error);
            }
        })?;
        Ok(Self { inbox, thread })
    }

    pub(super) fn handle(&self) -> ReadsHandle {
        ReadsHandle { inbox: Arc::clone(&self.inbox) }
    }

    /// Does what waits, and ends the thread. Blocks.
    pub(super) fn stop(self) {
        self.inbox.close();
        // Where it panicked, it has said so.
        let _ = self.thread.join();
    }
}

fn run(reader: &dyn ReadBeside, inbox: &Inbox<Waiting>, done: &Done, stats: &StorageStats) -> Result<(), StorageError> {
    let take = |waiting: &mut Waiting| {
        let count = waiting.len().min(STATE_ROUND_MAX);
        let round: Vec<Fetch> = waiting.drain(..count).collect();
        (!round.is_empty()).then_some(round)
    };
    while let Some(round) = inbox.take(take, VecDeque::is_empty) {
        inbox.free(round.len());
        for Fetch { group, ticket, keys } in round {
            add(&stats.fetched, keys.len() as u64);
            let records = reader.read_all(group, keys)?;
            done(group, Input::Fetched { ticket, records });
        }
    }
    Ok(())
}
