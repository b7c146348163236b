//! What the snoop bus promises at every instant, seen from above all nodes at once.
//!
//! - A line in M that may be served is the only one that may be. - No line that may be served is older than the newest
//!   version that any operation ended with: a read that began now would be stale. - No two nodes have a line in E.

use trine_protocol::cache::{LineState, Version};

use super::Check;
use crate::cache::Lines;
use crate::sim::network::Place;

/// One node's table of lines of a group, and that node's clock now.
pub(crate) struct Reader<'a> {
    pub(crate) place: Place,
    pub(crate) mono_us: u64,
    pub(crate) lines: &'a Lines,
}

/// Checks one key over all nodes.
pub(crate) fn check<'a>(readers: impl Iterator<Item = Reader<'a>>, key: &str, floor: Version) -> Check {
    let mut sole: Option<(Place, LineState)> = None;
    let mut any: Option<(Place, LineState)> = None;
    for reader in readers {
        let Some(found) = reader.lines.peek(key).filter(|found| found.is_valid_at(reader.mono_us)) else { continue };
        let (place, state, version) = (reader.place, found.line.state, found.line.value.version);
        if version < floor {
            return Err(format!("key {key}: node {place} would serve {version:?} in {state:?} after {floor:?}"));
        }
        let conflict = match state {
            LineState::M => any,
            LineState::E => sole,
            LineState::S => sole.filter(|(_, state)| *state == LineState::M),
            LineState::I => return Err(format!("key {key}: node {place} shows a line in I")),
        };
        if let Some((other, its)) = conflict {
            return Err(format!("key {key}: node {place} has it in {state:?} while node {other} has it in {its:?}"));
        }
        any = Some((place, state));
        if state != LineState::S {
            sole = any;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{LeaseTag, Line, LineChange, Versioned, Visits};

    fn lines(state: LineState, epoch: u64, until_us: u64) -> Lines {
        let tag = LeaseTag { term: 1, number: 1 };
        let value = Versioned::new(Version { epoch, count: 0 }, None);
        let mut lines = Lines::default();
        lines.apply(LineChange::Lease(tag, until_us));
        lines.apply(LineChange::Put("k".into(), Line { state, value, tag, visits: Visits::default() }));
        lines
    }

    fn checked(of: &[Lines], floor: u64) -> Check {
        let readers = of.iter().enumerate().map(|(place, lines)| Reader { place, mono_us: 100, lines });
        check(readers, "k", Version { epoch: floor, count: 0 })
    }

    #[test]
    fn one_writer_or_many_readers() {
        use LineState::{E, M, S};
        checked(&[lines(S, 5, 200), lines(S, 5, 200), lines(E, 5, 200)], 5).unwrap();
        checked(&[lines(M, 6, 200), lines(S, 5, 100), lines(E, 5, 90)], 6).unwrap();
        for pair in [[M, S], [S, M], [M, M], [M, E], [E, M], [E, E]] {
            let both = pair.map(|state| lines(state, 5, 200));
            assert!(checked(&both, 5).unwrap_err().contains("while node 0"), "{pair:?}");
        }
    }

    #[test]
    fn a_line_older_than_the_floor_must_not_be_valid() {
        assert!(checked(&[lines(LineState::S, 5, 200)], 6).unwrap_err().contains("would serve"));
        checked(&[lines(LineState::S, 5, 100)], 6).unwrap();
    }
}
