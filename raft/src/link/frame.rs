//! Frames: what travels on a link, to the byte. All numbers are little-endian.
//!
//! ```text
//! length  u32   of everything after this field
//! kind    u8    what it is; the highest bit marks an answer
//! id      u64   which question an answer belongs to
//! body
//! ```
//! The connection below is encrypted and authenticated, so there is no checksum here. A length or a kind that cannot be
//! ends the link: there is no telling where the next frame would begin.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::Connection;
use crate::log::record::{BODY_BYTES_MAX, Fields};

/// Bytes of a snapshot that travel in one frame.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Bytes before the body, without the length.
const HEAD_BYTES: usize = 9;
/// Bytes of a body that is neither log nor snapshot.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// Bytes that a request to append has beside its entries.
const APPEND_OVERHEAD_BYTES: usize = 128 << 10;
/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
/// A body of less is copied out of what was read.
const SHARE_BYTES_MIN: usize = READ_BYTES / 2;
/// Room that is kept for the next frames.
const KEEP_BYTES: usize = 1 << 20;

/// What a frame is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Who is there, and what the link is for.
    Hello = 1,
    /// Is anybody there?
    Ping = 2,
    /// Entries for a follower's log, or a heartbeat.
    Append = 3,
    /// A candidate asks for a vote.
    Vote = 4,
    /// Somebody asks whether it would get a vote.
    PreVote = 5,
    /// The leader wants another one to lead.
    Transfer = 6,
    /// A follower asks from where a read is linearizable.
    ReadPoint = 7,
    /// A follower tells what its state adds up to.
    Sums = 8,
    /// The leader has a snapshot.
    Offer = 9,
    /// A part of it.
    Chunk = 10,
    /// That was all of it.
    Finish = 11,
    /// How ready is the node to take over?
    Stands = 12,
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::Hello,
        Self::Ping,
        Self::Append,
        Self::Vote,
        Self::PreVote,
        Self::Transfer,
        Self::ReadPoint,
        Self::Sums,
        Self::Offer,
        Self::Chunk,
        Self::Finish,
        Self::Stands,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    fn body_bytes_max(self) -> usize {
        match self {
            Self::Append => BODY_BYTES_MAX + APPEND_OVERHEAD_BYTES,
            Self::Chunk => CHUNK_BYTES + 64,
            _ => SMALL_BYTES_MAX,
        }
    }
}

/// One frame that came in.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) is_answer: bool,
    pub(crate) id: u64,
    pub(crate) body: Bytes,
}

/// A connection with what came of the next frame, and what is still to go.
pub(crate) struct Wire {
    connection: Box<dyn Connection>,
    inbox: BytesMut,
    outbox: Vec<u8>,
    /// How much of the outbox is gone.
    sent: usize,
    /// Bytes that the connection took, ever.
    taken: u64,
    unflushed: bool,
}

impl Wire {
    /// Nothing came, nothing is to go.
    pub(crate) fn new(connection: Box<dyn Connection>) -> Self {
        Self { connection, inbox: BytesMut::new(), outbox: Vec::new(), sent: 0, taken: 0, unflushed: false }
    }

    /// Puts a question at the end of what is to go; [`Wire::next`] sends it.
    pub(crate) fn ask(&mut self, kind: Kind, id: u64, body: &[u8]) {
        self.put(kind as u8, id, body);
    }

    /// Puts an answer at the end of what is to go; [`Wire::next`] sends it.
    pub(crate) fn answer(&mut self, kind: Kind, id: u64, body: &[u8]) {
        self.put(kind as u8 | ANSWER, id, body);
    }

    fn put(&mut self, kind: u8, id: u64, body: &[u8]) {
        let length = u32::try_from(HEAD_BYTES + body.len()).unwrap_or(u32::MAX); // bodies are bounded far below
        self.outbox.reserve(4 + HEAD_BYTES + body.len());
        self.outbox.extend_from_slice(&length.to_le_bytes());
        self.outbox.push(kind);
        self.outbox.extend_from_slice(&id.to_le_bytes());
        self.outbox.extend_from_slice(body);
    }

    /// Bytes that are still to go.
    pub(crate) fn backlog(&self) -> usize {
        self.outbox.len() - self.sent
    }

    /// Bytes that the connection took so far: as long as they become more, somebody makes room for them.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// The next frame; meanwhile sends what is to go. May be dropped and called again: nothing is lost.
    ///
    /// # Errors
    /// The connection ended or failed, or what came is no frame.
    pub(crate) async fn next(&mut self) -> io::Result<Frame> {
        poll_fn(|context| self.poll(context)).await
    }

