//! What goes and what stays, line by line; then everything at once against a model that is slow and plain.

use std::collections::BTreeMap;

use super::*;
use crate::sim::Random;

/// Room for ten lines of ten bytes: one in the small queue, nine in the main queue.
const ROOM: usize = 100;

struct Cache {
    order: S3Fifo,
    places: BTreeMap<String, Place>,
}

impl Cache {
    fn new() -> Self {
        Self { order: S3Fifo::new(ROOM), places: BTreeMap::new() }
    }

    fn insert(&mut self, key: &str, bytes: usize) {
        assert!(self.places.insert(key.to_owned(), self.order.insert(key, bytes)).is_none(), "{key} is new");
    }

    fn visit(&mut self, key: &str, times: usize) {
        (0..times).for_each(|_| self.order.visits(self.places[key]).bump());
    }

    /// Evicts until there is room, within the looks of one step. The keys that went.
    fn make_room(&mut self) -> Vec<String> {
        let (mut looks, mut gone) = (LOOKS_MAX, Vec::new());
        while self.order.bytes() > ROOM
            && let Some((place, key)) = self.order.victim(&mut looks)
        {
            gone.push(key.to_owned());
            self.order.evict(place);
        }
        gone.iter().for_each(|key| assert!(self.places.remove(key).is_some(), "{key} was there"));
        self.order.check();
        gone
    }

    /// A key is asked for, and there is room again.
    fn ask(&mut self, key: &str) -> Vec<String> {
        if self.places.contains_key(key) {
            self.visit(key, 1);
            return Vec::new();
        }
        self.insert(key, 10);
        self.make_room()
    }

    fn remove(&mut self, key: &str) {
        self.order.remove(self.places.remove(key).expect("it is there"));
    }
}

#[test]
fn new_lines_go_in_the_order_in_which_they_came_unless_they_were_wanted_twice() {
    let mut cache = Cache::new();
    for key in ["once", "never", "twice", "c", "d", "e", "f", "g", "h", "i"] {
        assert!(cache.ask(key).is_empty());
    }
    cache.visit("once", 1);
    cache.visit("twice", 2);
    assert_eq!(cache.ask("j"), ["once"]);
    assert_eq!(cache.ask("k"), ["never"]);
    assert_eq!(cache.ask("l"), ["c"], "`twice` is in the main queue");
    assert_eq!(cache.ask("m"), ["d"]);
}

#[test]
fn what_comes_back_soon_outlives_a_scan_and_what_comes_back_late_does_not() {
    let mut cache = Cache::new();
    let went: Vec<String> = (0..30).flat_map(|n| cache.ask(&format!("scan{n}"))).collect();
    // Of the 20 that went, as many are remembered as the main queue would have.
    assert_eq!(went.len(), 20);
    cache.ask("scan19");
    cache.ask("scan0");
    (30..60).for_each(|n| drop(cache.ask(&format!("scan{n}"))));
    assert!(cache.places.contains_key("scan19") && !cache.places.contains_key("scan0"), "{:?}", cache.places);
}

#[test]
fn a_visited_line_of_the_main_queue_goes_round_and_pays_a_visit_for_it() {
    let mut cache = Cache::new();
    for key in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"] {
        cache.ask(key);
        cache.visit(key, 3);
    }
    assert_eq!(cache.ask("a"), ["0"], "all move to the main queue, where their visits count anew");
    cache.visit("1", 2);
    cache.visit("3", 1);
    // Two new ones in turn: one waits in the small queue while the other comes back from the ghosts into the main queue.
    let went: Vec<String> = ["b", "a", "c", "b", "d", "c", "e", "d", "f", "e", "g", "f", "h", "g", "i", "h"]
        .iter()
        .flat_map(|key| cache.ask(key))
        .collect();
    assert_eq!(went, ["a", "2", "b", "4", "c", "5", "d", "6", "e", "7", "f", "8", "g", "9", "h", "a"]);
    let went: Vec<String> = ["j", "i", "k", "j", "l", "k"].iter().flat_map(|key| cache.ask(key)).collect();
    assert_eq!(went, ["i", "b", "j", "3", "k", "c"], "1 had a visit left");
}

