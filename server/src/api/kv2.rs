//! KV version 2 on the wire: `config`, `data/`, `metadata/`, `delete/`, `undelete/`, `destroy/`, `subkeys/`, lists.
//!
//! What a record says and how it changes is in [`crate::engine::kv`]; here requests are read, rows opened and written,
//! answers rendered.

mod list;

mod aliases;

use std::borrow::Cow;

use keyward_crypto::Keyring;
use keyward_model::event::EventKind;
use keyward_model::{Id, Table};
use keyward_policy::Operation;

use super::Context;
use super::kv1::canonical;
use crate::app::Worker;
use crate::barrier::{Columns, Draft, Opened, integrity, open, storage};
use crate::engine::kv::{
    ConfigChange, KvConfig, KvError, MetadataChange, NewVersion, Resolution, SecretRecord, Selector, Status, Verb,
    Version, cas_parameter, patch, render, subkeys,
};
use crate::engine::tree::Tree;
use crate::http::answer::{Answer, Form};
use crate::http::fields::Field;
use crate::http::json::Raw;
use crate::mounts::{self, Mount};
use crate::record::Facts;
use crate::refusal::Refusal;

pub use list::readable;

/// The families of paths below a KV v2 mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    Config,
    Data,
    Metadata,
    DetailedMetadata,
    Destroy,
    Subkeys,
    Delete,
    Undelete,
    /// Our own: where a secret's aliases point.
    Aliases,
    Other,
}

/// The family and the key of a path below the mount.
fn family(rest: &str) -> (Family, &str) {
    if rest == "config" {
        return (Family::Config, "");
    }
    let Some((first, path)) = rest.split_once('/') else { return (Family::Other, rest) };
    let family = match first {
        "data" => Family::Data,
        "metadata" => Family::Metadata,
        "detailed-metadata" => Family::DetailedMetadata,
        "destroy" => Family::Destroy,
        "subkeys" => Family::Subkeys,
        "delete" => Family::Delete,
        "undelete" => Family::Undelete,
        "aliases" => Family::Aliases,
        _ => Family::Other,
    };
    (family, path)
}

/// What every family but `config` takes from the path.
const PATH: Field = Field::captured("path");
/// Which version is read, by a name of our own.
const ALIAS: Field = Field::text("alias");
const DATA: [Field; 4] = [PATH, Field::int("version"), Field::map("options"), Field::map("data")];
const DATA_READ: [Field; 5] = [PATH, Field::int("version"), Field::map("options"), Field::map("data"), ALIAS];
const SUBKEYS: [Field; 4] = [PATH, Field::int("version"), Field::int("depth"), ALIAS];
const VERSIONS: [Field; 2] = [PATH, Field::ints("versions")];
const METADATA: [Field; 9] = [
    PATH,
    Field::bool("cas_required"),
    Field::bool("metadata_cas_required"),
    Field::int("max_versions"),
    Field::duration("delete_version_after"),
    Field::map("custom_metadata"),
    Field::int("metadata_cas"),
    Field::text("after"),
    Field::limit("limit"),
];
const DETAILED_METADATA: [Field; 3] = [PATH, Field::text("after"), Field::limit("limit")];
const CONFIG: [Field; 4] = [
    Field::int("max_versions"),
    Field::bool("cas_required"),
    Field::bool("metadata_cas_required"),
    Field::signed_duration("delete_version_after"),
];

/// Whether a first write below `rest` needs `create` instead of `update`.
pub fn has_existence_check(rest: &str) -> bool {
    matches!(family(rest).0, Family::Data | Family::Metadata)
}

/// Whether there is a secret at the path of `rest`.
///
/// # Errors
/// The row cannot be read.
pub fn exists(worker: &Worker, mount: &Mount, rest: &str) -> Result<bool, Refusal> {
    let keys = worker.app.barrier.keyring()?;
    let key = secrets(mount).key(&keys, family(rest).1);
    Ok(worker.reader().row(Table::Secrets, &key).map_err(storage)?.is_some())
}

