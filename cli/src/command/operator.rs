//! `operator`: the life of the seal, the keyring and the cluster.

pub(crate) mod cluster;

mod recover;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{Session, status};
use crate::error::{CliError, Refusal};
use crate::input;
use crate::output::{Format, cell};

/// What to do with the server.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make the keys of a new server; they are shown this once
    Init(Init),
    /// Give one key share; the last one unseals
    Unseal(Unseal),
    /// Forget the keys until somebody unseals
    Seal,
    /// Begin a new term of the key that encrypts; older data stays readable
    Rotate,
    /// Show the term of the key that encrypts, since when, and how often it was used
    KeyStatus,
    /// Make a token that lets one new node into the cluster
    JoinToken(cluster::JoinToken),
    /// Show the nodes of the cluster: who leads, who keeps up, whose certificate ends when
    Members,
    /// Take a node out of the cluster
    Remove(cluster::Remove),
    /// Let a node vote that joined and only listens yet, without waiting for it to settle
    Promote(cluster::Member),
    /// Let another node lead
    StepDown,
    /// Exchange the authority that signs the nodes' certificates; no link breaks over it
    RotateCa,
    /// Go on with this node alone when the majority of the cluster is lost for good
    Recover(recover::Recover),
}

/// How the key is shared out.
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// Shares of the key [default: 5]
    #[arg(long, short = 'n', value_name = "NUMBER")]
    key_shares: Option<u64>,
    /// Shares that unseal together [default: 3]
    #[arg(long, short = 't', value_name = "NUMBER")]
    key_threshold: Option<u64>,
    /// Shares of the recovery key, for a server that is sealed by a key file: they open it if the file is lost. With
    /// other seals there are none
    #[arg(long, value_name = "NUMBER")]
    recovery_shares: Option<u64>,
    /// Recovery shares that count together
    #[arg(long, value_name = "NUMBER")]
    recovery_threshold: Option<u64>,
    /// Only show whether it is initialised: exit code 0 if so, 2 if not, 1 without an answer
    #[arg(long)]
    status: bool,
}

/// One share.
#[derive(Args, Debug)]
pub(crate) struct Unseal {
    /// The share; without it, or with `-`, it is asked for without echo or read from standard input
    share: Option<String>,
    /// Forget the shares given so far
    #[arg(long)]
    reset: bool,
}

/// Runs one of them.
///
/// # Errors
/// Refused, or arguments that cannot be used.
pub(crate) fn run(session: &mut Session, command: &Command) -> Result<(), CliError> {
    match command {
        Command::Init(arguments) if arguments.status => init_status(session),
        Command::Init(arguments) => init(session, arguments),
        Command::Unseal(arguments) => unseal(session, arguments),
        Command::Seal => {
            session.client()?.put("sys/seal", &json!({}))?;
            session.output.say("the server is sealed; `keyward operator unseal` opens it again")
        }
        Command::Rotate => rotate(session),
        Command::KeyStatus => key_status(session),
        Command::JoinToken(arguments) => cluster::join_token(session, arguments),
        Command::Members => cluster::members(session),
        Command::Remove(arguments) => cluster::remove(session, arguments),
        Command::Promote(arguments) => cluster::promote(session, arguments),
        Command::StepDown => cluster::step_down(session),
        Command::RotateCa => cluster::rotate_ca(session),
        Command::Recover(arguments) => recover::run(session, arguments),
    }
}

fn init_status(session: &mut Session) -> Result<(), CliError> {
    let answer = match session.client()?.get("sys/init", &[]) {
        Ok(answer) => answer,
        Err(error) => {
            session.output.hint(error.explain().trim_end());
            return Err(CliError::Quiet(1));
        }
    };
    let body = answer.map_or(Value::Null, |answer| answer.body);
    match body["initialized"].as_bool() {
        Some(true) => session.output.say("the server is initialised"),
        _ => {
            session.output.say("the server is not initialised")?;
            Err(CliError::Quiet(2))
        }
    }
}

fn init(session: &mut Session, arguments: &Init) -> Result<(), CliError> {
    let client = session.client_with(None)?;
    let seal = client.get("sys/seal-status", &[])?.map_or(Value::Null, |answer| answer.body["type"].clone());
    let shamir = seal == "shamir";
    let mut body = Map::new();
    for (name, given, default) in [
        ("secret_shares", arguments.key_shares, shamir.then_some(5)),
        ("secret_threshold", arguments.key_threshold, shamir.then_some(3)),
        ("recovery_shares", arguments.recovery_shares, None),
        ("recovery_threshold", arguments.recovery_threshold, None),
    ] {
        if let Some(number) = given.or(default) {
            body.insert(name.into(), number.into());
        }
    }
    if seal == "passphrase" {
        body.insert("passphrase".into(), input::new_secret("passphrase")?.as_str().into());
    }
    let answer = client.put("sys/init", &Value::Object(body))?.body;
    if session.output.format() != Format::Table || session.output.field().is_some() {
        return session.output.document(&answer);
    }
    let mut text = String::new();
    let mut shares = |list: &Value, label: &str| {
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, share) in list.iter().enumerate() {
            text.push_str(&format!("{label} {}: {}\n", index + 1, cell(share)));
        }
        list.len()
    };
    let keys = shares(&answer["keys_base64"], "Unseal Key");
    shares(&answer["recovery_keys_base64"], "Recovery Key");
    text.push_str(&format!("\nInitial Root Token: {}\n", cell(&answer["root_token"])));
    session.output.text(&text)?;
    if keys == 0 {
        session.output.hint("\nThe root token is not shown again. Next: keyward login");
    } else {
        session.output.hint(
            "\nKeep the shares apart from each other and from the server: whoever has enough of them has everything,\n\
             and without them nobody has anything. They are not shown again.\n\
             Next: keyward operator unseal",
        );
    }
    Ok(())
}

fn unseal(session: &mut Session, arguments: &Unseal) -> Result<(), CliError> {
    let client = session.client_with(None)?;
    let body = match arguments.share.as_deref() {
        _ if arguments.reset => json!({"reset": true}),
        None | Some("-") => json!({"key": input::secret("unseal key or passphrase")?.as_str()}),
        Some(share) => {
            session.exposed(&["the key share".to_owned()], "leave it out and it is asked for");
            json!({"key": share.trim()})
        }
    };
    let answer = client.put("sys/unseal", &body)?;
    status::show(session, &answer.body, &Value::Null)
}

fn rotate(session: &mut Session) -> Result<(), CliError> {
    let client = session.client()?;
    match client.post("sys/rotate/keyring", &json!({})) {
        // Vault, and older servers, know the short name only.
        Err(CliError::Refused(Refusal { status: 404 | 405, .. })) => client.post("sys/rotate", &json!({})),
        other => other,
    }?;
    key_status(session)
}

fn key_status(session: &mut Session) -> Result<(), CliError> {
    let answer = session.client()?.get("sys/key-status", &[])?.map_or(Value::Null, |answer| answer.body);
    let data = &answer["data"];
    let rows = [("Key Term", "term"), ("Install Time", "install_time"), ("Encryption Count", "encryptions")]
        .map(|(label, name)| vec![label.to_owned(), cell(&data[name])]);
    session.output.rows(data, &["Key", "Value"], &rows)
}
