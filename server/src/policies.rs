//! ACL policies: kept sealed by name, compiled per token.

use std::collections::HashMap;
use std::sync::Arc;

use keyward_crypto::Keyring;
use keyward_model::{Id, Table, Timestamp};
use keyward_policy::{Acl, Policy, Subject};
use keyward_storage::Reader;
use serde::{Deserialize, Serialize};

use crate::barrier::{Columns, Draft, open, storage};
use crate::keys::Keys;
use crate::refusal::Refusal;

/// The folder id under which policy names are sealed.
pub const NAMES: Id = Id(*b"acl-policy-names");

/// A policy as kept in its row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Name in lower case.
    pub name: String,
    /// Text as given.
    pub text: String,
    /// When it was last written.
    pub modified: Timestamp,
    /// Grows with every write.
    pub version: u64,
    /// Whether a write has named the version that it replaced: somebody has to see versions.
    #[serde(default)]
    pub versioned: bool,
    /// Whether a write must name the version that it replaces.
    #[serde(default)]
    pub cas_required: bool,
    /// After this moment it is as if the policy did not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Whether a value put into a path template may hold `*` and `+`.
    #[serde(default)]
    pub allow_wildcards_in_templates: bool,
    /// Whether a value put into a path template may hold `/`.
    #[serde(default)]
    pub allow_slashes_in_templates: bool,
}

impl Stored {
    /// The first version of a policy that says only its text.
    pub fn new(name: &str, text: String, now: Timestamp) -> Self {
        Self {
            name: name.to_owned(),
            text,
            modified: now,
            version: 1,
            versioned: false,
            cas_required: false,
            expires: None,
            allow_wildcards_in_templates: false,
            allow_slashes_in_templates: false,
        }
    }

    /// Whether it is a name and a text to who wrote it, and nothing more.
    pub fn is_plain(&self) -> bool {
        let allows = self.allow_wildcards_in_templates || self.allow_slashes_in_templates;
        !(self.versioned || self.cas_required || self.expires.is_some() || allows)
    }

    /// Whether its end has come.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| now > at)
    }

    /// What it says. A text that no longer parses is unreadable: its rules cannot be told, and denials may be among them.
    fn parse(&self) -> Policy {
        let policy = keyward_policy::parse(&self.text).unwrap_or_else(|error| {
            let policy = &self.name;
            tracing::error!(%policy, %error, "a stored policy does not parse: whoever holds it has no rights");
            Policy { unreadable: true, ..Policy::default() }
        });
        let Self { expires, allow_wildcards_in_templates, allow_slashes_in_templates, .. } = *self;
        Policy { expires, allow_wildcards_in_templates, allow_slashes_in_templates, ..policy }
    }
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

/// The policy of this name, as all commands before this one leave it; `None` also where its end has come.
///
/// # Errors
/// The row cannot be read.
pub fn get(draft: &mut Draft<'_>, name: &str) -> Result<Option<Stored>, Refusal> {
    let key = key_of(draft.keyring(), name);
    let stored = draft.get(Table::Policies, &key)?.map(|opened| decode(opened.body.expose())).transpose()?;
    Ok(stored.filter(|stored| !stored.is_expired(draft.now())))
}

/// Puts a policy in place.
///
/// # Errors
/// The row cannot be read.
pub fn put(draft: &mut Draft<'_>, stored: &Stored) -> Result<(), Refusal> {
    let key = key_of(draft.keyring(), &stored.name);
    let body = serde_json::to_vec(stored).map_err(|error| Refusal::internal(error.to_string()))?;
    let columns = Columns { due: stored.expires.map(|at| at.0), ..Columns::default() };
    draft.put(Table::Policies, &key, columns, &body)
}

/// Reads, opens and parses all policies. One that no longer parses is unreadable, and is logged.
///
/// # Errors
/// A row cannot be read or does not open.
pub fn load(keyring: &Keyring, reader: &Reader) -> Result<HashMap<String, Arc<Policy>>, Refusal> {
    let mut out = HashMap::new();
    for row in reader.children(Table::Policies, &NAMES.0, None, usize::MAX).map_err(storage)? {
        let stored = decode(open(keyring, Table::Policies, &row)?.body.expose())?;
        let policy = Arc::new(stored.parse());
        out.insert(stored.name, policy);
    }
    Ok(out)
}

/// The first moment at which one of `policies` ends, also where that has passed.
pub fn first_end(policies: &HashMap<String, Arc<Policy>>) -> Option<Timestamp> {
    policies.values().filter_map(|policy| policy.expires).min()
}

/// How the audit names a policy.
pub fn reference(keys: &Keys, name: &str) -> String {
    keys.references.resource_ref(&format!("keyward+policy://{name}"))
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
