//! Which endpoint a request means, and its arguments, checked one by one. Text only.

use std::collections::BTreeMap;

use http::header;
use keyward_model::Id;
use keyward_policy::Operation;

use super::input::{self, Members, Query, invalid};
use super::{YIELDED, uri};
use crate::engine::kv::{Demote, Disable, Expected, Scope, Status};
use crate::http::fields::Params;
use crate::http::json::Kind as Json;
use crate::http::request::Request;
use crate::refusal::{Problem, Refusal};

/// Where secrets are whose mount is not named.
const MOUNT_DEFAULT: &str = "secret";
/// The longest team, strategy or key, in bytes.
const WORD_BYTES_MAX: usize = 128;
/// The highest classification.
const CLASSIFICATION_MAX: u64 = 4;
/// The classification of a secret that is given none.
const CLASSIFICATION_DEFAULT: u64 = 2;
/// Entries on a page of a list, at most and by default.
const PAGE_MAX: usize = 1000;
/// The longest cursor, in bytes.
const CURSOR_BYTES_MAX: usize = 1024;

/// What can be done, with its arguments.
#[derive(Debug)]
pub(super) enum Action {
    /// A secret without versions; what is kept in its custom metadata.
    Create(BTreeMap<String, String>),
    /// A version; the value stays in the body.
    Write { status: Status, expected: Option<u64> },
    /// The value of a version, or one key of it.
    Read { pick: Pick, key: Option<String> },
    /// What is known about a secret.
    Show(View),
    /// The names in a folder.
    List { after: String, limit: usize },
    /// An alias points to a version.
    Point { name: String, version: u64, expected: Expected, demote: Demote },
    /// An alias is taken away.
    Unpoint { name: String, expected: Expected },
    /// A version is never returned from now on.
    Disable(u64, Disable),
    /// It is again.
    Enable(u64),
    /// Its value is gone for good.
    Destroy(u64),
    /// Soft deletion.
    Delete(Scope),
    /// And back.
    Undelete(Scope),
}

/// Which version.
#[derive(Debug)]
pub(super) enum Pick {
    /// What `current` points to.
    Current,
    /// A number.
    Version(u64),
    /// An alias.
    Alias(String),
}

/// Which part of what is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum View {
    /// The secret itself.
    Secret,
    /// Its versions.
    Versions,
    /// Its aliases.
    Aliases,
}

/// How a request names its place.
pub(super) enum Named {
    /// By its id.
    Id(Id),
    /// By mount and path; a folder's path may be empty.
    Path { mount: String, path: String },
}

/// Reads method, path, query and body.
///
/// # Errors
/// A problem of the text; no such endpoint.
pub(super) fn read(request: &Request, params: &Params<'_>) -> Result<(Action, Named), Refusal> {
    let segments: Vec<&str> = request.path.split('/').skip(1).collect();
    let query: &str = &request.query;
    let (action, named) = match (request.operation, segments.as_slice()) {
        (Operation::Read, []) => {
            let (action, prefix) = list(query)?;
            let (mount, path) = uri::prefix(&prefix).map_err(Refusal::Problem)?;
            (action, Named::Path { mount: mount.to_owned(), path })
        }
        (Operation::Update, []) => create(members(params, &CREATE_FIELDS, query)?)?,
        (Operation::Update, ["read"]) => read_by_body(members(params, &READ_FIELDS, query)?)?,
        (_, [first, rest @ ..]) if Id::from_uuid(first).is_some() => {
            let id = Id::from_uuid(first).unwrap_or(Id::ZERO);
            (by_id(request, params, rest)?, Named::Id(id))
        }
        (Operation::Read, [_, _, ..]) => {
            let query = Query::read(query, &["version", "alias", "key"])?;
            let pick = match (query.get("version"), query.get("alias")) {
                (Some(_), Some(_)) => return Err(Refusal::Problem(Problem::VERSION_ALIAS_CONFLICT)),
                (Some(number), None) => Pick::Version(input::version(number)?),
                (None, Some(name)) => Pick::Alias(input::alias(name)?),
                (None, None) => Pick::Current,
            };
            let path = uri::path(&segments.join("/")).map_err(Refusal::Problem)?;
            (Action::Read { pick, key: key(query.get("key"))? }, Named::Path { mount: MOUNT_DEFAULT.to_owned(), path })
        }
        (Operation::Read, [_]) => return Err(invalid("the path of a secret is `<environment>/<path>`")),
        _ => return Err(Refusal::UnsupportedOperation),
    };
    Ok((action, named))
}

const CREATE_FIELDS: [&str; 6] = ["environment", "path", "ownerTeam", "rotationStrategy", "classification", "mount"];
const READ_FIELDS: [&str; 6] = ["environment", "path", "secretId", "alias", "version", "key"];

