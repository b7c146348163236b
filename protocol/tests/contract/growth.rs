//! How messages grow: a field more at the end is skipped by who does not know it, a field less at the end takes its
//! default where it has one and is an error where it has none.

use bytes::Bytes;
use trine_protocol::frame::{Frame, Kind};
use trine_protocol::{Command, ErrorCode, Push};

use super::pieces::{elements, end, with_elements};
use super::samples::{self, Sample};

/// Where in the body the arrays of the message and, before it, of the header start.
fn arrays(frame: &Frame) -> Vec<usize> {
    match frame.kind {
        Kind::Request => elements(&frame.body, 0).iter().map(|place| place.start).collect(),
        Kind::Push if Push::ALL.iter().any(|(code, ..)| *code == frame.command) => vec![0],
        Kind::Push | Kind::Ping | Kind::Pong | Kind::Peer => vec![],
        _ => vec![0],
    }
}

/// How many fields at the end of the message have a default.
fn defaults(frame: &Frame) -> usize {
    match (frame.kind, Command::from_code(frame.command)) {
        (Kind::Request, Some(Command::Dequeue)) => 4,
        (Kind::Request, Some(Command::Nack)) => 4,
        (Kind::Request, Some(Command::Redrive | Command::HandOff)) => 3,
        (Kind::Request, Some(Command::Enqueue | Command::Peek | Command::Add)) => 2,
        (
            Kind::Request,
            Some(Command::Ack | Command::AckMany | Command::Extend | Command::Purge | Command::ListQueues),
        ) => 1,
        (Kind::Request, Some(Command::ExplainQueue | Command::Subscribe)) => 1,
        (Kind::Request, Some(Command::Reshape | Command::ListKeys | Command::Renew | Command::Cancel)) => 1,
        (Kind::Request, Some(Command::OpenSession)) => 1,
        (Kind::Request, Some(Command::Delete | Command::Release)) => 3,
        (Kind::Request, Some(Command::Put)) => 6,
        (Kind::Request, Some(Command::Acquire)) => 7,
        (Kind::Response, Some(Command::Enqueue)) => 2,
        (Kind::Response, Some(Command::Acquire | Command::Renew)) => 2,
        (Kind::Response, Some(Command::Release)) => 1,
        (Kind::Response, Some(Command::Get)) => 1,
        (Kind::Response, Some(Command::Status)) => 2,
        (Kind::Error | Kind::Goodbye, _) => 2,
        (Kind::Hello, _) => 1,
        (Kind::Push, _) if matches!(Push::decode(frame.command, &frame.body), Ok(Some(Push::Pushed(_)))) => 1,
        _ => 0,
    }
}

fn read(sample: &Sample, body: Vec<u8>) -> Result<String, trine_protocol::Error> {
    samples::read_body(&Frame { body: Bytes::from(body), ..sample.frame.clone() })
}

#[test]
fn a_field_more_at_the_end_is_skipped() {
    let extras: [(&[u8], usize); 4] = [
        (b"\xc0", 1),
        (b"\xcf\x01\x02\x03\x04\x05\x06\x07\x08", 1),
        (b"\x82\xa1a\x92\x01\x02\xa1b\xc4\x01x", 1),
        (b"\x01\xa1z", 2),
    ];
    let mut tried = 0;
    for sample in samples::all() {
        let body = &sample.frame.body;
        for at in arrays(&sample.frame) {
            for (extra, more) in extras {
                let longer = with_elements(body, at, elements(body, at).len(), more, extra);
                assert_eq!(read(&sample, longer).unwrap(), sample.says, "{} with {extra:x?}", sample.name);
                tried += 1;
            }
        }
    }
    assert!(tried > 150, "only {tried} bodies were tried");
}

