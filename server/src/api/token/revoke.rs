//! The end of a token.

use keyward_model::event::EventKind;

use super::{ACCESSOR, by_accessor, token_parameter};
use crate::api::Context;
use crate::authn::token;
use crate::barrier::Draft;
use crate::http::answer::Answer;
use crate::jobs::reaper;
use crate::refusal::Refusal;

/// How far a revocation reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// The token and all that descends from it.
    Family,
    /// The token alone: its children become orphans.
    Alone,
}

/// The token in the parameters.
pub(super) async fn revoke(context: &Context<'_>, reach: Reach) -> Result<Answer, Refusal> {
    let given = token_parameter(context)?.ok_or(Refusal::malformed("missing token ID"))?;
    let key = token::key_of(&*context.keys()?, given.expose());
    match reach {
        Reach::Family => end(context, &key).await,
        Reach::Alone if !context.permit.sudo() => {
            Err(Refusal::malformed("root or sudo privileges required to revoke and orphan"))
        }
        Reach::Alone => end_alone(context, &key).await,
    }
}

/// The caller's own token, whatever is given.
pub(super) async fn revoke_self(context: &Context<'_>) -> Result<Answer, Refusal> {
    end(context, &context.session()?.key).await
}

/// The token behind an accessor.
pub(super) async fn revoke_accessor(context: &Context<'_>) -> Result<Answer, Refusal> {
    let Some(session) = by_accessor(context)? else {
        let answer = Answer::warned(vec!["No token found with this accessor".into()]);
        return Ok(context.with_parameter_warnings(answer, &[ACCESSOR]));
    };
    end(context, &session.key).await
}

/// Removes what has expired, now. The answer is that of Vault, which only begins with it.
pub(super) async fn tidy(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.set(EventKind::SysConfig, "administer", "token"));
    while reaper::reap(context.worker, reaper::REAP_ROWS_MAX).await? > 0 {}
    let mut answer = Answer::warned(vec![
        "Tidy operation successfully started. Any information from the operation will be printed to OpenBao's server logs."
            .into(),
    ]);
    answer.status = 202;
    Ok(context.with_parameter_warnings(answer, &[]))
}

async fn end(context: &Context<'_>, key: &[u8; 32]) -> Result<Answer, Refusal> {
    context.note(|facts| facts.set(EventKind::TokenRevoked, "revoke", "token"));
    context.write_answer(|draft| token::revoke_tree(draft, key), |()| Ok(Answer::no_content())).await
}

/// Makes orphans of the children, in as many commands as it takes, and removes the token in the last of them.
async fn end_alone(context: &Context<'_>, key: &[u8; 32]) -> Result<Answer, Refusal> {
    context.note(|facts| facts.set(EventKind::TokenRevoked, "revoke", "token"));
    if context.worker.session_by_key(key)?.is_none() {
        return Err(Refusal::malformed("token to revoke not found"));
    }
    while !context.write_piece(|draft| token::adopt(draft, key)).await? {}
    let end = |draft: &mut Draft<'_>| {
        if !token::adopt(draft, key)? {
            return Err(Refusal::Unavailable("the token got many children meanwhile; try again".into()));
        }
        token::revoke_tree(draft, key)
    };
    context.write_answer(end, |()| Ok(Answer::no_content())).await
}
