use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::queue::{Ack, AckWhich, Dequeue, Enqueue};

/// A message as an older version had it, and as it is now.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Old {
    name: String,
    inner: Vec<OldInner>,
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct OldInner {
    count: u32,
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct New {
    name: String,
    inner: Vec<NewInner>,
    #[serde(default)]
    note: Option<String>,
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NewInner {
    count: u32,
    #[serde(default)]
    sizes: Vec<u64>,
}

fn error_of<T: DeserializeOwned + std::fmt::Debug>(body: &[u8]) -> String {
    let error = decode::<T>("Thing", body).unwrap_err();
    assert_eq!(error.code, ErrorCode::MalformedBody);
    error.message
}

#[test]
fn old_readers_skip_what_is_new_and_new_readers_fill_it_in() {
    let new = New { name: "a".into(), inner: vec![NewInner { count: 1, sizes: vec![1, 2] }], note: Some("n".into()) };
    let old = Old { name: "a".into(), inner: vec![OldInner { count: 1 }] };
    assert_eq!(decode::<Old>("Old", &encode(&new)).unwrap(), old);
    let filled = New { name: "a".into(), inner: vec![NewInner { count: 1, sizes: vec![] }], note: None };
    assert_eq!(decode::<New>("New", &encode(&old)).unwrap(), filled);
}

#[test]
fn cases_with_fields_grow_too() {
    // ["q", {"Receipt": [1, 2, 3]}]: a receipt with one field more.
    let body = b"\x92\xa1q\x81\xa7Receipt\x93\x01\x02\x03";
    let ack = Ack { queue: "q".into(), which: AckWhich::Receipt { id: 1, token: 2 }, if_token: None };
    assert_eq!(decode::<Ack>("Ack", body).unwrap(), ack);
}

#[test]
fn a_missing_field_of_the_first_version_is_an_error() {
    let message = error_of::<Enqueue>(b"\x91\xa1q");
    assert!(message.contains("expected struct Enqueue with"), "{message}");
}

#[test]
fn the_error_names_the_field() {
    assert!(error_of::<Enqueue>(b"\x92\xa1q\xc3").starts_with("Thing in Enqueue.body: "));
    assert!(error_of::<Dequeue>(b"\x93\xa1q\xcf\0\0\0\x01\0\0\0\0\0").starts_with("Thing in Dequeue.visibility_ms: "));
    assert!(error_of::<Old>(b"\x92\xa1q\x91\x91\xc3").starts_with("Thing in OldInner.count: "));
}

#[test]
fn a_struct_as_a_map_is_refused() {
    let message = error_of::<Enqueue>(b"\x82\xa5queue\xa1q\xa4body\xc4\x01b");
    assert!(message.contains("map"), "{message}");
}

#[test]
fn bytes_behind_the_message_are_refused_whatever_they_are() {
    let body = encode(&Enqueue { queue: "q".into(), body: Bytes::new(), ..Enqueue::default() });
    for byte in 0..=u8::MAX {
        let longer = [&body[..], &[byte]].concat();
        assert!(error_of::<Enqueue>(&longer).contains("bytes follow"), "{byte:#04x}");
    }
}

#[test]
fn nesting_is_refused_at_its_limit_and_far_beyond_it() {
    // Behind the fields, where anything is skipped: the message's own array is the first level.
    let nested = |depth: usize| [&b"\x92\xa1k"[..], &vec![0x91; depth][..], &b"\xc0"[..]].concat();
    assert!(decode::<crate::cache::Get>("Get", &nested(BODY_DEPTH_MAX - 1)).is_ok());
    for depth in [BODY_DEPTH_MAX, 10_000, 1_000_000] {
        assert!(error_of::<crate::cache::Get>(&nested(depth)).contains("nested deeper than 32"), "{depth}");
    }
    assert!(!error_of::<Enqueue>(&[0x91; 10_000]).is_empty());
    assert!(!error_of::<Enqueue>(&[0x81; 10_000]).is_empty());
}

#[test]
fn claimed_lengths_are_not_believed() {
    for body in [&b"\xdd\xff\xff\xff\xff"[..], b"\x92\xa1q\xc6\xff\xff\xff\xff", b"\x92\xdb\xff\xff\xff\xffq"] {
        assert!(error_of::<Enqueue>(body).contains("ends too early"), "{body:x?}");
    }
    assert!(error_of::<Vec<u64>>(b"\xdd\xff\xff\xff\xff\x01").contains("ends too early"));
}

#[test]
fn a_complaint_does_not_send_everything_back() {
    let mut body = b"\x92\xa1q\x81\xdb\0\x01\0\0".to_vec();
    body.extend(vec![b'x'; 0x10000]);
    body.push(0xc0);
    assert!(error_of::<Ack>(&body).len() < 300);
}

#[test]
fn commands_are_found_by_their_codes() {
    let header = RequestHeader { remaining_ms: 1, session: 2, sequence: 3, acked_below: 4 };
    let request = Request::from(Enqueue { queue: "q".into(), body: Bytes::from_static(b"b"), ..Enqueue::default() });
    let decoded = decode_request(Command::Enqueue.code(), &request.encode_body(&header)).unwrap();
    assert_eq!(decoded, (header, request));
    assert_eq!(decode_request(0x7777, b"").unwrap_err().code, ErrorCode::UnknownCommand);
    assert_eq!(decode_response(0x7777, b"").unwrap_err().code, ErrorCode::UnknownCommand);
    let error = decode_request(Command::Enqueue.code(), b"\xc0").unwrap_err();
    assert!(error.message.starts_with("Enqueue"), "{}", error.message);
}

#[test]
fn a_header_may_be_cut_after_any_field() {
    let message = b"\x92\xa1q\xc4\0";
    for (header, length) in [(&b"\x90"[..], 0), (b"\x91\x07", 1), (b"\x92\x07\x08", 2), (b"\x93\x07\x08\x09", 3)] {
        let body = [&b"\x92"[..], header, message].concat();
        let (header, _) = Request::decode(Command::Enqueue, &body).unwrap();
        let fields = [u64::from(header.remaining_ms), header.session, header.sequence, header.acked_below];
        assert_eq!(fields[..length], [7, 8, 9, 10][..length]);
        assert_eq!(fields[length..], [0; 4][length..]);
    }
}

proptest! {
    #[test]
    fn no_body_makes_a_decoder_panic(command in 0..Command::ALL.len(), body in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = Request::decode(Command::ALL[command], &body);
        let _ = Response::decode(Command::ALL[command], &body);
        let _ = decode::<Error>("Error", &body);
        let _ = decode::<crate::handshake::Hello>("Hello", &body);
        let _ = decode::<crate::handshake::Welcome>("Welcome", &body);
    }
}
