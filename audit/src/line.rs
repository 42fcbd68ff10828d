//! Reading a record back, strictly: what is not canonical (RFC 8785) is not what we wrote.
//!
//! Two narrowings, both true of every record of the schema: numbers are integers within ±(2^53−1), and member names need
//! no escape.

/// Bytes that are not canonical JSON of the expected shape.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NonCanonical;

/// One member of an object: borrowed from the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a [u8],
    /// The value's canonical text.
    pub(crate) value: &'a [u8],
    /// Name, colon and value.
    pub(crate) whole: &'a [u8],
}

/// The members that the chain and the checks need, and the line without `hash` and `prev`.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) stream: &'a str,
    pub(crate) seq: u64,
    pub(crate) prev: [u8; 32],
    pub(crate) hash: [u8; 32],
    pub(crate) event: &'a str,
    pub(crate) ts: &'a str,
    pub(crate) id: Option<&'a str>,
    pub(crate) index: Option<u64>,
    pub(crate) checkpoint: Option<&'a [u8]>,
    /// Before `hash`, between `hash` and `prev`, after `prev`: what the hash covers.
    pub(crate) covered: [&'a [u8]; 3],
}

/// About as many members as a record has.
const MEMBERS: usize = 24;

/// How deep values may nest; records of the schema need three.
const DEPTH_MAX: usize = 32;

/// The largest integer that every JSON reader keeps exactly.
const INTEGER_MAX: u64 = (1 << 53) - 1;

impl<'a> Member<'a> {
    /// The value as text, if it is a string without an escape.
    pub(crate) fn text(&self) -> Option<&'a str> {
        let inner = self.value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if inner.contains(&b'\\') { None } else { str::from_utf8(inner).ok() }
    }

    /// The value as a number that is not negative.
    pub(crate) fn number(&self) -> Option<u64> {
        str::from_utf8(self.value).ok()?.parse().ok()
    }

    /// The value as `N` bytes in lower-case hexadecimal.
    pub(crate) fn bytes<const N: usize>(&self) -> Option<[u8; N]> {
        let text = self.text()?.as_bytes();
        let mut out = [0; N];
        if text.len() != 2 * N {
            return None;
        }
        for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(out)
    }
}

fn nibble(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

/// Reads one record (without its newline).
pub(crate) fn parse(line: &[u8]) -> Result<Line<'_>, NonCanonical> {
    let (mut stream, mut seq, mut prev, mut hash) = (None, None, None, None);
    let (mut event, mut ts, mut id, mut index, mut checkpoint) = (None, None, None, None, None);
    let mut cut = [0; 4];
    visit(line, |member, at| {
        match member.name {
            b"stream" => stream = member.text(),
            b"seq" => seq = member.number(),
            // Either is preceded by a comma: `event` always stands before them, and is checked below.
            b"prev" => {
                prev = member.bytes();
                cut[2..].copy_from_slice(&[at.saturating_sub(1), at + member.whole.len()]);
            }
            b"hash" => {
                hash = member.bytes();
                cut[..2].copy_from_slice(&[at.saturating_sub(1), at + member.whole.len()]);
            }
            b"event" => event = member.text(),
            b"ts" => ts = member.text(),
            b"id" => id = member.text(),
            b"index" => index = member.number(),
            b"checkpoint" => checkpoint = Some(member.value),
            _ => {}
        }
    })?;
    match (stream, seq, prev, hash, event, ts) {
        (Some(stream), Some(seq), Some(prev), Some(hash), Some(event), Some(ts)) => {
            let covered = [&line[..cut[0]], &line[cut[1]..cut[2]], &line[cut[3]..]];
            Ok(Line { stream, seq, prev, hash, event, ts, id, index, checkpoint, covered })
        }
        _ => Err(NonCanonical),
    }
}

/// The members of a canonical object, in order.
pub(crate) fn members(object: &[u8]) -> Result<Vec<Member<'_>>, NonCanonical> {
    let mut out = Vec::with_capacity(MEMBERS);
    visit(object, |member, _| out.push(member))?;
    Ok(out)
}

