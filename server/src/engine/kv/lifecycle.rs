//! Aliases and statuses: the native life of a version.
//!
//! Every method changes nothing when it refuses. Who may do what, reasons and tickets are the caller's business.

use keyward_model::Timestamp;

use super::{KvConfig, SecretRecord, Status};

/// Custom aliases a secret may have.
pub const ALIASES_MAX: usize = 8;
/// The longest alias, in bytes.
const ALIAS_BYTES_MAX: usize = 32;

/// Why an event of the life cycle is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LifecycleError {
    /// No version has that number.
    #[error("no version {0}")]
    VersionNotFound(u64),
    /// The version is in a state that does not allow it.
    #[error("version is {}, which does not allow this", .0.name())]
    StateConflict(Status),
    /// The version is soft-deleted.
    #[error("version is deleted; undelete it first")]
    Deleted,
    /// `next` or a custom alias points to the version.
    #[error("an alias points to the version; move it first")]
    Referenced,
    /// The alias does not point where the caller expects.
    #[error("alias does not point to the expected version")]
    AliasMismatch {
        /// Where it points.
        actual: Option<u64>,
    },
    /// `current` and `previous` are kept by the system.
    #[error("alias is reserved")]
    AliasReserved,
    /// Not 1 to 32 of `a-z 0-9 -`, beginning with a letter and not ending with `-`; or `latest`.
    #[error("alias must be 1 to 32 characters of `a-z`, `0-9` and `-`, begin with a letter and not end with `-`")]
    AliasInvalid,
    /// No such alias.
    #[error("no such alias")]
    AliasNotFound,
    /// There are [`ALIASES_MAX`] custom aliases.
    #[error("a secret has at most {ALIASES_MAX} custom aliases; remove one first")]
    TooManyAliases,
    /// The version must be kept for a while yet.
    #[error("version may be destroyed from {until} on")]
    Retained {
        /// From when on it may be destroyed.
        until: Timestamp,
    },
}

/// What the caller believes of an alias it moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Where it points; `None`: it does not exist.
    pub version: Option<u64>,
    /// Its revision, if the caller has seen one.
    pub revision: Option<u64>,
}

/// What becomes of the version that a promotion takes the place of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demote {
    /// `PREVIOUS`, and `DISABLED` from the given moment on.
    Previous(Option<Timestamp>),
    /// `DISABLED` at once: it is compromised.
    Disable,
}

/// How hard to disable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disable {
    /// Not what `current` points to.
    Ordinary,
    /// That, too: unversioned reads answer with a refusal until another version is promoted.
    Emergency,
}

/// What is deleted or brought back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// One version.
    Version(u64),
    /// Every version that is not destroyed.
    Secret,
}

impl SecretRecord {
    /// Points `current` to a `PENDING` or `PREVIOUS` version. Of two callers that expect the same, one wins.
    ///
    /// Promoting the current version again does nothing.
    ///
    /// # Errors
    /// [`LifecycleError`]: mismatch first, then unknown, then the state.
    pub fn promote(
        &mut self,
        number: u64,
        expected: Expected,
        demote: Demote,
        now: Timestamp,
    ) -> Result<(), LifecycleError> {
        expected.check(self, "current")?;
        let version = self.version(number).ok_or(LifecycleError::VersionNotFound(number))?;
        match version.status_at(now) {
            Status::Pending | Status::Previous if version.is_deleted(now) => return Err(LifecycleError::Deleted),
            Status::Pending | Status::Previous => {}
            Status::Current => return Ok(()),
            status => return Err(LifecycleError::StateConflict(status)),
        }
        match demote {
            Demote::Previous(until) => self.make_current(number, Status::Previous, until, now),
            Demote::Disable => self.make_current(number, Status::Disabled, None, now),
        }
        self.updated = now;
        Ok(())
    }

    /// Points an alias to a version: `current` (as [`SecretRecord::promote`]) to a `PENDING` or `PREVIOUS` one, `next` to
    /// a `PENDING` one, others to any of `PENDING`, `CURRENT` and `PREVIOUS`.
    ///
    /// # Errors
    /// [`LifecycleError`]
    pub fn set_alias(
        &mut self,
        name: &str,
        number: u64,
        expected: Expected,
        now: Timestamp,
    ) -> Result<(), LifecycleError> {
        match name {
            "current" => return self.promote(number, expected, Demote::Previous(None), now),
            "previous" => return Err(LifecycleError::AliasReserved),
            _ if !is_alias(name) => return Err(LifecycleError::AliasInvalid),
            _ => expected.check(self, name)?,
        }
        let version = self.version(number).ok_or(LifecycleError::VersionNotFound(number))?;
        match (version.status_at(now), name) {
            (Status::Pending, _) => {}
            (Status::Current | Status::Previous, other) if other != "next" => {}
            (status, _) => return Err(LifecycleError::StateConflict(status)),
        }
        if name == "next" {
            self.aliases.next = Some(self.aliases.point(number));
            return Ok(());
        }
        if self.aliases.custom.len() >= ALIASES_MAX && !self.aliases.custom.contains_key(name) {
            return Err(LifecycleError::TooManyAliases);
        }
        let pointer = self.aliases.point(number);
        self.aliases.custom.insert(name.to_owned(), pointer);
        Ok(())
    }

    /// Removes `next` or a custom alias. The version stays as it is; who aborts a rotation disables it afterwards.
    ///
    /// # Errors
    /// [`LifecycleError`]
    pub fn remove_alias(&mut self, name: &str, expected: Expected) -> Result<(), LifecycleError> {
        if matches!(name, "current" | "previous") {
            return Err(LifecycleError::AliasReserved);
        }
        if self.aliases.get(name).is_none() {
            return Err(LifecycleError::AliasNotFound);
        }
        expected.check(self, name)?;
        match name {
            "next" => self.aliases.next = None,
            custom => drop(self.aliases.custom.remove(custom)),
        }
        Ok(())
    }

