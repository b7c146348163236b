//! The Redis of a run whose cache lies in one: a table of values behind fences, whose every call takes a while, and now and then much longer.
//!
//! It keeps what it was told, goes away and comes back, and loses connections. A call that is late is executed when it arrives, over whatever
//! connection is there by then: the fence alone says whether it counts. It tells of every write, as the real one does, also of our own.

use std::collections::BTreeMap;

use super::checker::Check;
use super::cluster::{Cluster, Event, Phase};
use super::network::Place;
use super::random::Random;
use super::swarm::Every;
use crate::cache::{Fetched, MemoryAnswer, MemoryCall, Versioned};
use crate::ids::{GroupId, Term};
use crate::node::behind::{MainMemory, MainMemoryEvent};
use crate::node::effect::Input;
use crate::rules::{Rule, Rules};

/// Time from a failed attempt to connect to the next.
const AGAIN_US: u64 = 200_000;
/// Shortest and longest usual way to Redis or back.
const WAY_US: (u64, u64) = (50, 2_000);

/// How it behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisFaults {
    /// Of 1,000 calls, how many take up to `late_us_max`.
    pub late_per_mille: u64,
    /// The longest way.
    pub late_us_max: u64,
    /// It goes away for 0.1 to 3 s.
    pub outage: Every,
    /// A connection is lost.
    pub reset: Every,
}

impl RedisFaults {
    /// What a seed draws.
    pub fn draw(random: &mut Random) -> Self {
        let every = |random: &mut Random, low_us, high_us| random.chance(500).then(|| random.between(low_us, high_us));
        Self {
            late_per_mille: *random.pick(&[0, 20, 100]),
            late_us_max: random.between(100_000, 6_000_000),
            outage: every(random, 1_500_000, 6_000_000),
            reset: every(random, 200_000, 3_000_000),
        }
    }
}

/// Term and number of a connection.
type Fence = (Term, u64);

/// What it has.
#[derive(Debug, Default)]
pub(crate) struct Redis {
    values: BTreeMap<(GroupId, String), Versioned>,
    fences: BTreeMap<GroupId, Fence>,
    /// The connection that each node's group has, or tries to have.
    connections: BTreeMap<(Place, GroupId), Fence>,
    made: u64,
    away: bool,
}

impl Redis {
    /// It is back.
    pub(crate) fn heal(&mut self) {
        self.away = false;
    }
}

/// What happens on the way to it and back.
#[derive(Debug)]
pub(crate) enum RedisEvent {
    /// A connection is made, and the fence raised.
    Raise { place: Place, group: GroupId, boot: u64, fence: Fence },
    /// A call arrives.
    Call { place: Place, group: GroupId, boot: u64, fence: Fence, call: MemoryCall },
    /// Its connection is lost.
    Reset,
    /// It goes away.
    Outage,
    /// It is back.
    Back,
}

impl<R: Rules> Cluster<R> {
    /// Its faults.
    pub(crate) fn schedule_redis(&mut self) {
        let Some(faults) = self.swarm.redis.clone() else { return };
        for (every, make) in [(faults.outage, true), (faults.reset, false)] {
            let Some(every_us) = every else { continue };
            let mut at_us = self.random.below(every_us);
            while at_us < self.options.faulty_us {
                let event = if make { RedisEvent::Outage } else { RedisEvent::Reset };
                self.schedule.at(at_us, Event::Redis(event));
                at_us += self.random.between(every_us / 2, every_us * 3 / 2).max(1);
            }
        }
    }

    /// What a replica wants done with it.
    pub(crate) fn ask_redis(&mut self, place: Place, group: GroupId, orders: Vec<MainMemory>) {
        let boot = self.nodes[place].boots;
        for order in orders {
            match order {
                MainMemory::Open(term) => self.connect_redis(place, group, boot, term, 0),
                MainMemory::Close => drop(self.redis.connections.remove(&(place, group))),
                MainMemory::Call(term, call) => {
                    let open = self.redis.connections.get(&(place, group)).copied();
                    if let Some(fence) = open.filter(|fence| fence.0 == term) {
                        let way_us = self.way_us();
                        let event = RedisEvent::Call { place, group, boot, fence, call };
                        self.schedule.after(way_us, Event::Redis(event));
                    }
                }
            }
        }
    }

    fn way_us(&mut self) -> u64 {
        let faults = self.swarm.redis.clone();
        let late = faults.filter(|faults| self.phase == Phase::Faulty && self.random.chance(faults.late_per_mille));
        match late {
            Some(faults) => self.random.below(faults.late_us_max),
            None => self.random.between(WAY_US.0, WAY_US.1),
        }
    }