/// Checks that `text` is one canonical object and shows its members with their offsets.
fn visit<'a>(text: &'a [u8], mut member: impl FnMut(Member<'a>, usize)) -> Result<(), NonCanonical> {
    str::from_utf8(text).map_err(|_| NonCanonical)?;
    let mut cursor = Cursor { text, at: 0 };
    cursor.object(0, &mut member)?;
    if cursor.at == text.len() { Ok(()) } else { Err(NonCanonical) }
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Result<(), NonCanonical> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            Ok(())
        } else {
            Err(NonCanonical)
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), NonCanonical> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(depth, &mut |_, _| ()),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => self.integer(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => Err(NonCanonical),
        }
    }

    fn object(&mut self, depth: usize, member: &mut dyn FnMut(Member<'a>, usize)) -> Result<(), NonCanonical> {
        self.take(b'{')?;
        if depth == DEPTH_MAX {
            return Err(NonCanonical);
        }
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut last: Option<&[u8]> = None;
        loop {
            let start = self.at;
            let name = self.string()?;
            if name.contains(&b'\\') || last.is_some_and(|last| !sorts_before(last, name)) {
                return Err(NonCanonical);
            }
            last = Some(name);
            self.take(b':')?;
            let value = self.at;
            self.value(depth + 1)?;
            member(Member { name, value: &self.text[value..self.at], whole: &self.text[start..self.at] }, start);
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => return self.take(b'}'),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), NonCanonical> {
        self.take(b'[')?;
        if depth == DEPTH_MAX {
            return Err(NonCanonical);
        }
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => return self.take(b']'),
            }
        }
    }

    /// A string in its one canonical form; gives what stands between the quotes.
    fn string(&mut self) -> Result<&'a [u8], NonCanonical> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            let rest = &self.text[self.at..];
            let run = rest.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\').ok_or(NonCanonical)?;
            self.at += run;
            match rest[run] {
                b'"' => {
                    self.at += 1;
                    return Ok(&self.text[start..self.at - 1]);
                }
                b'\\' => self.escape()?,
                _ => return Err(NonCanonical),
            }
        }
    }

    /// The escapes that RFC 8785 §3.2.2.2 prescribes, and no others.
    fn escape(&mut self) -> Result<(), NonCanonical> {
        let length = match self.text.get(self.at + 1..).unwrap_or_default() {
            [b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r', ..] => 2,
            [b'u', b'0', b'0', high @ (b'0' | b'1'), low @ (b'0'..=b'9' | b'a'..=b'f'), ..] => {
                // These have short forms.
                if *high == b'0' && matches!(low, b'8' | b'9' | b'a' | b'c' | b'd') {
                    return Err(NonCanonical);
                }
                6
            }
            _ => return Err(NonCanonical),
        };
        self.at += length;
        Ok(())
    }

    fn integer(&mut self) -> Result<(), NonCanonical> {
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let digits = self.text[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let text = &self.text[self.at..self.at + digits];
        let value: u64 = str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(NonCanonical)?;
        let leading_zero = digits > 1 && text[0] == b'0';
        if leading_zero || value > INTEGER_MAX || (negative && value == 0) {
            return Err(NonCanonical);
        }
        self.at += digits;
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), NonCanonical> {
        if !self.text[self.at..].starts_with(word) {
            return Err(NonCanonical);
        }
        self.at += word.len();
        Ok(())
    }
}

/// Whether name `a` sorts before `b` by UTF-16 code units.
fn sorts_before(a: &[u8], b: &[u8]) -> bool {
    if a.is_ascii() && b.is_ascii() {
        return a < b;
    }
    match (str::from_utf8(a), str::from_utf8(b)) {
        (Ok(a), Ok(b)) => a.encode_utf16().lt(b.encode_utf16()),
        _ => a < b,
    }
}
