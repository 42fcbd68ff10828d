//! Mounts: `sys/mounts`, `sys/auth`, `sys/remount`, and what clients ask before they use one (`sys/internal/ui/mounts`).

pub mod closing;

mod config;

mod enable;

mod plugin;

mod tune;

mod remount;

mod preflight;

use keyward_model::Table;
use keyward_policy::Operation;
use serde_json::{Map, Value};

use self::closing::Closing;
use super::Context;
use crate::barrier::{Columns, Draft};
use crate::http::answer::Answer;
use crate::http::fields::Field;
use crate::http::gotext::quote;
use crate::mounts::{Closed, Kind, Mount, decode};
use crate::refusal::Refusal;

/// Longest path of a mount, in bytes.
const PATH_BYTES_MAX: usize = 512;
/// Configuration members that are kept and shown as they are.
const LISTS: [&str; 4] = [
    "audit_non_hmac_request_keys",
    "audit_non_hmac_response_keys",
    "passthrough_request_headers",
    "allowed_response_headers",
];
/// What the path of a mount declares.
const FIELDS: [Field; 10] = [
    Field::captured("path"),
    Field::text("type"),
    Field::text("description"),
    Field::map("config"),
    Field::bool("local"),
    Field::bool("seal_wrap"),
    Field::bool("external_entropy_access"),
    Field::text("plugin_name"),
    Field::pairs("options"),
    Field::text("plugin_version"),
];
/// Where the system's own paths stand, and will: no other mount may.
const PROTECTED: [&str; 5] = ["audit/", "auth/", "sys/", "cubbyhole/", "identity/"];
/// Native nouns that no mount may have, since their routes would hide it (or it them). `secrets` is the exception: a KV v2
/// mount may have it, whose own paths the native routes give way to.
const NATIVE_NOUNS: [&str; 11] = [
    "grants",
    "execute",
    "policies",
    "rotations",
    "break-glass",
    "bulk",
    "events",
    "leases",
    "audit",
    "sdk",
    "secrets",
];

/// Answers the family.
///
/// # Errors
/// What the endpoint refuses; no such path or verb.
pub async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    let rest = context.rest();
    let operation = context.request.operation;
    context.note(|facts| facts.object = Some("mount"));
    if let Some(below) = rest.strip_prefix("internal/") {
        return preflight::act(context, below);
    }
    if rest == "remount" || rest.starts_with("remount/") {
        return remount::act(context).await;
    }
    let (auth, path) = match (rest.strip_prefix("auth"), rest.strip_prefix("mounts")) {
        (Some(path), _) => (true, path),
        (None, Some(path)) => (false, path),
        (None, None) => return Err(Refusal::UnsupportedPath),
    };
    if path.is_empty() {
        return match operation {
            Operation::Read => table(context, auth),
            _ => Err(Refusal::UnsupportedOperation),
        };
    }
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Err(Refusal::UnsupportedPath);
    }
    if let Some(path) = path.strip_suffix("/tune") {
        return tune::act(context, &place(auth, path)).await;
    }
    let place = place(auth, path);
    context.params.check(&FIELDS)?;
    match operation {
        Operation::Read => read(context, auth, &place),
        Operation::Create | Operation::Update => enable::enable(context, auth, &place).await,
        Operation::Delete => disable(context, auth, &place).await,
        _ => Err(Refusal::UnsupportedOperation),
    }
}

/// A mount's place in the tree, with a trailing slash. `sys/mounts/auth/x` names the same place as `sys/auth/x`.
fn place(auth: bool, path: &str) -> String {
    format!("{}{}/", if auth { "auth/" } else { "" }, path.trim_matches('/'))
}

/// What stands at a place or, of engines, above it.
fn read(context: &Context<'_>, auth: bool, place: &str) -> Result<Answer, Refusal> {
    let tables = context.worker.tables()?;
    let found = tables.mounts.resolve(place).filter(|(_, below)| !auth || below.is_empty());
    let (mount, _) = found.ok_or_else(|| {
        let what = if auth { "No auth engine at" } else { "No secret engine mount at" };
        Refusal::malformed(format!("{what} {}", if auth { &place["auth/".len()..] } else { place }))
    })?;
    Ok(context.with_parameter_warnings(Answer::injected(&mount.info()), &FIELDS))
}