    fn connect_redis(&mut self, place: Place, group: GroupId, boot: u64, term: Term, delay_us: u64) {
        self.redis.made += 1;
        let fence = (term, self.redis.made);
        self.redis.connections.insert((place, group), fence);
        self.schedule.after(delay_us + WAY_US.1, Event::Redis(RedisEvent::Raise { place, group, boot, fence }));
    }

    /// Something arrives there, or happens to it.
    pub(crate) fn redis(&mut self, event: RedisEvent) -> Check {
        match event {
            RedisEvent::Raise { place, group, boot, fence } => self.raise(place, group, boot, fence),
            RedisEvent::Call { place, group, boot, fence, call } => self.call_redis(place, group, boot, fence, call),
            RedisEvent::Reset if self.phase == Phase::Faulty => {
                let open: Vec<(Place, GroupId)> = self.redis.connections.keys().copied().collect();
                if !open.is_empty() {
                    let (place, group) = *self.random.pick(&open);
                    self.lose_redis(place, group);
                }
            }
            RedisEvent::Outage if self.phase == Phase::Faulty => {
                self.redis.away = true;
                let open: Vec<(Place, GroupId)> = self.redis.connections.keys().copied().collect();
                open.into_iter().for_each(|(place, group)| self.lose_redis(place, group));
                let away_us = self.random.between(100_000, 3_000_000);
                self.schedule.after(away_us, Event::Redis(RedisEvent::Back));
            }
            RedisEvent::Reset | RedisEvent::Outage => {}
            RedisEvent::Back => self.redis.away = false,
        }
        Ok(())
    }

    fn is_current(&self, place: Place, group: GroupId, boot: u64, fence: Fence) -> bool {
        self.is_up(place, boot) && self.redis.connections.get(&(place, group)) == Some(&fence)
    }

    fn raise(&mut self, place: Place, group: GroupId, boot: u64, fence: Fence) {
        if !self.is_current(place, group, boot, fence) {
            return;
        }
        let higher = self.redis.fences.get(&group).is_some_and(|known| *known > fence);
        if self.redis.away || higher {
            return self.connect_redis(place, group, boot, fence.0, AGAIN_US);
        }
        self.redis.fences.insert(group, fence);
        self.tell(place, group, boot, fence.0, MainMemoryEvent::Opened);
    }

    fn call_redis(&mut self, place: Place, group: GroupId, boot: u64, fence: Fence, call: MemoryCall) {
        let stands = self.redis.fences.get(&group) == Some(&fence) || R::without(Rule::RedisFence);
        if self.redis.away || !stands {
            if self.is_current(place, group, boot, fence) {
                self.lose_redis(place, group);
            }
            return;
        }
        let answer = match call {
            MemoryCall::Fetch { ticket, key } => {
                let value = self.redis.values.get(&(group, key.clone())).cloned();
                let ours = value.is_some();
                let value = value.unwrap_or_else(|| Versioned::new(Default::default(), None));
                MemoryAnswer::Fetched { ticket, key, result: Ok(Fetched { value, ours }) }
            }
            MemoryCall::Store { key, value } => {
                let version = value.version;
                match value.value {
                    Some(_) => drop(self.redis.values.insert((group, key.clone()), value)),
                    None => drop(self.redis.values.remove(&(group, key.clone()))),
                }
                self.note(|| format!("redis {group} {key} is {version:?}, by n{place}"));
                self.push(group, &key);
                MemoryAnswer::Stored { key, version, result: Ok(()) }
            }
        };
        if self.is_current(place, group, boot, fence) {
            self.tell(place, group, boot, fence.0, MainMemoryEvent::Said(answer));
        }
    }

    /// Whoever has the fence is told of a write.
    fn push(&mut self, group: GroupId, key: &str) {
        let Some(fence) = self.redis.fences.get(&group).copied() else { return };
        let holder = self.redis.connections.iter().find(|((_, of), its)| *of == group && **its == fence);
        if let Some(((place, _), _)) = holder {
            let (place, boot) = (*place, self.nodes[*place].boots);
            let said = MainMemoryEvent::Said(MemoryAnswer::Outside(vec![key.to_owned()]));
            self.tell(place, group, boot, fence.0, said);
        }
    }

    fn tell(&mut self, place: Place, group: GroupId, boot: u64, term: Term, event: MainMemoryEvent) {
        let way_us = self.random.between(WAY_US.0, WAY_US.1);
        let input = Input::MainMemory { term, event };
        self.schedule.after(way_us, Event::Input { place, boot, group, input });
    }

    /// A connection is gone, and tried again.
    fn lose_redis(&mut self, place: Place, group: GroupId) {
        let Some((term, _)) = self.redis.connections.get(&(place, group)).copied() else { return };
        let boot = self.nodes[place].boots;
        self.tell(place, group, boot, term, MainMemoryEvent::Lost);
        self.connect_redis(place, group, boot, term, AGAIN_US);
    }
}
