//! Records: what stands in a segment, to the byte. All numbers are little-endian.
//!
//! ```text
//! length  u32   of the body; never 0, so that zeroes are no record
//! crc     u32   CRC-32C of the length and of everything after this field
//! kind    u8    entry, vote, truncate, committed, purge
//! epoch   u64   of the segment: bytes of another file, or of this one's former life, do not pass
//! flushed u32   everything in this segment before this offset was durable when the record was written
//! chain   [16]  SHA-256(chain of the record before ‖ kind ‖ body), cut to 16 bytes
//! body
//! ```
//! `flushed` tells a torn write from damage: sectors of one write may reach the disk in any order, so an intact record
//! after a broken one proves nothing by itself; but a record that was written *after* the broken one was durable proves
//! that acknowledged bytes are gone.

use bytes::Bytes;
use openraft::{BasicNode, EntryPayload};
use sha2::{Digest, Sha256};

use crate::types::{Batch, Entry, LogId, Membership, Vote, log_id};

/// Bytes before the body.
pub const HEAD_BYTES: usize = 37;
/// The largest body: a batch of the largest commands, with room.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// A running hash over all records of the log.
pub type Chain = [u8; 16];

/// What a record says.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// An entry of the log.
    Entry(Entry),
    /// The node's vote.
    Vote(Vote),
    /// All entries from this index on are void.
    Truncate(u64),
    /// Entries up to this one were committed when the record was written. A lower bound.
    Committed(LogId),
    /// Entries up to this one are no longer needed.
    Purge(LogId),
}

/// A record's frame, checked, with its body not yet decoded.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Which record.
    pub kind: u8,
    /// The segment's number.
    pub epoch: u64,
    /// Durable up to here when this was written.
    pub flushed: u32,
    /// The chain with this record.
    pub chain: Chain,
    /// The record's own bytes.
    pub body: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// Zeroes: nothing was ever written here.
    Blank,
    /// The bytes end before the record does; so many are needed.
    Short(usize),
    /// Broken: length or checksum.
    Broken,
}

/// Why a body is not what its kind says. The frame was intact, so another version of the program wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a record of kind {kind} that this version of keyward does not know")]
pub struct Unknown {
    /// The record's kind.
    pub kind: u8,
}

/// Reads the frame at the start of `bytes`. Never panics, whatever the bytes.
///
/// # Errors
/// [`FrameError`], see there.
pub fn frame(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Err(FrameError::Short(HEAD_BYTES));
    };
    let mut fields = Fields(head);
    let (Some(length), Some(crc), Some(kind), Some(epoch), Some(flushed), Some(chain)) =
        (fields.u32(), fields.u32(), fields.u8(), fields.u64(), fields.u32(), fields.array::<16>())
    else {
        return Err(FrameError::Broken);
    };
    if length == 0 {
        return Err(if head.iter().all(|byte| *byte == 0) { FrameError::Blank } else { FrameError::Broken });
    }
    let length = length as usize;
    if length > BODY_BYTES_MAX {
        return Err(FrameError::Broken);
    }
    let Some(body) = rest.get(..length) else {
        return Err(FrameError::Short(HEAD_BYTES + length));
    };
    if checksum(head, body) != crc {
        return Err(FrameError::Broken);
    }
    Ok(Frame { kind, epoch, flushed, chain, body })
}

impl Frame<'_> {
    /// Bytes of the whole record.
    pub fn size(&self) -> usize {
        HEAD_BYTES + self.body.len()
    }

    /// What the record says.
    ///
    /// # Errors
    /// [`Unknown`] if the body is not one that this version writes.
    pub fn record(&self) -> Result<Record, Unknown> {
        decode(self.kind, self.body).ok_or(Unknown { kind: self.kind })
    }
}

/// Decodes whatever can be found in `bytes`: the target of a fuzzer.
pub fn decode_rubbish(bytes: &[u8]) {
    if let Ok(frame) = frame(bytes) {
        drop(frame.record());
    }
    if let Some((kind, body)) = bytes.split_first() {
        drop(decode(*kind, body));
    }
}

/// The chain after a record.
pub fn chain(before: &Chain, kind: u8, body: &[u8]) -> Chain {
    let digest = Sha256::new().chain_update(before).chain_update([kind]).chain_update(body).finalize();
    let mut chain = Chain::default();
    chain.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    chain
}

