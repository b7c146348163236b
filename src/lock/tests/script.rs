//! Runs `scripts/`: each command is one log entry, and the output says what became of it, and of those who waited.

use std::error::Error;
use std::fmt::Write as _;

use trine_protocol::limits::WAIT_MS_FOREVER;
use trine_protocol::lock::{Acquire, Cancel, Fence, ForceRelease, Mode, Release, Renew};

use super::disk::Disk;
use super::show::{self, line, parse_token, token};
use crate::ids::At;
use crate::lock::{Caller, Command, State};
use crate::rules::Faithful;

/// A step of a script. A name such as `x@600` stands for 600 times `x`; a token of another generation is `GENERATION:INDEX`; a command
/// is `SESSION:SEQUENCE`, and without `by` that of session 1 with the number of its entry.
#[derive(goldenscript::Command)]
enum Step {
    /// `acquire LOCK CLIENT [lease=10000] [mode=shared|COUNT/OF] [wait=0|forever] [also=a,b] [reenter=TOKEN] [ends=session] [delay=0] [note=x] [by=1:N]`
    Acquire {
        lock: String,
        client: String,
        #[arg(key)]
        lease: Option<u32>,
        #[arg(key)]
        mode: Option<String>,
        #[arg(key)]
        wait: Option<String>,
        #[arg(key)]
        also: Option<String>,
        #[arg(key)]
        reenter: Option<String>,
        #[arg(key)]
        ends: Option<String>,
        #[arg(key)]
        delay: Option<u32>,
        #[arg(key)]
        note: Option<String>,
        #[arg(key)]
        by: Option<String>,
    },
    /// `release LOCK CLIENT [token=0] [left=x] [also=a,b]`
    Release {
        lock: String,
        client: String,
        #[arg(key)]
        token: Option<String>,
        #[arg(key)]
        left: Option<String>,
        #[arg(key)]
        also: Option<String>,
    },
    /// `renew LOCK CLIENT TOKEN [lease=10000] [also=a,b]`
    Renew {
        lock: String,
        client: String,
        token: String,
        #[arg(key)]
        lease: Option<u32>,
        #[arg(key)]
        also: Option<String>,
    },
    /// `cancel LOCK CLIENT SESSION:SEQUENCE`
    Cancel { lock: String, client: String, command: String },
    /// `back LOCK CLIENT TOKEN`: what a cancelled acquire had been granted is given back.
    Back { lock: String, client: String, token: String },
    /// `force LOCK`
    Force(String),
    /// `fence RESOURCE TOKEN`
    Fence { resource: String, token: String },
    /// `again SESSION:SEQUENCE`: the acquire is sent once more.
    Again(String),
    /// `up SESSION:SEQUENCE`: its sender gives the number up.
    Up(String),
    /// `end SESSION`: it ends with the next entry.
    End(u64),
    /// `tick`: an empty entry.
    Tick,
    /// `advance MS`: log time goes on, and the next entry shows it.
    Advance(u64),
    /// `skip COUNT`: entries that are none of the lock manager's.
    Skip(u64),
    /// `generation NUMBER`
    Generation(u16),
    /// `limit COUNT [waiters=] [line=] [fences=] [past=]`: of each at a time.
    Limit {
        locks: usize,
        #[arg(key)]
        waiters: Option<usize>,
        #[arg(key)]
        line: Option<usize>,
        #[arg(key)]
        fences: Option<usize>,
        #[arg(key)]
        past: Option<usize>,
    },
    /// `checkpoint`: what changed since the last.
    Checkpoint,
    /// `restart`: a checkpoint, then a state read back from it.
    Restart,
    /// `held`: every grant, in their order.
    Held,
    /// `line LOCK`: who waits, in their order.
    Line(String),
    /// `records`: the keys of all records, in their order.
    Records,
    /// `holder LOCK`
    Holder(String),
    /// `demand LOCK TOKEN`: as a write does that demands a grant.
    Demand { lock: String, token: String },
    /// `explain LOCK`
    Explain(String),
    /// `client NAME`
    Client(String),
    /// `ls [PREFIX] [after=]`
    Ls {
        prefix: Option<String>,
        #[arg(key)]
        after: Option<String>,
    },
    /// `standing SESSION:SEQUENCE`
    Standing(String),
    /// `observe LOCK`
    Observe(String),
    /// `stats`: all summed up.
    Stats,
    /// `counts`: what was done.
    Counts,
    /// `deadline`: when something is due.
    Deadline,
}

struct Runner {
    state: State,
    disk: Disk,
    at: At,
    /// Sessions that end with the next entry.
    ending: Vec<u64>,
}

impl Runner {
    fn new() -> Self {
        let at = At { index: 0, stamp_ms: 0, wall_ms: 0, generation: 0 };
        Self { state: State::default(), disk: Disk::default(), at, ending: Vec::new() }
    }

