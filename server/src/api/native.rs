//! The native face: `/v1/secrets…`, where secrets have ids, versions have a life, and aliases move by compare-and-swap.
//!
//! A call is turned into the path and the operation of the KV v2 mount that mean the same ([`Call`]), and policies decide
//! about those: one policy speaks for both faces, and both work on one record. Requests are read strictly (no unknown
//! member, no name twice, one spelling of a path), refusals are problem documents (RFC 9457) with a stable code.

mod call;

mod route;

mod uri;

mod input;

mod problem;

mod read;

mod write;

pub use call::Call;
pub use input::body;
pub use problem::problem;
use route::Action;

use super::Context;
use crate::http::answer::Answer;
use crate::mounts::Mount;
use crate::refusal::Refusal;

/// What stands after `/v1/secrets/` where a KV v2 mount called `secrets` is meant. No environment has such a name.
const YIELDED: [&str; 9] =
    ["data", "metadata", "detailed-metadata", "config", "delete", "undelete", "destroy", "subkeys", "aliases"];

/// Whether a request target, as sent, is one of this face.
pub fn claims(target: &str) -> bool {
    let Some(rest) = target.strip_prefix("/v1/secrets") else { return false };
    match rest.strip_prefix('/') {
        Some(below) => !YIELDED.contains(&below.split('/').next().unwrap_or_default()),
        None => rest.is_empty(),
    }
}

/// Answers a permitted call.
///
/// # Errors
/// What the endpoint refuses.
pub async fn act(context: &Context<'_>, call: &Call) -> Result<Answer, Refusal> {
    let mount = mount(call)?;
    match &call.action {
        Action::Read { pick, key } => read::value(context, call, pick, key.as_deref()),
        Action::Show(view) => read::show(context, call, *view),
        Action::List { after, limit } => read::list(context, call, mount, after, *limit),
        Action::Create(metadata) => write::create(context, call, mount, metadata).await,
        Action::Write { status, expected } => write::version(context, call, mount, *status, *expected).await,
        Action::Point { name, version, expected, demote } => {
            write::point(context, call, mount, name, *version, *expected, *demote).await
        }
        Action::Unpoint { name, expected } => write::unpoint(context, call, mount, name, *expected).await,
        Action::Disable(number, how) => write::disable(context, call, mount, *number, *how).await,
        Action::Enable(number) => write::enable(context, call, mount, *number).await,
        Action::Destroy(number) => write::destroy(context, call, mount, *number).await,
        Action::Delete(scope) => write::delete(context, call, mount, *scope).await,
        Action::Undelete(scope) => write::undelete(context, call, mount, *scope).await,
    }
}

/// The mount of a call. That there is none is said only now, to one whom a policy lets do this there.
fn mount(call: &Call) -> Result<&Mount, Refusal> {
    match &call.place.mount {
        None => Err(input::invalid(
            "there is no KV v2 mount of this name (`secret`, if none is named); `sys/mounts` lists those there are",
        )),
        Some(mount) => mount.serving().map(|()| &**mount),
    }
}

#[cfg(test)]
mod tests;
