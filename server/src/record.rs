//! The audit side of a request: what is to be recorded, and the proof that it is durable.
//!
//! Reads and refusals: the record of one event-loop turn's requests is appended with one write and one flush by the
//! worker's [`Recorder`]; each request waits for its own. Writes: the intent travels in the command and is durable with
//! it; the outcome follows in the audit file without a flush of its own.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use keyward_audit::{Batch, Journal, JournalError};
use keyward_model::event::{Auth, Event, EventKind, EventOutcome, LogPlace, ObjectChange, Subject, Ulid};
use keyward_model::{Entropy, Id, Timestamp};

use crate::app::Failure;
use crate::authn::token::SessionName;
use crate::barrier::{Barrier, Committed};
use crate::refusal::Refusal;

/// Proof that the audit record of what is about to be released is durable.
///
/// A [`Recorder`] makes one, a committed command, and for the one listed exception [`Receipt::of_open_status`]; so nothing
/// else that demands a receipt can be had without a record.
#[derive(Debug)]
pub struct Receipt(());

impl Receipt {
    /// The listed exception: status that says nothing of any secret, needs no token, and is asked every second by load
    /// balancers (`sys/health`, `sys/seal-status`, `sys/leader`, reading `sys/init`).
    pub(crate) fn of_open_status() -> Self {
        Self(())
    }

    /// The intent of a committed command is durable with the command.
    pub fn of_commit(_: &Committed) -> Self {
        Self(())
    }
}

/// What is known of a request for its record. Filled in step by step; holds references and constants, never a path.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The request's id.
    pub request: Id,
    /// When it came in.
    pub at: Timestamp,
    /// Something was committed for it, or recorded as about to take effect: whatever comes now, it is not true that nothing
    /// was changed.
    pub begun: bool,
    /// A use of its token was taken for it, or may have been.
    pub use_taken: bool,
    /// The term in which this node led when it began to look, where it speaks for all nodes: what it found then is told and
    /// committed in no other.
    pub term: Option<u64>,
    /// Where it came from.
    pub source: Option<IpAddr>,
    /// What happens if all goes well.
    pub kind: EventKind,
    /// What was asked: `read`, `write` …
    pub action: Option<&'static str>,
    /// `vault`, `native` or `system`.
    pub channel: &'static str,
    /// The engine that answers.
    pub engine: Option<&'static str>,
    /// The token that called.
    pub token: Option<Arc<SessionName>>,
    /// The other member, where it is one that asks or gives: its id.
    pub member: Option<Id>,
    /// Keyed reference of the resource.
    pub resource_ref: Option<String>,
    /// Kind of the object that an administrative change touches.
    pub object: Option<&'static str>,
    /// The version concerned.
    pub version: Option<u64>,
    /// The alias concerned.
    pub alias: Option<String>,
    /// The status that the version has, or is to get.
    pub version_status: Option<&'static str>,
}

impl Facts {
    /// What is known of any request.
    pub fn new(request: Id, at: Timestamp, source: Option<IpAddr>, channel: &'static str) -> Self {
        Self {
            request,
            at,
            begun: false,
            use_taken: false,
            term: None,
            source,
            kind: EventKind::SysRead,
            action: None,
            channel,
            engine: None,
            token: None,
            member: None,
            resource_ref: None,
            object: None,
            version: None,
            alias: None,
            version_status: None,
        }
    }

    /// What is known of something that the server does by itself.
    pub fn of_server(barrier: &Barrier) -> Self {
        Self::new(Id::random(barrier.entropy()), barrier.now(), None, "system")
    }

    /// Says what is asked, and of which engine.
    pub fn set(&mut self, kind: EventKind, action: &'static str, engine: &'static str) {
        self.kind = kind;
        self.action = Some(action).filter(|name| !name.is_empty());
        self.engine = Some(engine).filter(|name| !name.is_empty());
    }

