//! The table of sessions: which commands were executed, and with what result.
//!
//! A session's id is the log index of its `OpenSession`. A command carries (session, sequence); the table keeps the
//! result of each until the client says, by `acked_below`, that it has arrived. A repeated command gets its first
//! result. A number below `acked_below` whose result is gone is refused: it was given up by its sender, and a late copy of
//! it must not be executed. A session ends by log time, on every replica at the same entry.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trine_protocol::{Error, ErrorCode};

use crate::ids::At;
use crate::lock;
use crate::marks::{Rare, mark};
use crate::record::{self, BadRecord, Change, prefix};

use super::machine::Answer;

/// A session without a command for this long ends, in milliseconds of log time, unless it was opened with another time. Longer than any
/// failover.
pub const SESSION_TIMEOUT_MS: u32 = 60_000;
/// Sessions of one group; one more gets `Overloaded`. Each costs about 200 bytes when idle.
pub const SESSIONS_MAX: usize = 100_000;
/// Results kept for one session; a command beyond gets `Overloaded`. Five seconds of 10,000 commands a second behind one lost answer.
pub const WINDOW_MAX: usize = 65_536;

/// What a command led to: kept, and given again to a repeated one.
pub type Stored = Result<Answer, Error>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Session {
    used_ms: u64,
    acked_below: u64,
    results: BTreeMap<u64, Stored>,
    /// It ends after so many milliseconds without a command.
    #[serde(default = "usual_timeout_ms")]
    timeout_ms: u32,
}

fn usual_timeout_ms() -> u32 {
    SESSION_TIMEOUT_MS
}

impl Session {
    fn ends_ms(&self) -> u64 {
        self.used_ms.saturating_add(u64::from(self.timeout_ms))
    }
}

/// The sessions of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sessions {
    table: BTreeMap<u64, Session>,
    /// When each ends, if nothing comes before.
    by_end: BTreeSet<(u64, u64)>,
    changed: BTreeSet<u64>,
    /// Commands whose answer was still to come when their sender gave their number up.
    given_up: Vec<(u64, u64)>,
}

/// Whether a command is to be executed.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// For the first time: execute it and [`Sessions::keep`] its result.
    New,
    /// It was executed before, with this result.
    Repeated(Stored),
    /// It is not executed, for this reason.
    Refused(Error),
}

impl Sessions {
    /// Opens a session that ends after so many milliseconds without a command; 0 for the usual time.
    ///
    /// # Errors
    /// `Overloaded` where there are too many.
    pub fn open(&mut self, at: At, timeout_ms: u32) -> Result<u64, Error> {
        if self.table.len() >= SESSIONS_MAX {
            let what = format!("the group has {SESSIONS_MAX} sessions; unused ones end after {SESSION_TIMEOUT_MS} ms");
            return Err(Error::new(ErrorCode::Overloaded, what).retry_after(1_000));
        }
        let timeout_ms = if timeout_ms == 0 { SESSION_TIMEOUT_MS } else { timeout_ms };
        let session = Session { used_ms: at.stamp_ms, acked_below: 1, results: BTreeMap::new(), timeout_ms };
        self.by_end.insert((session.ends_ms(), at.index));
        self.table.insert(at.index, session);
        self.changed.insert(at.index);
        Ok(at.index)
    }

    /// Looks a command up.
    pub fn admit(&mut self, at: At, id: u64, sequence: u64, acked_below: u64) -> Admission {
        let Some(session) = self.table.get_mut(&id) else {
            let what = format!("session {id} has ended or never was; open another");
            return Admission::Refused(Error::new(ErrorCode::SessionExpired, what));
        };
        self.by_end.remove(&(session.ends_ms(), id));
        session.used_ms = at.stamp_ms;
        self.by_end.insert((session.ends_ms(), id));
        self.changed.insert(id);
        if acked_below > session.acked_below {
            session.acked_below = acked_below;
            let kept = session.results.split_off(&acked_below);
            let gone = std::mem::replace(&mut session.results, kept);
            let waits = |stored: &Stored| matches!(stored, Ok(Answer::Lock(lock::Answer::Waiting)));
            self.given_up.extend(gone.iter().filter(|(_, stored)| waits(stored)).map(|(gone, _)| (id, *gone)));
        }
        if let Some(result) = session.results.get(&sequence) {
            mark(Rare::CommandRepeated);
            return Admission::Repeated(result.clone());
        }
        if sequence < session.acked_below {
            mark(Rare::CommandGivenUp);
            let what = format!("sequence {sequence} was given up: everything below {} is", session.acked_below);
            return Admission::Refused(Error::new(ErrorCode::OutcomeUnknown, what));
        }
        if session.results.len() >= WINDOW_MAX {
            let what = format!("session {id} has {WINDOW_MAX} results that are not acknowledged");
            return Admission::Refused(Error::new(ErrorCode::Overloaded, what).retry_after(100));
        }
        Admission::New
    }

    /// Keeps the result of an admitted command.
    pub fn keep(&mut self, id: u64, sequence: u64, result: Stored) {
        if let Some(session) = self.table.get_mut(&id) {
            session.results.insert(sequence, result);
        }
    }

    /// A command that waited has come to something: that takes the place of what was kept, unless it was given up.
    pub fn settle(&mut self, id: u64, sequence: u64, result: Stored) {
        let kept = self.table.get_mut(&id).and_then(|session| session.results.get_mut(&sequence));
        if let Some(kept) = kept {
            *kept = result;
            self.changed.insert(id);
        }
    }

