//! Limits that hold before anything is parsed: connections at once, requests per source, and bodies in memory.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::metrics::Count;

/// How many requests pass before forgotten sources are dropped from the table.
const SWEEP_EVERY: u64 = 1 << 16;

/// KiB of request bodies in memory at once, of all requests together.
pub const BODIES_KIB_MAX: usize = 512 << 10;

/// The gate in front of everything.
pub struct Gate {
    bodies: Arc<Semaphore>,
    connections: Arc<AtomicUsize>,
    connections_max: usize,
    rate: Option<DefaultKeyedRateLimiter<IpAddr>>,
    clock: DefaultClock,
    passed: AtomicU64,
    /// What was turned away.
    pub refused: Refused,
}

/// What the limits turned away, each since the start.
#[derive(Debug, Default)]
pub struct Refused {
    /// Connections closed at once: there were as many as may be.
    pub connections: Count,
    /// Requests of a source that was over its rate.
    pub rate: Count,
    /// Requests for whose body there was no room.
    pub bodies: Count,
}

/// One of the connections at once. Dropped with the connection.
#[derive(Debug)]
pub struct Seat(Arc<AtomicUsize>);

/// The part of the memory for bodies that one body takes. Dropped with the body.
#[derive(Debug)]
pub struct Room {
    bodies: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Takes what a body of `bytes` needs, in whole KiB, beyond what was taken before. False if there is not that much.
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(bytes.div_ceil(1024).saturating_sub(taken)).unwrap_or(u32::MAX);
        if more == 0 {
            return true;
        }
        let Ok(permit) = Arc::clone(&self.bodies).try_acquire_many_owned(more) else { return false };
        match &mut self.taken {
            Some(taken) => taken.merge(permit),
            None => self.taken = Some(permit),
        }
        true
    }
}

impl Gate {
    /// A gate with these limits.
    pub fn new(limits: &Limits) -> Self {
        let rate = NonZeroU32::new(limits.source_rate_per_s).map(|rate| {
            let burst = NonZeroU32::new(limits.source_burst).unwrap_or(rate);
            RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst))
        });
        Self {
            bodies: Arc::new(Semaphore::new(BODIES_KIB_MAX)),
            connections: Arc::default(),
            connections_max: limits.connections_max,
            rate,
            clock: DefaultClock::default(),
            passed: AtomicU64::new(0),
            refused: Refused::default(),
        }
    }

    /// A seat for one more connection, if there is one.
    pub fn seat(&self) -> Option<Seat> {
        let taken = self.connections.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Arc::clone(&self.connections));
        if taken < self.connections_max {
            return Some(seat);
        }
        self.refused.connections.note();
        None
    }

    /// Connections at once, now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Room for one body, nothing taken yet.
    pub fn room(&self) -> Room {
        Room { bodies: Arc::clone(&self.bodies), taken: None }
    }

    /// Lets one request of `source` pass.
    ///
    /// # Errors
    /// Whole seconds to wait, at least 1, if the source is over its rate.
    pub fn pass(&self, source: IpAddr) -> Result<(), u64> {
        let Some(rate) = &self.rate else { return Ok(()) };
        if self.passed.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            rate.retain_recent();
        }
        rate.check_key(&source).map_err(|until| {
            self.refused.rate.note();
            until.wait_time_from(self.clock.now()).as_secs() + 1
        })
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_come_back() {
        let gate = Gate::new(&Limits { connections_max: 1, ..Limits::default() });
        let first = gate.seat();
        assert!(first.is_some());
        assert!(gate.seat().is_none());
        assert_eq!((gate.connections(), gate.refused.connections.get()), (1, 1));
        drop(first);
        assert!(gate.seat().is_some());
    }

    #[test]
    fn bodies_share_what_there_is() {
        let gate = Gate::new(&Limits::default());
        let (mut a, mut b) = (gate.room(), gate.room());
        assert!(a.grow_to(1) && a.grow_to(1024) && a.grow_to((BODIES_KIB_MAX - 1) << 10));
        assert!(b.grow_to(1024));
        assert!(!b.grow_to(1025) && !a.grow_to(BODIES_KIB_MAX << 10));
        drop(a);
        assert!(b.grow_to(BODIES_KIB_MAX << 10));
    }

    #[test]
    fn one_source_does_not_use_up_anothers_rate() {
        let gate = Gate::new(&Limits { source_rate_per_s: 1, source_burst: 2, ..Limits::default() });
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        assert_eq!(gate.pass(a), Ok(()));
        assert_eq!(gate.pass(a), Ok(()));
        assert!(gate.pass(a).is_err());
        assert_eq!(gate.pass(b), Ok(()));
        assert_eq!(gate.refused.rate.get(), 1);
    }
}