    /// The next entry of the log: time first, then what it is about.
    fn entry(&mut self, act: impl FnOnce(&mut State, At) -> String) -> String {
        self.at.index += 1;
        let mut output = String::new();
        let expired = self.state.expire::<Faithful>(self.at, &std::mem::take(&mut self.ending));
        if expired > 0 {
            writeln!(output, "{}: {expired} ran out", self.at.index).unwrap();
        }
        output += &self.settled();
        output += &act(&mut self.state, self.at);
        output + &self.settled()
    }

    fn settled(&mut self) -> String {
        let settled = self.state.take_settled();
        settled
            .iter()
            .map(|one| format!("  {}:{} {}\n", one.session, one.sequence, show::result(&one.result)))
            .collect()
    }

    fn command(&mut self, by: Option<&str>, command: &Command) -> Result<String, Box<dyn Error>> {
        let by = by.map_or(Ok(Caller { session: 1, sequence: self.at.index + 1 }), caller)?;
        Ok(self.entry(|state, at| {
            let result = state.apply::<Faithful>(at, by, command);
            format!("{}: {}\n", at.index, show::result(&result))
        }))
    }

    /// The steps that are no entries of the log.
    fn look(&mut self, step: &Step) -> Result<String, Box<dyn Error>> {
        let now_ms = self.at.stamp_ms;
        Ok(match step {
            Step::Held => {
                let all: String = self.state.held().map(|(lock, held)| line("", lock, held)).collect();
                if all.is_empty() { "no lock is held\n".into() } else { all }
            }
            Step::Line(lock) => {
                let explained = self.state.explain_lock(lock, now_ms);
                let all: String = explained.waiters.iter().map(show::waiter).collect();
                if all.is_empty() { "nobody waits\n".into() } else { all }
            }
            Step::Records => self.state.records().iter().map(|(key, _)| format!("{}\n", key.escape_ascii())).collect(),
            Step::Holder(lock) => {
                self.state.holder(lock).map_or("nobody\n".into(), |held| format!("{}\n", held.client))
            }
            Step::Demand { lock, token } => match self.state.demand(lock, parse_token(token)?) {
                Ok(()) => "it holds\n".into(),
                Err(error) => format!("{}\n", show::error(&error)),
            },
            Step::Explain(lock) => show::explained(&self.state.explain_lock(lock, now_ms)),
            Step::Client(client) => show::client(&self.state.explain_client(client, now_ms)),
            Step::Ls { prefix, after } => {
                let (prefix, after) = (prefix.as_deref().unwrap_or(""), after.as_deref().unwrap_or(""));
                show::page(&self.state.list_locks(prefix, after, now_ms))
            }
            Step::Standing(command) => {
                let Caller { session, sequence } = caller(command)?;
                format!("{}\n", self.state.standing(session, sequence))
            }
            Step::Observe(lock) => show::observed(&self.state.observe(lock)),
            Step::Stats => show::stats(&self.state.stats()),
            Step::Counts => format!("{:?}\n", self.state.counts()),
            Step::Deadline => match self.state.next_deadline_ms() {
                Some(at_ms) => format!("due at {at_ms} ms\n"),
                None => "nothing is due\n".into(),
            },
            Step::Checkpoint => self.checkpoint(),
            _ => unreachable!("a step that changes something"),
        })
    }

    fn set(&mut self, step: &Step) -> bool {
        match step {
            Step::Advance(ms) => self.at.stamp_ms += ms,
            Step::Skip(count) => self.at.index += count,
            Step::End(session) => self.ending.push(*session),
            Step::Generation(generation) => self.at.generation = *generation,
            Step::Limit { locks, waiters, line, fences, past } => {
                let bounds = &mut self.state.bounds;
                bounds.locks_max = *locks;
                bounds.waiters_max = waiters.unwrap_or(bounds.waiters_max);
                bounds.line_max = line.unwrap_or(bounds.line_max);
                bounds.fences_max = fences.unwrap_or(bounds.fences_max);
                bounds.past_max = past.unwrap_or(bounds.past_max);
            }
            Step::Restart => {
                self.disk.checkpoint(&mut self.state);
                self.state = self.disk.restore(self.state.bounds);
            }
            _ => return false,
        }
        true
    }

    fn checkpoint(&mut self) -> String {
        let changes = self.disk.checkpoint(&mut self.state);
        let one = |change: &crate::record::Change| match &change.value {
            Some(value) => {
                let mut alone = State::default();
                alone.restore(&change.key, value).unwrap();
                let holds: String = alone.held().map(|(lock, held)| line("put ", lock, held)).collect();
                if holds.is_empty() { format!("put {}\n", change.key.escape_ascii()) } else { holds }
            }
            None => format!("delete {}\n", String::from_utf8_lossy(&change.key[3..])),
        };
        if changes.is_empty() { "nothing changed\n".into() } else { changes.iter().map(one).collect() }
    }
}

