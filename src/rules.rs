//! The rules whose absence is a known bug, each a switch of the type system.
//!
//! The server runs on [`Faithful`], a type without a size whose switches are all off, so the compiler leaves no trace of
//! them. The simulator runs the same code on types that switch one on, and must find what breaks: a check that
//! cannot find the bug it was made for proves nothing.

/// Bugs that can be switched on. Each constant is false in the server; the doc line says what a `true` does.
pub trait Rules: Clone + Copy + Default + std::fmt::Debug + 'static {
    /// The leader counts itself towards a commit before its own write is durable.
    const LEADER_COUNTS_ITSELF_EARLY: bool = false;
    /// A granted vote leaves the node before it is on disk, and never gets there.
    const VOTE_NOT_PERSISTED: bool = false;
    /// An entry of an earlier term is committed by counting replicas (figure 8 of the Raft paper).
    const EARLIER_TERM_COMMITTED_BY_COUNT: bool = false;
    /// The home grants, and the owner acknowledges, without looking at its lease again.
    const GRANT_WITHOUT_LEASE_CHECK: bool = false;
    /// A fill that an invalidation overtook is installed all the same.
    const FILL_INSTALLED_AFTER_INVALIDATION: bool = false;
    /// A bus lease that ran out is renewed under its old number, and its lines live again.
    const LAPSED_LEASE_RENEWED: bool = false;
    /// A leader takes forwarded commands in the order in which they arrive, not in the one in which they were sent first.
    const COMMANDS_TAKEN_OUT_OF_ORDER: bool = false;
}

/// Every rule holds. What the server runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faithful;

impl Rules for Faithful {}
