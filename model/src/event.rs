//! What an audit record says: one request, refusal or change, in references only.
//!
//! The struct is closed (schema `keyward-audit/1`): what has no member here cannot reach the audit. There is no place for
//! a value, a token, a path or a key name; a resource is named by its keyed reference. An event borrows what it can, so
//! that making one for a read costs no allocation. The journal adds `stream`, `seq`, `prev`, `hash` and `node`.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::{Entropy, Timestamp};

/// One audit event, before it has a place in a stream. Members that do not apply are `None` and absent from the record.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Unique; consumers drop what they have seen. Written as `ae_…`.
    pub id: Ulid,
    /// The server's time.
    pub ts: Timestamp,
    /// What happened.
    pub event: EventKind,
    /// How it ended.
    pub outcome: EventOutcome,
    /// Error code, for `deny` and `error`.
    pub code: Option<&'static str>,
    /// Whose data it is.
    pub tenant_id: Option<Cow<'a, str>>,
    /// Who asked, once known.
    pub subject: Option<Subject<'a>>,
    /// How they proved it.
    pub auth: Option<Auth<'a>>,
    /// Where the request came from.
    pub source_ip: Option<IpAddr>,
    /// The request's id, as the answer tells it.
    pub request_id: Option<Cow<'a, str>>,
    /// What was asked: `read`, `write`, `list` …
    pub action: Option<&'static str>,
    /// Through which face: `vault`, `native`, `cli` …
    pub channel: Option<&'static str>,
    /// Keyed reference of the resource (`rr1.…`), never its path.
    pub resource_ref: Option<Cow<'a, str>>,
    /// Which provider keeps the resource: `keyward`.
    pub provider: Option<&'static str>,
    /// Which engine: `kv1`, `kv2`, `cubbyhole` …
    pub engine: Option<&'static str>,
    /// Version of the secret.
    pub kv_version: Option<u64>,
    /// The alias that named the version.
    pub alias: Option<Cow<'a, str>>,
    /// Status of the version.
    pub version_status: Option<&'static str>,
    /// What decided: `pdp`, `grant`, `guard` …
    pub decision_source: Option<&'static str>,
    /// How long it took, in microseconds.
    pub latency_us: Option<u64>,
    /// What kind of object an administrative change touched.
    pub change: Option<ObjectChange<'a>>,
    /// The log entry that carries the change, when it is replicated.
    pub replicated: Option<LogPlace>,
}

impl Event<'_> {
    /// An event with the members that every record has, and none of the others.
    pub const fn new(id: Ulid, ts: Timestamp, event: EventKind, outcome: EventOutcome) -> Self {
        Self {
            id,
            ts,
            event,
            outcome,
            code: None,
            tenant_id: None,
            subject: None,
            auth: None,
            source_ip: None,
            request_id: None,
            action: None,
            channel: None,
            resource_ref: None,
            provider: None,
            engine: None,
            kv_version: None,
            alias: None,
            version_status: None,
            decision_source: None,
            latency_us: None,
            change: None,
            replicated: None,
        }
    }
}

/// Who asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject<'a> {
    /// `token`, `user`, `workload`, `node` …
    pub kind: &'static str,
    /// A stable identifier that is no secret: an entity, an accessor's reference, a role.
    pub id: Cow<'a, str>,
}

/// How the subject proved itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Auth<'a> {
    /// `token`, `approle`, `dpop`, `mtls` …
    pub method: Cow<'a, str>,
    /// Whether a second factor was seen.
    pub mfa: bool,
    /// First 16 octets of the SHA-256 of the token's id: for an opaque token, of its accessor. Never of the token itself.
    pub token_jti_hash: Option<[u8; 16]>,
}

/// What an administrative change touched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectChange<'a> {
    /// The kind of object, and where it is no path its name: `mount`, `policy`, `keyring`, `token` …
    pub object: Cow<'a, str>,
}

/// A place in the replicated log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogPlace {
    /// Raft term.
    pub term: u64,
    /// Raft index.
    pub index: u64,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventOutcome {
    /// Done.
    Success,
    /// Refused by a decision.
    Deny,
    /// Failed.
    Error,
    /// About to be done: durable before the effect.
    Intent,
}

