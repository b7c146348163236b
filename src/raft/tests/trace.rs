//! The trace language: one line per event, in the words of the paper.

use std::collections::BTreeSet;

use crate::ids::{Index, NodeId, ReplicaId, Term};
use crate::raft::{Body, Entry, Membership, Message, Persist, Raft, Role, SnapshotMeta};
use crate::rules::Rules;

/// `node3` is 3.
pub(super) fn number(id: NodeId) -> &'static str {
    const NUMBERS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let number: usize = id.as_str().trim_start_matches("node").parse().expect("a numbered node");
    NUMBERS[number]
}

/// What is visible of a replica, to see what an input changed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    role: Role,
    term: Term,
    leader: Option<NodeId>,
    commit: Index,
}

impl State {
    pub(super) fn of<R: Rules>(raft: &Raft<R>) -> Self {
        Self { role: raft.role(), term: raft.term(), leader: raft.leader(), commit: raft.commit() }
    }

    pub(super) fn name(&self, id: NodeId) -> String {
        let role = match self.role {
            Role::Follower => {
                format!("follower({})", self.leader.map_or(String::new(), |id| format!("n{}", number(id))))
            }
            Role::PreCandidate => "pre-candidate".into(),
            Role::Candidate => "candidate".into(),
            Role::Leader => "leader".into(),
        };
        format!("n{}@{} {role}", number(id), self.term)
    }
}

pub(super) fn changes(id: NodeId, before: &State, after: &State) -> Vec<String> {
    let mut lines = Vec::new();
    let (old, new) = (before.name(id), after.name(id));
    if old != new {
        lines.push(format!("{old} ⇨ {new}"));
    }
    if before.commit != after.commit {
        lines.push(format!("n{}@{} commits {}", number(id), after.term, after.commit));
    }
    lines
}

/// `{1,2,4} and {1,2,3}, learners {5:7}`: the last is node 5 in its life 7.
pub(super) fn membership(membership: &Membership) -> String {
    let set = |ids: &BTreeSet<ReplicaId>| {
        let life = |id: &ReplicaId| match id.incarnation.0 {
            0 => String::new(),
            life => format!(":{life}"),
        };
        let numbers: Vec<String> = ids.iter().map(|id| format!("{}{}", number(id.node), life(id))).collect();
        format!("{{{}}}", numbers.join(","))
    };
    let mut text = set(&membership.voters);
    if membership.is_joint() {
        text += &format!(" and {}", set(&membership.outgoing));
    }
    if !membership.learners.is_empty() {
        text += &format!(", learners {}", set(&membership.learners));
    }
    text
}

pub(super) fn entry(entry: &Entry) -> String {
    if let Some(members) = &entry.membership {
        return format!("{}@{} {}", entry.index, entry.term, membership(members));
    }
    let data = match entry.data.len() {
        0 => "no-op".into(),
        1..=16 => String::from_utf8_lossy(&entry.data).into_owned(),
        length => format!("{length} bytes"),
    };
    format!("{}@{} {data}", entry.index, entry.term)
}

pub(super) fn entries(list: &[Entry]) -> String {
    let list: Vec<String> = list.iter().map(entry).collect();
    format!("[{}]", list.join(", "))
}

pub(super) fn meta(meta: &SnapshotMeta) -> String {
    format!("{}@{}", meta.index, meta.term)
}

pub(super) fn persist(persist: &Persist) -> String {
    let mut words = vec![format!("w{}", persist.sequence)];
    if let Some(state) = persist.hard_state {
        let vote = state.vote.map_or("none".into(), |id| format!("n{}", number(id.node)));
        words.push(format!("term={} vote={vote}", state.term));
    }
    if let Some(from) = persist.truncate_from {
        words.push(format!("cut={from}"));
    }
    if !persist.entries.is_empty() {
        words.push(entries(&persist.entries));
    }
    if let Some(snapshot) = &persist.snapshot {
        words.push(format!("snapshot={}", meta(&snapshot.meta)));
    }
    words.join(" ")
}

/// A message; its term where it is not the sender's.
pub(super) fn message(message: &Message, sender: Term) -> String {
    let term = if message.term == sender { String::new() } else { format!(" term={}", message.term) };
    let granted = |granted: bool| if granted { "granted" } else { "refused" };
    let body = match &message.body {
        Body::PreVote { last_index, last_term } => format!("PreVote last={last_index}@{last_term}"),
        Body::PreVoteReply { granted: yes } => format!("PreVoteReply {}", granted(*yes)),
        Body::Vote { last_index, last_term, transfer } => {
            format!("Vote last={last_index}@{last_term}{}", if *transfer { " transfer" } else { "" })
        }
        Body::VoteReply { granted: yes } => format!("VoteReply {}", granted(*yes)),
        Body::Append { prev_index, prev_term, entries: list, commit, round, .. } if list.is_empty() => {
            format!("Append prev={prev_index}@{prev_term} commit={commit} round={round}")
        }
        Body::Append { prev_index, prev_term, entries: list, commit, round, .. } => {
            format!("Append prev={prev_index}@{prev_term} {} commit={commit} round={round}", entries(list))
        }
        Body::Appended { index, round } => format!("Appended index={index} round={round}"),
        Body::Rejected { prev_index, hint_index, hint_term, round } => {
            format!("Rejected prev={prev_index} hint={hint_index}@{hint_term} round={round}")
        }
        Body::Snapshot { meta: at, offset, data, last } => {
            let end = if *last { " last" } else { "" };
            format!("Snapshot {} bytes {offset}..{}{end}", meta(at), offset + data.len() as u64)
        }
        Body::SnapshotReply { index, installed: true, .. } => format!("SnapshotReply {index} installed"),
        Body::SnapshotReply { index, next_offset, .. } => format!("SnapshotReply {index} next={next_offset}"),
        Body::TimeoutNow => "TimeoutNow".into(),
    };
    format!("{body}{term}")
}
