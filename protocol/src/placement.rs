//! Which group a name lives in. Wire contract: a client computes it as the nodes do.
//!
//! The **placement key** of a name is the part inside `{...}` if there is one: between the first `{` and the first `}`
//! behind it, unless that part is empty. Otherwise it is, for a queue, its name; for a cache key, the key; for a lock,
//! its namespace: the part before the first `/`, or `default` where there is no `/`.
//!
//! The **ring** is the numbers of 64 bits, with [`POINTS_PER_GROUP`] points for each group: point `p` of group `g` lies at
//! XXH64 (seed 0) of the ASCII text `g/p` in decimal, `0/0`, `0/1` and so on. A placement key belongs to the group whose
//! point is the first at or after XXH64 (seed 0) of its UTF-8 bytes, going round at the end. Where two points
//! coincide, the one of the lower group counts.
//!
//! # Caveats
//! - With 256 points the shares of the groups differ by about a tenth. More points would even that out, and make the
//!   table that every client holds longer.
//! - The number of groups is fixed when a cluster is made, so that few names would move is not made use of today.
//! - One hot name is one group: nothing spreads it.

use xxhash_rust::xxh64::xxh64;

use crate::command::Request;
use crate::error::{Error, ErrorCode};
use crate::limits::GROUPS_MAX;

/// Points that each group has on the ring.
pub const POINTS_PER_GROUP: u32 = 256;
/// Namespace of a lock whose name has no `/`.
pub const NAMESPACE_DEFAULT: &str = "default";

/// The hash of the ring: XXH64 with seed 0.
pub fn hash(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}

