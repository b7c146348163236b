//! The hits of [`S3Fifo`] on traces, against those of a plain LRU with the same bytes.

use std::collections::BTreeMap;

use super::{LOOKS_MAX, Place, S3Fifo};
use crate::sim::Random;

/// Keys that are asked for by Zipf's law; numbers from here on belong to keys that are asked for once.
const KEYS: usize = 100_000;
const SKEW: f64 = 0.9;
const REQUESTS: usize = 200_000;

trait Cache {
    /// Somebody asks for a key: whether it was there. It is there afterwards.
    fn ask(&mut self, key: usize, bytes: usize) -> bool;
}

struct Lru {
    bytes_max: usize,
    bytes: usize,
    next: u64,
    ages: Vec<Option<u64>>,
    by_age: BTreeMap<u64, (usize, usize)>,
}

impl Lru {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, next: 0, ages: vec![None; KEYS + REQUESTS], by_age: BTreeMap::new() }
    }
}

impl Cache for Lru {
    fn ask(&mut self, key: usize, bytes: usize) -> bool {
        let before = self.ages[key].replace(self.next);
        self.by_age.insert(self.next, (key, bytes));
        self.next += 1;
        if let Some(age) = before {
            self.by_age.remove(&age);
            return true;
        }
        self.bytes += bytes;
        while self.bytes > self.bytes_max {
            let (_, (key, bytes)) = self.by_age.pop_first().expect("bytes belong to lines");
            self.ages[key] = None;
            self.bytes -= bytes;
        }
        false
    }
}

struct S3 {
    bytes_max: usize,
    order: S3Fifo,
    places: Vec<Option<Place>>,
}

impl S3 {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, order: S3Fifo::new(bytes_max), places: vec![None; KEYS + REQUESTS] }
    }
}

impl Cache for S3 {
    fn ask(&mut self, key: usize, bytes: usize) -> bool {
        if let Some(place) = self.places[key] {
            self.order.visits(place).bump();
            return true;
        }
        self.places[key] = Some(self.order.insert(&key.to_string(), bytes));
        let mut looks = LOOKS_MAX;
        while self.order.bytes() > self.bytes_max
            && let Some((place, key)) = self.order.victim(&mut looks)
        {
            let key: usize = key.parse().expect("the keys here are numbers");
            self.places[key] = None;
            self.order.evict(place);
        }
        false
    }
}

/// Zipf's law: the key number n is asked for in proportion to 1 / (n + 1)^0.9.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new() -> Self {
        let mut sum = 0.0;
        let weight = |n: usize| (n as f64).powf(-SKEW);
        let sums = (1..=KEYS).map(|n| {
            sum += weight(n);
            sum
        });
        Self(sums.collect())
    }

    fn draw(&self, random: &mut Random) -> usize {
        let at = (random.any() >> 11) as f64 / (1_u64 << 53) as f64 * self.0[KEYS - 1];
        self.0.partition_point(|sum| *sum <= at)
    }
}

/// Requests by Zipf's law, and after every `sweep` of them a sweep over as many keys that nobody asks for again.
fn trace(sweep: Option<usize>) -> Vec<usize> {
    let (zipf, mut random, mut cold) = (Zipf::new(), Random::new(7), KEYS..);
    let mut keys = Vec::new();
    while keys.len() < REQUESTS {
        keys.extend((0..sweep.unwrap_or(REQUESTS)).map(|_| zipf.draw(&mut random)));
        keys.extend(cold.by_ref().take(sweep.unwrap_or(0)));
    }
    keys.truncate(REQUESTS);
    keys
}

/// From 50 to 6,400 bytes, each power of two as often as every other; always the same for a key.
fn mixed(key: usize) -> usize {
    50 << Random::new(key as u64).below(8)
}

fn uniform(_: usize) -> usize {
    100
}

/// Misses after the first quarter of a trace, per request: of all, and of the keys that come again.
#[derive(Clone, Copy, Debug)]
struct Misses {
    all: f64,
    again: f64,
}

fn misses(cache: &mut impl Cache, trace: &[usize], bytes: fn(usize) -> usize) -> Misses {
    let (mut all, mut again, mut again_asked) = (0, 0, 0);
    for (at, key) in trace.iter().enumerate() {
        let missed = !cache.ask(*key, bytes(*key));
        if at >= trace.len() / 4 {
            all += u32::from(missed);
            again += u32::from(missed && *key < KEYS);
            again_asked += u32::from(*key < KEYS);
        }
    }
    let counted = trace.len() - trace.len() / 4;
    Misses { all: f64::from(all) / counted as f64, again: f64::from(again) / f64::from(again_asked) }
}

/// Both caches on one trace, with room for one in `part` of the bytes of all keys that come again. Returns by how much less
/// S3-FIFO misses: of all requests, and of those for keys that come again.
fn compare(what: &str, sweep: Option<usize>, part: usize, bytes: fn(usize) -> usize) -> Misses {
    let bytes_max = (0..KEYS).map(bytes).sum::<usize>() / part;
    let trace = trace(sweep);
    let lru = misses(&mut Lru::new(bytes_max), &trace, bytes);
    let s3 = misses(&mut S3::new(bytes_max), &trace, bytes);
    let ratio = Misses { all: s3.all / lru.all, again: s3.again / lru.again };
    println!(
        "{what}, 1/{part} of the bytes: LRU {:.3}, S3-FIFO {:.3}, ratio {:.3}; of all requests {:.3}, {:.3}, ratio {:.3}",
        lru.again, s3.again, ratio.again, lru.all, s3.all, ratio.all
    );
    ratio
}

#[test]
fn fewer_misses_than_lru_by_zipf() {
    for part in [100, 10] {
        let ratio = compare("Zipf", None, part, uniform);
        assert!(ratio.all <= 0.9, "{ratio:?}: an LRU would pass with 1");
    }
}

#[test]
fn a_scan_costs_less_than_with_lru() {
    // A sweep is as long as the cache has lines: an LRU keeps nothing of what was there before.
    for (part, sweep) in [(100, 1_000), (10, 10_000)] {
        let ratio = compare("Zipf and sweeps", Some(sweep), part, uniform);
        assert!(ratio.again <= 0.8 && ratio.all <= 0.95, "{ratio:?}");
    }
}

#[test]
fn a_scan_costs_less_than_with_lru_whatever_the_sizes() {
    let ratio = compare("Zipf and sweeps of 50 to 6,400 bytes", Some(10_000), 10, mixed);
    assert!(ratio.again <= 0.8 && ratio.all <= 0.95, "{ratio:?}");
}
