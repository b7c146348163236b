//! What reaches a node in one order enters a queue in that order, whoever leads and whatever is lost on the way.
//!
//! The promise is one connection's; this check asks for more: all enqueues that one life of a node is handed for one queue
//! count as one connection's. Those with a session of the client's own and those without are looked at apart, and what was
//! handed in more than once has no place in any order.

use std::collections::BTreeMap;

use trine_protocol::{Request, Response};

use super::queue::QueueName;
use super::{Check, Operation, Verdict};
use crate::sim::network::Place;

/// One stream of enqueues: the life of a node, whether the clients' own sessions are used, and the queue.
type Stream = (Place, u64, bool, QueueName);

/// The enqueues that nodes were handed, and the ids that they got.
#[derive(Debug, Default)]
pub(crate) struct OrderChecker {
    handed: u64,
    /// Where each operation stands that was handed in once; None where it was handed in again.
    places: BTreeMap<u64, Option<(Stream, u64)>>,
    /// By the order in which they were handed in: the ids that were answered.
    ids: BTreeMap<Stream, BTreeMap<u64, u64>>,
}

impl OrderChecker {
    /// That life of a node is handed an operation.
    pub(crate) fn handed(&mut self, place: Place, boot: u64, in_session: bool, number: u64, queue: QueueName) {
        self.handed += 1;
        let stream = (place, boot, in_session, queue);
        let handed = self.handed;
        self.places.entry(number).and_modify(|known| *known = None).or_insert(Some((stream, handed)));
    }

    /// A client knows what became of an operation.
    pub(crate) fn ended(&mut self, operation: &Operation, verdict: &Verdict) -> Check {
        let Some(Some((stream, position))) = self.places.remove(&operation.number) else { return Ok(()) };
        let (Request::Enqueue(enqueue), Verdict::Answered(Response::Enqueue(enqueued))) = (&operation.request, verdict)
        else {
            return Ok(());
        };
        let (ids, id) = (self.ids.entry(stream).or_default(), enqueued.id);
        let before = ids.range(..position).next_back().filter(|(_, earlier)| **earlier >= id);
        let after = ids.range(position + 1..).next().filter(|(_, later)| **later <= id);
        if let Some((other, other_id)) = before.or(after) {
            let queue = &enqueue.queue;
            return Err(format!(
                "enqueue {position} of a node to {queue} got id {id}, and its enqueue {other} {other_id}"
            ));
        }
        ids.insert(position, id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use trine_protocol::queue::{Enqueue, Enqueued};

    use super::*;
    use crate::ids::GroupId;

    fn operation(number: u64) -> Operation {
        let request = Enqueue { queue: "q".into(), body: Bytes::new(), ..Enqueue::default() }.into();
        Operation { number, client: 0, group: GroupId(0), request, sent_us: 0, from_us: 0, waiting_us: None }
    }

    fn handed(checker: &mut OrderChecker, boot: u64, number: u64) {
        checker.handed(0, boot, false, number, (GroupId(0), "q".into()));
    }

    fn got(checker: &mut OrderChecker, number: u64, id: u64) -> Check {
        checker.ended(&operation(number), &Verdict::Answered(Response::Enqueue(Enqueued { id, ..Enqueued::default() })))
    }

    #[test]
    fn ids_follow_the_order_in_which_they_were_handed_in_whatever_the_order_of_the_answers() {
        let mut checker = OrderChecker::default();
        (1..=3).for_each(|number| handed(&mut checker, 1, number));
        got(&mut checker, 2, 11).unwrap();
        got(&mut checker, 3, 12).unwrap();
        assert!(got(&mut checker, 1, 13).unwrap_err().contains("enqueue 1 "));
    }

    #[test]
    fn another_life_and_a_second_sending_promise_nothing() {
        let mut checker = OrderChecker::default();
        handed(&mut checker, 1, 1);
        handed(&mut checker, 2, 2);
        handed(&mut checker, 2, 3);
        handed(&mut checker, 2, 3);
        got(&mut checker, 1, 13).unwrap();
        got(&mut checker, 2, 12).unwrap();
        got(&mut checker, 3, 11).unwrap();
    }
}
