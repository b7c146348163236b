//! What a home knows of a key, as tests print it.

use super::{Entry, Home, Job, Phase, Transaction, Want};
use crate::cache::Memory;
use crate::ids::NodeId;
use crate::rules::Rules;

/// `n2` for `node2`.
fn number(node: NodeId) -> String {
    node.as_str().replacen("node", "n", 1)
}

fn job(job: &Job) -> String {
    let want = match &job.want {
        Want::Read => "BusRd",
        Want::Write { .. } => "BusRdX",
        Want::WriteBack { end: true, .. } => "WriteBack end",
        Want::WriteBack { end: false, .. } => "WriteBack keep",
        Want::Fill { .. } => "FillLease",
        Want::Expire(_) => "Expire",
        Want::Refresh => "Refresh",
    };
    format!("{want} of {}", number(job.node))
}

fn transaction(transaction: &Transaction) -> String {
    let job = job(&transaction.job);
    let (copies, done) = match &transaction.phase {
        Phase::Owner(_) => return format!("{job}: asks the owner"),
        Phase::Refusal(_) => return format!("{job}: asks the log"),
        Phase::Fetch { .. } => return format!("{job}: asks Redis"),
        Phase::Commit { copies, done, .. } => (copies, done),
    };
    let entry = if done.is_some() { "entry applied" } else { "entry out" };
    let copies: Vec<String> = copies.keys().map(|node| number(*node)).collect();
    if copies.is_empty() {
        format!("{job}: {entry}")
    } else {
        format!("{job}: {entry}, waits for {}", copies.join(" "))
    }
}

impl<R: Rules> Home<R> {
    /// The state of a key: its owner by the log, the copies that may be served, the transaction, and who waits.
    pub(in crate::cache) fn show(&self, key: &str, memory: &Memory, now_us: u64) -> String {
        let mut parts = vec![match memory.owner(key) {
            Some(owner) if self.is_present(owner, now_us) => format!("{} owns", number(owner.node)),
            Some(owner) => format!("{} owns, away", number(owner.node)),
            None => "unowned".into(),
        }];
        parts.extend(self.directory.get(key).map(|entry| self.entry(entry, now_us)).filter(|shown| !shown.is_empty()));
        parts.join("; ")
    }

    fn entry(&self, entry: &Entry, now_us: u64) -> String {
        let mut parts = Vec::new();
        let served = entry.sharers.iter().filter(|(node, sharer)| self.may_serve(**node, sharer.number, now_us));
        let served: Vec<String> = served.map(|(node, _)| number(*node)).collect();
        if !served.is_empty() {
            let state = if entry.exclusive.is_some() { "E" } else { "S" };
            parts.push(format!("{state} at {}", served.join(" ")));
        }
        parts.extend(entry.transaction.as_ref().map(transaction));
        parts.extend(entry.waiting.iter().map(|waiting| format!("{} waits", job(waiting))));
        parts.join("; ")
    }
}
