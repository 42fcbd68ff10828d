//! Patterns with `+` segments, and the order of patterns by how specific they are.

use std::cmp::Reverse;

/// How specific a pattern is; of two that match, the greater decides. Compared field by field.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank<'a> {
    /// Where the first wildcard stands, in bytes: later is more specific.
    first_wildcard: usize,
    /// Not ending in `*` is more specific.
    whole: bool,
    /// Fewer `+` segments are more specific.
    plus_segments: Reverse<usize>,
    /// Longer is more specific; a `*` at the end does not count.
    length: usize,
    /// The last resort, so that the order is total.
    text: &'a str,
}

impl<'a> Rank<'a> {
    /// The rank of a prefix rule.
    pub(super) fn of_prefix(text: &'a str) -> Self {
        Self { first_wildcard: text.len(), whole: false, plus_segments: Reverse(0), length: text.len(), text }
    }
}

/// A compiled pattern with `+`.
#[derive(Debug)]
pub(super) struct PlusRule {
    /// The pattern without a `*` at its end.
    text: Box<str>,
    whole: bool,
    first_wildcard: usize,
    plus_segments: usize,
    entry: u32,
}

impl PlusRule {
    /// Compiles `pattern` for the entry it leads to.
    pub(super) fn new(pattern: &str, entry: u32) -> Self {
        let text = pattern.strip_suffix('*').unwrap_or(pattern);
        Self {
            whole: text.len() == pattern.len(),
            // WHY: of a literal `+` inside a word, too, if that comes first: OpenBao looks for the character
            first_wildcard: pattern.find('+').unwrap_or(pattern.len()),
            plus_segments: text.split('/').filter(|segment| *segment == "+").count(),
            text: text.into(),
            entry,
        }
    }

    pub(super) fn entry(&self) -> u32 {
        self.entry
    }

    pub(super) fn rank(&self) -> Rank<'_> {
        Rank {
            first_wildcard: self.first_wildcard,
            whole: self.whole,
            plus_segments: Reverse(self.plus_segments),
            length: self.text.len(),
            text: &self.text,
        }
    }

    /// Whether `path` matches: segment by segment, `+` for any one segment (an empty one, too). With a `*` at the end the
    /// last part of the pattern is the beginning of its segment, and anything may follow.
    pub(super) fn matches(&self, path: &str) -> bool {
        let head = self.text.as_bytes().get(..self.first_wildcard).unwrap_or_default();
        if !path.as_bytes().starts_with(head) {
            return false;
        }
        let mut segments = path.split('/');
        let mut parts = self.text.split('/').peekable();
        while let Some(part) = parts.next() {
            let Some(segment) = segments.next() else { return false };
            let last = parts.peek().is_none();
            if part != "+" && part != segment && (self.whole || !last || !segment.starts_with(part)) {
                return false;
            }
        }
        !self.whole || segments.next().is_none()
    }

    /// Whether some path below `folder` (which ends in `/`) can match.
    pub(super) fn reaches_below(&self, folder: &str) -> bool {
        let mut parts = self.text.split('/').peekable();
        for segment in folder.trim_end_matches('/').split('/') {
            let Some(part) = parts.next() else { return false };
            let last = parts.peek().is_none();
            if part == "+" || part == segment {
                continue;
            }
            return last && !self.whole && segment.starts_with(part);
        }
        // `secret/+` reaches below `secret/`, `+` alone is the bare name and counts as such
        true
    }
}
