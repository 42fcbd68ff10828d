//! What a table says about itself: capabilities on a path, reach into a mount, all rules.

use serde_json::{Map, Value, json};

use super::{Acl, Entry, Pattern};
use crate::capability::Operation;
use crate::rule::Limits;

impl Acl {
    /// The capabilities on `path` in alphabetical order: `["root"]` for root, `["deny"]` if there are none. The path is
    /// judged as for a listing: one that ends in `/` falls back to the rule without it.
    pub fn capabilities(&self, path: &str) -> Vec<&'static str> {
        if self.root {
            return vec!["root"];
        }
        self.entry(path.trim_start_matches('/'), Operation::List)
            .map_or_else(|| vec!["deny"], |entry| entry.capabilities.words())
    }

    /// Whether anything is granted somewhere under the mount at `mount` (with its trailing slash): on the mount itself, with
    /// or without that slash, or by a rule for some path below it, even if another rule takes that away again.
    pub fn has_access_under(&self, mount: &str) -> bool {
        if self.root || self.entry(mount, Operation::List).is_some_and(grants) {
            return true;
        }
        let below = |entry: &&Entry| match &entry.pattern {
            Pattern::Exact(path) | Pattern::Prefix(path) => path.starts_with(mount),
            Pattern::Plus(_) => false,
        };
        self.entries.iter().filter(below).any(grants)
            || self
                .plus
                .iter()
                .any(|rule| rule.reaches_below(mount) && self.entries.get(rule.entry() as usize).is_some_and(grants))
    }

    /// All rules in the shape of `sys/internal/ui/resultant-acl`: the exact ones and the prefix ones by path, with their
    /// conditions. Patterns with `+` have no place in that shape.
    pub fn resultant(&self) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("root".to_owned(), self.root.into());
        if self.root {
            return out;
        }
        let (mut exact, mut prefixes) = (Map::new(), Map::new());
        for entry in &self.entries {
            match &entry.pattern {
                Pattern::Exact(path) => exact.insert(path.clone(), describe(entry)),
                Pattern::Prefix(path) => prefixes.insert(path.clone(), describe(entry)),
                Pattern::Plus(_) => None,
            };
        }
        out.insert("exact_paths".to_owned(), exact.into());
        out.insert("glob_paths".to_owned(), prefixes.into());
        out
    }
}

fn grants(entry: &Entry) -> bool {
    entry.capabilities.grants_any()
}

fn describe(entry: &Entry) -> Value {
    let mut out = Map::new();
    out.insert("capabilities".to_owned(), json!(entry.capabilities.words_latest_last()));
    let Some(limits) = &entry.limits else { return out.into() };
    let Limits { allowed, denied, required, min_wrapping_ttl, max_wrapping_ttl, .. } = &**limits;
    for (name, lists) in [("allowed_parameters", allowed), ("denied_parameters", denied)] {
        if !lists.is_empty() {
            out.insert(name.to_owned(), lists.to_json());
        }
    }
    if !required.is_empty() {
        out.insert(
            "required_parameters".to_owned(),
            json!(required.iter().map(|name| &name.written).collect::<Vec<_>>()),
        );
    }
    for (name, ttl) in [("min_wrapping_ttl", min_wrapping_ttl), ("max_wrapping_ttl", max_wrapping_ttl)] {
        if let Some(ttl) = ttl {
            out.insert(name.to_owned(), ttl.as_secs().into());
        }
    }
    out.into()
}
