use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use keyward_model::{Id, SeededEntropy, StateSum, Timestamp};
use tempfile::TempDir;

use super::*;
use crate::fs::sim::{Fault, Loss, SimFs};
use crate::link::Nobody;
use crate::log;
use crate::options::{Fresh, Timing};

/// Counts what it is told.
#[derive(Default)]
struct Told {
    applied: Mutex<u64>,
    failures: Mutex<Vec<String>>,
    /// How often the log wanted to let entries go, and whether it may.
    asked: AtomicU64,
    keeps: AtomicBool,
    /// How often it was asked for room, and whether it has none.
    asked_for_room: AtomicU64,
    is_full: AtomicBool,
}

impl Observer for Told {
    fn applied(&self, _position: Position, commands: &[(Command, Outcome)]) {
        *self.applied.lock().unwrap() += commands.len() as u64;
    }

    fn has_room(&self) -> bool {
        self.asked_for_room.fetch_add(1, Ordering::SeqCst);
        !self.is_full.load(Ordering::SeqCst)
    }

    fn before_purge(&self) -> io::Result<()> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.keeps.load(Ordering::SeqCst) { Err(io::Error::other("not durable yet")) } else { Ok(()) }
    }

    fn replaced(&self, _store: &Store) {}

    fn failed(&self, error: &str) {
        self.failures.lock().unwrap().push(error.to_owned());
    }
}

/// A command that changes nothing and fits the empty state.
fn command(size: usize) -> Command {
    let (request, before, signature) = (Id([0; 16]), StateSum::default(), [0; 32]);
    Command { request, at: Timestamp(0), before, signature, changes: Vec::new(), intent: vec![0; size] }
}

fn start(fs: &SimFs, dir: &Path, told: &Arc<Told>) -> Result<Node, StartError> {
    start_with(fs, dir, told, u64::MAX)
}

fn start_with(fs: &SimFs, dir: &Path, told: &Arc<Told>, log_bytes_max: u64) -> Result<Node, StartError> {
    let options = Options {
        dir: "log".into(),
        node_id: 3,
        fresh: Fresh::Found,
        fs: Arc::new(fs.clone()),
        entropy: Arc::new(SeededEntropy::new(fs.steps())),
        log: log::Options { segment_bytes: 64 << 10, reserve_bytes: 16 << 10, ..log::Options::default() },
        log_bytes_max,
        timing: Timing::default(),
        dialer: Arc::new(Nobody),
        address: String::new(),
    };
    let store = Store::open(dir, &keyward_storage::Options::default())?;
    Node::start(options, store, Arc::clone(told) as Arc<dyn Observer>)
}

