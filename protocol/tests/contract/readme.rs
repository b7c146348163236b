//! `README.md` against the code: its generated tables are equal, its tables of fields name the fields that there are with the types
//! that go over the wire, its bytes are the golden ones, and whatever it names exists.
//!
//! `UPDATE_GOLDEN=1` writes the generated tables anew; the rest is written by hand.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;
use trine_protocol::command::RequestHeader;
use trine_protocol::frame::Kind;
use trine_protocol::handshake::{Hello, Limits, Welcome};
use trine_protocol::placement::{Ring, hash, lock_placement_key, partition, placement_key};
use trine_protocol::{Command, Error, ErrorCode, Push, cache, cluster, handshake, limits, lock, queue};

use super::pieces::{Type, elements, head};
use super::samples;

fn path() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

fn readme() -> String {
    std::fs::read_to_string(path()).unwrap()
}

// ------------------------------------------------------------------------------------------ generated tables

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), " --- |".repeat(head.len()));
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
    text
}

fn kinds() -> String {
    let row = |kind: &Kind| vec![(*kind as u8).to_string(), format!("`{}`", kind.name()), kind.meaning().to_string()];
    table(&["kind", "name", "what it is"], Kind::ALL.iter().map(row))
}

fn commands() -> String {
    let row = |command: &Command| {
        let (code, name) = (format!("{:#06x}", command.code()), command.name());
        let link = format!("[`{name}`](#{code}-{})", name.to_lowercase());
        vec![
            code,
            link,
            command.module().into(),
            format!("`{}`", command.answer_name()),
            format!("{:?}", command.repeat()),
        ]
    };
    table(&["code", "command", "about", "answer", "repeat"], Command::ALL.iter().map(row))
}

fn pushes() -> String {
    let row = |(code, name, module): &(u16, &str, &str)| {
        vec![format!("{code:#06x}"), format!("`{name}`"), (*module).to_string()]
    };
    table(&["code", "push", "about"], Push::ALL.iter().map(row))
}

fn errors() -> String {
    let row = |code: &ErrorCode| {
        let outcome = format!("{:?}", code.outcome());
        vec![u16::from(*code).to_string(), format!("`{}`", code.name()), outcome, code.meaning().to_string()]
    };
    table(&["code", "error", "outcome", "meaning"], ErrorCode::ALL.iter().map(row))
}

fn all_limits() -> String {
    let row =
        |(name, value, meaning): &(&str, u64, &str)| vec![format!("`{name}`"), value.to_string(), meaning.to_string()];
    table(&["limit", "value", "meaning"], limits::ALL.iter().map(row))
}

fn placement() -> String {
    let names = [
        ("queue", "orders"),
        ("queue", "queue:node1"),
        ("queue", "{eu}orders"),
        ("queue", "orders{eu}{us}"),
        ("queue", "{}orders"),
        ("queue", "größe"),
        ("queue", "orders#1"),
        ("queue", "orders#2"),
        ("queue", "{eu}orders#1"),
        ("queue", "orders#01"),
        ("queue", "orders#63"),
        ("queue", "orders#64"),
        ("queue", "#1"),
        ("key", "user:123"),
        ("key", "{user:123}:cart"),
        ("key", "user}{eu}"),
        ("key", "{eu"),
        // Longer than the stripes of 32 bytes that XXH64 goes in, with each of the three ways in which it takes what is left over.
        ("key", "customers/000000000042/orders/2026-11-29/invoices/7/pages/1/lines/3/remarks/x"),
        ("lock", "demo"),
        ("lock", "billing/invoice/7"),
        ("lock", "billing/{eu}"),
        ("lock", "/demo"),
    ];
    let rings = [3, 16].map(|groups| Ring::new(groups).unwrap());
    let row = |(what, name): (&str, &str)| {
        let whole = partition(name).filter(|_| what == "queue").map_or(name, |(whole, _)| whole);
        let key = if what == "lock" { lock_placement_key(name) } else { placement_key(whole) };
        let group = |ring: &Ring| match what {
            "queue" => ring.group_of_queue(name).to_string(),
            "key" => ring.group_of_key(name).to_string(),
            _ => ring.group_of_lock(name).to_string(),
        };
        let shown = if key.is_empty() { "(empty)".to_string() } else { format!("`{key}`") };
        let hash = format!("`{:016x}`", hash(key.as_bytes()));
        vec![what.to_string(), format!("`{name}`"), shown, hash, group(&rings[0]), group(&rings[1])]
    };
    table(&["of a", "name", "placement key", "its XXH64", "group of 3", "group of 16"], names.map(row))
}

