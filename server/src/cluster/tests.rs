//! Whole nodes in one process: they join, and are refused, over their real ports.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use keyward_model::{Clock as _, Id, ManualClock, SeededEntropy, Table};
use serde_json::{Value, json};

use super::certificate::Held;
use super::dialer::dial;
use super::join::guest::{self, JoinError};
use super::recovery::offline::Stopped;
use super::renewal;
use super::tls::{Lane, Trust};
use super::token::JoinToken;
use super::wire::{Renew, Why};
use crate::barrier::Columns;
use crate::boot::{self, Running, tests::ask};
use crate::clock::{OsEntropy, SystemClock};
use crate::config::{Config, Listen, Tls};
use crate::pep::UNSETTLED_MIN;
use crate::record::Facts;
use crate::refusal::Refusal;

/// Turns of 50 ms that something may take.
const TURNS_MAX: usize = 1200;

pub(super) fn config(folder: &Path, name: &str) -> Config {
    let listen = Listen { address: ([127, 0, 0, 1], 0).into(), tls: Tls::Plain, workers: 1, ..Listen::default() };
    let mut config = Config { data: folder.join(name), listen, ..Config::default() };
    config.cluster.node_name = Some(name.into());
    config.cluster.settle_s = 0;
    config
}

/// A node with an installation of its own, and its root token.
fn founder(folder: &Path, name: &str) -> (Running, String) {
    let running = boot::start(config(folder, name), None).unwrap();
    let (status, keys) = ask(running.app.config.listen.address, "", "POST", "sys/init", "{}");
    assert_eq!(status, 200, "{keys}");
    (running, keys["root_token"].as_str().unwrap().to_owned())
}

pub(super) fn token_of(founder: &(Running, String), body: &Value) -> String {
    let (running, root) = founder;
    let path = "sys/cluster/join-token";
    let (status, answer) = ask(running.app.config.listen.address, root, "POST", path, &body.to_string());
    assert_eq!(status, 200, "{answer}");
    answer["data"]["join_token"].as_str().unwrap().to_owned()
}

fn members(founder: &(Running, String)) -> Vec<Value> {
    let (running, root) = founder;
    let (status, answer) = ask(running.app.config.listen.address, root, "GET", "sys/cluster/members", "");
    assert_eq!(status, 200, "{answer}");
    answer["data"]["members"].as_array().unwrap().clone()
}

pub(super) fn join(config: &Config, token: &str) -> Result<(), JoinError> {
    guest::join(config, token, &SystemClock, &OsEntropy)
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let (_never, pause) = mpsc::channel::<()>();
    for _ in 0..TURNS_MAX {
        if holds() {
            return;
        }
        pause.recv_timeout(Duration::from_millis(50)).ok();
    }
    panic!("it did not come to this: {what}");
}

pub(super) fn until_voters(founder: &(Running, String), count: usize) {
    until("all vote", || {
        let members = members(founder);
        members.len() == count && members.iter().all(|member| member["role"] == "voter")
    });
}

fn why(result: Result<(), JoinError>) -> Why {
    match result.unwrap_err() {
        JoinError::Refused { why, .. } => why,
        other => panic!("{other}"),
    }
}

