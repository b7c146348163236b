//! Managed queues: what clients and operators ask of queues that have an owner.
//!
//! Their messages have priorities and times to live, their policies bound them, and now and then somebody pauses, drains, opens or
//! purges one. They have names of their own, so that the promises of plain and of job queues are checked as they stand; by its name a
//! queue is of one of four [`policies`](policy), which never changes once it is declared.

use std::collections::BTreeSet;

use trine_protocol::Request;
use trine_protocol::queue::{
    AckMany, Declare, Dequeue, Enqueue, EnqueueOptions, Expired, Flow, MessageState, Nack, Overflow, Peek, Policy,
    Purge, SetFlow, ShowQueue,
};

use super::{Workload, name};
use crate::ids::GroupId;
use crate::sim::random::Random;

/// A time to live that no run is long enough for, whatever the wall clocks do meanwhile.
const FAR_MS: u64 = 3_600_000;
/// Priorities of messages: few, so that there are equal ones.
const PRIORITIES: u64 = 4;

/// What is known of managed queues.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Somebody has asked to declare them.
    declared: BTreeSet<String>,
    /// Somebody has asked to pause or drain them, and nobody to open them since.
    stopped: BTreeSet<String>,
}

/// What a managed queue keeps to, once it is declared: few messages and the next one is refused, or few and the oldest makes room; few
/// bytes, and what expires is dead; or a bound on the age alone.
pub(crate) fn policy(queue: &str) -> Policy {
    let digits: u32 = queue.chars().filter_map(|letter| letter.to_digit(10)).sum();
    match digits % 4 {
        0 => Policy { messages_max: 6, ..Policy::default() },
        1 => Policy { messages_max: 8, overflow: Overflow::DropOldest, ..Policy::default() },
        2 => Policy { bytes_max: 400, expired: Expired::Bury, ..Policy::default() },
        _ => Policy { age_ms_max: 5_000, ..Policy::default() },
    }
}

impl Workload {
    pub(super) fn next_of_managed(&mut self, random: &mut Random, client: usize, group: GroupId) -> (GroupId, Request) {
        let in_hand = self.clients[client].managed.len() as u64;
        if in_hand > 0 && random.chance(500) {
            return self.next_of_managed_in_hand(random, client, in_hand);
        }
        let queue = name('m', group, random.below(self.names));
        let known = self.managed.as_mut().expect("asked only where there are managed queues");
        if known.declared.insert(queue.clone()) {
            return (group, Declare { policy: policy(&queue), queue }.into());
        }
        if known.stopped.contains(&queue) && random.chance(150) {
            known.stopped.remove(&queue);
            return (group, SetFlow { queue, flow: Flow::Open }.into());
        }
        let request = match random.below(1_000) {
            0..420 => {
                let options = Some(Box::new(options(random)));
                Enqueue { queue, body: self.value(random), options, ..Enqueue::default() }.into()
            }
            420..840 => Dequeue {
                queue,
                visibility_ms: random.between(100, 2_500) as u32,
                count_max: random.between(1, 4) as u32,
                wait_ms: if random.chance(100) { random.between(100, 1_000) as u32 } else { 0 },
                ..Dequeue::default()
            }
            .into(),
            840..890 => {
                known.stopped.insert(queue.clone());
                let flow = if random.chance(650) { Flow::Paused } else { Flow::Draining };
                SetFlow { queue, flow }.into()
            }
            890..910 => {
                let only = [MessageState::Ready, MessageState::InFlight, MessageState::Dead];
                let state = random.chance(250).then(|| *random.pick(&only));
                Purge { queue, state }.into()
            }
            910..920 => Declare { policy: policy(&queue), queue }.into(),
            920..930 => Peek { queue, state: MessageState::Dead, after: 0, count_max: 5 }.into(),
            _ => ShowQueue { queue }.into(),
        };
        (group, request)
    }

    /// What a client does with messages that it has.
    fn next_of_managed_in_hand(&mut self, random: &mut Random, client: usize, in_hand: u64) -> (GroupId, Request) {
        let position = random.below(in_hand) as usize;
        let keep = random.chance(80);
        let held = &mut self.clients[client].managed;
        let (group, queue, delivery) = if keep { held[position].clone() } else { held.remove(position) };
        let receipt = delivery.receipt();
        if random.chance(650) {
            return (group, AckMany { queue, receipts: vec![receipt], if_token: None }.into());
        }
        let delay_ms = Some(if random.chance(600) { 0 } else { random.between(50, 600) as u32 });
        (group, Nack { queue, receipt, delay_ms, ..Nack::default() }.into())
    }
}

fn options(random: &mut Random) -> EnqueueOptions {
    EnqueueOptions {
        priority: random.below(PRIORITIES) as u8,
        ttl_ms: match random.below(100) {
            0..15 => random.between(50, 1_500),
            15..20 => random.between(3_000, 40_000),
            20..30 => FAR_MS,
            _ => 0,
        },
        ..EnqueueOptions::default()
    }
}
