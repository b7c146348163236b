//! Hand-made histories of managed queues.
