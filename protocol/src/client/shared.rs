//! What all copies of a client share: endpoints, sessions, and what is known of the cluster.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::cluster::{KeepAlive, OpenSession, Status};
use crate::command::{Request, RequestHeader, Response};
use crate::error::{Error, ErrorCode, Outcome};
use crate::handshake::Hello;
use crate::limits::SESSION_MS_MAX;
use crate::placement::Ring;

use super::ClientConfig;
use super::backoff::Backoff;
use super::clock;
use super::connection::{Connection, Failure};
use super::endpoint::Endpoint;
use super::route::Routes;
use super::session::{Session, Sessions};

/// Keep-alives in the time after which a session would end: two may be lost.
const KEEP_ALIVES_PER_TIMEOUT: u32 = 3;

/// One client, behind all its copies.
pub(super) struct Shared {
    pub(super) config: ClientConfig,
    pub(super) routes: Routes,
    pub(super) sessions: Sessions,
    cluster: OnceLock<Cluster>,
}

/// What the first welcome said of the cluster; neither ever changes.
struct Cluster {
    id: u64,
    ring: Ring,
}

impl Shared {
    pub(super) fn new(config: ClientConfig) -> Arc<Self> {
        let routes = Routes::new(&config.endpoints);
        Arc::new(Self { config, routes, sessions: Sessions::default(), cluster: OnceLock::new() })
    }

    /// The group that a request is for. None before the first connection, and where the request is for a node alone.
    pub(super) fn group_of(&self, request: &Request) -> Option<u32> {
        self.cluster.get().and_then(|cluster| cluster.ring.group_of_request(request))
    }

    /// The ring of the cluster, known from the first connection on.
    pub(super) fn ring(&self) -> Option<&Ring> {
        self.cluster.get().map(|cluster| &cluster.ring)
    }

    /// The connection to an endpoint, made if there is none.
    pub(super) async fn connection(&self, endpoint: &Endpoint, until: Instant) -> Result<Arc<Connection>, Error> {
        // From the first welcome on, a node of another cluster refuses us: an address may have changed hands.
        let cluster_id = self.cluster.get().map_or(0, |cluster| cluster.id);
        let hello = Hello { cluster_id, ..Hello::client(&self.config.name, self.config.credentials.clone()) };
        let connection = endpoint.connection(&hello, until).await?;
        if self.cluster.get().is_none() {
            let welcome = connection.welcome();
            let _ = self.cluster.set(Cluster { id: welcome.cluster_id, ring: Ring::new(welcome.groups)? });
        }
        Ok(connection)
    }

    /// Connects to the first endpoint that lets us, and asks who leads.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<(), Error> {
        let until = clock::now() + self.config.deadline;
        let mut backoff = Backoff::default();
        loop {
            let mut errors = Vec::new();
            for endpoint in self.routes.configured() {
                match self.connection(endpoint, until).await {
                    Ok(connection) => {
                        self.ask_who_leads(&connection, until).await;
                        return Ok(());
                    }
                    Err(error) => {
                        self.routes.forget(None, endpoint);
                        errors.push(error);
                    }
                }
            }
            let refused = errors.iter().find(|error| error.code.outcome() == Outcome::Refused);
            let resume = clock::now() + backoff.next();
            if refused.is_some() || !self.config.retry || resume >= until {
                let all: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
                let code = refused.unwrap_or(&errors[0]).code;
                return Err(Error::new(code, all.join("; ")));
            }
            sleep_until(resume).await;
        }
    }

    async fn ask_who_leads(&self, connection: &Connection, until: Instant) {
        let answer = connection.call(RequestHeader::default(), &Status {}.into(), until).await;
        // Not to know costs one hop: any node forwards.
        if let Ok(Response::Status(status)) = answer {
            self.routes.learn_all(&status);
        }
    }

    /// Asks who leads, beside the call that noticed that it does not know; at most once a second.
    pub(super) fn refresh_leaders(self: &Arc<Self>, group: Option<u32>) {
        if !self.routes.wants_refresh(group) {
            return;
        }
        let (weak, deadline) = (Arc::downgrade(self), self.config.deadline);
        tokio::spawn(async move {
            let Some(shared) = weak.upgrade() else { return };
            let until = clock::now() + deadline;
            if let Ok(connection) = shared.connection(&shared.routes.preferred(), until).await {
                shared.ask_who_leads(&connection, until).await;
            }
        });
    }

    /// The session of a group, opened over this connection if there is none.
    pub(super) async fn session(
        self: &Arc<Self>,
        group: u32,
        connection: &Connection,
        until: Instant,
    ) -> Result<Arc<Session>, Failure> {
        let place = self.sessions.place(group);
        let unreachable = |message: String| Failure::NotSent(Error::new(ErrorCode::Unreachable, message));
        let Ok(mut place) = timeout_at(until, place.lock()).await else {
            return Err(unreachable(format!("no session could be opened in group {group} in time")));
        };
        if let Some(session) = &*place {
            return Ok(session.clone());
        }
        let timeout_ms = u32::try_from(self.config.session_timeout.as_millis()).unwrap_or(SESSION_MS_MAX);
        let request = OpenSession { group, timeout_ms }.into();
        let sent = clock::now();
        match connection.call(RequestHeader::default(), &request, until).await {
            Ok(Response::OpenSession(opened)) => {
                let timeout = Duration::from_millis(opened.timeout_ms.into());
                let session = Session::new(opened.session, sent, timeout);
                let task = tokio::spawn(keep_alive(Arc::downgrade(self), Arc::downgrade(&session), group, timeout));
                session.kept_alive_by(task.abort_handle());
                Ok(place.insert(session).clone())
            }
            Ok(other) => Err(unreachable(format!("OpenSession was answered as {:?}", other.command()))),
            // A session that may have been opened and is not known here hurts nobody: nothing was sent under it.
            Err(Failure::Node(error)) if error.code.outcome() != Outcome::Unknown => Err(Failure::Node(error)),
            Err(failure) => Err(unreachable(format!("no session in group {group}: {}", failure.into_error()))),
        }
    }
}

/// Keeps a session alive until it is dropped or the cluster says that it has ended.
async fn keep_alive(shared: Weak<Shared>, session: Weak<Session>, group: u32, timeout: Duration) {
    let pause = (timeout / KEEP_ALIVES_PER_TIMEOUT).max(Duration::from_millis(1));
    loop {
        sleep(pause).await;
        let (Some(shared), Some(session)) = (shared.upgrade(), session.upgrade()) else { return };
        let sent = clock::now();
        let until = sent + pause;
        // A full window means that commands are under way, which keep the session alive themselves.
        let Ok(number) = timeout_at(until, session.begin()).await else { continue };
        let endpoint = shared.routes.leader_or_preferred(Some(group));
        let kept = match shared.connection(&endpoint, until).await {
            Ok(connection) => connection.call(number.header(), &KeepAlive { group }.into(), until).await,
            Err(error) => Err(Failure::NotSent(error)),
        };
        match kept {
            Ok(_) => session.heard_of(sent),
            Err(Failure::Node(error)) if error.code == ErrorCode::SessionExpired => {
                session.has_ended();
                shared.sessions.expired(group, &session).await;
                return;
            }
            Err(_) => shared.routes.forget(Some(group), &endpoint),
        }
    }
}
