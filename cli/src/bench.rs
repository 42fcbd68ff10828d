//! `bench`: how fast a server is, as a share of what this machine could do at best.
//!
//! # Method
//!
//! Absolute rates say more about the machine than about the server, so each run measures two servers with the same
//! client, in turns, on the same number of connections: the one at `--address`, and a *bare responder*: hyper on one
//! single-threaded runtime per core with `SO_REUSEPORT`, in a process of its own, which takes the same requests, does
//! nothing, and answers as many bytes as the real server did. Over TLS if the server is. The ratio of the two is the
//! result.
//!
//! - *Closed loop*: each connection keeps alive, sends a request, waits for the whole answer, checks its status, and
//!   sends the next. So the number of connections is the number of requests in flight, and a stall delays the
//!   requests that would have come during it: the tail looks better than under an open load.
//! - *The client is lean*: requests are rendered once and only the digits of the key change; answers are parsed as far
//!   as their length. It shares the machine with the server, as does the bare responder's: the ratio is of what is left.
//! - *Rounds alternate* between the two (`--rounds`), so that a disturbance of the machine hits both. Counts and
//!   latencies of all rounds are added up. The time before each round's window (`--warm-up`) is not counted.
//! - *Keys* are drawn uniformly from `--keys` secrets, ten to a folder, made before and removed after the run. The
//!   seeds are fixed: two runs ask for the same keys in the same order.
//! - *Processor time per request* is that of the whole server process, from `/proc`, over warm-up and window: it is
//!   less noisy than the rate. For the server it needs `--server-pid`.
//! - *Of a cluster*, `--also` names the other nodes. A connection that breaks goes to the next node that takes it. The
//!   longest silence, in which no connection had a good answer, is then what a fault was felt like: kill a node during
//!   the run.
//! - Latencies are kept in a histogram that is exact to 1 %; p99.9 of fewer than some ten thousand requests is noise.

mod histogram;

mod request;

mod response;

mod endpoint;

mod load;

mod bare;

mod report;

pub(crate) mod responder;

use std::num::NonZero;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use self::bare::Bare;
use self::endpoint::Endpoint;
use self::load::{Load, Node, Order, Tally};
use self::report::{Line, Measured};
use self::request::{Operation, Requests};
use crate::client::Client;
use crate::command::{Session, trim};
use crate::error::CliError;

/// Connections that fill a store or empty it.
const BULK_CONNECTIONS: usize = 64;
const CONNECTIONS_MAX: usize = 10_000;
const KEYS_MAX: u64 = 10_000_000;

/// What to measure.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  keyward bench --connections 1,64,256 --workload read,write\n  keyward bench --populate 1000000\n  keyward bench --populated --keys 1000000 --workload read"
)]
pub(crate) struct Arguments {
    /// Other nodes of the same cluster: connections are dealt out to all of them in turn, the one at `--address` first
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS")]
    also: Vec<String>,
    /// What to do: `mix` reads, and writes one time in ten; `list` lists folders of ten
    #[arg(long, value_enum, value_delimiter = ',', default_value = "read")]
    workload: Vec<Workload>,
    /// Connections, each with one request in flight
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    connections: Vec<usize>,
    /// Seconds that each round counts
    #[arg(long, value_name = "SECONDS", default_value = "5")]
    duration: f64,
    /// Seconds before a round counts
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    warm_up: f64,
    /// Rounds for each of the two servers, in turns
    #[arg(long, value_name = "NUMBER", default_value = "2")]
    rounds: u32,
    /// Secrets to read and write
    #[arg(long, value_name = "NUMBER", default_value = "1000")]
    keys: u64,
    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value = "300")]
    value_size: usize,
    /// A mount of the kv engine, version 2
    #[arg(long, value_name = "MOUNT", default_value = "secret")]
    mount: String,
    /// The folder for the secrets; whatever is in it may be overwritten and removed
    #[arg(long, value_name = "PATH", default_value = "keyward-bench")]
    prefix: String,
    /// Threads of the client; without it, one for each core
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,
    /// Process id of the server on this machine, to show its processor time and memory
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Only make that many secrets, and leave them
    #[arg(long, value_name = "NUMBER", conflicts_with = "populated")]
    populate: Option<u64>,
    /// The secrets are there already; leave them
    #[arg(long)]
    populated: bool,
    /// Without the bare responder, and so without a ratio
    #[arg(long)]
    no_bare: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    Read,
    Write,
    Mix,
    List,
}

impl Workload {
    /// Keys in this order.
    const fn order(self, keys: u64) -> Order {
        let (usual, write_percent) = match self {
            Self::Read => (Operation::Read, 0),
            Self::Write => (Operation::Write, 0),
            Self::Mix => (Operation::Read, 10),
            Self::List => (Operation::List, 0),
        };
        Order::Random { keys, usual, write_percent }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Mix => "mix",
            Self::List => "list",
        }
    }
}

