//! Why something could not be sealed or opened.

/// Why something could not be sealed or opened. Says as little about the data as an attacker may learn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CryptoError {
    /// The data is not what was sealed, or not in the place it was sealed for. Deliberately without detail.
    #[error(
        "integrity check failed: the data was changed, moved or sealed elsewhere; restore it from a peer or a backup"
    )]
    Integrity,
    /// The bytes cannot be such a blob: too short, or of another kind.
    #[error("malformed sealed data; check that it is the right file and complete")]
    Malformed,
    /// The blob names a set of algorithms that this build does not allow.
    #[error("unknown algorithm suite {0}; a newer keyward wrote this, upgrade to read it")]
    UnknownSuite(u8),
    /// The blob names a key epoch that this keyring does not hold.
    #[error("unknown key epoch {0}; the keyring is older than the data, fetch the newest keyring")]
    UnknownEpoch(u32),
    /// The key of this epoch was destroyed on purpose.
    #[error("the key of epoch {0} was destroyed; what it sealed cannot be read again")]
    DestroyedEpoch(u32),
    /// The active epoch cannot be destroyed.
    #[error("epoch {0} is the active one; rotate the keyring first, then destroy it")]
    ActiveEpoch(u32),
    /// The key is well-formed but not the one that sealed this.
    #[error("wrong key: the data is whole, but another key sealed it")]
    WrongKey,
    /// Argon2id parameters outside the bounds of [`crate::seal::PassphraseCost`].
    #[error("passphrase cost out of bounds; memory 8 to 1048576 KiB per lane, 1 to 64 passes, 1 to 16 lanes")]
    CostOutOfBounds,
}
