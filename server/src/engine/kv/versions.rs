//! Versions come and go: write, delete, undelete, destroy, and the pruning of old ones.

use keyward_model::Timestamp;

use super::{Deletion, KvConfig, KvError, SecretRecord, Status, Version};
use crate::http::fields::weak_int;
use crate::http::json::Raw;

/// A version to be added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewVersion {
    /// `Current`: it becomes what `current` points to, as every KV v2 write does. Anything else: it stays `Pending`.
    pub status: Status,
    /// The blob its value is stored in.
    pub blob: u64,
    /// Who writes it, if that is to be kept.
    pub created_by: Option<Box<str>>,
}

/// What a write did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The number of the new version.
    pub number: u64,
    /// Blobs of pruned versions, to be erased in the same command.
    pub erase: Vec<u64>,
}

/// Reads `cas` from the `options` of a request: an object, or `null`. The name is case-sensitive.
///
/// # Errors
/// [`KvError::CasUnreadable`]
pub fn cas_parameter(options: Raw<'_>) -> Result<Option<i64>, KvError> {
    options.get("cas").map(|cas| weak_int(cas).map_err(|_| KvError::CasUnreadable)).transpose()
}

impl SecretRecord {
    /// Checks `cas` against a key that may not exist. It is compared with the current number, whatever became of that
    /// version; a key without one is at 0.
    ///
    /// # Errors
    /// [`KvError::CasRequired`], [`KvError::CasMismatch`].
    pub fn check_cas(record: Option<&Self>, config: &KvConfig, cas: Option<i64>) -> Result<(), KvError> {
        let required = config.cas_required || record.is_some_and(|record| record.cas_required);
        let current = record.map_or(0, Self::current_number);
        match cas {
            None if required => Err(KvError::CasRequired),
            None => Ok(()),
            Some(cas) if u64::try_from(cas) == Ok(current) => Ok(()),
            Some(_) => Err(KvError::CasMismatch),
        }
    }

    /// Adds a version with the next number and prunes what falls out of the window.
    ///
    /// Versions that `current`, `next` or a custom alias points to are kept whatever their number.
    ///
    /// # Errors
    /// As [`SecretRecord::check_cas`]; then nothing has changed.
    pub fn write(
        &mut self,
        config: &KvConfig,
        cas: Option<i64>,
        new: NewVersion,
        now: Timestamp,
    ) -> Result<Written, KvError> {
        Self::check_cas(Some(self), config, cas)?;
        let number = self.newest + 1;
        self.newest = number;
        self.versions.push(Version {
            number,
            blob: new.blob,
            created: now,
            deletion: config.deletion(self, now),
            status: Status::Pending,
            disable_after: None,
            disabled_at: None,
            created_by: new.created_by,
        });
        if new.status == Status::Current {
            self.make_current(number, Status::Previous, None, now);
        }
        self.updated = now;
        Ok(Written { number, erase: self.prune(config.versions_kept(self)) })
    }

    /// Moves `current` to `number` and `previous` to where it was; `demoted` is what the former current version becomes
    /// if it was still `CURRENT`.
    pub(super) fn make_current(
        &mut self,
        number: u64,
        demoted: Status,
        disable_after: Option<Timestamp>,
        now: Timestamp,
    ) {
        if let Some(former) = self.aliases.current {
            if let Some(version) = self.version_mut(former.version)
                && version.status == Status::Current
            {
                version.status = demoted;
                version.disable_after = disable_after;
                version.disabled_at = (demoted == Status::Disabled).then_some(now);
            }
            self.aliases.previous = Some(self.aliases.point(former.version));
        }
        if self.aliases.next.is_some_and(|next| next.version == number) {
            self.aliases.next = None;
        }
        self.aliases.current = Some(self.aliases.point(number));
        if let Some(version) = self.version_mut(number) {
            version.status = Status::Current;
            version.disable_after = None;
        }
    }

    /// Drops the versions that a window of `kept` no longer holds; gives the blobs to erase.
    fn prune(&mut self, kept: u64) -> Vec<u64> {
        if self.newest.saturating_sub(self.oldest) < kept {
            return Vec::new();
        }
        let last_out = self.newest.saturating_sub(kept);
        self.oldest = last_out + 1;
        let mut erase = Vec::new();
        let (aliases, current) = (&self.aliases, self.aliases.current.map(|pointer| pointer.version));
        self.versions.retain(|version| {
            let keep = version.number > last_out || Some(version.number) == current || aliases.hold(version.number);
            if !keep && version.status != Status::Destroyed {
                erase.push(version.blob);
            }
            keep
        });
        if self.aliases.previous.is_some_and(|previous| self.version(previous.version).is_none()) {
            self.aliases.previous = None;
        }
        erase
    }

    /// Soft-deletes the current version (KV v2 `DELETE data/`). Says whether anything changed.
    pub fn delete_current(&mut self, now: Timestamp) -> bool {
        self.delete(&[i64::try_from(self.current_number()).unwrap_or(0)], now)
    }

    /// Soft-deletes versions. Unknown, destroyed and already deleted ones are passed over; a deletion that lies ahead
    /// is brought forward, one that was due by now is done since then. Says whether anything changed.
    pub fn delete(&mut self, numbers: &[i64], now: Timestamp) -> bool {
        self.each(numbers, |version| {
            let since = match version.deletion {
                _ if version.status == Status::Destroyed => return false,
                Deletion::Done(_) => return false,
                Deletion::Due(at) => at.min(now),
                Deletion::None => now,
            };
            version.deletion = Deletion::Done(since);
            true
        })
    }

    /// Takes back the deletion of versions, and sets the one that `delete_version_after` demands from now on, on live
    /// versions, too. Unknown and destroyed ones are passed over. Says whether anything changed.
    pub fn undelete(&mut self, config: &KvConfig, numbers: &[i64], now: Timestamp) -> bool {
        let deletion = config.deletion(self, now);
        self.each(numbers, |version| {
            let change = version.status != Status::Destroyed && version.deletion != deletion;
            if change {
                version.deletion = deletion;
            }
            change
        })
    }

    /// Destroys versions, whatever points to them; gives the blobs to erase. Unknown and destroyed ones are passed over.
    pub fn destroy(&mut self, numbers: &[i64]) -> Vec<u64> {
        let mut erase = Vec::new();
        self.each(numbers, |version| {
            let change = version.status != Status::Destroyed;
            if change {
                version.status = Status::Destroyed;
                erase.push(version.blob);
            }
            change
        });
        erase
    }

    fn each(&mut self, numbers: &[i64], mut change: impl FnMut(&mut Version) -> bool) -> bool {
        let mut changed = false;
        for number in numbers {
            if let Some(version) = u64::try_from(*number).ok().and_then(|number| self.version_mut(number)) {
                changed |= change(version);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests;
