//! Which of the messages that are ready goes first: the one of the highest priority, and of those the oldest.
//!
//! That a message is handed out for the first time says that it was ready from its entry until then. So whatever a dequeue between the
//! two handed out must go before it; and that dequeue has taken as many as it was asked for, or else it would have taken this one too.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::sim::checker::Check;

/// A message that may be handed out. The least is the one that goes first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) priority: u8,
    pub(super) id: u64,
    /// When it was known to be taken.
    pub(super) known_us: u64,
}

impl Ready {
    fn place(&self) -> (Reverse<u8>, u64) {
        (Reverse(self.priority), self.id)
    }
}

impl PartialEq for Ready {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Ready {}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

/// What dequeues of one queue took.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// By the entry: the last message that it handed out, and whether there were as many as were asked for.
    taken: BTreeMap<u64, (Ready, bool)>,
    /// By the entry: messages that it handed out for the first time, ready since they were enqueued.
    firsts: BTreeMap<u64, Vec<Ready>>,
    /// Dequeues that found nothing: when each was sent, and answered.
    empty: Vec<(u64, u64)>,
}

impl Order {
    /// A dequeue found nothing in a queue that was not paused.
    pub(super) fn came_back_empty(&mut self, sent_us: u64, answered_us: u64) {
        self.empty.push((sent_us, answered_us));
    }

    /// An entry handed out messages, this one last.
    pub(super) fn handed_out(&mut self, at: u64, last: Ready, all_asked_for: bool) -> Check {
        self.taken.insert(at, (last, all_asked_for));
        let later = self.firsts.range(at + 1..).flat_map(|(_, firsts)| firsts);
        later.filter(|first| first.id < at).try_for_each(|first| waited(at, last, all_asked_for, first))
    }

    /// An entry handed out this message for the first time; it was ready since it was enqueued.
    pub(super) fn first_delivery(&mut self, at: u64, sent_us: u64, first: Ready) -> Check {
        self.firsts.entry(at).or_default().push(first);
        let between = self.taken.range(first.id + 1..at);
        between.into_iter().try_for_each(|(earlier, (last, all))| waited(*earlier, *last, *all, &first))?;
        let in_vain = |(from_us, to_us): &&(u64, u64)| first.known_us < *from_us && *to_us < sent_us;
        match self.empty.iter().find(in_vain) {
            Some((from_us, _)) => Err(format!("{} was ready, and a dequeue at {from_us} us found nothing", first.id)),
            None => Ok(()),
        }
    }
}

/// A dequeue left a message that was ready: it took as many as it was asked for, and all of them go before that one.
fn waited(at: u64, last: Ready, all_asked_for: bool, left: &Ready) -> Check {
    if !all_asked_for {
        return Err(format!("{} was ready, and token {at} took fewer than it was asked for", left.id));
    }
    if last > *left {
        return Err(format!(
            "{} of priority {} was ready, and token {at} took {} of priority {}",
            left.id, left.priority, last.id, last.priority
        ));
    }
    Ok(())
}
