//! The wire as it is, byte for byte, against a node that is nothing but its front: a listener, real sessions over loopback,
//! and a gateway that the test holds in its hand.

mod bench;
mod handshake;
mod peers;
mod session;
