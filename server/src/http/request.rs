//! A request of the compatible face as the rest of the server sees it: decoded once, in one form.
//!
//! The order of the checks is that of Vault's own layers, since it decides which error a client sees when several
//! apply. Nothing here looks anything up.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header};
use keyward_model::{Id, Timestamp};
use keyward_policy::Operation;
use percent_encoding::percent_decode_str;

use super::fields::{Check, Params, parse_bool};
use super::json::{Limits, Object};
use super::limits::Room;
use super::{duration, gotext, media_type, path};
use crate::api::native;
use crate::refusal::Refusal;
use crate::repeat::CallersId;

/// Where the node's numbers are.
const METRICS: &str = "sys/metrics";
/// The other name of that, the one that Prometheus looks for, and the form in which it wants them.
const SCRAPED: &str = "/metrics";
const SCRAPED_QUERY: &str = "format=prometheus";

/// Below `sys/`: of the server as a whole.
const ABOVE_NAMESPACES: [&str; 13] = [
    "raw",
    "generate-recovery-token",
    "init",
    "seal",
    "step-down",
    "unseal",
    "health",
    "rekey",
    "rekey-recovery-key",
    "storage",
    "generate-root",
    "metrics",
    "in-flight-req",
];

/// Which of the two APIs a request speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Face {
    /// Vault's.
    Compatible,
    /// Our own: `/v1/secrets…`. Its path and query are kept as they were sent, and its body is read strictly.
    Native,
}

/// One request: what is asked, of what, with which parameters.
pub struct Request {
    /// Which API it speaks.
    pub face: Face,
    /// Drawn at random; the answer and the audit record carry it.
    pub id: Id,
    /// When it came in.
    pub received: Timestamp,
    /// What is asked. POST and PUT are `Update` here; whether it is `Create` is decided by the existence check.
    pub operation: Operation,
    /// HEAD: answer as GET, without the body.
    pub head: bool,
    /// Decoded path below `/v1/`, without leading slash; of a list or scan it ends in `/`. On the native face as sent.
    pub path: String,
    /// The query as sent; empty for verbs whose parameters stand in the body (not so on the native face).
    pub query: String,
    /// `list` or `scan` came in the query, and has done its work there.
    flagged: Option<&'static str>,
    /// The body, not parsed. Empty where the verb has none.
    pub body: Bytes,
    /// The body is a form, not JSON.
    pub form: bool,
    /// Headers as received.
    pub headers: HeaderMap,
    /// Where it came from.
    pub source: IpAddr,
    /// `X-Vault-Wrap-TTL`, if it asks for wrapping.
    pub wrap_ttl: Option<Duration>,
    /// `Idempotency-Key`, if it came: the caller's own id of a write.
    pub callers_id: Option<CallersId>,
    /// What the body takes of the memory for bodies.
    _room: Option<Room>,
}

/// What the first look at a request says.
#[derive(Debug)]
pub enum Early {
    /// A path with unprintable characters: 400 without body.
    Unprintable,
    /// A target with a broken escape: no HTTP request.
    Broken,
    /// Not below `/v1/`: 404 without text.
    Elsewhere,
    /// The path is written in a roundabout way: go there.
    Redirect(String),
    /// Refused with a text.
    Refused(Refusal),
}

