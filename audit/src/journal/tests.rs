use std::fs;
use std::os::unix::fs::PermissionsExt;

use keyward_model::Secret;
use keyward_model::event::{Event, EventKind, EventOutcome, LogPlace, Ulid};
use tempfile::TempDir;

use super::*;
use crate::line;
use crate::record::tests::read_event;

const NODE: Id = Id([0x11; 16]);

fn open_with(dir: &Path, segment_bytes: u64, durability: Durability) -> Result<Journal, JournalError> {
    let key = AuditKey::from_seed(&Secret::new([1; 32])).unwrap();
    Journal::open(dir, NODE, 1, Options { segment_bytes, durability, key })
}

fn open(dir: &Path) -> Journal {
    open_with(dir, SEGMENT_BYTES, Durability::Fsync).unwrap()
}

fn append(journal: &Journal, events: u64) {
    let mut batch = journal.batch();
    (0..events).for_each(|n| batch.push(&read_event(n)));
    journal.append(&mut batch).unwrap();
    assert!(batch.is_empty());
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    paths
}

fn text(dir: &Path) -> Vec<u8> {
    let mut all: Vec<u8> = segments(dir).iter().flat_map(|path| fs::read(path).unwrap()).collect();
    all.retain(|&b| b != 0);
    all
}

/// Checks that the stream is one chain without a gap; gives the number of events that are no checkpoints.
fn whole(dir: &Path) -> u64 {
    let text = text(dir);
    let mut chain = Chain::start(&format!("{NODE}-0001"));
    let mut events = 0;
    for bytes in text.strip_suffix(b"\n").unwrap_or_default().split(|&b| b == b'\n') {
        let line = line::parse(bytes).unwrap();
        assert_eq!((line.seq, line.prev), (chain.seq + 1, chain.hash));
        assert_eq!(line.hash, keyward_crypto::chain::next(&line.prev, &line.covered));
        (chain.seq, chain.hash) = (line.seq, line.hash);
        events += u64::from(line.event != "AUDIT_CHECKPOINT");
    }
    events
}

#[test]
fn a_stream_goes_on_after_a_clean_stop() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir.path().join("audit"));
    assert_eq!(journal.head().0, 0);
    append(&journal, 3);
    let head = journal.head();
    assert_eq!(head.0, 3);
    drop(journal);
    let audit = dir.path().join("audit");
    assert_eq!(fs::metadata(&audit).unwrap().permissions().mode() & 0o777, 0o700);
    let path = &segments(&audit)[0];
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read(path).unwrap().contains(&0), "the file is cut to its length");
    let journal = open(&audit);
    assert_eq!((journal.head(), journal.cut()), (head, None));
    append(&journal, 2);
    assert_eq!(whole(&audit), 5);
}

#[test]
fn one_process_at_a_time() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    assert!(matches!(open_with(dir.path(), 1 << 20, Durability::Fsync), Err(JournalError::InUse(_))));
    drop(journal);
    open(dir.path());
}

#[test]
fn segments_follow_each_other() {
    let dir = TempDir::new().unwrap();
    let journal = open_with(dir.path(), 8 << 10, Durability::Fsync).unwrap();
    (0..100).for_each(|_| append(&journal, 1));
    drop(journal);
    let segments = segments(dir.path());
    assert!(segments.len() > 5, "{segments:?}");
    for path in &segments {
        assert!(fs::metadata(path).unwrap().len() <= 8 << 10);
    }
    assert_eq!(whole(dir.path()), 100);
    let journal = open_with(dir.path(), 8 << 10, Durability::Kernel).unwrap();
    (0..100).for_each(|_| append(&journal, 1));
    append(&journal, 100); // more than a segment: goes alone
    drop(journal);
    assert_eq!(whole(dir.path()), 300);
}

