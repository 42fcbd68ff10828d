//! Response wrapping: an answer is kept sealed, and a token that opens it once goes out in its place.

use std::time::Duration;

use keyward_model::event::EventKind;
use keyward_model::{Secret, Table, Timestamp};
use keyward_policy::Operation;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Context;
use crate::app::Worker;
use crate::authn::token::{self, Token, TokenKind};
use crate::barrier::{Columns, Draft};
use crate::http::answer::{Answer, Envelope, Form};
use crate::http::fields::{Field, Input, Params};
use crate::http::json::Kind;
use crate::http::request::Request;
use crate::pep::Door;
use crate::record::Facts;
use crate::refusal::Refusal;

const FIELDS: [Field; 1] = [Field::text("token")];

/// A wrapped answer, as kept in its row under the key of its token.
#[derive(Serialize, Deserialize)]
struct Wrapped {
    status: u16,
    path: String,
    created: Timestamp,
    ttl_s: i64,
    ttl_nanos: i64,
    accessor_inside: Option<String>,
    body: String,
}

/// Wraps an answer if the request asks for it and the answer can be: errors, 204 and bare answers cannot.
///
/// # Errors
/// The wrapping cannot be written.
pub async fn wrap_if_asked(context: &Context<'_>, mut answer: Answer) -> Result<Answer, Refusal> {
    let Some(nanos) = asked(context) else { return Ok(answer) };
    let Form::Envelope(envelope) = &mut answer.form else { return Ok(answer) };
    if context.permit.door() == Door::Open || envelope.wrap_info.is_some() {
        return Ok(answer);
    }
    envelope.injected = false;
    let inside = envelope.auth.as_ref().and_then(|auth| auth["accessor"].as_str()).map(str::to_owned);
    let body =
        String::from_utf8(answer.body(context.request.id)).map_err(|_| Refusal::internal("an answer is not UTF-8"))?;
    let body = body.trim_end_matches('\n').to_owned();
    let path = context.request.path.clone();
    context.note(|facts| facts.set(EventKind::WrapIssued, "", "wrapping"));
    issue(context, Sealing { status: answer.status, body, path, nanos, inside }, None).await
}

/// The time in nanoseconds for which the request wants its answer wrapped.
fn asked(context: &Context<'_>) -> Option<i64> {
    context.request.wrap_ttl.map(|ttl| i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX))
}

/// What is to be wrapped.
struct Sealing {
    status: u16,
    body: String,
    path: String,
    nanos: i64,
    inside: Option<String>,
}

/// Issues a wrapping token; `spent` is one that goes in the same command.
async fn issue(context: &Context<'_>, sealing: Sealing, spent: Option<[u8; 32]>) -> Result<Answer, Refusal> {
    let entropy = context.worker.app.barrier.entropy();
    let text = token::fresh(entropy);
    let ttl_s = sealing.nanos / 1_000_000_000;
    let (accessor, created) = context
        .write(|draft| {
            if let Some(spent) = &spent {
                if draft.get(Table::Wrapped, spent)?.is_none() {
                    return Err(not_valid());
                }
                token::revoke_one(draft, spent)?;
            }
            let now = draft.now();
            let expires = Timestamp(now.0.saturating_add(sealing.nanos));
            let policies = vec!["response-wrapping".into()];
            let token = Token {
                display_name: String::new(),
                issued: Some(now),
                creation_ttl_s: ttl_s,
                ttl_s,
                expires: Some(expires),
                explicit_max_ttl_s: ttl_s,
                uses: 1,
                uses_made: 1,
                ..Token::new(TokenKind::Wrapping, &sealing.path, policies, now, draft.entropy())
            };
            let key = token::key_of(draft.keyring(), text.expose());
            token::put(draft, &key, &token, b"")?;
            let wrapped = Wrapped {
                status: sealing.status,
                path: sealing.path.clone(),
                created: now,
                ttl_s,
                ttl_nanos: sealing.nanos,
                accessor_inside: sealing.inside.clone(),
                body: sealing.body.clone(),
            };
            let body = Secret::new(serde_json::to_vec(&wrapped).map_err(|e| Refusal::internal(e.to_string()))?);
            draft.put(Table::Wrapped, &key, Columns { due: Some(expires.0), ..Columns::default() }, body.expose())?;
            Ok((token.accessor, now))
        })
        .await?;
    let mut info = json!({
        "token": text.expose(),
        "accessor": accessor,
        "ttl": ttl_s,
        "creation_time": created.rfc3339(),
        "creation_path": sealing.path,
    });
    if let Some(inside) = &sealing.inside {
        info["wrapped_accessor"] = json!(inside);
    }
    Ok(Answer { status: 200, form: Form::Envelope(Envelope { wrap_info: Some(info), ..Envelope::default() }) })
}

