//! Runs `scripts/`: each command is one log entry, and the output says what became of it.

use std::error::Error;
use std::fmt::Write as _;

use bytes::Bytes;
use trine_protocol::queue::{
    About, Ack, AckMany, AckWhich, Declare, Dequeue, Enqueue, Extend, Flow, MessageState, Nack, Peek, PeekedMessage,
    Purge, Receipt, SetFlow, Undeclare,
};

use super::disk::Disk;
use super::steps::{self, Step, expand, parse_state, parse_token};
use crate::ids::At;
use crate::queue::stored::{self, Kind, StoredMessage};
use crate::queue::{Answer, Askers, Command, Instants, State};

/// What a script drives. A name or body such as `x@600` stands for 600 times `x`; the token of another generation is
/// `GENERATION:INDEX`. `steps` says which commands there are.
pub(super) struct Runner {
    state: State,
    disk: Disk,
    at: At,
}

type Outcome = Result<String, Box<dyn Error>>;

impl Runner {
    fn new() -> Self {
        let at = At { index: 0, stamp_ms: 0, wall_ms: 0, generation: 0 };
        Self { state: State::default(), disk: Disk::default(), at }
    }

    /// The next entry of the log: time first, then the command.
    fn entry(&mut self, command: Option<Command>) -> String {
        self.at.index += 1;
        let mut output = String::new();
        let before = self.state.totals();
        let expired = self.state.expire(self.at.stamp_ms, self.at.wall_ms);
        let after = self.state.totals();
        let index = self.at.index;
        if expired > 0 {
            writeln!(output, "{index}: {expired} timed out").unwrap();
        }
        for (what, before, after) in [
            ("buried", before.counts.buried, after.counts.buried),
            ("expired", before.counts.expired, after.counts.expired),
        ] {
            if after > before {
                writeln!(output, "{index}: {} {what}", after - before).unwrap();
            }
        }
        let Some(command) = command else { return output };
        write!(output, "{index}: ").unwrap();
        match self.state.apply(self.at, &command) {
            Ok(answer) => writeln!(output, "{}", said(&answer)).unwrap(),
            Err(error) if error.retry_after_ms > 0 => {
                writeln!(output, "{error} (again in {} ms)", error.retry_after_ms).unwrap();
            }
            Err(error) => writeln!(output, "{error}").unwrap(),
        }
        output
    }

    fn checkpoint(&mut self) -> String {
        let changes = self.disk.checkpoint(&mut self.state);
        let mut output = String::new();
        for change in &changes {
            match &change.value {
                Some(value) => output += &record("put ", &change.key, value),
                None => writeln!(output, "delete {}", name_of(&change.key)).unwrap(),
            }
        }
        if changes.is_empty() { "nothing changed\n".into() } else { output }
    }

    fn stats(&self) -> String {
        let one = |stats: crate::queue::Stats<'_>| {
            let crate::queue::Stats { queue, ready, in_flight, delayed, dead, oldest_enqueued_ms, bytes } = stats;
            let more = match (delayed, dead) {
                (0, 0) => String::new(),
                (delayed, dead) => format!(", {delayed} delayed, {dead} dead"),
            };
            format!(
                "{queue}: {ready} ready, {in_flight} in flight{more}, oldest from {oldest_enqueued_ms} ms, {bytes} bytes\n"
            )
        };
        let all: String = self.state.stats().map(one).collect();
        if all.is_empty() { "no queue\n".into() } else { all }
    }

    fn instants(&self) -> Instants {
        Instants { stamp_ms: self.at.stamp_ms, wall_ms: self.at.wall_ms }
    }
}

/// `5`, or `1:5` in generation 1.
fn token(token: u64) -> String {
    let (generation, index) = (token >> 48, token & ((1 << 48) - 1));
    if generation == 0 { index.to_string() } else { format!("{generation}:{index}") }
}

