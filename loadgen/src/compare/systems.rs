//! What a system must be able to do to be put beside others: three small traits, so that each piece of work is written once.
//!
//! A method does one thing that a user would await, with the system's own client, and promises no more than that system does.

use std::future::Future;

use bytes::Bytes;

use crate::workload::Failure;

/// Who can be connected to. One value is made for each run.
pub(super) trait System: Send + Sync + 'static {
    /// One TCP connection, shared by the workers on it.
    type Connection: Clone + Send + Sync + 'static;

    /// Opens the `number`th connection, to the nodes in turn.
    fn connect(&self, number: usize) -> impl Future<Output = Result<Self::Connection, Failure>> + Send;
}

/// A lock service.
pub(super) trait Locks: System {
    /// What is needed to give a lock back.
    type Grant: Send;

    /// Takes a lock for `client`. None where somebody else has it and the system does not wait.
    fn acquire(
        &self,
        connection: &Self::Connection,
        lock: &str,
        client: &str,
    ) -> impl Future<Output = Result<Option<Self::Grant>, Failure>> + Send;
    /// Gives it back.
    fn release(
        &self,
        connection: &Self::Connection,
        lock: &str,
        client: &str,
        grant: Self::Grant,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A queue.
pub(super) trait Queues: System {
    /// A message that was taken and is to be acknowledged.
    type Delivery: Send;

    /// Makes the queue, where that is needed.
    fn create(&self, connection: &Self::Connection, queue: &str) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Removes it and what is in it, where that can be done.
    fn remove(&self, connection: &Self::Connection, queue: &str) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Puts a message into it; awaited until the system says that it has it.
    fn publish(
        &self,
        connection: &Self::Connection,
        queue: &str,
        body: Bytes,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Takes up to `count` messages, in the first call on a connection more than in any later one or as many. None where nothing
    /// is ready; a system that can wait for the first one does.
    fn take(
        &self,
        connection: &Self::Connection,
        queue: &str,
        count: usize,
    ) -> impl Future<Output = Result<Vec<Self::Delivery>, Failure>> + Send;
    /// Acknowledges what one call took, so that it does not come back.
    fn acknowledge(
        &self,
        connection: &Self::Connection,
        queue: &str,
        deliveries: Vec<Self::Delivery>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A store of values by key.
pub(super) trait Store: System {
    /// Writes a value.
    fn write(
        &self,
        connection: &Self::Connection,
        key: &str,
        value: Bytes,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Reads a value that is there. True where it came from the quickest place that the system has.
    fn read(&self, connection: &Self::Connection, key: &str) -> impl Future<Output = Result<bool, Failure>> + Send;
    /// Brings a value to that place on every node.
    fn warm(&self, connection: &Self::Connection, key: &str) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Removes a key after a run.
    fn remove(&self, connection: &Self::Connection, key: &str) -> impl Future<Output = Result<(), Failure>> + Send;
}
