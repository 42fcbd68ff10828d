//! `kv`: secrets by mount and path, whichever version of the engine the mount has.

mod place;

mod value;

mod versions;

mod metadata;

use clap::{Args, Subcommand};
use serde_json::json;

use self::place::{Engine, Place, locate};
use super::{Session, generic};
use crate::error::CliError;

/// What to do with a secret.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Write a new version
    Put(value::Put),
    /// Read a version: the current one, or by number or alias
    Get(value::Get),
    /// Change some members of the current version, keep the others
    Patch(value::Patch),
    /// Delete the current version, or those named; `undelete` brings them back
    Delete(versions::Delete),
    /// Bring deleted versions back
    Undelete(versions::Several),
    /// Remove versions for good
    Destroy(versions::Several),
    /// Write an older version again, as the newest
    Rollback(versions::Rollback),
    /// List the names below a path
    List(List),
    /// What is known about a secret: its versions, its settings
    #[command(subcommand)]
    Metadata(metadata::Command),
    /// Give a mount of version 1 the versions of version 2
    EnableVersioning(EnableVersioning),
}

/// A secret's name, and its mount if that is said apart.
#[derive(Args, Debug)]
pub(crate) struct Name {
    /// The mount; without it, the path begins with it
    #[arg(long, value_name = "MOUNT")]
    mount: Option<String>,
    /// The secret, as `mount/path`; without `data/` in between
    path: String,
}

/// Where to list.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// The mount; without it, the path begins with it
    #[arg(long, value_name = "MOUNT")]
    mount: Option<String>,
    /// The folder, as `mount/path`
    #[arg(default_value = "")]
    path: String,
}

/// Which mount to give versions.
#[derive(Args, Debug)]
pub(crate) struct EnableVersioning {
    /// The mount
    mount: String,
}

/// Runs one of them.
///
/// # Errors
/// Refused, absent, or arguments that cannot be used.
pub(crate) fn run(session: &mut Session, command: Command) -> Result<(), CliError> {
    match command {
        Command::Put(arguments) => value::put(session, &arguments),
        Command::Get(arguments) => value::get(session, &arguments),
        Command::Patch(arguments) => value::patch(session, &arguments),
        Command::Delete(arguments) => versions::delete(session, &arguments),
        Command::Undelete(arguments) => versions::undelete(session, &arguments),
        Command::Destroy(arguments) => versions::destroy(session, &arguments),
        Command::Rollback(arguments) => versions::rollback(session, &arguments),
        Command::List(arguments) => list(session, &arguments),
        Command::Metadata(command) => metadata::run(session, command),
        Command::EnableVersioning(arguments) => enable_versioning(session, &arguments),
    }
}

impl Name {
    /// Finds the mount.
    ///
    /// # Errors
    /// As [`locate`].
    pub(crate) fn locate(&self, client: &crate::client::Client) -> Result<Place, CliError> {
        locate(client, self.mount.as_deref(), &self.path)
    }
}

fn list(session: &mut Session, arguments: &List) -> Result<(), CliError> {
    let client = session.client()?;
    let place = locate(&client, arguments.mount.as_deref(), &arguments.path)?;
    let path = match place.engine {
        Engine::V1 => place.plain(),
        Engine::V2 => place.below("metadata"),
    };
    generic::keys(session, &client, &path)
}

fn enable_versioning(session: &mut Session, arguments: &EnableVersioning) -> Result<(), CliError> {
    let mount = super::trim(&arguments.mount);
    let body = json!({"options": {"version": "2"}});
    let answer = session.client()?.post(&format!("sys/mounts/{mount}/tune"), &body)?;
    session.output.warnings(&answer.body);
    session.output.say(&format!("{mount}/ keeps versions now"))
}
