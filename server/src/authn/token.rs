//! Tokens: who is calling. Kept by the keyed hash of the token, never by the token.

pub mod ttl;

pub mod issue;

mod revoke;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use arc_swap::ArcSwapOption;
use keyward_crypto::Keyring;
use keyward_model::{Entropy, Id, Secret, Table, Timestamp};
use keyward_policy::Acl;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::barrier::{Columns, Draft, Opened};
use crate::refusal::Refusal;

pub use revoke::{adopt, revoke_one, revoke_some, revoke_tree};

/// Length of the random part of a token, an accessor and a lease id.
const RANDOM_CHARS: usize = 24;

/// Most tokens that are kept opened.
const CACHE_TOKENS_MAX: usize = 65_536;

/// Service or batch, as `token_type` says it. Batch tokens are not stored, hence not here yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// Stored, renewable, revocable.
    Service,
    /// A response-wrapping token: one use, one purpose.
    Wrapping,
}

/// What is known of a token, as kept sealed in its row. The token itself is not in it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Token {
    /// What it may be called by without being given away.
    pub accessor: String,
    /// Kind.
    pub kind: TokenKind,
    /// Policies, sorted.
    pub policies: Vec<String>,
    /// Path that made it.
    pub path: String,
    /// Shown in logs and look-ups.
    pub display_name: String,
    /// Free text for people.
    pub meta: Option<BTreeMap<String, String>>,
    /// Whether it has no parent.
    pub orphan: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When its lease began; `None` for the root token of init, which has no lease.
    pub issued: Option<Timestamp>,
    /// Last renewal.
    pub renewed: Option<Timestamp>,
    /// Seconds it was made for.
    pub creation_ttl_s: i64,
    /// Seconds it was last set to.
    pub ttl_s: i64,
    /// When it ends; `None` = never.
    pub expires: Option<Timestamp>,
    /// Seconds from `issued` that it can never outlive; 0 = none.
    pub explicit_max_ttl_s: i64,
    /// Seconds of each renewal of a periodic token; 0 = not periodic.
    pub period_s: i64,
    /// Uses left; 0 = unlimited.
    pub uses: i64,
    /// Uses that it was made with; 0 also in rows from before this was kept.
    #[serde(default)]
    pub uses_made: i64,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Id of the entries that only this token sees.
    pub cubbyhole: Id,
}

impl Token {
    /// A token made at `now` that lives for ever, has no parent and no bounds, and cannot be renewed; what is otherwise is
    /// set on it. Accessor and cubbyhole are drawn.
    pub fn new(kind: TokenKind, path: &str, policies: Vec<String>, now: Timestamp, entropy: &dyn Entropy) -> Self {
        Self {
            accessor: fresh_accessor(entropy),
            kind,
            policies,
            path: path.to_owned(),
            display_name: "token".to_owned(),
            meta: None,
            orphan: true,
            created: now,
            issued: None,
            renewed: None,
            creation_ttl_s: 0,
            ttl_s: 0,
            expires: None,
            explicit_max_ttl_s: 0,
            period_s: 0,
            uses: 0,
            uses_made: 0,
            renewable: false,
            cubbyhole: Id::random(entropy),
        }
    }

    /// When a token ended that was revoked and still has its row: before every moment, since the stamp of the revocation may
    /// lie ahead of the clock that the token is judged by.
    pub const REVOKED: Timestamp = Timestamp(0);

    /// Whether it carries the root policy.
    pub fn is_root(&self) -> bool {
        self.policies.iter().any(|policy| policy == "root")
    }

    /// Whether it has ended.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }

    /// Seconds left, by the rule of Vault: end minus now rounded to seconds, truncated; 0 for no end.
    pub fn ttl_left_s(&self, now: Timestamp) -> i64 {
        self.expires.map_or(0, |end| {
            let rounded = now.rounded_to_second();
            ((end.0 - rounded.0) / 1_000_000_000).max(0)
        })
    }
}

/// A token in use: its facts, its key, and its compiled policies.
#[derive(Debug)]
pub struct Session {
    /// Row key: keyed hash of the token.
    pub key: [u8; 32],
    /// The facts.
    pub token: Token,
    /// Key of the parent's row, empty for none.
    pub parent: Vec<u8>,
    /// Compiled policies, with the generation of the policies they were compiled from.
    pub acl: ArcSwapOption<(u64, Acl)>,
    /// How records name it: the first half of the SHA-256 of its accessor, also as hex.
    pub name: Arc<SessionName>,
    /// Until when its ancestors live (`None`: for ever), with the generation of the tokens that this was found in.
    pub family: ArcSwapOption<(u64, Option<Timestamp>)>,
}

/// How records name a token: never by itself, but by its accessor.
#[derive(Debug)]
pub struct SessionName {
    /// The first half of the SHA-256 of the accessor.
    pub hash: [u8; 16],
    /// The same in hex.
    pub hex: String,
}