fn not_valid() -> Refusal {
    Refusal::malformed("wrapping token is not valid or does not exist")
}

/// Answers below `sys/wrapping/`.
///
/// # Errors
/// No such path or verb; a token that wraps nothing.
pub async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    let update = matches!(context.request.operation, Operation::Create | Operation::Update);
    match context.rest() {
        "wrapping/wrap" if update => wrap(context),
        "wrapping/lookup" if update || context.request.operation == Operation::Read => lookup(context),
        "wrapping/unwrap" if update => unwrap(context).await,
        "wrapping/rewrap" if update => rewrap(context).await,
        "wrapping/lookup" => Err(Refusal::UnsupportedOperationOpen),
        "wrapping/wrap" | "wrapping/unwrap" | "wrapping/rewrap" => Err(Refusal::UnsupportedOperation),
        _ => Err(Refusal::UnsupportedPath),
    }
}

/// Gives the body back, for the PEP to wrap.
fn wrap(context: &Context<'_>) -> Result<Answer, Refusal> {
    if context.request.wrap_ttl.is_none_or(|ttl| ttl == Duration::ZERO) {
        return Err(Refusal::malformed("endpoint requires response wrapping to be used"));
    }
    Ok(Answer::json(super::kv1::body(context).unwrap_or_else(|| "{}".to_owned()).into_bytes()))
}

/// What the record of a request about a wrapping token says.
pub fn describe(request: &Request, facts: &mut Facts) {
    let kind = match (request.path.as_str(), request.operation) {
        ("sys/wrapping/lookup", Operation::Read | Operation::Update) => EventKind::WrapRead,
        ("sys/wrapping/unwrap", Operation::Update) => EventKind::WrapConsumed,
        ("sys/wrapping/rewrap", Operation::Update) => EventKind::WrapIssued,
        _ => return,
    };
    facts.set(kind, "", "wrapping");
}

/// Whether the token that is meant is the caller's own.
pub fn is_own(request: &Request, params: &Params<'_>) -> bool {
    match params.string("token") {
        Ok(Some(token)) => Some(token.as_ref()) == request.token(),
        _ => true,
    }
}

/// Whether the token that is meant, in the parameters or the caller's, wraps something: looked at before the caller's token.
///
/// # Errors
/// It does not, or is none.
pub fn check(worker: &Worker, request: &Request, params: &Params<'_>) -> Result<(), Refusal> {
    let faulty = |why: &str| Refusal::Forbidden(format!("error validating wrapping token: {why}").into());
    let given = match params.get("token") {
        Some(Input::Json(raw)) if raw.kind() == Kind::Null => None,
        Some(Input::Json(raw)) if raw.kind() == Kind::String => Some(raw.string().unwrap_or_default().into_owned()),
        Some(Input::Query([one])) => Some(one.clone()),
        Some(_) => return Err(faulty("could not decode token in request body")),
        None => None,
    };
    let text = match given.map(Secret::new) {
        Some(text) if text.expose().is_empty() => return Err(faulty("empty token in request body")),
        Some(text) => text,
        None => Secret::new(request.token().ok_or_else(|| faulty("token is empty"))?.to_owned()),
    };
    let wraps = |text: &str| -> Result<bool, Refusal> {
        Ok(worker.session(text)?.is_some_and(|session| session.token.kind == TokenKind::Wrapping))
    };
    if wraps(text.expose())? {
        return Ok(());
    }
    // One with an id may have done it before, and shall hear that; but a wrapping token that calls keeps its one use.
    let repeats = request.callers_id.is_some() && !request.token().map(wraps).transpose()?.unwrap_or(false);
    if repeats { Ok(()) } else { Err(not_valid()) }
}

/// The wrapping token that is meant: of the body, else the one that was presented.
fn meant(context: &Context<'_>) -> Result<Secret<String>, Refusal> {
    let given = context.params.string("token")?.filter(|token| !token.is_empty());
    let text = match given {
        Some(token) => token.into_owned(),
        None => context
            .request
            .token()
            .ok_or_else(|| Refusal::Forbidden("error validating wrapping token: token is empty".into()))?
            .to_owned(),
    };
    Ok(Secret::new(text))
}

