//! Clients that work on a cluster while it is hurt, and write down what they did and what came of it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, Response};
use crate::cluster::{Cluster, MOUNT};
use crate::history::{self, Action, Answer, Operation, Outcome};
use crate::linearizable::{self, Effort};
use crate::order;
use crate::suite::{self, Chance};

/// How long a client waits for an answer before it counts the outcome as unknown. A node without a leader answers
/// after two seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a fault waits for the clients to get something done.
const PROGRESS_MAX: Duration = Duration::from_secs(60);
/// Numbers of the clients that look at everything when the load is over: above those of the load.
const AUDITOR: u32 = 1000;

/// Numbers of the clients that [`probe`].
const PROBER: u32 = 500;
/// Time for a question to leave this process.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// What clients do.
#[derive(Clone, Debug)]
pub struct Load {
    /// How many, each with one request at a time.
    pub clients: u32,
    /// Secrets that they share. Of the odd ones no version is ever promoted, so that their numbers only rise.
    pub keys: u32,
    /// Time between two requests of one client: the processors are for the nodes.
    pub pause: Duration,
    /// The folder of the secrets: no two loads on one cluster may share it.
    pub folder: String,
    /// Repeats the choices of a run.
    pub seed: u64,
}

impl Load {
    /// Eight clients on ten secrets, some hundred requests a second together.
    pub fn new(folder: &str, chance: &mut Chance) -> Self {
        let pause = Duration::from_millis(15);
        Self { clients: 8, keys: 10, pause, folder: folder.to_owned(), seed: chance.word() }
    }

    /// The secret that only [`probe`] and [`write_quiet`] touch.
    fn quiet(&self) -> u32 {
        self.keys
    }
}

/// The nodes that clients may turn to; it can change while they work.
#[derive(Clone)]
pub struct Targets {
    root: String,
    addresses: Arc<RwLock<Vec<String>>>,
}

impl Targets {
    /// These nodes of a cluster.
    pub fn new(cluster: &Cluster, nodes: &[usize]) -> Self {
        let targets = Self::at(&cluster.root, Vec::new());
        targets.set(cluster, nodes);
        targets
    }

    /// Servers at these addresses.
    pub fn at(root: &str, addresses: Vec<String>) -> Self {
        Self { root: root.to_owned(), addresses: Arc::new(RwLock::new(addresses)) }
    }

    /// From now on these. What was sent to others is still waited for.
    pub fn set(&self, cluster: &Cluster, nodes: &[usize]) {
        let chosen = nodes.iter().map(|node| cluster.nodes[*node].address.clone()).collect();
        *self.addresses.write().unwrap() = chosen;
    }

    fn any(&self, chance: &mut Chance) -> String {
        let addresses = self.addresses.read().unwrap();
        addresses[chance.below(addresses.len() as u64) as usize].clone()
    }
}

/// A load under way, for whoever hurts the cluster meanwhile.
pub struct Watch {
    origin: Instant,
    succeeded: AtomicU64,
    /// Values that were not given to clients of the load.
    values: AtomicU64,
    over: AtomicBool,
}

