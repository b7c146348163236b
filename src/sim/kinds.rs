//! The names of what travels: for the trace, and to see that the runs leave nothing out.

use crate::cache::{BusMessage, ToHome, ToNode};
use crate::node::message::GroupMessage;
use crate::raft::Body;

/// Every name that `name` gives.
pub const KINDS: [&str; 40] = [
    "PreVote",
    "PreVoteReply",
    "Vote",
    "VoteReply",
    "Append",
    "Heartbeat",
    "Appended",
    "Rejected",
    "Snapshot",
    "SnapshotReply",
    "TimeoutNow",
    "Register",
    "Renew",
    "BusRd",
    "BusRdX",
    "WriteBack",
    "Release",
    "SnoopAck",
    "NotHome",
    "Registered",
    "Renewed",
    "Lapsed",
    "Filled",
    "Owned",
    "ReadFailed",
    "WriteFailed",
    "WrittenBack",
    "Released",
    "SnoopRd",
    "SnoopInv",
    "Forward",
    "Answer",
    "OutOfOrder",
    "Roster",
    "Leave",
    "FillLease",
    "FillReturn",
    "FillAnswered",
    "Audit",
    "Audited",
];

/// What a message is.
pub(crate) fn name(message: &GroupMessage) -> &'static str {
    KINDS[number(message)]
}

/// Its place in [`KINDS`].
pub(crate) fn number(message: &GroupMessage) -> usize {
    match message {
        GroupMessage::Raft(message) => match &message.body {
            Body::PreVote { .. } => 0,
            Body::PreVoteReply { .. } => 1,
            Body::Vote { .. } => 2,
            Body::VoteReply { .. } => 3,
            Body::Append { entries, .. } if !entries.is_empty() => 4,
            Body::Append { .. } => 5,
            Body::Appended { .. } => 6,
            Body::Rejected { .. } => 7,
            Body::Snapshot { .. } => 8,
            Body::SnapshotReply { .. } => 9,
            Body::TimeoutNow => 10,
        },
        GroupMessage::Bus(BusMessage::ToHome(message)) => match message {
            ToHome::Register { .. } => 11,
            ToHome::Renew { .. } => 12,
            ToHome::BusRd { .. } => 13,
            ToHome::BusRdX { .. } => 14,
            ToHome::WriteBack { .. } => 15,
            ToHome::Release { .. } => 16,
            ToHome::SnoopAck { .. } => 17,
            ToHome::Leave { .. } => 34,
            ToHome::FillLease { .. } => 35,
            ToHome::FillReturn { .. } => 36,
            ToHome::Audit { .. } => 38,
        },
        GroupMessage::Bus(BusMessage::ToNode(message)) => match message {
            ToNode::NotHome { .. } => 18,
            ToNode::Registered { .. } => 19,
            ToNode::Renewed { .. } => 20,
            ToNode::Lapsed { .. } => 21,
            ToNode::Filled { .. } => 22,
            ToNode::Owned { .. } => 23,
            ToNode::ReadFailed { .. } => 24,
            ToNode::WriteFailed { .. } => 25,
            ToNode::WrittenBack { .. } => 26,
            ToNode::Released { .. } => 27,
            ToNode::SnoopRd { .. } => 28,
            ToNode::SnoopInv { .. } => 29,
            ToNode::FillAnswered { .. } => 37,
            ToNode::Audited { .. } => 39,
        },
        GroupMessage::Forward(_) => 30,
        GroupMessage::Answer(_) => 31,
        GroupMessage::OutOfOrder(_) => 32,
        GroupMessage::Roster(_) | GroupMessage::RosterSeen(_) => 33,
    }
}

/// What tells a message from others of its kind, for the hash of the trace.
pub(crate) fn detail(message: &GroupMessage) -> u64 {
    match message {
        GroupMessage::Raft(raft) => raft.term,
        GroupMessage::Bus(_) => 0,
        GroupMessage::Forward(forward) => forward.id,
        GroupMessage::Answer(answer) => answer.id,
        GroupMessage::OutOfOrder(stream) => *stream,
        GroupMessage::Roster(roster) => roster.version,
        GroupMessage::RosterSeen(version) => *version,
    }
}
