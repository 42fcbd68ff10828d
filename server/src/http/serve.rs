//! Serving: one single-threaded runtime per worker, all listening on the same port (`SO_REUSEPORT`).
//!
//! A connection stays on its worker, so nothing of a request crosses threads: reader, audit buffer and session caches
//! are the worker's own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request as HttpRequest, Response, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use keyward_model::Id;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, watch};

use super::answer::{Answer, Body, Form};
use super::limits::{Gate, Room};
use super::request::{Early, Face, Head, Request};
use super::tls::Acceptor;
use crate::api::native;
use crate::app::{App, Worker};
use crate::cluster::listener::{Knock, MemberConnection, Visitor};
use crate::cluster::{join, peer_unseal};
use crate::forward::{self, Line};
use crate::refusal::Refusal;
use crate::{jobs, pep};

/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted: there is no event for a descriptor that becomes free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that may wait to be accepted, per worker.
const BACKLOG: i32 = 1024;
/// Time for requests under way to end when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests at once on one link from another node.
const PASSED_ON_MAX: u32 = 1024;
/// Header fields of a request.
const HEADER_FIELDS_MAX: usize = 64;

/// What all workers need for serving.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The application.
    pub app: Arc<App>,
    /// TLS, or `None` for plain HTTP.
    pub tls: Option<Acceptor>,
    /// Whether this worker also runs the server's own jobs. One does.
    pub runs_jobs: bool,
    /// Turns true when the server stops.
    pub stop: watch::Receiver<bool>,
}

/// A listening socket that shares its port with the other workers.
///
/// # Errors
/// The address is in use or not this machine's.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves on the current thread until told to stop, then lets requests under way finish.
///
/// # Errors
/// The runtime cannot be made, the socket not registered, or the state database not opened.
pub fn run(serving: &Serving, listener: std::net::TcpListener) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let worker = Rc::new(Worker::new(Arc::clone(&serving.app)).map_err(io::Error::other)?);
    runtime.block_on(accept(serving.clone(), worker, listener))
}

async fn accept(serving: Serving, worker: Rc<Worker>, listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let begun = Rc::clone(&worker.begun);
    let mut doorbell = serving.app.cluster.doorbell();
    if serving.runs_jobs {
        drop(tokio::task::spawn_local(jobs::members::run(Rc::clone(&worker), serving.stop.clone())));
        drop(tokio::task::spawn_local(peer_unseal::asker::run(Rc::clone(&worker), serving.stop.clone())));
        drop(tokio::task::spawn_local(jobs::run(Rc::clone(&worker), serving.tls.clone(), serving.stop.clone())));
    }
    let mut stop = serving.stop.clone();
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or the peer is gone already: neither is a reason to stop serving.
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(knock) = doorbell.recv() => {
                drop(tokio::task::spawn_local(visit(Rc::clone(&worker), knock, graceful.watcher())));
                continue;
            }
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some(seat) = serving.app.gate.seat() else {
            tracing::warn!("a connection was closed: limits.connections_max is reached");
            continue;
        };
        let watcher = graceful.watcher();
        let (serving, worker) = (serving.clone(), Rc::clone(&worker));
        tokio::task::spawn_local(async move {
            let _seat = seat;
            drop(stream.set_nodelay(true));
            match &serving.tls {
                None => connection(worker, stream, Version::HTTP_11, peer.ip(), watcher).await,
                Some(acceptor) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        let version = if agreed { Version::HTTP_2 } else { Version::HTTP_11 };
                        connection(worker, stream, version, peer.ip(), watcher).await;
                    }
                    Ok(Err(error)) => tracing::debug!(error = %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!("TLS handshake took too long"),
                },
            }
        });
    }
    drop(listener);
    let all_ended = async {
        graceful.shutdown().await;
        begun.all_ended().await;
    };
    drop(tokio::time::timeout(STOP_TIMEOUT, all_ended).await);
    Ok(())
}