/// The members of a body, where the query must be empty.
fn members<'a>(params: &'a Params<'_>, known: &[&str], query: &str) -> Result<Members<'a>, Refusal> {
    Query::read(query, &[])?;
    Members::of(params.body(), known)
}

fn list(query: &str) -> Result<(Action, String), Refusal> {
    let query = Query::read(query, &["prefix", "after", "limit"])?;
    let prefix =
        query.get("prefix").ok_or_else(|| invalid("`prefix` must be the URI of a folder, with a slash at its end"))?;
    let limit = match query.get("limit") {
        None => PAGE_MAX,
        Some(text) => {
            let number = text.parse::<usize>().ok().filter(|number| (1..=PAGE_MAX).contains(number));
            number.ok_or_else(|| invalid("`limit` must be a number from 1 to 1000"))?
        }
    };
    let after = query.get("after").unwrap_or_default();
    if after.len() > CURSOR_BYTES_MAX {
        return Err(invalid("`after` must be the `next` of the page before"));
    }
    Ok((Action::List { after: after.to_owned(), limit }, prefix.to_owned()))
}

fn create(body: Members<'_>) -> Result<(Action, Named), Refusal> {
    let team = word(body, "ownerTeam", "`ownerTeam` must be a text of 1 to 128 bytes")?;
    let strategy = word(body, "rotationStrategy", "`rotationStrategy` must be a text of 1 to 128 bytes")?;
    let classification = match body.get("classification") {
        None => CLASSIFICATION_DEFAULT,
        Some(raw) => raw
            .text()
            .parse()
            .ok()
            .filter(|level| *level <= CLASSIFICATION_MAX)
            .ok_or_else(|| invalid("`classification` must be a number from 0 to 4"))?,
    };
    let mount = match body.get("mount").map(|raw| raw.text()) {
        None => MOUNT_DEFAULT,
        // A mount's name needs no escapes, so it stands in the body as it is.
        Some(text) => text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
            .ok_or_else(|| invalid("`mount` must be the name of a KV v2 mount"))?,
    };
    let path = path_of(body)?;
    let metadata = BTreeMap::from([
        ("owner_team".to_owned(), team),
        ("rotation_strategy".to_owned(), strategy),
        ("classification".to_owned(), classification.to_string()),
    ]);
    Ok((Action::Create(metadata), Named::Path { mount: mount.to_owned(), path }))
}

fn read_by_body(body: Members<'_>) -> Result<(Action, Named), Refusal> {
    let name = body.text("alias", "`alias` must be a text")?;
    let pick = match (body.get("version"), name) {
        (Some(_), Some(_)) => return Err(Refusal::Problem(Problem::VERSION_ALIAS_CONFLICT)),
        (Some(raw), None) => Pick::Version(input::version(raw.text())?),
        (None, Some(name)) => Pick::Alias(input::alias(&name)?),
        (None, None) => Pick::Current,
    };
    let key = key(body.text("key", "`key` must be a text")?.as_deref())?;
    let named = match body.text("secretId", "`secretId` must be the id of a secret")? {
        None => Named::Path { mount: MOUNT_DEFAULT.to_owned(), path: path_of(body)? },
        Some(_) if body.get("environment").is_some() || body.get("path").is_some() => {
            return Err(invalid("give either `secretId`, or `environment` and `path`"));
        }
        Some(id) => Named::Id(Id::from_uuid(&id).ok_or_else(|| invalid("`secretId` must be the id of a secret"))?),
    };
    Ok((Action::Read { pick, key }, named))
}