#[test]
fn generated_tables_are_what_the_code_says() {
    let tables = [
        ("kinds", kinds()),
        ("commands", commands()),
        ("pushes", pushes()),
        ("errors", errors()),
        ("limits", all_limits()),
        ("placement", placement()),
    ];
    let mut text = readme();
    for (name, table) in tables {
        let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->\n"));
        let start = text.find(&begin).unwrap_or_else(|| panic!("no table of {name}")) + begin.len();
        let stop = text.find(&end).unwrap_or_else(|| panic!("no end of the table of {name}"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            text.replace_range(start..stop, &table);
            std::fs::write(path(), &text).unwrap();
        } else {
            let differs = text[start..stop].lines().zip(table.lines()).find(|(page, code)| page != code);
            assert!(text[start..stop] == table, "{name} differs, first in (page, code): {differs:#?}");
        }
    }
}

// ------------------------------------------------------------------------------------------ bytes

#[test]
fn every_example_has_its_bytes() {
    let (samples, text) = (samples::all(), readme());
    let mut examples = 0;
    for block in text.split("\n```hex ").skip(1) {
        let (name, lines) = block.split_once('\n').unwrap();
        let (lines, _) = lines.split_once("\n```").unwrap();
        let sample = samples.iter().find(|sample| sample.name == name).unwrap_or_else(|| panic!("no sample '{name}'"));
        // Two spaces end the bytes of a line.
        let pairs = lines.lines().flat_map(|line| line.split("  ").next().unwrap_or_default().split(' '));
        let bytes: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).expect("two hex digits")).collect();
        assert_eq!(bytes, sample.frame.to_bytes().unwrap(), "example '{name}'");
        examples += 1;
    }
    assert!(examples >= 10, "only {examples} examples were found");
}

// ------------------------------------------------------------------------------------------ fields

