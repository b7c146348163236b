//! The ledger of messages.
//!
//! ```text
//!   sending --> confirmed / unknown / refused          handed out --> acknowledged / perhaps / not
//! ```
//!
//! - **lost**: confirmed, and after the drain neither acknowledged nor perhaps acknowledged. That includes a message that was
//!   handed out, not acknowledged, and never came back.
//! - **duplicated**: handed out again after its confirmed acknowledgement (a later token, or asked for after it); handed out twice
//!   within one visibility timeout; the same delivery given twice; acknowledged twice with success.
//! - **out of nothing**: a body that was never sent to that queue, or whose enqueue was refused.
//!
//! The window of a delivery begins not before it was asked for, and the second delivery happened not after its answer was read:
//! if that is still inside the window, the two overlap. One part in a hundred is left off for clocks that differ.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::{ENTRIES_MAX, Fate, Origin};
use crate::clock;
use crate::tag::Tag;
use crate::workload::{Checks, Failure};

/// Parts of the ledger with a lock each: enough that two cores seldom meet.
const SHARDS: usize = 64;
/// Deliveries of one message whose windows are kept; a message in flight seldom has more than two.
const WINDOWS_MAX: usize = 8;

/// One delivery, as its consumer saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handout {
    /// Its token.
    pub(crate) token: u64,
    /// Before it was first asked for.
    pub(crate) asked: Instant,
    /// After its answer was read.
    pub(crate) received: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    token: u64,
    asked_us: u64,
    received_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    token: u64,
    at_us: u64,
}

#[derive(Debug)]
struct Message {
    queue: u32,
    sent: Fate,
    handed_out: u32,
    perhaps_acknowledged: bool,
    acknowledged: Option<Acknowledged>,
    /// Of deliveries that are not acknowledged.
    windows: Vec<Window>,
}

#[derive(Debug, Default)]
struct Shard {
    messages: HashMap<Tag, Message>,
    found: Checks,
}

/// What became of each message of a run.
#[derive(Debug)]
pub(crate) struct QueueLedger {
    origin: Origin,
    visibility_us: u64,
    shards: Vec<Mutex<Shard>>,
    entries: AtomicU64,
    unchecked: AtomicU64,
    strays: Mutex<Checks>,
}

impl QueueLedger {
    /// For deliveries with this visibility timeout.
    pub(crate) fn new(visibility: Duration) -> Self {
        let visibility_us = u64::try_from(visibility.as_micros()).unwrap_or(u64::MAX);
        Self {
            origin: Origin(clock::now()),
            visibility_us: visibility_us - visibility_us / 100,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            entries: AtomicU64::new(0),
            unchecked: AtomicU64::new(0),
            strays: Mutex::default(),
        }
    }

