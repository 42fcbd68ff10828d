//! The cluster in the replicated state: its node authority, its members, and the join tokens that wait for a node.
//!
//! Rows of [`Table::Config`], in JSON. They are readable while sealed, since a node has to know its peers before anybody
//! unsealed it; what must stay secret in them is wrapped by the root key.

use keyward_model::{Id, Table, Timestamp};
use keyward_storage::Reader;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::barrier::{Columns, Draft, storage};
use crate::refusal::Refusal;

/// The row of the node authority.
const AUTHORITY: &[u8] = b"cluster/ca";
/// Rows of members: the prefix, then the node's number in 16 hex digits.
const NODE: &str = "cluster/node/";
/// Rows of those who were members, in the same way: their numbers never come back.
const GONE: &str = "cluster/gone/";
/// Rows of join tokens: the prefix, then the token's id in hex.
const JOIN: &str = "cluster/join/";

/// Members that a cluster can have: a majority of more costs more than it gives.
pub const MEMBERS_MAX: usize = 9;
/// Rows of members that there can be: each of them may be about to be replaced.
const ROWS_MAX: usize = 2 * MEMBERS_MAX;
/// Join tokens that can wait at once.
pub const TOKENS_MAX: usize = 64;

/// The certificate authority of the nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuthorityRow {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its private key (PKCS #8), wrapped by the root key, in base64.
    pub key: String,
    /// The one that takes its place once every member trusts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Box<AuthorityRow>>,
    /// The certificate of the one before, PEM: trusted until every member has a certificate of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// A node that is to be a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// The node's id.
    #[serde(with = "uuid")]
    pub node: Id,
    /// What people call it.
    pub name: String,
    /// How many times it was started.
    pub incarnation: u64,
    /// What the start drew that got this incarnation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Host and port where other nodes reach it.
    pub node_address: String,
    /// URL where clients reach it.
    pub api_address: String,
    /// When it joined.
    pub joined: Timestamp,
    /// When its certificate ends.
    pub certificate_until: Timestamp,
    /// The number of the member whose place it takes, until it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u64>,
    /// The hash of what it asked for its certificate with, in hex, until it was first heard of: until then it may ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The hashes, in hex, of the authorities that it trusts, as it said last; first the one that signed the certificate that
    /// it had then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusts: Vec<String>,
}

impl NodeRow {
    /// The incarnation of a node that says it has `incarnation`, after the next one was given to `start` if it has none yet;
    /// `before` are starts of it that did not hear theirs. `None`: another process has a later one, so whatever asks is a copy
    /// of it, or was put back to an older state.
    pub fn incarnation_for(&self, incarnation: u64, start: Option<&str>, before: &[String]) -> Option<u64> {
        let holder = self.start.as_ref();
        if start.is_some() && holder.map(String::as_str) == start {
            return Some(self.incarnation); // it did not hear the answer
        }
        let is_next = incarnation == self.incarnation || holder.is_some_and(|holder| before.contains(holder));
        match start {
            Some(_) if is_next => Some(self.incarnation + 1),
            None if incarnation == self.incarnation => Some(incarnation),
            _ => None,
        }
    }

    /// Until when the node may come up, if it was let in and not heard of yet; `arrive_s` is how long it may take.
    pub fn awaited_until(&self, arrive_s: u64) -> Option<Timestamp> {
        let patience_s = i64::try_from(arrive_s).unwrap_or(i64::MAX);
        self.request.is_some().then(|| self.joined.plus_seconds(patience_s))
    }

    /// Whether it never came up, and it is too late now.
    pub fn is_overdue(&self, now: Timestamp, arrive_s: u64) -> bool {
        self.awaited_until(arrive_s).is_some_and(|until| until <= now)
    }
}

/// A node that was a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct GoneRow {
    /// When it was removed.
    removed: Timestamp,
}

/// A join token that waits for its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The hash of its secret, wrapped by the root key, in base64: whoever reads the state cannot join with it.
    pub hash: String,
    /// When it ends.
    pub expires: Timestamp,
    /// The name of the node that it is for; `None` for any.
    pub name: Option<String>,
    /// The number of the member whose place the node takes; `None` for one more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u64>,
    /// The number of the node that it let in. The row stays until the token ends, since the answer may have got lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

/// Reads the row of the node authority.
///
/// # Errors
/// It cannot be read.
pub fn authority(reader: &Reader) -> Result<Option<AuthorityRow>, Refusal> {
    read(reader, AUTHORITY)
}

/// Reads the row of one member.
///
/// # Errors
/// It cannot be read.
pub fn node(reader: &Reader, number: u64) -> Result<Option<NodeRow>, Refusal> {
    read(reader, &node_key(number))
}

