//! The node port: whoever comes is let in to one lane, or closed.
//!
//! It has a thread of its own: neither a load of requests nor strangers at the door can delay a heartbeat. That thread reads
//! as far as the lane. For consensus it makes the handshake, too, and hands whoever is a member to the raft thread;
//! everything else goes on to a worker of the API, where the handshake is made and the rest is read. What is not TLS, wants
//! no lane that there is, or shows no certificate where one is due, is counted and closed.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use keyward_storage::Store;
use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::{StartHandshake, TlsStream};

use super::movable::Movable;
use super::node::Cluster;
use super::rows;
use super::tls::{Lane, Trust};
use crate::barrier::Barrier;

/// Time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a connection could not be accepted: there is no event for a descriptor that becomes free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections of members at once, and of whoever has not proven to be one.
const CONNECTIONS_MAX: usize = 256;
/// Of those, from one address, which have not proven yet who they are.
const STRANGERS_MAX: usize = 224;
/// Connections at once that want to join.
const JOINING_MAX: usize = 8;
/// Connections at once of members that want a new certificate, or to be unsealed.
const RENEWING_MAX: usize = 16;

/// Places that are taken. One is freed when it is dropped.
#[derive(Debug, Clone, Default)]
pub struct Seats(Arc<AtomicUsize>);

/// One of them.
#[derive(Debug)]
pub struct Seat(Arc<AtomicUsize>);

/// Whoever is at the door and has not proven who it is, by address: one machine must not keep all others out.
#[derive(Debug, Clone, Default)]
struct Strangers(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// One of them. Dropped when it has proven who it is, or is gone.
#[derive(Debug)]
struct Stranger(Strangers, IpAddr);

impl Strangers {
    fn admit(&self, source: IpAddr) -> Option<Stranger> {
        let mut at_door = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = at_door.entry(source).or_insert(0);
        *count += 1;
        let is_one_too_many = *count > STRANGERS_MAX;
        drop(at_door);
        let stranger = Stranger(self.clone(), source);
        (!is_one_too_many).then_some(stranger)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut at_door = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = at_door.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                at_door.remove(&self.1);
            }
        }
    }
}

impl Seats {
    fn take(&self, max: usize) -> Option<Seat> {
        let taken = self.0.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Arc::clone(&self.0));
        (taken < max).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Somebody at the door whose lane is known, on the way to a worker of the API.
pub struct Knock {
    lane: Lane,
    accepted: Accepted,
    stream: std::net::TcpStream,
    source: SocketAddr,
    stranger: Stranger,
    seats: Vec<Seat>,
}

impl std::fmt::Debug for Knock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Knock").field("lane", &self.lane).field("source", &self.source).finish_non_exhaustive()
    }
}

/// Somebody who was let in by a worker.
#[derive(Debug)]
pub enum Visitor {
    /// A member that forwards requests of its clients.
    Forwarding(MemberConnection),
    /// A node that wants a certificate.
    Joining(JoiningConnection),
    /// A member that wants to be unsealed.
    Sealed(MemberConnection),
}

/// A connection of a member: over which it forwards requests of its clients, in HTTP/2, or asks to be unsealed.
#[derive(Debug)]
pub struct MemberConnection {
    /// The member, as its certificate says. Whether it still is one is to be asked of the state.
    pub peer: u64,
    /// The member's address.
    pub source: IpAddr,
    /// The connection, on the worker's own runtime.
    pub stream: TlsStream<TcpStream>,
    /// Its places at the door.
    pub seats: Vec<Seat>,
}

/// A connection of a node that wants a certificate.
#[derive(Debug)]
pub struct JoiningConnection {
    /// The member, if it is one and wants a new one.
    pub peer: Option<u64>,
    /// Where it comes from.
    pub source: IpAddr,
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// Its places at the door.
    pub seats: Vec<Seat>,
}

impl Knock {
    /// Makes the handshake, on the runtime of the worker that calls. `renewing` are the places of members that want a new
    /// certificate, or to be unsealed.
    ///
    /// # Errors
    /// Whoever it is does not speak TLS as we do, or shows no certificate where one is due.
    pub async fn admit(self, trust: &Trust, renewing: &Seats) -> io::Result<Visitor> {
        let Self { lane, accepted, stream, source, stranger: _stranger, mut seats } = self;
        let handshake = StartHandshake::from_parts(accepted, TcpStream::from_std(stream)?);
        let (stream, peer) = shake(handshake, trust, lane).await?;
        let source = source.ip();
        match (lane, peer) {
            (Lane::Join, _) => Ok(Visitor::Joining(JoiningConnection { peer: None, source, stream, seats })),
            (Lane::Renew, Some(_)) => {
                // Taken once it has proven to be a member: nobody else keeps it from its turn.
                seats.push(renewing.take(RENEWING_MAX).ok_or_else(full)?);
                Ok(Visitor::Joining(JoiningConnection { peer, source, stream, seats }))
            }
            (Lane::Unseal, Some(peer)) => {
                seats.push(renewing.take(RENEWING_MAX).ok_or_else(full)?);
                Ok(Visitor::Sealed(MemberConnection { peer, source, stream, seats }))
            }
            (Lane::Api, Some(peer)) => Ok(Visitor::Forwarding(MemberConnection { peer, source, stream, seats })),
            (Lane::Api | Lane::Raft | Lane::Renew | Lane::Unseal, _) => Err(stranger()),
        }
    }
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, "too many nodes want something of this one at once")
}

