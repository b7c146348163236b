#![allow(unused, missing_docs)]
use super::*;
use crate::ids::*;
use bytes::Bytes;
use std::marker::PhantomData;
#[derive(Debug)]
pub struct Raft<R> {
    p: PhantomData<R>,
}
pub struct Restart {
    pub hard_state: HardState,
    pub base: SnapshotMeta,
    pub entries: Vec<Entry>,
    pub applied: Index,
}
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}
#[derive(Debug)]
pub enum ProposeError {
    NotLeader { leader: Option<NodeId> },
    Overloaded,
    Transferring,
}
impl<R> Raft<R> {
    pub fn new(config: Config, restart: Restart, now: Now) -> Self {
        todo!()
    }
    pub fn tick(&mut self, now: Now) {}
    pub fn step(&mut self, now: Now, from: NodeId, message: Message) {}
    pub fn propose(&mut self, now: Now, data: Bytes) -> Result<Index, ProposeError> {
        todo!()
    }
    pub fn persisted(&mut self, now: Now, sequence: u64) {}
    pub fn provide_snapshot(&mut self, now: Now, snapshot: Snapshot) {}
    pub fn compact(&mut self, index: Index) -> SnapshotMeta {
        todo!()
    }
    pub fn transfer(&mut self, now: Now) {}
    pub fn ready(&mut self, now: Now) -> Ready {
        todo!()
    }
    pub fn role(&self) -> Role {
        todo!()
    }
    pub fn term(&self) -> Term {
        todo!()
    }
    pub fn vote(&self) -> Option<NodeId> {
        todo!()
    }
    pub fn leader(&self) -> Option<NodeId> {
        todo!()
    }
    pub fn commit(&self) -> Index {
        todo!()
    }
    pub fn last_index(&self) -> Index {
        todo!()
    }
    pub fn base(&self) -> &SnapshotMeta {
        todo!()
    }
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        todo!()
    }
    pub fn committed_in_term(&self) -> bool {
        todo!()
    }
    pub fn lease_until_us(&self) -> Option<u64> {
        todo!()
    }
    pub fn log_time_ms(&self, now: Now) -> u64 {
        todo!()
    }
}
