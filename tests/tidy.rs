//! The house rules that a machine can check, checked on every file of the repository.
//!
//! Each rule is a function from a path and its text to complaints, so that each is also tried on a small sample that
//! breaks it: a rule that finds nothing because it looks at nothing fails here too. The reading of Rust is a lexer of
//! forty lines that blanks out comments and literals; it knows no grammar, which costs the odd exotic construct
//! (a macro that makes functions) and keeps the build free of a parser.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file: what a person reads at one sitting, tests included.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function from its `fn` to its closing brace. The aim is 70; the rest is for one long `match`.
const FUNCTION_LINES_MAX: usize = 90;
/// Lines of the essay that opens a module.
const ESSAY_LINES_MIN: usize = 5;

/// What each module of `src` may name with `crate::`. A module that is not in this table is a complaint of its own.
const LAYERS: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("marks", &[]),
    ("record", &[]),
    ("rules", &[]),
    ("sequence", &[]),
    ("metrics", &[]),
    ("clock", &["ids"]),
    ("raft", &["ids", "marks", "record", "rules"]),
    ("queue", &["ids", "record", "rules"]),
    ("lock", &["ids", "record", "rules"]),
    ("cache", &["ids", "marks", "record", "rules", "sequence"]),
    ("node", &["ids", "marks", "record", "rules", "sequence", "raft", "queue", "lock", "cache"]),
    ("storage", &["ids", "marks", "record", "rules", "raft", "cache", "node", "metrics"]),
    ("backup", &["record", "raft", "cache", "node"]),
    ("transport", &["ids", "node", "server", "metrics", "clock"]),
    ("rest", &["ids", "node", "server", "metrics", "clock"]),
    ("config", &["ids", "node"]),
    (
        "server",
        &[
            "ids",
            "record",
            "rules",
            "raft",
            "queue",
            "lock",
            "cache",
            "node",
            "storage",
            "transport",
            "rest",
            "metrics",
            "clock",
            "config",
            "backup",
        ],
    ),
    ("sim", &["ids", "marks", "record", "rules", "sequence", "raft", "queue", "lock", "cache", "node", "storage"]),
    ("cli", &["ids", "storage", "backup", "config", "server", "rest", "metrics", "clock"]),
];

/// Modules without clock, randomness, socket, disk, or an iteration order that differs from run to run.
const PURE: &[&str] = &["ids", "record", "rules", "sequence", "raft", "queue", "lock", "cache", "node", "sim"];

/// What a pure module may not name, with what to use instead.
const IMPURE: &[(&str, &str)] = &[
    ("HashMap", "a BTreeMap: iteration must be the same in every run"),
    ("HashSet", "a BTreeSet: iteration must be the same in every run"),
    ("RandomState", "an ordered map"),
    ("Instant", "`ids::Now`: time is an input"),
    ("SystemTime", "`ids::Now`: time is an input"),
    ("getrandom", "a seed: randomness is an input"),
    ("rand::", "a seed: randomness is an input"),
    ("tokio::", "an effect: the shell does I/O"),
    ("std::net", "an effect: the shell does I/O"),
    ("std::fs", "an effect: the shell does I/O"),
    ("std::thread", "an effect: the shell schedules"),
    ("std::env", "an argument: the shell reads the environment"),
];

/// One rule broken at one place.
type Complaint = String;

// ---------------------------------------------------------------------------------------------------- reading

/// The text with comments, strings and characters turned into blanks; line breaks stay where they are.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("whole literals are blanked, so whole characters are")
}

/// Where the comment or literal that begins at `at` ends; `at` itself where none begins there.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + block_comment_length(rest);
    }
    let raw = rest.strip_prefix(b"r").or_else(|| rest.strip_prefix(b"br"));
    if let Some(raw) = raw.filter(|_| !word_before) {
        let hashes = raw.iter().take_while(|b| **b == b'#').count();
        if raw.get(hashes) == Some(&b'"') {
            let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            let start = bytes.len() - raw.len() + hashes + 1;
            return find(bytes, start, &close).map_or(bytes.len(), |found| found + close.len());
        }
    }
    match rest[0] {
        b'"' => quoted_end(bytes, at, b'"'),
        // A lifetime has no second quote after one character; an escape always is a character.
        b'\'' if rest.get(1) == Some(&b'\\') => quoted_end(bytes, at, b'\''),
        b'\'' => {
            let width = std::str::from_utf8(&rest[1..rest.len().min(5)])
                .map_or_else(|error| error.valid_up_to(), str::len)
                .min(rest.len() - 1);
            let first = std::str::from_utf8(&rest[1..=width]).ok().and_then(|text| text.chars().next());
            match first {
                Some(c) if rest.get(1 + c.len_utf8()) == Some(&b'\'') => at + c.len_utf8() + 2,
                _ => at,
            }
        }
        _ => at,
    }
}

