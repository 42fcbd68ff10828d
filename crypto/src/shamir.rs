//! Shamir's secret sharing in the layout of Vault and OpenBao: 32 bytes of share, then the x coordinate.
//!
//! The field is GF(2^8) with polynomial 0x11b; the arithmetic is vsss-rs's, constant in time and audited. Shares carry no
//! checksum: shares that do not belong together give a wrong key, and the seal's key check notices.

use std::convert::Infallible;

use keyward_model::{Entropy, Secret, SecretBytes};
use rand::{TryCryptoRng, TryRng};
use vsss_rs::Gf256;
use zeroize::Zeroize;

/// Why a key could not be split, or shares not combined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShareError {
    /// Not `1 of 1`, nor `threshold of shares` with 2 ≤ threshold ≤ shares.
    #[error("threshold must be at least two and at most the number of shares, or both must be one")]
    Parameters,
    /// The shares are not of one length.
    #[error("all parts must be the same length")]
    UnequalLengths,
    /// A share is neither 33 bytes, nor alone and 32 bytes, or its x coordinate is zero.
    #[error("a share is 33 bytes, or 32 bytes where one share is the whole key; check that it was copied completely")]
    Malformed,
    /// Two shares have the same x coordinate.
    #[error("duplicate share; give each share once")]
    Duplicate,
    /// No single share of a split key is enough.
    #[error("too few shares; give as many as the threshold asks for")]
    TooFew,
}

/// Bytes of one share of a split key.
pub const SHARE_BYTES: usize = 33;

/// Splits `key` so that any `threshold` of the `shares` make it again. `1 of 1` gives the key itself (32 bytes).
///
/// # Errors
/// [`ShareError::Parameters`].
pub fn split(key: &[u8; 32], shares: u8, threshold: u8, entropy: &dyn Entropy) -> Result<Vec<SecretBytes>, ShareError> {
    if (shares, threshold) == (1, 1) {
        return Ok(vec![Secret::new(key.to_vec())]);
    }
    if threshold < 2 || threshold > shares {
        return Err(ShareError::Parameters);
    }
    let made =
        Gf256::split_bytes(threshold.into(), shares.into(), key, Draw(entropy)).map_err(|_| ShareError::Parameters)?;
    Ok(made
        .into_iter()
        .map(|mut share| {
            share.rotate_left(1); // vsss-rs puts the x coordinate first
            Secret::new(share)
        })
        .collect())
}

/// Makes the key from shares. Whether they belong together shows only when the key is used.
///
/// # Errors
/// [`ShareError`] as its variants say.
pub fn combine(shares: &[SecretBytes]) -> Result<Secret<[u8; 32]>, ShareError> {
    let first = shares.first().ok_or(ShareError::TooFew)?.expose();
    if shares.iter().any(|share| share.expose().len() != first.len()) {
        return Err(ShareError::UnequalLengths);
    }
    if let ([_], Ok(key)) = (shares, <[u8; 32]>::try_from(first.as_slice())) {
        return Ok(Secret::new(key));
    }
    if first.len() != SHARE_BYTES {
        return Err(ShareError::Malformed);
    }
    let mut seen = [false; 256];
    for share in shares {
        let x = share.expose()[SHARE_BYTES - 1];
        if x == 0 {
            return Err(ShareError::Malformed);
        }
        if std::mem::replace(&mut seen[usize::from(x)], true) {
            return Err(ShareError::Duplicate);
        }
    }
    if shares.len() < 2 {
        return Err(ShareError::TooFew);
    }
    let mut turned: Vec<Vec<u8>> = shares.iter().map(|share| share.expose().clone()).collect();
    turned.iter_mut().for_each(|share| share.rotate_right(1));
    let combined = Gf256::combine_bytes(&turned);
    turned.zeroize();
    let combined = Secret::new(combined.map_err(|_| ShareError::Malformed)?);
    <[u8; 32]>::try_from(combined.expose().as_slice()).map(Secret::new).map_err(|_| ShareError::Malformed)
}

/// Our entropy in the shape that vsss-rs draws from.
struct Draw<'a>(&'a dyn Entropy);

impl TryRng for Draw<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for Draw<'_> {}

#[cfg(test)]
mod tests {
    use keyward_model::SeededEntropy;
    use proptest::prelude::*;

    use super::*;

    fn key_of(shares: &[&[u8]]) -> Result<[u8; 32], ShareError> {
        let shares: Vec<SecretBytes> = shares.iter().map(|share| Secret::new(share.to_vec())).collect();
        combine(&shares).map(|key| *key.expose())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_threshold_of_shares_makes_the_key(key: [u8; 32], seed: u64, threshold in 2u8..7, more in 0u8..5) {
            let shares = split(&key, threshold + more, threshold, &SeededEntropy::new(seed)).unwrap();
            let from = usize::from(more);
            prop_assert_eq!(*combine(&shares[from..]).unwrap().expose(), key);
            prop_assert_eq!(*combine(&shares[..usize::from(threshold)]).unwrap().expose(), key);
            if threshold > 2 {
                prop_assert_ne!(*combine(&shares[from + 1..]).unwrap().expose(), key);
            }
        }

        #[test]
        fn rubbish_never_panics(shares: Vec<Vec<u8>>) {
            drop(combine(&shares.into_iter().map(Secret::new).collect::<Vec<_>>()));
        }
    }

    #[test]
    fn one_of_one_is_the_key() {
        let shares = split(&[9; 32], 1, 1, &SeededEntropy::new(1)).unwrap();
        assert_eq!(shares[0].expose(), &[9; 32]);
        assert_eq!(combine(&shares).unwrap().expose(), &[9; 32]);
    }

    #[test]
    fn what_cannot_be() {
        let entropy = SeededEntropy::new(1);
        for (shares, threshold) in [(0, 0), (1, 0), (2, 1), (3, 4), (0, 1), (1, 2)] {
            assert_eq!(split(&[1; 32], shares, threshold, &entropy).unwrap_err(), ShareError::Parameters);
        }
        assert_eq!(split(&[1; 32], 255, 255, &entropy).unwrap().len(), 255);
        let shares = split(&[1; 32], 3, 2, &entropy).unwrap();
        let [a, b, _] = shares.as_slice() else { panic!("three shares") };
        let (a, b) = (a.expose().as_slice(), b.expose().as_slice());
        assert_eq!(key_of(&[a, b]), Ok([1; 32]));
        assert_eq!(key_of(&[]), Err(ShareError::TooFew));
        assert_eq!(key_of(&[a]), Err(ShareError::TooFew));
        assert_eq!(key_of(&[a, a]), Err(ShareError::Duplicate));
        assert_eq!(key_of(&[a, &b[..32]]), Err(ShareError::UnequalLengths));
        assert_eq!(key_of(&[&a[..32], &b[..32]]), Err(ShareError::Malformed));
        assert_eq!(key_of(&[a, &[0; 33]]), Err(ShareError::Malformed));
    }
}
