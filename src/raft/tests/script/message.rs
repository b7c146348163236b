//! A message written in a script, field by field.
//!
//! What a script leaves out is zero, false or empty. Whether a replica of ours could have sent the message is not looked at here: a
//! script may send nonsense, and shows what becomes of it.

use bytes::Bytes;
use goldenscript::ArgumentConsumer;

use super::{Result, key};
use crate::ids::{Incarnation, Index, Term};
use crate::raft::{Body, Entry, Message, SnapshotMeta};

fn entry(index: Index, term: Term, data: Bytes) -> Entry {
    Entry { index, term, stamp_ms: 0, wall_ms: 0, data, membership: None }
}

/// Entries of the given terms from `first` on. What stands in them follows from term and index, as in a real run.
pub(super) fn entries(first: Index, terms: &str) -> Result<Vec<Entry>> {
    let terms: Vec<Term> = terms.split('.').map(str::parse).collect::<std::result::Result<_, _>>()?;
    let data = |term| Bytes::from(format!("t{term}"));
    Ok((first..).zip(terms).map(|(index, term)| entry(index, term, data(term))).collect())
}

fn position(text: &str) -> Result<(Index, Term)> {
    let (index, term) = text.split_once('@').ok_or("index@term")?;
    Ok((index.parse()?, term.parse()?))
}

/// What follows the kind, the sender and the receiver of `step` and `send`.
pub(super) fn message(arguments: &mut ArgumentConsumer<'_>) -> Result<Message> {
    let term = key(arguments, "term")?.ok_or("term=")?;
    let round = key(arguments, "round")?.unwrap_or(0);
    let mut place = |name: &str| arguments.take_key(name).map_or(Ok((0, 0)), position);
    let (prev, last, hint, meta) = (place("prev")?, place("last")?, place("hint")?, place("meta")?);
    let mut log = arguments.take_key("log").map_or(Ok(Vec::new()), |terms| entries(prev.0 + 1, terms))?;
    let (stamp_ms, wall_ms) = (key(arguments, "stamp")?.unwrap_or(0), key(arguments, "wall")?.unwrap_or(0));
    for entry in &mut log {
        (entry.stamp_ms, entry.wall_ms) = (stamp_ms, wall_ms);
    }
    let log_time_ms = key(arguments, "time")?.unwrap_or(0);
    let commit = key(arguments, "commit")?.unwrap_or(0);
    let index = key(arguments, "index")?.unwrap_or(0);
    let offset = key(arguments, "offset")?.unwrap_or(0);
    let data = Bytes::from(arguments.take_key("data").unwrap_or_default().to_owned());
    let kind = arguments.next_pos().ok_or("which message?")?;
    let flag = arguments.next_pos();
    let granted = flag == Some("granted");
    let body = match kind {
        "pre-vote" => Body::PreVote { last_index: last.0, last_term: last.1 },
        "pre-vote-reply" => Body::PreVoteReply { granted },
        "vote" => Body::Vote { last_index: last.0, last_term: last.1, transfer: flag == Some("transfer") },
        "vote-reply" => Body::VoteReply { granted },
        "append" => Body::Append { prev_index: prev.0, prev_term: prev.1, entries: log, commit, round, log_time_ms },
        "appended" => Body::Appended { index, round },
        "rejected" => Body::Rejected { prev_index: prev.0, hint_index: hint.0, hint_term: hint.1, round },
        "snapshot" => {
            let meta = SnapshotMeta { index: meta.0, term: meta.1, stamp_ms, wall_ms, membership: None };
            Body::Snapshot { meta, offset, data, last: flag == Some("last") }
        }
        "snapshot-reply" => Body::SnapshotReply { index, next_offset: offset, installed: flag == Some("installed") },
        "timeout-now" => Body::TimeoutNow,
        other => return Err(format!("no message '{other}'").into()),
    };
    let from = Incarnation(key(arguments, "as")?.unwrap_or(0));
    let to = Incarnation(key(arguments, "life")?.unwrap_or(0));
    Ok(Message { from, to, ..Message::new(term, body) })
}
