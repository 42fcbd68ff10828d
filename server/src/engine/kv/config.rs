//! What is set for a whole KV v2 mount.

use keyward_model::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Deletion, KvError, SecretRecord};
use crate::http::fields::Params;

/// Versions kept where neither mount nor key says how many.
const VERSIONS_DEFAULT: u32 = 10;

/// The `config` of a mount. The default is what a new mount has.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct KvConfig {
    /// Versions kept of each key; 0 is the default of 10.
    pub max_versions: u32,
    /// Whether every data write must bring `cas`.
    pub cas_required: bool,
    /// Whether every metadata write must bring `metadata_cas`.
    pub metadata_cas_required: bool,
    /// Seconds until a new version is deleted; 0 is never, -1 switches deletion off for the keys, too.
    pub delete_version_after: i64,
}

/// The fields a request to `config` gives; the others stay.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ConfigChange {
    /// See [`KvConfig::max_versions`].
    pub max_versions: Option<u32>,
    /// See [`KvConfig::cas_required`].
    pub cas_required: Option<bool>,
    /// See [`KvConfig::metadata_cas_required`].
    pub metadata_cas_required: Option<bool>,
    /// See [`KvConfig::delete_version_after`].
    pub delete_version_after: Option<i64>,
}

impl ConfigChange {
    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// [`KvError::Field`], [`KvError::MaxVersionsRange`].
    pub fn from_params(params: &Params<'_>) -> Result<Self, KvError> {
        Ok(Self {
            max_versions: max_versions(params)?,
            cas_required: params.bool("cas_required")?,
            metadata_cas_required: params.bool("metadata_cas_required")?,
            delete_version_after: params.signed_duration("delete_version_after")?.map(|seconds| seconds.max(-1)),
        })
    }
}

impl KvConfig {
    /// The config after `change`.
    #[must_use]
    pub fn with(self, change: ConfigChange) -> Self {
        Self {
            max_versions: change.max_versions.unwrap_or(self.max_versions),
            cas_required: change.cas_required.unwrap_or(self.cas_required),
            metadata_cas_required: change.metadata_cas_required.unwrap_or(self.metadata_cas_required),
            delete_version_after: change.delete_version_after.unwrap_or(self.delete_version_after),
        }
    }

    /// How many versions of `record` are kept: the larger of key and mount, as OpenBao has it (not the key's word).
    pub(super) fn versions_kept(&self, record: &SecretRecord) -> u64 {
        match self.max_versions.max(record.max_versions) {
            0 => u64::from(VERSIONS_DEFAULT),
            max => u64::from(max),
        }
    }

    /// When a version of `record` that is written or undeleted at `now` will be deleted: after the smaller of the two
    /// durations that are set, and never if the mount switches it off.
    pub(super) fn deletion(&self, record: &SecretRecord, now: Timestamp) -> Deletion {
        if self.delete_version_after < 0 {
            return Deletion::None;
        }
        let set = [self.delete_version_after, record.delete_version_after].into_iter().filter(|seconds| *seconds > 0);
        set.min().map_or(Deletion::None, |seconds| Deletion::Due(now.plus_seconds(seconds)))
    }
}

/// The parameter `max_versions`.
pub(super) fn max_versions(params: &Params<'_>) -> Result<Option<u32>, KvError> {
    let given = params.int("max_versions")?;
    given.map(|n| u32::try_from(n).map_err(|_| KvError::MaxVersionsRange(n))).transpose()
}

#[cfg(test)]
mod tests {
    use keyward_model::Id;

    use super::*;
    use crate::http::fields::Check;

    fn change(query: &str) -> Result<ConfigChange, KvError> {
        ConfigChange::from_params(&Params::from_query(query, Check::Handler))
    }

    #[test]
    fn only_what_is_given_changes() {
        let all = change("max_versions=3&cas_required=true&delete_version_after=3h25m19s").unwrap();
        let config = KvConfig::default().with(all);
        let expected = KvConfig {
            max_versions: 3,
            cas_required: true,
            metadata_cas_required: false,
            delete_version_after: 12_319,
        };
        assert_eq!(config, expected);
        assert_eq!(config.with(ConfigChange::default()), config);
        let off = config.with(change("cas_required=0&delete_version_after=-90s").unwrap());
        assert_eq!((off.max_versions, off.cas_required, off.delete_version_after), (3, false, -1));
        assert_eq!(change("max_versions=-1"), Err(KvError::MaxVersionsRange(-1)));
        assert_eq!(change("max_versions=4294967296"), Err(KvError::MaxVersionsRange(4_294_967_296)));
        assert!(change("max_versions=4294967295").is_ok());
        assert_eq!(
            change("delete_version_after=later").unwrap_err().to_string(),
            "Field validation failed: error converting input for field \"delete_version_after\": time: invalid duration \"later\""
        );
    }

    #[test]
    fn the_larger_window_and_the_shorter_life_win() {
        for (mount, key, kept) in [(0, 0, 10), (3, 0, 3), (0, 3, 3), (5, 2, 5), (2, 5, 5)] {
            let config = KvConfig { max_versions: mount, ..KvConfig::default() };
            let mut record = SecretRecord::new(Id::ZERO, Timestamp(0));
            record.max_versions = key;
            assert_eq!(config.versions_kept(&record), kept);
        }
        for (mount, key, after) in [(0, 0, None), (5, 0, Some(5)), (0, 7, Some(7)), (5, 7, Some(5)), (-1, 7, None)] {
            let config = KvConfig { delete_version_after: mount, ..KvConfig::default() };
            let mut record = SecretRecord::new(Id::ZERO, Timestamp(0));
            record.delete_version_after = key;
            let expected = after.map(|s| Timestamp(1).plus_seconds(s));
            assert_eq!(config.deletion(&record, Timestamp(1)).time(), expected);
        }
    }
}
