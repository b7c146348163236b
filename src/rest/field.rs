//! What a request may carry, as data: the validator reads these rows, the OpenAPI description is made from them, and so
//! the two cannot say different things.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::problem::{Part, Problem};

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A string of 1 to this many bytes.
    Name { bytes_max: usize },
    /// Any string, the empty one included.
    Text,
    /// A whole number within these bounds, both included.
    Integer { min: u64, max: u64 },
    /// One of these strings; in answers only.
    Choice(&'static [&'static str]),
    /// Any JSON value, kept as it was written.
    Any,
    /// A list of objects; in answers only.
    List,
}

/// Whether a field must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Its absence is a problem.
    Required,
    /// May be absent.
    Optional,
    /// A number that stands in where it is absent.
    Default(u64),
    /// Always there, but may be null; in answers only.
    Nullable,
}

/// One field of a query, a body or an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) presence: Presence,
    /// One sentence for the documentation.
    pub(crate) about: &'static str,
}

/// What a validated request carries.
#[derive(Debug, Default)]
pub(crate) struct Arguments(BTreeMap<&'static str, Argument>);

#[derive(Debug)]
enum Argument {
    Text(String),
    Integer(u64),
    Any(Box<RawValue>),
}

impl Arguments {
    /// A string that the route's table requires.
    ///
    /// # Panics
    /// Where the table does not require it: the handler and its row disagree, which is our own bug.
    pub(crate) fn text(&mut self, name: &'static str) -> String {
        self.text_if(name).unwrap_or_else(|| panic!("the route's table does not require the text '{name}'"))
    }

    /// A string that may be absent.
    pub(crate) fn text_if(&mut self, name: &'static str) -> Option<String> {
        match self.0.remove(name) {
            Some(Argument::Text(text)) => Some(text),
            Some(other) => panic!("the route's table has '{name}' as {other:?}, the handler as text"),
            None => None,
        }
    }

    /// A number that may be absent.
    pub(crate) fn integer_if(&mut self, name: &'static str) -> Option<u64> {
        match self.0.remove(name) {
            Some(Argument::Integer(number)) => Some(number),
            Some(other) => panic!("the route's table has '{name}' as {other:?}, the handler as a number"),
            None => None,
        }
    }

    /// A number that the route's table requires or has a default for.
    ///
    /// # Panics
    /// Where the table does neither: our own bug.
    pub(crate) fn integer(&mut self, name: &'static str) -> u64 {
        self.integer_if(name).unwrap_or_else(|| panic!("the route's table has no default for '{name}'"))
    }

    /// A JSON value, byte for byte as it was sent.
    ///
    /// # Panics
    /// Where the table does not require it: our own bug.
    pub(crate) fn any(&mut self, name: &'static str) -> Box<RawValue> {
        match self.0.remove(name) {
            Some(Argument::Any(value)) => value,
            other => panic!("the route's table does not require the value '{name}', but has {other:?}"),
        }
    }
}

/// Takes the fields of a query out of its pairs. Names that no row knows are ignored, as callers of the replaced system
/// are used to.
pub(crate) fn check_query(fields: &[Field], pairs: BTreeMap<String, String>, out: &mut Checked) {
    for field in fields {
        let place = [Part::Name("query"), Part::Name(field.name)];
        match pairs.get(field.name) {
            None => out.absent(field, &place),
            Some(text) => match from_text(field, text, &place) {
                Ok(argument) => out.put(field, argument),
                Err(problem) => out.problems.push(problem),
            },
        }
    }
}

/// Takes the fields of a body out of its members.
pub(crate) fn check_body(fields: &[Field], mut members: BTreeMap<String, Box<RawValue>>, out: &mut Checked) {
    for field in fields {
        let place = [Part::Name("body"), Part::Name(field.name)];
        // An optional field that is null counts as absent: what many a serializer writes for "nothing".
        let may_be_null = field.presence == Presence::Optional;
        match members.remove(field.name).filter(|value| !(may_be_null && value.get() == "null")) {
            None => out.absent(field, &place),
            Some(value) => match from_json(field, value, &place) {
                Ok(argument) => out.put(field, argument),
                Err(problem) => out.problems.push(problem),
            },
        }
    }
}

/// What has been checked so far: the arguments, and everything that is wrong with the rest.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    arguments: Arguments,
    pub(crate) problems: Vec<Problem>,
}

impl Checked {
    fn put(&mut self, field: &Field, argument: Argument) {
        self.arguments.0.insert(field.name, argument);
    }

    fn absent(&mut self, field: &Field, place: &[Part]) {
        match field.presence {
            Presence::Required | Presence::Nullable => self.problems.push(Problem::missing(place)),
            Presence::Optional => {}
            Presence::Default(number) => self.put(field, Argument::Integer(number)),
        }
    }

    /// The arguments, if nothing was wrong.
    ///
    /// # Errors
    /// Everything that was.
    pub(crate) fn done(self) -> Result<Arguments, Vec<Problem>> {
        if self.problems.is_empty() { Ok(self.arguments) } else { Err(self.problems) }
    }
}

