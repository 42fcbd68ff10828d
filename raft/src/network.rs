//! The way to other nodes, as openraft asks for it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::link::Board;
use crate::link::call::{Answer, CallError, Link};
use crate::link::frame::Kind;
use crate::link::message::{
    Appended, Lane, decode_appended, decode_transferred, decode_voted, encode_append, encode_transfer, encode_vote,
};
use crate::snapshot::SnapshotData;
use crate::transfer::{Outgoing, SnapshotFile, reach};
use crate::types::{LogId, Types, Vote};

type Snapshot = openraft::type_config::alias::SnapshotOf<Types, SnapshotData>;

/// How long an append may stay unanswered: a follower's disk may be slow.
const APPEND_MAX: Duration = Duration::from_secs(10);
/// How long a heartbeat is remembered; the library gives up on it before.
const BEAT_MAX: Duration = Duration::from_secs(5);
/// Appends that may be on their way to one node.
const APPENDS_MAX: usize = 64;
/// Bytes of appends that may be on their way to one node, unless a single one has more.
const APPENDS_BYTES_MAX: usize = 8 << 20;

/// Makes clients for other nodes.
pub(crate) struct Network {
    pub(crate) board: Arc<Board>,
    pub(crate) outgoing: Arc<Outgoing>,
}

/// What is said to one node, on one lane.
pub(crate) struct Client {
    board: Arc<Board>,
    outgoing: Arc<Outgoing>,
    node: u64,
    address: String,
    lane: Lane,
    /// The snapshot that could not be sent to its end: the next attempt goes on with it.
    unsent: Option<Arc<SnapshotFile>>,
}

