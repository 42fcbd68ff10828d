//! Where everything meets: what all workers share, and what each has for itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use keyward_audit::Journal;
use keyward_model::event::{EventOutcome, LogPlace};
use keyward_model::{Change, Command, Outcome, Table, Timestamp};
use keyward_policy::{Acl, Policy};
use keyward_storage::{Position, Reader, Store};
use tokio::sync::watch;

use crate::authn::token::{self, Session, Sessions};
use crate::barrier::{Barrier, Committed, Draft, Generations, storage};
use crate::begun::Begun;
use crate::cluster::Cluster;
use crate::config::{Config, Tls};
use crate::desk::Desk;
use crate::forward::Forwarder;
use crate::http::limits::Gate;
use crate::http::tls::Acceptor;
use crate::keys::KeySlot;
use crate::metrics::Traffic;
use crate::mounts::MountTable;
use crate::policies;
use crate::record::{Facts, Outcomes, Receipt, Recorder};
use crate::refusal::Refusal;
use crate::repeat::Remembered;
use crate::seal::{self, Unsealing};

/// What all workers share.
pub struct App {
    /// Sealed reads and writes.
    pub barrier: Arc<Barrier>,
    /// This node among its peers.
    pub cluster: Arc<Cluster>,
    /// Opened tokens.
    pub sessions: Arc<Sessions>,
    /// The configuration.
    pub config: Config,
    /// The state database, for more readers.
    pub store: Store,
    /// Unseal ceremony and seal records.
    pub unsealing: Unsealing,
    /// When the node started.
    pub started: Timestamp,
    /// One rotation of the keyring at a time.
    pub rotating: tokio::sync::Mutex<()>,
    /// Limits before parsing.
    pub gate: Gate,
    /// What goes between the nodes, counted.
    pub traffic: Traffic,
    /// TLS of the API, or `None` for plain HTTP.
    pub tls: Option<Acceptor>,
    journal: Arc<Journal>,
    outcomes: Arc<Outcomes>,
    pub(crate) failure: Arc<Failure>,
    tables: ArcSwapOption<Tables>,
    loading: Mutex<()>,
}

/// That the node cannot go on: what it promised to keep would be at risk. Whoever waits for it stops the process.
#[derive(Debug)]
pub struct Failure(watch::Sender<bool>);

impl Default for Failure {
    fn default() -> Self {
        Self(watch::channel(false).0)
    }
}

impl Failure {
    /// The node must stop, for this reason.
    pub fn stop(&self, why: &str) {
        tracing::error!(error = %why, "the node stops: it cannot go on without risking what it acknowledged");
        self.0.send_replace(true);
    }

    /// Becomes true when the node must stop.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    /// Whether it did.
    pub fn happened(&self) -> bool {
        *self.0.borrow()
    }
}

/// The opened control tables: small, read by every request, replaced as a whole when one of their rows changes.
#[derive(Debug)]
pub struct Tables {
    /// All mounts.
    pub mounts: MountTable,
    /// All policies by name.
    pub policies: HashMap<String, Arc<Policy>>,
    /// The generation of the mounts that these are.
    pub mounts_generation: u64,
    policies_generation: u64,
}

impl App {
    /// Puts the shared parts together.
    pub fn new(
        barrier: Arc<Barrier>,
        cluster: Arc<Cluster>,
        sessions: Arc<Sessions>,
        config: Config,
        store: Store,
        outcomes: Arc<Outcomes>,
        failure: Arc<Failure>,
    ) -> Self {
        let (started, gate) = (barrier.now(), Gate::new(&config.limits));
        Self {
            barrier,
            cluster,
            sessions,
            config,
            store,
            unsealing: Unsealing::default(),
            started,
            rotating: tokio::sync::Mutex::new(()),
            gate,
            traffic: Traffic::default(),
            tls: None,
            journal: Arc::clone(outcomes.journal()),
            outcomes,
            failure,
            tables: ArcSwapOption::empty(),
            loading: Mutex::new(()),
        }
    }

    /// With TLS on the API.
    pub fn with_tls(self, tls: Option<Acceptor>) -> Self {
        Self { tls, ..self }
    }

    /// Whether there are keys and a root token.
    pub fn is_initialised(&self) -> bool {
        self.store.reader().ok().and_then(|reader| seal::installation(&reader).ok()).flatten().is_some()
    }

