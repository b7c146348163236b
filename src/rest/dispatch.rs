//! From a request to its answer: cross-site check, body, route, validation, handler, deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, EXPECT, HOST, HeaderMap, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::sync::Semaphore;
use trine_protocol::{Error, ErrorCode};

use crate::server::{CallOptions, Gateway};

use super::field::{Arguments, Checked, check_body, check_query};
use super::problem::{Part, Problem};
use super::reply::{Failure, Reply};
use super::route::{Operation, Route};
use super::{RestOptions, body, cache, docs, lock, locks, node, openapi, queue, queue_more, route};

/// Milliseconds beyond the deadline that the node has for saying so itself, before the door says it.
const DEADLINE_GRACE_MS: u64 = 500;

/// The REST door of a node: what all its connections share.
#[derive(Debug)]
pub(crate) struct Door<G> {
    gateway: G,
    /// Name of the node: it does not change while the process lives.
    node: String,
    options: RestOptions,
    /// Memory for the bodies of all requests.
    memory: Arc<Semaphore>,
}

impl<G: Gateway> Door<G> {
    pub(crate) fn new(gateway: G, options: RestOptions) -> Self {
        let node = gateway.status().node;
        Self { gateway, node, options, memory: body::memory() }
    }

    pub(crate) fn options(&self) -> &RestOptions {
        &self.options
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    pub(crate) fn gateway(&self) -> &G {
        &self.gateway
    }

    /// Answers a request, whatever it is.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, incoming) = request.into_parts();
        let reply = self.reply(&head, incoming).await.unwrap_or_else(Failure::into_reply);
        tracing::debug!(method = %head.method, path = head.uri.path(), status = reply.status().as_u16(), "REST");
        let mut response = reply.into_response();
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    async fn reply(&self, head: &Parts, incoming: Incoming) -> Result<Reply, Failure> {
        // The body is received before anything is judged: a client that is still sending would not hear the judgement.
        let expects_continue = head.headers.contains_key(EXPECT);
        let time = Duration::from_millis(self.options.body_ms_max);
        let received = body::receive(incoming, expects_continue, time, &self.memory).await;
        let route = match Self::route(head)? {
            Routed::Found(route) => route,
            Routed::Answered(reply) => return Ok(reply),
        };
        if route.operation.changes() && cross_site(&head.headers) {
            return Err(Failure::CrossSite);
        }
        let received = received?;
        let arguments = arguments(route, head, &received.bytes).map_err(Failure::Invalid)?;
        self.perform(route.operation, arguments, head).await
    }

    fn route(head: &Parts) -> Result<Routed, Failure> {
        if head.method == Method::OPTIONS && head.uri.path() == "*" {
            return Ok(Routed::Answered(allowed("GET, HEAD, POST, OPTIONS")));
        }
        let route = route::find(head.uri.path()).ok_or(Failure::NotFound)?;
        match &head.method {
            method if route.takes(method) => Ok(Routed::Found(route)),
            &Method::OPTIONS => Ok(Routed::Answered(allowed(&route.allow()))),
            _ => Err(Failure::MethodNotAllowed { allow: route.allow() }),
        }
    }

    async fn perform(&self, operation: Operation, arguments: Arguments, head: &Parts) -> Result<Reply, Failure> {
        match operation {
            Operation::Describe => node::describe(&self.gateway.status()),
            Operation::Enqueue => queue::enqueue(self, arguments).await,
            Operation::Dequeue => queue::dequeue(self, arguments).await,
            Operation::Ack => queue::ack(self, arguments).await,
            Operation::Nack => queue_more::nack(self, arguments).await,
            Operation::Extend => queue_more::extend(self, arguments).await,
            Operation::ShowQueue => queue_more::show(self, arguments).await,
            Operation::ExplainQueue => queue_more::explain(self, arguments).await,
            Operation::LockAcquire => lock::acquire(self, arguments, head).await,
            Operation::LockRelease => lock::release(self, arguments, head).await,
            Operation::LockExplain => locks::explain(self, arguments).await,
            Operation::LockRenew => locks::renew(self, arguments).await,
            Operation::LockForce => locks::force(self, arguments).await,
            Operation::LockFence => locks::fence(self, arguments).await,
            Operation::CacheRead => cache::read(self, arguments).await,
            Operation::CacheWrite => cache::write(self, arguments).await,
            Operation::CacheWriteBack => cache::write_back(self, arguments).await,
            Operation::Docs => Ok(docs::interactive()),
            Operation::Redoc => Ok(docs::readable()),
            Operation::OpenApi => Ok(openapi::reply()),
            Operation::Healthz => Ok(node::healthz(&self.node)),
            Operation::Readyz => Ok(node::readyz(&self.node, self.gateway.readiness())),
            Operation::Metrics => Ok(node::metrics(self.gateway.metrics())),
        }
    }

    /// Asks the node, and waits no longer than a little over the deadline that it was given.
    ///
    /// # Errors
    /// What the node says, or `DeadlineExceeded` where it says nothing.
    pub(crate) async fn call(
        &self,
        request: impl Into<trine_protocol::Request>,
    ) -> Result<trine_protocol::Response, Error> {
        self.call_waiting(request, 0).await
    }

    /// The same for a request that may wait at the node for so long.
    ///
    /// # Errors
    /// As [`Door::call`].
    pub(crate) async fn call_waiting(
        &self,
        request: impl Into<trine_protocol::Request>,
        wait_ms: u32,
    ) -> Result<trine_protocol::Response, Error> {
        let deadline = Duration::from_millis(self.options.deadline_ms + u64::from(wait_ms));
        let asked = self.gateway.call(request.into(), CallOptions { session: None, deadline });
        match tokio::time::timeout(deadline + Duration::from_millis(DEADLINE_GRACE_MS), asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(ErrorCode::DeadlineExceeded, ErrorCode::DeadlineExceeded.meaning())),
        }
    }
}