/// Bytes of the block comment that begins the slice; comments nest.
fn block_comment_length(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..rest.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return at + 2,
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

/// Where the quoted literal that begins at `at` ends, escapes heeded.
fn quoted_end(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut at = at + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn find(haystack: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    haystack[from..].windows(needle.len()).position(|window| window == needle).map(|found| found + from)
}

/// Line number of a byte, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1
}

/// Where the block that the brace at `open` begins ends.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Every place where `word` stands as a whole word (an ending such as `::` counts as it is).
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).map(|before| code.as_bytes()[before]);
        let after = code.as_bytes().get(at + word.len()).copied();
        let closed = !word.ends_with(|c: char| c.is_ascii_alphanumeric());
        !before.is_some_and(part) && (closed || !after.is_some_and(part))
    })
}

/// Blanked code without its `#[cfg(test)]` blocks.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    for (at, mark) in code.match_indices("#[cfg(test)]") {
        let after = at + mark.len();
        let Some(open) = code[after..].find(['{', ';']).map(|found| found + after) else { continue };
        if code.as_bytes()[open] == b'{' {
            let end = block_end(code, open);
            let blanks: String = code[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            out.replace_range(at..end, &blanks);
        }
    }
    out
}

/// The top-level module of `src` that a path belongs to.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

/// Whether a file holds nothing but tests.
fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("tests.rs") || path.ends_with("_test.rs")
}

// ---------------------------------------------------------------------------------------------------- rules

fn file_length(path: &str, text: &str) -> Vec<Complaint> {
    let lines = text.lines().count();
    if !path.ends_with(".rs") || lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![format!("{path}: {lines} lines, over {FILE_LINES_MAX}: split it by what it is about")]
}

fn function_length(path: &str, text: &str) -> Vec<Complaint> {
    if !path.ends_with(".rs") {
        return Vec::new();
    }
    let code = blank(text);
    let mut complaints = Vec::new();
    for at in words(&code, "fn") {
        // A body may follow; a declaration in a trait ends with a semicolon, outside of any `[u8; 4]`.
        let mut brackets = 0;
        let open = code[at..].char_indices().find(|(_, c)| {
            match c {
                '[' | '(' => brackets += 1,
                ']' | ')' => brackets -= 1,
                _ => {}
            }
            brackets < 0 || brackets == 0 && matches!(c, '{' | ';')
        });
        let Some((offset, '{')) = open else { continue };
        let end = block_end(&code, at + offset);
        let lines = line_of(&code, end) - line_of(&code, at) + 1;
        if lines > FUNCTION_LINES_MAX {
            let name = text[at + 2..].trim_start().split(['(', '<']).next().unwrap_or_default();
            complaints
                .push(format!("{path}:{}: fn {name} has {lines} lines, over {FUNCTION_LINES_MAX}", line_of(&code, at)));
        }
    }
    complaints
}

fn leftovers(path: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for marker in [concat!("TO", "DO"), concat!("FIX", "ME")] {
        for at in words(text, marker) {
            complaints.push(format!("{path}:{}: {marker} left behind", line_of(text, at)));
        }
    }
    if path.ends_with(".rs") {
        let code = blank(text);
        for macro_name in ["todo!", "unimplemented!", "dbg!", "#[ignore]"] {
            for (at, _) in code.match_indices(macro_name) {
                complaints.push(format!("{path}:{}: `{macro_name}` left behind", line_of(&code, at)));
            }
        }
    }
    complaints
}

fn purity(path: &str, text: &str) -> Vec<Complaint> {
    let pure = module_of(path).is_some_and(|module| PURE.contains(&module));
    if !pure || is_test_file(path) {
        return Vec::new();
    }
    let code = without_tests(&blank(text));
    let mut complaints = Vec::new();
    for (name, instead) in IMPURE {
        for at in words(&code, name) {
            complaints.push(format!("{path}:{}: `{name}` in a pure module; use {instead}", line_of(&code, at)));
        }
    }
    complaints
}

fn layers(path: &str, text: &str) -> Vec<Complaint> {
    let Some(module) = module_of(path).filter(|module| !matches!(*module, "lib" | "main" | "bin")) else {
        return Vec::new();
    };
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{path}: module `{module}` has no line in the table of layers")];
    };
    if is_test_file(path) {
        return Vec::new();
    }
    let code = without_tests(&blank(text));
    let mut complaints = Vec::new();
    for at in words(&code, "crate::") {
        for used in names_after(&code[at + "crate::".len()..]) {
            if used != module && !allowed.contains(&used) {
                complaints.push(format!("{path}:{}: `{module}` may not use `{used}`", line_of(&code, at)));
            }
        }
    }
    complaints
}

