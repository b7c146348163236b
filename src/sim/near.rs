//! Clients that keep copies: what a real one keeps ([`Kept`]) is kept here too, with a clock of its own, and with everything that can
//! happen to it between its node and itself.
//!
//! Notices come late, in any order, or not at all; the client stands still for a while and answers nothing; its connection breaks and it
//! notices later; its node dies and comes back sooner than the copies lapse. Whatever it *could* read at an instant is held against the
//! newest value that any client was told of, at every step that changes either.

use std::collections::BTreeMap;

use trine_protocol::cache::{CopiesGone, CopyGot, DropCopies, GetCopy, Got, KeepCopies, Version};
use trine_protocol::client::near::{Kept, Ticket};
use trine_protocol::limits::COPY_LEASE_MS;
use trine_protocol::{Error, Push, Request, Response};

use super::checker::Check;
use super::cluster::{CLIENT_US, Cluster, Event, Phase};
use super::network::Place;
use super::node::{Clock, WALL_ERROR_MS_MAX};
use super::random::{Random, split_mix};
use super::swarm::RATE_PPM_MAX;
use crate::ids::GroupId;
use crate::node::effect::{Input, RequestId};
use crate::rules::Rules;

/// Bytes that a client keeps: a few of the larger values.
const KEPT_BYTES_MAX: usize = 30_000;
/// Numbers of requests about copies begin here; those of clients' operations do not come so far.
const REQUESTS_FROM: u64 = 1 << 62;
/// Of 1,000 notices this many are lost.
const LOST_PER_MILLE: u64 = 100;

/// Something about copies in clients.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is put into an event that is as large for other reasons")]
pub(crate) enum NearEvent {
    /// A notice arrives.
    Notice { client: usize, number: u64, gone: CopiesGone },
    /// A client's request about its copies arrives.
    Request { place: Place, boot: u64, id: RequestId, group: GroupId, request: Request },
    /// A client looks which of its leases are to be begun anew.
    Keep { client: usize },
    /// A client notices that its connection is gone.
    Lost { client: usize, number: u64 },
}

/// What a request about copies was.
#[derive(Debug)]
struct Asked {
    client: usize,
    number: u64,
    group: u32,
    lease: u64,
    sent_us: u64,
}

#[derive(Debug)]
struct Client {
    clock: Clock,
    /// The connection: another number for each.
    number: u64,
    place: Place,
    kept: Kept,
    /// It stands still until then.
    halted_until_us: u64,
    /// Reads on their way, with when they were sent by its own clock.
    reads: BTreeMap<RequestId, (Ticket, u64, u64)>,
}

/// All clients with copies.
#[derive(Debug, Default)]
pub(crate) struct Near {
    clients: BTreeMap<usize, Client>,
    asked: BTreeMap<RequestId, Asked>,
    numbers: u64,
    requests: u64,
    pub(crate) hits: u64,
}

impl Near {
    /// In every other run each client keeps copies. Drawn beside the run's other draws, so that these stay what they are.
    pub(crate) fn new(seed: u64, clients: usize) -> Self {
        let mut state = seed ^ 0x6e65_6172;
        if split_mix(&mut state) % 2 == 0 {
            return Self::default();
        }
        let mut random = Random::new(state);
        let mut near = Self::default();
        for client in 0..clients {
            near.numbers += 1;
            let rate_ppm = random.below(2 * RATE_PPM_MAX + 1) as i64 - RATE_PPM_MAX as i64;
            let new = Client {
                clock: Clock::new(&mut random, rate_ppm, WALL_ERROR_MS_MAX),
                number: near.numbers,
                place: Place::MAX,
                kept: Kept::new(KEPT_BYTES_MAX),
                halted_until_us: 0,
                reads: BTreeMap::new(),
            };
            near.clients.insert(client, new);
        }
        near
    }

    /// The client's number for its copies at that node, where it keeps any.
    pub(crate) fn number(&mut self, client: usize, place: Place) -> Option<u64> {
        if self.clients.get(&client)?.place != place {
            self.reconnect(client, place);
        }
        self.clients.get(&client).map(|client| client.number)
    }

