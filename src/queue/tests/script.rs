//! Runs `scripts/`: each command is one log entry, and the output says what became of it.

use std::error::Error;
use std::fmt::Write as _;

use bytes::Bytes;
use trine_protocol::queue::{Ack, AckWhich, Dequeue, Enqueue};

use super::disk::Disk;
use crate::ids::At;
use crate::queue::stored::{self, StoredMessage};
use crate::queue::{Answer, Command, State};

/// A step of a script. A name or body such as `x@600` stands for 600 times `x`.
#[derive(goldenscript::Command)]
enum Step {
    /// `enqueue QUEUE BODY`
    Enqueue(String, String),
    /// `dequeue QUEUE [count=1] [visibility=30000]`
    Dequeue {
        queue: String,
        #[arg(key, optional)]
        count: u32,
        #[arg(key, optional)]
        visibility: u32,
    },
    /// `ack QUEUE ID TOKEN`; the token of another generation is `GENERATION:INDEX`.
    Ack(String, u64, String),
    /// `ack_body QUEUE BODY`
    AckBody(String, String),
    /// `tick`: an empty entry.
    Tick,
    /// `advance MS`: log time goes on, and the next entry shows it.
    Advance(u64),
    /// `skip COUNT`: entries that are none of the queue's.
    Skip(u64),
    /// `generation NUMBER`
    Generation(u16),
    /// `limits [messages=10] [queues=10]`
    Limits {
        #[arg(key)]
        messages: Option<usize>,
        #[arg(key)]
        queues: Option<usize>,
    },
    /// `checkpoint`: what changed since the last.
    Checkpoint,
    /// `restart`: a checkpoint, then a state read back from it.
    Restart,
    /// `records`: all of them.
    Records,
    /// `stats`: each queue summed up.
    Stats,
    /// `deadline`: when something is due.
    Deadline,
    /// `live AFTER THROUGH`
    Live(u64, u64),
}

struct Runner {
    state: State,
    disk: Disk,
    at: At,
}

impl Runner {
    fn new() -> Self {
        let at = At { index: 0, stamp_ms: 0, wall_ms: 0, generation: 0 };
        Self { state: State::default(), disk: Disk::default(), at }
    }

    /// The next entry of the log: time first, then the command.
    fn entry(&mut self, command: Option<Command>) -> String {
        self.at.index += 1;
        let mut output = String::new();
        let expired = self.state.expire(self.at.stamp_ms);
        if expired > 0 {
            writeln!(output, "{}: {expired} timed out", self.at.index).unwrap();
        }
        let Some(command) = command else { return output };
        write!(output, "{}: ", self.at.index).unwrap();
        match self.state.apply(self.at, &command) {
            Ok(Answer::Enqueued { id }) => writeln!(output, "enqueued {id}").unwrap(),
            Ok(Answer::Acked { id }) => writeln!(output, "acked {id}").unwrap(),
            Ok(Answer::Delivered(handed)) if handed.is_empty() => writeln!(output, "empty").unwrap(),
            Ok(Answer::Delivered(handed)) => {
                let all =
                    handed.iter().map(|one| format!("{} (token {}, x{})", one.id, token(one.token), one.deliveries));
                writeln!(output, "delivered {}", all.collect::<Vec<_>>().join(", ")).unwrap();
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
                None => writeln!(output, "delete bucket {}", u64::from_be_bytes(change.key[1..].try_into().unwrap()))
                    .unwrap(),
            }
        }
        if changes.is_empty() { "nothing changed\n".into() } else { output }
    }

    fn stats(&self) -> String {
        let one = |stats: crate::queue::Stats<'_>| {
            let crate::queue::Stats { queue, ready, in_flight, oldest_enqueued_ms, bytes } = stats;
            format!(
                "{queue}: {ready} ready, {in_flight} in flight, oldest from {oldest_enqueued_ms} ms, {bytes} bytes\n"
            )
        };
        let all: String = self.state.stats().map(one).collect();
        if all.is_empty() { "no queue\n".into() } else { all }
    }
}

/// `5`, or `1:5` in generation 1.
fn token(token: u64) -> String {
    let (generation, index) = (token >> 48, token & ((1 << 48) - 1));
    if generation == 0 { index.to_string() } else { format!("{generation}:{index}") }
}

