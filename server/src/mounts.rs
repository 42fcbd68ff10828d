//! Mounts: where in the tree of paths which engine or auth method answers.

use std::collections::BTreeMap;

use keyward_crypto::Keyring;
use keyward_model::{Id, Table};
use keyward_storage::Reader;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::barrier::{open, storage};
use crate::refusal::Refusal;

/// Default and longest lease of the system, in seconds: 768 hours.
pub const SYSTEM_LEASE_S: i64 = 2_764_800;

/// Moves of one mount that are remembered: who moved it asks what became of that, of whichever node.
pub const MOVES_MAX: usize = 8;

/// What answers below a mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// KV version 1, under the type name `kv`.
    Kv1,
    /// KV version 2.
    Kv2,
    /// KV version 1 under its old name `generic`.
    Generic,
    /// Private entries of one token.
    Cubbyhole,
    /// The system's own paths.
    System,
    /// The token store.
    Token,
}

/// One mount, as kept sealed in its row.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// Never reused; stays when the mount moves.
    pub id: Id,
    /// Where it stands, with a trailing slash; auth methods begin with `auth/`.
    pub path: String,
    /// What answers.
    pub kind: Kind,
    /// For people.
    pub description: String,
    /// `kv_1a2b3c4d`.
    pub accessor: String,
    /// Options as given, as text. `None` is shown as null.
    pub options: Option<BTreeMap<String, String>>,
    /// Seconds; 0 = the system's.
    pub default_lease_s: i64,
    /// Seconds; 0 = the system's.
    pub max_lease_s: i64,
    /// `force_no_cache`, kept and shown.
    pub force_no_cache: bool,
    /// `hidden`, `unauth` or empty.
    pub listing_visibility: String,
    /// Replicated setups only; kept and shown.
    pub local: bool,
    /// Kept and shown.
    pub seal_wrap: bool,
    /// Kept and shown.
    pub external_entropy_access: bool,
    /// Lists of the configuration that are kept and shown: name → values.
    #[serde(default)]
    pub lists: BTreeMap<String, Vec<String>>,
    /// Auth methods: `default-service` and so on.
    #[serde(default)]
    pub token_type: Option<String>,
    /// KV v2: the mount's configuration, as the engine encodes it.
    #[serde(default)]
    pub kv: Option<crate::engine::kv::KvConfig>,
    /// Why it is not served for now.
    #[serde(default)]
    pub closed: Option<Closed>,
    /// Its newest moves, the last one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Move>,
}

/// A move of a mount. It is done with the command that remembers it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// What the mover was told to ask by.
    pub id: Id,
    /// Where it stood.
    pub from: String,
    /// Where it was moved to.
    pub to: String,
}

/// Why a mount is closed. Until that is done it answers nothing, and stays closed across restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closed {
    /// Its entries become versions: from KV v1 to v2.
    Raising,
    /// It is emptied, then removed.
    Removing,
}

