use keyward_model::Id;

use super::super::{Resolution, Selector};
use super::*;

const T0: Timestamp = Timestamp(1_000_000_000_000);

fn at(seconds: i64) -> Timestamp {
    T0.plus_seconds(seconds)
}

fn write(record: &mut SecretRecord, config: &KvConfig, seconds: i64) -> Written {
    let new = NewVersion { status: Status::Current, blob: 100 + record.newest + 1, created_by: None };
    record.write(config, None, new, at(seconds)).unwrap()
}

fn with_versions(count: u64) -> SecretRecord {
    let mut record = SecretRecord::new(Id::ZERO, T0);
    for _ in 0..count {
        write(&mut record, &KvConfig::default(), 0);
    }
    record
}

fn numbers(record: &SecretRecord) -> Vec<u64> {
    record.versions.iter().map(|version| version.number).collect()
}

#[test]
fn cas_table() {
    let metadata_only = SecretRecord::new(Id::ZERO, T0);
    let live = with_versions(2);
    let mut deleted = live.clone();
    deleted.delete_current(at(1));
    let mut destroyed = live.clone();
    destroyed.destroy(&[2]);
    let states = [(None, 0), (Some(&metadata_only), 0), (Some(&live), 2), (Some(&deleted), 2), (Some(&destroyed), 2)];
    let (free, required) = (KvConfig::default(), KvConfig { cas_required: true, ..KvConfig::default() });
    for (record, current) in states {
        let check = |config, cas| SecretRecord::check_cas(record, config, cas);
        assert_eq!(check(&free, None), Ok(()));
        assert_eq!(check(&required, None), Err(KvError::CasRequired));
        assert_eq!(check(&free, Some(0)).is_ok(), current == 0);
        assert_eq!(check(&required, Some(current)), Ok(()));
        for other in [-1, current + 1, i64::MIN, i64::MAX] {
            assert_eq!(check(&free, Some(other)), Err(KvError::CasMismatch));
        }
    }
    let mut strict = live.clone();
    strict.cas_required = true;
    assert_eq!(SecretRecord::check_cas(Some(&strict), &free, None), Err(KvError::CasRequired));
    assert_eq!(KvError::CasRequired.to_string(), "check-and-set parameter required for this call");
    assert_eq!(KvError::CasMismatch.to_string(), "check-and-set parameter did not match the current version");
}

