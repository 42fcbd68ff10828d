//! Two nodes in one process: the second is unsealed by the first. Then somebody speaks in its name, or in what was its name.

use std::io;

use keyward_raft::Member;
use rustls_pki_types::CertificateDer;
use serde_json::json;

use super::asker;
use crate::boot::{self, Running, tests::ask};
use crate::cluster::certificate::Held;
use crate::cluster::tests::{config, join, token_of, until, until_voters};
use crate::cluster::tls::{Lane, Trust};
use crate::cluster::{dialer, wire};
use crate::config::{Config, SealKind};
use crate::seal::{self, Generation};

fn helpful(config: Config) -> Config {
    let mut config = config;
    config.seal.kind = SealKind::Shamir;
    config.seal.peer_unseal = true;
    config
}

/// A founder that was unsealed by its one share, and its root token.
fn founder(config: Config) -> (Running, String) {
    let running = boot::start(config, None).unwrap();
    let address = running.app.config.listen.address;
    let shape = json!({"secret_shares": 1, "secret_threshold": 1}).to_string();
    let (status, keys) = ask(address, "", "PUT", "sys/init", &shape);
    assert_eq!(status, 200, "{keys}");
    let share = json!({ "key": keys["keys_base64"][0] }).to_string();
    assert_eq!(ask(address, "", "PUT", "sys/unseal", &share).0, 200);
    (running, keys["root_token"].as_str().unwrap().to_owned())
}

/// What the giver says to whoever has this certificate.
fn say(giver: &Running, held: &Held, trusted: &[CertificateDer<'static>], asked: Generation) -> io::Result<()> {
    let trust = Trust::new(held.clone(), trusted).unwrap();
    let number = giver.app.cluster.number();
    let member = giver.app.barrier.node().members().into_iter().find(|member| member.node == number);
    let member: Member = member.unwrap();
    let domain = seal::installation(&giver.app.store.reader().unwrap()).unwrap().unwrap().domain;
    run(asker::ask(&trust, &member, domain, asked)).map(drop)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[track_caller]
fn assert_refused(said: io::Result<()>, why: &str) {
    let error = said.unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn only_the_last_start_of_a_member_with_the_same_seals_gets_the_key_and_not_too_often() {
    let folder = tempfile::tempdir().unwrap();
    let one = founder(helpful(config(folder.path(), "one")));
    until("the founder leads", || one.0.app.barrier.node().leads());
    let second = helpful(config(folder.path(), "two"));
    join(&second, &token_of(&one, &json!({}))).unwrap();
    let (first_held, trusted) = Held::read(&second.data.join("cluster")).unwrap().unwrap();
    let two = boot::start(second, None).unwrap();
    until("the second was unsealed", || !two.app.barrier.is_sealed());
    until_voters(&one, 2);

    let generation = seal::generation(&one.0.app.store.reader().unwrap()).unwrap().unwrap();
    let held = (*two.app.cluster.trust().unwrap().held()).clone();
    assert!(held.facts.incarnation > first_held.facts.incarnation);
    say(&one.0, &held, &trusted, generation).unwrap();
    for other in [
        Generation { seals: generation.seals + 1, ..generation },
        Generation { keyring: generation.keyring + 1, ..generation },
    ] {
        assert_refused(say(&one.0, &held, &trusted, other), "changed meanwhile");
    }
    // A certificate of an earlier start: a copy of the folder has one.
    assert_refused(say(&one.0, &first_held, &trusted, generation), "a later start");
    // Somebody who says something else is closed, without an answer.
    let trust = Trust::new(held.clone(), &trusted).unwrap();
    let address = one.0.app.cluster.address().unwrap();
    let rubbish = run(async {
        let mut stream = dialer::dial(&trust, Lane::Unseal, one.0.app.cluster.number(), &address).await?;
        wire::send(&mut stream, &keyward_model::SecretBytes::new(b"{}".to_vec())).await?;
        wire::receive(&mut stream).await
    });
    assert!(rubbish.is_err());

    let said = (0..32).find_map(|_| say(&one.0, &held, &trusted, generation).err()).unwrap();
    assert!(said.to_string().contains("too often"), "{said}");

    // As if a rotated keyring had not opened: it asks nobody now, and would after its next start.
    two.app.barrier.seal();
    let of_second = two.app.config.listen.address;
    let (_, stands) = ask(of_second, "", "GET", "sys/seal-status", "");
    assert_eq!((&stands["sealed"], &stands["keyward_peer_unseal"]), (&json!(true), &json!("idle")));
    let (status, told) = ask(of_second, "", "PUT", "sys/seal", "{}");
    assert_eq!(status, 503, "nobody may think that it stays sealed: {told}");

    // Removed: its certificate is good for a day, and opens nothing.
    let gone = two.app.cluster.node().to_uuid();
    let address = one.0.app.config.listen.address;
    until("it is removed", || ask(address, &one.1, "DELETE", &format!("sys/cluster/members/{gone}"), "").0 == 204);
    until("one member is left", || one.0.app.barrier.node().members().len() == 1);
    one.0.app.cluster.turns.forget();
    assert_refused(say(&one.0, &held, &trusted, generation), "not a member");
    two.stop();
    assert!(one.0.stop());
}
