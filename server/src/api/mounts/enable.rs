//! `POST sys/mounts/<path>`: a new mount.

use std::collections::BTreeMap;

use keyward_model::Id;

use super::config::Config;
use super::{check_place, check_reachable, current, plugin, put, shown};
use crate::api::Context;
use crate::boot::accessor_of;
use crate::engine::kv::KvConfig;
use crate::http::answer::Answer;
use crate::http::json::Raw;
use crate::mounts::{Kind, Mount};
use crate::refusal::Refusal;

/// Options as given, as text; `None` where they are null.
type Options = Option<BTreeMap<String, String>>;

/// What `token_type` may say of an auth method.
const TOKEN_TYPES: [&str; 5] = ["", "default-service", "default-batch", "service", "batch"];

/// Makes the mount that the request describes.
///
/// # Errors
/// It describes none that can be; the place is taken.
pub(super) async fn enable(context: &Context<'_>, auth: bool, place: &str) -> Result<Answer, Refusal> {
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
    let text = |name: &str| params.string(name).map(|text| text.unwrap_or_default().into_owned());
    let flag = |name: &str| params.bool(name).map(|value| value.unwrap_or(false));
    let object = params.map("config")?.filter(|text| text != "null");
    let config = Config::of(object.as_deref().map(Raw::trusted), if auth { "auth" } else { "mount" })?;
    if auth && !TOKEN_TYPES.contains(&config.token_type.as_str()) {
        return Err(Refusal::malformed("invalid value for 'token_type'"));
    }
    let asked = match text("type")? {
        kind if kind.is_empty() => return Err(Refusal::malformed("backend type must be specified as a string")),
        kind if kind != "plugin" => kind,
        _ if !config.plugin_name.is_empty() => config.plugin_name.clone(),
        _ => text("plugin_name")?,
    };
    if asked.is_empty() {
        return Err(Refusal::malformed("plugin_name must be provided for plugin backend"));
    }
    let mut options = options(context)?;
    let name = settle_version(auth, &asked, &mut options)?;
    refuse_other_version(auth, name, &config.plugin_version)?;
    if !["", "hidden", "unauth"].contains(&config.listing_visibility.as_str()) {
        return Err(Refusal::malformed(format!("invalid listing_visibility {}", config.listing_visibility)));
    }
    check_place(auth, place, name)?;
    if auth && name == "token" {
        return Err(Refusal::malformed("token credential backend cannot be instantiated"));
    }
    // The path is looked at before the type.
    if let Some(taken) = context.worker.tables()?.mounts.conflict(place) {
        return Err(Refusal::malformed(format!("path is already in use at {}", shown(taken))));
    }
    let kind = engine(auth, name, version(&options))?;
    check_reachable(place, kind)?;
    Ok(Mount {
        id: Id::ZERO,
        path: place.to_owned(),
        kind,
        description: text("description")?,
        accessor: String::new(),
        options,
        default_lease_s: config.default_lease_s,
        max_lease_s: config.max_lease_s,
        force_no_cache: config.force_no_cache,
        listing_visibility: config.listing_visibility,
        local: flag("local")?,
        seal_wrap: flag("seal_wrap")?,
        external_entropy_access: flag("external_entropy_access")?,
        lists: config.lists,
        token_type: None,
        kv: Some(KvConfig::default()),
        closed: None,
        moves: Vec::new(),
    })
}

/// None where the caller says null, empty where nothing is said.
fn options(context: &Context<'_>) -> Result<Options, Refusal> {
    let null = matches!(context.params.map("options"), Ok(Some(text)) if text == "null");
    let given = context.params.pairs("options")?;
    Ok(if null { None } else { Some(given.unwrap_or_default()) })
}

fn version(options: &Options) -> &str {
    options.as_ref().and_then(|options| options.get("version")).map_or("", String::as_str)
}

/// The name of the type: `kv-v1` and `kv-v2` are `kv` with that version. No other type has versions.
fn settle_version<'a>(auth: bool, asked: &'a str, options: &mut Options) -> Result<&'a str, Refusal> {
    let settled = match asked {
        "kv" if !auth => return Ok("kv"),
        "kv-v1" if !auth => "1",
        "kv-v2" if !auth => "2",
        other if version(options).is_empty() => return Ok(other),
        other => {
            let what = if auth { "auth method" } else { "secrets engine" };
            return Err(Refusal::malformed(format!("{what} \"{other}\" does not allow setting a version")));
        }
    };
    options.get_or_insert_default().insert("version".into(), settled.into());
    Ok("kv")
}

/// Only what is built in can be mounted.
fn refuse_other_version(auth: bool, name: &str, asked: &str) -> Result<(), Refusal> {
    if asked.is_empty() {
        return Ok(());
    }
    let Some(version) = plugin::other_version(asked)? else { return Ok(()) };
    let built_in = match (auth, name) {
        (false, "kv" | "generic") => "secrets plugin kv",
        (false, "cubbyhole") => "secrets plugin cubbyhole",
        (true, "token") => "auth plugin token",
        (_, other) => {
            return Err(Refusal::malformed(format!("plugin not found in the catalog: {other}, version={version}")));
        }
    };
    Err(Refusal::malformed(format!("cannot select non-builtin version of {built_in}")))
}

fn engine(auth: bool, name: &str, version: &str) -> Result<Kind, Refusal> {
    match (auth, name, version) {
        (false, "kv", "" | "1") => Ok(Kind::Kv1),
        (false, "kv", "2") => Ok(Kind::Kv2),
        (false, "kv", _) => Err(Refusal::malformed("nil backend of type \"kv\" returned from factory")),
        (false, "generic", _) => Ok(Kind::Generic),
        (_, other, _) => Err(Refusal::malformed(format!("plugin not found in the catalog: {other}"))),
    }
}
