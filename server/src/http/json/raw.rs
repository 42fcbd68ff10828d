//! One JSON value as its text, looked into without building a tree.

use std::borrow::Cow;

use super::scan::next_special;
use super::text;

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number; its text is kept.
    Number,
    /// A string.
    String,
    /// `[…]`
    Array,
    /// `{…}`
    Object,
}

/// The text of one well-formed JSON value, without blanks around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// The value `null`.
    pub const NULL: Raw<'static> = Raw("null");

    /// Takes text that was found well-formed before: part of a body that [`super::Object::parse`] took, or what the
    /// server stored from one. Other text gives wrong answers, but no harm.
    pub fn trusted(text: &'a str) -> Self {
        Self(text.trim_ascii())
    }

    /// The text.
    pub fn text(self) -> &'a str {
        self.0
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => Kind::Null,
        }
    }

    /// The content of a string; `None` if it is something else.
    pub fn string(self) -> Option<Cow<'a, str>> {
        let inside = self.0.strip_prefix('"')?.strip_suffix('"')?;
        Some(text::decode(inside.as_bytes()))
    }

    /// The items of an array; none if it is something else.
    pub fn elements(self) -> Elements<'a> {
        Elements(self.0.strip_prefix('[').unwrap_or_default())
    }

    /// The members of an object in the order of the text; none if it is something else.
    pub fn members(self) -> Members<'a> {
        Members(self.0.strip_prefix('{').unwrap_or_default())
    }

    /// The member of an object called `name`, the last one if there are several.
    pub fn get(self, name: &str) -> Option<Raw<'a>> {
        self.members().filter(|(found, _)| found == name).last().map(|(_, value)| value)
    }
}

/// The items of an array.
#[derive(Clone, Debug)]
pub struct Elements<'a>(&'a str);

impl<'a> Iterator for Elements<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (value, rest) = split_value(self.0)?;
        self.0 = rest;
        Some(Raw(value))
    }
}

/// The members of an object.
#[derive(Clone, Debug)]
pub struct Members<'a>(&'a str);

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = split_value(self.0)?;
        let (value, rest) = split_value(rest)?;
        self.0 = rest;
        Some((Raw(name).string()?, Raw(value)))
    }
}

/// The next value in `text` after blanks and separators, and what follows it; `None` at the end of the container.
fn split_value(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([' ', '\t', '\r', '\n', ',', ':']);
    let end = value_end(text.as_bytes());
    if end == 0 { None } else { text.split_at_checked(end) }
}

/// The length of the value that `bytes` start with; 0 if they start with none.
fn value_end(bytes: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    loop {
        match bytes.get(at) {
            None => return at,
            Some(b'"') => at = string_end(bytes, at),
            Some(b'{' | b'[') => {
                depth += 1;
                at += 1;
            }
            Some(b'}' | b']') => {
                if depth == 0 {
                    return at;
                }
                depth -= 1;
                at += 1;
            }
            Some(b' ' | b'\t' | b'\r' | b'\n' | b',' | b':') => at += 1,
            Some(_) => at = scalar_end(bytes, at),
        }
        if depth == 0 {
            return at;
        }
    }
}

/// Where the string that starts at `at` ends.
pub(super) fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        at = next_special(bytes, at);
        match bytes.get(at) {
            None => return bytes.len(),
            Some(b'"') => return at + 1,
            Some(b'\\') => at = (at + 2).min(bytes.len()),
            Some(_) => at += 1,
        }
    }
}

/// Where the number or word that starts at `at` ends.
pub(super) fn scalar_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let stop = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | b']' | b'}' | b'[' | b'{' | b'"');
    at + rest.iter().position(stop).unwrap_or(rest.len())
}
