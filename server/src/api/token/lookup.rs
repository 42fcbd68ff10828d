//! What is known of a token.

use std::sync::Arc;

use keyward_model::event::EventKind;
use keyward_model::{Table, Timestamp};
use serde_json::{Map, Value, json};

use super::{ACCESSOR, TOKEN, by_accessor, token_parameter};
use crate::api::Context;
use crate::authn::token::{self, Token, TokenKind};
use crate::barrier::{open, storage};
use crate::http::answer::Answer;
use crate::http::fields::Field;
use crate::refusal::Refusal;

/// Rows that a listing of accessors reads at a time.
const PAGE_ROWS: usize = 1024;

/// The token in the parameters, or the caller's own where none is given.
pub(super) fn lookup(context: &Context<'_>) -> Result<Answer, Refusal> {
    let Some(given) = token_parameter(context)? else { return own(context) };
    let key = token::key_of(&*context.keys()?, given.expose());
    let own = context.session()?;
    // One's own token is found also on its last use, when nobody else finds it any more.
    let session = if own.key == key { Some(own.clone()) } else { context.worker.session_by_key(&key)? };
    let session = session.ok_or(Refusal::Forbidden("bad token".into()))?;
    answer(context, &session.token, given.expose(), &[TOKEN])
}

/// The caller's own token, whatever is given.
pub(super) fn lookup_self(context: &Context<'_>) -> Result<Answer, Refusal> {
    own(context)
}

/// The token behind an accessor; the token itself is not told.
pub(super) fn lookup_accessor(context: &Context<'_>) -> Result<Answer, Refusal> {
    let own = context.session()?;
    // As above: one's own token is found also on its last use.
    let is_own = context.params.string("accessor")?.is_some_and(|given| given == own.token.accessor);
    let found = if is_own { Some(Arc::clone(own)) } else { by_accessor(context)? };
    let session = found.ok_or(Refusal::MalformedList("invalid accessor".into()))?;
    answer(context, &session.token, "", &[ACCESSOR])
}

/// The accessors of all tokens, in order.
pub(super) fn accessors(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.set(EventKind::Listed, "list", "token"));
    let keys = context.keys()?;
    let now = context.worker.app.barrier.judged_at();
    let mut accessors = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = context.reader().scan(Table::Tokens, after.as_deref(), PAGE_ROWS).map_err(storage)?;
        let Some(last) = rows.last() else { break };
        after = Some(last.key.clone());
        for row in rows {
            let token = token::decode(&open(&keys, Table::Tokens, &row)?)?;
            if !token.is_expired(now) && token.uses >= 0 {
                accessors.push(token.accessor);
            }
        }
    }
    accessors.sort_unstable();
    if accessors.is_empty() {
        return Err(Refusal::Absent);
    }
    Ok(context.with_parameter_warnings(Answer::data(&json!({ "keys": accessors })), &[]))
}

fn own(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.params.check(&[TOKEN])?;
    let session = context.session()?;
    answer(context, &session.token, context.request.token().unwrap_or_default(), &[TOKEN])
}

fn answer(context: &Context<'_>, token: &Token, shown: &str, fields: &[Field]) -> Result<Answer, Refusal> {
    context.note(|facts| facts.set(EventKind::TokenRead, "read", "token"));
    let data = describe(token, shown, context.worker.app.barrier.judged_at());
    Ok(context.with_parameter_warnings(Answer::data(&data), fields))
}

/// The members of a look-up.
fn describe(token: &Token, shown: &str, now: Timestamp) -> Value {
    let kind = match token.kind {
        TokenKind::Service | TokenKind::Wrapping => "service",
    };
    let data = json!({
        "accessor": token.accessor,
        "creation_time": token.created.seconds(),
        "creation_ttl": token.creation_ttl_s,
        "display_name": token.display_name,
        "entity_id": "",
        "expire_time": token.expires.map(Timestamp::rfc3339),
        "explicit_max_ttl": token.explicit_max_ttl_s,
        "id": shown,
        "meta": token.meta,
        "num_uses": token.uses,
        "orphan": token.orphan,
        "path": token.path,
        "policies": token.policies,
        "renewable": token.renewable,
        "ttl": token.ttl_left_s(now),
        "type": kind,
    });
    let mut extra = Map::new();
    if let Some(issued) = token.issued {
        extra.insert("issue_time".into(), issued.rfc3339().into());
    }
    if let Some(renewed) = token.renewed {
        extra.insert("last_renewal".into(), renewed.rfc3339().into());
        extra.insert("last_renewal_time".into(), renewed.seconds().into());
    }
    if token.period_s > 0 {
        extra.insert("period".into(), token.period_s.into());
    }
    match data {
        Value::Object(mut members) => {
            members.extend(extra);
            Value::Object(members)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use keyward_model::SeededEntropy;

    use super::*;

    #[test]
    fn members_that_come_and_go() {
        let born = Timestamp(1_700_000_000_123_456_789);
        let policies = vec!["root".into()];
        let mut token = Token::new(TokenKind::Service, "auth/token/root", policies, born, &SeededEntropy::new(1));
        let root = describe(&token, "t", born);
        assert_eq!((&root["ttl"], &root["expire_time"], &root["meta"]), (&json!(0), &Value::Null, &Value::Null));
        assert_eq!(root["renewable"], json!(false));
        for absent in ["issue_time", "last_renewal", "last_renewal_time", "period"] {
            assert!(root.get(absent).is_none(), "{absent}");
        }
        token.issued = Some(born);
        token.renewed = Some(born.plus_seconds(5));
        token.expires = Some(born.plus_seconds(60));
        token.period_s = 60;
        let child = describe(&token, "", born.plus_seconds(10));
        assert_eq!(child["ttl"], json!(50));
        assert_eq!(child["issue_time"], json!("2023-11-14T22:13:20.123456789Z"));
        assert_eq!(child["last_renewal_time"], json!(1_700_000_005));
        assert_eq!(child["period"], json!(60));
    }
}