impl EventOutcome {
    /// The outcome's name in a record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Deny => "deny",
            Self::Error => "error",
            Self::Intent => "intent",
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What happened. The names are those of the audit schema; `TOKEN_…`, `WRAP_…` and `SYS_READ` are additions
        /// for operations that only Vault clients have. Policies and mounts are `SYS_CONFIG`, with `change` saying which.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum EventKind {
            $($(#[$doc])* $variant,)*
        }

        impl EventKind {
            /// Every kind, in reading order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The kind's name in a record.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// A login that succeeded.
    AuthSuccess = "AUTH_SUCCESS",
    /// A credential that was refused, or missing.
    AuthFailure = "AUTH_FAILURE",
    /// A one-time thing used twice.
    ReplayDetected = "REPLAY_DETECTED",
    /// A write came again with its caller's id, and was answered from what is remembered of it: nothing was changed.
    RequestRepeated = "REQUEST_REPEATED",
    /// A request across tenants.
    TenantViolation = "TENANT_VIOLATION",
    /// A request line, path or body that is not well formed.
    UriRejected = "URI_REJECTED",
    /// An effect on a secret is about to happen.
    SecretIntent = "SECRET_INTENT",
    /// A secret was read or used.
    SecretPermit = "SECRET_PERMIT",
    /// A read or use was refused.
    SecretDeny = "SECRET_DENY",
    /// A permitted operation on a secret failed.
    SecretError = "SECRET_ERROR",
    /// A secret came into being.
    SecretCreated = "SECRET_CREATED",
    /// A version was written.
    VersionCreated = "VERSION_CREATED",
    /// An alias points elsewhere.
    AliasMoved = "ALIAS_MOVED",
    /// A version changed its status.
    VersionStatusChanged = "VERSION_STATUS_CHANGED",
    /// A secret or version was deleted (soft).
    SecretDeleted = "SECRET_DELETED",
    /// A soft deletion was undone.
    SecretUndeleted = "SECRET_UNDELETED",
    /// A version's key material is gone.
    VersionDestroyed = "VERSION_DESTROYED",
    /// Metadata was read.
    MetadataRead = "METADATA_READ",
    /// Metadata was changed.
    MetadataChanged = "METADATA_CHANGED",
    /// Names were listed.
    Listed = "LISTED",
    /// A token was issued.
    TokenIssued = "TOKEN_ISSUED",
    /// A token's properties were looked up.
    TokenRead = "TOKEN_READ",
    /// A token's life was prolonged.
    TokenRenewed = "TOKEN_RENEWED",
    /// A token was revoked, with its children.
    TokenRevoked = "TOKEN_REVOKED",
    /// A response was wrapped.
    WrapIssued = "WRAP_ISSUED",
    /// A wrapping token was looked up.
    WrapRead = "WRAP_READ",
    /// A wrapped response was taken out.
    WrapConsumed = "WRAP_CONSUMED",
    /// An intent without an outcome was closed at start.
    AuditGap = "AUDIT_GAP",
    /// A signed statement about the stream so far.
    AuditCheckpoint = "AUDIT_CHECKPOINT",
    /// The node started.
    SysStart = "SYS_START",
    /// The node was sealed.
    SysSeal = "SYS_SEAL",
    /// The node was unsealed, or a share was given.
    SysUnseal = "SYS_UNSEAL",
    /// Mounts, policies, keyring or settings were changed; `change` says which.
    SysConfig = "SYS_CONFIG",
    /// Mounts, policies, keyring, status or settings were read.
    SysRead = "SYS_READ",
    /// Leadership changed.
    SysLeader = "SYS_LEADER",
}

/// A ULID: 48 bits of milliseconds since 1970, then 80 random bits. Its text sorts by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ulid(pub u128);

impl Ulid {
    /// A fresh ULID for the moment `at`; moments before 1970 count as 1970.
    pub fn new(at: Timestamp, entropy: &dyn Entropy) -> Self {
        let mut random = [0; 10];
        entropy.fill(&mut random);
        Self::from_parts(at, random)
    }

    /// The ULID of the moment `at` with these 80 bits.
    pub fn from_parts(at: Timestamp, random: [u8; 10]) -> Self {
        let millis = u64::try_from(at.0 / 1_000_000).unwrap_or(0);
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        Self(u128::from_be_bytes(bytes))
    }

    /// The 26 characters of Crockford's base 32.
    pub fn text(self) -> [u8; 26] {
        let mut out = [0; 26];
        let mut rest = self.0;
        for c in out.iter_mut().rev() {
            *c = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[(rest & 31) as usize];
            rest >>= 5;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::SeededEntropy;

    #[test]
    fn a_ulid_is_its_time_and_its_chance() {
        // The ULID specification's example moment.
        let ulid = Ulid::from_parts(Timestamp(1_469_918_176_385_000_000), [0xff; 10]);
        assert_eq!(ulid.text(), *b"01ARYZ6S41ZZZZZZZZZZZZZZZZ");
        assert_eq!(Ulid(0).text(), [b'0'; 26]);
        let entropy = SeededEntropy::new(1);
        let at = Timestamp(1_700_000_000_000_000_000);
        let (a, b) = (Ulid::new(at, &entropy), Ulid::new(at, &entropy));
        assert_ne!(a, b);
        assert_eq!(a.text()[..10], b.text()[..10]);
        assert!(a < Ulid::new(at.plus_seconds(1), &entropy));
    }

    #[test]
    fn kinds_have_distinct_plain_names() {
        let names: BTreeSet<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), EventKind::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')));
    }
}
