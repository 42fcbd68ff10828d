//! The policy enforcement point: the life of a request, on one page.
//!
//! Six steps, in this order, for every request of every face. Each step consumes the proof that the one before made;
//! the proofs have private fields, so that no other file can make one or skip a step. Refusals take the same road: one
//! place records them, one place renders them.
//!
//! ```compile_fail
//! // A permit cannot be made outside of this file.
//! let permit = keyward_server::pep::Permit { caller: unreachable!(), target: unreachable!(), verdict: unreachable!() };
//! ```

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use keyward_model::Id;

use keyward_model::event::{EventKind, EventOutcome};
use keyward_policy::{Acl, Ask, KeysFilter, Operation, Verdict};

use crate::api::{self, Context, native};
use crate::app::Worker;
use crate::authn::token::{self, Session};
use crate::http::answer::Answer;
use crate::http::fields::Params;
use crate::http::request::{Face, Request};
use crate::mounts::Mount;
use crate::record::{Facts, Receipt};
use crate::refusal::Refusal;
use crate::repeat::Mark;

/// A term in which nobody leads: what is found in a state that lacks something is neither told nor committed.
const NO_TERM: u64 = 0;
/// How long a leader's state must have lacked something before it is told to step down all the same. Just elected it lacks
/// something for a moment, and that may be the end of the token that asks.
pub(crate) const UNSETTLED_MIN: Duration = Duration::from_secs(8);

/// Step 1's proof: who is calling.
#[derive(Debug)]
pub struct Caller {
    session: Option<Arc<Session>>,
    /// The token's uses are limited, and this request is one.
    counts: bool,
    /// This request took the token's last use: the token ends with it.
    last_use: bool,
}

/// Step 2's proof: what is called, in the one form that policy, audit and store all use.
#[derive(Debug)]
pub struct Target {
    mount: Option<Arc<Mount>>,
    /// The generation of the mounts in which it was found.
    mounts_generation: u64,
    rest: usize,
    door: Door,
    /// A call of the native face, with the path and the operation that policies decide about in its place.
    call: Option<native::Call>,
}

/// Step 3's proof: it may be done.
#[derive(Debug)]
pub struct Permit {
    caller: Caller,
    target: Target,
    /// Only because the same was done before: nothing may be done, the caller may be told so.
    again: bool,
    sudo: bool,
    pagination_limit: Option<u64>,
    keys_filter: Option<KeysFilter>,
}

/// Step 5's result: an answer that nobody sees without a receipt.
#[derive(Debug)]
pub struct Undisclosed {
    answer: Answer,
    receipt: Option<Receipt>,
}

/// How a path is guarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// Needs a token and a policy.
    Guarded,
    /// The handler judges the token itself.
    Own,
    /// The PEP asks for no token: status, init, unseal. Of what an operator does there (seal, step down) the handler demands
    /// one while the server is unsealed.
    Open,
}

/// What carries a request's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Footing {
    /// The connection: when the client hangs up, the life ends where it stands.
    Connection,
    /// A task of its own, which goes on to the end.
    Task,
}

/// There is no answer from here, and no record: another node is to be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Elsewhere {
    /// This node does not lead and the request needs one that does. Nothing was changed.
    NotLeader,
    /// The request was begun here, and what became of it is not known. It has an id of its caller's, so that another node
    /// may begin it again.
    OutcomeUnknown,
}

/// How a life ended.
enum Ending {
    Answered(Answer),
    /// It needs a task of its own, and nothing was done yet.
    NeedsTask,
    Elsewhere(Elsewhere),
}

/// The life of a request. What may change something is done to its end, even if nobody waits for the answer any more.
/// Answers with what was done, with the refusal, or, where that cannot be recorded, with that instead.
///
/// # Errors
/// [`Elsewhere`]: another node is to be asked.
pub async fn enforce(worker: &Rc<Worker>, request: &Rc<Request>) -> Result<Answer, Elsewhere> {
    let mut ending = Ending::NeedsTask;
    if !request.may_change() {
        ending = live(worker, request, Footing::Connection).await;
    }
    if matches!(ending, Ending::NeedsTask) {
        let (of_task, asked) = (Rc::clone(worker), Rc::clone(request));
        let task = async move { live(&of_task, &asked, Footing::Task).await };
        ending = worker.begun.run(task).await.unwrap_or(Ending::NeedsTask);
    }
    match ending {
        Ending::Answered(answer) => Ok(answer),
        Ending::Elsewhere(elsewhere) => Err(elsewhere),
        Ending::NeedsTask => Ok(api::render_refusal(request, &Refusal::internal("the request's task did not end"))),
    }
}

