//! The settings of one secret, and its custom metadata.

use std::collections::BTreeMap;

use keyward_model::{Id, Timestamp};

use super::config::max_versions;
use super::{KvConfig, KvError, SecretRecord};
use crate::http::fields::{Params, weak_string};
use crate::http::gotext::{is_printable, quote};
use crate::http::json::{Kind, Raw};

const KEYS_MAX: usize = 64;
const KEY_BYTES_MAX: usize = 128;
const VALUE_BYTES_MAX: usize = 512;

/// How a request changes the settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// POST and PUT: a given `custom_metadata` replaces the whole map.
    Write,
    /// PATCH: it is merged into the map.
    Patch,
}

/// What becomes of the custom metadata.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CustomMetadata {
    /// This and nothing else.
    Replace(BTreeMap<String, String>),
    /// These are set, those with `None` removed, the others stay.
    Merge(BTreeMap<String, Option<String>>),
}

/// The fields a request to `metadata/` gives; the others stay.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MetadataChange {
    /// See [`SecretRecord::max_versions`].
    pub max_versions: Option<u32>,
    /// See [`SecretRecord::cas_required`].
    pub cas_required: Option<bool>,
    /// See [`SecretRecord::metadata_cas_required`].
    pub metadata_cas_required: Option<bool>,
    /// See [`SecretRecord::delete_version_after`].
    pub delete_version_after: Option<i64>,
    /// See [`SecretRecord::custom_metadata`].
    pub custom_metadata: Option<CustomMetadata>,
    /// The version of the metadata that the caller expects.
    pub metadata_cas: Option<i64>,
}

impl MetadataChange {
    /// Reads and checks the parameters of a request.
    ///
    /// # Errors
    /// [`KvError::Field`], [`KvError::MaxVersionsRange`], [`KvError::CustomMetadata`].
    pub fn from_params(params: &Params<'_>, verb: Verb) -> Result<Self, KvError> {
        let custom = params.map("custom_metadata")?;
        let mut change = Self {
            cas_required: params.bool("cas_required")?,
            metadata_cas_required: params.bool("metadata_cas_required")?,
            delete_version_after: params.duration("delete_version_after")?,
            metadata_cas: params.int("metadata_cas")?,
            max_versions: max_versions(params)?,
            custom_metadata: None,
        };
        change.custom_metadata = custom.map(|text| CustomMetadata::read(Raw::trusted(&text), verb)).transpose()?;
        Ok(change)
    }

    /// Whether no setting is given: such a request does nothing, and checks nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self { metadata_cas: self.metadata_cas, ..Self::default() }
    }

    /// What to warn of: a key cannot lift what its mount demands.
    pub fn warnings(&self, config: &KvConfig) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if config.cas_required && self.cas_required == Some(false) {
            warnings
                .push(r#""cas_required" set to false, but is mandated by backend config. This value will be ignored."#);
        }
        if config.metadata_cas_required && self.metadata_cas_required == Some(false) {
            warnings.push(
                r#""metadata_cas_required" set to false, but is mandated by backend config. This value will be ignored."#,
            );
        }
        warnings
    }
}

impl CustomMetadata {
    /// Reads an object, or `null`.
    fn read(raw: Raw<'_>, verb: Verb) -> Result<Self, KvError> {
        let mut entries = BTreeMap::new();
        for (key, value) in raw.members() {
            let value = match (verb, value.kind()) {
                (Verb::Patch, Kind::Null) => None,
                _ => Some(weak_string(value).map_err(|why| invalid(&why))?.into_owned()),
            };
            entries.insert(key.into_owned(), value);
        }
        let set = || entries.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_deref()?)));
        check_count(set().count())?;
        check_entries(set())?;
        Ok(match verb {
            Verb::Patch if raw.kind() != Kind::Null => Self::Merge(entries),
            Verb::Patch | Verb::Write => {
                Self::Replace(entries.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
            }
        })
    }

    /// The map after the change.
    fn applied_to(&self, old: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, KvError> {
        let merged = match self {
            Self::Replace(new) => new.clone(),
            Self::Merge(entries) => {
                let mut merged = old.clone();
                for (key, value) in entries {
                    match value {
                        Some(value) => merged.insert(key.clone(), value.clone()),
                        None => merged.remove(key),
                    };
                }
                merged
            }
        };
        check_count(merged.len())?;
        Ok(merged)
    }
}

