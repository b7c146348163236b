//! The door itself: what becomes of a request that a client's session or the REST service hands in.
//!
//! ```text
//!   Status, BackupRead ---> answered here
//!   Get ---> line table --> hit: the clock is read, and the value answered, on the caller's task
//!              | miss
//!   the rest --+----------> a place among the pending, then the inbox of the group's replica
//! ```
//!
//! # Invariants
//! - [`Gateway::call`] does all that decides order before it returns its future: a request has its place in the
//!   replica's inbox when `call` returns.
//! - A read hit looks the line up first and reads the clock second (see [`crate::cache::Found::is_valid_at`]).
//! - Every call is answered: by the replica at the request's deadline at the latest, or by the door [`GRACE`] later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use trine_protocol::cache::{DeletePrefix, Filling, Got, LineState, Source};
use trine_protocol::cluster::{Backup, BackupRead, GroupStatus, NodeStatus};
use trine_protocol::placement::Ring;
use trine_protocol::{Error, ErrorCode, Request, Response};

use crate::cache::Versioned;
use crate::clock;
use crate::ids::{GroupId, Incarnation, Index, NodeId};
use crate::metrics::{self, Refused};
use crate::storage::StorageStats;

use super::backup::{Backups, Source as BackupSource};
use super::disk;
use super::gateway::{CallOptions, Gateway};
use super::inbox::{Inbox, Queued};
use super::lines::SharedLines;
use super::listeners::Pushes;
use super::nodes::{self, Nodes};
use super::pending::{Pending, Place, RETRY_AFTER_MS};
use super::replica_task::Standing;

use multi::Several;

/// How much later than a request's deadline the door stops waiting for the replica, which answers at the deadline itself
/// but only looks every tick.
const GRACE: Duration = Duration::from_millis(250);

/// What a node says of itself.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    pub(super) cluster_id: u64,
    pub(super) incarnation: Incarnation,
    pub(super) joins: bool,
    pub(super) nodes: Nodes,
}

/// One group as the door sees it.
#[derive(Debug)]
pub(super) struct GroupDoor {
    pub(super) inbox: Arc<Inbox>,
    pub(super) standing: watch::Receiver<Standing>,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    started_us: u64,
    ring: Ring,
    groups: Vec<GroupDoor>,
    lines: Arc<SharedLines>,
    pending: Arc<Pending>,
    storage: Arc<StorageStats>,
    backups: Option<Arc<Backups>>,
    shutting_down: AtomicBool,
}

/// The door of a running node. Clones lead to the same node.
#[derive(Clone, Debug)]
pub struct NodeGateway {
    shared: Arc<Shared>,
}

/// A request that was handed in.
enum Handed {
    Answered(Result<Response, Error>),
    Waits(Place),
}

/// What a call is about.
enum Called {
    One(Handed),
    /// A part of a copy of a group's state.
    Copies(BackupRead),
    /// Several requests of one client's.
    Several(Several),
    /// The keys are to be looked up first.
    DeletesPrefix(DeletePrefix),
}

impl NodeGateway {
    pub(super) fn new(
        identity: Identity,
        ring: Ring,
        groups: Vec<GroupDoor>,
        lines: Arc<SharedLines>,
        pending: Arc<Pending>,
        storage: Arc<StorageStats>,
        backups: Option<Arc<Backups>>,
    ) -> Self {
        let (started_us, shutting_down) = (clock::mono_us(), AtomicBool::new(false));
        let shared = Shared { identity, started_us, ring, groups, lines, pending, storage, backups, shutting_down };
        Self { shared: Arc::new(shared) }
    }

    /// From now on every request is refused with `ShuttingDown`.
    pub(super) fn shut_down(&self) {
        self.shared.shutting_down.store(true, Ordering::Relaxed);
    }

    /// Sets the metrics that follow from the clock or from several groups.
    pub(super) fn measure(&self) {
        let passed_us = clock::mono_us().saturating_sub(self.shared.started_us);
        metrics::node().uptime_seconds.set(Duration::from_micros(passed_us).as_secs_f64());
        metrics::node().ready.set(if self.readiness().is_ok() { 1.0 } else { 0.0 });
        disk::measure(&self.shared.storage);
        if let Some(backups) = &self.shared.backups {
            backups.sweep();
        }
    }

