//! Redis as the main memory of a group, as the replica sees it: opened while it leads, asked by its home, closed when it leads no more.

use crate::cache::{MemoryAnswer, MemoryCall, Redis};
use crate::ids::Term;
use crate::rules::Rules;

use super::{Replica, Step};

/// What is to be done with the connection to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MainMemory {
    /// Connect, raise the fence to this term, and keep trying.
    Open(Term),
    /// The node leads no more: no call of it matters.
    Close,
    /// Ask.
    Call(Term, MemoryCall),
}

/// What comes of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MainMemoryEvent {
    /// The fence is raised, over a new connection.
    Opened,
    /// The connection is no more.
    Lost,
    /// Redis says something.
    Said(MemoryAnswer),
}

/// How the connection stands. It is of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    Closed,
    Away(Term),
    Ready(Term),
}

impl<R: Rules> Replica<R> {
    pub(super) fn redis(&self) -> Redis {
        match self.main_memory {
            _ if !self.setup.redis => Redis::None,
            Connection::Ready(term) if term == self.member.raft.term() => Redis::Ready,
            _ => Redis::Away,
        }
    }

    /// Opens and closes the connection as leadership comes and goes.
    pub(super) fn tend_main_memory(&mut self, step: &mut Step) {
        if !self.setup.redis {
            return;
        }
        let home = self.member.home.as_ref().map(crate::cache::Home::term);
        let open = match self.main_memory {
            Connection::Closed => None,
            Connection::Away(term) | Connection::Ready(term) => Some(term),
        };
        if open == home {
            return;
        }
        match home {
            Some(term) => {
                self.main_memory = Connection::Away(term);
                step.effects.main_memory.push(MainMemory::Open(term));
            }
            None => {
                self.main_memory = Connection::Closed;
                step.effects.main_memory.push(MainMemory::Close);
            }
        }
    }

    /// Something has come of it, in that term.
    pub(super) fn main_memory(&mut self, step: &mut Step, term: Term, event: MainMemoryEvent) {
        let open = [Connection::Away(term), Connection::Ready(term)].contains(&self.main_memory);
        if !open || term != self.member.raft.term() {
            return;
        }
        match event {
            MainMemoryEvent::Opened => {
                self.main_memory = Connection::Ready(term);
                self.with_home(step, |home, memory, standing, out| home.doubt_all(memory, standing, out));
            }
            MainMemoryEvent::Lost => {
                self.main_memory = Connection::Away(term);
                self.with_home(step, |home, memory, standing, out| home.doubt_all(memory, standing, out));
            }
            MainMemoryEvent::Said(answer) => {
                self.with_home(step, |home, memory, standing, out| home.hear(answer, memory, standing, out));
            }
        }
    }
}
