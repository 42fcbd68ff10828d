//! Why a request is not answered, and the one place that knows status codes.
//!
//! Every refusal goes through [`Refusal::parts`]: the status, the body that the caller learns, and the code that the
//! audit record carries. Texts of the compatible face are those of Vault's API; nothing internal reaches a caller.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::http::fields::FieldError;
use crate::repeat::Done;

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// The input is wrong: 400 with this text.
    Malformed(Cow<'static, str>),
    /// The input is wrong, said the way Vault wraps an error of a handler: 400 with `1 error occurred: …`.
    MalformedList(Cow<'static, str>),
    /// What is meant is not named: 500 with this text, as Vault says it, though it is the caller's mistake.
    Unnamed(&'static str),
    /// 400 without a text.
    MalformedSilent,
    /// No token, or none that is valid: 403, whether or not the thing exists.
    Unauthenticated,
    /// A valid token that may not do this: 403, whether or not the thing exists.
    Denied,
    /// 403 with a text that clients look for.
    Forbidden(Cow<'static, str>),
    /// There is nothing there: 404, only to one who may read there.
    Absent,
    /// 404 with a text.
    AbsentBecause(Cow<'static, str>),
    /// 404 with an empty body: a patch of a key that does not exist.
    AbsentSilent,
    /// No mount at this path: 404.
    NoRoute(String),
    /// The mount has no such path: 404.
    UnsupportedPath,
    /// The path has no such verb: 405.
    UnsupportedOperation,
    /// The same, as Vault says it of a path that takes no token: 405 with the bare text.
    UnsupportedOperationOpen,
    /// Not a verb of this API: 405, before any token is looked at.
    UnknownVerb,
    /// PATCH with a content type other than merge-patch: 415.
    MediaType(String),
    /// Over the body limit: 413.
    TooLarge,
    /// Within the body limit, yet larger than what one entry of the log takes: 413 with both sizes.
    EntryTooLarge {
        /// Bytes of the write.
        bytes: usize,
        /// Bytes that fit.
        bytes_max: usize,
    },
    /// Over the rate of this source: 429; seconds until the next try.
    TooMany(u64),
    /// The server is sealed or not initialised: 503.
    Sealed,
    /// For now it cannot be done: 503. The text says what is the matter and whether to try again.
    Unavailable(Cow<'static, str>),
    /// This node does not lead, and nothing was changed: 503, unless the leader is asked instead.
    NotLeader,
    /// It was begun, and whether it was done is not known: 503.
    OutcomeUnknown,
    /// It came with the id of a write that was done: 409, where that one's answer was not kept.
    Repeated(Box<Done>),
    /// An audit record could not be written, so nothing was done: 503.
    AuditUnavailable,
    /// A defect of ours or damaged data: 500 with a constant text, on the native face also the request's id. The detail goes
    /// to the log under that id, and must quote no value.
    Internal(Cow<'static, str>),
    /// Native face: a typed problem by its code in the registry.
    Problem(Problem),
    /// The same, with what helps the caller to do better.
    Explained(Problem, Detail),
}

/// What a problem document says beside its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Constant text: nothing of the request or of the data is ever in it.
    Text(&'static str),
    /// Where the alias points, for a caller who may read the secret's metadata.
    Actual(Option<u64>),
}

/// The typed problems of the native face that this server can answer: code, status, title, worth a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    /// Stable code.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// One constant sentence per code.
    pub title: &'static str,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

macro_rules! problems {
    ($($name:ident, $code:literal, $status:literal, $retry:literal, $title:literal;)*) => {
        impl Problem {
            $(#[doc = $title] pub const $name: Self = Self { code: $code, status: $status, title: $title, retryable: $retry };)*
            /// Every problem, for the reference page and its test.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

problems! {
    MALFORMED_JSON, "MALFORMED_JSON", 400, false, "The body is not valid JSON";
    DUPLICATE_JSON_KEY, "DUPLICATE_JSON_KEY", 400, false, "A member name stands twice in one object";
    UNKNOWN_FIELD, "UNKNOWN_FIELD", 400, false, "The request has a member or parameter that this endpoint does not know";
    INVALID_FIELD, "INVALID_FIELD", 400, false, "A member of the body or a parameter has a wrong value";
    MALFORMED_URI, "MALFORMED_URI", 400, false, "The secret URI is not well formed";
    URI_TOO_LONG, "URI_TOO_LONG", 400, false, "The secret URI is over 1024 octets";
    SEGMENT_TOO_LONG, "SEGMENT_TOO_LONG", 400, false, "The mount is over 63 or a segment over 128 octets";
    TOO_MANY_SEGMENTS, "TOO_MANY_SEGMENTS", 400, false, "The path has more than 16 segments";
    ILLEGAL_CHARACTER, "ILLEGAL_CHARACTER", 400, false, "The path has a character that no secret URI has";
    NON_ASCII, "NON_ASCII", 400, false, "The path has a character outside of ASCII";
    ILLEGAL_ENCODING, "ILLEGAL_ENCODING", 400, false, "The path has a percent escape that is broken or not needed";
    ILLEGAL_SEGMENT, "ILLEGAL_SEGMENT", 400, false, "The path has a segment that is empty, relative or holds a slash";
    ILLEGAL_FRAGMENT, "ILLEGAL_FRAGMENT", 400, false, "The URI names a key where none may stand, or a wrong one";
    SCHEME_NOT_LOWERCASE, "SCHEME_NOT_LOWERCASE", 400, false, "The scheme of the URI has capital letters";
    UNSUPPORTED_SCHEME, "UNSUPPORTED_SCHEME", 400, false, "The URI names a provider that this server does not have";
    UNSUPPORTED_ENGINE, "UNSUPPORTED_ENGINE", 400, false, "The URI names no engine, or one that the provider does not have";
    AMBIGUOUS_MOUNT, "AMBIGUOUS_MOUNT", 400, false, "The URI has no mount, or nothing after it";
    AMBIGUOUS_QUERY, "AMBIGUOUS_QUERY", 400, false, "A parameter stands twice, is malformed, or stands where none may";
    INVALID_WILDCARD, "INVALID_WILDCARD", 400, false, "A wildcard stands where none may";
    TRAILING_SLASH_MISMATCH, "PROVIDER_TRAILING_SLASH_MISMATCH", 400, false, "A prefix ends with a slash, a secret does not";
    INVALID_VERSION, "INVALID_VERSION", 400, false, "A version is a number from 1 to 4294967295";
    INVALID_ALIAS, "INVALID_ALIAS", 400, false, "An alias is 1 to 32 of a-z, 0-9 and -, begins with a letter, does not end with -, and is not latest";
    VERSION_ALIAS_CONFLICT, "VERSION_ALIAS_CONFLICT", 400, false, "Both a version and an alias are given";
    RESERVED_MOUNT, "RESERVED_MOUNT", 403, false, "The mount is the system's own";
    UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", 415, false, "The body has another content type than the endpoint takes";
    PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", 413, false, "The body is over the limit";
    UNAUTHENTICATED, "UNAUTHENTICATED", 401, false, "No credential was presented";
    INVALID_TOKEN, "INVALID_TOKEN", 401, false, "The token is not valid";
    ACCESS_DENIED, "ACCESS_DENIED", 403, false, "Policy does not permit this";
    SECRET_NOT_FOUND, "SECRET_NOT_FOUND", 404, false, "There is no such secret";
    SECRET_VERSION_NOT_FOUND, "SECRET_VERSION_NOT_FOUND", 404, false, "The secret has no such version";
    SECRET_KEY_NOT_FOUND, "SECRET_KEY_NOT_FOUND", 404, false, "The version has no such key";
    SECRET_VERSION_DELETED, "SECRET_VERSION_DELETED", 410, false, "The version is deleted";
    SECRET_VERSION_DISABLED, "SECRET_VERSION_DISABLED", 410, false, "The version is disabled";
    SECRET_VERSION_DESTROYED, "SECRET_VERSION_DESTROYED", 410, false, "The version is destroyed";
    CAS_MISMATCH, "CAS_MISMATCH", 409, true, "The secret changed since it was read";
    ALIAS_CAS_MISMATCH, "ALIAS_CAS_MISMATCH", 409, true, "The alias points to another version than expected";
    VERSION_STATE_CONFLICT, "VERSION_STATE_CONFLICT", 409, true, "The version's status does not allow this";
    ALREADY_DONE, "ALREADY_DONE", 409, false, "The request was taken before, and its answer is not kept";
    ID_REUSED, "IDEMPOTENCY_KEY_REUSED", 422, false, "The Idempotency-Key stands for another request of this caller";
    ALIAS_RESERVED, "ALIAS_RESERVED", 400, false, "This alias is kept by the system";
    METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", 405, false, "The endpoint does not answer to this method";
    RATE_LIMITED, "RATE_LIMITED", 429, true, "Too many requests from this source";
    SEALED, "SEALED", 503, true, "The server is sealed";
    AUDIT_UNAVAILABLE, "AUDIT_UNAVAILABLE", 503, true, "The audit record could not be written, so nothing was done";
    UNAVAILABLE, "UNAVAILABLE", 503, true, "The server cannot do this now";
    INTERNAL, "INTERNAL", 500, false, "An error of the server; the log has the detail under this request id";
}

/// What becomes of a refusal on the wire and in the audit record.
#[derive(Debug, PartialEq)]
pub struct Parts {
    /// HTTP status.
    pub status: u16,
    /// JSON body; `None` for an empty one.
    pub body: Option<Value>,
    /// Code in the audit record.
    pub code: &'static str,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u64>,
}

const UNKNOWN: &str = "it is not known whether this was done: read before you try again, or send it again with the \
                       Idempotency-Key that it came with";

/// Renders one error as Vault renders an error of a handler.
pub fn multierror(text: &str) -> String {
    format!("1 error occurred:\n\t* {text}\n\n")
}

impl Refusal {
    /// 400 with this text.
    pub fn malformed(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed(text.into())
    }

    /// 500; `detail` goes to the log only, and quotes no value.
    pub fn internal(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Internal(detail.into())
    }

    /// 500: a row or kept answer is not what we write. Of serde's error only the place goes to the log, since its text may
    /// quote the value that it found.
    #[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
    pub fn damaged(what: &str, error: serde_json::Error) -> Self {
        Self::internal(format!("{what} does not decode, from byte {} on", error.column()))
    }

    /// 503 for what stands below a mount that is closed for now.
    pub fn mount_closed() -> Self {
        Self::Unavailable("this mount is being changed and comes back in a moment; try again".into())
    }

    /// A typed problem with a constant text.
    pub fn explained(problem: Problem, text: &'static str) -> Self {
        Self::Explained(problem, Detail::Text(text))
    }

    /// The status, body and code of the compatible face.
    pub fn parts(&self) -> Parts {
        let errors = |status, code, texts: Vec<String>| Parts {
            status,
            body: Some(json!({ "errors": texts })),
            code,
            retry_after: None,
        };
        match self {
            Self::Malformed(text) => errors(400, "INVALID_FIELD", vec![text.to_string()]),
            Self::MalformedList(text) => errors(400, "INVALID_FIELD", vec![multierror(text)]),
            Self::Unnamed(text) => errors(500, "INVALID_FIELD", vec![multierror(text)]),
            Self::MalformedSilent => errors(400, "INVALID_FIELD", vec![]),
            Self::Unauthenticated => errors(403, "INVALID_TOKEN", vec!["permission denied".into()]),
            Self::Denied => errors(403, "ACCESS_DENIED", vec![multierror("permission denied")]),
            Self::Forbidden(text) => errors(403, "ACCESS_DENIED", vec![text.to_string()]),
            Self::Absent => errors(404, "SECRET_NOT_FOUND", vec![]),
            Self::AbsentBecause(text) => errors(404, "SECRET_NOT_FOUND", vec![text.to_string()]),
            Self::AbsentSilent => Parts { status: 404, body: None, code: "SECRET_NOT_FOUND", retry_after: None },
            Self::NoRoute(path) => {
                errors(404, "NO_ROUTE", vec![format!("no handler for route \"{path}\". route entry not found.")])
            }
            Self::UnsupportedPath => errors(404, "NO_ROUTE", vec![multierror("unsupported path")]),
            Self::UnsupportedOperation => errors(405, "METHOD_NOT_ALLOWED", vec![multierror("unsupported operation")]),
            Self::UnsupportedOperationOpen => errors(405, "METHOD_NOT_ALLOWED", vec!["unsupported operation".into()]),
            Self::UnknownVerb => errors(405, "METHOD_NOT_ALLOWED", vec![]),
            Self::MediaType(given) => errors(
                415,
                "UNSUPPORTED_MEDIA_TYPE",
                vec![format!("PATCH requires Content-Type of application/merge-patch+json, provided {given}")],
            ),
            Self::TooLarge => errors(413, "PAYLOAD_TOO_LARGE", vec!["http: request body too large".into()]),
            Self::EntryTooLarge { bytes, bytes_max } => errors(
                413,
                "PAYLOAD_TOO_LARGE",
                vec![multierror(&format!(
                    "put failed due to value being too large; got {bytes} bytes, max {bytes_max} bytes"
                ))],
            ),
            Self::TooMany(seconds) => Parts {
                retry_after: Some(*seconds),
                ..errors(429, "RATE_LIMITED", vec!["rate limit quota exceeded".into()])
            },
            Self::Sealed => errors(503, "SEALED", vec!["Vault is sealed".into()]),
            Self::Unavailable(text) => {
                Parts { retry_after: Some(1), ..errors(503, "UNAVAILABLE", vec![text.to_string()]) }
            }
            Self::NotLeader => {
                Self::Unavailable("no node leads at the moment: nothing was changed; try again".into()).parts()
            }
            Self::OutcomeUnknown => Self::Unavailable(UNKNOWN.into()).parts(),
            Self::Repeated(done) => errors(409, Problem::ALREADY_DONE.code, vec![done.told()]),
            Self::AuditUnavailable => Parts {
                retry_after: Some(1),
                ..errors(
                    503,
                    "AUDIT_UNAVAILABLE",
                    vec!["the audit record could not be written, so nothing was done; free disk space for the audit folder".into()],
                )
            },
            Self::Internal(_) => errors(500, "INTERNAL", vec![multierror("internal error")]),
            Self::Problem(problem) => Parts {
                status: problem.status,
                body: Some(json!({ "errors": [problem.title] })),
                code: problem.code,
                retry_after: None,
            },
            Self::Explained(problem, _) => Self::Problem(*problem).parts(),
        }
    }

    /// The typed problem of the native face.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Problem(problem) | Self::Explained(problem, _) => *problem,
            Self::Malformed(_) | Self::MalformedList(_) | Self::Unnamed(_) | Self::MalformedSilent => {
                Problem::INVALID_FIELD
            }
            Self::Unauthenticated => Problem::INVALID_TOKEN,
            Self::Denied | Self::Forbidden(_) => Problem::ACCESS_DENIED,
            Self::Absent | Self::AbsentBecause(_) | Self::AbsentSilent | Self::NoRoute(_) | Self::UnsupportedPath => {
                Problem::SECRET_NOT_FOUND
            }
            Self::UnsupportedOperation | Self::UnsupportedOperationOpen | Self::UnknownVerb => {
                Problem::METHOD_NOT_ALLOWED
            }
            Self::MediaType(_) => Problem::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge | Self::EntryTooLarge { .. } => Problem::PAYLOAD_TOO_LARGE,
            Self::TooMany(_) => Problem::RATE_LIMITED,
            Self::Sealed => Problem::SEALED,
            Self::Unavailable(_) | Self::NotLeader | Self::OutcomeUnknown => Problem::UNAVAILABLE,
            Self::Repeated(_) => Problem::ALREADY_DONE,
            Self::AuditUnavailable => Problem::AUDIT_UNAVAILABLE,
            Self::Internal(_) => Problem::INTERNAL,
        }
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::malformed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_never_carries_its_detail_to_the_caller() {
        let parts = Refusal::internal("row 7 of table secrets is damaged").parts();
        assert_eq!(parts.status, 500);
        assert!(!parts.body.unwrap().to_string().contains("row 7"));
    }

    #[test]
    fn a_damaged_row_is_not_quoted() {
        let error = serde_json::from_str::<u8>("\"hunter2\"").unwrap_err();
        assert!(error.to_string().contains("hunter2"));
        let Refusal::Internal(text) = Refusal::damaged("token row", error) else { unreachable!() };
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn denial_and_bad_token_differ_as_clients_expect() {
        assert_eq!(Refusal::Unauthenticated.parts().body, Some(json!({"errors": ["permission denied"]})));
        assert_eq!(
            Refusal::Denied.parts().body,
            Some(json!({"errors": ["1 error occurred:\n\t* permission denied\n\n"]}))
        );
    }

    #[test]
    fn every_problem_is_on_its_page() {
        let page = include_str!("../../docs/reference/errors.md");
        for Problem { code, status, title, retryable } in Problem::ALL {
            let again = if *retryable { "yes" } else { "no" };
            let row = format!("| `{code}` | {status} | {again} | {title}. |");
            assert!(page.contains(&row), "docs/reference/errors.md lacks: {row}");
        }
    }
}
