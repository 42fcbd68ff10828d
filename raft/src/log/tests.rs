use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use keyward_model::SeededEntropy;
use openraft::EntryPayload;

use super::*;
use crate::fs::sim::{Fault, Loss, SimFs};
use crate::types::{Batch, log_id};

const OPTIONS: Options =
    Options { segment_bytes: 16 << 10, tail_bytes: 4 << 10, unapplied_bytes: 8 << 10, reserve_bytes: 0 };
const DIR: &str = "log";

fn ground(fs: &SimFs, inline: bool) -> Ground {
    Ground {
        fs: Arc::new(fs.clone()),
        dir: DIR.into(),
        chance: Arc::new(SeededEntropy::new(fs.steps() + 1)),
        failed: Box::new(|_| {}),
        inline,
    }
}

fn open(fs: &SimFs) -> Result<Log, OpenError> {
    Log::open(ground(fs, true), OPTIONS)
}

/// An entry whose bytes tell its term and index.
fn entry(term: u64, index: u64, size: usize) -> Entry {
    let fill = u8::try_from((term * 31 + index * 7) % 251).unwrap();
    Entry { log_id: log_id(term, 1, index), payload: EntryPayload::Normal(Batch::new(Bytes::from(vec![fill; size]))) }
}

/// One record of the workload, as the log's users see it.
#[derive(Clone, Debug)]
enum Act {
    Entry(Entry),
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
}

/// What a log holds.
#[derive(Clone, PartialEq, Debug, Default)]
struct Content {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    entries: Vec<Entry>,
}

impl Content {
    fn of(log: &Log) -> Self {
        let entries = log.read(0..u64::MAX, u64::MAX).unwrap();
        Self { vote: log.vote(), purged: log.purged(), last: log.last(), entries }
    }

    fn after(acts: &[Act]) -> Self {
        let mut content = Self::default();
        for act in acts {
            match act {
                Act::Entry(entry) => {
                    content.last = Some(entry.log_id);
                    content.entries.push(entry.clone());
                }
                Act::Vote(vote) => content.vote = Some(*vote),
                Act::Truncate(last) => {
                    let from = last.map_or(0, |last| last.index + 1);
                    content.entries.retain(|entry| entry.log_id.index < from);
                    content.last = *last;
                }
                Act::Purge(upto) => {
                    content.purged = Some(*upto);
                    content.entries.retain(|entry| entry.log_id.index > upto.index);
                }
            }
        }
        content
    }
}

/// Acts in groups; each group is one flush.
fn workload() -> Vec<Vec<Act>> {
    let mut groups = vec![vec![Act::Vote(Vote::new(1, 1))], vec![Act::Vote(Vote::new_committed(1, 1))]];
    for index in 0..12 {
        groups.push(vec![Act::Entry(entry(1, index, 700 + 300 * usize::try_from(index % 5).unwrap()))]);
    }
    groups.push((12..20).map(|index| Act::Entry(entry(1, index, 2000))).collect());
    groups.push(vec![Act::Truncate(Some(log_id(1, 1, 16))), Act::Vote(Vote::new(2, 1)), Act::Entry(entry(2, 17, 900))]);
    groups.push(vec![Act::Purge(log_id(1, 1, 13)), Act::Entry(entry(2, 18, 5000))]);
    for index in 19..26 {
        groups.push(vec![Act::Entry(entry(2, index, 1500)), Act::Vote(Vote::new(index, 1))]);
    }
    groups.push(vec![Act::Purge(log_id(2, 1, 23)), Act::Entry(entry(2, 26, 10))]);
    groups.push(vec![Act::Truncate(Some(log_id(2, 1, 24))), Act::Entry(entry(3, 25, 100))]);
    groups
}

