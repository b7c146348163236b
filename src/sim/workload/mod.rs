//! The clients of the faulty phase: what they ask for next, and what they make of the answers.
//!
//! Each client is attached to one node at a time and moves when that node is silent. It works as a real one would: it
//! acknowledges what it was delivered (mostly, sometimes twice), renews and releases the locks that it got, and reads and
//! writes a few hot keys.
//! What is of one service alone stands in a file of its own.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use trine_protocol::cache::{Add, Delete, Filling, Get, GetOrFill, OnlyIf, Put, Version, WriteBack};
use trine_protocol::cluster::{KeepAlive, OpenSession};
use trine_protocol::queue::{Ack, AckWhich, Delivery, Dequeue, Enqueue};
use trine_protocol::{ErrorCode, Request, Response};

mod lock;
pub(crate) mod managed;

use super::checker::{Operation, Verdict};
use super::network::Place;
use super::random::Random;
use super::swarm::Swarm;
use crate::ids::GroupId;
use crate::node::effect::SessionRef;

pub(crate) mod queue;

/// Things that a client keeps in hand at most; the oldest are forgotten, as by a consumer that died.
const IN_HAND_MAX: usize = 8;

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) group: GroupId,
    pub(crate) request: Request,
    pub(crate) session: Option<SessionRef>,
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Workload {
    clients: Vec<Client>,
    nodes: usize,
    groups: u32,
    names: u64,
    weights: [u64; 3],
    values: u64,
    /// What is known of managed queues, where there are any.
    managed: Option<managed::Known>,
}

#[derive(Debug)]
struct Client {
    place: Place,
    /// None where the client uses none.
    sessions: Option<BTreeMap<GroupId, OwnSession>>,
    deliveries: Vec<(GroupId, String, Delivery)>,
    locks: Vec<lock::Held>,
    /// Acquires that it does not wait for any more, and whose end it does not know.
    doubtful: Vec<lock::Doubtful>,
    /// Deliveries of job queues.
    jobs: Vec<(GroupId, String, Delivery)>,
    /// Deliveries of managed queues.
    managed: Vec<(GroupId, String, Delivery)>,
    /// The version of each key that it saw last.
    versions: BTreeMap<(GroupId, String), Version>,
    /// Keys that it has the right to fill, and the tokens.
    fills: Vec<(GroupId, String, u64)>,
}

#[derive(Debug)]
struct OwnSession {
    id: u64,
    next_sequence: u64,
    open: BTreeSet<u64>,
    timeout_ms: u32,
}

/// Name of a queue, lock or key of a group.
pub(crate) fn name(kind: char, group: GroupId, number: u64) -> String {
    format!("{kind}{}-{number}", group.0)
}

