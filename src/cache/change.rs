//! What a write makes of a key: a value, an absence, or a number; if the key is as the write demands.
//!
//! A change is evaluated once, where the newest value is known for certain: by the owner against its own line, otherwise by the
//! home within the key's transaction. So a compare-and-swap, a put-if-absent and an atomic addition are one operation each,
//! and the log carries what came of them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trine_protocol::cache::{OnlyIf, Version};
use trine_protocol::lock::IfToken;
use trine_protocol::{Error, ErrorCode};

use super::message::Versioned;

/// What a client wants to become of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Change {
    /// What it writes.
    pub what: What,
    /// What must be true of the key for that.
    pub only_if: OnlyIf,
    /// Main memory has it before it is acknowledged, and nobody owns the key afterwards.
    pub through: bool,
    /// The right to fill under which the value was made; 0 for none.
    pub fill: u64,
    /// The grant of a lock that must hold, where one must.
    pub if_token: Option<IfToken>,
}

/// What a change writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum What {
    /// A value.
    Put {
        /// Its bytes.
        value: Bytes,
        /// What its writer says that it is.
        content_type: String,
        /// After so many milliseconds it is deleted by itself; 0 for never.
        ttl_ms: u64,
    },
    /// An absence.
    Delete,
    /// The number that the key has, and this.
    Add(i64),
}

/// When a key is deleted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub enum Expires {
    /// Never.
    #[default]
    Never,
    /// So many milliseconds after its write is in the log.
    In(u64),
    /// At this instant of log time.
    At(u64),
}

/// What a change comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// The value; None where the key is deleted.
    pub value: Option<Bytes>,
    /// What it is.
    pub content_type: String,
    /// When it goes.
    pub expires: Expires,
    /// The number, where the change was an addition.
    pub sum: Option<i64>,
}

impl Change {
    /// Writes a value, whatever is there.
    pub fn put(value: Bytes) -> Self {
        Self::of(What::Put { value, content_type: String::new(), ttl_ms: 0 })
    }

    /// Deletes, whatever is there.
    pub fn delete() -> Self {
        Self::of(What::Delete)
    }

    /// Does this, whatever is there.
    pub fn of(what: What) -> Self {
        Self { what, only_if: OnlyIf::Anything, through: false, fill: 0, if_token: None }
    }

    /// Whether what it comes to depends on what is there.
    pub fn looks(&self) -> bool {
        self.only_if != OnlyIf::Anything || matches!(self.what, What::Add(_))
    }

    /// Whether nobody may own the key afterwards: such a write goes by way of the home.
    pub fn is_through(&self) -> bool {
        self.through || self.fill > 0 || self.if_token.is_some() || matches!(self.what, What::Put { ttl_ms: 1.., .. })
    }

    /// Bytes that it carries.
    pub fn bytes(&self) -> usize {
        match &self.what {
            What::Put { value, content_type, .. } => value.len() + content_type.len(),
            What::Delete | What::Add(_) => 0,
        }
    }

    /// What comes of it where the key is `now`.
    ///
    /// # Errors
    /// `ConditionFailed` where the key is not as it demands, `NotANumber` where there is nothing to add to.
    pub fn on(&self, key: &str, now: &Versioned) -> Result<New, Error> {
        self.demand(key, now)?;
        Ok(match &self.what {
            What::Put { value, content_type, ttl_ms } => New {
                value: Some(value.clone()),
                content_type: content_type.clone(),
                expires: if *ttl_ms == 0 { Expires::Never } else { Expires::In(*ttl_ms) },
                sum: None,
            },
            What::Delete => New { value: None, content_type: String::new(), expires: Expires::Never, sum: None },
            What::Add(by) => {
                let sum = sum(key, now, *by)?;
                let expires = if now.expires_ms == 0 { Expires::Never } else { Expires::At(now.expires_ms) };
                New { value: Some(digits(sum)), content_type: String::new(), expires, sum: Some(sum) }
            }
        })
    }

    fn demand(&self, key: &str, now: &Versioned) -> Result<(), Error> {
        let exists = now.value.is_some();
        let met = match self.only_if {
            OnlyIf::Anything => true,
            OnlyIf::Absent => !exists,
            OnlyIf::Present => exists,
            OnlyIf::Version(version) => exists && version == now.version,
        };
        if met {
            return Ok(());
        }
        let is = if exists { format!("exists, with version {}", now.version) } else { "does not exist".to_owned() };
        let demanded = match self.only_if {
            OnlyIf::Absent => "that it does not".to_owned(),
            OnlyIf::Version(version) => format!("version {version}"),
            OnlyIf::Anything | OnlyIf::Present => "that it does".to_owned(),
        };
        let error = Error::new(ErrorCode::ConditionFailed, format!("key '{key}' {is}; the write demands {demanded}"));
        Err(if exists { error.with_hint(now.version.to_string()) } else { error })
    }
}

