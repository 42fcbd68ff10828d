//! `sys/mounts/<path>/tune`: reading and changing a mount's settings, and raising KV v1 to v2.

use std::collections::BTreeMap;

use keyward_policy::Operation;
use serde_json::{Map, Value, json};

use super::closing::Closing;
use super::{LISTS, config, current, plugin, put};
use crate::api::Context;
use crate::http::answer::Answer;
use crate::http::duration;
use crate::http::fields::Field;
use crate::http::gotext::quote;
use crate::http::json::Raw;
use crate::mounts::{Closed, Kind, Mount};
use crate::refusal::Refusal;

/// What the path declares.
const FIELDS: [Field; 13] = [
    Field::captured("path"),
    Field::text("default_lease_ttl"),
    Field::text("max_lease_ttl"),
    Field::text("description"),
    Field::texts("audit_non_hmac_request_keys"),
    Field::texts("audit_non_hmac_response_keys"),
    Field::pairs("options"),
    Field::text("listing_visibility"),
    Field::texts("passthrough_request_headers"),
    Field::texts("allowed_response_headers"),
    Field::text("token_type"),
    Field::text("plugin_version"),
    Field::map("user_lockout_config"),
];
/// Mounts of the system, whose settings are fixed.
const FIXED: [&str; 4] = ["cubbyhole/", "sys/", "audit/", "identity/"];
/// What may be set even there.
const NOT_FIXED: [&str; 3] = ["path", "audit_non_hmac_request_keys", "audit_non_hmac_response_keys"];

/// Answers for one mount.
///
/// # Errors
/// No such mount or verb, or values that do not go together.
pub(super) async fn act(context: &Context<'_>, place: &str) -> Result<Answer, Refusal> {
    context.params.check(&FIELDS)?;
    match context.request.operation {
        Operation::Read => read(context, place),
        Operation::Create | Operation::Update => write(context, place).await,
        _ => Err(Refusal::UnsupportedOperation),
    }
}

fn read(context: &Context<'_>, place: &str) -> Result<Answer, Refusal> {
    let tables = context.worker.tables()?;
    let (mount, _) = tables
        .mounts
        .resolve(place)
        .ok_or_else(|| Refusal::malformed(format!("cannot fetch sysview for path {}", quote(place))))?;
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
    for (name, values) in mount.shown_lists() {
        out.insert(name, json!(values));
    }
    if let Some(kind) = &mount.token_type {
        out.insert("token_type".into(), json!(kind));
    }
    Ok(context.with_parameter_warnings(Answer::injected(&Value::Object(out)), &FIELDS))
}

/// What a request wants changed; what it does not name stays.
struct Wish {
    default_lease_s: Option<i64>,
    max_lease_s: Option<i64>,
    /// Settings against guessed passwords are named.
    lockout: bool,
    description: Option<String>,
    /// As asked for.
    plugin_version: Option<String>,
    lists: BTreeMap<&'static str, Vec<String>>,
    listing_visibility: Option<String>,
    token_type: Option<String>,
    options: BTreeMap<String, String>,
}

impl Wish {
    fn of(context: &Context<'_>) -> Result<Self, Refusal> {
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
        // Null is a text, too: the empty one.
        let text = |name: &str| -> Result<Option<String>, Refusal> {
            let given = params.get(name).is_some();
            Ok(params.string(name)?.map(std::borrow::Cow::into_owned).or_else(|| given.then(String::new)))
        };
        let mut lists = BTreeMap::new();
        for name in LISTS {
            if let Some(list) = params.strings(name)? {
                lists.insert(name, list);
            }
        }
        let lockout = params.map("user_lockout_config")?;
        let lockout = lockout.as_deref().map(Raw::trusted).filter(|object| object.members().next().is_some());
        if lockout.is_some_and(|object| !config::is_lockout(object)) {
            return Err(Refusal::malformed("unable to convert given user lockout config information"));
        }
        Ok(Self {
            default_lease_s: ttl("default_lease_ttl")?,
            max_lease_s: ttl("max_lease_ttl")?,
            lockout: lockout.is_some(),
            description: text("description")?,
            plugin_version: text("plugin_version")?,
            lists,
            listing_visibility: text("listing_visibility")?,
            token_type: text("token_type")?,
            options: params.pairs("options")?.unwrap_or_default(),
        })
    }
}

/// That nothing is named which cannot be set there.
fn refuse_fixed(context: &Context<'_>, place: &str) -> Result<(), Refusal> {
    if !FIXED.iter().any(|fixed| place.starts_with(fixed)) {
        return Ok(());
    }
    let named = FIELDS.iter().map(|field| field.name()).filter(|name| context.params.get(name).is_some());
    match named.into_iter().find(|name| !NOT_FIXED.contains(name)) {
        Some(name) => Err(Refusal::malformed(format!("cannot tune parameter {name} of {place}"))),
        None => Ok(()),
    }
}

