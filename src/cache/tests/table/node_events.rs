//! Everything that can happen to an agent.

use trine_protocol::ErrorCode;
use trine_protocol::cache::LineState;

use super::node::{Bench, EPOCH, TAG, put, versioned};
use crate::cache::{AgentOut, Config, LeaseTag, Operation, ToNode, WriteId};

const OTHER_TAG: LeaseTag = LeaseTag { term: 1, number: 2 };
const OTHER_WRITE: WriteId = WriteId { session: 9, sequence: 1 };

/// An event by its name. Where it takes several steps, the last one is what the table shows.
pub(super) type Event = (&'static str, fn(&mut Bench) -> AgentOut);

pub(super) const EVENTS: [Event; 59] = [
    // Clients, and the disk.
    ("client: Get", |b| b.asks(Operation::Get)),
    ("client: Put", |b| b.asks(put("d"))),
    ("client: WriteBack", |b| b.asks(Operation::WriteBack)),
    ("client: WriteBackAll", |b| {
        b.caller += 1;
        let caller = b.caller;
        b.act(|agent, turn| agent.write_back_all(turn, caller))
    }),
    ("the last client gives up", |b| {
        let caller = b.caller;
        b.act(|agent, turn| agent.expire(turn, caller))
    }),
    ("journal flushed", Bench::flushed),
    ("journal flushed but for the last record", |b| {
        b.act(|agent, turn| agent.flushed(turn, agent.ticket().saturating_sub(1)))
    }),
    ("journal flushed when the lease has run out", |b| {
        b.now_us += Config::default().holder_lease_us();
        b.flushed()
    }),
    // Answers to reads and writes.
    ("Filled E", |b| b.filled(b.request, LineState::E, TAG)),
    ("Filled S", |b| b.filled(b.request, LineState::S, TAG)),
    ("Filled I", |b| b.filled(b.request, LineState::I, TAG)),
    ("Filled S for an older request", |b| b.filled(b.request - 1, LineState::S, TAG)),
    ("Filled S under another lease", |b| b.filled(b.request, LineState::S, OTHER_TAG)),
    ("Owned 9, owns", |b| b.owned(b.write, TAG, true)),
    ("Owned 9, owns not", |b| b.owned(b.write, TAG, false)),
    ("Owned 9 for another write", |b| b.owned(OTHER_WRITE, TAG, true)),
    ("Owned 9 under another lease", |b| b.owned(b.write, OTHER_TAG, true)),
    ("ReadFailed", |b| b.read_failed(b.request)),
    ("ReadFailed for an older request", |b| b.read_failed(b.request - 1)),
    ("WriteFailed", |b| b.write_failed(b.write_request, b.write, ErrorCode::Overloaded)),
    ("WriteFailed for another write", |b| b.write_failed(b.write_request, OTHER_WRITE, ErrorCode::Overloaded)),
    ("WriteFailed, of what was sent twice", |b| {
        b.passes(Config::default().retry_us);
        b.write_failed(b.write_request, b.write, ErrorCode::Overloaded)
    }),
    ("ConditionFailed, of what was sent twice", |b| {
        b.passes(Config::default().retry_us);
        b.write_failed(b.write_request, b.write, ErrorCode::ConditionFailed)
    }),
    ("ConditionFailed, of the first of what was sent twice", |b| {
        let first = b.write_request;
        b.passes(Config::default().retry_us);
        b.write_failed(first, b.write, ErrorCode::ConditionFailed)
    }),
    // Write-backs.
    ("WrittenBack 9, kept, up to 9.0", |b| b.written_back(EPOCH, 0, None, TAG)),
    ("WrittenBack 9, kept, up to 9.1", |b| b.written_back(EPOCH, 1, None, TAG)),
    ("WrittenBack 8, kept, up to 8.1", |b| b.written_back(EPOCH - 1, 1, None, TAG)),
    ("WrittenBack 9, ended I, up to 9.0", |b| b.written_back(EPOCH, 0, Some(LineState::I), TAG)),
    ("WrittenBack 9, ended I, up to 9.1", |b| b.written_back(EPOCH, 1, Some(LineState::I), TAG)),
    ("WrittenBack 9, ended S, up to 9.0", |b| b.written_back(EPOCH, 0, Some(LineState::S), TAG)),
    ("WrittenBack 9, ended S, up to 9.1", |b| b.written_back(EPOCH, 1, Some(LineState::S), TAG)),
    ("WrittenBack 9, ended E, up to 9.1", |b| b.written_back(EPOCH, 1, Some(LineState::E), TAG)),
    ("WrittenBack 9, ended E, of another lease", |b| b.written_back(EPOCH, 1, Some(LineState::E), OTHER_TAG)),
    ("WrittenBack 8, ended S, up to 9.1", |b| b.written_back(EPOCH - 1, 1, Some(LineState::S), TAG)),
    ("Released", |b| b.hears(ToNode::Released { tag: TAG })),
    ("Released, after a drain", |b| {
        b.act(|agent, turn| agent.drain(turn));
        b.hears(ToNode::Released { tag: TAG })
    }),
    // Snoops.
    ("SnoopRd of a copy", |b| b.snooped_by_a_reader(None)),
    ("SnoopRd of owner 9", |b| b.snooped_by_a_reader(Some(EPOCH))),
    ("SnoopRd of owner 8", |b| b.snooped_by_a_reader(Some(EPOCH - 1))),
    ("SnoopRd of owner 10, by the last write", |b| b.snooped_by_a_reader(Some(EPOCH + 1))),
    ("SnoopInv of a copy", |b| b.snooped_by_a_writer(None)),
    ("SnoopInv of owner 9", |b| b.snooped_by_a_writer(Some(EPOCH))),
    ("SnoopInv of owner 8", |b| b.snooped_by_a_writer(Some(EPOCH - 1))),
    ("SnoopInv of owner 10, by the last write", |b| b.snooped_by_a_writer(Some(EPOCH + 1))),
    // The lease.
    ("Registered, for the last round", Bench::registered),
    ("Registered, for an older round", |b| b.hears(ToNode::Registered { tag: OTHER_TAG, round: b.round - 1 })),
    ("Renewed, a while after it was asked for", |b| {
        b.now_us += 1_000;
        b.hears(ToNode::Renewed { tag: TAG, round: b.round })
    }),
    ("Renewed, of another lease", |b| b.hears(ToNode::Renewed { tag: OTHER_TAG, round: b.round })),
    ("Lapsed", Bench::lapsed),
    ("Lapsed, of another lease", |b| b.hears(ToNode::Lapsed { tag: OTHER_TAG })),
    ("NotHome", |b| b.hears(ToNode::NotHome { leader: None, term: 1 })),
    ("the lease runs out", |b| b.passes(Config::default().holder_lease_us())),
    ("a home of a later term", |b| b.act(|agent, turn| agent.home_changed(turn, 2))),
    ("a home of an earlier term", |b| b.act(|agent, turn| agent.home_changed(turn, 0))),
    // Of its own accord.
    ("the time of a retry passes", |b| b.passes(Config::default().retry_us)),
    ("five times that pass", |b| b.passes(5 * Config::default().retry_us)),
    ("another line needs the room", evicted),
    ("drain", |b| b.act(|agent, turn| agent.drain(turn))),
    ("drain, and a tick", |b| {
        b.act(|agent, turn| agent.drain(turn));
        b.passes(0)
    }),
];

/// A line of another key is read, and there is no room for both.
fn evicted(b: &mut Bench) -> AgentOut {
    let before = b.request;
    b.act(|agent, turn| agent.operation(turn, 90, "z", Operation::Get));
    let (request, key) = (std::mem::replace(&mut b.request, before), "z".to_owned());
    b.hears(ToNode::Filled { request, key, tag: TAG, state: LineState::S, value: versioned(3, 0, "z"), writer: None })
}
