//! Clients' connections that take pushes, by the numbers that the clients made up for themselves.
//!
//! # Invariants
//! - A number belongs to one connection; it is given back when that ends.
//! - At most [`PUSHES_MAX`] pushes wait for a connection; one more is lost. Nothing is counted on a push to arrive: who waits for
//!   its effect waits for the end of a lease otherwise.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use trine_protocol::Push;

/// Pushes that wait for one connection to write them: notices of some keys each.
const PUSHES_MAX: usize = 1_024;

/// All of a node.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_client: Mutex<BTreeMap<u64, mpsc::Sender<Push>>>,
}

/// What comes for one connection; the number is given back when it is dropped.
#[derive(Debug)]
pub struct Pushes {
    client: u64,
    receiver: mpsc::Receiver<Push>,
    listeners: Arc<Listeners>,
}

impl Listeners {
    /// Takes a number. None where another connection has it.
    pub(super) fn listen(self: &Arc<Self>, client: u64) -> Option<Pushes> {
        let (sender, receiver) = mpsc::channel(PUSHES_MAX);
        match self.lock().entry(client) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(place) => place.insert(sender),
        };
        Some(Pushes { client, receiver, listeners: Arc::clone(self) })
    }

    /// Something for the client with this number.
    pub(super) fn tell(&self, client: u64, push: Push) {
        if let Some(sender) = self.lock().get(&client) {
            // Who does not read is waited for no longer than its lease.
            let _ = sender.try_send(push);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, mpsc::Sender<Push>>> {
        // Every change is whole before anything in it can panic.
        self.by_client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pushes {
    /// The number.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// The next one.
    pub async fn next(&mut self) -> Option<Push> {
        self.receiver.recv().await
    }
}

impl Drop for Pushes {
    fn drop(&mut self) {
        self.listeners.lock().remove(&self.client);
    }
}

#[cfg(test)]
mod tests {
    use trine_protocol::cache::CopiesGone;

    use super::*;

    fn gone(notice: u64) -> Push {
        CopiesGone { group: 0, notice, keys: Vec::new() }.into()
    }

    #[tokio::test]
    async fn a_number_is_one_connection_s_until_it_ends() {
        let listeners = Arc::new(Listeners::default());
        let mut first = listeners.listen(7).expect("nobody has it");
        assert!(listeners.listen(7).is_none(), "it is taken");
        listeners.tell(7, gone(1));
        listeners.tell(8, gone(2));
        assert_eq!((first.client(), first.next().await), (7, Some(gone(1))));
        drop(first);
        assert!(listeners.listen(7).is_some(), "it was given back");
    }

    #[tokio::test]
    async fn pushes_to_a_connection_that_does_not_read_are_bounded() {
        let listeners = Arc::new(Listeners::default());
        let mut pushes = listeners.listen(7).expect("nobody has it");
        (0..2 * PUSHES_MAX as u64).for_each(|notice| listeners.tell(7, gone(notice)));
        let mut count = 0;
        while pushes.receiver.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, PUSHES_MAX);
        listeners.tell(7, gone(0));
        assert_eq!(pushes.next().await, Some(gone(0)), "there is room again");
    }
}