impl From<Refusal> for Early {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The part of a request that is known before its body: method, path, query.
pub struct Head {
    face: Face,
    operation: Operation,
    head: bool,
    path: String,
    query: String,
    flagged: Option<&'static str>,
    has_body: bool,
    patch: bool,
}

impl Head {
    /// Reads method and target.
    ///
    /// # Errors
    /// [`Early`], in the order of Vault's layers.
    pub fn read(method: &Method, uri: &Uri) -> Result<Self, Early> {
        let raw = uri.path();
        if native::claims(raw) {
            return Self::read_native(method, uri);
        }
        if has_broken_escape(raw) {
            return Err(Early::Broken);
        }
        let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| Refusal::malformed("the path is not UTF-8"))?;
        if !decoded.chars().all(gotext::is_printable) {
            return Err(Early::Unprintable);
        }
        let scraped = decoded == SCRAPED;
        let below = if scraped { METRICS } else { decoded.strip_prefix("/v1/").ok_or(Early::Elsewhere)? };
        let (list, scan) = match (*method == Method::GET).then(|| uri.query()).flatten() {
            Some(query) => (flag(query, "list")?, flag(query, "scan")?),
            None => (false, false),
        };
        if list && scan {
            return Err(Refusal::MalformedSilent.into());
        }
        let (list, scan) = (list && !is_status(below), scan && !is_status(below));
        if let Some(clean) = cleaned(raw) {
            let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
            return Err(Early::Redirect(format!("{clean}{query}")));
        }
        let mut head = false;
        let (operation, has_body) = match method.as_str() {
            "GET" if list => (Operation::List, false),
            "GET" if scan => (Operation::Scan, false),
            "GET" => (Operation::Read, false),
            "HEAD" => {
                head = true;
                (Operation::Read, false)
            }
            "LIST" => (Operation::List, false),
            "SCAN" => (Operation::Scan, false),
            "POST" | "PUT" => (Operation::Update, true),
            "PATCH" => (Operation::Patch, true),
            "DELETE" => (Operation::Delete, false),
            _ => return Err(Refusal::UnknownVerb.into()),
        };
        let mut path = below.to_owned();
        if matches!(operation, Operation::List | Operation::Scan) && !path.ends_with('/') {
            path.push('/');
        }
        let query = match (has_body, scraped) {
            (true, _) => String::new(),
            (false, true) => SCRAPED_QUERY.to_owned(),
            (false, false) => uri.query().unwrap_or_default().to_owned(),
        };
        let flagged = if list { Some("list") } else { scan.then_some("scan") };
        let patch = operation == Operation::Patch;
        Ok(Self { face: Face::Compatible, operation, head, path, query, flagged, has_body, patch })
    }

    /// The native face has no lists in queries, no redirects and no second spelling: path and query go on as sent.
    fn read_native(method: &Method, uri: &Uri) -> Result<Self, Early> {
        let (operation, has_body) = match method.as_str() {
            "GET" | "HEAD" => (Operation::Read, false),
            "POST" => (Operation::Update, true),
            "DELETE" => (Operation::Delete, false),
            _ => return Err(Refusal::UnknownVerb.into()),
        };
        Ok(Self {
            face: Face::Native,
            operation,
            head: *method == Method::HEAD,
            path: uri.path().strip_prefix("/v1/").unwrap_or_default().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            flagged: None,
            has_body,
            patch: false,
        })
    }

    /// The decoded path below `/v1/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is asked.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Puts head, headers and body together, checking both as far as Vault does before it looks at the token.
    ///
    /// # Errors
    /// A refusal in the order: namespace, content type of a patch, body, headers, relative path.
    pub fn with_body(
        self,
        id: Id,
        received: Timestamp,
        headers: HeaderMap,
        body: Bytes,
        source: IpAddr,
    ) -> Result<Request, Refusal> {
        if self.face == Face::Compatible && is_above_namespaces(&self.path) && namespace(&headers).is_some() {
            return Err(Refusal::malformed("operation unavailable in namespaces"));
        }
        if self.patch {
            check_patch_type(&headers)?;
        }
        let body = if self.has_body { body } else { Bytes::new() };
        let form = is_form(&headers, &body);
        let mut request = Request {
            face: self.face,
            id,
            received,
            operation: self.operation,
            head: self.head,
            path: self.path,
            query: self.query,
            flagged: self.flagged,
            body,
            form,
            headers,
            source,
            wrap_ttl: None,
            callers_id: None,
            _room: None,
        };
        if let Err(refusal) = request.read_headers() {
            // What is wrong with the body is told first.
            return Err(request.parameters().err().unwrap_or(refusal));
        }
        let is_relative = request.path.split('/').any(|segment| segment == "." || segment == "..");
        if request.face == Face::Compatible && is_relative {
            return Err(Refusal::malformed("relative paths not supported"));
        }
        Ok(request)
    }
}

/// Without path and query, since some clients put tokens there.
impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head").field("face", &self.face).field("operation", &self.operation).finish_non_exhaustive()
    }
}

