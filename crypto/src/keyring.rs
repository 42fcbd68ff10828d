//! The keyring: every key of the data plane, unlocked by the root key.
//!
//! It holds the key-encryption keys by epoch, the tenant's base key (names), the look-up key of tokens, the state key and
//! the reference keys. Raw keys and keyed states lie in locked memory; nothing prints them.
//! Reading order: this file (epochs, look-ups, signature), `rows`, `versions`, `stored` (the keyring as bytes).

mod rows;

mod stored;

mod versions;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use keyward_model::{Entropy, Id, StateSum, Timestamp};
use subtle::ConstantTimeEq;

use crate::kdf::Prf;
use crate::memory::LockedKey;
use crate::{CryptoError, Names, References};

pub use rows::row_epoch;
pub use versions::wrap_epoch;

/// All keys of one data domain.
pub struct Keyring {
    domain: Id,
    /// By number, ascending. The last one is active.
    epochs: Vec<Epoch>,
    base: LockedKey,
    token: LockedKey,
    state: LockedKey,
    /// Input keys of references, by number from 1.
    references: Vec<LockedKey>,
    tokens: Prf,
    accessors: Prf,
    sums: Prf,
    hedge: Prf,
    names: Names,
}

/// One key-encryption key.
struct Epoch {
    number: u32,
    created: Timestamp,
    uses: AtomicU64,
    key: Option<EpochKey>,
}

struct EpochKey {
    raw: LockedKey,
    prf: Prf,
}

/// What an epoch may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpochState {
    /// Seals and opens.
    Active,
    /// Opens only.
    DecryptOnly,
    /// Neither, for ever.
    Destroyed,
}

/// What may be known about an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochInfo {
    /// Its number, from 1.
    pub number: u32,
    /// When it was made.
    pub created: Timestamp,
    /// What it may be used for.
    pub state: EpochState,
    /// About how often it sealed: counts since the keyring was last stored are lost with the process.
    pub uses: u64,
}

impl Keyring {
    /// A keyring with fresh keys and one epoch, number 1. `domain` is born with it and bound into everything it seals.
    pub fn generate(domain: Id, now: Timestamp, entropy: &dyn Entropy) -> Self {
        let [base, token, state, reference] = [(); 4].map(|()| LockedKey::random(entropy));
        let epoch = Epoch::new(1, now, 0, Some(LockedKey::random(entropy)));
        Self::assemble(domain, vec![epoch], [base, token, state], vec![reference])
    }

    fn assemble(domain: Id, epochs: Vec<Epoch>, keys: [LockedKey; 3], references: Vec<LockedKey>) -> Self {
        let [base, token, state] = keys;
        let (from_token, from_state) = (Prf::new(&token), Prf::new(&state));
        Self {
            domain,
            epochs,
            references,
            tokens: from_token.child("token"),
            accessors: from_token.child("accessor"),
            sums: from_state.child("sum"),
            hedge: from_state.child("hedge"),
            names: Names::new(&Prf::new(&base)),
            base,
            token,
            state,
        }
    }

    /// The data domain: kept through restores, in every AAD.
    pub fn domain(&self) -> Id {
        self.domain
    }

    /// Makes a new active epoch; the one before only opens from now on. Returns the new number.
    ///
    /// Store the keyring durably before anything is sealed under the new epoch.
    pub fn rotate(&mut self, now: Timestamp, entropy: &dyn Entropy) -> u32 {
        // A keyring is never rotated 2^32 times; if it were, the number would stay and the newest key would win.
        let number = self.active_epoch().saturating_add(1);
        self.epochs.push(Epoch::new(number, now, 0, Some(LockedKey::random(entropy))));
        number
    }

    /// Every epoch there ever was, oldest first.
    pub fn epochs(&self) -> Vec<EpochInfo> {
        let active = self.active_epoch();
        let info = |epoch: &Epoch| EpochInfo {
            number: epoch.number,
            created: epoch.created,
            state: match epoch.key {
                None => EpochState::Destroyed,
                Some(_) if epoch.number == active => EpochState::Active,
                Some(_) => EpochState::DecryptOnly,
            },
            uses: epoch.uses.load(Ordering::Relaxed),
        };
        self.epochs.iter().map(info).collect()
    }

    /// The number of the epoch that seals.
    pub fn active_epoch(&self) -> u32 {
        self.epochs.last().map_or(0, |epoch| epoch.number)
    }

    /// Destroys the key of an epoch: what it sealed is unreadable for ever once no stored keyring holds it any more.
    /// Destroying it twice is no error.
    ///
    /// # Errors
    /// [`CryptoError::ActiveEpoch`] for the active one, [`CryptoError::UnknownEpoch`] for one that never was.
    pub fn destroy_epoch(&mut self, number: u32) -> Result<(), CryptoError> {
        if number == self.active_epoch() {
            return Err(CryptoError::ActiveEpoch(number));
        }
        let at = self.epochs.binary_search_by_key(&number, |epoch| epoch.number);
        let epoch = at.ok().and_then(|at| self.epochs.get_mut(at)).ok_or(CryptoError::UnknownEpoch(number))?;
        epoch.key = None;
        Ok(())
    }

    /// Sealed names of the tenant.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The look-up key of a token: HMAC-SHA-256, so that the database never holds a token.
    pub fn token_hash(&self, token: &[u8]) -> [u8; 32] {
        self.tokens.tag(&[token])
    }

    /// The look-up key of an accessor; never equal to that of a token.
    pub fn accessor_hash(&self, accessor: &[u8]) -> [u8; 32] {
        self.accessors.tag(&[accessor])
    }

