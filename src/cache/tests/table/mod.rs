//! The protocol as a table: every state of either side, every event, and what the code does with it.
//!
//! Nothing here says what should happen: each row is what came out of an agent or a home that was brought into the state by messages
//! and clients alone, and then met the event. So the files in `src/cache/table` are the protocol as it is, to be read and
//! compared, and `rules` says what every row of them must obey.

mod home;
mod home_events;
mod node;
mod node_events;
mod rules;

use std::collections::BTreeSet;

use crate::rules::{OneLeftOut, Rule};

const WIDTH: usize = 150;

/// One state and what each event does to it.
struct Section {
    state: String,
    /// How it comes about.
    comes: &'static str,
    rows: Vec<Row>,
}

struct Row {
    event: &'static str,
    next: String,
    actions: Vec<String>,
}

/// Sections one under the other, rows in columns; what is too long for a column goes on below.
fn print(head: &str, sections: &[Section], columns: [usize; 2]) -> String {
    let mut text = head.to_owned();
    for section in sections {
        text += &format!("\n{}: {}\n", section.state, section.comes);
        for row in &section.rows {
            let next = if row.next == section.state { "-" } else { &row.next };
            let actions = if row.actions.is_empty() { "-".into() } else { row.actions.join("; ") };
            let [event, next] = [fold(row.event, columns[0] - 2), fold(next, columns[1] - 2)];
            let actions = fold(&actions, WIDTH - 2 - columns[0] - columns[1]);
            for line in 0..event.len().max(next.len()).max(actions.len()) {
                let part = |column: &[String]| column.get(line).cloned().unwrap_or_default();
                let [one, two, three] = [part(&event), part(&next), part(&actions)];
                let line = format!("  {one:<0$}{two:<1$}{three}", columns[0], columns[1]);
                text += line.trim_end();
                text.push('\n');
            }
        }
    }
    text
}

/// Breaks a text at blanks.
fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("one at least");
        if last.is_empty() {
            *last = word.into();
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            *last += &format!(" {word}");
        } else {
            lines.push(word.into());
        }
    }
    lines
}

/// Compares a table with its file. `UPDATE_GOLDENFILES=1` writes what came out; read the difference before you keep it.
fn compare(name: &str, text: &str) {
    let path = format!("{}/src/cache/table/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var("UPDATE_GOLDENFILES").as_deref() == Ok("1") {
        std::fs::write(&path, text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = known.lines().zip(text.lines()).find(|(known, now)| known != now);
    assert!(known == text, "{path} is not what the code does, from here on: {differs:?}");
}

/// A table that is the same without a rule, and breaks none of what every row obeys, would not show where it is broken.
fn shows_each_rule(left_out: &[Rule], table: fn() -> String) {
    let faithful = table();
    for rule in left_out {
        let without = OneLeftOut::during(*rule, || std::panic::catch_unwind(table));
        assert!(without.is_err() || without.is_ok_and(|text| text != faithful), "{rule:?}");
    }
}

/// The names that `State::name` can give, as its source has them.
fn state_names() -> BTreeSet<&'static str> {
    let source = include_str!("../../agent/slot.rs");
    let body = source
        .split("impl State {")
        .nth(1)
        .and_then(|rest| rest.split("fn name(&self)").nth(1))
        .and_then(|rest| rest.split("\n    }\n").next())
        .expect("the function");
    body.split('"').skip(1).step_by(2).collect()
}