fn content(context: &Context<'_>, key: &[u8; 32]) -> Result<Wrapped, Refusal> {
    // A wrapping token that calls for itself is on its last use, when nobody else finds it any more.
    let own = context.permit.session().filter(|own| own.key == *key).cloned();
    let session = match own {
        Some(own) => own,
        None => context.worker.session_by_key(key)?.ok_or_else(not_valid)?,
    };
    if session.token.kind != TokenKind::Wrapping {
        return Err(not_valid());
    }
    let opened = context.worker.app.barrier.read(context.reader(), Table::Wrapped, key)?.ok_or_else(not_valid)?;
    decode(opened.body.expose())
}

fn decode(body: &[u8]) -> Result<Wrapped, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::damaged("wrapped row", error))
}

fn lookup(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.params.check(&FIELDS)?;
    let key = token::key_of(&*context.keys()?, meant(context)?.expose());
    let wrapped = content(context, &key)?;
    let answer = Answer::data(&json!({
        "creation_path": wrapped.path,
        "creation_time": wrapped.created.rfc3339(),
        "creation_ttl": wrapped.ttl_s,
    }));
    Ok(context.with_parameter_warnings(answer, &FIELDS))
}

/// Takes the content out and ends the token, in one command: exactly one caller gets it. Where the request wants that wrapped,
/// it goes into another wrapping.
async fn unwrap(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.set(EventKind::WrapConsumed, "", "wrapping"));
    let keys = context.keys()?;
    let key = token::key_of(&keys, meant(context)?.expose());
    let found = content(context, &key)?;
    let Some(nanos) = asked(context) else { return raw(consume(context, key).await?) };
    let path = context.request.path.clone();
    let Wrapped { status, body, accessor_inside: inside, .. } = found;
    issue(context, Sealing { status, body, path, nanos, inside }, Some(key)).await
}

async fn consume(context: &Context<'_>, key: [u8; 32]) -> Result<Wrapped, Refusal> {
    context
        .write(|draft| {
            let opened = draft.get(Table::Wrapped, &key)?.ok_or_else(not_valid)?;
            token::revoke_one(draft, &key)?;
            decode(opened.body.expose())
        })
        .await
}

/// The kept answer as it was, down to its request id.
fn raw(wrapped: Wrapped) -> Result<Answer, Refusal> {
    Ok(Answer { status: wrapped.status, form: Form::Bare(wrapped.body.into_bytes()) })
}

async fn rewrap(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.set(EventKind::WrapIssued, "", "wrapping"));
    let key = token::key_of(&*context.keys()?, meant(context)?.expose());
    let wrapped = content(context, &key)?;
    let nanos = asked(context).map_or(wrapped.ttl_nanos, |asked| asked.min(wrapped.ttl_nanos));
    let sealing = Sealing {
        status: wrapped.status,
        body: wrapped.body,
        path: wrapped.path,
        nanos,
        inside: wrapped.accessor_inside,
    };
    issue(context, sealing, Some(key)).await
}

/// Whether the caller presents a wrapping token.
pub fn is_wrapping(context: &Context<'_>) -> bool {
    context.permit.session().is_some_and(|session| session.token.kind == TokenKind::Wrapping)
}

/// `GET cubbyhole/response` with the wrapping token: the content as a text, for old clients. The PEP has taken the
/// token's one use and ends it afterwards.
///
/// # Errors
/// There is no content.
pub async fn old_way(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.set(EventKind::WrapConsumed, "", "wrapping"));
    let key = context.session()?.key;
    let wrapped = context
        .write(|draft: &mut Draft<'_>| {
            let opened = draft.get(Table::Wrapped, &key)?.ok_or(Refusal::Absent)?;
            draft.remove(Table::Wrapped, &key)?;
            decode(opened.body.expose())
        })
        .await?;
    let mut answer = Answer::data(&json!({ "response": wrapped.body }));
    answer.warn(
        "Reading from 'cubbyhole/response' is deprecated. Please use sys/wrapping/unwrap to unwrap responses, as it provides additional security checks and other benefits."
            .into(),
    );
    Ok(answer)
}

#[cfg(test)]
mod tests;
