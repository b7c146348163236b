//! The queue: a deterministic state machine.
