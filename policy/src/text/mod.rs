//! Policy text, HCL or JSON, to a [`Policy`].
//!
//! HCL here means HCL version 1 with all its leniency, because that is what stored policies were accepted under: unquoted
//! and doubled labels, `${` as plain text, repeated keys that are joined, commas anywhere between list items. The HCL crates
//! speak version 2, which refuses or reinterprets these, and report neither the position nor the wording that clients see.
//! The grammar that policies need is small, so it is read here: `literal` and `scan` (characters to tokens), `hcl` and
//! `json` (tokens to one tree of `node`s with positions), `stanza` (tree to rules). Wording and order of checks follow OpenBao 2.6.
//!
//! Two things are stricter: JSON must be complete, with nothing behind it, and sizes are bounded.

mod node;

mod literal;

mod scan;

mod hcl;

mod json;

mod duration;

mod stanza;

use crate::rule::Policy;

/// Longest policy text, in bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Deepest nesting of braces and brackets.
pub const DEPTH_MAX: usize = 64;

/// Most rules in one policy.
pub const RULES_MAX: usize = 10_000;

/// Why a text is no policy; `Display` is what the client is told (status 400).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("failed to parse policy: {0}")]
pub struct PolicyError(String);

/// Reads a policy. The text is JSON if its first character that is no blank is `{`, else HCL; one of only blanks and
/// comments is a policy without rules. Never panics, and takes time and memory linear in the text, which is at most
/// [`TEXT_BYTES_MAX`] bytes.
pub fn parse(text: &str) -> Result<Policy, PolicyError> {
    read(text, true)
}

/// The same of a text that is about to be stored: `null` in a list of a JSON policy is refused, as OpenBao refuses it.
/// Such texts were stored before they were refused, and their rules hold on: hence the two.
pub fn accept(text: &str) -> Result<Policy, PolicyError> {
    read(text, false)
}

fn read(text: &str, takes_null: bool) -> Result<Policy, PolicyError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(PolicyError(format!("text of {} bytes is longer than {TEXT_BYTES_MAX}", text.len())));
    }
    let items = if text.trim_start().starts_with('{') { json::parse(text, takes_null) } else { hcl::parse(text) };
    items.and_then(stanza::policy).map_err(PolicyError)
}

/// `text` in double quotes, as error messages show names.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
