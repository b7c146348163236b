//! Times of what a replica does with others, measured where its messages leave and come in.
//!
//! ```text
//!   entries to the log --------> commit                     time of a commit
//!   heartbeat out -------------> its round answered         round trip to a peer
//!   first snoop out -----------> acknowledgement            round trip of a snoop
//!   renewal of the bus lease --> what was left of it        margin of the lease
//! ```
//!
//! The replica knows nothing of it: it is pure, and its behaviour must not depend on whether somebody looks.
//!
//! # Invariants
//! - Everything that waits for its answer here is bounded; where the bound is reached, the oldest measurement is given up.
//!
//! # Caveats
//! - Instants are those at which the replica's task began with an input, so an answer that waits in the inbox counts as on its way.
//! - Only heartbeats without entries are timed: the answer to entries waits for the peer's disk. A leader that
//!   is so busy that each of its heartbeats carries entries gives no samples.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ::metrics::Histogram;

use crate::cache::{BusMessage, LeaseTag, LineChange, ToHome, ToNode};
use crate::ids::{Index, NodeId};
use crate::metrics::{self, BusKind};
use crate::node::effect::{Effects, Input};
use crate::node::message::GroupMessage;
use crate::raft::{Body, Message};
use trine_protocol::cache::LineState;

/// Snoops of one home that wait for an answer: as many as a few thousand keys that are written at once.
const SNOOPS_MAX: usize = 4_096;
/// Writes of one leader that wait for their commit: far more than fit between two syncs.
const COMMITS_MAX: usize = 4_096;

/// The measurements of one group that have begun.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// When a node was first snooped for a transaction.
    snoops: BTreeMap<(u64, NodeId), u64>,
    /// The heartbeat that waits for a peer's answer: its round, and when it left.
    rounds: BTreeMap<NodeId, (u64, u64)>,
    /// The last entry of each write that is not committed, and when it was handed out.
    commits: VecDeque<(Index, u64)>,
    /// The bus lease and its end.
    lease: Option<(LeaseTag, u64)>,
    peers: BTreeMap<NodeId, Histogram>,
}

impl Watch {
    /// An input is about to be handled.
    pub(super) fn heard(&mut self, now_us: u64, handles: &metrics::Group, input: &Input) {
        let Input::Peer { from, message } = input else { return };
        match message {
            GroupMessage::Raft(Message { body: Body::Appended { round, .. }, .. }) => {
                let Some((sent_round, sent_us)) = self.rounds.get(from).copied() else { return };
                if *round >= sent_round {
                    self.rounds.remove(from);
                    let histogram = self.peers.entry(*from).or_insert_with(|| metrics::peer_round_trip(from.as_str()));
                    histogram.record(passed(sent_us, now_us));
                }
            }
            GroupMessage::Bus(BusMessage::ToHome(ToHome::SnoopAck { transaction, .. })) => {
                if let Some(sent_us) = self.snoops.remove(&(*transaction, *from)) {
                    handles.cache.snoop_seconds.record(passed(sent_us, now_us));
                }
            }
            _ => {}
        }
    }

    /// An input was handled, and this follows. `commit` is how far the group's log is committed, where this node leads.
    pub(super) fn done(&mut self, now_us: u64, handles: &metrics::Group, effects: &Effects, commit: Option<Index>) {
        for (to, message) in &effects.send {
            match &**message {
                GroupMessage::Raft(message) => self.raft_sent(now_us, *to, &message.body),
                GroupMessage::Bus(message) => self.bus_sent(now_us, *to, message),
                _ => {}
            }
        }
        for change in &effects.publish {
            if let LineChange::Lease(tag, until_us) = change {
                if let Some((before, before_us)) = self.lease
                    && before == *tag
                {
                    handles.cache.lease_margin_seconds.record(passed(now_us, before_us));
                }
                self.lease = Some((*tag, *until_us));
            }
        }
        let Some(commit) = commit else {
            self.commits.clear();
            self.rounds.clear();
            return;
        };
        let last_entries = effects.persist.iter().filter_map(|write| write.raft.as_ref()?.entries.last());
        for entry in last_entries {
            if self.commits.len() == COMMITS_MAX {
                self.commits.pop_front();
            }
            self.commits.push_back((entry.index, now_us));
        }
        while let Some((index, handed_us)) = self.commits.front().copied()
            && index <= commit
        {
            self.commits.pop_front();
            handles.raft.commit_seconds.record(passed(handed_us, now_us));
        }
    }

    fn raft_sent(&mut self, now_us: u64, to: NodeId, body: &Body) {
        let Body::Append { entries, round, .. } = body else { return };
        let known = self.rounds.get(&to).is_some_and(|(known, _)| known >= round);
        if entries.is_empty() && !known {
            self.rounds.insert(to, (*round, now_us));
        }
    }

    fn bus_sent(&mut self, now_us: u64, to: NodeId, message: &BusMessage) {
        metrics::bus_sent(kind_of(message));
        let BusMessage::ToNode(ToNode::SnoopRd { transaction, .. } | ToNode::SnoopInv { transaction, .. }) = message
        else {
            return;
        };
        // Number 0 asks for no answer.
        if *transaction > 0 {
            if self.snoops.len() == SNOOPS_MAX {
                self.snoops.pop_first();
            }
            // A snoop that is repeated is measured from its first time.
            self.snoops.entry((*transaction, to)).or_insert(now_us);
        }
    }
}

fn passed(from_us: u64, to_us: u64) -> Duration {
    Duration::from_micros(to_us.saturating_sub(from_us))
}

fn kind_of(message: &BusMessage) -> BusKind {
    match message {
        BusMessage::ToHome(message) => match message {
            ToHome::Register { .. } => BusKind::Register,
            ToHome::Renew { .. } => BusKind::Renew,
            ToHome::BusRd { .. } => BusKind::BusRd,
            ToHome::BusRdX { held: LineState::I, .. } => BusKind::BusRdX,
            ToHome::BusRdX { .. } => BusKind::BusUpgr,
            ToHome::WriteBack { .. } => BusKind::WriteBack,
            ToHome::SnoopAck { .. } => BusKind::SnoopAck,
            ToHome::Release { .. } => BusKind::Release,
            ToHome::Leave { .. } => BusKind::Leave,
            ToHome::FillLease { .. } => BusKind::FillLease,
            ToHome::FillReturn { .. } => BusKind::FillReturn,
            ToHome::Audit { .. } => BusKind::Audit,
        },
        BusMessage::ToNode(message) => match message {
            ToNode::NotHome { .. } => BusKind::NotHome,
            ToNode::Registered { .. } => BusKind::Registered,
            ToNode::Renewed { .. } => BusKind::Renewed,
            ToNode::Lapsed { .. } => BusKind::Lapsed,
            ToNode::Filled { .. } => BusKind::Filled,
            ToNode::Owned { .. } => BusKind::Owned,
            ToNode::ReadFailed { .. } => BusKind::ReadFailed,
            ToNode::WriteFailed { .. } => BusKind::WriteFailed,
            ToNode::WrittenBack { .. } => BusKind::WrittenBack,
            ToNode::Released { .. } => BusKind::Released,
            ToNode::SnoopRd { .. } => BusKind::SnoopRd,
            ToNode::SnoopInv { .. } => BusKind::SnoopInv,
            ToNode::FillAnswered { .. } => BusKind::FillAnswered,
            ToNode::Audited { .. } => BusKind::Audited,
        },
    }
}

#[cfg(test)]
mod tests;
