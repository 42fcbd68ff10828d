//! Seals: how the root key is kept while the server is down.
//!
//! The root key is random and wraps the keyring only. A seal wraps the root key into a blob that may lie in the open;
//! any one of several seals opens it. Blobs are bound to a context (data domain and purpose, chosen by the caller).

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use keyward_model::{Entropy, Secret, SecretBytes};
use zeroize::Zeroize;

use crate::capsule::Capsule;
use crate::memory::LockedKey;
use crate::{CryptoError, ShareError, shamir};

/// The root key: 256 random bits in locked memory. Wraps the keyring, never data.
pub struct RootKey(LockedKey);

impl RootKey {
    /// A fresh root key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(LockedKey::random(entropy))
    }

    /// Takes a root key that was kept elsewhere.
    #[expect(clippy::needless_pass_by_value, reason = "custody moves in: the caller's copy is wiped on return")]
    pub fn from_secret(key: Secret<[u8; 32]>) -> Self {
        Self(LockedKey::copy_of(key.expose()))
    }

    /// Wraps a small secret that belongs to the installation rather than to its data, bound to `context`.
    pub fn wrap(&self, secret: &[u8], context: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
        Capsule::Held.seal(&self.0, context, &[], secret, entropy)
    }

    /// Unwraps what [`RootKey::wrap`] gave for the same `context`.
    ///
    /// # Errors
    /// As [`Seal::unwrap`].
    pub fn unwrap(&self, blob: &[u8], context: &[u8]) -> Result<SecretBytes, CryptoError> {
        Capsule::Held.open::<0>(&self.0, context, blob)
    }

    /// The key itself. Every call is a place to review.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(…)")
    }
}

/// Wraps and unwraps the root key.
pub trait Seal: Send + Sync {
    /// The seal's name in configuration and in `seal-status`.
    fn kind(&self) -> &'static str;

    /// Wraps `root` for storage, bound to `context`.
    ///
    /// # Errors
    /// If the seal cannot be used now.
    fn wrap(&self, root: &RootKey, context: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, CryptoError>;

    /// Unwraps what [`Seal::wrap`] gave for the same `context`.
    ///
    /// # Errors
    /// [`CryptoError::WrongKey`] if the blob is whole but another key sealed it; [`CryptoError::Integrity`] if it is
    /// damaged or meant for another context; [`CryptoError::Malformed`] or [`CryptoError::UnknownSuite`] if it is no such blob.
    fn unwrap(&self, blob: &[u8], context: &[u8]) -> Result<RootKey, CryptoError>;
}

/// Seal by a 32-byte key that the operator keeps in a file: the server unseals itself.
#[derive(Debug)]
pub struct KeyFileSeal(LockedKey);

impl KeyFileSeal {
    /// The seal under the content of the key file.
    #[expect(clippy::needless_pass_by_value, reason = "custody moves in: the caller's copy is wiped on return")]
    pub fn new(key: Secret<[u8; 32]>) -> Self {
        Self(LockedKey::copy_of(key.expose()))
    }
}

impl Seal for KeyFileSeal {
    fn kind(&self) -> &'static str {
        "keyfile"
    }

    fn wrap(&self, root: &RootKey, context: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, CryptoError> {
        Ok(Capsule::KeyFile.seal(&self.0, context, &[], root.expose(), entropy))
    }

    fn unwrap(&self, blob: &[u8], context: &[u8]) -> Result<RootKey, CryptoError> {
        root_key(&Capsule::KeyFile.open::<0>(&self.0, context, blob)?)
    }
}

/// Seal by a key that is split into shares: people unseal.
#[derive(Debug)]
pub struct ShamirSeal(LockedKey);

impl ShamirSeal {
    /// A seal under a fresh key. Split it before it is dropped.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(LockedKey::random(entropy))
    }

    /// The seal whose key the shares make. Shares that do not belong together give a wrong key, which
    /// [`Seal::unwrap`] notices.
    ///
    /// # Errors
    /// As [`shamir::combine`].
    pub fn from_shares(shares: &[SecretBytes]) -> Result<Self, ShareError> {
        Ok(Self(LockedKey::copy_of(shamir::combine(shares)?.expose())))
    }