/// What the record of a request says; the path is what the keyed reference is made of.
pub fn describe<'a>(operation: Operation, rest: &'a str, facts: &mut Facts) -> Option<&'a str> {
    let (family, path) = family(rest);
    let read = operation == Operation::Read;
    let (kind, action) = match (family, operation) {
        (_, Operation::List | Operation::Scan) => (EventKind::Listed, "list"),
        (Family::Data | Family::Subkeys, _) if read => (EventKind::SecretPermit, "read"),
        (Family::Data, Operation::Delete) | (Family::Delete, _) => (EventKind::SecretDeleted, "delete"),
        (Family::Data, _) => (EventKind::VersionCreated, "write"),
        (Family::Undelete, _) => (EventKind::SecretUndeleted, "undelete"),
        (Family::Destroy, _) => (EventKind::VersionDestroyed, "destroy"),
        (Family::Metadata, Operation::Delete) => (EventKind::VersionDestroyed, "destroy"),
        (Family::Metadata, _) if !read => (EventKind::MetadataChanged, "write_metadata"),
        (Family::Aliases, _) if !read => (EventKind::AliasMoved, "promote"),
        (Family::Config, _) if !read => (EventKind::SysConfig, "administer"),
        _ => (EventKind::MetadataRead, "read_metadata"),
    };
    facts.set(kind, action, "kv2");
    (!path.is_empty()).then_some(path)
}

/// The names of the secrets of a mount.
pub fn secrets(mount: &Mount) -> Tree {
    Tree { mount: mount.id, leaves: Table::Secrets }
}

/// Answers the reads of a KV v2 mount, on the spot.
pub fn act_now(context: &Context<'_>) -> Option<Result<Answer, Refusal>> {
    let mount = context.permit.mount().filter(|mount| mount.closed.is_none())?;
    match family(context.rest()) {
        (Family::Config, _) => Some(show_config(context, mount)),
        (Family::Data, path) => Some(read(context, path)),
        (Family::Metadata, path) => Some(read_metadata(context, path)),
        (Family::Subkeys, path) => Some(read_subkeys(context, path)),
        _ => None,
    }
}

/// Answers for a KV v2 mount.
///
/// # Errors
/// What the endpoint refuses; no such path or verb.
pub async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    let mount = context.mount()?;
    mount.serving()?;
    let (family, path) = family(context.rest());
    let operation = context.request.operation;
    let write = matches!(operation, Operation::Create | Operation::Update);
    match (family, operation) {
        (Family::Config, _) if write => change_config(context).await,
        (Family::Data, Operation::Delete) => delete_current(context, path).await,
        (Family::Data, Operation::Patch) => patch_data(context, path).await,
        (Family::Data, _) if write => write_data(context, path).await,
        (Family::Metadata, Operation::Delete) => delete_metadata(context, path).await,
        (Family::Metadata, Operation::Patch) => change_metadata(context, path, Verb::Patch).await,
        (Family::Metadata, Operation::List | Operation::Scan) => list::names(context, path),
        (Family::Metadata, _) if write => change_metadata(context, path, Verb::Write).await,
        (Family::DetailedMetadata, Operation::List | Operation::Scan) => list::detailed(context, path),
        (Family::Delete | Family::Undelete | Family::Destroy, _) if write => versions(context, family, path).await,
        (Family::Aliases, _) => aliases::act(context, path).await,
        (Family::Other, _) => Ok(fallback(context.rest(), operation)),
        _ => Err(Refusal::UnsupportedOperation),
    }
}

