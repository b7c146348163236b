//! Connections of Trine's own client, which the workloads over the native protocol drive.

use trine_protocol::client::{Client, ClientConfig};
use trine_protocol::{Error, ErrorCode, Request, Response};

use crate::workload::{Failure, Worker};

/// Connects one client: the `number`th begins with the `number`th endpoint, and goes on to the others where that is dead, also
/// with its cache requests: the load goes on, and every node's cache is held to the same promise.
///
/// # Errors
/// Where no endpoint answers.
pub(crate) async fn connect(endpoints: &[String], number: usize) -> Result<Client, Failure> {
    let mut endpoints = endpoints.to_vec();
    let turn = number % endpoints.len().max(1);
    endpoints.rotate_left(turn);
    let name = format!("loadgen-{number}");
    Ok(Client::connect(ClientConfig { name, cache_any: true, ..ClientConfig::new(endpoints) }).await?)
}

/// An answer to another question: a fault of the node, and nobody knows what it did.
pub(crate) fn mismatch(other: &Response) -> Failure {
    Error::new(ErrorCode::Internal, format!("the answer is one to {:?}", other.command())).into()
}

impl Worker<Client> {
    /// Sends a request and counts it under `name`.
    pub(crate) async fn request(
        &mut self,
        name: &'static str,
        request: impl Into<Request>,
    ) -> Result<Response, Failure> {
        let client = self.connection.clone();
        self.measured(name, client.call(request)).await
    }

    /// Sends a request that is no part of the measurement.
    pub(crate) async fn call(&self, request: impl Into<Request>) -> Result<Response, Failure> {
        Ok(self.connection.call(request).await?)
    }
}