#[test]
fn three_nodes_come_of_one_and_two_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let one = founder(folder.path(), "one");
    assert_eq!(members(&one).len(), 1);
    let mut others = Vec::new();
    for name in ["two", "three"] {
        let config = config(folder.path(), name);
        join(&config, &token_of(&one, &json!({ "name": name }))).unwrap();
        others.push(boot::start(config, None).unwrap());
        until_voters(&one, others.len() + 1);
    }
    for other in &others {
        until("it unsealed itself with its own key", || !other.app.barrier.is_sealed());
    }
    let members = members(&one);
    assert_eq!(members.iter().filter(|member| member["leader"] == json!(true)).count(), 1);
    let mut names: Vec<_> = members.iter().map(|member| member["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["one", "three", "two"]);
    // What was given lies where a start looks for it; nothing of it is another node's.
    let key = |name: &str| std::fs::read(folder.path().join(name).join("seal/key")).unwrap();
    assert!(key("one") != key("two") && key("two") != key("three"));

    // A restart needs no token.
    let two = others.remove(0);
    let data = two.app.config.data.clone();
    assert!(two.stop());
    let again = boot::start(Config { data, ..config(folder.path(), "two") }, None).unwrap();
    assert!(!again.app.barrier.is_sealed(), "it had its seal at the start");
    until_voters(&one, 3);

    // Taken away: no row, no seal, no vote.
    let gone = again.app.cluster.node().to_uuid();
    let path = format!("sys/cluster/members/{gone}");
    until("the others are heard", || ask(one.0.app.config.listen.address, &one.1, "DELETE", &path, "").0 == 204);
    until_voters(&one, 2);
    let records = crate::seal::records(&one.0.app.store.reader().unwrap()).unwrap();
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|record| record.node.as_deref() != Some(&gone)));
    again.stop();
    for other in others {
        other.stop();
    }
    one.0.stop();
}

#[test]
fn a_removed_node_runs_for_as_long_as_its_word_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let one = founder(folder.path(), "one");
    let two = config(folder.path(), "two");
    join(&two, &token_of(&one, &json!({}))).unwrap();
    let running = boot::start(two.clone(), None).unwrap();
    until_voters(&one, 2);
    let number = running.app.cluster.number();
    // As a removal leaves it whose leader has not come to telling Raft.
    let gone = format!("cluster/gone/{number:016x}").into_bytes();
    let app = &one.0.app;
    boot::on_this_thread(app, async |worker| {
        let body = br#"{"removed":0}"#;
        let put = app.barrier.write(&worker.desk, Id([9; 16]), &Vec::new, |draft| {
            draft.put(Table::Config, &gone, Columns::default(), body)
        });
        put.await.map(drop).map_err(boot::BootError::Start)
    })
    .unwrap();
    until("it knows", || super::rows::is_gone(&running.app.store.reader().unwrap(), number).unwrap());
    running.stop();

    let alone = Stopped::open(&two, Arc::new(OsEntropy)).unwrap_err().to_string();
    assert!(alone.contains("was removed from the cluster"), "nobody goes on with it alone: {alone}");
    let again = boot::start(two.clone(), None).unwrap();
    let path = format!("sys/cluster/members/{number:016x}?force=true");
    let remove = || ask(app.config.listen.address, &one.1, "DELETE", &path, "").0;
    until("the removal is committed", || remove() == 204);
    until("it was told, and stops", || *again.failure().borrow());
    until_voters(&one, 1);
    again.stop();
    // Whether it is its log that says so or somebody else: it does not come back.
    match boot::start(two, None) {
        Err(error) => assert!(error.to_string().contains("was removed from the cluster"), "{error}"),
        Ok(once_more) => {
            until("it was told again", || *once_more.failure().borrow());
            once_more.stop();
        }
    }
    one.0.stop();
}

#[test]
fn an_earlier_start_is_not_let_in_once_a_later_one_was_seen() {
    use tokio::io::AsyncReadExt as _;
    let folder = tempfile::tempdir().unwrap();
    let one = founder(folder.path(), "one");
    let two = config(folder.path(), "two");
    join(&two, &token_of(&one, &json!({}))).unwrap();
    let running = boot::start(two.clone(), None).unwrap();
    until_voters(&one, 2);
    until("it knows which start it is", || running.app.cluster.has_incarnation());
    running.stop();
    // All that a copy of the folder has to show.
    let (held, trusted) = Held::read(&two.data.join("cluster")).unwrap().unwrap();
    let copied = Trust::new(held, &trusted).unwrap();
    let again = boot::start(two, None).unwrap();
    until("it knows which start it is", || again.app.cluster.has_incarnation());

    let first = &one.0.app.cluster;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let is_refused = |trust: &Trust| {
        let before = first.closed();
        runtime.block_on(async {
            let dialled = dial(trust, Lane::Raft, first.number(), &first.address().unwrap()).await;
            if let Ok(mut stream) = dialled {
                drop(stream.read(&mut [0]).await); // whoever is let in is waited for to say what it wants
            }
        });
        first.closed() > before
    };
    until("the copy is not let in", || is_refused(&copied));
    assert!(!is_refused(&again.app.cluster.trust().unwrap()), "the node is");
    until_voters(&one, 2);
    again.stop();
    one.0.stop();
}

