//! `keyward server`: the node itself.

use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use keyward_server::boot::{self, Dev, Running};
use keyward_server::clock::{OsEntropy, SystemClock};
use keyward_server::cluster::join::guest;
use keyward_server::config::{Config, Durability, SealKind, Tls};
use keyward_server::{build, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::env::{Environment, LocalServer};
use crate::error::CliError;
use crate::input;

/// Start a server. Without anything else: durable, in ./keyward-data, with TLS and a key file that unseals it
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// A configuration file (TOML); see `keyward server check-config --print`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder [default: ./keyward-data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:8200]
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Plain HTTP; on loopback addresses only
    #[arg(long)]
    plain: bool,
    /// What opens a new installation: key_file, shamir or passphrase
    #[arg(long, value_name = "KIND", value_parser = ["key_file", "shamir", "passphrase"])]
    seal: Option<String>,
    /// Join the cluster that made this token (`keyward operator join-token`); `-` reads it from standard input. The data
    /// folder must be empty
    #[arg(long, value_name = "TOKEN", conflicts_with = "dev")]
    join: Option<String>,
    /// What people call this node [default: the host's name]
    #[arg(long, value_name = "NAME", conflicts_with = "dev")]
    name: Option<String>,
    /// Where to listen for other nodes of the cluster [default: as --listen, with the next port]
    #[arg(long, value_name = "HOST:PORT", value_parser = address, conflicts_with = "dev")]
    node_listen: Option<SocketAddr>,
    /// For development: in memory, plain HTTP on loopback, initialised and unsealed, `secret/` a KV v2 mount
    #[arg(long)]
    dev: bool,
    /// The root token of a development server [default: a random one]
    #[arg(long, value_name = "TOKEN", requires = "dev")]
    dev_root_token_id: Option<String>,
    /// Where a development server listens [default: 127.0.0.1:8200]
    #[arg(long, value_name = "HOST:PORT", requires = "dev", value_parser = address)]
    dev_listen_address: Option<SocketAddr>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check a configuration file and say what is wrong with it
    CheckConfig {
        /// The file
        file: Option<PathBuf>,
        /// Print the configuration that would be used, defaults included
        #[arg(long)]
        print: bool,
    },
}

/// Runs the server until a signal or a failure ends it.
///
/// # Errors
/// The configuration is wrong, or the server cannot start or go on.
pub(crate) fn run(environment: &Environment, arguments: Arguments) -> Result<(), CliError> {
    if let Some(Action::CheckConfig { file, print }) = arguments.action {
        return check_config(file.as_deref(), print);
    }
    telemetry::start();
    let failed = |error: boot::BootError| CliError::Server(error.to_string());
    if arguments.dev {
        sweep_left_over();
        let memory = memory_folder().map_err(|error| CliError::Server(format!("no folder for the data: {error}")))?;
        let address = arguments.dev_listen_address.unwrap_or_else(|| Config::default().listen.address);
        let config = Config {
            data: memory.path().to_owned(),
            listen: keyward_server::config::Listen {
                address,
                // An address that others reach was asked for by name (a container's, say).
                tls: if address.ip().is_loopback() { Tls::Plain } else { Tls::PlainAnywhere },
                ..Config::default().listen
            },
            seal: keyward_server::config::Seal { kind: SealKind::Shamir, ..Default::default() },
            audit: keyward_server::config::Audit { durability: Durability::Fsync, ..Config::default().audit },
            ..Config::default()
        };
        let running = boot::start(config, Some(&Dev { root_token: arguments.dev_root_token_id })).map_err(failed)?;
        greet_dev(&running);
        return until_stopped(running);
    }
    let token = arguments.join.clone();
    let config = settle(arguments)?;
    if let Some(token) = token {
        join(&config, &token)?;
    }
    let running = boot::start(config, None).map_err(failed)?;
    leave_hint(environment, &running);
    greet(&running);
    until_stopped(running)
}

/// Makes the empty data folder one of a member.
fn join(config: &Config, token: &str) -> Result<(), CliError> {
    config.check().map_err(|error| CliError::Server(error.to_string()))?;
    let token = match token {
        "-" => input::secret("join token")?,
        given => Zeroizing::new(given.to_owned()),
    };
    guest::join(config, &token, &SystemClock, &OsEntropy).map_err(|error| CliError::Server(error.to_string()))?;
    say(
        "This node was let into the cluster. It gets a copy of everything now, and votes once it has kept up for a while.\n",
    );
    Ok(())
}

/// The configuration of a node, for a command that works on its data folder.
///
/// # Errors
/// It cannot be read, or is wrong.
pub(crate) fn configuration(file: Option<&Path>, data: Option<PathBuf>) -> Result<Config, CliError> {
    let mut config = match file {
        Some(path) => read_config(path)?,
        None => Config::default(),
    };
    if let Some(data) = data {
        config.data = data;
    }
    Ok(config)
}

