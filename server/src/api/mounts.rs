//! Mounts: `sys/mounts`, `sys/auth`, `sys/remount`, and what clients ask before they use one (`sys/internal/ui/mounts`).

pub mod closing;

mod tune;

mod remount;

mod preflight;

use std::collections::BTreeMap;

use keyward_model::{Id, Table};
use keyward_policy::Operation;
use serde_json::{Map, Value};

use self::closing::Closing;
use super::Context;
use crate::barrier::{Columns, Draft};
use crate::boot::accessor_of;
use crate::engine::kv::KvConfig;
use crate::http::answer::Answer;
use crate::http::duration;
use crate::http::json::{Kind as Json, Raw};
use crate::mounts::{Closed, Kind, Mount, SYSTEM_LEASE_S, decode};
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
    let (auth, path) = match rest.strip_prefix("auth") {
        Some(path) => (true, path),
        None => (false, rest.strip_prefix("mounts").unwrap_or_default()),
    };
    let path = path.trim_matches('/');
    if path.is_empty() {
        return match operation {
            Operation::Read => Ok(Answer::injected(&Value::Object(all(context, auth)?))),
            _ => Err(Refusal::UnsupportedOperation),
        };
    }
    if let Some(path) = path.strip_suffix("/tune") {
        return tune::act(context, &place(auth, path)).await;
    }
    let place = place(auth, path);
    match operation {
        Operation::Read => {
            let tables = context.worker.tables()?;
            let mount = tables.mounts.get(&place).ok_or_else(|| absent(auth, path))?;
            Ok(Answer::injected(&mount.info()))
        }
        Operation::Create | Operation::Update => enable(context, auth, &place).await,
        Operation::Delete => disable(context, auth, &place).await,
        _ => Err(Refusal::UnsupportedOperation),
    }
}

/// A mount's place in the tree, with a trailing slash. `sys/mounts/auth/x` names the same place as `sys/auth/x`.
fn place(auth: bool, path: &str) -> String {
    format!("{}{}/", if auth { "auth/" } else { "" }, path.trim_matches('/'))
}

fn absent(auth: bool, path: &str) -> Refusal {
    let what = if auth { "No auth engine at" } else { "No secret engine mount at" };
    Refusal::malformed(format!("{what} {path}/"))
}

/// All mounts of one sort, by the path that the API shows.
fn all(context: &Context<'_>, auth: bool) -> Result<Map<String, Value>, Refusal> {
    let tables = context.worker.tables()?;
    Ok(tables.mounts.iter().filter(|mount| mount.is_auth() == auth).map(|mount| (shown(mount), mount.info())).collect())
}

/// The path that the API shows: an auth method's without `auth/`.
fn shown(mount: &Mount) -> String {
    mount.path.strip_prefix("auth/").unwrap_or(&mount.path).to_owned()
}

async fn enable(context: &Context<'_>, auth: bool, place: &str) -> Result<Answer, Refusal> {
    let mut mount = wanted(context, auth, place)?;
    let entropy = context.worker.app.barrier.entropy();
    mount.id = Id::random(entropy);
    mount.accessor = accessor_of(mount.type_name(), entropy);
    let place = place.to_owned();
    context
        .write_answer(
            |draft| {
                let table = current(draft)?;
                if let Some(taken) = table.iter().find(|m| m.path.starts_with(&place) || place.starts_with(&m.path)) {
                    return Err(Refusal::malformed(format!("path is already in use at {}", shown(taken))));
                }
                put(draft, &mount)
            },
            |()| Ok(Answer::no_content()),
        )
        .await
}

