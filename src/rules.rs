//! The rules whose absence is a known bug, each a switch of the type system.
//!
//! The server runs on [`Faithful`], a type without a size that leaves out none, so the compiler leaves no trace of
//! the switches. The simulator runs the same code on a type that leaves one out, and must find what breaks: a check that
//! cannot find the bug it was made for proves nothing.

use std::cell::Cell;

/// What can be left out. The doc line says what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    // Consensus.
    /// The leader counts itself towards a commit before its own write is durable.
    LeaderCountsItselfEarly,
    /// A follower acknowledges an append when it arrives, not when it is durable.
    AppendAcknowledgedEarly,
    /// A granted vote leaves the node before it is on disk, and never gets there.
    VoteNotPersisted,
    /// Votes go to whoever asks first, whatever its log lacks.
    VoteWithoutLogCheck,
    /// A second candidate of the same term gets a vote too.
    SecondVoteInATerm,
    /// A replica that restarted votes at once, although it may have promised its leader not to.
    VoteRightAfterRestart,
    /// An entry of an earlier term is committed by counting replicas (figure 8 of the Raft paper).
    EarlierTermCommittedByCount,
    /// A follower commits up to the end of its log, not up to what an append has proven to agree.
    CommitBeyondWhatIsProven,
    /// An append cuts off what follows its last entry, conflict or not.
    AppendCutsWithoutConflict,
    /// The completion of a write speaks for entries that have taken the place of those it carried.
    CompletionSpeaksForLaterEntries,
    /// Messages of a leader of an earlier term are followed.
    DeposedLeaderFollowed,
    /// The leader lease counts from the answer to a heartbeat, not from its sending.
    LeaderLeaseFromAnswer,
    /// The leader lease is kept while leadership is handed over.
    LeaderLeaseKeptInTransfer,
    /// Voters are exchanged in one step, although the old and the new majority need not share a replica.
    VotersChangedAtOnce,
    /// A leader begins a change while the one before it is not over.
    ChangeDuringAChange,
    /// The joint state is left before it is committed.
    JointLeftEarly,
    /// Where the entry of a membership is cut off, the membership stays.
    MembershipKeptWhenCut,
    /// Learners count towards majorities.
    LearnersCounted,
    /// A leader answers reads before it knows what is committed.
    ReadBeforeNoOp,
    /// A read takes the acknowledgements of a round that was sent before it came.
    ReadRoundUsedAgain,

    // A replica: commands, sessions, time.
    /// A leader takes forwarded commands in the order in which they arrive, not in the one in which they were sent first.
    CommandsTakenOutOfOrder,
    /// A command that got no answer is sent again under another number.
    RepeatedUnderANewNumber,
    /// Snapshots leave out which commands were executed.
    SessionsLeftOutOfSnapshots,
    /// A deposed leader answers whoever waits for an index with what another leader put there.
    WaitersKeptAcrossTerms,
    /// Leases count in the leader's wall clock.
    LeasesByWallClock,

    // Queues.
    /// A receipt is good although the message was handed out again.
    StaleReceiptTaken,
    /// A scheduled message is handed out before its time.
    HandedOutEarly,
    /// Messages of one key are handed out side by side, and in any order.
    KeyOrderIgnored,
    /// A message never dies of its deliveries.
    DeliveriesNotCounted,
    /// Tenants do not take turns.
    TurnsNotTaken,
    /// Snapshots leave out the ids of messages that are remembered.
    DedupLeftOutOfSnapshots,
    /// A hand-off whose lock is not held acknowledges and enqueues all the same.
    HandOffHalfDone,
    /// A message is handed out although its time to live is over.
    ExpiredHandedOut,
    /// A queue that is paused hands out messages.
    PausedHandsOut,
    /// Messages leave in the order in which they came, whatever their priorities.
    PriorityIgnored,
    /// A queue takes more messages than its policy allows.
    LimitNotKept,
    /// A purge leaves what is in flight, and that comes back when its time is over.
    PurgeSparesFlights,

    // Locks.
    /// A lock is handed on as soon as one is free, to whoever is first, also where that one's own time is over by then.
    LapsedWaiterGranted,
    /// Whoever asks at the right moment gets the lock, whoever waits.
    LineJumped,
    /// An acquire that closes a cycle waits like any other.
    DeadlockSearch,
    /// A waiter that nobody asks about any more stays.
    SilentWaiterStays,
    /// The grant of a waiter is told to who waits there, and not kept for who asks again.
    GrantNotKept,
    /// A write that demands a grant is done without looking at the lock.
    TokenNotDemanded,

    // The cache.
    /// A home answers before it has applied what earlier terms left.
    HomeBeforeNoOp,
    /// A new home does not wait for the bus leases of the one before it.
    NewHomeNotSilent,
    /// The home grants, and the owner acknowledges, without looking at its lease again.
    GrantWithoutLeaseCheck,
    /// A node gets a bus lease before the log says that it is on the bus.
    LeaseBeforeJoin,
    /// A node counts its bus lease from the answer, not from before it asked.
    BusLeaseFromAnswer,
    /// A bus lease that ran out is renewed under its old number, and its lines live again.
    LapsedLeaseRenewed,
    /// Clean lines outlive the lease that they were given under.
    LinesKeptAcrossLeases,
    /// A write is answered while other nodes may still have copies.
    WriteBeforeCopiesAreGone,
    /// An invalidation is acknowledged, and the copy kept.
    InvalidationOnlyAcknowledged,
    /// A fill that an invalidation overtook is installed all the same.
    FillInstalledAfterInvalidation,
    /// A local write is acknowledged before the journal has it.
    WriteBeforeJournal,
    /// A read of a value whose owner is away gets what main memory has.
    OldValueWhileOwnerIsAway,
    /// Redis takes what a deposed home, or a connection that was given up, tells it.
    RedisFence,
    /// An owner drops its dirty line when it makes room, before main memory has it.
    DirtyLineEvicted,
    /// The leases of one home are told apart by nothing: what was granted under one counts under the next.
    LeasesNotNumbered,
    /// A registration counts at whatever home it comes to, also where it was meant for the one before.
    LateRegistrationCounts,
    /// The entry that makes an owner does not carry what it writes.
    OwnershipWithoutValue,
    /// An owner drops line and journal when it hands its value over, before it hears that the ownership is over.
    HandedOverAndForgotten,
    /// An owner hands its value over, and goes on showing the line.
    HandedOverAndShown,
    /// A writer asks for the right to write, and goes on showing its clean line.
    UpgradeBeforeRetract,
    /// A local write is shown to readers before the journal has it.
    ShownBeforeJournal,
    /// A restarted owner goes on as the owner, with what its journal has.
    OwnerResumes,
    /// An owner is known by its name, and not by the disk that its journal is on.
    OwnerByName,
    /// A fill counts for whatever read is waiting.
    FillForAnyRequest,
    /// A write that was sent again is over when its first copy is refused.
    FirstRefusalCounts,
    /// A node says that a line is gone, or writes it, while clients of its may still read copies of it.
    ClientCopiesNotWaitedFor,
    /// A node that starts asks for a bus lease at once, although clients of its earlier life may still have copies.
    CopiesOfAnEarlierLife,
    /// The lease of a client's copies may end after the bus lease of the node that gave it.
    CopyOutlivesBusLease,
}

/// Which rules hold.
pub trait Rules: Clone + Copy + Default + std::fmt::Debug + 'static {
    /// Whether that rule is left out.
    #[inline(always)]
    fn without(_: Rule) -> bool {
        false
    }
}

/// One rule is left out, the one that [`OneLeftOut::during`] names. A value of the thread and not of the type, so that the
/// simulator's code is compiled twice and not once for each rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneLeftOut;

thread_local! {
    static LEFT_OUT: Cell<Option<Rule>> = const { Cell::new(None) };
}

impl OneLeftOut {
    /// Does something on this thread without that rule. A panic is for the caller to catch, inside.
    pub fn during<T>(rule: Rule, act: impl FnOnce() -> T) -> T {
        LEFT_OUT.set(Some(rule));
        let result = act();
        LEFT_OUT.set(None);
        result
    }
}

impl Rules for OneLeftOut {
    fn without(rule: Rule) -> bool {
        LEFT_OUT.get() == Some(rule)
    }
}

/// Every rule holds. What the server runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faithful;

impl Rules for Faithful {}
