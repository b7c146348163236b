//! Between the clients and the nodes: requests, read hits, answers, and what clients do next.

use trine_protocol::cache::{Got, Source};
use trine_protocol::{Error, ErrorCode, Request, Response};

use super::checker::{Check, Verdict, jobs};
use super::cluster::{CLIENT_US, Cluster, Event, Phase, debug_short};
use super::flights::{Sending, Step};
use crate::cache::Found;
use crate::node::effect::{Input, RequestId};
use crate::rules::Rules;

/// How long after its deadline a client still waits for an answer: a tick, the drift, and the way back.
const PATIENCE_US: u64 = 300_000;

impl<R: Rules> Cluster<R> {
    pub(crate) fn request(&mut self, boot: u64, sending: Sending) -> Check {
        let (place, group, id) = (sending.place, sending.group, sending.id);
        if !self.is_up(place, boot) {
            return Ok(());
        }
        self.record(&[5, place as u64, id.0], || {
            format!("client → n{place} {group} r{} {}", id.0, debug_short(&sending.request))
        });
        let node = &mut self.nodes[place];
        node.unanswered.insert(id);
        if let Request::Get(get) = &sending.request
            && let Some(found) = node.lines.get(&group).and_then(|lines| lines.find(&get.key))
        {
            // The reader's task may be stopped between the line and the clock.
            if self.random.chance(200) {
                let delay_us = self.random.between(10, 1_500_000) >> self.random.below(12);
                let halted_until_us = self.schedule.now_us() + delay_us;
                node.disturbed_us = node.disturbed_us.max(halted_until_us);
                self.schedule.at(halted_until_us, Event::Reader { boot, sending, found });
                return Ok(());
            }
            return self.reader(boot, sending, &found);
        }
        self.miss(sending)
    }

    /// A reader has the line; only now it looks at the clock.
    pub(crate) fn reader(&mut self, boot: u64, sending: Sending, found: &Found) -> Check {
        if !self.is_up(sending.place, boot) {
            return Ok(());
        }
        let node = &mut self.nodes[sending.place];
        if !found.is_valid_at(node.clock.at(self.schedule.now_us()).mono_us) {
            return self.miss(sending);
        }
        let (state, value) = (found.line.state, found.line.value.clone());
        let (version, content_type) = (value.version, value.content_type);
        let got = Got { value: value.value, version, state, source: Source::LocalCache, content_type };
        node.unanswered.remove(&sending.id);
        self.counts.read_hits += 1;
        let (place, id) = (sending.place as u64, sending.id);
        self.record(&[6, place, id.0], || format!("n{place} hit r{} {}", id.0, debug_short(&got)));
        let delay_us = self.random.between(CLIENT_US.0, CLIENT_US.1);
        self.schedule.after(delay_us, Event::Reply { id, result: Ok(Response::Get(got)) });
        Ok(())
    }

    fn miss(&mut self, sending: Sending) -> Check {
        let Sending { id, number, place, group, session, request } = sending;
        if let Request::Enqueue(enqueue) = &request
            && !jobs::is_about_jobs(&request)
        {
            let (boot, queue) = (self.nodes[place].boots, (group, enqueue.queue.clone()));
            self.services.order.handed(place, boot, session.is_some(), number, queue);
        }
        let deadline_us = self.nodes[place].clock.at(self.schedule.now_us()).mono_us + self.swarm.deadline_us;
        self.handle(place, group, Input::Request { id, session, deadline_us, request })
    }

    /// Sends an operation to where its client is.
    pub(crate) fn send(&mut self, number: u64) {
        let client = self.flights.client_of(number);
        let place = match &self.audit {
            Some(audit) if client >= self.workload.clients() => audit.place(client - self.workload.clients()),
            _ => self.workload.place(client),
        };
        let sending = self.flights.send(self.schedule.now_us(), number, place);
        let (id, sent_us) = (sending.id, self.schedule.now_us());
        if let Request::GetCopy(get) = &sending.request {
            self.near.sent(sent_us, client, place, id, get);
        }
        if !self.nodes[place].is_up() {
            let refused = Error::new(ErrorCode::NotReady, "connection refused");
            self.schedule.after(1_000, Event::Reply { id, result: Err(refused) });
            return;
        }
        let boot = self.nodes[place].boots;
        let delay_us = self.random.between(CLIENT_US.0, CLIENT_US.1);
        self.schedule.after(delay_us, Event::Request { boot, sending });
        self.schedule.after(self.swarm.deadline_us + PATIENCE_US, Event::GiveUp { id, sent_us });
    }