/// Without path, query, headers and body: any of them may hold a secret.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id)
            .field("face", &self.face)
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Keeps the room of the body for as long as the request.
    pub fn in_room(self, room: Room) -> Self {
        Self { _room: Some(room), ..self }
    }

    fn read_headers(&mut self) -> Result<(), Refusal> {
        if self.face == Face::Compatible {
            check_mfa(&self.headers)?;
        }
        self.wrap_ttl = wrap_ttl(&self.headers)?;
        self.callers_id = callers_id(&self.headers)?;
        Ok(())
    }

    /// Whether it is meant for a namespace. There is none but the root.
    pub fn is_for_namespace(&self) -> bool {
        let named = namespace(&self.headers).map(|name| name.trim_matches('/'));
        self.face == Face::Compatible && !matches!(named, None | Some("" | "root"))
    }

    /// The token that the request presents: `X-Vault-Token`, else a bearer token. An empty one is none.
    pub fn token(&self) -> Option<&str> {
        if let Some(value) = self.headers.get("x-vault-token") {
            let token = value.to_str().unwrap_or("\u{1}"); // bytes that no token has: presented, but wrong
            if !token.is_empty() {
                return Some(token);
            }
        }
        let mut values = self.headers.get_all(header::AUTHORIZATION).iter();
        let bearer = values.find_map(|value| value.to_str().ok()?.strip_prefix("Bearer "))?;
        Some(bearer.trim()).filter(|token| !token.is_empty())
    }

    /// Whether answering it may change something, so that it must not end half way. Reads do where the answer is wrapped or
    /// taken out of its wrapping; that a token may lose a use by a read is the PEP's to know.
    pub fn may_change(&self) -> bool {
        let reads = matches!(self.operation, Operation::Read | Operation::List | Operation::Scan);
        !reads || self.wrap_ttl.is_some() || self.path == "cubbyhole/response"
    }

    /// Whether only this node can answer it: its own status, numbers and seal.
    pub fn is_local(&self) -> bool {
        matches!(
            self.path.as_str(),
            "sys/health" | "sys/seal-status" | "sys/leader" | "sys/init" | "sys/unseal" | "sys/seal" | METRICS
        )
    }

    /// Whether only the leader can answer it: what changes something, and what it alone knows of the others.
    pub fn needs_leader(&self) -> bool {
        self.may_change() || self.path == "sys/cluster/members" || self.path == "sys/ha-status"
    }

    /// The parameters: members of the body for verbs that have one, else the query.
    ///
    /// # Errors
    /// The body is malformed or over the limits of a body's content.
    pub fn parameters(&self) -> Result<Params<'_>, Refusal> {
        if self.face == Face::Native {
            return Ok(Params::from_body(native::body(self)?, Check::Handler));
        }
        if self.form {
            return Params::from_form(&self.body, Check::Handler)
                .map_err(|_| Refusal::malformed("error parsing form data"));
        }
        if matches!(self.operation, Operation::Update | Operation::Patch) {
            let object =
                Object::parse(&self.body, &Limits::DEFAULT).map_err(|error| Refusal::malformed(error.to_string()))?;
            return Ok(Params::from_body(object, Check::Handler));
        }
        let mut params = Params::from_query(&self.query, Check::Handler);
        if let Some(flag) = self.flagged {
            params.remove(flag);
        }
        Ok(params)
    }
}

/// Whether a `%` is not followed by two hexadecimal digits. Taken as it is, it would be a second spelling of another path.
fn has_broken_escape(raw: &str) -> bool {
    raw.split('%')
        .skip(1)
        .any(|rest| !rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
}

/// Status of this node, which a `GET` reads also where its query asks for a list.
fn is_status(path: &str) -> bool {
    matches!(path, "sys/health" | "sys/seal-status" | "sys/leader")
}

/// The cleaned form of a raw path that has empty, `.` or `..` segments, or is a folder's without its slash; `None` if it is
/// clean as it stands.
fn cleaned(raw: &str) -> Option<String> {
    if matches!(raw, "/v1/sys" | "/v1/sys/audit-hash" | "/v1/sys/config/state" | "/v1/sys/pprof") {
        return Some(format!("{raw}/"));
    }
    let inner = raw.strip_prefix('/').unwrap_or(raw);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if !inner.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return None;
    }
    let mut out = path::clean(raw);
    if raw.ends_with('/') && !out.ends_with('/') {
        out.push('/');
    }
    Some(out)
}

