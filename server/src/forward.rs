//! Where a request is answered: on this node, or by the leader.
//!
//! Reads are answered by whoever was asked, from a state that holds everything acknowledged before: the node asks for a
//! read point first. What may change something goes to the leader, over the link between the nodes, as it came; where
//! the caller is reached stands beside it in fields of ours, which no client can set. A request is passed on once.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use keyward_model::Id;
use keyward_raft::ReadError;
use tokio::time::{Instant, timeout, timeout_at};

use crate::app::Worker;
use crate::cluster::dialer::dial;
use crate::cluster::heads::{self, NotTaken};
use crate::cluster::rows;
use crate::cluster::tls::Lane;
use crate::http::answer::{Answer, Body};
use crate::http::request::Request;
use crate::http::serve::LocalExecutor;
use crate::pep::{self, Elsewhere};
use crate::refusal::Refusal;
use crate::repeat;

/// How long a request waits for a leader before its caller is told to come back.
const LEADER_WAIT: Duration = Duration::from_secs(2);
/// Pause before a leader that could not be reached is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Time for reaching the leader, and the pause after that did not work.
const DIAL_MAX: Duration = Duration::from_secs(1);
const DIAL_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How long the leader may take over a request that was passed on.
const ANSWER_WAIT: Duration = Duration::from_secs(90);
/// How long a link to the leader may be silent before it is asked whether it lives, and how long it may take to say so.
const LINK_SILENCE: Duration = Duration::from_secs(1);
/// Bytes that may be under way on one link, and for one request on it.
pub(crate) const LINK_WINDOW_BYTES: u32 = 8 << 20;
pub(crate) const REQUEST_WINDOW_BYTES: u32 = 1 << 20;

/// The status of a node that was taken for the leader and is not.
pub(crate) const NOT_LEADER: u16 = 421;
/// The status of a node that began a request with an id of its caller's, and does not know what became of it.
pub(crate) const OUTCOME_UNKNOWN: u16 = 425;
/// How long a request whose outcome is not known is begun again, in all.
const AGAIN_MAX: Duration = Duration::from_secs(10);

/// Where a node gives the head of its audit stream, and how that is answered.
const HEAD_URI: &str = "https://leader/node/audit-head";
pub(crate) const HEAD_PATH: &str = "/node/audit-head";
const HEAD_FOREIGN: u16 = 403;
const HEAD_CONTRADICTS: u16 = 409;
const HEAD_OLDER: u16 = 410;
const HEAD_FULL: u16 = 507;
/// Bytes of one.
const HEAD_BYTES_MAX: usize = 4096;
/// Time for its way to the leader and back.
const HEAD_WAIT: Duration = Duration::from_secs(5);

/// Fields that hold a secret.
const SECRETS: [HeaderName; 3] =
    [HeaderName::from_static("x-vault-token"), header::AUTHORIZATION, HeaderName::from_static("x-vault-mfa")];
/// The caller's address, as the node that was asked saw it.
pub(crate) const CLIENT: HeaderName = HeaderName::from_static("x-keyward-client");
/// The id that the node which was asked gave the request.
pub(crate) const REQUEST: HeaderName = HeaderName::from_static("x-keyward-request");
/// What a caller asks of a read: `stale` is answered at once from what this node has, if that is not too old.
const CONSISTENCY: HeaderName = HeaderName::from_static("x-keyward-consistency");
/// How old it may be, in milliseconds.
const AGE_MAX: HeaderName = HeaderName::from_static("x-keyward-max-age-ms");
/// In the answer: how old it may be.
const AGE: HeaderName = HeaderName::from_static("x-keyward-age-ms");
/// How old it may be where the caller does not say.
const AGE_MAX_DEFAULT_MS: u64 = 10_000;

/// The request line as it came: a request that is passed on is written as it was read.
#[derive(Debug)]
pub(crate) struct Line {
    /// The verb.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) uri: Uri,
}

