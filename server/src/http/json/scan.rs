//! The one pass over a body: Go's token grammar with its error texts, the limits, and where the outer members are.

use std::ops::Range;

use super::{JsonError, Limits, Member, text};
use crate::http::gotext::quote_byte;

/// What the pass found in a body that is within the limits.
pub(super) struct Found {
    /// Where the first value is, if it is an object; `None`: no value, or `null`.
    pub(super) object: Option<Range<usize>>,
    /// The members of that object.
    pub(super) members: Vec<Member>,
    /// Whether the bytes can be kept as they are: UTF-8, no lone surrogate, no name twice in one object.
    pub(super) exact: bool,
}

/// Reads `body` to its end.
pub(super) fn scan(body: &[u8], limits: &Limits) -> Result<Found, JsonError> {
    let mut scanner = Scanner {
        bytes: body,
        at: 0,
        limits,
        memory: 0,
        strings: 0,
        utf8: std::str::from_utf8(body).is_ok(),
        exact: true,
        open: Vec::new(),
        names: Vec::new(),
        state: State::TopValue,
        first: First::Awaited,
        members: Vec::new(),
        name: 0..0,
        too_deep: None,
    };
    scanner.run()?;
    scanner.finish()
}

/// What may come next, as in Go's `json.Decoder.Token`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    TopValue,
    ArrayStart,
    ArrayValue,
    ArrayComma,
    ObjectStart,
    ObjectKey,
    ObjectColon,
    ObjectValue,
    ObjectComma,
}

/// An array or object that is not closed yet.
struct Open {
    /// The state to return to.
    outer: State,
    /// How many entries `Scanner::names` had when it was opened.
    names: usize,
}