/// Flags over the file over the defaults.
fn settle(arguments: Arguments) -> Result<Config, CliError> {
    let mut config = configuration(arguments.config.as_deref(), arguments.data)?;
    if let Some(address) = arguments.listen {
        config.listen.address = address;
    }
    if arguments.plain {
        config.listen.tls = Tls::Plain;
    }
    if arguments.name.is_some() {
        config.cluster.node_name = arguments.name;
    }
    if arguments.node_listen.is_some() {
        config.cluster.listen = arguments.node_listen;
    }
    match arguments.seal.as_deref() {
        Some("shamir") => config.seal.kind = SealKind::Shamir,
        Some("passphrase") => config.seal.kind = SealKind::Passphrase,
        Some(_) => config.seal.kind = SealKind::KeyFile,
        None => {}
    }
    Ok(config)
}

fn read_config(path: &Path) -> Result<Config, CliError> {
    let text = fs::read_to_string(path).map_err(|error| CliError::Server(format!("{}: {error}", path.display())))?;
    Config::parse(&text).map_err(|error| CliError::Server(format!("{}: {error}", path.display())))
}

fn check_config(file: Option<&Path>, print: bool) -> Result<(), CliError> {
    let config = match file {
        Some(path) => read_config(path)?,
        None => Config::default(),
    };
    let mut out = io::stdout();
    if print {
        let text = toml::to_string(&config).map_err(|error| CliError::Server(error.to_string()))?;
        out.write_all(text.as_bytes()).ok();
    } else {
        writeln!(out, "the configuration is fine").ok();
    }
    Ok(())
}

/// An address and port; a name is looked up.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.to_socket_addrs()
        .map_err(|error| format!("not an address and port like 127.0.0.1:8200: {error}"))?
        .next()
        .ok_or_else(|| "the name has no address".to_owned())
}

const DEV_FOLDER: &str = "keyward-dev-";

/// Removes what development servers left behind that were killed: nobody holds the lock of their state any more.
fn sweep_left_over() {
    for folder in [PathBuf::from("/dev/shm"), std::env::temp_dir()] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(DEV_FOLDER) {
                let lock = fs::File::open(entry.path().join("state").join("state.db.lock"));
                if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                    fs::remove_dir_all(entry.path()).ok();
                }
            }
        }
    }
}

/// A folder in memory that goes with the process: `/dev/shm` where there is one.
fn memory_folder() -> io::Result<tempfile::TempDir> {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(DEV_FOLDER);
        builder
    };
    builder().tempdir_in("/dev/shm").or_else(|_| builder().tempdir())
}

fn until_stopped(running: Running) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Server(error.to_string()))?;
    runtime.block_on(signals(&running)).map_err(|error| CliError::Server(error.to_string()))?;
    if running.stop() {
        Ok(())
    } else {
        Err(CliError::Server("the node stopped because of a failure; the log above says which".into()))
    }
}

/// Comes back when the server should stop: a signal, or a failure of the node.
async fn signals(running: &Running) -> io::Result<()> {
    let (mut terminate, mut interrupt, mut hangup) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let mut failure = running.failure();
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = failure.wait_for(|failed| *failed) => return Ok(()),
            _ = hangup.recv() => running.reload(),
        }
    }
}

fn greet_dev(running: &Running) {
    let address = running.app.address();
    let token = running.root_token.as_ref().map_or("", |token| token.expose().as_str());
    let text = format!(
        "Keyward {} development server: everything is in memory and gone when it stops. Never use it for real secrets.\n\n\
         Address:    {address}\n\
         Root token: {token}\n\n\
         In another terminal:\n\
         \x20 export KEYWARD_ADDR={address} KEYWARD_TOKEN={token}\n\
         \x20 printf %s \"s3cr3t\" | keyward kv put secret/app password=-\n\
         \x20 keyward kv get secret/app\n",
        build::VERSION
    );
    say(&text);
}

fn greet(running: &Running) {
    let app = &running.app;
    let data = &app.config.data;
    let initialised = app.is_initialised();
    let mut text = format!("Keyward {} listens on {}\nData: {}\n", build::VERSION, app.address(), data.display());
    text += &format!("Audit key: {}\n", app.audit_key());
    if app.config.listen.tls == Tls::LocalCa {
        text += &format!("Certificate authority for clients: {}\n", data.join("tls").join("ca.pem").display());
    }
    text += match (initialised, app.barrier.is_sealed()) {
        (false, _) if app.cluster.trust().is_some() => "Waiting for the state of the cluster.\n",
        (false, _) => {
            "\nThis is a new installation. In another terminal:\n\
             \x20 keyward operator init                    # makes the keys; shows the root token once\n\
             \x20 keyward login                            # paste the root token\n\
             \x20 keyward secrets enable -path=secret kv-v2\n\
             \x20 printf %s \"s3cr3t\" | keyward kv put secret/app password=-\n\
             \x20 keyward kv get secret/app\n"
        }
        (true, true) => "\nSealed. Unseal with: keyward operator unseal\n",
        (true, false) => "Unsealed and ready.\n",
    };
    say(&text);
}

/// Clients of the same user on this machine find the server without being told.
fn leave_hint(environment: &Environment, running: &Running) {
    let config = &running.app.config;
    let ca = (config.listen.tls == Tls::LocalCa).then(|| config.data.join("tls").join("ca.pem"));
    let local = LocalServer { address: running.app.address(), ca: ca.and_then(|path| fs::canonicalize(path).ok()) };
    environment.leave_local_server(&local);
}

fn say(text: &str) {
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).ok();
    out.flush().ok();
}