    /// Sends what is to go.
    ///
    /// # Errors
    /// The connection failed.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_send(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Frame>> {
        if let Poll::Ready(Err(error)) = self.poll_send(context) {
            return Poll::Ready(Err(error));
        }
        loop {
            if let Some(frame) = self.take()? {
                return Poll::Ready(Ok(frame));
            }
            // Room grows with what comes, not with what a length field promises.
            self.inbox.reserve(READ_BYTES);
            let read = ready!(pin!(self.connection.read_buf(&mut self.inbox)).poll(context))?;
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.outbox.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let Poll::Ready(sent) = Pin::new(&mut self.connection).poll_write(context, rest) else {
                self.forget_sent();
                return Poll::Pending;
            };
            let sent = sent?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
            self.taken += sent as u64;
            self.unflushed = true;
        }
        self.outbox.clear();
        self.outbox.shrink_to(KEEP_BYTES);
        self.sent = 0;
        if self.unflushed {
            ready!(Pin::new(&mut self.connection).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Lets go of what is gone, when it is worth moving the rest: an outbox that never runs empty must not grow for ever.
    fn forget_sent(&mut self) {
        if self.sent >= KEEP_BYTES {
            self.outbox.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// The frame at the start of what came, if it is all there.
    fn take(&mut self) -> io::Result<Option<Frame>> {
        let mut fields = Fields(&self.inbox);
        let (Some(length), Some(kind)) = (fields.u32(), fields.u8()) else { return Ok(None) };
        let length = length as usize;
        let broken = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let Some(known) = Kind::of(kind & !ANSWER) else {
            return broken(format!("a frame of the unknown kind {kind}"));
        };
        if !(HEAD_BYTES..=HEAD_BYTES + known.body_bytes_max()).contains(&length) {
            return broken(format!("a frame of kind {kind} with a length of {length}"));
        }
        let Some(id) = fields.u64() else { return Ok(None) };
        if self.inbox.len() < 4 + length {
            return Ok(None);
        }
        self.inbox.advance(4 + HEAD_BYTES);
        let body = self.inbox.split_to(length - HEAD_BYTES);
        // An entry that stays in memory must not keep the whole block that it was read with.
        let body = if body.len() < SHARE_BYTES_MIN { Bytes::copy_from_slice(&body) } else { body.freeze() };
        Ok(Some(Frame { kind: known, is_answer: kind & ANSWER != 0, id, body }))
    }
}

/// Marks a kind as an answer.
const ANSWER: u8 = 0x80;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn frames_arrive_whole_however_they_are_cut() {
        let (near, far) = duplex(7);
        let (mut near, mut far) = (Wire::new(Box::new(near)), Wire::new(Box::new(far)));
        let bodies: Vec<Vec<u8>> = [0, 1, 100, 200_000].map(|size| vec![5; size]).to_vec();
        for (id, body) in (0..).zip(&bodies) {
            near.ask(Kind::Append, id, body);
            near.answer(Kind::Chunk, id, body);
        }
        let send = tokio::spawn(async move { near.flush().await.map(|()| near) });
        for (id, body) in (0..).zip(&bodies) {
            let asked = Frame { kind: Kind::Append, is_answer: false, id, body: body.clone().into() };
            assert_eq!(far.next().await.unwrap(), asked);
            let answered = Frame { kind: Kind::Chunk, is_answer: true, ..asked };
            assert_eq!(far.next().await.unwrap(), answered);
        }
        drop(send.await.unwrap().unwrap());
        assert_eq!(far.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn an_outbox_that_never_runs_empty_does_not_grow() {
        let (near, mut far) = duplex(64 << 10);
        let mut near = Wire::new(Box::new(near));
        let (body, mut part) = (vec![5; 1 << 20], vec![0; 1 << 20]);
        near.ask(Kind::Append, 0, &body);
        for id in 1..20 {
            near.ask(Kind::Append, id, &body);
            let read = async { far.read_exact(&mut part).await.map(drop) };
            tokio::select! {
                biased;
                sent = near.flush() => panic!("{sent:?}"),
                read = read => read.unwrap(),
            }
        }
        assert!(near.backlog() < 3 << 20);
        assert!(near.outbox.len() < 4 << 20, "{} bytes", near.outbox.len());
    }

    #[tokio::test]
    async fn a_length_or_a_kind_that_cannot_be_ends_the_link() {
        let small = u32::try_from(SMALL_BYTES_MAX + HEAD_BYTES).unwrap();
        for (length, kind, is_good) in [
            (9, 1, true),
            (8, 1, false),
            (0, 1, false),
            (small, 4, true),
            (small + 1, 4, false),
            (u32::MAX, 3, false),
            (9, 0, false),
            (9, 99, false),
        ] {
            let (near, mut far) = duplex(64);
            far.write_all(&u32::to_le_bytes(length)).await.unwrap();
            far.write_all(&[kind]).await.unwrap();
            far.write_all(&[0; 8]).await.unwrap();
            far.shutdown().await.unwrap();
            let error = match Wire::new(Box::new(near)).next().await {
                Ok(_) => None,
                Err(error) => Some(error.kind()),
            };
            let expected = match (is_good, length) {
                (true, 9) => None,
                (true, _) => Some(io::ErrorKind::UnexpectedEof),
                (false, _) => Some(io::ErrorKind::InvalidData),
            };
            assert_eq!(error, expected, "length {length}, kind {kind}");
            drop(far.read_u8().await);
        }
    }
}
