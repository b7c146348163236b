//! What is wrong with a request's body or query, in the form that FastAPI gives it: callers of the replaced system parse it.

use serde::Serialize;

/// One step of the way to the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Part {
    /// `body`, `query`, or a field's name.
    Name(&'static str),
    /// Byte of the body where the parser stopped.
    Byte(usize),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// Where.
    pub(crate) loc: Vec<Part>,
    /// What would be right, for a person.
    pub(crate) msg: String,
    /// What, for a program.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
}

impl Problem {
    fn new(loc: &[Part], kind: &'static str, msg: impl Into<String>) -> Self {
        Self { loc: loc.to_vec(), msg: msg.into(), kind }
    }

    /// A field, or the whole body, is not there.
    pub(crate) fn missing(loc: &[Part]) -> Self {
        Self::new(loc, "missing", "Field required")
    }

    pub(crate) fn string_type(loc: &[Part]) -> Self {
        Self::new(loc, "string_type", "Input should be a valid string")
    }

    /// A string whose bytes or escapes are no Unicode text.
    pub(crate) fn string_unicode(loc: &[Part]) -> Self {
        Self::new(loc, "string_unicode", "Input should be a valid string of Unicode characters")
    }

    pub(crate) fn string_too_short(loc: &[Part]) -> Self {
        Self::new(loc, "string_too_short", "String should have at least 1 character")
    }

    pub(crate) fn string_too_long(bytes_max: usize, loc: &[Part]) -> Self {
        Self::new(loc, "string_too_long", format!("String should have at most {bytes_max} bytes in UTF-8"))
    }

    pub(crate) fn integer_type(loc: &[Part]) -> Self {
        Self::new(loc, "int_type", "Input should be a valid integer")
    }

    pub(crate) fn integer_parsing(loc: &[Part]) -> Self {
        Self::new(loc, "int_parsing", "Input should be a valid integer, unable to parse string as an integer")
    }

    pub(crate) fn integer_from_float(loc: &[Part]) -> Self {
        Self::new(loc, "int_from_float", "Input should be a valid integer, got a number with a fractional part")
    }

    pub(crate) fn too_small(min: u64, loc: &[Part]) -> Self {
        Self::new(loc, "greater_than_equal", format!("Input should be greater than or equal to {min}"))
    }

    pub(crate) fn too_great(max: u64, loc: &[Part]) -> Self {
        Self::new(loc, "less_than_equal", format!("Input should be less than or equal to {max}"))
    }

    /// The body is no JSON; `byte` is where that shows.
    pub(crate) fn json_invalid(byte: usize, why: &str) -> Self {
        Self::new(&[Part::Name("body"), Part::Byte(byte)], "json_invalid", format!("JSON decode error: {why}"))
    }

    /// The body is JSON, but no object.
    pub(crate) fn not_an_object() -> Self {
        Self::new(&[Part::Name("body")], "model_attributes_type", "Input should be a valid JSON object")
    }

    /// The node itself, behind the door, found a field out of its range.
    pub(crate) fn refused(msg: impl Into<String>) -> Self {
        Self::new(&[Part::Name("body")], "value_error", msg)
    }
}