    /// What a command of a session came to, as far as it is kept.
    pub fn result(&self, id: u64, sequence: u64) -> Option<&Stored> {
        self.table.get(&id)?.results.get(&sequence)
    }

    /// A command that has not arrived is not to be executed when it does: this is its answer. One that was given up needs none.
    pub fn forestall(&mut self, id: u64, sequence: u64, result: Stored) {
        let Some(session) = self.table.get_mut(&id) else { return };
        if sequence >= session.acked_below && session.results.len() < WINDOW_MAX {
            session.results.entry(sequence).or_insert(result);
        }
    }

    /// The commands that waited for something when their numbers were given up, since the last call.
    pub fn take_given_up(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.given_up)
    }

    /// Ends the sessions whose time is over, and says which they were.
    pub fn expire(&mut self, stamp_ms: u64) -> Vec<u64> {
        let mut ended = Vec::new();
        while let Some((ends_ms, id)) = self.by_end.first().copied() {
            if ends_ms > stamp_ms {
                break;
            }
            mark(Rare::SessionExpired);
            self.by_end.pop_first();
            self.table.remove(&id);
            self.changed.insert(id);
            ended.push(id);
        }
        ended
    }

    /// When the next session ends, in log time.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.by_end.first().map(|(ends_ms, _)| *ends_ms)
    }

    /// After how many milliseconds without a command a session ends.
    pub fn timeout_ms(&self, id: u64) -> Option<u32> {
        self.table.get(&id).map(|session| session.timeout_ms)
    }

    /// The commands that wait for something, in order.
    pub fn waiting(&self) -> impl Iterator<Item = (u64, u64)> {
        self.table.iter().flat_map(|(id, session)| {
            let waits =
                session.results.iter().filter(|(_, stored)| **stored == Ok(Answer::Lock(lock::Answer::Waiting)));
            waits.map(move |(sequence, _)| (*id, *sequence))
        })
    }

    /// Sessions that are open.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True where none is open.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The records that changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|id| Change { key: key(id), value: self.table.get(&id).map(record::encode) }).collect()
    }

    /// All records.
    pub fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.table.iter().map(|(id, session)| (key(*id), record::encode(session))).collect()
    }

    /// Takes one record back.
    ///
    /// # Errors
    /// Where it is no session.
    pub fn restore(&mut self, bytes: &[u8], value: &[u8]) -> Result<(), BadRecord> {
        let id = bytes.get(1..).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
        let id = id.ok_or_else(|| BadRecord { key: bytes.to_vec(), why: "no session id".to_owned() })?;
        let session: Session = record::decode(bytes, value)?;
        self.by_end.insert((session.ends_ms(), id));
        self.table.insert(id, session);
        Ok(())
    }
}

fn key(id: u64) -> Vec<u8> {
    [&[prefix::SESSION], id.to_be_bytes().as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, stamp_ms: u64) -> At {
        At { index, stamp_ms, wall_ms: 0, generation: 0 }
    }

    fn open() -> (Sessions, u64) {
        let mut sessions = Sessions::default();
        let id = sessions.open(at(5, 1_000), 0).unwrap();
        (sessions, id)
    }

    #[test]
    fn a_repeated_command_gets_its_first_result_in_any_order() {
        let (mut sessions, id) = open();
        for sequence in [2, 1] {
            assert_eq!(sessions.admit(at(6, 1_000), id, sequence, 1), Admission::New);
            sessions.keep(id, sequence, Err(Error::new(ErrorCode::LockHeld, sequence.to_string())));
        }
        let again = sessions.admit(at(8, 1_000), id, 2, 1);
        assert_eq!(again, Admission::Repeated(Err(Error::new(ErrorCode::LockHeld, "2"))));
    }

    #[test]
    fn a_late_copy_of_a_command_that_was_given_up_is_not_executed() {
        let (mut sessions, id) = open();
        assert_eq!(sessions.admit(at(6, 1_000), id, 2, 2), Admission::New);
        assert!(
            matches!(sessions.admit(at(7, 1_000), id, 1, 1), Admission::Refused(e) if e.code == ErrorCode::OutcomeUnknown)
        );
    }

    #[test]
    fn a_session_ends_by_log_time_and_not_before() {
        let (mut sessions, id) = open();
        sessions.expire(1_000 + u64::from(SESSION_TIMEOUT_MS) - 1);
        assert_eq!(sessions.admit(at(6, 2_000), id, 1, 1), Admission::New);
        assert_eq!(sessions.next_deadline_ms(), Some(2_000 + u64::from(SESSION_TIMEOUT_MS)));
        sessions.expire(2_000 + u64::from(SESSION_TIMEOUT_MS));
        assert!(
            matches!(sessions.admit(at(7, 0), id, 2, 1), Admission::Refused(e) if e.code == ErrorCode::SessionExpired)
        );
    }

    #[test]
    fn records_bring_back_the_same_table() {
        let (mut sessions, id) = open();
        sessions.admit(at(6, 1_500), id, 1, 1);
        sessions.keep(id, 1, Ok(Answer::Kept));
        let mut restored = Sessions::default();
        for (key, value) in sessions.records() {
            restored.restore(&key, &value).unwrap();
        }
        sessions.take_changes();
        assert_eq!(restored, sessions);
    }
}