#[test]
fn threads_make_one_chain() {
    let dir = TempDir::new().unwrap();
    let journal = open_with(dir.path(), 256 << 10, Durability::Fsync).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let journal = &journal;
            scope.spawn(move || {
                let mut batch = journal.batch();
                for round in 0..100 {
                    (0..=round % 7).for_each(|n| batch.push(&read_event(thread * 1_000 + n)));
                    if round % 3 == 0 { journal.append_lazy(&mut batch) } else { journal.append(&mut batch) }.unwrap();
                }
            });
        }
    });
    drop(journal);
    assert_eq!(whole(dir.path()), 4 * (0..100).map(|round| round % 7 + 1).sum::<u64>());
}

#[test]
fn a_torn_last_write_is_cut_wherever_it_tore() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    append(&journal, 2);
    let before = text(dir.path()).len();
    let mut batch = journal.batch();
    let bare = Event::new(Ulid(1), read_event(0).ts, EventKind::Listed, EventOutcome::Success);
    (0..2).for_each(|_| batch.push(&bare));
    journal.append(&mut batch).unwrap();
    drop(journal);
    let path = segments(dir.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    let first_line = before + bytes[before..].iter().position(|&b| b == b'\n').unwrap() + 1;
    for cut in before..bytes.len() {
        // With zeros behind it, as far as the segment was filled, and without.
        let zeros = if cut % 2 == 0 { 0 } else { 5_000 };
        let crashed = TempDir::new().unwrap();
        let copy = crashed.path().join(path.file_name().unwrap());
        fs::write(&copy, [&bytes[..cut], &vec![0; zeros]].concat()).unwrap();
        let journal = open_with(crashed.path(), 64 << 10, Durability::Kernel).unwrap();
        let whole_lines = if cut < first_line { before } else { first_line };
        let expected = (cut > whole_lines).then(|| Cut {
            path: copy.clone(),
            at: whole_lines as u64,
            bytes: (cut - whole_lines) as u64,
            kept: None,
        });
        assert_eq!(journal.cut(), expected.as_ref(), "cut at {cut}");
        assert_eq!(journal.head().0, if cut < first_line { 2 } else { 3 });
        append(&journal, 1);
        drop(journal);
        assert_eq!(whole(crashed.path()), if cut < first_line { 3 } else { 4 });
    }
}

#[test]
fn what_stands_behind_a_hole_is_kept_aside() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    append(&journal, 9);
    drop(journal);
    let path = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let line = bytes.iter().position(|&b| b == b'\n').unwrap() + 1;
    bytes[line + 10..3 * line].fill(0);
    fs::write(&path, &bytes).unwrap();
    let journal = open(dir.path());
    let cut = journal.cut().unwrap();
    assert_eq!((cut.at, journal.head().0), (line as u64, 1));
    assert_eq!(fs::read(cut.kept.as_ref().unwrap()).unwrap(), bytes[line..]);
}

#[test]
fn a_changed_record_stops_the_start() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    append(&journal, 3);
    drop(journal);
    let path = segments(dir.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    for at in (0..bytes.len()).filter(|&at| bytes[at] != b'\n').step_by(7) {
        let mut edited = bytes.clone();
        edited[at] = edited[at].wrapping_add(1).max(b' ');
        fs::write(&path, &edited).unwrap();
        let opened = open_with(dir.path(), SEGMENT_BYTES, Durability::Fsync);
        assert!(matches!(opened, Err(JournalError::Damaged { .. })), "byte {at}: {opened:?}");
        assert_eq!(fs::read(&path).unwrap(), edited, "evidence is left alone");
    }
}