/// The mount that the request describes, checked in the order of Vault.
fn wanted(context: &Context<'_>, auth: bool, place: &str) -> Result<Mount, Refusal> {
    let params = context.params;
    let nested = |field: &str| params.map(field).map(|text| text.filter(|text| text != "null"));
    let config = nested("config")?;
    let config = config.as_deref().map(Raw::trusted);
    let member = |name: &str| config.and_then(|config| config.get(name)).filter(|value| value.kind() != Json::Null);
    let ttl = |name: &str, what: &str| -> Result<i64, Refusal> {
        let Some(value) = member(name) else { return Ok(0) };
        let text = value.string().map_or_else(|| value.text().to_owned(), std::borrow::Cow::into_owned);
        if text == "system" {
            return Ok(0);
        }
        duration::parse(&text)
            .map(|nanos| nanos / 1_000_000_000)
            .map_err(|why| Refusal::malformed(format!("unable to parse {what} TTL of {text}: {why}")))
    };
    let (default_lease_s, max_lease_s) = (ttl("default_lease_ttl", "default")?, ttl("max_lease_ttl", "max")?);
    if max_lease_s > 0 && default_lease_s > max_lease_s {
        return Err(Refusal::malformed("given default lease TTL greater than given max lease TTL"));
    }
    if max_lease_s == 0 && default_lease_s > SYSTEM_LEASE_S {
        return Err(Refusal::malformed(format!(
            "given default lease TTL greater than system max lease TTL of {SYSTEM_LEASE_S}"
        )));
    }
    let kind_name = params.string("type")?.unwrap_or_default().into_owned();
    if kind_name.is_empty() {
        return Err(Refusal::malformed("backend type must be specified as a string"));
    }
    if kind_name == "plugin" {
        return Err(Refusal::malformed("plugin_name must be provided for plugin backend"));
    }
    let mut options = nested("options")?.map(|text| pairs(Raw::trusted(&text))).transpose()?;
    let kind = if auth { Err(auth_refusal(&kind_name, place)) } else { engine(&kind_name, &mut options) };
    let listing_visibility = member("listing_visibility").and_then(Raw::string).unwrap_or_default().into_owned();
    if !["", "hidden", "unauth"].contains(&listing_visibility.as_str()) {
        return Err(Refusal::malformed(format!("invalid listing_visibility {listing_visibility}")));
    }
    check_place(auth, place, &kind_name)?;
    let unavailable = kind.is_err();
    if unavailable {
        // Vault looks at the path before it looks for the type.
        let tables = context.worker.tables()?;
        if let Some(taken) = tables.mounts.conflict(place) {
            return Err(Refusal::malformed(format!("path is already in use at {}", shown(taken))));
        }
    }
    let mut lists = BTreeMap::new();
    for name in LISTS {
        if let Some(value) = member(name) {
            lists.insert(name.to_owned(), strings(value));
        }
    }
    let flag = |field: &str| params.bool(field).map(|value| value.unwrap_or(false));
    Ok(Mount {
        id: Id::ZERO,
        path: place.to_owned(),
        kind: kind?,
        description: params.string("description")?.unwrap_or_default().into_owned(),
        accessor: String::new(),
        options: Some(options.unwrap_or_default()),
        default_lease_s,
        max_lease_s,
        force_no_cache: member("force_no_cache").is_some_and(|value| value.text() == "true"),
        listing_visibility,
        local: flag("local")?,
        seal_wrap: flag("seal_wrap")?,
        external_entropy_access: flag("external_entropy_access")?,
        lists,
        token_type: None,
        kv: Some(KvConfig::default()),
        closed: None,
        moves: Vec::new(),
    })
}

/// The engine of this type name, with the version option as Vault keeps it.
fn engine(name: &str, options: &mut Option<BTreeMap<String, String>>) -> Result<Kind, Refusal> {
    let version = options.as_ref().and_then(|options| options.get("version")).map(String::as_str);
    let set = |options: &mut Option<BTreeMap<String, String>>, version: &str| {
        options.get_or_insert_default().insert("version".into(), version.into());
    };
    match (name, version) {
        ("kv-v2", _) => {
            set(options, "2");
            Ok(Kind::Kv2)
        }
        ("kv-v1", _) => {
            set(options, "1");
            Ok(Kind::Kv1)
        }
        ("kv", None | Some("" | "1")) => Ok(Kind::Kv1),
        ("kv", Some("2")) => Ok(Kind::Kv2),
        ("kv", Some(_)) => Err(Refusal::malformed("nil backend of type \"kv\" returned from factory")),
        ("generic", None) => Ok(Kind::Generic),
        (other, Some(_)) => {
            Err(Refusal::malformed(format!("secrets engine \"{other}\" does not allow setting a version")))
        }
        (other, None) => Err(Refusal::malformed(format!("plugin not found in the catalog: {other}"))),
    }
}

fn auth_refusal(kind: &str, _: &str) -> Refusal {
    match kind {
        "token" => Refusal::malformed("token credential backend cannot be instantiated"),
        other => Refusal::malformed(format!("plugin not found in the catalog: {other}")),
    }
}

/// Where no mount may stand, and what no mount may be.
fn check_place(auth: bool, place: &str, kind: &str) -> Result<(), Refusal> {
    if !auth {
        for protected in ["sys/", "auth/", "cubbyhole/", "identity/"] {
            if place.starts_with(protected) {
                return Err(Refusal::malformed(format!("cannot mount \"{place}\"")));
            }
        }
        if ["cubbyhole", "system", "identity", "token", "ns_cubbyhole"].contains(&kind) {
            return Err(Refusal::malformed(format!("mount type of \"{kind}\" is not mountable")));
        }
    }
    if place.len() > PATH_BYTES_MAX || place.split('/').rev().skip(1).any(|s| s.is_empty() || s == "." || s == "..") {
        return Err(Refusal::malformed("the mount's path has an empty or relative segment, or is too long"));
    }
    let noun = place.trim_end_matches('/');
    let kv2 = kind == "kv-v2" || kind == "kv";
    if !auth && NATIVE_NOUNS.contains(&noun) && !(noun == "secrets" && kv2) {
        return Err(Refusal::malformed(format!(
            "\"{noun}\" is a path of Keyward's own API, so a mount there could not be reached; choose another name"
        )));
    }
    Ok(())
}

/// Names and texts of an options object: scalars become text, null becomes empty.
fn pairs(object: Raw<'_>) -> Result<BTreeMap<String, String>, Refusal> {
    object
        .members()
        .map(|(name, value)| {
            let text = match value.kind() {
                Json::Null => String::new(),
                Json::String => value.string().unwrap_or_default().into_owned(),
                Json::Object | Json::Array => {
                    return Err(Refusal::malformed(format!("option \"{name}\" must be a string")));
                }
                _ => value.text().to_owned(),
            };
            Ok((name.into_owned(), text))
        })
        .collect()
}

fn strings(value: Raw<'_>) -> Vec<String> {
    match value.kind() {
        Json::Array => value.elements().filter_map(Raw::string).map(std::borrow::Cow::into_owned).collect(),
        _ => value
            .string()
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect(),
    }
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
