//! The keyring as bytes, sealed by the root key.
//!
//! Inside, numbers big-endian: format (1), base, token and state key (32 each), count of reference keys (4) and these
//! (32 each), count of epochs (4) and these: number (4), created (8), uses (8), key present (1), key (32 if present).

use std::sync::atomic::Ordering;

use keyward_model::{Entropy, Id, Secret, SecretBytes, Timestamp};

use super::{Epoch, EpochKey, Keyring};
use crate::capsule::Capsule;
use crate::memory::LockedKey;
use crate::{CryptoError, RootKey};

const FORMAT: u8 = 1;

impl Keyring {
    /// The keyring sealed by `root`, bound to its data domain.
    pub fn seal_to(&self, root: &RootKey, entropy: &dyn Entropy) -> Vec<u8> {
        Capsule::Keyring.seal(root.expose(), &self.domain.0, &[], self.to_bytes().expose(), entropy)
    }

    /// Opens what [`Keyring::seal_to`] gave. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`CryptoError::WrongKey`] if another root key sealed it, [`CryptoError::Integrity`] if it is damaged or of another
    /// data domain, [`CryptoError::Malformed`] or [`CryptoError::UnknownSuite`] if it is no sealed keyring.
    pub fn open_from(root: &RootKey, domain: Id, sealed: &[u8]) -> Result<Self, CryptoError> {
        let bytes = Capsule::Keyring.open::<0>(root.expose(), &domain.0, sealed)?;
        Self::from_bytes(domain, &mut Reader(bytes.expose()))
    }

    fn to_bytes(&self) -> SecretBytes {
        // Sized in full at once: growing would leave copies of keys behind.
        let (references, epochs) = (self.older_references.len() + 1, self.older.len() + 1);
        let mut out = Vec::with_capacity(1 + 3 * 32 + 8 + 32 * references + 53 * epochs);
        out.push(FORMAT);
        for key in [&self.base, &self.token, &self.state] {
            out.extend_from_slice(&**key);
        }
        out.extend_from_slice(&(references as u32).to_be_bytes());
        for key in self.older_references.iter().chain([&self.reference]) {
            out.extend_from_slice(&**key);
        }
        out.extend_from_slice(&(epochs as u32).to_be_bytes());
        for epoch in &self.older {
            write(&mut out, epoch, epoch.key.as_ref());
        }
        write(&mut out, &self.active, Some(&self.active.key));
        Secret::new(out)
    }

    fn from_bytes(domain: Id, from: &mut Reader<'_>) -> Result<Self, CryptoError> {
        if from.take::<1>()? != &[FORMAT] {
            return Err(CryptoError::Malformed);
        }
        let keys = [from.key()?, from.key()?, from.key()?];
        let mut references = (0..from.count()?).map(|_| from.key()).collect::<Result<Vec<_>, _>>()?;
        let mut epochs = (0..from.count()?).map(|_| from.epoch()).collect::<Result<Vec<_>, _>>()?;
        let ascending = epochs.is_sorted_by(|a, b| a.number < b.number);
        let (Some(reference), Some(active), true, []) = (references.pop(), epochs.pop(), ascending, from.0) else {
            return Err(CryptoError::Malformed);
        };
        let Epoch { number, created, uses, key: Some(key) } = active else { return Err(CryptoError::Malformed) };
        let active = Epoch { number, created, uses, key };
        Ok(Self::assemble(domain, (active, epochs), (reference, references), keys))
    }
}

fn write<K>(out: &mut Vec<u8>, epoch: &Epoch<K>, key: Option<&EpochKey>) {
    out.extend_from_slice(&epoch.number.to_be_bytes());
    out.extend_from_slice(&epoch.created.0.to_be_bytes());
    out.extend_from_slice(&epoch.uses.load(Ordering::Relaxed).to_be_bytes());
    out.push(key.is_some().into());
    if let Some(key) = key {
        out.extend_from_slice(&*key.raw);
    }
}

/// Takes fixed-size pieces off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], CryptoError> {
        let (piece, rest) = self.0.split_first_chunk().ok_or(CryptoError::Malformed)?;
        self.0 = rest;
        Ok(piece)
    }

    fn count(&mut self) -> Result<u32, CryptoError> {
        self.take().copied().map(u32::from_be_bytes)
    }

    fn key(&mut self) -> Result<LockedKey, CryptoError> {
        self.take().map(LockedKey::copy_of)
    }

    fn epoch(&mut self) -> Result<Epoch<Option<EpochKey>>, CryptoError> {
        let number = self.count()?;
        let created = Timestamp(i64::from_be_bytes(*self.take()?));
        let uses = u64::from_be_bytes(*self.take()?);
        let key = match self.take()? {
            [0] => None,
            [1] => Some(EpochKey::new(self.key()?)),
            _ => return Err(CryptoError::Malformed),
        };
        Ok(Epoch::new(number, created, uses, key))
    }
}

#[cfg(test)]
mod tests {
    use keyward_model::SeededEntropy;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_keyring_survives_storage() {
        let entropy = SeededEntropy::new(3);
        let (domain, root) = (Id([7; 16]), RootKey::generate(&entropy));
        let mut ring = Keyring::generate(domain, Timestamp(1), &entropy);
        ring.rotate(Timestamp(2), &entropy);
        ring.rotate(Timestamp(3), &entropy);
        ring.rotate_references(&entropy);
        ring.destroy_epoch(1).unwrap();
        let blob = ring.seal_version(domain, 1, b"x", &entropy);
        let sealed = ring.seal_to(&root, &entropy);
        let again = Keyring::open_from(&root, domain, &sealed).unwrap();
        assert_eq!(again.epochs(), ring.epochs());
        assert_eq!(again.token_hash(b"t"), ring.token_hash(b"t"));
        assert_eq!(again.references("a").resource_ref("b"), ring.references("a").resource_ref("b"));
        assert_eq!(again.open_version(domain, 1, &blob.wrapped, &blob.payload).unwrap().expose(), b"x");
        let other = Keyring::open_from(&RootKey::generate(&entropy), domain, &sealed);
        assert_eq!(other.unwrap_err(), CryptoError::WrongKey);
        assert_eq!(Keyring::open_from(&root, Id([8; 16]), &sealed).unwrap_err(), CryptoError::Integrity);
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let error = Keyring::open_from(&root, domain, &changed).unwrap_err();
            assert_ne!(error, CryptoError::WrongKey, "bit {bit} is damage, not another key");
        }
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(bytes: Vec<u8>) {
            drop(Keyring::from_bytes(Id::ZERO, &mut Reader(&bytes)));
            drop(Keyring::open_from(&RootKey::generate(&SeededEntropy::new(1)), Id::ZERO, &bytes));
        }
    }
}
