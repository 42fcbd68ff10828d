//! References: how audit events and caches name a secret without telling its path.
//!
//! A reference correlates; it never authorises and never keys a value cache, because it is cut to 128 bits.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyward_model::Secret;

use crate::kdf::{Prf, hkdf};

/// Makes the references of one tenant under one key epoch.
pub struct References {
    epoch: u32,
    tenant: String,
    key: Prf,
}

impl References {
    /// References of `tenant` under the random input key of `epoch`:
    /// `K = HKDF-SHA256(ikm, salt = "keyward:ref", info = tenant, L = 32)`.
    pub(crate) fn new(epoch: u32, tenant: &str, ikm: &[u8; 32]) -> Self {
        // HMAC pads a short key with zeros, so the padded salt is the salt.
        let mut salt = [0; 32];
        salt[..11].copy_from_slice(b"keyward:ref");
        Self::with_key(epoch, tenant, &hkdf(&salt, ikm, tenant.as_bytes()))
    }

    /// References under a key that is used as it is, for compatibility with a tenant salt from elsewhere.
    pub fn with_key(epoch: u32, tenant: &str, key: &Secret<[u8; 32]>) -> Self {
        Self { epoch, tenant: tenant.to_owned(), key: Prf::new(key.expose()) }
    }

    /// `rr1.<epoch>.<22 characters>`: names one secret. `base_uri` is the canonical URI without version and key.
    pub fn resource_ref(&self, base_uri: &str) -> String {
        self.reference("rr1.", b"keyward:resource_ref:v1\0", base_uri)
    }

    /// `pr1.<epoch>.<22 characters>`: names one key or version of a secret, by its whole canonical URI.
    pub fn pointer_ref(&self, canonical_uri: &str) -> String {
        self.reference("pr1.", b"keyward:pointer_ref:v1\0", canonical_uri)
    }

    fn reference(&self, prefix: &str, label: &[u8], uri: &str) -> String {
        let tag = self.key.tag(&[label, self.tenant.as_bytes(), &[0], uri.as_bytes()]);
        let mut out = String::with_capacity(prefix.len() + 33);
        out.push_str(prefix);
        out.push_str(&self.epoch.to_string());
        out.push('.');
        URL_SAFE_NO_PAD.encode_string(&tag[..16], &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use ::hkdf::Hkdf;
    use sha2::Sha256;

    use super::*;

    #[test]
    fn the_key_is_derived_as_specified() {
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(Some(b"keyward:ref"), &[5; 32]).expand(b"acme", &mut key).unwrap();
        let direct = References::with_key(3, "acme", &Secret::new(key));
        assert_eq!(References::new(3, "acme", &[5; 32]).resource_ref("a"), direct.resource_ref("a"));
        assert!(direct.resource_ref("a").starts_with("rr1.3."));
    }
}