/// Somebody who came through the node port.
async fn visit(worker: Rc<Worker>, knock: Knock, watcher: Watcher) {
    let Some(trust) = worker.app.cluster.trust() else { return };
    match knock.admit(&trust, &worker.app.cluster.renewing).await {
        Ok(Visitor::Joining(connection)) => join::host::serve(&worker, connection).await,
        Ok(Visitor::Sealed(connection)) => peer_unseal::giver::serve(&worker, connection).await,
        Ok(Visitor::Forwarding(connection)) => passed_on(worker, connection, watcher).await,
        Err(error) => tracing::debug!(error = %error, "a connection to the node port was closed"),
    }
}

/// Requests that another node passes on to this one, which leads.
async fn passed_on(worker: Rc<Worker>, connection: MemberConnection, watcher: Watcher) {
    let MemberConnection { peer, stream, seats, .. } = connection;
    let limits = &worker.app.config.limits;
    let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX).saturating_mul(2))
        .max_concurrent_streams(PASSED_ON_MAX)
        .initial_connection_window_size(forward::LINK_WINDOW_BYTES)
        .initial_stream_window_size(forward::REQUEST_WINDOW_BYTES)
        .keep_alive_interval(Duration::from_secs(30));
    let service = service_fn(|request| {
        let worker = Rc::clone(&worker);
        async move { Ok::<_, std::convert::Infallible>(handle_passed_on(&worker, peer, request).await) }
    });
    if let Err(error) = watcher.watch(builder.serve_connection(TokioIo::new(stream), service)).await {
        tracing::debug!(error = %error, "a link from another node ended");
    }
    drop(seats);
}

/// One request that another node passed on. It saw to the limits; who calls stands in its own fields.
async fn handle_passed_on(worker: &Rc<Worker>, peer: u64, mut request: HttpRequest<Incoming>) -> Response<Body> {
    if request.uri().path() == forward::HEAD_PATH {
        let status = forward::take_head(worker, peer, request.into_body()).await;
        return Answer::empty(status).into_response(Id::ZERO, false);
    }
    let head = request.method() == Method::HEAD;
    let Some((source, id)) = forward::origin(request.headers_mut()) else {
        tracing::warn!(peer, "a request was passed on, and not as members do it");
        return Answer::empty(forward::NOT_LEADER).into_response(Id::ZERO, head);
    };
    worker.app.traffic.taken.note();
    let face = if native::claims(request.uri().path()) { Face::Native } else { Face::Compatible };
    match read(worker, request, id, source).await {
        Ok(request) => forward::settle_passed_on(worker, peer, &Rc::new(request)).await.into_response(id, head),
        Err(Early::Refused(refusal)) => {
            refuse(&pep::turn_away(worker, id, source, face, refusal).await, id, face, head)
        }
        // Whoever passed it on would have turned it away.
        Err(_) => refuse(&Refusal::MalformedSilent, id, face, head),
    }
}

async fn connection<S>(worker: Rc<Worker>, stream: S, version: Version, source: IpAddr, watcher: Watcher)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let limits = &worker.app.config.limits;
    let header_timeout = Duration::from_secs(limits.header_timeout_s);
    // The version is agreed before: waiting for the first bytes to tell it would be a wait without a limit.
    let mut builder = match version {
        Version::HTTP_2 => auto::Builder::new(LocalExecutor).http2_only(),
        _ => auto::Builder::new(LocalExecutor).http1_only(),
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(limits.header_bytes_max.max(8192))
        .max_headers(HEADER_FIELDS_MAX)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(64)
        .keep_alive_interval(Duration::from_secs(30));
    let asked = Rc::new(Notify::new());
    let first = Rc::clone(&asked);
    let service = service_fn(move |request| {
        let worker = Rc::clone(&worker);
        let request = if version == Version::HTTP_2 { request } else { detached(request) };
        asked.notify_one();
        async move { Ok::<_, std::convert::Infallible>(handle(worker, request, source).await) }
    });
    let mut served = pin!(watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()));
    let ended = if version == Version::HTTP_2 {
        // The library has no limit for this there: who answers pings could keep a seat without ever asking anything.
        tokio::select! {
            ended = &mut served => ended,
            asked = tokio::time::timeout(header_timeout, first.notified()) => match asked {
                Ok(()) => served.await,
                Err(_) => return tracing::debug!("a connection ended: no request came in time"),
            },
        }
    } else {
        served.await
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended early");
    }
}

