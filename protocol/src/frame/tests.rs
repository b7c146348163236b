use proptest::prelude::*;

use super::*;
use crate::handshake::Hello;

fn hello() -> Frame {
    Hello::client("c", Bytes::new()).to_frame()
}

fn decode_all(codec: &mut FrameCodec, bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let mut source = BytesMut::from(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = codec.decode_eof(&mut source)? {
        frames.push(frame);
    }
    Ok(frames)
}

#[test]
fn frames_come_back_as_they_went() {
    let mut bytes = BytesMut::new();
    let frames = [hello(), Frame::ping(7), Frame::peer(Bytes::from_static(b"opaque")), Frame::pong(u64::MAX)];
    for frame in &frames {
        let before = bytes.len();
        FrameCodec::new().encode(frame, &mut bytes).unwrap();
        assert_eq!(bytes.len() - before, frame.wire_bytes());
    }
    assert_eq!(decode_all(&mut FrameCodec::new(), &bytes).unwrap(), frames);
}

#[test]
fn frames_that_arrive_byte_by_byte_are_put_together() {
    let sent = [hello().to_bytes().unwrap(), Frame::ping(7).to_bytes().unwrap()].concat();
    let (mut codec, mut source, mut frames) = (FrameCodec::new(), BytesMut::new(), Vec::new());
    for byte in sent {
        source.put_u8(byte);
        frames.extend(codec.decode(&mut source).unwrap());
    }
    assert_eq!(frames, [hello(), Frame::ping(7)]);
}

#[test]
fn a_claimed_length_gets_no_more_room_than_one_step() {
    let mut source = BytesMut::new();
    source.put_u32(FRAME_BYTES_MAX as u32);
    source.put_u8(Kind::Peer as u8);
    assert!(FrameCodec::after_handshake().decode(&mut source).unwrap().is_none());
    assert!(source.capacity() < 2 * READ_STEP_BYTES, "{} bytes reserved", source.capacity());
}

#[test]
fn a_length_over_the_limit_is_refused_before_the_body_comes() {
    let with_length = |length: usize, kind: Kind| {
        let mut bytes = (length as u32).to_be_bytes().to_vec();
        bytes.push(kind as u8);
        bytes
    };
    for (mut codec, limit, kind) in [
        (FrameCodec::after_handshake(), FRAME_BYTES_MAX, Kind::Peer),
        (FrameCodec::new(), HANDSHAKE_BYTES_MAX, Kind::Hello),
    ] {
        let mut allowed = BytesMut::from(&with_length(limit, kind)[..]);
        assert!(codec.decode(&mut allowed).unwrap().is_none());
        let error = decode_all(&mut codec, &with_length(limit + 1, kind)).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { bytes, bytes_max } if bytes == limit + 1 && bytes_max == limit));
        assert_eq!(error.to_error().code, ErrorCode::FrameTooLarge);
    }
}

#[test]
fn the_small_limit_ends_with_the_handshake() {
    let large = Frame::peer(Bytes::from(vec![0; HANDSHAKE_BYTES_MAX]));
    let bytes = [hello().to_bytes().unwrap(), large.to_bytes().unwrap()].concat();
    assert_eq!(decode_all(&mut FrameCodec::new(), &bytes).unwrap().len(), 2);
}

#[test]
fn what_is_too_large_is_not_sent_either() {
    let fits = Frame::peer(Bytes::from(vec![0; FRAME_BYTES_MAX - HEADER_BYTES]));
    assert_eq!(fits.to_bytes().unwrap().len(), LENGTH_BYTES + FRAME_BYTES_MAX);
    let over = Frame::peer(Bytes::from(vec![0; FRAME_BYTES_MAX - HEADER_BYTES + 1]));
    assert!(matches!(over.to_bytes(), Err(FrameError::TooLarge { .. })));
}

#[test]
fn short_lengths_unknown_kinds_and_early_requests_are_refused() {
    let refused = |bytes: &[u8], codec: &mut FrameCodec| decode_all(codec, bytes).unwrap_err();
    for length in 0..HEADER_BYTES {
        let error = refused(&(length as u32).to_be_bytes(), &mut FrameCodec::new());
        assert!(matches!(error, FrameError::TooShort(short) if short == length));
    }
    for code in (0..=u8::MAX).filter(|code| Kind::from_code(*code).is_none()) {
        let error = refused(&[0, 0, 0, 11, code], &mut FrameCodec::after_handshake());
        assert!(matches!(error, FrameError::UnknownKind(unknown) if unknown == code));
        assert_eq!(error.to_error().code, ErrorCode::BadFrame);
    }
    let error = refused(&Frame::ping(1).to_bytes().unwrap(), &mut FrameCodec::new());
    assert!(matches!(error, FrameError::NoHandshake(Kind::Ping)));
}

#[test]
fn a_frame_cut_at_any_byte_is_an_error() {
    let bytes = hello().to_bytes().unwrap();
    assert!(decode_all(&mut FrameCodec::new(), b"").unwrap().is_empty());
    for end in 1..bytes.len() {
        let error = decode_all(&mut FrameCodec::new(), &bytes[..end]).unwrap_err();
        assert!(matches!(error, FrameError::CutOff(at) if at == end), "{end}: {error}");
    }
}

#[test]
fn other_protocols_are_told_apart() {
    for (start, what) in [
        (&b"GET / HTTP/1.1\r\n"[..], "HTTP"),
        (b"POST /enqueue HTTP/1.1\r\n", "HTTP"),
        (b"PRI * HTTP/2.0\r\n", "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01", "TLS"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"*1\r\n$4\r\nPING\r\n", "Redis"),
    ] {
        let error = decode_all(&mut FrameCodec::new(), start).unwrap_err().to_error();
        assert_eq!(error.code, ErrorCode::BadFrame);
        assert!(error.message.contains(what), "{}", error.message);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), open in any::<bool>()) {
        let mut codec = if open { FrameCodec::after_handshake() } else { FrameCodec::new() };
        let _ = decode_all(&mut codec, &bytes);
    }

    #[test]
    fn any_frame_comes_back(kind in 0..Kind::ALL.len(), id in any::<u64>(), command in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..100)) {
        let frame = Frame { kind: Kind::ALL[kind], id, command, body: body.into() };
        let bytes = frame.to_bytes().unwrap();
        prop_assert_eq!(decode_all(&mut FrameCodec::after_handshake(), &bytes).unwrap(), vec![frame]);
    }
}
