//! JSON bodies: checked against limits before anything is built, then used in place.
//!
//! [`Object::parse`] reads a body once, over the bytes, without building a tree: grammar, depth, number of strings and
//! estimated memory, with the error texts of OpenBao 2.6.2. What it gives are slices of the body, so that a secret is
//! stored as the exact bytes that came (and numbers keep their text). Only a body that could not be stored as it is
//! (not UTF-8, lone surrogates, a name twice in one object) is written anew.

mod scan;

mod raw;

mod tape;

mod text;

use std::borrow::Cow;
use std::ops::Range;

pub use raw::{Elements, Kind, Members, Raw};
pub use tape::{NodeId, Tape};
pub use text::write_string;

/// How much a body may ask of us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Estimated memory of the decoded body, in bytes.
    pub memory_bytes_max: u64,
    /// Strings, keys included.
    pub strings_max: u64,
    /// Arrays and objects inside each other.
    pub depth_max: usize,
}

impl Limits {
    /// What OpenBao 2.6.2 takes by default.
    pub const DEFAULT: Self = Self { memory_bytes_max: 34_078_720, strings_max: 1000, depth_max: 10_000 };
}

/// Why a body was refused. The text is the caller's answer; the status is 400.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JsonError {
    /// More than [`Limits`] allow.
    #[error("refused JSON input due to high complexity: {0}")]
    TooComplex(&'static str),
    /// Not JSON, or not an object.
    #[error("failed to decode JSON input: {0}")]
    Malformed(String),
}

/// The object a body consists of: its text, valid UTF-8 with no name twice in one object, and where its members are.
pub struct Object<'a> {
    text: Cow<'a, str>,
    members: Vec<Member>,
}

/// One member of the outermost object: ranges of the text, the name without its quotes.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Member {
    name: Range<usize>,
    value: Range<usize>,
}

impl<'a> Object<'a> {
    /// Reads a body. Empty, blank and `null` bodies are `None`: no data.
    ///
    /// More JSON after the first value is checked and counted, then ignored.
    ///
    /// # Errors
    /// [`JsonError`], with the server's text.
    pub fn parse(body: &'a [u8], limits: &Limits) -> Result<Option<Self>, JsonError> {
        let found = scan::scan(body, limits)?;
        let Some(first) = found.object else {
            return Ok(None);
        };
        let bytes = body.get(first.clone()).unwrap_or_default();
        if found.exact
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            let shift = |range: Range<usize>| range.start - first.start..range.end - first.start;
            let members =
                found.members.into_iter().map(|m| Member { name: shift(m.name), value: shift(m.value) }).collect();
            return Ok(Some(Self { text: Cow::Borrowed(text), members }));
        }
        let text = tape::normalise(bytes).ok_or_else(|| JsonError::Malformed("unexpected EOF".to_owned()))?;
        let members = scan::scan(text.as_bytes(), &Limits { memory_bytes_max: u64::MAX, ..*limits })?.members;
        Ok(Some(Self { text: Cow::Owned(text), members }))
    }

    /// The whole object.
    pub fn raw(&self) -> Raw<'_> {
        Raw::trusted(&self.text)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it is `{}`.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The value of the member called `name`; names are case-sensitive.
    pub fn get(&self, name: &str) -> Option<Raw<'_>> {
        self.members().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    /// All members in the order of the text.
    pub fn members(&self) -> impl Iterator<Item = (Cow<'_, str>, Raw<'_>)> {
        self.members.iter().map(|m| {
            let name = self.text.get(m.name.clone()).unwrap_or_default();
            let value = self.text.get(m.value.clone()).unwrap_or("null");
            (text::decode(name.as_bytes()), Raw::trusted(value))
        })
    }
}

#[cfg(test)]
mod tests;
