//! More time for a token.

use keyward_model::event::EventKind;

use super::{ACCESSOR, TOKEN, auth, by_accessor, token_parameter};
use crate::api::Context;
use crate::authn::token::ttl::{self, Bounds, SECOND};
use crate::authn::token::{self, Token};
use crate::http::answer::Answer;
use crate::http::fields::Field;
use crate::refusal::Refusal;

const INCREMENT: Field = Field::duration("increment");

/// What a caller learns if there is no such token, or it cannot be renewed.
struct Texts {
    unknown: Refusal,
    fixed: Refusal,
}

/// The token in the parameters.
pub(super) async fn renew(context: &Context<'_>) -> Result<Answer, Refusal> {
    let given = token_parameter(context)?.ok_or(Refusal::malformed("missing token ID"))?;
    let key = token::key_of(&*context.keys()?, given.expose());
    if context.worker.session_by_key(&key)?.is_none() {
        return Err(Refusal::malformed("token not found"));
    }
    extend(context, &key, given.expose(), &[TOKEN, INCREMENT], &Texts::by_token()).await
}

/// The caller's own token, whatever is given.
pub(super) async fn renew_self(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.params.check(&[TOKEN, INCREMENT])?;
    let own = context.request.token().unwrap_or_default();
    extend(context, &context.session()?.key, own, &[TOKEN, INCREMENT], &Texts::by_token()).await
}

/// The token behind an accessor; the token itself is not told.
pub(super) async fn renew_accessor(context: &Context<'_>) -> Result<Answer, Refusal> {
    let texts = Texts {
        unknown: Refusal::MalformedList("invalid accessor".into()),
        fixed: Refusal::MalformedList("invalid request".into()),
    };
    let session = by_accessor(context)?.ok_or_else(|| texts.unknown.clone())?;
    extend(context, &session.key, "", &[ACCESSOR, INCREMENT], &texts).await
}

impl Texts {
    fn by_token() -> Self {
        Self { unknown: Refusal::malformed("token not found"), fixed: Refusal::malformed("lease is not renewable") }
    }
}

async fn extend(
    context: &Context<'_>,
    key: &[u8; 32],
    shown: &str,
    fields: &[Field],
    texts: &Texts,
) -> Result<Answer, Refusal> {
    let increment = context.params.duration("increment")?.unwrap_or(0).saturating_mul(SECOND);
    let mount = context.mount()?;
    context.note(|facts| facts.set(EventKind::TokenRenewed, "renew", "token"));
    let (token, warning) = context
        .write(|draft| {
            let now = draft.now();
            let Some((mut token, parent)) = token::get(draft, key)? else { return Err(texts.unknown.clone()) };
            if token.uses < 0 || token.is_expired(now) {
                return Err(texts.unknown.clone()); // on its last use it is as good as gone
            }
            if !token.renewable {
                return Err(texts.fixed.clone());
            }
            let bounds = bounds(&token, mount.default_lease(), mount.max_lease());
            let wanted = if increment > 0 { increment } else { token.ttl_s.saturating_mul(SECOND) };
            let born = token.issued.unwrap_or(token.created);
            let granted = ttl::grant(&bounds, wanted, born, now)
                .ok_or(Refusal::MalformedList("past the max TTL, cannot renew".into()))?;
            token.ttl_s = ttl::seconds(granted.ttl);
            token.expires = Some(ttl::end(granted.ttl, bounds.explicit_max, born, now));
            token.renewed = Some(now);
            token::put(draft, key, &token, &parent)?;
            Ok((token, granted.warning))
        })
        .await?;
    let mut answer = Answer::auth(auth(&token, shown, token.ttl_s));
    if let Some(warning) = warning {
        answer.warn(warning);
    }
    Ok(context.with_parameter_warnings(answer, fields))
}

fn bounds(token: &Token, default_s: i64, max_s: i64) -> Bounds {
    Bounds {
        default: default_s.saturating_mul(SECOND),
        max: max_s.saturating_mul(SECOND),
        explicit_max: token.explicit_max_ttl_s.saturating_mul(SECOND),
        period: token.period_s.saturating_mul(SECOND),
    }
}
