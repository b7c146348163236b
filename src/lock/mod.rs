//! The lock manager: a deterministic state machine.
