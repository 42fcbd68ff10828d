//! The record of one secret: its versions, aliases and settings, as kept sealed in one row.

use std::collections::BTreeMap;

use keyward_model::{Id, Timestamp};
use serde::{Deserialize, Serialize};

/// The first byte of an encoded record. It changes with the layout.
const FORMAT: u8 = 2;
/// The layout before: [`Deletion`] was an optional moment, whose bytes are those of `None` and `Due`.
const FORMAT_WITHOUT_DONE: u8 = 1;

/// Everything about a secret but its values.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SecretRecord {
    /// Drawn at creation: a secret that is removed and made anew has another.
    pub id: Id,
    /// When it was made.
    pub created: Timestamp,
    /// When its data, settings or current version last changed.
    pub updated: Timestamp,
    /// The highest version number ever given; the next version has the next one.
    pub newest: u64,
    /// The lower end of the window that pruning left; 0 until the window was full for the first time.
    pub oldest: u64,
    /// The versions that are left, by ascending number.
    pub versions: Vec<Version>,
    /// Names that point to versions.
    pub aliases: Aliases,
    /// Versions kept; 0 leaves it to the mount.
    pub max_versions: u32,
    /// Whether every data write must bring `cas`.
    pub cas_required: bool,
    /// Whether every metadata write must bring `metadata_cas`.
    pub metadata_cas_required: bool,
    /// Seconds until a new version is deleted; 0 leaves it to the mount.
    pub delete_version_after: i64,
    /// How often the settings were written.
    pub metadata_version: u64,
    /// The caller's own notes; empty is shown as `null`.
    pub custom_metadata: BTreeMap<String, String>,
}

/// One version. Its value is immutable and lies in a blob.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// 1, 2, 3 …; never given twice while the secret lives.
    pub number: u64,
    /// The blob of the value; erased once the version is destroyed.
    pub blob: u64,
    /// When it was written.
    pub created: Timestamp,
    /// Whether it is soft-deleted.
    pub deletion: Deletion,
    /// Where it is in its life.
    pub status: Status,
    /// Of a `PREVIOUS` version: when it turns `DISABLED`.
    pub disable_after: Option<Timestamp>,
    /// Of a `DISABLED` version: since when it is.
    pub disabled_at: Option<Timestamp>,
    /// Who wrote it, where the caller wanted that kept.
    pub created_by: Option<Box<str>>,
}

/// Whether a version is soft-deleted. What somebody deleted is so from the commit on: the stamp of that may lie ahead of the
/// clock that a read is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Deletion {
    /// It is not.
    None,
    /// It is from this moment on, which may lie ahead.
    Due(Timestamp),
    /// It is, whatever a clock says; since this moment.
    Done(Timestamp),
}

/// Where a version is in its life. Soft deletion is a mark beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Status {
    /// Made, but not what `current` points to.
    Pending,
    /// What `current` points to.
    Current,
    /// Superseded, still readable.
    Previous,
    /// Never returned; can be enabled again.
    Disabled,
    /// Its value is gone for good.
    Destroyed,
}

/// An alias: where it points, and how often aliases of this secret had moved when it last did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pointer {
    /// The version's number.
    pub version: u64,
    /// Grows with every move, also across removal, so a revision seen once never comes back.
    pub revision: u64,
}

/// The aliases of a secret.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Aliases {
    /// What an unversioned read gets.
    pub current: Option<Pointer>,
    /// What `current` pointed to before.
    pub previous: Option<Pointer>,
    /// What is to become `current`.
    pub next: Option<Pointer>,
    /// Names of people's own.
    pub custom: BTreeMap<String, Pointer>,
    /// The last revision given.
    pub revision: u64,
}

/// Which version is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selector<'a> {
    /// An unversioned read.
    Current,
    /// A number.
    Version(u64),
    /// An alias by name.
    Alias(&'a str),
}

