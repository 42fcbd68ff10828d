//! One HTTP conversation: a request with its token, and the answer or the reason why there is none.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use keyward_model::{Id, Secret};
use keyward_server::clock::OsEntropy;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::env::Found;
use crate::error::{CliError, Fault, Refusal, TokenSent, Unreachable};
use crate::tls::{self, Identity, Trust};

/// Everything but what RFC 3986 calls unreserved, and the separator.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Where to, and as whom.
pub(crate) struct Target {
    /// The server's address and where it came from.
    pub(crate) address: Found,
    /// Which certificates to accept.
    pub(crate) trust: Trust,
    /// Our own certificate.
    pub(crate) identity: Option<Identity>,
    /// The token, if any.
    pub(crate) token: Option<Secret<String>>,
    /// The namespace of an OpenBao or Vault; Keyward has none.
    pub(crate) namespace: Option<String>,
    /// Asks for the answer to be wrapped for that long, as Vault writes durations.
    pub(crate) wrap_ttl: Option<String>,
    /// How long one request may take.
    pub(crate) timeout: Duration,
}

/// What is done to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Read.
    Get,
    /// `GET …?list=true`, as every proxy lets it pass.
    List,
    /// Write.
    Put,
    /// Write, where the API's documents say so.
    Post,
    /// RFC 7396 merge patch.
    Patch,
    /// Delete.
    Delete,
}

/// An answer below 300, or one of the 404s that carry data.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The JSON body; null if there was none.
    pub(crate) body: Value,
}

/// How often a write is sent again whose outcome the server does not know, and after which pause: an election takes less.
const AGAIN_MAX: usize = 3;
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A client for one address.
pub(crate) struct Client {
    http: reqwest::blocking::Client,
    target: Target,
    base: Url,
}

