//! What a run came to.

use std::fmt;
use std::time::Duration;

use crate::disk::Damage;

/// Numbers of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) starts: u64,
    pub(crate) killed_at_start: u64,
    pub(crate) killed_under_load: u64,
    /// Operations that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Looks at all messages.
    pub(crate) drains: u64,
    /// Power cuts.
    pub(crate) cuts: u64,
    /// Those that left the disk other than the program had it.
    pub(crate) cuts_that_cost: u64,
    pub(crate) damage: Damage,
    /// What nodes have said that refused to start.
    pub(crate) refusals: Vec<String>,
    /// From the start of a process until it listens.
    listens: Vec<Duration>,
    /// From the start of a process until all keys and locks were asked for.
    answers: Vec<Duration>,
}

impl Report {
    /// A node was started: so long after it listened, and had answered for its keys and locks.
    pub(crate) fn started(&mut self, listens: Duration, answers: Duration) {
        self.listens.push(listens);
        self.answers.push(answers);
    }

    /// Both together.
    pub(crate) fn add(&mut self, other: Self) {
        self.starts += other.starts;
        self.killed_at_start += other.killed_at_start;
        self.killed_under_load += other.killed_under_load;
        self.acknowledged += other.acknowledged;
        self.drains += other.drains;
        self.cuts += other.cuts;
        self.cuts_that_cost += other.cuts_that_cost;
        self.damage.add(other.damage);
        self.refusals.extend(other.refusals);
        self.listens.extend(other.listens);
        self.answers.extend(other.answers);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |times: &[Duration], percent: usize| {
            let mut times = times.to_vec();
            times.sort();
            times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
        };
        writeln!(
            f,
            "{} starts, p50/p99: listens after {:?}/{:?}, has answered for all keys and locks after {:?}/{:?}",
            self.starts,
            at(&self.listens, 50),
            at(&self.listens, 99),
            at(&self.answers, 50),
            at(&self.answers, 99)
        )?;
        let (starting, loaded) = (self.killed_at_start, self.killed_under_load);
        writeln!(
            f,
            "{starting} kills during a start, {loaded} under load; {} acknowledged operations, {} drains",
            self.acknowledged, self.drains
        )?;
        if self.cuts > 0 {
            writeln!(
                f,
                "{} power cuts, {} of which cost something: {:?}",
                self.cuts, self.cuts_that_cost, self.damage
            )?;
        }
        writeln!(f, "{} refusals", self.refusals.len())?;
        self.refusals.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