/// The first names of a path, or of each path of a `{a::b, c}` list.
fn names_after(path: &str) -> Vec<&str> {
    let name = |path: &'_ str| path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    if !path.starts_with('{') {
        return vec![&path[..name(path)]];
    }
    let mut names = Vec::new();
    let (mut depth, mut expects) = (0, false);
    for (at, c) in path.char_indices() {
        match c {
            '{' => (depth, expects) = (depth + 1, depth == 0),
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' => expects = depth == 1,
            c if expects && !c.is_whitespace() => {
                names.push(&path[at..at + name(&path[at..])]);
                expects = false;
            }
            _ => {}
        }
    }
    names
}

fn essays(path: &str, text: &str) -> Vec<Complaint> {
    if !path.ends_with("/mod.rs") || path.contains("/tests/") || path.starts_with("tests/") {
        return Vec::new();
    }
    let lines = text.lines().take_while(|line| line.starts_with("//!")).filter(|line| line.len() > 4).count();
    if lines >= ESSAY_LINES_MIN {
        return Vec::new();
    }
    vec![format!(
        "{path}: opens with {lines} lines of `//!`, fewer than {ESSAY_LINES_MIN}: what it does, invariants, caveats"
    )]
}

/// What says something about the place where a file was written and not about Trine.
fn whereabouts(path: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for place in [concat!("/wo", "rk"), concat!("/tmp/", "trine"), concat!("/ho", "me/"), concat!("/ro", "ot/")] {
        for (at, _) in text.match_indices(place) {
            let before = text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "._-~$}{".contains(c));
            let after = text[at + place.len()..].chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_');
            if !before && (place.ends_with('/') || !after) {
                complaints.push(format!("{path}:{}: names a place of one machine, `{place}`", line_of(text, at)));
            }
        }
    }
    for (at, _) in text.match_indices('#') {
        let rest = &text[at + 1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        // A dash follows in a link to a numbered heading.
        let after = rest[digits..].chars().next().is_some_and(|c| c.is_alphanumeric() || c == '-');
        // Part of a name, as a queue's partitions have, or of something that is quoted.
        let before = text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "`\"}".contains(c));
        if (1..=5).contains(&digits) && !after && !before {
            complaints.push(format!("{path}:{}: a number of some tracker, `#{}`", line_of(text, at), &rest[..digits]));
        }
    }
    complaints
}

/// A rule, by its name.
type Rule = (&'static str, fn(&str, &str) -> Vec<Complaint>);

const RULES: &[Rule] = &[
    ("file length", file_length),
    ("function length", function_length),
    ("leftovers", leftovers),
    ("purity", purity),
    ("layers", layers),
    ("essays", essays),
    ("whereabouts", whereabouts),
];

// ---------------------------------------------------------------------------------------------------- the tree

/// Every text file of the repository but what git ignores, the licence and the lock file.
fn tree() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = fs::read_to_string(root.join(".gitignore")).expect(".gitignore");
    let ignored: Vec<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
        entries.sort();
        for path in entries {
            let name = path.strip_prefix(root).expect("under the root").to_string_lossy().into_owned();
            if name == ".git" || name == "Cargo.lock" || ignored.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                files.push((name, text));
            }
        }
    }
    files
}

#[test]
fn the_tree_keeps_every_rule() {
    let files = tree();
    for known in ["src/ids.rs", "src/raft/mod.rs", "protocol/src/command.rs", "loadgen/src/main.rs", ".ci/run"] {
        assert!(files.iter().any(|(path, _)| path == known), "{known} was not read: the walk misses files");
    }
    let complaints: Vec<Complaint> = RULES
        .iter()
        .flat_map(|(name, rule)| {
            files.iter().flat_map(move |(path, text)| rule(path, text)).map(move |c| format!("{name}: {c}"))
        })
        .collect();
    assert!(complaints.is_empty(), "{} complaints\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    let library = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("src/lib.rs");
    let declared: Vec<&str> =
        library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(declared.len() > 10, "{declared:?}");
    for module in &declared {
        assert!(LAYERS.iter().any(|(name, _)| name == module), "`{module}` has no line in the table of layers");
    }
    for (module, _) in LAYERS {
        assert!(declared.contains(module), "`{module}` is in the table of layers but not in lib.rs");
    }
}

#[test]
fn the_outer_crates_know_only_the_protocol() {
    let manifest =
        |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a manifest");
    let ours = |text: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name.trim().to_owned())
            .filter(|n| n.starts_with("trine"))
            .collect::<Vec<_>>()
    };
    assert_eq!(ours(&manifest("loadgen/Cargo.toml")), ["trine-protocol"]);
    assert_eq!(ours(&manifest("protocol/Cargo.toml")), [""; 0]);
}

// ---------------------------------------------------------------------------------------------------- the rules, tried

