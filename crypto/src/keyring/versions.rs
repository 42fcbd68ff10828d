//! Versions: a data key of their own for each, which seals the value once and is itself wrapped under an epoch.
//!
//! Payload: suite (1), kind (1), key commitment (32), ciphertext, tag (16).
//! Wrapped: suite (1), kind of the wrapping key (1), epoch (4, big-endian), salt (32), wrapped key (32), tag (16).
//!
//! The payload knows nothing of the wrapping key, so rewrapping leaves it alone. The kind in the wrapped part says what
//! the number after it names; wrapping keys of another kind (per tenant and shred period) get a kind of their own.
//! GCM alone does not commit to its key, so the payload starts with a commitment to the data key.

use keyward_model::{Entropy, Id, Secret, SecretBytes, VersionBlob};
use subtle::ConstantTimeEq;

use super::Keyring;
use crate::CryptoError;
use crate::aead::{OnceKey, SALT, SUITE, TAG, strip_header};
use crate::kdf::derive_once;
use crate::place::{Kind, Place};

/// A value under a data key.
const PAYLOAD: u8 = 0x02;

/// A data key under a key derived from the keyring's key of an epoch.
const BY_EPOCH: u8 = 0x03;

const COMMITMENT: usize = 32;

const LABEL: &str = "wrap";

impl Keyring {
    /// Seals the value of `version` of `secret` under a fresh data key, and wraps that key under the active epoch.
    pub fn seal_version(&self, secret: Id, version: u64, plaintext: &[u8], entropy: &dyn Entropy) -> VersionBlob {
        let place = self.payload_place(secret, version);
        let data_key = Secret::new(self.hedge.hedge(entropy, "data key", [place.as_bytes(), plaintext]));
        let wrapped = self.wrap(secret, version, &data_key, entropy);
        let mut payload = Vec::with_capacity(2 + COMMITMENT + plaintext.len() + TAG);
        payload.extend_from_slice(&[SUITE, PAYLOAD]);
        payload.extend_from_slice(commitment(&data_key).expose());
        OnceKey::new(data_key).seal(place.as_bytes(), plaintext, &mut payload);
        VersionBlob { wrapped, payload }
    }

    /// Opens the value of `version` of `secret`. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`CryptoError::Integrity`] if either part is not what was sealed for this version;
    /// [`CryptoError::Malformed`], [`CryptoError::UnknownSuite`], [`CryptoError::UnknownEpoch`] or
    /// [`CryptoError::DestroyedEpoch`] as they say.
    pub fn open_version(
        &self,
        secret: Id,
        version: u64,
        wrapped: &[u8],
        payload: &[u8],
    ) -> Result<SecretBytes, CryptoError> {
        let rest = strip_header(payload, PAYLOAD)?;
        let (stored, sealed) = rest.split_first_chunk::<COMMITMENT>().ok_or(CryptoError::Malformed)?;
        let data_key = self.unwrap(secret, version, wrapped)?;
        if !bool::from(commitment(&data_key).expose().ct_eq(stored)) {
            return Err(CryptoError::Integrity);
        }
        OnceKey::new(data_key).open(self.payload_place(secret, version).as_bytes(), sealed)
    }

    /// Wraps the data key anew under the active epoch; `None` if it is under it already. The payload stays as it is.
    ///
    /// # Errors
    /// As [`Keyring::open_version`].
    pub fn rewrap(
        &self,
        secret: Id,
        version: u64,
        wrapped: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Option<Vec<u8>>, CryptoError> {
        if wrap_epoch(wrapped) == Some(self.active_epoch()) {
            return Ok(None);
        }
        Ok(Some(self.wrap(secret, version, &self.unwrap(secret, version, wrapped)?, entropy)))
    }

    fn wrap(&self, secret: Id, version: u64, data_key: &Secret<[u8; 32]>, entropy: &dyn Entropy) -> Vec<u8> {
        let (epoch, prf) = self.sealing_epoch();
        let place = self.wrap_place(secret, version, epoch);
        let salt = self.hedge.hedge(entropy, LABEL, [place.as_bytes(), data_key.expose()]);
        let mut out = Vec::with_capacity(6 + SALT + 32 + TAG);
        out.extend_from_slice(&[SUITE, BY_EPOCH]);
        out.extend_from_slice(&epoch.to_be_bytes());
        out.extend_from_slice(&salt);
        OnceKey::new(prf.derive(LABEL, &salt)).seal(place.as_bytes(), data_key.expose(), &mut out);
        out
    }

    fn unwrap(&self, secret: Id, version: u64, wrapped: &[u8]) -> Result<Secret<[u8; 32]>, CryptoError> {
        let rest = strip_header(wrapped, BY_EPOCH)?;
        let (epoch, rest) = rest.split_first_chunk().ok_or(CryptoError::Malformed)?;
        let (salt, sealed) = rest.split_first_chunk::<SALT>().ok_or(CryptoError::Malformed)?;
        let epoch = u32::from_be_bytes(*epoch);
        let prf = self.opening_epoch(epoch)?;
        OnceKey::new(prf.derive(LABEL, salt)).open_key(self.wrap_place(secret, version, epoch).as_bytes(), sealed)
    }

    fn payload_place(&self, secret: Id, version: u64) -> Place {
        let mut place = Place::new(self.domain, Kind::Payload);
        place.field(&secret.0);
        place.number(version);
        place.field(b"value");
        place
    }

    fn wrap_place(&self, secret: Id, version: u64, epoch: u32) -> Place {
        let mut place = Place::new(self.domain, Kind::Wrap);
        place.field(&secret.0);
        place.number(version);
        place.field(b"value");
        place.field(&[BY_EPOCH]);
        place.number(epoch.into());
        place
    }
}

/// What a payload shows of its data key: an output of HKDF, from which the key cannot be told nor a second one found.
fn commitment(data_key: &Secret<[u8; 32]>) -> Secret<[u8; COMMITMENT]> {
    derive_once(data_key.expose(), "commitment", &[0; 32])
}

/// The epoch that a data key is wrapped under; `None` if it is not wrapped by an epoch. Needs no key and proves nothing.
pub fn wrap_epoch(wrapped: &[u8]) -> Option<u32> {
    strip_header(wrapped, BY_EPOCH).ok()?.first_chunk().copied().map(u32::from_be_bytes)
}