/// The first value of a flag in a query, by the rule of Go's `ParseBool`; absent or empty is false.
fn flag(query: &str, name: &str) -> Result<bool, Refusal> {
    let value = query
        .split('&')
        .filter(|pair| !pair.contains(';'))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(n, _)| *n == name)
        .map_or("", |(_, value)| value);
    if value.is_empty() { Ok(false) } else { parse_bool(value).ok_or(Refusal::MalformedSilent) }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

fn check_patch_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = media_type::read(content_type(headers).unwrap_or_default()).map_err(Refusal::malformed)?;
    if kind == "application/merge-patch+json" { Ok(()) } else { Err(Refusal::MediaType(kind)) }
}

/// A body is a form iff its type says so and it does not look like JSON.
fn is_form(headers: &HeaderMap, body: &[u8]) -> bool {
    let kind = content_type(headers).and_then(|value| value.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
        && !body.iter().take(512).find(|b| !b.is_ascii_whitespace()).is_some_and(|b| matches!(b, b'{' | b'['))
}

fn wrap_ttl(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = headers.get("x-vault-wrap-ttl") else { return Ok(None) };
    let value = value.to_str().unwrap_or("?");
    if value.is_empty() {
        return Ok(None);
    }
    let nanos = duration::parse(value)
        .map_err(|why| Refusal::malformed(format!("error parsing X-Vault-Wrap-TTL header: {why}")))?;
    match u64::try_from(nanos) {
        Ok(0) => Ok(None),
        Ok(nanos) => Ok(Some(Duration::from_nanos(nanos))),
        Err(_) => {
            Err(Refusal::malformed("error parsing X-Vault-Wrap-TTL header: requested wrap ttl cannot be negative"))
        }
    }
}

/// `X-Vault-Namespace`, unless it is empty.
pub(super) fn namespace(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-vault-namespace").map(|name| name.to_str().unwrap_or("?")).filter(|name| !name.is_empty())
}

/// Whether nobody may name a namespace there, not even the root.
fn is_above_namespaces(path: &str) -> bool {
    let first = path.strip_prefix("sys/").map(|rest| rest.split('/').next().unwrap_or_default());
    first.is_some_and(|first| ABOVE_NAMESPACES.contains(&first))
}

/// `X-Vault-MFA` is `method` or `method:value`. Nothing here asks for a second factor.
fn check_mfa(headers: &HeaderMap) -> Result<(), Refusal> {
    for value in headers.get_all("x-vault-mfa") {
        let missing = match value.to_str().unwrap_or_default().split_once(':') {
            Some(("", _)) => "method name or ID",
            Some((_, "")) => "method value",
            _ => continue,
        };
        return Err(Refusal::malformed(format!(
            "failed to parse X-Vault-MFA header: invalid data in header \"X-Vault-MFA\"; missing {missing}"
        )));
    }
    Ok(())
}

fn callers_id(headers: &HeaderMap) -> Result<Option<CallersId>, Refusal> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    // Two of them would be two names for one thing.
    CallersId::read(if values.next().is_some() { b"" } else { value.as_bytes() }).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, target: &str) -> Result<Head, Early> {
        Head::read(&Method::from_bytes(method.as_bytes()).unwrap(), &target.parse().unwrap())
    }

    #[test]
    fn verbs_become_operations() {
        for (method, target, operation) in [
            ("GET", "/v1/a/b", Operation::Read),
            ("GET", "/v1/a/b?list=true", Operation::List),
            ("GET", "/v1/a/b?scan=1", Operation::Scan),
            ("LIST", "/v1/a/b", Operation::List),
            ("SCAN", "/v1/a", Operation::Scan),
            ("POST", "/v1/a", Operation::Update),
            ("PUT", "/v1/a", Operation::Update),
            ("PATCH", "/v1/a", Operation::Patch),
            ("DELETE", "/v1/a", Operation::Delete),
        ] {
            assert_eq!(head(method, target).unwrap().operation, operation, "{method} {target}");
        }
        assert_eq!(head("LIST", "/v1/a/b").unwrap().path, "a/b/");
        for (method, target) in [("get", "/v1/a"), ("BREW", "/v1/a"), ("TRACE", "/v1/a")] {
            assert!(matches!(head(method, target), Err(Early::Refused(Refusal::UnknownVerb))));
        }
    }

    #[test]
    fn paths_have_one_form() {
        assert_eq!(head("GET", "/v1/a%2Fb/c%20d").unwrap().path, "a/b/c d");
        for elsewhere in ["/v2/a", "/", "/metrics/", "/metrics/a", "/v1metrics"] {
            assert!(matches!(head("GET", elsewhere), Err(Early::Elsewhere)), "{elsewhere}");
        }
        for scraped in ["/metrics", "/metrics?x=1", "/v1/sys/metrics?format=prometheus"] {
            let head = head("GET", scraped).unwrap();
            assert_eq!((head.path.as_str(), head.query.as_str()), ("sys/metrics", "format=prometheus"), "{scraped}");
        }
        assert!(matches!(head("GET", "/v1/a%07"), Err(Early::Unprintable)));
        assert!(matches!(head("GET", "/v1/a%C2%A0b"), Err(Early::Unprintable)));
        for (raw, clean) in [
            ("/v1/a//b?x=1", "/v1/a/b?x=1"),
            ("/v1/a/./b", "/v1/a/b"),
            ("/v1/sys?a=1", "/v1/sys/?a=1"),
            ("/v1/a/../b/", "/v1/b/"),
            ("/v1/a/../../../b", "/b"),
            ("/v1//", "/v1/"),
            ("/v1/../", "/"),
            ("/v1/a//b%20c", "/v1/a/b%20c"),
        ] {
            match head("GET", raw) {
                Err(Early::Redirect(to)) => assert_eq!(to, clean),
                other => unreachable!("{raw}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_broken_escape_is_no_path() {
        for target in ["/v1/a%", "/v1/a%2", "/v1/a%zz", "/v1/%%41", "/v1/a%2\u{20}"] {
            let Ok(target) = target.parse() else { continue };
            assert!(matches!(Head::read(&Method::GET, &target), Err(Early::Broken)), "{target}");
        }
        assert_eq!(head("GET", "/v1/a%25zz").unwrap().path, "a%zz");
    }

    #[test]
    fn headers_name_namespaces_and_factors() {
        let with = |target: &str, name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
            let source = IpAddr::from([127, 0, 0, 1]);
            head("GET", target).unwrap().with_body(Id::ZERO, Timestamp(0), headers, Bytes::new(), source)
        };
        for (value, is_other) in [("", false), ("root", false), ("/", false), ("/root/", false), ("n1", true)] {
            assert_eq!(with("/v1/a", "x-vault-namespace", value).unwrap().is_for_namespace(), is_other, "{value}");
        }
        for target in ["/v1/sys/health", "/v1/sys/storage/raft/configuration"] {
            let refusal = with(target, "x-vault-namespace", "root").unwrap_err();
            assert_eq!(refusal, Refusal::malformed("operation unavailable in namespaces"));
            assert!(with(target, "x-vault-namespace", "").is_ok());
        }
        assert!(with("/v1/sys/seal-status", "x-vault-namespace", "n1").is_ok());
        for (value, fine) in [("a", true), ("a:b", true), ("a:", false), (":b", false), ("", true)] {
            assert_eq!(with("/v1/a", "x-vault-mfa", value).is_ok(), fine, "{value}");
        }
    }

    #[test]
    fn bad_list_flags_are_refused() {
        for target in ["/v1/a?list=maybe", "/v1/a?list=true&scan=true"] {
            assert!(matches!(head("GET", target), Err(Early::Refused(Refusal::MalformedSilent))));
        }
        assert_eq!(head("GET", "/v1/a?list=false").unwrap().query, "list=false");
    }
}