fn expand(text: &str) -> String {
    match text.split_once('@').map(|(unit, count)| (unit, count.parse())) {
        Some((unit, Ok(count))) => unit.repeat(count),
        _ => text.into(),
    }
}

fn list(text: Option<&str>) -> Vec<String> {
    text.map(|text| text.split(',').map(expand).collect()).unwrap_or_default()
}

fn caller(text: &str) -> Result<Caller, Box<dyn Error>> {
    let (session, sequence) = text.split_once(':').ok_or("a command is SESSION:SEQUENCE")?;
    Ok(Caller { session: session.parse()?, sequence: sequence.parse()? })
}

fn mode(text: Option<&str>) -> Result<Mode, Box<dyn Error>> {
    Ok(match text {
        None => Mode::Exclusive,
        Some("shared") => Mode::Shared,
        Some(text) => {
            let (count, of) = text.split_once('/').ok_or("a mode is `shared` or COUNT/OF")?;
            Mode::Permits { count: count.parse()?, of: of.parse()? }
        }
    })
}

fn acquire(step: &Step) -> Result<Acquire, Box<dyn Error>> {
    let Step::Acquire { lock, client, lease, mode: shared, wait, also, reenter, ends, delay, note, .. } = step else {
        return Err("no acquire".into());
    };
    Ok(Acquire {
        lock: expand(lock),
        client: expand(client),
        lease_ms: lease.unwrap_or(10_000),
        mode: mode(shared.as_deref())?,
        wait_ms: match wait.as_deref() {
            None => 0,
            Some("forever") => WAIT_MS_FOREVER,
            Some(ms) => ms.parse()?,
        },
        also: list(also.as_deref()),
        reenter: reenter.as_deref().map_or(Ok(0), parse_token)?,
        through_session: ends.as_deref() == Some("session"),
        delay_ms: delay.unwrap_or(0),
        note: expand(note.as_deref().unwrap_or("")).into(),
    })
}

impl goldenscript::Runner for Runner {
    type Command = Step;

    fn run(&mut self, step: &Step, _: &goldenscript::Context) -> Result<String, Box<dyn Error>> {
        match step {
            Step::Acquire { by, .. } => self.command(by.as_deref(), &Command::Acquire(acquire(step)?)),
            Step::Release { lock, client, token, left, also } => {
                let token = token.as_deref().map_or(Ok(0), parse_token)?;
                let left = expand(left.as_deref().unwrap_or("")).into();
                let also = list(also.as_deref());
                let release = Release { lock: expand(lock), client: expand(client), token, left, also };
                self.command(None, &Command::Release(release))
            }
            Step::Renew { lock, client, token, lease, also } => {
                let (token, lease_ms) = (parse_token(token)?, lease.unwrap_or(10_000));
                let (lock, client, also) = (expand(lock), expand(client), list(also.as_deref()));
                self.command(None, &Command::Renew(Renew { lock, client, token, lease_ms, also }))
            }
            Step::Cancel { lock, client, command } => {
                let target = caller(command)?;
                let (lock, client) = (lock.clone(), client.clone());
                let cancel = Cancel { lock, client, sequence: target.sequence, ..Cancel::default() };
                let by = format!("{}:{}", target.session, 1_000_000 + self.at.index);
                self.command(Some(&by), &Command::Cancel(cancel))
            }
            Step::Back { lock, client, token: of } => {
                let cancel = Cancel { lock: lock.clone(), client: client.clone(), ..Cancel::default() };
                let of = parse_token(of)?;
                Ok(self.entry(|state, at| {
                    state.give_back(at, &cancel, of);
                    format!("{}: {} given back\n", at.index, token(of))
                }))
            }
            Step::Force(lock) => self.command(None, &Command::ForceRelease(ForceRelease { lock: expand(lock) })),
            Step::Fence { resource, token } => {
                let (resource, token) = (expand(resource), parse_token(token)?);
                self.command(None, &Command::Fence(Fence { resource, token }))
            }
            Step::Again(command) => {
                let by = caller(command)?;
                Ok(self.entry(|state, at| {
                    state.keep_waiting(at, by);
                    let waits = if state.waits(by.session, by.sequence) { "waits" } else { "does not wait" };
                    format!("{}: {}:{} {waits}\n", at.index, by.session, by.sequence)
                }))
            }
            Step::Up(command) => {
                let by = caller(command)?;
                Ok(self.entry(|state, at| {
                    state.give_up(at, by);
                    format!("{}: given up\n", at.index)
                }))
            }
            Step::Tick => Ok(self.entry(|_, _| String::new())),
            other if self.set(other) => Ok(String::new()),
            other => self.look(other),
        }
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
    assert!(paths.len() >= 120, "{} scripts", paths.len());
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Runner::new(), &path).unwrap();
    }
}