/// An answer in words.
fn said(answer: &Answer) -> String {
    let more = |more: &bool| if *more { ", more to come" } else { "" };
    match answer {
        Answer::Enqueued { id, duplicate: false } => format!("enqueued {id}"),
        Answer::Enqueued { id, duplicate: true } => format!("a duplicate of {id}"),
        Answer::Acked { id } => format!("acked {id}"),
        Answer::Delivered(handed) if handed.is_empty() => "empty".into(),
        Answer::Delivered(handed) => {
            let all = handed.iter().map(|one| {
                let attributes = one.attributes.as_ref().map(|of| {
                    let key = if of.key.is_empty() { String::new() } else { format!(", key {}", of.key) };
                    let tenant = if of.tenant.is_empty() { String::new() } else { format!(", tenant {}", of.tenant) };
                    let priority = if of.priority == 0 { String::new() } else { format!(", priority {}", of.priority) };
                    format!("{priority}{key}{tenant}")
                });
                format!(
                    "{} (token {}, x{}{})",
                    one.id,
                    token(one.token),
                    one.deliveries,
                    attributes.unwrap_or_default()
                )
            });
            format!("delivered {}", all.collect::<Vec<_>>().join(", "))
        }
        Answer::Extended { id } => format!("extended {id}"),
        Answer::Nacked { state } => format!("given back, {}", state_name(*state)),
        Answer::AckedMany { refused } if refused.is_empty() => "acked all".into(),
        Answer::AckedMany { refused } => {
            let all = refused.iter().map(|one| format!("{} {}", one.place, one.code.name()));
            format!("acked all but {}", all.collect::<Vec<_>>().join(", "))
        }
        Answer::Declared { made: true } => "declared".into(),
        Answer::Declared { made: false } => "declared anew".into(),
        Answer::Undeclared { was_declared: true } => "undeclared".into(),
        Answer::Undeclared { was_declared: false } => "was not declared".into(),
        Answer::FlowSet { before } => format!("was {before:?}"),
        Answer::Purged { messages, more: left } => format!("purged {messages}{}", more(left)),
        Answer::Redriven { messages, more: left } => format!("redriven {messages}{}", more(left)),
    }
}

fn state_name(state: MessageState) -> &'static str {
    match state {
        MessageState::Ready => "ready",
        MessageState::Delayed => "delayed",
        MessageState::InFlight => "in flight",
        MessageState::Dead => "dead",
    }
}

/// What a record is of.
fn name_of(key: &[u8]) -> String {
    match stored::kind_of(key).expect("a key of ours") {
        Kind::Bucket => format!("bucket {}", u64::from_be_bytes(key[1..].try_into().unwrap())),
        Kind::Attributes => format!("attributes of {}", stored::side_id(key).unwrap()),
        Kind::Dedup => format!("id of {}", stored::side_id(key).unwrap()),
        Kind::Pass => {
            let (queue, tenant) = stored::pass_entry(key).unwrap();
            format!("pass of '{tenant}' in {queue}")
        }
        Kind::Queue => format!("declaration of {}", stored::queue_name(key).unwrap()),
    }
}

fn record(prefix: &str, key: &[u8], value: &[u8]) -> String {
    if stored::kind_of(key).expect("a key of ours") != Kind::Bucket {
        return format!("{prefix}{}\n", name_of(key));
    }
    let (bucket, content) = stored::read(key, value).expect("a record of ours");
    let message = |message: &StoredMessage| {
        let id = stored::id_of(bucket, message.offset);
        let delivery = message.delivery.as_ref().map_or("waiting".into(), |delivery| {
            let until = match delivery.deadline_ms {
                Some(deadline_ms) if delivery.is_void() => format!("given back until {deadline_ms} ms"),
                Some(deadline_ms) => format!("until {deadline_ms} ms"),
                None if delivery.is_void() => "given back".into(),
                None => "ready again".into(),
            };
            format!("token {}, x{}, {until}", token(delivery.token), delivery.deliveries)
        });
        let (queue, bytes, enqueued_ms) =
            (&content.queues[usize::from(message.queue)], message.bytes, message.enqueued_ms);
        format!("  {id}: {queue}, {bytes} bytes from {enqueued_ms} ms, {delivery}\n")
    };
    format!("{prefix}bucket {bucket}\n{}", content.messages.iter().map(message).collect::<String>())
}

