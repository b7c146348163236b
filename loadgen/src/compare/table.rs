//! The comparisons as a table for a person, with what is to be known about them below.

use std::fmt::Write as _;

use super::figures::{Comparison, Trials};

/// The table, then what each row counts, then what failed or was away.
pub(super) fn table(comparisons: &[Comparison]) -> String {
    let mut out = format!(
        "{:<18} {:>11} {:>9}   {:<24} {:<26} {:>11} {:>9} {:>8}\n",
        "work", "Trine /s", "p50 ms", "peer", "its answer means", "peer /s", "p50 ms", "ratio"
    );
    for comparison in comparisons {
        let _ = writeln!(
            out,
            "{:<18} {:>11} {:>9}   {:<24} {:<26} {:>11} {:>9} {:>8}",
            comparison.row.name,
            marked(&comparison.ours, comparison.ours.rate(), 0),
            marked(&comparison.ours, comparison.ours.p50_ms(), 3),
            comparison.peer,
            comparison.keeps,
            marked(&comparison.theirs, comparison.theirs.rate(), 0),
            marked(&comparison.theirs, comparison.theirs.p50_ms(), 3),
            ratio(comparison),
        );
    }
    out.push('\n');
    let mut noted = "";
    for comparison in comparisons {
        if comparison.row.name != noted {
            noted = comparison.row.name;
            let _ = writeln!(out, "{noted}: {}", comparison.row.note);
        }
    }
    out + &troubles(comparisons)
}

/// What was away and what failed, with the texts. Empty where all went well.
pub(super) fn troubles(comparisons: &[Comparison]) -> String {
    let mut out = String::new();
    let mut ours = "";
    for comparison in comparisons {
        let work = comparison.row.name;
        if work != ours {
            ours = work;
            out += &trouble(work, "Trine", &comparison.ours);
        }
        out += &trouble(work, comparison.peer, &comparison.theirs);
    }
    out
}

fn trouble(work: &str, system: &str, trials: &Trials) -> String {
    let mut out = String::new();
    if let Some(why) = trials.absent() {
        let _ = writeln!(out, "{work}, {system}: not there: {why}");
    }
    let errors = trials.errors();
    if !errors.is_empty() {
        let verdict = if trials.is_marked() { "too many to compare" } else { "few enough to compare" };
        let _ = writeln!(out, "{work}, {system}: ! up to {:.2} % failed, {verdict}", trials.failed_share() * 100.0);
    }
    for error in errors {
        let _ = writeln!(out, "{work}, {system}: {error}");
    }
    out
}

fn marked(trials: &Trials, figure: Option<f64>, digits: usize) -> String {
    let mark = if trials.is_marked() { "!" } else { "" };
    figure.map_or_else(|| "-".into(), |figure| format!("{mark}{figure:.digits$}"))
}

/// By the latency or by the rate, and it says by which.
fn ratio(comparison: &Comparison) -> String {
    let by = if comparison.row.is_latency { "p50" } else { "" };
    comparison.ratio().map_or_else(|| "-".into(), |ratio| format!("{by} {ratio:.2}").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{away, comparison, trials};
    use super::*;

    #[test]
    fn a_line_for_each_pair_and_the_texts_below() {
        let ours = || trials(&[(300.0, 2.0, 0.0)]);
        let text = table(&[
            comparison("queue-32", ours(), trials(&[(100.0, 8.0, 0.0)])),
            comparison("queue-32", ours(), away()),
            comparison("commit-1", ours(), trials(&[(100.0, 8.0, 0.02)])),
            comparison("commit-1", ours(), trials(&[(100.0, 8.0, 0.0)])),
        ]);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[1], "queue-32 300 2.000 etcd x3 majority, flushed 100 8.000 3.00");
        assert_eq!(lines[2], "queue-32 300 2.000 etcd x3 majority, flushed - - -");
        assert_eq!(lines[3], "commit-1 300 2.000 etcd x3 majority, flushed !100 !8.000 -");
        assert_eq!(lines[4], "commit-1 300 2.000 etcd x3 majority, flushed 100 8.000 p50 4.00");
        let below = &lines[5..];
        let has = |line: &str| below.iter().filter(|other| other.as_str() == line).count() == 1;
        assert!(has("queue-32, etcd x3: not there: connection refused"), "{text}");
        assert!(has("commit-1, etcd x3: ! up to 2.00 % failed, too many to compare"), "{text}");
        assert!(has("commit-1, etcd x3: NoLeader: none"), "{text}");
        assert_eq!(below.iter().filter(|line| line.starts_with("queue-32: ")).count(), 1, "one note for a row: {text}");
    }
}
