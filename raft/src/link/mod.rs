//! The way to another node, as bytes: what carries them, and how one comes by it.
//!
//! This crate knows neither addresses nor keys: whoever starts a node brings a [`Dialer`], and hands inbound connections
//! to [`Node::accept`](crate::Node::accept) with the id of the peer it has authenticated.
//!
//! Reading order: `frame` and `message` (what travels, to the byte), `call` (a link that this node made), `board` (all of
//! them), `serve` (links that came in).

pub(crate) mod frame;

pub(crate) mod message;

pub(crate) mod call;

mod board;

mod serve;

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use board::Board;
pub(crate) use serve::Host;

/// An authenticated, encrypted byte stream to one other node.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A dial under way.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send + 'a>>;

/// How to reach another node.
pub trait Dialer: Send + Sync + 'static {
    /// Connects to `node` at `address` and makes sure that it is that node. Called on the raft thread's runtime, which must
    /// not be blocked; dropped when it takes too long.
    fn dial<'a>(&'a self, node: u64, address: &'a str) -> Dialing<'a>;
}

/// Reaches nobody: the dialer of a node that stays alone.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Dialer for Nobody {
    fn dial<'a>(&'a self, _node: u64, _address: &'a str) -> Dialing<'a> {
        Box::pin(async { Err(io::Error::new(io::ErrorKind::NotConnected, "this node was started to stay alone")) })
    }
}
