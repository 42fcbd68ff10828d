//! The command line: what is asked, how to reach the server, how to answer.
//!
//! Long flags may have one dash or two, and on-off flags may carry `=true` or `=false`, because the `vault` and `bao`
//! commands that people know take them so.

use std::collections::BTreeSet;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::bench;
use crate::command::{alias, audit, completion, generic, kv, login, operator, policy, secrets, server, status, token};
use crate::output::Format;

/// Keeps secrets, and gives them out only after asking who wants them and writing that down.
#[derive(Parser, Debug)]
#[command(name = "keyward", version, disable_help_subcommand = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// How to reach the server and how to answer.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What is asked.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Global {
    /// The server's address [env: KEYWARD_ADDR] [default: https://127.0.0.1:8200]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) address: Option<String>,
    /// Believe only certificates signed by this authority, a PEM file [env: KEYWARD_CACERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_cert: Option<String>,
    /// Our own certificate, a PEM file [env: KEYWARD_CLIENT_CERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) client_cert: Option<String>,
    /// The key of our certificate, a PEM file [env: KEYWARD_CLIENT_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) client_key: Option<String>,
    /// Believe any certificate: whoever answers may be anybody [env: KEYWARD_SKIP_VERIFY]
    #[arg(long, global = true)]
    pub(crate) tls_skip_verify: bool,
    /// A namespace of an OpenBao or Vault [env: KEYWARD_NAMESPACE]
    #[arg(long, global = true, alias = "ns", value_name = "PATH")]
    pub(crate) namespace: Option<String>,
    /// Have the answer wrapped: a token that opens it once within this time
    #[arg(long, global = true, value_name = "DURATION")]
    pub(crate) wrap_ttl: Option<String>,
    /// How to write the answer [env: KEYWARD_FORMAT] [default: table]
    #[arg(long, global = true, value_enum, ignore_case = true)]
    pub(crate) format: Option<Format>,
    /// Write only this field of the answer
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) field: Option<String>,
    /// Seconds that one request may take [env: KEYWARD_CLIENT_TIMEOUT] [default: 60]
    #[arg(long, global = true, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
}

/// What is asked.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Start a server
    Server(server::Arguments),
    /// Show whether the server is initialised and unsealed (exit code 2 when sealed)
    Status(status::Arguments),
    /// Get a token and keep it for the commands that follow
    Login(login::Arguments),
    /// Versioned secrets: put, get, patch, delete, undelete, destroy, list, …
    #[command(subcommand)]
    Kv(kv::Command),
    /// Names that point to one version of a secret: current, previous, next, and your own
    #[command(subcommand)]
    Alias(alias::Command),
    /// Read any path
    Read(generic::Read),
    /// Write to any path
    Write(generic::Write),
    /// List what is below any path
    List(generic::List),
    /// Delete at any path
    Delete(generic::Delete),
    /// Open a wrapped answer; it opens once
    Unwrap(generic::Unwrap),
    /// Tokens: create, look up, renew, revoke, and what they may do
    #[command(subcommand)]
    Token(token::Command),
    /// Policies: list, read, write, delete
    #[command(subcommand)]
    Policy(policy::Command),
    /// Mounts: list, enable, disable, move, tune
    #[command(subcommand)]
    Secrets(secrets::Command),
    /// Initialise, unseal, seal, rotate keys; the nodes of a cluster
    #[command(subcommand)]
    Operator(operator::Command),
    /// Check an audit trail
    #[command(subcommand)]
    Audit(audit::Command),
    /// Measure a server against the bare limit of this machine
    Bench(bench::Arguments),
    /// The server that does nothing but answer, for `bench`
    #[command(hide = true)]
    BenchResponder(bench::responder::Arguments),
    /// Write a completion script for a shell
    Completion(completion::Arguments),
    /// Show the version
    Version,
}

/// Turns `-field=x` into `--field=x`, and `--flag=true` of an on-off flag into `--flag` (`=false` into nothing).
/// Whatever follows `--` stays.
pub(crate) fn normalise(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let switches = switches();
    let mut plain = false;
    let mut normal = Vec::new();
    for argument in arguments {
        plain |= argument == "--";
        if plain {
            normal.push(argument);
            continue;
        }
        let mut letters = argument.chars();
        let long = argument.len() > 2
            && letters.next() == Some('-')
            && letters.next().is_some_and(|c| c.is_ascii_alphabetic())
            && letters.next().is_some_and(|c| c != '=');
        let argument = if long { format!("-{argument}") } else { argument };
        match argument.strip_prefix("--").and_then(|flag| flag.split_once('=')) {
            Some((name, value)) if switches.contains(name) => match value {
                "true" | "1" | "t" => normal.push(format!("--{name}")),
                "false" | "0" | "f" => {}
                _ => normal.push(argument),
            },
            _ => normal.push(argument),
        }
    }
    normal
}