    /// The event of this request.
    pub fn event<'a>(
        &'a self,
        request_text: &'a str,
        entropy: &dyn Entropy,
        now: Timestamp,
        outcome: EventOutcome,
        code: Option<&'static str>,
    ) -> Event<'a> {
        let kind = match (outcome, self.kind) {
            (EventOutcome::Deny, _) if code == Some("INVALID_TOKEN") => EventKind::AuthFailure,
            (EventOutcome::Deny, _) if self.resource_ref.is_some() => EventKind::SecretDeny,
            (EventOutcome::Error, EventKind::SecretPermit) => EventKind::SecretError,
            (_, kind) => kind,
        };
        let mut event = Event::new(Ulid::new(now, entropy), now, kind, outcome);
        event.code = code;
        event.request_id = Some(Cow::Borrowed(request_text));
        event.source_ip = self.source;
        event.action = self.action;
        event.channel = Some(self.channel);
        event.engine = self.engine;
        event.provider = event.engine.map(|_| "keyward");
        event.resource_ref = self.resource_ref.as_deref().map(Cow::Borrowed);
        event.kv_version = self.version;
        event.alias = self.alias.as_deref().map(Cow::Borrowed);
        event.version_status = self.version_status;
        event.change = self.object.map(|object| ObjectChange { object: Cow::Borrowed(object) });
        if let Some(token) = &self.token {
            event.subject = Some(Subject { kind: "token", id: Cow::Borrowed(&token.hex) });
            event.auth = Some(Auth { method: Cow::Borrowed("token"), mfa: false, token_jti_hash: Some(token.hash) });
        }
        if let Some(member) = &self.member {
            event.subject = Some(Subject { kind: "node", id: Cow::Owned(member.to_uuid()) });
            event.auth = Some(Auth { method: Cow::Borrowed("mtls"), mfa: false, token_jti_hash: None });
        }
        let latency = now.0.saturating_sub(self.at.0) / 1000;
        event.latency_us = u64::try_from(latency).ok();
        event
    }

    /// The record of a change, as it travels in the command that makes it: it enters the audit stream when the command
    /// is applied.
    pub fn intent(&self, entropy: &dyn Entropy, now: Timestamp) -> Vec<u8> {
        let text = self.request.to_uuid();
        keyward_audit::intent(&self.event(&text, entropy, now, EventOutcome::Success, None))
    }
}

/// Records that share one flush, give or take those of one turn; more would only make the first of them wait.
const SHARED_MAX: usize = 32;

/// Appends the records of one worker: all of one event-loop turn with one write and one flush.
pub struct Recorder {
    journal: Arc<Journal>,
    failure: Arc<Failure>,
    batch: RefCell<Batch>,
    flight: RefCell<Rc<Flight>>,
    scheduled: Cell<bool>,
    /// Flushes that this worker waits for.
    flushing: Cell<u32>,
}

