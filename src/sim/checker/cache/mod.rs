//! What the cache promises of one key: every client everywhere sees one register.
//!
//! Versions name the order that the cache claims for the writes of a key. The claim is checked against real time: what
//! begins after something ended must not be older than it, and a write is newer than all that ended before it began. With
//! unique values that is linearizability, without a search.
//!
//! [`Demands`] has what writes demanded, [`Counter`] the keys that are only added to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use trine_protocol::cache::{Filling, Got, OnlyIf, Put, Version};
use trine_protocol::{Request, Response};

use super::{Check, Operation, Verdict};
use crate::ids::GroupId;

use counter::Counter;
use demands::Demands;

mod counter;
mod demands;

/// Every key of the cluster, as its clients saw it.
#[derive(Debug, Default)]
pub(crate) struct CacheChecker {
    keys: BTreeMap<(GroupId, String), Key>,
    counters: BTreeMap<(GroupId, String), Counter>,
    /// A key whose floor has risen since it was last asked for.
    risen: Vec<(GroupId, String)>,
}

#[derive(Debug, Default)]
struct Key {
    /// What each write that was ever sent came to.
    writes: BTreeMap<Bytes, Fate>,
    /// What its writes demanded.
    demands: Demands,
    /// Deletes that were sent and neither refused nor acknowledged, and values that go by themselves: each may take effect once, at any time.
    deletes_possible: usize,
    /// The versions of the deletes that were acknowledged.
    deletes_done: BTreeSet<Version>,
    /// The value of each version that anyone saw, a client or a reader's table.
    versions: BTreeMap<Version, Option<Bytes>>,
    /// The newest version that an operation ended with.
    floor: Version,
    /// Of each operation without a verdict: the floor when it was sent.
    floors: BTreeMap<u64, Version>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Possible,
    Refused,
    Written(Version),
}

impl CacheChecker {
    /// A client has sent an operation.
    pub(crate) fn sent(&mut self, operation: &Operation) {
        let Some(name) = key_name(&operation.request) else { return };
        if is_counter(name) {
            let adds = matches!(operation.request, Request::Add(_));
            let counter = self.counters.entry((operation.group, name.clone())).or_default();
            return counter.sent(operation.number, adds);
        }
        let key = self.keys.entry((operation.group, name.clone())).or_default();
        key.floors.insert(operation.number, key.floor);
        match &operation.request {
            Request::Put(put) => {
                let earlier = key.writes.insert(put.value.clone(), Fate::Possible);
                assert_eq!(earlier, None, "the value {:?} is written twice", put.value);
                key.demands.sent(operation.number);
                key.deletes_possible += usize::from(put.ttl_ms > 0);
            }
            Request::Delete(_) => key.deletes_possible += 1,
            _ => {}
        }
    }

    /// A client knows what became of an operation.
    pub(crate) fn ended(&mut self, operation: &Operation, verdict: &Verdict) -> Check {
        let Some(name) = key_name(&operation.request) else { return Ok(()) };
        let id = (operation.group, name.clone());
        if is_counter(name) {
            let checked = self.counters.entry(id).or_default().ended(operation, verdict);
            return checked.map_err(|what| format!("counter {name} of {}: {what}", operation.group));
        }
        let key = self.keys.entry(id.clone()).or_default();
        let before = key.floor;
        let checked = key.ended(operation, verdict);
        if key.floor > before {
            self.risen.push(id);
        }
        checked.map_err(|what| format!("key {name} of {}: {what}", operation.group))
    }

    /// A reader's table shows that value: it counts as seen, though no client has asked for it.
    pub(crate) fn shown(&mut self, group: GroupId, name: &str, version: Version, value: Option<&Bytes>) -> Check {
        if is_counter(name) {
            return Ok(());
        }
        let key = self.keys.entry((group, name.to_string())).or_default();
        key.note(version, value).map_err(|what| format!("key {name} of {group}: {what}"))
    }

    /// No valid line may be older than this: a read that began now would be stale.
    pub(crate) fn floor(&self, group: GroupId, name: &str) -> Version {
        self.keys.get(&(group, name.to_string())).map(|key| key.floor).unwrap_or_default()
    }

    /// The keys whose floor has risen since the last call.
    pub(crate) fn take_risen(&mut self) -> Vec<(GroupId, String)> {
        std::mem::take(&mut self.risen)
    }
}