    /// Makes a version one that is never returned. A disabled one stays as it is.
    ///
    /// # Errors
    /// [`LifecycleError`]
    pub fn disable(&mut self, number: u64, how: Disable, now: Timestamp) -> Result<(), LifecycleError> {
        let held = self.aliases.hold(number);
        let version = self.version_mut(number).ok_or(LifecycleError::VersionNotFound(number))?;
        match (version.status_at(now), how) {
            (Status::Disabled, _) => return Ok(()),
            (Status::Pending, _) if held => return Err(LifecycleError::Referenced),
            (Status::Pending | Status::Previous, _) | (Status::Current, Disable::Emergency) => {}
            (status @ (Status::Current | Status::Destroyed), _) => return Err(LifecycleError::StateConflict(status)),
        }
        version.status = Status::Disabled;
        version.disable_after = None;
        version.disabled_at = Some(now);
        Ok(())
    }

    /// Takes back a disabling: `PREVIOUS`, or `CURRENT` where `current` still points to the version.
    ///
    /// # Errors
    /// [`LifecycleError`]
    pub fn enable(&mut self, number: u64, now: Timestamp) -> Result<(), LifecycleError> {
        let is_current = self.current_number() == number;
        let version = self.version_mut(number).ok_or(LifecycleError::VersionNotFound(number))?;
        match version.status_at(now) {
            Status::Disabled => {}
            status => return Err(LifecycleError::StateConflict(status)),
        }
        version.status = if is_current { Status::Current } else { Status::Previous };
        version.disable_after = None;
        version.disabled_at = None;
        Ok(())
    }

    /// Destroys a `DISABLED` version, or a `PENDING` one that no alias holds, once it has been kept for `retention_s`
    /// seconds (since it was disabled, or made). Gives the blob to erase; `None` if it was destroyed before.
    ///
    /// # Errors
    /// [`LifecycleError`]
    pub fn destroy_version(
        &mut self,
        number: u64,
        retention_s: i64,
        now: Timestamp,
    ) -> Result<Option<u64>, LifecycleError> {
        let held = self.aliases.hold(number);
        let version = self.version_mut(number).ok_or(LifecycleError::VersionNotFound(number))?;
        let since = match version.status_at(now) {
            Status::Destroyed => return Ok(None),
            Status::Pending if held => return Err(LifecycleError::Referenced),
            Status::Pending => version.created,
            // A version whose time ran out is still written down as `PREVIOUS`.
            Status::Disabled => version.disabled_at.or(version.disable_after).unwrap_or(version.created),
            status @ (Status::Current | Status::Previous) => return Err(LifecycleError::StateConflict(status)),
        };
        let until = since.plus_seconds(retention_s);
        if until > now {
            return Err(LifecycleError::Retained { until });
        }
        version.status = Status::Destroyed;
        Ok(Some(version.blob))
    }

    /// Soft-deletes: the current version only together with the whole secret.
    ///
    /// # Errors
    /// [`LifecycleError`]
    pub fn soft_delete(&mut self, scope: Scope, now: Timestamp) -> Result<(), LifecycleError> {
        match scope {
            Scope::Version(number) => {
                let version = self.version(number).ok_or(LifecycleError::VersionNotFound(number))?;
                match version.status_at(now) {
                    Status::Pending if self.aliases.hold(number) => return Err(LifecycleError::Referenced),
                    Status::Pending | Status::Previous | Status::Disabled => {}
                    status @ (Status::Current | Status::Destroyed) => {
                        return Err(LifecycleError::StateConflict(status));
                    }
                }
            }
            Scope::Secret => {}
        }
        let numbers = self.numbers(scope);
        self.delete(&numbers, now);
        Ok(())
    }

    /// Takes back a soft deletion; `delete_version_after` counts anew from now.
    ///
    /// # Errors
    /// [`LifecycleError`]
    pub fn soft_undelete(&mut self, scope: Scope, config: &KvConfig, now: Timestamp) -> Result<(), LifecycleError> {
        if let Scope::Version(number) = scope {
            let version = self.version(number).ok_or(LifecycleError::VersionNotFound(number))?;
            if version.status == Status::Destroyed {
                return Err(LifecycleError::StateConflict(Status::Destroyed));
            }
        }
        let numbers = self.numbers(scope);
        self.undelete(config, &numbers, now);
        Ok(())
    }

    fn numbers(&self, scope: Scope) -> Vec<i64> {
        let within = |number: u64| scope == Scope::Secret || scope == Scope::Version(number);
        let numbers = self.versions.iter().map(|version| version.number).filter(|number| within(*number));
        numbers.filter_map(|number| i64::try_from(number).ok()).collect()
    }
}

impl Expected {
    fn check(self, record: &SecretRecord, name: &str) -> Result<(), LifecycleError> {
        let actual = record.aliases.get(name);
        let version = actual.map(|pointer| pointer.version);
        let moved = self.revision.is_some_and(|revision| actual.map(|pointer| pointer.revision) != Some(revision));
        if version != self.version || moved {
            return Err(LifecycleError::AliasMismatch { actual: version });
        }
        Ok(())
    }
}

/// Whether `name` may be an alias: 1 to 32 of `a-z 0-9 -`, beginning with a letter, not ending with `-`, not `latest`.
pub fn is_alias(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= ALIAS_BYTES_MAX
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && bytes.last() != Some(&b'-')
        && name != "latest"
}

#[cfg(test)]
mod tests;