/// Names of a struct and its fields, or of an enum and its cases, asked of the code that reads it.
#[derive(Default)]
struct Asked {
    names: Option<(&'static str, &'static [&'static str])>,
}

impl<'de> Deserializer<'de> for &mut Asked {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("only names are asked for"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.names = Some((name, fields));
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        cases: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.deserialize_struct(name, cases, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}

fn names<T: DeserializeOwned>() -> (&'static str, &'static [&'static str]) {
    let mut asked = Asked::default();
    let _ = T::deserialize(&mut asked);
    asked.names.expect("a struct or an enum")
}

/// The rows of the table of a struct's fields: name, type.
fn rows_of(text: &str, name: &str) -> Vec<(String, String)> {
    if text.contains(&format!("\n`{name}` has no fields.\n")) {
        return Vec::new();
    }
    let heading = format!("\nFields of `{name}`:\n\n| field | type | range and meaning |\n| --- | --- | --- |\n");
    let start = text.find(&heading).unwrap_or_else(|| panic!("no table of the fields of {name}")) + heading.len();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{line}");
        (cells[1].trim_matches('`').to_string(), cells[2].to_string())
    };
    text[start..].lines().take_while(|line| line.starts_with('|')).map(row).collect()
}

fn check_fields<T: DeserializeOwned>(text: &str) -> &'static str {
    let (name, fields) = names::<T>();
    let documented: Vec<String> = rows_of(text, name).into_iter().map(|(field, _)| field).collect();
    assert_eq!(documented, fields, "fields of {name}");
    name
}

fn check_cases<T: DeserializeOwned>(text: &str, heading: &str) {
    let (name, cases) = names::<T>();
    let heading = format!("Cases of `{name}`{heading}:");
    let start = text.find(&heading).unwrap_or_else(|| panic!("no cases of {name}"));
    let paragraph = text[start + heading.len()..].split("\n\n").next().unwrap();
    let paragraph = paragraph.split("\nCases of").next().unwrap();
    for case in cases {
        assert!(paragraph.contains(&format!("`{case}`")), "{name} lacks {case}: {paragraph}");
    }
}

#[test]
fn every_struct_and_enum_is_described_as_it_is() {
    let text = readme();
    let mut described = BTreeSet::new();
    macro_rules! fields {
        ($($type:ty)*) => { $(assert!(described.insert(check_fields::<$type>(&text))));* };
    }
    fields! {
        RequestHeader Hello Welcome Limits Error
        cluster::Status cluster::NodeStatus cluster::NodeAddresses cluster::GroupStatus cluster::OpenSession
        cluster::SessionOpened cluster::KeepAlive cluster::Kept cluster::Reshape cluster::Reshaped cluster::NewNode
        cluster::Transfer cluster::Transferring cluster::Backup cluster::BackupBegun cluster::BackupRead cluster::BackupPart
        cluster::BackupStands
        queue::Enqueue queue::Enqueued queue::Dequeue queue::Dequeued queue::Delivery queue::Ack queue::Acked
        queue::EnqueueOptions queue::Durability queue::Attributes queue::Extend queue::Receipt queue::Extended queue::Nack
        queue::Nacked queue::AckMany queue::AckedMany queue::RefusedReceipt queue::Declare queue::Policy queue::TenantWeight
        queue::Declared queue::Undeclare queue::Undeclared queue::SetFlow queue::FlowSet queue::Purge queue::Purged
        queue::Redrive queue::RedriveFilter queue::Redriven queue::Peek queue::Peeked queue::PeekedMessage queue::DeadLetter
        queue::Attempt queue::ListQueues queue::Queues queue::QueueLine queue::ShowQueue queue::QueueShown
        queue::ExplainQueue queue::ExplainedQueue queue::HandOff queue::QueueReceipt queue::HandedOff queue::Subscribe
        queue::Subscribed queue::Pushed queue::Credit queue::Credited queue::Unsubscribe queue::Unsubscribed
        lock::Acquire lock::Granted lock::Previous lock::Release lock::Released lock::Renew lock::Inspect lock::Inspected
        lock::Cancel lock::Cancelled lock::ForceRelease lock::ForceReleased lock::Fence lock::Fenced
        lock::ExplainLock lock::LockExplained lock::HolderView lock::WaiterView lock::ExplainClient lock::ClientExplained
        lock::ClientHold lock::ClientWait lock::ListLocks lock::LockPage lock::LockView lock::Observe lock::Observed
        cache::Get cache::Got cache::Version cache::Put cache::Written cache::Delete cache::WriteBack cache::WrittenBack
        cache::WriteBackAll cache::AllWrittenBack cache::Add cache::Added cache::GetOrFill cache::Filling
        cache::MultiGet cache::MultiGot cache::MultiPut cache::MultiWritten cache::ListKeys cache::Keys
        cache::DeletePrefix cache::DeletedPrefix cache::Explain cache::Explained cache::Transition cache::HomeView
        cache::Evacuate cache::Evacuated cache::GetCopy cache::CopyGot cache::CopyLease cache::KeepCopies cache::CopiesKept
        cache::DropCopies cache::CopiesDropped cache::CopiesGone
    }
    for command in Command::ALL {
        assert!(described.contains(command.name()), "{command:?} is not described");
        assert!(described.contains(command.answer_name()), "the answer of {command:?} is not described");
        assert!(text.contains(&format!("\n### {:#06x} {}\n", command.code(), command.name())), "{command:?}");
    }
    for (_, push, _) in Push::ALL {
        assert!(described.contains(push), "{push} is not described");
    }
    check_cases::<handshake::Role>(&text, " in a hello");
    check_cases::<cluster::Role>(&text, " in a status");
    check_cases::<cluster::NodeStanding>(&text, "");
    check_cases::<cluster::Reshaping>(&text, "");
    check_cases::<queue::AckWhich>(&text, "");
    check_cases::<lock::Mode>(&text, "");
    check_cases::<lock::Ending>(&text, "");
    check_cases::<queue::MessageState>(&text, "");
    check_cases::<queue::BackOff>(&text, "");
    check_cases::<queue::Overflow>(&text, "");
    check_cases::<queue::Expired>(&text, "");
    check_cases::<queue::Flow>(&text, "");
    check_cases::<queue::DeadReason>(&text, "");
    check_cases::<queue::AttemptEnd>(&text, "");
    check_cases::<queue::About>(&text, "");
    check_cases::<queue::Cause>(&text, "");
    check_cases::<queue::LockStep>(&text, "");
    check_cases::<cache::LineState>(&text, "");
    check_cases::<cache::Source>(&text, "");
    check_cases::<cache::OnlyIf>(&text, "");
}

/// Whether a value may stand where the contract says this type.
fn fits(documented: &str, found: Type) -> bool {
    let documented = documented.split(',').next().unwrap_or_default();
    if let Some(some) = documented.strip_suffix(" or nil") {
        return found == Type::Nil || fits(some, found);
    }
    match documented {
        "u16" | "u32" | "u64" | "i64" => found == Type::Integer,
        "bool" => found == Type::Bool,
        "text" => found == Type::Text,
        "bytes" => found == Type::Bytes,
        "`Ending`" | "`Role`" | "`LineState`" | "`Source`" | "`NodeStanding`" => found == Type::Text,
        "`MessageState`" | "`Flow`" => found == Type::Text,
        "`AckWhich`" | "`Reshaping`" | "`LockStep`" => found == Type::Map(1),
        "`OnlyIf`" | "`Mode`" | "`About`" => matches!(found, Type::Text | Type::Map(1)),
        "`Receipt`" | "`Policy`" | "`RedriveFilter`" | "`EnqueueOptions`" | "`Durability`" | "`QueueLine`"
        | "`Error`" | "`QueueReceipt`" | "`Enqueue`" | "`Enqueued`" => matches!(found, Type::Array(_)),
        "`IfToken`" | "`Previous`" | "`HolderView`" | "`WaiterView`" | "`Got`" | "`CopyLease`" | "`HomeView`"
        | "`Limits`" | "`Version`" | "`NewNode`" | "`BackupStands`" => {
            matches!(found, Type::Array(_))
        }
        list if list.starts_with("list of ") => matches!(found, Type::Array(_)),
        other => panic!("'{other}' is no type of the contract"),
    }
}

#[test]
fn every_field_has_the_type_that_goes_over_the_wire() {
    let text = readme();
    for sample in samples::all() {
        let (name, at) = match (sample.frame.kind, Command::from_code(sample.frame.command)) {
            (Kind::Request, Some(command)) => (command.name(), elements(&sample.frame.body, 0)[1].start),
            (Kind::Response, Some(command)) => (command.answer_name(), 0),
            (Kind::Hello, _) => ("Hello", 0),
            (Kind::Welcome, _) => ("Welcome", 0),
            (Kind::Error | Kind::Goodbye, _) => ("Error", 0),
            (Kind::Push, _) => match Push::ALL.iter().find(|(code, ..)| *code == sample.frame.command) {
                Some((_, push, _)) => (*push, 0),
                None => continue,
            },
            _ => continue,
        };
        let (rows, places) = (rows_of(&text, name), elements(&sample.frame.body, at));
        assert_eq!(rows.len(), places.len(), "{}", sample.name);
        for ((field, documented), place) in rows.iter().zip(places) {
            let (found, ..) = head(&sample.frame.body, place.start);
            assert!(fits(documented, found), "{name}.{field} is {found:?} in '{}', not {documented}", sample.name);
        }
    }
}

// ------------------------------------------------------------------------------------------ whatever it names

#[test]
fn every_error_and_limit_that_is_named_exists() {
    let text = readme();
    let errors: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
    let mut named = 0;
    for line in text.split("\nErrors: ").skip(1) {
        let paragraph = line.split("\n\n").next().unwrap();
        for word in paragraph.split('`').skip(1).step_by(2) {
            assert!(errors.contains(word), "{word} is no error");
            named += 1;
        }
    }
    assert!(named > 20, "only {named} errors were found");
    let limits: BTreeSet<&str> = limits::ALL.iter().map(|(name, ..)| *name).collect();
    let in_code = text.split('`').skip(1).step_by(2);
    for word in in_code.filter(|word| word.ends_with("_MAX") || word.ends_with("_DEFAULT")) {
        assert!(limits.contains(word), "{word} is no limit");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let text = readme();
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        kept.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-').collect::<String>().replace(' ', "-")
    };
    let anchors: BTreeSet<String> = text.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    let mut links = 0;
    for link in text.split("](#").skip(1) {
        let target = link.split(')').next().unwrap();
        assert!(anchors.contains(target), "#{target} leads nowhere: {anchors:?}");
        links += 1;
    }
    assert!(links > 20, "only {links} links were found");
}