    fn shard(&self, tag: Tag) -> MutexGuard<'_, Shard> {
        let place = (tag.writer.wrapping_mul(31).wrapping_add(tag.number) % SHARDS as u64) as usize;
        self.shards[place].lock().expect("nobody panics with it held")
    }

    /// A message is about to be sent to a queue.
    pub(crate) fn sending(&self, tag: Tag, queue: u32) {
        if self.entries.fetch_add(1, Ordering::Relaxed) >= ENTRIES_MAX {
            self.unchecked.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let message = Message {
            queue,
            sent: Fate::Pending,
            handed_out: 0,
            perhaps_acknowledged: false,
            acknowledged: None,
            windows: Vec::new(),
        };
        let before = self.shard(tag).messages.insert(tag, message);
        assert!(before.is_none(), "a worker counts: {tag:?} is sent once");
    }

    /// What came of sending it.
    pub(crate) fn sent<T>(&self, tag: Tag, result: Result<T, &Failure>) {
        if let Some(message) = self.shard(tag).messages.get_mut(&tag) {
            message.sent = Fate::of(&result);
        }
    }

    /// A delivery from a queue; `tag` is None where the body is none of this run's.
    pub(crate) fn handed_out(&self, queue: u32, tag: Option<Tag>, handout: Handout) {
        let Some(tag) = tag else {
            let mut strays = self.strays.lock().expect("nobody panics with it held");
            strays.violation("out_of_nothing", || format!("queue {queue} gave a body that nobody sent: {handout:?}"));
            return;
        };
        let mut shard = self.shard(tag);
        let Shard { messages, found } = &mut *shard;
        let message = match messages.entry(tag) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if self.unchecked.load(Ordering::Relaxed) > 0 => return,
            Entry::Vacant(_) => {
                found.violation("out_of_nothing", || format!("queue {queue} gave {tag:?}, which was never sent"));
                return;
            }
        };
        message.handed_out += 1;
        if message.queue != queue {
            found.violation("out_of_nothing", || format!("queue {queue} gave {tag:?} of queue {}", message.queue));
        }
        let window = Window {
            token: handout.token,
            asked_us: self.origin.us(handout.asked),
            received_us: self.origin.us(handout.received),
        };
        match message.acknowledged {
            Some(acknowledged) => {
                if window.token >= acknowledged.token || window.asked_us > acknowledged.at_us {
                    let say = || format!("queue {queue}: {tag:?} by {window:?} after {acknowledged:?}");
                    found.violation("duplicated", say);
                }
            }
            None => {
                if let Some(other) = message.windows.iter().find(|other| self.overlap(**other, window)) {
                    found.violation("duplicated", || format!("queue {queue}: {tag:?} by {window:?} beside {other:?}"));
                }
                if message.windows.len() == WINDOWS_MAX {
                    message.windows.remove(0);
                }
                message.windows.push(window);
            }
        }
    }

    fn overlap(&self, one: Window, other: Window) -> bool {
        let (first, second) = if one.token < other.token { (one, other) } else { (other, one) };
        first.token == second.token || second.received_us < first.asked_us.saturating_add(self.visibility_us)
    }

    /// What came of acknowledging a delivery.
    pub(crate) fn acknowledged<T>(&self, tag: Tag, token: u64, result: Result<T, &Failure>) {
        let at_us = self.origin.us(clock::now());
        let mut shard = self.shard(tag);
        let Shard { messages, found } = &mut *shard;
        let Some(message) = messages.get_mut(&tag) else { return };
        match Fate::of(&result) {
            Fate::Confirmed => {
                if let Some(before) = message.acknowledged {
                    let say = || format!("{tag:?} was acknowledged with token {token} after {before:?}");
                    found.violation("duplicated", say);
                }
                // A delivery that was made after the one that is acknowledged would have made the receipt stale.
                if let Some(later) = message.windows.iter().find(|window| window.token > token) {
                    let say = || format!("{tag:?} was acknowledged with token {token} in spite of {later:?}");
                    found.violation("duplicated", say);
                }
                message.acknowledged = Some(Acknowledged { token, at_us });
                message.windows = Vec::new();
            }
            Fate::Unknown => message.perhaps_acknowledged = true,
            Fate::Pending | Fate::Refused => {}
        }
    }

    /// Messages that a drain still has to find.
    pub(crate) fn missing(&self) -> u64 {
        let missing = |shard: &Mutex<Shard>| {
            let shard = shard.lock().expect("nobody panics with it held");
            shard.messages.values().filter(|message| is_missing(message)).count() as u64
        };
        self.shards.iter().map(missing).sum()
    }

    /// Everything that was found. After the drain, once.
    pub(crate) fn checks(&self) -> Checks {
        let mut checks = std::mem::take(&mut *self.strays.lock().expect("nobody panics with it held"));
        checks.looked_for(&["lost", "duplicated", "out_of_nothing"]);
        let (mut confirmed, mut unknown, mut perhaps, mut redelivered) = (0, 0, 0, 0);
        for shard in &self.shards {
            let mut shard = shard.lock().expect("nobody panics with it held");
            checks.merge(std::mem::take(&mut shard.found));
            for (tag, message) in &shard.messages {
                confirmed += u64::from(message.sent == Fate::Confirmed);
                unknown += u64::from(message.sent == Fate::Unknown);
                perhaps += u64::from(message.perhaps_acknowledged);
                redelivered += u64::from(message.handed_out.saturating_sub(1));
                if is_missing(message) {
                    checks.violation("lost", || format!("{tag:?}: {message:?}"));
                }
                if message.sent == Fate::Refused && message.handed_out > 0 {
                    checks.violation("out_of_nothing", || format!("{tag:?} was refused: {message:?}"));
                }
            }
        }
        checks.notes.insert("enqueues_confirmed", confirmed);
        checks.notes.insert("enqueues_unknown", unknown);
        checks.notes.insert("acks_unknown", perhaps);
        checks.notes.insert("redelivered", redelivered);
        checks.notes.insert("unchecked", self.unchecked.load(Ordering::Relaxed));
        checks
    }
}

