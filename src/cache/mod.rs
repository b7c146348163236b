//! MESI on a snoop bus between nodes: a cache whose read hits are local *and* linearizable.
//!
//! Every node caches lines in the states M, E, S and I. A key's *home* is the leader of its group; it orders the bus
//! transactions of the group's keys and holds their main memory, which is replicated. Each node has a numbered *bus
//! lease* from the home, and serves a line only while the lease that the line hangs on lasts. A write completes when
//! every node that may have a copy has acknowledged its invalidation, or its lease has run out.
//!
//! - [`Agent`] is the node's side: the lines, the clients' operations, the answers to snoops;
//! - [`Home`] is the home's side: one transaction per key at a time, who shares what, the leases;
//! - [`Memory`] is the replicated part: values, owners, who is on the bus;
//! - [`Lines`] is the table that readers look into, and [`JournalRecord`] what a local write puts on disk first;
//! - `eviction` says which line goes when others need its room: S3-FIFO, to which a hit is one count in [`Visits`].
//!
//! # What is in the log, and what is not
//!
//! The right to write is replicated, sharing is not. A read makes no entry. The entry that makes a node the owner of a key
//! carries the value it writes; further writes are local and cost one record in the node's journal; the entry that ends
//! the ownership carries the last value, and is void unless owner and epoch still match.
//!
//! # The races, by name
//!
//! `scripts/` has each of them step by step, and `table/` what either side does in each state with each event.
//!
//! - *Fill overtaken by an invalidation*: the line is in IS when `SnoopInv` comes. It becomes IS_I: the fill answers those who
//!   asked before, and is not kept.
//! - *Upgrade overtaken by another write*: the writer drops its S line before it sends `BusRdX`, and the write carries its
//!   whole value, so the loser of two upgrades simply comes second.
//! - *Grant overtaken by the next snoop*: the snoop names the ownership's epoch and the write that began it. A node that still
//!   waits for that write learns from the snoop that it is done, and does not become the owner by the grant that comes late.
//! - *Write-back crosses a snoop*: the owner stays in MI, keeps value and journal, answers snoops, and repeats its
//!   write-back, until the home says that the ownership is over.
//! - *Invalidation of the copy that a write-back leaves*: it may arrive before the news that the copy may be kept. MI
//!   remembers it and keeps no copy.
//! - *Late copy of a write*: its session number is executed once; a number that was given up is never executed.
//! - *Late copy of a write meets a newer copy of its own sender*: the copy's request number is higher than the write's, so it is
//!   invalidated like any other.
//! - *Late registration*: rounds are instants of the sender's clock; a home ignores one that is older than the lease it gave, while that lasts.
//! - *Late word of a node that went*: one that leaves the bus takes no lease again until its process starts anew, and a home gives none while the
//!   log is about to say that the node has left; so no later home fails to wait for a lease that holds.
//! - *Two homes*: the old one grants nothing without its leader lease; the new one waits until every node on the bus has
//!   registered with it, or the longest lease of the old one has run out.
//!
//! # What each rule is for
//! Each rule can be left out by a switch of [`crate::rules::Rule`], and then this happens. The model in `tests/model` comes to it from the start that is named,
//! by the shortest way that there is, and to nothing of the kind with the rule; the simulator's [bank](crate::sim::BANK) has a seed of a whole cluster for
//! each but `LeasesNotNumbered`, `LateRegistrationCounts` and `OwnerResumes`.
//!
//! | rule | what its absence is called | what breaks | start |
//! | --- | --- | --- | --- |
//! | a home answers after its no-op | `HomeBeforeNoOp` | it fills from a memory that lacks what was committed before it | `Lagging` |
//! | a new home is silent for a lease | `NewHomeNotSilent` | it writes, and a lease of the home before still shows the old value | `Failover` |
//! | no grant without the leader lease | `GrantWithoutLeaseCheck` | a deposed home leases and fills on | `Failover` |
//! | on the bus before the first lease | `LeaseBeforeJoin` | a new home does not wait for a node that it does not know | `Joining` |
//! | a registration names its home | `LateRegistrationCounts` | a late one ends a new home's silence, while its node shows lines of the home before | `Reelected` |
//! | the holder counts from before it asked | `BusLeaseFromAnswer` | its lease outlives the home's count of it | `LateRenewal` |
//! | a lease that ran out is over | `LapsedLeaseRenewed` | lines that a write did not wait for live again | `Lapse` |
//! | leases are numbered | `LeasesNotNumbered` | a grant under the lease before makes a second owner | `LateGrant` |
//! | lines go with their lease | `LinesKeptAcrossLeases` | the same lines come back under the next one | `Lapse` |
//! | a write waits for every copy | `WriteBeforeCopiesAreGone` | it is answered, and an old copy is read | `Sharers` |
//! | a copy goes before that is acknowledged | `InvalidationOnlyAcknowledged` | the write is answered, and the old copy is read | `Sharers` |
//! | a writer drops its copy before it asks | `UpgradeBeforeRetract` | another write is answered, for the home believes that copy gone | `Sharers` |
//! | an overtaken fill is not kept | `FillInstalledAfterInvalidation` | the line is older than the write that it missed | `Sharers` |
//! | a fill answers one request | `FillForAnyRequest` | a late one is taken for the answer to a newer read | `Refill` |
//! | an owner stops before it hands over | `HandedOverAndShown` | two nodes show two values | `Modified` |
//! | what is handed over is kept until that is acknowledged | `HandedOverAndForgotten` | the one message that has the value is lost | `Modified` |
//! | the right to write moves with the value | `OwnershipWithoutValue` | what was acknowledged is nowhere but in the owner's memory | `Sharers` |
//! | a local write is flushed, then acknowledged | `WriteBeforeJournal` | a crash takes it back | `Modified` |
//! | a local write is flushed, then shown | `ShownBeforeJournal` | a crash takes back what was read | `Modified` |
//! | a restarted owner writes back | `OwnerResumes` | the log ends its ownership, it does not hear of it, and shows its line on | `Crash` |
//! | an owner is known by its disk | `OwnerByName` | an empty disk says that main memory has it all | `Replaced` |
//! | what its owner has is waited for | `OldValueWhileOwnerIsAway` | a read gets what main memory has | `OwnerAway` |
//! | Redis takes the word of one home only | `RedisFence` | what a deposed home says late takes the place of a newer value | the simulator's bank |
//! | a write waits for clients' copies | `ClientCopiesNotWaitedFor` | a client reads its copy of what was overwritten | the simulator's bank |
//! | a node that starts waits for copies that it forgot | `CopiesOfAnEarlierLife` | a client's copy outlives the life of the node that gave it | the simulator's bank |
//! | a copy's lease ends within the bus lease | `CopyOutlivesBusLease` | the home counts the node out, and its client reads on | a test of `copies` |
//! | a dirty line goes by its write-back | `DirtyLineEvicted` | its owner says that it has nothing | `Cramped` |
//!
//! Two rules stand in the log's own machine and have no switch, because every replica must apply the same: an ownership is void where it
//! replaces another than the one that is there, and so is a write-back unless owner, disk and epoch match.
//!
//! # Departures from the textbook
//!
//! A write carries its value to the home, so there is no need to fetch a line in order to overwrite it. The home's own
//! lines need no rule of their own: its agent takes a bus lease from the home beside it like every other node, given
//! under the leader lease; a new home waits for its end like for any other.
//!
//! # Caveats
//!
//! Linearizable per key, not over several keys. The home knows sharers by name and loses them with its
//! term, which costs every node its lines of the group at each change of leader. A value that was not written back when
//! its owner went away cannot be read until the owner, with its disk, is back; a write replaces it. Main memory lies in
//! RAM as a whole.

mod agent;
mod change;
mod config;
mod copies;
mod eviction;
mod home;
mod journal;
mod line;
mod memory;
mod message;

pub use agent::{Agent, AgentOut, Counts, Operation, Stats, Turn};
pub use change::{Change, Expires, What};
pub use config::Config;
pub use copies::{Copies, CopiesOut};
pub use eviction::Visits;
pub use home::{Committed, Fetched, Home, HomeOut, MemoryAnswer, MemoryCall, Proposal, Redis, Standing};
pub use journal::JournalRecord;
pub use line::{ByState, Found, Line, LineChange, Lines};
pub use memory::{Applied, Cell, Command, Memory, Own, Owner, WriteBack};
pub use message::{BusMessage, LeaseTag, OwnerMark, Snooped, ToHome, ToNode, Versioned, WriteId};

#[cfg(test)]
mod tests;
