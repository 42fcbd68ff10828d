//! Snapshots on their way, and the log that whoever gets one needs next.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the log is kept for a member after something was last heard of its snapshot: it is made, sent, checked and
/// installed, and a transfer that was cut is taken up again.
const KEPT_MAX: Duration = Duration::from_secs(60);

/// For whom the log is kept, and from where on.
#[derive(Default)]
pub(crate) struct Transit(Mutex<BTreeMap<u64, Kept>>);

struct Kept {
    /// The last entry in the snapshot.
    index: u64,
    until: Instant,
}

impl Transit {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<u64, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot up to the entry `index` is on its way to `node`.
    pub(crate) fn keep(&self, node: u64, index: u64) {
        self.kept().insert(node, Kept { index, until: Instant::now() + KEPT_MAX });
    }

    /// `node` has the log up to the entry `upto`.
    pub(crate) fn arrived(&self, node: u64, upto: u64) {
        let mut kept = self.kept();
        if kept.get(&node).is_some_and(|kept| kept.index < upto) {
            kept.remove(&node);
        }
    }

    /// The entry after which the log shall stay; `None` if nobody needs it.
    pub(crate) fn first(&self) -> Option<u64> {
        let mut kept = self.kept();
        let now = Instant::now();
        kept.retain(|_, kept| kept.until > now);
        kept.values().map(|kept| kept.index).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_kept_until_all_who_need_it_have_more() {
        let transit = Transit::default();
        assert_eq!(transit.first(), None);
        transit.keep(2, 7);
        transit.keep(3, 9);
        assert_eq!(transit.first(), Some(7));
        transit.arrived(2, 7);
        assert_eq!(transit.first(), Some(7), "it has the snapshot, and needs what comes next");
        transit.arrived(2, 8);
        assert_eq!(transit.first(), Some(9));
        transit.arrived(3, 12);
        assert_eq!(transit.first(), None);
    }
}
