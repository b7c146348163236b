//! What a node is told by flags and environment.
