//! Runs `scripts/`: each command is one log entry, and the output says what became of it.

use std::error::Error;
use std::fmt::Write as _;

use trine_protocol::lock::{Acquire, Granted, Release, Released, Renew};

use super::disk::Disk;
use crate::ids::At;
use crate::lock::{Answer, Command, Held, State};

/// A step of a script. A name such as `x@600` stands for 600 times `x`; a token of another generation is `GENERATION:INDEX`.
#[derive(goldenscript::Command)]
enum Step {
    /// `acquire LOCK CLIENT [lease=10000]`
    Acquire {
        lock: String,
        client: String,
        #[arg(key)]
        lease: Option<u32>,
    },
    /// `release LOCK CLIENT [token=0]`
    Release {
        lock: String,
        client: String,
        #[arg(key)]
        token: Option<String>,
    },
    /// `renew LOCK CLIENT TOKEN [lease=10000]`
    Renew {
        lock: String,
        client: String,
        token: String,
        #[arg(key)]
        lease: Option<u32>,
    },
    /// `tick`: an empty entry.
    Tick,
    /// `advance MS`: log time goes on, and the next entry shows it.
    Advance(u64),
    /// `skip COUNT`: entries that are none of the lock manager's.
    Skip(u64),
    /// `generation NUMBER`
    Generation(u16),
    /// `limit COUNT`: locks at a time.
    Limit(usize),
    /// `checkpoint`: what changed since the last.
    Checkpoint,
    /// `restart`: a checkpoint, then a state read back from it.
    Restart,
    /// `held`: every lock, in the order of the grants.
    Held,
    /// `records`: the keys of all records, in their order.
    Records,
    /// `holder LOCK`
    Holder(String),
    /// `stats`: all summed up.
    Stats,
    /// `deadline`: when something is due.
    Deadline,
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
            writeln!(output, "{}: {expired} ran out", self.at.index).unwrap();
        }
        let Some(command) = command else { return output };
        write!(output, "{}: ", self.at.index).unwrap();
        match self.state.apply(self.at, &command) {
            Ok(Answer::Granted(Granted { token: of, lease_ms })) => {
                writeln!(output, "granted, token {}, {lease_ms} ms", token(of)).unwrap();
            }
            Ok(Answer::Released(Released { was_held: true })) => writeln!(output, "released").unwrap(),
            Ok(Answer::Released(Released { was_held: false })) => writeln!(output, "was not held").unwrap(),
            Err(error) if error.hint.is_empty() => writeln!(output, "{error}").unwrap(),
            Err(error) => writeln!(output, "{error} (hint {})", error.hint).unwrap(),
        }
        output
    }

    /// The steps that are no entries of the log.
    fn look(&mut self, step: &Step) -> String {
        match step {
            Step::Advance(ms) => self.at.stamp_ms += ms,
            Step::Skip(count) => self.at.index += count,
            Step::Generation(generation) => self.at.generation = *generation,
            Step::Limit(locks_max) => self.state.locks_max = *locks_max,
            Step::Checkpoint => return self.checkpoint(),
            Step::Restart => {
                self.disk.checkpoint(&mut self.state);
                self.state = self.disk.restore(self.state.locks_max);
            }
            Step::Held => {
                let all: String = self.state.held().map(|(lock, held)| line("", lock, held)).collect();
                return if all.is_empty() { "no lock is held\n".into() } else { all };
            }
            Step::Records => {
                return self.state.records().iter().map(|(key, _)| format!("{}\n", key.escape_ascii())).collect();
            }
            Step::Holder(lock) => {
                return self.state.holder(lock).map_or("nobody\n".into(), |held| format!("{}\n", held.client));
            }
            Step::Stats => {
                let crate::lock::Stats { held, oldest_granted_ms } = self.state.stats();
                return format!("{held} held, the oldest since {oldest_granted_ms:?} ms\n");
            }
            Step::Deadline => {
                return self
                    .state
                    .next_deadline_ms()
                    .map_or("nothing is due\n".into(), |at_ms| format!("due at {at_ms} ms\n"));
            }
            _ => unreachable!("an entry of the log"),
        }
        String::new()
    }

    fn checkpoint(&mut self) -> String {
        let changes = self.disk.checkpoint(&mut self.state);
        let one = |change: &crate::record::Change| {
            let lock = std::str::from_utf8(&change.key[3..]).unwrap();
            match &change.value {
                Some(value) => {
                    let mut alone = State::default();
                    alone.restore(&change.key, value).unwrap();
                    line("put ", lock, alone.holder(lock).unwrap())
                }
                None => format!("delete {lock}\n"),
            }
        };
        if changes.is_empty() { "nothing changed\n".into() } else { changes.iter().map(one).collect() }
    }
}

fn line(prefix: &str, lock: &str, held: &Held) -> String {
    let Held { client, token: of, granted_ms, deadline_ms } = held;
    format!("{prefix}{lock}: {client}, token {}, from {granted_ms} to {deadline_ms} ms\n", token(*of))
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

impl goldenscript::Runner for Runner {
    type Command = Step;

    fn run(&mut self, step: &Step, _: &goldenscript::Context) -> Result<String, Box<dyn Error>> {
        let command = match step {
            Step::Acquire { lock, client, lease } => {
                let (lock, client, lease_ms) = (expand(lock), expand(client), lease.unwrap_or(10_000));
                Some(Command::Acquire(Acquire { lock, client, lease_ms }))
            }
            Step::Release { lock, client, token } => {
                let token = token.as_deref().map_or(Ok(0), parse_token)?;
                Some(Command::Release(Release { lock: expand(lock), client: expand(client), token }))
            }
            Step::Renew { lock, client, token, lease } => {
                let (token, lease_ms) = (parse_token(token)?, lease.unwrap_or(10_000));
                Some(Command::Renew(Renew { lock: expand(lock), client: expand(client), token, lease_ms }))
            }
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

#[test]
fn scripts() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lock/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 25, "{} scripts", paths.len());
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Runner::new(), &path).unwrap();
    }
}