fn key_name(request: &Request) -> Option<&String> {
    match request {
        Request::Get(get) => Some(&get.key),
        Request::GetCopy(get) => Some(&get.key),
        Request::Put(put) => Some(&put.key),
        Request::Delete(delete) => Some(&delete.key),
        Request::Add(add) => Some(&add.key),
        Request::GetOrFill(get) => Some(&get.key),
        _ => None,
    }
}

/// Whether clients do nothing with that key but read it and add to it.
fn is_counter(name: &str) -> bool {
    name.starts_with('n')
}

impl Counter {
    fn ended(&mut self, operation: &Operation, verdict: &Verdict) -> Check {
        let number = operation.number;
        match verdict {
            Verdict::Answered(Response::Add(added)) => self.added(number, added.sum, added.version),
            Verdict::Answered(Response::Get(got)) => self.read(number, got.value.as_ref(), got.version),
            Verdict::Answered(Response::GetCopy(copy)) => self.read(number, copy.got.value.as_ref(), copy.got.version),
            verdict => {
                let adds = matches!(operation.request, Request::Add(_));
                self.gave_up(number, adds, matches!(verdict, Verdict::NotExecuted(_)));
                Ok(())
            }
        }
    }
}

impl Key {
    fn ended(&mut self, operation: &Operation, verdict: &Verdict) -> Check {
        let floor = self.floors.remove(&operation.number).unwrap_or_default();
        match (&operation.request, verdict) {
            (Request::Get(_), Verdict::Answered(Response::Get(got)))
            | (Request::GetOrFill(_), Verdict::Answered(Response::GetOrFill(Filling { found: Some(got), .. }))) => {
                self.read(got, floor)
            }
            (Request::GetCopy(_), Verdict::Answered(Response::GetCopy(copy))) => self.read(&copy.got, floor),
            (Request::GetOrFill(_), Verdict::Answered(Response::GetOrFill(Filling { found: None, token }))) => {
                self.demands.granted(*token);
                Ok(())
            }
            (Request::Put(put), Verdict::Answered(Response::Put(written))) => {
                self.writes.insert(put.value.clone(), Fate::Written(written.version));
                self.written(written.version, Some(&put.value), floor)?;
                self.demanded(operation.number, put, written.version)
            }
            (Request::Delete(_), Verdict::Answered(Response::Delete(written))) => {
                self.deletes_possible -= 1;
                self.deletes_done.insert(written.version);
                self.written(written.version, None, floor)?;
                self.explain_absence()
            }
            (Request::Put(put), Verdict::NotExecuted(code)) => {
                self.demands.ended(operation.number, None)?;
                self.deletes_possible -= usize::from(put.ttl_ms > 0);
                self.writes.insert(put.value.clone(), Fate::Refused);
                match self.versions.iter().find(|(_, value)| value.as_ref() == Some(&put.value)) {
                    Some((version, _)) => {
                        Err(format!("{:?} was refused with {code:?}, seen as {version:?}", put.value))
                    }
                    None => Ok(()),
                }
            }
            (Request::Delete(_), Verdict::NotExecuted(_)) => {
                self.deletes_possible -= 1;
                self.explain_absence()
            }
            _ => Ok(()),
        }
    }

    fn read(&mut self, got: &Got, floor: Version) -> Check {
        if got.version < floor {
            return Err(format!("stale read: {:?} after {floor:?}", got.version));
        }
        self.note(got.version, got.value.as_ref())?;
        self.floor = self.floor.max(got.version);
        Ok(())
    }

    /// A write was done: what it demanded was true of the version before its own.
    fn demanded(&mut self, number: u64, put: &Put, version: Version) -> Check {
        self.demands.ended(number, Some(version))?;
        if put.fill > 0 {
            self.demands.filled(put.fill, version)?;
        }
        let before = match version {
            Version { epoch, count: 0 } => Version { epoch: epoch - 1, count: u64::MAX },
            Version { epoch, count } => Version { epoch, count: count - 1 },
        };
        match put.only_if {
            OnlyIf::Anything | OnlyIf::Present => Ok(()),
            OnlyIf::Absent => self.note(before, None),
            OnlyIf::Version(from) => self.demands.swapped(from, version, self.versions.keys()),
        }
    }

    fn written(&mut self, version: Version, value: Option<&Bytes>, floor: Version) -> Check {
        if version <= floor {
            return Err(format!("{value:?} was written as {version:?}, not after {floor:?}"));
        }
        self.note(version, value)?;
        self.floor = self.floor.max(version);
        Ok(())
    }

