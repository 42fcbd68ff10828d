//! A cluster of `keyward` processes under test: made as an operator makes one, then hurt.

use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::disk::Disk;
use crate::network::Network;
use crate::server::{Server, binary};
use crate::{slow_disk, suite};

/// What a cluster may take to agree on something. It takes a second; the rest is for a busy machine.
pub const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to answer a question about itself before it counts as silent.
const PATIENCE: Duration = Duration::from_secs(1);
/// The mount that clients work on: KV v2, and no version is ever pruned.
pub const MOUNT: &str = "secret";

/// Nodes of one cluster. All are killed when this goes out of scope.
pub struct Cluster {
    /// By number; node 0 founded it.
    pub nodes: Vec<Node>,
    /// The root token.
    pub root: String,
    // Fields are dropped in this order: processes before their network and their folders.
    network: Option<Network>,
    folder: TempDir,
    /// The first address on loopback.
    base: u32,
    _alone: MutexGuard<'static, ()>,
}

/// One node: its place on disk and in the network, and its process while it has one.
pub struct Node {
    /// `http://host:port` of its API. It keeps it for life.
    pub address: String,
    /// Host and port for other nodes.
    pub node_address: String,
    /// Its data folder.
    pub data: PathBuf,
    config: PathBuf,
    server: Option<Server>,
    paused: bool,
    /// How much longer each flush takes, from its next start on.
    pub flush: Option<Duration>,
    /// Where its data folder is, if that is a disk of its own. After the process that uses it.
    disk: Option<Disk>,
}

impl Cluster {
    /// So many voters on loopback, each with an address of its own there.
    pub fn start(nodes: usize) -> Self {
        Self::founded(nodes, None)
    }

    /// So many voters, each in a network namespace of its own; `None`, and a line that says so, where that cannot be.
    pub fn apart(nodes: usize) -> Option<Self> {
        Self::apart_with(nodes, 0)
    }

    /// As [`Cluster::apart`], with room in the network for so many `more`.
    pub fn apart_with(nodes: usize, more: usize) -> Option<Self> {
        Network::new(nodes + more).map(|network| Self::founded(nodes, Some(network)))
    }

    /// Places for nodes on loopback, and none yet: whoever asks founds the cluster himself.
    pub fn unfounded() -> Self {
        Self::empty(None)
    }

    fn empty(network: Option<Network>) -> Self {
        let alone = alone();
        let folder = tempfile::tempdir().unwrap();
        Self { nodes: Vec::new(), root: String::new(), network, folder, base: loopback(), _alone: alone }
    }

    fn founded(nodes: usize, network: Option<Network>) -> Self {
        let mut cluster = Self::empty(network);
        let founder = cluster.add();
        cluster.launch(founder, &[]).unwrap();
        cluster.root = cluster.server(founder).initialise();
        let mut client = cluster.client(founder);
        client.put(&format!("sys/mounts/{MOUNT}"), &json!({"type": "kv", "options": {"version": "2"}})).expect(204);
        client.put(&format!("{MOUNT}/config"), &json!({"max_versions": 1_000_000})).expect(204);
        for _ in 1..nodes {
            let token = cluster.join_token(founder, &json!({}));
            let joiner = cluster.add();
            cluster.join(joiner, &token).unwrap();
        }
        cluster.settle();
        cluster
    }

    /// A place for one more node, which does not run.
    pub fn add(&mut self) -> usize {
        let number = self.nodes.len();
        let place = match &self.network {
            Some(network) => network.address(number),
            None => Ipv4Addr::from(self.base + number as u32),
        };
        self.nodes.push(Node::new(self.folder.path(), number, place));
        number
    }

    /// As [`Cluster::add`], with the data folder on a disk of its own. Only on loopback.
    pub fn add_on(&mut self, disk: Disk) -> usize {
        let number = self.add();
        let node = &mut self.nodes[number];
        node.data = disk.folder().join("data");
        let data = node.data.to_string_lossy().into_owned();
        node.configure(|table| drop(table.insert("data".to_owned(), data.into())));
        node.disk = Some(disk);
        number
    }

