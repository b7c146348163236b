//! One bus transaction after the other, for each key.

use std::collections::BTreeMap;

use trine_protocol::cache::LineState;
use trine_protocol::{Error, ErrorCode};

use crate::cache::memory::{Applied, Command, Memory, Owner, WriteBack};
use crate::cache::message::{Snooped, ToNode, Versioned};
use crate::ids::{Index, NodeId};
use crate::marks::{Rare, mark};
use crate::rules::{Rule, Rules};

use super::behind::Given;
use super::write::was_refused;
use super::{Committed, Done, Home, HomeOut, Job, Phase, Proposal, Sharer, Standing, Transaction, Want, granted};

impl<R: Rules> Home<R> {
    /// Starts the next transactions of a key, as long as none is in the way.
    pub(super) fn advance(&mut self, key: &str, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        loop {
            let Some(entry) = self.directory.get_mut(key) else { return };
            if entry.transaction.is_some() {
                return;
            }
            let Some(job) = entry.waiting.pop_front() else {
                if entry.sharers.is_empty() && entry.fill.is_none() {
                    self.directory.remove(key);
                }
                self.busy.remove(key);
                return;
            };
            self.start(key, job, memory, standing, out);
        }
    }

    pub(super) fn start(&mut self, key: &str, job: Job, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        if !self.may_act(standing) {
            return;
        }
        let owner = memory.owner(key).copied();
        match (&job.want, owner) {
            (Want::WriteBack { epoch, dirty, end }, Some(owner)) if self.is_owner(job.node, *epoch, &owner) => {
                let (dirty, end) = (dirty.clone(), *end);
                let old_owner = Some((owner, Some(Sharer { number: job.tag.number, request: job.request })));
                let id = self.begin(key, job, Phase::commit(old_owner, BTreeMap::new()), standing);
                self.propose_write_back(key, id, &owner, dirty, end, out);
            }
            (Want::WriteBack { epoch, .. }, _) => {
                // That ownership is over; the node has not heard it yet.
                out.to_node.push((job.node, self.over(key, *epoch, LineState::I, memory)));
            }
            (Want::Write { write, .. }, Some(owner)) if owner.write == *write => {
                let (epoch, owns, sum) = (owner.epoch, owner.node == job.node, owner.sum);
                let (write, key, tag) = (*write, key.to_owned(), job.tag);
                out.to_node.push((job.node, ToNode::Owned { write, key, tag, epoch, owns, sum }));
            }
            // A key that somebody owns was written: the right to fill it is over.
            (Want::Write { change, .. }, Some(_)) if change.fill > 0 => {
                self.refuse_write(key, job, super::fill::over(key), standing, out);
            }
            // A key whose time is over has no owner, nor has one that Redis alone has: this one has been written since.
            (Want::Expire(_) | Want::Refresh, Some(_)) => {}
            (_, Some(owner)) => self.snoop_owner(key, job, owner, memory, standing, out),
            (_, None) if self.must_fetch(key, &job, memory) => self.fetch(key, job, memory, standing, out),
            (Want::Refresh, None) => {}
            (Want::Read, None) => self.fill(key, &job, memory, standing, out),
            (Want::Fill { .. }, None) => self.give_fill(key, &job, memory, standing, out),
            (Want::Write { .. }, None) => self.write(key, job, memory, standing, out),
            (Want::Expire(version), None) => {
                let version = *version;
                self.remove(key, job, version, memory, standing, out);
            }
        }
    }

    fn is_owner(&self, node: NodeId, epoch: Index, owner: &Owner) -> bool {
        let registered = self.leases.get(&node).is_some_and(|lease| lease.incarnation == owner.incarnation);
        owner.node == node && owner.epoch == epoch && registered
    }

    /// Whether the owner can be asked: it has a lease, and the disk that its journal is on.
    pub(super) fn is_present(&self, owner: &Owner, now_us: u64) -> bool {
        let same = self.leases.get(&owner.node).is_some_and(|lease| lease.incarnation == owner.incarnation);
        (same || R::without(Rule::OwnerByName)) && self.number(owner.node, now_us).is_some()
    }

    pub(super) fn begin(&mut self, key: &str, job: Job, phase: Phase, standing: Standing) -> u64 {
        self.next_transaction += 1;
        let id = self.next_transaction;
        self.busy.insert(key.to_owned());
        let entry = self.directory.entry(key.to_owned()).or_default();
        assert!(entry.transaction.is_none(), "key '{key}' has a transaction already");
        entry.transaction = Some(Transaction { id, job, phase, sent_us: standing.now_us });
        id
    }