    fn groups(&self) -> Vec<GroupStatus> {
        self.shared.groups.iter().map(|group| group.standing.borrow().status.clone()).collect()
    }
}

impl Shared {
    fn hand_in(&self, request: Request, options: CallOptions) -> Handed {
        self.try_hand_in(request, options).unwrap_or_else(|error| Handed::Answered(Err(error)))
    }

    fn try_hand_in(&self, request: Request, options: CallOptions) -> Result<Handed, Error> {
        if self.shutting_down.load(Ordering::Relaxed) {
            metrics::node().refuse(Refused::ShuttingDown);
            return Err(Error::new(ErrorCode::ShuttingDown, "the node is about to stop"));
        }
        check(&request, &options)?;
        self.ring.check_colocated(&request)?;
        let group = self.ring.group_of_request(&request).ok_or_else(|| {
            let groups = self.groups.len();
            Error::new(ErrorCode::InvalidArgument, format!("there is no such group: 0 to {} are", groups - 1))
        })?;
        match &request {
            Request::Get(get) => match self.hit(GroupId(group), &get.key) {
                Some(got) => return Ok(Handed::Answered(Ok(Response::Get(got)))),
                None => metrics::node().cache_misses.increment(1),
            },
            Request::GetOrFill(get) => match self.hit(GroupId(group), &get.key) {
                Some(got) if got.value.is_some() => {
                    return Ok(Handed::Answered(Ok(Response::GetOrFill(Filling::found(got)))));
                }
                _ => metrics::node().cache_misses.increment(1),
            },
            _ => {}
        }
        let place = self.pending.enter(&request).inspect_err(|_| metrics::node().refuse(Refused::Overloaded))?;
        let deadline_us = clock::mono_us().saturating_add(micros(options.deadline));
        let queued = Queued { id: place.id(), session: options.session, deadline_us, request };
        self.groups[group as usize].inbox.request(queued).map_err(|_| {
            metrics::node().refuse(Refused::Overloaded);
            let message = format!("as many requests as group {group} takes wait on this node");
            Error::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER_MS)
        })?;
        Ok(Handed::Waits(place))
    }

    /// A read from this node's own cache.
    fn hit(&self, group: GroupId, key: &str) -> Option<Got> {
        let found = self.lines.find(group, key)?;
        // The clock after the line, never before it: a reader that is paused in between must not serve what has lapsed.
        if !found.is_valid_at(clock::mono_us()) {
            return None;
        }
        let state = found.line.state;
        let counter = match state {
            LineState::M => 0,
            LineState::E => 1,
            LineState::S => 2,
            LineState::I => return None,
        };
        metrics::node().cache_hits[counter].increment(1);
        let Versioned { value, version, content_type, .. } = found.line.value;
        Some(Got { value, version, state, source: Source::LocalCache, content_type })
    }

    async fn wait(&self, mut place: Place, deadline: Duration) -> Result<Response, Error> {
        match tokio::time::timeout(deadline + GRACE, place.answer()).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(Error::new(ErrorCode::OutcomeUnknown, "the node stopped before there was an answer")),
            Err(_) => {
                let message = format!("no answer within {} ms", deadline.as_millis());
                Err(Error::new(ErrorCode::DeadlineExceeded, message))
            }
        }
    }
}

impl Shared {
    fn backups(&self) -> Result<&Arc<Backups>, Error> {
        self.backups.as_ref().ok_or_else(|| Error::new(ErrorCode::NotReady, "this node makes no copies"))
    }

    async fn begin_copy(&self, group: GroupId, index: Index) -> Result<Response, Error> {
        self.backups()?.begin(group, index).await.map(Response::Backup)
    }

    async fn read_copy(self: Arc<Self>, read: BackupRead) -> Result<Response, Error> {
        let backups = Arc::clone(self.backups()?);
        backups.read(read, CopiedNode(self)).await.map(Response::BackupRead)
    }
}

/// The node whose groups are copied.
struct CopiedNode(Arc<Shared>);