/// The long names of all flags without a value.
fn switches() -> BTreeSet<String> {
    fn walk(command: &clap::Command, names: &mut BTreeSet<String>) {
        for flag in command.get_arguments().filter(|flag| matches!(flag.get_action(), clap::ArgAction::SetTrue)) {
            names.extend(flag.get_long().map(str::to_owned));
        }
        command.get_subcommands().for_each(|command| walk(command, names));
    }
    let mut names = BTreeSet::new();
    walk(&Cli::command(), &mut names);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(line: &str) -> String {
        normalise(line.split(' ').map(str::to_owned)).join(" ")
    }

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_name_is_a_switch_here_and_takes_a_value_there() {
        fn walk(command: &clap::Command, switches: &BTreeSet<String>) {
            for flag in command.get_arguments() {
                let is_switch = matches!(flag.get_action(), clap::ArgAction::SetTrue);
                let named = flag.get_long().is_some_and(|name| switches.contains(name));
                assert_eq!(is_switch, named, "{flag:?}");
            }
            command.get_subcommands().for_each(|command| walk(command, switches));
        }
        walk(&Cli::command(), &switches());
    }

    #[test]
    fn one_dash_or_two() {
        for (given, expected) in [
            ("kv get -field=x -version=2 a/b", "kv get --field=x --version=2 a/b"),
            ("kv put -cas=0 a/b k=-x p=-", "kv put --cas=0 a/b k=-x p=-"),
            ("operator init -n=5 -t 3 -status", "operator init -n=5 -t 3 --status"),
            ("list -format json -", "list --format json -"),
            ("token revoke -self=true", "token revoke --self"),
            ("token revoke -self=false", "token revoke"),
            ("write a -- -x -format=json", "write a -- -x -format=json"),
            ("kv get -1", "kv get -1"),
        ] {
            assert_eq!(normal(given), expected);
        }
    }

    #[test]
    fn the_lines_that_people_know_parse() {
        for line in [
            "status -format=json",
            "operator init -key-shares=1 -key-threshold=1",
            "operator unseal -reset",
            "operator join-token -ttl=5m -name=two",
            "operator join-token -replace=node3",
            "operator members -format=json",
            "operator remove -force 00000000-0000-0000-0000-000000000001",
            "operator promote 0000000000000001",
            "operator step-down",
            "operator rotate-ca",
            "operator recover -data=d -yes -force",
            "operator recover -config=c.toml -check",
            "server --join - --data=d --name=two --node-listen=127.0.0.1:8301",
            "kv put -mount=secret -cas=0 app/db password=-",
            "kv get -mount secret -version 2 -field=password app/db",
            "kv get -alias=previous secret/app/db",
            "kv patch -method=rw secret/app/db a=b",
            "kv delete -versions=1,2 secret/app/db",
            "kv undelete -versions=1 -versions=2 secret/app/db",
            "kv destroy -versions=1 secret/app/db",
            "kv rollback -version=1 secret/app/db",
            "kv list secret",
            "kv metadata put -max-versions 5 -delete-version-after=30m -custom-metadata=a=b secret/app/db",
            "kv metadata patch -cas-required=false -remove-custom-metadata=a secret/app/db",
            "kv metadata get secret/app/db",
            "alias set secret/app/db current 3 -from=2",
            "token create -policy=a -policy=b -ttl=1h -renewable=false -use-limit=3 -metadata=a=b",
            "token capabilities secret/data/app",
            "policy write app -",
            "secrets enable -path=kv -version=2 kv",
            "secrets tune -default-lease-ttl=1h kv/",
            "write -f sys/rotate",
            "login -method=userpass username=me",
            "completion bash",
            "audit verify -from=audit -stream=n1-1",
            "bench --connections 1,64 --workload mix --duration 2",
        ] {
            let arguments = std::iter::once("keyward").chain(line.split(' ')).map(str::to_owned);
            if let Err(error) = Cli::try_parse_from(normalise(arguments)) {
                panic!("{line}: {error}");
            }
        }
    }
}