#[test]
fn a_full_disk_loses_nothing_and_heals() {
    let dir = TempDir::new().unwrap();
    let journal = open_with(dir.path(), 1 << 20, Durability::Kernel).unwrap();
    append(&journal, 5);
    // Wherever the space ends, also within a record.
    let rooms = (0..1_500).step_by(13);
    for room in rooms.clone() {
        let seq = journal.head().0;
        let state = journal.shared.lock();
        let mut state = journal.shared.filled.wait_while(state, |state| state.filling).unwrap();
        let end = state.end;
        state.segment.file.set_len(end).unwrap();
        state.filled = end;
        state.no_space = true;
        drop(state);
        journal.shared.disk.faults.file_bytes_max.store(end + room, Ordering::SeqCst);
        let mut batch = journal.batch();
        (0..3).for_each(|n| batch.push(&read_event(n)));
        assert!(matches!(journal.append(&mut batch), Err(JournalError::Full)), "room for {room}");
        assert_eq!((journal.head().0, batch.len()), (seq, 3));
        let state = journal.shared.lock();
        let state = journal.shared.filled.wait_while(state, |state| state.filling).unwrap();
        let bytes = fs::read(&state.segment.path).unwrap();
        assert!(bytes[end as usize..].iter().all(|&b| b == 0), "nothing half-written stays");
        drop(state);
        journal.shared.disk.faults.file_bytes_max.store(u64::MAX, Ordering::SeqCst);
        journal.append(&mut batch).unwrap();
    }
    drop(journal);
    assert_eq!(whole(dir.path()), 5 + 3 * rooms.count() as u64);
}

#[test]
fn a_failed_flush_is_final() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    append(&journal, 1);
    journal.shared.disk.faults.flush_fails.store(true, Ordering::SeqCst);
    let mut batch = journal.batch();
    batch.push(&read_event(1));
    assert!(matches!(journal.append(&mut batch), Err(JournalError::Fatal(_))));
    journal.shared.disk.faults.flush_fails.store(false, Ordering::SeqCst);
    assert!(matches!(journal.append(&mut batch), Err(JournalError::Fatal(_))));
    assert!(matches!(journal.sync(), Err(JournalError::Fatal(_))));
}

/// Waits on this thread.
fn wait(flushed: Flushed) -> Result<(), JournalError> {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut flushed = std::pin::pin!(flushed);
    loop {
        match flushed.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(result) => return result,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

fn append_shared(journal: &Journal, events: u64) -> Flushed {
    let mut batch = journal.batch();
    (0..events).for_each(|n| batch.push(&read_event(n)));
    let flushed = journal.append_shared(&mut batch).unwrap();
    assert!(batch.is_empty());
    flushed
}

#[test]
fn many_share_a_flush_and_each_is_told() {
    let dir = TempDir::new().unwrap();
    // Small segments: some are closed while somebody waits for them.
    let journal = open_with(dir.path(), 16 << 10, Durability::Fsync).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| wait(append_shared(&journal, 2)).unwrap()));
        }
        scope.spawn(|| (0..50).for_each(|_| append(&journal, 1)));
    });
    // Who does not wait does not keep it from ending either.
    drop(append_shared(&journal, 1));
    drop(journal);
    assert!(segments(dir.path()).len() > 2);
    assert_eq!(whole(dir.path()), 4 * 50 * 2 + 50 + 1);
}

#[test]
fn a_failed_flush_is_told_to_all_who_share_it() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    wait(append_shared(&journal, 1)).unwrap();
    journal.shared.disk.faults.flush_fails.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut batch = journal.batch();
                batch.push(&read_event(1));
                let told = journal.append_shared(&mut batch).and_then(wait);
                assert!(matches!(told, Err(JournalError::Fatal(_))), "{told:?}");
            });
        }
    });
    journal.shared.disk.faults.flush_fails.store(false, Ordering::SeqCst);
    let mut batch = journal.batch();
    batch.push(&read_event(2));
    assert!(matches!(journal.append_shared(&mut batch), Err(JournalError::Fatal(_))));
}

#[test]
fn without_fsync_nobody_waits_for_the_disk() {
    let dir = TempDir::new().unwrap();
    let journal = open_with(dir.path(), SEGMENT_BYTES, Durability::Kernel).unwrap();
    journal.shared.disk.faults.flush_fails.store(true, Ordering::SeqCst);
    wait(append_shared(&journal, 3)).unwrap();
}

