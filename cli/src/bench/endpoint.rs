//! One end of a connection under load, plain or TLS.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::Client;
use crate::error::CliError;
use crate::tls::{self, Trust};

/// Where to connect to.
pub(crate) struct Endpoint {
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection.
pub(crate) enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Endpoint {
    /// The server that `client` talks to, with the same trust.
    ///
    /// # Errors
    /// The host's name is not known, or the TLS files cannot be used.
    pub(crate) fn of(client: &Client) -> Result<Self, CliError> {
        let base = client.base();
        let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = base.port_or_known_default().unwrap_or_default();
        let address = (host, port)
            .to_socket_addrs()
            .ok()
            .and_then(|mut found| found.next())
            .ok_or_else(|| CliError::Usage(format!("cannot find the host of {base}")))?;
        let target = client.target();
        let tls = match base.scheme() {
            "https" => Some(connector(host, &target.trust, target.identity.as_ref())?),
            _ => None,
        };
        Ok(Self { address, tls })
    }

    /// The bare responder on this port; over TLS if it has a certificate.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub(crate) fn bare(port: u16, certificate: Option<&str>) -> Result<Self, CliError> {
        let tls = match certificate {
            Some(pem) => Some(connector("localhost", &Trust::Text(pem.to_owned()), None)?),
            None => None,
        };
        Ok(Self { address: (Ipv4Addr::LOCALHOST, port).into(), tls })
    }

    /// Whether it speaks TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// TCP or TLS fails.
    pub(crate) async fn connect(&self) -> io::Result<Stream> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Stream::Plain(tcp)),
            Some((connector, name)) => Ok(Stream::Tls(Box::new(connector.connect(name.clone(), tcp).await?))),
        }
    }
}

fn connector(
    host: &str,
    trust: &Trust,
    identity: Option<&tls::Identity>,
) -> Result<(TlsConnector, ServerName<'static>), CliError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| CliError::Usage(format!("`{host}` cannot be the name of a TLS server")))?;
    Ok((TlsConnector::from(Arc::new(tls::configure(trust, identity)?)), name))
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