/// Runs the workload until it fails; gives how many acts were acknowledged and how many were asked.
fn run(log: &Log, groups: &[Vec<Act>]) -> (usize, usize) {
    let (sender, receiver) = mpsc::channel();
    let (mut asked, mut known) = (0, 0);
    for group in groups {
        let mut ops = Vec::new();
        for act in group {
            asked += 1;
            let (sender, at) = (sender.clone(), asked);
            let done: Done = Box::new(move |result| {
                if result.is_ok() {
                    sender.send(at).unwrap_or(())
                }
            });
            let mut memory = log.0.shared.memory();
            match act.clone() {
                Act::Entry(entry) => {
                    memory.append(entry.clone()).unwrap();
                    memory.released = entry.log_id.index;
                    memory.committed = Some(entry.log_id);
                    ops.push(Op::Append(vec![entry], done));
                }
                Act::Vote(vote) => {
                    memory.vote = Some(vote);
                    ops.push(Op::Vote(vote, done));
                }
                Act::Truncate(last) => {
                    let from = last.map_or(0, |last| last.index + 1);
                    memory.truncate(from, last);
                    ops.push(Op::Truncate(from));
                }
                Act::Purge(upto) => {
                    memory.purge(upto);
                    ops.push(Op::Purge(upto));
                }
            }
        }
        log.submit(ops);
        known = receiver.try_iter().last().unwrap_or(known);
        if log.check().is_err() {
            break;
        }
    }
    (known, asked)
}

#[test]
fn whatever_was_acknowledged_survives_a_power_cut_at_any_step() {
    let groups = workload();
    let acts: Vec<Act> = groups.concat();
    let mut step = 0;
    loop {
        let fs = SimFs::new();
        fs.fail_at(step, Fault::PowerCut);
        let (known, asked) = match open(&fs) {
            Ok(log) => run(&log, &groups),
            Err(_) => (0, 0),
        };
        let finished = fs.steps() < step;
        for (loss, seeds) in [(Loss::All, 1), (Loss::Suffix, 4), (Loss::Sectors, 6)] {
            for seed in 0..seeds {
                let fs = fs.after_crash(loss, seed);
                let what = format!("power cut at step {step}, {loss:?}, seed {seed}");
                let log = open(&fs).unwrap_or_else(|error| panic!("{what}: {error}"));
                let found = Content::of(&log);
                let agrees = (known..=asked).find(|count| Content::after(&acts[..*count]) == found);
                let Some(count) = agrees else {
                    panic!("{what}: acknowledged {known} of {asked}, found {found:#?}");
                };
                // Life goes on: what comes now is found next to what was there.
                let next = found.last.map_or(0, |last| last.index + 1);
                let more = vec![Act::Entry(entry(9, next, 333)), Act::Vote(Vote::new(99, 1))];
                assert_eq!(run(&log, std::slice::from_ref(&more)), (2, 2), "{what}");
                drop(log);
                let expected = Content::after(&[&acts[..count], &more].concat());
                let log = open(&fs.after_crash(Loss::All, 0)).unwrap_or_else(|error| panic!("{what}, again: {error}"));
                assert_eq!(Content::of(&log), expected, "{what}, again");
            }
        }
        if finished {
            assert_eq!(known, acts.len());
            break;
        }
        step += 1;
    }
    assert!(step > 80, "the workload has steps: {step}");
}