impl BackupSource for CopiedNode {
    async fn whole(&self, group: GroupId) -> Result<Index, Error> {
        let options = CallOptions::default();
        let request = Request::Backup(Backup { group: group.0 });
        let handed = self.0.hand_in(request, options);
        match self.0.answer(handed, options.deadline).await? {
            Response::Backup(begun) => Ok(begun.index),
            other => Err(Error::new(ErrorCode::Internal, format!("the answer is {other:?}"))),
        }
    }

    fn members(&self, group: GroupId) -> (Vec<String>, Vec<String>) {
        let standing = self.0.groups[group.0 as usize].standing.borrow();
        (standing.status.voters.clone(), standing.status.learners.clone())
    }
}

impl Gateway for NodeGateway {
    // No `async fn`: what is before the `async` block happens when `call` is called, and that decides the order.
    fn call(&self, request: Request, options: CallOptions) -> impl Future<Output = Result<Response, Error>> + Send {
        let started_us = clock::mono_us();
        let command = request.command();
        let group = match &request {
            Request::Backup(backup) => Some(GroupId(backup.group)),
            _ => None,
        };
        let called = match request {
            Request::Status(_) => Called::One(Handed::Answered(Ok(Response::Status(self.status())))),
            Request::BackupRead(read) => Called::Copies(read),
            Request::MultiGet(get) => Called::Several(self.shared.several(multi::gets(get), options)),
            Request::MultiPut(put) => Called::Several(self.shared.several(multi::puts(put), options)),
            Request::DeletePrefix(delete) => Called::DeletesPrefix(delete),
            request => Called::One(self.shared.hand_in(request, options)),
        };
        let shared = Arc::clone(&self.shared);
        async move {
            let result = match called {
                Called::One(handed) => shared.answer(handed, options.deadline).await,
                Called::Copies(read) => Arc::clone(&shared).read_copy(read).await,
                Called::Several(several) => several.join(&shared, options.deadline).await,
                Called::DeletesPrefix(delete) => shared.delete_prefix(delete, options).await,
            };
            let result = match (result, group) {
                (Ok(Response::Backup(begun)), Some(group)) => shared.begin_copy(group, begun.index).await,
                (result, _) => result,
            };
            let took_us = clock::mono_us().saturating_sub(started_us);
            metrics::node().answered(command, &result, Duration::from_micros(took_us));
            result
        }
    }

    fn listen(&self, client: u64) -> Option<Pushes> {
        self.shared.pending.listeners.listen(client)
    }

    fn status(&self) -> NodeStatus {
        let Shared { identity, started_us, .. } = &*self.shared;
        let roster = identity.nodes.borrow();
        NodeStatus {
            node: identity.node.to_string(),
            cluster_id: identity.cluster_id,
            incarnation: identity.incarnation.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: clock::mono_us().saturating_sub(*started_us) / 1_000,
            nodes: nodes::addresses(&roster),
            groups: self.groups(),
            nodes_version: roster.version,
            outside: nodes::outside(&roster, identity.node, identity.joins, identity.incarnation),
        }
    }

    fn readiness(&self) -> Result<(), String> {
        if self.shared.shutting_down.load(Ordering::Relaxed) {
            return Err("the node is about to stop".to_owned());
        }
        let Identity { node, joins, incarnation, nodes, .. } = &self.shared.identity;
        let outside = nodes::outside(&nodes.borrow(), *node, *joins, *incarnation);
        if !outside.is_empty() {
            return Err(outside);
        }
        let complaints: Vec<String> =
            self.groups().into_iter().filter(|group| !group.ready).map(|group| group.why_not_ready).collect();
        match complaints.is_empty() {
            true => Ok(()),
            false => Err(complaints.join("; ")),
        }
    }

    fn metrics(&self) -> String {
        self.measure();
        metrics::render()
    }
}

/// What the door refuses before any group sees it: what no state of the cluster could make right.
fn check(request: &Request, options: &CallOptions) -> Result<(), Error> {
    if options.session.is_some_and(|session| session.sequence == 0) && !matches!(request, Request::KeepAlive(_)) {
        return Err(Error::new(ErrorCode::InvalidArgument, "a sequence of 0: the first request of a session has 1"));
    }
    request.check()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

mod multi;
#[cfg(test)]
mod tests;
