//! Just enough HTTP to ask a node: one request per connection, read until it closes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for one answer. Every request of a node has a deadline of 5 s of its own.
const WAIT: Duration = Duration::from_secs(15);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The value of a header, by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// `GET path`.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    request(address, "GET", path, None)
}

/// `POST path` with a JSON body.
pub(crate) fn post(address: SocketAddr, path: &str, body: &Value) -> std::io::Result<Answer> {
    request(address, "POST", path, Some(body.to_string()))
}

/// `POST path` without a body.
pub(crate) fn post_nothing(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    request(address, "POST", path, Some(String::new()))
}

fn request(address: SocketAddr, method: &str, path: &str, body: Option<String>) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    let body = body.unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| std::io::Error::other(format!("no HTTP: {:?}", String::from_utf8_lossy(&bytes))))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8(bytes.to_vec()).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let text = if chunked { unchunk(body)? } else { body.to_owned() };
    Some(Answer { status, headers, text })
}

fn unchunk(mut body: &str) -> Option<String> {
    let mut text = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        text.push_str(rest.get(..length)?);
        body = rest.get(length + 2..)?;
        if length == 0 {
            return Some(text);
        }
    }
}

/// The sum of all samples of one metric in a Prometheus text; with `label`, of those that carry it.
pub(crate) fn metric(text: &str, name: &str, label: &str) -> f64 {
    let samples: Vec<f64> = text
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(label))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| series.split('{').next() == Some(name))
        .map(|(_, value)| value.parse().expect("a Prometheus value"))
        .collect();
    assert!(!samples.is_empty(), "no sample of {name} with '{label}' in\n{text}");
    samples.iter().sum()
}

#[test]
fn answers_are_read_with_and_without_chunks() {
    let plain = parse(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nRetry-After: 1\r\n\r\n{}").unwrap();
    assert_eq!((plain.status, plain.text.as_str(), plain.header("retry-after")), (404, "{}", Some("1")));
    let chunked =
        parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\n3\r\na\":\r\n0\r\n\r\n").unwrap();
    assert_eq!(chunked.text, "{\"a\":");
    let text = "# HELP a b\na_total{direction=\"in\"} 2\na_total{direction=\"out\"} 3\na_total_more 9\n";
    assert!(
        (metric(text, "a_total", "") - 5.0).abs() < 1e-9 && (metric(text, "a_total", "\"out\"") - 3.0).abs() < 1e-9
    );
}
