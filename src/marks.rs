//! Marks at the branches that hardly ever run: a simulation that never takes one has not tested it.
//!
//! A run of thousands of seeds says little about a branch that none of them took, and nothing shows which those are. So the code says
//! `mark(Rare::SuffixCut)` where such a branch begins; the simulator counts, and names those that it never reached.
//!
//! # Invariants
//! - Nothing reads a count but the report of a run: a mark changes nothing of what the code around it does.
//! - Counts belong to a thread, as a simulated cluster does: runs side by side do not see each other's.
//!
//! # Caveats
//! - In a process that never counts a mark costs one relaxed load and a branch that is never taken, so none stands on the path of
//!   a read hit.
//! - Once counting has begun it goes on for the life of the process; only [`counting`] tells what came of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether any thread has ever asked for counts.
static COUNTING: AtomicBool = AtomicBool::new(false);

macro_rules! rare {
    ($($name:ident $text:literal;)*) => {
        /// A branch that hardly ever runs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rare {
            $(#[doc = $text] $name,)*
        }

        impl Rare {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What happens there.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

rare! {
    SuffixCut "raft: a suffix that conflicts is cut";
    AppendBelowCommit "raft: an append begins below what is committed here";
    AppendDuringInstall "raft: an append comes while a snapshot is being installed";
    VoteRefusedUnderLease "raft: a vote is refused because a leader was just heard";
    ElectionLost "raft: a majority refuses its vote";
    OldLeaderCorrected "raft: a leader of an earlier term is told so";
    EarlierTermNotCounted "raft: a majority has an entry of an earlier term, which does not count yet";
    LeaderStalled "raft: a leader whose disk hangs steps down";
    LeaderSilent "raft: a leader that hears no majority steps down";
    TransferOverdue "raft: a leader campaigns because its successor, once told, did not";
    TransferGivenUp "raft: a leader gives up a transfer that never began";
    FollowerUnreachable "raft: nothing is sent ahead to a follower that is silent";
    PromisesDropped "raft: the term moves on while promises wait for the disk";
    CompletionShortened "raft: a suffix is cut while it is being written";
    CompactionHeldBack "raft: the log is kept for a follower that is being sent a snapshot";
    ChunkLost "raft: a snapshot's chunk is lost and sent again";
    ChunkOutOfPlace "raft: a snapshot's chunk comes twice or too early";
    AssemblyReplaced "raft: a newer snapshot takes the place of a half received one";
    SnapshotSkipped "raft: a snapshot comes of what the log has already";

    CommandRepeated "node: a command that was executed is answered again";
    CommandGivenUp "node: a late copy of a command that its sender gave up";
    SessionExpired "node: a session ends by log time";
    SessionLostUnderCommand "node: a session ends while its command is on its way";
    StreamOutOfOrder "node: a leader lacks what was sent before a command";
    LeaderOverloaded "node: a leader has too much that is not committed";
    NodeOverloaded "node: too many requests of one node wait";
    BodyFetched "node: a body that compaction overtook is read from the state store";
    SnapshotRebuilt "node: the log is cut while a snapshot's bodies are looked up";
    HintDoubted "node: a node without a log doubts whom it took for the leader";

    LeaseLapsed "cache: a node's bus lease runs out";
    FillPoisoned "cache: an invalidation overtakes a fill";
    WriteBackCrossesSnoop "cache: a write-back crosses a snoop";
    GrantCrossesSnoop "cache: a snoop comes before the grant that it is about";
    CopyPoisoned "cache: an invalidation comes for a copy that a write-back would leave";
    OwnershipEndedByHome "cache: the home ends an ownership that its holder still believes in";
    DirtyValueLost "cache: a dirty value is superseded while its owner is away";
    RegisteredElsewhere "cache: a node asks a home for a lease that it meant to ask of another";
    RefusedComesAgain "cache: a copy of a request comes late, after it or a later one was refused";
    BusLeft "cache: a node that goes ends its bus lease";
    OwnershipsReleased "cache: a node that goes gives back ownerships of which it knows nothing";
    OwnerAway "cache: the owner of the newest value is away";
    RefusalInDoubt "cache: a write is refused that an earlier send may have done";
    RefusalAsksTheLog "cache: a write that may be done is not to be done now, and the log is asked";
    FetchPoisoned "cache: Redis tells of a write while the key is being fetched from it";
    OutsideWriteSeen "cache: Redis has something else than the copies";
    KeyExpires "cache: a key's time is over";
    WriteRepeated "cache: a write that the log has already is acknowledged without the line";
    CommandVoid "cache: what a command counted on has changed";
    DirectoryFull "cache: a home has no room to remember one more copy";
    SharerCountedOut "cache: a write goes on because a silent sharer's lease has run out";

    TailCut "storage: what a crash left behind the last whole record is cut";
    WholeRecordCut "storage: a whole record is cut because the one before it is torn";
    DamageFound "storage: damage to what was durable is found";
    InstallFinished "storage: a snapshot whose write is missing is finished at a start";
    RecordCarried "storage: what counts in an old segment is copied to the end";
    SegmentRemoved "storage: a segment in which nothing counts is removed";
    Rotated "storage: a segment is full";
    BodyCarried "storage: a body is copied out of a mostly dead file";
    BodyFileRemoved "storage: a file in which no body lives is removed";
}

thread_local! {
    static COUNTS: [Cell<u64>; Rare::ALL.len()] = const { [const { Cell::new(0) }; Rare::ALL.len()] };
}

/// A rare branch runs.
#[inline]
pub fn mark(branch: Rare) {
    if COUNTING.load(Ordering::Relaxed) {
        count(branch);
    }
}

#[cold]
fn count(branch: Rare) {
    COUNTS.with(|counts| {
        let count = &counts[branch as usize];
        count.set(count.get() + 1);
    });
}

/// Runs something on this thread, and tells which branches ran, and how often.
pub fn counting<T>(run: impl FnOnce() -> T) -> (T, BTreeMap<&'static str, u64>) {
    COUNTING.store(true, Ordering::Relaxed);
    COUNTS.with(|counts| counts.iter().for_each(|count| count.set(0)));
    let result = run();
    let reached = Rare::ALL.iter().map(|branch| (branch.text(), COUNTS.with(|counts| counts[*branch as usize].get())));
    (result, reached.filter(|(_, count)| *count > 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ran_on_this_thread_since_the_beginning_counts() {
        mark(Rare::Rotated);
        let ((), reached) = counting(|| {
            mark(Rare::SuffixCut);
            std::thread::scope(|scope| {
                scope.spawn(|| mark(Rare::TailCut));
            });
            mark(Rare::SuffixCut);
        });
        assert_eq!(reached, BTreeMap::from([(Rare::SuffixCut.text(), 2)]));
    }

    #[test]
    fn every_branch_has_a_text_of_its_own_and_stands_in_the_code() {
        let texts: std::collections::BTreeSet<_> = Rare::ALL.iter().map(|branch| branch.text()).collect();
        assert_eq!(texts.len(), Rare::ALL.len());
        let mut sources = String::new();
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("src/marks.rs") {
                    sources.push_str(&std::fs::read_to_string(path).unwrap());
                }
            }
        }
        for branch in Rare::ALL {
            let uses = sources.matches(&format!("mark(Rare::{branch:?})")).count();
            assert!(uses >= 1, "{branch:?} stands at no branch");
        }
    }
}
