//! The endpoints. Each file answers for one family of paths; this one finds the family.
//!
//! Handlers are reached through the PEP only, with its [`Permit`](crate::pep::Permit) in the [`Context`]. What they
//! compute is not seen before a receipt; what they change goes through [`Context::write`], which carries the audit
//! intent.

pub mod status;

pub mod init;

pub mod kv2;

pub mod kv1;

pub mod native;

pub mod cubbyhole;

pub mod token;

pub mod policy;

pub mod mounts;

pub mod wrapping;

pub mod keyring;

pub mod cluster;

pub mod capabilities;

pub mod tools;

pub mod metrics;

mod context;

pub use context::Context;
use keyward_model::event::EventKind;
use keyward_policy::{Acl, Operation};

use crate::app::Worker;
use crate::authn::token::{Token, TokenKind};
use crate::config::Listen;
use crate::http::answer::{Answer, Form};
use crate::http::fields::Params;
use crate::http::request::{Face, Request};
use crate::mounts::{Kind, Mount};
use crate::pep::{Door, judge};
use crate::record::Facts;
use crate::refusal::Refusal;

/// What takes no token: a node is asked this, and told this, before it can know any.
const OPEN: [&str; 7] =
    ["sys/health", "sys/seal-status", "sys/leader", "sys/init", "sys/unseal", "sys/seal", "sys/step-down"];
/// Below `sys/`: where a list is an answer, or the wrong verb. Anywhere else there is no such path.
const LISTED: [&str; 7] =
    ["mounts/", "auth/", "remount/status/", "policies/", "policy/", "version-history/", "host-info/"];

/// A list of what takes no token, or may take none: the wrong verb.
fn is_list_of_open(request: &Request) -> bool {
    let listing = matches!(request.operation, Operation::List | Operation::Scan);
    listing && request.path.strip_suffix('/').is_some_and(|path| OPEN.contains(&path) || path == "sys/metrics")
}

/// How a path is guarded.
pub fn door(request: &Request, listen: &Listen) -> Door {
    match request.path.as_str() {
        "sys/metrics" if listen.open_metrics && request.operation == Operation::Read => Door::Open,
        path if OPEN.contains(&path) || is_list_of_open(request) => Door::Open,
        "sys/wrapping/lookup" | "sys/internal/ui/mounts" => Door::Own,
        path if path.starts_with("sys/internal/ui/mounts/") => Door::Own,
        _ => Door::Guarded,
    }
}

/// What records call the face that the request came through.
pub fn channel(face: Face) -> &'static str {
    match face {
        Face::Compatible => "vault",
        Face::Native => "native",
    }
}

/// Status that is asked all the time and says nothing of any secret: the listed exception from the audit.
pub fn is_open_status(request: &Request) -> bool {
    request.operation == Operation::Read
}

/// Whether the request is for the leader as such, whatever its state lacks: to let another one lead changes no row.
pub fn is_for_any_leader(request: &Request) -> bool {
    request.path == "sys/step-down" && request.operation == Operation::Update
}

/// Whether the request takes a use from a token with limited uses. A wrapping token that is unwrapped goes with its
/// content, in the command that takes it out.
pub fn counts_a_use(request: &Request, params: &Params<'_>, token: &Token) -> bool {
    let unwraps = token.kind == TokenKind::Wrapping
        && request.path == "sys/wrapping/unwrap"
        && request.operation == Operation::Update
        && wrapping::is_own(request, params);
    !unwraps && request.path != "sys/wrapping/lookup" && !request.path.starts_with("sys/internal/ui/mounts")
}

/// What Vault looks at before it looks at the caller's token: a token in the parameters.
///
/// # Errors
/// It is none, or not one that wraps something where it has to be.
pub fn check_before_token(
    worker: &Worker,
    request: &Request,
    params: &Params<'_>,
    facts: &mut Facts,
) -> Result<(), Refusal> {
    match request.path.as_str() {
        "sys/wrapping/lookup" | "sys/wrapping/unwrap" | "sys/wrapping/rewrap" => {
            wrapping::describe(request, facts);
            wrapping::check(worker, request, params)
        }
        "auth/token/lookup" | "auth/token/renew" | "auth/token/revoke" | "auth/token/revoke-orphan" => {
            token::check(params)
        }
        _ => Ok(()),
    }
}

/// Fills in what the record of this request says: event, action, engine, and the keyed reference of the resource.
pub fn describe(worker: &Worker, request: &Request, mount: Option<&Mount>, facts: &mut Facts) {
    let Some(mount) = mount else { return };
    let rest = request.path.get(mount.path.len()..).unwrap_or_default();
    let resource = match mount.kind {
        Kind::Kv2 => kv2::describe(request.operation, rest, facts),
        Kind::Kv1 | Kind::Generic => kv1::describe(request.operation, rest, facts),
        Kind::Cubbyhole => {
            kv1::describe(request.operation, rest, facts);
            facts.engine = Some("cubbyhole");
            None
        }
        Kind::System => {
            let changes = !matches!(request.operation, Operation::Read | Operation::List | Operation::Scan);
            facts.set(if changes { EventKind::SysConfig } else { EventKind::SysRead }, "administer", "system");
            wrapping::describe(request, facts);
            None
        }
        Kind::Token => {
            facts.set(EventKind::TokenRead, "", "token");
            None
        }
    };
    if let (Some(path), Ok(keys)) = (resource, worker.app.barrier.keyring()) {
        facts.resource_ref = Some(keys.references.resource_ref(&format!("keyward+kv2://{}{path}", mount.path)));
    }
}

