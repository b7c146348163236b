//! `/cache/read`, `/cache/write` and `/cache/writeback`. The node that is asked is the cache.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use trine_protocol::Response;
use trine_protocol::cache::{Get, LineState, Put, Source, WriteBack};
use trine_protocol::limits::VALUE_BYTES_MAX;

use crate::server::Gateway;

use super::dispatch::{Door, unexpected};
use super::field::Arguments;
use super::reply::{Failure, Reply};

#[derive(Serialize)]
struct ReadBody<'a> {
    source: &'static str,
    state: &'static str,
    data: &'a RawValue,
    encoding: &'static str,
    version: String,
}

#[derive(Serialize)]
struct WrittenBody<'a> {
    status: &'static str,
    state: &'static str,
    key: &'a str,
    version: String,
}

#[derive(Serialize)]
struct WrittenBackBody {
    status: &'static str,
    /// Always E, which is what callers of the contract look for.
    state: &'static str,
    /// What the line is now: S where another node has read it since.
    line_state: &'static str,
}

pub(crate) async fn read<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let key = arguments.text("key");
    let got = match door.call(Get { key: key.clone() }).await? {
        Response::Get(got) => got,
        other => return Err(unexpected(&other)),
    };
    let Some(value) = got.value else { return Err(Failure::NoSuchKey { key }) };
    let (data, encoding) = show(&value);
    let body = ReadBody {
        source: match got.source {
            Source::LocalCache => "local_cache",
            Source::MainMemory => "main_memory",
        },
        state: letter(got.state),
        data: &data,
        encoding,
        version: got.version.to_string(),
    };
    Ok(Reply::ok(&body).no_store())
}

pub(crate) async fn write<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let key = arguments.text("key");
    let data = arguments.any("data");
    if data.get().len() > VALUE_BYTES_MAX {
        return Err(Failure::TooLarge { bytes_max: VALUE_BYTES_MAX });
    }
    let value = Bytes::copy_from_slice(data.get().as_bytes());
    match door.call(Put { key: key.clone(), value, ..Put::default() }).await? {
        Response::Put(written) => {
            let version = written.version.to_string();
            Ok(Reply::ok(&WrittenBody { status: "written_local", state: "M", key: &key, version }))
        }
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn write_back<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    match door.call(WriteBack { key: arguments.text("key") }).await? {
        Response::WriteBack(written) => {
            let line_state = letter(written.state);
            Ok(Reply::ok(&WrittenBackBody { status: "written_to_main_memory", state: "E", line_state }))
        }
        other => Err(unexpected(&other)),
    }
}

/// A value as JSON, and what was done to make it that.
fn show(value: &[u8]) -> (Box<RawValue>, &'static str) {
    let string = |text: &str| to_raw_value(text).expect("every string has a JSON form");
    let Ok(text) = std::str::from_utf8(value) else { return (string(&STANDARD.encode(value)), "base64") };
    match serde_json::from_str::<&RawValue>(text) {
        Ok(json) => (json.to_owned(), "json"),
        Err(_) => (string(text), "text"),
    }
}

const fn letter(state: LineState) -> &'static str {
    match state {
        LineState::M => "M",
        LineState::E => "E",
        LineState::S => "S",
        LineState::I => "I",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_what_they_are() {
        for (value, data, encoding) in [
            (
                &b"{\"b\": 1.50, \"a\": 12345678901234567890123}"[..],
                "{\"b\": 1.50, \"a\": 12345678901234567890123}",
                "json",
            ),
            (b" 42 ", "42", "json"),
            (b"\"text\"", "\"text\"", "json"),
            (b"plain \"text\"", "\"plain \\\"text\\\"\"", "text"),
            (b"", "\"\"", "text"),
            (b"\xff\x00", "\"/wA=\"", "base64"),
        ] {
            let (shown, how) = show(value);
            assert_eq!((shown.get(), how), (data, encoding));
        }
    }
}