    pub(crate) fn wake(&mut self, client: usize) {
        let wish = match client.checked_sub(self.workload.clients()) {
            None if self.phase == Phase::Faulty => self.workload.next(&mut self.random, client),
            None => return,
            Some(task) => match self.audit.as_ref().and_then(|audit| audit.next(task)) {
                Some(wish) => wish,
                None => return,
            },
        };
        let now_us = self.schedule.now_us();
        let request = self.near_request(client, wish.request);
        let operation = self.flights.begin(now_us, client, wish.group, request, wish.session);
        self.note(|| format!("c{client} begins o{} {}", operation.number, debug_short(&operation.request)));
        self.services.sent(&operation);
        if let Request::GetCopy(get) = &operation.request
            && let Some(copy) = self.near_read(client, get)
        {
            let id = self.flights.send(now_us, operation.number, self.workload.place(client)).id;
            return self.schedule.after(0, Event::Reply { id, result: Ok(Response::GetCopy(copy)) });
        }
        self.send(operation.number);
    }

    /// A client stops waiting. Where the node was free to run all the time, it should have answered.
    pub(crate) fn give_up(&mut self, id: RequestId, sent_us: u64) -> Check {
        let Some(place) = self.flights.place(id) else { return Ok(()) };
        let node = &self.nodes[place];
        let free = node.is_up() && node.paused.is_none() && node.starved.is_empty() && node.disturbed_us < sent_us;
        if free {
            return Err(format!("node {place} has not answered {id:?} by its deadline"));
        }
        let unknown = Error::new(ErrorCode::OutcomeUnknown, "the connection is gone");
        self.replied(id, Err(unknown))
    }

    pub(crate) fn replied(&mut self, id: RequestId, result: Result<Response, Error>) -> Check {
        if self.near_replied(id, &result) {
            return Ok(());
        }
        let Some(client) = self.flights.client(id) else { return Ok(()) };
        self.near.answered(client, id, result.as_ref().ok());
        let code = result.as_ref().err().map(|error| error.code);
        self.record(&[7, id.0, code.map_or(0, |code| u64::from(u16::from(code)))], || {
            format!("c{client} r{} gets {}", id.0, debug_short(&result))
        });
        let auditing = client >= self.workload.clients();
        let silent = matches!(code, Some(ErrorCode::OutcomeUnknown | ErrorCode::NotReady | ErrorCode::ShuttingDown));
        if !auditing && code.is_some() && (silent || self.random.chance(200)) {
            self.workload.move_on(&mut self.random, client);
        }
        match self.flights.answered(self.schedule.now_us(), id, result) {
            Step::Ignored => Ok(()),
            Step::Again(number) => {
                let delay_us = self.random.between(1_000, 200_000);
                self.schedule.after(delay_us, Event::Again { number });
                Ok(())
            }
            Step::Ended(operation, verdict, session) => {
                let now_us = self.schedule.now_us();
                self.count(&verdict);
                self.services.ended(now_us, &operation, &verdict)?;
                for (group, key) in self.services.cache.take_risen() {
                    self.check_key(group, &key)?;
                }
                if auditing {
                    return self.audited(client, &operation, &verdict);
                }
                self.workload.ended(&operation, &verdict, session);
                let think_us = self.random.below(self.swarm.think_us_max.max(1));
                self.schedule.after(think_us, Event::Wake { client });
                Ok(())
            }
        }
    }

    fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Answered(_) => self.counts.answered += 1,
            Verdict::NotExecuted(code) => *self.counts.failed.entry(code.name()).or_default() += 1,
            Verdict::Unknown => *self.counts.failed.entry("unknown").or_default() += 1,
        }
    }
}
