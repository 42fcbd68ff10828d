//! A hyper server on its own thread that answers what a test laid out, and remembers what it was asked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

#[derive(Default)]
struct State {
    answers: BTreeMap<String, (u16, Value)>,
    otherwise: Option<(u16, Value)>,
    seen: Vec<(String, HeaderMap, Bytes)>,
}

/// A server that lives as long as the test.
pub(crate) struct Responder {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Responder {
    /// Listens on a free port of the loopback interface.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(listener, shared) => {},
                    _ = stopped => {},
                }
            });
        });
        Self { address, state, _stop: stop }
    }

    /// Lays out an answer for `METHOD /path?query`. Null is an empty body.
    pub(crate) fn on(self, request: &str, status: u16, body: Value) -> Self {
        self.state.lock().unwrap().answers.insert(request.to_owned(), (status, body));
        self
    }

    /// The answer to every request that none was laid out for.
    pub(crate) fn otherwise(self, status: u16, body: Value) -> Self {
        self.state.lock().unwrap().otherwise = Some((status, body));
        self
    }

    /// How many requests began like this.
    pub(crate) fn count(&self, beginning: &str) -> usize {
        self.state.lock().unwrap().seen.iter().filter(|(line, ..)| line.starts_with(beginning)).count()
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs the binary against this server with the token `test-token`.
    pub(crate) fn run(&self, arguments: &[&str], stdin: &str) -> Run {
        let home = tempfile::tempdir().unwrap();
        self.run_at(home.path(), arguments, stdin, &[("KEYWARD_TOKEN", "test-token")])
    }

    /// Runs the binary against this server with this home and these variables.
    pub(crate) fn run_at(&self, home: &Path, arguments: &[&str], stdin: &str, variables: &[(&str, &str)]) -> Run {
        let address = self.address();
        let variables: Vec<_> = variables.iter().copied().chain([("KEYWARD_ADDR", address.as_str())]).collect();
        Run::of(home, arguments, stdin, &variables)
    }

    /// The JSON body of the newest such request.
    pub(crate) fn body(&self, request: &str) -> Value {
        serde_json::from_str(&self.raw_body(request)).unwrap()
    }

    /// The body of the newest such request as text.
    pub(crate) fn raw_body(&self, request: &str) -> String {
        String::from_utf8(self.newest(request).1.to_vec()).unwrap()
    }

    /// A header of the newest such request.
    pub(crate) fn header_of(&self, request: &str, name: &str) -> String {
        self.newest(request).0[name].to_str().unwrap().to_owned()
    }

    /// A header of all such requests, in the order in which they came.
    pub(crate) fn headers_of(&self, request: &str, name: &str) -> Vec<Option<String>> {
        let state = self.state.lock().unwrap();
        let such = state.seen.iter().filter(|(seen, ..)| seen == request);
        such.map(|(_, headers, _)| headers.get(name).map(|value| value.to_str().unwrap().to_owned())).collect()
    }

    /// A header of the newest request of all.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let state = self.state.lock().unwrap();
        let (_, headers, _) = state.seen.last().unwrap();
        headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    fn newest(&self, request: &str) -> (HeaderMap, Bytes) {
        let state = self.state.lock().unwrap();
        let (_, headers, body) = state.seen.iter().rev().find(|(seen, ..)| seen == request).expect(request);
        (headers.clone(), body.clone())
    }
}

async fn serve(listener: tokio::net::TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            // A client that leaves in the middle, or speaks TLS, is part of the tests.
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri());
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut state = state.lock().unwrap();
    let missing = (599, json!({"errors": [format!("no answer was laid out for {line}")]}));
    let laid_out = state.answers.get(&line).or(state.otherwise.as_ref()).cloned();
    let (status, answer) = laid_out.unwrap_or(missing);
    state.seen.push((line, head.headers, body));
    let text = if answer.is_null() { String::new() } else { answer.to_string() };
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Full::from(text)).unwrap())
}

/// What a run of the binary came to.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// The binary with these arguments and no variables but these.
    pub(crate) fn command(home: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyward"));
        command.args(arguments).env_clear().env("HOME", home).current_dir(home).envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub(crate) fn of(home: &Path, arguments: &[&str], stdin: &str, variables: &[(&str, &str)]) -> Self {
        let mut child = Self::command(home, arguments, variables).spawn().unwrap();
        // A command that reads no input may be gone already.
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).ok();
        let output = child.wait_with_output().unwrap();
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        self.clone()
    }
}

/// `data` in Vault's envelope.
pub(crate) fn envelope(data: &Value) -> Value {
    json!({"request_id": "r", "lease_id": "", "renewable": false, "lease_duration": 0, "data": data, "wrap_info": null,
        "warnings": null, "auth": null})
}

/// The answer to the question which mount a path is on.
pub(crate) fn preflight(mount: &str, version: &str) -> Value {
    envelope(&json!({"path": mount, "type": "kv", "options": {"version": version}}))
}

/// What a policy denies.
pub(crate) fn denied() -> Value {
    json!({"errors": ["1 error occurred:\n\t* permission denied\n\n"]})
}
