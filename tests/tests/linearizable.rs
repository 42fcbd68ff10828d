//! One node and many clients on few secrets: there is one order in which all their answers make sense.

use std::time::Duration;

use keyward_tests::load::{self, Load, Targets};
use keyward_tests::server::Server;
use keyward_tests::suite::Chance;
use serde_json::json;

/// Operations that must succeed.
const ENOUGH: u64 = 2000;

#[test]
fn one_node_tells_nothing_old() {
    let mut chance = Chance::announced("linearizable");
    let folder = tempfile::tempdir().unwrap();
    let server = Server::durable(&folder.path().join("data"));
    let root = server.initialise();
    let mut client = server.client().with_token(&root);
    client.put("sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}})).expect(204);
    client.put("secret/config", &json!({"max_versions": 1_000_000})).expect(204);
    // As fast as it goes, on so few secrets that commands on one are under way together.
    let load = Load { clients: 8, keys: 2, pause: Duration::ZERO, ..Load::new("one", &mut chance) };
    let targets = Targets::at(&root, vec![server.address.clone()]);
    let (run, ()) = load::run(&targets, &load, |watch| watch.progress(ENOUGH));
    assert_eq!(run.troubled(), 0, "{:?}", run.troubles);
    run.judge("one", ENOUGH as usize);
}
