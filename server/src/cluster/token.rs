//! Join tokens: one line of text that lets one node in, once, for a few minutes.
//!
//! The text holds what a new node cannot know: where the cluster is, the hash of the authority to believe, and a secret.
//! The secret never crosses the wire: the node proves it with an HMAC that is bound to the TLS session and to everything
//! it says in it. The cluster keeps only the secret's hash, which is the key of that HMAC, wrapped by the root key.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use keyward_crypto::RootKey;
use keyward_model::{Entropy, Id, Secret, SecretBytes, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::rows::TokenRow;

/// The longest that a token may be good for.
pub const TTL_S_MAX: i64 = 15 * 60;
/// What a token's text begins with.
const PREFIX: &str = "kwj1.";
/// The longest text of a token.
const TEXT_BYTES_MAX: usize = 4096;
/// Addresses in a token.
const ADDRESSES_MAX: usize = 9;
/// Label of the TLS exporter (RFC 8446 §7.5) that a proof is bound to.
pub const EXPORTER: &[u8] = b"EXPORTER-keyward-join-1";

/// A join token in the hands of the node that joins.
#[derive(Debug)]
pub struct JoinToken {
    /// The cluster it lets in to.
    pub cluster: Id,
    /// SHA-256 of the certificate of its node authority.
    pub authority: [u8; 32],
    /// Host and port of its members, the one that made the token first.
    pub addresses: Vec<String>,
    /// Which token it is.
    pub id: Id,
    /// When it ends.
    pub expires: Timestamp,
    /// The name that the node must have; `None` for any.
    pub name: Option<String>,
    key: ProofKey,
    secret: Secret<[u8; 32]>,
}

/// The key of proofs: the hash of the token's secret.
#[derive(Debug)]
pub struct ProofKey(Secret<[u8; 32]>);

/// The text's content.
#[derive(Serialize, Deserialize)]
struct Content<'a> {
    cluster: [u8; 16],
    authority: [u8; 32],
    #[serde(borrow)]
    addresses: Vec<&'a str>,
    id: [u8; 16],
    secret: [u8; 32],
    expires: i64,
    name: Option<&'a str>,
}

/// Why a text is no token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else.
    #[error(
        "this is not a join token: one line that begins with `{PREFIX}` is expected, as `keyward operator join-token` prints it"
    )]
    Foreign,
    /// A token of which something is missing or changed.
    #[error("the join token is damaged: copy the whole line, or make a new one with `keyward operator join-token`")]
    Damaged,
}

impl JoinToken {
    /// Draws a token.
    pub fn draw(
        cluster: Id,
        authority: [u8; 32],
        addresses: Vec<String>,
        expires: Timestamp,
        name: Option<String>,
        entropy: &dyn Entropy,
    ) -> Self {
        let mut secret = Secret::new([0; 32]);
        entropy.fill(secret.expose_mut());
        let id = Id::random(entropy);
        let key = ProofKey::of(id, &secret);
        Self { cluster, authority, addresses, id, expires, name, key, secret }
    }

    /// The one line that is carried to the new node.
    ///
    /// # Errors
    /// [`TokenError::Damaged`]: it holds more than a token can.
    pub fn text(&self) -> Result<Secret<String>, TokenError> {
        let content = Content {
            cluster: self.cluster.0,
            authority: self.authority,
            addresses: self.addresses.iter().map(String::as_str).collect(),
            id: self.id.0,
            secret: *self.secret.expose(),
            expires: self.expires.0,
            name: self.name.as_deref(),
        };
        let mut bytes = SecretBytes::new(postcard::to_stdvec(&content).map_err(|_| TokenError::Damaged)?);
        let sum = checksum(bytes.expose());
        bytes.expose_mut().extend_from_slice(&sum);
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.expose()));
        if text.len() > TEXT_BYTES_MAX { Err(TokenError::Damaged) } else { Ok(Secret::new(text)) }
    }

    /// Reads what [`JoinToken::text`] gave; space around it does not matter.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).ok_or(TokenError::Foreign)?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::Damaged);
        }
        let bytes = SecretBytes::new(URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Damaged)?);
        let (content, sum) = bytes.expose().split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
        if checksum(content) != *sum {
            return Err(TokenError::Damaged);
        }
        let (content, rest) = postcard::take_from_bytes::<Content<'_>>(content).map_err(|_| TokenError::Damaged)?;
        if !rest.is_empty() || content.addresses.is_empty() || content.addresses.len() > ADDRESSES_MAX {
            return Err(TokenError::Damaged);
        }
        let (id, secret) = (Id(content.id), Secret::new(content.secret));
        Ok(Self {
            cluster: Id(content.cluster),
            authority: content.authority,
            addresses: content.addresses.into_iter().map(str::to_owned).collect(),
            id,
            expires: Timestamp(content.expires),
            name: content.name.map(str::to_owned),
            key: ProofKey::of(id, &secret),
            secret,
        })
    }

    /// Proves the secret in the TLS session of this exporter value, for this message.
    pub fn proof(&self, exporter: &[u8; 32], message: &[u8]) -> [u8; 32] {
        self.key.proof(exporter, message)
    }

    /// The same with another secret.
    #[cfg(test)]
    pub(super) fn forged(self, entropy: &dyn Entropy) -> Self {
        let mut secret = Secret::new([0; 32]);
        entropy.fill(secret.expose_mut());
        Self { key: ProofKey::of(self.id, &secret), secret, ..self }
    }

    /// The row that waits for the token.
    pub fn to_row(&self, domain: Id, root: &RootKey, entropy: &dyn Entropy) -> TokenRow {
        let wrapped = root.wrap(self.key.0.expose(), &context(domain, self.id), entropy);
        TokenRow {
            hash: STANDARD.encode(wrapped),
            expires: self.expires,
            name: self.name.clone(),
            replaces: None,
            used: None,
        }
    }
}

