//! The door to a node for everything that speaks to clients: native sessions and REST alike.

use std::future::Future;
use std::time::Duration;

use trine_protocol::cluster::NodeStatus;
use trine_protocol::{Error, Request, Response};

use crate::node::effect::SessionRef;

use super::listeners::Pushes;

/// What goes with a request.
#[derive(Clone, Copy, Debug)]
pub struct CallOptions {
    /// The client's own session; without one the node uses its own, and a request is executed at most once per call.
    pub session: Option<SessionRef>,
    /// Time that the request has; after it the answer is `DeadlineExceeded`.
    pub deadline: Duration,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self { session: None, deadline: Duration::from_millis(trine_protocol::limits::DEADLINE_MS_DEFAULT.into()) }
    }
}

/// One node, as its front doors see it. A trait, so that the front doors are tested without a node behind them.
pub trait Gateway: Clone + Send + Sync + 'static {
    /// Executes one request. Always answers, soon after the deadline at the latest. The request has its place in the order of
    /// things when the future has been polled once: who polls two in turn has them executed in turn, if they meet in one group.
    fn call(&self, request: Request, options: CallOptions) -> impl Future<Output = Result<Response, Error>> + Send;
    /// Begins to take what this node says unasked to the client that gave itself this number. None where another connection has it, or
    /// there is nothing to be said.
    fn listen(&self, client: u64) -> Option<Pushes>;
    /// What the node is and how it stands; no message is sent for it.
    fn status(&self) -> NodeStatus;
    /// Whether the node can serve all it is for; if not, why.
    ///
    /// # Errors
    /// The reason, for a person.
    fn readiness(&self) -> Result<(), String>;
    /// Every metric in Prometheus' text form.
    fn metrics(&self) -> String;
}
