//! Writes, and whatever else ends copies: the command is on its way into the log while the copies are being dropped.
//!
//! A write is evaluated here, in its key's transaction: nothing else changes the key until it is through. One that may not be done is refused at
//! once, unless it was sent before; then only the log can say whether it was done.
//!
//! # Invariants
//! - What a write demands is held against the newest value that there is: the log's, or Redis' where the log has none.
//! - A transaction ends when no node may serve a copy any more and its command is applied, whichever comes later.

use std::collections::BTreeMap;

use trine_protocol::cache::Version;
use trine_protocol::{Error, ErrorCode};

use crate::cache::change::{Change, New, What};
use crate::cache::memory::{Command, Memory, Own, Owner, Remove};
use crate::cache::message::ToNode;
use crate::ids::NodeId;
use crate::marks::{Rare, mark};
use crate::rules::{Rule, Rules};

use super::{Home, HomeOut, Job, Phase, Proposal, Sharer, Standing, Want, fill};

/// The error of a write that the log knows as refused. What the key was then is known no more, but what the write demanded is.
pub(super) fn was_refused(key: &str, change: &Change) -> Error {
    if change.fill > 0 {
        return fill::over(key);
    }
    let (code, what) = match change.what {
        What::Add(_) => (ErrorCode::NotANumber, "there was no number to add to"),
        What::Put { .. } | What::Delete => (ErrorCode::ConditionFailed, "it was not as the write demands"),
    };
    Error::new(code, format!("key '{key}': {what} when it was looked at first, and that answer was lost"))
}

impl<R: Rules> Home<R> {
    /// A write of a key that nobody owns: main memory has the newest value.
    pub(super) fn write(&mut self, key: &str, job: Job, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        let Want::Write { change, .. } = &job.want else { return };
        let error =
            match self.check_fill(key, change, standing).and_then(|()| change.on(key, &self.newest(key, memory))) {
                Ok(new) => return self.invalidate_and_own(key, job, new, None, memory, standing, out),
                Err(error) => error,
            };
        self.refuse_write(key, job, error, standing, out);
    }

    /// A write is not to be done now. Where it may be done already, the log is asked.
    pub(super) fn refuse_write(&mut self, key: &str, job: Job, error: Error, standing: Standing, out: &mut HomeOut) {
        let Want::Write { write, acked_below, again, .. } = &job.want else { return };
        if !again {
            return self.refuse(key, &job, error, out);
        }
        mark(Rare::RefusalAsksTheLog);
        let Some(incarnation) = self.leases.get(&job.node).map(|lease| lease.incarnation) else { return };
        let (node, key_owned, write) = (job.node, key.to_owned(), Some((*write, *acked_below)));
        let command = Command::Own(Own::refusal(key_owned.clone(), node, incarnation, write.expect("just made").0));
        let transaction = self.begin(key, job, Phase::Refusal(error), standing);
        out.propose.push(Proposal { key: key_owned, transaction, command, write });
    }

    /// The copies go while the removal is on its way into the log.
    pub(super) fn remove(
        &mut self,
        key: &str,
        job: Job,
        version: Version,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        if memory.stored(key).version != version {
            return;
        }
        let id = self.invalidate(key, job, None, standing, out);
        let command = Command::Remove(Remove { key: key.to_owned(), version });
        out.propose.push(Proposal { key: key.to_owned(), transaction: id, command, write: None });
    }

    /// The copies go while the ownership is on its way into the log.
    #[expect(clippy::too_many_arguments, reason = "one write's fields, and what every step needs")]
    pub(super) fn invalidate_and_own(
        &mut self,
        key: &str,
        job: Job,
        new: New,
        old_owner: Option<(Owner, Option<Sharer>)>,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        let Want::Write { write, acked_below, change, .. } = &job.want else { return };
        let (write, acked_below, through) = (*write, *acked_below, change.is_through());
        let if_token = change.if_token.clone();
        // What makes a full memory smaller, or no larger, is taken.
        let had = memory
            .cell(key)
            .filter(|cell| cell.stored.value.is_some())
            .map_or(0, |cell| key.len() + cell.stored.bytes());
        let has = new.value.as_ref().map_or(0, |_| key.len() + new.bytes());
        if has > had && memory.bytes() - had + has > self.config.memory_bytes_max {
            let what = format!("main memory of this group is full ({} bytes)", self.config.memory_bytes_max);
            return self.refuse(key, &job, Error::new(ErrorCode::Overloaded, what).retry_after(1_000), out);
        }
        let Some(incarnation) = self.leases.get(&job.node).map(|lease| lease.incarnation) else { return };
        let (node, replaces) = (job.node, old_owner.map(|(owner, _)| owner.epoch));
        let New { value, content_type, expires, sum } = new;
        let value = if R::without(Rule::OwnershipWithoutValue) { memory.stored(key).value } else { value };
        let key_owned = key.to_owned();
        let own = Own {
            key: key_owned.clone(),
            node,
            incarnation,
            write,
            value,
            replaces,
            content_type,
            expires,
            through,
            sum,
            refused: false,
            if_token,
        };
        let transaction = self.invalidate(key, job, old_owner, standing, out);
        let (command, write) = (Command::Own(own), Some((write, acked_below)));
        out.propose.push(Proposal { key: key_owned, transaction, command, write });
    }

    /// Begins a transaction that is done when no copy is left and its command is in the log.
    pub(super) fn invalidate(
        &mut self,
        key: &str,
        job: Job,
        old_owner: Option<(Owner, Option<Sharer>)>,
        standing: Standing,
        out: &mut HomeOut,
    ) -> u64 {
        let sharers = self.directory.get_mut(key).map(|entry| std::mem::take(&mut entry.sharers)).unwrap_or_default();
        if let Some(entry) = self.directory.get_mut(key) {
            entry.exclusive = None;
        }
        // The writer dropped what it had before it asked; a copy that it was given later is another matter.
        let writes = matches!(job.want, Want::Write { .. });
        let gone = |node: NodeId, sharer: &Sharer| writes && node == job.node && sharer.request < job.request;
        let copies: BTreeMap<NodeId, Sharer> = sharers
            .into_iter()
            .filter(|(node, sharer)| !gone(*node, sharer) && self.may_serve(*node, sharer.number, standing.now_us))
            .collect();
        let nodes: Vec<NodeId> = copies.keys().copied().collect();
        let id = self.begin(key, job, Phase::commit(old_owner, copies), standing);
        for node in nodes {
            out.to_node.push((node, ToNode::SnoopInv { transaction: id, key: key.to_owned(), owner: None }));
        }
        id
    }
}
