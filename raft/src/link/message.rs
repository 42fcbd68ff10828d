//! Bodies: what nodes say to each other, to the byte. The encodings are those of the log's records where there is one.

use bytes::Bytes;
use keyward_model::StateSum;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};

use crate::log::record::{Fields, decode_entry, put_entry, put_log_id, put_u64s, put_vote};
use crate::reads::ReadError;
use crate::types::{LogId, Types, Vote};

/// The format of everything here. A link speaks the newest that both ends know.
pub(crate) const VERSION: u16 = 1;
/// The oldest format that is still understood.
pub(crate) const VERSION_MIN: u16 = 1;
/// How a greeting begins, so that nothing else is taken for one.
const MARK: &[u8; 8] = b"keyward\0";

/// What a link is for. Each has its own connection, so that none waits for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Lane {
    /// Log, votes and questions, in order.
    Log,
    /// Heartbeats.
    Beat,
    /// A snapshot.
    Snapshot,
}

/// The first frame of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    /// The formats that the caller knows.
    pub(crate) versions: (u16, u16),
    /// What the link is for.
    pub(crate) lane: Lane,
    /// Who calls.
    pub(crate) from: u64,
    /// Who is called.
    pub(crate) to: u64,
    /// The index of the membership by which the caller believes that it is a member; 0 if it does not.
    pub(crate) member_since: u64,
}

/// The answer to a [`Hello`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Welcome {
    /// Come in; this is the format.
    Yes(u16),
    /// There is no format that both know.
    OtherVersion,
    /// This is another node.
    OtherNode,
    /// The caller is not a member.
    NotMember,
    /// The caller was a member, and never will be again.
    Removed,
}

/// What an append led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Appended {
    /// It is in the log, durably.
    All,
    /// Up to here.
    UpTo(Option<LogId>),
    /// The entry before is not there.
    Conflict,
    /// There is a newer leader or candidate.
    HigherVote(Vote),
}

/// What a receiver says to an offered snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bid {
    /// Send it from this byte on.
    From(u64),
    /// There is a newer leader or candidate.
    HigherVote(Vote),
}

/// A snapshot that a leader has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Offer {
    /// The leader's vote.
    pub(crate) vote: Vote,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// SHA-256 of the file.
    pub(crate) hash: [u8; 32],
}

/// What became of a whole snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Installed {
    /// It is in place, or was not needed. The receiver's vote.
    Yes(Vote),
    /// What arrived is not what was offered: send it again.
    Broken,
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = MARK.to_vec();
        out.extend(self.versions.0.to_le_bytes());
        out.extend(self.versions.1.to_le_bytes());
        out.push(self.lane as u8);
        put_u64s(&mut out, &[self.from, self.to, self.member_since]);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.array::<8>()? != *MARK {
            return None;
        }
        let versions = (fields.u16()?, fields.u16()?);
        let lane = match fields.u8()? {
            0 => Lane::Log,
            1 => Lane::Beat,
            2 => Lane::Snapshot,
            _ => return None,
        };
        // A newer caller may have more to say.
        Some(Self { versions, lane, from: fields.u64()?, to: fields.u64()?, member_since: fields.u64()? })
    }
}

impl Welcome {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (word, version) = match self {
            Self::Yes(version) => (0, version),
            Self::OtherVersion => (1, VERSION),
            Self::OtherNode => (2, VERSION),
            Self::NotMember => (3, VERSION),
            Self::Removed => (4, VERSION),
        };
        let [low, high] = version.to_le_bytes();
        vec![word, low, high]
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (word, version) = (fields.u8()?, fields.u16()?);
        match word {
            0 => Some(Self::Yes(version)),
            1 => Some(Self::OtherVersion),
            2 => Some(Self::OtherNode),
            3 => Some(Self::NotMember),
            4 => Some(Self::Removed),
            _ => None,
        }
    }
}

pub(crate) fn encode_append(request: &AppendEntriesRequest<Types>) -> Vec<u8> {
    let mut out = Vec::new();
    put_vote(&mut out, &request.vote);
    put_log_id_option(&mut out, request.prev_log_id.as_ref());
    put_log_id_option(&mut out, request.leader_commit.as_ref());
    put_count(&mut out, request.entries.len());
    for entry in &request.entries {
        let start = out.len();
        put_count(&mut out, 0);
        put_entry(&mut out, entry);
        let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX); // bounded by the log's largest record
        out.iter_mut().skip(start).zip(length.to_le_bytes()).for_each(|(to, from)| *to = from);
    }
    out
}

