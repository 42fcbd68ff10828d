//! Several policies compiled into one table, and what it answers.
//!
//! Exactly one rule decides a request. An exact rule comes first; then, of all patterns that match, the most specific (see
//! `plus` for the order). Rules are merged only where their patterns are the same text.

mod plus;

mod decide;

mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use keyward_model::Timestamp;

pub use decide::{Ask, Verdict};

use crate::capability::{Capabilities, Operation};
use crate::rule::{Limits, Policy, Rule};
use crate::template::{self, Subject};
use crate::tree::Tree;
use plus::PlusRule;

/// The compiled rights of one set of policies. Cheap to ask, made once per set and kept until a policy changes, or one or a
/// rule of it expires ([`Acl::is_good`]).
#[derive(Debug)]
pub struct Acl {
    root: bool,
    tree: Tree,
    /// Patterns with `+` segments, the most specific first.
    plus: Vec<PlusRule>,
    entries: Vec<Entry>,
    made: Timestamp,
    good_until: Option<Timestamp>,
}

/// What holds for one pattern.
#[derive(Debug)]
struct Entry {
    pattern: Pattern,
    capabilities: Capabilities,
    /// Absent for most rules, which then cost nothing to check.
    limits: Option<Box<Limits>>,
}

/// A path pattern by kind. The order of the kinds carries no meaning.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Pattern {
    /// The whole path.
    Exact(String),
    /// The beginning of a path; the `*` is not part of it.
    Prefix(String),
    /// A pattern with whole `+` segments, a `*` at its end included.
    Plus(String),
}

impl Pattern {
    fn of(path: &str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        if path == "+" || path.starts_with("+/") || path.contains("/+") {
            return Self::Plus(path.to_owned());
        }
        match path.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(path.to_owned()),
        }
    }
}

impl Acl {
    /// The rights of `root`: everything.
    pub fn root() -> Self {
        Self { root: true, ..Self::new(&[], Timestamp(0), &Subject::default()) }
    }

    /// Compiles `policies` as they stand at `now` for the caller `subject`. Policies and rules that have expired, and templated
    /// rules that `subject` has no value for, count as absent; one that is unreadable takes all rights. `root` is not a
    /// policy with rules: use [`Acl::root`].
    pub fn new(policies: &[Arc<Policy>], now: Timestamp, subject: &Subject) -> Self {
        let mut merged: BTreeMap<Pattern, (Capabilities, Limits)> = BTreeMap::new();
        let mut good_until: Option<Timestamp> = None;
        let mut unreadable = false;
        for policy in policies.iter().filter(|policy| !policy.is_expired(now)) {
            good_until = match (good_until, policy.next_expiry(now)) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            unreadable |= policy.unreadable;
            for rule in &policy.rules {
                if rule.expires.is_some_and(|at| now > at) {
                    continue;
                }
                let Some(pattern) = pattern(policy, rule, subject) else { continue };
                match merged.get_mut(&pattern) {
                    None => {
                        merged.insert(pattern, (rule.capabilities, rule.limits.clone()));
                    }
                    Some((capabilities, limits)) => merge(capabilities, limits, rule),
                }
            }
        }

        if unreadable {
            merged.clear();
        }

        let (tree, plus, entries) = (Tree::new(), Vec::new(), Vec::new());
        let mut acl = Self { root: false, tree, plus, entries, made: now, good_until };
        for (at, (pattern, (capabilities, limits))) in (0u32..).zip(merged) {
            match &pattern {
                Pattern::Exact(path) => acl.tree.insert_exact(path, at),
                Pattern::Prefix(path) => acl.tree.insert_prefix(path, at),
                Pattern::Plus(path) => acl.plus.push(PlusRule::new(path, at)),
            }
            let limits = (!limits.is_empty()).then(|| Box::new(limits));
            acl.entries.push(Entry { pattern, capabilities, limits });
        }
        acl.plus.sort_by(|a, b| b.rank().cmp(&a.rank()));
        acl
    }

    /// Whether these are the rights of `root`.
    pub fn is_root(&self) -> bool {
        self.root
    }

    /// Whether this table is right at `now`: no policy and no rule in it has expired since it was made. Of a time before
    /// that it says nothing, since it leaves out what had expired: a clock may go back.
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.made <= now && self.good_until.is_none_or(|until| now < until)
    }

    /// The one rule that decides `operation` on `path`, which has no leading slash.
    fn entry(&self, path: &str, operation: Operation) -> Option<&Entry> {
        let (found, found_bare) = self.tree.find(path);
        if let Some(at) = found.exact {
            return self.entries.get(at as usize);
        }
        let bare = path.strip_suffix('/').filter(|_| operation.is_listing());
        let at = bare
            .and(found_bare.exact)
            .or_else(|| self.best_pattern(path, found.prefix))
            .or_else(|| self.best_pattern(bare?, found_bare.prefix))?;
        self.entries.get(at as usize)
    }

    /// The most specific pattern that matches `path`, given the longest prefix rule that does.
    fn best_pattern(&self, path: &str, prefix: Option<(u32, usize)>) -> Option<u32> {
        let prefix_rank = prefix.and_then(|(_, len)| path.get(..len)).map(plus::Rank::of_prefix);
        for rule in &self.plus {
            if prefix_rank.as_ref().is_some_and(|rank| *rank > rule.rank()) {
                break;
            }
            if rule.matches(path) {
                return Some(rule.entry());
            }
        }
        prefix.map(|(at, _)| at)
    }
}

/// The pattern of `rule` for this caller, or `None` if the rule is to be skipped.
fn pattern(policy: &Policy, rule: &Rule, subject: &Subject) -> Option<Pattern> {
    if !rule.path.contains("{{") {
        return Some(Pattern::of(&rule.path));
    }
    let forbidden: &[char] = match (policy.allow_wildcards_in_templates, policy.allow_slashes_in_templates) {
        (false, false) => &['*', '+', '/'],
        (false, true) => &['*', '+'],
        (true, false) => &['/'],
        (true, true) => &[],
    };
    let path = template::resolve(&rule.path, subject, forbidden)?;
    (!path.contains("+*")).then(|| Pattern::of(&path))
}

fn merge(capabilities: &mut Capabilities, limits: &mut Limits, rule: &Rule) {
    if capabilities.contains(Capabilities::DENY) {
        return;
    }
    if rule.capabilities.contains(Capabilities::DENY) {
        (*capabilities, *limits) = (Capabilities::DENY, Limits::default());
        return;
    }
    *capabilities = capabilities.and(rule.capabilities);
    limits.merge(&rule.limits);
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod reference;