/// The part of a name inside `{...}`, where it has one that is not empty.
pub fn tag(name: &str) -> Option<&str> {
    let (_, behind) = name.split_once('{')?;
    let (tag, _) = behind.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

/// Placement key of a queue's name or of a cache key.
pub fn placement_key(name: &str) -> &str {
    tag(name).unwrap_or(name)
}

/// Placement key of a lock's name.
pub fn lock_placement_key(lock: &str) -> &str {
    tag(lock).unwrap_or_else(|| lock.split_once('/').map_or(NAMESPACE_DEFAULT, |(namespace, _)| namespace))
}

/// Where the groups lie.
#[derive(Clone, Debug)]
pub struct Ring {
    groups: u32,
    /// Position and group, in order; no position twice.
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// The ring of a cluster with so many groups.
    ///
    /// # Errors
    /// `InvalidArgument` unless `groups` is 1 to [`GROUPS_MAX`].
    pub fn new(groups: u32) -> Result<Self, Error> {
        if !(1..=GROUPS_MAX).contains(&groups) {
            let message = format!("a cluster has 1 to {GROUPS_MAX} groups, not {groups}");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let every = (0..groups).flat_map(|group| (0..POINTS_PER_GROUP).map(move |point| (group, point)));
        let mut points: Vec<_> =
            every.map(|(group, point)| (hash(format!("{group}/{point}").as_bytes()), group)).collect();
        points.sort_unstable();
        points.dedup_by_key(|(position, _)| *position);
        Ok(Self { groups, points })
    }

    /// How many groups there are.
    pub fn groups(&self) -> u32 {
        self.groups
    }

    /// The group of a placement key.
    pub fn group_of(&self, placement_key: &str) -> u32 {
        let position = hash(placement_key.as_bytes());
        let next = self.points.partition_point(|(point, _)| *point < position);
        self.points[next % self.points.len()].1
    }

    /// The group of a queue.
    pub fn group_of_queue(&self, queue: &str) -> u32 {
        self.group_of(placement_key(queue))
    }

    /// The group of a cache key.
    pub fn group_of_key(&self, key: &str) -> u32 {
        self.group_of(placement_key(key))
    }

    /// The group of a lock.
    pub fn group_of_lock(&self, lock: &str) -> u32 {
        self.group_of(lock_placement_key(lock))
    }

    /// The group that a request is for. None where it is for the node alone, and for a session in a group that does not exist.
    pub fn group_of_request(&self, request: &Request) -> Option<u32> {
        let existing = |group: u32| (group < self.groups).then_some(group);
        match request {
            Request::Status(_) | Request::BackupRead(_) => None,
            // Of several groups: the node splits them.
            Request::MultiGet(_) | Request::MultiPut(_) | Request::DeletePrefix(_) => None,
            Request::OpenSession(open) => existing(open.group),
            Request::KeepAlive(keep) => existing(keep.group),
            Request::Reshape(_) => Some(0),
            Request::Transfer(transfer) => existing(transfer.group),
            Request::Backup(backup) => existing(backup.group),
            Request::WriteBackAll(all) => existing(all.group),
            Request::Enqueue(enqueue) => Some(self.group_of_queue(&enqueue.queue)),
            Request::Dequeue(dequeue) => Some(self.group_of_queue(&dequeue.queue)),
            Request::Ack(ack) => Some(self.group_of_queue(&ack.queue)),
            Request::Acquire(acquire) => Some(self.group_of_lock(&acquire.lock)),
            Request::Release(release) => Some(self.group_of_lock(&release.lock)),
            Request::Renew(renew) => Some(self.group_of_lock(&renew.lock)),
            Request::Inspect(inspect) => Some(self.group_of_lock(&inspect.lock)),
            Request::Cancel(cancel) => Some(self.group_of_lock(&cancel.lock)),
            Request::ForceRelease(force) => Some(self.group_of_lock(&force.lock)),
            Request::Fence(fence) => Some(self.group_of_lock(&fence.resource)),
            Request::ExplainLock(explain) => Some(self.group_of_lock(&explain.lock)),
            Request::ExplainClient(explain) => existing(explain.group),
            Request::ListLocks(list) => existing(list.group),
            Request::Observe(observe) => Some(self.group_of_lock(&observe.lock)),
            Request::Get(get) => Some(self.group_of_key(&get.key)),
            Request::Put(put) => Some(self.group_of_key(&put.key)),
            Request::Delete(delete) => Some(self.group_of_key(&delete.key)),
            Request::Add(add) => Some(self.group_of_key(&add.key)),
            Request::GetOrFill(fill) => Some(self.group_of_key(&fill.key)),
            Request::ListKeys(list) => existing(list.group),
            Request::Explain(explain) => Some(self.group_of_key(&explain.key)),
            Request::Evacuate(evacuate) => existing(evacuate.group),
            Request::GetCopy(get) => Some(self.group_of_key(&get.key)),
            Request::KeepCopies(keep) => existing(keep.group),
            Request::DropCopies(drop) => existing(drop.group),
            Request::WriteBack(write_back) => Some(self.group_of_key(&write_back.key)),
        }
    }

    /// Looks whether all names of a request are of the group that it goes to.
    ///
    /// # Errors
    /// `NotColocated`, with the first name that is not.
    pub fn check_colocated(&self, request: &Request) -> Result<(), Error> {
        let Some(group) = self.group_of_request(request) else { return Ok(()) };
        let locks: Vec<&String> = match request {
            Request::Acquire(acquire) => acquire.also.iter().collect(),
            Request::Release(release) => release.also.iter().collect(),
            Request::Renew(renew) => renew.also.iter().collect(),
            Request::Cancel(cancel) => cancel.also.iter().collect(),
            Request::Enqueue(enqueue) => enqueue.if_token.iter().map(|of| &of.lock).collect(),
            Request::Ack(ack) => ack.if_token.iter().map(|of| &of.lock).collect(),
            Request::Put(put) => put.if_token.iter().map(|of| &of.lock).collect(),
            Request::Delete(delete) => delete.if_token.iter().map(|of| &of.lock).collect(),
            Request::Add(add) => add.if_token.iter().map(|of| &of.lock).collect(),
            _ => return Ok(()),
        };
        match locks.into_iter().find(|lock| self.group_of_lock(lock) != group) {
            None => Ok(()),
            Some(lock) => {
                let other = self.group_of_lock(lock);
                let message = format!(
                    "lock '{lock}' is of group {other}, the request of group {group}: a tag in braces that all names share, as in \
                     '{{{tag}}}', brings them together",
                    tag = lock_placement_key(lock),
                );
                Err(Error::new(ErrorCode::NotColocated, message).with_hint(lock.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
