//! The search for deadlocks: would this client wait for itself?
//!
//! Clients are known by their names, so whoever waits for two things at once under one name is taken to need both. The graph is that
//! of the whole group and part of the replicated state: the acquire that would close a cycle is refused in its own entry, on every replica alike, and the
//! cycle is named. So there never is one, and what is to be searched is only what the new waiter leads to.
//!
//! ```text
//!   a holds 1, waits for 2 ──▶ b holds 2, waits for 3 ──▶ c holds 3, asks for 1:  Deadlock, c→1→a→2→b→3→c
//! ```
//!
//! # What leads where
//! - Who waits is held up by every holder of the lock that it cannot share it with, and by everybody before it in the line: nobody is overtaken. The line is
//!   walked backwards from each waiter, once for those who share and once for those who do not: so a long line costs its length and not its square.
//! - A **semaphore** is different: one of many holders is enough. Where permits are among what is waited for, a path back is not yet a deadlock; then
//!   everybody is let go who need not wait, and gives back what it has, until nothing moves. Who is left then is stuck, and nobody else is.
//!
//! # Caveats
//! - Who neither holds a lock nor waits for another leads nobody back to itself, and is not searched for at all. The others cost time in proportion to what
//!   they lead to, with a semaphore its square.
//! - A cycle over two groups is not seen: it ends when a lease does.
//! - One name that waits for a semaphore twice, with another client in line between the two, is taken to be stuck although there may be permits for all three.
//! - A waiter that would give up by itself in time counts like one that never does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use trine_protocol::lock::Mode;
use trine_protocol::{Error, ErrorCode};

use super::hold::{Lock, admits, excludes};
use super::state::State;

/// Who waits for what that whom has: the last one is the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cycle {
    /// Each client with the lock that it waits for.
    steps: Vec<(Arc<str>, Arc<str>)>,
}

impl Cycle {
    pub(super) fn error(&self) -> Error {
        let first = self.steps.first().map_or("", |(client, _)| client);
        let path: String = self.steps.iter().map(|(client, lock)| format!("{client}→{lock}→")).collect();
        let told: Vec<String> = self
            .steps
            .iter()
            .enumerate()
            .map(|(place, (client, lock))| {
                let next = self.steps.get(place + 1).map_or(first, |(client, _)| client);
                format!("'{client}' waits for '{lock}', which '{next}' has or will have before it")
            })
            .collect();
        Error::new(ErrorCode::Deadlock, told.join("; ")).with_hint(format!("{path}{first}"))
    }
}

/// The search's way: how each client was reached.
type Reached = BTreeMap<Arc<str>, (Arc<str>, Arc<str>)>;

/// A search that is under way.
struct Walk {
    reached: Reached,
    /// The parts of lines that were walked: from which ticket on, and whether by somebody who shares.
    walked: BTreeSet<(Arc<str>, u64, bool)>,
    /// The waits that are to be looked at.
    tickets: VecDeque<u64>,
}

impl State {
    /// The cycle that this waiter closes.
    pub(super) fn deadlock(&self, ticket: u64) -> Option<Cycle> {
        let client: Arc<str> = self.waiters.get(ticket).acquire.client.as_str().into();
        let holds =
            self.by_client.range((Arc::clone(&client), Arc::from(""))..).next().is_some_and(|(of, _)| *of == client);
        if !holds && self.waiters.of_client(&client).nth(1).is_none() {
            return None;
        }
        let everybody = |_: &str| true;
        let (reached, permits) = self.walk(&client, &everybody);
        if !reached.contains_key(&client) {
            return None;
        }
        if !permits {
            return Some(Cycle::of(&client, &reached));
        }
        let stuck = self.stuck(&client, &reached);
        if !stuck.contains(&client) {
            return None;
        }
        let (reached, _) = self.walk(&client, &|other| stuck.contains(other));
        reached.contains_key(&client).then(|| Cycle::of(&client, &reached))
    }

    /// Whom a client waits for, directly and through others, as far as those are of interest; and whether any semaphore was met.
    fn walk(&self, from: &Arc<str>, interesting: &dyn Fn(&str) -> bool) -> (Reached, bool) {
        let mut walk = Walk { reached: Reached::new(), walked: BTreeSet::new(), tickets: VecDeque::new() };
        let mut expanded = BTreeSet::from([Arc::clone(from)]);
        let mut seen = BTreeSet::new();
        let mut permits = false;
        walk.tickets.extend(self.waiters.of_client(from));
        while let Some(ticket) = walk.tickets.pop_front() {
            if !seen.insert(ticket) {
                continue;
            }
            let acquire = &self.waiters.get(ticket).acquire;
            permits |= matches!(acquire.mode, Mode::Permits { .. });
            for name in acquire.locks() {
                let Some((name, lock)) = self.locks.get_key_value(name) else { continue };
                let mut found: Vec<Arc<str>> = Vec::new();
                self.walk_line(name, lock, ticket, from, &mut walk, &mut found);
                for other in found.into_iter().filter(|other| interesting(other)) {
                    let by = (Arc::from(acquire.client.as_str()), Arc::clone(name));
                    walk.reached.entry(Arc::clone(&other)).or_insert(by);
                    if expanded.insert(Arc::clone(&other)) {
                        walk.tickets.extend(self.waiters.of_client(&other));
                    }
                }
            }
        }
        (walk.reached, permits)
    }

