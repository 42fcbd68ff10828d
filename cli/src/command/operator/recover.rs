//! `operator recover`: the one command for a cluster that lost its majority for good, on the node that is left.

use std::io;
use std::net::{IpAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use keyward_model::Timestamp;
use keyward_server::boot::BootError;
use keyward_server::clock::{OsEntropy, SystemClock};
use keyward_server::cluster::recovery::offline::{Other, Role, Stopped};
use reqwest::Url;
use serde_json::{Value, json};

use crate::client::{Client, Target};
use crate::command::{Session, server};
use crate::env::Found;
use crate::error::{CliError, Fault};
use crate::input;
use crate::tls::Trust;

/// Time for another node to say whether it knows a leader, and to take a connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// The node that is left. Its server must be stopped.
#[derive(Args, Debug)]
#[command(
    after_help = "Look first, on every node that is left, and go on with the one that has the last entry:\n  keyward operator recover --data /var/lib/keyward --check\n  keyward operator recover --data /var/lib/keyward"
)]
pub(crate) struct Recover {
    /// The configuration file of the node
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its data folder [default: ./keyward-data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Only show what this node knows, and who answers
    #[arg(long)]
    check: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Also if other members answer that could go on without it
    #[arg(long)]
    force: bool,
}

/// What another member says when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nobody is at its addresses.
    Silent,
    /// Its address is not known, or this machine cannot ask there: it may well run.
    Unasked,
    /// It runs, and knows no leader, or does not say.
    Answers,
    /// It leads, or follows a leader.
    HasLeader,
}

/// Shows what is known and what is lost, asks, and makes the node the only one.
///
/// # Errors
/// The node runs, cannot be used, or is not the last; nobody agreed; something cannot be written.
pub(crate) fn run(session: &mut Session, arguments: &Recover) -> Result<(), CliError> {
    let failed = |error: BootError| CliError::Server(error.to_string());
    let config = server::configuration(arguments.config.as_deref(), arguments.data.clone())?;
    let stopped = Stopped::open(&config, Arc::new(OsEntropy)).map_err(failed)?;
    let others: Vec<(Other, Seen)> = stopped
        .others()
        .into_iter()
        .map(|other| {
            let seen = ask(other.row.as_ref().map(|row| row.api_address.as_str()), other.address.as_deref());
            (other, seen)
        })
        .collect();
    show(session, &stopped, &others)?;
    let objection = objection(&stopped, &others);
    if arguments.check {
        objection.iter().for_each(|objection| session.output.hint(&format!("\n{objection}")));
        return Ok(());
    }
    match objection {
        Some(objection) if !arguments.force => {
            return Err(CliError::Usage(format!("{objection}\nif you know better, say --force")));
        }
        Some(objection) => session.output.hint(&format!("\n{objection}\ngoing on all the same, because of --force")),
        None => {}
    }
    let last = stopped.remains().last.map_or(0, |last| last.index).to_string();
    let question = format!("To go on with this node alone, type the number of its last entry ({last})");
    if !arguments.yes && !input::agreed(&question, &last)? {
        return Err(CliError::Usage("nothing was changed: nobody agreed; without a terminal, say --yes".into()));
    }
    let recovery = stopped.recover(&SystemClock, &OsEntropy).map_err(failed)?;
    session.output.say(&format!(
        "This node is the only member from entry {last} on; it is in its audit trail.\n\
         Start it: the cluster becomes {} as soon as it is unsealed. Then let new nodes join, with empty data folders.\n\
         The nodes that were left out must not be started again: two of them together would be a cluster of their own.",
        recovery.cluster.to_uuid()
    ))
}

/// Asks a member, by the URL of its API, whether there is a leader, and, if nobody says, at its node port, whether it is there.
/// Whoever answers need not prove who it is: its word can only hold us back.
fn ask(api: Option<&str>, node: Option<&str>) -> Seen {
    let Some(node) = node else { return Seen::Unasked };
    match api.map_or(Seen::Unasked, |api| ask_api(reached_at(api, node))) {
        Seen::Silent | Seen::Unasked => knock(node),
        said => said,
    }
}