    fn reconnect(&mut self, client: usize, place: Place) {
        self.numbers += 1;
        if let Some(client) = self.clients.get_mut(&client) {
            (client.number, client.place) = (self.numbers, place);
            client.kept = Kept::new(KEPT_BYTES_MAX);
            client.reads.clear();
        }
    }

    /// A read of the client's own memory.
    pub(crate) fn read(&mut self, now_us: u64, client: usize, key: &str) -> Option<Got> {
        let client = self.clients.get_mut(&client)?;
        let mono_us = client.clock.at(now_us).mono_us;
        let got = client.kept.read(key, || mono_us)?;
        self.hits += 1;
        Some(got)
    }

    /// A read leaves for the node.
    pub(crate) fn sent(&mut self, now_us: u64, client: usize, place: Place, id: RequestId, get: &GetCopy) {
        let Some(client) = self.clients.get_mut(&client) else { return };
        // What is asked of another node than the number belongs to is not kept.
        if client.place == place && client.number == get.copies {
            let sent_us = client.clock.at(now_us).mono_us;
            client.reads.insert(id, (client.kept.ask(&get.key), sent_us, client.number));
        }
    }

    /// An answer arrives at a client, or none will.
    pub(crate) fn answered(&mut self, client: usize, id: RequestId, answer: Option<&Response>) {
        let Some(client) = self.clients.get_mut(&client) else { return };
        let Some((ticket, sent_us, number)) = client.reads.remove(&id) else { return };
        match answer {
            Some(Response::GetCopy(answer)) if client.number == number => client.kept.got(ticket, sent_us, answer),
            _ => client.kept.give_up(ticket),
        }
    }

    /// What the clients could read of a key now: whose, and which version.
    pub(crate) fn readable(&self, now_us: u64, key: &str) -> impl Iterator<Item = (usize, Version)> {
        self.clients.iter().filter_map(move |(number, client)| {
            let (version, until_us) = client.kept.peek(key)?;
            (client.clock.at(now_us).mono_us < until_us).then_some((*number, version))
        })
    }

    fn client_with(&self, number: u64) -> Option<usize> {
        self.clients.iter().find(|(_, client)| client.number == number).map(|(number, _)| *number)
    }
}

impl<R: Rules> Cluster<R> {
    pub(crate) fn schedule_near(&mut self) {
        let clients: Vec<usize> = self.near.clients.keys().copied().collect();
        for client in clients {
            self.keep_later(client);
        }
    }

    fn keep_later(&mut self, client: usize) {
        self.schedule.after(u64::from(COPY_LEASE_MS) * 1_000 / 3, Event::Near(NearEvent::Keep { client }));
    }

    /// A replica has something to say to a client.
    pub(crate) fn push_to_client(&mut self, number: u64, push: Push) {
        // Subscriptions are the shell's: no replica pushes deliveries.
        let Push::CopiesGone(gone) = push else { return };
        let Some(client) = self.near.client_with(number) else { return };
        if self.random.chance(LOST_PER_MILLE) {
            return;
        }
        let tail_us = if self.random.chance(50) { self.random.below(600_000) } else { 0 };
        let delay_us = self.random.between(CLIENT_US.0, CLIENT_US.1) + tail_us;
        self.schedule.after(delay_us, Event::Near(NearEvent::Notice { client, number, gone }));
    }

    pub(crate) fn near(&mut self, event: NearEvent) -> Check {
        let now_us = self.schedule.now_us();
        match event {
            NearEvent::Notice { client, number, gone } => {
                let Some(holder) = self.near.clients.get_mut(&client).filter(|holder| holder.number == number) else {
                    return Ok(());
                };
                if holder.halted_until_us > now_us {
                    let at_us = holder.halted_until_us;
                    self.schedule.at(at_us, Event::Near(NearEvent::Notice { client, number, gone }));
                    return Ok(());
                }
                holder.kept.gone(&gone);
                let group = gone.group;
                let request = DropCopies { group, copies: number, notice: gone.notice }.into();
                self.ask_about_copies(client, group, 0, request);
                Ok(())
            }
            NearEvent::Request { place, boot, id, group, request } => {
                if !self.is_up(place, boot) {
                    self.near.asked.remove(&id);
                    return Ok(());
                }
                let deadline_us = self.nodes[place].clock.at(now_us).mono_us + self.swarm.deadline_us;
                self.nodes[place].unanswered.insert(id);
                self.handle(place, group, Input::Request { id, session: None, deadline_us, request })
            }
            NearEvent::Keep { client } => {
                self.keep_copies(client);
                Ok(())
            }
            NearEvent::Lost { client, number } => {
                if let Some(place) =
                    self.near.clients.get(&client).filter(|holder| holder.number == number).map(|holder| holder.place)
                {
                    self.near.reconnect(client, place);
                }
                Ok(())
            }
        }
    }

