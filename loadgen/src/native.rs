//! Connections of Trine's own client, which the workloads over the native protocol drive.

use trine_protocol::client::{Client, ClientConfig};
use trine_protocol::{Request, Response};

use crate::workload::{Failure, Worker};

/// Connects one client: the `number`th begins with the `number`th endpoint, and knows the others.
///
/// # Errors
/// Where no endpoint answers.
pub(crate) async fn connect(endpoints: &[String], number: usize) -> Result<Client, Failure> {
    let mut endpoints = endpoints.to_vec();
    let turn = number % endpoints.len().max(1);
    endpoints.rotate_left(turn);
    Ok(Client::connect(ClientConfig { name: format!("loadgen-{number}"), ..ClientConfig::new(endpoints) }).await?)
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