    fn snoop_owner(
        &mut self,
        key: &str,
        job: Job,
        owner: Owner,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        if !self.is_present(&owner, standing.now_us) {
            return self.owner_away(key, job, owner, memory, standing, out);
        }
        let id = self.begin(key, job, Phase::Owner(owner), standing);
        self.send_owner_snoop(key, id, owner, out);
    }

    fn send_owner_snoop(&self, key: &str, transaction: u64, owner: Owner, out: &mut HomeOut) {
        let reads = |entry: &super::Entry| {
            let want = entry.transaction.as_ref().map(|transaction| &transaction.job.want);
            matches!(want, Some(Want::Read | Want::Fill { .. }))
        };
        let (key, mark) = (key.to_owned(), Some(owner.mark()));
        let message = if self.directory.get(&key).is_some_and(reads) {
            ToNode::SnoopRd { transaction, key, owner: mark }
        } else {
            ToNode::SnoopInv { transaction, key, owner: mark }
        };
        out.to_node.push((owner.node, message));
    }

    /// The owner's lease has run out: what needs its value is refused, what replaces it goes on.
    fn owner_away(
        &mut self,
        key: &str,
        job: Job,
        owner: Owner,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        if let Want::Write { change, .. } = &job.want
            && !change.looks()
        {
            return match change.on(key, &memory.stored(key)) {
                Ok(new) => self.invalidate_and_own(key, job, new, Some((owner, None)), memory, standing, out),
                Err(error) => self.refuse(key, &job, error, out),
            };
        }
        if R::without(Rule::OldValueWhileOwnerIsAway) && matches!(job.want, Want::Read) {
            return self.fill(key, &job, memory, standing, out);
        }
        mark(Rare::OwnerAway);
        let what = format!(
            "{} has the newest value of key '{key}' and is away; a write that demands nothing replaces it, the rest waits for its return",
            owner.node
        );
        let error = Error::new(ErrorCode::OwnerAway, what).with_hint(owner.node.as_str()).retry_after(1_000);
        self.refuse(key, &job, error, out);
    }

    fn fill(&mut self, key: &str, job: &Job, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        // The value first, the clock second: `standing` was looked at in this very step.
        let mut value = self.newest(key, memory);
        let writer = memory.cell(key).map(|cell| cell.writer);
        if !self.holds(job.node, job.tag, standing.now_us) {
            return out.to_node.push((job.node, ToNode::Lapsed { tag: job.tag }));
        }
        let sharer = Sharer { number: job.tag.number, request: job.request };
        let state = self.share(key, job.node, sharer, standing, out);
        if let Some(entry) = self.directory.get_mut(key) {
            let given = Given::of(&value);
            match entry.given.filter(|before| value.value.is_none() && before.checksum == given.checksum) {
                Some(before) => value.version = before.version,
                None => entry.given = Some(given),
            }
        }
        let (request, key, tag) = (job.request, key.to_owned(), job.tag);
        out.to_node.push((job.node, ToNode::Filled { request, key, tag, state, value, writer }));
    }

    /// Notes a copy, and says in which state it may be kept. A node that was told it has the only one hears otherwise;
    /// nobody waits for that, for E gives no right to write.
    fn share(&mut self, key: &str, node: NodeId, sharer: Sharer, standing: Standing, out: &mut HomeOut) -> LineState {
        // The key has an entry already, that of the request which is being answered: the others count, unless it has sharers of its own.
        let others = self.directory.len() - usize::from(self.directory.contains_key(key));
        let known = self.directory.get(key).is_some_and(|entry| !entry.sharers.is_empty());
        let room = known || others < self.config.directory_max;
        if !room {
            mark(Rare::DirectoryFull);
            return LineState::I;
        }
        let others: Vec<(NodeId, u64)> = self
            .directory
            .get(key)
            .map(|entry| {
                entry.sharers.iter().filter(|(other, _)| **other != node).map(|(n, s)| (*n, s.number)).collect()
            })
            .unwrap_or_default();
        let shared = others.iter().any(|(other, number)| self.may_serve(*other, *number, standing.now_us));
        let entry = self.directory.entry(key.to_owned()).or_default();
        // The same lease may have been given a copy by a later request already: that one counts.
        let before = entry.sharers.get(&node).filter(|before| before.number == sharer.number);
        let request = before.map_or(sharer.request, |before| before.request.max(sharer.request));
        entry.sharers.insert(node, Sharer { request, ..sharer });
        if let Some(exclusive) = entry.exclusive.filter(|exclusive| *exclusive != node && shared) {
            out.to_node.push((exclusive, ToNode::SnoopRd { transaction: 0, key: key.to_owned(), owner: None }));
        }
        entry.exclusive = (!shared).then_some(node);
        granted(shared)
    }

