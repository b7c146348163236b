//! The right to fill a key that does not exist: one node's client has it at a time, the others wait.
//!
//! It is kept in the home's memory and dies with its term; a token names the term too, so a late fill under an older home's right is refused.
//! Any write of the key ends it, and whoever waits is told to read again.

use std::collections::VecDeque;

use trine_protocol::{Error, ErrorCode};

use crate::cache::change::Change;
use crate::cache::memory::Memory;
use crate::cache::message::{FillAnswer, LeaseTag, ToNode};
use crate::ids::NodeId;
use crate::rules::Rules;

use super::{Home, HomeOut, Job, Standing, Want};

/// One key's right to fill.
#[derive(Clone, Debug, Hash)]
pub(super) struct Fill {
    pub(super) token: u64,
    node: NodeId,
    request: u64,
    pub(super) until_us: u64,
    waiting: VecDeque<Waiter>,
}

impl Fill {
    /// How many wait behind who has the right.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[derive(Clone, Copy, Debug, Hash)]
struct Waiter {
    node: NodeId,
    request: u64,
    lease_ms: u32,
}

impl<R: Rules> Home<R> {
    /// A node's client wants to fill a key that nobody owns.
    pub(super) fn give_fill(&mut self, key: &str, job: &Job, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        let Want::Fill { lease_ms } = job.want else { return };
        let waiter = Waiter { node: job.node, request: job.request, lease_ms };
        if self.newest(key, memory).value.is_some() {
            return answer_fill(key, waiter, FillAnswer::Written, out);
        }
        let room = self.directory.len() < self.config.directory_max || self.directory.contains_key(key);
        let waiting_max = self.config.waiting_max;
        let over = |fill: &mut Fill| fill.until_us <= standing.now_us;
        if let Some(mut fill) = self.directory.get_mut(key).and_then(|entry| entry.fill.take_if(over)) {
            fill.waiting.push_back(waiter);
            return self.pass_on(key, fill, memory, standing, out);
        }
        let fill = self.directory.get_mut(key).and_then(|entry| entry.fill.as_mut());
        match fill {
            Some(fill) if (fill.node, fill.request) == (waiter.node, waiter.request) => {
                let token = fill.token;
                answer_fill(key, waiter, FillAnswer::Yours { token }, out);
            }
            Some(fill) if fill.waiting.iter().any(|it| (it.node, it.request) == (waiter.node, waiter.request)) => {}
            Some(fill) if fill.waiting.len() < waiting_max => fill.waiting.push_back(waiter),
            None if room => self.begin_fill(key, waiter, VecDeque::new(), standing, out),
            _ => {
                let what = format!("as many requests as its home takes wait to fill key '{key}'");
                let error = Error::new(ErrorCode::Overloaded, what).retry_after(100);
                answer_fill(key, waiter, FillAnswer::Refused(error), out);
            }
        }
    }

    fn begin_fill(
        &mut self,
        key: &str,
        waiter: Waiter,
        waiting: VecDeque<Waiter>,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        self.next_transaction += 1;
        let token = self.next_transaction;
        let Waiter { node, request, lease_ms } = waiter;
        let until_us = standing.now_us + u64::from(lease_ms) * 1_000;
        let entry = self.directory.entry(key.to_owned()).or_default();
        entry.fill = Some(Fill { token, node, request, until_us, waiting });
        self.fills.insert((until_us, key.to_owned()));
        answer_fill(key, waiter, FillAnswer::Yours { token }, out);
    }

    /// Whether a write may be made under the right that it names.
    pub(super) fn check_fill(&self, key: &str, change: &Change, standing: Standing) -> Result<(), Error> {
        if change.fill == 0 {
            return Ok(());
        }
        let fill = self.directory.get(key).and_then(|entry| entry.fill.as_ref());
        match fill.filter(|fill| fill.token == change.fill && standing.now_us < fill.until_us) {
            Some(_) => Ok(()),
            None => Err(over(key)),
        }
    }

    /// The key was written: who waits to fill it reads it instead.
    pub(super) fn end_fill(&mut self, key: &str, out: &mut HomeOut) {
        let Some(fill) = self.directory.get_mut(key).and_then(|entry| entry.fill.take()) else { return };
        self.fills.remove(&(fill.until_us, key.to_owned()));
        for waiter in fill.waiting {
            answer_fill(key, waiter, FillAnswer::Written, out);
        }
    }

    /// Whoever has the right does not use it: the next one gets it.
    pub(super) fn return_fill(
        &mut self,
        key: &str,
        token: u64,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        let entry = self.directory.get_mut(key);
        let Some(fill) = entry.and_then(|entry| entry.fill.take_if(|fill| fill.token == token)) else { return };
        self.pass_on(key, fill, memory, standing, out);
    }

    fn pass_on(&mut self, key: &str, mut fill: Fill, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        self.fills.remove(&(fill.until_us, key.to_owned()));
        match fill.waiting.pop_front() {
            Some(next) => self.begin_fill(key, next, fill.waiting, standing, out),
            None => self.advance(key, memory, standing, out),
        }
    }

    /// Rights whose time is over go to the next who waits.
    pub(super) fn tick_fills(&mut self, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        while let Some((until_us, key)) = self.fills.first().cloned() {
            if standing.now_us < until_us || !self.may_act(standing) {
                return;
            }
            self.fills.pop_first();
            let over = |fill: &mut Fill| fill.until_us == until_us;
            if let Some(fill) = self.directory.get_mut(&key).and_then(|entry| entry.fill.take_if(over)) {
                self.pass_on(&key, fill, memory, standing, out);
            }
        }
    }
}

/// The answer to a write under a right that is over.
pub(super) fn over(key: &str) -> Error {
    let what = format!("the right to fill key '{key}' is over: its time has passed, or somebody wrote the key");
    Error::new(ErrorCode::StaleFill, what)
}

fn answer_fill(key: &str, waiter: Waiter, answer: FillAnswer, out: &mut HomeOut) {
    out.to_node.push((waiter.node, ToNode::FillAnswered { request: waiter.request, key: key.to_owned(), answer }));
}

/// The answer to a request for the right to fill that cannot be looked at.
pub(super) fn refuse_fill(key: &str, job: &Job, error: Error) -> ToNode {
    ToNode::FillAnswered { request: job.request, key: key.to_owned(), answer: FillAnswer::Refused(error) }
}

/// What [`Home::handle`] makes of the message.
pub(super) fn wanted(from: NodeId, request: u64, tag: LeaseTag, lease_ms: u32) -> Job {
    Job { node: from, request, tag, want: Want::Fill { lease_ms } }
}
