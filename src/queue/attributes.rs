//! What is kept of a message that has something special, beside the 32 bytes that every message has.
//!
//! **Why apart.** Most messages have none of it, and they must not pay for it: neither in memory nor in the packed records. And each set of
//! attributes is a record of its own, because 64 of them, each with a key, a tenant and a history, would go far over the 64 KiB that
//! a value may have.

use serde::{Deserialize, Serialize};
use trine_protocol::limits::HISTORY_MAX;
use trine_protocol::queue::{self as wire, Attempt, BackOff, DeadLetter, EnqueueOptions, Policy};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::Index;

/// See the module. Every field has the value of a message without attributes as its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attributes {
    pub(super) priority: u8,
    /// Empty for none.
    pub(super) key: String,
    /// Empty for nobody.
    pub(super) tenant: String,
    /// Wall time at which it becomes ready; None where it has, or is dead.
    pub(super) due_ms: Option<u64>,
    /// Wall time at which its time to live is over.
    pub(super) expires_ms: Option<u64>,
    /// 0 means the policy's.
    pub(super) max_deliveries: u32,
    pub(super) back_off: Option<BackOff>,
    /// Deliveries that do not count towards the maximum, because it was redriven after them.
    pub(super) forgiven: u32,
    pub(super) dead: Option<DeadLetter>,
    /// How its last deliveries ended.
    pub(super) history: Vec<Attempt>,
}

impl Attributes {
    /// Those of a message as it is enqueued at this wall time. None where it has nothing special.
    pub(super) fn of(options: Option<&EnqueueOptions>, wall_ms: u64) -> Option<Self> {
        let options = options?;
        let due_ms = wall_ms.saturating_add(options.delay_ms).max(options.at_ms);
        let attributes = Self {
            priority: options.priority,
            key: options.key.clone(),
            tenant: options.tenant.clone(),
            due_ms: (due_ms > wall_ms).then_some(due_ms),
            expires_ms: (options.ttl_ms > 0).then(|| wall_ms.saturating_add(options.ttl_ms)),
            max_deliveries: options.max_deliveries,
            back_off: options.back_off,
            ..Self::default()
        };
        (attributes != Self::default()).then_some(attributes)
    }

    /// Whether it takes another place in its queue than a message without attributes.
    pub(super) fn is_placed(&self) -> bool {
        self.priority > 0 || !self.key.is_empty() || !self.tenant.is_empty()
    }

    /// After how many deliveries it is dead; 0 for never.
    pub(super) fn max_deliveries(&self, policy: &Policy) -> u32 {
        if self.max_deliveries > 0 { self.max_deliveries } else { policy.max_deliveries }
    }

    /// Notes how a delivery ended.
    pub(super) fn note(&mut self, attempt: Attempt) {
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push(attempt);
    }

    /// As a consumer is told; None where there is nothing to tell.
    pub(super) fn to_wire(&self) -> Option<wire::Attributes> {
        let Self { priority, key, tenant, .. } = self;
        self.is_placed().then(|| wire::Attributes { priority: *priority, key: key.clone(), tenant: tenant.clone() })
    }
}

/// How long a message waits that was given back, in milliseconds of log time.
pub(super) fn back_off_ms(back_off: BackOff, id: Index, token: u64, deliveries: u32) -> u32 {
    let round = deliveries.max(1);
    match back_off {
        BackOff::None => 0,
        BackOff::Fixed { ms } => ms,
        BackOff::Linear { step_ms, max_ms } => step_ms.saturating_mul(round).min(max_ms),
        BackOff::Exponential { first_ms, max_ms, jitter_percent } => {
            let longest_ms =
                1u32.checked_shl(round - 1).map_or(u32::MAX, |factor| first_ms.saturating_mul(factor)).min(max_ms);
            let spread_ms = u64::from(longest_ms) * u64::from(jitter_percent.min(100)) / 100;
            // No random number: every replica must draw the same one. The hash of what happens once is as good.
            let drawn = xxh3_64(&[id.to_be_bytes(), token.to_be_bytes()].concat());
            let jitter_ms = if spread_ms == 0 { 0 } else { drawn % (spread_ms + 1) };
            longest_ms - jitter_ms as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_offs_grow_as_they_say_and_end_at_their_maximum() {
        let waits = |back_off: BackOff| [1, 2, 3, 4, 40].map(|round| back_off_ms(back_off, 1, 2, round));
        assert_eq!(waits(BackOff::None), [0; 5]);
        assert_eq!(waits(BackOff::Fixed { ms: 70 }), [70; 5]);
        assert_eq!(waits(BackOff::Linear { step_ms: 100, max_ms: 350 }), [100, 200, 300, 350, 350]);
        let doubled = BackOff::Exponential { first_ms: 100, max_ms: 5_000, jitter_percent: 0 };
        assert_eq!(waits(doubled), [100, 200, 400, 800, 5_000]);
    }

    #[test]
    fn jitter_shortens_by_no_more_than_it_says_and_differs_from_message_to_message() {
        let back_off = BackOff::Exponential { first_ms: 1_000, max_ms: 60_000, jitter_percent: 25 };
        let waits: Vec<u32> = (1..200).map(|id| back_off_ms(back_off, id, id + 1_000, 1)).collect();
        assert!(waits.iter().all(|wait| (750..=1_000).contains(wait)), "{waits:?}");
        let distinct: std::collections::BTreeSet<u32> = waits.iter().copied().collect();
        assert!(distinct.len() > 100, "only {} of 199 differ", distinct.len());
        assert_eq!(back_off_ms(back_off, 5, 6, 1), back_off_ms(back_off, 5, 6, 1));
    }

    #[test]
    fn a_message_with_nothing_special_has_no_attributes() {
        assert_eq!(Attributes::of(None, 5), None);
        assert_eq!(Attributes::of(Some(&EnqueueOptions::default()), 5), None);
        let past = EnqueueOptions { at_ms: 5, ..EnqueueOptions::default() };
        assert_eq!(Attributes::of(Some(&past), 5), None, "a time that has come delays nothing");
        let deduplicated = EnqueueOptions { dedup_id: "x".into(), ..EnqueueOptions::default() };
        assert_eq!(Attributes::of(Some(&deduplicated), 5), None, "ids are kept elsewhere");
    }
}