fn from_text(field: &Field, text: &str, place: &[Part]) -> Result<Argument, Problem> {
    match field.kind {
        Kind::Integer { min, max } => whole_number(text, min, max, place).map(Argument::Integer),
        kind => check_text(kind, text.to_owned(), place),
    }
}

fn from_json(field: &Field, value: Box<RawValue>, place: &[Part]) -> Result<Argument, Problem> {
    let text = value.get();
    let is_string = text.starts_with('"');
    match field.kind {
        Kind::Any => Ok(Argument::Any(value)),
        Kind::Integer { min, max } => {
            let string = || serde_json::from_str::<String>(text).map_err(|_| Problem::integer_parsing(place));
            match text.as_bytes().first() {
                Some(b'"') => whole_number(&string()?, min, max, place).map(Argument::Integer),
                Some(b'-' | b'0'..=b'9') => json_number(text, min, max, place).map(Argument::Integer),
                _ => Err(Problem::integer_type(place)),
            }
        }
        kind if is_string => match serde_json::from_str::<String>(text) {
            Ok(string) => check_text(kind, string, place),
            Err(_) => Err(Problem::string_unicode(place)),
        },
        _ => Err(Problem::string_type(place)),
    }
}

fn check_text(kind: Kind, text: String, place: &[Part]) -> Result<Argument, Problem> {
    match kind {
        Kind::Name { .. } if text.is_empty() => Err(Problem::string_too_short(place)),
        Kind::Name { bytes_max } if text.len() > bytes_max => Err(Problem::string_too_long(bytes_max, place)),
        _ => Ok(Argument::Text(text)),
    }
}

/// A number as JSON writes it. `10.0` is ten, as callers whose language has only doubles write it; `10.5` is a problem.
fn json_number(text: &str, min: u64, max: u64, place: &[Part]) -> Result<u64, Problem> {
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        return whole_number(text, min, max, place);
    }
    let number: f64 = text.parse().map_err(|_| Problem::integer_type(place))?;
    if number.fract() != 0.0 {
        return Err(Problem::integer_from_float(place));
    }
    // Rust writes a whole double without a fraction or an exponent, so the digits can be judged like any others.
    whole_number(&format!("{number:.0}"), min, max, place)
}

/// Digits with an optional sign, within the bounds, however long they are.
fn whole_number(text: &str, min: u64, max: u64, place: &[Part]) -> Result<u64, Problem> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Problem::integer_parsing(place));
    }
    let zero = digits.bytes().all(|b| b == b'0');
    let number = match digits.parse::<u64>() {
        _ if negative && !zero => return Err(Problem::too_small(min, place)),
        Ok(number) => number,
        Err(_) => return Err(Problem::too_great(max, place)),
    };
    match number {
        _ if number < min => Err(Problem::too_small(min, place)),
        _ if number > max => Err(Problem::too_great(max, place)),
        _ => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Field = Field {
        name: "timeout_sec",
        kind: Kind::Integer { min: 1, max: 86_400 },
        presence: Presence::Default(10),
        about: "",
    };
    const NAME: Field =
        Field { name: "name", kind: Kind::Name { bytes_max: 4 }, presence: Presence::Required, about: "" };

    fn body(field: Field, json: &str) -> Result<Arguments, &'static str> {
        let mut checked = Checked::default();
        check_body(&[field], serde_json::from_str(json).unwrap(), &mut checked);
        checked.done().map_err(|problems| problems[0].kind)
    }

    #[test]
    fn whole_numbers_however_they_are_written() {
        for (json, want) in [("{}", 10), ("1", 1), ("86400", 86_400), ("5.0", 5), ("1e2", 100), ("\" 7 \"", 7)] {
            let json = if json == "{}" { json.to_owned() } else { format!("{{\"timeout_sec\":{json}}}") };
            assert_eq!(body(TIMEOUT, &json).unwrap().integer("timeout_sec"), want, "{json}");
        }
        for (json, want) in [
            ("0", "greater_than_equal"),
            ("-1", "greater_than_equal"),
            ("-99999999999999999999999", "greater_than_equal"),
            ("86401", "less_than_equal"),
            ("99999999999999999999999", "less_than_equal"),
            ("1e300", "less_than_equal"),
            ("2.5", "int_from_float"),
            ("\"soon\"", "int_parsing"),
            ("\"\"", "int_parsing"),
            ("\"\\ud800\"", "int_parsing"),
            ("true", "int_type"),
            ("null", "int_type"),
            ("[1]", "int_type"),
        ] {
            let json = format!("{{\"timeout_sec\":{json}}}");
            assert_eq!(body(TIMEOUT, &json).unwrap_err(), want, "{json}");
        }
    }

    #[test]
    fn names_have_one_to_so_many_bytes() {
        assert_eq!(body(NAME, r#"{"name":"öö"}"#).unwrap().text("name"), "öö");
        for (json, want) in [
            ("{}", "missing"),
            (r#"{"name":""}"#, "string_too_short"),
            (r#"{"name":"ööö"}"#, "string_too_long"),
            (r#"{"name":1}"#, "string_type"),
            (r#"{"name":null}"#, "string_type"),
            (r#"{"name":"\ud800"}"#, "string_unicode"),
        ] {
            assert_eq!(body(NAME, json).unwrap_err(), want, "{json}");
        }
    }
}
