//! A batch on its way: its commands, and those who wait for their outcomes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use keyward_model::Command;

use crate::arrivals::{Waiter, tell_all};
use crate::submit::{Coalescer, Landed, SubmitError};

/// What travels beside an entry's bytes on the node that proposed it. Clones share it; it is taken once.
#[derive(Clone, Default)]
pub(crate) struct Flight(Option<Arc<Inner>>);

struct Inner {
    passengers: Mutex<Option<Passengers>>,
    logged: AtomicBool,
    durable: AtomicBool,
    /// WHY: weak. The log keeps entries with their flights in memory, and the queue holds the log.
    queue: Weak<Coalescer>,
}

/// The commands of one batch and their waiters, at the same positions.
pub(crate) struct Passengers {
    pub(crate) commands: Vec<Command>,
    pub(crate) waiters: Vec<Waiter<Landed>>,
}

impl Flight {
    /// A flight with passengers, from `queue`.
    pub(crate) fn new(passengers: Passengers, queue: Weak<Coalescer>) -> Self {
        let (logged, durable) = (AtomicBool::new(false), AtomicBool::new(false));
        Self(Some(Arc::new(Inner { passengers: Mutex::new(Some(passengers)), logged, durable, queue })))
    }

    /// The passengers, if nobody took them before.
    pub(crate) fn take(&self) -> Option<Passengers> {
        self.0.as_ref()?.passengers.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether somebody's commands are here that nobody took yet.
    pub(crate) fn has_passengers(&self) -> bool {
        let inner = self.0.as_ref();
        inner.is_some_and(|inner| inner.passengers.lock().unwrap_or_else(PoisonError::into_inner).is_some())
    }

    /// The batch goes into the log: from here on it may take effect, whatever happens.
    pub(crate) fn mark_logged(&self) {
        if let Some(inner) = &self.0 {
            inner.logged.store(true, Ordering::Release);
        }
    }

    /// The batch is durable, or will never be: the next one may go to the log.
    pub(crate) fn leave_log(&self) {
        if let Some(inner) = &self.0
            && !inner.durable.swap(true, Ordering::AcqRel)
            && let Some(queue) = inner.queue.upgrade()
        {
            queue.log_is_free();
        }
    }

    /// Whether it is the same batch.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }

    /// Nobody knows what becomes of the batch, and it may take long until somebody does: the waiters are told that.
    pub(crate) fn lose(&self) {
        self.tell(&SubmitError::Unknown);
    }

    /// The batch was turned away. If it never came into the log the waiters are told `error`, else that nobody knows.
    pub(crate) fn refuse(&self, error: &SubmitError) {
        let logged = self.0.as_ref().is_some_and(|inner| inner.logged.load(Ordering::Acquire));
        self.tell(if logged { &SubmitError::Unknown } else { error });
    }

    fn tell(&self, error: &SubmitError) {
        let waiters = self.take().into_iter().flat_map(|passengers| passengers.waiters);
        tell_all(waiters.map(|waiter| (waiter, Err(error.clone()))));
    }
}
