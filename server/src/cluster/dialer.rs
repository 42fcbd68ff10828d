//! Reaching another member: TCP, then TLS in which it proves to be the one that was meant.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use keyward_raft::link::{Connection, Dialer, Dialing};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::node::Cluster;
use super::tls::{Lane, Trust};

/// Time for reaching a node: connection and handshake.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Dials members for consensus.
#[derive(Debug)]
pub struct Members(pub Arc<Cluster>);

impl Dialer for Members {
    fn dial<'a>(&'a self, node: u64, address: &'a str) -> Dialing<'a> {
        Box::pin(async move {
            let trust = self.0.trust().ok_or_else(|| io::Error::other("this node is not one of several"))?;
            let dialled = dial(&trust, Lane::Raft, node, address).await.and_then(|stream| {
                self.0.refuse_older(trust.shown(stream.get_ref().1.peer_certificates()))?;
                Ok(stream)
            });
            let stream = dialled.inspect_err(|error| self.0.note_unreached(node, address, error))?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }
}

/// A connection to the member `number` on `lane`, on the runtime that it is awaited on.
///
/// # Errors
/// It cannot be reached, is another, or does not take the lane.
pub async fn dial(trust: &Trust, lane: Lane, number: u64, address: &str) -> io::Result<TlsStream<TcpStream>> {
    let (config, name) = trust.client(lane, number)?;
    let dialling = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(config).connect(name, stream).await
    };
    let stream = tokio::time::timeout(DIAL_TIMEOUT, dialling).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if stream.get_ref().1.alpn_protocol() == Some(lane.name()) {
        Ok(stream)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the node does not speak this lane"))
    }
}
