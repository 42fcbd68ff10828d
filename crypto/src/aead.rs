//! AES-256-GCM with keys that seal once.
//!
//! GCM fails badly when one key meets one nonce twice, and counters or random 96-bit nonces make that depend on state
//! that a restored backup or a cloned machine turns back. Here no long-lived key ever seals: for every sealing a fresh
//! key is derived from the long-lived one and a stored 32-byte salt (HKDF-Expand, RFC 5869), or drawn afresh (data keys).
//! A pair of key and nonce can only repeat if 256 random bits repeat, so the nonce is a constant.
//! The types say the same: a [`OnceKey`] is consumed by sealing.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use keyward_model::Secret;

use crate::CryptoError;

/// The one set of algorithms: AES-256-GCM, HKDF-SHA-256, HMAC-SHA-256. First byte of every blob, and in every AAD.
pub(crate) const SUITE: u8 = 1;

/// Bytes of a GCM tag.
pub(crate) const TAG: usize = 16;

/// Bytes of a salt from which a key is derived.
pub(crate) const SALT: usize = 32;

/// The nonce of every sealing: constant, because each key seals once.
const NONCE: [u8; 12] = [0; 12];

/// A key for exactly one sealing (and any number of openings of it).
pub(crate) struct OnceKey(Secret<[u8; 32]>);

impl OnceKey {
    /// Takes a fresh key. The caller warrants that it has sealed nothing yet.
    pub(crate) fn new(key: Secret<[u8; 32]>) -> Self {
        Self(key)
    }

    /// Appends the sealed `plaintext` and its tag to `out`. A text beyond GCM's 64 GiB empties `out`: it then never opens.
    pub(crate) fn seal(self, aad: &[u8], plaintext: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(plaintext);
        let cipher = Aes256Gcm::new(self.0.expose().into());
        match cipher.encrypt_inout_detached(&Nonce::from(NONCE), aad, (&mut out[start..]).into()) {
            Ok(tag) => out.extend_from_slice(&tag),
            Err(_) => *out = Vec::new(),
        }
    }

    /// Opens `sealed` (ciphertext, then tag).
    ///
    /// # Errors
    /// [`CryptoError::Integrity`] if it is not what was sealed with this key and `aad`.
    pub(crate) fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Secret<Vec<u8>>, CryptoError> {
        let Some((text, tag)) = sealed.split_last_chunk::<TAG>() else {
            return Err(CryptoError::Malformed);
        };
        let mut out = Secret::new(text.to_vec());
        self.open_in_place(aad, out.expose_mut(), tag)?;
        Ok(out)
    }

    /// Opens a sealed key into an array, without the heap.
    ///
    /// # Errors
    /// As [`OnceKey::open`]; [`CryptoError::Malformed`] if the length differs.
    pub(crate) fn open_key(&self, aad: &[u8], sealed: &[u8]) -> Result<Secret<[u8; 32]>, CryptoError> {
        let Some((text, tag)) = sealed.split_last_chunk::<TAG>() else {
            return Err(CryptoError::Malformed);
        };
        let mut out = Secret::new(<[u8; 32]>::try_from(text).map_err(|_| CryptoError::Malformed)?);
        self.open_in_place(aad, out.expose_mut(), tag)?;
        Ok(out)
    }

    fn open_in_place(&self, aad: &[u8], text: &mut [u8], tag: &[u8; TAG]) -> Result<(), CryptoError> {
        let cipher = Aes256Gcm::new(self.0.expose().into());
        cipher
            .decrypt_inout_detached(&Nonce::from(NONCE), aad, text.into(), &Tag::from(*tag))
            .map_err(|_| CryptoError::Integrity)
    }
}

/// Checks the first two bytes of a blob, suite and kind, and gives the rest.
///
/// # Errors
/// [`CryptoError::UnknownSuite`] for a suite outside the allow-list, [`CryptoError::Malformed`] for another kind.
pub(crate) fn strip_header(blob: &[u8], kind: u8) -> Result<&[u8], CryptoError> {
    match blob {
        [SUITE, found, rest @ ..] if *found == kind => Ok(rest),
        [SUITE, ..] | [] => Err(CryptoError::Malformed),
        [suite, ..] => Err(CryptoError::UnknownSuite(*suite)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_answer() {
        // GCM specification (McGrew, Viega), test case 14: zero key, zero nonce, one zero block.
        let mut out = Vec::new();
        OnceKey::new(Secret::new([0; 32])).seal(&[], &[0; 16], &mut out);
        assert_eq!(hex::encode(&out), "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
        assert_eq!(OnceKey::new(Secret::new([0; 32])).open(&[], &out).unwrap().expose(), &[0; 16]);
    }

    #[test]
    fn the_header_is_checked() {
        assert_eq!(strip_header(&[1, 7, 5], 7), Ok(&[5][..]));
        assert_eq!(strip_header(&[1, 7, 5], 8), Err(CryptoError::Malformed));
        assert_eq!(strip_header(&[2, 7, 5], 7), Err(CryptoError::UnknownSuite(2)));
        assert_eq!(strip_header(&[], 7), Err(CryptoError::Malformed));
    }
}
