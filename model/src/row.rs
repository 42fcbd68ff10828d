//! What the replicated state is made of: sealed rows, and the blobs of secret versions.
//!
//! Storage and Raft see ciphertext only. A row says *where* it stands (table, key), *how new* it is (`rev`), and carries
//! just the index columns that a look-up needs in clear; everything else is in the sealed `body`, whose AAD binds all
//! the other columns. A row that is moved, exchanged for an older one, or changed by one bit does not open.

use serde::{Deserialize, Serialize};

/// The tables of the state database that hold sealed rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum Table {
    /// Seal records, the wrapped keyring, node facts: readable before unseal, each sealed by its own key.
    Config = 1,
    /// Secret engines and auth methods by mount id.
    Mounts = 2,
    /// ACL policies; key = sealed name.
    Policies = 3,
    /// Tokens; key = keyed hash of the token; `group` = parent; `due` = expiry.
    Tokens = 4,
    /// Token accessors; key = keyed hash of the accessor; the body names the token's key.
    Accessors = 5,
    /// KV v2 secrets (metadata record); key = parent folder ‖ sealed name; `head` = blob of the current version.
    Secrets = 6,
    /// Folders: the inner names of the tree; key = parent folder ‖ sealed name.
    Folders = 7,
    /// KV v1 and cubbyhole entries; key = parent folder ‖ sealed name; the value is in the body.
    Entries = 8,
    /// Wrapped responses; key = keyed hash of the wrapping token.
    Wrapped = 9,
    /// Native face: secret id → place of the secret.
    SecretIds = 10,
    /// Writes that came with an id of the caller's; key = keyed hash of caller and id; `due` = when it is forgotten.
    Repeats = 11,
}

impl Table {
    /// Every table, in the order of its number.
    pub const ALL: [Self; 11] = [
        Self::Config,
        Self::Mounts,
        Self::Policies,
        Self::Tokens,
        Self::Accessors,
        Self::Secrets,
        Self::Folders,
        Self::Entries,
        Self::Wrapped,
        Self::SecretIds,
        Self::Repeats,
    ];

    /// The table's name in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Mounts => "mounts",
            Self::Policies => "policies",
            Self::Tokens => "tokens",
            Self::Accessors => "accessors",
            Self::Secrets => "secrets",
            Self::Folders => "folders",
            Self::Entries => "entries",
            Self::Wrapped => "wrapped",
            Self::SecretIds => "secret_ids",
            Self::Repeats => "repeats",
        }
    }
}

/// One sealed row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Primary key within the table.
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    /// Grows by one with every change of the row; starts at 1. Bound into the seal, so an old row cannot pose as new.
    pub rev: u64,
    /// Secondary index: rows that belong together (children of a token). Empty where the table has none.
    #[serde(with = "serde_bytes")]
    pub group: Vec<u8>,
    /// When the row falls due (expiry), nanoseconds since 1970.
    pub due: Option<i64>,
    /// The version blob that an unversioned read wants, so that it is one look-up.
    pub head: Option<u64>,
    /// Sealed content.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// The two sealed parts of one secret version: immutable, but for re-wrapping and erasure.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VersionBlob {
    /// The data key, wrapped by a key-encryption key of the keyring.
    #[serde(with = "serde_bytes")]
    pub wrapped: Vec<u8>,
    /// The value, sealed by that data key.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

/// The sum of all rows: a 256-bit multiset hash that any change of any row changes.
///
/// Apply keeps it in the transaction of its effects; the leader signs each next value with a key that is not on disk.
/// A database whose rows do not add up to a signed sum was changed from outside.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct StateSum(pub [u64; 4]);

impl StateSum {
    /// The sum after a row with `digest` came in: addition modulo 2^256.
    #[must_use]
    pub fn plus(self, digest: [u8; 32]) -> Self {
        let mut out = self.0;
        let mut carry = false;
        for (limb, add) in out.iter_mut().zip(limbs(digest)) {
            let (sum, over) = limb.overflowing_add(add);
            let (sum, again) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = over | again;
        }
        Self(out)
    }

    /// The sum after a row with `digest` went out.
    #[must_use]
    pub fn minus(self, digest: [u8; 32]) -> Self {
        let mut out = self.0;
        let mut borrow = false;
        for (limb, sub) in out.iter_mut().zip(limbs(digest)) {
            let (left, under) = limb.overflowing_sub(sub);
            let (left, again) = left.overflowing_sub(u64::from(borrow));
            *limb = left;
            borrow = under | again;
        }
        Self(out)
    }

    /// The sum as bytes, least significant first.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut out = [0; 32];
        for (chunk, limb) in out.chunks_mut(8).zip(self.0) {
            chunk.copy_from_slice(&limb.to_le_bytes());
        }
        out
    }

    /// Reads what [`StateSum::to_bytes`] wrote.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(limbs(bytes))
    }
}

fn limbs(digest: [u8; 32]) -> [u64; 4] {
    let mut out = [0; 4];
    for (limb, chunk) in out.iter_mut().zip(digest.chunks(8)) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(chunk);
        *limb = u64::from_le_bytes(bytes);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_comes_in_goes_out_in_any_order(start: [u8; 32], a: [u8; 32], b: [u8; 32]) {
            let start = StateSum::from_bytes(start);
            prop_assert_eq!(start.plus(a).plus(b), start.plus(b).plus(a));
            prop_assert_eq!(start.plus(a).plus(b).minus(a).minus(b), start);
            prop_assert_eq!(StateSum::from_bytes(start.to_bytes()), start);
        }
    }

    #[test]
    fn carries_run_through() {
        let one = {
            let mut d = [0; 32];
            d[0] = 1;
            d
        };
        assert_eq!(StateSum([u64::MAX, u64::MAX, u64::MAX, 0]).plus(one), StateSum([0, 0, 0, 1]));
        assert_eq!(StateSum([0, 0, 0, 1]).minus(one), StateSum([u64::MAX, u64::MAX, u64::MAX, 0]));
    }
}