    /// Everybody who is in the way of a waiter at one lock, unless that part of the line was walked before. Whoever is before it and could
    /// share the lock with it is let in together with it, and so holds it up with that one wait, and not with whatever else its client waits for.
    fn walk_line(
        &self,
        name: &Arc<str>,
        lock: &Lock,
        ticket: u64,
        from: &Arc<str>,
        walk: &mut Walk,
        found: &mut Vec<Arc<str>>,
    ) {
        let acquire = &self.waiters.get(ticket).acquire;
        let (mode, shares) = (acquire.mode, acquire.mode == Mode::Shared);
        // Who shares a lock shares it with others: what it has or will have itself is in its way, too.
        let own = |client: &str| shares && *client == *acquire.client;
        for before in lock.line.range(..ticket).rev() {
            let other = &self.waiters.get(*before).acquire;
            if excludes(mode, other.mode) || own(&other.client) {
                found.push(other.client.as_str().into());
            } else {
                walk.tickets.push_back(*before);
                if *other.client != **from {
                    let by = (Arc::from(acquire.client.as_str()), Arc::clone(name));
                    walk.reached.entry(other.client.as_str().into()).or_insert(by);
                }
            }
            if !walk.walked.insert((Arc::clone(name), *before, shares)) {
                return;
            }
        }
        if walk.walked.insert((Arc::clone(name), 0, shares)) {
            let in_the_way = lock.holds.iter().filter(|held| excludes(mode, held.mode) || own(&held.client));
            found.extend(in_the_way.map(|held| Arc::clone(&held.client)));
        }
    }

    /// Of these clients, those that can never go on, if each of the others gives back what it has as soon as it waits for nothing.
    fn stuck(&self, client: &Arc<str>, reached: &Reached) -> BTreeSet<Arc<str>> {
        let mut stuck: BTreeSet<Arc<str>> = reached.keys().cloned().chain([Arc::clone(client)]).collect();
        loop {
            let free =
                stuck.iter().find(|client| self.waiters.of_client(client).all(|ticket| self.would_get(ticket, &stuck)));
            let Some(free) = free.cloned() else { return stuck };
            stuck.remove(&free);
        }
    }

    /// Whether a waiter would get its locks, if nobody but these clients had anything or waited.
    fn would_get(&self, ticket: u64, stuck: &BTreeSet<Arc<str>>) -> bool {
        let acquire = &self.waiters.get(ticket).acquire;
        acquire.locks().all(|name| {
            let Some(lock) = self.locks.get(name) else { return true };
            // What it waits for already under the same name it will have; of a semaphore there may be enough for both.
            let own = |before: &u64| {
                let other = &self.waiters.get(*before).acquire;
                let both = matches!((other.mode, acquire.mode), (Mode::Permits { .. }, Mode::Permits { .. }));
                (other.client == acquire.client && both).then_some(other.mode)
            };
            let in_the_way = |before: &u64| {
                let other = &self.waiters.get(*before).acquire;
                stuck.contains(other.client.as_str()) && own(before).is_none()
            };
            let mut left: Vec<(Mode, &str)> = Vec::new();
            left.extend(
                lock.holds.iter().filter(|held| stuck.contains(&held.client)).map(|held| (held.mode, &*held.client)),
            );
            left.extend(lock.line.range(..ticket).filter_map(own).map(|mode| (mode, acquire.client.as_str())));
            admits(&left, acquire.mode, &acquire.client) && !lock.line.range(..ticket).any(in_the_way)
        })
    }
}

impl Cycle {
    fn of(client: &Arc<str>, reached: &Reached) -> Self {
        let mut steps = Vec::new();
        let mut at = Arc::clone(client);
        loop {
            let (before, lock) = &reached[&at];
            steps.push((Arc::clone(before), Arc::clone(lock)));
            at = Arc::clone(before);
            if at == *client {
                break;
            }
        }
        steps.reverse();
        Self { steps }
    }
}
