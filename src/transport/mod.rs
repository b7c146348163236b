//! Connections: the listener, clients' sessions, and peers.