/// All steps, with the record of a refusal.
async fn live(worker: &Worker, request: &Request, footing: Footing) -> Ending {
    let facts =
        RefCell::new(Facts::new(request.id, request.received, Some(request.source), api::channel(request.face)));
    if speaks_for_all(worker, request) {
        let Some(term) = led_term(worker, request) else { return Ending::Elsewhere(Elsewhere::NotLeader) };
        facts.borrow_mut().term = Some(term);
    }
    let ended = match steps(worker, request, &facts, footing).await {
        // Neither says anything of the state; and what may have been done must never look as if it was not.
        Err(refusal @ (Refusal::NotLeader | Refusal::OutcomeUnknown)) => Err(refusal),
        Err(refusal) => confirm(worker, &facts).await.and(Err(refusal)),
        ended => ended,
    };
    match ended {
        Ok(Some(answer)) => Ending::Answered(answer),
        Ok(None) => Ending::NeedsTask,
        Err(Refusal::NotLeader) if untouched(&facts) => Ending::Elsewhere(Elsewhere::NotLeader),
        // The write that counts is recognised by its id, should it have been done.
        Err(Refusal::NotLeader | Refusal::OutcomeUnknown) if may_begin_again(request, &facts) => {
            Ending::Elsewhere(Elsewhere::OutcomeUnknown)
        }
        // One of its writes is done and the next one was not taken: to begin anew would do the first one twice.
        Err(Refusal::NotLeader) => Ending::Answered(Box::pin(refuse(worker, request, &Refusal::OutcomeUnknown)).await),
        Err(Refusal::AuditUnavailable) if facts.borrow().begun => {
            Ending::Answered(Box::pin(refuse(worker, request, &Refusal::OutcomeUnknown)).await)
        }
        Err(refusal) => Ending::Answered(tell(worker, request, &facts.into_inner(), &refusal).await),
    }
}

/// The term in which this node leads and may answer the request without a read point before; none that is one, for what any
/// leader takes, from one whose state has lacked something for long.
pub(crate) fn led_term(worker: &Worker, request: &Request) -> Option<u64> {
    let node = worker.app.barrier.node();
    let is_stuck = || node.unsettled_for().is_some_and(|time| time >= UNSETTLED_MIN);
    node.settled_term().or_else(|| (api::is_for_any_leader(request) && is_stuck()).then_some(NO_TERM))
}

/// Whether this node answers as the leader, without a read point before: what it says has to be of the term in which it leads.
fn speaks_for_all(worker: &Worker, request: &Request) -> bool {
    let barrier = &worker.app.barrier;
    request.needs_leader() && !request.is_local() && !barrier.node().is_alone() && !barrier.is_sealed()
}

/// Makes sure that what the leader is about to say was true while the request was under way: it is of the state of a term,
/// which another leader may have left behind. What committed something needs no more: only who leads can commit.
async fn confirm(worker: &Worker, facts: &RefCell<Facts>) -> Result<(), Refusal> {
    let term = facts.borrow().term;
    if term.is_none() || !untouched(facts) {
        return Ok(());
    }
    let node = worker.app.barrier.node();
    let leads_on = node.read_point_for(worker.desk.arrivals()).await.is_ok() && node.settled_term() == term;
    if leads_on { Ok(()) } else { Err(Refusal::NotLeader) }
}

/// Whether nothing was changed for a request so far, not even its token.
fn untouched(facts: &RefCell<Facts>) -> bool {
    let facts = facts.borrow();
    !facts.begun && !facts.use_taken
}

/// Whether a request that was begun may be begun again: it has an id of its caller's, by which what was done is found, and
/// took no use of a token. Without a token nothing is kept under the id.
fn may_begin_again(request: &Request, facts: &RefCell<Facts>) -> bool {
    let facts = facts.borrow();
    request.callers_id.is_some() && facts.token.is_some() && !facts.use_taken
}

/// The end of a request that no node can take at the moment: recorded and told here.
pub async fn refuse(worker: &Worker, request: &Request, refusal: &Refusal) -> Answer {
    let facts = Facts::new(request.id, request.received, Some(request.source), api::channel(request.face));
    tell(worker, request, &facts, refusal).await
}

