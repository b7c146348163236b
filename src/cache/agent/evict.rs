//! Room for other lines: which line goes says [`S3Fifo`](crate::cache::eviction::S3Fifo), how it goes is said here.
//!
//! A clean line goes at once, and the home is not told. A dirty one is written back first, and goes when its turn comes again.

use crate::cache::eviction::{LOOKS_MAX, Place};
use crate::rules::{Rule, Rules};

use super::slot::State;
use super::{Agent, Turn};

impl<R: Rules> Agent<R> {
    /// Makes room. Where more lines would have to be looked at than one step may, the next step that adds to the lines goes on.
    pub(super) fn evict(&mut self, turn: &mut Turn<'_>) {
        let mut looks = LOOKS_MAX;
        while self.order.bytes() > self.config.lines_bytes_max {
            let Some((place, key)) = self.order.victim(&mut looks) else { return };
            let key = key.to_owned();
            let slot = self.slots.get_mut(&key).expect("every line in the order has a slot");
            let goes = matches!(slot.state, State::Clean(_)) || R::without(Rule::DirtyLineEvicted);
            if !goes {
                self.order.spare(place);
                self.leave(turn, &key, None);
                continue;
            }
            slot.place = None;
            self.because(turn, "others need its room");
            self.counts.evictions += 1;
            self.order.evict(place);
            turn.out.retract(&key);
            self.set(&key, State::Invalid);
            self.pump(turn, &key);
        }
    }

    /// This node has served a hit by itself, not out of the table that readers see.
    pub(super) fn visited(&self, place: Option<Place>) {
        if let Some(place) = place {
            self.order.visits(place).bump();
        }
    }
}

#[cfg(test)]
mod tests {
    use trine_protocol::cache::{LineState, Version};

    use super::super::testing::{Scene, TAG};
    use super::*;
    use crate::cache::{AgentOut, Change, Config, LineChange, Lines, Operation, ToHome, ToNode, Versioned};
    use crate::rules::Faithful;

    const EPOCH: u64 = 9;

    /// A node with room for ten lines of ten bytes, and the table that its readers see.
    struct Node {
        scene: Scene,
        lines: Lines,
    }

    impl Node {
        fn new(lines_bytes_max: usize) -> Self {
            let config = Config { lines_bytes_max, dirty_us_max: 3_600_000_000, ..Config::default() };
            let mut lines = Lines::default();
            lines.apply(LineChange::Lease(TAG, u64::MAX));
            Self { scene: Scene::new(config), lines }
        }

        fn act(&mut self, act: impl FnOnce(&mut Agent<Faithful>, &mut Turn<'_>)) -> AgentOut {
            let out = self.scene.act(act);
            out.retract.iter().chain(&out.publish).for_each(|change| self.lines.apply(change.clone()));
            self.scene.act(|agent, _| agent.check_stats());
            out
        }

        fn ask(&mut self, key: &str, operation: Operation) -> AgentOut {
            self.act(|agent, turn| agent.operation(turn, 1, key, operation))
        }

        /// A miss: the home sends a value of so many bytes.
        fn fill(&mut self, key: &str, bytes: usize) -> AgentOut {
            let asked = self.ask(key, Operation::Get);
            let [ToHome::BusRd { request, .. }] = asked.to_home[..] else { panic!("{asked:?}") };
            let value = versioned(0, bytes);
            let (key, state) = (key.to_owned(), LineState::S);
            let filled = ToNode::Filled { request, key, tag: TAG, state, value, writer: None };
            let out = self.act(|agent, turn| agent.handle(turn, filled));
            assert_eq!(out.reply.len(), 1, "{out:?}");
            out
        }

        /// Lines of ten bytes, one after the other.
        fn scan(&mut self, numbers: std::ops::Range<u32>) {
            for n in numbers {
                self.fill(&format!("scan{n:04}"), 2);
            }
        }

        /// A write of a line that is not this node's.
        fn own(&mut self, key: &str, bytes: usize) -> AgentOut {
            let asked = self.ask(key, put(bytes));
            let [ToHome::BusRdX { write, .. }] = asked.to_home[..] else { panic!("{asked:?}") };
            let owned = ToNode::Owned { write, key: key.into(), tag: TAG, epoch: EPOCH, owns: true, sum: None };
            self.act(|agent, turn| agent.handle(turn, owned))
        }

        /// A write of a line that is.
        fn write(&mut self, key: &str, bytes: usize) -> AgentOut {
            assert_eq!(self.ask(key, put(bytes)).to_home, []);
            self.act(|agent, turn| agent.flushed(turn, agent.ticket()))
        }

        fn is_written_back(&mut self, key: &str, count: u64) -> AgentOut {
            let (version, state) = (Version { epoch: EPOCH, count }, LineState::S);
            let back = ToNode::WrittenBack { key: key.into(), epoch: EPOCH, version, ended: true, state, tag: TAG };
            self.act(|agent, turn| agent.handle(turn, back))
        }

        fn state(&mut self, key: &str) -> &'static str {
            let mut state = "";
            self.scene.act(|agent, _| state = agent.state_name(key));
            state
        }