    /// The audit journal.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The public key of the audit trail, in hex: what a verifier is given.
    pub fn audit_key(&self) -> String {
        hex::encode(self.journal.public_key())
    }

    /// Where clients reach this node.
    pub fn address(&self) -> String {
        if let Some(address) = &self.config.cluster.api_address {
            return address.clone();
        }
        let plain = matches!(self.config.listen.tls, Tls::Plain | Tls::PlainAnywhere);
        format!("{}://{}", if plain { "http" } else { "https" }, self.config.listen.address)
    }

    /// Whether audit records can be written. Asked before a write is proposed: its outcome has to be recorded, too.
    ///
    /// # Errors
    /// [`Refusal::AuditUnavailable`].
    pub fn audit_ready(&self) -> Result<(), Refusal> {
        if self.outcomes.is_late() { Err(Refusal::AuditUnavailable) } else { Ok(()) }
    }

    /// Tries to write the records that wait for the audit file. False if they go on waiting.
    pub fn catch_up_audit(&self) -> bool {
        self.outcomes.flush()
    }

    /// Whether records of writes wait for the audit file. Only looks.
    pub fn audit_is_late(&self) -> bool {
        self.outcomes.is_late()
    }

    /// The state of this node stays as it is until this is dropped.
    #[cfg(test)]
    pub(crate) fn hold_state(&self) -> impl Drop {
        self.outcomes.hold()
    }

    /// The node must stop, for this reason.
    pub fn fail(&self, why: &str) {
        self.failure.stop(why);
    }

    /// Takes keys and opened copies away.
    pub fn seal(&self) {
        self.barrier.seal();
        self.tables.store(None);
        self.sessions.clear();
        self.unsealing.reset();
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("barrier", &self.barrier).finish_non_exhaustive()
    }
}

/// What one thread has for itself: a reader, a recorder. Never shared, hence no locks.
#[derive(Debug)]
pub struct Worker {
    /// The shared parts.
    pub app: Arc<App>,
    /// What this thread reads from.
    pub desk: Desk,
    /// Requests that this thread does to their end.
    pub begun: Rc<Begun>,
    /// Its link to the leader, where that is another node.
    pub(crate) forwarder: Forwarder,
    recorder: Rc<Recorder>,
}

impl Worker {
    /// A worker for the current thread.
    ///
    /// # Errors
    /// The state database cannot be opened for reading.
    pub fn new(app: Arc<App>) -> Result<Self, keyward_storage::StoreError> {
        let desk = Desk::new(app.store.reader()?, Arc::clone(app.barrier.generations()));
        let recorder = Recorder::new(Arc::clone(app.journal()), Arc::clone(&app.failure));
        Ok(Self { app, desk, begun: Rc::default(), forwarder: Forwarder::default(), recorder })
    }

    /// This thread's reader, at the newest state. To be used before the next await.
    pub fn reader(&self) -> &Reader {
        self.desk.reader()
    }

