use super::*;

fn hello() -> Hello {
    Hello::client("worker-7", Bytes::from_static(b"secret"))
}

#[test]
fn hello_and_welcome_come_back() {
    assert_eq!(Hello::from_frame(&hello().to_frame()).unwrap(), hello());
    let made = welcome(&hello(), "node1", 5, 9, 3).unwrap();
    assert_eq!((made.version, made.node.as_str(), made.groups), (VERSION_MAX, "node1", 3));
    assert_eq!(Welcome::from_frame(&made.to_frame()).unwrap(), made);
}

#[test]
fn the_newest_common_version_is_chosen() {
    for (min, max, chosen) in [(1, 1, Some(1)), (0, 9, Some(1)), (2, 9, None), (0, 0, None), (5, 1, None)] {
        let offered = Hello { version_min: min, version_max: max, ..hello() };
        match offered.negotiate() {
            Ok(version) => assert_eq!(Some(version), chosen, "{min}..={max}"),
            Err(error) => {
                assert_eq!((error.code, chosen), (ErrorCode::UnsupportedVersion, None), "{min}..={max}");
                assert!(error.message.contains(&format!("{min} to {max}")), "{}", error.message);
            }
        }
    }
}

#[test]
fn another_cluster_is_refused_and_none_is_not() {
    let meant = |cluster_id| welcome(&Hello { cluster_id, ..hello() }, "node1", 5, 9, 3);
    assert!(meant(0).is_ok());
    assert!(meant(9).is_ok());
    assert_eq!(meant(8).unwrap_err().code, ErrorCode::WrongCluster);
}

#[test]
fn what_is_no_hello_is_refused() {
    assert_eq!(Hello::from_frame(&Frame::ping(1)).unwrap_err().code, ErrorCode::BadFrame);
    // The magic is "HTTP".
    let stranger = Frame::new(Kind::Hello, Bytes::from_static(b"\x98\xa4HTTP\x01\x01\xa6Client\xa1c\0\0\xc4\0"));
    let error = Hello::from_frame(&stranger).unwrap_err();
    assert_eq!(error.code, ErrorCode::MalformedBody);
    assert!(error.message.contains("Hello.magic") && error.message.contains("HTTP"), "{}", error.message);
}

#[test]
fn names_and_credentials_have_their_limits() {
    let code = |hello: Hello| Hello::from_frame(&hello.to_frame()).map_err(|error| error.code);
    let named = |bytes: usize| Hello { name: "n".repeat(bytes), ..hello() };
    assert_eq!(code(named(0)), Err(ErrorCode::InvalidArgument));
    assert!(code(named(limits::NAME_BYTES_MAX)).is_ok());
    assert_eq!(code(named(limits::NAME_BYTES_MAX + 1)), Err(ErrorCode::TooLarge));
    let with = |bytes: usize| Hello { credentials: vec![0; bytes].into(), ..hello() };
    assert!(code(with(limits::CREDENTIALS_BYTES_MAX)).is_ok());
    assert_eq!(code(with(limits::CREDENTIALS_BYTES_MAX + 1)), Err(ErrorCode::TooLarge));
}

#[test]
fn the_largest_hello_fits_its_limit() {
    let largest = Hello {
        name: "n".repeat(limits::NAME_BYTES_MAX),
        credentials: vec![0; limits::CREDENTIALS_BYTES_MAX].into(),
        ..Hello::peer("", u64::MAX, u64::MAX, Bytes::new())
    };
    assert!(largest.to_frame().wire_bytes() < limits::HANDSHAKE_BYTES_MAX);
}

#[test]
fn a_refusal_reads_as_the_error_it_carries() {
    let refusal = Error::new(ErrorCode::Unauthenticated, "no").retry_after(5).with_hint("h");
    assert_eq!(Welcome::from_frame(&Frame::goodbye(&refusal)).unwrap_err(), refusal);
    assert_eq!(Welcome::from_frame(&Frame::pong(1)).unwrap_err().code, ErrorCode::BadFrame);
    let strange = Welcome { version: 9, ..welcome(&hello(), "node1", 5, 9, 3).unwrap() };
    assert_eq!(Welcome::from_frame(&strange.to_frame()).unwrap_err().code, ErrorCode::UnsupportedVersion);
}