    fn propose_write_back(
        &self,
        key: &str,
        transaction: u64,
        owner: &Owner,
        dirty: Option<Versioned>,
        end: bool,
        out: &mut HomeOut,
    ) {
        let Owner { node, incarnation, epoch, .. } = *owner;
        let command = Command::WriteBack(WriteBack { key: key.to_owned(), node, incarnation, epoch, dirty, end });
        out.propose.push(Proposal { key: key.to_owned(), transaction, command, write: None });
    }

    #[expect(clippy::too_many_arguments, reason = "one message's fields, and what every step needs")]
    pub(super) fn snoop_acknowledged(
        &mut self,
        from: NodeId,
        transaction: u64,
        key: &str,
        sharer: Option<Sharer>,
        snooped: Snooped,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        // The word of another life of the owner says nothing of what the first one wrote: it has not its disk.
        let life = self.leases.get(&from).map(|lease| lease.incarnation);
        let Some(current) = self.directory.get_mut(key).and_then(|entry| entry.transaction.as_mut()) else { return };
        if current.id != transaction {
            return;
        }
        match &mut current.phase {
            Phase::Commit { copies, .. } => {
                if snooped == Snooped::Gone {
                    copies.remove(&from);
                }
                self.finish_write(key, memory, standing, out);
            }
            Phase::Owner(owner)
                if owner.node == from && (life == Some(owner.incarnation) || R::without(Rule::OwnerByName)) =>
            {
                let (owner, dirty) = match snooped {
                    Snooped::Dirty(value) if value.version.epoch == owner.epoch => (*owner, Some(value)),
                    Snooped::Clean => (*owner, None),
                    _ => return,
                };
                self.owner_gave_way(key, owner, sharer, dirty, memory, standing, out);
            }
            Phase::Owner(_) | Phase::Refusal(_) | Phase::Fetch { .. } => {}
        }
        self.advance(key, memory, standing, out);
    }

    #[expect(clippy::too_many_arguments, reason = "one answer's fields, and what every step needs")]
    fn owner_gave_way(
        &mut self,
        key: &str,
        owner: Owner,
        sharer: Option<Sharer>,
        dirty: Option<Versioned>,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        let Some(entry) = self.directory.get_mut(key) else { return };
        let Some(transaction) = entry.transaction.as_mut() else { return };
        if let Want::Write { change, .. } = &transaction.job.want {
            let new = match &dirty {
                Some(newest) => change.on(key, newest),
                None => change.on(key, &memory.stored(key)),
            };
            // A write that may not be done is refused once the value that forbids it is in main memory.
            if let (Ok(new), 0) = (new, change.fill) {
                let job = entry.transaction.take().expect("looked at above").job;
                return self.invalidate_and_own(key, job, new, Some((owner, None)), memory, standing, out);
            }
        }
        transaction.phase = Phase::commit(Some((owner, sharer)), BTreeMap::new());
        let id = transaction.id;
        self.propose_write_back(key, id, &owner, dirty, true, out);
    }

    /// A proposal was applied, or its session refused it.
    pub fn committed(
        &mut self,
        proposal: &Proposal,
        committed: Committed,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        if self.is_about_a_node(&proposal.command) {
            return;
        }
        self.settle(proposal, committed, memory, standing, out);
        // What nobody owns any more is Redis' next.
        if memory.is_behind() {
            self.flush(memory, standing, out);
        }
    }

