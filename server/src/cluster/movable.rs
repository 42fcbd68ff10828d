//! A connection that moves from one runtime to another: the handshake is made on one thread, and the rest is said on another.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A stream and where it is.
#[derive(Debug)]
pub(super) struct Movable(Place);

#[derive(Debug)]
enum Place {
    /// Its events come on this runtime.
    Here(TcpStream),
    /// It is about to be used elsewhere.
    Leaving(TcpStream),
    /// It could not be taken over.
    Lost,
}

impl Movable {
    /// A stream that stays until it leaves.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Place::Here(stream))
    }

    /// From now on it belongs to whichever runtime uses it next.
    pub(super) fn leave(&mut self) {
        if let Place::Here(stream) | Place::Leaving(stream) = std::mem::replace(&mut self.0, Place::Lost) {
            self.0 = Place::Leaving(stream);
        }
    }

    /// The stream, of no runtime.
    ///
    /// # Errors
    /// It is lost.
    pub(super) fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self.0 {
            Place::Here(stream) | Place::Leaving(stream) => stream.into_std(),
            Place::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Place::Leaving(_) = self.0
            && let Place::Leaving(stream) = std::mem::replace(&mut self.0, Place::Lost)
        {
            self.0 = Place::Here(TcpStream::from_std(stream.into_std()?)?);
        }
        match &mut self.0 {
            Place::Here(stream) => Ok(Pin::new(stream)),
            Place::Leaving(_) | Place::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Movable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Movable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.here()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn it_goes_on_where_it_is_used_next() {
        let (first, second) = (Builder::new_current_thread(), Builder::new_current_thread());
        let runtimes = [first, second].map(|mut builder| builder.enable_all().build().unwrap());
        let [first, second] = runtimes;
        let (mut near, far) = first.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let far = listener.accept().await.unwrap().0.into_std().unwrap();
            let mut near = Movable::new(near);
            near.write_all(b"one").await.unwrap();
            near.leave();
            (near, far)
        });
        second.block_on(async {
            let mut far = TcpStream::from_std(far).unwrap();
            near.write_all(b"two").await.unwrap();
            let mut heard = [0; 6];
            far.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"onetwo");
            far.write_all(b"three").await.unwrap();
            let mut heard = [0; 5];
            near.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"three");
        });
        drop(first);
    }
}
