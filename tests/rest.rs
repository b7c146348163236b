//! The REST contract, row by row, against a node that is not there.

#[path = "rest/contract.rs"]
mod contract;
#[path = "rest/documented.rs"]
mod documented;
#[path = "rest/fake.rs"]
mod fake;
#[path = "rest/http.rs"]
mod http;
#[path = "rest/input.rs"]
mod input;
#[path = "rest/limits.rs"]
mod limits;
#[path = "rest/queues.rs"]
mod queues;
