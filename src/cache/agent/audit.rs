//! The auditor: does a copy here say what the home says?
//!
//! Every second a node picks one clean line after the other and asks the home which version of the key is the newest that was ever complete. A copy
//! that is still served when the answer comes, and is older, or has another value under the same version, violates what the cache promises. It
//! should never happen; the count says that it was looked for.

use trine_protocol::cache::Version;
use xxhash_rust::xxh3::xxh3_64;

use crate::cache::message::{LeaseTag, ToHome, Versioned};
use crate::rules::Rules;

use super::slot::State;
use super::{Agent, Turn};

/// Slots that are looked at for one that can be asked about.
const LOOKED_AT_MAX: usize = 64;

/// Where the auditor is.
#[derive(Clone, Debug, Default)]
pub(super) struct Audit {
    /// The key that was asked about last, and what was here then.
    asked: Option<(u64, String, Version, u64)>,
    after: String,
    next_us: u64,
}

/// What tells two values apart, whatever their length.
pub(in crate::cache) fn checksum(value: &Versioned) -> u64 {
    match &value.value {
        None => 0,
        Some(bytes) => xxh3_64(bytes) | 1,
    }
}

impl<R: Rules> Agent<R> {
    /// Asks about the next line, when it is time.
    pub(super) fn tend_audit(&mut self, turn: &mut Turn<'_>) {
        if turn.now_us < self.audit.next_us {
            return;
        }
        let first = self.audit.next_us == 0;
        self.audit.next_us = turn.now_us + self.config.audit_us;
        if first {
            return;
        }
        let Some(tag) = self.valid_tag(turn.now_us) else { return };
        let range = (std::ops::Bound::Excluded(self.audit.after.as_str()), std::ops::Bound::Unbounded);
        let mut last = None;
        let mut found = None;
        for (key, slot) in self.slots.range::<str, _>(range).take(LOOKED_AT_MAX) {
            last = Some(key.clone());
            if let State::Clean(clean) = &slot.state {
                found = Some((key.clone(), clean.value.version, checksum(&clean.value)));
                break;
            }
        }
        self.audit.after = last.unwrap_or_default();
        let Some((key, version, checksum)) = found else { return };
        let request = self.request();
        self.audit.asked = Some((request, key.clone(), version, checksum));
        turn.out.to_home.push(ToHome::Audit { request, key, tag });
    }

    /// The home says which version is the newest, and what its value is where it knows.
    pub(super) fn audited(
        &mut self,
        turn: &mut Turn<'_>,
        request: u64,
        tag: LeaseTag,
        newest: Version,
        newest_checksum: Option<u64>,
    ) {
        let Some((_, key, version, checksum)) = self.audit.asked.take_if(|asked| asked.0 == request) else { return };
        let Some(State::Clean(clean)) = self.slots.get(&key).map(|slot| &slot.state) else { return };
        // A line that has changed meanwhile, or is not served any more, says nothing.
        if clean.value.version != version || self.valid_tag(turn.now_us) != Some(tag) {
            return;
        }
        self.counts.audits += 1;
        let differs = version == newest && newest_checksum.is_some_and(|newest| newest != checksum);
        // An absence has no version of its own in the log.
        let older = version < newest && !(checksum == 0 && newest_checksum == Some(0));
        if older || differs {
            self.counts.violations += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use trine_protocol::cache::LineState;

    use super::super::testing::{Scene, TAG};
    use super::*;
    use crate::cache::{Config, Operation, ToNode};

    const COPY: Version = Version { epoch: 5, count: 1 };

    /// A node with a copy, and the number of its auditor's question.
    fn asked(value: Option<&'static str>) -> (Scene, u64) {
        let mut scene = Scene::new(Config::default());
        let out = scene.act(|agent, turn| agent.operation(turn, 1, "k", Operation::Get));
        let Some(ToHome::BusRd { request, .. }) = out.to_home.first() else { panic!("{out:?}") };
        let value = Versioned::new(COPY, value.map(Into::into));
        let (key, state, writer) = ("k".into(), LineState::S, None);
        let filled = ToNode::Filled { request: *request, key, tag: TAG, state, value, writer };
        scene.act(|agent, turn| agent.handle(turn, filled));
        let mut out = scene.act(|agent, turn| agent.tick(turn));
        for _ in 0..4 {
            scene.now_us += 250_000;
            out = scene.act(|agent, turn| agent.tick(turn));
            let round = scene.now_us;
            scene.act(|agent, turn| agent.handle(turn, ToNode::Renewed { tag: TAG, round }));
        }
        let audit = out.to_home.iter().find_map(|message| match message {
            ToHome::Audit { request, key, .. } if key == "k" => Some(*request),
            _ => None,
        });
        (scene, audit.expect("the only line is asked about"))
    }

    fn counts(scene: &mut Scene, request: u64, newest: Version, checksum: Option<u64>) -> (u64, u64) {
        let audited = ToNode::Audited { request, tag: TAG, newest, checksum };
        scene.act(|agent, turn| agent.handle(turn, audited));
        let mut counts = (0, 0);
        scene.act(|agent, _| counts = (agent.stats().counts.audits, agent.stats().counts.violations));
        counts
    }

    #[test]
    fn a_copy_that_is_older_or_another_value_is_a_violation_and_one_that_is_the_same_is_none() {
        let (newer, same) = (Version { epoch: 9, count: 0 }, xxh3_64(b"value") | 1);
        for (newest, checksum, violations) in [
            (COPY, Some(same), 0),
            (COPY, Some(same ^ 2), 1),
            (COPY, Some(0), 1),
            (newer, Some(same ^ 2), 1),
            (newer, None, 1),
            (Version { epoch: 4, count: 0 }, None, 0),
        ] {
            let (mut scene, request) = asked(Some("value"));
            assert_eq!(counts(&mut scene, request, newest, checksum), (1, violations), "{newest:?} {checksum:?}");
            assert_eq!(counts(&mut scene, request, newest, checksum), (1, violations), "an answer counts once");
        }
        // One absence has a version of its own for each copy of it.
        let (mut scene, request) = asked(None);
        assert_eq!(counts(&mut scene, request, newer, Some(0)), (1, 0));
        let (mut scene, request) = asked(None);
        assert_eq!(counts(&mut scene, request, newer, Some(same)), (1, 1));
    }

    #[test]
    fn a_copy_that_went_while_the_home_was_asked_is_no_violation() {
        let (mut scene, request) = asked(Some("value"));
        let invalidate = ToNode::SnoopInv { transaction: 9, key: "k".into(), owner: None };
        scene.act(|agent, turn| agent.handle(turn, invalidate));
        assert_eq!(counts(&mut scene, request, Version { epoch: 9, count: 0 }, None), (0, 0));
    }
}