/// Records a refusal and renders it. Where it cannot be recorded the caller learns that, unless something was done or may
/// have been: to hear that nothing was done would be wrong then.
async fn tell(worker: &Worker, request: &Request, facts: &Facts, refusal: &Refusal) -> Answer {
    match record_refusal(worker, facts, refusal).await {
        Ok(_) => api::render_refusal(request, refusal),
        Err(_) if facts.begun || matches!(refusal, Refusal::Repeated(_) | Refusal::OutcomeUnknown) => {
            api::render_refusal(request, &Refusal::OutcomeUnknown)
        }
        Err(unavailable) => api::render_refusal(request, &unavailable),
    }
}

/// The same end for what never became a request: malformed, too large, elsewhere.
pub async fn turn_away(worker: &Worker, id: Id, source: IpAddr, face: Face, refusal: Refusal) -> Refusal {
    let mut facts = Facts::new(id, worker.app.barrier.now(), Some(source), api::channel(face));
    facts.kind = EventKind::UriRejected;
    match record_refusal(worker, &facts, &refusal).await {
        Ok(_) => refusal,
        Err(unavailable) => unavailable,
    }
}

async fn steps(
    worker: &Worker,
    request: &Request,
    facts: &RefCell<Facts>,
    footing: Footing,
) -> Result<Option<Answer>, Refusal> {
    let params = request.parameters()?;
    let params = &params;
    let door = api::door(request, &worker.app.config.listen);
    let caller = authenticate(worker, request, params, door, facts)?;
    if caller.counts && footing == Footing::Connection {
        return Ok(None); // to take a use is a change
    }
    let caller = if caller.counts { Box::pin(count_use(worker, caller, facts)).await? } else { caller };
    let spent = caller.last_use.then(|| caller.session.clone()).flatten();
    let permit = canonicalise(worker, request, params, door, facts)
        .and_then(|target| decide(worker, request, params, caller, target));
    let outcome = match permit {
        Ok(permit) => finish(worker, request, params, permit, facts).await,
        Err(refusal) => Err(refusal),
    };
    if let Some(session) = spent {
        // The answer stands: nobody can use the token any more, and what is left of it is a row.
        if let Err(refusal) = Box::pin(end_spent(worker, request, &session)).await {
            tracing::warn!(request.id = %request.id, ?refusal, "a token stays in its row after its last use");
        }
    }
    outcome.map(Some)
}

async fn finish(
    worker: &Worker,
    request: &Request,
    params: &Params<'_>,
    permit: Permit,
    facts: &RefCell<Facts>,
) -> Result<Answer, Refusal> {
    let effect = act(worker, request, params, &permit, facts).await?;
    confirm(worker, facts).await?;
    let (receipt, answer) = record(worker, request, effect, facts, &permit).await?;
    Ok(respond(answer, receipt))
}

/// Step 1. A token is looked up by its keyed hash; an expired or spent one is none. Counts a use where uses are limited.
fn authenticate(
    worker: &Worker,
    request: &Request,
    params: &Params<'_>,
    door: Door,
    facts: &RefCell<Facts>,
) -> Result<Caller, Refusal> {
    if door == Door::Open {
        return Ok(Caller { session: None, counts: false, last_use: false });
    }
    if worker.app.barrier.is_sealed() {
        return Err(Refusal::Sealed);
    }
    if worker.app.cluster.is_recovering() {
        return Err(Refusal::Unavailable("this node is about to go on alone; try again in a moment".into()));
    }
    let session = match request.token() {
        Some(token) => worker.session(token)?,
        None => None,
    };
    // The record says who called, whatever becomes of the rest.
    facts.borrow_mut().token = session.as_ref().map(|session| Arc::clone(&session.name));
    if request.is_for_namespace() {
        return Err(Refusal::AbsentBecause("namespace not found".into()));
    }
    if matches!(request.operation, Operation::Update | Operation::Patch) && request.path.ends_with('/') {
        return Err(Refusal::malformed("cannot write to a path ending in '/'"));
    }
    api::check_before_token(worker, request, params, &mut facts.borrow_mut())?;
    let Some(session) = session else {
        return if door == Door::Own {
            Ok(Caller { session: None, counts: false, last_use: false })
        } else {
            Err(Refusal::Unauthenticated)
        };
    };
    let counts = session.token.uses != 0 && api::counts_a_use(request, params, &session.token);
    Ok(Caller { session: Some(session), counts, last_use: false })
}