    /// Someone saw this value under this version.
    fn note(&mut self, version: Version, value: Option<&Bytes>) -> Check {
        if let Some(known) = self.versions.get(&version) {
            if known.as_ref() != value {
                return Err(format!("{version:?} is both {known:?} and {value:?}"));
            }
            return Ok(());
        }
        self.demands.seen(version)?;
        self.versions.insert(version, value.cloned());
        let Some(value) = value else { return self.explain_absence() };
        match self.writes.get(value) {
            None => Err(format!("{value:?} as {version:?} was never written")),
            Some(Fate::Refused) => Err(format!("{value:?} as {version:?} was refused")),
            Some(Fate::Written(other)) if *other != version => {
                Err(format!("{value:?} was acknowledged as {other:?}, seen as {version:?}"))
            }
            _ => match self.versions.iter().find(|(other, of)| **other != version && of.as_ref() == Some(value)) {
                Some((other, _)) => Err(format!("{value:?} is both {other:?} and {version:?}: it was written twice")),
                None => Ok(()),
            },
        }
    }

    /// A key vanishes only by a delete. The absence of a key has a version of its own each time it is looked up, so what
    /// counts are the runs of versions without a value behind one with a value: each needs a delete.
    fn explain_absence(&self) -> Check {
        let (mut runs, mut explained, mut existed) = (0, true, false);
        for (version, value) in &self.versions {
            match value {
                Some(_) => existed = true,
                None if existed => {
                    runs += usize::from(!explained);
                    (existed, explained) = (false, self.deletes_done.contains(version));
                }
                None => explained |= self.deletes_done.contains(version),
            }
        }
        runs += usize::from(!explained);
        if runs > self.deletes_possible {
            let possible = self.deletes_possible;
            return Err(format!("the key vanished {runs} times more than by deletes; {possible} could have done it"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use trine_protocol::ErrorCode;
    use trine_protocol::cache::{Delete, Get, GetOrFill, LineState, Source, Written};

    use super::super::history::History;
    use super::*;

    fn get() -> Get {
        Get { key: "k".into() }
    }

    fn put(value: &'static str) -> Put {
        Put { key: "k".into(), value: Bytes::from_static(value.as_bytes()), ..Put::default() }
    }

    fn version(epoch: u64, count: u64) -> Version {
        Version { epoch, count }
    }

    fn got(value: Option<&'static str>, epoch: u64, count: u64) -> Response {
        let value = value.map(|value| Bytes::from_static(value.as_bytes()));
        let version = version(epoch, count);
        Response::Get(Got {
            value,
            version,
            state: LineState::S,
            source: Source::LocalCache,
            content_type: String::new(),
        })
    }

    fn written(epoch: u64, count: u64) -> Response {
        Response::Put(Written { version: version(epoch, count) })
    }

    fn rejected(checked: Check, why: &str) {
        let what = checked.expect_err("a violation");
        assert!(what.contains(why), "{what}");
    }

    fn with_two() -> History {
        let mut history = History::new();
        history.run(0, get(), got(None, 0, 0)).unwrap();
        history.run(2, put("a"), written(5, 0)).unwrap();
        history.run(4, put("b"), written(5, 1)).unwrap();
        history
    }

    #[test]
    fn a_faithful_cache_passes() {
        let mut history = with_two();
        let (slow_get, slow_put) = (history.send(5, get()), history.send(5, put("c")));
        history.run(6, get(), got(Some("b"), 5, 1)).unwrap();
        history.run(8, get(), got(Some("c"), 9, 0)).unwrap();
        history.end(10, &slow_get, Verdict::Answered(got(Some("b"), 5, 1))).unwrap();
        history.end(10, &slow_put, Verdict::Unknown).unwrap();
        let delete = Delete { key: "k".into(), ..Delete::default() };
        history.run(12, delete, Response::Delete(Written { version: version(9, 1) })).unwrap();
        history.run(14, get(), got(None, 9, 1)).unwrap();
        assert_eq!(history.services.cache.take_risen().len(), 4);
    }

    #[test]
    fn stale_reads_and_lost_writes_are_rejected() {
        rejected(with_two().run(6, get(), got(Some("a"), 5, 0)), "stale read");
        rejected(with_two().run(6, get(), got(None, 0, 0)), "stale read");
        // A read that another client's read has overtaken: new, then old.
        let mut history = with_two();
        let open = history.send(5, put("c"));
        history.run(6, get(), got(Some("c"), 9, 0)).unwrap();
        rejected(history.run(8, get(), got(Some("b"), 5, 1)), "stale read");
        history.end(9, &open, Verdict::Unknown).unwrap();
    }

    #[test]
    fn a_write_is_newer_than_all_before_it() {
        rejected(with_two().run(6, put("c"), written(5, 1)), "not after");
        rejected(with_two().run(6, put("c"), written(4, 7)), "not after");
    }

    #[test]
    fn one_version_has_one_value_and_one_value_one_version() {
        rejected(with_two().run(6, get(), got(Some("a"), 5, 1)), "is both");
        rejected(with_two().run(6, get(), got(Some("b"), 6, 0)), "acknowledged as");
        let mut history = with_two();
        history.send(5, put("c"));
        history.run(6, get(), got(Some("c"), 9, 0)).unwrap();
        rejected(history.run(8, get(), got(Some("c"), 10, 0)), "written twice");
    }

    #[test]
    fn values_come_from_writes_that_were_not_refused() {
        rejected(with_two().run(6, get(), got(Some("x"), 9, 0)), "never written");
        let mut history = with_two();
        let refused = history.send(6, put("c"));
        history.end(7, &refused, Verdict::NotExecuted(ErrorCode::OwnerAway)).unwrap();
        rejected(history.run(8, get(), got(Some("c"), 9, 0)), "was refused");
        let mut history = with_two();
        let refused = history.send(6, put("c"));
        history.run(8, get(), got(Some("c"), 9, 0)).unwrap();
        rejected(history.end(9, &refused, Verdict::NotExecuted(ErrorCode::OwnerAway)), "seen as");
    }

    #[test]
    fn a_key_vanishes_only_by_a_delete() {
        rejected(with_two().run(6, get(), got(None, 9, 0)), "vanished");
        // One delete explains one run of absences, however often it was looked up, and not a second.
        let mut history = with_two();
        let open = history.send(6, Delete { key: "k".into(), ..Delete::default() });
        history.run(7, get(), got(None, 9, 0)).unwrap();
        history.run(9, get(), got(None, 11, 0)).unwrap();
        history.run(11, put("c"), written(12, 0)).unwrap();
        rejected(history.run(13, get(), got(None, 14, 0)), "vanished");
        history.end(15, &open, Verdict::Unknown).unwrap();
    }

    #[test]
    fn what_a_write_demands_was_so() {
        let put = |value, only_if| Put { only_if, ..put(value) };
        // Between what a swap found and what it wrote there was nothing.
        rejected(with_two().run(6, put("c", OnlyIf::Version(version(5, 0))), written(9, 0)), "was between");
        let mut history = with_two();
        history.run(6, put("c", OnlyIf::Version(version(5, 1))), written(9, 0)).unwrap();
        let late = history.send(7, put("d", OnlyIf::Anything));
        rejected(history.end(8, &late, Verdict::Answered(written(7, 0))), "not after");
        // Who put if absent found nothing, so somebody deleted it.
        rejected(with_two().run(6, put("c", OnlyIf::Absent), written(9, 0)), "vanished");
        rejected(with_two().run(6, put("c", OnlyIf::Absent), written(5, 2)), "is both");
        let mut history = with_two();
        history.send(5, Put { ttl_ms: 1, ..put("e", OnlyIf::Anything) });
        history.run(6, put("c", OnlyIf::Absent), written(9, 0)).unwrap();
    }

    #[test]
    fn a_late_fill_writes_over_nothing() {
        let get = || GetOrFill { key: "k".into(), lease_ms: 100 };
        let grant = |token| Response::GetOrFill(Filling::yours(token));
        let mut history = History::new();
        history.run(0, get(), grant(3)).unwrap();
        history.run(2, put("a"), written(5, 0)).unwrap();
        rejected(history.run(4, Put { fill: 3, ..put("b") }, written(9, 0)), "filled over");
        let mut history = History::new();
        history.run(0, get(), grant(3)).unwrap();
        let open = history.send(2, put("a"));
        history.run(4, Put { fill: 3, ..put("b") }, written(9, 0)).unwrap();
        rejected(history.end(6, &open, Verdict::Answered(written(5, 0))), "filled over");
        rejected(History::new().run(0, Put { fill: 9, ..put("b") }, written(9, 0)), "given to nobody");
    }

    #[test]
    fn a_line_that_is_shown_counts_as_seen() {
        let mut history = with_two();
        let wrong = Bytes::from_static(b"a");
        rejected(history.services.cache.shown(GroupId(0), "k", version(5, 1), Some(&wrong)), "is both");
    }
}
