//! What the home tells of its keys: to a person who asks, and to the auditors of the nodes.

use trine_protocol::cache::{HomeView, Version};
use trine_protocol::{Error, ErrorCode};

use crate::cache::agent::checksum;
use crate::cache::memory::{Command, Memory};
use crate::cache::message::{LeaseTag, ToNode};
use crate::ids::NodeId;
use crate::rules::Rules;

use super::{Entry, Home, HomeOut, Phase, Proposal, Standing, Want};

impl<R: Rules> Home<R> {
    /// What it knows of a key.
    pub fn explain(&self, key: &str, memory: &Memory, standing: Standing) -> HomeView {
        let (stored, owner) = (memory.stored(key), memory.owner(key));
        let exists = stored.value.is_some();
        let entry = self.directory.get(key);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let sharers = entry.into_iter().flat_map(|entry| &entry.sharers);
        let sharers = sharers.filter(|(node, sharer)| self.may_serve(**node, sharer.number, standing.now_us));
        let given = entry.and_then(|entry| entry.given).filter(|_| !memory.knows(key)).map(|given| given.version);
        HomeView {
            version: exists.then_some(stored.version).or(given),
            bytes: stored.value.as_ref().map_or(0, bytes::Bytes::len) as u64,
            in_redis: !memory.knows(key),
            writer: memory.cell(key).filter(|_| exists).map(|cell| cell.writer.to_string()).unwrap_or_default(),
            owner: owner.map(|owner| owner.node.to_string()).unwrap_or_default(),
            owner_present: owner.is_some_and(|owner| self.is_present(owner, standing.now_us)),
            sharers: sharers.map(|(node, _)| node.to_string()).collect(),
            busy: entry.map(Entry::busy).unwrap_or_default(),
            waiting: count(entry.map_or(0, |entry| entry.waiting.len())),
            expires_in_ms: match stored.expires_ms {
                0 => 0,
                expires_ms => expires_ms.saturating_sub(standing.log_ms).max(1),
            },
            filling: count(entry.and_then(|entry| entry.fill.as_ref()).map_or(0, |fill| 1 + fill.waiting())),
        }
    }

    /// An auditor asks which version of a key is the newest that is complete. While one is being written, nobody can say.
    #[expect(clippy::too_many_arguments, reason = "one message's fields, and what every step needs")]
    pub(super) fn audit(
        &self,
        from: NodeId,
        request: u64,
        key: &str,
        tag: LeaseTag,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        let busy = self.directory.get(key).is_some_and(|entry| entry.transaction.is_some());
        let active = self.may_act(standing) && self.is_active(memory, standing);
        if busy || !active || !self.holds(from, tag, standing.now_us) {
            return;
        }
        let (newest, checksum) = match memory.owner(key) {
            // Its owner has this or something newer; nobody else may have a copy.
            Some(owner) => (Version { epoch: owner.epoch, count: 0 }, None),
            // Redis alone has it: what counts is what the copies were given.
            None if !memory.knows(key) => match self.directory.get(key).and_then(|entry| entry.given) {
                Some(given) => (given.version, Some(given.checksum)),
                None => return,
            },
            None => {
                let stored = memory.stored(key);
                (stored.version, Some(checksum(&stored)))
            }
        };
        out.to_node.push((from, ToNode::Audited { request, tag, newest, checksum }));
    }

    /// A person declares what a node wrote last and did not write back lost. Returns how many keys are that node's.
    ///
    /// # Errors
    /// Where the node is there, or may be.
    pub fn evacuate(
        &mut self,
        node: NodeId,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) -> Result<u64, Error> {
        if !self.may_act(standing) || !self.is_active(memory, standing) {
            let what = "the home does not know yet which nodes are there";
            return Err(Error::new(ErrorCode::NotReady, what).retry_after(500));
        }
        if self.has_lease(node, standing.now_us) {
            let what = format!(
                "{node} is there: what it has not written back is not lost. Stop it, and it writes everything back"
            );
            return Err(Error::new(ErrorCode::InvalidArgument, what));
        }
        let mut keys = 0;
        let mut lives = std::collections::BTreeSet::new();
        for (_, cell) in memory.cells() {
            if let Some(owner) = cell.owner.filter(|owner| owner.node == node) {
                keys += 1;
                lives.insert(owner.incarnation);
            }
        }
        if let Some(incarnation) = lives.into_iter().next().filter(|_| self.releasing.insert(node)) {
            let command = Command::Release { node, incarnation };
            out.propose.push(Proposal { key: String::new(), transaction: 0, command, write: None });
        }
        Ok(keys)
    }
}

impl Entry {
    /// What the transaction that is under way waits for.
    fn busy(&self) -> String {
        let Some(transaction) = &self.transaction else { return String::new() };
        let what = match &transaction.job.want {
            Want::Read => "a read",
            Want::Write { .. } => "a write",
            Want::WriteBack { .. } => "a write-back",
            Want::Fill { .. } => "a wish to fill it",
            Want::Expire(_) => "the end of its time",
            Want::Refresh => "a look at Redis",
        };
        let node = transaction.job.node;
        match &transaction.phase {
            Phase::Owner(owner) => format!("{what} of {node} waits for the value that {} has", owner.node),
            Phase::Fetch { .. } => format!("{what} of {node} waits for Redis"),
            Phase::Refusal(_) => format!("{what} of {node} waits for the log"),
            Phase::Commit { copies, done: Some(_), .. } => {
                let copies: Vec<String> = copies.keys().map(ToString::to_string).collect();
                format!("{what} of {node} waits for the copies of {} to be dropped", copies.join(", "))
            }
            Phase::Commit { .. } => format!("{what} of {node} waits for the log"),
        }
    }
}