impl Mount {
    /// The type name as the API shows it.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Kv1 | Kind::Kv2 => "kv",
            Kind::Generic => "generic",
            Kind::Cubbyhole => "cubbyhole",
            Kind::System => "system",
            Kind::Token => "token",
        }
    }

    /// That it is not closed.
    ///
    /// # Errors
    /// [`Refusal::mount_closed`].
    pub fn serving(&self) -> Result<(), Refusal> {
        if self.closed.is_none() { Ok(()) } else { Err(Refusal::mount_closed()) }
    }

    /// Moves it, and remembers that. Of its moves before, the oldest may be forgotten.
    pub fn move_to(&mut self, to: &str, id: Id) {
        let from = std::mem::replace(&mut self.path, to.to_owned());
        self.moves.push(Move { id, from, to: to.to_owned() });
        self.moves.drain(..self.moves.len().saturating_sub(MOVES_MAX));
    }

    /// Whether it is an auth method.
    pub fn is_auth(&self) -> bool {
        self.path.starts_with("auth/")
    }

    /// Default lease in seconds; it may be longer than the longest.
    pub fn default_lease(&self) -> i64 {
        self.effective(self.default_lease_s)
    }

    /// Effective longest lease in seconds.
    pub fn max_lease(&self) -> i64 {
        self.effective(self.max_lease_s)
    }

    /// 0 stands for the system's lease. So does what is negative where tokens get it: none of them would live.
    fn effective(&self, lease_s: i64) -> i64 {
        if lease_s == 0 || (lease_s < 0 && self.kind == Kind::Token) { SYSTEM_LEASE_S } else { lease_s }
    }

    /// The lists of its configuration that are not empty. The system's own paths are told what a client accepts, always.
    pub fn shown_lists(&self) -> BTreeMap<String, Vec<String>> {
        let mut lists = self.lists.clone();
        lists.retain(|_, values| !values.is_empty());
        if self.kind == Kind::System {
            lists.insert("passthrough_request_headers".into(), vec!["Accept".into()]);
        }
        lists
    }

    /// The mount as `sys/mounts` shows it.
    pub fn info(&self) -> Value {
        let mut config = json!({
            "default_lease_ttl": self.default_lease_s,
            "force_no_cache": self.force_no_cache,
            "max_lease_ttl": self.max_lease_s,
        });
        if !self.listing_visibility.is_empty() {
            config["listing_visibility"] = json!(self.listing_visibility);
        }
        for (name, values) in self.shown_lists() {
            config[name] = json!(values);
        }
        if let Some(kind) = &self.token_type {
            config["token_type"] = json!(kind);
        }
        let mut info = json!({
            "accessor": self.accessor,
            "config": config,
            "description": self.description,
            "external_entropy_access": self.external_entropy_access,
            "local": self.local,
            "options": self.options,
            "plugin_version": "",
            "running_plugin_version": crate::build::PLUGIN_VERSION,
            "running_sha256": "",
            "seal_wrap": self.seal_wrap,
            "type": self.type_name(),
            "uuid": self.id.to_uuid(),
        });
        if matches!(self.kind, Kind::Kv1 | Kind::Kv2) {
            info["deprecation_status"] = json!("supported");
        }
        info
    }

    /// The row's body.
    ///
    /// # Errors
    /// None in practice: plain data always serialises.
    pub fn encode(&self) -> Result<Vec<u8>, Refusal> {
        serde_json::to_vec(self).map_err(|error| Refusal::internal(format!("mount: {error}")))
    }
}

/// All mounts by path.
#[derive(Debug, Default)]
pub struct MountTable(BTreeMap<String, std::sync::Arc<Mount>>);

impl MountTable {
    /// Reads and opens all mounts.
    ///
    /// # Errors
    /// A row cannot be read or does not open.
    pub fn load(keyring: &Keyring, reader: &Reader) -> Result<Self, Refusal> {
        let mut out = BTreeMap::new();
        for row in reader.children(Table::Mounts, b"", None, usize::MAX).map_err(storage)? {
            let mount = decode(open(keyring, Table::Mounts, &row)?.body.expose())?;
            out.insert(mount.path.clone(), std::sync::Arc::new(mount));
        }
        Ok(Self(out))
    }

    /// The mount that answers for `path`, and the rest of the path below it. `path` equal to the mount's path without
    /// its slash is the mount's root, too.
    pub fn resolve<'a>(&self, path: &'a str) -> Option<(&std::sync::Arc<Mount>, &'a str)> {
        // Mounts never nest, so the greatest path that is not after ours is the only candidate but for `a` against `a/`.
        let candidates = self.0.range::<str, _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(path)));
        if let Some((prefix, mount)) = candidates.rev().take(1).next()
            && let Some(rest) = path.strip_prefix(prefix.as_str())
        {
            return Some((mount, rest));
        }
        let bare = format!("{path}/");
        self.0.get(&bare).map(|mount| (mount, ""))
    }

    /// The mount at exactly this path (with trailing slash).
    pub fn get(&self, path: &str) -> Option<&std::sync::Arc<Mount>> {
        self.0.get(path)
    }

    /// A mount that stands at, below or above `path` (with trailing slash), so that `path` cannot be one.
    pub fn conflict(&self, path: &str) -> Option<&std::sync::Arc<Mount>> {
        self.0.values().find(|mount| mount.path.starts_with(path) || path.starts_with(mount.path.as_str()))
    }

    /// The move that has this id, if it is remembered.
    pub fn moved(&self, id: Id) -> Option<&Move> {
        self.0.values().flat_map(|mount| &mount.moves).find(|moved| moved.id == id)
    }

    /// All mounts, by path.
    pub fn iter(&self) -> impl Iterator<Item = &std::sync::Arc<Mount>> {
        self.0.values()
    }
}