#[test]
fn a_step_looks_at_so_many_lines_and_then_takes_the_one_that_it_has() {
    let mut order = S3Fifo::new(1_000);
    let places: Vec<Place> = (0..100).map(|n| order.insert(&n.to_string(), 20)).collect();
    let visit_all = |order: &S3Fifo| places.iter().for_each(|place| (0..3).for_each(|_| order.visits(*place).bump()));
    visit_all(&order);
    let mut looks = 0;
    assert_eq!(order.victim(&mut looks), None, "no look is left");
    // All of the small queue is wanted, and all but a tenth of the room moves, step after step.
    for step in 0..5 {
        let mut looks = LOOKS_MAX;
        assert_eq!((order.victim(&mut looks), looks), (None, 0), "step {step}");
    }
    let mut looks = LOOKS_MAX;
    assert_eq!(order.victim(&mut looks), Some((places[0], "0")), "95 have moved, and the visits of each are wiped out");
    assert_eq!(looks, 0);
    visit_all(&order);
    let mut looks = LOOKS_MAX;
    assert_eq!(order.victim(&mut looks), Some((places[15], "15")), "the last that is looked at goes");
    assert_eq!((looks, order.visits(places[14]).get(), order.visits(places[15]).get()), (0, 2, 3));
    order.check();
}

#[test]
fn a_line_larger_than_all_the_room_goes_and_nothing_else() {
    let mut cache = Cache::new();
    (0..10).for_each(|n| drop(cache.ask(&n.to_string())));
    cache.insert("large", ROOM + 1);
    cache.visit("large", 3);
    assert_eq!(cache.make_room(), ["large"]);
    // One that grows, wherever it is.
    for key in ["3", "4"] {
        cache.visit(key, 2);
    }
    assert_eq!(cache.ask("a"), ["0"]);
    assert_eq!(cache.ask("b"), ["1"]);
    assert_eq!(cache.ask("c"), ["2"]);
    assert_eq!(cache.ask("d"), ["5"], "3 and 4 are in the main queue");
    cache.visit("4", 3);
    cache.order.resize(cache.places["4"], ROOM + 1);
    assert_eq!(cache.make_room(), ["4"]);
}

#[test]
fn bytes_count_and_not_lines() {
    let mut cache = Cache::new();
    cache.insert("half", 50);
    (0..5).for_each(|n| cache.insert(&n.to_string(), 10));
    assert!(cache.make_room().is_empty());
    cache.order.resize(cache.places["4"], 11);
    assert_eq!(cache.make_room(), ["half"], "one byte too many");
    assert_eq!(cache.order.bytes(), 51);
    cache.insert("more", 59);
    assert_eq!(cache.make_room(), ["0"], "one of ten bytes is enough");
}

#[test]
fn what_is_spared_is_looked_at_after_the_others_of_its_queue() {
    let mut cache = Cache::new();
    for key in ["a", "b", "c"] {
        cache.insert(key, 30);
    }
    let named: Vec<String> = (0..4)
        .map(|_| {
            let (place, key) = cache.order.victim(&mut LOOKS_MAX.clone()).expect("there are some");
            let key = key.to_owned();
            cache.order.spare(place);
            key
        })
        .collect();
    assert_eq!(named, ["a", "b", "c", "a"]);
    cache.order.check();
}

#[test]
fn a_line_of_the_main_queue_that_was_removed_comes_back_into_it_and_one_of_the_small_queue_does_not() {
    let mut cache = Cache::new();
    for key in ["main", "small", "c", "d", "e", "f", "g", "h", "i", "j"] {
        cache.ask(key);
    }
    cache.visit("main", 2);
    assert_eq!(cache.ask("k"), ["small"]);
    cache.ask("small-too");
    cache.remove("main");
    cache.remove("small-too");
    for key in ["main", "small-too"] {
        cache.ask(key);
    }
    (0..20).for_each(|n| drop(cache.ask(&format!("scan{n}"))));
    assert!(cache.places.contains_key("main") && !cache.places.contains_key("small-too"), "{:?}", cache.places);
}

#[test]
fn what_was_removed_leaves_no_garbage_that_grows() {
    let mut cache = Cache::new();
    for n in 0..2_000 {
        cache.ask(&format!("evicted{n}"));
        cache.insert(&format!("removed{n}"), 10);
        cache.remove(&format!("removed{n}"));
        if n % 3 == 0 {
            cache.ask(&format!("evicted{}", n - n % 2));
        }
    }
    assert!(cache.order.queues.places() <= 12, "{} places", cache.order.queues.places());
    assert!(cache.order.ghosts.len() <= 9, "{} ghosts", cache.order.ghosts.len());
    let keys: Vec<String> = cache.places.keys().cloned().collect();
    keys.iter().for_each(|key| cache.remove(key));
    assert_eq!((cache.order.queues.places(), cache.order.bytes(), cache.order.lines()), (0, 0, 0));
}