/// What every path outside of the families gets, by every verb: 404 with a hint.
fn fallback(rest: &str, operation: Operation) -> Answer {
    let hint = match rest {
        "metadata" | "data" | "delete" | "undelete" | "destroy" => {
            "Non-listing operations on the root of a K/V v2 mount are not supported.".to_owned()
        }
        _ => {
            let verb = match operation {
                Operation::Patch => "patch",
                Operation::Read => "get",
                Operation::List => "list",
                Operation::Scan => "scan",
                Operation::Delete => "delete",
                _ => "put",
            };
            format!(
                "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. \
                 If using the OpenBao CLI, use 'bao kv {verb}' for this operation."
            )
        }
    };
    let mut answer = Answer::raw(404, b"null".to_vec());
    if let Form::Envelope(envelope) = &mut answer.form {
        envelope.data = None;
        envelope.warnings.push(hint);
    }
    answer
}

/// A path that can hold a secret. Empty: nothing is there. Not canonical: no such path.
fn key_path(context: &Context<'_>, path: &str) -> Result<Option<Answer>, Refusal> {
    if path.is_empty() {
        return Err(Refusal::Absent);
    }
    Ok(canonical(path).is_err().then(|| fallback("", context.request.operation)))
}

/// The record at a path, as the database has it, with its current value's blob.
pub(super) struct Found {
    /// The record.
    pub(super) record: SecretRecord,
    head: Option<u64>,
    blob: Option<keyward_model::VersionBlob>,
}

/// Finds the record at a path of the mount that answers.
///
/// # Errors
/// The row cannot be read or does not open.
pub(super) fn find(context: &Context<'_>, keys: &Keyring, path: &str) -> Result<Option<Found>, Refusal> {
    let key = secrets(context.mount()?).key(keys, path);
    let Some((row, blob)) = context.reader().row_with_head(Table::Secrets, &key).map_err(storage)? else {
        return Ok(None);
    };
    let opened = open(keys, Table::Secrets, &row)?;
    Ok(Some(Found { record: decode(&opened)?, head: opened.head, blob }))
}

/// Opens a record.
///
/// # Errors
/// Impossible data.
pub fn decode(opened: &Opened) -> Result<SecretRecord, Refusal> {
    SecretRecord::decode(opened.body.expose()).map_err(|error| Refusal::internal(error.to_string()))
}

/// The stored value of a version that may be read.
///
/// # Errors
/// The blob cannot be read or does not open.
pub(super) fn value_of(
    context: &Context<'_>,
    keys: &Keyring,
    found: &Found,
    version: &Version,
) -> Result<keyward_model::SecretBytes, Refusal> {
    let fetched;
    let blob = if found.head == Some(version.blob) {
        found.blob.as_ref()
    } else {
        fetched = context.reader().version(version.blob).map_err(storage)?;
        fetched.as_ref()
    };
    let blob = blob.ok_or_else(|| Refusal::internal(format!("version {} has no blob", version.number)))?;
    keys.open_version(found.record.id, version.number, &blob.wrapped, &blob.payload).map_err(integrity)
}

/// The version that the query names: `alias` or `version`, else the current one.
fn selector<'a>(context: &'a Context<'_>, alias: &'a mut String) -> Result<Selector<'a>, Refusal> {
    let number = context.params.int("version")?.unwrap_or(0);
    if let Some(name) = context.params.string("alias")?.filter(|name| !name.is_empty()) {
        if number > 0 {
            return Err(Refusal::malformed("`version` and `alias` name two versions: give one of them"));
        }
        *alias = name.into_owned();
        context.note(|facts| facts.alias = Some(alias.clone()));
        return Ok(Selector::Alias(alias));
    }
    Ok(match u64::try_from(number) {
        Ok(number) if number > 0 => Selector::Version(number),
        _ => Selector::Current,
    })
}

