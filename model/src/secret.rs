//! Custody of plaintext: a value that is wiped when dropped and stays silent in every output.

use std::fmt;

use zeroize::{Zeroize, optimization_barrier};

/// A plaintext, key or token in memory.
///
/// It is wiped on drop, prints as `Secret(…)`, and has no `Display`, `Clone`, `PartialEq` or `Serialize`: the only way to
/// the content is [`Secret::expose`], so a review is a search for that word.
///
/// ```compile_fail
/// let secret = keyward_model::Secret::new(vec![1u8]);
/// let copy = secret.clone(); // custody is not shared
/// ```
pub struct Secret<T: Wipe>(T);

/// What can be in custody: bytes that can be overwritten where they lie, so that no compiler leaves that out.
pub trait Wipe {
    /// Overwrites all that was ever there with zeros, spare room included.
    fn wipe(&mut self);
}

impl Wipe for Vec<u8> {
    fn wipe(&mut self) {
        // WHY: `zeroize` stores one byte at a time, which costs more than all else about a large value; this is a memset.
        self.clear();
        self.resize(self.capacity(), 0);
        optimization_barrier(self.as_slice());
        self.clear();
    }
}

impl Wipe for String {
    fn wipe(&mut self) {
        let mut bytes = std::mem::take(self).into_bytes();
        bytes.wipe();
    }
}

impl<const N: usize> Wipe for [u8; N] {
    fn wipe(&mut self) {
        self.zeroize();
    }
}

/// Secret bytes of any length.
pub type SecretBytes = Secret<Vec<u8>>;

impl<T: Wipe> Secret<T> {
    /// Takes `value` into custody.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The plaintext. Every call is a place to review.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// The plaintext, to be filled or changed in place.
    pub fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Wipe> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<T: Wipe> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

impl<T: Wipe> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wiping_reaches_spare_room_and_moves_nothing() {
        let mut bytes = vec![7u8; 1000];
        bytes.truncate(10);
        let (capacity, place) = (bytes.capacity(), bytes.as_ptr());
        bytes.wipe();
        assert_eq!((bytes.len(), bytes.capacity(), bytes.as_ptr()), (0, capacity, place));
        bytes.resize(capacity, 1);
        bytes.wipe();
        assert_eq!(bytes, b"");
        let mut text = "x".repeat(100);
        text.wipe();
        assert_eq!(text, "");
        let mut key = [7u8; 32];
        key.wipe();
        assert_eq!(key, [0; 32]);
    }

    #[test]
    fn debug_is_silent() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret(…)");
    }
}
