//! Network namespaces, one for each node, joined by a bridge: links between nodes can be cut, one way or both, or slowed
//! down. The tests' clients are at the bridge and reach every node whatever is cut.
//!
//! Needs root, `ip` and `nft`; delays need `tc` and a kernel with netem.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::suite;

/// Addresses of one network; the last is the bridge's.
const ADDRESSES: u32 = 16;
/// Networks that fit into 198.18.0.0/15, which is for tests of networks.
const NETWORKS: u32 = (1 << 17) / ADDRESSES;
/// Where the packets of a cut link end.
const TABLE: &str = "table inet cut { chain input { type filter hook input priority 0; policy accept; }; }\n";

/// Namespaces and what joins them. They are removed when this goes out of scope.
pub struct Network {
    /// Begins the names of all parts: `kw`, the process id, and which network of it.
    name: String,
    base: u32,
    nodes: usize,
}

impl Network {
    /// A network of so many nodes, at most eight; `None`, and a line that says so, where this machine cannot have one.
    pub fn new(nodes: usize) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(nodes <= 8, "more nodes than addresses");
        if !suite::is_root() {
            eprintln!("NOT TESTED: networks that are cut: that needs root");
            return None;
        }
        sweep();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (std::process::id() * 8 + count) % NETWORKS * ADDRESSES;
        let network = Self { name: format!("kw{}x{count}", std::process::id()), base, nodes };
        if let Err(error) = network.build() {
            eprintln!("NOT TESTED: networks that are cut: {error}");
            return None;
        }
        Some(network)
    }

    fn build(&self) -> Result<(), String> {
        let bridge = self.bridge();
        run("ip", &["link", "add", &bridge, "type", "bridge"], "")?;
        run("ip", &["address", "add", &format!("{}/28", self.place(ADDRESSES - 2)), "dev", &bridge], "")?;
        run("ip", &["link", "set", &bridge, "up"], "")?;
        for node in 0..self.nodes {
            let (space, outer) = (self.space(node), format!("{}v{node}", self.name));
            run("ip", &["netns", "add", &space], "")?;
            run("ip", &["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &space], "")?;
            run("ip", &["link", "set", &outer, "master", &bridge, "up"], "")?;
            let address = format!("{}/28", self.address(node));
            self.inside(node, &["ip", "address", "add", &address, "dev", "eth0"], "")?;
            self.inside(node, &["ip", "link", "set", "eth0", "up"], "")?;
            self.inside(node, &["ip", "link", "set", "lo", "up"], "")?;
            self.inside(node, &["nft", "-f", "-"], TABLE)?;
        }
        Ok(())
    }

    /// A node's address.
    pub fn address(&self, node: usize) -> Ipv4Addr {
        assert!(node < self.nodes, "there is no node {node}");
        self.place(1 + node as u32)
    }

    /// A command that runs `program` in a node's namespace, as the process that this command starts.
    pub fn command(&self, node: usize, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(node)]).arg(program);
        command
    }

    /// From now on `hearer` hears nothing from `speaker`; the other way nothing changes.
    pub fn deafen(&self, hearer: usize, speaker: usize) {
        let rule = format!("add rule inet cut input ip saddr {} counter drop\n", self.address(speaker));
        self.inside(hearer, &["nft", "-f", "-"], &rule).unwrap();
    }

    /// Cuts both ways between two nodes.
    pub fn cut(&self, one: usize, other: usize) {
        self.deafen(one, other);
        self.deafen(other, one);
    }

    /// Cuts a node off from all others.
    pub fn isolate(&self, node: usize) {
        (0..self.nodes).filter(|other| *other != node).for_each(|other| self.cut(node, other));
    }

    /// Joins everything again. Comes back with how many packets the cuts swallowed: none, and nothing was tried.
    pub fn heal(&self) -> u64 {
        let mut swallowed = 0;
        for node in 0..self.nodes {
            swallowed += self.swallowed(node);
            self.inside(node, &["nft", "-f", "-"], "flush chain inet cut input\n").unwrap();
        }
        swallowed
    }

    fn swallowed(&self, node: usize) -> u64 {
        let text = self.inside(node, &["nft", "-j", "list", "chain", "inet", "cut", "input"], "").unwrap();
        let listed: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("nft: {error}: {text}"));
        let parts = listed["nftables"].as_array().into_iter().flatten();
        let expressions = parts.flat_map(|part| part["rule"]["expr"].as_array().into_iter().flatten());
        expressions.filter_map(|expression| expression["counter"]["packets"].as_u64()).sum()
    }

    /// Delays what a node sends by `delay`, more or less `jitter`; says whether this kernel can.
    pub fn delay(&self, node: usize, delay: Duration, jitter: Duration) -> bool {
        let [delay, jitter] = [delay, jitter].map(|time| format!("{}us", time.as_micros()));
        let netem = ["tc", "qdisc", "replace", "dev", "eth0", "root", "netem", "delay", &delay, &jitter];
        match self.inside(node, &netem, "") {
            Ok(_) => true,
            Err(error) => {
                eprintln!("NOT TESTED: slow networks: {error}");
                false
            }
        }
    }

    /// Undoes [`Network::delay`].
    pub fn hasten(&self, node: usize) {
        self.inside(node, &["tc", "qdisc", "del", "dev", "eth0", "root"], "").unwrap();
    }

    fn inside(&self, node: usize, command: &[&str], input: &str) -> Result<String, String> {
        run("ip", &[&["netns", "exec", &self.space(node)], command].concat(), input)
    }

    fn place(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + number)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    fn space(&self, node: usize) -> String {
        format!("{}n{node}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Whatever of it there is: it may have been built in part.
        for node in 0..self.nodes {
            run("ip", &["netns", "del", &self.space(node)], "").ok();
        }
        run("ip", &["link", "del", &self.bridge()], "").ok();
    }
}

