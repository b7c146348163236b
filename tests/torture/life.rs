//! One data directory on a disk that loses what was not synced, from its first start on.

use std::time::Duration;

use crate::check;
use crate::disk::{Cut, Disk, Manner};
use crate::load::{Load, Shared};
use crate::node::{Ended, Node, Place};
use crate::random::Random;
use crate::report::Report;
use crate::wait;

/// Longest time under load before a kill, in milliseconds.
const LOAD_MS_MAX: u64 = 140;
/// Longest time from the start of a process to its kill, where the start is what is killed, in milliseconds.
const START_MS_MAX: u64 = 90;

/// See the module.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) disk: Disk,
    place: Place,
    pub(crate) ledger: Shared,
    pub(crate) report: Report,
}

/// How a start went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// As it should, until the kill.
    Killed,
    /// The node has found damage, and this life is over.
    Refused,
}

impl Life {
    pub(crate) fn new(groups: u32) -> Self {
        let disk = Disk::new();
        // Folders in folders: each of them is a name that a cut can take away.
        let place = Place::new(disk.root().join("data/of/node1"), groups);
        Self { disk, place, ledger: Shared::new(), report: Report::default() }
    }

    fn node(&mut self, manner: &Manner) -> Node {
        self.report.starts += 1;
        Node::start(&self.place, &self.disk.environment(manner))
    }

    /// A node may refuse to start, where it says that it has found damage.
    fn judge(&mut self, killed: Result<(), Ended>) -> Result<Start, String> {
        match killed {
            Ok(()) => Ok(Start::Killed),
            Err(ended) if ended.is_refusal() => {
                self.report.refusals.push(ended.last_line().to_owned());
                Ok(Start::Refused)
            }
            Err(ended) => Err(ended.to_string()),
        }
    }

    /// Starts the node, and kills it before it listens, or about then.
    pub(crate) async fn kill_at_start(&mut self, manner: &Manner, random: &mut Random) -> Result<Start, String> {
        let node = self.node(manner);
        tokio::time::sleep(Duration::from_micros(random.below(START_MS_MAX * 1000))).await;
        self.report.killed_at_start += 1;
        let killed = node.kill().await;
        self.judge(killed)
    }

    /// Starts the node, which dies at this step of its start. False where the start has fewer steps.
    pub(crate) async fn die_at_start(&mut self, step: u64) -> Result<bool, String> {
        let mut node = self.node(&Manner::DeadlyAt(step));
        match node.listens().await {
            Ok(()) => {
                node.kill().await.map_err(|ended| ended.to_string())?;
                Ok(false)
            }
            Err(ended) if ended.is_kill() => {
                self.report.killed_at_start += 1;
                Ok(true)
            }
            Err(ended) => Err(ended.to_string()),
        }
    }

    /// Starts the node, asks it for keys and locks, puts it under load, and kills it.
    pub(crate) async fn kill_under_load(&mut self, manner: &Manner, random: &mut Random) -> Result<Start, String> {
        let started = wait::now();
        let mut node = self.node(manner);
        if let Err(ended) = node.listens().await {
            return self.judge(Err(ended));
        }
        let listens = started.elapsed();
        let client = self.place.client().await;
        check::keys_and_locks(&client, &self.ledger).await?;
        self.report.started(listens, started.elapsed());
        let load = Load::start(&client, &self.ledger, random.chance(60));
        tokio::time::sleep(Duration::from_micros(random.below(LOAD_MS_MAX * 1000))).await;
        let killed = node.kill().await;
        load.stop().await;
        self.report.killed_under_load += 1;
        if let Some(broken) = self.ledger.lock().broken.take() {
            return Err(broken);
        }
        // Under load a node must not end by itself: nothing is damaged while it runs.
        killed.map_err(|ended| ended.to_string())?;
        Ok(Start::Killed)
    }

    /// Starts the node and asks for everything.
    pub(crate) async fn look(&mut self) -> Result<Start, String> {
        let mut node = self.node(&Manner::Good);
        if let Err(ended) = node.listens().await {
            return self.judge(Err(ended));
        }
        let client = self.place.client().await;
        check::keys_and_locks(&client, &self.ledger).await?;
        check::queues(&client, &self.ledger).await?;
        self.report.drains += 1;
        node.kill().await.map_err(|ended| ended.to_string())?;
        Ok(Start::Killed)
    }

    /// Cuts the power; the node is dead.
    pub(crate) fn cut(&mut self, cut: Cut, random: &mut Random) {
        let damage = self.disk.cut(cut, random);
        self.report.cuts += 1;
        self.report.cuts_that_cost += u64::from(damage.is_any());
        self.report.damage.add(damage);
    }

    /// What it came to; where something is broken, that, and where the disk is left to look at.
    pub(crate) fn end(mut self, lived: Result<(), String>) -> Result<Report, String> {
        match lived {
            Ok(()) => {
                self.report.acknowledged = self.ledger.lock().acknowledged;
                Ok(self.report)
            }
            Err(broken) => Err(format!("{broken}\nthe disk is left in {}", self.disk.leave().display())),
        }
    }
}