#[test]
fn cas_takes_what_openbao_takes() {
    for (options, cas) in [
        ("{}", Ok(None)),
        ("null", Ok(None)),
        (r#"{"CAS":5}"#, Ok(None)),
        (r#"{"cas":3}"#, Ok(Some(3))),
        (r#"{"cas":"3"}"#, Ok(Some(3))),
        (r#"{"cas":"0x3"}"#, Ok(Some(3))),
        (r#"{"cas":true}"#, Ok(Some(1))),
        (r#"{"cas":false}"#, Ok(Some(0))),
        (r#"{"cas":null}"#, Ok(Some(0))),
        (r#"{"cas":""}"#, Ok(Some(0))),
        (r#"{"cas":-1}"#, Ok(Some(-1))),
        (r#"{"cas":2.0}"#, Err(KvError::CasUnreadable)),
        (r#"{"cas":2e0}"#, Err(KvError::CasUnreadable)),
        (r#"{"cas":"two"}"#, Err(KvError::CasUnreadable)),
        (r#"{"cas":[2]}"#, Err(KvError::CasUnreadable)),
        (r#"{"cas":{"v":2}}"#, Err(KvError::CasUnreadable)),
        (r#"{"cas":9223372036854775808}"#, Err(KvError::CasUnreadable)),
    ] {
        assert_eq!(cas_parameter(Raw::trusted(options)), cas, "{options}");
    }
}

#[test]
fn a_refused_write_changes_nothing() {
    let mut record = with_versions(3);
    let before = record.clone();
    let new = NewVersion { status: Status::Current, blob: 9, created_by: None };
    assert_eq!(record.write(&KvConfig::default(), Some(2), new, at(9)), Err(KvError::CasMismatch));
    assert_eq!(record, before);
}

#[test]
fn the_window_opens_with_the_tenth_write() {
    let mut record = with_versions(9);
    assert_eq!((record.oldest, numbers(&record).len()), (0, 9));
    assert_eq!(write(&mut record, &KvConfig::default(), 0), Written { number: 10, erase: vec![] });
    assert_eq!(record.oldest, 1);
    assert_eq!(write(&mut record, &KvConfig::default(), 0), Written { number: 11, erase: vec![101] });
    assert_eq!((record.oldest, numbers(&record)), (2, (2..=11).collect()));
}

#[test]
fn the_window_follows_key_and_mount_at_the_next_write() {
    let config = KvConfig::default();
    let mut record = SecretRecord::new(Id::ZERO, T0);
    record.max_versions = 2;
    for _ in 0..3 {
        write(&mut record, &config, 0);
    }
    assert_eq!((record.oldest, numbers(&record)), (2, vec![2, 3]));
    record.max_versions = 4;
    for _ in 0..3 {
        write(&mut record, &config, 0);
    }
    assert_eq!((record.oldest, numbers(&record)), (3, vec![3, 4, 5, 6]));
    record.max_versions = 1;
    assert_eq!(numbers(&record).len(), 4);
    assert_eq!(write(&mut record, &config, 0).erase, [103, 104, 105, 106]);
    assert_eq!((record.oldest, numbers(&record)), (7, vec![7]));
    assert_eq!(record.aliases.previous, None);

    let wide = KvConfig { max_versions: 3, ..config };
    let mut first = SecretRecord::new(Id::ZERO, T0);
    first.max_versions = 1;
    write(&mut first, &config, 0);
    assert_eq!(first.oldest, 1);
    for _ in 0..2 {
        write(&mut first, &wide, 0);
    }
    assert_eq!(numbers(&first), [1, 2, 3]);
}

#[test]
fn what_an_alias_of_peoples_own_holds_is_kept() {
    let config = KvConfig { max_versions: 2, ..KvConfig::default() };
    let mut record = with_versions(2);
    let pointer = record.aliases.point(1);
    record.aliases.custom.insert("blue".into(), pointer);
    for _ in 0..3 {
        write(&mut record, &config, 0);
    }
    assert_eq!((record.oldest, numbers(&record)), (4, vec![1, 4, 5]));
    record.aliases.custom.clear();
    assert_eq!(write(&mut record, &config, 0).erase, [101, 104]);
    assert_eq!(numbers(&record), [5, 6]);
}

#[test]
fn a_pending_version_is_not_read_and_does_not_push_out_the_current_one() {
    let config = KvConfig { max_versions: 1, ..KvConfig::default() };
    let mut record = with_versions(1);
    for blob in [7, 8] {
        let new = NewVersion { status: Status::Pending, blob, created_by: None };
        record.write(&config, Some(1), new, T0).unwrap();
    }
    assert_eq!((record.current_number(), record.newest, numbers(&record)), (1, 3, vec![1, 3]));
    assert!(matches!(record.resolve(Selector::Current, T0), Resolution::Live(v) if v.number == 1));
    assert!(matches!(record.resolve(Selector::Version(3), T0), Resolution::Live(v) if v.status == Status::Pending));
    assert_eq!(write(&mut record, &config, 0).number, 4);
}

#[test]
fn a_write_moves_current_and_previous() {
    let record = with_versions(3);
    let statuses: Vec<_> = record.versions.iter().map(|version| version.status).collect();
    assert_eq!(statuses, [Status::Previous, Status::Previous, Status::Current]);
    assert_eq!((record.current_number(), record.aliases.previous.map(|p| p.version)), (3, Some(2)));
}

#[test]
fn deletion_is_a_mark_that_time_can_set() {
    let config = KvConfig { delete_version_after: 10, ..KvConfig::default() };
    let mut record = SecretRecord::new(Id::ZERO, T0);
    write(&mut record, &config, 0);
    write(&mut record, &config, 5);
    let deletion = |record: &SecretRecord, n| record.version(n).unwrap().deletion.time();
    assert_eq!((deletion(&record, 1), deletion(&record, 2)), (Some(at(10)), Some(at(15))));
    assert!(matches!(record.resolve(Selector::Version(1), at(9)), Resolution::Live(_)));
    assert!(matches!(record.resolve(Selector::Version(1), at(10)), Resolution::Deleted(_)));

    // A past deletion stays, one that lies ahead is brought forward; unknown numbers are passed over.
    assert!(record.delete(&[1, 2, 2, 0, -1, 9], at(12)));
    assert_eq!((deletion(&record, 1), deletion(&record, 2)), (Some(at(10)), Some(at(12))));
    assert!(!record.delete(&[1, 2], at(13)));
    // Both are done by now: no clock brings them back.
    assert!(record.versions.iter().all(|version| version.is_deleted(T0)));

    // Undelete counts anew, also on live versions; without a duration it clears.
    assert!(record.undelete(&config, &[1, 3], at(20)));
    assert_eq!(deletion(&record, 1), Some(at(30)));
    assert!(record.undelete(&config, &[1], at(25)));
    assert_eq!(deletion(&record, 1), Some(at(35)));
    assert!(record.undelete(&KvConfig::default(), &[1, 2], at(26)));
    assert_eq!((deletion(&record, 1), deletion(&record, 2)), (None, None));
    assert_eq!(record.updated, at(5));
}

#[test]
fn destruction_is_final_and_keeps_the_mark() {
    let mut record = with_versions(3);
    record.delete_current(at(1));
    assert_eq!(record.destroy(&[3, 1, 9, -1, 1]), [103, 101]);
    assert_eq!(record.destroy(&[1, 3]), Vec::<u64>::new());
    assert!(!record.undelete(&KvConfig::default(), &[1, 3], at(2)));
    assert_eq!(record.version(3).unwrap().deletion, Deletion::Done(at(1)));
    assert!(matches!(record.resolve(Selector::Current, at(2)), Resolution::Destroyed(v) if v.number == 3));
    assert_eq!(record.blobs(), [102]);
    assert_eq!(write(&mut record, &KvConfig::default(), 3).number, 4);
    assert_eq!(record.version(3).unwrap().status, Status::Destroyed);
}
