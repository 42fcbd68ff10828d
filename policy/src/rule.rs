//! What one policy says: rules, each for one path pattern.

use std::collections::BTreeSet;
use std::time::Duration;

use keyward_model::Timestamp;

use crate::capability::Capabilities;
use crate::filter::KeysFilter;
use crate::parameters::ParameterLists;

/// One policy, read from its text.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Policy {
    /// The `name` written in the text. It has no effect: a policy is called what it was stored as.
    pub name: Option<String>,
    /// The rules in the order they were written; two may name the same path.
    pub rules: Vec<Rule>,
    /// Whether a value put into a path template may hold `*` and `+`. Not part of the text: a field beside it, off by default.
    pub allow_wildcards_in_templates: bool,
    /// Whether a value put into a path template may hold `/`. Not part of the text: a field beside it, off by default.
    pub allow_slashes_in_templates: bool,
    /// After this moment the policy counts as absent. Not part of the text, either.
    pub expires: Option<Timestamp>,
    /// Whether its text could not be read. Nobody knows what it denies, so whoever holds it has no rights at all.
    pub unreadable: bool,
}

impl Policy {
    /// Whether any path holds a template, so that the policy differs from caller to caller.
    pub fn is_templated(&self) -> bool {
        self.rules.iter().any(|rule| rule.path.contains("{{"))
    }

    /// Whether its end has come.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| now > at)
    }

    /// The first moment after `now` at which this policy or a rule of it expires: a compiled table is good until then.
    pub fn next_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.rules.iter().map(|rule| rule.expires).chain([self.expires]);
        ends.flatten().filter(|at| *at >= now).min()
    }
}

/// One stanza of a policy.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// The path pattern as written, templates and wildcards included.
    pub path: String,
    /// What it grants.
    pub capabilities: Capabilities,
    /// Under which further conditions.
    pub limits: Limits,
    /// After this moment the rule counts as absent.
    pub expires: Option<Timestamp>,
}

/// The name of a parameter that must be given.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Required {
    /// As the policy writes it.
    pub written: String,
    /// In lower case: as a request has to give it.
    pub given: String,
}

impl Required {
    /// The name as it is `written`.
    pub fn new(written: String) -> Self {
        let given = written.to_lowercase();
        Self { written, given }
    }
}

/// The conditions of a rule beyond its capabilities.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Limits {
    /// Parameters that may be given; empty for no restriction.
    pub allowed: ParameterLists,
    /// Parameters that may not be given.
    pub denied: ParameterLists,
    /// Parameters that must be given.
    pub required: Vec<Required>,
    /// The answer must be wrapped for at least this long.
    pub min_wrapping_ttl: Option<Duration>,
    /// The answer must be wrapped for at most this long.
    pub max_wrapping_ttl: Option<Duration>,
    /// The longest page of a listing, in entries.
    pub pagination_limit: Option<u64>,
    /// Which keys of a listing the caller sees.
    pub keys_filter: Option<KeysFilter>,
}

impl Limits {
    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds the conditions of another rule for the same path: restrictions add up, the smaller bound holds.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.allowed.merge(&other.allowed);
        self.denied.merge(&other.denied);
        let known: BTreeSet<&Required> = self.required.iter().collect();
        let more: Vec<Required> = other.required.iter().filter(|name| !known.contains(name)).cloned().collect();
        self.required.extend(more);
        self.min_wrapping_ttl = smaller(self.min_wrapping_ttl, other.min_wrapping_ttl);
        self.max_wrapping_ttl = smaller(self.max_wrapping_ttl, other.max_wrapping_ttl);
        self.pagination_limit = smaller(self.pagination_limit, other.pagination_limit);
        if self.keys_filter.is_none() {
            self.keys_filter.clone_from(&other.keys_filter);
        }
    }

    /// Whether an answer wrapped for `wrap_ttl` (or not at all) is within the bounds.
    pub(crate) fn permit_wrapping(&self, wrap_ttl: Option<Duration>) -> bool {
        let (min, max) = (self.min_wrapping_ttl, self.max_wrapping_ttl);
        match wrap_ttl {
            None => min.is_none() && max.is_none(),
            // Merged rules can leave min above max: then no length is within.
            Some(ttl) => min.is_none_or(|min| ttl >= min) && max.is_none_or(|max| ttl <= max),
        }
    }
}

fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
