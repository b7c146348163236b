//! All dirty lines at once: a client asks that main memory have everything that this node has acknowledged, for a backup.
//!
//! What is dirty is noted with its version, and looked at with every tick: it is through when main memory has that version, or
//! when the line is this node's no more, because then it was handed over with its value. The lines stay owned, but for those that
//! were deleted, and what is written to them meanwhile is waited for by nobody. So it ends also under load, one round trip after the last line's turn.

use std::collections::BTreeMap;

use trine_protocol::cache::{AllWrittenBack, Version};
use trine_protocol::{Error, ErrorCode, Response};

use crate::rules::Rules;

use super::slot::State;
use super::{Agent, Turn};

/// Clients that wait for all dirty lines at once; one more gets `Overloaded`.
const FLUSHES_MAX: usize = 16;

/// A client that waits for everything that was dirty when it asked.
#[derive(Clone, Debug, Hash)]
pub(super) struct Flush {
    caller: u64,
    lines: u64,
    /// What main memory lacks yet, by key: the version that it must have.
    waits: BTreeMap<String, Version>,
}

impl<R: Rules> Agent<R> {
    /// A client asks for all dirty lines to be written back.
    pub fn write_back_all(&mut self, turn: &mut Turn<'_>, caller: u64) {
        if self.flushes.len() >= FLUSHES_MAX {
            let what = format!("{FLUSHES_MAX} clients wait for all lines of {} already", self.group);
            return turn.out.reply.push((caller, Err(Error::new(ErrorCode::Overloaded, what).retry_after(100))));
        }
        let dirty = |state: &State| match state {
            State::Owned(owned) if owned.dirty() => Some(owned.value.version),
            State::Leaving(leaving) if leaving.dirty => Some(leaving.value.version),
            _ => None,
        };
        let waits: BTreeMap<String, Version> =
            self.slots.iter().filter_map(|(key, slot)| Some((key.clone(), dirty(&slot.state)?))).collect();
        self.flushes.push(Flush { caller, lines: waits.len() as u64, waits });
        self.tend_flushes(turn);
    }

    /// Nobody waits for it any more.
    pub(super) fn forget_flush(&mut self, caller: u64) {
        self.flushes.retain(|flush| flush.caller != caller);
    }

    /// Looks what is through by now, and has sent what is not.
    pub(super) fn tend_flushes(&mut self, turn: &mut Turn<'_>) {
        let mut flushes = std::mem::take(&mut self.flushes);
        for flush in &mut flushes {
            flush.waits.retain(|key, version| self.lacks(key, *version));
            for key in flush.waits.keys() {
                self.nudge(turn, key);
            }
        }
        let (done, waiting): (Vec<Flush>, Vec<Flush>) = flushes.into_iter().partition(|flush| flush.waits.is_empty());
        self.flushes = waiting;
        for Flush { caller, lines, .. } in done {
            turn.out.reply.push((caller, Ok(Response::WriteBackAll(AllWrittenBack { lines }))));
        }
    }

    /// Whether main memory lacks that version of a line, and this node still has it.
    fn lacks(&self, key: &str, version: Version) -> bool {
        match self.slots.get(key).map(|slot| &slot.state) {
            Some(State::Owned(owned)) => owned.epoch == version.epoch && owned.stored_count < version.count,
            Some(State::Leaving(leaving)) => leaving.epoch == version.epoch && leaving.dirty,
            _ => false,
        }
    }