/// All mounts of one sort, by the path that the API shows.
fn table(context: &Context<'_>, auth: bool) -> Result<Answer, Refusal> {
    let tables = context.worker.tables()?;
    let mounts = tables.mounts.iter().filter(|mount| mount.is_auth() == auth);
    let shown: Map<String, Value> = mounts.map(|mount| (shown(mount), mount.info())).collect();
    Ok(context.with_parameter_warnings(Answer::injected(&Value::Object(shown)), &[]))
}

/// The path that the API shows: an auth method's without `auth/`.
fn shown(mount: &Mount) -> String {
    mount.path.strip_prefix("auth/").unwrap_or(&mount.path).to_owned()
}

/// Where no mount may stand, and what no mount may be.
fn check_place(auth: bool, place: &str, kind: &str) -> Result<(), Refusal> {
    if !auth {
        if PROTECTED.iter().any(|protected| place.starts_with(protected)) {
            return Err(Refusal::malformed(format!("cannot mount {}", quote(place))));
        }
        if ["cubbyhole", "system", "identity", "token", "ns_cubbyhole"].contains(&kind) {
            return Err(Refusal::malformed(format!("mount type of \"{kind}\" is not mountable")));
        }
    }
    if place.len() > PATH_BYTES_MAX || place.split('/').rev().skip(1).any(|s| s.is_empty() || s == "." || s == "..") {
        return Err(Refusal::malformed("the mount's path has an empty or relative segment, or is too long"));
    }
    Ok(())
}

/// Names that are kept for our own API. Below `secrets/`, where it answers, only KV version 2 at that very place is reached.
fn check_reachable(place: &str, kind: Kind) -> Result<(), Refusal> {
    let place = place.trim_end_matches('/');
    let is_kept = match place.split_once('/') {
        Some((noun, _)) => noun == "secrets",
        None => NATIVE_NOUNS.contains(&place) && !(place == "secrets" && kind == Kind::Kv2),
    };
    if is_kept {
        return Err(Refusal::malformed(format!(
            "\"{place}\" is kept for Keyward's own API, so a mount there could not be reached; choose another name"
        )));
    }
    Ok(())
}

/// Mounts as all commands before this one leave them.
fn current(draft: &mut Draft<'_>) -> Result<Vec<Mount>, Refusal> {
    let mut out = Vec::new();
    for key in draft.keys_below(Table::Mounts, b"", None, usize::MAX >> 1)? {
        if let Some(opened) = draft.get(Table::Mounts, &key)? {
            out.push(decode(opened.body.expose())?);
        }
    }
    Ok(out)
}

/// The mount at a place, as all commands before this one leave it.
fn current_at(draft: &mut Draft<'_>, place: &str) -> Result<Option<Mount>, Refusal> {
    Ok(current(draft)?.into_iter().find(|mount| mount.path == place))
}

fn put(draft: &mut Draft<'_>, mount: &Mount) -> Result<(), Refusal> {
    draft.put(Table::Mounts, &mount.id.0, Columns::default(), &mount.encode()?)
}

async fn disable(context: &Context<'_>, auth: bool, place: &str) -> Result<Answer, Refusal> {
    if auth && place == "auth/token/" {
        return Err(Refusal::malformed("token credential backend cannot be disabled"));
    }
    if ["sys/", "cubbyhole/", "identity/", "auth/token/"].contains(&place) {
        return Err(Refusal::malformed(format!("cannot unmount \"{place}\"")));
    }
    // Closed first, so that nothing is written below it while it is emptied; then emptied in bounded commands.
    let mut found = None;
    let close = |draft: &mut Draft<'_>| {
        found = current_at(draft, place)?;
        let Some(mount) = &mut found else { return Ok(()) };
        mount.closed = Some(Closed::Removing);
        put(draft, mount)
    };
    let answer = context.write_answer(close, |()| Ok(Answer::no_content())).await?;
    if let Some(mount) = found {
        Closing::of(&mount).finish(context.worker, context.facts()).await?;
    }
    Ok(answer)
}
