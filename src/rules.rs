//! The rules whose absence is a known bug, each a switch of the type system.
//!
//! The server runs on [`Faithful`], a type without a size whose switches are all off, so the compiler leaves no trace of
//! them. The simulator runs the same code on types that switch one on, and must find what breaks: a check that
//! cannot find the bug it was made for proves nothing.

/// Bugs that can be switched on. Each constant is false in the server; the doc line says what a `true` does.
pub trait Rules: Clone + Copy + Default + std::fmt::Debug + 'static {
    // Consensus.

    /// The leader counts itself towards a commit before its own write is durable.
    const LEADER_COUNTS_ITSELF_EARLY: bool = false;
    /// A follower acknowledges an append when it arrives, not when it is durable.
    const APPEND_ACKNOWLEDGED_EARLY: bool = false;
    /// A granted vote leaves the node before it is on disk, and never gets there.
    const VOTE_NOT_PERSISTED: bool = false;
    /// Votes go to whoever asks first, whatever its log lacks.
    const VOTE_WITHOUT_LOG_CHECK: bool = false;
    /// A second candidate of the same term gets a vote too.
    const SECOND_VOTE_IN_A_TERM: bool = false;
    /// A replica that restarted votes at once, although it may have promised its leader not to.
    const VOTE_RIGHT_AFTER_RESTART: bool = false;
    /// An entry of an earlier term is committed by counting replicas (figure 8 of the Raft paper).
    const EARLIER_TERM_COMMITTED_BY_COUNT: bool = false;
    /// A follower commits up to the end of its log, not up to what an append has proven to agree.
    const COMMIT_BEYOND_WHAT_IS_PROVEN: bool = false;
    /// An append cuts off what follows its last entry, conflict or not.
    const APPEND_CUTS_WITHOUT_CONFLICT: bool = false;
    /// The completion of a write speaks for entries that have taken the place of those it carried.
    const COMPLETION_SPEAKS_FOR_LATER_ENTRIES: bool = false;
    /// Messages of a leader of an earlier term are followed.
    const DEPOSED_LEADER_FOLLOWED: bool = false;
    /// The leader lease counts from the answer to a heartbeat, not from its sending.
    const LEADER_LEASE_FROM_ANSWER: bool = false;
    /// The leader lease is kept while leadership is handed over.
    const LEADER_LEASE_KEPT_IN_TRANSFER: bool = false;

    /// Voters are exchanged in one step, although the old and the new majority need not share a replica.
    const VOTERS_CHANGED_AT_ONCE: bool = false;
    /// A leader changes the membership before an entry of its own term is committed.
    const CHANGE_BEFORE_OWN_ENTRY: bool = false;
    /// The joint state is left before it is committed.
    const JOINT_LEFT_EARLY: bool = false;
    /// Where the entry of a membership is cut off, the membership stays.
    const MEMBERSHIP_KEPT_WHEN_CUT: bool = false;
    /// Learners count towards majorities.
    const LEARNERS_COUNTED: bool = false;
    /// A leader answers reads before it knows what is committed.
    const READ_BEFORE_NO_OP: bool = false;
    /// A read takes the acknowledgements of a round that was sent before it came.
    const READ_ROUND_USED_AGAIN: bool = false;

    // A replica: commands, sessions, time.

    /// A leader takes forwarded commands in the order in which they arrive, not in the one in which they were sent first.
    const COMMANDS_TAKEN_OUT_OF_ORDER: bool = false;
    /// A command that got no answer is sent again under another number.
    const REPEATED_UNDER_A_NEW_NUMBER: bool = false;
    /// Snapshots leave out which commands were executed.
    const SESSIONS_LEFT_OUT_OF_SNAPSHOTS: bool = false;
    /// A deposed leader answers whoever waits for an index with what another leader put there.
    const WAITERS_KEPT_ACROSS_TERMS: bool = false;
    /// Leases count in the leader's wall clock.
    const LEASES_BY_WALL_CLOCK: bool = false;

    // The cache.

    /// A home answers before it has applied what earlier terms left.
    const HOME_BEFORE_NO_OP: bool = false;
    /// A new home does not wait for the bus leases of the one before it.
    const NEW_HOME_NOT_SILENT: bool = false;
    /// The home grants, and the owner acknowledges, without looking at its lease again.
    const GRANT_WITHOUT_LEASE_CHECK: bool = false;
    /// A node gets a bus lease before the log says that it is on the bus.
    const LEASE_BEFORE_JOIN: bool = false;
    /// A node counts its bus lease from the answer, not from before it asked.
    const BUS_LEASE_FROM_ANSWER: bool = false;
    /// A bus lease that ran out is renewed under its old number, and its lines live again.
    const LAPSED_LEASE_RENEWED: bool = false;
    /// Clean lines outlive the lease that they were given under.
    const LINES_KEPT_ACROSS_LEASES: bool = false;
    /// A write is answered while other nodes may still have copies.
    const WRITE_BEFORE_COPIES_ARE_GONE: bool = false;
    /// An invalidation is acknowledged, and the copy kept.
    const INVALIDATION_ONLY_ACKNOWLEDGED: bool = false;
    /// A fill that an invalidation overtook is installed all the same.
    const FILL_INSTALLED_AFTER_INVALIDATION: bool = false;
    /// A local write is acknowledged before the journal has it.
    const WRITE_BEFORE_JOURNAL: bool = false;
    /// A read of a value whose owner is away gets what main memory has.
    const OLD_VALUE_WHILE_OWNER_IS_AWAY: bool = false;
    /// An owner drops its dirty line when it makes room, before main memory has it.
    const DIRTY_LINE_EVICTED: bool = false;
}

/// Every rule holds. What the server runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faithful;

impl Rules for Faithful {}