fn read(context: &Context<'_>, path: &str) -> Result<Answer, Refusal> {
    context.params.check(&DATA_READ)?;
    let mut alias = String::new();
    let selector = selector(context, &mut alias)?;
    if let Some(answer) = key_path(context, path)? {
        return Ok(answer);
    }
    let keys = context.keys()?;
    let found = find(context, &keys, path)?.ok_or(Refusal::Absent)?;
    let record = &found.record;
    let answer = match record.resolve(selector, context.worker.app.barrier.judged_at()) {
        Resolution::Live(version) => {
            context.note(|facts| facts.version = Some(version.number));
            let value = value_of(context, &keys, &found, version)?;
            let mut out = Vec::with_capacity(value.expose().len() + 192);
            render::read(&mut out, Some(value.expose()), version, record);
            Answer::json(out)
        }
        Resolution::Deleted(version) | Resolution::Destroyed(version) => {
            context.note(|facts| facts.version = Some(version.number));
            let mut out = Vec::with_capacity(192);
            render::read(&mut out, None, version, record);
            Answer::raw(404, out)
        }
        Resolution::Disabled | Resolution::Absent => return Err(Refusal::Absent),
    };
    Ok(context.with_parameter_warnings(answer, &DATA_READ))
}

fn read_subkeys(context: &Context<'_>, path: &str) -> Result<Answer, Refusal> {
    context.params.check(&SUBKEYS)?;
    let mut alias = String::new();
    let selector = selector(context, &mut alias)?;
    let depth = context.params.int("depth")?.unwrap_or(0);
    if let Some(answer) = key_path(context, path)? {
        return Ok(answer);
    }
    let keys = context.keys()?;
    let found = find(context, &keys, path)?.ok_or(Refusal::Absent)?;
    let mut out = Vec::new();
    let answer = match found.record.resolve(selector, context.worker.app.barrier.judged_at()) {
        Resolution::Live(version) => {
            let value = value_of(context, &keys, &found, version)?;
            let tree = subkeys::of(value.expose(), depth).map_err(|error| Refusal::internal(error.to_string()))?;
            render::subkeys(&mut out, Some(&tree), version, &found.record);
            Answer::json(out)
        }
        Resolution::Deleted(version) | Resolution::Destroyed(version) => {
            render::subkeys(&mut out, None, version, &found.record);
            Answer::raw(404, out)
        }
        Resolution::Disabled | Resolution::Absent => return Err(Refusal::Absent),
    };
    Ok(context.with_parameter_warnings(answer, &SUBKEYS))
}

fn read_metadata(context: &Context<'_>, path: &str) -> Result<Answer, Refusal> {
    context.params.check(&METADATA)?;
    if let Some(answer) = key_path(context, path)? {
        return Ok(answer);
    }
    let keys = context.keys()?;
    let found = find(context, &keys, path)?.ok_or(Refusal::Absent)?;
    let mut out = Vec::with_capacity(512);
    render::metadata(&mut out, &found.record);
    Ok(context.with_parameter_warnings(Answer::json(out), &METADATA))
}

/// The value that is to be written.
fn data_of<'a>(context: &'a Context<'_>) -> Result<Cow<'a, str>, Refusal> {
    context.params.check(&DATA)?;
    context.params.map("data")?.ok_or_else(|| Refusal::malformed("no data provided"))
}

/// The version that a write expects.
fn cas_of(context: &Context<'_>) -> Result<Option<i64>, Refusal> {
    let options = context.params.map("options")?;
    Ok(options.map(|options| cas_parameter(Raw::trusted(&options))).transpose()?.flatten())
}

fn written(context: &Context<'_>, record: &SecretRecord, number: u64) -> Answer {
    context.with_parameter_warnings(shown(record, number), &DATA)
}

/// The record at a path as all commands before this one leave it.
///
/// # Errors
/// The row cannot be read.
pub fn current(draft: &mut Draft<'_>, tree: Tree, path: &str) -> Result<Option<(Vec<u8>, SecretRecord)>, Refusal> {
    let key = tree.key(draft.keyring(), path);
    let Some(opened) = draft.get(tree.leaves, &key)? else { return Ok(None) };
    let record = decode(&opened)?;
    Ok(Some((key, record)))
}

/// Puts a changed record in place.
///
/// # Errors
/// The row's predecessor cannot be read.
pub fn put_record(draft: &mut Draft<'_>, key: &[u8], record: &SecretRecord) -> Result<(), Refusal> {
    let body = record.encode().map_err(|error| Refusal::internal(error.to_string()))?;
    draft.put(Table::Secrets, key, Columns { head: record.head_blob(), ..Columns::default() }, &body)
}

