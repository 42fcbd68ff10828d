//! The bare responder: hyper, one single-threaded runtime per core, `SO_REUSEPORT`, and an answer that never changes.
//!
//! It reads a request to its end, as a server must, and answers with as many bytes of JSON as it was told. It says on
//! its first line of output where it listens, and ends when its standard input does.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::error::CliError;

const BACKLOG: i32 = 4096;

/// How to answer.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Bytes of the answer to a GET
    #[arg(long)]
    read_bytes: usize,
    /// Bytes of the answer to a GET with a question
    #[arg(long)]
    list_bytes: usize,
    /// Bytes of the answer to anything else
    #[arg(long)]
    write_bytes: usize,
    /// Speak TLS with a certificate made now
    #[arg(long)]
    tls: bool,
}

/// The answers, and the TLS to speak.
#[derive(Clone)]
struct Answers {
    read: Bytes,
    list: Bytes,
    write: Bytes,
    tls: Option<TlsAcceptor>,
}

/// Serves until standard input ends.
///
/// # Errors
/// No port, no certificate, no runtime.
pub(crate) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let failed = |error: io::Error| CliError::Local(format!("the bare responder cannot serve: {error}"));
    let (tls, certificate) = match arguments.tls {
        true => acceptor().map(|(tls, pem)| (Some(tls), Some(pem))).map_err(failed)?,
        false => (None, None),
    };
    let Arguments { read_bytes, list_bytes, write_bytes, .. } = *arguments;
    let answers = Answers { read: filler(read_bytes), list: filler(list_bytes), write: filler(write_bytes), tls };
    let first = listen(0).map_err(failed)?;
    let port = first.local_addr().map_err(failed)?.port();
    let mut listeners = vec![first];
    for _ in 1..super::cores() {
        listeners.push(listen(port).map_err(failed)?);
    }
    for listener in listeners {
        let answers = answers.clone();
        thread::Builder::new().spawn(move || serve(listener, &answers)).map_err(failed)?;
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", json!({"port": port, "certificate": certificate}))?;
    out.flush()?;
    io::stdin().read_to_end(&mut Vec::new()).map_err(failed)?;
    Ok(())
}

fn serve(listener: std::net::TcpListener, answers: &Answers) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // A connection that breaks is the client's to count.
            tokio::spawn(connection(stream, answers.clone()));
        }
    })
}

async fn connection(stream: TcpStream, answers: Answers) {
    let tls = answers.tls.clone();
    let service = service_fn(move |request| answer(request, answers.clone()));
    let http = http1::Builder::new();
    match tls {
        None => http.serve_connection(TokioIo::new(stream), service).await.ok(),
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await.ok(),
            Err(_) => None,
        },
    };
}

async fn answer(request: Request<Incoming>, answers: Answers) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = match (request.method(), request.uri().query()) {
        (&Method::GET, None) => answers.read,
        (&Method::GET, Some(_)) => answers.list,
        _ => {
            request.into_body().collect().await?;
            answers.write
        }
    };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn filler(bytes: usize) -> Bytes {
    vec![b'x'; bytes].into()
}

fn listen(port: u16) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// TLS with a certificate for `localhost` that nobody else knows, and that certificate as PEM.
fn acceptor() -> io::Result<(TlsAcceptor, String)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(io::Error::other)?;
    Ok((TlsAcceptor::from(Arc::new(config)), made.cert.pem()))
}