/// A request without a body, with target and header values in memory of their own. WHY: as they come they are parts of the
/// connection's read buffer, and while one of them is held the library makes another buffer to see whether the client hangs
/// up: 8 KiB for each request, wiped afterwards. One with a body is left alone: the body is a part of the buffer, too.
fn detached<B: hyper::body::Body>(mut request: HttpRequest<B>) -> HttpRequest<B> {
    if !request.body().is_end_stream() {
        return request;
    }
    let target = request.uri().path_and_query().filter(|_| request.uri().authority().is_none());
    let target_bytes = target.map_or(0, |target| target.as_str().len());
    let values = request.headers().values().map(HeaderValue::len);
    let mut block = BytesMut::with_capacity(target_bytes + values.sum::<usize>());
    if let Some(target) = target {
        block.extend_from_slice(target.as_str().as_bytes());
        if let Ok(copy) = PathAndQuery::from_maybe_shared(block.split().freeze()) {
            *request.uri_mut() = Uri::from(copy);
        }
    }
    for value in request.headers_mut().values_mut() {
        block.extend_from_slice(value.as_bytes());
        if let Ok(copy) = HeaderValue::from_maybe_shared(block.split().freeze()) {
            *value = copy;
        }
    }
    request
}

/// One HTTP exchange.
async fn handle(worker: Rc<Worker>, request: HttpRequest<Incoming>, source: IpAddr) -> Response<Body> {
    let worker = &worker;
    let id = Id::random(worker.app.barrier.entropy());
    let head = request.method() == Method::HEAD;
    let face = if native::claims(request.uri().path()) { Face::Native } else { Face::Compatible };
    if let Err(seconds) = worker.app.gate.pass(source) {
        return refuse(&Refusal::TooMany(seconds), id, face, head);
    }
    if head_bytes(&request) > worker.app.config.limits.header_bytes_max {
        return head_too_large();
    }
    let namespace = request.headers().get("x-vault-namespace").filter(|name| !name.is_empty()).cloned();
    let method = request.method().clone();
    let line = Line { method: request.method().clone(), uri: request.uri().clone() };
    let mut response = match read(worker, request, id, source).await {
        Ok(mut request) => {
            forward::strip(&mut request.headers);
            forward::settle(worker, &line, &Rc::new(request)).await
        }
        Err(Early::Unprintable) => {
            drop(pep::turn_away(worker, id, source, face, Refusal::MalformedSilent).await);
            let mut response = Response::new(Body::default());
            *response.status_mut() = http::StatusCode::BAD_REQUEST;
            return response;
        }
        Err(Early::Broken) => {
            drop(pep::turn_away(worker, id, source, face, Refusal::MalformedSilent).await);
            return broken(head);
        }
        Err(Early::Elsewhere) => {
            refuse(&pep::turn_away(worker, id, source, face, Refusal::Absent).await, id, face, head)
        }
        Err(Early::Redirect(location)) => redirect(location, id, &method),
        Err(Early::Refused(refusal)) => {
            refuse(&pep::turn_away(worker, id, source, face, refusal).await, id, face, head)
        }
    };
    if let Some(namespace) = namespace {
        response.headers_mut().insert("x-vault-namespace", namespace);
    }
    response
}