fn page(messages: &[PeekedMessage], more: bool) -> String {
    let mut output = String::new();
    for message in messages {
        let PeekedMessage { id, state, age_ms, deliveries, token: newest, consumer, due_in_ms, dead, history, .. } =
            message;
        write!(output, "{id}: {}, {age_ms} ms old, x{deliveries}", state_name(*state)).unwrap();
        if *newest > 0 {
            write!(output, ", token {}", token(*newest)).unwrap();
        }
        if !consumer.is_empty() {
            write!(output, ", by {consumer}").unwrap();
        }
        if *due_in_ms > 0 {
            write!(output, ", due in {due_in_ms} ms").unwrap();
        }
        if let Some(dead) = dead {
            write!(output, ", {:?} '{}' at {} ms", dead.reason, dead.note, dead.since_ms).unwrap();
        }
        writeln!(output).unwrap();
        for attempt in history {
            writeln!(output, "  token {}: {:?} at {} ms", token(attempt.token), attempt.end, attempt.ended_ms).unwrap();
        }
    }
    if more {
        output += "and more\n";
    }
    if output.is_empty() { "nothing\n".into() } else { output }
}

/// A step becomes an entry of the log, or is a look at the state.
enum What {
    Entry(Option<Command>),
    Look(String),
}

impl goldenscript::Runner for Runner {
    type Command = Step;

    fn run(&mut self, step: &Step, _: &goldenscript::Context) -> Outcome {
        match self.what(step)? {
            What::Entry(command) => Ok(self.entry(command)),
            What::Look(output) => Ok(output),
        }
    }

    fn end_command(&mut self, _: &Step, _: &goldenscript::Context) -> Outcome {
        self.state.check_invariants();
        Ok(String::new())
    }

    fn end_script(&mut self) -> Result<(), Box<dyn Error>> {
        self.disk.checkpoint(&mut self.state);
        // Whatever a script leads to, a replica that was restored says the same of itself.
        let restored = self.disk.restore(self.state.limits);
        restored.check_invariants();
        assert_eq!(restored.records(), self.state.records());
        Ok(())
    }
}

impl Runner {
    fn what(&mut self, step: &Step) -> Result<What, Box<dyn Error>> {
        let receipt = |id: &u64, token: &str| Ok::<_, Box<dyn Error>>(Receipt { id: *id, token: parse_token(token)? });
        let command = match step {
            Step::Enqueue { queue, body, options } => {
                let (body, options) = (Bytes::from(expand(body)), steps::options(options)?);
                Command::Enqueue(Enqueue { queue: expand(queue), body, options, ..Enqueue::default() })
            }
            Step::Dequeue { queue, count, visibility, by } => Command::Dequeue(Dequeue {
                queue: expand(queue),
                visibility_ms: *visibility,
                count_max: *count,
                wait_ms: 0,
                consumer: expand(by),
            }),
            Step::Ack(queue, id, token) => {
                let which = AckWhich::Receipt { id: *id, token: parse_token(token)? };
                Command::Ack(Ack { queue: expand(queue), which, if_token: None })
            }
            Step::AckBody(queue, body) => Command::Ack(Ack {
                queue: expand(queue),
                which: AckWhich::Body(Bytes::from(expand(body))),
                if_token: None,
            }),
            Step::AckMany { queue, receipts } => {
                let one = |text: &str| {
                    let (id, token) = text.split_once('/').ok_or("a receipt is ID/TOKEN")?;
                    receipt(&id.parse()?, token)
                };
                let receipts = receipts.split_whitespace().map(one).collect::<Result<_, _>>()?;
                Command::AckMany(AckMany { queue: expand(queue), receipts, if_token: None })
            }
            Step::Extend { queue, id, token, visibility } => Command::Extend(Extend {
                queue: expand(queue),
                receipt: receipt(id, token)?,
                visibility_ms: *visibility,
            }),
            Step::Nack { queue, id, token, delay, reason } => Command::Nack(Nack {
                queue: expand(queue),
                receipt: receipt(id, token)?,
                delay_ms: *delay,
                reason: expand(reason),
                reject: false,
                if_token: None,
            }),
            Step::Reject { queue, id, token, reason } => Command::Nack(Nack {
                queue: expand(queue),
                receipt: receipt(id, token)?,
                delay_ms: None,
                reason: expand(reason),
                reject: true,
                if_token: None,
            }),
            Step::Declare { queue, policy } => {
                Command::Declare(Declare { queue: expand(queue), policy: steps::policy(policy)? })
            }
            Step::Undeclare(queue) => Command::Undeclare(Undeclare { queue: expand(queue) }),
            Step::Flow(queue, flow) => {
                let flow = match flow.as_str() {
                    "open" => Flow::Open,
                    "paused" => Flow::Paused,
                    "draining" => Flow::Draining,
                    other => return Err(format!("no flow: {other}").into()),
                };
                Command::SetFlow(SetFlow { queue: expand(queue), flow })
            }
            Step::Purge { queue, state } => {
                let state = if state.is_empty() { None } else { Some(parse_state(state)?) };
                Command::Purge(Purge { queue: expand(queue), state })
            }
            Step::Redrive { queue, words } => Command::Redrive(steps::redrive(expand(queue), words)?),
            Step::Tick => return Ok(What::Entry(None)),
            other => return self.look(other).map(What::Look),
        };
        Ok(What::Entry(Some(command)))
    }