#[test]
fn a_field_less_at_the_end_takes_its_default_or_is_an_error() {
    for sample in samples::all() {
        let Some(at) = arrays(&sample.frame).last().copied() else { continue };
        let body = &sample.frame.body;
        let fields = elements(body, at).len();
        for missing in 1..=fields {
            let result = read(&sample, with_elements(body, at, fields - missing, 0, b""));
            match missing <= defaults(&sample.frame) {
                true => assert!(result.is_ok(), "{} without {missing}: {result:?}", sample.name),
                false => assert_eq!(result.unwrap_err().code, ErrorCode::MalformedBody, "{}", sample.name),
            }
        }
    }
}

#[test]
fn a_missing_field_is_zero_or_empty() {
    let shortened = |name: &str, missing: usize| {
        let sample = samples::all().into_iter().find(|sample| sample.name == name).expect("a sample of that name");
        let at = arrays(&sample.frame).last().copied().expect("a message");
        let fields = elements(&sample.frame.body, at).len();
        read(&sample, with_elements(&sample.frame.body, at, fields - missing, 0, b"")).unwrap()
    };
    for (name, missing, says) in [
        ("dequeue", 3, "visibility_ms: 30000, count_max: 0, wait_ms: 0, consumer: \"\""),
        ("dequeue", 4, "visibility_ms: 0, count_max: 0, wait_ms: 0"),
        ("dequeue: everything", 1, "wait_ms: 20000, consumer: \"\""),
        ("enqueue: everything", 1, "options: None"),
        ("enqueue: everything", 2, "if_token: None, options: None"),
        ("answer to enqueue", 1, "duplicate: false, reached: None"),
        ("answer to enqueue, a duplicate", 2, "duplicate: false, reached: None"),
        ("nack: everything", 4, "delay_ms: None, reason: \"\", reject: false, if_token: None"),
        ("ack many: everything", 1, "if_token: None"),
        ("extend", 1, "visibility_ms: 0"),
        ("purge", 1, "state: None"),
        ("redrive", 3, "filter: None, count_max: 0, per_second: 0"),
        ("peek", 2, "after: 0, count_max: 0"),
        ("list queues", 1, "after: \"\""),
        ("explain queue: a message", 1, "about: Queue"),
        ("hand off", 3, "ack: None, enqueue: None, lock: None"),
        ("subscribe", 1, "visibility_ms: 0"),
        ("push: end of a subscription", 1, "deliveries: [], error: None"),
        ("release", 3, "token: 0"),
        ("acquire", 7, "mode: Exclusive, wait_ms: 0, also: [], reenter: 0, through_session: false, delay_ms: 0"),
        ("enqueue", 2, "if_token: None, options: None"),
        ("put: everything", 2, "content_type: \"text/plain\", fill: 0, if_token: None"),
        ("put: everything", 6, "only_if: Anything, ttl_ms: 0, through: false, content_type: \"\", fill: 0"),
        ("delete: everything", 3, "only_if: Anything, through: false"),
        ("add", 2, "by: -3, through: false"),
        ("list keys", 1, "after: \"\""),
        ("answer to get", 1, "content_type: \"\""),
        ("reshape: replace", 1, "at_version: None"),
        ("error", 1, "retry_after_ms: 250, hint: \"\""),
        ("error", 2, "retry_after_ms: 0, hint: \"\""),
        ("hello of a client", 1, "credentials: b\"\""),
    ] {
        assert!(shortened(name, missing).contains(says), "{}", shortened(name, missing));
    }
}

#[test]
fn a_request_without_its_header_or_message_is_an_error() {
    for sample in samples::all().into_iter().filter(|sample| sample.frame.kind == Kind::Request) {
        let body = &sample.frame.body;
        let message_only = body[elements(body, 0)[1].start..].to_vec();
        let three = with_elements(body, 0, 2, 1, b"\xc0");
        for wrong in [message_only, with_elements(body, 0, 1, 0, b""), three] {
            assert_eq!(end(&wrong, 0), wrong.len(), "the body is to be wrong, not torn");
            assert_eq!(read(&sample, wrong).unwrap_err().code, ErrorCode::MalformedBody, "{}", sample.name);
        }
    }
}
