//! One module for each word after `keyward`. A command reads its arguments, talks to the server and writes one answer.

pub(crate) mod status;

pub(crate) mod login;

pub(crate) mod kv;

pub(crate) mod alias;

pub(crate) mod generic;

pub(crate) mod token;

pub(crate) mod policy;

pub(crate) mod secrets;

pub(crate) mod operator;

pub(crate) mod audit;

pub(crate) mod completion;

pub(crate) mod server;

use std::time::Duration;

use keyward_model::Secret;

use crate::args::{Command, Global};
use crate::bench;
use crate::client::{Client, Target};
use crate::env::{DEFAULT_ADDRESS, Environment, Found};
use crate::error::CliError;
use crate::output::{Format, Output, Sink};
use crate::tls::{Identity, Trust};

const TIMEOUT_S: u64 = 60;

/// What a command works with.
pub(crate) struct Session {
    /// The variables.
    pub(crate) env: Environment,
    /// The common flags.
    pub(crate) global: Global,
    /// Where answers go.
    pub(crate) output: Output,
}

impl Session {
    /// Settles the format; nothing else is looked at before a command needs it.
    ///
    /// # Errors
    /// A format that does not exist.
    pub(crate) fn new(env: Environment, mut global: Global) -> Result<Self, CliError> {
        let format = match (global.format, env.find("FORMAT")) {
            (Some(format), _) => format,
            (None, None) => Format::Table,
            (None, Some(found)) => <Format as clap::ValueEnum>::from_str(&found.value, true).map_err(|_| {
                CliError::Usage(format!("`{}` must be table, json or yaml, not `{}`", found.origin, found.value))
            })?,
        };
        let output = Output::standard(format, global.field.take());
        Ok(Self { env, global, output })
    }

    /// A client with the token in force.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        self.client_with(self.env.token())
    }

    /// A client with this token, or none.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub(crate) fn client_with(&self, token: Option<Secret<String>>) -> Result<Client, CliError> {
        let Self { env, global, .. } = self;
        let value = |given: &Option<String>, flag: &str, name: &str| {
            env.choose(given.as_deref(), flag, name).map(|found| found.value)
        };
        let told = env.choose(global.address.as_deref(), "--address", "ADDR");
        let local = if told.is_none() { env.local_server() } else { None };
        let (address, local_ca) = match (told, local) {
            (Some(told), _) => (told, None),
            (None, Some(local)) => {
                let origin = "the server last started here (~/.keyward-server)".into();
                (Found { value: local.address, origin }, local.ca)
            }
            (None, None) => (Found { value: DEFAULT_ADDRESS.into(), origin: "the default".into() }, None),
        };
        let local_ca = local_ca.map(|path| path.display().to_string());
        let trust = if global.tls_skip_verify || env.flag("SKIP_VERIFY")? {
            Trust::Anyone
        } else {
            value(&global.ca_cert, "--ca-cert", "CACERT").or(local_ca).map_or(Trust::System, Trust::File)
        };
        let certificate = value(&global.client_cert, "--client-cert", "CLIENT_CERT");
        let key = value(&global.client_key, "--client-key", "CLIENT_KEY");
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, None) => None,
            _ => return Err(CliError::Usage("--client-cert and --client-key are given together or not at all".into())),
        };
        Client::new(Target {
            address,
            trust,
            identity,
            token,
            namespace: value(&global.namespace, "--namespace", "NAMESPACE"),
            wrap_ttl: value(&global.wrap_ttl, "--wrap-ttl", "WRAP_TTL"),
            timeout: Duration::from_secs(self.timeout_s()?),
        })
    }

    /// Points out, to someone who sits at a terminal, that what was typed can be seen by others.
    pub(crate) fn exposed(&mut self, names: &[String], instead: &str) {
        if self.output.err_sink() == Sink::Terminal && !names.is_empty() {
            let names = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            self.output.hint(&format!(
                "note: {names} stood in the command line, which `ps` and your shell's history show; {instead}"
            ));
        }
    }

    /// What goes into a pipe is written in `format`, unless somebody asked for another.
    pub(crate) fn prefer_in_pipes(&mut self, format: Format) {
        if self.global.format.is_none() && self.env.find("FORMAT").is_none() {
            self.output.prefer_in_pipes(format);
        }
    }

    fn timeout_s(&self) -> Result<u64, CliError> {
        if let Some(seconds) = self.global.timeout {
            return Ok(seconds.max(1));
        }
        let Some(found) = self.env.find("CLIENT_TIMEOUT") else { return Ok(TIMEOUT_S) };
        let seconds = found.value.strip_suffix('s').unwrap_or(&found.value);
        seconds
            .parse()
            .map(|seconds: u64| seconds.max(1))
            .map_err(|_| CliError::Usage(format!("`{}` must be whole seconds, not `{}`", found.origin, found.value)))
    }
}

/// Runs one command.
///
/// # Errors
/// Whatever kept the command from its answer.
pub(crate) fn run(session: &mut Session, command: Command) -> Result<(), CliError> {
    match command {
        Command::Server(arguments) => server::run(&session.env, arguments),
        Command::Status(arguments) => status::run(session, &arguments),
        Command::Login(arguments) => login::run(session, &arguments),
        Command::Kv(command) => kv::run(session, command),
        Command::Alias(command) => alias::run(session, &command),
        Command::Read(arguments) => generic::read(session, &arguments),
        Command::Write(arguments) => generic::write(session, &arguments),
        Command::List(arguments) => generic::list(session, &arguments),
        Command::Delete(arguments) => generic::delete(session, &arguments),
        Command::Unwrap(arguments) => generic::unwrap(session, &arguments),
        Command::Token(command) => token::run(session, command),
        Command::Policy(command) => policy::run(session, &command),
        Command::Secrets(command) => secrets::run(session, command),
        Command::Operator(command) => operator::run(session, &command),
        Command::Audit(command) => audit::run(session, &command),
        Command::Bench(arguments) => bench::run(session, &arguments),
        Command::BenchResponder(arguments) => bench::responder::run(&arguments),
        Command::Completion(arguments) => completion::run(session, &arguments),
        Command::Version => session.output.text(concat!("keyward ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

/// A path as people write it, without the slashes around it.
pub(crate) fn trim(path: &str) -> &str {
    path.trim().trim_matches('/')
}