impl Client {
    /// Prepares a client; nothing is sent yet.
    ///
    /// # Errors
    /// An address that is no HTTP URL, a token that no header can carry, TLS files that cannot be used.
    pub(crate) fn new(target: Target) -> Result<Self, CliError> {
        let base = parse_address(&target.address)?;
        let mut headers = HeaderMap::new();
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if let Some(token) = &target.token {
            let mut value = header(token.expose(), "the token")?;
            value.set_sensitive(true);
            headers.insert("x-vault-token", value);
        }
        for (name, value) in [("x-vault-namespace", &target.namespace), ("x-vault-wrap-ttl", &target.wrap_ttl)] {
            if let Some(value) = value {
                headers.insert(HeaderName::from_static(name), header(value, name)?);
            }
        }
        let mut builder = reqwest::blocking::Client::builder()
            .tls_backend_preconfigured(tls::configure(&target.trust, target.identity.as_ref())?)
            .default_headers(headers)
            .user_agent(concat!("keyward/", env!("CARGO_PKG_VERSION")))
            // A redirect would carry the token to another host.
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .timeout(target.timeout);
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| CliError::Local(format!("cannot set up HTTP: {error}")))?;
        Ok(Self { http, target, base })
    }

    /// The target this client was made for.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The address as a URL.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// `GET /v1/<path>`.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Option<Answer>, CliError> {
        self.send(Method::Get, path, query, None)
    }

    /// `PUT /v1/<path>` with a JSON body.
    ///
    /// # Errors
    /// As [`Client::send`], and [`CliError::Refused`] for a 404.
    pub(crate) fn put(&self, path: &str, body: &Value) -> Result<Answer, CliError> {
        self.write(Method::Put, path, body)
    }

    /// `POST /v1/<path>` with a JSON body.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Answer, CliError> {
        self.write(Method::Post, path, body)
    }

    /// A request that changes something; a 404 is a refusal here.
    ///
    /// # Errors
    /// As [`Client::send`], and [`CliError::Refused`] for a 404.
    pub(crate) fn write(&self, method: Method, path: &str, body: &Value) -> Result<Answer, CliError> {
        self.send(method, path, &[], Some(body))?
            .ok_or_else(|| CliError::Refused(self.refusal(404, method, path, Vec::new(), None)))
    }

    /// Sends a request. `None` means a 404 that says nothing; a 404 with data (a deleted version) is an [`Answer`]. A write
    /// goes with an id of its own, and again with the same one where the server does not know what became of it: a
    /// server of ours does it once. Where it remembers too many to take another id, the write goes without.
    ///
    /// # Errors
    /// [`CliError::Unreachable`] without an answer, [`CliError::Refused`] for every other status from 300 up,
    /// [`CliError::Unexpected`] for a success that is not JSON, [`CliError::Usage`] for a path with `.` or `..` in it.
    pub(crate) fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Option<Answer>, CliError> {
        let reads = matches!(method, Method::Get | Method::List);
        let id = (!reads).then(|| Id::random(&OsEntropy).to_uuid());
        let (mut left, mut unknown) = (AGAIN_MAX, None);
        loop {
            let refusal = match self.try_send(method, path, query, body, id.as_deref()) {
                Err(CliError::Refused(refusal)) if id.is_some() => refusal,
                done => return done,
            };
            if left > 0 && is_outcome_unknown(&refusal) {
                left -= 1;
                unknown = Some(refusal);
                pause(AGAIN_AFTER);
                continue;
            }
            // That the second is refused does not say that the first was not done: it may be refused because of that.
            let Some(unknown) = unknown else {
                let without = is_full_of_ids(&refusal);
                let again = || self.try_send(method, path, query, body, None);
                return if without { again() } else { Err(CliError::Refused(refusal)) };
            };
            return Err(CliError::Refused(if settles(&refusal) { refusal } else { unknown }));
        }
    }

    fn try_send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
        id: Option<&str>,
    ) -> Result<Option<Answer>, CliError> {
        let url = self.url(method, path, query)?;
        let verb = match method {
            Method::Get | Method::List => reqwest::Method::GET,
            Method::Put => reqwest::Method::PUT,
            Method::Post => reqwest::Method::POST,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut request = self.http.request(verb, url);
        if let Some(id) = id {
            request = request.header("idempotency-key", id);
        }
        if let Some(body) = body {
            let media = if method == Method::Patch { "application/merge-patch+json" } else { "application/json" };
            request = request.header("content-type", media).body(body.to_string());
        }
        let response = request.send().map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let location = response.headers().get("location").and_then(|to| to.to_str().ok()).map(str::to_owned);
        let bytes = Secret::new(response.bytes().map_err(|error| self.unreachable(&error))?.to_vec());
        let parsed: Option<Value> = serde_json::from_slice(bytes.expose()).ok();
        match (status, parsed) {
            (200..=299, Some(body)) => Ok(Some(Answer { status, body })),
            (200..=299, None) if bytes.expose().iter().all(u8::is_ascii_whitespace) => {
                Ok(Some(Answer { status, body: Value::Null }))
            }
            (200..=299, None) => Err(CliError::Unexpected("the body is not JSON".into())),
            (404, Some(body)) if body.get("errors").is_none() && !body["data"].is_null() => {
                Ok(Some(Answer { status, body }))
            }
            (404, body) if messages(body.as_ref()).is_empty() => Ok(None),
            (_, body) => {
                let errors = messages(body.as_ref());
                if errors.is_empty() && said_https(bytes.expose()) {
                    return Err(self.unreachable_because(Fault::NotHttp));
                }
                Err(CliError::Refused(self.refusal(status, method, path, errors, location)))
            }
        }
    }

    /// The refusal of a path, as an error to hand on.
    fn refusal(
        &self,
        status: u16,
        method: Method,
        path: &str,
        errors: Vec<String>,
        location: Option<String>,
    ) -> Refusal {
        let token = if self.target.token.is_some() { TokenSent::Yes } else { TokenSent::No };
        Refusal { status, method: method.name(), path: path.to_owned(), errors, token, location }
    }

    fn url(&self, method: Method, path: &str, query: &[(&str, &str)]) -> Result<Url, CliError> {
        if path.split('/').any(|segment| segment == "." || segment == "..") {
            return Err(CliError::Usage(format!("`{path}` has a `.` or `..` in it; name the path in full")));
        }
        let mut url = self.base.clone();
        url.set_path(&format!("{}/v1/{}", self.base.path().trim_end_matches('/'), encode_path(path)));
        if method == Method::List {
            url.query_pairs_mut().append_pair("list", "true");
        }
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, value);
        }
        Ok(url)
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        self.unreachable_because(diagnose(error, self.base.scheme()))
    }

    fn unreachable_because(&self, fault: Fault) -> CliError {
        let Found { value, origin } = self.target.address.clone();
        CliError::Unreachable(Unreachable { address: value, origin, fault })
    }
}

