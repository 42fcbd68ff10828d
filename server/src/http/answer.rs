//! What goes back on the wire: the envelope of Vault's API, bare JSON, or nothing.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use keyward_model::Id;
use serde_json::Value;

use super::go_json;

/// The body type of every response.
pub type Body = Full<Bytes>;

/// An answer before it is released.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// What stands in it.
    pub form: Form,
}

/// The shapes an answer can have.
pub enum Form {
    /// The envelope with all its members.
    Envelope(Envelope),
    /// No body (204, and the empty 404 of a patch).
    Empty,
    /// JSON without the envelope, ready to send.
    Bare(Vec<u8>),
    /// A problem document of the native face; with a 401 what to authenticate with.
    Problem(Vec<u8>, Option<&'static str>),
    /// Not JSON: Prometheus text, a redirect's page.
    Text(&'static str, Vec<u8>),
    /// A redirect to this location, with a page for those who look.
    Redirect(String, Vec<u8>),
}

/// The members of the envelope that vary.
#[derive(Default)]
pub struct Envelope {
    /// `data` as JSON text; `None` is `null`.
    pub data: Option<Vec<u8>>,
    /// `auth`.
    pub auth: Option<Value>,
    /// `wrap_info`.
    pub wrap_info: Option<Value>,
    /// `warnings`; empty is `null`.
    pub warnings: Vec<String>,
    /// `lease_duration` in seconds.
    pub lease_duration: i64,
    /// Whether the members of `data` also stand at the top level (pre-0.10 clients read them there).
    pub injected: bool,
    /// Raw answers have no newline at the end and take no warnings about parameters.
    pub raw: bool,
}

impl Answer {
    /// 200 with `data`.
    pub fn data(data: &Value) -> Self {
        Self::json(go_json::to_vec(data))
    }

    /// 200 with `data` given as JSON text.
    pub fn json(data: Vec<u8>) -> Self {
        Self { status: 200, form: Form::Envelope(Envelope { data: Some(data), ..Envelope::default() }) }
    }

    /// 200 with `data`, whose members also stand at the top level.
    pub fn injected(data: &Value) -> Self {
        let injected = data.as_object().is_some_and(|map| !map.is_empty());
        Self {
            status: 200,
            form: Form::Envelope(Envelope { data: Some(go_json::to_vec(data)), injected, ..Envelope::default() }),
        }
    }

    /// 200 with `auth`.
    pub fn auth(auth: Value) -> Self {
        Self { status: 200, form: Form::Envelope(Envelope { auth: Some(auth), ..Envelope::default() }) }
    }

    /// 200 without data.
    pub fn done() -> Self {
        Self { status: 200, form: Form::Envelope(Envelope::default()) }
    }

    /// 200 with warnings only, or 204 where there are none.
    pub fn warned(warnings: Vec<String>) -> Self {
        if warnings.is_empty() {
            return Self::no_content();
        }
        Self { status: 200, form: Form::Envelope(Envelope { warnings, ..Envelope::default() }) }
    }

    /// 204.
    pub fn no_content() -> Self {
        Self { status: 204, form: Form::Empty }
    }

    /// An answer with this status and no body.
    pub fn empty(status: u16) -> Self {
        Self { status, form: Form::Empty }
    }

    /// JSON without envelope.
    pub fn bare(status: u16, body: &Value) -> Self {
        let mut text = go_json::to_vec(body);
        text.push(b'\n');
        Self { status, form: Form::Bare(text) }
    }

    /// A raw answer: an envelope with a status of its own (404 with the metadata of a deleted version).
    pub fn raw(status: u16, data: Vec<u8>) -> Self {
        Self { status, form: Form::Envelope(Envelope { data: Some(data), raw: true, ..Envelope::default() }) }
    }

    /// Adds a warning, if the answer has a place for it.
    pub fn warn(&mut self, warning: String) {
        if let Form::Envelope(envelope) = &mut self.form
            && !envelope.raw
        {
            envelope.warnings.push(warning);
        }
    }

    /// The body as it is sent, and as a wrapped response keeps it.
    pub fn body(&self, request: Id) -> Vec<u8> {
        match &self.form {
            Form::Envelope(envelope) => envelope.render(request),
            Form::Empty => Vec::new(),
            Form::Bare(bytes) | Form::Problem(bytes, _) | Form::Text(_, bytes) | Form::Redirect(_, bytes) => {
                bytes.clone()
            }
        }
    }

    /// The HTTP response. `head` leaves the body out.
    pub fn into_response(self, request: Id, head: bool) -> Response<Body> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut challenge = None;
        let (kind, location, bytes) = match self.form {
            Form::Envelope(envelope) => ("application/json", None, envelope.render(request)),
            Form::Empty => ("application/json", None, Vec::new()),
            Form::Bare(bytes) => ("application/json", None, bytes),
            Form::Problem(bytes, with) => {
                challenge = with;
                ("application/problem+json", None, bytes)
            }
            Form::Text(kind, bytes) => (kind, None, bytes),
            Form::Redirect(location, bytes) => ("text/html; charset=utf-8", Some(location), bytes),
        };
        let length = bytes.len();
        let mut response = Response::new(Full::new(if head { Bytes::new() } else { Bytes::from(bytes) }));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers
            .insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000; includeSubDomains"));
        if head {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(location) = location.and_then(|l| HeaderValue::from_str(&l).ok()) {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}

impl Envelope {
    /// The members in Vault's order.
    fn render(&self, request: Id) -> Vec<u8> {
        let data: &[u8] = self.data.as_deref().unwrap_or(b"null");
        let mut out = Vec::with_capacity(data.len() * if self.injected { 2 } else { 1 } + 220);
        out.push(b'{');
        if self.injected {
            // The members come first, so that the envelope's own win where a client lets the last one win.
            out.extend_from_slice(data.get(1..data.len().saturating_sub(1)).unwrap_or_default());
            out.push(b',');
        }
        out.extend_from_slice(b"\"request_id\":\"");
        if self.wrap_info.is_none() {
            request.write_uuid(&mut out);
        }
        out.extend_from_slice(b"\",\"lease_id\":\"\",\"renewable\":false,\"lease_duration\":");
        out.extend_from_slice(self.lease_duration.to_string().as_bytes());
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data);
        out.extend_from_slice(b",\"wrap_info\":");
        optional(&mut out, self.wrap_info.as_ref());
        out.extend_from_slice(b",\"warnings\":");
        if self.warnings.is_empty() {
            out.extend_from_slice(b"null");
        } else {
            out.extend_from_slice(&go_json::to_vec(&Value::from(self.warnings.clone())));
        }
        out.extend_from_slice(b",\"auth\":");
        optional(&mut out, self.auth.as_ref());
        out.push(b'}');
        if !self.raw {
            out.push(b'\n');
        }
        out
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).field("form", &self.form).finish()
    }
}

/// The shape alone: what stands in it may be secret.
impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Envelope(_) => "Envelope(…)",
            Self::Empty => "Empty",
            Self::Bare(_) => "Bare(…)",
            Self::Problem(..) => "Problem(…)",
            Self::Text(..) => "Text(…)",
            Self::Redirect(..) => "Redirect(…)",
        })
    }
}