/// Step 2. Text and the table of mounts only; whether the thing exists plays no part. (The native face also finds the
/// path that an id stands for; an id that stands for none is refused like one that may not be used.)
fn canonicalise(
    worker: &Worker,
    request: &Request,
    params: &Params<'_>,
    door: Door,
    facts: &RefCell<Facts>,
) -> Result<Target, Refusal> {
    if door == Door::Open {
        return Ok(Target { mount: None, mounts_generation: 0, rest: 0, door, call: None });
    }
    if request.face == Face::Native {
        let mounts_generation = worker.tables()?.mounts_generation;
        let call = native::Call::read(worker, request, params, &mut facts.borrow_mut())?;
        return Ok(Target { mount: call.place.mount.clone(), mounts_generation, rest: 0, door, call: Some(call) });
    }
    let tables = worker.tables()?;
    let (mount, rest) = match tables.mounts.resolve(&request.path) {
        Some((mount, rest)) => (Some(Arc::clone(mount)), request.path.len() - rest.len()),
        None => (None, 0),
    };
    let target = Target { mount, mounts_generation: tables.mounts_generation, rest, door, call: None };
    api::describe(worker, request, target.mount.as_deref(), &mut facts.borrow_mut());
    Ok(target)
}

/// Step 3. The token's policies; a path that needs `sudo` needs it in addition. No rule: no.
fn decide(
    worker: &Worker,
    request: &Request,
    params: &Params<'_>,
    caller: Caller,
    target: Target,
) -> Result<Permit, Refusal> {
    if target.door != Door::Guarded {
        return Ok(Permit { caller, target, again: false, sudo: false, pagination_limit: None, keys_filter: None });
    }
    let Some(session) = &caller.session else { return Err(Refusal::Unauthenticated) };
    let compiled = worker.acl(session)?;
    let acl = &compiled.1;
    let mut again = false;
    let verdict = match (&target.call, request.operation, &target.mount) {
        (Some(call), ..) => acl.decide(&Ask {
            operation: call.asked.operation,
            path: &call.asked.path,
            parameters: Some(&call.parameters(params)),
            wrap_ttl: None,
        }),
        (None, Operation::Update, Some(mount)) => {
            let rest = request.path.get(target.rest..).unwrap_or_default();
            let operation = api::create_or_update(worker, request, params, mount, rest, acl)?;
            let mut verdict = judge(acl, request, params, operation);
            // What it made is there by now. Whoever may only make it is still told that it was done.
            if !verdict.allowed && matches!(Mark::find(worker, request, &session.key), Ok((_, Some(_)))) {
                again = true;
                let other = if operation == Operation::Create { Operation::Update } else { Operation::Create };
                verdict = judge(acl, request, params, other);
            }
            verdict
        }
        (None, operation, _) => judge(acl, request, params, operation),
    };
    if !verdict.allowed {
        return Err(Refusal::Denied);
    }
    let (pagination_limit, keys_filter) = (verdict.pagination_limit, verdict.keys_filter.cloned());
    Ok(Permit { caller, target, again, sudo: verdict.sudo, pagination_limit, keys_filter })
}

/// Asks the ACL about one operation on the request's path.
pub fn judge<'a>(acl: &'a Acl, request: &Request, params: &Params<'_>, operation: Operation) -> Verdict<'a> {
    acl.decide(&Ask { operation, path: &request.path, parameters: Some(params), wrap_ttl: request.wrap_ttl })
}

/// Step 5. Reads compute, writes commit with their intent. What comes out is not seen before step 4's receipt.
async fn act(
    worker: &Worker,
    request: &Request,
    params: &Params<'_>,
    permit: &Permit,
    facts: &RefCell<Facts>,
) -> Result<Undisclosed, Refusal> {
    let context = Context::new(worker, request, params, permit, facts);
    // Reads are answered on the spot. What may wait has a future of its own: it is large, and moved with every request
    // if it is part of this one.
    let acted = match api::act_now(&context) {
        Some(answer) => answer,
        None => match context.refuse_again() {
            Ok(()) if permit.again => Err(Refusal::Denied), // it was forgotten meanwhile
            Ok(()) => Box::pin(api::act(&context)).await,
            Err(refusal) => Err(refusal),
        },
    };
    let answer = match acted {
        Err(Refusal::Repeated(done)) => context.answer_again(done)?,
        acted => acted?,
    };
    let answer = match request.wrap_ttl {
        Some(_) if permit.session().is_some() => Box::pin(api::wrapping::wrap_if_asked(&context, answer)).await?,
        _ => answer,
    };
    Ok(Undisclosed { answer, receipt: context.into_receipt() })
}

