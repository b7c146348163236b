//! What the scripts show, in words.

use std::error::Error as _;
use std::fmt::Write as _;

use trine_protocol::Error;
use trine_protocol::lock::{
    ClientExplained, Ending, Granted, HolderView, LockExplained, LockPage, Mode, Observed, Previous, WaiterView,
};

use crate::lock::{Answer, Held, Stats};

/// `5`, or `1:5` in generation 1.
pub(super) fn token(token: u64) -> String {
    let (generation, index) = (token >> 48, token & ((1 << 48) - 1));
    if generation == 0 { index.to_string() } else { format!("{generation}:{index}") }
}

pub(super) fn parse_token(text: &str) -> Result<u64, Box<dyn std::error::Error>> {
    match text.split_once(':') {
        Some((generation, index)) => Ok(generation.parse::<u64>()? << 48 | index.parse::<u64>()?),
        None => Ok(text.parse()?),
    }
}

fn mode(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => String::new(),
        Mode::Shared => ", shared".into(),
        Mode::Permits { count, of } => format!(", {count} of {of} permits"),
    }
}

fn previous(previous: &Previous) -> String {
    let how = match previous.ending {
        Ending::Released => "released",
        Ending::Expired => "expired",
        Ending::Forced => "forced",
    };
    let left =
        if previous.left.is_empty() { String::new() } else { format!(" leaving '{}'", previous.left.escape_ascii()) };
    format!("{} was {how} by {}, token {}{left}", previous.lock, previous.client, token(previous.token))
}

pub(super) fn error(error: &Error) -> String {
    match error.hint.as_str() {
        "" => error.to_string(),
        hint => format!("{error} (hint {hint})"),
    }
}

pub(super) fn result(result: &Result<Answer, Error>) -> String {
    match result {
        Ok(Answer::Granted(Granted { token: of, lease_ms, depth, previous: before })) => {
            let mut text = format!("granted, token {}, {lease_ms} ms", token(*of));
            if *depth != 1 {
                write!(text, ", entered {depth} times").unwrap();
            }
            for one in before {
                write!(text, "; {}", previous(one)).unwrap();
            }
            text
        }
        Ok(Answer::Released(released)) => match (released.was_held, released.depth) {
            (false, _) => "was not held".into(),
            (true, 0) => "released".into(),
            (true, depth) => format!("left, {depth} times to go"),
        },
        Ok(Answer::Waiting) => "waits".into(),
        Ok(Answer::Cancelled(cancelled)) if cancelled.was_waiting => "cancelled".into(),
        Ok(Answer::Cancelled(_)) => "was not waiting".into(),
        Ok(Answer::Forced(forced)) => {
            format!("taken from [{}], token {}", forced.holders.join(", "), token(forced.token))
        }
        Ok(Answer::Fenced(fenced)) => format!("passes, the highest before was {}", token(fenced.before)),
        Err(refused) => {
            assert!(refused.source().is_none());
            error(refused)
        }
    }
}

pub(super) fn line(prefix: &str, lock: &str, held: &Held) -> String {
    let Held { client, token: of, granted_ms, deadline_ms, mode: how, .. } = held;
    let until = match (held.session(), *deadline_ms) {
        (0, deadline_ms) => format!("to {deadline_ms} ms"),
        (session, _) => format!("as long as session {session}"),
    };
    let depth = if held.depth() == 1 { String::new() } else { format!(", entered {} times", held.depth()) };
    format!("{prefix}{lock}: {client}, token {}, from {granted_ms} {until}{}{depth}\n", token(*of), mode(*how))
}

pub(super) fn waiter(waiter: &WaiterView) -> String {
    let gives_up = match waiter.gives_up_in_ms {
        0 => "for ever".into(),
        ms => format!("for {ms} ms more"),
    };
    let locks = waiter.locks.join(" and ");
    format!("{} waits since {} ms {gives_up} for {locks}{}\n", waiter.client, waiter.waited_ms, mode(waiter.mode))
}

fn holder(holder: &HolderView) -> String {
    let until = match holder.session {
        0 => format!("{} ms left", holder.lease_left_ms),
        session => format!("as long as session {session}"),
    };
    let note = if holder.note.is_empty() { String::new() } else { format!(", says '{}'", holder.note.escape_ascii()) };
    format!(
        "{}, token {}, for {} ms, {until}{}{note}",
        holder.client,
        token(holder.token),
        holder.held_ms,
        mode(holder.mode)
    )
}

pub(super) fn explained(explained: &LockExplained) -> String {
    let mut text = String::new();
    for held in &explained.holders {
        writeln!(text, "held by {}", holder(held)).unwrap();
    }
    writeln!(text, "{} hold it, {} wait", explained.holders_total, explained.waiters_total).unwrap();
    for one in &explained.waiters {
        text += &waiter(one);
    }
    if explained.delayed_ms > 0 {
        writeln!(text, "nobody gets it for {} ms", explained.delayed_ms).unwrap();
    }
    if let Some(before) = &explained.previous {
        writeln!(text, "{}", previous(before)).unwrap();
    }
    text
}

pub(super) fn client(explained: &ClientExplained) -> String {
    let mut text = String::new();
    for held in &explained.holds {
        writeln!(text, "holds {}, {} wait for it: {}", held.lock, held.waiters, holder(&held.hold)).unwrap();
    }
    for wait in &explained.waits {
        let holders: Vec<String> = wait.holders.iter().map(|held| held.client.clone()).collect();
        let behind = wait.behind.join(", ");
        writeln!(text, "waits for {} behind [{behind}], held by [{}]", wait.lock, holders.join(", ")).unwrap();
    }
    if text.is_empty() { "nothing\n".into() } else { text }
}

pub(super) fn page(page: &LockPage) -> String {
    let mut text = String::new();
    for lock in &page.locks {
        let first = lock.holder.as_ref().map_or("nobody".to_owned(), |held| held.client.clone());
        writeln!(
            text,
            "{}: {first}, {} hold it, {} wait since {} ms",
            lock.lock, lock.holders, lock.waiters, lock.waited_ms
        )
        .unwrap();
    }
    if page.more {
        text += "and more\n";
    }
    if text.is_empty() { "none\n".into() } else { text }
}

pub(super) fn observed(observed: &Observed) -> String {
    let note =
        if observed.note.is_empty() { String::new() } else { format!(", says '{}'", observed.note.escape_ascii()) };
    match observed.token {
        0 => "nobody\n".into(),
        of => format!("{}, token {}{note}\n", observed.client, token(of)),
    }
}

pub(super) fn stats(stats: &Stats) -> String {
    let Stats { held, waiting, fences, oldest_granted_ms, oldest_waiting_ms } = stats;
    format!(
        "{held} held, the oldest since {oldest_granted_ms:?} ms; {waiting} wait, the first since {oldest_waiting_ms:?} ms; {fences} fences\n"
    )
}