/// Bytes of the request line and the header fields, as HTTP/1.1 writes them. The library stops reading at the limit only
/// between two reads, so that what it takes depends on how the bytes arrive; this is exact.
fn head_bytes(request: &HttpRequest<Incoming>) -> usize {
    let target = request.uri().path_and_query().map_or(1, |target| target.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    request.method().as_str().len() + target + 12 + fields.sum::<usize>()
}

/// As the library answers by itself: 431 without a body, and the connection ends.
fn head_too_large() -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Reads head and body, within the limits.
async fn read(worker: &Worker, request: HttpRequest<Incoming>, id: Id, source: IpAddr) -> Result<Request, Early> {
    let (limits, gate) = (&worker.app.config.limits, &worker.app.gate);
    let mut room = gate.room();
    let (parts, body) = request.into_parts();
    if parts.version == Version::HTTP_11 && parts.headers.get_all(header::HOST).iter().count() != 1 {
        return Err(Refusal::malformed("a request must have exactly one Host header").into());
    }
    let body = if body.is_end_stream() {
        Bytes::new()
    } else {
        if body.size_hint().lower() > limits.body_bytes_max as u64 {
            return Err(Refusal::TooLarge.into());
        }
        let collected = collect(body, limits.body_bytes_max, gate, &mut room);
        match tokio::time::timeout(Duration::from_secs(limits.body_timeout_s), collected).await {
            Ok(collected) => collected?,
            Err(_) => return Err(Refusal::malformed("the body took too long to arrive").into()),
        }
    };
    let head = Head::read(&parts.method, &parts.uri)?;
    Ok(head.with_body(id, worker.app.barrier.now(), parts.headers, body, source)?.in_room(room))
}

/// A body of at most `bytes_max`, which takes room as it arrives: what a client only announces holds up nobody.
async fn collect(mut body: Incoming, bytes_max: usize, gate: &Gate, room: &mut Room) -> Result<Bytes, Refusal> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::malformed("the body could not be read"))?;
        let Ok(piece) = frame.into_data() else { continue };
        let bytes = whole.len() + piece.len();
        if bytes > bytes_max {
            return Err(Refusal::TooLarge);
        }
        if !room.grow_to(bytes) {
            gate.refused.bodies.note();
            return Err(Refusal::Unavailable("too many request bodies are under way; try again".into()));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

fn refuse(refusal: &Refusal, id: Id, face: Face, head: bool) -> Response<Body> {
    let parts = refusal.parts();
    let answer = match (face, &parts.body) {
        (Face::Native, _) => native::problem(id, false, refusal),
        (Face::Compatible, Some(body)) => Answer::bare(parts.status, body),
        (Face::Compatible, None) => Answer::empty(parts.status),
    };
    let mut response = answer.into_response(id, head);
    if let Some(seconds) = parts.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if *refusal == Refusal::TooLarge {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn redirect(location: String, id: Id, method: &Method) -> Response<Body> {
    let page = format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escape_html(&location)).into_bytes();
    let mut response =
        Answer { status: 307, form: Form::Redirect(location, page) }.into_response(id, *method == Method::HEAD);
    if !matches!(*method, Method::GET | Method::HEAD) {
        *response.body_mut() = Body::default();
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// As Go's HTTP server answers to what is no request.
fn broken(head: bool) -> Response<Body> {
    let page = Form::Text("text/plain; charset=utf-8", b"400 Bad Request".to_vec());
    let mut response = Answer { status: 400, form: page }.into_response(Id::ZERO, head);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}

/// Runs hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_request_says_the_same_and_leaves_its_buffer_alone() {
        for target in ["/v1/secret/data/a%2Fb?version=2", "/", "http://host:1/v1/x?list=true", "*"] {
            let mut buffer = BytesMut::with_capacity(1024);
            let mut part = |text: &str| {
                buffer.extend_from_slice(text.as_bytes());
                buffer.split().freeze()
            };
            let request = HttpRequest::builder()
                .uri(Uri::from_maybe_shared(part(target)).unwrap())
                .header("x-vault-token", HeaderValue::from_maybe_shared(part("s.abc")).unwrap())
                .header("accept", HeaderValue::from_maybe_shared(part("a")).unwrap())
                .header("accept", HeaderValue::from_maybe_shared(part("b\u{e4}")).unwrap())
                .header("empty", HeaderValue::from_static(""))
                .body(Body::default())
                .unwrap();
            let (uri, headers) = (request.uri().to_string(), request.headers().clone());
            let request = detached(request);
            assert_eq!((request.uri().to_string(), request.headers()), (uri, &headers));
            drop(headers);
            // A whole address is rare enough to be left as it is.
            assert_eq!(buffer.try_reclaim(1024), !target.contains("host"), "{target}");
        }
    }
}
