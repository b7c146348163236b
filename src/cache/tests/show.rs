//! The notation of the table and of the scripts: one short line for each message, record, change and answer.
//!
//! A version is `epoch.count`, a write `w` with its session and number, a lease `term.number`, a transaction `t` with its
//! home's term and number. The key `k` is the table's own, and not written.

use bytes::Bytes;
use trine_protocol::cache::{LineState, OnlyIf, Version};
use trine_protocol::{Error, Response};

use crate::cache::message::FillAnswer;
use crate::cache::{
    Applied, Command, JournalRecord, LeaseTag, LineChange, OwnerMark, Snooped, ToHome, ToNode, Versioned, WriteId,
};
use crate::cache::{Change, What};
use crate::ids::NodeId;

/// The key that the table is about.
pub(super) const KEY: &str = "k";

fn of(key: &str) -> String {
    if key == KEY { String::new() } else { format!(" {key}") }
}

/// `n2` for `node2`.
pub(super) fn node(node: NodeId) -> String {
    node.as_str().replacen("node", "n", 1)
}

fn state(state: LineState) -> &'static str {
    match state {
        LineState::M => "M",
        LineState::E => "E",
        LineState::S => "S",
        LineState::I => "I",
    }
}

pub(super) fn version(version: Version) -> String {
    format!("{}.{}", version.epoch, version.count)
}

pub(super) fn value(value: Option<&Bytes>) -> String {
    value.map_or("nothing".into(), |value| format!("'{}'", String::from_utf8_lossy(value)))
}

pub(super) fn versioned(it: &Versioned) -> String {
    format!("{} {}", version(it.version), value(it.value.as_ref()))
}

fn write(write: WriteId) -> String {
    format!("w{}.{}", write.session, write.sequence)
}

pub(super) fn lease(tag: LeaseTag) -> String {
    format!("{}.{}", tag.term, tag.number)
}

/// Ids of a home begin at its term, shifted by 32 bits.
fn transaction(id: u64) -> String {
    if id == 0 { "t0".into() } else { format!("t{}.{}", id >> 32, id & 0xffff_ffff) }
}

fn owner(mark: Option<OwnerMark>) -> String {
    mark.map_or("of a copy".into(), |mark| format!("of owner {} by {}", mark.epoch, write(mark.write)))
}

fn dirty(value: Option<&Versioned>) -> String {
    value.map_or("clean".into(), versioned)
}

/// A message of a node.
pub(super) fn to_home(message: &ToHome) -> String {
    match message {
        ToHome::Register { incarnation, round, .. } => {
            format!("Register life={} round={}", incarnation.0, round / 1000)
        }
        ToHome::Renew { tag, round } => format!("Renew {} round={}", lease(*tag), round / 1000),
        ToHome::BusRd { request, key, .. } => format!("BusRd{} r{request}", of(key)),
        ToHome::BusRdX { request, write: id, key, change, held, .. } => {
            let held = if *held == LineState::I { "" } else { " upgrade" };
            format!("BusRdX{} r{request} {} {}{held}", of(key), write(*id), written(change))
        }
        ToHome::WriteBack { request, key, epoch, dirty: new, end, .. } => {
            let end = if *end { "end" } else { "keep" };
            format!("WriteBack{} r{request} {end} {epoch}: {}", of(key), dirty(new.as_ref()))
        }
        ToHome::FillLease { request, key, lease_ms, .. } => format!("FillLease{} r{request} {lease_ms} ms", of(key)),
        ToHome::FillReturn { key, token, .. } => format!("FillReturn{} {}", of(key), transaction(*token)),
        ToHome::Audit { request, key, .. } => format!("Audit{} r{request}", of(key)),
        ToHome::Release { tag, .. } => format!("Release {}", lease(*tag)),
        ToHome::Leave { tag, .. } => format!("Leave {}", lease(*tag)),
        ToHome::SnoopAck { transaction: id, key, snooped, .. } => {
            let snooped = match snooped {
                Snooped::Gone => "Gone".into(),
                Snooped::Clean => "Clean".into(),
                Snooped::Dirty(value) => format!("Dirty {}", versioned(value)),
            };
            format!("SnoopAck{} {} {snooped}", of(key), transaction(*id))
        }
    }
}

/// What a write is to make of a key.
fn written(change: &Change) -> String {
    let what = match &change.what {
        What::Put { value: new, .. } => value(Some(new)),
        What::Delete => value(None),
        What::Add(by) => format!("{by:+}"),
    };
    let only_if = match change.only_if {
        OnlyIf::Anything => String::new(),
        OnlyIf::Absent => " if absent".into(),
        OnlyIf::Present => " if present".into(),
        OnlyIf::Version(is) => format!(" if {}", version(is)),
    };
    let through = if change.is_through() { " through" } else { "" };
    format!("{what}{only_if}{through}")
}

fn fill(answer: &FillAnswer) -> String {
    match answer {
        FillAnswer::Yours { token } => format!("yours {}", transaction(*token)),
        FillAnswer::Written => "written".into(),
        FillAnswer::Refused(error) => error.code.name().into(),
    }
}