fn is_missing(message: &Message) -> bool {
    message.sent == Fate::Confirmed && message.acknowledged.is_none() && !message.perhaps_acknowledged
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISIBILITY: Duration = Duration::from_secs(10);

    fn tag(number: u64) -> Tag {
        Tag { writer: 7, number }
    }

    fn failure(unknown: bool) -> Failure {
        Failure { name: "test", unknown, text: String::new() }
    }

    struct Case {
        ledger: QueueLedger,
        start: Instant,
    }

    impl Case {
        fn new(messages: u64) -> Self {
            let case = Self { ledger: QueueLedger::new(VISIBILITY), start: clock::now() };
            for number in 0..messages {
                case.ledger.sending(tag(number), 0);
                case.ledger.sent(tag(number), Ok(()));
            }
            case
        }

        /// A delivery with a token, asked for and received at these seconds.
        fn hand_out(&self, number: u64, token: u64, asked: u64, received: u64) {
            let at = |seconds| self.start + Duration::from_secs(seconds);
            self.ledger.handed_out(0, Some(tag(number)), Handout { token, asked: at(asked), received: at(received) });
        }

        fn found(&self) -> [u64; 3] {
            let checks = self.ledger.checks();
            ["lost", "duplicated", "out_of_nothing"].map(|name| checks.violations[name])
        }
    }

    #[test]
    fn what_was_confirmed_and_not_acknowledged_is_lost() {
        let case = Case::new(5);
        for number in 0..4 {
            case.hand_out(number, number + 1, 0, 0);
        }
        case.ledger.acknowledged(tag(0), 1, Ok(()));
        case.ledger.acknowledged::<()>(tag(1), 2, Err(&failure(true)));
        case.ledger.acknowledged::<()>(tag(2), 3, Err(&failure(false)));
        // Of 3 nothing is known beside the delivery, and 4 was never handed out.
        assert_eq!(case.ledger.missing(), 3);
        assert_eq!(case.found(), [3, 0, 0]);
    }

    #[test]
    fn an_enqueue_of_unknown_outcome_may_appear_or_not() {
        let case = Case::new(0);
        for number in 0..3 {
            case.ledger.sending(tag(number), 0);
        }
        case.ledger.sent::<()>(tag(0), Err(&failure(true)));
        case.ledger.sent::<()>(tag(1), Err(&failure(true)));
        case.hand_out(1, 1, 0, 0);
        assert_eq!(case.found(), [0, 0, 0]);
        case.hand_out(2, 2, 0, 0);
        case.ledger.sent::<()>(tag(2), Err(&failure(false)));
        assert_eq!(case.found(), [0, 0, 1], "one that was refused may not appear");
    }

    #[test]
    fn a_message_may_come_back_after_its_window_and_not_within() {
        let case = Case::new(3);
        case.hand_out(0, 1, 0, 4);
        case.hand_out(0, 9, 5, 10);
        assert_eq!(case.found()[1], 0, "the second may have been made ten seconds after the first was asked for");
        case.hand_out(1, 1, 0, 4);
        case.hand_out(1, 9, 5, 9);
        assert_eq!(case.found()[1], 1);
        case.hand_out(2, 9, 5, 9);
        case.hand_out(2, 1, 0, 4);
        assert_eq!(case.found()[1], 1, "in whatever order the answers are read");
    }

    #[test]
    fn the_same_delivery_is_given_once() {
        let case = Case::new(1);
        case.hand_out(0, 1, 0, 4);
        case.hand_out(0, 1, 50, 50);
        assert_eq!(case.found()[1], 1);
    }

    #[test]
    fn an_acknowledged_message_does_not_come_back() {
        let case = Case::new(4);
        for number in 0..4 {
            case.hand_out(number, 5, 0, 0);
            case.ledger.acknowledged(tag(number), 5, Ok(()));
        }
        case.hand_out(0, 4, 0, 60);
        assert_eq!(case.found(), [0, 0, 0], "an older delivery, read late");
        case.hand_out(1, 6, 0, 60);
        case.hand_out(2, 4, 60, 60);
        case.ledger.acknowledged(tag(3), 5, Ok(()));
        assert_eq!(case.found(), [0, 3, 0]);
    }

    #[test]
    fn an_acknowledgement_needs_the_newest_delivery() {
        let case = Case::new(1);
        case.hand_out(0, 1, 0, 0);
        case.hand_out(0, 2, 20, 20);
        case.ledger.acknowledged(tag(0), 1, Ok(()));
        assert_eq!(case.found(), [0, 1, 0]);
    }

    #[test]
    fn a_body_that_nobody_sent_to_the_queue_comes_out_of_nothing() {
        let case = Case::new(1);
        let handout = Handout { token: 1, asked: case.start, received: case.start };
        case.ledger.handed_out(0, None, handout);
        case.ledger.handed_out(0, Some(tag(99)), handout);
        case.ledger.handed_out(1, Some(tag(0)), handout);
        case.ledger.acknowledged(tag(0), 1, Ok(()));
        assert_eq!(case.found(), [0, 0, 3]);
    }
}
