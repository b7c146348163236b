//! Jobs: what clients ask of queues beyond first in, first out.
//!
//! Job queues have names of their own, so that the promises of plain queues are checked as they stand. Those with an odd number have keys, those
//! with an even one tenants that take turns; every job dies after [`DELIVERIES_MAX`] deliveries, and some are scheduled for long after the run.

use trine_protocol::Request;
use trine_protocol::queue::{
    About, AckMany, BackOff, Declare, Delivery, Dequeue, Enqueue, EnqueueOptions, ExplainQueue, Extend, HandOff,
    ListQueues, MessageState, Nack, Peek, Policy, QueueReceipt, Receipt, Redrive, ShowQueue,
};

use super::{Workload, name};
use crate::ids::GroupId;
use crate::sim::random::Random;

/// After so many deliveries a job is dead.
pub(crate) const DELIVERIES_MAX: u32 = 3;
/// A delay that no run is long enough for, whatever the wall clocks do meanwhile.
pub(crate) const FAR_MS: u64 = 3_600_000;
/// Ids that jobs share, so that some are there twice.
const IDS: u64 = 24;

/// What every job queue keeps to, once it is declared.
pub(crate) fn policy(queue: &str) -> Policy {
    Policy { back_off: BackOff::Fixed { ms: 150 }, fair: takes_turns(queue), ..Policy::default() }
}

/// Whether tenants take turns in a job queue, when it is declared. Then it has no keys.
pub(crate) fn takes_turns(queue: &str) -> bool {
    queue.ends_with(['0', '2', '4', '6', '8'])
}

impl Workload {
    pub(super) fn next_of_jobs(&mut self, random: &mut Random, client: usize, group: GroupId) -> (GroupId, Request) {
        let in_hand = self.clients[client].jobs.len() as u64;
        if in_hand > 0 && random.chance(600) {
            let position = random.below(in_hand) as usize;
            return self.next_of_job(random, client, position);
        }
        let queue = name('j', group, random.below(self.names));
        let request = match random.below(100) {
            0..46 => {
                let options = Some(Box::new(self.options(random, &queue)));
                Enqueue { queue, body: self.value(random), options, ..Enqueue::default() }.into()
            }
            46..91 => Dequeue {
                queue,
                visibility_ms: random.between(100, 2_500) as u32,
                count_max: random.between(1, 6) as u32,
                wait_ms: if random.chance(500) { random.between(100, 2_000) as u32 } else { 0 },
                consumer: format!("c{client}"),
            }
            .into(),
            91..95 => Declare { policy: policy(&queue), queue }.into(),
            95..97 => Peek { queue, state: MessageState::Dead, after: 0, count_max: 5 }.into(),
            97 => ExplainQueue { queue, about: About::Consumer(format!("c{client}")) }.into(),
            98 => ShowQueue { queue }.into(),
            _ => ListQueues { group: group.0, after: String::new() }.into(),
        };
        (group, request)
    }

    fn options(&mut self, random: &mut Random, queue: &str) -> EnqueueOptions {
        let turns = takes_turns(queue);
        let one_of = |random: &mut Random, names: [&str; 3]| random.pick(&names).to_string();
        EnqueueOptions {
            key: if turns { String::new() } else { one_of(random, ["", "k0", "k1"]) },
            tenant: if turns { one_of(random, ["", "t0", "t1"]) } else { String::new() },
            delay_ms: match random.below(100) {
                0..6 => FAR_MS,
                6..16 => random.between(50, 400),
                _ => 0,
            },
            dedup_id: if random.chance(200) { format!("d{}", random.below(IDS)) } else { String::new() },
            max_deliveries: DELIVERIES_MAX,
            ..EnqueueOptions::default()
        }
    }

    /// What a client does with a job that it has.
    fn next_of_job(&mut self, random: &mut Random, client: usize, position: usize) -> (GroupId, Request) {
        let jobs = &mut self.clients[client].jobs;
        let keep = random.chance(80);
        let (group, queue, delivery) = if keep { jobs[position].clone() } else { jobs.remove(position) };
        let receipt = Receipt { id: delivery.id, token: delivery.token };
        let delay_ms = |random: &mut Random| match random.below(3) {
            0 => None,
            1 => Some(0),
            _ => Some(random.between(50, 900) as u32),
        };
        let request = match random.below(100) {
            0..35 => AckMany { receipts: vec![receipt], queue, if_token: None }.into(),
            35..50 => AckMany { receipts: self.more_of(client, group, &queue, receipt), queue, if_token: None }.into(),
            50..70 => {
                let (delay_ms, reason) = (delay_ms(random), "not now".to_owned());
                Nack { queue, receipt, delay_ms, reason, ..Nack::default() }.into()
            }
            70..73 => Nack { queue, receipt, reject: true, ..Nack::default() }.into(),
            73..85 => {
                let visibility_ms = random.between(200, 2_500) as u32;
                let kept = (group, queue.clone(), delivery);
                self.clients[client].jobs.push(kept);
                Extend { queue, receipt, visibility_ms }.into()
            }
            _ => self.hand_off(random, client, group, queue, delivery).into(),
        };
        (group, request)
    }

    /// The receipt, and those of other jobs of the same queue.
    fn more_of(&mut self, client: usize, group: GroupId, queue: &str, first: Receipt) -> Vec<Receipt> {
        let jobs = &mut self.clients[client].jobs;
        let mut receipts = vec![first];
        jobs.retain(|(of_group, of_queue, delivery)| {
            let receipt = Receipt { id: delivery.id, token: delivery.token };
            let taken = *of_group == group && of_queue == queue && receipts.iter().all(|other| other.id != receipt.id);
            if taken {
                receipts.push(receipt);
            }
            !taken
        });
        receipts
    }

    /// A job leads to the next one, and a lock that the client holds is given back or kept, or one that it does not hold any more.
    fn hand_off(
        &mut self,
        random: &mut Random,
        client: usize,
        group: GroupId,
        queue: String,
        delivery: Delivery,
    ) -> HandOff {
        let options = EnqueueOptions { max_deliveries: DELIVERIES_MAX, ..EnqueueOptions::default() };
        let next = name('j', group, random.below(self.names));
        let body = self.value(random);
        let enqueue = Enqueue { queue: next, body, options: Some(Box::new(options)), ..Enqueue::default() };
        let lock = self.lock_step(random, client, group);
        HandOff { ack: Some(QueueReceipt { queue, receipt: delivery.receipt() }), enqueue: Some(enqueue), lock }
    }
}

/// What brings dead jobs back at the end of a run.
pub(crate) fn revive(queue: &str) -> Redrive {
    Redrive { queue: queue.to_owned(), ..Redrive::default() }
}