impl Record {
    /// Appends the record to `out` and gives the chain after it.
    pub fn write(&self, out: &mut Vec<u8>, epoch: u64, flushed: u32, before: &Chain) -> Chain {
        let start = out.len();
        out.resize(start + HEAD_BYTES, 0);
        let kind = self.encode(out);
        let Some((head, body)) = out.get_mut(start..).and_then(<[u8]>::split_first_chunk_mut::<HEAD_BYTES>) else {
            return *before; // unreachable: the head was just made
        };
        let chain = chain(before, kind, body);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX); // bounded by `BODY_BYTES_MAX` before it comes here
        let (length_field, rest) = head.split_at_mut(4);
        length_field.copy_from_slice(&length.to_le_bytes());
        let fields = [&[0; 4][..], &[kind], &epoch.to_le_bytes(), &flushed.to_le_bytes(), &chain];
        rest.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        let crc = checksum(head, body);
        head.iter_mut().skip(4).zip(crc.to_le_bytes()).for_each(|(to, from)| *to = from);
        chain
    }

    /// An upper bound of the bytes that [`Record::write`] adds.
    pub fn size_bound(&self) -> usize {
        HEAD_BYTES
            + match self {
                Self::Entry(entry) => {
                    25 + match &entry.payload {
                        EntryPayload::Blank => 0,
                        EntryPayload::Normal(batch) => batch.bytes().len(),
                        EntryPayload::Membership(membership) => encode_membership(membership).len(),
                    }
                }
                Self::Vote(_) | Self::Truncate(_) | Self::Committed(_) | Self::Purge(_) => 24,
            }
    }

    fn encode(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Self::Entry(entry) => {
                put_entry(out, entry);
                1
            }
            Self::Vote(vote) => {
                put_vote(out, vote);
                2
            }
            Self::Truncate(from) => {
                put_u64s(out, &[*from]);
                3
            }
            Self::Committed(upto) => {
                put_log_id(out, upto);
                4
            }
            Self::Purge(upto) => {
                put_log_id(out, upto);
                5
            }
        }
    }
}

fn decode(kind: u8, body: &[u8]) -> Option<Record> {
    let mut fields = Fields(body);
    let record = match kind {
        1 => Record::Entry(decode_entry(std::mem::take(&mut fields.0), Bytes::copy_from_slice)?),
        2 => Record::Vote(fields.vote()?),
        3 => Record::Truncate(fields.u64()?),
        4 => Record::Committed(fields.log_id()?),
        5 => Record::Purge(fields.log_id()?),
        _ => return None,
    };
    fields.0.is_empty().then_some(record)
}

/// Reads what [`put_entry`] wrote; `keep` makes a batch's own bytes of those it gets.
pub(crate) fn decode_entry(bytes: &[u8], keep: impl FnOnce(&[u8]) -> Bytes) -> Option<Entry> {
    let mut fields = Fields(bytes);
    let log_id = fields.log_id()?;
    let payload = match (fields.u8()?, fields.0) {
        (0, []) => EntryPayload::Blank,
        (1, batch) => EntryPayload::Normal(Batch::new(keep(batch))),
        (2, membership) => EntryPayload::Membership(decode_membership(membership)?),
        _ => return None,
    };
    Some(Entry { log_id, payload })
}

/// A membership as bytes: format, sets of voters, nodes with their addresses.
pub fn encode_membership(membership: &Membership) -> Vec<u8> {
    let mut out = vec![1];
    let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes();
    out.extend(count(membership.get_joint_config().len()));
    for voters in membership.get_joint_config() {
        out.extend(count(voters.len()));
        voters.iter().for_each(|id| out.extend(id.to_le_bytes()));
    }
    out.extend(count(membership.nodes().count()));
    for (id, node) in membership.nodes() {
        out.extend(id.to_le_bytes());
        out.extend(count(node.addr.len()));
        out.extend(node.addr.as_bytes());
    }
    out
}