#[test]
fn the_last_index_is_found_again() {
    let dir = TempDir::new().unwrap();
    let journal = open_with(dir.path(), 4 << 10, Durability::Fsync).unwrap();
    let mut batch = journal.batch();
    for index in [7, 9, 8] {
        batch.push(&Event { replicated: Some(LogPlace { term: 1, index }), ..read_event(index) });
    }
    journal.append_lazy(&mut batch).unwrap();
    assert_eq!(journal.last_index(), 9);
    // Reads fill several segments after it.
    (0..20).for_each(|_| append(&journal, 1));
    drop(journal);
    assert!(segments(dir.path()).len() > 2);
    assert_eq!(open(dir.path()).last_index(), 9);
}

#[test]
fn a_batch_of_the_log_that_may_be_torn_is_told() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    append(&journal, 1);
    assert!(journal.unfinished().is_empty());
    let mut batch = journal.batch();
    let intents: Vec<Vec<u8>> = (10..13).map(|n| crate::intent(&read_event(n))).collect();
    for intent in &intents {
        batch.push_intent(intent, LogPlace { term: 1, index: 7 }).unwrap();
    }
    journal.append_lazy(&mut batch).unwrap();
    drop(journal);
    let ids: Vec<_> = intents.iter().map(|intent| crate::id_of(intent).unwrap().to_owned()).collect();
    assert_eq!(open(dir.path()).unfinished(), ids);

    let path = segments(dir.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let journal = open(dir.path());
    assert_eq!(journal.unfinished(), &ids[..2]);
    assert_eq!(journal.last_index(), 7);
    append(&journal, 1);
    drop(journal);
    assert!(open(dir.path()).unfinished().is_empty(), "what follows was written after all of it");
    assert_eq!(crate::id_of(b"{}"), None);
}

#[test]
fn checkpoints_come_by_number_and_by_time() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    append(&journal, 2_500);
    assert_eq!(journal.head().0, 2_502);
    let now = read_event(0).ts;
    journal.checkpoint(now.plus_seconds(9)).unwrap();
    assert_eq!(journal.head().0, 2_502);
    journal.checkpoint(now.plus_seconds(10)).unwrap();
    assert_eq!(journal.head().0, 2_503);
    journal.checkpoint(now.plus_seconds(1_000)).unwrap();
    assert_eq!(journal.head().0, 2_503, "without activity there is nothing to say");
    drop(journal);
    let journal = open(dir.path());
    append(&journal, 1);
    let mut batch = journal.batch();
    batch.push(&Event { ts: now.plus_seconds(11), ..read_event(1) });
    journal.append(&mut batch).unwrap();
    assert_eq!(journal.head().0, 2_506);
    assert_eq!(whole(dir.path()), 2_502);
}

#[test]
fn any_record_of_a_long_segment_is_found() {
    let dir = TempDir::new().unwrap();
    append(&open(dir.path()), 6000);
    let segment = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    assert!(bytes.len() > 3 << 20, "long enough to be halved a few times: {}", bytes.len());
    let hashes: Vec<_> =
        bytes.trim_ascii_end().split(|&b| b == b'\n').map(|at| line::parse(at).unwrap().hash).collect();
    let name = format!("{NODE}-0001");
    let found = |seq| recover::hash_of(dir.path(), &name, seq).unwrap();
    for seq in (1..=hashes.len()).step_by(97).chain([hashes.len()]) {
        assert_eq!(found(seq as u64), Some(hashes[seq - 1]), "record {seq}");
    }
    assert_eq!(found(0), None);
    assert_eq!(found(hashes.len() as u64 + 1), None);

    // The line in the middle is no record any more: it is not found, and the others are.
    let middle = bytes.len() / 2;
    let damaged = bytes[..middle].iter().filter(|&&b| b == b'\n').count();
    bytes[middle] = 0x01;
    fs::write(&segment, bytes).unwrap();
    for seq in [1, damaged, damaged + 1, damaged + 2, hashes.len()] {
        let wanted = hashes.get(seq - 1).copied().filter(|_| seq != damaged + 1);
        assert_eq!(found(seq as u64), wanted, "record {seq}");
    }
}
