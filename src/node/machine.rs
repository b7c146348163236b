//! What a group's log means: sessions, queue, lock and the cache's main memory, applied entry by entry.
//!
//! Deterministic: every replica that applied the same entries has the same [`Machine`], byte for byte in its records. What is
//! due by log time (leases, visibility timeouts, sessions) happens before the entry that carries the time is applied.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trine_protocol::cluster::Reshape;
use trine_protocol::queue::{Dequeue, HandOff};
use trine_protocol::{Error, ErrorCode, Request};

use crate::ids::{At, Index};
use crate::raft::{Entry, SnapshotMeta};
use crate::record::{self, BadRecord, Change, prefix};
use crate::rules::{Rule, Rules};
use crate::{cache, lock, queue};
use trine_protocol::lock::IfToken;

use super::roster::Roster;
use super::session::{Admission, Sessions, Stored};

/// What stands in an entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Nothing but its time: something is due.
    Tick,
    /// A new session; the index of this entry is its id.
    OpenSession,
    /// A command of a session, executed once.
    Once(Once),
    /// A command of the bus that is conditional on what it changes.
    Bus(cache::Command),
    /// The nodes that the cluster was made of; the first one counts, in group 0.
    Found(Roster),
    /// A new session that ends after so many milliseconds without a command.
    OpenSessionFor(u32),
    /// A dequeue that has waited, of no session.
    Poll(Dequeue),
}

/// See [`Command::Once`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// The session.
    pub session: u64,
    /// Its number in the session.
    pub sequence: u64,
    /// Results below this number may be forgotten.
    pub acked_below: u64,
    /// What to do.
    pub operation: Operation,
}

/// What a session's command does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// A queue's.
    Queue(queue::Command),
    /// A lock's.
    Lock(lock::Command),
    /// A cache write that makes its writer the owner.
    Own(cache::Own),
    /// Nothing: the session lives on.
    KeepAlive,
    /// The list of nodes', in group 0.
    Reshape(Reshape),
    /// Several of queues and locks, all or none.
    HandOff(HandOff),
}

/// What came of a session's command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A queue's.
    Queue(queue::Answer),
    /// A lock's.
    Lock(lock::Answer),
    /// The cache's.
    Own(cache::Applied),
    /// The session lives on.
    Kept,
    /// The list of nodes has this version.
    Reshaped(Index),
    /// All of it was done.
    HandedOff {
        /// The message that is gone.
        acked: Option<Index>,
        /// The message that came, and whether it was a duplicate.
        enqueued: Option<(Index, bool)>,
    },
}

/// What came of an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing that anybody waits for.
    Nothing,
    /// A session was opened, or not.
    Session(Result<u64, Error>),
    /// A session's command was executed now, earlier (`repeated`), or refused.
    Once {
        /// The result.
        result: Stored,
        /// It was executed by an earlier entry.
        repeated: bool,
    },
    /// A command of the bus.
    Bus(cache::Applied),
    /// A dequeue that has waited took these.
    Polled(Result<Vec<queue::Handed>, Error>),
    /// The entry is no command that this version knows. Deterministic: every replica says the same.
    Unreadable,
}

/// The state of one group. Two replicas with the same records have the same state.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    generation: u16,
    /// Whether the state itself says its generation, because it was restored from a backup.
    restored: bool,
    applied: SnapshotMeta,
    sessions: Sessions,
    pub(super) queue: queue::State,
    pub(super) lock: lock::State,
    memory: cache::Memory,
    roster: Roster,
    roster_changed: bool,
    settled: Vec<(u64, u64, Stored)>,
}

impl Operation {
    /// The operation of a client's request, where it is one that goes through the log.
    pub fn of(request: Request) -> Option<Self> {
        Some(match request {
            Request::Enqueue(enqueue) => Self::Queue(queue::Command::Enqueue(enqueue)),
            Request::Dequeue(dequeue) => Self::Queue(queue::Command::Dequeue(dequeue)),
            Request::Ack(ack) => Self::Queue(queue::Command::Ack(ack)),
            Request::Extend(extend) => Self::Queue(queue::Command::Extend(extend)),
            Request::Nack(nack) => Self::Queue(queue::Command::Nack(nack)),
            Request::AckMany(ack) => Self::Queue(queue::Command::AckMany(ack)),
            Request::Declare(declare) => Self::Queue(queue::Command::Declare(declare)),
            Request::Undeclare(undeclare) => Self::Queue(queue::Command::Undeclare(undeclare)),
            Request::SetFlow(set) => Self::Queue(queue::Command::SetFlow(set)),
            Request::Purge(purge) => Self::Queue(queue::Command::Purge(purge)),
            Request::Redrive(redrive) => Self::Queue(queue::Command::Redrive(redrive)),
            Request::HandOff(hand_off) => Self::HandOff(hand_off),
            Request::Acquire(acquire) => Self::Lock(lock::Command::Acquire(acquire)),
            Request::Release(release) => Self::Lock(lock::Command::Release(release)),
            Request::Renew(renew) => Self::Lock(lock::Command::Renew(renew)),
            Request::Cancel(cancel) => Self::Lock(lock::Command::Cancel(cancel)),
            Request::ForceRelease(force) => Self::Lock(lock::Command::ForceRelease(force)),
            Request::Fence(fence) => Self::Lock(lock::Command::Fence(fence)),
            Request::KeepAlive(_) => Self::KeepAlive,
            Request::Reshape(reshape) => Self::Reshape(reshape),
            _ => return None,
        })
    }

