//! Real clusters under `trine-loadgen mixed --verify`, to which something happens meanwhile: nothing may be lost, doubled, stale or held
//! twice, and operations of unknown outcome are no failure.
//!
//! The nodes' binary belongs to another package, and Cargo names only a package's own to its tests: it is looked for
//! beside `trine-loadgen`, where `cargo test --workspace` puts it, and built where it is missing. So `cargo test -p trine-loadgen`
//! alone may find one that is older than the sources of the nodes.

mod cluster;
mod coherence;
mod generator;
mod kill;
mod links;
mod moves;
