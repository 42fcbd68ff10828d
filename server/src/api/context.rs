//! What an endpoint is given: the permitted request, and the ways to read, to write and to say what happened.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use keyward_model::Table;
use keyward_model::event::{EventKind, EventOutcome};
use keyward_storage::Reader;

use crate::app::Worker;
use crate::authn::token::{self, Session};
use crate::barrier::Draft;
use crate::http::answer::Answer;
use crate::http::fields::{Field, Params};
use crate::http::request::Request;
use crate::keys::Keys;
use crate::mounts::{self, Kind, Mount};
use crate::pep::Permit;
use crate::record::{Facts, Receipt};
use crate::refusal::Refusal;
use crate::repeat::{Done, Kept, Mark};

const FULL: &str = "too many writes with an Idempotency-Key are remembered, of this token or in all: nothing was changed; \
                    try again in some minutes, or without";

/// A permitted request in the hands of its endpoint.
pub struct Context<'a> {
    /// The thread's own parts, and through it the shared ones.
    pub worker: &'a Worker,
    /// What is asked.
    pub request: &'a Request,
    /// Its parameters.
    pub params: &'a Params<'a>,
    /// That it may be done.
    pub permit: &'a Permit,
    facts: &'a RefCell<Facts>,
    receipt: Cell<Option<Receipt>>,
    /// Of a request with an id of its caller's, until its work is done.
    mark: Cell<Option<Mark>>,
}

impl<'a> Context<'a> {
    /// For the PEP only: it alone has a permit.
    pub fn new(
        worker: &'a Worker,
        request: &'a Request,
        params: &'a Params<'a>,
        permit: &'a Permit,
        facts: &'a RefCell<Facts>,
    ) -> Self {
        Self { worker, request, params, permit, facts, receipt: Cell::new(None), mark: Cell::new(None) }
    }

    /// The receipt of what was written, if anything was.
    pub fn into_receipt(self) -> Option<Receipt> {
        self.receipt.into_inner()
    }

    /// The keys.
    ///
    /// # Errors
    /// Sealed meanwhile.
    pub fn keys(&self) -> Result<Arc<Keys>, Refusal> {
        self.worker.app.barrier.keyring()
    }

    /// This thread's reader.
    pub fn reader(&self) -> &Reader {
        self.worker.reader()
    }

    /// The mount that answers.
    ///
    /// # Errors
    /// There is none: a path outside of any mount.
    pub fn mount(&self) -> Result<&Arc<Mount>, Refusal> {
        self.permit.mount().ok_or_else(|| Refusal::NoRoute(self.request.path.clone()))
    }

    /// The path below the mount.
    pub fn rest(&self) -> &str {
        self.request.path.get(self.permit.rest()..).unwrap_or_default()
    }

    /// The token that called.
    ///
    /// # Errors
    /// None was presented, on a path that judges the token itself.
    pub fn session(&self) -> Result<&Arc<Session>, Refusal> {
        self.permit.session().ok_or(Refusal::Unauthenticated)
    }

    /// What the record of this request says, for work that it goes on with in commands of its own.
    pub fn facts(&self) -> &RefCell<Facts> {
        self.facts
    }

