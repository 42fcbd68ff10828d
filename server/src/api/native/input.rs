//! What a request of this face may bring: a strict JSON body, or a query with each name once.

use std::borrow::Cow;
use std::collections::BTreeSet;

use http::header;
use percent_encoding::percent_decode_str;

use crate::http::json::{JsonError, Kind, Limits, NodeId, Object, Raw, Tape};
use crate::http::request::Request;
use crate::refusal::{Problem, Refusal};

/// The largest body, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Arrays and objects inside each other.
const DEPTH_MAX: usize = 32;
/// The greatest number that JSON carries to every reader as it is: 2^53 - 1.
const NUMBER_MAX: f64 = 9_007_199_254_740_991.0;
/// The greatest number of a version.
const VERSION_MAX: u64 = 4_294_967_295;

/// Checks and reads the body of a request of this face. `None`: there is none.
///
/// # Errors
/// Wrapping is asked for, which this face does not do; too large; not JSON of the strict kind.
pub fn body(request: &Request) -> Result<Option<Object<'_>>, Refusal> {
    if request.wrap_ttl.is_some() {
        return Err(invalid("answers of this API cannot be wrapped: read through the mount's own path to wrap"));
    }
    if request.body.is_empty() {
        return Ok(None);
    }
    if request.body.len() > BODY_BYTES_MAX {
        return Err(Refusal::Problem(Problem::PAYLOAD_TOO_LARGE));
    }
    let kind = request.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::Problem(Problem::UNSUPPORTED_MEDIA_TYPE));
    }
    strict(&request.body).map(Some).map_err(Refusal::Problem)
}

/// One object and nothing after it: UTF-8, every name once, no deeper than 32, numbers that every reader understands.
fn strict(body: &[u8]) -> Result<Object<'_>, Problem> {
    if std::str::from_utf8(body).is_err() {
        return Err(Problem::MALFORMED_JSON);
    }
    let object =
        Object::parse(body, &Limits { depth_max: DEPTH_MAX, ..Limits::DEFAULT }).map_err(|error| match error {
            JsonError::TooComplex(_) => Problem::PAYLOAD_TOO_LARGE,
            JsonError::Malformed(_) => Problem::MALFORMED_JSON,
        })?;
    let object = object.ok_or(Problem::MALFORMED_JSON)?;
    let tape = Tape::new(body).ok_or(Problem::MALFORMED_JSON)?; // a second value after the first
    check(&tape, Tape::ROOT)?;
    Ok(object)
}

/// The depth is bounded by then, so recursion is, too.
fn check(tape: &Tape<'_>, node: NodeId) -> Result<(), Problem> {
    match tape.kind(node) {
        Kind::Object => {
            let mut names = BTreeSet::new();
            for (name, value) in tape.members(node) {
                check(tape, name)?;
                if !names.insert(tape.string(name)) {
                    return Err(Problem::DUPLICATE_JSON_KEY);
                }
                check(tape, value)?;
            }
            Ok(())
        }
        Kind::Array => tape.items(node).try_for_each(|item| check(tape, item)),
        // A lone surrogate stands for no text: it would be stored as something else than was sent.
        Kind::String if tape.text(node).contains(&b'\\') => match serde_json::from_slice::<String>(tape.text(node)) {
            Ok(_) => Ok(()),
            Err(_) => Err(Problem::MALFORMED_JSON),
        },
        Kind::Number => {
            let text = std::str::from_utf8(tape.text(node)).unwrap_or_default();
            let fits = text.parse::<f64>().is_ok_and(|number| number.abs() <= NUMBER_MAX);
            if fits { Ok(()) } else { Err(Problem::MALFORMED_JSON) }
        }
        Kind::String | Kind::Bool | Kind::Null => Ok(()),
    }
}

/// `INVALID_FIELD` with a text that names the field.
pub(super) fn invalid(text: &'static str) -> Refusal {
    Refusal::explained(Problem::INVALID_FIELD, text)
}

/// The members of a body, of which only those in `known` may be there.
#[derive(Clone, Copy)]
pub(super) struct Members<'a>(Option<&'a Object<'a>>);

impl<'a> Members<'a> {
    /// # Errors
    /// A member that is not known.
    pub(super) fn of(body: Option<&'a Object<'a>>, known: &[&str]) -> Result<Self, Refusal> {
        let unknown = body.is_some_and(|body| body.members().any(|(name, _)| !known.contains(&name.as_ref())));
        if unknown { Err(Refusal::Problem(Problem::UNKNOWN_FIELD)) } else { Ok(Self(body)) }
    }

    /// A member as it came.
    pub(super) fn get(self, name: &str) -> Option<Raw<'a>> {
        self.0?.get(name)
    }

    /// A string; `None` if it is not there.
    ///
    /// # Errors
    /// It is something else: `why`.
    pub(super) fn text(self, name: &str, why: &'static str) -> Result<Option<Cow<'a, str>>, Refusal> {
        self.get(name).map(|raw| raw.string().ok_or_else(|| invalid(why))).transpose()
    }

    /// The number of a version: 1 or more.
    ///
    /// # Errors
    /// It is something else or missing: `why`.
    pub(super) fn version(self, name: &str, why: &'static str) -> Result<u64, Refusal> {
        self.get(name).and_then(number).filter(|number| (1..=VERSION_MAX).contains(number)).ok_or_else(|| invalid(why))
    }

    /// A number, or `None` for null. The member must be there.
    ///
    /// # Errors
    /// It is something else or missing: `why`.
    pub(super) fn number_or_null(self, name: &str, why: &'static str) -> Result<Option<u64>, Refusal> {
        match self.get(name) {
            Some(raw) if raw.kind() == Kind::Null => Ok(None),
            Some(raw) => number(raw).map(Some).ok_or_else(|| invalid(why)),
            None => Err(invalid(why)),
        }
    }
}

