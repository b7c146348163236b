//! The contract, held against the code: golden bytes of every message, and every table of `README.md`.

mod golden;
mod growth;
mod pieces;
mod readme;
mod queue_samples;
mod samples;