    /// Signs the sum of all rows of this data domain.
    pub fn sign_sum(&self, sum: StateSum) -> [u8; 32] {
        self.sums.tag(&[&self.domain.0, &sum.to_bytes()])
    }

    /// Whether `signature` is that of `sum`. Takes the same time whatever differs.
    pub fn verify_sum(&self, sum: StateSum, signature: &[u8; 32]) -> bool {
        self.sign_sum(sum).ct_eq(signature).into()
    }

    /// References of `tenant` under the newest reference epoch. Make them once and keep them.
    pub fn references(&self, tenant: &str) -> References {
        self.references_of(tenant, self.reference_epoch()).unwrap_or_else(|| References::new(0, tenant, &self.base))
    }

    /// References of `tenant` under an older epoch, to resolve old events.
    pub fn references_of(&self, tenant: &str, epoch: u32) -> Option<References> {
        let key = self.references.get(usize::try_from(epoch.checked_sub(1)?).ok()?)?;
        Some(References::new(epoch, tenant, key))
    }

    /// The newest reference epoch, from 1.
    pub fn reference_epoch(&self) -> u32 {
        self.references.len() as u32
    }

    /// Makes a new reference epoch and returns its number. Older ones stay, to resolve old events.
    pub fn rotate_references(&mut self, entropy: &dyn Entropy) -> u32 {
        self.references.push(LockedKey::random(entropy));
        self.reference_epoch()
    }

    /// The active epoch, counted as used once more.
    fn sealing_epoch(&self) -> Option<(u32, &Prf)> {
        let epoch = self.epochs.last()?;
        epoch.uses.fetch_add(1, Ordering::Relaxed);
        Some((epoch.number, &epoch.key.as_ref()?.prf))
    }

    fn opening_epoch(&self, number: u32) -> Result<&Prf, CryptoError> {
        let newest = self.epochs.last().filter(|epoch| epoch.number == number);
        let found = newest.or_else(|| {
            let at = self.epochs.binary_search_by_key(&number, |epoch| epoch.number).ok()?;
            self.epochs.get(at)
        });
        let epoch = found.ok_or(CryptoError::UnknownEpoch(number))?;
        epoch.key.as_ref().map(|key| &key.prf).ok_or(CryptoError::DestroyedEpoch(number))
    }
}

impl Epoch {
    fn new(number: u32, created: Timestamp, uses: u64, key: Option<LockedKey>) -> Self {
        let key = key.map(|raw| EpochKey { prf: Prf::new(&raw), raw });
        Self { number, created, uses: AtomicU64::new(uses), key }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("domain", &self.domain).field("epochs", &self.epochs()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use keyward_model::SeededEntropy;

    use super::*;

    #[test]
    fn epochs_come_and_go() {
        let entropy = SeededEntropy::new(1);
        let mut ring = Keyring::generate(Id([1; 16]), Timestamp(5), &entropy);
        assert_eq!(ring.destroy_epoch(1), Err(CryptoError::ActiveEpoch(1)));
        assert_eq!(ring.rotate(Timestamp(6), &entropy), 2);
        assert_eq!(ring.rotate(Timestamp(7), &entropy), 3);
        assert_eq!(ring.destroy_epoch(2), Ok(()));
        assert_eq!(ring.destroy_epoch(2), Ok(()));
        assert_eq!(ring.destroy_epoch(9), Err(CryptoError::UnknownEpoch(9)));
        let states: Vec<_> = ring.epochs().iter().map(|e| (e.number, e.created.0, e.state)).collect();
        let expected = [(1, 5, EpochState::DecryptOnly), (2, 6, EpochState::Destroyed), (3, 7, EpochState::Active)];
        assert_eq!(states, expected);
        assert!(!format!("{ring:?}").contains("raw"));
    }

    #[test]
    fn look_ups_and_signatures_are_apart() {
        let entropy = SeededEntropy::new(1);
        let (a, b) =
            (Keyring::generate(Id::ZERO, Timestamp(0), &entropy), Keyring::generate(Id::ZERO, Timestamp(0), &entropy));
        assert_eq!(a.token_hash(b"t"), a.token_hash(b"t"));
        assert_ne!(a.token_hash(b"t"), a.accessor_hash(b"t"));
        assert_ne!(a.token_hash(b"t"), b.token_hash(b"t"));
        let sum = StateSum([1, 2, 3, 4]);
        assert!(a.verify_sum(sum, &a.sign_sum(sum)));
        assert!(!a.verify_sum(StateSum([1, 2, 3, 5]), &a.sign_sum(sum)));
        assert!(!b.verify_sum(sum, &a.sign_sum(sum)));
    }

    #[test]
    fn references_change_with_the_epoch_and_stay_resolvable() {
        let entropy = SeededEntropy::new(1);
        let mut ring = Keyring::generate(Id::ZERO, Timestamp(0), &entropy);
        let old = ring.references("acme").resource_ref("keyward+kv2://secret/a");
        assert!(old.starts_with("rr1.1."));
        assert_eq!(ring.rotate_references(&entropy), 2);
        assert!(ring.references("acme").resource_ref("keyward+kv2://secret/a").starts_with("rr1.2."));
        assert_eq!(ring.references_of("acme", 1).unwrap().resource_ref("keyward+kv2://secret/a"), old);
        assert!(ring.references_of("acme", 0).is_none());
        assert!(ring.references_of("acme", 3).is_none());
    }
}