/// How far the first value is.
enum First {
    Awaited,
    Open(usize),
    Object(Range<usize>),
    Other(&'static str),
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: &'a Limits,
    memory: u64,
    strings: u64,
    utf8: bool,
    exact: bool,
    open: Vec<Open>,
    /// Hashes of the names in the open objects of the first value, innermost last.
    names: Vec<u64>,
    state: State,
    first: First,
    members: Vec<Member>,
    /// The last name read in the outermost object.
    name: Range<usize>,
    too_deep: Option<u8>,
}

impl Scanner<'_> {
    fn run(&mut self) -> Result<(), JsonError> {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'[' if self.value_allowed() => self.push(byte, State::ArrayStart, 16 + 24)?,
                b'{' if self.value_allowed() => self.push(byte, State::ObjectStart, 16 + 72)?,
                b']' if matches!(self.state, State::ArrayStart | State::ArrayComma) => self.pop(),
                b'}' if matches!(self.state, State::ObjectStart | State::ObjectComma) => self.pop(),
                b':' if self.state == State::ObjectColon => self.step(State::ObjectValue),
                b',' if self.state == State::ArrayComma => self.step(State::ArrayValue),
                b',' if self.state == State::ObjectComma => self.step(State::ObjectKey),
                b']' | b'}' | b':' | b',' | b'[' | b'{' => return Err(self.unexpected(byte)),
                b'"' if matches!(self.state, State::ObjectStart | State::ObjectKey) => self.key()?,
                _ if self.value_allowed() => self.scalar(byte)?,
                _ => return Err(self.unexpected(byte)),
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Found, JsonError> {
        let object = match self.first {
            First::Awaited | First::Other("null") => None,
            First::Open(_) => return Err(end_of_input()),
            _ if self.too_deep.is_some() => {
                let byte = quote_byte(self.too_deep.unwrap_or(b'['));
                return Err(malformed(format!("invalid character {byte} exceeded max depth")));
            }
            First::Other(kind) => {
                return Err(malformed(format!(
                    "json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
                )));
            }
            First::Object(range) => Some(range),
        };
        Ok(Found { object, members: self.members, exact: self.exact && self.utf8 })
    }

    fn value_allowed(&self) -> bool {
        matches!(self.state, State::TopValue | State::ArrayStart | State::ArrayValue | State::ObjectValue)
    }

    /// Whether we are inside the first value.
    fn in_first(&self) -> bool {
        matches!(self.first, First::Open(_))
    }

    fn step(&mut self, next: State) {
        self.state = next;
        self.at += 1;
    }

    fn push(&mut self, byte: u8, inside: State, cost: u64) -> Result<(), JsonError> {
        self.pay(cost)?;
        if matches!(self.first, First::Awaited) {
            self.first = First::Open(self.at);
        } else if self.in_first() && self.open.len() == 1 && self.state == State::ObjectValue {
            self.members.push(Member { name: self.name.clone(), value: self.at..self.at });
        }
        if self.in_first() && self.open.len() >= self.limits.depth_max && self.too_deep.is_none() {
            self.too_deep = Some(byte);
        }
        self.open.push(Open { outer: self.state, names: self.names.len() });
        self.step(inside);
        Ok(())
    }

    fn pop(&mut self) {
        let is_object = matches!(self.state, State::ObjectStart | State::ObjectComma);
        self.at += 1;
        let Some(Open { outer, names }) = self.open.pop() else { return };
        if is_object {
            self.exact &= !any_twice(self.names.get_mut(names..).unwrap_or_default());
            self.names.truncate(names);
        }
        self.state = outer;
        if let First::Open(start) = self.first {
            match self.open.len() {
                0 if is_object => self.first = First::Object(start..self.at),
                0 => self.first = First::Other("array"),
                1 => {
                    if let Some(member) = self.members.last_mut() {
                        member.value.end = self.at;
                    }
                }
                _ => {}
            }
        }
        self.value_ends();
    }

    fn value_ends(&mut self) {
        self.state = match self.state {
            State::ArrayStart | State::ArrayValue => State::ArrayComma,
            State::ObjectValue => State::ObjectComma,
            other => other,
        };
    }

    fn key(&mut self) -> Result<(), JsonError> {
        let start = self.at + 1;
        let escaped = self.string()?;
        let inside = start..self.at - 1;
        if self.in_first() {
            // WHY: two spellings of one name differ in their escapes, so a name with one takes the slow road.
            self.exact &= !escaped;
            self.names.push(hash(self.bytes.get(inside.clone()).unwrap_or_default()));
            if self.open.len() == 1 {
                self.name = inside;
            }
        }
        self.state = State::ObjectColon;
        Ok(())
    }

    fn scalar(&mut self, byte: u8) -> Result<(), JsonError> {
        let start = self.at;
        let kind = match byte {
            b'"' => {
                self.string()?;
                "string"
            }
            b't' => self.literal("true", 16 + 1)?,
            b'f' => self.literal("false", 16 + 1)?,
            b'n' => self.literal("null", 16 + 1)?,
            b'-' | b'0'..=b'9' => self.number()?,
            other => return Err(invalid(other, " looking for beginning of value")),
        };
        match self.first {
            First::Awaited => self.first = First::Other(kind),
            First::Open(_) if self.open.len() == 1 && self.state == State::ObjectValue => {
                self.members.push(Member { name: self.name.clone(), value: start..self.at });
            }
            _ => {}
        }
        self.value_ends();
        Ok(())
    }

    /// Reads the string at the cursor; says whether it has escapes.
    fn string(&mut self) -> Result<bool, JsonError> {
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        // Length of the decoded text: what the escapes stand for is shorter than they are, replaced bytes are longer.
        let mut saved = 0;
        let end = loop {
            at = next_special(self.bytes, at);
            match self.bytes.get(at) {
                None => return Err(end_of_input()),
                Some(b'"') => break at,
                Some(b'\\') => {
                    escaped = true;
                    let (used, stands_for) = self.escape(at)?;
                    saved += used - stands_for;
                    at += used;
                }
                Some(&control) => return Err(invalid(control, " in string literal")),
            }
        };
        let mut length = (end - start - saved) as u64;
        if !self.utf8 {
            let inside = self.bytes.get(start..end).unwrap_or_default();
            length += 2 * stray_bytes(inside);
        }
        self.at = end + 1;
        self.pay(16 + 16 + length)?;
        self.strings += 1;
        if self.strings > self.limits.strings_max {
            return Err(JsonError::TooComplex("exceeded maximum number of strings"));
        }
        Ok(escaped)
    }

    /// The length of the escape at `at`, and of the text it stands for.
    fn escape(&mut self, at: usize) -> Result<(usize, usize), JsonError> {
        match self.bytes.get(at + 1) {
            None => Err(end_of_input()),
            Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => Ok((2, 1)),
            Some(b'u') => {
                for i in at + 2..at + 6 {
                    match self.bytes.get(i) {
                        None => return Err(end_of_input()),
                        Some(digit) if digit.is_ascii_hexdigit() => {}
                        Some(&other) => return Err(invalid(other, " in \\u hexadecimal character escape")),
                    }
                }
                let (c, used) = text::unicode_escape(self.bytes.get(at..).unwrap_or_default());
                // A lone surrogate is stored as the replacement character.
                self.exact &= c.is_some() || !self.in_first();
                Ok((used, c.unwrap_or(char::REPLACEMENT_CHARACTER).len_utf8()))
            }
            Some(&other) => Err(invalid(other, " in string escape code")),
        }
    }

    fn literal(&mut self, word: &'static str, cost: u64) -> Result<&'static str, JsonError> {
        for expected in word.bytes() {
            match self.bytes.get(self.at) {
                None => return Err(end_of_input()),
                Some(&byte) if byte == expected => self.at += 1,
                Some(&byte) => {
                    return Err(invalid(byte, &format!(" in literal {word} (expecting {})", quote_byte(expected))));
                }
            }
        }
        self.pay(cost)?;
        Ok(if word == "null" { "null" } else { "bool" })
    }

    fn number(&mut self) -> Result<&'static str, JsonError> {
        let start = self.at;
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits(" in numeric literal")?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits(" after decimal point in numeric literal")?;
        }
        let mut may_overflow = self.at - start > 300;
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            may_overflow = true;
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits(" in exponent of numeric literal")?;
        }
        if may_overflow {
            let text = self.bytes.get(start..self.at).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default();
            if text.parse::<f64>().is_ok_and(f64::is_infinite) {
                return Err(malformed(format!("json: cannot unmarshal number {text} into Go value of type float64")));
            }
        }
        self.pay(16 + 8)?;
        Ok("number")
    }

    fn digits(&mut self, place: &str) -> Result<(), JsonError> {
        match self.bytes.get(self.at) {
            None => return Err(end_of_input()),
            Some(digit) if digit.is_ascii_digit() => {}
            Some(&other) => return Err(invalid(other, place)),
        }
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn pay(&mut self, cost: u64) -> Result<(), JsonError> {
        self.memory += cost;
        if self.memory > self.limits.memory_bytes_max {
            return Err(JsonError::TooComplex("exceeded maximum estimated memory limits"));
        }
        Ok(())
    }

    fn unexpected(&self, byte: u8) -> JsonError {
        let place = match self.state {
            State::TopValue | State::ArrayStart | State::ArrayValue | State::ObjectValue => {
                " looking for beginning of value"
            }
            State::ArrayComma => " after array element",
            State::ObjectStart => "",
            State::ObjectKey => " looking for beginning of object key string",
            State::ObjectColon => " after object key",
            State::ObjectComma => " after object key:value pair",
        };
        invalid(byte, place)
    }
}

