//! `sys/mounts/<path>/tune`: reading and changing a mount's settings, and raising KV v1 to v2.

use std::collections::BTreeMap;

use keyward_policy::Operation;
use serde_json::{Map, Value, json};

use super::closing::Closing;
use super::{LISTS, current_at, pairs, put, strings};
use crate::api::Context;
use crate::http::answer::Answer;
use crate::http::duration;
use crate::http::fields::Input;
use crate::http::json::{Kind as Json, Raw};
use crate::mounts::{Closed, Kind, Mount};
use crate::refusal::Refusal;

const UPGRADING: &str = "Upgrading mount from version 1 to version 2. This mount will be unavailable for a brief period and will resume service shortly.";

/// Answers for one mount.
///
/// # Errors
/// No such mount or verb, or values that do not go together.
pub(super) async fn act(context: &Context<'_>, place: &str) -> Result<Answer, Refusal> {
    match context.request.operation {
        Operation::Read => read(context, place),
        Operation::Create | Operation::Update => write(context, place).await,
        _ => Err(Refusal::UnsupportedOperation),
    }
}

fn read(context: &Context<'_>, place: &str) -> Result<Answer, Refusal> {
    let tables = context.worker.tables()?;
    let mount = tables
        .mounts
        .get(place)
        .ok_or_else(|| Refusal::malformed(format!("cannot fetch sysview for path \"{place}\"")))?;
    let mut out = Map::new();
    out.insert("default_lease_ttl".into(), json!(mount.default_lease()));
    out.insert("max_lease_ttl".into(), json!(mount.max_lease()));
    out.insert("description".into(), json!(mount.description));
    out.insert("force_no_cache".into(), json!(mount.force_no_cache));
    if let Some(options) = mount.options.as_ref().filter(|options| !options.is_empty()) {
        out.insert("options".into(), json!(options));
    }
    if !mount.listing_visibility.is_empty() {
        out.insert("listing_visibility".into(), json!(mount.listing_visibility));
    }
    if mount.external_entropy_access {
        out.insert("external_entropy_access".into(), json!(true));
    }
    for (name, values) in &mount.lists {
        out.insert(name.clone(), json!(values));
    }
    if let Some(kind) = &mount.token_type {
        out.insert("token_type".into(), json!(kind));
    }
    Ok(Answer::injected(&Value::Object(out)))
}

/// What a request wants changed.
struct Wish {
    default_lease_s: Option<i64>,
    max_lease_s: Option<i64>,
    description: Option<String>,
    listing_visibility: Option<String>,
    options: BTreeMap<String, String>,
    lists: BTreeMap<String, Vec<String>>,
    token_type: Option<String>,
}

fn wish(context: &Context<'_>) -> Result<Wish, Refusal> {
    let params = context.params;
    let ttl = |name: &str| -> Result<Option<i64>, Refusal> {
        match params.string(name)?.as_deref() {
            None | Some("") => Ok(None),
            Some("system") => Ok(Some(0)),
            Some(text) => duration::parse(text)
                .map(|nanos| Some(nanos / 1_000_000_000))
                .map_err(|why| Refusal::malformed(why.into_owned())),
        }
    };
    let options = match params.map("options")? {
        Some(text) if text != "null" => pairs(Raw::trusted(&text))?,
        _ => BTreeMap::new(),
    };
    let mut lists = BTreeMap::new();
    for name in LISTS {
        if let Some(Input::Json(value)) =
            params.get(name).filter(|v| !matches!(v, Input::Json(r) if r.kind() == Json::Null))
        {
            lists.insert(name.to_owned(), strings(value));
        }
    }
    let text = |name: &str| params.string(name).map(|text| text.map(std::borrow::Cow::into_owned));
    Ok(Wish {
        default_lease_s: ttl("default_lease_ttl")?,
        max_lease_s: ttl("max_lease_ttl")?,
        description: text("description")?,
        listing_visibility: text("listing_visibility")?,
        options,
        lists,
        token_type: text("token_type")?.filter(|kind| !kind.is_empty()),
    })
}

async fn write(context: &Context<'_>, place: &str) -> Result<Answer, Refusal> {
    let wish = wish(context)?;
    let mut closed = None;
    let answer = context
        .write_answer(
            |draft| {
                let Some(mut mount) = current_at(draft, place)? else {
                    return Err(Refusal::malformed(format!("tune of path \"{place}\" failed: no mount entry found")));
                };
                mount.serving()?;
                let from = mount.kind;
                change(&mut mount, &wish)?;
                let raised = from != mount.kind;
                if raised {
                    mount.kind = from; // it becomes version 2 when its entries are
                    mount.closed = Some(Closed::Raising);
                }
                put(draft, &mount)?;
                closed = raised.then_some(mount);
                Ok(raised)
            },
            |raised| Ok(Answer::warned(raised.then(|| UPGRADING.to_owned()).into_iter().collect())),
        )
        .await?;
    if let Some(mount) = closed {
        Closing::of(&mount).finish(context.worker, context.facts()).await?;
    }
    Ok(answer)
}

fn change(mount: &mut Mount, wish: &Wish) -> Result<(), Refusal> {
    let default = wish.default_lease_s.unwrap_or(mount.default_lease_s);
    let max = wish.max_lease_s.unwrap_or(mount.max_lease_s);
    if max > 0 && default > max {
        return Err(Refusal::malformed(format!(
            "backend max lease TTL of {max} would be less than backend default lease TTL of {default}"
        )));
    }
    if let Some(visibility) = &wish.listing_visibility {
        if !["", "hidden", "unauth"].contains(&visibility.as_str()) {
            return Err(Refusal::malformed(format!("invalid listing_visibility {visibility}")));
        }
        mount.listing_visibility.clone_from(visibility);
    }
    if let Some(description) = &wish.description {
        if matches!(mount.kind, Kind::System | Kind::Cubbyhole) {
            return Err(Refusal::malformed(format!("cannot tune parameter description of {}", mount.path)));
        }
        mount.description.clone_from(description);
    }
    if let Some(kind) = &wish.token_type {
        if !mount.is_auth() {
            return Err(Refusal::malformed("'token_type' can only be modified on auth mounts"));
        }
        if !["default-service", "default-batch", "service", "batch"].contains(&kind.as_str()) {
            return Err(Refusal::malformed("invalid value for 'token_type'"));
        }
        mount.token_type = Some(kind.clone());
    }
    if let Some(version) = wish.options.get("version") {
        match (mount.kind, version.as_str()) {
            (Kind::Kv1, "1") | (Kind::Kv2, "2") => {}
            (Kind::Kv1, "2") => mount.kind = Kind::Kv2,
            (Kind::Kv2, "1") => return Err(Refusal::malformed("cannot downgrade mount from version 2")),
            (Kind::Kv1 | Kind::Kv2, other) => {
                let number = other.parse::<i64>().unwrap_or(0);
                return Err(Refusal::malformed(format!("invalid version provided: {number}")));
            }
            _ => {
                return Err(Refusal::malformed(format!(
                    "secrets engine \"{}\" does not allow setting a version",
                    mount.type_name()
                )));
            }
        }
    }
    for (name, value) in &wish.options {
        mount.options.get_or_insert_default().insert(name.clone(), value.clone());
    }
    for (name, values) in &wish.lists {
        mount.lists.insert(name.clone(), values.clone());
    }
    mount.default_lease_s = default;
    mount.max_lease_s = max;
    Ok(())
}