    /// The grant that must hold for it to be done.
    fn demands(&self) -> Option<&IfToken> {
        match self {
            Self::Queue(queue::Command::Enqueue(enqueue)) => enqueue.if_token.as_ref(),
            Self::Queue(queue::Command::Ack(ack)) => ack.if_token.as_ref(),
            Self::Queue(queue::Command::AckMany(ack)) => ack.if_token.as_ref(),
            Self::Queue(queue::Command::Nack(nack)) => nack.if_token.as_ref(),
            Self::HandOff(hand_off) => hand_off.enqueue.as_ref()?.if_token.as_ref(),
            Self::Own(own) => own.if_token.as_ref(),
            _ => None,
        }
    }
}

impl Machine {
    /// An empty group.
    pub fn new(generation: u16) -> Self {
        Self { generation, ..Self::default() }
    }

    /// The state that these records were taken from; bodies are left out. The generation is what they say, if they do: so it goes
    /// wherever the state goes, and a node that joins a restored cluster makes the same tokens as the others.
    ///
    /// # Errors
    /// Where a record cannot be read.
    pub fn restore<'a>(
        generation: u16,
        applied: SnapshotMeta,
        records: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self, BadRecord> {
        let mut machine = Self { generation, applied, ..Self::default() };
        for (key, value) in records {
            match key.first() {
                _ if key == GENERATION_KEY => {
                    (machine.generation, machine.restored) = (record::decode(key, value)?, true);
                }
                Some(&prefix::SESSION) => machine.sessions.restore(key, value)?,
                Some(&prefix::QUEUE) => machine.queue.restore(key, value)?,
                Some(&prefix::LOCK) => machine.lock.restore(key, value)?,
                Some(&(prefix::CACHE | prefix::META)) => machine.memory.restore(key, value)?,
                Some(&prefix::NODES) => machine.roster = record::decode(key, value)?,
                Some(&prefix::BODY) => {}
                _ => return Err(BadRecord { key: key.to_vec(), why: "nobody's".to_owned() }),
            }
        }
        machine.queue.finish()?;
        machine.memory.advance(machine.applied.index);
        Ok(machine)
    }

    /// Applies the next entry.
    pub fn apply<R: Rules>(&mut self, entry: &Entry) -> (Option<Command>, Outcome) {
        assert_eq!(entry.index, self.applied.index + 1, "entries are applied in order, each once");
        let Entry { index, term, stamp_ms, wall_ms, .. } = *entry;
        let membership = entry.membership.clone().or_else(|| self.applied.membership.take());
        self.applied = SnapshotMeta { index, term, stamp_ms, wall_ms, membership };
        let stamp_ms = if R::without(Rule::LeasesByWallClock) { wall_ms } else { stamp_ms };
        let at = At { index, stamp_ms, wall_ms, generation: self.generation };
        self.memory.advance(index);
        let ended = self.sessions.expire(stamp_ms);
        self.queue.obey::<R>();
        self.queue.expire(stamp_ms, wall_ms);
        self.lock.expire::<R>(at, &ended);
        self.settle::<R>();
        if entry.data.is_empty() {
            return (None, Outcome::Nothing);
        }
        let Ok(command) = record::decode::<Command>(&[], &entry.data) else { return (None, Outcome::Unreadable) };
        let outcome = match &command {
            Command::Tick => Outcome::Nothing,
            Command::OpenSession => Outcome::Session(self.sessions.open(at, 0)),
            Command::OpenSessionFor(timeout_ms) => Outcome::Session(self.sessions.open(at, *timeout_ms)),
            Command::Once(once) => self.once::<R>(at, once),
            Command::Poll(dequeue) => Outcome::Polled(self.poll(at, dequeue)),
            Command::Bus(command) => Outcome::Bus(self.memory.apply(at, command)),
            Command::Found(roster) => {
                if self.roster.version == 0 {
                    self.roster = Roster { version: at.index, ..roster.clone() };
                    self.roster_changed = true;
                }
                Outcome::Nothing
            }
        };
        (Some(command), outcome)
    }