fn stranger() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "no certificate of a member of this cluster was shown")
}

/// The rest of a handshake whose beginning named `lane`, and who the peer is.
async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    handshake: StartHandshake<S>,
    trust: &Trust,
    lane: Lane,
) -> io::Result<(TlsStream<S>, Option<u64>)> {
    let handshake = handshake.into_stream(Arc::clone(trust.server()));
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let connection = stream.get_ref().1;
    if connection.alpn_protocol() != Some(lane.name()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no lane was agreed on"));
    }
    let peer = match connection.peer_certificates() {
        None => None,
        shown => Some(trust.peer(shown).ok_or_else(stranger)?),
    };
    Ok((stream, peer))
}

/// Serves the port on a thread of its own, until the other side of `ends` is gone.
///
/// # Errors
/// The thread cannot be started.
pub fn start(
    cluster: Arc<Cluster>,
    barrier: Weak<Barrier>,
    store: Store,
    listener: std::net::TcpListener,
    ends: oneshot::Receiver<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serving = async move {
        tokio::select! {
            served = run(cluster, barrier, store, listener) => {
                drop(served.inspect_err(|error| tracing::error!(error = %error, "the node port cannot be served")));
            }
            _ = ends => {}
        }
    };
    std::thread::Builder::new().name("node-port".to_owned()).spawn(move || runtime.block_on(serving)).map(drop)
}

async fn run(
    cluster: Arc<Cluster>,
    barrier: Weak<Barrier>,
    store: Store,
    listener: std::net::TcpListener,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let (seats, joining, strangers) = (Seats::default(), Seats::default(), Strangers::default());
    loop {
        let (stream, source) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "a connection to the node port could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(stranger) = strangers.admit(source.ip()) else {
            cluster.note_closed();
            tracing::debug!(source = %source, "a connection to the node port was closed: that address has too many");
            continue;
        };
        let Some(seat) = seats.take(CONNECTIONS_MAX) else {
            cluster.note_closed();
            tracing::debug!(source = %source, "a connection to the node port was closed: there are too many");
            continue;
        };
        let (cluster, joining) = (Arc::clone(&cluster), joining.clone());
        let (barrier, store) = (Weak::clone(&barrier), store.clone());
        drop(tokio::spawn(async move {
            if let Err(error) = lead_in(&cluster, (&barrier, &store), stream, source, (stranger, seat), &joining).await
            {
                cluster.note_closed();
                tracing::debug!(error = %error, source = %source, "a connection to the node port was closed");
            }
        }));
    }
}

async fn lead_in(
    cluster: &Arc<Cluster>,
    (barrier, store): (&Weak<Barrier>, &Store),
    stream: TcpStream,
    source: SocketAddr,
    (unknown, seat): (Stranger, Seat),
    joining: &Seats,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let trust = cluster.trust().ok_or_else(|| io::Error::other("this node is not one of several"))?;
    let hello = LazyConfigAcceptor::new(Acceptor::default(), Movable::new(stream));
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, hello).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let wanted = handshake.client_hello().alpn().and_then(|mut names| names.find_map(Lane::of));
    let lane = wanted.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no lane was asked for"))?;
    let mut seats = vec![seat];
    match lane {
        Lane::Raft => {
            let (mut stream, peer) = shake(handshake, &trust, lane).await?;
            let peer = peer.ok_or_else(stranger)?;
            cluster.refuse_older(trust.shown(stream.get_ref().1.peer_certificates()))?;
            stream.get_mut().0.leave();
            // Its certificate may outlive its membership by a day. Where that cannot be read it is neither let in nor told
            // that it was removed: that would end it for good.
            let is_gone = store.reader().ok().and_then(|reader| rows::is_gone(&reader, peer).ok());
            let is_gone = is_gone.ok_or_else(|| io::Error::other("the state cannot be read"))?;
            if let Some(barrier) = barrier.upgrade() {
                let (node, stream) = (barrier.node(), Box::new(stream));
                // From here on Raft bounds it.
                if is_gone { node.turn_away(peer, stream) } else { node.accept(peer, stream) }
            }
            return Ok(());
        }
        Lane::Join => {
            seats.push(joining.take(JOINING_MAX).ok_or_else(full)?);
        }
        Lane::Api | Lane::Renew | Lane::Unseal => {}
    }
    let StartHandshake { accepted, io, .. } = handshake;
    cluster.hand_on(Knock { lane, accepted, stream: io.into_std()?, source, stranger: unknown, seats })
}