        fn bytes(&mut self) -> u64 {
            let mut bytes = 0;
            self.scene.act(|agent, _| bytes = agent.stats().bytes);
            bytes
        }

        fn evictions(&mut self) -> u64 {
            let mut evictions = 0;
            self.scene.act(|agent, _| evictions = agent.stats().counts.evictions);
            evictions
        }
    }

    fn versioned(count: u64, bytes: usize) -> Versioned {
        Versioned::new(Version { epoch: EPOCH, count }, Some(vec![b'v'; bytes].into()))
    }

    fn put(bytes: usize) -> Operation {
        Operation::Write(Change::put(vec![b'v'; bytes].into()))
    }

    /// The keys of the write-backs that give a line back.
    fn written_back(out: &AgentOut) -> Vec<&str> {
        let mut keys = Vec::new();
        for message in &out.to_home {
            if let ToHome::WriteBack { key, end: true, .. } = message {
                keys.push(key.as_str());
            }
        }
        keys
    }

    #[test]
    fn what_readers_hit_stays_and_what_they_do_not_goes() {
        let mut node = Node::new(100);
        node.scan(0..10);
        for _ in 0..2 {
            assert!(node.lines.find("scan0003").is_some(), "a reader hits it, and the agent does not hear of it");
            assert!(node.lines.peek("scan0004").is_some(), "whoever only looks is no reader");
            assert_eq!(node.ask("scan0005", Operation::Get).reply.len(), 1, "a hit that the agent serves");
        }
        node.scan(10..40);
        let there = ["scan0003", "scan0004", "scan0005", "scan0006"].map(|key| node.lines.peek(key).is_some());
        assert_eq!(there, [true, false, true, false]);
        assert_eq!((node.bytes(), node.lines.len(), node.evictions()), (100, 10, 30));
    }

    #[test]
    fn a_dirty_line_is_written_back_first_and_goes_only_afterwards() {
        let mut node = Node::new(100);
        node.own("dirty", 5);
        node.write("dirty", 5);
        node.scan(0..9);
        assert_eq!((node.state("dirty"), node.evictions()), ("M", 0));
        let out = node.fill("scan0009", 2);
        assert_eq!(written_back(&out), ["dirty"]);
        node.scan(10..40);
        assert_eq!(node.state("dirty"), "MI", "the home has not answered, however much comes meanwhile");
        assert_eq!(node.bytes(), 100);
        node.is_written_back("dirty", 1);
        assert_eq!(node.state("dirty"), "S");
        node.scan(40..60);
        assert_eq!(node.state("dirty"), "I");
    }
    #[test]
    fn a_line_that_was_wanted_keeps_its_place_when_it_is_written_back() {
        let mut node = Node::new(100);
        for key in ["wanted", "unused"] {
            node.own(key, 4);
        }
        (0..2).for_each(|_| drop(node.write("wanted", 4)));
        for (key, count) in [("wanted", 2), ("unused", 0)] {
            let out = node.ask(key, Operation::WriteBack);
            assert_eq!(written_back(&out), [key]);
            node.is_written_back(key, count);
        }
        node.scan(0..40);
        assert_eq!((node.state("wanted"), node.state("unused")), ("S", "I"));
    }

    #[test]
    fn a_local_write_that_takes_more_room_makes_it() {
        let mut node = Node::new(100);
        node.own("k", 9);
        node.write("k", 9);
        node.ask("k", Operation::Get);
        node.scan(0..9);
        assert_eq!((node.bytes(), node.evictions()), (100, 0));
        node.write("k", 10);
        assert_eq!((node.bytes(), node.evictions(), node.state("k")), (91, 1, "M"));
        node.write("k", 9 + 35);
        assert_eq!((node.bytes(), node.state("k")), (95, "M"));
    }

    #[test]
    fn a_line_larger_than_the_bound_is_answered_and_not_kept() {
        let mut node = Node::new(100);
        node.scan(0..10);
        for round in 0..3 {
            node.fill("large", 200);
            assert_eq!((node.state("large"), node.bytes(), node.evictions()), ("I", 100, round + 1));
        }
        assert!(node.lines.peek("scan0000").is_some(), "nothing else went for it");
        // In M it is written back at once, and goes then.
        for round in 0..3 {
            assert_eq!(written_back(&node.own("large", 200)), ["large"], "round {round}");
            node.is_written_back("large", 0);
            assert_eq!((node.state("large"), node.lines.peek("large")), ("I", None), "round {round}");
            node.scan(10 * round..10 * round + 10);
            assert_eq!(node.bytes(), 100);
        }
    }

    #[test]
    fn a_step_looks_at_a_bounded_number_of_lines() {
        let mut node = Node::new(1_000);
        for n in 0..40 {
            node.own(&format!("dirty{n:02}"), 13);
        }
        let before = node.bytes();
        assert_eq!(before, 800);
        let out = node.fill("much", 900);
        assert_eq!(written_back(&out).len(), LOOKS_MAX);
        assert_eq!(written_back(&node.fill("more", 0)).len(), LOOKS_MAX, "the next one goes on");
    }
}
