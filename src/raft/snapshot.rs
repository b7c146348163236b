//! A snapshot on its way to a follower that needs what the log has no longer.
//!
//! It travels in chunks, one in flight; the follower answers each with the offset that it has, and the leader goes on from
//! there, whatever it believed before. So a lost chunk is sent again, and a follower that restarted in between begins at 0.
//! When the last chunk is there, the whole replaces state and log in one atomic write, and is acknowledged when that is durable.
//!
//! Caveat: the follower assembles it in memory, up to [`Config::snapshot_bytes_max`](super::Config); a larger one never arrives.

use bytes::{Bytes, BytesMut};

use crate::ids::{Index, ReplicaId};
use crate::marks::{Rare, mark};
use crate::rules::Rules;

use super::message::{Body, SnapshotMeta};
use super::node::Node;
use super::ready::Snapshot;

/// The chunks so far, without a gap from the start.
#[derive(Clone, Debug, Hash)]
pub(super) struct Assembly {
    meta: SnapshotMeta,
    data: BytesMut,
    /// It outgrew its bound: the bytes are dropped, and chunks of it are no longer answered.
    too_large: bool,
}

impl<R: Rules> Node<R> {
    pub(super) fn on_snapshot(&mut self, from: ReplicaId, meta: SnapshotMeta, offset: u64, data: Bytes, last: bool) {
        if let Some(index) = self.installing {
            // It has all been received; the answer comes when it is durable. Another one has to wait.
            if index == meta.index {
                self.reply_to_chunk(from, index, offset + data.len() as u64);
            }
        } else if meta.index <= self.commit || self.log.term_at(meta.index) == Some(meta.term) {
            self.skip_snapshot(from, &meta);
        } else if let Some(snapshot) = self.assemble(from, meta, offset, data, last) {
            self.install(snapshot);
        }
    }

    /// The log has everything that the snapshot stands for, so it stays as it is; but all of it is committed.
    fn skip_snapshot(&mut self, from: ReplicaId, meta: &SnapshotMeta) {
        mark(Rare::SnapshotSkipped);
        self.assembly = None;
        self.commit = self.commit.max(meta.index);
        self.matched_by_snapshot(meta.index);
        if self.log.stable() >= meta.index {
            self.told_durable(meta.index);
            self.promise(from, Body::SnapshotReply { index: meta.index, next_offset: 0, installed: true });
        }
    }

    /// Adds a chunk; returns the snapshot where it is complete.
    fn assemble(
        &mut self,
        from: ReplicaId,
        meta: SnapshotMeta,
        offset: u64,
        data: Bytes,
        last: bool,
    ) -> Option<Snapshot> {
        let index = meta.index;
        let mut assembly = match self.assembly.take() {
            Some(assembly) if assembly.meta == meta => assembly,
            before => {
                if before.is_some() {
                    mark(Rare::AssemblyReplaced);
                }
                Assembly { meta, data: BytesMut::new(), too_large: false }
            }
        };
        let have = assembly.data.len() as u64;
        if assembly.too_large || (offset == have && have + data.len() as u64 > self.config.snapshot_bytes_max) {
            // Without an answer the leader repeats one chunk with each heartbeat; a wrong answer would make it start over.
            self.assembly = Some(Assembly { data: BytesMut::new(), too_large: true, ..assembly });
            return None;
        }
        if offset == have {
            assembly.data.extend_from_slice(&data);
        } else {
            mark(Rare::ChunkOutOfPlace);
        }
        let (expected, complete) = (assembly.data.len() as u64, last && offset == have);
        self.reply_to_chunk(from, index, expected);
        if complete {
            return Some(Snapshot { meta: assembly.meta, data: assembly.data.freeze() });
        }
        self.assembly = Some(assembly);
        None
    }

    fn reply_to_chunk(&mut self, to: ReplicaId, index: Index, next_offset: u64) {
        self.send(to, Body::SnapshotReply { index, next_offset, installed: false });
    }

    fn install(&mut self, snapshot: Snapshot) {
        let meta = snapshot.meta.clone();
        self.log.restore(meta.clone(), self.commit);
        self.writes.cut(1);
        self.clock.observe(self.now, self.hard_state.term, meta.stamp_ms);
        self.clock.observe_wall(meta.wall_ms);
        self.commit = meta.index;
        self.applied = meta.index;
        self.installing = Some(meta.index);
        self.restore = Some(snapshot);
    }

    /// The snapshot that was installed is durable.
    pub(super) fn snapshot_installed(&mut self) {
        let index = self.commit;
        self.matched_by_snapshot(index);
        if let Some(leader) = self.leader.filter(|leader| *leader != self.id) {
            self.told_durable(index);
            self.promise(leader, Body::SnapshotReply { index, next_offset: 0, installed: true });
        }
    }
}