#[test]
fn blanking_hides_literals_and_nothing_else() {
    let text = "let a = \"// {\"; // {\nlet b = '{'; let c: &'static str = r#\"\"{\"#; /* { /* { */ */ let d = b'\\''; let e = 'é'; }";
    let code = blank(text);
    assert!(!code.contains('{'), "{code}");
    assert!(code.contains("&'static str") && code.contains("let d") && code.contains("let e") && code.ends_with('}'));
    assert_eq!((code.len(), code.lines().count()), (text.len(), 2));
}

#[test]
fn a_long_file_is_found() {
    assert_eq!(file_length("src/a.rs", &"\n".repeat(600)).len(), 0);
    assert_eq!(file_length("src/a.rs", &"\n".repeat(601)).len(), 1);
    assert_eq!(file_length("notes.md", &"\n".repeat(601)).len(), 0);
}

#[test]
fn a_long_function_is_found_and_counted_from_fn_to_brace() {
    let function = |lines: usize| {
        format!("impl A {{\n    pub fn long(a: [u8; 4]) -> B {{\n{}    }}\n}}\n", "    x;\n".repeat(lines - 2))
    };
    assert_eq!(function_length("a.rs", &function(90)), [""; 0]);
    assert_eq!(function_length("a.rs", &function(91)), ["a.rs:2: fn long has 91 lines, over 90"]);
    let declared = format!("trait A {{ fn short(); }}\nstruct B {{\n{}}}\n", "a: u8,\n".repeat(200));
    assert_eq!(function_length("a.rs", &declared), [""; 0]);
}

#[test]
fn leftovers_are_found_in_code_and_in_prose() {
    let bad =
        [concat!("// TO", "DO later"), concat!("FIX", "ME"), "todo!()", "unimplemented!()", "dbg!(x)", "#[ignore]"];
    for sample in bad {
        assert_eq!(leftovers("a.rs", sample).len(), 1, "{sample}");
    }
    assert_eq!(leftovers("a.rs", "let a = \"dbg!\"; // todo! in passing\n#[ignore = \"takes an hour\"]"), [""; 0]);
}

#[test]
fn clocks_chance_and_unordered_maps_are_found_in_pure_modules_only() {
    for (name, _) in IMPURE {
        let sample = format!("use std::{name};");
        assert_eq!(purity("src/raft/log.rs", &sample).len(), 1, "{name}");
        assert_eq!(purity("src/server/mod.rs", &sample).len(), 0, "{name}");
    }
    assert_eq!(purity("src/lock/state.rs", "// no HashMap\n#[cfg(test)]\nmod tests { use std::fs; }\n"), [""; 0]);
    assert_eq!(purity("src/lock/state.rs", "struct InstantOf; fn brand() {}"), [""; 0]);
}

#[test]
fn a_wrong_import_is_found() {
    let bad = [
        ("src/raft/log.rs", "use crate::queue::State;"),
        ("src/lock/state.rs", "use crate::{ids::At, cache::{Line, Home}};"),
        ("src/node/mod.rs", "fn f() { crate::server::start() }"),
        ("src/sim/mod.rs", "use crate::clock::Clock;"),
        ("src/novelty.rs", ""),
    ];
    for (path, sample) in bad {
        assert_eq!(layers(path, sample).len(), 1, "{path}");
    }
    let good = [
        ("src/raft/log.rs", "use crate::ids::Index; // see crate::server\nuse crate::raft::Entry;"),
        ("src/node/mod.rs", "use crate::{ids::At, cache::{Line, Home}};"),
        ("src/raft/log.rs", "#[cfg(test)]\nmod tests { use crate::sim::Sim; }"),
        ("src/main.rs", "use trine::server;"),
    ];
    for (path, sample) in good {
        assert_eq!(layers(path, sample), [""; 0], "{path}");
    }
}

#[test]
fn a_missing_essay_is_found() {
    assert_eq!(essays("src/raft/mod.rs", "//! One line.\n//!\n//! Two.\n\nuse a;\n").len(), 1);
    assert_eq!(essays("src/raft/mod.rs", &"//! A line.\n".repeat(5)), [""; 0]);
    assert_eq!(essays("src/raft/log.rs", "use a;\n"), [""; 0]);
}

#[test]
fn places_and_tracker_numbers_are_found() {
    for bad in [
        concat!("see /wo", "rk/x"),
        concat!("`/tmp/", "trine`"),
        concat!("in /ho", "me/me"),
        concat!("closes #", "12."),
    ] {
        assert_eq!(whereabouts("a.md", bad).len(), 1, "{bad}");
    }
    for good in [
        "a/workload",
        "target/work",
        "color: #123456",
        "r#\"1\"#",
        "{:#018x}",
        "/tmp/other",
        "# 1. Title",
        "[a](#1-title)",
    ] {
        assert_eq!(whereabouts("a.md", good), [""; 0], "{good}");
    }
}
