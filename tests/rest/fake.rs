//! A node that is not there: queues, locks and keys in memory, and whatever else a test wants it to say.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use trine::server::{CallOptions, Gateway, Pushes};
use trine_protocol::cache::{Got, LineState, Source, Version, Written, WrittenBack};
use trine_protocol::cluster::{GroupStatus, Kept, NodeAddresses, NodeStanding, NodeStatus, Role, SessionOpened};
use trine_protocol::lock::{Fenced, ForceReleased, Granted, HolderView, LockExplained, Released};
use trine_protocol::queue::{
    AckWhich, Acked, AckedMany, Cause, Declared, Delivery, Dequeued, Enqueued, ExplainedQueue, Extended, Flow, FlowSet,
    MessageState, Nacked, Peek, Peeked, PeekedMessage, Purged, QueueLine, QueueShown, Queues, Redriven, Undeclared,
};
use trine_protocol::{Error, ErrorCode, Request, Response};

#[derive(Clone, Debug)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<World>>);

/// What all clones share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) status: NodeStatus,
    pub(crate) readiness: Result<(), String>,
    /// Answers every call with this.
    pub(crate) failure: Option<Error>,
    /// Answers no call.
    pub(crate) silent: bool,
    /// Every request, in order.
    pub(crate) asked: Vec<Request>,
    pub(crate) queues: BTreeMap<String, VecDeque<(u64, Bytes)>>,
    pub(crate) in_flight: Vec<(String, Delivery)>,
    pub(crate) locks: BTreeMap<String, (String, u64)>,
    /// Value, state of this node's line, whether this node wrote it.
    pub(crate) keys: BTreeMap<String, (Bytes, LineState, bool)>,
    next: u64,
}

fn group(group: u32, role: Role, leader: Option<&str>) -> GroupStatus {
    GroupStatus {
        group,
        role,
        term: 7 + u64::from(group),
        voted_for: Some("node2".into()),
        leader: leader.map(str::to_owned),
        last_index: 100 + u64::from(group),
        commit_index: 90,
        applied_index: 80,
        bus_lease: true,
        ready: true,
        why_not_ready: String::new(),
        voters: Vec::new(),
        learners: Vec::new(),
        change: String::new(),
    }
}

impl Fake {
    /// `node1` of three; each node leads the group of its number.
    pub(crate) fn new() -> Self {
        let nodes = (1..=3).map(|number| NodeAddresses {
            node: format!("node{number}"),
            client: format!("127.0.0.1:{}", 4100 + number),
            http: format!("127.0.0.1:{}", 8999 + number),
            peer: String::new(),
            standing: NodeStanding::Voter,
        });
        let status = NodeStatus {
            node: "node1".into(),
            cluster_id: 0xabc,
            incarnation: 1,
            version: "0.1.0".into(),
            uptime_ms: 5,
            nodes: nodes.collect(),
            groups: vec![
                group(0, Role::Leader, Some("node1")),
                group(1, Role::Leader, Some("node1")),
                group(2, Role::Leader, Some("node1")),
            ],
            nodes_version: 0,
            outside: String::new(),
        };
        Self(Arc::new(Mutex::new(World {
            status,
            readiness: Ok(()),
            failure: None,
            silent: false,
            asked: Vec::new(),
            queues: BTreeMap::new(),
            in_flight: Vec::new(),
            locks: BTreeMap::new(),
            keys: BTreeMap::new(),
            next: 0,
        })))
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.0.lock().unwrap());
    }

    pub(crate) fn fail(&self, code: ErrorCode) {
        self.change(|world| world.failure = Some(Error::new(code, "as the test wants it").retry_after(2_500)));
    }

    pub(crate) fn last_asked(&self) -> Option<Request> {
        self.0.lock().unwrap().asked.last().cloned()
    }
}

impl Gateway for Fake {
    async fn call(&self, request: Request, _: CallOptions) -> Result<Response, Error> {
        let (silent, answer) = {
            let mut world = self.0.lock().unwrap();
            world.asked.push(request.clone());
            (world.silent, world.failure.clone().map_or_else(|| world.answer(request), Err))
        };
        if silent {
            std::future::pending::<()>().await;
        }
        answer
    }

    fn listen(&self, _: u64) -> Option<Pushes> {
        None
    }

    fn status(&self) -> NodeStatus {
        self.0.lock().unwrap().status.clone()
    }

    fn readiness(&self) -> Result<(), String> {
        self.0.lock().unwrap().readiness.clone()
    }