/// The URL under which the API at `api` is reached from another machine: one that listens on every address, or on its own
/// alone, is looked for where its node port is.
fn reached_at(api: &str, node: &str) -> String {
    let Ok(mut url) = Url::parse(api) else { return api.to_owned() };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_own = |ip: IpAddr| ip.is_unspecified() || ip.is_loopback();
    if host == "localhost" || host.parse().is_ok_and(is_own) {
        let host = node.rsplit_once(':').map_or(node, |(host, _)| host);
        if url.set_host(Some(host)).is_err() {
            return api.to_owned(); // the node port is asked, too
        }
    }
    url.into()
}

fn ask_api(address: String) -> Seen {
    let client = Client::new(Target {
        address: Found { value: address, origin: "the state of this node".into() },
        trust: Trust::Anyone,
        identity: None,
        token: None,
        namespace: None,
        wrap_ttl: None,
        timeout: PATIENCE,
    });
    match client.and_then(|client| client.get("sys/leader", &[])) {
        Ok(Some(answer)) if answer.body["leader_address"].as_str().is_some_and(|leader| !leader.is_empty()) => {
            Seen::HasLeader
        }
        Err(CliError::Unreachable(why)) => match why.fault {
            Fault::ConnectionRefused | Fault::Timeout | Fault::NoRoute => Seen::Silent,
            Fault::UnknownHost => Seen::Unasked,
            _ => Seen::Answers,
        },
        Err(CliError::Usage(_) | CliError::Local(_)) => Seen::Unasked,
        // Somebody is there, whatever is wrong with what it said.
        Ok(_) | Err(_) => Seen::Answers,
    }
}

/// Whether somebody takes a connection at a node port.
fn knock(address: &str) -> Seen {
    let Ok(found) = address.to_socket_addrs() else { return Seen::Unasked };
    let mut seen = Seen::Unasked;
    for address in found {
        match TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| error.kind()) {
            Ok(_) => return Seen::Answers,
            Err(io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable) => {
                seen = Seen::Silent;
            }
            Err(_) => {}
        }
    }
    seen
}

/// Why this is not the time for it, if it is not.
fn objection(stopped: &Stopped, others: &[(Other, Seen)]) -> Option<String> {
    let name = |other: &Other| other.row.as_ref().map_or_else(|| number(other), |row| row.name.clone());
    if let Some((other, _)) = others.iter().find(|(_, seen)| *seen == Seen::HasLeader) {
        return Some(format!(
            "{} answers and has a leader: the cluster goes on, and this node is only to be started, or to join anew",
            name(other)
        ));
    }
    let is_voter = |role: Option<Role>| role == Some(Role::Voter);
    let answering = others.iter().filter(|(other, seen)| *seen == Seen::Answers && is_voter(other.role));
    let able = answering.count() + usize::from(is_voter(stopped.role()));
    if able > stopped.voters() / 2 {
        return Some(format!(
            "{able} of {} voters are a majority, with this one: start this node, and the cluster goes on",
            stopped.voters()
        ));
    }
    others.iter().find(|(_, seen)| *seen == Seen::Unasked).map(|(other, _)| {
        format!(
            "{} could not be asked at {} and may well run: find out whether it does",
            name(other),
            other.address.as_deref().unwrap_or("an address that nobody knows")
        )
    })
}