fn parse_token(text: &str) -> Result<u64, Box<dyn Error>> {
    match text.split_once(':') {
        Some((generation, index)) => Ok(generation.parse::<u64>()? << 48 | index.parse::<u64>()?),
        None => Ok(text.parse()?),
    }
}

fn expand(text: &str) -> String {
    match text.split_once('@').map(|(unit, count)| (unit, count.parse())) {
        Some((unit, Ok(count))) => unit.repeat(count),
        _ => text.into(),
    }
}

fn record(prefix: &str, key: &[u8], value: &[u8]) -> String {
    let (bucket, content) = stored::read(key, value).expect("a record of ours");
    let message = |message: &StoredMessage| {
        let id = stored::id_of(bucket, message.offset);
        let delivery = message.delivery.as_ref().map_or("waiting".into(), |delivery| {
            let until =
                delivery.deadline_ms.map_or("ready again".into(), |deadline_ms| format!("until {deadline_ms} ms"));
            format!("token {}, x{}, {until}", token(delivery.token), delivery.deliveries)
        });
        let (queue, bytes, enqueued_ms) =
            (&content.queues[usize::from(message.queue)], message.bytes, message.enqueued_ms);
        format!("  {id}: {queue}, {bytes} bytes from {enqueued_ms} ms, {delivery}\n")
    };
    format!("{prefix}bucket {bucket}\n{}", content.messages.iter().map(message).collect::<String>())
}

impl goldenscript::Runner for Runner {
    type Command = Step;

    fn run(&mut self, step: &Step, _: &goldenscript::Context) -> Result<String, Box<dyn Error>> {
        let command = match step {
            Step::Enqueue(queue, body) => Some(Command::Enqueue(Enqueue {
                queue: expand(queue),
                body: Bytes::from(expand(body)),
                ..Enqueue::default()
            })),
            Step::Dequeue { queue, count, visibility } => {
                Some(Command::Dequeue(Dequeue { queue: expand(queue), visibility_ms: *visibility, count_max: *count }))
            }
            Step::Ack(queue, id, token) => {
                let which = AckWhich::Receipt { id: *id, token: parse_token(token)? };
                Some(Command::Ack(Ack { queue: expand(queue), which, if_token: None }))
            }
            Step::AckBody(queue, body) => Some(Command::Ack(Ack {
                queue: expand(queue),
                which: AckWhich::Body(Bytes::from(expand(body))),
                if_token: None,
            })),
            Step::Tick => None,
            other => return Ok(self.look(other)),
        };
        Ok(self.entry(command))
    }

    fn end_command(&mut self, _: &Step, _: &goldenscript::Context) -> Result<String, Box<dyn Error>> {
        self.state.check_invariants();
        Ok(String::new())
    }

    fn end_script(&mut self) -> Result<(), Box<dyn Error>> {
        self.disk.checkpoint(&mut self.state);
        Ok(())
    }
}

impl Runner {
    /// The steps that are no entries of the log.
    fn look(&mut self, step: &Step) -> String {
        match step {
            Step::Advance(ms) => self.at.stamp_ms += ms,
            Step::Skip(count) => self.at.index += count,
            Step::Generation(generation) => self.at.generation = *generation,
            Step::Limits { messages, queues } => {
                let limits = &mut self.state.limits;
                limits.messages_max = messages.unwrap_or(limits.messages_max);
                limits.queues_max = queues.unwrap_or(limits.queues_max);
            }
            Step::Checkpoint => return self.checkpoint(),
            Step::Restart => {
                self.disk.checkpoint(&mut self.state);
                self.state = self.disk.restore(self.state.limits);
            }
            Step::Records => {
                let all: String = self.state.records().iter().map(|(key, value)| record("", key, value)).collect();
                return if all.is_empty() { "no records\n".into() } else { all };
            }
            Step::Stats => return self.stats(),
            Step::Deadline => {
                return self
                    .state
                    .next_deadline_ms()
                    .map_or("nothing is due\n".into(), |at_ms| format!("due at {at_ms} ms\n"));
            }
            Step::Live(after, through) => {
                let ids = self.state.live_bodies(*after, *through);
                assert!(ids.iter().all(|id| self.state.is_live(*id)), "is_live agrees");
                return format!("{ids:?}\n");
            }
            _ => unreachable!("an entry of the log"),
        }
        String::new()
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
