//! Rotation of the keyring, and when it comes by itself.

use keyward_crypto::{CryptoError, EpochState, Keyring};
use keyward_model::{Table, Timestamp};
use keyward_storage::Reader;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::barrier::{Columns, Draft, storage};
use crate::refusal::Refusal;
use crate::seal;

/// Row of [`Table::Config`] with the settings.
const SETTINGS: &[u8] = b"rotation";

/// Uses of an epoch from which on it is exchanged, at least and at most.
pub const OPERATIONS_MIN: i64 = 1_000_000;
/// The same, and what holds where nothing else is set.
pub const OPERATIONS_MAX: i64 = 3_865_470_566;
/// The shortest time after which an epoch may be exchanged by itself, in seconds.
pub const INTERVAL_MIN_S: i64 = 86_400;
/// How far ahead of the clock the birth of an epoch may lie, in seconds: the clock of who made it may differ as much.
const AHEAD_MAX_S: i64 = 300;

/// When the keyring is rotated by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Whether it ever is.
    pub enabled: bool,
    /// When the newest epoch is as old, in seconds; 0 = whatever its age.
    pub interval_s: i64,
    /// When the newest epoch was used more often, and is [`INTERVAL_MIN_S`] old.
    pub max_operations: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true, interval_s: 0, max_operations: OPERATIONS_MAX }
    }
}

impl Settings {
    /// Reads the settings.
    ///
    /// # Errors
    /// The row cannot be read.
    pub fn load(reader: &Reader) -> Result<Self, Refusal> {
        let row = reader.row(Table::Config, SETTINGS).map_err(storage)?;
        row.map_or_else(|| Ok(Self::default()), |row| Self::decode(&row.body))
    }

    /// The settings as all commands before this one leave them; those of the beginning where the row holds none, so that
    /// they can be set anew.
    ///
    /// # Errors
    /// The row cannot be read.
    pub fn of_draft(draft: &mut Draft<'_>) -> Result<Self, Refusal> {
        let row = draft.get(Table::Config, SETTINGS)?;
        let Some(row) = row else { return Ok(Self::default()) };
        Ok(Self::decode(row.body.expose()).unwrap_or_else(|refusal| {
            tracing::warn!(?refusal, "the settings of the rotation cannot be read: they are set anew");
            Self::default()
        }))
    }

    fn decode(body: &[u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(body).map_err(|error| Refusal::damaged("rotation settings", error))
    }

    /// Puts them in place.
    ///
    /// # Errors
    /// The row cannot be read.
    pub fn put(&self, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        let body = serde_json::to_vec(self).map_err(|error| Refusal::internal(error.to_string()))?;
        draft.put(Table::Config, SETTINGS, Columns::default(), &body)
    }

    /// Whether `keyring` is to be rotated now.
    pub fn are_due(&self, keyring: &Keyring, now: Timestamp) -> bool {
        let epochs = keyring.epochs();
        let Some(newest) = epochs.iter().find(|epoch| epoch.state == EpochState::Active) else { return false };
        // A clock that was ahead when the epoch began would keep it young for as long.
        let is_ahead = newest.created > now.plus_seconds(AHEAD_MAX_S);
        let is_older_than = |seconds| is_ahead || now > newest.created.plus_seconds(seconds);
        let is_old = self.interval_s > 0 && is_older_than(self.interval_s);
        // WHY: to wrap the rows anew after a rotation uses the new epoch for each of them. Were that enough to exchange it,
        // a large store would be wrapped anew for ever.
        let is_worn = newest.uses > self.max_operations.unsigned_abs() && is_older_than(INTERVAL_MIN_S);
        self.enabled && (is_old || is_worn)
    }
}

/// A keyring with a new epoch, sealed, on its way into the state. One at a time ([`App::rotating`]), each made of the one
/// before.
#[derive(Debug)]
pub struct Rotated {
    sealed: Vec<u8>,
    before: u32,
}

impl Rotated {
    /// A new epoch for the keyring that is in place.
    ///
    /// # Errors
    /// Sealed.
    pub fn of(app: &App) -> Result<Self, Refusal> {
        let keys = app.barrier.keyring()?;
        let entropy = app.barrier.entropy();
        let sealed = keys.seal_to(&keys.root, entropy);
        let mut keyring = Keyring::open_from(&keys.root, keys.domain(), &sealed).map_err(|error| uncopied(&error))?;
        keyring.rotate(app.barrier.now(), entropy);
        Ok(Self { sealed: keyring.seal_to(&keys.root, entropy), before: keys.active_epoch() })
    }

