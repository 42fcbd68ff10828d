//! A refusal as a problem document (RFC 9457).

use keyward_model::Id;
use serde_json::{Value, json};

use crate::http::answer::{Answer, Form};
use crate::refusal::{Detail, Problem, Refusal};

/// Milliseconds after which a refused request may be sent again, where the refusal does not say.
const RETRY_AFTER_MS: u64 = 1000;

/// The document for a refusal: constants, the request's id, and nothing of what was sent or stored. `presented` says
/// whether the request brought a token.
pub fn problem(request: Id, presented: bool, refusal: &Refusal) -> Answer {
    let problem = match refusal {
        Refusal::Unauthenticated if !presented => Problem::UNAUTHENTICATED,
        other => other.problem(),
    };
    let mut body = json!({
        "type": format!("urn:keyward:error:{}", problem.code),
        "title": problem.title,
        "status": problem.status,
        "code": problem.code,
        "request_id": request.to_uuid(),
        "retryable": problem.retryable,
    });
    match refusal {
        Refusal::Explained(_, Detail::Text(text)) => body["detail"] = json!(text),
        Refusal::Explained(_, Detail::Actual(actual)) => body["actual"] = json!(actual),
        // Constants of the server; among them that it is not known whether a write was done.
        Refusal::Unavailable(text) => body["detail"] = json!(text),
        Refusal::TooMany(seconds) => body["retry_after_ms"] = json!(seconds.saturating_mul(1000)),
        _ => {}
    }
    if matches!(problem.status, 429 | 503) && body["retry_after_ms"] == Value::Null {
        body["retry_after_ms"] = json!(RETRY_AFTER_MS);
    }
    let challenge = match problem.status {
        401 if presented => Some("Bearer error=\"invalid_token\""),
        401 => Some("Bearer"),
        _ => None,
    };
    let mut text = body.to_string().into_bytes();
    text.push(b'\n');
    Answer { status: problem.status, form: Form::Problem(text, challenge) }
}
