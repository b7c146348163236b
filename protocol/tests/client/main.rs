//! The client against a small server of its own over loopback, whose every answer the test gives itself.

mod calls;
mod routes;
mod server;
mod sessions;
