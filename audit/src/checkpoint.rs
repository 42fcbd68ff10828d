//! Checkpoints: a signed statement about a stream so far, written into the stream itself.
//!
//! A checkpoint covers the events since the checkpoint before it (checkpoints themselves are covered by the chain): how
//! many, the Merkle tree hash over their chain hashes (RFC 6962 §2.1), the last one's `seq` and `hash`, and the highest Raft
//! `index` recorded so far. It is signed with Ed25519 (RFC 8032) over `"keyward:audit:checkpoint:v1" 00 JCS(checkpoint without signature)`.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use keyward_model::{Fraction, Secret, Timestamp};
use sha2::{Digest, Sha256};

use crate::line::{self, NonCanonical};
use crate::record::{hex, number};

/// A checkpoint is due after this many events.
pub const CHECKPOINT_EVENTS: u64 = 1000;

/// A checkpoint is due when the oldest event that none covers is this old, in seconds.
pub const CHECKPOINT_SECONDS: i64 = 10;

const CONTEXT: &[u8] = b"keyward:audit:checkpoint:v1\0";

/// A node's audit key: signs checkpoints, and nothing else.
pub struct AuditKey {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

/// Why a seed is not a key.
#[derive(Debug, thiserror::Error)]
#[error("the audit key was refused by the cryptographic library: restore it from a backup")]
pub struct KeyError;

impl AuditKey {
    /// The key that belongs to `seed`: 32 random bytes that the caller keeps, since whoever has them signs as this node.
    ///
    /// # Errors
    /// [`KeyError`] if the library refuses it.
    pub fn from_seed(seed: &Secret<[u8; 32]>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| KeyError)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError)?;
        Ok(Self { pair, public })
    }

    /// The public half: what a verifier needs.
    pub const fn public(&self) -> [u8; 32] {
        self.public
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey(…)")
    }
}

/// What a checkpoint says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Checkpoint<'a> {
    pub(crate) stream: &'a str,
    pub(crate) seq: u64,
    pub(crate) hash: [u8; 32],
    /// The highest Raft index that the stream names so far, 0 if none: found again without reading it all.
    pub(crate) index: u64,
    pub(crate) count: u64,
    pub(crate) merkle_root: [u8; 32],
    pub(crate) prev_checkpoint: Option<[u8; 32]>,
}

/// A checkpoint as it was read: not yet believed.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) says: Checkpoint<'a>,
    pub(crate) key: [u8; 32],
    signature: [u8; 64],
    message: Vec<u8>,
}

impl Checkpoint<'_> {
    /// The canonical object, signed by `key`.
    pub(crate) fn sign(&self, key: &AuditKey, ts: Timestamp) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        number(&mut out, "{\"count\":", self.count);
        hex(&mut out, ",\"hash\":\"", &self.hash);
        number(&mut out, "\",\"index\":", self.index);
        hex(&mut out, ",\"key\":\"", &key.public);
        hex(&mut out, "\",\"merkle_root\":\"", &self.merkle_root);
        if let Some(prev) = &self.prev_checkpoint {
            hex(&mut out, "\",\"prev_checkpoint\":\"", prev);
        }
        number(&mut out, "\",\"seq\":", self.seq);
        let signature_at = out.len();
        out.extend_from_slice(b",\"stream\":\"");
        out.extend_from_slice(self.stream.as_bytes());
        out.extend_from_slice(b"\",\"ts\":\"");
        ts.write_rfc3339(&mut out, Fraction::Millis);
        out.extend_from_slice(b"\"}");

        let signature = key.pair.sign(&[CONTEXT, &out].concat());
        let mut member = Vec::with_capacity(145);
        hex(&mut member, ",\"signature\":\"", signature.as_ref());
        member.push(b'"');
        out.splice(signature_at..signature_at, member);
        out
    }
}

impl<'a> Signed<'a> {
    /// Reads a canonical checkpoint object.
    pub(crate) fn parse(object: &'a [u8]) -> Result<Self, NonCanonical> {
        let mut message = CONTEXT.to_vec();
        let (mut stream, mut seq, mut hash, mut index) = (None, None, None, None);
        let (mut count, mut root, mut prev_checkpoint, mut key, mut signature) = (None, None, None, None, None);
        for (n, member) in line::members(object)?.into_iter().filter(|member| member.name != b"signature").enumerate() {
            message.push(if n == 0 { b'{' } else { b',' });
            message.extend_from_slice(member.whole);
        }
        message.push(b'}');
        for member in line::members(object)? {
            match member.name {
                b"stream" => stream = member.text(),
                b"seq" => seq = member.number(),
                b"hash" => hash = member.bytes(),
                b"index" => index = member.number(),
                b"count" => count = member.number(),
                b"merkle_root" => root = member.bytes(),
                b"prev_checkpoint" => prev_checkpoint = Some(member.bytes().ok_or(NonCanonical)?),
                b"key" => key = member.bytes(),
                b"signature" => signature = member.bytes(),
                _ => {}
            }
        }
        let says = Checkpoint {
            stream: stream.ok_or(NonCanonical)?,
            seq: seq.ok_or(NonCanonical)?,
            hash: hash.ok_or(NonCanonical)?,
            index: index.ok_or(NonCanonical)?,
            count: count.ok_or(NonCanonical)?,
            merkle_root: root.ok_or(NonCanonical)?,
            prev_checkpoint,
        };
        Ok(Self { says, key: key.ok_or(NonCanonical)?, signature: signature.ok_or(NonCanonical)?, message })
    }