#[test]
fn a_token_lets_in_one_node_once_in_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let one = founder(folder.path(), "one");
    let token = token_of(&one, &json!({}));

    // Two at once with one token.
    let racing: Vec<_> = ["a", "b"]
        .map(|name| {
            let (config, token) = (config(folder.path(), name), token.clone());
            std::thread::spawn(move || join(&config, &token))
        })
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(racing.iter().filter(|result| result.is_ok()).count(), 1, "{racing:?}");
    assert_eq!(racing.into_iter().find(Result::is_err).map(why), Some(Why::Token));
    assert_eq!(why(join(&config(folder.path(), "c"), &token)), Why::Token, "used");

    // One that was never made, and one whose secret is another.
    let parsed = JoinToken::parse(&token_of(&one, &json!({}))).unwrap();
    let forged = parsed.forged(&SeededEntropy::new(1)).text().unwrap();
    assert_eq!(why(join(&config(folder.path(), "c"), forged.expose())), Why::Token, "forged");

    // For another name.
    let named = token_of(&one, &json!({ "name": "d" }));
    assert_eq!(why(join(&config(folder.path(), "c"), &named)), Why::Name);

    // Ended, by the clock of the cluster and by that of the node.
    let short = token_of(&one, &json!({ "ttl": "1s" }));
    let ends = JoinToken::parse(&short).unwrap().expires;
    until("it ended", || SystemClock.now() > ends);
    let behind = ManualClock::new(ends.plus_seconds(-1));
    let late = guest::join(&config(folder.path(), "c"), &short, &behind, &OsEntropy);
    assert!(matches!(why(late), Why::Expired | Why::Token), "its row may be gone already");
    assert!(matches!(join(&config(folder.path(), "c"), &short), Err(JoinError::Expired(_))));

    // A clock that is far off.
    let off = ManualClock::new(SystemClock.now().plus_seconds(-1000));
    let skewed = guest::join(&config(folder.path(), "c"), &token_of(&one, &json!({})), &off, &OsEntropy);
    assert_eq!(why(skewed), Why::Clock);
    assert!(!folder.path().join("c").exists(), "who was refused has written nothing");
    one.0.stop();
}

