//! The token store: `auth/token/…`. Issues tokens, looks them up, renews and revokes them.
//!
//! Texts, order of checks and what an unknown token gets are Vault's. Tokens go in and out as [`Secret`]s; what is kept,
//! compared and recorded is keyed hashes and accessors.

mod create;

mod lookup;

mod renew;

mod revoke;

use std::borrow::Cow;
use std::sync::Arc;

use keyward_model::{Secret, Table};
use keyward_policy::Operation;
use serde_json::{Value, json};

use super::Context;
use crate::authn::token::{Session, Token};
use crate::http::answer::Answer;
use crate::http::fields::{Field, Input, Params};
use crate::http::json::Kind;
use crate::refusal::Refusal;
use create::Line;
use revoke::Reach;

/// The token that is meant.
pub(super) const TOKEN: Field = Field::text("token");
/// The accessor of the token that is meant.
pub(super) const ACCESSOR: Field = Field::text("accessor");

/// The paths below `auth/token/` that answer to something, for telling a wrong verb from a wrong path.
const PATHS: &[&str] = &[
    "accessors",
    "accessors/",
    "create",
    "create-orphan",
    "lookup",
    "lookup-accessor",
    "lookup-self",
    "renew",
    "renew-accessor",
    "renew-self",
    "revoke",
    "revoke-accessor",
    "revoke-orphan",
    "revoke-self",
    "tidy",
];

/// Answers below `auth/token/`.
///
/// # Errors
/// No such path or verb, or what the endpoint refuses.
pub async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    let path = context.rest();
    match (path, context.request.operation) {
        ("create", Operation::Update) => create::create(context, Line::Child).await,
        ("create-orphan", Operation::Update) => create::create(context, Line::Orphan).await,
        ("lookup", Operation::Read | Operation::Update) => lookup::lookup(context),
        ("lookup-self", Operation::Read | Operation::Update) => lookup::lookup_self(context),
        ("lookup-accessor", Operation::Update) => lookup::lookup_accessor(context),
        ("accessors/", Operation::List) => lookup::accessors(context),
        ("renew", Operation::Update) => renew::renew(context).await,
        ("renew-self", Operation::Update) => renew::renew_self(context).await,
        ("renew-accessor", Operation::Update) => renew::renew_accessor(context).await,
        ("revoke", Operation::Update) => revoke::revoke(context, Reach::Family).await,
        ("revoke-self", Operation::Update) => revoke::revoke_self(context).await,
        ("revoke-accessor", Operation::Update) => revoke::revoke_accessor(context).await,
        ("revoke-orphan", Operation::Update) => revoke::revoke(context, Reach::Alone).await,
        ("tidy", Operation::Update) => revoke::tidy(context).await,
        _ => match path.strip_prefix("create/").filter(|role| !role.is_empty() && !role.contains('/')) {
            Some(role) if context.request.operation == Operation::Update => {
                Err(Refusal::malformed(format!("unknown role {role}")))
            }
            None if !PATHS.contains(&path) => Err(Refusal::UnsupportedPath),
            _ => Err(Refusal::UnsupportedOperation),
        },
    }
}

/// The `auth` object that tells of a token: `shown` is the token itself, empty where only its accessor was known.
fn auth(token: &Token, shown: &str, ttl_s: i64) -> Value {
    let mut auth = json!({
        "client_token": shown,
        "accessor": token.accessor,
        "policies": token.policies,
        "token_policies": token.policies,
        "metadata": token.meta,
        "lease_duration": ttl_s,
        "renewable": token.renewable,
        "entity_id": "",
        "token_type": "service",
        "orphan": token.orphan,
        "mfa_requirement": null,
        // As Vault has it: those that it was made with, also when some are gone.
        "num_uses": token.uses.max(token.uses_made),
    });
    if token.policies.is_empty()
        && let Some(members) = auth.as_object_mut()
    {
        members.remove("token_policies");
    }
    auth
}

/// A token that is given is a string.
///
/// # Errors
/// [`Refusal::Forbidden`]: it is something else.
pub fn check(params: &Params<'_>) -> Result<(), Refusal> {
    match params.get("token") {
        None | Some(Input::Query([_])) => Ok(()),
        Some(Input::Json(raw)) if raw.kind() == Kind::String => Ok(()),
        Some(_) => Err(Refusal::Forbidden("invalid token".into())),
    }
}

/// The token in a parameter; `None` if it is absent or empty.
pub(super) fn token_parameter(context: &Context<'_>) -> Result<Option<Secret<String>>, Refusal> {
    let given = context.params.string("token")?.map(Cow::into_owned).map(Secret::new);
    Ok(given.filter(|token| !token.expose().is_empty()))
}

/// The token behind the accessor in the parameters; `None` if there is none, or it has ended.
///
/// # Errors
/// No accessor is given, or a row cannot be read.
pub(super) fn by_accessor(context: &Context<'_>) -> Result<Option<Arc<Session>>, Refusal> {
    let accessor = context.params.string("accessor")?.filter(|accessor| !accessor.is_empty());
    let accessor = accessor.ok_or(Refusal::MalformedList("missing accessor".into()))?;
    let hash = context.keys()?.accessor_hash(accessor.as_bytes());
    let worker = context.worker;
    let Some(row) = worker.app.barrier.read(context.reader(), Table::Accessors, &hash)? else { return Ok(None) };
    let key = <[u8; 32]>::try_from(row.body.expose().as_slice())
        .map_err(|_| Refusal::internal("an accessor's row does not name a token"))?;
    worker.session_by_key(&key)
}