/// Answers a request that came from a client, on whichever node is the right one.
pub(crate) async fn settle(worker: &Rc<Worker>, line: &Line, request: &Rc<Request>) -> Response<Body> {
    match try_settle(worker, line, request).await {
        Ok(response) => response,
        Err(refusal) => {
            let answer = Box::pin(pep::refuse(worker, request, &refusal)).await;
            let mut response = answer.into_response(request.id, request.head);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
    }
}

async fn try_settle(worker: &Rc<Worker>, line: &Line, request: &Rc<Request>) -> Result<Response<Body>, Refusal> {
    let node = worker.app.barrier.node();
    let here = |answer: Answer| answer.into_response(request.id, request.head);
    if node.is_alone() || request.is_local() || worker.app.barrier.is_sealed() {
        return pep::enforce(worker, request).await.map(here).map_err(refusal_of);
    }
    let begun = Instant::now();
    let mut until = begun + LEADER_WAIT;
    // What it ends with if no node takes it.
    let mut last = Elsewhere::NotLeader;
    let mut leadership = node.leadership();
    let mut needs_leader = request.needs_leader();
    loop {
        let seen = *leadership.borrow_and_update();
        if needs_leader && !seen.leads {
            if let Some(leader) = seen.leader {
                // Boxed: it is large, and would be moved with every request.
                match Box::pin(worker.forwarder.send(worker, leader, line, request, until)).await {
                    Ok(response) => {
                        let (status, body) = (response.status().as_u16(), response.body());
                        if last == Elsewhere::OutcomeUnknown && !repeat::settles(status, body) {
                            return Err(Refusal::OutcomeUnknown);
                        }
                        return Ok(response.map(Full::new));
                    }
                    Err(Elsewhere::OutcomeUnknown) if !may_ask_again(worker, request) => {
                        return Err(Refusal::OutcomeUnknown);
                    }
                    Err(Elsewhere::OutcomeUnknown) => last = Elsewhere::OutcomeUnknown,
                    Err(Elsewhere::NotLeader) => {}
                }
            }
        } else if let Some(age_ms) = reach(worker, request).await.map_err(|refusal| ending(last, refusal))? {
            match pep::enforce(worker, request).await {
                Ok(answer) => {
                    if last == Elsewhere::OutcomeUnknown && !repeat::settles(answer.status, &answer.body(request.id)) {
                        return Err(Refusal::OutcomeUnknown);
                    }
                    let mut response = here(answer);
                    if age_ms > 0 {
                        response.headers_mut().insert(AGE, HeaderValue::from(age_ms));
                    }
                    return Ok(response);
                }
                // It may have turned out to change something: a read that takes a use of its token.
                Err(Elsewhere::NotLeader) if !needs_leader => {
                    needs_leader = true;
                    continue;
                }
                Err(Elsewhere::NotLeader) => {}
                Err(Elsewhere::OutcomeUnknown) => last = Elsewhere::OutcomeUnknown,
            }
        }
        if last == Elsewhere::OutcomeUnknown {
            // Whoever leads next knows it by its id: to ask there is better than to leave it open.
            until = until.max((Instant::now() + LEADER_WAIT).min(begun + AGAIN_MAX));
        }
        let changed = leadership.wait_for(|now| *now != seen);
        let pause = until.min(Instant::now() + AGAIN_AFTER);
        // A leader that cannot be reached may be back before anything changes here.
        let looked_again = matches!(timeout_at(pause, changed).await, Ok(Ok(_))) || Instant::now() < until;
        if !looked_again {
            return Err(refusal_of(last));
        }
    }
}

/// What a request ends with that is refused here: once its outcome is open, no refusal closes it.
fn ending(last: Elsewhere, refusal: Refusal) -> Refusal {
    if last == Elsewhere::OutcomeUnknown { Refusal::OutcomeUnknown } else { refusal }
}

/// Whether a request whose outcome is not known may be asked for again: it is found by its caller's id, below a token that
/// each time would not take a use of.
fn may_ask_again(worker: &Worker, request: &Request) -> bool {
    let session = || request.token().and_then(|token| worker.session(token).ok().flatten());
    request.callers_id.is_some() && session().is_some_and(|session| session.token.uses == 0)
}

fn refusal_of(elsewhere: Elsewhere) -> Refusal {
    match elsewhere {
        Elsewhere::NotLeader => Refusal::NotLeader,
        Elsewhere::OutcomeUnknown => Refusal::OutcomeUnknown,
    }
}

/// Answers a request that the node `peer` passed on, with a status of ours if this one does not lead, that one is not a
/// member, or the outcome is not known and it may be begun again.
pub(crate) async fn settle_passed_on(worker: &Rc<Worker>, peer: u64, request: &Rc<Request>) -> Answer {
    match try_settle_passed_on(worker, peer, request).await {
        Ok(answer) => answer,
        Err(Elsewhere::NotLeader) => Answer::empty(NOT_LEADER),
        Err(Elsewhere::OutcomeUnknown) => Answer::empty(OUTCOME_UNKNOWN),
    }
}

/// Takes the head of the audit stream of the node `peer`; gives the status.
pub(crate) async fn take_head(worker: &Worker, peer: u64, body: Incoming) -> u16 {
    let node = worker.app.barrier.node();
    let Ok(text) = Limited::new(body, HEAD_BYTES_MAX).collect().await else { return HEAD_FOREIGN };
    if !node.leads() || worker.app.barrier.is_sealed() {
        return NOT_LEADER;
    }
    match heads::take(worker, peer, &text.to_bytes()).await {
        Ok(()) => 204,
        Err(NotTaken::Refused(_)) => NOT_LEADER,
        Err(NotTaken::Older) => {
            tracing::debug!(peer, "an older head of a node's audit stream than the one that is known");
            HEAD_OLDER
        }
        Err(refused) => {
            let peer = format!("{peer:016x}");
            tracing::error!(peer, ?refused, "the head of a node's audit stream is not taken: compare its files");
            match refused {
                NotTaken::Contradicts => HEAD_CONTRADICTS,
                NotTaken::Full => HEAD_FULL,
                NotTaken::Foreign | NotTaken::Older | NotTaken::Refused(_) => HEAD_FOREIGN,
            }
        }
    }
}

async fn try_settle_passed_on(worker: &Rc<Worker>, peer: u64, request: &Rc<Request>) -> Result<Answer, Elsewhere> {
    let node = worker.app.barrier.node();
    if !node.leads() || worker.app.barrier.is_sealed() || !matches!(reach(worker, request).await, Ok(Some(_))) {
        return Err(Elsewhere::NotLeader);
    }
    // It may have joined, or been removed, a moment ago: the newest state says so.
    if !matches!(rows::node(worker.reader(), peer), Ok(Some(_))) {
        return Err(Elsewhere::NotLeader);
    }
    pep::enforce(worker, request).await
}

/// Waits until this node's state holds everything acknowledged before, and gives 0; or gives, to a caller who takes that,
/// how many milliseconds it may be behind. `None` if nobody leads who could tell.
async fn reach(worker: &Worker, request: &Request) -> Result<Option<u64>, Refusal> {
    let node = worker.app.barrier.node();
    if request.needs_leader() && pep::led_term(worker, request).is_some() {
        // WHY: what it commits shows that this node leads, and costs no question of its own; the PEP asks it for the rest.
        return Ok(Some(0));
    }
    if !node.leads() && request.headers.get(&CONSISTENCY).is_some_and(|value| value == "stale") {
        let age_ms = node.age().map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)).max(1);
        let wanted = request.headers.get(&AGE_MAX).and_then(|value| value.to_str().ok()?.parse().ok());
        if age_ms <= wanted.unwrap_or(AGE_MAX_DEFAULT_MS) {
            return Ok(Some(age_ms));
        }
    }
    let traffic = &worker.app.traffic;
    traffic.read_points.note();
    let reached = node.read_point_for(worker.desk.arrivals()).await;
    if reached.is_err() {
        traffic.read_points_missed.note();
    }
    match reached {
        Ok(()) => Ok(Some(0)),
        Err(ReadError::NoLeader) => Ok(None),
        Err(ReadError::Timeout | ReadError::Stopped) => Err(Refusal::NotLeader),
    }
}

