//! The keys in memory while unsealed. They follow the state: when a keyring that was rotated is applied, on whichever node
//! it was rotated, the keys here are those of the new one before anybody sees that it was.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use keyward_crypto::{CryptoError, Keyring, References, RootKey};

use crate::seal::OpenedKeys;

/// The name of the one tenant there is, in audit references.
pub const TENANT: &str = "default";

/// What is in memory while unsealed.
pub struct Keys {
    keyring: Keyring,
    /// Wraps the keyring.
    pub root: Arc<RootKey>,
    /// Keyed references for the audit.
    pub references: References,
}

/// The place of the keys: empty while sealed.
#[derive(Default)]
pub struct KeySlot(ArcSwapOption<Keys>);

impl Keys {
    fn new(opened: OpenedKeys) -> Self {
        let OpenedKeys { keyring, root } = opened;
        let references = keyring.references(TENANT);
        Self { keyring, root, references }
    }
}

impl Deref for Keys {
    type Target = Keyring;

    fn deref(&self) -> &Keyring {
        &self.keyring
    }
}

impl KeySlot {
    /// The keys, while unsealed.
    pub fn load(&self) -> Option<Arc<Keys>> {
        self.0.load_full()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.load().is_none()
    }

    /// Puts keys in place.
    pub fn fill(&self, opened: OpenedKeys) {
        self.0.store(Some(Arc::new(Keys::new(opened))));
    }

    /// Takes the keys away. Whoever holds a copy finishes with it; it is wiped with the last of them.
    pub fn clear(&self) {
        self.0.store(None);
    }

    /// Opens the keyring that now stands in the state, with the root key that is in memory. Nothing happens while sealed.
    ///
    /// # Errors
    /// The keyring does not open: it was wrapped by another root key, or is damaged.
    pub fn follow(&self, sealed: &[u8]) -> Result<(), CryptoError> {
        while let Some(old) = self.load() {
            let keyring = Keyring::open_from(&old.root, old.domain(), sealed)?;
            if keyring.active_epoch() < old.active_epoch() {
                break; // read before the one that is in place was
            }
            let new = Arc::new(Keys::new(OpenedKeys { keyring, root: Arc::clone(&old.root) }));
            let old = Some(old);
            let found = self.0.compare_and_swap(&old, Some(new));
            if found.as_ref().map(Arc::as_ptr) == old.as_ref().map(Arc::as_ptr) {
                break;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl std::fmt::Debug for KeySlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySlot").field("empty", &self.is_empty()).finish()
    }
}

#[cfg(test)]
mod tests {
    use keyward_model::{Id, SeededEntropy, Timestamp};

    use super::*;

    #[test]
    fn a_rotated_keyring_takes_the_place_of_the_old_one() {
        let entropy = SeededEntropy::new(3);
        let (root, domain) = (Arc::new(RootKey::generate(&entropy)), Id([7; 16]));
        let keyring = Keyring::generate(domain, Timestamp(0), &entropy);
        let first = keyring.seal_to(&root, &entropy);
        let mut rotated = Keyring::open_from(&root, domain, &first).unwrap();
        rotated.rotate(Timestamp(1), &entropy);
        let sealed = rotated.seal_to(&root, &entropy);

        let slot = KeySlot::default();
        slot.follow(&sealed).unwrap();
        assert!(slot.is_empty(), "sealed stays sealed");
        slot.fill(OpenedKeys { keyring, root });
        let before = slot.load().unwrap().active_epoch();
        slot.follow(&sealed).unwrap();
        assert_eq!(slot.load().unwrap().active_epoch(), before + 1);
        let earlier = Keyring::open_from(&slot.load().unwrap().root, domain, &first).unwrap();
        slot.follow(&earlier.seal_to(&slot.load().unwrap().root, &entropy)).unwrap();
        assert_eq!(slot.load().unwrap().active_epoch(), before + 1, "an older one does not come back");
        let foreign = RootKey::generate(&entropy);
        assert!(slot.follow(&rotated.seal_to(&foreign, &entropy)).is_err());
        assert_eq!(slot.load().unwrap().active_epoch(), before + 1, "what does not open changes nothing");
    }
}
