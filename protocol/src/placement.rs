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
//! A queue's name that ends in `#` and a number, as `orders#2`, is a **partition**: it belongs to the group that lies so many
//! behind that of the name before the `#`, going round. So partitions of one queue are spread over the groups evenly, whatever
//! its name.
//!
//! # Caveats
//! - With 256 points the shares of the groups differ by about a tenth. More points would even that out, and make the
//!   table that every client holds longer.
//! - The number of groups is fixed when a cluster is made, so that few names would move is not made use of today.
//! - One hot name is one group: nothing spreads it.

use xxhash_rust::xxh64::xxh64;

use crate::command::Request;
use crate::error::{Error, ErrorCode};
use crate::limits::{GROUPS_MAX, PARTITIONS_MAX};
use crate::queue::{HandOff, LockStep};

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

/// The name of partition `number` of a queue.
pub fn partition_name(queue: &str, number: u32) -> String {
    format!("{queue}#{number}")
}

/// The queue and the number of the partition that a name is of: it ends in `#` and a decimal number of up to two digits
/// without a leading zero, below [`PARTITIONS_MAX`].
pub fn partition(queue: &str) -> Option<(&str, u32)> {
    let (whole, number) = queue.rsplit_once('#')?;
    let plain = !whole.is_empty() && (1..=2).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    let number = number.parse().ok().filter(|_| plain && (number.len() == 1 || !number.starts_with('0')))?;
    (number < PARTITIONS_MAX).then_some((whole, number))
}

/// The partition that a message with this key goes to.
pub fn partition_of(key: &str, partitions: u32) -> u32 {
    (hash(key.as_bytes()) % u64::from(partitions.max(1))) as u32
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

    /// The group of a queue. Partition `p` of a queue is `p` groups behind the queue itself, going round.
    pub fn group_of_queue(&self, queue: &str) -> u32 {
        match partition(queue) {
            Some((whole, number)) => (self.group_of(placement_key(whole)) + number % self.groups) % self.groups,
            None => self.group_of(placement_key(queue)),
        }
    }

    /// The names of a hand-off, each with its group.
    fn groups_of_hand_off<'a>(&self, hand_off: &'a HandOff) -> Vec<(&'a str, u32)> {
        let ack = hand_off.ack.as_ref().map(|ack| (ack.queue.as_str(), self.group_of_queue(&ack.queue)));
        let next = hand_off.enqueue.as_ref().map(|next| (next.queue.as_str(), self.group_of_queue(&next.queue)));
        let demanded = hand_off.enqueue.as_ref().and_then(|next| next.if_token.as_ref()).map(|of| &of.lock);
        let (lock, also) = match &hand_off.lock {
            None => (None, &[][..]),
            Some(LockStep::Release(release)) => (Some(&release.lock), &release.also[..]),
            Some(LockStep::Renew(renew)) => (Some(&renew.lock), &renew.also[..]),
        };
        let locks = demanded.into_iter().chain(lock).chain(also);
        let locks = locks.map(|lock| (lock.as_str(), self.group_of_lock(lock)));
        ack.into_iter().chain(next).chain(locks).collect()
    }

    fn check_hand_off(&self, hand_off: &HandOff) -> Result<(), Error> {
        let names = self.groups_of_hand_off(hand_off);
        let first = names.first().copied();
        let other = first.and_then(|(_, group)| names.iter().copied().find(|(_, other)| *other != group));
        let (Some((name, group)), Some((elsewhere, other))) = (first, other) else { return Ok(()) };
        let message = format!(
            "'{name}' lives in group {group} and '{elsewhere}' in group {other}: a common part in braces, as in '{{a}}{name}', \
             brings them together"
        );
        Err(Error::new(ErrorCode::NotColocated, message).with_hint(elsewhere))
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
            Request::Extend(extend) => Some(self.group_of_queue(&extend.queue)),
            Request::Nack(nack) => Some(self.group_of_queue(&nack.queue)),
            Request::AckMany(ack) => Some(self.group_of_queue(&ack.queue)),
            Request::Declare(declare) => Some(self.group_of_queue(&declare.queue)),
            Request::Undeclare(undeclare) => Some(self.group_of_queue(&undeclare.queue)),
            Request::SetFlow(set) => Some(self.group_of_queue(&set.queue)),
            Request::Purge(purge) => Some(self.group_of_queue(&purge.queue)),
            Request::Redrive(redrive) => Some(self.group_of_queue(&redrive.queue)),
            Request::Peek(peek) => Some(self.group_of_queue(&peek.queue)),
            Request::ListQueues(list) => existing(list.group),
            Request::ShowQueue(show) => Some(self.group_of_queue(&show.queue)),
            Request::ExplainQueue(explain) => Some(self.group_of_queue(&explain.queue)),
            Request::HandOff(hand_off) => self.groups_of_hand_off(hand_off).first().map(|(_, group)| *group),
            Request::Subscribe(subscribe) => Some(self.group_of_queue(&subscribe.queue)),
            // Of the connection that they come over.
            Request::Credit(_) | Request::Unsubscribe(_) => None,
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
        if let Request::HandOff(hand_off) = request {
            return self.check_hand_off(hand_off);
        }
        let locks: Vec<&String> = match request {
            Request::Acquire(acquire) => acquire.also.iter().collect(),
            Request::Release(release) => release.also.iter().collect(),
            Request::Renew(renew) => renew.also.iter().collect(),
            Request::Cancel(cancel) => cancel.also.iter().collect(),
            other => other.demands().map(|of| &of.lock).into_iter().collect(),
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
