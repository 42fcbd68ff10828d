//! What is said on the join lane: one request, one answer, each a length and that many bytes.
//!
//! A request to join begins with the token's id and the proof, so that both are looked at before anything else is read
//! into a structure.

use std::io;

use super::secret_text;
use keyward_model::{Id, Secret, SecretBytes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest request or answer.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// First byte of a request to join.
const JOIN: u8 = 1;
/// First byte of a member's request for a new certificate.
const RENEW: u8 = 2;
/// Bytes of a token's id, and of a proof.
const ID: usize = 16;
const PROOF: usize = 32;

/// A request as it came.
#[derive(Debug)]
pub enum Request {
    /// A node wants to become a member.
    Join {
        /// The token it has.
        token: Id,
        /// That it has the token's secret; covers `body`.
        proof: [u8; 32],
        /// A [`Join`] in JSON. Untrusted until the proof was checked.
        body: SecretBytes,
    },
    /// A member wants a new certificate; its old one says who it is.
    Renew(
        /// A [`Renew`] in JSON.
        SecretBytes,
    ),
}

/// What a node that joins says.
#[derive(Serialize, Deserialize)]
pub struct Join {
    /// PKCS #10 request, base64.
    pub csr: String,
    /// The id it drew.
    pub node: String,
    /// How many times it was set up anew.
    pub incarnation: u64,
    /// The key of its own key-file seal, base64; `None` where it does not unseal itself.
    #[serde(with = "secret_text::optional")]
    pub seal_key: Option<Secret<String>>,
    /// Its clock, nanoseconds since 1970.
    pub now: i64,
    /// How it is called and reached.
    #[serde(flatten)]
    pub place: Place,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").field("node", &self.node).field("place", &self.place).finish_non_exhaustive()
    }
}

/// How a node is called and reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What people call it.
    pub name: String,
    /// Host and port where other nodes reach it.
    pub node_address: String,
    /// URL where clients reach it.
    pub api_address: String,
}

/// What a member says that wants a new certificate.
#[derive(Debug, Serialize, Deserialize)]
pub struct Renew {
    /// PKCS #10 request, base64.
    pub csr: String,
    /// The hashes, in hex, of the authorities that it trusts.
    pub trusts: Vec<String>,
    /// The incarnation that it has.
    pub incarnation: u64,
    /// Drawn for this start, which has no incarnation of its own yet: it wants the next one. The same one again is the same
    /// start, which did not hear the answer.
    pub start: Option<String>,
    /// What starts before this one drew that did not hear an answer.
    pub before: Vec<String>,
    /// How it is called and reached now.
    #[serde(flatten)]
    pub place: Place,
}

/// What the cluster says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A certificate, and for a new member what it needs beside it.
    Welcome(Box<Welcome>),
    /// Another node leads: ask that one.
    Elsewhere {
        /// Where it is.
        node_address: String,
    },
    /// No, and why.
    Refused {
        /// What kind of no.
        why: Why,
        /// For whoever runs the node.
        text: String,
    },
}

/// What a node is given.
#[derive(Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Its certificate, DER in base64.
    pub certificate: String,
    /// The certificate of the node authority that signed it, DER in base64.
    pub authority: String,
    /// Others that members trust at the moment, for a new member.
    pub trusted: Vec<String>,
    /// The incarnation that it has from now on.
    pub incarnation: u64,
    /// Whether the node has a key-file seal of its own now.
    pub unseals: bool,
    /// The local CA of the API, if there is one: clients trust one for all nodes.
    pub api_authority: Option<ApiAuthority>,
}

/// The local CA of the API, PEM.
#[derive(Serialize, Deserialize)]
pub struct ApiAuthority {
    /// Its certificate.
    pub certificate: String,
    /// Its private key.
    #[serde(with = "secret_text")]
    pub key: Secret<String>,
}

impl std::fmt::Debug for ApiAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiAuthority").finish_non_exhaustive()
    }
}

/// Kinds of no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The token is not known (any more), or the proof is wrong. Which of them is not said.
    Token,
    /// The token's time is up.
    Expired,
    /// The token is for a node of another name.
    Name,
    /// The clocks are too far apart.
    Clock,
    /// What was said does not make sense, or contradicts what is known.
    Request,
    /// There are as many members as there can be.
    Full,
    /// The node cannot be asked now; it can be tried again.
    Busy,
    /// Not a member.
    Stranger,
    /// A copy of the node's data folder was started since.
    Copied,
}

impl Request {
    /// Puts a request to join into bytes; `prove` is given what the proof has to cover.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`]: it is too long.
    pub fn join(token: Id, join: &Join, prove: impl FnOnce(&[u8]) -> [u8; 32]) -> io::Result<SecretBytes> {
        let body = SecretBytes::new(serde_json::to_vec(join).map_err(io::Error::other)?);
        let proof = prove(body.expose());
        bounded([&[JOIN], &token.0[..], &proof, body.expose()].concat())
    }