    /// The steps that are no entries of the log.
    fn look(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Advance(ms) => {
                self.at.stamp_ms += ms;
                self.at.wall_ms += ms;
            }
            Step::Wall(ms) => self.at.wall_ms += ms,
            Step::Skip(count) => self.at.index += count,
            Step::Generation(generation) => self.at.generation = *generation,
            Step::Limits { messages, queues } => {
                let limits = &mut self.state.limits;
                limits.messages_max = messages.unwrap_or(limits.messages_max);
                limits.queues_max = queues.unwrap_or(limits.queues_max);
            }
            Step::Checkpoint => return Ok(self.checkpoint()),
            Step::Restart => {
                self.disk.checkpoint(&mut self.state);
                self.state = self.disk.restore(self.state.limits);
            }
            Step::Records => {
                let all: String = self.state.records().iter().map(|(key, value)| record("", key, value)).collect();
                return Ok(if all.is_empty() { "no records\n".into() } else { all });
            }
            Step::Stats => return Ok(self.stats()),
            Step::Deadline => {
                let due = |at_ms: Option<u64>, clock: &str| at_ms.map(|at_ms| format!("due at {at_ms} ms{clock}\n"));
                let log = due(self.state.next_deadline_ms(), "");
                let wall = due(self.state.next_wall_ms(), " of the wall");
                let all: String = log.into_iter().chain(wall).collect();
                return Ok(if all.is_empty() { "nothing is due\n".into() } else { all });
            }
            Step::Live(after, through) => {
                let ids = self.state.live_bodies(*after, *through);
                assert!(ids.iter().all(|id| self.state.is_live(*id)), "is_live agrees");
                return Ok(format!("{ids:?}\n"));
            }
            Step::Peek { queue, state, after, count } => {
                let (queue, state) = (expand(queue), parse_state(state)?);
                let peek = Peek { queue, state, after: *after, count_max: if *count == 0 { 100 } else { *count } };
                return Ok(match self.state.peek(self.instants(), &peek) {
                    Ok((messages, more)) => page(&messages, more),
                    Err(error) => format!("{error}\n"),
                });
            }
            Step::List { after, count } => {
                let lines = self.state.lines(self.instants(), after, if *count == 0 { 100 } else { *count });
                let lines: String = lines.iter().map(|line| format!("{line:?}\n")).collect();
                return Ok(if lines.is_empty() { "no queue\n".into() } else { lines });
            }
            Step::Explain { queue, id, consumer, waiting, since } => {
                let about = match (*id, consumer.as_str()) {
                    (0, "") => About::Queue,
                    (0, consumer) => About::Consumer(consumer.to_owned()),
                    (id, _) => About::Message(id),
                };
                let askers = Askers { waiting: *waiting, consumer_since_ms: *since };
                let explained = self.state.explain(self.instants(), &expand(queue), &about, askers);
                let causes = explained.causes.iter().map(|cause| format!("- {cause}\n"));
                return Ok(format!("{}\n{}", explained.summary, causes.collect::<String>()));
            }
            _ => unreachable!("an entry of the log"),
        }
        Ok(String::new())
    }
}

#[test]
fn scripts() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/queue/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 25, "{} scripts", paths.len());
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Runner::new(), &path).unwrap();
    }
}