/// This thread's link to the leader.
#[derive(Default)]
pub(crate) struct Forwarder {
    link: RefCell<Option<Link>>,
    dialing: tokio::sync::Mutex<()>,
    /// The leader that could not be reached last, and when.
    failed: Cell<Option<(u64, Instant)>>,
}

struct Link {
    leader: u64,
    sender: SendRequest<Full<Bytes>>,
}

impl Forwarder {
    async fn send(
        &self,
        worker: &Worker,
        leader: u64,
        line: &Line,
        request: &Request,
        until: Instant,
    ) -> Result<Response<Bytes>, Elsewhere> {
        let linked = timeout_at(until, self.link_to(worker, leader)).await.ok().flatten();
        let sent = match linked {
            Some(sender) => try_send(worker, sender, line, request).await,
            None => Err(Elsewhere::NotLeader),
        };
        if sent.is_err() {
            worker.app.traffic.link_failures.note();
        }
        sent?.ok_or(Elsewhere::NotLeader)
    }

    /// Gives the leader the head of this node's audit stream.
    pub(crate) async fn give_head(&self, worker: &Worker, leader: u64, text: &str) -> Result<(), NotTaken> {
        let unreached = || NotTaken::Refused(Refusal::NotLeader);
        let mut sender = self.link_to(worker, leader).await.ok_or_else(unreached)?;
        let mut request = HttpRequest::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(HEAD_URI);
        let response = timeout(HEAD_WAIT, sender.send_request(request)).await.ok().and_then(Result::ok);
        match response.ok_or_else(unreached)?.status().as_u16() {
            204 => Ok(()),
            HEAD_FOREIGN => Err(NotTaken::Foreign),
            HEAD_CONTRADICTS => Err(NotTaken::Contradicts),
            HEAD_OLDER => Err(NotTaken::Older),
            HEAD_FULL => Err(NotTaken::Full),
            _ => Err(unreached()),
        }
    }