    /// Puts a request for a new certificate into bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`]: it is too long.
    pub fn renew(renew: &Renew) -> io::Result<SecretBytes> {
        let body = serde_json::to_vec(renew).map_err(io::Error::other)?;
        bounded([&[RENEW], &body[..]].concat())
    }

    /// Reads what [`Request::join`] or [`Request::renew`] gave; `None` for anything else.
    pub fn parse(bytes: &SecretBytes) -> Option<Self> {
        let (kind, rest) = bytes.expose().split_first()?;
        match *kind {
            JOIN => {
                let (token, rest) = rest.split_first_chunk::<ID>()?;
                let (proof, body) = rest.split_first_chunk::<PROOF>()?;
                Some(Self::Join { token: Id(*token), proof: *proof, body: SecretBytes::new(body.to_vec()) })
            }
            RENEW => Some(Self::Renew(SecretBytes::new(rest.to_vec()))),
            _ => None,
        }
    }
}

impl Answer {
    /// A no.
    pub fn refused(why: Why, text: impl Into<String>) -> Self {
        Self::Refused { why, text: text.into() }
    }

    /// Puts the answer into bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`]: it is too long.
    pub fn encode(&self) -> io::Result<SecretBytes> {
        encode(self)
    }

    /// Reads what [`Answer::encode`] gave.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`].
    pub fn decode(bytes: &SecretBytes) -> io::Result<Self> {
        decode(bytes)
    }
}

/// Puts what is said into bytes.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`]: it is too long.
pub(super) fn encode(said: &impl Serialize) -> io::Result<SecretBytes> {
    bounded(serde_json::to_vec(said).map_err(io::Error::other)?)
}

/// Reads what [`encode`] gave.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`].
pub(super) fn decode<T: DeserializeOwned>(bytes: &SecretBytes) -> io::Result<T> {
    serde_json::from_slice(bytes.expose()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn bounded(bytes: Vec<u8>) -> io::Result<SecretBytes> {
    let bytes = SecretBytes::new(bytes);
    if bytes.expose().len() > MESSAGE_BYTES_MAX { Err(too_long()) } else { Ok(bytes) }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message is longer than {MESSAGE_BYTES_MAX} bytes"))
}

/// Writes one message.
///
/// # Errors
/// The connection ended.
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &SecretBytes) -> io::Result<()> {
    let length = u32::try_from(message.expose().len()).map_err(|_| too_long())?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message.expose()).await?;
    stream.flush().await
}

/// Reads one message. The bound is checked before a byte is allocated.
///
/// # Errors
/// The connection ended, or the message is too long.
pub async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<SecretBytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| too_long())?;
    if length > MESSAGE_BYTES_MAX {
        return Err(too_long());
    }
    let mut message = SecretBytes::new(vec![0; length]);
    stream.read_exact(message.expose_mut()).await?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn join() -> Join {
        Join {
            csr: "AA==".into(),
            node: Id([3; 16]).to_uuid(),
            incarnation: 1,
            seal_key: Some(Secret::new("c2VhbC1rZXk=".into())),
            now: 7,
            place: Place { name: "two".into(), node_address: "h:1".into(), api_address: "https://h:2".into() },
        }
    }

    #[test]
    fn what_a_node_says_is_not_shown_with_its_key() {
        let shown = format!("{:?}", join());
        assert!(shown.contains("two") && !shown.contains("c2VhbC1rZXk="), "{shown}");
    }

    #[test]
    fn a_request_reads_back_and_the_proof_covers_it() {
        let bytes = Request::join(Id([1; 16]), &join(), |body| {
            assert!(body.windows(3).any(|part| part == b"two"));
            [9; 32]
        });
        let Some(Request::Join { token, proof, body }) = Request::parse(&bytes.unwrap()) else { panic!("no request") };
        assert_eq!((token, proof), (Id([1; 16]), [9; 32]));
        let again: Join = serde_json::from_slice(body.expose()).unwrap();
        assert_eq!((again.place, again.node), (join().place, join().node));
    }

    #[test]
    fn messages_are_bounded_before_they_are_read() {
        run(async {
            let (mut near, mut far) = tokio::io::duplex(1 << 10);
            near.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
            assert_eq!(receive(&mut far).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
            let (mut near, mut far) = tokio::io::duplex(1 << 10);
            send(&mut near, &SecretBytes::new(b"hello".to_vec())).await.unwrap();
            assert_eq!(receive(&mut far).await.unwrap().expose(), b"hello");
        });
        let mut long = join();
        long.csr = "x".repeat(MESSAGE_BYTES_MAX);
        assert!(Request::join(Id([1; 16]), &long, |_| [0; 32]).is_err());
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(bytes: Vec<u8>) {
            let bytes = SecretBytes::new(bytes);
            drop(Request::parse(&bytes));
            drop(Answer::decode(&bytes));
        }
    }
}