impl Network {
    fn client(&self, node: u64, address: &str, lane: Lane) -> Client {
        let (board, outgoing) = (Arc::clone(&self.board), Arc::clone(&self.outgoing));
        Client { board, outgoing, node, address: address.to_owned(), lane, unsent: None }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &openraft::BasicNode) -> Client {
        self.client(target, &node.addr, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &openraft::BasicNode) -> Client {
        self.client(target, &node.addr, Lane::Beat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &openraft::BasicNode) -> Client {
        self.client(target, &node.addr, Lane::Snapshot)
    }
}

impl Client {
    fn link(&self) -> Result<Link, CallError> {
        let link = self.board.link(self.node, self.lane, Some(&self.address));
        link.ok_or_else(|| CallError::Unreachable("it was removed".to_owned()))
    }

    async fn ask<T>(
        &self,
        kind: Kind,
        body: Vec<u8>,
        patience: Duration,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, RPCError<Types>> {
        let answer = self.link().map_err(failed)?.call(kind, body, patience).await.map_err(failed)?;
        decode(&answer).ok_or_else(|| RPCError::Network(NetworkError::from_string("an answer that is none")))
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let appended = self.ask(Kind::Append, encode_append(&rpc), APPEND_MAX, decode_appended).await?;
        let (vote, prev) = (rpc.vote, rpc.prev_log_id);
        let last = rpc.entries.last().map(|entry| entry.log_id).or(prev);
        check_word(&self.board, self.node, vote, &appended, prev, last)?;
        Ok(match appended {
            Appended::All => AppendEntriesResponse::Success,
            Appended::UpTo(last) => AppendEntriesResponse::PartialSuccess(last),
            Appended::Conflict => AppendEntriesResponse::Conflict,
            Appended::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            let link = self.link().map_err(failed)?;
            let patience = if self.lane == Lane::Beat { BEAT_MAX } else { APPEND_MAX };
            let (board, node) = (Arc::clone(&self.board), self.node);
            let under_way = VecDeque::new();
            let pipe = Pipe { board, node, input: Some(input), link, patience, under_way, bytes: 0, over: false };
            let answers: BoxStream<'s, _> = Box::pin(pipe);
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(Kind::Vote, encode_vote(&rpc), option.soft_ttl(), decode_voted).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(Kind::PreVote, encode_vote(&rpc), option.soft_ttl(), decode_voted).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotData::Live(store) = snapshot.snapshot else {
            return Err(Unreachable::from_string("only a running state is sent").into());
        };
        let unreachable = |why: &dyn std::fmt::Display| StreamingError::from(Unreachable::from_string(why));
        let Some(address) = self.board.address(self.node, Some(&self.address)) else {
            return Err(unreachable(&"it was removed"));
        };
        let index = snapshot.meta.last_log_id.map_or(0, |last| last.index);
        let sending = async {
            reach(&self.board, self.node, &address).await.map_err(|error| unreachable(&error))?;
            self.board.transit().keep(self.node, index);
            let file = self.outgoing.file(&store, index).await.map_err(|error| unreachable(&error))?;
            self.unsent = Some(Arc::clone(&file));
            let sent = file.send(&self.board, self.node, &address, vote).await.map_err(|error| unreachable(&error))?;
            self.unsent = None;
            Ok(SnapshotResponse::new(sent))
        };
        tokio::select! {
            sent = sending => sent,
            closed = cancel => Err(closed.into()),
            () = tokio::time::sleep(option.soft_ttl()) => Err(unreachable(&"sending a snapshot took too long")),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let response =
            self.ask(Kind::Transfer, encode_transfer(&request), option.soft_ttl(), decode_transferred).await?;
        response.ok_or_else(|| Unreachable::from_string("it does not stand for election").into())
    }

    fn backoff(&self) -> Option<Backoff> {
        let longest = if self.lane == Lane::Snapshot { Duration::from_secs(5) } else { Duration::from_millis(250) };
        let doubled = move |pause: &Duration| Some((*pause * 2).min(longest));
        Some(Backoff::new(std::iter::successors(Some(Duration::from_millis(20)), doubled)))
    }
}

fn failed(error: CallError) -> RPCError<Types> {
    match error {
        CallError::Unreachable(why) => Unreachable::from_string(why).into(),
        CallError::Broken(why) => NetworkError::from_string(why).into(),
    }
}

/// Notes what a node acknowledges, and turns away one that lacks what it acknowledged before: the library takes it for
/// granted that there is none.
fn check_word(
    board: &Board,
    node: u64,
    vote: Vote,
    appended: &Appended,
    prev: Option<LogId>,
    last: Option<LogId>,
) -> Result<(), RPCError<Types>> {
    let upto = match appended {
        Appended::All => last,
        Appended::UpTo(upto) => *upto,
        Appended::HigherVote(_) => None,
        Appended::Conflict => {
            let went_back = prev.is_some_and(|entry| board.went_back(node, vote, entry));
            return if went_back {
                Err(Unreachable::from_string("it lacks entries that it had acknowledged").into())
            } else {
                Ok(())
            };
        }
    };
    if let Some(upto) = upto {
        board.acknowledge(node, vote, upto);
    }
    Ok(())
}

/// Appends on their way to one node: as many as may be, answered in order.
struct Pipe<S> {
    board: Arc<Board>,
    node: u64,
    input: Option<S>,
    link: Link,
    patience: Duration,
    under_way: VecDeque<UnderWay>,
    bytes: usize,
    over: bool,
}

struct UnderWay {
    answer: Answer,
    vote: Vote,
    prev: Option<LogId>,
    last: Option<LogId>,
    bytes: usize,
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Pipe<S> {
    /// Sends what there is to send.
    fn send(&mut self, context: &mut Context<'_>) {
        while self.under_way.len() < APPENDS_MAX
            && (self.bytes < APPENDS_BYTES_MAX)
            && let Some(input) = &mut self.input
        {
            match input.poll_next_unpin(context) {
                Poll::Pending => return,
                Poll::Ready(None) => self.input = None,
                Poll::Ready(Some(request)) => {
                    let (vote, prev, body) = (request.vote, request.prev_log_id, encode_append(&request));
                    let (last, bytes) = (request.entries.last().map(|entry| entry.log_id).or(prev), body.len());
                    let answer = self.link.call(Kind::Append, body, self.patience);
                    self.under_way.push_back(UnderWay { answer, vote, prev, last, bytes });
                    self.bytes += bytes;
                }
            }
        }
    }
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Stream for Pipe<S> {
    type Item = Result<StreamAppendResult<Types>, RPCError<Types>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        self.send(context);
        let Some(first) = self.under_way.front_mut() else {
            return if self.input.is_none() { Poll::Ready(None) } else { Poll::Pending };
        };
        let answer = std::task::ready!(Pin::new(&mut first.answer).poll(context));
        let Some(first) = self.under_way.pop_front() else { return Poll::Ready(None) };
        self.bytes -= first.bytes;
        let said = answer.map(|body| decode_appended(&body));
        let kept = match &said {
            Ok(Some(appended)) => check_word(&self.board, self.node, first.vote, appended, first.prev, first.last),
            _ => Ok(()),
        };
        let result = match said {
            _ if let Err(error) = kept => Err(error),
            Err(error) => Err(failed(error)),
            Ok(Some(Appended::All)) => Ok(Ok(first.last)),
            Ok(Some(Appended::UpTo(last))) => Ok(Ok(last)),
            Ok(Some(Appended::HigherVote(vote))) => Ok(Err(StreamAppendError::HigherVote(vote))),
            Ok(Some(Appended::Conflict)) if let Some(prev) = first.prev => Ok(Err(StreamAppendError::Conflict(prev))),
            Ok(Some(Appended::Conflict) | None) => {
                Err(RPCError::Network(NetworkError::from_string("an answer that is none")))
            }
        };
        // After an error the library begins anew, with what it then knows.
        self.over = !matches!(result, Ok(Ok(_)));
        Poll::Ready(Some(result))
    }
}