    fn settle(
        &mut self,
        proposal: &Proposal,
        committed: Committed,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        let key = proposal.key.as_str();
        let Some(entry) = self.directory.get_mut(key) else { return };
        let Some(transaction) = entry.transaction.as_mut().filter(|t| t.id == proposal.transaction) else { return };
        match (&mut transaction.phase, committed) {
            (Phase::Commit { done, .. }, Committed::Applied(applied)) if applied.write().is_some() => {
                *done = applied.write().map(|(epoch, sum)| Done::Wrote { epoch, owns: true, sum });
                self.tell_old_owner(key, LineState::I, memory, standing, out);
                self.finish_write(key, memory, standing, out);
            }
            (Phase::Commit { done, .. }, Committed::Repeated(applied)) if applied.write().is_some() => {
                // Done before, under an ownership that is over: the write is acknowledged, the line is not granted.
                mark(Rare::WriteRepeated);
                *done = applied.write().map(|(epoch, sum)| Done::Wrote { epoch, owns: false, sum });
                self.finish_write(key, memory, standing, out);
            }
            (Phase::Commit { done, .. }, Committed::Applied(Applied::Removed)) => {
                *done = Some(Done::Removed);
                self.finish_write(key, memory, standing, out);
            }
            (Phase::Refusal(_), Committed::Repeated(applied)) if applied.write().is_some() => {
                // It was done, and somebody wrote after it.
                mark(Rare::WriteRepeated);
                let job = entry.abort().expect("looked at above");
                let (Want::Write { write, .. }, Some((epoch, sum))) = (&job.want, applied.write()) else { return };
                let (key, tag) = (key.to_owned(), job.tag);
                out.to_node.push((job.node, ToNode::Owned { write: *write, key, tag, epoch, owns: false, sum }));
            }
            (Phase::Refusal(error), Committed::Applied(Applied::Refused) | Committed::Repeated(Applied::Refused)) => {
                let error = error.clone();
                let job = entry.abort().expect("looked at above");
                self.refuse(key, &job, error, out);
            }
            (Phase::Commit { .. }, Committed::Repeated(Applied::Refused)) => {
                // An earlier copy was refused, when the key was otherwise. That stands.
                mark(Rare::RefusedComesAgain);
                let job = entry.abort().expect("looked at above");
                let Want::Write { change, .. } = &job.want else { return };
                let error = was_refused(key, change);
                self.refuse(key, &job, error, out);
            }
            (_, Committed::Applied(Applied::WrittenBack)) => self.written_back(key, memory, standing, out),
            (_, Committed::Refused(error)) => {
                let job = entry.abort().expect("looked at above");
                self.refuse(key, &job, error, out);
            }
            // What the command counted on had changed: the job begins again.
            _ => {
                mark(Rare::CommandVoid);
                let job = entry.abort().expect("looked at above");
                entry.waiting.push_front(job);
            }
        }
        self.advance(key, memory, standing, out);
    }

    /// A proposal did not get into the log. What was asked comes again, if its node still wants it.
    pub fn refused(&mut self, proposal: &Proposal, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        if self.is_about_a_node(&proposal.command) {
            return;
        }
        if let Some(entry) = self.directory.get_mut(&proposal.key)
            && entry.transaction.as_ref().is_some_and(|transaction| transaction.id == proposal.transaction)
        {
            entry.abort();
            self.advance(&proposal.key, memory, standing, out);
        }
    }

    /// Main memory has the value, and where the command said so the ownership is over.
    fn written_back(&mut self, key: &str, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        let Some(transaction) = self.directory.get_mut(key).and_then(|entry| entry.transaction.take()) else { return };
        let Phase::Commit { old_owner: Some((owner, sharer)), .. } = transaction.phase else { return };
        let job = transaction.job;
        if let Want::WriteBack { end: false, .. } = job.want {
            let version = memory.stored(key).version;
            let (key, epoch, tag) = (key.to_owned(), owner.epoch, job.tag);
            let message = ToNode::WrittenBack { key, epoch, version, ended: false, state: LineState::I, tag };
            return out.to_node.push((job.node, message));
        }
        let exists = memory.stored(key).value.is_some();
        let keeps = sharer.filter(|sharer| {
            exists && self.may_act(standing) && self.may_serve(owner.node, sharer.number, standing.now_us)
        });
        let state = keeps.map_or(LineState::I, |sharer| self.share(key, owner.node, sharer, standing, out));
        // A reader that waits shares it at once.
        let state = if matches!(job.want, Want::Read) && state == LineState::E { LineState::S } else { state };
        if let Some(entry) = self.directory.get_mut(key).filter(|_| state == LineState::S) {
            entry.exclusive = None;
        }
        let tag = super::LeaseTag { term: self.term, number: keeps.map_or(0, |sharer| sharer.number) };
        let stored = memory.stored(key);
        let version = stored.version;
        if let Some(entry) = self.directory.get_mut(key).filter(|_| keeps.is_some()) {
            entry.given = Some(Given::of(&stored));
        }
        let (owned_key, epoch) = (key.to_owned(), owner.epoch);
        out.to_node.push((owner.node, ToNode::WrittenBack { key: owned_key, epoch, version, ended: true, state, tag }));
        match &job.want {
            Want::Read if self.may_act(standing) => self.fill(key, &job, memory, standing, out),
            Want::Write { .. } | Want::Fill { .. } => {
                if let Some(entry) = self.directory.get_mut(key) {
                    entry.waiting.push_front(job);
                }
            }
            _ => {}
        }
    }

