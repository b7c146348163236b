//! What readers see: the tables of lines of all nodes and the copies of all clients, held against what was promised at every step that
//! changes either.

use super::checker::{Check, bus};
use super::cluster::{Cluster, debug_short};
use super::network::Place;
use crate::cache::LineChange;
use crate::ids::GroupId;
use crate::rules::Rules;

impl<R: Rules> Cluster<R> {
    /// One change of what readers see on a node, and the check of what they may see now.
    pub(crate) fn change_lines(&mut self, place: Place, group: GroupId, change: LineChange) -> Check {
        let touched = match &change {
            LineChange::Put(key, line) => {
                self.services.cache.shown(group, key, line.value.version, line.value.value.as_ref())?;
                vec![key.clone()]
            }
            LineChange::Lease(..) => self.nodes[place].lines[&group].iter().map(|(key, _)| key.clone()).collect(),
            LineChange::Drop(_) | LineChange::DropAll => Vec::new(),
        };
        self.note(|| format!("n{place} {group} lines {}", debug_short(&change)));
        self.nodes[place].lines.get_mut(&group).expect("an up node has lines").apply(change);
        touched.into_iter().try_for_each(|key| self.check_key(group, &key))
    }

    /// What the readers of all nodes would get for a key now.
    pub(crate) fn check_key(&self, group: GroupId, key: &str) -> Check {
        let now_us = self.schedule.now_us();
        let readers = self.nodes.iter().enumerate().filter_map(|(place, node)| {
            Some(bus::Reader { place, mono_us: node.clock.at(now_us).mono_us, lines: node.lines.get(&group)? })
        });
        let floor = self.services.cache.floor(group, key);
        bus::check(readers, key, floor).map_err(|what| format!("{group}: {what}"))?;
        match self.near.readable(now_us, key).find(|(_, version)| *version < floor) {
            Some((client, version)) => {
                Err(format!("{group}: c{client} may read its copy of {key}, {version:?}, after {floor:?} was answered"))
            }
            None => Ok(()),
        }
    }
}