/// What a selector leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution<'a> {
    /// A version whose value may be read.
    Live(&'a Version),
    /// A version that is soft-deleted.
    Deleted(&'a Version),
    /// A version whose value is gone.
    Destroyed(&'a Version),
    /// A version that is never returned.
    Disabled,
    /// No such version or alias.
    Absent,
}

/// A sealed row opened, but what was inside is not a record: impossible data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a version of the server that this one does not know.
    #[error("record of a secret has format {0}, which this server does not know; use a newer one")]
    Format(u8),
    /// Not a record at all.
    #[error("record of a secret is malformed; restore the database from a backup")]
    Malformed,
}

impl SecretRecord {
    /// A secret without versions and with the settings of its mount.
    pub fn new(id: Id, now: Timestamp) -> Self {
        Self {
            id,
            created: now,
            updated: now,
            newest: 0,
            oldest: 0,
            versions: Vec::new(),
            aliases: Aliases::default(),
            max_versions: 0,
            cas_required: false,
            metadata_cas_required: false,
            delete_version_after: 0,
            metadata_version: 0,
            custom_metadata: BTreeMap::new(),
        }
    }

    /// The record as bytes, to be sealed.
    ///
    /// # Errors
    /// [`RecordError::Malformed`] if the encoder refuses it, which it never does.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut out = Vec::with_capacity(64 + 32 * self.versions.len());
        // The layout before as long as it can say it: a node that is not upgraded yet reads that.
        let done = self.versions.iter().any(|version| matches!(version.deletion, Deletion::Done(_)));
        out.push(if done { FORMAT } else { FORMAT_WITHOUT_DONE });
        postcard::to_extend(self, out).map_err(|_| RecordError::Malformed)
    }

    /// Reads what [`SecretRecord::encode`] wrote.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes {
            [FORMAT | FORMAT_WITHOUT_DONE, body @ ..] => match postcard::take_from_bytes(body) {
                Ok((record, [])) => Ok(record),
                _ => Err(RecordError::Malformed),
            },
            [other, ..] => Err(RecordError::Format(*other)),
            [] => Err(RecordError::Malformed),
        }
    }

    /// The number that `current` points to, 0 if there is none: Vault's `current_version`, and what `cas` means.
    pub fn current_number(&self) -> u64 {
        self.aliases.current.map_or(0, |pointer| pointer.version)
    }

    /// The blob that an unversioned read wants until the record changes; `None` if there is none it may see. (A read must
    /// still [`resolve`](SecretRecord::resolve): a deletion may have come due.)
    pub fn head_blob(&self) -> Option<u64> {
        let version = self.version(self.current_number())?;
        (version.status == Status::Current).then_some(version.blob)
    }

    /// Every blob that is stored for this secret: what to erase when it is removed.
    pub fn blobs(&self) -> Vec<u64> {
        self.versions.iter().filter(|version| version.status != Status::Destroyed).map(|version| version.blob).collect()
    }

    /// The version with that number, in whatever state.
    pub fn version(&self, number: u64) -> Option<&Version> {
        let at = self.versions.binary_search_by_key(&number, |version| version.number).ok()?;
        self.versions.get(at)
    }

    pub(super) fn version_mut(&mut self, number: u64) -> Option<&mut Version> {
        let at = self.versions.binary_search_by_key(&number, |version| version.number).ok()?;
        self.versions.get_mut(at)
    }

    /// What `selector` leads to at `now`.
    pub fn resolve(&self, selector: Selector<'_>, now: Timestamp) -> Resolution<'_> {
        let number = match selector {
            Selector::Current => self.current_number(),
            Selector::Version(number) => number,
            Selector::Alias(name) => self.aliases.get(name).map_or(0, |pointer| pointer.version),
        };
        let Some(version) = self.version(number) else {
            return Resolution::Absent;
        };
        match version.status_at(now) {
            Status::Destroyed => Resolution::Destroyed(version),
            Status::Disabled => Resolution::Disabled,
            Status::Pending | Status::Current | Status::Previous if version.is_deleted(now) => {
                Resolution::Deleted(version)
            }
            Status::Pending | Status::Current | Status::Previous => Resolution::Live(version),
        }
    }
}

impl Version {
    /// Whether it counts as soft-deleted at `now`.
    pub fn is_deleted(&self, now: Timestamp) -> bool {
        match self.deletion {
            Deletion::None => false,
            Deletion::Due(at) => at <= now,
            Deletion::Done(_) => true,
        }
    }

    /// The status at `now`: a `PREVIOUS` version whose time has run out is `DISABLED`.
    pub fn status_at(&self, now: Timestamp) -> Status {
        match self.status {
            Status::Previous if self.disable_after.is_some_and(|end| end <= now) => Status::Disabled,
            status => status,
        }
    }
}

impl Deletion {
    /// Since when, or from when on, it is.
    pub const fn time(self) -> Option<Timestamp> {
        match self {
            Self::None => None,
            Self::Due(at) | Self::Done(at) => Some(at),
        }
    }
}

impl Status {
    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Current => "CURRENT",
            Self::Previous => "PREVIOUS",
            Self::Disabled => "DISABLED",
            Self::Destroyed => "DESTROYED",
        }
    }
}

impl Aliases {
    /// Where the alias called `name` points.
    pub fn get(&self, name: &str) -> Option<Pointer> {
        match name {
            "current" => self.current,
            "previous" => self.previous,
            "next" => self.next,
            _ => self.custom.get(name).copied(),
        }
    }