    /// Adds to what the record of this request says.
    pub fn note(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts.borrow_mut());
    }

    /// Whether the mount is still what this request found: a write that was on its way while a mount was closed, raised
    /// or removed would end where nobody looks.
    fn mount_stands(&self, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        let Some(mount) =
            self.permit.mount().filter(|mount| matches!(mount.kind, Kind::Kv1 | Kind::Kv2 | Kind::Generic))
        else {
            return Ok(());
        };
        if draft.mounts_stand(self.permit.mounts_generation()) {
            return Ok(());
        }
        let opened =
            draft.get(Table::Mounts, &mount.id.0)?.ok_or_else(|| Refusal::NoRoute(self.request.path.clone()))?;
        let now = mounts::decode(opened.body.expose())?;
        now.serving()?;
        if now.kind == mount.kind { Ok(()) } else { Err(Refusal::mount_closed()) }
    }

    /// Whether the token whose cubbyhole this is about still stands: what is written there after the token was removed would
    /// stay for ever.
    fn token_stands(&self, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        if self.permit.mount().is_none_or(|mount| mount.kind != Kind::Cubbyhole) {
            return Ok(());
        }
        let now = draft.now();
        match token::get(draft, &self.session()?.key)? {
            Some((token, _)) if !token.is_expired(now) => Ok(()),
            _ => Err(Refusal::Unauthenticated),
        }
    }

    /// Looks whether this request came before, with its caller's id, and was done.
    ///
    /// # Errors
    /// [`Refusal::Repeated`] if so; the id stands for another request.
    pub fn refuse_again(&self) -> Result<(), Refusal> {
        let Some(session) = self.permit.session() else { return Ok(()) };
        match Mark::find(self.worker, self.request, &session.key)? {
            (_, Some(done)) => Err(Refusal::Repeated(done)),
            (mark, None) => {
                self.mark.set(mark);
                Ok(())
            }
        }
    }

    /// The answer to a request that was done before, if it was kept. Its record says that nothing was changed.
    ///
    /// # Errors
    /// [`Refusal::Repeated`]: it was not kept.
    pub fn answer_again(&self, done: Box<Done>) -> Result<Answer, Refusal> {
        let Some(answer) = done.answer() else { return Err(Refusal::Repeated(done)) };
        self.note(|facts| {
            facts.kind = EventKind::RequestRepeated;
            facts.version = done.version;
        });
        Ok(answer)
    }

    /// Decides and writes, with this request's record as the intent: what `decide` notes is in it. What it gives is the
    /// result. A repetition of the request is told that it was done, and no more.
    ///
    /// # Errors
    /// What `decide` refuses, and those of [`Worker::write`]; [`Refusal::Repeated`].
    pub async fn write<T>(&self, decide: impl FnMut(&mut Draft<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        self.write_marked(self.mark.take(), decide, |_| None).await
    }

    /// The same for an answer that holds no secret: a repetition of the request gets it again. `render` makes it of what
    /// `decide` gives.
    ///
    /// # Errors
    /// As [`Context::write`], and what `render` refuses.
    pub async fn write_answer<T>(
        &self,
        mut decide: impl FnMut(&mut Draft<'_>) -> Result<T, Refusal>,
        render: impl Fn(T) -> Result<Answer, Refusal>,
    ) -> Result<Answer, Refusal> {
        match self.mark.take() {
            None => render(self.write_piece(decide).await?),
            mark => self.write_marked(mark, |draft| render(decide(draft)?), Kept::of).await,
        }
    }

    /// The same for a step of work that takes several, but for the last: when a request comes again, it goes on with them.
    ///
    /// # Errors
    /// What `decide` refuses, and those of [`Worker::write`].
    pub async fn write_piece<T>(&self, decide: impl FnMut(&mut Draft<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        self.write_marked(None, decide, |_| None).await
    }

    async fn write_marked<T>(
        &self,
        mark: Option<Mark>,
        mut decide: impl FnMut(&mut Draft<'_>) -> Result<T, Refusal>,
        keep: impl Fn(&T) -> Option<Kept>,
    ) -> Result<T, Refusal> {
        let decide = |draft: &mut Draft<'_>| {
            if let Some(mark) = &mark {
                mark.refuse_again(draft)?;
            }
            self.token_stands(draft)?;
            self.mount_stands(draft)?;
            let decided = decide(draft)?;
            if let Some(mark) = mark.filter(|_| draft.changes_anything()) {
                let (kind, version) = (self.facts.borrow().kind, self.facts.borrow().version);
                if self.worker.app.barrier.generations().repeats().has_room(&mark) {
                    mark.remember(draft, self.request.id, version, keep(&decided))?;
                } else if kind != EventKind::TokenRevoked {
                    // A revocation is never put off for this: done twice, it does no more than once.
                    return Err(Refusal::Unavailable(FULL.into()));
                }
            }
            Ok(decided)
        };
        let (result, committed) = self.worker.write(self.facts, decide).await?;
        if let Some(committed) = &committed {
            self.receipt.set(Some(Receipt::of_commit(committed)));
        }
        Ok(result)
    }

    /// Makes this request's record durable now, before what it is about takes effect: for what changes this node, its members
    /// or its leader and not the rows, so that no command carries the record. Where it fails afterwards that is a record more.
    ///
    /// # Errors
    /// [`Refusal::AuditUnavailable`]: it must not be done.
    pub async fn record_first(&self) -> Result<(), Refusal> {
        let recorded = self.worker.record(&self.facts.borrow(), EventOutcome::Success, None);
        self.receipt.set(Some(recorded.await?));
        self.note(|facts| facts.begun = true);
        Ok(())
    }

    /// Adds the warnings about parameters that the path does not declare, or gives itself.
    pub fn with_parameter_warnings(&self, mut answer: Answer, fields: &[Field]) -> Answer {
        self.params.warnings(fields).into_iter().for_each(|warning| answer.warn(warning));
        answer
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("request", &self.request.id).finish_non_exhaustive()
    }
}