    fn metrics(&self) -> String {
        "trine_up 1\n".into()
    }
}

impl World {
    fn answer(&mut self, request: Request) -> Result<Response, Error> {
        self.next += 1;
        let index = self.next;
        let refuse = |code| Err(Error::new(code, "refused by the fake"));
        Ok(match request {
            Request::Reshape(_) | Request::Transfer(_) => {
                return refuse(ErrorCode::InvalidArgument);
            }
            Request::Backup(_) | Request::BackupRead(_) | Request::WriteBackAll(_) => {
                return refuse(ErrorCode::InvalidArgument);
            }
            Request::Add(_) | Request::GetOrFill(_) | Request::MultiGet(_) | Request::MultiPut(_) => {
                return refuse(ErrorCode::InvalidArgument);
            }
            Request::Explain(_) | Request::Evacuate(_) => return refuse(ErrorCode::InvalidArgument),
            request if request.command().module() == "queue" => return self.answer_queue(request, index),
            request if request.command().module() == "lock" => return self.answer_lock(request, index),
            Request::GetCopy(_) | Request::KeepCopies(_) | Request::DropCopies(_) => {
                return refuse(ErrorCode::InvalidArgument);
            }
            Request::ListKeys(_) | Request::DeletePrefix(_) => return refuse(ErrorCode::InvalidArgument),
            Request::Get(get) => self.get(&get.key),
            Request::Put(put) => {
                self.keys.insert(put.key, (put.value, LineState::M, true));
                Response::Put(Written { version: Version { epoch: index, count: 0 } })
            }
            Request::WriteBack(write_back) => match self.keys.get_mut(&write_back.key) {
                Some((_, state, true)) => {
                    *state = LineState::E;
                    Response::WriteBack(WrittenBack { state: *state })
                }
                _ => return refuse(ErrorCode::NotWrittenHere),
            },
            Request::Delete(delete) => {
                self.keys.remove(&delete.key);
                Response::Delete(Written { version: Version { epoch: index, count: 0 } })
            }
            Request::OpenSession(_) => Response::OpenSession(SessionOpened { session: index, timeout_ms: 60_000 }),
            Request::KeepAlive(_) => Response::KeepAlive(Kept {}),
            Request::Status(_) => Response::Status(self.status.clone()),
            _ => return refuse(ErrorCode::InvalidArgument),
        })
    }

    fn answer_lock(&mut self, request: Request, index: u64) -> Result<Response, Error> {
        let refuse = |code| Err(Error::new(code, "refused by the fake"));
        Ok(match request {
            Request::ExplainLock(explain) => {
                let holder = self.locks.get(&explain.lock);
                let view = |(client, token): &(String, u64)| HolderView {
                    client: client.clone(),
                    token: *token,
                    ..HolderView::default()
                };
                let holders: Vec<HolderView> = holder.map(view).into_iter().collect();
                let holders_total = holders.len() as u32;
                Response::ExplainLock(LockExplained { holders, holders_total, ..LockExplained::default() })
            }
            Request::ForceRelease(force) => {
                let holders = self.locks.remove(&force.lock).map(|(client, _)| client).into_iter().collect();
                Response::ForceRelease(ForceReleased { holders, token: index })
            }
            Request::Fence(_) => Response::Fence(Fenced { before: 0 }),
            Request::Acquire(acquire) => {
                if self.locks.contains_key(&acquire.lock) {
                    return refuse(ErrorCode::LockHeld);
                }
                let token = 40 << 48 | index;
                self.locks.insert(acquire.lock, (acquire.client, token));
                Response::Acquire(Granted { token, lease_ms: acquire.lease_ms, ..Granted::default() })
            }
            Request::Release(release) => match self.locks.get(&release.lock) {
                None => Response::Release(Released { was_held: false, ..Released::default() }),
                Some((client, _)) if *client != release.client => return refuse(ErrorCode::LockHeldByOther),
                Some((_, token)) if ![0, *token].contains(&release.token) => return refuse(ErrorCode::StaleToken),
                Some(_) => {
                    self.locks.remove(&release.lock);
                    Response::Release(Released { was_held: true, ..Released::default() })
                }
            },
            Request::Renew(renew) => match self.locks.get(&renew.lock) {
                Some((client, token)) if *client == renew.client && *token == renew.token => {
                    Response::Renew(Granted { token: *token, lease_ms: renew.lease_ms, ..Granted::default() })
                }
                Some(_) => return refuse(ErrorCode::StaleToken),
                None => return refuse(ErrorCode::LockNotHeld),
            },
            _ => return refuse(ErrorCode::InvalidArgument),
        })
    }

