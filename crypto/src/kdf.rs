//! Derivation: HMAC-SHA-256 under a key that is scheduled once and cloned per use.

use hmac::{Hmac, KeyInit, Mac};
use keyward_model::{Entropy, Secret};
use sha2::Sha256;
use zeroize::Zeroize;

use crate::memory::Locked;

/// A pseudo-random function: HMAC-SHA-256 (RFC 2104), keyed once, kept in locked memory.
pub(crate) struct Prf(Locked<Hmac<Sha256>>);

impl Prf {
    /// The function under `key`. A 32-byte key padded with zeros to the block length is what RFC 2104 prescribes.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(Locked::new(keyed(key)))
    }

    /// HMAC over the parts, one after the other. Callers make sure that the parts cannot be cut differently.
    pub(crate) fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        tag(self.0.clone(), parts)
    }

    /// HKDF-Expand (RFC 5869 §2.3) to 32 bytes, with info = `label` ‖ `salt`: one HMAC, since 32 bytes are one block.
    ///
    /// Sound without HKDF-Extract because every key here is uniformly random already. `salt` has one length throughout,
    /// so two different (label, salt) never give the same info.
    pub(crate) fn derive(&self, label: &str, salt: &[u8; 32]) -> Secret<[u8; 32]> {
        Secret::new(self.tag(&[label.as_bytes(), salt, &[1]]))
    }

    /// The function under a key derived for `label` alone.
    pub(crate) fn child(&self, label: &str) -> Self {
        Self::new(self.derive(label, &[0; 32]).expose())
    }

    /// 32 fresh bytes for one use, hedged: HMAC over random bytes and everything that the use is about.
    ///
    /// WHY: a cloned virtual machine or a broken generator may give the same random bytes twice. Then the result repeats
    /// only for the very same input, whose sealing is merely equal, instead of one key sealing two texts.
    pub(crate) fn hedge(&self, entropy: &dyn Entropy, label: &str, parts: [&[u8]; 2]) -> [u8; 32] {
        let mut fresh = Secret::new([0; 32]);
        entropy.fill(fresh.expose_mut());
        let length = (parts[0].len() as u64).to_be_bytes();
        self.tag(&[label.as_bytes(), fresh.expose(), &length, parts[0], parts[1]])
    }
}

/// As [`Prf::derive`], for a key that is used once: on the stack, so that the hot path takes no lock.
pub(crate) fn derive_once(key: &[u8; 32], label: &str, salt: &[u8; 32]) -> Secret<[u8; 32]> {
    Secret::new(tag(keyed(key), &[label.as_bytes(), salt, &[1]]))
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    let keyed = Hmac::new((&block).into());
    block.zeroize();
    keyed
}

fn tag(mut mac: Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// HKDF-SHA-256 (RFC 5869), extract and expand, to 32 bytes; for keys whose standard wants the whole of it.
pub(crate) fn hkdf(salt: &[u8; 32], ikm: &[u8; 32], info: &[u8]) -> Secret<[u8; 32]> {
    let extracted = Secret::new(Prf::new(salt).tag(&[ikm]));
    Secret::new(Prf::new(extracted.expose()).tag(&[info, &[1]]))
}

#[cfg(test)]
mod tests {
    use hkdf::Hkdf;
    use keyward_model::SeededEntropy;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_hkdf_crate(key: [u8; 32], salt: [u8; 32], info: Vec<u8>) {
            let mut expected = [0; 32];
            Hkdf::<Sha256>::from_prk(&key).unwrap().expand(&[&b"row"[..], &salt].concat(), &mut expected).unwrap();
            prop_assert_eq!(*Prf::new(&key).derive("row", &salt).expose(), expected);
            prop_assert_eq!(*derive_once(&key, "row", &salt).expose(), expected);
            Hkdf::<Sha256>::new(Some(&salt), &key).expand(&info, &mut expected).unwrap();
            prop_assert_eq!(*hkdf(&salt, &key, &info).expose(), expected);
        }
    }

    #[test]
    fn repeated_randomness_repeats_only_for_equal_input() {
        let prf = Prf::new(&[7; 32]);
        let draw = |a: &[u8], b: &[u8]| prf.hedge(&SeededEntropy::new(1), "x", [a, b]);
        assert_eq!(draw(b"a", b"bc"), draw(b"a", b"bc"));
        assert_ne!(draw(b"a", b"bc"), draw(b"ab", b"c"));
        assert_ne!(draw(b"a", b"bc"), draw(b"a", b"bd"));
    }
}
