//! Golden bytes: what everything looks like on the wire, and that every cut of it is an error.
//!
//! `UPDATE_GOLDEN=1 cargo test -p trine-protocol --test contract` writes the files anew. A difference in them is a difference
//! of the protocol: explain it, or undo it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;
use trine_protocol::frame::{Frame, FrameError, HEADER_BYTES, Kind, LENGTH_BYTES};
use trine_protocol::{Command, ErrorCode};

use super::samples::{self, Sample};

/// Bytes on one line of a golden file.
const LINE_BYTES: usize = 32;

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| {
        let pairs: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("    {}\n", pairs.join(" "))
    };
    bytes.chunks(LINE_BYTES).map(line).collect()
}

fn paragraph(sample: &Sample) -> String {
    let bytes = sample.frame.to_bytes().unwrap();
    let (header, body) = bytes.split_at(LENGTH_BYTES + HEADER_BYTES);
    format!("{}\n  {}\n{}{}\n", sample.name, sample.says, hex(header), hex(body))
}

#[test]
fn every_frame_has_its_golden_bytes() {
    let mut files = BTreeMap::<&str, String>::new();
    for sample in samples::all() {
        files.entry(sample.file).or_default().push_str(&paragraph(&sample));
    }
    for (name, text) in files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = golden.lines().zip(text.lines()).find(|(golden, now)| golden != now);
        assert!(golden == text, "{name}.txt differs, first in (golden, now): {differs:#?}");
    }
}

#[test]
fn every_frame_says_what_was_said() {
    for sample in samples::all() {
        assert_eq!(samples::read(&sample.frame.to_bytes().unwrap()).unwrap(), sample.says, "{}", sample.name);
    }
}

#[test]
fn nothing_is_left_out() {
    let samples = samples::all();
    let of_kind = |kind: Kind| samples.iter().filter(move |sample| sample.frame.kind == kind);
    for kind in Kind::ALL {
        assert!(of_kind(*kind).next().is_some(), "no sample is a {kind:?}");
    }
    for kind in [Kind::Request, Kind::Response] {
        let codes: BTreeSet<u16> = of_kind(kind).map(|sample| sample.frame.command).collect();
        let all: BTreeSet<u16> = Command::ALL.iter().map(|command| command.code()).collect();
        assert_eq!(codes, all, "{kind:?}");
    }
    let names: BTreeSet<&str> = samples.iter().map(|sample| sample.name.as_str()).collect();
    assert_eq!(names.len(), samples.len(), "two samples have one name");
}

#[test]
fn a_frame_cut_at_any_byte_is_an_error() {
    for sample in samples::all() {
        let bytes = sample.frame.to_bytes().unwrap();
        for end in 0..bytes.len() {
            let error = samples::read(&bytes[..end]).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadFrame, "{} cut at {end}", sample.name);
        }
        let cut_off = FrameError::CutOff(5).to_error().message;
        assert_eq!(samples::read(&bytes[..5]).unwrap_err().message, cut_off, "{}", sample.name);
    }
}

#[test]
fn a_body_cut_at_any_byte_or_longer_by_one_is_an_error() {
    let with_message =
        |sample: &Sample| !matches!(sample.frame.kind, Kind::Push | Kind::Ping | Kind::Pong | Kind::Peer);
    let mut cuts = 0;
    for sample in samples::all().into_iter().filter(with_message) {
        let whole = &sample.frame.body;
        for end in 0..whole.len() {
            let frame = Frame { body: whole.slice(..end), ..sample.frame.clone() };
            let error = samples::read_body(&frame).unwrap_err();
            assert_eq!(error.code, ErrorCode::MalformedBody, "{} cut at {end}: {error}", sample.name);
            cuts += 1;
        }
        let longer = Frame { body: [whole, &b"\xc0"[..]].concat().into(), ..sample.frame.clone() };
        assert_eq!(samples::read_body(&longer).unwrap_err().code, ErrorCode::MalformedBody, "{}", sample.name);
    }
    assert!(cuts > 500, "only {cuts} cuts were made");
}

proptest! {
    /// Bytes that are nearly right get further into a decoder than random ones.
    #[test]
    fn no_damage_makes_a_reader_panic(
        sample in 0..samples::all().len(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let mut bytes = samples::all()[sample].frame.to_bytes().unwrap().to_vec();
        for (place, byte, how) in damage {
            let at = place.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        let _ = samples::read_damaged(&bytes);
        // With a right frame around it, the damaged body is read for sure.
        if let Some(body) = bytes.get(LENGTH_BYTES + HEADER_BYTES..) {
            let frame = Frame { body: body.to_vec().into(), ..samples::all()[sample].frame.clone() };
            let _ = samples::read_body(&frame);
        }
    }
}
