//! Three real nodes, clients on all of them, and something goes wrong: nothing that was acknowledged is lost, nothing
//! old is told, and the rest goes on.
//!
//! The short form is for every change. `KEYWARD_LONG=1` runs the same for hours: a hundred kills, 300 histories, and a
//! snapshot of a real size that is cut off.

#![expect(clippy::print_stderr, reason = "a test says what it measured")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keyward_tests::cluster::{Cluster, MOUNT};
use keyward_tests::disk::Disk;
use keyward_tests::history::Operation;
use keyward_tests::load::{self, Load, Run, Targets, Watch};
use keyward_tests::slow_disk;
use keyward_tests::suite::{self, Chance};
use serde_json::json;

const ALL: [usize; 3] = [0, 1, 2];
/// Operations that must succeed before and after each fault.
const ENOUGH: u64 = 120;
/// Above the reserve of 192 MiB and what a node takes at first, with room for a load.
const DISK_MIB: u64 = 440;
/// How much longer each flush of a slow disk takes, and for how long writes are counted.
const FLUSH: Duration = Duration::from_millis(100);
const SPAN: Duration = Duration::from_secs(4);
/// More than the 256 MiB of log at which a node lets go of it.
const SNAPSHOT_MIB: u64 = 288;
const WRITERS: u64 = 4;
/// A leader's death is felt no longer than this, on a busy machine in an unoptimised build, and as a rule half as long as
/// its silence would be; what is wanted is printed.
const GAP_MAX: Duration = Duration::from_secs(5);
const GAP_RULE: Duration = Duration::from_millis(800);

#[test]
fn a_follower_dies_and_no_request_fails() {
    let mut cluster = Cluster::start(3);
    let mut chance = Chance::announced("cluster, follower");
    let load = Load::new("follower", &mut chance);
    let targets = Targets::new(&cluster, &ALL);
    let (mut run, ()) = load::run(&targets, &load, |watch| {
        watch.progress(ENOUGH);
        let follower = cluster.others(&[leader(&cluster)])[0];
        // Whoever asks the dead node itself knows that it is dead.
        targets.set(&cluster, &cluster.others(&[follower]));
        watch.progress(ENOUGH);
        cluster.kill(follower);
        watch.progress(2 * ENOUGH);
        cluster.restart(follower);
        cluster.settle();
        targets.set(&cluster, &ALL);
        watch.progress(ENOUGH);
    });
    assert_eq!(run.troubled(), 0, "{:?}", run.troubles);
    finish(&cluster, &mut run, "follower");
}

#[test]
fn the_leader_dies_and_another_takes_over() {
    let kills = if suite::long() { 100 } else { 3 };
    let mut cluster = Cluster::start(3);
    let mut chance = Chance::announced("cluster, leader");
    let (mut elections, mut gaps) = (Vec::new(), Vec::new());
    for round in 0..kills {
        let load = Load::new(&format!("leader{round}"), &mut chance);
        let targets = Targets::new(&cluster, &ALL);
        let (mut run, (from, to)) = load::run(&targets, &load, |watch| {
            watch.progress(ENOUGH);
            let leader = leader(&cluster);
            let from = watch.now();
            cluster.kill(leader);
            let (_, election) = cluster.await_leader(&cluster.others(&[leader]));
            elections.push(election);
            watch.progress(ENOUGH);
            let to = watch.now();
            cluster.restart(leader);
            cluster.settle();
            watch.progress(ENOUGH);
            (from, to)
        });
        gaps.push(run.longest_gap(from, to));
        finish(&cluster, &mut run, &format!("leader{round}"));
    }
    tell("kill -9 of the leader: another leads", &mut elections);
    tell("kill -9 of the leader: no write answered", &mut gaps);
    assert!(gaps.iter().all(|gap| *gap < GAP_MAX) && gaps[gaps.len() / 2] < GAP_RULE, "{gaps:?}");
}

#[test]
fn a_leader_that_stood_still_tells_nothing_old() {
    let mut cluster = Cluster::start(3);
    let mut chance = Chance::announced("cluster, pause");
    let load = Load::new("pause", &mut chance);
    let targets = Targets::new(&cluster, &ALL);
    let (mut run, probes) = load::run(&targets, &load, |watch| {
        watch.progress(ENOUGH);
        let old = leader(&cluster);
        let (first, _) = load::write_quiet(&cluster, old, &load, watch);
        targets.set(&cluster, &cluster.others(&[old]));
        cluster.pause(old);
        let (new, election) = cluster.await_leader(&cluster.others(&[old]));
        eprintln!("cluster: another leads {election:?} after the leader stood still");
        let (second, quiet) = load::write_quiet(&cluster, new, &load, watch);
        watch.progress(ENOUGH);
        // Questions wait in its sockets; it wakes up as a leader that knows nothing of the other.
        let server = cluster.server(old);
        let mut probes = load::probe(&cluster, old, &load, watch, quiet, || server.signal("CONT"));
        probes.extend([first, second]);
        cluster.resume(old);
        cluster.settle();
        targets.set(&cluster, &ALL);
        watch.progress(ENOUGH);
        probes
    });
    run.history.extend(probes);
    finish(&cluster, &mut run, "pause");
}