impl Workload {
    pub(crate) fn new(swarm: &Swarm) -> Self {
        let client = |number: usize| Client {
            place: number % swarm.nodes,
            sessions: swarm.sessions.then(BTreeMap::new),
            deliveries: Vec::new(),
            locks: Vec::new(),
            doubtful: Vec::new(),
            jobs: Vec::new(),
            managed: Vec::new(),
            versions: BTreeMap::new(),
            fills: Vec::new(),
        };
        Self {
            clients: (0..swarm.clients).map(client).collect(),
            nodes: swarm.nodes + swarm.spares,
            groups: swarm.groups,
            names: swarm.names,
            weights: swarm.weights,
            values: 0,
            managed: swarm.managed.then(managed::Known::default),
        }
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// The node that a client is attached to.
    pub(crate) fn place(&self, client: usize) -> Place {
        self.clients[client].place
    }

    /// The client goes to another node: this one is silent.
    pub(crate) fn move_on(&mut self, random: &mut Random, client: usize) {
        self.clients[client].place = random.below(self.nodes as u64) as usize;
    }

    /// What the client does next.
    pub(crate) fn next(&mut self, random: &mut Random, client: usize) -> Wish {
        let group = GroupId(random.below(u64::from(self.groups)) as u32);
        if let Some(sessions) = &self.clients[client].sessions {
            if !sessions.contains_key(&group) {
                let timeout_ms = if random.chance(500) { 0 } else { random.between(3_000, 20_000) as u32 };
                let request = OpenSession { group: group.0, timeout_ms }.into();
                return Wish { group, request, session: None };
            }
        }
        let [queue, lock, cache] = self.weights;
        let drawn = random.below(queue + lock + cache);
        let (group, request) = match drawn {
            _ if self.clients[client].sessions.is_some() && random.chance(20) => {
                (group, KeepAlive { group: group.0 }.into())
            }
            _ if self.managed.is_some() && drawn < queue && random.chance(500) => {
                self.next_of_managed(random, client, group)
            }
            _ if drawn < queue && random.chance(500) => self.next_of_jobs(random, client, group),
            _ if drawn < queue => self.next_of_queue(random, client, group),
            _ if drawn < queue + lock => self.next_of_lock(random, client, group),
            _ => self.next_of_cache(random, client, group),
        };
        let session = self.session(client, group, &request);
        Wish { group, request, session }
    }

    /// The session for a request: cache requests have none, as the node asked is the cache.
    fn session(&mut self, client: usize, group: GroupId, request: &Request) -> Option<SessionRef> {
        let waits = matches!(request, Request::Dequeue(dequeue) if dequeue.wait_ms > 0);
        if request.command().module() == "cache" || waits {
            return None;
        }
        let session = self.clients[client].sessions.as_mut()?.get_mut(&group)?;
        session.next_sequence += 1;
        let sequence = session.next_sequence;
        session.open.insert(sequence);
        let acked_below = *session.open.first().expect("one was just inserted");
        Some(SessionRef { session: session.id, sequence, acked_below })
    }

    fn value(&mut self, random: &mut Random) -> Bytes {
        self.values += 1;
        let padding = if random.chance(30) { random.between(1_000, 20_000) } else { random.below(40) };
        Bytes::from(format!("v{}:{}", self.values, ".".repeat(padding as usize)))
    }

    fn name(&self, random: &mut Random, kind: char, group: GroupId) -> String {
        name(kind, group, random.below(self.names))
    }

    fn next_of_queue(&mut self, random: &mut Random, client: usize, group: GroupId) -> (GroupId, Request) {
        let in_hand = self.clients[client].deliveries.len() as u64;
        if in_hand > 0 && random.chance(550) {
            let position = random.below(in_hand) as usize;
            let keep = random.chance(100);
            let deliveries = &mut self.clients[client].deliveries;
            let (group, queue, delivery) =
                if keep { deliveries[position].clone() } else { deliveries.remove(position) };
            let which = if random.chance(700) {
                AckWhich::Receipt { id: delivery.id, token: delivery.token }
            } else {
                AckWhich::Body(delivery.body)
            };
            let if_token = self.demanded(random, client, group);
            return (group, Ack { queue, which, if_token }.into());
        }
        let queue = self.name(random, 'q', group);
        if random.chance(550) {
            let if_token = self.demanded(random, client, group);
            return (group, Enqueue { queue, body: self.value(random), if_token, ..Enqueue::default() }.into());
        }
        let visibility_ms = random.between(100, 2_500) as u32;
        (group, Dequeue { queue, visibility_ms, count_max: random.between(1, 3) as u32, ..Dequeue::default() }.into())
    }

    fn next_of_cache(&mut self, random: &mut Random, client: usize, group: GroupId) -> (GroupId, Request) {
        let key = self.name(random, 'k', group);
        let known = self.clients[client].versions.get(&(group, key.clone())).copied();
        let filling = random.chance(800).then(|| self.clients[client].fills.pop()).flatten();
        if let Some((group, key, token)) = filling {
            return (group, Put { key, value: self.value(random), fill: token, ..Put::default() }.into());
        }
        let request = match random.below(100) {
            0..42 => Get { key }.into(),
            42..66 => {
                let if_token = self.demanded(random, client, group);
                Put { key, value: self.value(random), if_token, ..Put::default() }.into()
            }
            66..72 => {
                let only_if = match known {
                    Some(version) if random.chance(700) => OnlyIf::Version(version),
                    _ if random.chance(500) => OnlyIf::Absent,
                    _ => OnlyIf::Present,
                };
                let through = random.chance(300);
                Put { key, value: self.value(random), only_if, through, ..Put::default() }.into()
            }
            72..75 => {
                let ttl_ms = random.between(50, 3_000);
                Put { key, value: self.value(random), ttl_ms, ..Put::default() }.into()
            }
            75..80 => {
                let only_if = if random.chance(300) { OnlyIf::Present } else { OnlyIf::Anything };
                Delete { key, only_if, through: random.chance(300), ..Delete::default() }.into()
            }
            80..86 => {
                Add { key: self.name(random, 'n', group), by: 1, through: random.chance(200), ..Add::default() }.into()
            }
            86..89 => Get { key: self.name(random, 'n', group) }.into(),
            89..93 => GetOrFill { key, lease_ms: random.between(50, 2_000) as u32 }.into(),
            _ => WriteBack { key }.into(),
        };
        (group, request)
    }

    /// What a client learns from the end of one of its operations.
    pub(crate) fn ended(&mut self, operation: &Operation, verdict: &Verdict, session: Option<SessionRef>) {
        let client = &mut self.clients[operation.client];
        let wants_number = client.lock_ended(operation, verdict, session);
        if let (Some(sessions), Some(used)) = (&mut client.sessions, session) {
            let unknown = *verdict == Verdict::Unknown && !wants_number;
            let expired = *verdict == Verdict::NotExecuted(ErrorCode::SessionExpired) || unknown;
            let current = sessions.get_mut(&operation.group).filter(|session| session.id == used.session);
            if let Some(current) = current {
                if !wants_number {
                    current.open.remove(&used.sequence);
                }
                if expired {
                    sessions.remove(&operation.group);
                }
            }
        }
        let Verdict::Answered(response) = verdict else { return };
        match (&operation.request, response) {
            (_, Response::OpenSession(opened)) => {
                let session = OwnSession {
                    id: opened.session,
                    next_sequence: 0,
                    open: BTreeSet::new(),
                    timeout_ms: opened.timeout_ms,
                };
                client.sessions.get_or_insert_default().insert(operation.group, session);
            }
            (Request::Dequeue(dequeue), Response::Dequeue(dequeued)) => {
                let held = dequeued.deliveries.iter();
                let in_hand = match dequeue.queue.chars().next() {
                    Some('j') => &mut client.jobs,
                    Some('m') => &mut client.managed,
                    _ => &mut client.deliveries,
                };
                in_hand.extend(held.map(|of| (operation.group, dequeue.queue.clone(), of.clone())));
            }
            (Request::Get(get), Response::Get(got)) => {
                client.versions.insert((operation.group, get.key.clone()), got.version);
            }
            (Request::GetCopy(get), Response::GetCopy(copy)) => {
                client.versions.insert((operation.group, get.key.clone()), copy.got.version);
            }
            (Request::Put(put), Response::Put(written)) => {
                client.versions.insert((operation.group, put.key.clone()), written.version);
            }
            (Request::GetOrFill(get), Response::GetOrFill(Filling { found: None, token })) => {
                client.fills.push((operation.group, get.key.clone(), *token));
            }
            _ => {}
        }
        let fills = client.fills.len();
        client.fills.drain(..fills.saturating_sub(IN_HAND_MAX));
        let (jobs, managed) = (client.jobs.len(), client.managed.len());
        client.jobs.drain(..jobs.saturating_sub(IN_HAND_MAX));
        client.managed.drain(..managed.saturating_sub(IN_HAND_MAX));
        let (deliveries, locks) = (client.deliveries.len(), client.locks.len());
        client.deliveries.drain(..deliveries.saturating_sub(IN_HAND_MAX));
        client.locks.drain(..locks.saturating_sub(IN_HAND_MAX));
    }
}