async fn write(context: &Context<'_>, place: &str) -> Result<Answer, Refusal> {
    refuse_fixed(context, place)?;
    let absent = || Refusal::malformed(format!("tune of path {} failed: no mount entry found", quote(place)));
    // Not of what lies around `place`: a policy that denies the mount's own path would not hold.
    let tables = context.worker.tables()?;
    tables.mounts.resolve(place).filter(|(_, below)| below.is_empty()).ok_or_else(absent)?;
    let wish = Wish::of(context)?;
    let mut closed = None;
    let answer = context
        .write_answer(
            |draft| {
                let mut mount = current(draft)?.into_iter().find(|mount| mount.path == place).ok_or_else(absent)?;
                mount.serving()?;
                let from = mount.kind;
                let step = change(&mut mount, &wish)?;
                let raised = from != mount.kind;
                if raised {
                    mount.kind = from; // it becomes version 2 when its entries are
                    mount.closed = Some(Closed::Raising);
                }
                put(draft, &mount)?;
                closed = raised.then_some(mount);
                Ok(step)
            },
            |step| {
                let answer = Answer::warned(step.map(|step| step.warning()).into_iter().collect());
                Ok(context.with_parameter_warnings(answer, &FIELDS))
            },
        )
        .await?;
    if let Some(mount) = closed {
        Closing::of(&mount).finish(context.worker, context.facts()).await?;
    }
    Ok(answer)
}

/// A step of a KV mount's version: from none that was named (0) to 1, or from either of them to 2.
#[derive(Clone, Copy)]
struct Step {
    from: i64,
    to: i64,
}

impl Step {
    fn warning(self) -> String {
        format!(
            "Upgrading mount from version {} to version {}. This mount will be unavailable for a brief period and will resume service shortly.",
            self.from, self.to
        )
    }
}

fn change(mount: &mut Mount, wish: &Wish) -> Result<Option<Step>, Refusal> {
    leases(mount, wish)?;
    if wish.lockout {
        return Err(Refusal::malformed(format!(
            "tuning of user lockout configuration for auth type \"{}\" not allowed",
            mount.type_name()
        )));
    }
    if let Some(description) = &wish.description {
        mount.description.clone_from(description);
    }
    if let Some(asked) = &wish.plugin_version
        && let Some(version) = plugin::other_version(asked)?
    {
        let name = mount.type_name();
        return Err(Refusal::malformed(format!("plugin not found in the catalog: {name}, version={version}")));
    }
    if let Some(visibility) = &wish.listing_visibility {
        if !["", "hidden", "unauth"].contains(&visibility.as_str()) {
            return Err(Refusal::malformed(format!("invalid listing_visibility {visibility}")));
        }
        mount.listing_visibility.clone_from(visibility);
    }
    if wish.token_type.is_some() {
        return Err(Refusal::malformed(if mount.is_auth() {
            "'token_type' cannot be set for 'token' or 'ns_token' auth mounts"
        } else {
            "'token_type' can only be modified on auth mounts"
        }));
    }
    for (name, values) in &wish.lists {
        mount.lists.insert((*name).to_owned(), values.clone());
    }
    mount.lists.retain(|_, values| !values.is_empty());
    options(mount, &wish.options)
}

fn leases(mount: &mut Mount, wish: &Wish) -> Result<(), Refusal> {
    let is_token = mount.kind == Kind::Token;
    if is_token && [wish.default_lease_s, wish.max_lease_s].into_iter().flatten().any(|lease_s| lease_s < 0) {
        return Err(Refusal::malformed("the lease of a token cannot be negative: no token would live"));
    }
    // A negative one may stand there from before it was refused.
    let stands = |lease_s: i64| if is_token { lease_s.max(0) } else { lease_s };
    let default = wish.default_lease_s.unwrap_or_else(|| stands(mount.default_lease_s));
    let max = wish.max_lease_s.unwrap_or_else(|| stands(mount.max_lease_s));
    if (default, max) != (mount.default_lease_s, mount.max_lease_s) && default != 0 && max != 0 && max < default {
        return Err(Refusal::malformed(format!(
            "backend max lease TTL of {max} would be less than backend default lease TTL of {default}"
        )));
    }
    (mount.default_lease_s, mount.max_lease_s) = (default, max);
    Ok(())
}

/// Sets the options that are not empty, and drops the others.
fn options(mount: &mut Mount, wanted: &BTreeMap<String, String>) -> Result<Option<Step>, Refusal> {
    let step = match wanted.get("version") {
        Some(text) => version(mount, text)?,
        None => None,
    };
    if wanted.is_empty() {
        return Ok(step);
    }
    let options = mount.options.get_or_insert_default();
    for (name, value) in wanted.iter().filter(|(name, _)| *name != "version") {
        if value.is_empty() {
            options.remove(name);
        } else {
            options.insert(name.clone(), value.clone());
        }
    }
    if let Some(step) = step {
        options.insert("version".into(), step.to.to_string());
    }
    Ok(step)
}

/// The step to another version, if that is one.
fn version(mount: &mut Mount, text: &str) -> Result<Option<Step>, Refusal> {
    let named = mount.options.as_ref().and_then(|options| options.get("version"));
    let from = match mount.kind {
        Kind::Kv2 => 2,
        Kind::Kv1 => i64::from(named.is_some_and(|text| !text.is_empty())),
        _ => {
            return Err(Refusal::malformed(format!(
                "secrets engine \"{}\" does not allow setting a version",
                mount.type_name()
            )));
        }
    };
    let to = if text.is_empty() { Ok(0) } else { duration::decimal(text) }.map_err(|why| {
        Refusal::malformed(format!("unable to parse options: strconv.ParseInt: parsing {}: {why}", quote(text)))
    })?;
    if to != 1 && to != 2 {
        return Err(Refusal::malformed(format!("invalid version provided: {to}")));
    }
    if to < from {
        return Err(Refusal::malformed(format!("cannot downgrade mount from version {from}")));
    }
    if to == 2 {
        mount.kind = Kind::Kv2;
    }
    Ok((to > from).then_some(Step { from, to }))
}