#[test]
fn an_error_of_the_disk_is_final_and_nobody_is_told_a_lie() {
    let groups = workload();
    let fs = SimFs::new();
    run(&open(&fs).unwrap(), &groups);
    for step in 10..fs.steps() {
        let fs = SimFs::new();
        fs.fail_at(step, Fault::Io);
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        let failed = Box::new(move |_: &str| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let Ok(log) = Log::open(Ground { failed, ..ground(&fs, true) }, OPTIONS) else { continue };
        let (known, asked) = run(&log, &groups);
        assert_eq!(calls.load(Ordering::SeqCst), 1, "step {step}");
        assert!(log.append(vec![entry(9, 99, 1)], Box::new(|_| {})).is_err());
        // Whoever had asked before it failed, and comes to the writer after that, is told.
        let (sender, told) = mpsc::channel();
        log.flush(Box::new(move |result| drop(sender.send(result))));
        assert!(told.recv().is_ok_and(|result| result.is_err()), "step {step}");
        assert!(log.close().is_err());
        let log = open(&fs.after_crash(Loss::All, 0)).unwrap();
        let found = Content::of(&log);
        let acts = groups.concat();
        assert!((known..=asked).any(|count| Content::after(&acts[..count]) == found), "step {step}");
    }
}

/// A log with everything durable and its horizon at the end.
fn closed() -> SimFs {
    let fs = SimFs::new();
    let log = open(&fs).unwrap();
    run(&log, &workload());
    log.close().unwrap();
    fs
}

fn segments(fs: &SimFs) -> Vec<String> {
    let mut names = fs.list(Path::new(DIR)).unwrap();
    names.retain(|name| name.starts_with("log-"));
    names.sort();
    names
}

#[test]
fn a_flipped_bit_anywhere_in_the_log_is_refused_with_file_and_offset() {
    let names = segments(&closed());
    for name in &names {
        let path = Path::new(DIR).join(name);
        let bytes = closed().bytes(&path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        for at in (0..used).step_by(97).filter(|at| !(52..4096).contains(at)) {
            let fs = closed();
            fs.damage(&path, at, &[bytes[at] ^ 4]);
            let message = match open(&fs) {
                Ok(_) => panic!("{name} at {at} was taken"),
                Err(error) => error.to_string(),
            };
            assert!(message.contains("restore this node"), "{message}");
        }
    }
}

#[test]
fn a_log_that_ends_before_its_horizon_is_refused() {
    let fs = closed();
    let names = segments(&fs);
    let active = Path::new(DIR).join(&names[names.len() - 2]);
    let bytes = fs.bytes(&active).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    fs.damage(&active, used - 200, &[0; 201]);
    let message = open(&fs).err().unwrap().to_string();
    assert!(message.contains("has lost acknowledged entries"), "{message}");

    let fs = closed();
    fs.remove(&Path::new(DIR).join("horizon")).unwrap();
    assert!(open(&fs).err().unwrap().to_string().contains("horizon"));

    let fs = closed();
    fs.remove(&Path::new(DIR).join(&names[0])).unwrap();
    let message = open(&fs).err().unwrap().to_string();
    assert!(message.contains("missing") || message.contains("lost"), "{message}");
}

#[test]
fn purged_segments_are_gone_and_hold_nothing() {
    let fs = SimFs::new();
    let log = open(&fs).unwrap();
    for index in 0..40 {
        run(&log, &[vec![Act::Entry(entry(1, index, 1000))]]);
    }
    let before = log.bytes();
    run(&log, &[vec![Act::Purge(log_id(1, 1, 30))]]);
    assert!(log.bytes() < before / 2);
    assert_eq!(Content::of(&log).entries.len(), 9);
    assert!(log.read(0..5, u64::MAX).unwrap().is_empty());
    log.close().unwrap();
    assert_eq!(Content::of(&open(&fs).unwrap()).entries.len(), 9);
}

#[test]
fn entries_that_nobody_applies_do_not_fill_the_memory() {
    let fs = SimFs::new();
    let log = open(&fs).unwrap();
    for index in 0..60 {
        log.append(vec![entry(1, index, 1000)], Box::new(|result| assert!(result.is_ok()))).unwrap();
        assert!(log.0.shared.memory().tail_bytes() <= OPTIONS.unapplied_bytes, "after entry {index}");
    }
    assert_eq!(Content::of(&log).entries, (0..60).map(|index| entry(1, index, 1000)).collect::<Vec<_>>());
    assert!(!log.is_at_hand(40) && log.is_at_hand(59));
    log.release(60);
    assert!(log.0.shared.memory().tail_bytes() <= OPTIONS.tail_bytes);
}

#[test]
fn a_full_disk_is_known_before_anything_is_lost_and_heals() {
    let fs = SimFs::new();
    let log = Log::open(ground(&fs, false), Options { reserve_bytes: 8 << 10, ..OPTIONS }).unwrap();
    let write = |index| {
        let (sender, receiver) = mpsc::channel();
        log.append(vec![entry(1, index, 1000)], Box::new(move |result| drop(sender.send(result)))).unwrap();
        receiver.recv().unwrap().unwrap();
    };
    write(0);
    fs.limit(Some(60 << 10));
    let mut index = 1;
    while !log.is_full() {
        write(index);
        index += 1;
        assert!(index < 60, "the limit was never noticed");
    }
    // What was accepted has room, though nothing new may come.
    write(index);
    fs.limit(None);
    let woken = std::time::Instant::now();
    while log.is_full() {
        assert!(woken.elapsed() < Duration::from_secs(10));
        thread::yield_now();
    }
    write(index + 1);
    log.close().unwrap();
    assert_eq!(Content::of(&open(&fs).unwrap()).entries.len() as u64, index + 2);
}

#[test]
fn a_close_does_not_wait_for_space_and_loses_nothing_that_was_acknowledged() {
    let fs = SimFs::new();
    let failures = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&failures);
    let ground =
        Ground { failed: Box::new(move |why: &str| told.lock().unwrap().push(why.to_owned())), ..ground(&fs, false) };
    let log = Log::open(ground, OPTIONS).unwrap();
    let (sender, receiver) = mpsc::channel();
    let append = |index| {
        let sender = sender.clone();
        log.append(
            vec![entry(1, index, 1000)],
            Box::new(move |result| sender.send((index, result.is_ok())).unwrap_or(())),
        )
        .unwrap();
    };
    append(0);
    receiver.recv().unwrap();
    fs.limit(Some(60 << 10));
    // More than the segments there are can take: the last ones wait.
    (1..80).for_each(append);
    let woken = std::time::Instant::now();
    while !*log.starving().borrow() {
        assert!(woken.elapsed() < Duration::from_secs(10));
        thread::yield_now();
    }
    assert!(log.is_full());
    assert!(log.needed_bytes() >= u64::from(OPTIONS.segment_bytes));
    assert!(log.close().is_err(), "not all of it is durable");
    drop(sender);
    let acknowledged = 1 + receiver.iter().filter(|(_, durable)| *durable).count();
    assert!(acknowledged < 80);
    assert_eq!(*failures.lock().unwrap(), Vec::<String>::new(), "nothing has failed");
    fs.limit(None);
    assert!(Content::of(&open(&fs).unwrap()).entries.len() >= acknowledged);
}

#[test]
fn a_large_record_passes_the_small_first_segment() {
    let fs = SimFs::new();
    let options = Options { segment_bytes: 12 << 20, ..OPTIONS };
    let log = Log::open(ground(&fs, true), options).unwrap();
    assert_eq!(run(&log, &[vec![Act::Entry(entry(1, 0, 6 << 20))], vec![Act::Entry(entry(1, 1, 10))]]), (2, 2));
    let expected = Content::of(&log);
    log.close().unwrap();
    assert_eq!(Content::of(&Log::open(ground(&fs, true), options).unwrap()), expected);
}

#[test]
fn many_writers_share_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let ground = Ground { fs: Arc::new(crate::fs::OsFs), dir: dir.path().into(), ..ground(&SimFs::new(), false) };
    let log = Log::open(ground, Options { segment_bytes: 1 << 20, ..OPTIONS }).unwrap();
    let (sender, receiver) = mpsc::channel();
    for index in 0..2000 {
        let sender = sender.clone();
        log.append(
            vec![entry(1, index, 900)],
            Box::new(move |result| sender.send((index, result.is_ok())).unwrap_or(())),
        )
        .unwrap();
    }
    drop(sender);
    let told: Vec<(u64, bool)> = receiver.iter().collect();
    assert_eq!(told, (0..2000).map(|index| (index, true)).collect::<Vec<_>>(), "in order, each once");
    assert!(log.flushes() < 1000, "{} flushes", log.flushes());
    log.close().unwrap();
}
