//! Random sequences of operations: on the compatible face against a naive model of Vault, on both faces against the
//! invariants of a record.

use std::collections::{BTreeMap, BTreeSet};

use keyward_model::{Id, Timestamp};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Write { cas: Option<i64> },
    DeleteCurrent,
    Delete(Vec<i64>),
    Undelete(Vec<i64>),
    Destroy(Vec<i64>),
    MaxVersions { key: u32, mount: u32 },
    DeleteAfter { key: i64, mount: i64 },
    Wait(i64),
    WritePending,
    Promote { version: u64, seen: u64, disable: bool },
    SetAlias { name: &'static str, version: u64 },
    RemoveAlias(&'static str),
    Disable { version: u64, how: Disable },
    Enable(u64),
    DestroyVersion(u64),
}

fn compatible() -> BoxedStrategy<Op> {
    let numbers = || prop::collection::vec(-1i64..12, 0..4);
    prop_oneof![
        6 => prop::option::weighted(0.3, -1i64..12).prop_map(|cas| Op::Write { cas }),
        1 => Just(Op::DeleteCurrent),
        1 => numbers().prop_map(Op::Delete),
        1 => numbers().prop_map(Op::Undelete),
        1 => numbers().prop_map(Op::Destroy),
        1 => (0u32..5, 0u32..5).prop_map(|(key, mount)| Op::MaxVersions { key, mount }),
        1 => (0i64..5, -1i64..5).prop_map(|(key, mount)| Op::DeleteAfter { key, mount }),
        2 => (0i64..4).prop_map(Op::Wait),
    ]
    .boxed()
}

fn native() -> BoxedStrategy<Op> {
    let version = || 0u64..12;
    let name = || prop::sample::select(vec!["current", "previous", "next", "blue", "green", "Bad"]);
    prop_oneof![
        2 => Just(Op::WritePending),
        3 => (version(), version(), any::<bool>())
            .prop_map(|(version, seen, disable)| Op::Promote { version, seen, disable }),
        2 => (name(), version()).prop_map(|(name, version)| Op::SetAlias { name, version }),
        1 => name().prop_map(Op::RemoveAlias),
        1 => version().prop_map(|version| Op::Disable { version, how: Disable::Ordinary }),
        1 => version().prop_map(|version| Op::Disable { version, how: Disable::Emergency }),
        1 => version().prop_map(Op::Enable),
        1 => version().prop_map(Op::DestroyVersion),
    ]
    .boxed()
}

/// What Vault does, as its documentation tells it.
#[derive(Default)]
struct Vault {
    current: i64,
    oldest: i64,
    versions: BTreeMap<i64, (u64, Option<i64>, bool)>,
    key: (i64, i64),
    mount: (i64, i64),
}

impl Vault {
    fn deletion(&self, now: i64) -> Option<i64> {
        let after = match (self.key.1, self.mount.1) {
            (_, ..0) => return None,
            (0, 0) => return None,
            (0, x) | (x, 0) => x,
            (x, y) => x.min(y),
        };
        Some(now + after)
    }

    fn step(&mut self, op: &Op, blob: u64, now: i64) -> Result<Vec<u64>, ()> {
        let mut erased = Vec::new();
        let deletion = self.deletion(now);
        match op {
            Op::Write { cas } => {
                if cas.is_some_and(|cas| cas != self.current) {
                    return Err(());
                }
                self.current += 1;
                self.versions.insert(self.current, (blob, deletion, false));
                let max = match self.key.0.max(self.mount.0) {
                    0 => 10,
                    max => max,
                };
                if self.current - self.oldest >= max {
                    self.oldest = self.current - max + 1;
                    let out: Vec<i64> = self.versions.keys().copied().filter(|n| *n < self.oldest).collect();
                    for n in out {
                        let (blob, _, destroyed) = self.versions.remove(&n).unwrap();
                        erased.extend((!destroyed).then_some(blob));
                    }
                }
            }
            Op::DeleteCurrent => return self.step(&Op::Delete(vec![self.current]), blob, now),
            Op::Delete(numbers) => {
                for n in numbers {
                    if let Some((_, at, false)) = self.versions.get_mut(n)
                        && at.is_none_or(|at| at > now)
                    {
                        *at = Some(now);
                    }
                }
            }
            Op::Undelete(numbers) => {
                for n in numbers {
                    if let Some((_, at, false)) = self.versions.get_mut(n) {
                        *at = deletion;
                    }
                }
            }
            Op::Destroy(numbers) => {
                for n in numbers {
                    if let Some((blob, _, destroyed)) = self.versions.get_mut(n)
                        && !std::mem::replace(destroyed, true)
                    {
                        erased.push(*blob);
                    }
                }
            }
            _ => {}
        }
        Ok(erased)
    }
}

/// The record under test, its clock, and the blobs that should be stored.
struct Run {
    record: SecretRecord,
    config: KvConfig,
    now: Timestamp,
    stored: BTreeSet<u64>,
    blob: u64,
}

impl Run {
    fn new() -> Self {
        let now = Timestamp(1_000_000_000_000);
        let record = SecretRecord::new(Id::ZERO, now);
        Self { record, config: KvConfig::default(), now, stored: BTreeSet::new(), blob: 0 }
    }

    /// Does `op`; gives the blobs erased, or `Err` if it was refused.
    fn step(&mut self, op: &Op) -> Result<Vec<u64>, ()> {
        let (record, config, now) = (&mut self.record, &self.config, self.now);
        let mut write = |status, cas| -> Result<Vec<u64>, ()> {
            self.blob += 1;
            let new = NewVersion { status, blob: self.blob, created_by: None };
            let before = record.newest;
            let written = record.write(config, cas, new, now).map_err(drop)?;
            assert_eq!(written.number, before + 1);
            self.stored.insert(self.blob);
            Ok(written.erase)
        };
        let expected = |record: &SecretRecord, name| Expected {
            version: record.aliases.get(name).map(|pointer| pointer.version),
            revision: None,
        };
        let erased = match op {
            Op::Write { cas } => write(Status::Current, *cas)?,
            Op::WritePending => write(Status::Pending, None)?,
            Op::DeleteCurrent => {
                record.delete_current(now);
                Vec::new()
            }
            Op::Delete(numbers) => {
                record.delete(numbers, now);
                Vec::new()
            }
            Op::Undelete(numbers) => {
                record.undelete(config, numbers, now);
                Vec::new()
            }
            Op::Destroy(numbers) => record.destroy(numbers),
            Op::MaxVersions { key, mount } => {
                record.max_versions = *key;
                self.config.max_versions = *mount;
                Vec::new()
            }
            Op::DeleteAfter { key, mount } => {
                record.delete_version_after = *key;
                self.config.delete_version_after = *mount;
                Vec::new()
            }
            Op::Wait(seconds) => {
                self.now = now.plus_seconds(*seconds);
                Vec::new()
            }
            Op::Promote { version, seen, disable } => {
                let demote = if *disable { Demote::Disable } else { Demote::Previous(Some(now.plus_seconds(3))) };
                let seen = Expected { version: (*seen > 0).then_some(*seen), revision: None };
                record.promote(*version, seen, demote, now).map_err(drop)?;
                Vec::new()
            }
            Op::SetAlias { name, version } => {
                record.set_alias(name, *version, expected(record, name), now).map_err(drop)?;
                Vec::new()
            }
            Op::RemoveAlias(name) => {
                record.remove_alias(name, expected(record, name)).map_err(drop)?;
                Vec::new()
            }
            Op::Disable { version, how } => {
                record.disable(*version, *how, now).map_err(drop)?;
                Vec::new()
            }
            Op::Enable(version) => {
                record.enable(*version, now).map_err(drop)?;
                Vec::new()
            }
            Op::DestroyVersion(version) => {
                record.destroy_version(*version, 2, now).map_err(drop)?.into_iter().collect()
            }
        };
        for blob in &erased {
            assert!(self.stored.remove(blob), "{blob} erased twice");
        }
        Ok(erased)
    }
}

proptest! {
    #[test]
    fn the_compatible_face_is_vault(ops in prop::collection::vec(compatible(), 1..40)) {
        let (mut run, mut vault) = (Run::new(), Vault::default());
        let start = run.now;
        for op in &ops {
            let seconds = (run.now.0 - start.0) / 1_000_000_000;
            match op {
                Op::MaxVersions { key, mount } => (vault.key.0, vault.mount.0) = (i64::from(*key), i64::from(*mount)),
                Op::DeleteAfter { key, mount } => (vault.key.1, vault.mount.1) = (*key, *mount),
                _ => {}
            }
            let theirs = vault.step(op, run.blob + 1, seconds);
            prop_assert_eq!(run.step(op), theirs);
            let ours = run.record.versions.iter().map(|v| {
                let deletion = v.deletion.time().map(|at| (at.0 - start.0) / 1_000_000_000);
                (i64::try_from(v.number).unwrap(), (v.blob, deletion, v.status == Status::Destroyed))
            });
            prop_assert_eq!(ours.collect::<BTreeMap<_, _>>(), vault.versions.clone());
            prop_assert_eq!(i64::try_from(run.record.current_number()).unwrap(), vault.current);
            prop_assert_eq!(i64::try_from(run.record.oldest).unwrap(), vault.oldest);
        }
    }

    #[test]
    fn invariants_hold_through_both_faces(ops in prop::collection::vec(prop_oneof![compatible(), native()], 1..60)) {
        let mut run = Run::new();
        for op in &ops {
            let before = run.record.clone();
            let refused = run.step(op).is_err();
            let record = &run.record;
            if refused {
                prop_assert_eq!(record, &before);
            }
            // Numbers ascend, are never given twice, and the newest is the highest.
            prop_assert!(record.versions.is_sorted_by(|a, b| a.number < b.number));
            prop_assert!(record.versions.iter().all(|v| v.number >= 1 && v.number <= record.newest));
            prop_assert!(record.newest == before.newest || record.newest == before.newest + 1);
            // At most one is CURRENT, and then `current` points to it.
            let current: Vec<_> = record.versions.iter().filter(|v| v.status == Status::Current).collect();
            prop_assert!(current.len() <= 1);
            prop_assert!(current.iter().all(|v| v.number == record.current_number()));
            if let Some(pointer) = record.aliases.current {
                let target = record.version(pointer.version).unwrap();
                prop_assert!(matches!(target.status, Status::Current | Status::Disabled | Status::Destroyed));
            }
            // Every alias leads to a version; revisions only grow.
            prop_assert!(record.aliases.iter().all(|(_, pointer)| record.version(pointer.version).is_some()));
            prop_assert!(record.aliases.revision >= before.aliases.revision);
            // A destroyed version stays destroyed.
            for version in before.versions.iter().filter(|v| v.status == Status::Destroyed) {
                prop_assert!(record.version(version.number).is_none_or(|v| v.status == Status::Destroyed));
            }
            // Exactly the blobs of the record are stored.
            prop_assert_eq!(record.blobs().into_iter().collect::<BTreeSet<_>>(), run.stored.clone());
            prop_assert_eq!(&SecretRecord::decode(&record.encode().unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn of_racing_promotions_exactly_one_wins(
        ops in prop::collection::vec(prop_oneof![compatible(), native()], 1..30),
        swapped: bool,
    ) {
        let mut run = Run::new();
        for op in &ops {
            drop(run.step(op));
        }
        run.config = KvConfig { max_versions: 10, ..KvConfig::default() };
        for _ in 0..2 {
            prop_assert!(run.step(&Op::WritePending).is_ok());
        }
        let (mut record, now) = (run.record, run.now);
        let (one, other) = (record.newest - u64::from(swapped), record.newest - u64::from(!swapped));
        let seen = Expected { version: record.aliases.current.map(|pointer| pointer.version), revision: None };
        prop_assert!(record.promote(one, seen, Demote::Previous(None), now).is_ok());
        let lost = record.promote(other, seen, Demote::Previous(None), now);
        prop_assert_eq!(lost, Err(LifecycleError::AliasMismatch { actual: Some(one) }));
    }
}