/// The next quote, backslash or control byte at or after `at`; eight bytes at a time.
pub(super) fn next_special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let hits = zero_byte(word ^ (ONES * u64::from(b'"')))
            | zero_byte(word ^ (ONES * u64::from(b'\\')))
            | (word.wrapping_sub(ONES * 0x20) & !word & HIGHS);
        if hits != 0 {
            // The lowest hit is exact: borrows only run upwards.
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|b| !matches!(b, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at
}

/// Bytes that are not part of UTF-8.
fn stray_bytes(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while let Err(error) = std::str::from_utf8(bytes) {
        count += 1;
        bytes = bytes.get(error.valid_up_to() + 1..).unwrap_or_default();
    }
    count
}

/// FNV-1a. Two names that meet by chance (or malice) only cost a rewrite of the body, which looks at the names.
fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn any_twice(hashes: &mut [u64]) -> bool {
    if hashes.len() > 32 {
        hashes.sort_unstable();
        return hashes.windows(2).any(|pair| pair.first() == pair.last());
    }
    hashes.iter().enumerate().any(|(i, one)| hashes.iter().skip(i + 1).any(|other| one == other))
}

fn invalid(byte: u8, place: &str) -> JsonError {
    malformed(format!("invalid character {}{place}", quote_byte(byte)))
}

fn end_of_input() -> JsonError {
    malformed("unexpected EOF".to_owned())
}

fn malformed(why: String) -> JsonError {
    JsonError::Malformed(why)
}