/// Reads what [`encode_append`] wrote. The batches share the bytes of `body`.
pub(crate) fn decode_append(body: &Bytes) -> Option<AppendEntriesRequest<Types>> {
    let mut fields = Fields(body);
    let vote = fields.vote()?;
    let prev_log_id = log_id_option(&mut fields)?;
    let leader_commit = log_id_option(&mut fields)?;
    let count = fields.u32()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let length = fields.u32()?;
        let entry = decode_entry(fields.take(length as usize)?, |batch| body.slice_ref(batch))?;
        // The library asserts what a sound leader never breaks.
        let before = entries.last().map_or(prev_log_id, |entry: &crate::types::Entry| Some(entry.log_id));
        if entry.log_id.index != before.map_or(0, |before| before.index + 1) || Some(entry.log_id) <= before {
            return None;
        }
        entries.push(entry);
    }
    all(&fields, AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

pub(crate) fn encode_appended(response: &AppendEntriesResponse<Types>) -> Vec<u8> {
    let mut out = Vec::new();
    match response {
        AppendEntriesResponse::Success => out.push(0),
        AppendEntriesResponse::PartialSuccess(upto) => {
            out.push(1);
            put_log_id_option(&mut out, upto.as_ref());
        }
        AppendEntriesResponse::Conflict => out.push(2),
        AppendEntriesResponse::HigherVote(vote) => {
            out.push(3);
            put_vote(&mut out, vote);
        }
    }
    out
}

pub(crate) fn decode_appended(body: &[u8]) -> Option<Appended> {
    let mut fields = Fields(body);
    let appended = match fields.u8()? {
        0 => Appended::All,
        1 => Appended::UpTo(log_id_option(&mut fields)?),
        2 => Appended::Conflict,
        3 => Appended::HigherVote(fields.vote()?),
        _ => return None,
    };
    all(&fields, appended)
}

pub(crate) fn encode_vote(request: &VoteRequest<Types>) -> Vec<u8> {
    let mut out = Vec::new();
    put_vote(&mut out, &request.vote);
    put_log_id_option(&mut out, request.last_log_id.as_ref());
    out.push(u8::from(request.leadership_transfer));
    out
}

pub(crate) fn decode_vote(body: &[u8]) -> Option<VoteRequest<Types>> {
    let mut fields = Fields(body);
    let mut request = VoteRequest::new(fields.vote()?, log_id_option(&mut fields)?);
    request.leadership_transfer = fields.flag()?;
    all(&fields, request)
}

pub(crate) fn encode_voted(response: &VoteResponse<Types>) -> Vec<u8> {
    let mut out = Vec::new();
    put_vote(&mut out, &response.vote);
    out.push(u8::from(response.vote_granted));
    put_log_id_option(&mut out, response.last_log_id.as_ref());
    out
}

pub(crate) fn decode_voted(body: &[u8]) -> Option<VoteResponse<Types>> {
    let mut fields = Fields(body);
    let (vote, granted) = (fields.vote()?, fields.flag()?);
    let last_log_id = log_id_option(&mut fields)?;
    all(&fields, VoteResponse::new(vote, last_log_id, granted))
}

pub(crate) fn encode_transfer(request: &TransferLeaderRequest<Types>) -> Vec<u8> {
    let mut out = Vec::new();
    put_vote(&mut out, request.from_leader());
    put_u64s(&mut out, &[*request.to_node_id()]);
    put_log_id_option(&mut out, request.last_log_id());
    out
}

pub(crate) fn decode_transfer(body: &[u8]) -> Option<TransferLeaderRequest<Types>> {
    let mut fields = Fields(body);
    let (vote, to) = (fields.vote()?, fields.u64()?);
    let last = log_id_option(&mut fields)?;
    all(&fields, TransferLeaderRequest::new(vote, to, last))
}

/// `None`: the node does not stand for election.
pub(crate) fn encode_transferred(response: Option<&TransferLeaderResponse<Types>>) -> Vec<u8> {
    let mut out = Vec::new();
    match response {
        Some(Ok(())) => out.push(0),
        Some(Err(TransferLeaderError::VoteChanged { expected, actual })) => {
            out.push(1);
            put_vote(&mut out, expected);
            put_vote(&mut out, actual);
        }
        Some(Err(TransferLeaderError::LogNotFlushed { expected, actual })) => {
            out.push(2);
            put_log_id_option(&mut out, expected.as_ref());
            put_log_id_option(&mut out, actual.as_ref());
        }
        None => out.push(3),
    }
    out
}

/// Reads what [`encode_transferred`] wrote. The inner `None`: the node does not stand for election.
pub(crate) fn decode_transferred(body: &[u8]) -> Option<Option<TransferLeaderResponse<Types>>> {
    let mut fields = Fields(body);
    let response = match fields.u8()? {
        0 => Some(Ok(())),
        1 => Some(Err(TransferLeaderError::VoteChanged { expected: fields.vote()?, actual: fields.vote()? })),
        2 => {
            let (expected, actual) = (log_id_option(&mut fields)?, log_id_option(&mut fields)?);
            Some(Err(TransferLeaderError::LogNotFlushed { expected, actual }))
        }
        3 => None,
        _ => return None,
    };
    all(&fields, response)
}

pub(crate) fn encode_read_point(answer: Result<u64, ReadError>) -> Vec<u8> {
    let mut out = Vec::new();
    match answer {
        Ok(index) => {
            out.push(0);
            put_u64s(&mut out, &[index]);
        }
        Err(ReadError::NoLeader) => out.push(1),
        Err(ReadError::Timeout) => out.push(2),
        Err(ReadError::Stopped) => out.push(3),
    }
    out
}

pub(crate) fn decode_read_point(body: &[u8]) -> Option<Result<u64, ReadError>> {
    let mut fields = Fields(body);
    let answer = match fields.u8()? {
        0 => Ok(fields.u64()?),
        1 => Err(ReadError::NoLeader),
        2 => Err(ReadError::Timeout),
        // That it is the other one that stops is no matter here.
        3 => Err(ReadError::NoLeader),
        _ => return None,
    };
    all(&fields, answer)
}

/// Entries, and what the state added up to after each.
pub(crate) fn encode_sums(sums: &[(u64, StateSum)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_count(&mut out, sums.len());
    for (index, sum) in sums {
        put_u64s(&mut out, &[*index]);
        put_u64s(&mut out, &sum.0);
    }
    out
}

pub(crate) fn decode_sums(body: &[u8]) -> Option<Vec<(u64, StateSum)>> {
    let mut fields = Fields(body);
    let count = fields.u32()?;
    let mut sums = Vec::new();
    for _ in 0..count {
        let index = fields.u64()?;
        sums.push((index, StateSum([fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?])));
    }
    all(&fields, sums)
}

/// The entry after which the sums differ, if they do.
pub(crate) fn encode_differs(index: Option<u64>) -> Vec<u8> {
    let mut out = vec![u8::from(index.is_some())];
    put_u64s(&mut out, &[index.unwrap_or_default()]);
    out
}

pub(crate) fn decode_differs(body: &[u8]) -> Option<Option<u64>> {
    let mut fields = Fields(body);
    let (differs, index) = (fields.flag()?, fields.u64()?);
    all(&fields, differs.then_some(index))
}

impl Offer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_vote(&mut out, &self.vote);
        put_u64s(&mut out, &[self.bytes]);
        out.extend_from_slice(&self.hash);
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let offer = Self { vote: fields.vote()?, bytes: fields.u64()?, hash: fields.array()? };
        all(&fields, offer)
    }
}