#[test]
fn a_leader_that_is_cut_off_tells_nothing_old() {
    let Some(cluster) = Cluster::apart(3) else { return };
    let mut chance = Chance::announced("cluster, cut");
    type Cut = fn(&Cluster, usize, usize);
    let cuts: [(&str, Cut); 3] = [
        ("both", |cluster, old, other| cluster.network().cut(old, other)),
        ("unheard", |cluster, old, other| cluster.network().deafen(other, old)),
        ("deaf", |cluster, old, other| cluster.network().deafen(old, other)),
    ];
    for (name, cut) in cuts {
        let load = Load::new(&format!("cut-{name}"), &mut chance);
        let targets = Targets::new(&cluster, &ALL);
        let (mut run, probes) = load::run(&targets, &load, |watch| {
            watch.progress(ENOUGH);
            let old = leader(&cluster);
            let others = cluster.others(&[old]);
            let (first, quiet) = load::write_quiet(&cluster, old, &load, watch);
            targets.set(&cluster, &others);
            others.iter().for_each(|other| cut(&cluster, old, *other));
            let mut probes = while_cut_off(&cluster, old, &load, watch, quiet);
            probes.push(first);
            let swallowed = cluster.network().heal();
            assert!(swallowed > 0, "{name}: no packet was swallowed");
            cluster.settle();
            targets.set(&cluster, &ALL);
            watch.progress(ENOUGH);
            probes
        });
        run.history.extend(probes);
        finish(&cluster, &mut run, &format!("cut-{name}"));
    }
}

/// Asks the old leader at once, and again when another leads and has written.
fn while_cut_off(cluster: &Cluster, old: usize, load: &Load, watch: &Watch, quiet: u64) -> Vec<Operation> {
    let mut probes = load::probe(cluster, old, load, watch, quiet, || {});
    let (new, election) = cluster.await_leader(&cluster.others(&[old]));
    eprintln!("cluster: another leads {election:?} after the leader that was cut off had been asked");
    let (second, quiet) = load::write_quiet(cluster, new, load, watch);
    watch.progress(ENOUGH);
    probes.extend(load::probe(cluster, old, load, watch, quiet, || {}));
    let answered = probes.iter().filter(|probe| probe.answer().is_some()).count();
    eprintln!("cluster: {answered} of {} questions were answered by the leader that was cut off", probes.len());
    probes.push(second);
    probes
}

#[test]
fn a_busy_machine_topples_no_leader() {
    let lasting = Duration::from_secs(if suite::long() { 120 } else { 10 });
    let cluster = Cluster::start(3);
    let mut chance = Chance::announced("cluster, busy");
    let load = Load::new("busy", &mut chance);
    let targets = Targets::new(&cluster, &ALL);
    let (mut run, elections) = load::run(&targets, &load, |watch| {
        watch.progress(ENOUGH);
        let term = || cluster.wait("a term", || cluster.ask(0, "sys/cluster/members")?["data"]["term"].as_u64()).0;
        let before = term();
        let (over, ballast) = (AtomicBool::new(false), cluster.folder().join("ballast"));
        std::thread::scope(|scope| {
            // More than the processors can do, and a disk that has something else to do all the time.
            for _ in 0..2 * std::thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::hint::spin_loop()
                    }
                });
            }
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::fs::write(&ballast, vec![1; 32 << 20]).unwrap();
                    std::fs::File::open(&ballast).unwrap().sync_all().unwrap();
                }
            });
            suite::rest(lasting);
            over.store(true, Ordering::Relaxed);
        });
        watch.progress(ENOUGH);
        term() - before
    });
    let (troubled, all) = (run.troubled(), run.history.len());
    eprintln!(
        "cluster: {lasting:?} on a busy machine: {elections} elections, {troubled} of {all} operations had no answer"
    );
    assert!(elections * 30 <= lasting.as_secs(), "a leader that is slow is none that is gone");
    finish(&cluster, &mut run, "busy");
}