    /// The disk of a node that has one of its own.
    pub fn disk(&self, node: usize) -> &Disk {
        self.nodes[node].disk.as_ref().expect("a node with a disk of its own")
    }

    /// A token with which one more node may join, asked for at a node.
    pub fn join_token(&self, at: usize, wishes: &Value) -> String {
        let answer = self.client(at).post("sys/cluster/join-token", wishes).expect(200).json();
        answer["data"]["join_token"].as_str().unwrap_or_else(|| panic!("no token in {answer}")).to_owned()
    }

    /// Starts a node that has a token.
    ///
    /// # Errors
    /// What it printed, where it ended instead of getting ready.
    pub fn join(&mut self, node: usize, token: &str) -> Result<(), String> {
        self.launch(node, &["--join", token])
    }

    fn launch(&mut self, number: usize, more: &[&str]) -> Result<(), String> {
        let node = &mut self.nodes[number];
        assert!(node.server.is_none(), "node {number} runs");
        let mut command = match (&self.network, &node.disk, node.flush) {
            (Some(network), ..) => network.command(number, binary()),
            (None, Some(disk), _) => disk.command(binary()),
            (None, None, Some(flush)) => slow_disk::command(binary(), flush),
            (None, None, None) => Command::new(binary()),
        };
        let server = Server::launch(command.arg("server").arg("--config").arg(&node.config).args(more))?;
        assert_eq!(server.address, node.address, "node {number} listens where it was told to");
        node.server = Some(server);
        Ok(())
    }

    /// The process of a node that runs.
    pub fn server(&self, node: usize) -> &Server {
        self.nodes[node].server.as_ref().unwrap_or_else(|| panic!("node {node} does not run"))
    }

    /// A client of one node, with the root token.
    pub fn client(&self, node: usize) -> Client {
        Client::new(&self.nodes[node].address, &self.root)
    }