/// Reads what [`encode_membership`] wrote; `None` for anything else.
pub fn decode_membership(bytes: &[u8]) -> Option<Membership> {
    let mut fields = Fields(bytes);
    if fields.u8()? != 1 {
        return None;
    }
    let mut configs = Vec::new();
    for _ in 0..fields.u16()? {
        let mut voters = std::collections::BTreeSet::new();
        for _ in 0..fields.u16()? {
            voters.insert(fields.u64()?);
        }
        configs.push(voters);
    }
    let mut nodes = std::collections::BTreeMap::new();
    for _ in 0..fields.u16()? {
        let id = fields.u64()?;
        let length = fields.u16()?;
        let addr = String::from_utf8(fields.take(length.into())?.to_vec()).ok()?;
        nodes.insert(id, BasicNode { addr });
    }
    if !fields.0.is_empty() {
        return None;
    }
    if configs.is_empty() && nodes.is_empty() {
        return Some(Membership::default());
    }
    Membership::new(configs, nodes).ok()
}

fn checksum(head: &[u8; HEAD_BYTES], body: &[u8]) -> u32 {
    let (length, rest) = head.split_at(4);
    let crc = crc32c::crc32c(length);
    let crc = crc32c::crc32c_append(crc, rest.get(4..).unwrap_or_default());
    crc32c::crc32c_append(crc, body)
}

/// Appends an entry: log id, kind, what it carries.
pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_log_id(out, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.push(0),
        EntryPayload::Normal(batch) => {
            out.push(1);
            out.extend_from_slice(batch.bytes());
        }
        EntryPayload::Membership(membership) => {
            out.push(2);
            out.extend_from_slice(&encode_membership(membership));
        }
    }
}

/// Appends a vote: term, node, whether it won.
pub(crate) fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    put_u64s(out, &[vote.leader_id.term, vote.leader_id.node_id]);
    out.push(u8::from(vote.committed));
}

pub(crate) fn put_u64s(out: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

pub(crate) fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    put_u64s(out, &[id.index, id.leader_id.term, id.leader_id.node_id]);
}

/// Takes fields off the front of bytes.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(field)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn log_id(&mut self) -> Option<LogId> {
        let (index, term, node) = (self.u64()?, self.u64()?, self.u64()?);
        Some(log_id(term, node, index))
    }

    pub(crate) fn vote(&mut self) -> Option<Vote> {
        let (term, node) = (self.u64()?, self.u64()?);
        Some(if self.flag()? { Vote::new_committed(term, node) } else { Vote::new(term, node) })
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn samples() -> Vec<Record> {
        let nodes = BTreeMap::from([(1, BasicNode::new("a:1")), (9, BasicNode::new("b"))]);
        let membership = Membership::new(vec![BTreeSet::from([1]), BTreeSet::from([1, 9])], nodes).unwrap();
        let entry = |payload| Record::Entry(Entry { log_id: log_id(3, 4, 5), payload });
        vec![
            entry(EntryPayload::Blank),
            entry(EntryPayload::Normal(Batch::new(Bytes::from_static(b"commands")))),
            entry(EntryPayload::Membership(membership)),
            entry(EntryPayload::Membership(Membership::default())),
            Record::Vote(Vote::new(7, 8)),
            Record::Vote(Vote::new_committed(7, 8)),
            Record::Truncate(11),
            Record::Committed(log_id(1, 2, 3)),
            Record::Purge(log_id(1, 2, 3)),
        ]
    }

    #[test]
    fn records_read_back_and_no_cut_or_flip_does() {
        for record in samples() {
            let mut bytes = Vec::new();
            let after = record.write(&mut bytes, 77, 4096, &[1; 16]);
            assert!(bytes.len() <= record.size_bound(), "{record:?}");
            let read = frame(&bytes).unwrap();
            assert_eq!((read.epoch, read.flushed, read.chain, read.size()), (77, 4096, after, bytes.len()));
            assert_eq!(chain(&[1; 16], read.kind, read.body), after);
            assert_eq!(read.record(), Ok(record));
            for cut in 0..bytes.len() {
                assert!(matches!(frame(&bytes[..cut]), Err(FrameError::Short(_))), "cut at {cut}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut broken = bytes.clone();
                broken[bit / 8] ^= 1 << (bit % 8);
                assert!(frame(&broken).is_err(), "bit {bit}");
            }
        }
        assert_eq!(frame(&[0; 64]).unwrap_err(), FrameError::Blank);
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(bytes: Vec<u8>) {
            decode_rubbish(&bytes);
        }
    }
}
