//! A node for tests: it listens to nobody and runs no jobs.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};
use keyward_model::{Id, ManualClock, Secret, SeededEntropy, Timestamp};
use keyward_raft::fs::OsFs;
use keyward_raft::{Fresh, Node, Timing};
use keyward_storage::Store;
use serde_json::Value;
use tokio::runtime::{Builder, LocalOptions};

use crate::app::{App, Applied, Worker};
use crate::authn::token::Sessions;
use crate::barrier::{Barrier, Generations};
use crate::boot::{self, Dev};
use crate::config::Config;
use crate::http::request::{Head, Request};
use crate::identity::Identity;
use crate::keys::KeySlot;
use crate::pep;
use crate::record::Outcomes;
use crate::seal::NewSeal;

/// Runs `test` on a worker of a node that serves nobody and runs no jobs, with a root token `root` and a clock that stands.
pub(crate) fn on_a_node(test: impl AsyncFnOnce(&Rc<Worker>, &ManualClock)) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { data: folder.path().to_owned(), ..Config::default() };
    let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000_000_000)));
    let entropy = Arc::new(SeededEntropy::new(7));
    let identity = Identity::of_folder(&config.data, &*entropy).unwrap();
    let cluster = Arc::new(crate::cluster::Cluster::of_folder(&config, &identity, &*entropy).unwrap());
    let journal = Arc::new(boot::open_journal(&config, identity).unwrap());
    let store_options = keyward_storage::Options::default();
    let store = Store::open(&config.data.join("state"), &store_options).unwrap();
    let sessions = Arc::new(Sessions::default());
    let (generations, keys) = (Arc::new(Generations::default()), Arc::new(KeySlot::default()));
    let outcomes = Arc::new(Outcomes::new(Arc::clone(&journal), Arc::default()));
    let failed = Box::new(|error: &str| panic!("{error}"));
    let observer =
        Applied::new(Arc::clone(&generations), Arc::clone(&keys), Arc::clone(&sessions), Arc::clone(&outcomes), failed);
    let options = keyward_raft::Options {
        dir: config.data.join("log"),
        node_id: cluster.number(),
        fresh: Fresh::Found,
        fs: Arc::new(OsFs),
        entropy: entropy.clone(),
        log: keyward_raft::log::Options::default(),
        log_bytes_max: 1 << 20,
        timing: Timing::default(),
        dialer: Arc::new(keyward_raft::link::Nobody),
        address: String::new(),
    };
    let node = Node::start(options, store.clone(), Arc::new(observer)).unwrap();
    outcomes.open();
    let barrier = Arc::new(Barrier::new(node, clock.clone(), entropy, generations, keys));
    let app = Arc::new(App::new(barrier, cluster, sessions, config, store, outcomes, Arc::default()));
    let worker = Rc::new(Worker::new(Arc::clone(&app)).unwrap());
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let dev = Dev { root_token: Some("root".into()) };
        let seal = NewSeal::KeyFile(Secret::new([7; 32]));
        boot::initialise(&worker, Id::ZERO, seal, None, Some(&dev)).await.unwrap();
        test(&worker, &clock).await;
        app.barrier.node().shutdown().await.unwrap();
    });
}

/// A request as it comes from the wire, of the compatible face.
pub(crate) fn request(worker: &Worker, token: &str, method: &str, path: &str, body: &str) -> Request {
    let uri = format!("/v1/{path}").parse().unwrap();
    let head = Head::read(&Method::from_bytes(method.as_bytes()).unwrap(), &uri).unwrap();
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-vault-token"), token.parse().unwrap())]);
    let (id, now) = (Id::random(worker.app.barrier.entropy()), worker.app.barrier.now());
    let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
    head.with_body(id, now, headers, Bytes::copy_from_slice(body.as_bytes()), source).unwrap()
}

/// Status and body of the answer to such a request.
pub(crate) async fn ask(worker: &Rc<Worker>, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let asked = Rc::new(request(worker, token, method, path, body));
    let answer = pep::enforce(worker, &asked).await.unwrap();
    (answer.status, serde_json::from_slice(&answer.body(Id::ZERO)).unwrap_or_default())
}

/// The records of the node's audit, in order, without its checkpoints' signatures being looked at.
pub(crate) fn records(worker: &Worker) -> Vec<Value> {
    let files = std::fs::read_dir(worker.app.config.data.join("audit")).unwrap();
    let files =
        files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
    let text: String = files.map(|path| String::from_utf8(std::fs::read(path).unwrap()).unwrap()).collect();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