    /// Where the nodes' folders are: `node0` and so on.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The network, if the nodes are apart.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("a cluster whose nodes are apart")
    }

    /// Nodes that run and are not paused.
    pub fn awake(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].server.is_some() && !self.nodes[*node].paused).collect()
    }

    /// All nodes but these.
    pub fn others(&self, nodes: &[usize]) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| !nodes.contains(node)).collect()
    }

    /// Which of these nodes says that it leads, if one does.
    pub fn leader_among(&self, nodes: &[usize]) -> Option<usize> {
        let leads =
            |node: usize| self.ask(node, "sys/leader").is_some_and(|answer| answer["is_self"] == true).then_some(node);
        nodes.iter().copied().find_map(leads)
    }

    /// The node that leads, when there is one, and how long that took.
    pub fn await_leader(&self, among: &[usize]) -> (usize, Duration) {
        self.wait("a leader", || self.leader_among(among))
    }

    /// What a node says about itself; nothing if it is silent.
    pub fn ask(&self, node: usize, path: &str) -> Option<Value> {
        let answer = self.client(node).with_patience(PATIENCE).try_call("GET", path, &[], None).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// Waits until all nodes that run are voters under one leader, and each has what the leader has.
    pub fn settle(&self) {
        let awake = self.awake();
        self.wait("all nodes are voters", || {
            let members = self.members(self.leader_among(&awake)?)?;
            (members.len() == awake.len() && members.iter().all(|member| member["role"] == "voter")).then_some(())
        });
        self.agree(&awake);
    }

    /// The members, as a node tells them.
    pub fn members(&self, at: usize) -> Option<Vec<Value>> {
        self.ask(at, "sys/cluster/members")?["data"]["members"].as_array().cloned()
    }

    /// Waits until these nodes have applied all that their leader had committed when this was called.
    pub fn agree(&self, nodes: &[usize]) {
        let index = |node, what: &str| self.ask(node, "sys/leader")?[what].as_u64();
        let (target, _) =
            self.wait("a leader that says how far it is", || index(self.leader_among(nodes)?, "raft_committed_index"));
        for node in nodes {
            self.wait(&format!("node {node} at {target}"), || {
                index(*node, "raft_applied_index").filter(|applied| *applied >= target)
            });
        }
    }

    /// Waits for something of this cluster; when it does not come, what each node says of itself is told.
    pub fn wait<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> (T, Duration) {
        suite::try_wait(SETTLE_MAX, look).unwrap_or_else(|| {
            let tell = |path: &str, node| self.ask(node, path).map_or("silent".to_owned(), |said| said.to_string());
            for node in self.awake() {
                eprintln!("node {node}: {}\n{}", tell("sys/leader", node), tell("sys/cluster/members", node));
            }
            panic!("{what}: not within {SETTLE_MAX:?}");
        })
    }

    /// Ends a node at once, as `kill -9` does.
    pub fn kill(&mut self, node: usize) {
        let mut server = self.take(node);
        let status = server.kill();
        assert_eq!(status.signal(), Some(9), "node {node} ended by itself: {status}\n{}", server.stderr());
    }

    /// Asks a node to end and waits until it has.
    pub fn stop(&mut self, node: usize) {
        let mut server = self.take(node);
        let status = server.stop();
        assert!(status.success(), "node {node}: {status}\n{}", server.stderr());
    }

    /// Waits until a node ends by itself; gives what it wrote to standard error.
    pub fn await_end(&mut self, node: usize) -> String {
        let mut server = self.take(node);
        suite::wait_for("the node ends", SETTLE_MAX, || (!server.is_alive()).then_some(()));
        server.kill();
        server.stderr()
    }

    fn take(&mut self, node: usize) -> Server {
        self.nodes[node].paused = false;
        self.nodes[node].server.take().unwrap_or_else(|| panic!("node {node} does not run"))
    }

    /// Starts a node again that was ended.
    pub fn restart(&mut self, node: usize) {
        self.try_restart(node).unwrap_or_else(|failure| panic!("node {node} does not start again: {failure}"));
    }

    /// As [`Cluster::restart`].
    ///
    /// # Errors
    /// What it printed, where it ended instead of getting ready.
    pub fn try_restart(&mut self, node: usize) -> Result<(), String> {
        self.launch(node, &[])
    }

    /// Stops a node in its tracks: it is there, and does nothing.
    pub fn pause(&mut self, node: usize) {
        let server = self.server(node);
        server.signal("STOP");
        suite::wait_for("the node stands still", SETTLE_MAX, || (server.state() == 'T').then_some(()));
        self.nodes[node].paused = true;
    }

    /// Lets a paused node go on.
    pub fn resume(&mut self, node: usize) {
        self.server(node).signal("CONT");
        self.nodes[node].paused = false;
    }
}

impl Node {
    fn new(folder: &Path, number: usize, place: Ipv4Addr) -> Self {
        let folder = folder.join(format!("node{number}"));
        let (data, config) = (folder.join("data"), folder.join("keyward.toml"));
        std::fs::create_dir_all(&folder).unwrap();
        let address = format!("{place}:8200");
        let text = format!(
            "data = {data:?}\n\
             [listen]\naddress = \"{address}\"\ntls = \"plain_anywhere\"\n\
             [cluster]\nlisten = \"{place}:8201\"\nnode_name = \"node{number}\"\nsettle_s = 1\n"
        );
        std::fs::write(&config, text).unwrap();
        Self {
            address: format!("http://{address}"),
            node_address: format!("{place}:8201"),
            data,
            config,
            server: None,
            paused: false,
            flush: None,
            disk: None,
        }
    }

    /// Changes its configuration, for its next start.
    pub fn configure(&self, change: impl FnOnce(&mut toml::Table)) {
        let mut table: toml::Table = suite::read(&self.config).parse().unwrap();
        change(&mut table);
        std::fs::write(&self.config, toml::to_string(&table).unwrap()).unwrap();
    }
}

/// The first of eight addresses below 127.0.0.0/8 that no other cluster of this machine has: nodes keep their ports over
/// restarts, and no two tests want the same.
fn loopback() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let block = (std::process::id() * 16 + count % 16) % (1 << 20);
    u32::from(Ipv4Addr::new(127, 1, 0, 0)) + block * 8 + 1
}

/// One cluster at a time in one process: they would take the processors from each other, and elections with them.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