/// A new secret's record, with the folders above it and its entry in the index of ids.
///
/// # Errors
/// A row cannot be read.
pub fn create(draft: &mut Draft<'_>, tree: Tree, path: &str) -> Result<(Vec<u8>, SecretRecord), Refusal> {
    let record = SecretRecord::new(Id::random(draft.entropy()), draft.now());
    place(draft, tree, path, &record).map(|key| (key, record))
}

/// Puts the folders above a new secret and its entry in the index of ids in place; gives the key for its record.
///
/// # Errors
/// A row cannot be read.
pub(super) fn place(draft: &mut Draft<'_>, tree: Tree, path: &str, record: &SecretRecord) -> Result<Vec<u8>, Refusal> {
    tree.add_folders(draft, path)?;
    // The native face finds a secret by its id: mount, then path.
    let body = [&tree.mount.0[..], path.as_bytes()].concat();
    draft.put(Table::SecretIds, &record.id.0, Columns::default(), &body)?;
    Ok(tree.key(draft.keyring(), path))
}

/// Adds a version to the record at `path`, making the secret if there is none.
///
/// # Errors
/// `cas` does not match.
pub fn add_version(
    draft: &mut Draft<'_>,
    tree: Tree,
    path: &str,
    config: &KvConfig,
    cas: Option<i64>,
    status: Status,
    value: &[u8],
) -> Result<(SecretRecord, u64), Refusal> {
    let (key, mut record) = match current(draft, tree, path)? {
        Some(found) => found,
        None => {
            SecretRecord::check_cas(None, config, cas)?;
            create(draft, tree, path)?
        }
    };
    let blob = draft.reserve_blob();
    let now = draft.now();
    let written = record.write(config, cas, NewVersion { status, blob, created_by: None }, now)?;
    draft.put_version(blob, record.id, written.number, value);
    for id in written.erase {
        draft.erase_version(id);
    }
    put_record(draft, &key, &record)?;
    Ok((record, written.number))
}

/// Makes `value` the first version of a new secret: an entry of a KV v1 mount that is raised to v2.
///
/// # Errors
/// A row cannot be read.
pub fn put_first_version(draft: &mut Draft<'_>, tree: Tree, path: &str, value: &[u8]) -> Result<(), Refusal> {
    let config = KvConfig { max_versions: 1, ..KvConfig::default() }; // a raised secret shows 1 as its oldest version
    let (key, mut record) = create(draft, tree, path)?;
    let blob = draft.reserve_blob();
    let now = draft.now();
    let written = record.write(&config, None, NewVersion { status: Status::Current, blob, created_by: None }, now)?;
    draft.put_version(blob, record.id, written.number, value);
    put_record(draft, &key, &record)
}

async fn write_data(context: &Context<'_>, path: &str) -> Result<Answer, Refusal> {
    let (data, cas) = (data_of(context)?, cas_of(context)?);
    if let Some(answer) = key_path(context, path)? {
        return Ok(answer);
    }
    let mount = context.mount()?;
    let (tree, config) = (secrets(mount), mount.kv.unwrap_or_default());
    context
        .write_answer(
            |draft| {
                let added = add_version(draft, tree, path, &config, cas, Status::Current, data.as_bytes())?;
                context.note(|facts| facts.version = Some(added.1));
                Ok(added)
            },
            |(record, number)| Ok(written(context, &record, number)),
        )
        .await
}

/// The answer to a write: the metadata of its version.
fn shown(record: &SecretRecord, number: u64) -> Answer {
    let mut out = Vec::with_capacity(160);
    if let Some(version) = record.version(number) {
        render::version(&mut out, version, record);
    }
    Answer::json(out)
}

/// What a patch came to.
enum Patched {
    Written(Box<SecretRecord>, u64),
    Missing,
    Removed(Vec<u8>),
}