    /// Has an owned line written back now, unless that is under way; what is leaving is sent again by itself.
    fn nudge(&mut self, turn: &mut Turn<'_>, key: &str) {
        let Some(State::Owned(owned)) = self.slots.get(key).map(|slot| &slot.state) else { return };
        if owned.value.value.is_none() {
            // Main memory has no version of what is not there, by which it could be told: a deletion ends with its ownership.
            return self.leave(turn, key, None);
        }
        let waited = |sent_us: u64| turn.now_us >= sent_us + self.config.retry_us;
        if owned.write_back_us.is_none_or(waited) {
            self.send_write_back(turn, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use trine_protocol::cache::LineState;

    use super::super::testing::{Scene, TAG};
    use super::*;
    use crate::cache::{AgentOut, Change, Config, Operation, ToHome, ToNode};

    /// A node that owns a key at epoch 9, and has written it once more, on its own disk only.
    fn dirty() -> Scene {
        let mut scene = Scene::new(Config { dirty_us_max: 3_600_000_000, ..Config::default() });
        let out = scene.act(|agent, turn| agent.operation(turn, 1, "k", Operation::Write(Change::put("old".into()))));
        let Some(ToHome::BusRdX { write, .. }) = out.to_home.first() else { panic!("{out:?}") };
        let owned = ToNode::Owned { write: *write, key: "k".into(), tag: TAG, epoch: 9, owns: true, sum: None };
        scene.act(|agent, turn| agent.handle(turn, owned));
        writes(&mut scene, 2);
        scene
    }

    fn writes(scene: &mut Scene, caller: u64) {
        scene.act(|agent, turn| agent.operation(turn, caller, "k", Operation::Write(Change::put("new".into()))));
        let out = scene.act(|agent, turn| agent.flushed(turn, agent.ticket()));
        assert!(matches!(&out.reply[..], [(_, Ok(Response::Put(_)))]), "{out:?}");
    }

    fn stored(scene: &mut Scene, count: u64) -> AgentOut {
        let version = Version { epoch: 9, count };
        let (key, state) = ("k".into(), LineState::M);
        let stored = ToNode::WrittenBack { key, epoch: 9, version, ended: false, state, tag: TAG };
        scene.act(|agent, turn| agent.handle(turn, stored));
        scene.act(|agent, turn| agent.tick(turn))
    }

    fn write_backs(out: &AgentOut) -> usize {
        out.to_home.iter().filter(|message| matches!(message, ToHome::WriteBack { end: false, .. })).count()
    }

    #[test]
    fn it_is_answered_when_main_memory_has_what_was_dirty_and_not_before() {
        let mut scene = dirty();
        let out = scene.act(|agent, turn| agent.write_back_all(turn, 7));
        assert!(out.reply.is_empty() && write_backs(&out) == 1, "{out:?}");
        // What comes later is not waited for.
        writes(&mut scene, 3);
        assert!(scene.act(|agent, turn| agent.tick(turn)).reply.is_empty());
        let out = stored(&mut scene, 1);
        assert_eq!(out.reply, [(7, Ok(Response::WriteBackAll(AllWrittenBack { lines: 1 })))]);
        stored(&mut scene, 1);
        scene.act(|agent, _| assert_eq!(agent.stats().counts.write_backs, 1, "said twice, it is counted once"));
    }

    #[test]
    fn what_is_lost_on_the_way_is_sent_again_and_who_has_gone_is_not_answered() {
        let mut scene = dirty();
        scene.act(|agent, turn| agent.write_back_all(turn, 7));
        scene.now_us += Config::default().retry_us;
        assert_eq!(write_backs(&scene.act(|agent, turn| agent.tick(turn))), 1);
        scene.act(|agent, turn| agent.expire(turn, 7));
        assert!(stored(&mut scene, 1).reply.is_empty());
        let out = scene.act(|agent, turn| agent.write_back_all(turn, 8));
        assert_eq!(out.reply, [(8, Ok(Response::WriteBackAll(AllWrittenBack { lines: 0 })))], "nothing is dirty");
    }

    #[test]
    fn so_many_may_wait_and_no_more() {
        let mut scene = dirty();
        for caller in 0..FLUSHES_MAX as u64 {
            assert!(scene.act(|agent, turn| agent.write_back_all(turn, 100 + caller)).reply.is_empty());
        }
        let out = scene.act(|agent, turn| agent.write_back_all(turn, 7));
        assert!(matches!(&out.reply[..], [(7, Err(error))] if error.code == ErrorCode::Overloaded), "{out:?}");
    }

    #[test]
    fn a_write_is_not_acknowledged_by_the_flush_of_what_came_before_it() {
        let mut scene = dirty();
        let mut ticket = 0;
        scene.act(|agent, _| ticket = agent.ticket());
        stored(&mut scene, 1);
        scene.act(|agent, turn| agent.operation(turn, 9, "k", Operation::Write(Change::put("newer".into()))));
        let early = scene.act(|agent, turn| agent.flushed(turn, ticket));
        assert_eq!(early.reply, [], "its record is not on disk");
        let out = scene.act(|agent, turn| agent.flushed(turn, agent.ticket()));
        assert!(matches!(&out.reply[..], [(9, Ok(Response::Put(_)))]), "{out:?}");
    }
}