    /// Whether the signature is that of the key which the checkpoint names. Whose key that is, is another question.
    pub(crate) fn is_signed(&self) -> bool {
        UnparsedPublicKey::new(&ED25519, self.key).verify(&self.message, &self.signature).is_ok()
    }
}

/// Where a stream stood, as its node signed it: a checkpoint that others keep, so that an end that is cut off is missed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedHead {
    /// The stream.
    pub stream: String,
    /// `seq` of its last record then.
    pub seq: u64,
    /// Hash of that record.
    pub hash: [u8; 32],
    /// The public key that signed it.
    pub key: [u8; 32],
    /// The checkpoint as it was signed: canonical JSON in one line.
    pub text: String,
}

/// Why a text is not a signed head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeadError {
    /// It is not a checkpoint as a node writes it.
    #[error("this is not a checkpoint of an audit stream")]
    NotOne,
    /// It is not what the key in it signed.
    #[error("the signature of the checkpoint is false")]
    BadSignature,
}

impl SignedHead {
    /// Reads a checkpoint and checks its signature against the key that it names. Whose key that is, is another question.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn read(text: &str) -> Result<Self, HeadError> {
        let signed = Signed::parse(text.as_bytes()).map_err(|NonCanonical| HeadError::NotOne)?;
        if !signed.is_signed() {
            return Err(HeadError::BadSignature);
        }
        let Checkpoint { stream, seq, hash, .. } = signed.says;
        Ok(Self { stream: stream.to_owned(), seq, hash, key: signed.key, text: text.to_owned() })
    }
}

/// The Merkle tree hash of RFC 6962 §2.1, built leaf by leaf in constant space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Merkle {
    /// Roots of the full subtrees, one for each bit set in `count`, largest first.
    roots: [[u8; 32]; 32],
    count: u32,
}

impl Merkle {
    pub(crate) const fn new() -> Self {
        Self { roots: [[0; 32]; 32], count: 0 }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.into()
    }

    pub(crate) fn push(&mut self, data: &[u8; 32]) {
        let mut root: [u8; 32] = Sha256::new().chain_update([0]).chain_update(data).finalize().into();
        let mut top = self.count.count_ones() as usize;
        // As in a binary counter, each trailing one is a subtree of the size just completed.
        for _ in 0..self.count.trailing_ones() {
            top -= 1;
            root = node(&self.roots[top], &root);
        }
        self.roots[top] = root;
        self.count += 1;
    }

    pub(crate) fn root(&self) -> [u8; 32] {
        let full = &self.roots[..self.count.count_ones() as usize];
        match full.split_last() {
            None => Sha256::digest([]).into(),
            Some((last, left)) => left.iter().rev().fold(*last, |right, left| node(left, &right)),
        }
    }
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962 §2.1 as it is written there.
    fn tree_hash(leaves: &[[u8; 32]]) -> [u8; 32] {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => Sha256::new().chain_update([0]).chain_update(leaf).finalize().into(),
            _ => {
                let k = 1 << (leaves.len() - 1).ilog2();
                node(&tree_hash(&leaves[..k]), &tree_hash(&leaves[k..]))
            }
        }
    }

    #[test]
    fn the_tree_is_that_of_the_rfc() {
        let mut tree = Merkle::new();
        let mut leaves = Vec::new();
        for n in 0..200u8 {
            assert_eq!(tree.root(), tree_hash(&leaves), "{n} leaves");
            tree.push(&[n; 32]);
            leaves.push([n; 32]);
        }
    }

    #[test]
    fn a_signature_covers_every_member() {
        let key = AuditKey::from_seed(&Secret::new([7; 32])).unwrap();
        let says = Checkpoint {
            stream: "n1-0001",
            seq: 9,
            hash: [1; 32],
            index: 4,
            count: 9,
            merkle_root: [2; 32],
            prev_checkpoint: Some([3; 32]),
        };
        let object = says.sign(&key, Timestamp(0));
        let read = Signed::parse(&object).unwrap();
        assert_eq!((&read.says, read.key), (&says, key.public()));
        assert!(read.is_signed());
        for at in 0..object.len() {
            let mut edited = object.clone();
            edited[at] ^= 1;
            assert!(!Signed::parse(&edited).is_ok_and(|read| read.is_signed()), "byte {at} is not covered");
        }
    }
}