#[test]
fn there_are_fewer_ghosts_than_lines_and_so_many_at_most() {
    assert_eq!([0, 1, 10, 19, 100].map(ghosts_max), [0, 0, 9, 17, 90]);
    assert_eq!([600_000, usize::MAX].map(ghosts_max), [GHOSTS_MAX; 2]);
}

/// The same with plain lists.
#[derive(Default)]
struct Model {
    small: Vec<Plain>,
    main: Vec<Plain>,
    ghosts: Vec<String>,
}

#[derive(Clone)]
struct Plain {
    key: String,
    bytes: usize,
    visits: u8,
}

impl Model {
    fn insert(&mut self, key: &str, bytes: usize) {
        let known = self.ghosts.iter().position(|ghost| ghost == key).map(|at| self.ghosts.remove(at));
        let line = Plain { key: key.to_owned(), bytes, visits: 0 };
        if known.is_some() {
            self.main.push(line)
        } else {
            self.small.push(line)
        }
        self.oversize_first(key);
    }

    fn oversize_first(&mut self, key: &str) {
        if self.line(key).bytes > ROOM {
            let (line, _) = self.take(key);
            self.small.insert(0, line);
        }
    }

    fn line(&mut self, key: &str) -> &mut Plain {
        self.small.iter_mut().chain(&mut self.main).find(|line| line.key == key).expect("it is there")
    }

    fn take(&mut self, key: &str) -> (Plain, bool) {
        match self.small.iter().position(|line| line.key == key) {
            Some(at) => (self.small.remove(at), true),
            None => {
                let at = self.main.iter().position(|line| line.key == key).expect("it is there");
                (self.main.remove(at), false)
            }
        }
    }

    fn goes(&mut self, key: &str, evicted: bool) {
        let (_, small) = self.take(key);
        if small == evicted {
            self.ghosts.retain(|ghost| ghost != key);
            self.ghosts.push(key.to_owned());
            let most = (self.small.len() + self.main.len()) * 9 / 10;
            self.ghosts.drain(..self.ghosts.len().saturating_sub(most));
        }
    }

    fn spare(&mut self, key: &str) {
        let (line, small) = self.take(key);
        if small { self.small.push(line) } else { self.main.push(line) }
    }

    fn victim(&mut self) -> Option<String> {
        for look in 1..=LOOKS_MAX {
            let small_bytes: usize = self.small.iter().map(|line| line.bytes).sum();
            let main = small_bytes <= ROOM / 10 && !self.main.is_empty();
            let line = if main { self.main.first() } else { self.small.first() }?.clone();
            let stays = if main { line.visits > 0 && look < LOOKS_MAX } else { line.visits >= 2 && line.bytes <= ROOM };
            if !stays {
                return Some(line.key);
            }
            self.take(&line.key);
            self.main.push(Plain { visits: if main { line.visits - 1 } else { 0 }, ..line });
        }
        None
    }
}

#[test]
fn it_does_what_plain_lists_do() {
    let (mut evicted, mut mains) = (0, 0);
    for seed in 0..40 {
        let (mut random, mut cache, mut model) = (Random::new(seed), Cache::new(), Model::default());
        for _ in 0..400 {
            let key = random.below(30).to_string();
            let bytes = random.between(0, 12) as usize + if random.chance(20) { ROOM } else { 0 };
            match (cache.places.get(&key).copied(), random.below(10)) {
                (None, _) => {
                    cache.insert(&key, bytes);
                    model.insert(&key, bytes);
                }
                (Some(_), 0) => {
                    cache.remove(&key);
                    model.goes(&key, false);
                }
                (Some(place), 1) => {
                    cache.order.resize(place, bytes);
                    model.line(&key).bytes = bytes;
                    model.oversize_first(&key);
                }
                _ => {
                    cache.visit(&key, 1);
                    model.line(&key).visits = 3.min(model.line(&key).visits + 1);
                }
            }
            while cache.order.bytes() > ROOM {
                let named = cache.order.victim(&mut LOOKS_MAX.clone()).map(|(place, key)| (place, key.to_owned()));
                assert_eq!(named.as_ref().map(|(_, key)| key), model.victim().as_ref(), "seed {seed}");
                let Some((place, key)) = named else { break };
                if random.chance(300) {
                    cache.order.spare(place);
                    model.spare(&key);
                } else {
                    cache.order.evict(place);
                    cache.places.remove(&key);
                    model.goes(&key, true);
                    evicted += 1;
                }
            }
            cache.order.check();
            mains += model.main.len();
        }
    }
    assert!(evicted > 1_000 && mains > 10_000, "{evicted} evicted, {mains} in the main queue");
}