impl Method {
    /// The word for errors: the HTTP method, or `LIST`.
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::List => "LIST",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the server is given time to find a leader")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Whether a server of ours says that it took a write and does not know whether it was done.
fn is_outcome_unknown(refusal: &Refusal) -> bool {
    refusal.status == 503 && refusal.errors.iter().any(|text| text.starts_with("it is not known whether this was done"))
}

/// Whether a server of ours says that it did nothing, since it remembers too many writes with an id.
fn is_full_of_ids(refusal: &Refusal) -> bool {
    let text = "too many writes with an Idempotency-Key are remembered";
    refusal.status == 503 && refusal.errors.iter().any(|error| error.starts_with(text))
}

/// Whether a refusal is about the id: that what it stands for was done, or that it stands for something else.
fn settles(refusal: &Refusal) -> bool {
    let done = || refusal.errors.iter().any(|text| text.contains("taken before"));
    refusal.status == 422 || (refusal.status == 409 && done())
}

/// Percent-encodes a path, keeping its separators.
pub(crate) fn encode_path(path: &str) -> String {
    utf8_percent_encode(path, IN_PATH).to_string()
}

/// The address as a URL.
///
/// # Errors
/// No URL, or not `http` or `https`.
pub(crate) fn parse_address(address: &Found) -> Result<Url, CliError> {
    let bad = || {
        CliError::Usage(format!(
            "`{}` (from {}) is not an address like https://host:8200",
            address.value, address.origin
        ))
    };
    let url: Url = address.value.parse().map_err(|_| bad())?;
    if url.host_str().is_none() || !matches!(url.scheme(), "http" | "https") {
        return Err(bad());
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn header(value: &str, name: &str) -> Result<HeaderValue, CliError> {
    if !value.is_ascii() {
        return Err(CliError::Usage(format!("{name} holds characters that no header can carry")));
    }
    HeaderValue::from_str(value)
        .map_err(|_| CliError::Usage(format!("{name} holds characters that no header can carry")))
}

/// The `errors` (and, on answers without any, the `warnings`) of a body.
fn messages(body: Option<&Value>) -> Vec<String> {
    let texts = |name: &str| -> Vec<String> {
        body.and_then(|body| body[name].as_array())
            .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let errors = texts("errors");
    if errors.is_empty() { texts("warnings") } else { errors }
}

/// Go's own answer to plain HTTP on a TLS port.
fn said_https(body: &[u8]) -> bool {
    body.starts_with(b"Client sent an HTTP request to an HTTPS server")
}

fn diagnose(error: &reqwest::Error, scheme: &str) -> Fault {
    if error.is_timeout() {
        return Fault::Timeout;
    }
    let mut innermost = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(fault) = of_cause(cause) {
            return fault;
        }
        innermost = cause.to_string();
        if scheme == "http" && innermost.contains("invalid HTTP version") {
            return Fault::NotHttp;
        }
        if innermost.contains("dns error") || innermost.contains("lookup address") {
            return Fault::UnknownHost;
        }
        next = cause.source();
    }
    Fault::Other(innermost)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Fault> {
    if let Some(fault) = cause.downcast_ref::<rustls::Error>().and_then(of_tls) {
        return Some(fault);
    }
    let error = cause.downcast_ref::<io::Error>()?;
    // An I/O error that wraps another is not its `source`.
    if let Some(fault) = error.get_ref().and_then(|inner| of_cause(inner)) {
        return Some(fault);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(Fault::ConnectionRefused),
        io::ErrorKind::TimedOut => Some(Fault::Timeout),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(Fault::NoRoute),
        _ => None,
    }
}

fn of_tls(error: &rustls::Error) -> Option<Fault> {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => Some(match bad {
            Bad::UnknownIssuer | Bad::BadSignature | Bad::ApplicationVerificationFailure => Fault::UnknownAuthority,
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Fault::WrongName,
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                Fault::Expired
            }
            other => Fault::Other(other.to_string()),
        }),
        rustls::Error::InvalidMessage(_) => Some(Fault::PlainHttpPort),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &str) -> Found {
        Found { value: value.into(), origin: "--address".into() }
    }

    fn client(address: &str) -> Client {
        Client::new(Target {
            address: found(address),
            trust: Trust::Anyone,
            identity: None,
            token: Some(Secret::new("t".into())),
            namespace: None,
            wrap_ttl: None,
            timeout: Duration::from_secs(1),
        })
        .unwrap()
    }

    #[test]
    fn paths_are_encoded_once_and_never_climb() {
        let client = client("http://127.0.0.1:1/base/");
        for (path, query, url) in [
            ("secret/data/a b", &[][..], "http://127.0.0.1:1/base/v1/secret/data/a%20b"),
            ("secret/data/50%", &[("version", "2")][..], "http://127.0.0.1:1/base/v1/secret/data/50%25?version=2"),
            ("secret/data/ü?#", &[][..], "http://127.0.0.1:1/base/v1/secret/data/%C3%BC%3F%23"),
        ] {
            assert_eq!(client.url(Method::Get, path, query).unwrap().as_str(), url);
        }
        assert!(client.url(Method::Get, "secret/data/../x", &[]).is_err());
        assert!(client.url(Method::List, "a", &[]).unwrap().as_str().ends_with("/v1/a?list=true"));
    }

    #[test]
    fn a_bad_address_is_told_apart() {
        for bad in ["", "host:8200", "ftp://host", "127.0.0.1:8200"] {
            assert!(matches!(parse_address(&found(bad)), Err(CliError::Usage(_))), "{bad}");
        }
        assert!(parse_address(&found("https://[::1]:8200")).is_ok());
        assert!(is_loopback(&parse_address(&found("https://[::1]:8200")).unwrap()));
        assert!(!is_loopback(&parse_address(&found("https://10.0.0.1")).unwrap()));
    }
}
