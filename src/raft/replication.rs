//! What the leader sends: decided once per `ready()`, so that everything that came in before leaves together.

use crate::ids::ReplicaId;
use crate::rules::Rules;

use super::config::Config;
use super::leader::{Leader, Transfer};
use super::log::Log;
use super::message::{Body, Message};
use super::node::{Node, RoleState};
use super::progress::{Progress, State};
use super::ready::Snapshot;

/// What all messages of one `ready()` have in common, and where they go.
struct Sender<'a> {
    config: &'a Config,
    log: &'a Log,
    outbox: &'a mut Vec<(ReplicaId, Message)>,
    snapshot: Option<&'a Snapshot>,
    term: u64,
    commit: u64,
    round: u64,
    log_time_ms: u64,
    now_us: u64,
}

impl<R: Rules> Node<R> {
    /// Sends each follower what it needs and can take. Returns whether a snapshot is wanted that nobody asked for yet.
    pub(super) fn replicate(&mut self) -> bool {
        let log_time_ms = match self.role {
            RoleState::Leader(_) => self.clock.stamp(self.now),
            _ => return false,
        };
        let (term, election_us) = (self.term(), self.config.election_us_max);
        let acknowledged = self.acknowledged_round();
        let RoleState::Leader(leader) = &mut self.role else { return false };
        if leader.reads.want_round(acknowledged, leader.round) {
            leader.begin_round(self.now.mono_us, self.config.heartbeat_us, election_us);
        }
        let mut sender = Sender {
            config: &self.config,
            log: &self.log,
            outbox: &mut self.outbox,
            snapshot: leader.snapshot.as_ref().filter(|snapshot| snapshot.meta.index >= self.log.base().index),
            term,
            commit: self.commit,
            round: leader.round,
            log_time_ms,
            now_us: self.now.mono_us,
        };
        let mut receiving = false;
        for (id, progress) in &mut leader.followers {
            sender.replicate_to(*id, progress);
            let behind = matches!(progress.state, State::Snapshot { .. });
            receiving |= behind && Leader::is_active(progress, self.now.mono_us, election_us);
        }
        let usable = sender.snapshot.is_some();
        if !receiving {
            leader.snapshot = None;
            leader.snapshot_asked = false;
        }
        let wanted = receiving && !usable && !leader.snapshot_asked;
        leader.snapshot_asked |= wanted;
        self.tell_successor();
        wanted
    }

    /// The successor has everything: it may campaign.
    fn tell_successor(&mut self) {
        let last_index = self.log.last_index();
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(Transfer { target, told, .. }) = &mut leader.transfer else { return };
        let target = *target;
        if !*told && leader.followers.get(&target).is_some_and(|progress| progress.matched == last_index) {
            *told = true;
            self.send(target, Body::TimeoutNow);
        }
    }
}

impl Sender<'_> {
    fn replicate_to(&mut self, id: ReplicaId, progress: &mut Progress) {
        let behind = matches!(progress.state, State::Snapshot { .. });
        if !behind && progress.next <= self.log.base().index {
            progress.needs_snapshot(self.log.base().index);
        }
        if let State::Snapshot { .. } = progress.state {
            self.send_chunk(id, progress);
            if progress.round_due {
                self.send_heartbeat(id, progress, 0);
            }
            return;
        }
        while progress.next <= self.log.last_index() && progress.may_send(self.config.in_flight_max) {
            let entries = self.log.batch(progress.next, self.config.append_bytes_max);
            let last = progress.next + entries.len() as u64 - 1;
            self.send_append(id, progress, progress.next - 1, entries);
            progress.sent(last);
        }
        let news = progress.state == State::Replicate && self.commit > progress.commit_sent;
        let commit_due = news && {
            let since_us = *progress.commit_news_us.get_or_insert(self.now_us);
            self.now_us >= since_us + self.config.commit_news_us
        };
        if progress.round_due || commit_due {
            self.send_heartbeat(id, progress, progress.next - 1);
        }
    }

    fn send_heartbeat(&mut self, id: ReplicaId, progress: &mut Progress, prev_index: u64) {
        self.send_append(id, progress, prev_index, Vec::new());
    }

    fn send_append(&mut self, id: ReplicaId, progress: &mut Progress, prev_index: u64, entries: Vec<super::Entry>) {
        // Index 0 stands before every log, also one that is compacted.
        let prev_term = if prev_index == 0 { Some(0) } else { self.log.term_at(prev_index) };
        let prev_term = prev_term.unwrap_or_else(|| panic!("entry {prev_index} before an append is gone"));
        progress.round_due = false;
        progress.commit_sent = self.commit;
        progress.commit_news_us = None;
        let body = Body::Append {
            prev_index,
            prev_term,
            entries,
            commit: self.commit,
            round: self.round,
            log_time_ms: self.log_time_ms,
        };
        self.outbox.push((id, Message::new(self.term, body)));
    }

    /// Sends the next chunk where none is in flight. When all are acknowledged, an empty one asks how the installation goes.
    fn send_chunk(&mut self, id: ReplicaId, progress: &mut Progress) {
        let Some(snapshot) = self.snapshot else { return };
        let index = snapshot.meta.index;
        if !matches!(progress.state, State::Snapshot { snapshot, .. } if snapshot == index) {
            progress.needs_snapshot(index);
        }
        let State::Snapshot { offset, sent, .. } = &mut progress.state else { return };
        if sent.is_some() {
            return;
        }
        *sent = Some(self.round);
        let start = usize::try_from(*offset).unwrap_or(usize::MAX).min(snapshot.data.len());
        let end = start.saturating_add(self.config.snapshot_chunk_bytes).min(snapshot.data.len());
        let body = Body::Snapshot {
            meta: snapshot.meta.clone(),
            offset: start as u64,
            data: snapshot.data.slice(start..end),
            last: end == snapshot.data.len(),
        };
        self.outbox.push((id, Message::new(self.term, body)));
    }
}