#[tokio::test]
async fn a_node_starts_though_its_observer_lets_nothing_go_yet() {
    let (fs, dir, told) = (SimFs::new(), TempDir::new().unwrap(), Arc::new(Told::default()));
    let node = start_with(&fs, dir.path(), &told, 64 << 10).unwrap();
    while node.status().purged.is_none() {
        assert_eq!(node.submit(command(5000)).await, Ok(Outcome::Done));
    }
    node.shutdown().await.unwrap();
    drop(node);
    told.keeps.store(true, Ordering::SeqCst);
    let node = start_with(&fs, dir.path(), &told, 64 << 10).unwrap();
    let purged = node.status().purged;
    for _ in 0..30 {
        assert_eq!(node.submit(command(5000)).await, Ok(Outcome::Done));
    }
    assert_eq!(node.status().purged, purged, "what it may not let go stays");
    told.keeps.store(false, Ordering::SeqCst);
    while node.status().purged == purged {
        assert_eq!(node.submit(command(5000)).await, Ok(Outcome::Done));
    }
    assert_eq!(*told.failures.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn after_a_failed_flush_nothing_is_acknowledged_and_the_node_says_so() {
    for steps in [0, 1, 2, 3, 5, 8] {
        let (fs, dir, told) = (SimFs::new(), TempDir::new().unwrap(), Arc::new(Told::default()));
        let node = start(&fs, dir.path(), &told).unwrap();
        assert_eq!(node.submit(command(10)).await, Ok(Outcome::Done));
        fs.fail_at(fs.steps() + steps, Fault::Io);
        let mut acknowledged = 1;
        loop {
            match node.submit(command(5000)).await {
                Ok(outcome) => assert_eq!(outcome, Outcome::Done),
                Err(error) => {
                    assert!(matches!(error, SubmitError::Unknown | SubmitError::Stopped), "{error}");
                    break;
                }
            }
            acknowledged += 1;
        }
        assert_eq!(told.failures.lock().unwrap().len().min(1), 1);
        assert!(node.submit(command(1)).await.is_err());
        drop(node.shutdown().await);
        drop(node);
        assert_eq!(*told.applied.lock().unwrap(), acknowledged);
        // The state ran ahead of the log nowhere: what is left of the log holds all that was acknowledged.
        let told = Arc::new(Told::default());
        let node = start(&fs.after_crash(Loss::All, 0), dir.path(), &told).unwrap();
        let read = node.read_commands(0..=u64::MAX - 1).unwrap();
        assert!(read.iter().map(|(_, commands)| commands.len() as u64).sum::<u64>() >= acknowledged);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_before_it_accepts_and_heals() {
    let (fs, dir, told) = (SimFs::new(), TempDir::new().unwrap(), Arc::new(Told::default()));
    let node = start(&fs, dir.path(), &told).unwrap();
    fs.limit(Some(220 << 10));
    let mut acknowledged: u64 = 0;
    let refused = loop {
        match node.submit(command(5000)).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100, "the limit was never noticed");
    };
    assert!(matches!(refused, SubmitError::DiskFull { reserve_bytes } if reserve_bytes >= 16 << 10), "{refused}");
    assert!(node.status().disk_full);
    fs.limit(None);
    let began = Instant::now();
    while matches!(node.submit(command(5000)).await, Err(SubmitError::DiskFull { .. })) {
        assert!(began.elapsed() < Duration::from_secs(10), "space came back unnoticed");
        tokio::task::yield_now().await;
    }
    assert_eq!(node.submit(command(1)).await, Ok(Outcome::Done));
    assert_eq!(*told.failures.lock().unwrap(), Vec::<String>::new());
    node.shutdown().await.unwrap();
    assert_eq!(*told.applied.lock().unwrap(), acknowledged + 2);
}

#[tokio::test]
async fn what_is_kept_for_the_receiver_of_a_snapshot_goes_when_the_disk_is_full() {
    let (fs, dir, told) = (SimFs::new(), TempDir::new().unwrap(), Arc::new(Told::default()));
    let node = start_with(&fs, dir.path(), &told, 64 << 10).unwrap();
    node.host.board.transit().keep(2, 0);
    fs.limit(Some(220 << 10));
    loop {
        // One look: between two of them the disk may run full, and room be made.
        let status = node.status();
        if status.disk_full {
            break;
        }
        assert_eq!(status.purged, None, "it is kept as long as there is space");
        drop(node.submit(command(5000)).await);
    }
    let began = Instant::now();
    while node.status().purged.is_none() || node.submit(command(1)).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "nothing made room: {:?}", node.status());
        tokio::task::yield_now().await;
    }
    assert_eq!(*told.failures.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn whoever_waits_is_told_when_the_node_goes_away() {
    let (fs, dir, told) = (SimFs::new(), TempDir::new().unwrap(), Arc::new(Told::default()));
    let node = start(&fs, dir.path(), &told).unwrap();
    let waiting: Vec<_> = (0..2000).map(|_| node.enqueue(command(100)).unwrap()).collect();
    drop(node);
    let mut done = 0;
    for submission in waiting {
        match submission.await {
            Ok(Outcome::Done) => done += 1,
            Ok(Outcome::Stale) => panic!("nothing was stale"),
            Err(error) => assert!(matches!(error, SubmitError::Unknown | SubmitError::Stopped), "{error}"),
        }
    }
    assert!(*told.applied.lock().unwrap() >= done);
}

#[tokio::test]
async fn nothing_is_purged_before_the_observer_made_its_own_durable() {
    let (fs, dir, told) = (SimFs::new(), TempDir::new().unwrap(), Arc::new(Told::default()));
    told.keeps.store(true, Ordering::SeqCst);
    let node = start_with(&fs, dir.path(), &told, 1).unwrap();
    while told.asked.load(Ordering::SeqCst) < 3 {
        assert_eq!(node.submit(command(100)).await, Ok(Outcome::Done));
    }
    assert_eq!(node.status().purged, None);
    told.keeps.store(false, Ordering::SeqCst);
    let began = Instant::now();
    while node.status().purged.is_none() {
        assert!(began.elapsed() < Duration::from_secs(10), "it was not asked again");
        assert_eq!(node.submit(command(100)).await, Ok(Outcome::Done));
    }
    assert_eq!(*told.failures.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_applied_that_the_observer_has_no_room_for() {
    let (fs, dir, told) = (SimFs::new(), TempDir::new().unwrap(), Arc::new(Told::default()));
    let node = start(&fs, dir.path(), &told).unwrap();
    assert_eq!(node.submit(command(100)).await, Ok(Outcome::Done));
    told.is_full.store(true, Ordering::SeqCst);
    let asked = told.asked_for_room.load(Ordering::SeqCst);
    let mut waiting = tokio::spawn(node.enqueue(command(100)).unwrap());
    while told.asked_for_room.load(Ordering::SeqCst) < asked + 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*told.applied.lock().unwrap(), 1);
    assert!(!waiting.is_finished());
    assert!(!node.status().disk_full, "another disk may be");
    told.is_full.store(false, Ordering::SeqCst);
    assert_eq!((&mut waiting).await.unwrap(), Ok(Outcome::Done), "asked again, and gone on");

    told.is_full.store(true, Ordering::SeqCst);
    let waiting = tokio::spawn(node.enqueue(command(100)).unwrap());
    let asked = told.asked_for_room.load(Ordering::SeqCst);
    while told.asked_for_room.load(Ordering::SeqCst) == asked {
        tokio::task::yield_now().await;
    }
    node.shutdown().await.unwrap();
    assert!(waiting.await.unwrap().is_err(), "a stop does not wait for room");
    told.is_full.store(false, Ordering::SeqCst);
    drop(node);
    let node = start(&fs, dir.path(), &told).unwrap();
    assert_eq!(node.submit(command(100)).await, Ok(Outcome::Done));
    assert_eq!(*told.applied.lock().unwrap(), 4, "what waited is applied by the next start");
    assert_eq!(*told.failures.lock().unwrap(), Vec::<String>::new());
}