impl Watch {
    /// Now, on the clock of the history.
    pub fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// Waits until the clients succeeded so many times more.
    pub fn progress(&self, more: u64) {
        let goal = self.succeeded.load(Ordering::Relaxed) + more;
        suite::wait_for("the clients get something done", PROGRESS_MAX, || {
            (self.succeeded.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// A value that nobody else writes.
    fn value(&self) -> u64 {
        (u64::from(PROBER) << 32) + self.values.fetch_add(1, Ordering::Relaxed)
    }

    fn ask(&self, client: &mut Client, load: &Load, number: u32, key: u32, action: Action) -> Operation {
        let called = self.now();
        let (outcome, _) = perform(client, &load.folder, key, action);
        Operation { client: number, key, called, returned: self.now(), action, outcome }
    }
}

/// What came of a load.
pub struct Run {
    /// Every operation.
    pub history: Vec<Operation>,
    /// Why operations failed or are unknown, and how often.
    pub troubles: BTreeMap<String, u64>,
    load: Load,
}

/// Lets clients work on `targets` while `faults` runs, and ends with it.
pub fn run<T>(targets: &Targets, load: &Load, faults: impl FnOnce(&Watch) -> T) -> (Run, T) {
    let watch = Watch {
        origin: Instant::now(),
        succeeded: AtomicU64::new(0),
        values: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    let (parts, result) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..load.clients)
            .map(|number| {
                let worker = Worker::new(number, load, targets, &watch);
                scope.spawn(move || worker.work())
            })
            .collect();
        // Also when the faults panic: the clients must end, or the scope would wait for ever.
        let over = Over(&watch.over);
        let result = faults(&watch);
        drop(over);
        let parts: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("a client")).collect();
        (parts, result)
    });
    let mut run = Run { history: Vec::new(), troubles: BTreeMap::new(), load: load.clone() };
    for (history, troubles) in parts {
        run.history.extend(history);
        for (trouble, count) in troubles {
            *run.troubles.entry(trouble).or_default() += count;
        }
    }
    (run, result)
}

/// Asks one node for every secret of a load, and for a write of the quiet one that expects version `quiet` to be current,
/// each over a connection of its own; runs `meanwhile` when the questions are on their way.
///
/// The clients leave the quiet secret alone, so that it is plain what is current: whoever refuses the write, or writes
/// over another version, did not know.
pub fn probe(
    cluster: &Cluster,
    node: usize,
    load: &Load,
    watch: &Watch,
    quiet: u64,
    meanwhile: impl FnOnce(),
) -> Vec<Operation> {
    let asking = AtomicU64::new(0);
    let reads = (0..load.keys).map(|key| (key, Action::Get { version: None }));
    let write = Action::Put { value: watch.value(), cas: Some(quiet) };
    let actions: Vec<_> = reads.chain([(load.quiet(), write)]).collect();
    std::thread::scope(|scope| {
        let askers: Vec<_> = actions
            .iter()
            .map(|&(key, action)| {
                let asking = &asking;
                let mut client = cluster.client(node).with_patience(PATIENCE);
                scope.spawn(move || {
                    asking.fetch_add(1, Ordering::Relaxed);
                    watch.ask(&mut client, load, PROBER + key, key, action)
                })
            })
            .collect();
        suite::wait_for("the probes", PROGRESS_MAX, || {
            (asking.load(Ordering::Relaxed) == actions.len() as u64).then_some(())
        });
        suite::rest(ON_ITS_WAY);
        meanwhile();
        askers.into_iter().map(|asker| asker.join().expect("a probe")).collect()
    })
}

/// Writes the quiet secret through one node; with the number that it has now.
pub fn write_quiet(cluster: &Cluster, node: usize, load: &Load, watch: &Watch) -> (Operation, u64) {
    let action = Action::Put { value: watch.value(), cas: None };
    let mut client = cluster.client(node).with_patience(PATIENCE);
    let operation = watch.ask(&mut client, load, PROBER + load.quiet(), load.quiet(), action);
    let Some(Answer::Written { version }) = operation.answer() else {
        panic!("node {node} does not write: {operation:?}")
    };
    (operation, version)
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Run {
    /// Operations that succeeded.
    pub fn succeeded(&self) -> usize {
        self.history.iter().filter(|operation| operation.succeeded()).count()
    }

    /// Operations without an answer that tells something.
    pub fn troubled(&self) -> usize {
        self.history.iter().filter(|operation| operation.answer().is_none()).count()
    }

    /// Writes that were answered within `from..to`.
    pub fn writes(&self, from: u64, to: u64) -> usize {
        let answered = |operation: &&Operation| operation.is_write() && operation.answer().is_some();
        self.history.iter().filter(answered).filter(|write| (from..to).contains(&write.returned)).count()
    }

    /// The longest time within `from..to` during which no write was answered: how long a fault was felt.
    pub fn longest_gap(&self, from: u64, to: u64) -> Duration {
        let writes = self.history.iter().filter(|operation| operation.is_write() && operation.answer().is_some());
        let mut moments: Vec<u64> = writes.map(|write| write.returned).filter(|at| (from..to).contains(at)).collect();
        moments.extend([from, to]);
        moments.sort_unstable();
        let gap = moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        Duration::from_nanos(gap)
    }

    /// Reads what is there when all is over, from each of these nodes: what is current, every third version in turn,
    /// so that each version is read from some node, and the newest few from all.
    pub fn look(&mut self, cluster: &Cluster, nodes: &[usize]) {
        // The readers' clock begins when the last client was done.
        let end = self.history.iter().map(|operation| operation.returned).max().unwrap_or_default() + 1;
        let origin = Instant::now();
        let seen: Vec<Vec<Operation>> = std::thread::scope(|scope| {
            let readers: Vec<_> = nodes
                .iter()
                .enumerate()
                .map(|(turn, node)| {
                    let (folder, keys) = (&self.load.folder, self.load.keys);
                    let mut client = cluster.client(*node);
                    scope.spawn(move || {
                        let mut seen = Vec::new();
                        for key in 0..=keys {
                            let newest = newest(&mut client, folder, key);
                            let turns = |version: &u64| *version as usize % nodes.len() == turn || version + 5 > newest;
                            let numbers = (1..=newest).filter(turns).map(Some);
                            for version in numbers.chain([None]) {
                                let called = end + origin.elapsed().as_nanos() as u64;
                                let action = Action::Get { version };
                                let (outcome, trouble) = perform(&mut client, folder, key, action);
                                assert_eq!(trouble, None, "node {node} is asked when all is over");
                                let returned = end + origin.elapsed().as_nanos() as u64;
                                let client = AUDITOR + turn as u32;
                                seen.push(Operation { client, key, called, returned, action, outcome });
                            }
                        }
                        seen
                    })
                })
                .collect();
            readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
        });
        self.history.extend(seen.into_iter().flatten());
    }

    /// Judges the history, and says what it holds. A history in which less than `least` succeeded proves nothing.
    pub fn judge(&self, name: &str, least: usize) -> Effort {
        let succeeded = self.succeeded();
        let judged = order::check(&self.history).and_then(|()| linearizable::check(&self.history));
        match judged {
            Ok(effort) => {
                assert!(succeeded >= least, "{name}: only {succeeded} operations succeeded: {:?}", self.troubles);
                eprintln!(
                    "{name}: {} operations are linearizable, {succeeded} succeeded, {} writes have no answer; {:?}",
                    effort.answered, effort.unknown, self.troubles
                );
                effort
            }
            Err(violation) => {
                let kept = history::keep(&self.history, name);
                panic!("{name}: the history in {} is wrong: {violation}", kept.display());
            }
        }
    }
}

/// The newest number of a secret, as a node tells it.
fn newest(client: &mut Client, folder: &str, key: u32) -> u64 {
    let answer = client.get(&format!("{MOUNT}/metadata/{folder}/k{key}"));
    if answer.status == 404 {
        return 0;
    }
    let answer = answer.expect(200).json();
    let versions = answer["data"]["versions"].as_object().expect("versions");
    versions.keys().filter_map(|number| number.parse().ok()).max().unwrap_or(0)
}

/// One client of the load.
struct Worker<'a> {
    number: u32,
    load: &'a Load,
    targets: &'a Targets,
    watch: &'a Watch,
    chance: Chance,
    clients: BTreeMap<String, Client>,
    /// The newest and the current version of each secret, as far as this client knows.
    known: Vec<(u64, u64)>,
    written: u64,
}

impl<'a> Worker<'a> {
    fn new(number: u32, load: &'a Load, targets: &'a Targets, watch: &'a Watch) -> Self {
        Self {
            number,
            load,
            targets,
            watch,
            chance: Chance::seeded(load.seed ^ u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            clients: BTreeMap::new(),
            known: vec![(0, 0); load.keys as usize],
            written: 0,
        }
    }

    fn work(mut self) -> (Vec<Operation>, BTreeMap<String, u64>) {
        let (mut history, mut troubles) = (Vec::new(), BTreeMap::new());
        while !self.watch.over.load(Ordering::Relaxed) {
            let key = self.chance.below(u64::from(self.load.keys)) as u32;
            let action = self.choose(key);
            let target = self.targets.any(&mut self.chance);
            let client = self
                .clients
                .entry(target)
                .or_insert_with_key(|address| Client::new(address, &self.targets.root).with_patience(PATIENCE));
            let called = self.watch.now();
            let (outcome, trouble) = perform(client, &self.load.folder, key, action);
            let operation = Operation { client: self.number, key, called, returned: self.watch.now(), action, outcome };
            if let Some(trouble) = trouble {
                *troubles.entry(trouble).or_default() += 1;
            }
            self.learn(&operation);
            if operation.succeeded() {
                self.watch.succeeded.fetch_add(1, Ordering::Relaxed);
            }
            history.push(operation);
            suite::rest(self.load.pause);
        }
        (history, troubles)
    }

    fn choose(&mut self, key: u32) -> Action {
        let (newest, current) = self.known[key as usize];
        match self.chance.below(20) {
            0..8 => Action::Get { version: None },
            8..10 if newest > 0 => Action::Get { version: Some(1 + self.chance.below(newest)) },
            8..13 => self.put(None),
            13..17 => self.put(Some(current)),
            17 => Action::Delete,
            _ if key.is_multiple_of(2) && newest > 0 => {
                Action::Promote { from: current, to: 1 + self.chance.below(newest) }
            }
            _ => Action::Get { version: None },
        }
    }

    fn put(&mut self, cas: Option<u64>) -> Action {
        self.written += 1;
        Action::Put { value: (u64::from(self.number) << 32) + self.written, cas }
    }

    fn learn(&mut self, operation: &Operation) {
        let (newest, current) = &mut self.known[operation.key as usize];
        match (operation.action, operation.answer()) {
            (Action::Put { .. }, Some(Answer::Written { version })) => *current = version,
            (Action::Get { version: None }, Some(Answer::Value { version, .. } | Answer::Deleted { version })) => {
                *current = version;
            }
            (Action::Promote { to, .. }, Some(Answer::Done)) => *current = to,
            _ => {}
        }
        *newest = (*newest).max(*current);
    }
}

/// Does one thing, and says what is wrong where there is no telling answer.
fn perform(client: &mut Client, folder: &str, key: u32, action: Action) -> (Outcome, Option<String>) {
    if let Err(error) = client.connect() {
        return (Outcome::Failed, Some(format!("no connection: {:?}", error.kind())));
    }
    let (verb, path, body) = request(folder, key, action);
    let answer = client.try_call(verb, &path, &[], body.as_ref());
    match answer {
        Ok(answer) if answer.status == 503 => {
            let text = answer.json()["errors"][0].as_str().unwrap_or_default().to_owned();
            // A refusal changed nothing unless it says so: the promise of docs/concepts/consistency.md.
            let outcome = if text.contains("not known whether") { Outcome::Unknown } else { Outcome::Failed };
            (outcome, Some(format!("503 {text}")))
        }
        Ok(answer) => (Outcome::Answered(read(action, &answer)), None),
        Err(error) => {
            let kind = match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => "no answer in time".to_owned(),
                kind => format!("hung up: {kind:?}"),
            };
            (Outcome::Unknown, Some(kind))
        }
    }
}

fn request(folder: &str, key: u32, action: Action) -> (&'static str, String, Option<Value>) {
    let data = format!("{MOUNT}/data/{folder}/k{key}");
    match action {
        Action::Put { value, cas: None } => ("PUT", data, Some(json!({"data": {"value": value}}))),
        Action::Put { value, cas } => ("PUT", data, Some(json!({"data": {"value": value}, "options": {"cas": cas}}))),
        Action::Get { version: None } => ("GET", data, None),
        Action::Get { version: Some(version) } => ("GET", format!("{data}?version={version}"), None),
        Action::Delete => ("DELETE", data, None),
        Action::Promote { from, to } => {
            let from = if from == 0 { Value::Null } else { json!(from) };
            let body = json!({"alias": "current", "version": to, "expected_previous_version": from});
            ("POST", format!("{MOUNT}/aliases/{folder}/k{key}"), Some(body))
        }
    }
}

fn read(action: Action, answer: &Response) -> Answer {
    let body = answer.json();
    let number = |pointer: &str| body.pointer(pointer).and_then(Value::as_u64);
    let meant = match (action, answer.status) {
        (Action::Put { .. }, 200) => number("/data/version").map(|version| Answer::Written { version }),
        (Action::Put { cas: Some(_), .. }, 400) if answer.text().contains("check-and-set") => Some(Answer::Refused),
        (Action::Delete | Action::Promote { .. }, 204) => Some(Answer::Done),
        (Action::Promote { .. }, 400 | 404) => Some(Answer::Refused),
        (Action::Get { .. }, 200) => number("/data/metadata/version")
            .zip(number("/data/data/value"))
            .map(|(version, value)| Answer::Value { version, value }),
        (Action::Get { .. }, 404) => {
            Some(number("/data/metadata/version").map_or(Answer::Absent, |version| Answer::Deleted { version }))
        }
        _ => None,
    };
    meant.unwrap_or_else(|| panic!("{action:?} is answered with {}: {}", answer.status, answer.text()))
}
