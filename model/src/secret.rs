//! Custody of plaintext: a value that is wiped when dropped and stays silent in every output.

use std::fmt;

use zeroize::Zeroize;

/// A plaintext, key or token in memory.
///
/// It is wiped on drop, prints as `Secret(…)`, and has no `Display`, `Clone`, `PartialEq` or `Serialize`: the only way to
/// the content is [`Secret::expose`], so a review is a search for that word.
///
/// ```compile_fail
/// let secret = keyward_model::Secret::new(vec![1u8]);
/// let copy = secret.clone(); // custody is not shared
/// ```
pub struct Secret<T: Zeroize>(T);

/// Secret bytes of any length.
pub type SecretBytes = Secret<Vec<u8>>;

impl<T: Zeroize> Secret<T> {
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

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_silent() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret(…)");
    }
}