/// Reads the rows of all members, by number.
///
/// # Errors
/// One cannot be read.
pub fn nodes(reader: &Reader) -> Result<Vec<(u64, NodeRow)>, Refusal> {
    let rows = reader.children(Table::Config, NODE.as_bytes(), None, ROWS_MAX).map_err(storage)?;
    rows.iter().map(|row| Ok((number_of(&row.key)?, decode(&row.body)?))).collect()
}

/// Whether the node of this number was a member and was removed.
///
/// # Errors
/// The row cannot be read.
pub fn is_gone(reader: &Reader, number: u64) -> Result<bool, Refusal> {
    Ok(reader.row(Table::Config, &gone_key(number)).map_err(storage)?.is_some())
}

/// Reads the row of one join token.
///
/// # Errors
/// It cannot be read.
pub fn token(reader: &Reader, id: Id) -> Result<Option<TokenRow>, Refusal> {
    read(reader, &token_key(id))
}

/// Ids of the join tokens whose time is up.
///
/// # Errors
/// A row cannot be read.
pub fn expired_tokens(reader: &Reader, now: Timestamp) -> Result<Vec<Vec<u8>>, Refusal> {
    let rows = reader.children(Table::Config, JOIN.as_bytes(), None, TOKENS_MAX).map_err(storage)?;
    let mut expired = Vec::new();
    for row in rows {
        if decode::<TokenRow>(&row.body)?.expires <= now {
            expired.push(row.key);
        }
    }
    Ok(expired)
}

/// The key of a member's row.
pub fn node_key(number: u64) -> Vec<u8> {
    format!("{NODE}{number:016x}").into_bytes()
}

fn gone_key(number: u64) -> Vec<u8> {
    format!("{GONE}{number:016x}").into_bytes()
}

/// The key of a join token's row.
pub fn token_key(id: Id) -> Vec<u8> {
    format!("{JOIN}{}", hex::encode(id.0)).into_bytes()
}

/// The member's row as all commands before this one leave it.
///
/// # Errors
/// It cannot be read.
pub fn draft_node(draft: &mut Draft<'_>, number: u64) -> Result<Option<NodeRow>, Refusal> {
    get(draft, &node_key(number))
}

/// The token's row as all commands before this one leave it.
///
/// # Errors
/// It cannot be read.
pub fn draft_token(draft: &mut Draft<'_>, id: Id) -> Result<Option<TokenRow>, Refusal> {
    get(draft, &token_key(id))
}

/// The row of the node authority as all commands before this one leave it.
///
/// # Errors
/// It cannot be read.
pub fn draft_authority(draft: &mut Draft<'_>) -> Result<Option<AuthorityRow>, Refusal> {
    get(draft, AUTHORITY)
}

/// The members that are reached at `address`, by number, as all commands before this one leave them: one, or one that is
/// replaced and the one that replaces it.
///
/// # Errors
/// A row cannot be read.
pub fn draft_at(draft: &mut Draft<'_>, address: &str) -> Result<Vec<(u64, NodeRow)>, Refusal> {
    let mut rows = draft_nodes(draft)?;
    rows.retain(|(_, row)| row.node_address == address);
    Ok(rows)
}

/// The rows of all members, by number, as all commands before this one leave them.
///
/// # Errors
/// A row cannot be read.
pub fn draft_nodes(draft: &mut Draft<'_>) -> Result<Vec<(u64, NodeRow)>, Refusal> {
    let mut rows = Vec::new();
    for key in draft.keys_below(Table::Config, NODE.as_bytes(), None, ROWS_MAX)? {
        if let Some(row) = get(draft, &key)? {
            rows.push((number_of(&key)?, row));
        }
    }
    Ok(rows)
}

/// How many join tokens wait as all commands before this one leave them.
///
/// # Errors
/// They cannot be read.
pub fn draft_tokens(draft: &mut Draft<'_>) -> Result<usize, Refusal> {
    Ok(draft.keys_below(Table::Config, JOIN.as_bytes(), None, TOKENS_MAX)?.len())
}

/// Puts a member's row in place.
///
/// # Errors
/// Its predecessor cannot be read.
pub fn put_node(draft: &mut Draft<'_>, number: u64, row: &NodeRow) -> Result<(), Refusal> {
    put(draft, &node_key(number), row)
}