#[test]
fn a_follower_is_cut_off_and_comes_back_quietly() {
    let Some(cluster) = Cluster::apart(3) else { return };
    let mut chance = Chance::announced("cluster, cut follower");
    let load = Load::new("cut-follower", &mut chance);
    let targets = Targets::new(&cluster, &ALL);
    let (mut run, ()) = load::run(&targets, &load, |watch| {
        watch.progress(ENOUGH);
        let leader = leader(&cluster);
        let follower = cluster.others(&[leader])[0];
        targets.set(&cluster, &cluster.others(&[follower]));
        watch.progress(ENOUGH);
        cluster.network().isolate(follower);
        // Long enough for it to want an election, several times.
        suite::rest(Duration::from_secs(3));
        watch.progress(ENOUGH);
        assert!(cluster.network().heal() > 0, "no packet was swallowed");
        cluster.settle();
        targets.set(&cluster, &ALL);
        watch.progress(ENOUGH);
        assert_eq!(cluster.leader_among(&ALL), Some(leader), "whoever comes back does not topple the leader");
    });
    assert_eq!(run.troubled(), 0, "{:?}", run.troubles);
    finish(&cluster, &mut run, "cut-follower");
}

#[test]
fn nodes_are_restarted_one_after_the_other_and_no_request_fails() {
    let mut cluster = Cluster::start(3);
    let mut chance = Chance::announced("cluster, rolling");
    let load = Load::new("rolling", &mut chance);
    let targets = Targets::new(&cluster, &ALL);
    let mut gaps = Vec::new();
    let (mut run, spans) = load::run(&targets, &load, |watch| {
        let leader = leader(&cluster);
        let mut spans = Vec::new();
        for node in cluster.others(&[leader]).into_iter().chain([leader]) {
            targets.set(&cluster, &cluster.others(&[node]));
            watch.progress(ENOUGH);
            let from = watch.now();
            cluster.stop(node);
            watch.progress(ENOUGH);
            spans.push((from, watch.now()));
            cluster.restart(node);
            cluster.settle();
            targets.set(&cluster, &ALL);
            watch.progress(ENOUGH);
        }
        spans
    });
    gaps.extend(spans.into_iter().map(|(from, to)| run.longest_gap(from, to)));
    eprintln!("cluster: no write answered while a follower, a follower and the leader ended: {gaps:?}");
    assert_eq!(run.troubled(), 0, "{:?}", run.troubles);
    finish(&cluster, &mut run, "rolling");
}

#[test]
fn all_nodes_die_at_once_and_know_what_they_acknowledged() {
    let mut cluster = Cluster::start(3);
    let mut chance = Chance::announced("cluster, all");
    let load = Load::new("all", &mut chance);
    let targets = Targets::new(&cluster, &ALL);
    let (mut run, ()) = load::run(&targets, &load, |watch| {
        watch.progress(2 * ENOUGH);
        ALL.into_iter().for_each(|node| cluster.kill(node));
        ALL.into_iter().for_each(|node| cluster.restart(node));
        cluster.settle();
        watch.progress(ENOUGH);
    });
    finish(&cluster, &mut run, "all");
}

#[test]
fn a_full_disk_on_one_node_stops_nobody_else() {
    let disk = match Disk::of_mib(DISK_MIB) {
        Ok(disk) => disk,
        Err(why) => {
            return eprintln!("NOT TESTED: a full disk of one node, because this machine lets us have none: {why}");
        }
    };
    let mut cluster = Cluster::start(2);
    let full = cluster.add_on(disk);
    let token = cluster.join_token(0, &json!({}));
    cluster.join(full, &token).unwrap();
    cluster.settle();
    let mut chance = Chance::announced("cluster, full disk");
    for leads in [false, true] {
        let name = format!("full-disk-of-{}", if leads { "leader" } else { "follower" });
        let load = Load::new(&name, &mut chance);
        pass_on(&cluster, |leader| (leader == full) == leads);
        let targets = Targets::new(&cluster, &cluster.others(&[full]));
        let (mut run, ()) = load::run(&targets, &load, |watch| {
            watch.progress(ENOUGH);
            cluster.disk(full).fill();
            // It lets another one lead, and is nobody's choice until it has space.
            let (_, took) = cluster.await_leader(&cluster.others(&[full]));
            if leads {
                eprintln!("cluster: another leads {took:?} after the leader's disk ran full");
            }
            watch.progress(2 * ENOUGH);
            suite::rest(Duration::from_secs(1));
            assert_ne!(leader(&cluster), full);
            cluster.disk(full).clear(DISK_MIB);
            cluster.settle();
            targets.set(&cluster, &ALL);
            watch.progress(ENOUGH);
        });
        assert!(leads || run.troubled() == 0, "{:?}", run.troubles);
        finish(&cluster, &mut run, &name);
    }
}