impl SecretRecord {
    /// A new secret with settings and no version. The caller has checked that `change` is not empty.
    ///
    /// # Errors
    /// [`KvError::MetadataCasRequired`], [`KvError::MetadataCasNotZero`], [`KvError::CustomMetadata`].
    pub fn with_metadata(id: Id, change: &MetadataChange, config: &KvConfig, now: Timestamp) -> Result<Self, KvError> {
        match change.metadata_cas {
            None if config.metadata_cas_required => return Err(KvError::MetadataCasRequired),
            None | Some(0) => {}
            Some(_) => return Err(KvError::MetadataCasNotZero),
        }
        let mut record = Self::new(id, now);
        record.set_metadata(change, now)?;
        Ok(record)
    }

    /// Changes the settings. The caller has checked that `change` is not empty.
    ///
    /// # Errors
    /// [`KvError::MetadataCasRequired`], [`KvError::MetadataCasMismatch`], [`KvError::CustomMetadata`]; then nothing has
    /// changed.
    pub fn apply_metadata(
        &mut self,
        change: &MetadataChange,
        config: &KvConfig,
        now: Timestamp,
    ) -> Result<(), KvError> {
        match change.metadata_cas {
            None if config.metadata_cas_required || self.metadata_cas_required => {
                return Err(KvError::MetadataCasRequired);
            }
            None => {}
            Some(cas) if u64::try_from(cas) == Ok(self.metadata_version) => {}
            Some(_) => return Err(KvError::MetadataCasMismatch),
        }
        self.set_metadata(change, now)
    }

    fn set_metadata(&mut self, change: &MetadataChange, now: Timestamp) -> Result<(), KvError> {
        if let Some(custom) = &change.custom_metadata {
            self.custom_metadata = custom.applied_to(&self.custom_metadata)?;
        }
        self.max_versions = change.max_versions.unwrap_or(self.max_versions);
        self.cas_required = change.cas_required.unwrap_or(self.cas_required);
        self.metadata_cas_required = change.metadata_cas_required.unwrap_or(self.metadata_cas_required);
        self.delete_version_after = change.delete_version_after.unwrap_or(self.delete_version_after);
        self.metadata_version += 1;
        self.updated = now;
        Ok(())
    }
}

fn check_count(count: usize) -> Result<(), KvError> {
    if count <= KEYS_MAX {
        return Ok(());
    }
    Err(collected(&[format!("payload must contain at most {KEYS_MAX} keys, provided {count}")]))
}

fn check_entries<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), KvError> {
    let mut errors = Vec::new();
    for (key, value) in entries {
        let quoted = quote(key);
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            errors.push(format!("length of key {quoted} is {} but must be 0 < len(key) <= {KEY_BYTES_MAX}", key.len()));
        }
        if value.is_empty() || value.len() > VALUE_BYTES_MAX {
            let length = value.len();
            errors.push(format!(
                "length of value for key {quoted} is {length} but must be 0 < len(value) <= {VALUE_BYTES_MAX}"
            ));
        }
        if !key.chars().all(is_printable) {
            errors.push(format!("key {quoted} ({key}) contains unprintable characters"));
        }
        if !value.chars().all(is_printable) {
            errors.push(format!("value for key {quoted} contains unprintable characters"));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(collected(&errors)) }
}

fn invalid(why: &str) -> KvError {
    KvError::CustomMetadata(format!("custom_metadata validation failed: {why}"))
}

/// Several refusals in one text, as Go's multierror prints them.
fn collected(errors: &[String]) -> KvError {
    let count = errors.len();
    let head = if count == 1 { "1 error occurred:".to_owned() } else { format!("{count} errors occurred:") };
    let lines: String = errors.iter().map(|why| format!("\n\t* custom_metadata validation failed: {why}")).collect();
    KvError::CustomMetadata(format!("{head}{lines}\n\n"))
}

#[cfg(test)]
mod tests;
