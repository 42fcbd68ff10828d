use keyward_tests::load::{self, Load, Targets};
use keyward_tests::server::Server;
use keyward_tests::suite::Chance;
use serde_json::json;
#[test]
fn one() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::durable(&folder.path().join("data"));
    let root = server.initialise();
    let mut c = server.client().with_token(&root);
    c.put("sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}})).expect(204);
    c.put("secret/config", &json!({"max_versions": 1_000_000})).expect(204);
    let mut chance = Chance::announced("tmp");
    let mut load = Load::new("x", &mut chance);
    load.pause = std::time::Duration::from_millis(1);
    let targets = Targets::at(&root, vec![server.address.clone()]);
    let (run, ()) = load::run(&targets, &load, |watch| watch.progress(5000));
    let effort = run.judge("tmp", 100);
    println!("{effort:?} gap {:?}", run.longest_gap(0, u64::MAX));
    let mut kinds = std::collections::BTreeMap::new();
    for o in &run.history { *kinds.entry(format!("{:?}", o.outcome).split(|c| c == '{').next().unwrap().to_owned()).or_insert(0) += 1; }
    println!("{kinds:?}");
}