#[test]
fn a_follower_with_a_slow_disk_slows_nobody() {
    if let Err(why) = slow_disk::available() {
        return eprintln!("NOT TESTED: a slow disk of one node, because this machine lets us have none: {why}");
    }
    let mut cluster = Cluster::start(3);
    let mut chance = Chance::announced("cluster, slow disk");
    let load = Load::new("slow-disk", &mut chance);
    let follower = cluster.others(&[leader(&cluster)])[0];
    // Whoever asks the slow one waits for its audit; that it answers is seen to apart.
    let targets = Targets::new(&cluster, &cluster.others(&[follower]));
    let (mut run, spans) = load::run(&targets, &load, |watch| {
        let span = || {
            watch.progress(ENOUGH);
            let from = watch.now();
            suite::rest(SPAN);
            (from, watch.now())
        };
        let before = span();
        cluster.stop(follower);
        cluster.nodes[follower].flush = Some(FLUSH);
        cluster.restart(follower);
        cluster.settle();
        let after = span();
        let asked = std::time::Instant::now();
        cluster.client(follower).get(&format!("{MOUNT}/config")).expect(200);
        let took = asked.elapsed();
        assert!(took >= FLUSH, "its disk is not slow: it answered in {took:?}");
        cluster.agree(&ALL);
        assert_ne!(leader(&cluster), follower);
        [before, after]
    });
    let [before, after] = spans.map(|(from, to)| run.writes(from, to));
    eprintln!(
        "cluster: {before} writes in {SPAN:?} with three disks alike, {after} with one whose flushes take {FLUSH:?} more"
    );
    assert!(2 * after >= before, "{after} of {before}");
    assert_eq!(run.troubled(), 0, "{:?}", run.troubles);
    finish(&cluster, &mut run, "slow-disk");
}

#[test]
fn a_snapshot_that_was_cut_off_arrives_and_leaves_nothing_behind() {
    if !suite::long() {
        return eprintln!("NOT TESTED in the short form: a snapshot of {SNAPSHOT_MIB} MiB that is cut off on its way");
    }
    let Some(mut cluster) = Cluster::apart_with(1, 1) else { return };
    let text = "x".repeat(1 << 20);
    let body = json!({"data": {"text": text}});
    // More than the log keeps, so that the next node needs a snapshot.
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (mut client, body) = (cluster.client(0), &body);
            scope.spawn(move || {
                for number in (writer..SNAPSHOT_MIB).step_by(WRITERS as usize) {
                    client.put(&format!("{MOUNT}/data/large{number}"), body).expect(200);
                }
            });
        }
    });
    let joiner = cluster.add();
    cluster.join(joiner, &cluster.join_token(0, &json!({}))).unwrap();
    let state = |node: usize| cluster.nodes[node].data.join("state");
    let arrived = || std::fs::metadata(state(joiner).join("incoming.snapshot")).map_or(0, |file| file.len());
    cluster.wait("a part of the snapshot", || (arrived() > 16 << 20).then_some(()));
    cluster.network().cut(0, joiner);
    let cut = arrived();
    eprintln!("cluster: the link was cut after {} MiB of the snapshot", cut >> 20);
    assert!(cut > 0 && cut < SNAPSHOT_MIB << 20, "the cut came too late: {cut}");
    // Longer than either side waits for the other.
    suite::rest(Duration::from_secs(12));
    assert!(cluster.network().heal() > 0, "no packet was swallowed");
    cluster.settle();
    assert_eq!(cluster.leader_among(&[0, joiner]), Some(0));
    for number in [0, SNAPSHOT_MIB - 1] {
        let answer = cluster.client(joiner).get(&format!("{MOUNT}/data/large{number}")).expect(200).json();
        assert_eq!(answer["data"]["data"]["text"], json!(text));
    }
    // The leader keeps its file for half a minute, for the next one that needs it.
    for node in [0, joiner] {
        let left = || {
            let names = std::fs::read_dir(state(node)).unwrap().map(|entry| entry.unwrap().file_name());
            names.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".snapshot")).collect::<Vec<_>>()
        };
        cluster.wait(&format!("no snapshot is left on node {node}"), || left().is_empty().then_some(()));
    }
}

/// Has the leader step down until the right one leads.
fn pass_on(cluster: &Cluster, right: impl Fn(usize) -> bool) {
    cluster.wait("the right leader", || {
        let leader = leader(cluster);
        if right(leader) {
            return Some(());
        }
        cluster.client(leader).call("PUT", "sys/step-down", None).expect(204);
        None
    });
}