/// Step 4. For what changed nothing, and for what is about to be disclosed: the record is durable before the answer.
async fn record(
    worker: &Worker,
    request: &Request,
    effect: Undisclosed,
    facts: &RefCell<Facts>,
    permit: &Permit,
) -> Result<(Receipt, Answer), Refusal> {
    let Undisclosed { answer, receipt } = effect;
    if let Some(receipt) = receipt {
        return Ok((receipt, answer));
    }
    if permit.target.door == Door::Open && api::is_open_status(request) {
        return Ok((Receipt::of_open_status(), answer));
    }
    let recorded = worker.record(&facts.borrow(), EventOutcome::Success, None);
    let repeated = facts.borrow().kind == EventKind::RequestRepeated;
    // It was done before, whatever becomes of this record.
    let receipt = recorded.await.map_err(|refusal| if repeated { Refusal::OutcomeUnknown } else { refusal })?;
    Ok((receipt, answer))
}

/// Step 6. Only with the receipt in hand.
fn respond(answer: Answer, _: Receipt) -> Answer {
    answer
}

/// The one place where refusals are recorded. If even that cannot be done, the caller learns that instead.
async fn record_refusal(worker: &Worker, facts: &Facts, refusal: &Refusal) -> Result<Receipt, Refusal> {
    let outcome = match refusal {
        Refusal::Unauthenticated | Refusal::Denied | Refusal::Forbidden(_) => EventOutcome::Deny,
        _ => EventOutcome::Error,
    };
    if let Refusal::Internal(detail) = refusal {
        tracing::error!(request.id = %facts.request, detail = %detail, "internal error");
    }
    worker.record(facts, outcome, Some(refusal.parts().code)).await
}

/// Takes one use of a token, in the log, before anything is done with it.
async fn count_use(worker: &Worker, caller: Caller, facts: &RefCell<Facts>) -> Result<Caller, Refusal> {
    let Some(key) = caller.session.map(|session| session.key) else { return Err(Refusal::Unauthenticated) };
    facts.borrow_mut().use_taken = true;
    let mut intent = facts.borrow().clone();
    intent.set(EventKind::TokenRead, "", "token");
    let taken = worker
        .write(&RefCell::new(intent), |draft| {
            let Some((mut token, parent)) = token::get(draft, &key)? else { return Err(Refusal::Unauthenticated) };
            if token.uses < 0 {
                return Err(Refusal::Unauthenticated); // another request took the last use
            }
            // The last use leaves a mark that no second request passes; the token goes when this request is done.
            token.uses = if token.uses == 1 { -1 } else { token.uses - 1 };
            token::put(draft, &key, &token, &parent)?;
            Ok((token, parent))
        })
        .await;
    if matches!(taken, Err(Refusal::NotLeader)) {
        facts.borrow_mut().use_taken = false;
    }
    let ((token, parent), _) = taken?;
    let last_use = token.uses < 0;
    Ok(Caller { session: Some(Arc::new(Session::new(key, token, parent))), counts: false, last_use })
}

/// Revokes a token whose last use this was.
async fn end_spent(worker: &Worker, request: &Request, session: &Arc<Session>) -> Result<(), Refusal> {
    let mut intent = Facts::new(request.id, worker.app.barrier.now(), Some(request.source), "system");
    intent.set(EventKind::TokenRevoked, "", "token");
    intent.token = Some(Arc::clone(&session.name));
    let key = session.key;
    worker.write(&RefCell::new(intent), |draft| token::revoke_tree(draft, &key)).await.map(|_| ())
}

impl Permit {
    /// The token that called, where one was needed.
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.caller.session.as_ref()
    }

    /// The mount that answers.
    pub fn mount(&self) -> Option<&Arc<Mount>> {
        self.target.mount.as_ref()
    }

    /// Where in the request's path the part below the mount begins.
    pub fn rest(&self) -> usize {
        self.target.rest
    }

    /// The call, on the native face.
    pub fn call(&self) -> Option<&native::Call> {
        self.target.call.as_ref()
    }

    /// The generation of the mounts in which the mount was found.
    pub fn mounts_generation(&self) -> u64 {
        self.target.mounts_generation
    }

    /// Whether the policy grants `sudo` on the path.
    pub fn sudo(&self) -> bool {
        self.sudo
    }

    /// For a listing: the page length that the policy sets.
    pub fn pagination_limit(&self) -> Option<u64> {
        self.pagination_limit
    }

    /// For a listing: the filter that its keys must pass.
    pub fn keys_filter(&self) -> Option<&KeysFilter> {
        self.keys_filter.as_ref()
    }

    /// How the path is guarded.
    pub fn door(&self) -> Door {
        self.target.door
    }
}

#[cfg(test)]
mod tests;