/// The requests that wait for the same flush.
#[derive(Default)]
struct Flight {
    done: Cell<Option<bool>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Recorder {
    /// A recorder for the current thread.
    pub fn new(journal: Arc<Journal>, failure: Arc<Failure>) -> Rc<Self> {
        let journal_batch = journal.batch();
        Rc::new(Self {
            journal,
            failure,
            batch: RefCell::new(journal_batch),
            flight: RefCell::new(Rc::new(Flight::default())),
            scheduled: Cell::new(false),
            flushing: Cell::new(0),
        })
    }

    /// Makes `event` durable. The flush runs as a task queued behind everything that is ready in this turn, so that
    /// requests which arrive together share it.
    ///
    /// # Errors
    /// [`Refusal::AuditUnavailable`]: nothing may be released.
    pub fn record(self: &Rc<Self>, event: &Event<'_>) -> impl Future<Output = Result<Receipt, Refusal>> + use<> {
        self.batch.borrow_mut().push(event);
        let flight = Rc::clone(&self.flight.borrow());
        if !self.scheduled.replace(true) {
            let recorder = Rc::clone(self);
            tokio::task::spawn_local(async move { recorder.flush().await });
        }
        poll_fn(move |context| match flight.done.get() {
            Some(true) => Poll::Ready(Ok(Receipt(()))),
            Some(false) => Poll::Ready(Err(Refusal::AuditUnavailable)),
            None => {
                flight.waiting.borrow_mut().push(context.waker().clone());
                Poll::Pending
            }
        })
    }

    async fn flush(&self) {
        let mut seen = 0;
        // As long as each look at the event loop brings more, those share the flush.
        while (seen + 1..SHARED_MAX).contains(&self.batch.borrow().len()) {
            seen = self.batch.borrow().len();
            tokio::task::yield_now().await;
        }
        self.scheduled.set(false);
        let flight = self.flight.replace(Rc::default());
        let durable = match self.append().await {
            Ok(()) => true,
            Err(JournalError::Fatal(error)) => {
                self.failure.stop(&format!("the audit journal could not be flushed: {error}"));
                false
            }
            Err(error) => {
                tracing::error!(error = %error, "audit records could not be written: the requests are refused");
                false
            }
        };
        flight.done.set(Some(durable));
        for waker in flight.waiting.take() {
            waker.wake();
        }
    }

    /// A record that is alone is flushed here, since handing it over takes as long as the flush. Where there are several,
    /// this thread has more to do than to wait for the disk.
    async fn append(&self) -> Result<(), JournalError> {
        let flushed = {
            let mut batch = self.batch.borrow_mut();
            let alone = batch.len() == 1 && self.flushing.get() == 0;
            let appended = if alone {
                self.journal.append(&mut batch).map(|()| None)
            } else {
                self.journal.append_shared(&mut batch).map(Some)
            };
            batch.clear();
            appended?
        };
        let Some(flushed) = flushed else { return Ok(()) };
        self.flushing.set(self.flushing.get() + 1);
        let flushed = flushed.await;
        self.flushing.set(self.flushing.get() - 1);
        flushed
    }
}

/// Records of applied commands that may wait for the audit file, in bytes: those of all the commands that a leader may have
/// taken before it hears that it must not, and more.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// The records of applied commands on their way into the audit file. Their intents are durable in the log, so they are
/// appended without a flush, and what a full disk does not take now is kept and appended later.
pub struct Outcomes {
    journal: Arc<Journal>,
    failure: Arc<Failure>,
    batch: Mutex<Batch>,
    late: AtomicBool,
    /// While the node starts: what is applied then is recorded afterwards, in order, with what a crash kept from the file.
    held: AtomicBool,
}

impl Outcomes {
    /// None yet, and none taken before [`Outcomes::open`]. `failure` is told when the journal takes nothing any more.
    pub fn new(journal: Arc<Journal>, failure: Arc<Failure>) -> Self {
        let batch = Mutex::new(journal.batch());
        Self { journal, failure, batch, late: AtomicBool::new(false), held: AtomicBool::new(true) }
    }

    /// The file has everything that was applied so far; from now on outcomes are recorded as they come.
    pub fn open(&self) {
        self.held.store(false, Ordering::Release);
    }

    /// Makes the records of everything applied so far durable, before the log lets go of their intents. False if some are
    /// not in the file yet.
    ///
    /// # Errors
    /// [`JournalError::Fatal`].
    pub fn make_durable(&self) -> Result<bool, JournalError> {
        if self.held.load(Ordering::Acquire) || !self.flush() {
            return Ok(false);
        }
        self.journal.sync().map(|()| true)
    }