/// Runs the benchmark.
///
/// # Errors
/// The server cannot be reached or refuses a single request made before measuring; out-of-range arguments.
pub(crate) fn run(session: &mut Session, arguments: &Arguments) -> Result<(), CliError> {
    arguments.check()?;
    let clients = clients(session, &arguments.also)?;
    let mut nodes = Vec::with_capacity(clients.len());
    for client in &clients {
        check_mount(client, trim(&arguments.mount))?;
        nodes.push(Node {
            endpoint: Endpoint::of(client)?,
            requests: Requests::new(client, trim(&arguments.mount), trim(&arguments.prefix), arguments.value_size),
        });
    }
    let keys = arguments.populate.unwrap_or(arguments.keys);
    let bulk = Bulk { nodes: &nodes, threads: arguments.threads(), keys };
    if !arguments.populated {
        session.output.hint(&format!(
            "making {keys} secrets below {}/{} …",
            trim(&arguments.mount),
            trim(&arguments.prefix)
        ));
        let seconds = bulk.run(Operation::Write)?;
        if arguments.populate.is_some() {
            return report::populated(session, keys, seconds);
        }
    }
    let memory = || arguments.server_pid.and_then(report::memory_mib);
    let memory_before = memory();
    let lines = measure(session, arguments, &nodes);
    let memory_after = memory();
    if let (Some(before), Some(after)) = (memory_before, memory_after) {
        session.output.hint(&format!("memory of the server: {before} MiB before measuring, {after} MiB after"));
    }
    if !arguments.populated {
        session.output.hint("removing them …");
        bulk.run(Operation::Remove)?;
    }
    let settings = json!({
        "addresses": clients.iter().map(|client| client.base().as_str()).collect::<Vec<_>>(), "keys": keys, "value_bytes": arguments.value_size, "rounds": arguments.rounds,
        "duration_s": arguments.duration, "warm_up_s": arguments.warm_up, "threads": arguments.threads(),
        "cores": cores(), "server_mib_before": memory_before, "server_mib_after": memory_after,
    });
    report::write(session, &settings, &lines?)
}

/// A client for each node.
fn clients(session: &mut Session, also: &[String]) -> Result<Vec<Client>, CliError> {
    let mut clients = vec![session.client()?];
    let told = session.global.address.take();
    for address in also {
        session.global.address = Some(address.clone());
        clients.push(session.client()?);
    }
    session.global.address = told;
    Ok(clients)
}

fn measure(session: &mut Session, arguments: &Arguments, nodes: &[Node]) -> Result<Vec<Line>, CliError> {
    let Some(first) = nodes.first() else { return Err(CliError::Usage("no address".into())) };
    let sizes = load::sample(first)?;
    let bare = if arguments.no_bare { None } else { Some(Bare::start(first, sizes)?) };
    let mut lines = Vec::new();
    for workload in &arguments.workload {
        for connections in &arguments.connections {
            session.output.hint(&format!("{}, {connections} connections …", workload.name()));
            let load = |nodes| Load {
                nodes,
                connections: *connections,
                threads: arguments.threads(),
                order: workload.order(arguments.keys),
                warm_up: Duration::from_secs_f64(arguments.warm_up),
                window: Duration::from_secs_f64(arguments.duration),
            };
            let mut line = Line::new(workload.name(), *connections);
            for _ in 0..arguments.rounds {
                line.server.add(round(&load(nodes), arguments.server_pid)?);
                if let Some(bare) = &bare {
                    line.bare.get_or_insert_with(Measured::default).add(round(&load(bare.nodes()), Some(bare.pid()))?);
                }
            }
            lines.push(line);
        }
    }
    Ok(lines)
}

fn round(load: &Load<'_>, pid: Option<u32>) -> Result<(Tally, Option<Duration>), CliError> {
    let before = pid.and_then(report::processor_time);
    let tally = load.run()?;
    let after = pid.and_then(report::processor_time);
    Ok((tally, after.zip(before).and_then(|(after, before)| after.checked_sub(before))))
}

/// Every key once, as fast as it goes.
struct Bulk<'a> {
    nodes: &'a [Node],
    threads: usize,
    keys: u64,
}

impl Bulk<'_> {
    /// Seconds it took.
    fn run(&self, operation: Operation) -> Result<f64, CliError> {
        let load = Load {
            nodes: self.nodes,
            connections: BULK_CONNECTIONS,
            threads: self.threads,
            order: Order::Once { keys: self.keys, operation },
            warm_up: Duration::ZERO,
            window: Duration::MAX,
        };
        let tally = load.run()?;
        match tally.errors.iter().next() {
            None => Ok(tally.elapsed.as_secs_f64()),
            Some((what, count)) => {
                Err(CliError::Unexpected(format!("{count} of {} requests failed: {what}", self.keys)))
            }
        }
    }
}

impl Arguments {
    fn check(&self) -> Result<(), CliError> {
        let within = |what: &str, good: bool| {
            if good { Ok(()) } else { Err(CliError::Usage(format!("--{what} is out of range"))) }
        };
        within("connections", self.connections.iter().all(|number| (1..=CONNECTIONS_MAX).contains(number)))?;
        within("keys", (1..=KEYS_MAX).contains(&self.keys))?;
        within("populate", self.populate.is_none_or(|keys| (1..=KEYS_MAX).contains(&keys)))?;
        within("duration", self.duration > 0.0 && self.duration <= 3600.0)?;
        within("warm-up", (0.0..=3600.0).contains(&self.warm_up))?;
        within("rounds", (1..=1000).contains(&self.rounds))?;
        within("value-size", self.value_size <= 1 << 20)?;
        within("threads", self.threads.is_none_or(|threads| (1..=1024).contains(&threads)))
    }

    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(cores)
    }
}

/// Cores of this machine that we may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// One polite request through the ordinary client: whatever is wrong is explained as everywhere else.
fn check_mount(client: &Client, mount: &str) -> Result<(), CliError> {
    let answer = client.get(&format!("sys/internal/ui/mounts/{mount}"), &[])?.map_or(Value::Null, |answer| answer.body);
    if answer["data"]["options"]["version"] == "2" {
        return Ok(());
    }
    Err(CliError::Usage(format!("`{mount}/` is no kv mount of version 2; name one with --mount")))
}