    /// The control tables as they are now.
    ///
    /// # Errors
    /// Sealed, or a row cannot be read.
    pub fn tables(&self) -> Result<Arc<Tables>, Refusal> {
        let app = &self.app;
        let generations = app.barrier.generations();
        let current = |tables: &Tables| {
            tables.mounts_generation == generations.of(Table::Mounts)
                && tables.policies_generation == generations.of(Table::Policies)
        };
        if let Some(tables) = app.tables.load_full().filter(|tables| current(tables)) {
            return Ok(tables);
        }
        let _loading = app.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tables) = app.tables.load_full().filter(|tables| current(tables)) {
            return Ok(tables);
        }
        let keyring = app.barrier.keyring()?;
        // The generations are read first: a change that comes in between makes these tables old, never wrongly new.
        let (mounts_generation, policies_generation) = (generations.of(Table::Mounts), generations.of(Table::Policies));
        let reader = self.reader();
        let tables = Arc::new(Tables {
            mounts: MountTable::load(&keyring, reader)?,
            policies: policies::load(&keyring, reader)?,
            mounts_generation,
            policies_generation,
        });
        app.tables.store(Some(Arc::clone(&tables)));
        Ok(tables)
    }

    /// The session that belongs to a token; `None` if there is no such token or it has ended.
    ///
    /// # Errors
    /// Sealed, or the row cannot be read.
    pub fn session(&self, token: &str) -> Result<Option<Arc<Session>>, Refusal> {
        let keyring = self.app.barrier.keyring()?;
        self.session_by_key(&token::key_of(&keyring, token))
    }

    /// The session with this row key.
    ///
    /// # Errors
    /// Sealed, or the row cannot be read.
    pub fn session_by_key(&self, key: &[u8; 32]) -> Result<Option<Arc<Session>>, Refusal> {
        let now = self.app.barrier.judged_at();
        let (session, generation) = self.opened_token(key)?;
        let Some(session) = session else { return Ok(None) };
        let ended = session.token.uses < 0 || session.token.is_expired(now);
        Ok((!ended && self.family_lives(&session, generation, now)?).then_some(session))
    }

    /// The token, opened, as it stands in its row, and a generation of tokens in which it stood so.
    fn opened_token(&self, key: &[u8; 32]) -> Result<(Option<Arc<Session>>, u64), Refusal> {
        let sessions = &self.app.sessions;
        let (found, generation) = sessions.get(key);
        if found.is_some() {
            return Ok((found, generation));
        }
        let Some(opened) = self.app.barrier.read(self.reader(), Table::Tokens, key)? else {
            return Ok((None, generation));
        };
        let session = Arc::new(Session::new(*key, token::decode(&opened)?, opened.group));
        sessions.put(Arc::clone(&session), generation);
        Ok((Some(session), generation))
    }

    /// Whether all ancestors of a token live: it ends with the first of them, also before its row is removed. The answer
    /// is kept until any token changes.
    fn family_lives(&self, session: &Session, generation: u64, now: Timestamp) -> Result<bool, Refusal> {
        if session.parent.is_empty() {
            return Ok(true);
        }
        let remembered = |session: &Session| {
            session.family.load().as_ref().filter(|known| known.0 == generation).map(|known| known.1)
        };
        let until = match remembered(session) {
            Some(until) => until,
            None => {
                let mut until: Option<Timestamp> = None;
                let mut above = session.parent.clone();
                while !above.is_empty() {
                    let key = <[u8; 32]>::try_from(above.as_slice())
                        .map_err(|_| Refusal::internal("a token's parent is not a token's key"))?;
                    let Some(ancestor) = self.opened_token(&key)?.0 else { return Ok(false) };
                    let known = remembered(&ancestor);
                    for end in [ancestor.token.expires, known.flatten()].into_iter().flatten() {
                        until = Some(until.map_or(end, |until| until.min(end)));
                    }
                    above = if known.is_some() { Vec::new() } else { ancestor.parent.clone() };
                }
                session.family.store(Some(Arc::new((generation, until))));
                until
            }
        };
        Ok(until.is_none_or(|end| now < end))
    }

    /// The compiled policies of a session.
    ///
    /// # Errors
    /// Sealed, or a row cannot be read.
    pub fn acl(&self, session: &Session) -> Result<Arc<(u64, Acl)>, Refusal> {
        let tables = self.tables()?;
        let now = self.app.barrier.judged_at();
        let fresh = |compiled: &Arc<(u64, Acl)>| compiled.0 == tables.policies_generation && compiled.1.is_good(now);
        if let Some(compiled) = session.acl.load_full().filter(fresh) {
            return Ok(compiled);
        }
        let acl = policies::compile(&tables.policies, &session.token.policies, now);
        let compiled = Arc::new((tables.policies_generation, acl));
        session.acl.store(Some(Arc::clone(&compiled)));
        Ok(compiled)
    }

    /// Decides and writes: the one way in which anything is changed. `facts` are the record that travels with the command;
    /// what `decide` adds to them is in it. Without a change the second part is `None`.
    ///
    /// # Errors
    /// [`Refusal::AuditUnavailable`], and those of [`Barrier::write`].
    pub async fn write<T>(
        &self,
        facts: &RefCell<Facts>,
        mut decide: impl FnMut(&mut Draft<'_>) -> Result<T, Refusal>,
    ) -> Result<(T, Option<Committed>), Refusal> {
        self.app.audit_ready()?;
        let barrier = &self.app.barrier;
        let (request, term) = (facts.borrow().request, facts.borrow().term);
        // WHY: its token and policies were judged by the state of that term, and another leader may have changed them.
        let decide = |draft: &mut Draft<'_>| {
            let leads_on = term.is_none() || barrier.node().settled_term() == term;
            if leads_on { decide(draft) } else { Err(Refusal::NotLeader) }
        };
        let intent = || facts.borrow().intent(barrier.entropy(), barrier.now());
        let written = barrier.write(&self.desk, request, &intent, decide).await?;
        facts.borrow_mut().begun |= written.1.is_some();
        Ok(written)
    }

    /// Makes the record of a request durable.
    ///
    /// # Errors
    /// [`Refusal::AuditUnavailable`].
    pub fn record(
        &self,
        facts: &Facts,
        outcome: EventOutcome,
        code: Option<&'static str>,
    ) -> impl Future<Output = Result<Receipt, Refusal>> + use<> {
        let text = facts.request.to_uuid();
        let event = facts.event(&text, self.app.barrier.entropy(), self.app.barrier.now(), outcome, code);
        self.recorder.record(&event)
    }
}

