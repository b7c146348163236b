//! Performs what the replicas ask for, in order.
