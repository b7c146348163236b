//! Looking at locks, and ending what another holds.

use std::fmt::Write;

use serde_json::{Value, json};
use trine_protocol::client::Client;
use trine_protocol::lock::{ClientExplained, Ending, HolderView, LockExplained, LockView, Mode, Previous, WaiterView};
use trine_protocol::{Error, ErrorCode};

use crate::cli::client::{ClientArgs, text_member};
use crate::cli::{Exit, Failure, complain, say};

/// A duration as people say it.
fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

/// Why a group says nothing: it has nobody who could.
fn silence(group: u32, error: &Error) -> String {
    match error.code {
        ErrorCode::NoLeader | ErrorCode::DeadlineExceeded | ErrorCode::Unreachable => {
            format!("no quorum in group {group}: {}", error.message)
        }
        _ => format!("group {group}: {error}"),
    }
}

/// Lists the locks of every group.
pub(super) async fn list(client: &ClientArgs, prefix: &str) -> Result<Exit, Failure> {
    let connected = client.connect().await?;
    let mut all = Vec::new();
    let mut silent = 0;
    for group in 0..connected.ring().groups() {
        let mut after = String::new();
        loop {
            let page = match connected.list_locks(group, prefix, after.as_str()).await {
                Ok(page) => page,
                Err(error) => {
                    silent += 1;
                    complain(&silence(group, &error));
                    break;
                }
            };
            after = page.locks.last().map(|last| last.lock.clone()).unwrap_or_default();
            all.extend(page.locks);
            if !page.more {
                break;
            }
        }
    }
    all.sort_by(|one, other| one.lock.cmp(&other.lock));
    match client.json {
        true => all.iter().try_for_each(|view| say(format!("{}\n", view_json(view)).as_bytes()))?,
        false => say(table(&all).as_bytes())?,
    }
    Ok(if silent > 0 { Exit::Incomplete } else { Exit::Done })
}