/// A whole number as JSON writes it: digits only.
fn number(raw: Raw<'_>) -> Option<u64> {
    (raw.kind() == Kind::Number).then(|| raw.text().parse().ok()).flatten()
}

/// The number of a version as text: digits only, no leading zero.
///
/// # Errors
/// `INVALID_VERSION`.
pub(super) fn version(text: &str) -> Result<u64, Refusal> {
    let digits = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    let number = digits.then(|| text.parse::<u64>().ok()).flatten().filter(|number| *number <= VERSION_MAX);
    number.ok_or(Refusal::Problem(Problem::INVALID_VERSION))
}

/// An alias by its name.
///
/// # Errors
/// `INVALID_ALIAS`.
pub(super) fn alias(name: &str) -> Result<String, Refusal> {
    if crate::engine::kv::is_alias(name) { Ok(name.to_owned()) } else { Err(Refusal::Problem(Problem::INVALID_ALIAS)) }
}

/// The parameters of a query.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query as sent. Each name and value is decoded once; `+` is a plus.
    ///
    /// # Errors
    /// A name that is not `known`, stands twice or has no `=`; a bad escape.
    pub(super) fn read(sent: &str, known: &[&str]) -> Result<Self, Refusal> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in sent.split('&').filter(|_| !sent.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(Refusal::Problem(Problem::AMBIGUOUS_QUERY))?;
            let (name, value) = (decoded(name)?, decoded(value)?);
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Refusal::Problem(Problem::AMBIGUOUS_QUERY));
            }
            if !known.contains(&name.as_str()) {
                return Err(Refusal::Problem(Problem::UNKNOWN_FIELD));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn decoded(sent: &str) -> Result<String, Refusal> {
    let mut rest = sent;
    while let Some((_, after)) = rest.split_once('%') {
        let digits = after.get(..2).is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        if !digits {
            return Err(Refusal::Problem(Problem::ILLEGAL_ENCODING));
        }
        rest = after.get(2..).unwrap_or_default();
    }
    let text = percent_decode_str(sent).decode_utf8().map_err(|_| Refusal::Problem(Problem::ILLEGAL_ENCODING))?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bodies_are_read_strictly() {
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        for (body, problem) in [
            ("", Problem::MALFORMED_JSON),
            ("null", Problem::MALFORMED_JSON),
            ("[]", Problem::MALFORMED_JSON),
            ("{} {}", Problem::MALFORMED_JSON),
            ("\u{feff}{}", Problem::MALFORMED_JSON),
            (r#"{"a":1,"a":2}"#, Problem::DUPLICATE_JSON_KEY),
            (r#"{"a":1,"\u0061":2}"#, Problem::DUPLICATE_JSON_KEY),
            (r#"{"a":[{"b":1,"b":1}]}"#, Problem::DUPLICATE_JSON_KEY),
            (r#"{"a":"\ud800"}"#, Problem::MALFORMED_JSON),
            (r#"{"a":9007199254740992}"#, Problem::MALFORMED_JSON),
            (&deep(32), Problem::MALFORMED_JSON),
        ] {
            assert_eq!(strict(body.as_bytes()).err(), Some(problem), "{body}");
        }
        assert_eq!(strict(b"{\"a\":\"\xff\"}").err(), Some(Problem::MALFORMED_JSON));
        for body in ["{}", r#"{"a":-9007199254740991,"b":{"a":"\ud83d\ude00"}}"#, &deep(31)] {
            assert!(strict(body.as_bytes()).is_ok(), "{body}");
        }
    }

    #[test]
    fn queries_name_each_parameter_once() {
        let known = ["a", "b"];
        let query = Query::read("a=x%20y&b=1+1", &known).unwrap();
        assert_eq!((query.get("a"), query.get("b"), query.get("c")), (Some("x y"), Some("1+1"), None));
        assert!(Query::read("", &known).is_ok());
        for (sent, problem) in [
            ("a", Problem::AMBIGUOUS_QUERY),
            ("a=1&a=1", Problem::AMBIGUOUS_QUERY),
            ("a=1&", Problem::AMBIGUOUS_QUERY),
            ("c=1", Problem::UNKNOWN_FIELD),
            ("a=%2", Problem::ILLEGAL_ENCODING),
            ("a=%ff", Problem::ILLEGAL_ENCODING),
        ] {
            assert_eq!(Query::read(sent, &known).err(), Some(Refusal::Problem(problem)), "{sent}");
        }
    }

    #[test]
    fn versions_are_plain_numbers() {
        assert_eq!(version("4294967295"), Ok(4_294_967_295));
        for text in ["", "0", "01", "+1", "-1", "1e1", "4294967296", "99999999999999999999999"] {
            assert_eq!(version(text), Err(Refusal::Problem(Problem::INVALID_VERSION)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_json(body in "[{}\\[\\]\":,a\\\\u0-9 ]{0,24}") {
            if strict(body.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok());
            }
        }
    }
}
