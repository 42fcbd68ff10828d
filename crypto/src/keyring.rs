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
    active: Epoch<EpochKey>,
    /// By number, ascending, all below the active one; without a key where it was destroyed.
    older: Vec<Epoch<Option<EpochKey>>>,
    base: LockedKey,
    token: LockedKey,
    state: LockedKey,
    /// The input key of references that is in use, and those before it, by number from 1.
    reference: LockedKey,
    older_references: Vec<LockedKey>,
    tokens: Prf,
    accessors: Prf,
    sums: Prf,
    hedge: Prf,
    names: Names,
}

/// One key-encryption key.
struct Epoch<K> {
    number: u32,
    created: Timestamp,
    uses: AtomicU64,
    key: K,
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
        let [key, base, token, state, reference] = [(); 5].map(|()| LockedKey::random(entropy));
        let active = Epoch::new(1, now, 0, EpochKey::new(key));
        Self::assemble(domain, (active, Vec::new()), (reference, Vec::new()), [base, token, state])
    }

    /// Derives what is derived. Epochs and reference keys come as the one in use and those before it.
    fn assemble(
        domain: Id,
        (active, older): (Epoch<EpochKey>, Vec<Epoch<Option<EpochKey>>>),
        (reference, older_references): (LockedKey, Vec<LockedKey>),
        [base, token, state]: [LockedKey; 3],
    ) -> Self {
        let (from_token, from_state) = (Prf::new(&token), Prf::new(&state));
        Self {
            domain,
            active,
            older,
            reference,
            older_references,
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
        let number = self.active.number.saturating_add(1);
        let fresh = Epoch::new(number, now, 0, EpochKey::new(LockedKey::random(entropy)));
        let Epoch { number: before, created, uses, key } = std::mem::replace(&mut self.active, fresh);
        self.older.push(Epoch { number: before, created, uses, key: Some(key) });
        number
    }

    /// Every epoch there ever was, oldest first.
    pub fn epochs(&self) -> Vec<EpochInfo> {
        let older = self.older.iter().map(|epoch| match epoch.key {
            Some(_) => epoch.info(EpochState::DecryptOnly),
            None => epoch.info(EpochState::Destroyed),
        });
        older.chain([self.active.info(EpochState::Active)]).collect()
    }

    /// The number of the epoch that seals.
    pub fn active_epoch(&self) -> u32 {
        self.active.number
    }

    /// Destroys the key of an epoch: what it sealed is unreadable for ever once no stored keyring holds it any more.
    /// Destroying it twice is no error.
    ///
    /// # Errors
    /// [`CryptoError::ActiveEpoch`] for the active one, [`CryptoError::UnknownEpoch`] for one that never was.
    pub fn destroy_epoch(&mut self, number: u32) -> Result<(), CryptoError> {
        if number == self.active.number {
            return Err(CryptoError::ActiveEpoch(number));
        }
        let at = self.older.binary_search_by_key(&number, |epoch| epoch.number);
        let epoch = at.ok().and_then(|at| self.older.get_mut(at)).ok_or(CryptoError::UnknownEpoch(number))?;
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
        References::new(self.reference_epoch(), tenant, &self.reference)
    }

    /// References of `tenant` under this epoch, to resolve old events; `None` if there never was such an epoch.
    pub fn references_of(&self, tenant: &str, epoch: u32) -> Option<References> {
        let at = usize::try_from(epoch.checked_sub(1)?).ok()?;
        let key = if epoch == self.reference_epoch() { &self.reference } else { self.older_references.get(at)? };
        Some(References::new(epoch, tenant, key))
    }

    /// The newest reference epoch, from 1.
    pub fn reference_epoch(&self) -> u32 {
        self.older_references.len() as u32 + 1
    }

    /// Makes a new reference epoch and returns its number. Older ones stay, to resolve old events.
    pub fn rotate_references(&mut self, entropy: &dyn Entropy) -> u32 {
        let before = std::mem::replace(&mut self.reference, LockedKey::random(entropy));
        self.older_references.push(before);
        self.reference_epoch()
    }

    /// The active epoch, counted as used once more.
    fn sealing_epoch(&self) -> (u32, &Prf) {
        self.active.uses.fetch_add(1, Ordering::Relaxed);
        (self.active.number, &self.active.key.prf)
    }

    fn opening_epoch(&self, number: u32) -> Result<&Prf, CryptoError> {
        if number == self.active.number {
            return Ok(&self.active.key.prf);
        }
        let at = self.older.binary_search_by_key(&number, |epoch| epoch.number);
        let epoch = at.ok().and_then(|at| self.older.get(at)).ok_or(CryptoError::UnknownEpoch(number))?;
        epoch.key.as_ref().map(|key| &key.prf).ok_or(CryptoError::DestroyedEpoch(number))
    }
}

impl<K> Epoch<K> {
    fn new(number: u32, created: Timestamp, uses: u64, key: K) -> Self {
        Self { number, created, uses: AtomicU64::new(uses), key }
    }

    fn info(&self, state: EpochState) -> EpochInfo {
        let (number, created, uses) = (self.number, self.created, self.uses.load(Ordering::Relaxed));
        EpochInfo { number, created, state, uses }
    }
}

impl EpochKey {
    fn new(raw: LockedKey) -> Self {
        Self { prf: Prf::new(&raw), raw }
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
