//! One user's connections: HTTP/1.1, one to each address, kept alive.
//!
//! hyper's connection API without a pool: a user has one request under way at a time, so there is nothing to pool, and a request costs
//! no lookup and no lock that anybody else wants.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::workload::Failure;

/// A request ends after this long: longer than the deadline of the service behind it.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer has at most so many bytes; a message of this load has fewer.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// `host:port` of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    text: String,
    host: HeaderValue,
}

impl FromStr for Address {
    type Err = String;

    /// Reads `host:port`, and `http://host:port` too.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim_start_matches("http://").trim_end_matches('/');
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let host = HeaderValue::from_str(text).ok().filter(|_| port.is_some());
        host.map(|host| Self { text: text.to_owned(), host }).ok_or_else(|| format!("`{text}` is no host:port"))
    }
}

impl Address {
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Answer {
    /// The answer itself where its status is 2xx.
    pub(super) fn require_success(self) -> Result<Self, Failure> {
        if self.status.is_success() {
            return Ok(self);
        }
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let (name, unknown) = match self.status.as_u16() {
            403 => ("403", false),
            404 => ("404", false),
            409 => ("409", false),
            422 => ("422", false),
            400..=499 => ("4xx", false),
            // A node says `outcome` in its errors; where it does not, nobody can say.
            503 => ("503", !text.contains("\"not_done\"")),
            504 => ("504", true),
            _ => ("5xx", true),
        };
        Err(Failure { name, unknown, text })
    }
}

/// One user.
#[derive(Debug)]
pub(crate) struct User {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    address: Address,
    sender: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl User {
    /// A user with a connection to each address, opened when it is needed.
    pub(super) fn new(addresses: &[Address]) -> Self {
        let line = |address: &Address| Line { address: address.clone(), sender: Mutex::new(None) };
        Self { lines: addresses.iter().map(line).collect() }
    }

    pub(super) async fn get(&self, place: usize, path: &'static str) -> Result<Answer, Failure> {
        self.request(place, Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post(&self, place: usize, path: &'static str, body: String) -> Result<Answer, Failure> {
        self.request(place, Method::POST, path, body.into()).await
    }

    async fn request(&self, place: usize, method: Method, path: &'static str, body: Bytes) -> Result<Answer, Failure> {
        match tokio::time::timeout(PATIENCE, self.lines[place].request(method, path, body)).await {
            Ok(result) => result,
            Err(_) => Err(Failure { name: "timeout", unknown: true, text: format!("no answer in {PATIENCE:?}") }),
        }
    }
}

impl Line {
    async fn request(&self, method: Method, path: &'static str, body: Bytes) -> Result<Answer, Failure> {
        // Held over the request: a connection that was given up half-way is dropped with it, and not used again.
        let mut kept = self.sender.lock().await;
        let mut sender = match kept.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        let cut = |error: hyper::Error| {
            let unknown = !error.is_canceled();
            Failure { name: if unknown { "cut off" } else { "not sent" }, unknown, text: error.to_string() }
        };
        sender.ready().await.map_err(|error| Failure { unknown: false, ..cut(error) })?;
        let has_body = !body.is_empty();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_static(path);
        request.headers_mut().insert(HOST, self.address.host.clone());
        if has_body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let answer = sender.send_request(request).await.map_err(cut)?;
        let status = answer.status();
        let body = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Failure { name: "cut off", unknown: true, text: error.to_string() })?;
        *kept = Some(sender);
        Ok(Answer { status, body: body.to_bytes() })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let unreachable = |text: String| Failure { name: "unreachable", unknown: false, text };
        let stream = TcpStream::connect(self.address.as_str()).await.map_err(|error| unreachable(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.to_string()))?;
        // How the connection ended is told to the request that was on it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for text in ["127.0.0.1:8000", "http://127.0.0.1:8000", "http://127.0.0.1:8000/"] {
            assert_eq!(text.parse::<Address>().map(|address| address.text), Ok("127.0.0.1:8000".into()), "{text}");
        }
        for text in ["", "localhost", "localhost:http", "a b:1\n"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_failure_says_whether_it_may_have_been_done() {
        let fails = |status: u16, body: &'static str| {
            let answer = Answer { status: StatusCode::from_u16(status).unwrap(), body: body.into() };
            let failure = answer.require_success().unwrap_err();
            (failure.name, failure.unknown)
        };
        assert_eq!(fails(404, ""), ("404", false));
        assert_eq!(fails(500, ""), ("5xx", true));
        assert_eq!(fails(503, r#"{"detail":"x","outcome":"not_done"}"#), ("503", false));
        assert_eq!(fails(503, r#"{"detail":"x","outcome":"unknown"}"#), ("503", true));
    }
}