    fn keep_copies(&mut self, client: usize) {
        if self.phase != Phase::Faulty {
            return;
        }
        let now_us = self.schedule.now_us();
        let Some(holder) = self.near.clients.get_mut(&client) else { return };
        if holder.halted_until_us <= now_us {
            for (group, number) in holder.kept.to_keep() {
                let Some(copies) = self.near.clients.get(&client).map(|holder| holder.number) else { return };
                self.ask_about_copies(client, group, number, KeepCopies { group, copies, number }.into());
            }
            if self.random.chance(20) {
                let until_us = now_us + self.random.below(1_500_000);
                if let Some(holder) = self.near.clients.get_mut(&client) {
                    holder.halted_until_us = until_us;
                }
            }
        }
        self.keep_later(client);
    }

    fn ask_about_copies(&mut self, client: usize, group: u32, lease: u64, request: Request) {
        let now_us = self.schedule.now_us();
        let Some(holder) = self.near.clients.get(&client) else { return };
        let (place, number) = (holder.place, holder.number);
        let sent_us = holder.clock.at(now_us).mono_us;
        if place >= self.nodes.len() || !self.nodes[place].is_up() {
            return;
        }
        self.near.requests += 1;
        let id = RequestId(REQUESTS_FROM + self.near.requests);
        self.near.asked.insert(id, Asked { client, number, group, lease, sent_us });
        let boot = self.nodes[place].boots;
        let delay_us = self.random.between(CLIENT_US.0, CLIENT_US.1);
        let group = GroupId(group);
        self.schedule.after(delay_us, Event::Near(NearEvent::Request { place, boot, id, group, request }));
    }

    /// An answer to a request about copies. False where it is to something else.
    pub(crate) fn near_replied(&mut self, id: RequestId, result: &Result<Response, Error>) -> bool {
        if id.0 < REQUESTS_FROM {
            return false;
        }
        let Some(Asked { client, number, group, lease, sent_us }) = self.near.asked.remove(&id) else { return true };
        if let (Some(holder), Ok(Response::KeepCopies(kept))) = (self.near.clients.get_mut(&client), result)
            && holder.number == number
        {
            holder.kept.kept(group, lease, sent_us, kept.lease);
        }
        true
    }

    /// A node's process is gone: its clients' connections are, too, which they notice some time later.
    pub(crate) fn near_lost(&mut self, place: Place) {
        let lost: Vec<(usize, u64)> = self
            .near
            .clients
            .iter()
            .filter(|(_, holder)| holder.place == place)
            .map(|(client, holder)| (*client, holder.number))
            .collect();
        for (client, number) in lost {
            let delay_us = self.random.below(2_000_000);
            self.schedule.after(delay_us, Event::Near(NearEvent::Lost { client, number }));
        }
    }

    /// What the client asks in place of a plain read, where it keeps copies; now and then it reads plainly all the same.
    pub(crate) fn near_request(&mut self, client: usize, request: Request) -> Request {
        let Request::Get(get) = request else { return request };
        if client >= self.workload.clients() || self.schedule.now_us() % 4 == 0 {
            return get.into();
        }
        match self.near.number(client, self.workload.place(client)) {
            Some(copies) => GetCopy { key: get.key, copies }.into(),
            None => get.into(),
        }
    }

    /// A read of a client that keeps copies: from its own memory, where it has one that it may read.
    pub(crate) fn near_read(&mut self, client: usize, get: &GetCopy) -> Option<CopyGot> {
        let got = self.near.read(self.schedule.now_us(), client, &get.key)?;
        Some(CopyGot { got, lease: None })
    }
}