impl ProofKey {
    fn of(id: Id, secret: &Secret<[u8; 32]>) -> Self {
        let hash = Sha256::new().chain_update(b"keyward join token 1").chain_update(id.0).chain_update(secret.expose());
        Self(Secret::new(hash.finalize().into()))
    }

    /// Reads the key from the row of the token `id`; `None` if the row is not whole, or not of this installation.
    pub fn of_row(row: &TokenRow, id: Id, domain: Id, root: &RootKey) -> Option<Self> {
        let wrapped = STANDARD.decode(&row.hash).ok()?;
        let key = root.unwrap(&wrapped, &context(domain, id)).ok()?;
        key.expose().as_slice().try_into().ok().map(|key| Self(Secret::new(key)))
    }

    /// Whether `proof` is the one for this session and message. Takes the same time whatever it is.
    pub fn accepts(&self, exporter: &[u8; 32], message: &[u8], proof: &[u8; 32]) -> bool {
        self.proof(exporter, message).ct_eq(proof).into()
    }

    fn proof(&self, exporter: &[u8; 32], message: &[u8]) -> [u8; 32] {
        // A key of 32 bytes fits any HMAC.
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(self.0.expose()) else { return [0; 32] };
        mac.chain_update(exporter).chain_update(message).finalize().into_bytes().into()
    }
}

/// Tells a line that was cut off or mistyped from one that the cluster does not know.
fn checksum(content: &[u8]) -> [u8; 4] {
    let digest = Sha256::digest(content);
    [digest[0], digest[1], digest[2], digest[3]]
}

fn context(domain: Id, token: Id) -> Vec<u8> {
    [&domain.0[..], b"join token", &token.0].concat()
}

#[cfg(test)]
mod tests {
    use keyward_model::SeededEntropy;
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken::draw(
            Id([1; 16]),
            [2; 32],
            vec!["10.0.0.1:8201".into(), "[::1]:8201".into()],
            Timestamp(1_800_000_000_000_000_000),
            Some("two".into()),
            &SeededEntropy::new(1),
        )
    }

    #[test]
    fn a_token_is_one_line_that_reads_back() {
        let token = token();
        let text = token.text().unwrap();
        assert!(text.expose().starts_with("kwj1.") && !text.expose().contains(char::is_whitespace));
        let again = JoinToken::parse(&format!("  {}\n", text.expose())).unwrap();
        assert_eq!((again.cluster, again.authority, again.id), (token.cluster, token.authority, token.id));
        assert_eq!((&again.addresses, again.expires, &again.name), (&token.addresses, token.expires, &token.name));
        assert_eq!(again.proof(&[3; 32], b"m"), token.proof(&[3; 32], b"m"));
        assert!(!format!("{again:?}").contains(&hex::encode(token.secret.expose())));
    }

    #[test]
    fn what_is_no_token_is_told_from_what_is_damaged() {
        assert_eq!(JoinToken::parse("hvs.abc").unwrap_err(), TokenError::Foreign);
        let text = token().text().unwrap();
        let text = text.expose();
        for length in PREFIX.len()..text.len() {
            assert_eq!(JoinToken::parse(&text[..length]).unwrap_err(), TokenError::Damaged);
        }
        let changed = text.replacen(char::from(text.as_bytes()[40]), "_", 1);
        assert_eq!(JoinToken::parse(&changed).unwrap_err(), TokenError::Damaged);
    }

    #[test]
    fn a_proof_is_for_one_session_one_message_and_one_token() {
        let entropy = SeededEntropy::new(2);
        let root = RootKey::generate(&entropy);
        let (domain, token) = (Id([9; 16]), token());
        let row = token.to_row(domain, &root, &entropy);
        let key = ProofKey::of_row(&row, token.id, domain, &root).unwrap();
        let proof = token.proof(&[3; 32], b"request");
        assert!(key.accepts(&[3; 32], b"request", &proof));
        assert!(!key.accepts(&[4; 32], b"request", &proof));
        assert!(!key.accepts(&[3; 32], b"another", &proof));
        assert!(!key.accepts(&[3; 32], b"request", &[0; 32]));
        assert!(ProofKey::of_row(&row, Id([8; 16]), domain, &root).is_none(), "a row of another token");
        assert!(ProofKey::of_row(&row, token.id, domain, &RootKey::generate(&entropy)).is_none());
        assert!(!row.hash.contains(&STANDARD.encode(token.secret.expose())));
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(text: String) {
            drop(JoinToken::parse(&text));
            drop(JoinToken::parse(&format!("{PREFIX}{text}")));
        }
    }
}