impl SessionName {
    fn of(accessor: &str) -> Self {
        let digest = Sha256::digest(accessor.as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self { hash, hex: hex::encode(hash) }
    }
}

impl Session {
    /// A token in use, just opened.
    pub fn new(key: [u8; 32], token: Token, parent: Vec<u8>) -> Self {
        let name = Arc::new(SessionName::of(&token.accessor));
        Self { key, token, parent, acl: ArcSwapOption::empty(), name, family: ArcSwapOption::empty() }
    }
}

/// Opened tokens by key. Entries leave when their row changes.
#[derive(Debug, Default)]
pub struct Sessions(RwLock<Cache>);

#[derive(Debug, Default)]
struct Cache {
    by_key: HashMap<[u8; 32], Arc<Session>, BuildPrefix>,
    /// Grows with every change of any token: an entry read before is not put in after.
    generation: u64,
}

impl Sessions {
    /// The opened token, if it is kept, and the generation of tokens: to be handed to [`Sessions::put`] with a token
    /// whose row is read after this.
    pub fn get(&self, key: &[u8; 32]) -> (Option<Arc<Session>>, u64) {
        let cache = self.read();
        (cache.by_key.get(key).cloned(), cache.generation)
    }

    /// Keeps an opened token, unless tokens changed since `generation`.
    pub fn put(&self, session: Arc<Session>, generation: u64) {
        let mut cache = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if cache.generation == generation {
            if cache.by_key.len() >= CACHE_TOKENS_MAX {
                cache.by_key.clear();
            }
            cache.by_key.insert(session.key, session);
        }
    }

    /// Drops the copies of these tokens.
    pub fn forget<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut cache = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for key in keys {
            cache.generation += 1;
            if let Ok(key) = <[u8; 32]>::try_from(key) {
                cache.by_key.remove(&key);
            }
        }
    }

    /// Drops all copies.
    pub fn clear(&self) {
        let mut cache = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        cache.generation += 1;
        cache.by_key.clear();
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Cache> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The keys are keyed hashes already: their first bytes are the hash.
#[derive(Debug, Default, Clone)]
struct BuildPrefix;

impl std::hash::BuildHasher for BuildPrefix {
    type Hasher = Prefix;

    fn build_hasher(&self) -> Prefix {
        Prefix(0)
    }
}

struct Prefix(u64);

impl std::hash::Hasher for Prefix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {} // the length prefix of the array
}

/// Reads a token's row.
///
/// # Errors
/// [`Refusal::Internal`] if the body is not a token.
pub fn decode(opened: &Opened) -> Result<Token, Refusal> {
    serde_json::from_slice(opened.body.expose()).map_err(|error| Refusal::damaged("token row", error))
}

/// Writes a token's row, and its accessor's if the token is new.
///
/// # Errors
/// A row cannot be read.
pub fn put(draft: &mut Draft<'_>, key: &[u8; 32], token: &Token, parent: &[u8]) -> Result<(), Refusal> {
    let body = serde_json::to_vec(token).map_err(|error| Refusal::internal(format!("token: {error}")))?;
    let columns = Columns { group: parent.to_vec(), due: token.expires.map(|end| end.0), head: None };
    draft.put(Table::Tokens, key, columns, &body)?;
    let accessor = draft.keyring().accessor_hash(token.accessor.as_bytes());
    if !draft.exists(Table::Accessors, &accessor)? {
        draft.put(Table::Accessors, &accessor, Columns::default(), key)?;
    }
    Ok(())
}

/// The newest state of a token, within a decision.
///
/// # Errors
/// A row cannot be read.
pub fn get(draft: &mut Draft<'_>, key: &[u8]) -> Result<Option<(Token, Vec<u8>)>, Refusal> {
    draft.get(Table::Tokens, key)?.map(|opened| Ok((decode(&opened)?, opened.group))).transpose()
}

/// The row key of a token.
pub fn key_of(keyring: &Keyring, token: &str) -> [u8; 32] {
    keyring.token_hash(token.as_bytes())
}

/// A fresh service token: `s.` and 24 characters of base 62 (142 bits).
pub fn fresh(entropy: &dyn Entropy) -> Secret<String> {
    let mut text = String::from("s.");
    push_random(&mut text, entropy);
    Secret::new(text)
}

/// A fresh accessor: 24 characters of base 62.
pub fn fresh_accessor(entropy: &dyn Entropy) -> String {
    let mut text = String::new();
    push_random(&mut text, entropy);
    text
}

/// Appends 24 characters of base 62, each equally likely.
fn push_random(text: &mut String, entropy: &dyn Entropy) {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut left = RANDOM_CHARS;
    while left > 0 {
        let mut bytes = [0u8; 32];
        entropy.fill(&mut bytes);
        // 248 = 4 × 62: bytes above would favour the first letters.
        for byte in bytes.iter().filter(|byte| **byte < 248) {
            if left == 0 {
                break;
            }
            text.push(char::from(ALPHABET[usize::from(byte % 62)]));
            left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use keyward_model::SeededEntropy;

    use super::*;

    #[test]
    fn tokens_have_vaults_shape() {
        let entropy = SeededEntropy::new(1);
        let token = fresh(&entropy);
        assert_eq!(token.expose().len(), 26);
        assert!(token.expose().starts_with("s."));
        assert!(token.expose()[2..].bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(fresh(&entropy).expose(), token.expose());
        assert_eq!(fresh_accessor(&entropy).len(), 24);
    }
}