    fn answer_queue(&mut self, request: Request, index: u64) -> Result<Response, Error> {
        let refuse = |code| Err(Error::new(code, "refused by the fake"));
        Ok(match request {
            Request::Enqueue(enqueue) => {
                self.queues.entry(enqueue.queue).or_default().push_back((index, enqueue.body));
                Response::Enqueue(Enqueued { id: index, ..Enqueued::default() })
            }
            Request::Dequeue(dequeue) => {
                let message = self.queues.get_mut(&dequeue.queue).and_then(VecDeque::pop_front);
                let deliveries: Vec<_> = message
                    .map(|(id, body)| Delivery { id, token: 1 << 48 | index, deliveries: 1, body, attributes: None })
                    .into_iter()
                    .collect();
                self.in_flight.extend(deliveries.iter().map(|one| (dequeue.queue.clone(), one.clone())));
                Response::Dequeue(Dequeued { deliveries })
            }
            Request::Ack(ack) => {
                let found = self.in_flight.iter().position(|(queue, delivery)| {
                    *queue == ack.queue
                        && match &ack.which {
                            AckWhich::Receipt { id, token } => (delivery.id, delivery.token) == (*id, *token),
                            AckWhich::Body(body) => delivery.body == body,
                        }
                });
                match found {
                    Some(at) => Response::Ack(Acked { id: self.in_flight.remove(at).1.id }),
                    None => return refuse(ErrorCode::NotInFlight),
                }
            }
            Request::Extend(extend) => Response::Extend(Extended { id: extend.receipt.id }),
            Request::Nack(nack) => {
                let state = if nack.reject { MessageState::Dead } else { MessageState::Delayed };
                Response::Nack(Nacked { state })
            }
            Request::AckMany(_) => Response::AckMany(AckedMany { refused: Vec::new() }),
            Request::Declare(_) => Response::Declare(Declared { made: true }),
            Request::Undeclare(_) => Response::Undeclare(Undeclared { was_declared: true }),
            Request::SetFlow(_) => Response::SetFlow(FlowSet { before: Flow::Open }),
            // In two goes, so that who purges has to ask again.
            Request::Purge(_) => Response::Purge(Purged { messages: 2, more: index % 2 == 1 }),
            Request::Redrive(redrive) => Response::Redrive(Redriven { messages: redrive.count_max.min(3), more: true }),
            Request::Peek(peek) => Response::Peek(self.peek(&peek)),
            Request::ListQueues(list) => {
                let line = |queue: &String| QueueLine { queue: queue.clone(), ready: 1, ..QueueLine::default() };
                let here = self.queues.keys().filter(|queue| list.group == 0 && **queue > list.after);
                Response::ListQueues(Queues { queues: here.map(line).collect(), more: false })
            }
            Request::ShowQueue(show) => {
                let known = self.queues.contains_key(&show.queue);
                let line = QueueLine { queue: if known { show.queue } else { String::new() }, ..QueueLine::default() };
                Response::ShowQueue(QueueShown { line, policy: None, group: 2 })
            }
            Request::ExplainQueue(_) => {
                let causes = vec![Cause::Paused, Cause::HeldByKeys { messages: 2, keys: 1 }];
                Response::ExplainQueue(ExplainedQueue { summary: causes[0].to_string(), causes })
            }
            _ => return refuse(ErrorCode::InvalidArgument),
        })
    }

    fn peek(&self, peek: &Peek) -> Peeked {
        let waiting = self.queues.get(&peek.queue).into_iter().flatten();
        let message =
            |(id, body): &(u64, Bytes)| PeekedMessage { id: *id, body: body.clone(), ..PeekedMessage::default() };
        Peeked { messages: waiting.filter(|(id, _)| *id > peek.after).map(message).collect(), more: false }
    }

    fn get(&mut self, key: &str) -> Response {
        let version = Version { epoch: 3, count: 4 };
        let (value, state, source) = match self.keys.get_mut(key) {
            None => (None, LineState::I, Source::MainMemory),
            Some((value, state, _)) => {
                let source = if *state == LineState::I { Source::MainMemory } else { Source::LocalCache };
                *state = if *state == LineState::I { LineState::S } else { *state };
                (Some(value.clone()), *state, source)
            }
        };
        Response::Get(Got { value, version, state, source, content_type: String::new() })
    }
}
