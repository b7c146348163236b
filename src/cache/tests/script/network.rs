//! What happens to the messages on their way, and what happens by itself as time passes.

use goldenscript::ArgumentConsumer;

use super::Result;
use super::cluster::{Cluster, Flight, Message};

/// Rounds of messages after which a script is taken to go on for ever.
const ROUNDS_MAX: usize = 200;

pub(super) fn network(cluster: &mut Cluster, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Result<()> {
    if name == "stabilize" {
        cluster.stabilize();
        return Ok(());
    }
    let mut take = |key: &str| arguments.take_key(key).map(str::to_owned);
    let (from, to, only, key) = (take("from"), take("to"), take("only"), take("key"));
    let mut left = take("count").map_or(Ok(usize::MAX), |count| count.parse())?;
    let wanted = |flight: &Flight| {
        let text = flight.message.text();
        let matches = from.as_ref().is_none_or(|end| *end == flight.from)
            && to.as_ref().is_none_or(|end| *end == flight.to)
            && only.as_ref().is_none_or(|kind| text.split(' ').next() == Some(kind.as_str()))
            && key.as_ref().is_none_or(|key| text.split(' ').nth(1) == Some(key.as_str()))
            && left > 0;
        left -= usize::from(matches);
        matches
    };
    let (mut chosen, mut others): (Vec<Flight>, Vec<Flight>) =
        std::mem::take(&mut cluster.flights).into_iter().partition(wanted);
    if chosen.is_empty() {
        return Err("there is no such message".into());
    }
    match name {
        "deliver" => {
            cluster.flights = others;
            chosen.into_iter().for_each(|flight| cluster.arrive(flight));
            return Ok(());
        }
        "drop" => chosen.clear(),
        "repeat" => chosen.extend(chosen.clone()),
        _ => chosen.reverse(),
    }
    others.extend(chosen);
    cluster.flights = others;
    Ok(())
}

impl Cluster {
    /// A message arrives, where there is somebody to hear it.
    fn arrive(&mut self, flight: Flight) {
        let is_cut = |end: &str| end.strip_prefix('n').is_some_and(|it| self.cut.contains(&it.parse().unwrap_or(0)));
        if is_cut(&flight.from) || is_cut(&flight.to) {
            return;
        }
        match flight.message {
            Message::ToHome(from, term, message) => {
                let from = crate::ids::NodeId::numbered(from);
                self.home(term, |home, memory, standing, out| home.handle(from, message, memory, standing, out));
            }
            Message::ToNode(number, message) => {
                self.agent(number, |agent, turn| agent.handle(turn, message));
            }
        }
    }

    /// Whether it has to wait, because who it is for stands still.
    fn waits(&self, flight: &Flight) -> bool {
        let node = match &flight.message {
            Message::ToHome(_, term, _) => self.homes.get(term).map(|office| office.node),
            Message::ToNode(number, _) => Some(*number),
        };
        node.and_then(|number| self.members.get(&number)).is_some_and(|member| member.paused)
    }

    pub(super) fn stabilize(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let flights = std::mem::take(&mut self.flights);
            let (waiting, now): (Vec<Flight>, Vec<Flight>) = flights.into_iter().partition(|it| self.waits(it));
            self.flights = waiting;
            if now.is_empty() {
                return;
            }
            now.into_iter().for_each(|flight| self.arrive(flight));
        }
        panic!("the bus does not come to rest");
    }

    pub(super) fn tick_all(&mut self) {
        let nodes: Vec<usize> =
            self.members.iter().filter(|(_, member)| !member.paused).map(|(number, _)| *number).collect();
        for number in &nodes {
            self.agent(*number, |agent, turn| agent.tick(turn));
        }
        let homes: Vec<_> =
            self.homes.iter().filter(|(_, office)| nodes.contains(&office.node)).map(|(term, _)| *term).collect();
        homes.into_iter().for_each(|term| self.tick_home(term));
    }

    /// Time passes, and everything arrives.
    pub(super) fn run(&mut self, ms: u64) {
        self.stabilize();
        for _ in 0..ms.div_ceil(50) {
            self.now_us += 50_000;
            self.tick_all();
            self.stabilize();
        }
    }
}
