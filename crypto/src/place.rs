//! Where sealed bytes belong: the canonical additional data (AAD) that every sealing is bound to.
//!
//! The encoding is a list of fields, each a 4-byte big-endian length and its bytes:
//! `"keyward.v1"`, suite, data domain, tenant, object kind, then the fields of that kind in fixed order. Nothing can be
//! moved from one field to the next, and an absent number (no bytes) differs from zero (eight bytes).

use keyward_model::Id;

use crate::aead::SUITE;

/// The one tenant there is for now. Bound into every sealing, so that more tenants need no new format.
pub(crate) const TENANT: Id = Id::ZERO;

/// What kind of thing is sealed. The number is part of the format.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A row of the state database, under a key of its epoch.
    Row = 1,
    /// The value of a secret version, under its data key.
    Payload = 2,
    /// A data key, under a key of its epoch.
    Wrap = 3,
    /// The keyring, or the root key, under one key outside the keyring.
    Capsule = 4,
}

/// Long enough for a row of any table with a short name: then a place costs no allocation.
const INLINE: usize = 320;

/// A place under construction.
pub(crate) struct Place {
    inline: [u8; INLINE],
    length: usize,
    spill: Vec<u8>,
}

impl Place {
    /// The fields that every place starts with.
    pub(crate) fn new(domain: Id, kind: Kind) -> Self {
        let mut place = Self { inline: [0; INLINE], length: 0, spill: Vec::new() };
        place.field(b"keyward.v1");
        place.field(&[SUITE]);
        place.field(&domain.0);
        place.field(&TENANT.0);
        place.field(&[kind as u8]);
        place
    }

    /// Adds a field.
    pub(crate) fn field(&mut self, bytes: &[u8]) {
        // No field comes near 4 GiB; one that did would be bound by its length modulo 2^32 and still by all its bytes.
        let prefix = (bytes.len() as u32).to_be_bytes();
        let end = self.length + prefix.len() + bytes.len();
        if self.spill.is_empty() {
            if let Some(free) = self.inline.get_mut(self.length..end) {
                let (head, tail) = free.split_at_mut(prefix.len());
                head.copy_from_slice(&prefix);
                tail.copy_from_slice(bytes);
                self.length = end;
                return;
            }
            self.spill.reserve(end + INLINE);
            self.spill.extend_from_slice(&self.inline[..self.length]);
        }
        self.spill.extend_from_slice(&prefix);
        self.spill.extend_from_slice(bytes);
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, number: u64) {
        self.field(&number.to_be_bytes());
    }

    /// Adds a number that may be absent.
    pub(crate) fn optional(&mut self, number: Option<u64>) {
        match number {
            Some(number) => self.number(number),
            None => self.field(&[]),
        }
    }

    /// The encoding so far.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        if self.spill.is_empty() { &self.inline[..self.length] } else { &self.spill }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_encoding_is_fixed() {
        let mut place = Place::new(Id([0xd0; 16]), Kind::Wrap);
        place.number(5);
        place.optional(None);
        let expected = "0000000a6b6579776172642e7631 0000000101 00000010d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0 \
                        0000001000000000000000000000000000000000 0000000103 000000080000000000000005 00000000";
        assert_eq!(hex::encode(place.as_bytes()), expected.replace(' ', ""));
    }

    proptest! {
        #[test]
        fn spilling_changes_nothing(fields: Vec<Vec<u8>>) {
            let mut place = Place::new(Id::ZERO, Kind::Row);
            let mut expected = place.as_bytes().to_vec();
            for field in &fields {
                place.field(field);
                expected.extend((field.len() as u32).to_be_bytes());
                expected.extend(field);
            }
            prop_assert_eq!(place.as_bytes(), &expected);
        }
    }
}
