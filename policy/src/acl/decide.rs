//! The decision on one request.

use std::fmt;
use std::time::Duration;

use super::Acl;
use crate::capability::{Capabilities, Operation};
use crate::filter::KeysFilter;
use crate::parameters::{self, Parameters};
use crate::sudo::needs_sudo;

/// A request as far as rights are concerned.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// What it wants to do.
    pub operation: Operation,
    /// The decoded path, `/v1/` taken off; that of a listing ends in `/`.
    pub path: &'a str,
    /// Fields of the body, or of the query for operations without one. `None` for no parameters.
    pub parameters: Option<&'a dyn Parameters>,
    /// For how long the answer is to be wrapped, if it is.
    pub wrap_ttl: Option<Duration>,
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Parameters hold secrets: they are never printed.
        f.debug_struct("Ask").field("operation", &self.operation).field("path", &self.path).finish_non_exhaustive()
    }
}

/// The answer to an [`Ask`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict<'a> {
    /// Whether the request may go on; that a root-protected path needs `sudo` is taken into account.
    pub allowed: bool,
    /// Whether the caller has `sudo` on the path, for operations that ask for more when it has.
    pub sudo: bool,
    /// For a listing: its page length in entries, to be used in place of what the request asked for.
    pub pagination_limit: Option<u64>,
    /// For a listing: the filter that its keys must pass ([`Acl::shows`]).
    pub keys_filter: Option<&'a KeysFilter>,
}

impl Verdict<'_> {
    const DENIED: Self = Self { allowed: false, sudo: false, pagination_limit: None, keys_filter: None };
}

impl Acl {
    /// Decides `ask`. Allocates nothing unless the rule has conditions on parameters.
    pub fn decide(&self, ask: &Ask<'_>) -> Verdict<'_> {
        if self.root {
            return Verdict { allowed: true, sudo: true, ..Verdict::DENIED };
        }
        let path = ask.path.trim_start_matches('/');
        let Some(entry) = self.entry(path, ask.operation) else { return Verdict::DENIED };
        let sudo = entry.capabilities.contains(Capabilities::SUDO);
        let mut verdict = Verdict { sudo, ..Verdict::DENIED };
        if !entry.capabilities.allows(ask.operation) || (!sudo && ask.operation != Operation::Help && needs_sudo(path))
        {
            return verdict;
        }
        // Help shows no data: conditions on parameters and wrapping are for the request itself.
        if let Some(limits) = entry.limits.as_ref().filter(|_| ask.operation != Operation::Help) {
            if !limits.permit_wrapping(ask.wrap_ttl) {
                return verdict;
            }
            if parameters::apply_to(ask.operation) && !parameters::permitted(limits, ask.parameters) {
                return verdict;
            }
            if ask.operation.is_listing() {
                if let Some(limit) = limits.pagination_limit {
                    let Some(page) = parameters::page(limits, limit, ask.parameters) else { return verdict };
                    verdict.pagination_limit = Some(page);
                }
                verdict.keys_filter = limits.keys_filter.as_ref();
            }
        }
        verdict.allowed = true;
        verdict
    }

    /// Whether `key`, found when listing `path` (with its trailing slash), passes `filter`: the caller may read the path that
    /// the filter makes of them, or list it if the key is a folder. Bounds on wrapping and required parameters count there.
    pub fn shows(&self, filter: &KeysFilter, path: &str, key: &str) -> bool {
        let operation = if key.ends_with('/') { Operation::List } else { Operation::Read };
        self.decide(&Ask { operation, path: &filter.target(path, key), parameters: None, wrap_ttl: None }).allowed
    }
}