#[test]
fn another_cluster_and_old_data_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (founder(folder.path(), "one"), founder(folder.path(), "other"));
    let ours = JoinToken::parse(&token_of(&one, &json!({}))).unwrap();
    let theirs = JoinToken::parse(&token_of(&other, &json!({}))).unwrap();
    let expires = SystemClock.now().plus_seconds(60);
    let entropy = SeededEntropy::new(1);
    let mixed = JoinToken::draw(theirs.cluster, theirs.authority, ours.addresses.clone(), expires, None, &entropy);
    let error = join(&config(folder.path(), "new"), mixed.text().unwrap().expose()).unwrap_err().to_string();
    assert!(error.contains("not of the cluster that made the join token"), "{error}");

    let api = one.0.app.config.listen.address.to_string();
    let wrong = JoinToken::draw(ours.cluster, ours.authority, vec![api], expires, None, &entropy);
    let error = join(&config(folder.path(), "new"), wrong.text().unwrap().expose()).unwrap_err().to_string();
    assert!(error.contains("no node port answers there"), "{error}");

    let token = ours.text().unwrap();
    let said = |name: &str| join(&config(folder.path(), name), token.expose()).unwrap_err().to_string();
    assert!(said("one").contains("already holds a node of this cluster"), "{}", said("one"));
    assert!(said("other").contains("of another cluster"), "{}", said("other"));
    let alone = boot::start(config(folder.path(), "alone"), None).unwrap();
    assert!(alone.stop());
    assert!(said("alone").contains("an installation of its own"), "{}", said("alone"));
    std::fs::create_dir(folder.path().join("full")).unwrap();
    std::fs::write(folder.path().join("full/x"), "x").unwrap();
    assert!(said("full").contains("not empty"), "{}", said("full"));

    // A folder that was copied from a member is not taken for one.
    let copy = folder.path().join("copy");
    std::fs::create_dir_all(copy.join("cluster")).unwrap();
    for name in ["cluster.json", "node.pem", "ca.pem"] {
        std::fs::copy(folder.path().join("one/cluster").join(name), copy.join("cluster").join(name)).unwrap();
    }
    let error = boot::start(config(folder.path(), "copy"), None).unwrap_err().to_string();
    assert!(error.contains("not of this node"), "{error}");
    one.0.stop();
    other.0.stop();
}

#[test]
fn who_makes_no_sense_is_closed_and_counted() {
    use std::io::{Read as _, Write as _};
    let folder = tempfile::tempdir().unwrap();
    let one = founder(folder.path(), "one");
    let token = JoinToken::parse(&token_of(&one, &json!({}))).unwrap();
    let address = token.addresses.first().unwrap();
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0; 64], b"\x16\x03\x01\x00\x05hello"] {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest)); // an alert at most, then the end
        assert!(rest.len() < 64);
    }
    until("all were counted", || one.0.app.cluster.closed() >= 3);
    // After all that a node still joins.
    join(&config(folder.path(), "two"), token.text().unwrap().expose()).unwrap();
    one.0.stop();
}

#[test]
fn a_wrong_token_can_be_tried_ten_times_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let one = founder(folder.path(), "one");
    let cluster = &one.0.app.cluster;
    let (source, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    for _ in 0..10 {
        assert!(cluster.may_try(source, 600));
        cluster.note_wrong(source, 600);
    }
    assert!(!cluster.may_try(source, 659) && cluster.may_try(other, 659));
    assert!(cluster.may_try(source, 660));
    one.0.stop();
}

/// Passes on whatever comes, but no answer to what is asked after the handshake.
fn deaf_line(to: String) -> String {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut near, _) = listener.accept().unwrap();
        let mut far = TcpStream::connect(to).unwrap();
        let (mut answers, mut back) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        let (answered, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (has_answered, was_asked) = (Arc::clone(&answered), Arc::clone(&asked));
        let answering = std::thread::spawn(move || {
            let mut buffer = [0; 16 << 10];
            while let Ok(count @ 1..) = answers.read(&mut buffer) {
                if was_asked.load(Ordering::SeqCst) {
                    break;
                }
                has_answered.store(true, Ordering::SeqCst);
                back.write_all(&buffer[..count]).unwrap();
            }
            drop(back.shutdown(Shutdown::Both));
        });
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = near.read(&mut buffer) {
            // After the other side's part of the handshake comes what is asked.
            asked.store(answered.load(Ordering::SeqCst), Ordering::SeqCst);
            far.write_all(&buffer[..count]).unwrap();
        }
        answering.join().unwrap();
    });
    address
}