async fn patch_data(context: &Context<'_>, path: &str) -> Result<Answer, Refusal> {
    let (data, cas) = (data_of(context)?, cas_of(context));
    if let Some(answer) = key_path(context, path)? {
        return Ok(answer);
    }
    let mount = context.mount()?;
    let (tree, config) = (secrets(mount), mount.kv.unwrap_or_default());
    let patch = |draft: &mut Draft<'_>| {
        let Some((key, mut record)) = current(draft, tree, path)? else { return Ok(Patched::Missing) };
        let cas = cas.clone()?; // not before: a patch of nothing is told that
        SecretRecord::check_cas(Some(&record), &config, cas)?;
        let (number, blob) = match record.resolve(Selector::Current, draft.now()) {
            Resolution::Live(version) => (version.number, version.blob),
            Resolution::Deleted(version) | Resolution::Destroyed(version) => {
                let mut out = Vec::new();
                render::version(&mut out, version, &record);
                return Ok(Patched::Removed(out));
            }
            Resolution::Disabled | Resolution::Absent => return Ok(Patched::Missing),
        };
        let stored = draft
            .version(record.id, number, blob)?
            .ok_or_else(|| Refusal::internal(format!("version {number} has no blob")))?;
        let merged =
            patch::merge(stored.expose(), data.as_bytes()).map_err(|error| Refusal::internal(error.to_string()))?;
        let blob = draft.reserve_blob();
        let now = draft.now();
        let new = NewVersion { status: Status::Current, blob, created_by: None };
        let written = record.write(&config, cas, new, now)?;
        draft.put_version(blob, record.id, written.number, merged.expose());
        context.note(|facts| facts.version = Some(written.number));
        for id in written.erase {
            draft.erase_version(id);
        }
        put_record(draft, &key, &record)?;
        Ok(Patched::Written(Box::new(record), written.number))
    };
    let render = |patched| match patched {
        Patched::Written(record, number) => Ok(written(context, &record, number)),
        Patched::Missing => Err(Refusal::AbsentSilent),
        Patched::Removed(out) => Ok(Answer::raw(404, out)),
    };
    context.write_answer(patch, render).await
}

async fn delete_current(context: &Context<'_>, path: &str) -> Result<Answer, Refusal> {
    context.params.check(&DATA)?;
    if path.is_empty() {
        return Ok(Answer::no_content());
    }
    if let Some(answer) = key_path(context, path)? {
        return Ok(answer);
    }
    let tree = secrets(context.mount()?);
    context
        .write_answer(
            |draft| {
                let Some((key, mut record)) = current(draft, tree, path)? else { return Ok(()) };
                let now = draft.now();
                if record.delete_current(now) { put_record(draft, &key, &record) } else { Ok(()) }
            },
            |()| Ok(Answer::no_content()),
        )
        .await
}

async fn versions(context: &Context<'_>, family: Family, path: &str) -> Result<Answer, Refusal> {
    context.params.check(&VERSIONS)?;
    let numbers = context.params.ints("versions")?.unwrap_or_default();
    if numbers.is_empty() {
        let text = if family == Family::Destroy { "no version number provided" } else { "No version number provided" };
        return Err(Refusal::malformed(text));
    }
    if let Some(answer) = key_path(context, path)? {
        return Ok(answer);
    }
    let mount = context.mount()?;
    let (tree, config) = (secrets(mount), mount.kv.unwrap_or_default());
    context
        .write_answer(
            |draft| {
                let Some((key, mut record)) = current(draft, tree, path)? else { return Ok(()) };
                let now = draft.now();
                let before = record.clone();
                match family {
                    Family::Delete => drop(record.delete(&numbers, now)),
                    Family::Undelete => drop(record.undelete(&config, &numbers, now)),
                    _ => {
                        for id in record.destroy(&numbers) {
                            draft.erase_version(id);
                        }
                    }
                }
                if record == before { Ok(()) } else { put_record(draft, &key, &record) }
            },
            |()| Ok(Answer::no_content()),
        )
        .await
}