/// What is asked of a secret that is named by its id; `rest` are the segments after it.
fn by_id(request: &Request, params: &Params<'_>, rest: &[&str]) -> Result<Action, Refusal> {
    let query: &str = &request.query;
    let body = |known: &[&str]| members(params, known, query);
    let no_query = || Query::read(query, &[]).map(drop);
    Ok(match (request.operation, rest) {
        (Operation::Read, []) => no_query().map(|()| Action::Show(View::Secret))?,
        (Operation::Read, ["versions"]) => no_query().map(|()| Action::Show(View::Versions))?,
        (Operation::Read, ["aliases"]) => no_query().map(|()| Action::Show(View::Aliases))?,
        (Operation::Update, ["versions"]) => write(body(&["value", "status", "expected_version"])?)?,
        (Operation::Update, ["aliases", name]) => {
            let name = input::alias(name)?;
            point(request, body(&["version", "expectedPreviousVersion", "demote"])?, name)?
        }
        (Operation::Delete, ["aliases", name]) => {
            let name = input::alias(name)?;
            let query = Query::read(query, &["expectedVersion"])?;
            let version = query.get("expectedVersion");
            let version = version.ok_or_else(|| invalid("`expectedVersion` must say where the alias points now"))?;
            let expected = Expected { version: Some(input::version(version)?), revision: revision(request)? };
            Action::Unpoint { name, expected }
        }
        (Operation::Update, ["versions", number, "disable"]) => {
            let number = input::version(number)?;
            let how = match body(&["emergency"])?.get("emergency").map(|raw| raw.text()) {
                None | Some("false") => Disable::Ordinary,
                Some("true") => Disable::Emergency,
                Some(_) => return Err(invalid("`emergency` must be true or false")),
            };
            Action::Disable(number, how)
        }
        (Operation::Update, ["versions", number, "enable"]) => {
            body(&[]).and(input::version(number)).map(Action::Enable)?
        }
        (Operation::Update, ["versions", number, "destroy"]) => {
            body(&[]).and(input::version(number)).map(Action::Destroy)?
        }
        (Operation::Update, ["versions", number, "undelete"]) => {
            body(&[]).and(input::version(number)).map(|number| Action::Undelete(Scope::Version(number)))?
        }
        (Operation::Delete, ["versions", number]) => {
            no_query().and(input::version(number)).map(|number| Action::Delete(Scope::Version(number)))?
        }
        (Operation::Delete, []) => no_query().map(|()| Action::Delete(Scope::Secret))?,
        (Operation::Update, ["undelete"]) => body(&[]).map(|_| Action::Undelete(Scope::Secret))?,
        _ => return Err(Refusal::UnsupportedOperation),
    })
}

fn write(body: Members<'_>) -> Result<Action, Refusal> {
    match body.get("value").map(|raw| raw.kind()) {
        Some(Json::String | Json::Object) => {}
        _ => return Err(invalid("`value` must be a text or an object")),
    }
    let status = match body.text("status", "`status` must be \"PENDING\" or \"CURRENT\"")?.as_deref() {
        Some("PENDING") => Status::Pending,
        Some("CURRENT") => Status::Current,
        _ => return Err(invalid("`status` must be \"PENDING\" or \"CURRENT\"")),
    };
    let why =
        "`expected_version` must be given: the version that `current` points to (0 if there is none), or null for any";
    Ok(Action::Write { status, expected: body.number_or_null("expected_version", why)? })
}

fn point(request: &Request, body: Members<'_>, name: String) -> Result<Action, Refusal> {
    let version = body.version("version", "`version` must be the number of a version")?;
    let why =
        "`expectedPreviousVersion` must be given: the version that the alias points to, or null if it does not exist";
    let expected =
        Expected { version: body.number_or_null("expectedPreviousVersion", why)?, revision: revision(request)? };
    let demote = match body.get("demote") {
        None => Demote::Previous(None),
        Some(raw) if raw.string().as_deref() == Some("disable") && name == "current" => Demote::Disable,
        Some(_) => return Err(invalid("`demote` is \"disable\", and only where `current` moves")),
    };
    Ok(Action::Point { name, version, expected, demote })
}

/// The revision in `If-Match`, which stands in quotes.
fn revision(request: &Request) -> Result<Option<u64>, Refusal> {
    let mut values = request.headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().and_then(|text| text.strip_prefix('"')?.strip_suffix('"'));
    let number = text.filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok());
    match (number, values.next()) {
        (Some(number), None) => Ok(Some(number)),
        _ => Err(invalid("`If-Match` must be the revision of the alias, in quotes")),
    }
}

/// The members `environment` and `path`, decoded.
fn path_of(body: Members<'_>) -> Result<String, Refusal> {
    let why = "`environment` must be one segment that is neither an id nor a word of KV v2's own paths";
    let environment = body.text("environment", why)?.ok_or_else(|| invalid(why))?;
    if environment.contains('/') || YIELDED.contains(&environment.as_ref()) || Id::from_uuid(&environment).is_some() {
        return Err(invalid(why));
    }
    let why = "`path` must be the secret's path below its environment";
    let path = body.text("path", why)?.ok_or_else(|| invalid(why))?;
    uri::path(&format!("{environment}/{path}")).map_err(Refusal::Problem)
}

fn word(body: Members<'_>, name: &str, why: &'static str) -> Result<String, Refusal> {
    let text = body.text(name, why)?.ok_or_else(|| invalid(why))?;
    let fits = !text.is_empty() && text.len() <= WORD_BYTES_MAX && text.chars().all(crate::http::gotext::is_printable);
    if fits { Ok(text.into_owned()) } else { Err(invalid(why)) }
}

fn key(name: Option<&str>) -> Result<Option<String>, Refusal> {
    match name {
        Some(name) if name.is_empty() || name.len() > WORD_BYTES_MAX => {
            Err(invalid("`key` must be a text of 1 to 128 bytes"))
        }
        other => Ok(other.map(str::to_owned)),
    }
}
