//! ACL policies: kept sealed by name, compiled per token.

use std::collections::HashMap;
use std::sync::Arc;

use keyward_crypto::Keyring;
use keyward_model::{Id, Table, Timestamp};
use keyward_policy::{Acl, Policy, Subject};
use keyward_storage::Reader;
use serde::{Deserialize, Serialize};

use crate::barrier::{open, storage};
use crate::refusal::Refusal;

/// The folder id under which policy names are sealed.
pub const NAMES: Id = Id(*b"acl-policy-names");

/// A policy as kept in its row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stored {
    /// Name in lower case.
    pub name: String,
    /// Text as given.
    pub text: String,
    /// When it was last written.
    pub modified: Timestamp,
    /// Grows with every write.
    pub version: u64,
}

/// The row key of a policy.
pub fn key_of(keyring: &Keyring, name: &str) -> Vec<u8> {
    keyring.names().key(NAMES, name.as_bytes())
}

/// Reads one policy's row.
///
/// # Errors
/// [`Refusal::Internal`] if the body is not a policy.
pub fn decode(body: &[u8]) -> Result<Stored, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::damaged("policy row", error))
}

/// Reads, opens and parses all policies. One that no longer parses grants nothing, and is logged.
///
/// # Errors
/// A row cannot be read or does not open.
pub fn load(keyring: &Keyring, reader: &Reader) -> Result<HashMap<String, Arc<Policy>>, Refusal> {
    let mut out = HashMap::new();
    for row in reader.children(Table::Policies, &NAMES.0, None, usize::MAX).map_err(storage)? {
        let stored = decode(open(keyring, Table::Policies, row)?.body.expose())?;
        match keyward_policy::parse(&stored.text) {
            Ok(policy) => drop(out.insert(stored.name, Arc::new(policy))),
            Err(error) => {
                tracing::error!(policy = %stored.name, error = %error, "a stored policy does not parse: it grants nothing");
            }
        }
    }
    Ok(out)
}

/// Compiles the policies that a token carries. Names without a policy grant nothing.
pub fn compile(policies: &HashMap<String, Arc<Policy>>, names: &[String], now: Timestamp) -> Acl {
    if names.iter().any(|name| name == "root") {
        return Acl::root();
    }
    let mut held: Vec<Arc<Policy>> = names.iter().filter_map(|name| policies.get(name)).cloned().collect();
    if names.iter().any(|name| name == "response-wrapping")
        && let Ok(policy) = keyward_policy::parse(keyward_policy::RESPONSE_WRAPPING_POLICY)
    {
        held.push(Arc::new(policy));
    }
    Acl::new(&held, now, &Subject::default())
}