#[test]
fn whoever_did_not_hear_the_answer_asks_again() {
    let folder = tempfile::tempdir().unwrap();
    let one = founder(folder.path(), "one");
    let two = config(folder.path(), "two");
    let text = token_of(&one, &json!({}));
    let mut token = JoinToken::parse(&text).unwrap();
    token.addresses = vec![deaf_line(token.addresses[0].clone())];
    let error = join(&two, token.text().unwrap().expose()).unwrap_err();
    assert!(matches!(error, JoinError::Unreachable(_)), "{error}");
    let key = std::fs::read_to_string(two.key_file()).unwrap();
    let kept = std::fs::read_to_string(two.data.join("cluster/joining.json")).unwrap();
    assert!(!key.trim().is_empty() && !kept.contains(key.trim()), "the key is in its file alone");
    until("it is a member", || members(&one).len() == 2);
    let awaited = |member: &Value| member["awaited_until"].is_string();
    assert_eq!(members(&one).iter().filter(|member| awaited(member)).count(), 1);
    let error = boot::start(config(folder.path(), "two"), None).unwrap_err().to_string();
    assert!(error.contains("--join once more"), "{error}");

    // Somebody else with the same token is nobody.
    assert_eq!(why(join(&config(folder.path(), "three"), &text)), Why::Token);
    // The same node gets what it did not hear, and again when it asks again.
    join(&two, &text).unwrap();
    join(&two, &text).unwrap();
    assert_eq!(members(&one).len(), 2);
    let records = crate::seal::records(&one.0.app.store.reader().unwrap()).unwrap();
    assert_eq!(records.len(), 2, "one seal each");
    let running = boot::start(two, None).unwrap();
    until_voters(&one, 2);
    until("it was heard of", || !members(&one).iter().any(awaited));
    running.stop();
    one.0.stop();
}

#[test]
fn a_no_takes_nothing_back_that_may_have_been_a_yes_before() {
    let folder = tempfile::tempdir().unwrap();
    let one = founder(folder.path(), "one");
    let two = config(folder.path(), "two");
    let mut token = JoinToken::parse(&token_of(&one, &json!({}))).unwrap().forged(&SeededEntropy::new(1));
    let real = token.addresses[0].clone();
    assert_eq!(why(join(&two, token.text().unwrap().expose())), Why::Token);
    assert!(!two.data.exists(), "nothing is left where all said no");
    token.addresses = vec![deaf_line(real.clone()), real];
    assert_eq!(why(join(&two, token.text().unwrap().expose())), Why::Token);
    assert!(two.data.join("cluster/joining.json").exists(), "the first one may have let it in");
    one.0.stop();
}

#[test]
fn whoever_asked_with_a_token_that_ended_goes_on_with_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let one = founder(folder.path(), "one");
    let two = config(folder.path(), "two");
    let mut token = JoinToken::parse(&token_of(&one, &json!({}))).unwrap();
    token.addresses = vec![deaf_line(token.addresses[0].clone())];
    join(&two, token.text().unwrap().expose()).unwrap_err();
    until("it is a member", || members(&one).len() == 2);
    join(&two, &token_of(&one, &json!({}))).unwrap();
    assert_eq!(members(&one).len(), 2, "still the same one");
    let running = boot::start(two, None).unwrap();
    until_voters(&one, 2);
    running.stop();
    one.0.stop();
}

#[test]
fn a_node_alone_is_replaced_and_its_successor_not_before_that() {
    let folder = tempfile::tempdir().unwrap();
    let one = founder(folder.path(), "one");
    let two = config(folder.path(), "two");
    join(&two, &token_of(&one, &json!({ "replace": "one" }))).unwrap();
    let body = json!({ "replace": "two" }).to_string();
    let (status, answer) = ask(one.0.app.config.listen.address, &one.1, "POST", "sys/cluster/join-token", &body);
    assert!(status == 400 && answer.to_string().contains("takes the place of another member"), "{status} {answer}");

    let two = boot::start(two, None).unwrap();
    until("the new one is the cluster", || {
        let (status, answer) = ask(two.app.config.listen.address, &one.1, "GET", "sys/cluster/members", "");
        let members = answer["data"]["members"].as_array().filter(|_| status == 200);
        members.is_some_and(|members| members.len() == 1 && members[0]["name"] == "two")
    });
    two.stop();
    one.0.stop();
}