    fn tell_old_owner(&self, key: &str, state: LineState, memory: &Memory, _: Standing, out: &mut HomeOut) {
        let transaction = self.directory.get(key).and_then(|entry| entry.transaction.as_ref());
        if let Some(Transaction { phase: Phase::Commit { old_owner: Some((owner, _)), .. }, .. }) = transaction {
            out.to_node.push((owner.node, self.over(key, owner.epoch, state, memory)));
        }
    }

    fn over(&self, key: &str, epoch: Index, state: LineState, memory: &Memory) -> ToNode {
        let version = memory.cell(key).map_or_else(|| memory.stored(key).version, |cell| cell.stored.version);
        let tag = super::LeaseTag { term: self.term, number: 0 };
        ToNode::WrittenBack { key: key.to_owned(), epoch, version, ended: true, state, tag }
    }

    /// Answers a write when both are done: the ownership is applied, and no copy is left.
    pub(super) fn finish_write(&mut self, key: &str, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        let Some(entry) = self.directory.get_mut(key) else { return };
        let Some(Transaction { job, phase: Phase::Commit { copies, done: Some(done), .. }, .. }) = &entry.transaction
        else {
            return;
        };
        if !copies.is_empty() && !R::without(Rule::WriteBeforeCopiesAreGone) {
            return;
        }
        if let (Want::Write { write, .. }, Done::Wrote { epoch, owns, sum }) = (&job.want, *done) {
            let (write, key, tag) = (*write, key.to_owned(), job.tag);
            let owns = owns && memory.owner(&key).is_some_and(|owner| owner.epoch == epoch);
            out.to_node.push((job.node, ToNode::Owned { write, key, tag, epoch, owns, sum }));
        }
        (entry.transaction, entry.given) = (None, None);
        self.end_fill(key, out);
        self.advance(key, memory, standing, out);
    }

    /// Sends again what was not acknowledged, and counts out the nodes whose lease has run out.
    pub(super) fn repeat(&mut self, key: &str, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        let now_us = standing.now_us;
        let Some(transaction) = self.directory.get_mut(key).and_then(|entry| entry.transaction.take()) else { return };
        let Transaction { id, job, mut phase, mut sent_us } = transaction;
        let again = now_us >= sent_us + self.config.retry_us;
        if again {
            sent_us = now_us;
        }
        match &mut phase {
            Phase::Owner(owner) if !self.is_present(owner, now_us) => {
                let owner = *owner;
                return self.owner_away(key, job, owner, memory, standing, out);
            }
            Phase::Owner(_) | Phase::Refusal(_) | Phase::Fetch { .. } => {}
            Phase::Commit { copies, .. } => {
                let before = copies.len();
                copies.retain(|node, sharer| self.may_serve(*node, sharer.number, now_us));
                if copies.len() < before {
                    mark(Rare::SharerCountedOut);
                }
                if again {
                    for node in copies.keys() {
                        out.to_node
                            .push((*node, ToNode::SnoopInv { transaction: id, key: key.to_owned(), owner: None }));
                    }
                }
            }
        }
        let snoop = match &phase {
            Phase::Owner(owner) if again => Some(*owner),
            _ => None,
        };
        if let Some(entry) = self.directory.get_mut(key) {
            entry.transaction = Some(Transaction { id, job, phase, sent_us });
        }
        if let Some(owner) = snoop {
            self.send_owner_snoop(key, id, owner, out);
        }
        self.finish_write(key, memory, standing, out);
    }
}

impl Phase {
    pub(super) fn commit(old_owner: Option<(Owner, Option<Sharer>)>, copies: BTreeMap<NodeId, Sharer>) -> Self {
        Self::Commit { old_owner, copies, done: None }
    }
}