/// Removes a member's row, for good. False if there is none.
///
/// # Errors
/// A row cannot be read.
pub fn remove_node(draft: &mut Draft<'_>, number: u64) -> Result<bool, Refusal> {
    if !draft.exists(Table::Config, &node_key(number))? {
        return Ok(false);
    }
    draft.remove(Table::Config, &node_key(number))?;
    let gone = GoneRow { removed: draft.now() };
    put(draft, &gone_key(number), &gone)?;
    Ok(true)
}

/// Whether the node of this number was removed, as all commands before this one leave it.
///
/// # Errors
/// The row cannot be read.
pub fn draft_is_gone(draft: &mut Draft<'_>, number: u64) -> Result<bool, Refusal> {
    draft.exists(Table::Config, &gone_key(number))
}

/// Puts a join token's row in place.
///
/// # Errors
/// Its predecessor cannot be read.
pub fn put_token(draft: &mut Draft<'_>, id: Id, row: &TokenRow) -> Result<(), Refusal> {
    put(draft, &token_key(id), row)
}

/// Puts the row of the node authority in place.
///
/// # Errors
/// Its predecessor cannot be read.
pub fn put_authority(draft: &mut Draft<'_>, row: &AuthorityRow) -> Result<(), Refusal> {
    put(draft, AUTHORITY, row)
}

/// Removes the row of the node authority: the next one that is needed is a new one.
///
/// # Errors
/// It cannot be read.
pub fn remove_authority(draft: &mut Draft<'_>) -> Result<(), Refusal> {
    if draft.exists(Table::Config, AUTHORITY)? { draft.remove(Table::Config, AUTHORITY) } else { Ok(()) }
}

/// Removes the rows of all join tokens.
///
/// # Errors
/// One cannot be read.
pub fn remove_tokens(draft: &mut Draft<'_>) -> Result<(), Refusal> {
    let keys = draft.keys_below(Table::Config, JOIN.as_bytes(), None, TOKENS_MAX)?;
    keys.iter().try_for_each(|key| draft.remove(Table::Config, key))
}

fn read<T: DeserializeOwned>(reader: &Reader, key: &[u8]) -> Result<Option<T>, Refusal> {
    reader.row(Table::Config, key).map_err(storage)?.map(|row| decode(&row.body)).transpose()
}

fn get<T: DeserializeOwned>(draft: &mut Draft<'_>, key: &[u8]) -> Result<Option<T>, Refusal> {
    draft.get(Table::Config, key)?.map(|opened| decode(opened.body.expose())).transpose()
}

fn put(draft: &mut Draft<'_>, key: &[u8], row: &impl Serialize) -> Result<(), Refusal> {
    let body = serde_json::to_vec(row).map_err(|error| Refusal::internal(error.to_string()))?;
    draft.put(Table::Config, key, Columns::default(), &body)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::internal(format!("a row of the cluster: {error}")))
}

fn number_of(key: &[u8]) -> Result<u64, Refusal> {
    let digits = key.get(NODE.len()..).and_then(|digits| std::str::from_utf8(digits).ok());
    digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| Refusal::internal("the row of a member has no number in its key"))
}

/// An id as a UUID text.
pub(in crate::cluster) mod uuid {
    use keyward_model::Id;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::cluster) fn serialize<S: Serializer>(id: &Id, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&id.to_uuid())
    }

    pub(in crate::cluster) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        Id::from_uuid(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("not an id"))
    }
}

#[cfg(test)]
impl NodeRow {
    /// A member for tests.
    pub(crate) fn sample(number: u8, address: &str) -> Self {
        Self {
            node: Id([number; 16]),
            name: "n".into(),
            incarnation: 1,
            start: None,
            node_address: address.into(),
            api_address: String::new(),
            joined: Timestamp(0),
            certificate_until: Timestamp(0),
            replaces: None,
            request: None,
            trusts: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_say_they_are_one_node_the_later_start_is_it() {
        let mut row = NodeRow { incarnation: 5, start: Some("e".into()), ..NodeRow::sample(1, "h:1") };
        assert_eq!(row.incarnation_for(5, None, &[]), Some(5), "it has it, and renews");
        assert_eq!(row.incarnation_for(5, Some("f"), &[]), Some(6), "the next start");
        (row.incarnation, row.start) = (6, Some("f".into()));
        assert_eq!(row.incarnation_for(5, Some("f"), &[]), Some(6), "the answer was lost");
        assert_eq!(row.incarnation_for(5, Some("g"), &["f".into()]), Some(7), "and so was the process");
        assert_eq!(row.incarnation_for(5, Some("h"), &[]), None, "a copy from before, or an older state");
        assert_eq!(row.incarnation_for(5, None, &[]), None, "whose place was taken");
        assert_eq!(row.incarnation_for(9, Some("h"), &[]), None, "one that knows more than there is");
    }
}