fn show(session: &mut Session, stopped: &Stopped, others: &[(Other, Seen)]) -> Result<(), CliError> {
    let remains = stopped.remains();
    let shown = |value: Option<u64>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
    let (index, term) = (remains.last.map(|last| last.index), remains.last.map(|last| last.term));
    let seen = |seen| match seen {
        Seen::Silent => "does not answer",
        Seen::Unasked => "could not be asked",
        Seen::Answers => "answers, and knows no leader",
        Seen::HasLeader => "answers, and has a leader",
    };
    let left_out: Vec<Value> = others
        .iter()
        .map(|(other, now)| {
            let row = other.row.as_ref();
            json!({
                "id": row.map_or_else(|| number(other), |row| row.node.to_uuid()),
                "name": row.map(|row| row.name.as_str()),
                "role": role(other.role),
                "node_address": other.address,
                "now": seen(*now),
            })
        })
        .collect();
    let document = json!({
        "node": stopped.node().to_uuid(),
        "role": role(stopped.role()),
        "cluster": stopped.cluster().to_uuid(),
        "last_index": index,
        "last_term": term,
        "last_write": remains.at.map(Timestamp::rfc3339),
        "committed_index": remains.committed,
        "applied_index": remains.applied,
        "left_out": left_out,
    });
    let mut rows = vec![
        vec!["This Node".to_owned(), format!("{} ({})", stopped.node().to_uuid(), role(stopped.role()))],
        vec!["Cluster".to_owned(), stopped.cluster().to_uuid()],
        vec!["Last Entry".to_owned(), format!("{} of term {}", shown(index), shown(term))],
        vec!["Last Write".to_owned(), remains.at.map_or_else(|| "none in the log".to_owned(), Timestamp::rfc3339)],
        vec!["Known To Be Committed".to_owned(), format!("up to {}", shown(remains.committed))],
        vec!["In The State".to_owned(), format!("up to {}", shown(remains.applied))],
    ];
    for (other, now) in others {
        let row = other.row.as_ref();
        let name = row.map_or_else(|| number(other), |row| row.name.clone());
        let at = other.address.as_deref().unwrap_or("-");
        rows.push(vec!["Left Out".to_owned(), format!("{name} ({}) at {at}: {}", role(other.role), seen(*now))]);
    }
    session.output.rows(&document, &["What", "Known Here"], &rows)?;
    session.output.hint(&format!(
        "\nLost is what was acknowledged after entry {last} and reached only nodes that are gone; nobody can say how much.\n\
         What this node has up to entry {last} is kept, also where no majority is known to have had it.",
        last = shown(index)
    ));
    Ok(())
}

fn number(other: &Other) -> String {
    format!("{:016x}", other.number)
}

const fn role(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Voter) => "voter",
        Some(Role::Learner) => "learner",
        None => "joining",
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn port() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    #[test]
    fn whoever_takes_a_connection_is_there() {
        let ((listener, node), (gone, nobody)) = (port(), port());
        drop(gone);
        let api = format!("http://{nobody}");
        assert_eq!(ask(Some(&api), Some(&node)), Seen::Answers, "its API listens elsewhere");
        assert_eq!(ask(None, Some(&node)), Seen::Answers, "it has no row yet");
        drop(listener);
        assert_eq!(ask(Some(&api), Some(&node)), Seen::Silent);
        assert_eq!(ask(Some("http://[::1"), Some(&node)), Seen::Silent, "nobody is at its node port");
        assert_eq!(ask(Some(&api), None), Seen::Unasked);
        assert_eq!(ask(Some(&api), Some("no-such-host.invalid:8201")), Seen::Unasked);
    }

    #[test]
    fn an_api_that_does_not_speak_as_it_should_is_there() {
        let ((listener, address), (gone, nobody)) = (port(), port());
        drop(gone);
        let speaking = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(io::Read::read(&mut stream, &mut [0; 1024]).unwrap() > 0);
            io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhm").unwrap();
        });
        assert_eq!(ask(Some(&format!("http://{address}")), Some(&nobody)), Seen::Answers);
        speaking.join().unwrap();
    }

    #[test]
    fn an_api_that_is_everywhere_or_at_home_is_looked_for_at_its_node() {
        for (api, node, url) in [
            ("https://0.0.0.0:8200", "10.0.0.2:8201", "https://10.0.0.2:8200/"),
            ("https://[::]:8200", "[fd00::2]:8201", "https://[fd00::2]:8200/"),
            ("https://127.0.0.1:8200", "node2:8201", "https://node2:8200/"),
            ("https://localhost:8200", "node2:8201", "https://node2:8200/"),
            ("https://10.0.0.9:8200", "10.0.0.2:8201", "https://10.0.0.9:8200/"),
            ("nonsense", "10.0.0.2:8201", "nonsense"),
        ] {
            assert_eq!(reached_at(api, node), url);
        }
    }
}