#[test]
fn whoever_never_comes_up_is_a_member_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut brief = config(folder.path(), "one");
    brief.cluster.arrive_s = 1;
    let running = boot::start(brief, None).unwrap();
    let (status, keys) = ask(running.app.config.listen.address, "", "POST", "sys/init", "{}");
    assert_eq!(status, 200, "{keys}");
    let one = (running, keys["root_token"].as_str().unwrap().to_owned());
    join(&config(folder.path(), "two"), &token_of(&one, &json!({}))).unwrap();
    until("it is gone", || members(&one).len() == 1);
    let records = crate::seal::records(&one.0.app.store.reader().unwrap()).unwrap();
    assert_eq!(records.len(), 1, "its seal, too");
    one.0.stop();
}

#[test]
fn certificates_are_renewed_over_the_wire_whoever_holds_the_join_lane() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let folder = tempfile::tempdir().unwrap();
    let mut brief = config(folder.path(), "one");
    brief.cluster.certificate_s = 12;
    let running = boot::start(brief, None).unwrap();
    let (status, keys) = ask(running.app.config.listen.address, "", "POST", "sys/init", "{}");
    assert_eq!(status, 200, "{keys}");
    let one = (running, keys["root_token"].as_str().unwrap().to_owned());
    let text = token_of(&one, &json!({}));
    let two = config(folder.path(), "two");
    join(&two, &text).unwrap();
    let two = boot::start(two, None).unwrap();
    until_voters(&one, 2);

    // Strangers on the join lane of the leader, more than it has places for, who come again when they are closed.
    let token = JoinToken::parse(&text).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let strangers: Vec<_> = (0..12)
        .map(|_| {
            let (over, address) = (Arc::clone(&over), token.addresses[0].clone());
            let (client, name) = super::tls::pinned(token.cluster, token.authority).unwrap();
            std::thread::spawn(move || {
                use std::io::Read as _;
                while !over.load(Ordering::SeqCst) {
                    let mut connection = rustls::ClientConnection::new(Arc::clone(&client), name.clone()).unwrap();
                    let mut stream = std::net::TcpStream::connect(&address).unwrap();
                    // It says nothing until it is closed.
                    drop(rustls::Stream::new(&mut connection, &mut stream).read(&mut [0]));
                }
            })
        })
        .collect();

    let until_s = |node: &Running| node.app.cluster.trust().unwrap().held().facts.until_s;
    let term = || one.0.app.barrier.node().status().term;
    let (first, before) = ([&one.0, &two].map(until_s), term());
    until("both have a later one", || until_s(&one.0) > first[0] && until_s(&two) > first[1]);
    let second = until_s(&two);
    until("the follower has one after that", || until_s(&two) > second);
    assert_eq!(term(), before, "no link broke over it");
    until("the members tell of it", || {
        let ends = |member: &Value| member["certificate_until"].as_str().unwrap().to_owned();
        let shown = keyward_model::Timestamp(second * 1_000_000_000).rfc3339();
        members(&one).iter().all(|member| ends(member) > shown)
    });
    over.store(true, Ordering::SeqCst);
    strangers.into_iter().for_each(|stranger| stranger.join().unwrap());
    two.stop();
    one.0.stop();
}