    fn open_link(&self, leader: u64) -> Option<SendRequest<Full<Bytes>>> {
        let link = self.link.borrow();
        link.as_ref().filter(|link| link.leader == leader && !link.sender.is_closed()).map(|link| link.sender.clone())
    }

    async fn link_to(&self, worker: &Worker, leader: u64) -> Option<SendRequest<Full<Bytes>>> {
        if let Some(sender) = self.open_link(leader) {
            return Some(sender);
        }
        let _turn = self.dialing.lock().await;
        if let Some(sender) = self.open_link(leader) {
            return Some(sender);
        }
        // Whoever waited meanwhile need not find out anew that nobody is there, or that another one leads.
        let failed_lately = |(node, at): (u64, Instant)| node == leader && at.elapsed() < DIAL_AGAIN_AFTER;
        let still_leads = worker.app.barrier.node().leadership().borrow().leader == Some(leader);
        if !still_leads || self.failed.get().is_some_and(failed_lately) {
            return None;
        }
        let trust = worker.app.cluster.trust()?;
        let address = rows::node(worker.reader(), leader).ok().flatten()?.node_address;
        let dialled = timeout(DIAL_MAX, dial(&trust, Lane::Api, leader, &address)).await;
        let stream = match dialled.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(leader, error = %error, "the leader cannot be reached");
                self.failed.set(Some((leader, Instant::now())));
                return None;
            }
        };
        let mut builder = http2::Builder::new(LocalExecutor);
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(LINK_SILENCE)
            .keep_alive_timeout(LINK_SILENCE)
            .initial_connection_window_size(LINK_WINDOW_BYTES)
            .initial_stream_window_size(REQUEST_WINDOW_BYTES);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.ok()?;
        drop(tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "the link to the leader ended");
            }
        }));
        *self.link.borrow_mut() = Some(Link { leader, sender: sender.clone() });
        Some(sender)
    }
}

