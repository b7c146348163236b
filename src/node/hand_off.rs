//! Commands that touch queues and locks at once: all of it is done, or nothing.
//!
//! Everything is looked at before anything is changed: the receipt, whether the next message would be taken, and that the lock is held by
//! exactly that grant. So what follows cannot fail, and there is nothing to be undone. Names of several groups never get here: the
//! node that was asked refuses them.
//!
//! # Caveats
//! - The next message must fit its queue before the acknowledged one has made room in it.

use trine_protocol::Error;
use trine_protocol::queue::{Ack, AckWhich, Dequeue, HandOff, LockStep};

use crate::ids::At;
use crate::rules::{Rule, Rules};
use crate::{lock, queue};

use super::machine::{Answer, Machine};

impl Machine {
    /// A dequeue that has waited.
    pub(super) fn poll(&mut self, at: At, dequeue: &Dequeue) -> Result<Vec<queue::Handed>, Error> {
        match self.queue.apply(at, &queue::Command::Dequeue(dequeue.clone()))? {
            queue::Answer::Delivered(handed) => Ok(handed),
            other => unreachable!("a dequeue answered by {other:?}"),
        }
    }

    pub(super) fn hand_off<R: Rules>(&mut self, at: At, by: lock::Caller, hand_off: &HandOff) -> Result<Answer, Error> {
        hand_off.check()?;
        let HandOff { ack, enqueue, lock } = hand_off;
        if let Some(ack) = ack {
            self.queue.check_receipt(&ack.queue, ack.receipt)?;
        }
        if let Some(enqueue) = enqueue {
            self.queue.check_enqueue(enqueue)?;
        }
        if let Some(step) = lock {
            let done = self.step_lock::<R>(at, by, step);
            if !R::without(Rule::HandOffHalfDone) {
                done?;
            }
        }
        let acked = match ack {
            Some(ack) => {
                let which = AckWhich::Receipt { id: ack.receipt.id, token: ack.receipt.token };
                let ack = Ack { queue: ack.queue.clone(), which, if_token: None };
                match self.queue.apply(at, &queue::Command::Ack(ack)).expect("its receipt was looked at") {
                    queue::Answer::Acked { id } => Some(id),
                    other => unreachable!("an acknowledgement answered by {other:?}"),
                }
            }
            None => None,
        };
        let enqueued = match enqueue {
            Some(enqueue) => {
                let enqueue = queue::Command::Enqueue(enqueue.clone());
                match self.queue.apply(at, &enqueue).expect("it was seen to be taken") {
                    queue::Answer::Enqueued { id, duplicate } => Some((id, duplicate)),
                    other => unreachable!("an enqueue answered by {other:?}"),
                }
            }
            None => None,
        };
        Ok(Answer::HandedOff { acked, enqueued })
    }

    /// Releases or renews locks, if exactly that grant holds them. Who waits for one gets it in the same entry.
    fn step_lock<R: Rules>(&mut self, at: At, by: lock::Caller, step: &LockStep) -> Result<(), Error> {
        let command = match step {
            LockStep::Renew(renew) => lock::Command::Renew(renew.clone()),
            LockStep::Release(release) => {
                for name in std::iter::once(&release.lock).chain(&release.also) {
                    self.lock.check_held(name, &release.client, release.token)?;
                }
                lock::Command::Release(release.clone())
            }
        };
        self.lock.apply::<R>(at, by, &command).map(drop)
    }
}