fn table(all: &[LockView]) -> String {
    let row = |view: &LockView| {
        let (holder, token, held, lease) = match &view.holder {
            Some(holder) => {
                let more = if view.holders > 1 { format!(" and {} more", view.holders - 1) } else { String::new() };
                let lease = if holder.session > 0 { "session".to_owned() } else { seconds(holder.lease_left_ms) };
                (format!("{}{more}", holder.client), holder.token.to_string(), seconds(holder.held_ms), lease)
            }
            None => ("-".to_owned(), "-".to_owned(), "-".to_owned(), "-".to_owned()),
        };
        let waited = if view.waiters > 0 { seconds(view.waited_ms) } else { "-".to_owned() };
        [view.lock.clone(), holder, token, held, lease, view.waiters.to_string(), waited]
    };
    let head = ["LOCK", "HOLDER", "TOKEN", "HELD", "LEASE LEFT", "WAITERS", "FIRST WAITS"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(all.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}", width = *width)).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

/// Says why a lock is as it is.
pub(super) async fn explain(client: &ClientArgs, lock: &str) -> Result<Exit, Failure> {
    let connected = client.connect().await?;
    let explained = match connected.explain_lock(lock).await {
        Ok(explained) => explained,
        Err(error) => return Err(unanswered(&connected, lock, error)),
    };
    let mut text = format!("lock {lock}, group {}\n", explained.group);
    tell(&mut text, lock, &explained);
    client.answer(text.trim_end(), &explained_json(lock, &explained))
}

fn unanswered(client: &Client, lock: &str, error: Error) -> Failure {
    let line = silence(client.ring().group_of_lock(lock), &error);
    Failure { line, ..Failure::from(error) }
}

fn tell(text: &mut String, lock: &str, explained: &LockExplained) {
    let LockExplained { holders, holders_total, waiters, waiters_total, delayed_ms, previous, .. } = explained;
    for holder in holders {
        let _ = writeln!(text, "  held by {}", holder_words(holder));
    }
    if *holders_total as usize > holders.len() {
        let _ = writeln!(text, "  and {} more", *holders_total as usize - holders.len());
    }
    if *delayed_ms > 0 {
        let _ = writeln!(
            text,
            "  nobody gets it for {}: its last holder did not give it back, and had asked for that",
            seconds(*delayed_ms)
        );
    } else if holders.is_empty() {
        let _ = writeln!(text, "  nobody holds it");
    }
    let mut before: Vec<&str> = holders.iter().map(|holder| holder.client.as_str()).collect();
    for waiter in waiters {
        let _ = writeln!(text, "  {}", waiter_words(waiter, lock, &before));
        before.push(&waiter.client);
    }
    if *waiters_total as usize > waiters.len() {
        let _ = writeln!(text, "  and {} more wait", *waiters_total as usize - waiters.len());
    }
    if let Some(previous) = previous {
        let _ = writeln!(text, "  {}", previous_words(previous));
    }
}

fn mode_words(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => String::new(),
        Mode::Shared => ", shared".to_owned(),
        Mode::Permits { count, of } => format!(", {count} of {of} permits"),
    }
}

fn holder_words(holder: &HolderView) -> String {
    let HolderView { client, token, mode, held_ms, lease_left_ms, session, depth, note } = holder;
    let ends = match session {
        0 => format!("lease ends in {}", seconds(*lease_left_ms)),
        session => format!("as long as session {session} lives"),
    };
    let depth = if *depth > 1 { format!(", entered {depth} times") } else { String::new() };
    let note = if note.is_empty() { String::new() } else { format!(", says {:?}", String::from_utf8_lossy(note)) };
    format!("{client} since {} ago, token {token}, {ends}{}{depth}{note}", seconds(*held_ms), mode_words(*mode))
}

fn waiter_words(waiter: &WaiterView, lock: &str, before: &[&str]) -> String {
    let gives_up = match waiter.gives_up_in_ms {
        0 => "as long as it takes".to_owned(),
        ms => format!("gives up in {}", seconds(ms)),
    };
    let others: Vec<&str> = waiter.locks.iter().map(String::as_str).filter(|other| *other != lock).collect();
    let others = if others.is_empty() { String::new() } else { format!(", together with {}", others.join(", ")) };
    let behind = if before.is_empty() { "first in line".to_owned() } else { format!("behind {}", before.join(", ")) };
    let (client, waited) = (&waiter.client, seconds(waiter.waited_ms));
    format!("{client} waits {behind} for {lock}{others}, since {waited} ago, {gives_up}{}", mode_words(waiter.mode))
}

fn previous_words(previous: &Previous) -> String {
    let how = match previous.ending {
        Ending::Released => "was given back by",
        Ending::Expired => "ran out while it was held by",
        Ending::Forced => "was taken by force from",
    };
    let left = match previous.left.is_empty() {
        true => String::new(),
        false => format!(", which left {:?}", String::from_utf8_lossy(&previous.left)),
    };
    format!("before, it {how} {}, token {}{left}", previous.client, previous.token)
}

/// Says what a client holds and waits for, in every group.
pub(super) async fn explain_client(client: &ClientArgs, name: &str) -> Result<Exit, Failure> {
    let connected = client.connect().await?;
    let (mut text, mut groups, mut silent) = (format!("client {name}\n"), Vec::new(), false);
    for group in 0..connected.ring().groups() {
        match connected.explain_client(group, name).await {
            Ok(explained) => {
                tell_client(&mut text, &explained);
                groups.push(client_json(group, &explained));
            }
            Err(error) => {
                silent = true;
                let _ = writeln!(text, "  {}", silence(group, &error));
                groups.push(json!({ "group": group, "error": silence(group, &error) }));
            }
        }
    }
    if text.lines().count() == 1 {
        text.push_str("  holds nothing and waits for nothing\n");
    }
    client.answer(text.trim_end(), &json!({ "client": name, "groups": groups }))?;
    Ok(if silent { Exit::Incomplete } else { Exit::Done })
}

fn tell_client(text: &mut String, explained: &ClientExplained) {
    for held in &explained.holds {
        let _ = writeln!(text, "  holds {}, {} wait for it: {}", held.lock, held.waiters, holder_words(&held.hold));
    }
    for wait in &explained.waits {
        let before: Vec<&str> = wait.behind.iter().map(String::as_str).collect();
        let _ = writeln!(text, "  {}", waiter_words(&wait.wait, &wait.lock, &before));
        for holder in &wait.holders {
            let _ = writeln!(text, "    held by {}", holder_words(holder));
        }
        if wait.delayed_ms > 0 {
            let _ = writeln!(text, "    nobody gets it for {}", seconds(wait.delayed_ms));
        }
    }
}

/// Ends every grant of a lock.
pub(super) async fn force_release(client: &ClientArgs, lock: &str) -> Result<Exit, Failure> {
    let forced = client.connect().await?.force_release(lock).await?;
    if forced.holders.is_empty() {
        return Err(Failure::new(Exit::Nothing, format!("nobody holds lock '{lock}'")));
    }
    let object =
        json!({ "status": "released", "lock": lock, "holders": forced.holders, "fencing_token": forced.token });
    client.answer(format!("{} taken from {}", forced.token, forced.holders.join(", ")), &object)
}

/// Shows a token for a resource.
pub(super) async fn fence(client: &ClientArgs, resource: &str, token: u64) -> Result<Exit, Failure> {
    let fenced = client.connect().await?.fence(resource, token).await?;
    let object = json!({ "status": "passed", "resource": resource, "fencing_token": token, "before": fenced.before });
    client.answer(format!("passed, the highest before was {}", fenced.before), &object)
}

// ------------------------------------------------------------------------------------------ for programs

fn mode_json(mode: Mode) -> Value {
    match mode {
        Mode::Exclusive => json!("exclusive"),
        Mode::Shared => json!("shared"),
        Mode::Permits { count, of } => json!({ "permits": count, "of": of }),
    }
}

fn holder_json(holder: &HolderView) -> Value {
    let HolderView { client, token, mode, held_ms, lease_left_ms, session, depth, note } = holder;
    let mut object = json!({
        "client": client, "fencing_token": token, "mode": mode_json(*mode), "held_ms": held_ms,
        "lease_left_ms": lease_left_ms, "session": session, "depth": depth,
    });
    let (name, note) = text_member("note", note);
    object[name] = note;
    object
}

fn waiter_json(waiter: &WaiterView) -> Value {
    let WaiterView { client, mode, waited_ms, gives_up_in_ms, locks } = waiter;
    json!({
        "client": client, "mode": mode_json(*mode), "waited_ms": waited_ms, "gives_up_in_ms": gives_up_in_ms, "locks": locks,
    })
}

fn previous_json(previous: &Previous) -> Value {
    let ending = match previous.ending {
        Ending::Released => "released",
        Ending::Expired => "expired",
        Ending::Forced => "forced",
    };
    let mut object = json!({ "ending": ending, "client": previous.client, "fencing_token": previous.token });
    let (name, left) = text_member("left", &previous.left);
    object[name] = left;
    object
}

fn explained_json(lock: &str, explained: &LockExplained) -> Value {
    let LockExplained { group, holders, holders_total, waiters, waiters_total, delayed_ms, previous } = explained;
    json!({
        "lock": lock, "group": group, "holders": holders.iter().map(holder_json).collect::<Vec<_>>(), "holders_total": holders_total,
        "waiters": waiters.iter().map(waiter_json).collect::<Vec<_>>(), "waiters_total": waiters_total, "delayed_ms": delayed_ms,
        "previous": previous.as_ref().map(previous_json),
    })
}

fn client_json(group: u32, explained: &ClientExplained) -> Value {
    let hold = |held: &trine_protocol::lock::ClientHold| json!({ "lock": held.lock, "hold": holder_json(&held.hold), "waiters": held.waiters });
    let wait = |wait: &trine_protocol::lock::ClientWait| {
        json!({
            "lock": wait.lock, "wait": waiter_json(&wait.wait), "behind": wait.behind,
            "holders": wait.holders.iter().map(holder_json).collect::<Vec<_>>(), "delayed_ms": wait.delayed_ms,
        })
    };
    json!({
        "group": group, "holds": explained.holds.iter().map(hold).collect::<Vec<_>>(),
        "waits": explained.waits.iter().map(wait).collect::<Vec<_>>(),
    })
}

fn view_json(view: &LockView) -> Value {
    json!({
        "lock": view.lock, "holder": view.holder.as_ref().map(holder_json), "holders": view.holders, "waiters": view.waiters,
        "waited_ms": view.waited_ms,
    })
}
