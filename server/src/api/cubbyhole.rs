//! Cubbyhole: entries that only the token that wrote them can see, and that go with it.

use keyward_policy::Operation;

use super::{Context, kv1};
use crate::http::answer::Answer;
use crate::refusal::Refusal;

/// Answers below `cubbyhole/`.
///
/// # Errors
/// No such verb, nothing there, or nothing to write.
pub async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    let own = context.session()?.token.cubbyhole;
    let path = context.rest();
    match context.request.operation {
        Operation::Read if path.is_empty() => Err(Refusal::MalformedList("missing path".into())),
        Operation::Read if path == "response" && super::wrapping::is_wrapping(context) => {
            super::wrapping::old_way(context).await
        }
        Operation::Read => {
            let value = kv1::read(context, own, path)?;
            Ok(context.with_parameter_warnings(Answer::json(value.into_bytes()), &kv1::FIELDS))
        }
        Operation::List => kv1::list(context, own, path),
        Operation::Create | Operation::Update => match kv1::body(context) {
            None => Err(Refusal::MalformedList("missing data fields".into())),
            Some(_) if path.is_empty() => Err(Refusal::MalformedList("missing path".into())),
            Some(body) => kv1::write(context, own, path, &body).await,
        },
        Operation::Delete => kv1::delete(context, own, path).await,
        _ => Err(Refusal::UnsupportedOperation),
    }
}
