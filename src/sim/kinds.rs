//! The names of what travels: for the trace, and to see that the runs leave nothing out.

use crate::cache::{BusMessage, ToHome, ToNode};
use crate::node::message::GroupMessage;
use crate::raft::Body;

/// Every name that `name` gives.
pub const KINDS: [&str; 32] = [
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
    "SnoopRd",
    "SnoopInv",
    "Forward",
    "Answer",
    "OutOfOrder",
    "Roster",
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
            ToHome::SnoopAck { .. } => 16,
        },
        GroupMessage::Bus(BusMessage::ToNode(message)) => match message {
            ToNode::NotHome { .. } => 17,
            ToNode::Registered { .. } => 18,
            ToNode::Renewed { .. } => 19,
            ToNode::Lapsed { .. } => 20,
            ToNode::Filled { .. } => 21,
            ToNode::Owned { .. } => 22,
            ToNode::ReadFailed { .. } => 23,
            ToNode::WriteFailed { .. } => 24,
            ToNode::WrittenBack { .. } => 25,
            ToNode::SnoopRd { .. } => 26,
            ToNode::SnoopInv { .. } => 27,
        },
        GroupMessage::Forward(_) => 28,
        GroupMessage::Answer(_) => 29,
        GroupMessage::OutOfOrder(_) => 30,
        GroupMessage::Roster(_) | GroupMessage::RosterSeen(_) => 31,
    }
}
