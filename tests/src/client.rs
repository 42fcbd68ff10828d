//! An HTTP/1.1 client that sends what it is told, byte for byte: any verb, any path, any header.
//!
//! Clients for programs tidy paths up and refuse what is malformed. The suites must be able to send it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take. The server's own deadline is 90 s; nothing here needs that long.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A client with one connection, kept alive between requests.
pub struct Client {
    host: String,
    token: String,
    patience: Duration,
    connection: Option<BufReader<TcpStream>>,
}

/// A response: status, headers as they came, body.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names and values in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Vec<u8>,
}

impl Client {
    /// A client of the server at `http://host:port`. It connects when it first has something to say.
    pub fn new(address: &str, token: &str) -> Self {
        let host = address.strip_prefix("http://").expect("an address with http://").trim_end_matches('/');
        Self { host: host.to_owned(), token: token.to_owned(), patience: ANSWER_MAX, connection: None }
    }

    /// The same, but it waits no longer than this for a connection or for a part of an answer.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same server for another caller.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { host: self.host.clone(), token: token.to_owned(), patience: self.patience, connection: None }
    }

    /// The same server for a caller without a token.
    #[must_use]
    pub fn without_token(&self) -> Self {
        self.with_token("")
    }

    /// The caller's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// `GET /v1/<path>`.
    pub fn get(&mut self, path: &str) -> Response {
        self.call("GET", path, None)
    }

    /// `LIST /v1/<path>`.
    pub fn list(&mut self, path: &str) -> Response {
        self.call("LIST", path, None)
    }

    /// `DELETE /v1/<path>`.
    pub fn delete(&mut self, path: &str) -> Response {
        self.call("DELETE", path, None)
    }

    /// `PUT /v1/<path>` with a JSON body.
    pub fn put(&mut self, path: &str, body: &Value) -> Response {
        self.call("PUT", path, Some(body))
    }

    /// `POST /v1/<path>` with a JSON body.
    pub fn post(&mut self, path: &str, body: &Value) -> Response {
        self.call("POST", path, Some(body))
    }

    /// Any verb on `/v1/<path>`, with the token and, where there is one, a JSON body.
    pub fn call(&mut self, verb: &str, path: &str, body: Option<&Value>) -> Response {
        self.call_with(verb, path, &[], body)
    }

    /// As [`Client::call`], with further headers.
    pub fn call_with(&mut self, verb: &str, path: &str, more: &[(&str, &str)], body: Option<&Value>) -> Response {
        self.try_call(verb, path, more, body).unwrap_or_else(|error| panic!("{verb} {path}: {error}"))
    }

    /// As [`Client::call_with`].
    ///
    /// # Errors
    /// The connection fails before the whole answer is there.
    pub fn try_call(
        &mut self,
        verb: &str,
        path: &str,
        more: &[(&str, &str)],
        body: Option<&Value>,
    ) -> std::io::Result<Response> {
        let token = self.token.clone();
        let mut headers = vec![("X-Vault-Request", "true")];
        if !token.is_empty() {
            headers.push(("X-Vault-Token", &token));
        }
        let text = body.map(Value::to_string);
        if text.is_some() && !more.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            headers.push(("Content-Type", "application/json"));
        }
        headers.extend_from_slice(more);
        self.send(verb, &format!("/v1/{path}"), &headers, text.as_deref().map(str::as_bytes))
    }

    /// Sends exactly this: `target` and headers as they are, besides `Host` and `Content-Length`.
    ///
    /// # Errors
    /// The connection fails before the whole answer is there.
    pub fn send(
        &mut self,
        verb: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> std::io::Result<Response> {
        let mut request = format!("{verb} {target} HTTP/1.1\r\nHost: {}\r\n", self.host).into_bytes();
        for (name, value) in headers {
            request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if let Some(body) = body {
            request.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body.unwrap_or_default());
        self.raw(&request, verb == "HEAD")
    }

    /// Sends these bytes and reads one response.
    ///
    /// # Errors
    /// The connection fails before the whole answer is there.
    pub fn raw(&mut self, request: &[u8], head: bool) -> std::io::Result<Response> {
        self.connect()?;
        let mut connection = self.connection.take().ok_or(std::io::ErrorKind::NotConnected)?;
        connection.get_mut().write_all(request)?;
        let response = read_response(&mut connection, head)?;
        if !response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    /// Whether the server ends the connection after the last response, as it said or without saying.
    pub fn is_hung_up(&mut self) -> bool {
        match &mut self.connection {
            None => true,
            Some(connection) => !matches!(connection.read(&mut [0]), Ok(1..)),
        }
    }

    /// Opens the connection, if there is none or the server has closed it. Whatever fails here, nothing of a request was
    /// sent.
    ///
    /// # Errors
    /// Nobody listens there, or no answer came in time.
    pub fn connect(&mut self) -> std::io::Result<()> {
        if self.connection.as_ref().is_some_and(|connection| !is_closed(connection.get_ref())) {
            return Ok(());
        }
        let address = self.host.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        let stream = TcpStream::connect_timeout(&address, self.patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        self.connection = Some(BufReader::new(stream));
        Ok(())
    }
}

impl Response {
    /// The first header of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` where there is none.
    pub fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Itself, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// Whether the other end has said that nothing more comes.
fn is_closed(stream: &TcpStream) -> bool {
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let closed = match looked {
        Ok(count) => count == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    };
    closed || stream.set_nonblocking(false).is_err()
}

fn read_response(connection: &mut BufReader<TcpStream>, head: bool) -> std::io::Result<Response> {
    let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| bad(&line))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad(line))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if head || status == 204 || status == 304 {
        return Ok(response);
    }
    match response.header("content-length").map(str::parse::<usize>) {
        Some(length) => {
            response.body = vec![0; length.map_err(|_| bad("content-length"))?];
            connection.read_exact(&mut response.body)?;
        }
        None if response.header("transfer-encoding").is_some() => return Err(bad("a chunked answer")),
        None => {
            connection.read_to_end(&mut response.body)?;
        }
    }
    Ok(response)
}
