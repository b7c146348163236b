//! The README against the code: its limits, the tests that it names as proof, and the files that it points to.

use std::fs;
use std::path::Path;

use trine_protocol::limits;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("README.md")
}

/// What stands in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The rows of the table below a heading, as cells.
fn table<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, section) =
        text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no heading '{heading}'"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.skip(1).filter(|row| !row.starts_with("---")).map(|row| row.split(" | ").collect()).collect()
}

#[test]
fn limits_are_those_of_the_code() {
    let text = readme();
    let rows = table(&text, "Limits");
    assert!(rows.len() >= 10, "{rows:?}");
    let of_the_nodes = [
        ("MEMBERS_MAX", trine::config::MEMBERS_MAX),
        ("LOCKS_MAX", trine::lock::LOCKS_MAX),
        ("WAITERS_MAX", trine::lock::WAITERS_MAX),
        ("LINE_MAX", trine::lock::LINE_MAX),
        ("FENCES_MAX", trine::lock::FENCES_MAX),
        ("MESSAGES_MAX", trine::queue::MESSAGES_MAX),
        ("QUEUES_MAX", trine::queue::QUEUES_MAX),
        ("POLLS_MAX", trine::node::POLLS_MAX),
        ("DEDUP_IDS_MAX", trine::queue::DEDUP_IDS_MAX),
    ];
    for row in rows {
        let name = quoted(row[0])[0];
        let of_the_wire =
            limits::ALL.iter().find(|(known, _, _)| *known == name).map(|(_, value, _)| value.to_string());
        let of_a_node = of_the_nodes.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        let value = of_the_wire.or(of_a_node).unwrap_or_else(|| panic!("no limit {name}"));
        assert_eq!(row[1], value, "{name}");
    }
}

#[test]
fn every_test_named_as_proof_exists() {
    let mut tests = String::new();
    for folder in ["tests/cluster", "tests/torture"] {
        let entries = fs::read_dir(root().join(folder)).expect("the tests of real processes");
        for path in entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()) {
            tests += &fs::read_to_string(path).expect("a test file");
        }
    }
    let text = readme();
    let rows = table(&text, "What is promised, and what shows it");
    assert!(rows.len() >= 10, "{rows:?}");
    for row in rows {
        let names = quoted(row[1]);
        assert!(!names.is_empty(), "nothing shows that {}", row[0]);
        for name in names {
            assert!(tests.contains(&format!("fn {name}()")), "no test {name}");
        }
    }
    // And the other way round: a test of real processes that the README does not name is a promise that nobody reads.
    for test in tests.split("#[tokio::test").skip(1) {
        let name = test.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).expect("a function");
        assert!(text.contains(&format!("`{name}`")), "the README does not name {name}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let text = readme();
    let targets: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(targets.len() >= 2, "{targets:?}");
    for target in targets {
        match target.strip_prefix('#') {
            Some(anchor) => {
                let anchors = text.lines().filter_map(|line| line.strip_prefix("## "));
                let found = anchors
                    .map(|heading| heading.to_lowercase().replace(',', "").replace(' ', "-"))
                    .any(|known| known == anchor);
                assert!(found, "no heading for #{anchor}");
            }
            None if target.starts_with("http") => {}
            None => assert!(root().join(target).exists(), "no file {target}"),
        }
    }
}