/// Without `data`, `auth`, `wrap_info` and warnings.
impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope")
            .field("lease_duration", &self.lease_duration)
            .field("injected", &self.injected)
            .field("raw", &self.raw)
            .finish_non_exhaustive()
    }
}

fn optional(out: &mut Vec<u8>, value: Option<&Value>) {
    match value {
        Some(value) => out.extend_from_slice(&go_json::to_vec(value)),
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_envelope_has_all_members_in_order() {
        let body = Answer::data(&json!({"b": "<x>", "a": 1})).body(Id([0; 16]));
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "{\"request_id\":\"00000000-0000-0000-0000-000000000000\",\"lease_id\":\"\",\"renewable\":false,\
             \"lease_duration\":0,\"data\":{\"a\":1,\"b\":\"\\u003cx\\u003e\"},\"wrap_info\":null,\"warnings\":null,\"auth\":null}\n"
        );
    }

    #[test]
    fn nothing_that_may_be_secret_is_printed() {
        let mut envelope =
            Envelope { data: Some(b"hunter2".to_vec()), auth: Some(json!("hunter2")), ..Envelope::default() };
        envelope.wrap_info = Some(json!("hunter2"));
        envelope.warnings.push("hunter2".into());
        let printed = format!("{envelope:?} {:?}", Form::Bare(b"hunter2".to_vec()));
        assert!(!printed.contains("hunter2"), "{printed}");
        let answer = Answer { status: 200, form: Form::Envelope(envelope) };
        assert_eq!(format!("{answer:?}"), "Answer { status: 200, form: Envelope(…) }");
    }

    #[test]
    fn injected_members_stand_twice() {
        let body: Value = serde_json::from_slice(&Answer::injected(&json!({"keys": ["a"]})).body(Id([0; 16]))).unwrap();
        assert_eq!(body["keys"], body["data"]["keys"]);
    }
}