impl New {
    /// It, as the value of that version.
    pub fn at(self, version: Version) -> Versioned {
        let expires_ms = match self.expires {
            Expires::At(expires_ms) => expires_ms,
            Expires::Never | Expires::In(_) => 0,
        };
        Versioned { version, value: self.value, content_type: self.content_type, expires_ms }
    }

    /// Bytes that it keeps in memory.
    pub fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len) + self.content_type.len()
    }
}

/// A number as a key holds it.
pub(super) fn digits(sum: i64) -> Bytes {
    sum.to_string().into()
}

fn sum(key: &str, now: &Versioned, by: i64) -> Result<i64, Error> {
    let wrong = |what: String| Error::new(ErrorCode::NotANumber, what);
    let number = match &now.value {
        None => 0,
        Some(value) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.trim().parse::<i64>().ok())
            .ok_or_else(|| wrong(format!("the value of key '{key}' is no decimal number of 64 bits")))?,
    };
    number.checked_add(by).ok_or_else(|| wrong(format!("key '{key}' has {number}: with {by} more it exceeds 64 bits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(value: Option<&'static str>) -> Versioned {
        Versioned::new(Version { epoch: 7, count: 2 }, value.map(Bytes::from))
    }

    fn code(change: &Change, value: Option<&'static str>) -> Option<ErrorCode> {
        change.on("k", &now(value)).err().map(|error| error.code)
    }

    #[test]
    fn a_condition_is_held_against_what_is_there() {
        let change = |only_if| Change { only_if, ..Change::put("new".into()) };
        let (this, other) = (Version { epoch: 7, count: 2 }, Version { epoch: 7, count: 1 });
        for (only_if, when_there, when_absent) in [
            (OnlyIf::Anything, true, true),
            (OnlyIf::Absent, false, true),
            (OnlyIf::Present, true, false),
            (OnlyIf::Version(this), true, false),
            (OnlyIf::Version(other), false, false),
        ] {
            for (value, met) in [(Some("old"), when_there), (None, when_absent)] {
                let failed = (!met).then_some(ErrorCode::ConditionFailed);
                assert_eq!(code(&change(only_if), value), failed, "{only_if:?} of {value:?}");
            }
        }
        let error = change(OnlyIf::Absent).on("k", &now(Some("old"))).unwrap_err();
        assert_eq!(error.hint, "7.2", "who lost may try again with what is there");
        assert_eq!(change(OnlyIf::Present).on("k", &now(None)).unwrap_err().hint, "");
    }

    #[test]
    fn what_is_added_to_is_a_number_or_nothing() {
        let sum = |value, by| Change::of(What::Add(by)).on("k", &now(value)).map(|new| new.sum);
        assert_eq!(sum(None, 5), Ok(Some(5)));
        assert_eq!(sum(Some("-3"), 5), Ok(Some(2)));
        assert_eq!(sum(Some(" 42\n"), -42), Ok(Some(0)));
        assert_eq!(sum(Some("9223372036854775806"), 1), Ok(Some(i64::MAX)));
        for (value, by) in [("9223372036854775807", 1), ("-9223372036854775808", -1), ("1.5", 1), ("", 1), ("x", 1)] {
            assert_eq!(code(&Change::of(What::Add(by)), Some(value)), Some(ErrorCode::NotANumber), "{value} and {by}");
        }
    }

    #[test]
    fn an_addition_leaves_the_time_that_is_left_and_a_put_sets_it() {
        let there = Versioned { expires_ms: 900, ..now(Some("1")) };
        let new = |what| Change::of(what).on("k", &there).unwrap();
        assert_eq!(new(What::Add(1)).expires, Expires::At(900));
        let put = |ttl_ms| What::Put { value: "v".into(), content_type: "text/plain".into(), ttl_ms };
        assert_eq!([new(put(0)).expires, new(put(50)).expires], [Expires::Never, Expires::In(50)]);
        assert_eq!(new(put(0)).content_type, "text/plain");
    }
}
