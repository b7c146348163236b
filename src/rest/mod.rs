//! The REST compatibility endpoints on hyper.