    /// Splits the key; see [`shamir::split`].
    ///
    /// # Errors
    /// As [`shamir::split`].
    pub fn split(&self, shares: u8, threshold: u8, entropy: &dyn Entropy) -> Result<Vec<SecretBytes>, ShareError> {
        shamir::split(&self.0, shares, threshold, entropy)
    }
}

impl Seal for ShamirSeal {
    fn kind(&self) -> &'static str {
        "shamir"
    }

    fn wrap(&self, root: &RootKey, context: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, CryptoError> {
        Ok(Capsule::Shamir.seal(&self.0, context, &[], root.expose(), entropy))
    }

    fn unwrap(&self, blob: &[u8], context: &[u8]) -> Result<RootKey, CryptoError> {
        root_key(&Capsule::Shamir.open::<0>(&self.0, context, blob)?)
    }
}

/// What one derivation from a passphrase costs (Argon2id, RFC 9106).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PassphraseCost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl PassphraseCost {
    /// 64 MiB, 3 passes, 4 lanes: the second recommended option of RFC 9106 §4, for machines that share their memory.
    pub const RECOMMENDED: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };

    /// A cost within the bounds that [`Seal::unwrap`] accepts from a blob, too: memory 8 KiB per lane to 1 GiB,
    /// 1 to 64 passes, 1 to 16 lanes.
    ///
    /// # Errors
    /// [`CryptoError::CostOutOfBounds`].
    pub const fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, CryptoError> {
        if lanes == 0 || lanes > 16 || passes == 0 || passes > 64 || memory_kib < 8 * lanes || memory_kib > 1 << 20 {
            return Err(CryptoError::CostOutOfBounds);
        }
        Ok(Self { memory_kib, passes, lanes })
    }
}

/// Seal by a passphrase. The blob holds salt and cost; wrapping and unwrapping take as long as the cost says (100 ms).
#[derive(Debug)]
pub struct PassphraseSeal {
    passphrase: SecretBytes,
    cost: PassphraseCost,
}

/// Salt (16), memory in KiB (4), passes (4), lanes (4); numbers big-endian.
const PASSPHRASE_EXTRA: usize = 28;

impl PassphraseSeal {
    /// The seal under `passphrase`, wrapping at `cost`. Unwrapping goes by the cost in the blob.
    pub fn new(passphrase: SecretBytes, cost: PassphraseCost) -> Self {
        Self { passphrase, cost }
    }

    fn key(&self, extra: &[u8; PASSPHRASE_EXTRA]) -> Result<LockedKey, CryptoError> {
        let (salt, numbers) = extra.split_at(16);
        let mut cost = [0; 3];
        for (number, bytes) in cost.iter_mut().zip(numbers.as_chunks().0) {
            *number = u32::from_be_bytes(*bytes);
        }
        // Checked before a byte is allocated: a planted blob must not cost gigabytes or hours.
        let cost = PassphraseCost::new(cost[0], cost[1], cost[2])?;
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
            .map_err(|_| CryptoError::CostOutOfBounds)?;
        let mut key = LockedKey::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(self.passphrase.expose(), salt, &mut *key)
            .map_err(|_| CryptoError::CostOutOfBounds)?;
        Ok(key)
    }
}

impl Seal for PassphraseSeal {
    fn kind(&self) -> &'static str {
        "passphrase"
    }

    fn wrap(&self, root: &RootKey, context: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, CryptoError> {
        let mut extra = [0; PASSPHRASE_EXTRA];
        entropy.fill(&mut extra[..16]);
        extra[16..20].copy_from_slice(&self.cost.memory_kib.to_be_bytes());
        extra[20..24].copy_from_slice(&self.cost.passes.to_be_bytes());
        extra[24..].copy_from_slice(&self.cost.lanes.to_be_bytes());
        Ok(Capsule::Passphrase.seal(&*self.key(&extra)?, context, &extra, root.expose(), entropy))
    }

    fn unwrap(&self, blob: &[u8], context: &[u8]) -> Result<RootKey, CryptoError> {
        let key = self.key(Capsule::Passphrase.extra(blob)?)?;
        root_key(&Capsule::Passphrase.open::<PASSPHRASE_EXTRA>(&key, context, blob)?)
    }
}

