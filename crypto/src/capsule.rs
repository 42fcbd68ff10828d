//! A capsule: a small thing sealed by one key from outside the keyring, telling a wrong key from damage.
//!
//! Layout: suite, kind, extra (fixed length by kind), salt (32), key check (16), ciphertext, tag (16), digest (16).
//! The digest is plain SHA-256 over all before it: whatever fails it is damaged, and what passes it but fails the key
//! check has met another key. Neither helps an attacker, who could try the tag anyway.

use keyward_model::{Entropy, Id, SecretBytes};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::CryptoError;
use crate::aead::{OnceKey, SALT, SUITE, TAG, strip_header};
use crate::kdf::Prf;
use crate::place::{Kind, Place};

/// What a capsule holds and who seals it. The number is part of the format.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Capsule {
    /// The keyring, under the root key.
    Keyring = 0x10,
    /// The root key, under a key from a file.
    KeyFile = 0x11,
    /// The root key, under a key from a passphrase.
    Passphrase = 0x12,
    /// The root key, under a key that was shared out.
    Shamir = 0x13,
    /// A small secret of the installation (a key that signs, say), under the root key.
    Held = 0x14,
}

const CHECK: usize = 16;
const DIGEST: usize = 16;

impl Capsule {
    /// Seals `plaintext`, bound to `context` (which is not stored) and `extra` (which is, in clear).
    pub(crate) fn seal(
        self,
        key: &[u8; 32],
        context: &[u8],
        extra: &[u8],
        plaintext: &[u8],
        entropy: &dyn Entropy,
    ) -> Vec<u8> {
        let prf = Prf::new(key);
        let place = self.place(context, extra);
        let salt = prf.hedge(entropy, "capsule.salt", [place.as_bytes(), plaintext]);
        let mut out = Vec::with_capacity(2 + extra.len() + SALT + CHECK + plaintext.len() + TAG + DIGEST);
        out.extend_from_slice(&[SUITE, self as u8]);
        out.extend_from_slice(extra);
        out.extend_from_slice(&salt);
        out.extend_from_slice(&check(&prf, &salt));
        OnceKey::new(prf.derive("capsule", &salt)).seal(place.as_bytes(), plaintext, &mut out);
        let digest = digest(&out);
        out.extend_from_slice(&digest);
        out
    }

    /// Checks that `blob` is an undamaged capsule of this kind, and gives its extra bytes.
    ///
    /// # Errors
    /// [`CryptoError::UnknownSuite`], [`CryptoError::Malformed`] or, for damage, [`CryptoError::Integrity`].
    pub(crate) fn extra<const N: usize>(self, blob: &[u8]) -> Result<&[u8; N], CryptoError> {
        let rest = strip_header(blob, self as u8)?;
        let extra = rest.first_chunk::<N>().ok_or(CryptoError::Malformed)?;
        let (body, stored) = blob.split_last_chunk::<DIGEST>().ok_or(CryptoError::Malformed)?;
        if body.len() < 2 + N + SALT + CHECK + TAG {
            return Err(CryptoError::Malformed);
        }
        if digest(body) != *stored {
            return Err(CryptoError::Integrity);
        }
        Ok(extra)
    }

    /// Opens what [`Capsule::seal`] sealed with `N` extra bytes.
    ///
    /// # Errors
    /// As [`Capsule::extra`]; [`CryptoError::WrongKey`] if another key sealed it, [`CryptoError::Integrity`] if the
    /// context is another.
    pub(crate) fn open<const N: usize>(
        self,
        key: &[u8; 32],
        context: &[u8],
        blob: &[u8],
    ) -> Result<SecretBytes, CryptoError> {
        let extra = self.extra::<N>(blob)?;
        let rest = blob.get(2 + N..blob.len() - DIGEST).ok_or(CryptoError::Malformed)?;
        let (salt, rest) = rest.split_first_chunk::<SALT>().ok_or(CryptoError::Malformed)?;
        let (stored, sealed) = rest.split_first_chunk::<CHECK>().ok_or(CryptoError::Malformed)?;
        let prf = Prf::new(key);
        if !bool::from(check(&prf, salt).ct_eq(stored)) {
            return Err(CryptoError::WrongKey);
        }
        OnceKey::new(prf.derive("capsule", salt)).open(self.place(context, extra).as_bytes(), sealed)
    }

    fn place(self, context: &[u8], extra: &[u8]) -> Place {
        let mut place = Place::new(Id::ZERO, Kind::Capsule);
        place.field(&[self as u8]);
        place.field(context);
        place.field(extra);
        place
    }
}

fn check(prf: &Prf, salt: &[u8; SALT]) -> [u8; CHECK] {
    cut(prf.derive("capsule.check", salt).expose())
}

fn digest(bytes: &[u8]) -> [u8; DIGEST] {
    cut(&Sha256::digest(bytes).into())
}

fn cut(bytes: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&bytes[..16]);
    out
}