/// Hears of every applied command, on the writer thread, before its submitter is answered: opened copies of changed
/// rows are dropped, and the outcome goes into the audit stream.
pub struct Applied {
    generations: Arc<Generations>,
    keys: Arc<KeySlot>,
    sessions: Arc<Sessions>,
    outcomes: Arc<Outcomes>,
    on_failure: Box<dyn Fn(&str) + Send + Sync>,
}

impl Applied {
    /// An observer that calls `on_failure` when the node must stop.
    pub fn new(
        generations: Arc<Generations>,
        keys: Arc<KeySlot>,
        sessions: Arc<Sessions>,
        outcomes: Arc<Outcomes>,
        on_failure: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Self {
        Self { generations, keys, sessions, outcomes, on_failure }
    }

    /// The keys are those of the keyring that was just applied. One that does not open seals the node: what is sealed from
    /// now on it could not read.
    fn follow(&self, sealed: &[u8]) {
        if let Err(error) = self.keys.follow(sealed) {
            tracing::error!(error = %error, "the keyring was changed and does not open: this node seals itself");
            self.keys.clear();
        }
    }

    fn forget(&self, command: &Command) {
        for change in &command.changes {
            if matches!(
                change,
                Change::Put { table: Table::Repeats, .. } | Change::Remove { table: Table::Repeats, .. }
            ) {
                self.generations.repeats().note(change);
            }
            let table = match change {
                Change::Put { table, .. } | Change::Remove { table, .. } => *table,
                Change::AddVersion { .. } | Change::Rewrap { .. } | Change::EraseVersion { .. } => continue,
            };
            self.generations.touched(table);
            let key = match change {
                Change::Put { row, .. } => &row.key,
                Change::Remove { key, .. } => key,
                _ => continue,
            };
            if let Change::Put { table: Table::Config, row } = change
                && seal::is_keyring(&row.key)
            {
                self.follow(&row.body);
            }
            if table == Table::Tokens {
                self.sessions.forget(std::iter::once(key.as_slice()));
            }
        }
    }
}

impl keyward_raft::Observer for Applied {
    fn applied(&self, position: Position, commands: &[(Command, Outcome)]) {
        let place = LogPlace { term: position.term, index: position.index };
        // A command that missed its state is decided anew by its submitter: that one will be recorded.
        let done = commands.iter().filter(|(_, outcome)| *outcome == Outcome::Done).map(|(command, _)| command);
        self.outcomes.record(place, done.clone().map(|command| command.intent.as_slice()));
        // First what readers see, then what they keep: whoever misses a kept copy from here on reads the new state.
        self.generations.advance();
        for command in done {
            self.generations.note_time(command.at);
            self.forget(command);
        }
    }

    fn has_room(&self) -> bool {
        self.outcomes.has_room()
    }

    fn before_purge(&self) -> io::Result<()> {
        match self.outcomes.make_durable() {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::other("records of writes wait for the audit file")),
            Err(error) => {
                (self.on_failure)(&error.to_string());
                Err(io::Error::other(error))
            }
        }
    }

    fn replaced(&self, store: &Store) {
        self.generations.advance();
        let read = |reader: Reader| {
            self.generations.note_time(reader.newest().map_err(storage)?);
            *self.generations.repeats() = Remembered::of_state(&reader).map_err(storage)?;
            seal::keyring_row(&reader)
        };
        match store.reader().map_err(storage).and_then(read) {
            Ok(Some(sealed)) => self.follow(&sealed),
            Ok(None) => {}
            Err(_) => (self.on_failure)("the state that came from another node cannot be read"),
        }
        self.sessions.clear();
        self.generations.all();
    }

    fn failed(&self, error: &str) {
        (self.on_failure)(error);
    }
}

impl std::fmt::Debug for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applied").finish_non_exhaustive()
    }
}