    /// Every alias with its name: the system's first, then people's by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Pointer)> {
        let system = [("current", self.current), ("previous", self.previous), ("next", self.next)];
        let system = system.into_iter().filter_map(|(name, pointer)| Some((name, pointer?)));
        system.chain(self.custom.iter().map(|(name, pointer)| (name.as_str(), *pointer)))
    }

    /// Whether `next` or an alias of people's own points to that version.
    pub fn hold(&self, number: u64) -> bool {
        self.next.iter().chain(self.custom.values()).any(|pointer| pointer.version == number)
    }

    /// A pointer to `version` with the next revision.
    pub(super) fn point(&mut self, version: u64) -> Pointer {
        self.revision += 1;
        Pointer { version, revision: self.revision }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(number: u64, status: Status) -> Version {
        Version {
            number,
            blob: 100 + number,
            created: Timestamp(1_700_000_000_123_456_789),
            deletion: Deletion::None,
            status,
            disable_after: None,
            disabled_at: None,
            created_by: None,
        }
    }

    fn record() -> SecretRecord {
        let mut record = SecretRecord::new(Id([7; 16]), Timestamp(1_700_000_000_000_000_000));
        record.versions = vec![
            version(3, Status::Destroyed),
            version(4, Status::Previous),
            version(5, Status::Current),
            version(6, Status::Pending),
            version(7, Status::Disabled),
        ];
        record.newest = 7;
        record.aliases.current = Some(record.aliases.point(5));
        record.aliases.previous = Some(record.aliases.point(4));
        record
    }

    #[test]
    fn encoding_is_small_and_goes_both_ways() {
        let mut record = record();
        let few = record.encode().unwrap().len();
        assert_eq!(SecretRecord::decode(&record.encode().unwrap()), Ok(record.clone()));
        record.versions.extend((8..108).map(|n| version(n, Status::Previous)));
        assert!(record.encode().unwrap().len() - few <= 100 * 20);
        assert_eq!(SecretRecord::decode(&[]), Err(RecordError::Malformed));
        assert_eq!(SecretRecord::decode(&[9, 1, 2]), Err(RecordError::Format(9)));
        let mut long = record.encode().unwrap();
        long.push(0);
        assert_eq!(SecretRecord::decode(&long), Err(RecordError::Malformed));
    }

    /// A version as it was laid out when its deletion was an optional moment.
    #[derive(Serialize)]
    struct Before {
        number: u64,
        blob: u64,
        created: Timestamp,
        deletion_time: Option<Timestamp>,
    }

    #[test]
    fn a_deletion_is_read_from_the_layout_before() {
        let at = Timestamp(1_700_000_000_123_456_789);
        for (deletion_time, deletion) in [(None, Deletion::None), (Some(at), Deletion::Due(at))] {
            let version = Version { deletion, ..version(3, Status::Pending) };
            let before = Before { number: 3, blob: version.blob, created: version.created, deletion_time };
            let (now, before) = (postcard::to_allocvec(&version).unwrap(), postcard::to_allocvec(&before).unwrap());
            assert!(now.starts_with(&before), "{deletion:?}");
        }
        // Who knows only the layout before reads whatever it can say.
        let mut record = record();
        for (deletion, format) in [
            (Deletion::None, FORMAT_WITHOUT_DONE),
            (Deletion::Due(at), FORMAT_WITHOUT_DONE),
            (Deletion::Done(at), FORMAT),
        ] {
            record.version_mut(5).unwrap().deletion = deletion;
            let encoded = record.encode().unwrap();
            assert_eq!(encoded[0], format, "{deletion:?}");
            assert_eq!(SecretRecord::decode(&encoded).as_ref(), Ok(&record));
        }
    }

    #[test]
    fn selectors_lead_to_versions() {
        let mut record = record();
        let (before, after) = (Timestamp(99), Timestamp(100));
        record.version_mut(4).unwrap().disable_after = Some(after);
        record.version_mut(5).unwrap().deletion = Deletion::Due(after);
        let number = |selector, now| match record.resolve(selector, now) {
            Resolution::Live(v) => format!("live {}", v.number),
            Resolution::Deleted(v) => format!("deleted {}", v.number),
            Resolution::Destroyed(v) => format!("destroyed {}", v.number),
            Resolution::Disabled => "disabled".to_owned(),
            Resolution::Absent => "absent".to_owned(),
        };
        for (selector, now, found) in [
            (Selector::Current, before, "live 5"),
            (Selector::Current, after, "deleted 5"),
            (Selector::Alias("current"), before, "live 5"),
            (Selector::Alias("previous"), before, "live 4"),
            (Selector::Alias("previous"), after, "disabled"),
            (Selector::Alias("next"), before, "absent"),
            (Selector::Alias("blue"), before, "absent"),
            (Selector::Version(3), before, "destroyed 3"),
            (Selector::Version(6), before, "live 6"),
            (Selector::Version(7), before, "disabled"),
            (Selector::Version(8), before, "absent"),
            (Selector::Version(0), before, "absent"),
        ] {
            assert_eq!(number(selector, now), found, "{selector:?} {now:?}");
        }
        assert_eq!(record.blobs(), [104, 105, 106, 107]);
        assert_eq!(record.head_blob(), Some(105));
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(bytes: Vec<u8>) {
            drop(SecretRecord::decode(&bytes));
            drop(SecretRecord::decode(&[&[FORMAT], &bytes[..]].concat()));
        }
    }
}
