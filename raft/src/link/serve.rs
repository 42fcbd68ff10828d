//! What other nodes may ask of this one, and the links on which they do.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, poll};
use openraft::Raft;
use tokio::time::timeout;

use super::Connection;
use super::board::Board;
use super::frame::{Frame, Kind, Wire};
use super::message::{
    Hello, Lane, VERSION, VERSION_MIN, Welcome, decode_append, decode_sums, decode_transfer, decode_vote,
    encode_appended, encode_differs, encode_read_point, encode_transferred, encode_voted,
};
use crate::applier::Standing;
use crate::candidacy::Candidacy;
use crate::loss::Loss;
use crate::machine::Machine;
use crate::reads::{ReadError, Reads};
use crate::roster::Roster;
use crate::transfer::Receiver;
use crate::types::Types;

/// How long a connection may take to say what it is for.
const GREETING_MAX: Duration = Duration::from_secs(1);
/// Questions of one link that may be worked on.
const WORKING_MAX: usize = 1024;
/// Bytes of answers that may wait for a peer to take them.
const BACKLOG_BYTES_MAX: usize = 4 << 20;

/// Answers other nodes.
pub(crate) struct Host {
    pub(crate) raft: Raft<Types, Machine>,
    pub(crate) board: Arc<Board>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) receiver: Receiver,
    pub(crate) loss: Arc<Loss>,
}

type Work = Pin<Box<dyn Future<Output = io::Result<(Kind, u64, Vec<u8>)>> + Send>>;

impl Host {
    /// Serves a connection from `peer` until it closes.
    pub(crate) fn accept(self: &Arc<Self>, peer: u64, connection: Box<dyn Connection>) {
        let host = Arc::clone(self);
        // WHY: nothing is to be done about a link that ends; the other side makes a new one.
        drop(tokio::spawn(async move { host.serve(peer, Wire::new(connection)).await }));
    }

    /// Tells `peer`, which the state says was removed, that it was. As long as a membership still needs it, it is served as
    /// before: its word may be what the end of that membership waits for.
    pub(crate) fn turn_away(self: &Arc<Self>, peer: u64, connection: Box<dyn Connection>) {
        self.board.mark_removed(peer);
        self.accept(peer, connection);
    }