fn root_key(bytes: &SecretBytes) -> Result<RootKey, CryptoError> {
    let mut key = <[u8; 32]>::try_from(bytes.expose().as_slice()).map_err(|_| CryptoError::Malformed)?;
    let root = RootKey(LockedKey::copy_of(&key));
    key.zeroize();
    Ok(root)
}

#[cfg(test)]
mod tests {
    use keyward_model::SeededEntropy;

    use super::*;

    fn passphrase(text: &str) -> PassphraseSeal {
        PassphraseSeal::new(Secret::new(text.into()), PassphraseCost::new(64, 1, 2).unwrap())
    }

    #[test]
    fn a_seal_opens_its_own_and_names_what_is_wrong() {
        let entropy = SeededEntropy::new(1);
        let root = RootKey::generate(&entropy);
        let shamir = ShamirSeal::generate(&entropy);
        let shares = shamir.split(5, 3, &entropy).unwrap();
        let seals: [(Box<dyn Seal>, Box<dyn Seal>); 3] = [
            (Box::new(KeyFileSeal::new(Secret::new([1; 32]))), Box::new(KeyFileSeal::new(Secret::new([2; 32])))),
            (Box::new(passphrase("horse")), Box::new(passphrase("Horse"))),
            (
                Box::new(ShamirSeal::from_shares(&shares[1..4]).unwrap()),
                Box::new(ShamirSeal::from_shares(&shares[1..3]).unwrap()),
            ),
        ];
        for (seal, wrong) in seals {
            let blob = if seal.kind() == "shamir" {
                shamir.wrap(&root, b"c", &entropy)
            } else {
                seal.wrap(&root, b"c", &entropy)
            };
            let blob = blob.unwrap();
            assert_eq!(seal.unwrap(&blob, b"c").unwrap().expose(), root.expose());
            assert_eq!(wrong.unwrap(&blob, b"c").unwrap_err(), CryptoError::WrongKey);
            assert_eq!(seal.unwrap(&blob, b"d").unwrap_err(), CryptoError::Integrity);
            for bit in 0..blob.len() * 8 {
                let mut changed = blob.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let error = seal.unwrap(&changed, b"c").unwrap_err();
                assert_ne!(error, CryptoError::WrongKey, "bit {bit} is damage, not another key");
            }
            for length in 0..blob.len() {
                assert!(seal.unwrap(&blob[..length], b"c").is_err());
            }
        }
    }

    #[test]
    fn what_the_root_key_holds_opens_in_its_place_only() {
        let entropy = SeededEntropy::new(1);
        let root = RootKey::generate(&entropy);
        let blob = root.wrap(b"signs", b"here", &entropy);
        assert_eq!(root.unwrap(&blob, b"here").unwrap().expose(), b"signs");
        assert_eq!(root.unwrap(&blob, b"there").unwrap_err(), CryptoError::Integrity);
        let other = RootKey::generate(&entropy);
        assert_eq!(other.unwrap(&blob, b"here").unwrap_err(), CryptoError::WrongKey);
        // A seal of the root key is no such secret, whoever holds the key.
        let key = KeyFileSeal::new(Secret::new(*root.expose()));
        assert!(key.unwrap(&blob, b"here").is_err());
    }

    #[test]
    fn a_planted_cost_is_refused_before_it_costs() {
        let seal = passphrase("x");
        for (memory, passes, lanes) in [(u32::MAX, 1, 1), (64, u32::MAX, 1), (64, 1, 17), (0, 0, 0), (15, 1, 2)] {
            let mut extra = [0; PASSPHRASE_EXTRA];
            for (place, number) in [16, 20, 24].into_iter().zip([memory, passes, lanes]) {
                extra[place..place + 4].copy_from_slice(&u32::to_be_bytes(number));
            }
            let blob = Capsule::Passphrase.seal(&[0; 32], b"c", &extra, &[0; 32], &SeededEntropy::new(1));
            assert_eq!(seal.unwrap(&blob, b"c").unwrap_err(), CryptoError::CostOutOfBounds);
        }
    }
}
