//! Sealed names: a path segment becomes the same bytes each time, so that the database can look it up and knows nothing.
//!
//! What leaks: that two siblings are equal (there are none) and the length of each segment. The parent is in the
//! additional data, so equal segments under different parents look unrelated.

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use keyward_model::Id;

use crate::CryptoError;
use crate::kdf::Prf;
use crate::memory::Locked;

/// Bytes that sealing adds to a segment: the synthetic IV, which comes first.
pub const NAME_OVERHEAD: usize = 16;

/// Seals and opens path segments, and numbers folders, of one tenant.
pub struct Names {
    siv: Locked<[u8; 64]>,
    folders: Prf,
}

impl Names {
    /// Names under the tenant's base key.
    pub(crate) fn new(base: &Prf) -> Self {
        let mut siv = Locked::new([0; 64]);
        siv[..32].copy_from_slice(base.derive("name.mac", &[0; 32]).expose());
        siv[32..].copy_from_slice(base.derive("name.ctr", &[0; 32]).expose());
        Self { siv, folders: base.child("folder") }
    }

    /// The id of a folder: HMAC-SHA-256 of mount and path, cut to 16 bytes. The empty path is the mount's root folder.
    ///
    /// `path` is the canonical path inside the mount. One path has one id for ever; nobody without the key can compute it.
    pub fn folder(&self, mount: Id, path: &[u8]) -> Id {
        let mut id = [0; 16];
        id.copy_from_slice(&self.folders.tag(&[&mount.0, path])[..16]);
        Id(id)
    }

    /// Seals `segment` under `parent`: 16 bytes of tag, then as many bytes as the segment has. Deterministic.
    pub fn seal(&self, parent: Id, segment: &[u8]) -> Vec<u8> {
        self.seal_after(&[], parent, segment)
    }

    /// The row key of `segment` under `parent`: the parent's 16 bytes, then [`Names::seal`].
    pub fn key(&self, parent: Id, segment: &[u8]) -> Vec<u8> {
        self.seal_after(&parent.0, parent, segment)
    }

    /// The segment that was sealed under `parent`.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] if `sealed` is too short, [`CryptoError::Integrity`] if it is not a name under `parent`.
    pub fn open(&self, parent: Id, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let Some((tag, text)) = sealed.split_first_chunk::<NAME_OVERHEAD>() else {
            return Err(CryptoError::Malformed);
        };
        let mut out = text.to_vec();
        Aes256Siv::new((&*self.siv).into())
            .decrypt_inout_detached([parent.0], out.as_mut_slice().into(), &(*tag).into())
            .map_err(|_| CryptoError::Integrity)?;
        Ok(out)
    }

    fn seal_after(&self, prefix: &[u8], parent: Id, segment: &[u8]) -> Vec<u8> {
        let start = prefix.len() + NAME_OVERHEAD;
        let mut out = Vec::with_capacity(start + segment.len());
        out.extend_from_slice(prefix);
        out.extend_from_slice(&[0; NAME_OVERHEAD]);
        out.extend_from_slice(segment);
        match Aes256Siv::new((&*self.siv).into()).encrypt_inout_detached([parent.0], (&mut out[start..]).into()) {
            Ok(tag) => out[prefix.len()..start].copy_from_slice(&tag),
            Err(_) => out.clear(), // unreachable: only more than 126 headers are refused, and this is one
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Names {
        Names::new(&Prf::new(&[3; 32]))
    }

    proptest! {
        #[test]
        fn a_name_opens_only_under_its_parent(parent: [u8; 16], other: [u8; 16], segment: Vec<u8>, rubbish: Vec<u8>) {
            let names = names();
            let sealed = names.seal(Id(parent), &segment);
            prop_assert_eq!(sealed.len(), segment.len() + NAME_OVERHEAD);
            prop_assert_eq!(&names.seal(Id(parent), &segment), &sealed);
            prop_assert_eq!(names.key(Id(parent), &segment), [&parent[..], &sealed].concat());
            prop_assert_eq!(names.open(Id(parent), &sealed).unwrap(), segment);
            prop_assume!(parent != other);
            prop_assert_eq!(names.open(Id(other), &sealed), Err(CryptoError::Integrity));
            prop_assert!(names.open(Id(parent), &rubbish).is_err());
        }
    }

    #[test]
    fn folders_differ_by_mount_and_path() {
        let names = names();
        let root = names.folder(Id([1; 16]), b"");
        assert_eq!(root, names.folder(Id([1; 16]), b""));
        assert_ne!(root, names.folder(Id([2; 16]), b""));
        assert_ne!(root, names.folder(Id([1; 16]), b"a"));
    }
}