    /// Puts it in the place of the one that it was made of.
    ///
    /// # Errors
    /// Another one stands there; a row cannot be read.
    pub fn put(&self, app: &App, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        // Of two nodes that rotated, one after the other, none may leave an epoch of the other's out.
        let stored = seal::draft_keyring(draft)?.ok_or(Refusal::Sealed)?;
        let keys = app.barrier.keyring()?;
        let stored = Keyring::open_from(&keys.root, keys.domain(), &stored).map_err(|error| uncopied(&error))?;
        if stored.active_epoch() != self.before {
            return Err(Refusal::Unavailable("the keyring was rotated meanwhile; try again".into()));
        }
        seal::store_keyring(draft, &self.sealed)
    }
}

fn uncopied(error: &CryptoError) -> Refusal {
    Refusal::internal(format!("the keyring could not be copied: {error}"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use keyward_model::{Id, SeededEntropy};

    use super::*;
    use crate::record::Facts;
    use crate::testing::{ask, on_a_node};

    #[test]
    fn settings_that_cannot_be_read_can_be_set_anew() {
        on_a_node(async |worker, _| {
            for (row, stands) in [(&b"{\"interval_s\":90000}"[..], 200), (b"{", 500)] {
                let facts = RefCell::new(Facts::of_server(&worker.app.barrier));
                let put = |draft: &mut Draft<'_>| draft.put(Table::Config, SETTINGS, Columns::default(), row);
                worker.write(&facts, put).await.unwrap();
                let config = "sys/rotate/config";
                assert_eq!(ask(worker, "root", "GET", config, "").await.0, stands);
                assert_eq!(ask(worker, "root", "POST", config, r#"{"interval":"24h"}"#).await.0, 204);
                let expected = Settings { interval_s: INTERVAL_MIN_S, ..Settings::default() };
                assert_eq!(Settings::load(worker.reader()).unwrap(), expected);
            }
        });
    }

    #[test]
    fn an_epoch_is_exchanged_when_it_is_old_and_never_where_that_is_off() {
        let (made, entropy) = (Timestamp(0).plus_seconds(7), SeededEntropy::new(1));
        let mut keyring = Keyring::generate(Id::ZERO, made, &entropy);
        let daily = Settings { interval_s: INTERVAL_MIN_S, ..Settings::default() };
        let (last, after) = (made.plus_seconds(INTERVAL_MIN_S), made.plus_seconds(INTERVAL_MIN_S + 1));
        assert!(!daily.are_due(&keyring, last) && daily.are_due(&keyring, after));
        assert!(!Settings::default().are_due(&keyring, after));
        assert!(!Settings { enabled: false, ..daily.clone() }.are_due(&keyring, after));
        keyring.rotate(after, &entropy);
        assert!(!daily.are_due(&keyring, after), "the newest epoch counts");
    }

    #[test]
    fn an_epoch_is_exchanged_when_it_was_used_often_but_never_on_its_first_day() {
        let entropy = SeededEntropy::new(1);
        let keyring = Keyring::generate(Id::ZERO, Timestamp(0), &entropy);
        let twice = Settings { max_operations: 2, ..Settings::default() };
        let (last, after) = (Timestamp(0).plus_seconds(INTERVAL_MIN_S), Timestamp(0).plus_seconds(INTERVAL_MIN_S + 1));
        for used in 0..3 {
            assert!(!twice.are_due(&keyring, after), "{used}");
            drop(keyring.seal_row(Table::Policies, b"k", 1, b"", None, None, b"", &entropy));
        }
        assert!(twice.are_due(&keyring, after));
        assert!(!twice.are_due(&keyring, last), "what is wrapped anew after a rotation does not bring the next one");
    }

    #[test]
    fn an_epoch_from_a_future_that_no_clock_is_near_counts_as_old() {
        let (now, entropy) = (Timestamp(0).plus_seconds(7), SeededEntropy::new(1));
        let daily = Settings { interval_s: INTERVAL_MIN_S, ..Settings::default() };
        let born = |ahead_s: i64| Keyring::generate(Id::ZERO, now.plus_seconds(ahead_s), &entropy);
        assert!(!daily.are_due(&born(AHEAD_MAX_S), now) && daily.are_due(&born(AHEAD_MAX_S + 1), now));
        assert!(!Settings::default().are_due(&born(AHEAD_MAX_S + 1), now));
    }
}