    fn once<R: Rules>(&mut self, at: At, once: &Once) -> Outcome {
        let admission = self.sessions.admit(at, once.session, once.sequence, once.acked_below);
        let by = lock::Caller { session: once.session, sequence: once.sequence };
        for (session, sequence) in self.sessions.take_given_up() {
            self.lock.give_up(at, lock::Caller { session, sequence });
        }
        let outcome = match admission {
            Admission::Refused(error) => Outcome::Once { result: Err(error), repeated: false },
            Admission::Repeated(result) => {
                if result == Ok(Answer::Lock(lock::Answer::Waiting)) {
                    self.lock.keep_waiting(at, by);
                }
                Outcome::Once { result, repeated: true }
            }
            Admission::New => {
                let result = self.execute::<R>(at, by, &once.operation);
                // An ownership that found its ground changed did not happen, and may be tried again under the same number.
                if result != Ok(Answer::Own(cache::Applied::Void)) {
                    self.sessions.keep(once.session, once.sequence, result.clone());
                }
                Outcome::Once { result, repeated: false }
            }
        };
        self.settle::<R>();
        outcome
    }

    fn execute<R: Rules>(&mut self, at: At, by: lock::Caller, operation: &Operation) -> Stored {
        if let Some(demanded) = operation.demands()
            && !R::without(Rule::TokenNotDemanded)
        {
            self.lock.demand(&demanded.lock, demanded.token)?;
        }
        match operation {
            Operation::Queue(command) => self.queue.apply(at, command).map(Answer::Queue),
            Operation::Lock(command) => self.execute_lock::<R>(at, by, command).map(Answer::Lock),
            Operation::Own(own) => Ok(Answer::Own(self.memory.apply(at, &cache::Command::Own(own.clone())))),
            Operation::KeepAlive => Ok(Answer::Kept),
            Operation::Reshape(reshape) => self.reshape(at, reshape).map(Answer::Reshaped),
            Operation::HandOff(hand_off) => self.hand_off::<R>(at, by, hand_off),
        }
    }

    /// A lock's command. A cancellation is about another command of its session, which may have been executed or not have come yet.
    fn execute_lock<R: Rules>(
        &mut self,
        at: At,
        by: lock::Caller,
        command: &lock::Command,
    ) -> Result<lock::Answer, Error> {
        let answer = self.lock.apply::<R>(at, by, command)?;
        let (lock::Command::Cancel(cancel), lock::Answer::Cancelled(cancelled)) = (command, &answer) else {
            return Ok(answer);
        };
        if cancelled.was_waiting {
            return Ok(answer);
        }
        let before = self.sessions.result(by.session, cancel.sequence).cloned();
        let mut cancelled = cancelled.clone();
        match before {
            Some(Ok(Answer::Lock(lock::Answer::Granted(granted)))) if cancel.give_back => {
                match granted.depth {
                    0 | 1 => self.lock.give_back(at, cancel, granted.token),
                    // It entered a grant again: that one stands, as it was before.
                    _ => self.lock.leave_again(cancel, granted.token),
                }
            }
            Some(Ok(Answer::Lock(lock::Answer::Granted(granted)))) => cancelled.token = granted.token,
            Some(_) => {}
            None => {
                let what = format!("the wait for lock '{}' was cancelled before it came", cancel.lock);
                let error = Error::new(ErrorCode::WaitCancelled, what);
                self.sessions.forestall(by.session, cancel.sequence, Err(error));
            }
        }
        Ok(lock::Answer::Cancelled(cancelled))
    }

    /// What waits have come to takes the place of the answers that said so.
    fn settle<R: Rules>(&mut self) {
        for lock::Settled { session, sequence, result } in self.lock.take_settled() {
            let result = result.map(Answer::Lock);
            if !R::without(Rule::GrantNotKept) {
                self.sessions.settle(session, sequence, result.clone());
            }
            self.settled.push((session, sequence, result));
        }
    }

    /// The waits that are over since the last call: whose they were, and what each came to. To be called after every entry.
    pub fn take_settled(&mut self) -> Vec<(u64, u64, Stored)> {
        std::mem::take(&mut self.settled)
    }