    async fn serve(self: Arc<Self>, peer: u64, mut wire: Wire) -> io::Result<()> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let greeting = timeout(GREETING_MAX, wire.next()).await.map_err(|_| late())??;
        let hello =
            (greeting.kind == Kind::Hello && !greeting.is_answer).then(|| Hello::decode(&greeting.body)).flatten();
        let Some(hello) = hello else { return Err(broken()) };
        let welcome = self.welcome(peer, &hello);
        wire.answer(Kind::Hello, greeting.id, &welcome.encode());
        timeout(GREETING_MAX, wire.flush()).await.map_err(|_| late())??;
        if !matches!(welcome, Welcome::Yes(_)) {
            return Ok(());
        }
        let (board, loss) = (Arc::clone(&self.board), Arc::clone(&self.loss));
        let talking = tokio::spawn(async move {
            match hello.lane {
                Lane::Log | Lane::Beat => self.talk(wire).await,
                Lane::Snapshot => self.receiver.receive(&self.raft, wire).await,
            }
        });
        board.take(peer, hello.lane, talking.abort_handle());
        loss.link_began(peer);
        // A link that another one replaced, or that was closed here, did not break.
        let ended = talking.await.unwrap_or(Ok(()));
        if ended.is_err() && hello.lane != Lane::Snapshot {
            loss.link_broke(peer);
        }
        ended
    }

    fn welcome(&self, peer: u64, hello: &Hello) -> Welcome {
        let version = hello.versions.1.min(VERSION);
        if version < hello.versions.0 || version < VERSION_MIN {
            Welcome::OtherVersion
        } else if hello.to != self.roster.node_id() || hello.from != peer {
            Welcome::OtherNode
        } else if self.board.was_removed(peer) {
            Welcome::Removed
        } else if !self.board.admits(peer, hello.member_since) {
            Welcome::NotMember
        } else {
            Welcome::Yes(version)
        }
    }

    async fn talk(&self, mut wire: Wire) -> io::Result<()> {
        let mut working = FuturesUnordered::new();
        loop {
            tokio::select! {
                // What waits goes on first: appends reach the core in the order in which they came.
                biased;
                Some(done) = working.next(), if !working.is_empty() => answer(&mut wire, done?)?,
                frame = wire.next() => {
                    let mut work = self.work(frame?)?;
                    // Polled once here and now, whatever the task has used up: what came first reaches the core first.
                    match poll!(tokio::task::unconstrained(&mut work)) {
                        Poll::Ready(done) => answer(&mut wire, done?)?,
                        Poll::Pending if working.len() >= WORKING_MAX => return Err(broken()),
                        Poll::Pending => working.push(work),
                    }
                }
            }
        }
    }

    fn work(&self, frame: Frame) -> io::Result<Work> {
        let Frame { kind, is_answer, id, body } = frame;
        if is_answer {
            return Err(broken());
        }
        let raft = self.raft.clone();
        let stopped = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
        Ok(match kind {
            Kind::Ping => Box::pin(async move { Ok((kind, id, Vec::new())) }),
            Kind::Append => {
                let request = decode_append(&body).ok_or_else(broken)?;
                let commit_next = request.leader_commit.map_or(0, |last| last.index + 1);
                self.roster.hear(commit_next, self.standing.applied_next());
                Box::pin(async move {
                    let response = raft.append_entries(request).await.map_err(|error| stopped(&error))?;
                    Ok((kind, id, encode_appended(&response)))
                })
            }
            Kind::Vote | Kind::PreVote => {
                let request = decode_vote(&body).ok_or_else(broken)?;
                let judged = if kind == Kind::PreVote { self.loss.judge(&request) } else { None };
                Box::pin(async move {
                    let response = match judged {
                        Some(response) => Ok(response),
                        None if kind == Kind::Vote => raft.vote(request).await,
                        None => raft.pre_vote(request).await,
                    };
                    Ok((kind, id, encode_voted(&response.map_err(|error| stopped(&error))?)))
                })
            }
            Kind::Transfer => {
                let request = decode_transfer(&body).ok_or_else(broken)?;
                let is_for_it = *request.to_node_id() == self.roster.node_id();
                let is_barred = self.roster.candidacy() == Candidacy::Barred;
                Box::pin(async move {
                    if is_for_it && is_barred {
                        return Ok((kind, id, encode_transferred(None)));
                    }
                    let response = raft.handle_transfer_leader(request).await.map_err(|error| stopped(&error))?;
                    Ok((kind, id, encode_transferred(Some(&response))))
                })
            }
            Kind::Stands => {
                let candidacy = self.roster.candidacy();
                Box::pin(async move { Ok((kind, id, vec![candidacy.encode()])) })
            }
            Kind::ReadPoint => {
                let index = self.reads.index();
                Box::pin(async move {
                    let index = index.await.unwrap_or(Err(ReadError::Stopped));
                    Ok((kind, id, encode_read_point(index)))
                })
            }
            Kind::Sums => {
                let sums = decode_sums(&body).ok_or_else(broken)?;
                let differs = self.standing.differs(&sums);
                Box::pin(async move { Ok((kind, id, encode_differs(differs))) })
            }
            Kind::Hello | Kind::Offer | Kind::Chunk | Kind::Finish => return Err(broken()),
        })
    }
}

fn answer(wire: &mut Wire, (kind, id, body): (Kind, u64, Vec<u8>)) -> io::Result<()> {
    wire.answer(kind, id, &body);
    // A peer that asks and does not listen.
    if wire.backlog() > BACKLOG_BYTES_MAX { Err(broken()) } else { Ok(()) }
}

fn broken() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