/// Sends a request over a link and waits for the answer. `None` if who was taken for the leader says that it is not.
async fn try_send(
    worker: &Worker,
    mut sender: SendRequest<Full<Bytes>>,
    line: &Line,
    request: &Request,
) -> Result<Option<Response<Bytes>>, Elsewhere> {
    let forwarded = rewritten(line, request).ok_or(Elsewhere::NotLeader)?;
    worker.app.traffic.passed_on.note();
    let response = match timeout(ANSWER_WAIT, sender.try_send_request(forwarded)).await {
        Ok(Ok(response)) => response,
        Ok(Err(mut error)) => {
            tracing::debug!(error = %error.error(), "a request could not be passed on");
            let unsent = error.take_message().is_some();
            return Err(if unsent { Elsewhere::NotLeader } else { Elsewhere::OutcomeUnknown });
        }
        Err(_) => return Err(Elsewhere::OutcomeUnknown),
    };
    match response.status().as_u16() {
        NOT_LEADER => return Ok(None),
        OUTCOME_UNKNOWN => return Err(Elsewhere::OutcomeUnknown),
        _ => {}
    }
    let (parts, body) = response.into_parts();
    let body = timeout(ANSWER_WAIT, body.collect()).await.ok().and_then(Result::ok).ok_or(Elsewhere::OutcomeUnknown)?;
    Ok(Some(Response::from_parts(parts, body.to_bytes())))
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").finish_non_exhaustive()
    }
}

/// The request as it goes over the link.
fn rewritten(line: &Line, request: &Request) -> Option<HttpRequest<Full<Bytes>>> {
    let mut headers = request.headers.clone();
    for hop in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::TRAILER] {
        headers.remove(hop);
    }
    headers.remove(HeaderName::from_static("keep-alive"));
    headers.remove(HeaderName::from_static("proxy-connection"));
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    // WHY: a link keeps a table of header fields, on both sides. Secrets stay out of it; and what is in it has memory of its
    // own, or it would keep that of a secret beside it.
    for (name, value) in &mut headers {
        let mut own = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        own.set_sensitive(SECRETS.contains(name));
        *value = own;
    }
    headers.insert(CLIENT, HeaderValue::from_str(&request.source.to_string()).ok()?);
    headers.insert(REQUEST, HeaderValue::from_str(&request.id.to_uuid()).ok()?);
    let path = line.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme("https").authority("leader").path_and_query(path).build().ok()?;
    let mut forwarded = HttpRequest::new(Full::new(request.body.clone()));
    *forwarded.method_mut() = line.method.clone();
    *forwarded.uri_mut() = uri;
    *forwarded.headers_mut() = headers;
    Some(forwarded)
}

/// Takes our fields out of a request that came over a link: who called, and the request's id.
pub(crate) fn origin(headers: &mut HeaderMap) -> Option<(IpAddr, Id)> {
    let client = headers.remove(CLIENT)?.to_str().ok()?.parse().ok()?;
    let id = Id::from_uuid(headers.remove(REQUEST)?.to_str().ok()?)?;
    Some((client, id))
}

/// Takes them out of a request that came from a client: they say nothing there.
pub(crate) fn strip(headers: &mut HeaderMap) {
    headers.remove(CLIENT);
    headers.remove(REQUEST);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_a_node, request};

    #[test]
    fn secrets_stay_out_of_a_links_table() {
        on_a_node(async |worker, _| {
            let mut asked = request(worker, "root", "GET", "secret/data/s", "");
            asked.headers.append("x-vault-token", HeaderValue::from_static("other"));
            asked.headers.append("authorization", HeaderValue::from_static("Bearer root"));
            asked.headers.append("user-agent", HeaderValue::from_static("agent"));
            let line = Line { method: Method::GET, uri: Uri::from_static("/v1/secret/data/s") };
            let forwarded = rewritten(&line, &asked).unwrap();
            let marked = forwarded.headers().iter().filter(|(_, value)| value.is_sensitive());
            let mut marked: Vec<_> = marked.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
            marked.sort_unstable();
            let expected = [("authorization", "Bearer root"), ("x-vault-token", "other"), ("x-vault-token", "root")];
            assert_eq!(marked, expected);
            assert_eq!(forwarded.headers()["user-agent"], "agent");
        });
    }

    #[test]
    fn a_request_is_light() {
        on_a_node(async |worker, _| {
            let asked = Rc::new(request(worker, "root", "GET", "secret/data/s", ""));
            let line = Line { method: Method::GET, uri: Uri::from_static("/v1/secret/data/s") };
            let bytes = size_of_val(&settle(worker, &line, &asked));
            assert!(bytes <= 3 << 10, "{bytes} bytes move with each request: box what is rare");
        });
    }
}
