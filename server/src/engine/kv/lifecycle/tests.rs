use keyward_model::Id;

use super::super::{NewVersion, Resolution, Selector};
use super::*;

const T0: Timestamp = Timestamp(1_000_000_000_000);
const NOW: Timestamp = Timestamp(2_000_000_000_000);
const ANY: KvConfig =
    KvConfig { max_versions: 0, cas_required: false, metadata_cas_required: false, delete_version_after: 0 };

/// Version 1 in the status under test; version 2 is there to be another one.
fn with(status: Status) -> SecretRecord {
    let mut record = SecretRecord::new(Id::ZERO, T0);
    let mut add = |status, blob| record.write(&ANY, None, NewVersion { status, blob, created_by: None }, T0).unwrap();
    match status {
        Status::Pending => {
            add(Status::Pending, 1);
            add(Status::Current, 2);
        }
        Status::Current => {
            add(Status::Current, 1);
            add(Status::Pending, 2);
        }
        Status::Previous | Status::Disabled | Status::Destroyed => {
            add(Status::Current, 1);
            add(Status::Current, 2);
        }
    }
    match status {
        Status::Disabled => record.disable(1, Disable::Ordinary, T0).unwrap(),
        Status::Destroyed => drop(record.destroy(&[1])),
        Status::Pending | Status::Current | Status::Previous => {}
    }
    assert_eq!(record.version(1).unwrap().status, status);
    record
}

fn expect(record: &SecretRecord, alias: &str) -> Expected {
    Expected { version: record.aliases.get(alias).map(|pointer| pointer.version), revision: None }
}