    /// The locks whose holders changed since the last call. To be called after every entry.
    pub fn take_changed_locks(&mut self) -> BTreeSet<Arc<str>> {
        self.lock.take_changed()
    }

    fn reshape(&mut self, at: At, reshape: &Reshape) -> Result<Index, Error> {
        if self.roster.version == 0 {
            let what = "the cluster has just begun, and has no list of nodes yet";
            return Err(Error::new(ErrorCode::NotReady, what).retry_after(200));
        }
        self.roster_changed = true;
        self.roster.apply(at.index, reshape)
    }

    /// Checks what must be true of the parts together: who waits for a lock is who its session says waits.
    ///
    /// # Panics
    /// Where it is not: that is a bug of this module, or of one below. For tests and the simulator.
    pub fn check_invariants(&self) {
        self.lock.check_invariants();
        let waiting: Vec<(u64, u64)> = self.sessions.waiting().collect();
        assert_eq!(waiting.len() as u64, self.lock.stats().waiting, "{waiting:?} wait by the table of sessions");
        for (session, sequence) in waiting {
            assert!(self.lock.waits(session, sequence), "command {sequence} of session {session} waits for nothing");
        }
    }

    /// The list of nodes; group 0's is the cluster's.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The cluster's generation, in the top bits of every token: how often it was restored from a backup.
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// The last entry applied.
    pub fn applied(&self) -> &SnapshotMeta {
        &self.applied
    }

    /// When something is due next, in log time.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        [self.sessions.next_deadline_ms(), self.queue.next_deadline_ms(), self.lock.next_deadline_ms()]
            .into_iter()
            .flatten()
            .min()
    }

    /// When something is due next, in wall time.
    pub fn next_wall_ms(&self) -> Option<u64> {
        self.queue.next_wall_ms()
    }

    /// The queues that got something to hand out since the last call; none where nobody waits for it.
    pub fn take_gained_queues(&mut self, waits: bool) -> Vec<std::sync::Arc<str>> {
        self.queue.take_gained(waits)
    }

    /// The messages that went since the last call.
    pub fn take_gone_messages(&mut self) -> Vec<Index> {
        self.queue.take_gone()
    }

    /// The queues.
    pub fn queue(&self) -> &queue::State {
        &self.queue
    }

    /// The locks.
    pub fn lock(&self) -> &lock::State {
        &self.lock
    }

    /// The locks that ended since the last call.
    pub fn take_ended_locks(&mut self) -> Vec<lock::Ended> {
        self.lock.take_ended()
    }

    /// How long each grant since the last call was waited for, in milliseconds.
    pub fn take_waited(&mut self) -> Vec<u64> {
        self.lock.take_waited()
    }

    /// The cache's main memory.
    pub fn memory(&self) -> &cache::Memory {
        &self.memory
    }

    /// The sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The records that changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = self.memory.take_changes();
        changes.extend(self.lock.take_changes());
        changes.extend(self.queue.take_changes());
        changes.extend(self.sessions.take_changes());
        if std::mem::take(&mut self.roster_changed) {
            changes.push(Change { key: ROSTER_KEY.to_vec(), value: Some(record::encode(&self.roster)) });
        }
        changes
    }

    /// All records but the bodies, in key order.
    pub fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut records = Vec::new();
        if self.restored {
            records.push((GENERATION_KEY.to_vec(), record::encode(&self.generation)));
        }
        records.extend(self.memory.records());
        records.extend(self.lock.records());
        if self.roster.version > 0 {
            records.push((ROSTER_KEY.to_vec(), record::encode(&self.roster)));
        }
        records.extend(self.queue.records());
        records.extend(self.sessions.records());
        records
    }
}

/// Key of the generation, in the state of a cluster that was restored from a backup; before those of the bus's members.
pub const GENERATION_KEY: &[u8] = &[prefix::META, b'g', b'e', b'n'];

/// Key of the list of nodes.
const ROSTER_KEY: &[u8] = &[prefix::NODES];

/// The body that stands in an entry, where it enqueues one.
pub fn body_of(entry: &Entry) -> Option<Bytes> {
    match record::decode::<Command>(&[], &entry.data).ok()? {
        Command::Once(Once { operation, .. }) => match operation {
            Operation::Queue(queue::Command::Enqueue(enqueue)) => Some(enqueue.body),
            Operation::HandOff(hand_off) => hand_off.enqueue.map(|enqueue| enqueue.body),
            _ => None,
        },
        _ => None,
    }
}

/// Key of the record that a body moves to when compaction overtakes its entry.
pub fn body_key(index: Index) -> Vec<u8> {
    [&[prefix::BODY], index.to_be_bytes().as_slice()].concat()
}