async fn change_metadata(context: &Context<'_>, path: &str, verb: Verb) -> Result<Answer, Refusal> {
    context.params.check(&METADATA)?;
    let change = MetadataChange::from_params(context.params, verb)?;
    if let Some(answer) = key_path(context, path)? {
        return Ok(answer);
    }
    let mount = context.mount()?;
    let (tree, config) = (secrets(mount), mount.kv.unwrap_or_default());
    let warned = || {
        let answer = Answer::warned(change.warnings(&config).into_iter().map(str::to_owned).collect());
        context.with_parameter_warnings(answer, &METADATA)
    };
    if change.is_empty() {
        return Ok(warned());
    }
    context
        .write_answer(
            |draft| {
                let now = draft.now();
                let Some((key, mut record)) = current(draft, tree, path)? else {
                    if verb == Verb::Patch {
                        return Ok(false);
                    }
                    let record = SecretRecord::with_metadata(Id::random(draft.entropy()), &change, &config, now)?;
                    let key = place(draft, tree, path, &record)?;
                    put_record(draft, &key, &record)?;
                    return Ok(true);
                };
                record.apply_metadata(&change, &config, now)?;
                put_record(draft, &key, &record)?;
                Ok(true)
            },
            |found| if found { Ok(warned()) } else { Err(Refusal::AbsentSilent) },
        )
        .await
}

async fn delete_metadata(context: &Context<'_>, path: &str) -> Result<Answer, Refusal> {
    context.params.check(&METADATA)?;
    if path.is_empty() {
        return Ok(Answer::no_content());
    }
    if let Some(answer) = key_path(context, path)? {
        return Ok(answer);
    }
    let tree = secrets(context.mount()?);
    context.write_answer(|draft| remove(draft, tree, path), |()| Ok(Answer::no_content())).await
}

/// Removes a secret with all its versions and settings; nothing there is no error.
///
/// # Errors
/// A row cannot be read.
pub fn remove(draft: &mut Draft<'_>, tree: Tree, path: &str) -> Result<(), Refusal> {
    let key = tree.key(draft.keyring(), path);
    if !draft.exists(tree.leaves, &key)? {
        return Ok(());
    }
    erase_leaf(draft, &key)?;
    draft.remove(tree.leaves, &key)?;
    tree.remove_empty_folders(draft, path)
}

/// Erases the blobs of the secret at this row key, and its entry in the index of ids.
///
/// # Errors
/// The row cannot be read or does not open.
pub fn erase_leaf(draft: &mut Draft<'_>, key: &[u8]) -> Result<(), Refusal> {
    let Some(opened) = draft.get(Table::Secrets, key)? else { return Ok(()) };
    let record = decode(&opened)?;
    for id in record.blobs() {
        draft.erase_version(id);
    }
    draft.remove(Table::SecretIds, &record.id.0)
}

fn show_config(context: &Context<'_>, mount: &Mount) -> Result<Answer, Refusal> {
    context.params.check(&CONFIG)?;
    let mut out = Vec::new();
    render::config(&mut out, &mount.kv.unwrap_or_default());
    Ok(context.with_parameter_warnings(Answer::json(out), &CONFIG))
}

async fn change_config(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.params.check(&CONFIG)?;
    let change = ConfigChange::from_params(context.params)?;
    let id = context.mount()?.id;
    context
        .write_answer(
            |draft| {
                let Some(opened) = draft.get(Table::Mounts, &id.0)? else { return Err(Refusal::Absent) };
                let mut mount = mounts::decode(opened.body.expose())?;
                let before = mount.kv;
                mount.kv = Some(before.unwrap_or_default().with(change));
                if mount.kv == before {
                    Ok(())
                } else {
                    draft.put(Table::Mounts, &id.0, Columns::default(), &mount.encode()?)
                }
            },
            |()| Ok(Answer::no_content()),
        )
        .await
}

impl From<KvError> for Refusal {
    fn from(error: KvError) -> Self {
        Self::malformed(error.to_string())
    }
}