#[test]
fn links_that_are_slow_keep_their_promises() {
    let Some(cluster) = Cluster::apart(3) else { return };
    if !ALL.into_iter().all(|node| cluster.network().delay(node, Duration::from_millis(15), Duration::from_millis(5))) {
        return;
    }
    let mut chance = Chance::announced("cluster, slow");
    let load = Load::new("slow", &mut chance);
    let (mut run, ()) = load::run(&Targets::new(&cluster, &ALL), &load, |watch| {
        let leader = leader(&cluster);
        watch.progress(2 * ENOUGH);
        assert_eq!(cluster.leader_among(&ALL), Some(leader), "a slow link is no dead leader");
    });
    assert_eq!(run.troubled(), 0, "{:?}", run.troubles);
    finish(&cluster, &mut run, "slow");
}

/// What can go wrong by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillLeader,
    KillFollower,
    PauseLeader,
    PauseFollower,
    StopLeader,
    StepDown,
    KillAll,
}

const FAULTS: [Fault; 7] = [
    Fault::KillLeader,
    Fault::KillFollower,
    Fault::PauseLeader,
    Fault::PauseFollower,
    Fault::StopLeader,
    Fault::StepDown,
    Fault::KillAll,
];

#[test]
fn whatever_goes_wrong_histories_are_linearizable() {
    let histories = if suite::long() { 300 } else { 3 };
    let mut cluster = Cluster::start(3);
    let mut chance = Chance::announced("cluster, chance");
    let (mut answered, mut unknown) = (0, 0);
    for round in 0..histories {
        let faults = [0, 1].map(|_| FAULTS[chance.below(FAULTS.len() as u64) as usize]);
        let load = Load { clients: 10, ..Load::new(&format!("chance{round}"), &mut chance) };
        let targets = Targets::new(&cluster, &ALL);
        let (mut run, ()) = load::run(&targets, &load, |watch| {
            for fault in faults {
                watch.progress(ENOUGH + chance.below(ENOUGH));
                hurt(&mut cluster, fault, Duration::from_millis(chance.below(2_000)));
            }
            watch.progress(ENOUGH);
        });
        eprintln!("cluster: history {round}, {faults:?}");
        finish(&cluster, &mut run, &format!("chance{round}"));
        answered += run.succeeded();
        unknown += run.troubled();
    }
    eprintln!(
        "cluster: {histories} histories, {answered} operations succeeded, {unknown} had no answer that tells something"
    );
}

/// Does harm, lets it last, and mends it.
fn hurt(cluster: &mut Cluster, fault: Fault, lasting: Duration) {
    let leader = leader(cluster);
    let follower = cluster.others(&[leader])[0];
    match fault {
        Fault::KillLeader | Fault::KillFollower => {
            let node = if fault == Fault::KillLeader { leader } else { follower };
            cluster.kill(node);
            suite::rest(lasting);
            cluster.restart(node);
        }
        Fault::PauseLeader | Fault::PauseFollower => {
            let node = if fault == Fault::PauseLeader { leader } else { follower };
            cluster.pause(node);
            suite::rest(lasting);
            cluster.resume(node);
        }
        Fault::StopLeader => {
            cluster.stop(leader);
            suite::rest(lasting);
            cluster.restart(leader);
        }
        Fault::StepDown => {
            cluster.client(leader).call("PUT", "sys/step-down", None).expect(204);
            assert_ne!(cluster.await_leader(&cluster.others(&[leader])).0, leader);
        }
        Fault::KillAll => {
            ALL.into_iter().for_each(|node| cluster.kill(node));
            ALL.into_iter().for_each(|node| cluster.restart(node));
        }
    }
    cluster.settle();
}

fn leader(cluster: &Cluster) -> usize {
    cluster.await_leader(&cluster.awake()).0
}

/// All nodes are asked for all that was written; then the history is judged.
fn finish(cluster: &Cluster, run: &mut Run, name: &str) {
    cluster.settle();
    run.look(cluster, &ALL);
    run.judge(name, 2 * ENOUGH as usize);
}

/// Prints what was measured: least, median, 99 of 100, greatest.
fn tell(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |hundredths: usize| times[(times.len() * hundredths / 100).min(times.len() - 1)];
    eprintln!(
        "cluster: {what} after {:?} (median), {:?} (99 %), {:?} to {:?}, {} times; wanted: 0.4 s, 1 s, below 2 s",
        at(50),
        at(99),
        at(0),
        at(100),
        times.len()
    );
}