impl Bid {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::From(offset) => {
                out.push(0);
                put_u64s(&mut out, &[*offset]);
            }
            Self::HigherVote(vote) => {
                out.push(1);
                put_vote(&mut out, vote);
            }
        }
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let bid = match fields.u8()? {
            0 => Self::From(fields.u64()?),
            1 => Self::HigherVote(fields.vote()?),
            _ => return None,
        };
        all(&fields, bid)
    }
}

/// Part of a snapshot: where it belongs, its CRC-32C, its bytes.
pub(crate) fn encode_chunk(offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + bytes.len());
    put_u64s(&mut out, &[offset]);
    out.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

/// Reads what [`encode_chunk`] wrote; `None` also if the checksum is not that of the bytes.
pub(crate) fn decode_chunk(body: &Bytes) -> Option<(u64, Bytes)> {
    let mut fields = Fields(body);
    let (offset, crc) = (fields.u64()?, fields.u32()?);
    (crc32c::crc32c(fields.0) == crc).then(|| (offset, body.slice_ref(fields.0)))
}

impl Installed {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Yes(vote) => {
                out.push(0);
                put_vote(&mut out, vote);
            }
            Self::Broken => out.push(1),
        }
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let installed = match fields.u8()? {
            0 => Self::Yes(fields.vote()?),
            1 => Self::Broken,
            _ => return None,
        };
        all(&fields, installed)
    }
}

/// `value`, if nothing is left over.
fn all<T>(fields: &Fields<'_>, value: T) -> Option<T> {
    fields.0.is_empty().then_some(value)
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_log_id_option(out: &mut Vec<u8>, id: Option<&LogId>) {
    out.push(u8::from(id.is_some()));
    id.iter().for_each(|id| put_log_id(out, id));
}

fn log_id_option(fields: &mut Fields<'_>) -> Option<Option<LogId>> {
    if fields.flag()? { Some(Some(fields.log_id()?)) } else { Some(None) }
}

#[cfg(test)]
mod tests;