/// Whether a write to an endpoint with an existence check makes something new or changes it. Looks only where the
/// caller may do one of the two and not the other.
///
/// # Errors
/// The row cannot be read.
pub fn create_or_update(
    worker: &Worker,
    request: &Request,
    params: &Params<'_>,
    mount: &Mount,
    rest: &str,
    acl: &Acl,
) -> Result<Operation, Refusal> {
    let checked = match mount.kind {
        Kind::Kv2 => kv2::has_existence_check(rest),
        Kind::Kv1 | Kind::Generic | Kind::Cubbyhole => !rest.is_empty(),
        Kind::System | Kind::Token => false,
    };
    if !checked {
        return Ok(Operation::Update);
    }
    params.check_existence();
    let (create, update) = (
        judge(acl, request, params, Operation::Create).allowed,
        judge(acl, request, params, Operation::Update).allowed,
    );
    if create == update {
        return Ok(Operation::Update);
    }
    let exists = match mount.kind {
        Kind::Kv2 => kv2::exists(worker, mount, rest)?,
        _ => kv1::exists(worker, mount.id, rest)?,
    };
    Ok(if exists { Operation::Update } else { Operation::Create })
}

/// Answers a read that needs nothing but this thread; `None` for everything else.
pub fn act_now(context: &Context<'_>) -> Option<Result<Answer, Refusal>> {
    let compatible = context.request.face == Face::Compatible;
    if !compatible || context.request.operation != Operation::Read || context.permit.door() != Door::Guarded {
        return None;
    }
    match context.permit.mount()?.kind {
        Kind::Kv2 => kv2::act_now(context),
        Kind::Kv1 | Kind::Generic | Kind::Cubbyhole | Kind::System | Kind::Token => None,
    }
}

/// Hands a permitted request to the endpoint that answers it.
///
/// # Errors
/// What the endpoint refuses; no mount, no such path, or no such verb.
pub async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    if let Some(call) = context.permit.call() {
        return native::act(context, call).await;
    }
    if is_list_of_open(context.request) {
        return Err(Refusal::UnknownVerb);
    }
    match context.request.path.as_str() {
        "sys/health" | "sys/seal-status" | "sys/leader" => return status::act(context),
        "sys/metrics" if context.permit.door() == Door::Open => return metrics::act(context),
        "sys/step-down" if context.request.operation == Operation::Update => return cluster::step_down(context).await,
        "sys/step-down" => return Err(Refusal::UnknownVerb),
        "sys/init" | "sys/unseal" | "sys/seal" => return init::act(context).await,
        _ => {}
    }
    let Some(mount) = context.permit.mount() else {
        return Err(Refusal::NoRoute(context.request.path.clone()));
    };
    match mount.kind {
        Kind::Kv2 => kv2::act(context).await,
        Kind::Kv1 | Kind::Generic => kv1::act(context).await,
        Kind::Cubbyhole => cubbyhole::act(context).await,
        Kind::Token => token::act(context).await,
        Kind::System => system(context).await,
    }
}

/// The paths below `sys/` that need a token.
async fn system(context: &Context<'_>) -> Result<Answer, Refusal> {
    let rest = context.rest();
    // One name, one path: what the policy judged is what the handler takes.
    let roots = ["policies/acl/", "policy/"];
    let listing = matches!(context.request.operation, Operation::List | Operation::Scan);
    // A preflight names a mount, with its slash, and changes nothing.
    let ends = rest.ends_with('/') && !rest.starts_with("internal/ui/mounts/");
    let listed = listing && LISTED.iter().any(|listed| rest.starts_with(listed));
    if rest.contains("//") || (ends && !listed && !roots.contains(&rest)) {
        return Err(Refusal::UnsupportedPath);
    }
    let (first, _) = rest.split_once('/').unwrap_or((rest, ""));
    match first {
        "mounts" | "auth" | "remount" | "internal" => mounts::act(context).await,
        "policies" | "policy" => policy::act(context).await,
        "wrapping" => wrapping::act(context).await,
        "capabilities" | "capabilities-self" | "capabilities-accessor" if rest == first => capabilities::act(context),
        "key-status" | "rotate" => keyring::act(context).await,
        "tools" => tools::act(context),
        "cluster" => cluster::act(context).await,
        "metrics" => metrics::act(context),
        _ => status::act(context),
    }
}

/// A refusal in the form of the face it came through.
pub fn render_refusal(request: &Request, refusal: &Refusal) -> Answer {
    if request.face == Face::Native {
        return native::problem(request.id, request.token().is_some(), refusal);
    }
    let parts = refusal.parts();
    match &parts.body {
        Some(body) => Answer::bare(parts.status, body),
        None => Answer { status: parts.status, form: Form::Empty },
    }
}
