//! The contract, held against the code: golden bytes of every message, and every table of `README.md`.

mod golden;
mod growth;
mod pieces;
mod queue_samples;
mod readme;
mod samples;