/// One event on version 1: what became of it, or `None` if it was refused with a conflict of state.
fn outcome(
    status: Status,
    event: impl FnOnce(&mut SecretRecord) -> Result<(), LifecycleError>,
) -> Option<(Status, bool)> {
    let mut record = with(status);
    let before = record.clone();
    match event(&mut record) {
        Ok(()) => {
            let version = record.version(1).unwrap();
            Some((version.status, version.is_deleted(NOW)))
        }
        Err(LifecycleError::StateConflict(found)) => {
            assert_eq!(found, status);
            assert_eq!(record, before);
            None
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn transition_table() {
    use Status::*;
    let all = [Pending, Current, Previous, Disabled, Destroyed];
    let live = |status| Some((status, false));
    type Event = fn(&mut SecretRecord) -> Result<(), LifecycleError>;
    type Row = (&'static str, Event, [Option<(Status, bool)>; 5]);
    let table: [Row; 9] = [
        (
            "promote",
            |r| r.promote(1, expect(r, "current"), Demote::Previous(None), NOW),
            [live(Current), live(Current), live(Current), None, None],
        ),
        (
            "other promoted",
            |r| {
                r.write(&ANY, None, NewVersion { status: Current, blob: 3, created_by: None }, NOW).unwrap();
                Ok(())
            },
            [live(Pending), live(Previous), live(Previous), live(Disabled), live(Destroyed)],
        ),
        ("set next", |r| r.set_alias("next", 1, expect(r, "next"), NOW), [live(Pending), None, None, None, None]),
        (
            "set custom",
            |r| r.set_alias("blue", 1, expect(r, "blue"), NOW),
            [live(Pending), live(Current), live(Previous), None, None],
        ),
        (
            "disable",
            |r| r.disable(1, Disable::Ordinary, NOW),
            [live(Disabled), None, live(Disabled), live(Disabled), None],
        ),
        (
            "disable at once",
            |r| r.disable(1, Disable::Emergency, NOW),
            [live(Disabled), live(Disabled), live(Disabled), live(Disabled), None],
        ),
        ("enable", |r| r.enable(1, NOW), [None, None, None, live(Previous), None]),
        (
            "destroy",
            |r| r.destroy_version(1, 0, NOW).map(drop),
            [live(Destroyed), None, None, live(Destroyed), live(Destroyed)],
        ),
        (
            "soft delete",
            |r| r.soft_delete(Scope::Version(1), NOW),
            [Some((Pending, true)), None, Some((Previous, true)), Some((Disabled, true)), None],
        ),
    ];
    for (name, event, row) in table {
        for (status, expected) in all.into_iter().zip(row) {
            assert_eq!(outcome(status, event), expected, "{name} from {status:?}");
        }
    }
}

#[test]
fn an_alias_guards_a_pending_version() {
    for alias in ["next", "blue"] {
        let mut record = with(Status::Pending);
        record.set_alias(alias, 1, expect(&record, alias), NOW).unwrap();
        let held = record.clone();
        assert_eq!(record.disable(1, Disable::Emergency, NOW), Err(LifecycleError::Referenced));
        assert_eq!(record.destroy_version(1, 0, NOW), Err(LifecycleError::Referenced));
        assert_eq!(record.soft_delete(Scope::Version(1), NOW), Err(LifecycleError::Referenced));
        assert_eq!(record, held);
        record.remove_alias(alias, expect(&record, alias)).unwrap();
        assert_eq!(record.version(1).unwrap().status, Status::Pending);
        record.disable(1, Disable::Ordinary, NOW).unwrap();
    }
}

#[test]
fn of_two_promotions_one_wins() {
    let mut record = with(Status::Pending);
    let pending = NewVersion { status: Status::Pending, blob: 3, created_by: None };
    record.write(&ANY, None, pending, T0).unwrap();
    let seen = expect(&record, "current");
    record.promote(1, seen, Demote::Previous(None), NOW).unwrap();
    assert_eq!(
        record.promote(3, seen, Demote::Previous(None), NOW),
        Err(LifecycleError::AliasMismatch { actual: Some(1) })
    );
    assert_eq!((record.current_number(), record.aliases.previous.map(|p| p.version)), (1, Some(2)));
}

#[test]
fn a_revision_tells_an_alias_that_came_back() {
    let mut record = with(Status::Previous);
    let seen = record.aliases.current.unwrap();
    record.promote(1, expect(&record, "current"), Demote::Previous(None), NOW).unwrap();
    record.promote(2, expect(&record, "current"), Demote::Previous(None), NOW).unwrap();
    let stale = Expected { version: Some(seen.version), revision: Some(seen.revision) };
    assert_eq!(
        record.promote(1, stale, Demote::Previous(None), NOW),
        Err(LifecycleError::AliasMismatch { actual: Some(2) })
    );
    let fresh = Expected { revision: record.aliases.current.map(|p| p.revision), ..stale };
    record.promote(1, fresh, Demote::Previous(None), NOW).unwrap();

    record.set_alias("blue", 1, expect(&record, "blue"), NOW).unwrap();
    let first = record.aliases.get("blue").unwrap();
    record.remove_alias("blue", expect(&record, "blue")).unwrap();
    record.set_alias("blue", 1, expect(&record, "blue"), NOW).unwrap();
    assert!(record.aliases.get("blue").unwrap().revision > first.revision);
}

#[test]
fn the_demoted_version_lapses_or_is_disabled() {
    let later = NOW.plus_seconds(60);
    let mut record = with(Status::Pending);
    record.promote(1, expect(&record, "current"), Demote::Previous(Some(later)), NOW).unwrap();
    assert!(matches!(record.resolve(Selector::Alias("previous"), NOW), Resolution::Live(v) if v.number == 2));
    assert_eq!(record.resolve(Selector::Version(2), later), Resolution::Disabled);
    let lapsed = Err(LifecycleError::StateConflict(Status::Disabled));
    assert_eq!(record.promote(2, expect(&record, "current"), Demote::Previous(None), later), lapsed);
    assert_eq!(
        record.clone().destroy_version(2, 30, later),
        Err(LifecycleError::Retained { until: later.plus_seconds(30) })
    );
    record.enable(2, later).unwrap();
    assert!(matches!(record.resolve(Selector::Version(2), later), Resolution::Live(_)));

    let mut compromised = with(Status::Pending);
    compromised.promote(1, expect(&compromised, "current"), Demote::Disable, NOW).unwrap();
    assert_eq!(compromised.resolve(Selector::Alias("previous"), NOW), Resolution::Disabled);
    assert_eq!(compromised.version(2).unwrap().disabled_at, Some(NOW));
}

#[test]
fn a_disabled_current_version_refuses_until_another_is_promoted() {
    let mut record = with(Status::Current);
    record.disable(1, Disable::Emergency, NOW).unwrap();
    assert_eq!(record.resolve(Selector::Current, NOW), Resolution::Disabled);
    assert_eq!(record.current_number(), 1);
    let mut back = record.clone();
    back.enable(1, NOW).unwrap();
    assert_eq!(back.version(1).unwrap().status, Status::Current);
    record.promote(2, expect(&record, "current"), Demote::Previous(None), NOW).unwrap();
    assert_eq!(record.version(1).unwrap().status, Status::Disabled);
}

#[test]
fn promotion_takes_next_along_and_refuses_deleted_versions() {
    let mut record = with(Status::Pending);
    record.set_alias("next", 1, expect(&record, "next"), NOW).unwrap();
    let mut deleted = record.clone();
    deleted.delete(&[1], NOW);
    let current = expect(&record, "current");
    assert_eq!(deleted.promote(1, current, Demote::Previous(None), NOW), Err(LifecycleError::Deleted));
    record.set_alias("current", 1, current, NOW).unwrap();
    assert_eq!(record.aliases.next, None);
    assert_eq!(
        record.promote(9, expect(&record, "current"), Demote::Disable, NOW),
        Err(LifecycleError::VersionNotFound(9))
    );
}

#[test]
fn names_of_aliases() {
    let mut record = with(Status::Previous);
    let absent = Expected { version: None, revision: None };
    for reserved in ["previous", "current"] {
        assert_eq!(record.remove_alias(reserved, expect(&record, reserved)), Err(LifecycleError::AliasReserved));
    }
    assert_eq!(record.set_alias("previous", 1, absent, NOW), Err(LifecycleError::AliasReserved));
    let long = "a".repeat(33);
    for bad in ["", "latest", "1a", "a-", "-a", "A", "a_b", "é", long.as_str()] {
        assert_eq!(record.set_alias(bad, 1, absent, NOW), Err(LifecycleError::AliasInvalid), "{bad}");
    }
    for i in 0..ALIASES_MAX {
        record.set_alias(&format!("a{i}"), 1, absent, NOW).unwrap();
    }
    assert_eq!(record.set_alias("b", 1, absent, NOW), Err(LifecycleError::TooManyAliases));
    record.set_alias("a0", 2, expect(&record, "a0"), NOW).unwrap();
    assert_eq!(record.set_alias("a0", 1, absent, NOW), Err(LifecycleError::AliasMismatch { actual: Some(2) }));
    assert_eq!(record.remove_alias("b", absent), Err(LifecycleError::AliasNotFound));
    assert_eq!(record.remove_alias("a0", absent), Err(LifecycleError::AliasMismatch { actual: Some(2) }));
    record.remove_alias("a0", expect(&record, "a0")).unwrap();
    assert_eq!(record.aliases.iter().count(), 2 + ALIASES_MAX - 1);
}

#[test]
fn retention_is_waited_for() {
    let mut record = with(Status::Disabled);
    let until = T0.plus_seconds(604_800);
    assert_eq!(record.destroy_version(1, 604_800, NOW), Err(LifecycleError::Retained { until }));
    assert_eq!(record.destroy_version(1, 604_800, until), Ok(Some(1)));
    assert_eq!(record.destroy_version(1, 604_800, until), Ok(None));
    assert_eq!(
        record.soft_undelete(Scope::Version(1), &ANY, until),
        Err(LifecycleError::StateConflict(Status::Destroyed))
    );
}

#[test]
fn a_whole_secret_is_deleted_and_brought_back() {
    let mut record = with(Status::Previous);
    record.soft_delete(Scope::Secret, NOW).unwrap();
    assert!(matches!(record.resolve(Selector::Current, NOW), Resolution::Deleted(_)));
    assert!(matches!(record.resolve(Selector::Version(1), NOW), Resolution::Deleted(_)));
    record.soft_undelete(Scope::Version(1), &ANY, NOW).unwrap();
    assert!(matches!(record.resolve(Selector::Version(1), NOW), Resolution::Live(_)));
    record.soft_undelete(Scope::Secret, &ANY, NOW).unwrap();
    assert!(matches!(record.resolve(Selector::Current, NOW), Resolution::Live(_)));
}