    /// The journal that they go to.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Records the commands of one log entry.
    pub fn record<'a>(&self, place: LogPlace, intents: impl Iterator<Item = &'a [u8]>) {
        if self.held.load(Ordering::Acquire) {
            return;
        }
        let mut batch = self.lock();
        for intent in intents.filter(|intent| !intent.is_empty()) {
            if batch.push_intent(intent, place).is_err() {
                tracing::error!(index = place.index, "a command carries an audit record that cannot be read");
            }
        }
        // What waits already is tried again by a job, all at once: not with each entry.
        if !self.is_late() {
            self.append(&mut batch);
        }
    }

    /// As long as it is held, nothing that holds commands is applied.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> MutexGuard<'_, Batch> {
        self.lock()
    }

    /// Whether there is room for the records of one more entry: those that wait have to get into the file at some time.
    pub fn has_room(&self) -> bool {
        !self.is_late() || self.lock().size() <= WAITING_BYTES_MAX || self.flush()
    }

    /// Tries again to write what waits. Whether everything so far is in the file; while it is not, the node takes no new writes.
    pub fn flush(&self) -> bool {
        if !self.is_late() {
            return true;
        }
        self.append(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether some were not in the file when it was last tried.
    pub fn is_late(&self) -> bool {
        self.late.load(Ordering::Acquire)
    }

    fn append(&self, batch: &mut Batch) -> bool {
        let appended = self.journal.append_lazy(batch);
        let was_late = self.late.swap(appended.is_err(), Ordering::AcqRel);
        match &appended {
            Err(JournalError::Fatal(error)) => self.failure.stop(&format!("the audit journal takes nothing: {error}")),
            Err(error) if !was_late => tracing::warn!(
                error = %error,
                "records of writes wait for the audit file: this node takes no writes meanwhile, and follows others only a little way"
            ),
            Ok(()) if was_late => tracing::info!("the records of writes that waited are in the audit file"),
            Ok(()) | Err(_) => {}
        }
        appended.is_ok()
    }
}

impl std::fmt::Debug for Outcomes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcomes").field("late", &self.late).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use keyward_audit::{AuditKey, Durability, Options};
    use keyward_model::{Secret, SeededEntropy};
    use tempfile::TempDir;

    use super::*;

    fn outcomes(folder: &Path, segment_bytes: u64) -> Outcomes {
        let key = AuditKey::from_seed(&Secret::new([1; 32])).unwrap();
        let options = Options { segment_bytes, durability: Durability::Kernel, key };
        let journal = Arc::new(Journal::open(folder, Id([1; 16]), 1, options).unwrap());
        let outcomes = Outcomes::new(journal, Arc::default());
        outcomes.open();
        outcomes
    }

    #[test]
    fn records_wait_for_the_file_and_not_without_end() {
        let place = TempDir::new().unwrap();
        let (folder, elsewhere) = (place.path().join("audit"), place.path().join("elsewhere"));
        let outcomes = outcomes(&folder, 64 << 10);
        let entropy = SeededEntropy::new(1);
        let mut index = 0_u64;
        let mut apply = || {
            index += 1;
            let at = Timestamp(0).plus_seconds(index.cast_signed());
            let intent = Facts::new(Id::random(&entropy), at, None, "vault").intent(&entropy, at);
            outcomes.record(LogPlace { term: 1, index }, std::iter::once(intent.as_slice()));
        };
        apply();
        assert!(!outcomes.is_late() && outcomes.has_room());

        // The next file cannot be made.
        fs::rename(&folder, &elsewhere).unwrap();
        let mut late = 0;
        while outcomes.has_room() {
            apply();
            late += u64::from(outcomes.is_late());
            assert!(late < 100_000, "they wait without end");
        }
        assert!(late > 10_000, "what a leader took before is applied: {late}");
        assert!(!outcomes.make_durable().unwrap());

        fs::rename(&elsewhere, &folder).unwrap();
        assert!(outcomes.has_room() && !outcomes.is_late());
        apply();
        assert_eq!(outcomes.journal().last_index(), index);
        assert!(outcomes.make_durable().unwrap());
        assert!(!outcomes.failure.happened());
    }
}