/// Reads what [`Mount::encode`] wrote.
///
/// # Errors
/// [`Refusal::Internal`] if the body is not a mount.
pub fn decode(body: &[u8]) -> Result<Mount, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::damaged("mount row", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(path: &str, kind: Kind) -> Mount {
        Mount {
            id: Id::ZERO,
            path: path.to_owned(),
            kind,
            description: String::new(),
            accessor: String::new(),
            options: None,
            default_lease_s: 0,
            max_lease_s: 0,
            force_no_cache: false,
            listing_visibility: String::new(),
            local: false,
            seal_wrap: false,
            external_entropy_access: false,
            lists: BTreeMap::new(),
            token_type: None,
            kv: None,
            closed: None,
            moves: Vec::new(),
        }
    }

    fn table(paths: &[&str]) -> MountTable {
        let mounts = paths.iter().map(|path| mount(path, Kind::Kv2));
        MountTable(mounts.map(|mount| (mount.path.clone(), std::sync::Arc::new(mount))).collect())
    }

    #[test]
    fn a_lease_that_is_not_set_is_the_systems() {
        let mut mount = mount("kv/", Kind::Kv1);
        mount.max_lease_s = 3600;
        assert_eq!((mount.default_lease(), mount.max_lease()), (SYSTEM_LEASE_S, 3600));
        mount.default_lease_s = -5;
        assert_eq!(mount.default_lease(), -5);
        mount.kind = Kind::Token;
        (mount.default_lease_s, mount.max_lease_s) = (-5, -1);
        assert_eq!((mount.default_lease(), mount.max_lease()), (SYSTEM_LEASE_S, SYSTEM_LEASE_S));
    }

    #[test]
    fn of_an_old_row_empty_lists_are_not_shown() {
        let mut row = serde_json::to_value(mount("sys/", Kind::System)).unwrap();
        row["lists"] = json!({ "allowed_response_headers": [], "audit_non_hmac_request_keys": ["a"] });
        let read = decode(row.to_string().as_bytes()).unwrap();
        let lists = json!({ "audit_non_hmac_request_keys": ["a"], "passthrough_request_headers": ["Accept"] });
        assert_eq!(json!(read.shown_lists()), lists);
        row.as_object_mut().unwrap().remove("lists");
        assert_eq!(decode(row.to_string().as_bytes()).unwrap(), mount("sys/", Kind::System));
    }

    #[test]
    fn a_path_finds_its_mount() {
        let table = table(&["secret/", "sys/", "team/apps/kv/", "auth/token/"]);
        for (path, mount, rest) in [
            ("secret/data/a", "secret/", "data/a"),
            ("secret/", "secret/", ""),
            ("secret", "secret/", ""),
            ("team/apps/kv/x", "team/apps/kv/", "x"),
            ("auth/token/create", "auth/token/", "create"),
        ] {
            let (found, left) = table.resolve(path).unwrap();
            assert_eq!((found.path.as_str(), left), (mount, rest));
        }
        for path in ["secrets/a", "team/apps", "a", "zzz", "secre"] {
            assert!(table.resolve(path).is_none(), "{path}");
        }
        assert!(table.conflict("secret/sub/").is_some());
        assert!(table.conflict("team/").is_some());
        assert!(table.conflict("sec/").is_none());
    }
}