/// The node answered one command with the answer of another: a fault of ours that a client can do nothing about.
pub(crate) fn unexpected(response: &trine_protocol::Response) -> Failure {
    let message = format!("the node answered with {}", response.command().name());
    Failure::Node(Error::new(ErrorCode::Internal, message))
}

enum Routed {
    Found(&'static Route),
    Answered(Reply),
}

fn allowed(methods: &str) -> Reply {
    let methods = HeaderValue::from_str(methods).expect("method names are ASCII");
    Reply::empty(StatusCode::NO_CONTENT).header(ALLOW, methods)
}

/// Whether a browser sends this for a page of another site. Programs that are no browsers send neither header.
///
/// Without this check any page that a person opens could take messages off a queue on that person's machine: `GET /dequeue` is what
/// an `<img>` sends.
fn cross_site(headers: &HeaderMap) -> bool {
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return true;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = |authority: &str| authority.rsplit_once(':').map_or(authority, |(host, _)| host).to_ascii_lowercase();
    let ours = headers.get(HOST).and_then(|value| value.to_str().ok()).map(host);
    let theirs = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| {
        // A port is optional in an origin, so an IPv6 address without one must not lose its last group.
        if authority.ends_with(']') { authority.to_ascii_lowercase() } else { host(authority) }
    });
    theirs.is_none() || theirs != ours
}

fn arguments(route: &Route, head: &Parts, body: &[u8]) -> Result<Arguments, Vec<Problem>> {
    let mut checked = Checked::default();
    match pairs(head.uri.query().unwrap_or_default()) {
        Ok(pairs) => check_query(route.query, pairs, &mut checked),
        Err(problem) => checked.problems.push(problem),
    }
    if let Some(fields) = route.body {
        match body::members(body) {
            Ok(members) => check_body(fields, members, &mut checked),
            Err(problem) => checked.problems.push(problem),
        }
    }
    checked.done()
}

/// The pairs of a query. Of a name that stands twice the last one counts.
fn pairs(query: &str) -> Result<BTreeMap<String, String>, Problem> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8().map(String::from);
    let mut pairs = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = [Part::Name("query")];
        let problem = |_| Problem::string_unicode(&place);
        pairs.insert(decode(name).map_err(problem)?, decode(value).map_err(problem)?);
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_what_a_browser_sends_for_another_site_is_cross_site() {
        for (sent, want) in [
            (&[][..], false),
            (&[("host", "localhost:8000")], false),
            (&[("host", "localhost:8000"), ("origin", "http://localhost:8000")], false),
            (&[("host", "localhost:8000"), ("origin", "http://LOCALHOST:9000")], false),
            (&[("host", "[::1]:8000"), ("origin", "http://[::1]")], false),
            (&[("host", "localhost"), ("origin", "http://localhost:3000")], false),
            (&[("host", "localhost:8000"), ("sec-fetch-site", "same-origin")], false),
            (&[("host", "localhost:8000"), ("sec-fetch-site", "none")], false),
            (&[("host", "localhost:8000"), ("sec-fetch-site", "cross-site")], true),
            (&[("host", "localhost:8000"), ("origin", "http://elsewhere.example")], true),
            (&[("host", "localhost:8000"), ("origin", "null")], true),
            (&[("host", "[::1]:8000"), ("origin", "http://[::2]")], true),
            (&[("origin", "http://elsewhere.example")], true),
        ] {
            assert_eq!(cross_site(&headers(sent)), want, "{sent:?}");
        }
    }

    #[test]
    fn queries_are_taken_apart() {
        let found = pairs("key=user%3A123&a=+b%2B&&key=%C3%B6&flag").unwrap();
        assert_eq!(found["key"], "ö");
        assert_eq!(found["a"], " b+");
        assert_eq!(found["flag"], "");
        assert_eq!(pairs("key=%FF").unwrap_err().kind, "string_unicode");
    }
}