#[test]
fn a_node_that_was_removed_and_leads_lets_another_lead_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let one = founder(folder.path(), "one");
    let others = ["two", "three"].map(|name| {
        let config = config(folder.path(), name);
        join(&config, &token_of(&one, &json!({}))).unwrap();
        (boot::start(config, None).unwrap(), one.1.clone())
    });
    until_voters(&one, 3);
    for other in &others {
        until("it unsealed itself", || !other.0.app.barrier.is_sealed());
    }
    let app = &one.0.app;
    assert!(app.barrier.node().leads());
    // As when the row of a member goes and its leader dies, and this one leads next: only another leader can let it go.
    let written = boot::on_this_thread(app, async |worker| {
        let facts = std::cell::RefCell::new(Facts::of_server(&app.barrier));
        Ok(worker.write(&facts, |draft| super::rows::remove_node(draft, app.cluster.number())).await)
    });
    assert!(written.unwrap().unwrap().0);
    let leads = |other: &(Running, String)| other.0.app.barrier.node().leads();
    until("another one leads", || others.iter().any(leads));
    until("it hears that it was removed", || *one.0.failure().borrow());
    assert!(!one.0.app.barrier.node().leads());
    until_voters(&others[0], 2);
    one.0.stop();
    for other in others {
        other.0.stop();
    }
}

/// A founder, and another one; both vote, and are as they shall stay.
fn two_voters(folder: &Path) -> ((Running, String), Running) {
    let one = founder(folder, "one");
    let two = config(folder, "two");
    join(&two, &token_of(&one, &json!({}))).unwrap();
    let two = boot::start(two, None).unwrap();
    until_voters(&one, 2);
    until("it unsealed itself", || !two.app.barrier.is_sealed());
    until("both know which start they are", || [&one.0, &two].iter().all(|node| node.app.cluster.has_incarnation()));
    (one, two)
}

/// Lets the second one lead, whose state lacks what was committed before for as long as what is given back is held; with a
/// join token that is not known there.
fn lead_lacking_something<'a>(one: &(Running, String), two: &'a Running) -> (impl Drop + use<'a>, String) {
    let held = two.app.hold_state();
    let token = token_of(one, &json!({}));
    assert_eq!(ask(one.0.app.config.listen.address, &one.1, "PUT", "sys/step-down", "{}").0, 204);
    let node = two.app.barrier.node();
    until("the second leads", || node.leads());
    assert_eq!(node.settled_term(), None);
    (held, token)
}

#[test]
fn whoever_leads_and_lacks_something_steps_down_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = two_voters(folder.path());
    for asked in [&two, &one.0] {
        let (held, _) = lead_lacking_something(&one, &two);
        let step_down = |token| ask(asked.app.config.listen.address, token, "PUT", "sys/step-down", "{}").0;
        // Just elected it lacks something for a moment, which may be the end of the token that asks.
        assert_eq!(step_down(&one.1), 503);
        let node = two.app.barrier.node();
        until("it is stuck", || node.unsettled_for().is_some_and(|time| time >= UNSETTLED_MIN));
        assert_eq!(step_down("nobody's"), 503, "who may ask is not known there yet");
        assert_eq!(step_down(&one.1), 204);
        until("the first one leads", || one.0.app.barrier.node().settled_term().is_some());
        token_of(&one, &json!({}));
        drop(held);
    }
    two.stop();
    one.0.stop();
}

#[test]
fn whoever_leads_and_lacks_something_refuses_nobody_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = two_voters(folder.path());
    let number = one.0.app.cluster.number();
    let (held, token) = lead_lacking_something(&one, &two);
    let three = config(folder.path(), "three");
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| join(&three, &token));
        // A member whose last start is not known there yet.
        let issued = boot::on_this_thread(&two.app, async |worker| {
            let said = Renew {
                csr: String::new(),
                trusts: Vec::new(),
                incarnation: one.0.app.cluster.incarnation() + 1,
                start: None,
                before: Vec::new(),
                place: one.0.app.cluster.place(String::new()).unwrap(),
            };
            Ok(renewal::issue(&worker, number, &[], &said).await)
        });
        assert!(matches!(issued.unwrap(), Err(Refusal::NotLeader)));
        assert!(!joining.is_finished(), "it asks again");
        drop(held);
        joining.join().unwrap().unwrap();
    });
    two.stop();
    one.0.stop();
}