/// Removes what tests left behind that were killed.
fn sweep() {
    let owner_is_gone = |name: &str| {
        let process = name.strip_prefix("kw").and_then(|rest| rest.split_once('x')).map(|(process, _)| process);
        process.is_some_and(|process| {
            process.parse::<u32>().is_ok() && !std::path::Path::new("/proc").join(process).exists()
        })
    };
    let names = |text: String| -> Vec<String> {
        let firsts = text.lines().filter_map(|line| line.split_ascii_whitespace().next());
        firsts.filter(|name| owner_is_gone(name)).map(str::to_owned).collect()
    };
    for space in run("ip", &["netns", "list"], "").map(names).unwrap_or_default() {
        run("ip", &["netns", "del", &space], "").ok();
    }
    for bridge in run("ip", &["-br", "link", "show", "type", "bridge"], "").map(names).unwrap_or_default() {
        run("ip", &["link", "del", &bridge], "").ok();
    }
}

/// What a program printed, or why it failed.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let said = |what: &dyn std::fmt::Display| format!("{program} {}: {what}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| said(&error))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that reads nothing may have ended by now; its status tells.
        std::io::Write::write_all(&mut pipe, input.as_bytes()).ok();
    }
    let output = child.wait_with_output().map_err(|error| said(&error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(said(&String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    /// A ping of one packet from one node to another: whether there was an answer.
    fn reaches(network: &Network, from: usize, to: usize) -> bool {
        let to = network.address(to).to_string();
        // Bash has TCP of its own; a refusal is an answer, too.
        let script = format!("timeout 0.3 bash -c 'exec 3<>/dev/tcp/{to}/9' 2>&1 || true");
        network.inside(from, &["bash", "-c", &script], "").unwrap().contains("refused")
    }

    #[test]
    fn links_are_cut_one_way_and_both_and_joined_again() {
        let Some(network) = Network::new(3) else { return };
        assert!(reaches(&network, 0, 1) && reaches(&network, 1, 0));
        network.deafen(0, 1);
        // Neither has an answer: one's question is not heard, the other's answer is not.
        assert!(!reaches(&network, 1, 0) && !reaches(&network, 0, 1) && reaches(&network, 0, 2));
        assert!(network.heal() > 0, "packets of the cut link were counted");
        assert!(reaches(&network, 0, 1));
        network.isolate(2);
        assert!(!reaches(&network, 2, 0) && !reaches(&network, 2, 1) && reaches(&network, 0, 1));
        // The tests themselves are not cut off.
        let refused = TcpStream::connect_timeout(&(network.address(2), 9).into(), PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(network.heal() > 0);
        let other = Network::new(1).unwrap();
        assert!(TcpListener::bind((other.place(ADDRESSES - 2), 0)).is_ok(), "a second network stands beside the first");
    }
}