/// A message of a home.
pub(super) fn to_node(message: &ToNode) -> String {
    match message {
        ToNode::NotHome { .. } => "NotHome".into(),
        ToNode::Registered { tag, .. } => format!("Registered {}", lease(*tag)),
        ToNode::Renewed { tag, .. } => format!("Renewed {}", lease(*tag)),
        ToNode::Lapsed { tag } => format!("Lapsed {}", lease(*tag)),
        ToNode::Filled { request, key, state: kept, value, .. } => {
            format!("Filled{} r{request} {} {}", of(key), state(*kept), versioned(value))
        }
        ToNode::Owned { write: id, key, epoch, owns, .. } => {
            let owns = if *owns { "owns" } else { "owns not" };
            format!("Owned{} {} {epoch} {owns}", of(key), write(*id))
        }
        ToNode::ReadFailed { request, key, error } => format!("ReadFailed{} r{request} {}", of(key), error.code.name()),
        ToNode::WriteFailed { request, write: id, key, error } => {
            format!("WriteFailed{} r{request} {} {}", of(key), write(*id), error.code.name())
        }
        ToNode::WrittenBack { key, epoch, version: upto, ended, state: kept, .. } => {
            let end = if *ended { format!("ended {}", state(*kept)) } else { "kept".into() };
            format!("WrittenBack{} {epoch} {end} up to {}", of(key), version(*upto))
        }
        ToNode::FillAnswered { request, key, answer } => format!("FillAnswered{} r{request} {}", of(key), fill(answer)),
        ToNode::Audited { request, newest, .. } => format!("Audited r{request} {}", version(*newest)),
        ToNode::Released { tag } => format!("Released {}", lease(*tag)),
        ToNode::SnoopRd { transaction: id, key, owner: mark } => {
            format!("SnoopRd{} {} {}", of(key), transaction(*id), owner(*mark))
        }
        ToNode::SnoopInv { transaction: id, key, owner: mark } => {
            format!("SnoopInv{} {} {}", of(key), transaction(*id), owner(*mark))
        }
    }
}

/// A record for the journal.
pub(super) fn journal(record: &JournalRecord) -> String {
    match record {
        JournalRecord::Written { key, dirty } => format!("written{} {}", of(key), versioned(dirty)),
        JournalRecord::Ended { key, version: upto } => format!("ended{} up to {}", of(key), version(*upto)),
    }
}

/// A change of the lines that readers see.
pub(super) fn change(change: &LineChange) -> String {
    match change {
        LineChange::Put(key, line) => format!("publish{} {} {}", of(key), state(line.state), versioned(&line.value)),
        LineChange::Drop(key) => format!("retract{}", of(key)),
        LineChange::DropAll => "retract all".into(),
        LineChange::Lease(tag, until_us) => format!("lease {} until {}", lease(*tag), until_us / 1000),
    }
}

/// An answer to a client.
pub(super) fn answer(result: &Result<Response, Error>) -> String {
    match result {
        Ok(Response::Get(got)) => {
            format!("got {} {} {}", version(got.version), value(got.value.as_ref()), state(got.state))
        }
        Ok(Response::Put(written)) => format!("written {}", version(written.version)),
        Ok(Response::WriteBack(back)) => format!("written back, {}", state(back.state)),
        Ok(Response::WriteBackAll(all)) => format!("{} lines written back", all.lines),
        Ok(other) => format!("{other:?}"),
        Err(error) => error.code.name().into(),
    }
}

/// A command for the log.
pub(super) fn command(command: &Command) -> String {
    match command {
        Command::Join { node: who, .. } => format!("Join {}", node(*who)),
        Command::Leave { node: who, .. } => format!("Leave {}", node(*who)),
        Command::Release { node: who, .. } => format!("Release {}", node(*who)),
        Command::Remove(remove) => format!("Remove{} {}", of(&remove.key), version(remove.version)),
        Command::Behind => "Behind".into(),
        Command::Flushed(flushed) => format!("Flushed{} {}", of(&flushed.key), version(flushed.version)),
        Command::Own(own) => {
            let replaces = own.replaces.map(|epoch| format!(" for {epoch}")).unwrap_or_default();
            format!("Own{} {} {}{replaces}", of(&own.key), node(own.node), value(own.value.as_ref()))
        }
        Command::WriteBack(back) => {
            let end = if back.end { "end" } else { "keep" };
            format!(
                "WriteBack{} {} {end} {}: {}",
                of(&back.key),
                node(back.node),
                back.epoch,
                dirty(back.dirty.as_ref())
            )
        }
    }
}

/// What became of a command.
pub(super) fn applied(applied: Applied) -> String {
    match applied {
        Applied::Owned(epoch) => format!("owned {epoch}"),
        Applied::Joined => "joined".into(),
        Applied::Left => "left".into(),
        Applied::WrittenBack => "written back".into(),
        Applied::Released => "released".into(),
        Applied::Void => "void".into(),
        Applied::Wrote { index, sum } => {
            format!("wrote {index}{}", sum.map(|sum| format!(", sum {sum}")).unwrap_or_default())
        }
        Applied::Refused => "refused".into(),
        Applied::Removed => "removed".into(),
        Applied::Noted => "noted".into(),
    }
}
