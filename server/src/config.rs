//! The configuration: TOML, one table per concern, unknown keys refused, units in the names.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cluster::authority::LEAF_S;

/// How long a node's certificate may be good for: time to renew it, and no longer than one wants to wait for its end.
const CERTIFICATE_S: std::ops::RangeInclusive<i64> = 10..=604_800;

/// Everything that can be set. Every member has a default, so that an empty file is a whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The data folder: state, log, audit, seal, certificates.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: Listen,
    /// What opens the root key.
    pub seal: Seal,
    /// The audit trail.
    pub audit: Audit,
    /// The life of versions.
    pub lifecycle: Lifecycle,
    /// Bounds.
    pub limits: Limits,
    /// The node among its peers, and names that clients are told.
    pub cluster: Cluster,
}

/// Where to listen and with which certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Address and port of the API.
    pub address: SocketAddr,
    /// TLS, or plain HTTP where that is said.
    pub tls: Tls,
    /// PEM file with the certificate chain, for `tls = "files"`.
    pub certificate: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
    /// Names and addresses in the certificate that a local CA issues, besides loopback and the listening address.
    pub names: Vec<String>,
    /// Threads that serve the API; 0 = one per core.
    pub workers: usize,
    /// Whether the numbers for Prometheus are told without a token, also while sealed.
    pub open_metrics: bool,
}

/// Which certificate the API shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// A local CA is made at the first start and issues the certificate.
    LocalCa,
    /// A certificate of one's own, from files.
    Files,
    /// Plain HTTP. Refused on other than loopback addresses unless it is said a second time with `plain_anywhere`.
    Plain,
    /// Plain HTTP on any address: for a listener behind a proxy that ends TLS.
    PlainAnywhere,
}

/// What opens the root key at start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seal {
    /// Which seal a new installation gets.
    pub kind: SealKind,
    /// The key file; default `seal/key` in the data folder.
    pub key_file: Option<PathBuf>,
    /// Whether this node gives the root key to members that people unseal, when they start, and asks for it itself.
    pub peer_unseal: bool,
}

/// Kinds of seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SealKind {
    /// A key in a file, read at start: the server unseals itself.
    KeyFile,
    /// Shares of a key, given by people.
    Shamir,
    /// A passphrase, given by a person.
    Passphrase,
}

impl SealKind {
    /// The name that `seal-status` shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::KeyFile => "keyfile",
            Self::Shamir => "shamir",
            Self::Passphrase => "passphrase",
        }
    }
}

/// The audit trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// When a record counts as written.
    pub durability: Durability,
    /// Size at which a segment ends.
    pub segment_bytes: u64,
}

/// When an audit record counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// On the disk: survives a power cut.
    Fsync,
    /// In the kernel: survives a crash of the server, not of the machine.
    Kernel,
}

/// The life of versions on the native face.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lifecycle {
    /// How long a version stays `DISABLED` (or `PENDING`) before it may be destroyed. A development server has 0.
    pub retention_min_s: u32,
}

/// Bounds, each with its unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Largest header block.
    pub header_bytes_max: usize,
    /// Connections at once; more are closed when they come.
    pub connections_max: usize,
    /// Time for a request's header block to arrive. With HTTP/1.1 it begins when the connection is free for the next one, so
    /// it also ends idle connections; with HTTP/2 it is the time until the first request, after which pings decide.
    pub header_timeout_s: u64,
    /// Time for a request's body to arrive.
    pub body_timeout_s: u64,
    /// Requests per second from one source address, over which they get 429; 0 = no limit.
    pub source_rate_per_s: u32,
    /// How many requests one source may send at once before it is held to the rate; 0 = as many as the rate per second.
    pub source_burst: u32,
}

/// The node among its peers, and names that clients are told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Shown as `cluster_name`.
    pub name: String,
    /// What people call this node; default the host's name.
    pub node_name: Option<String>,
    /// Where other nodes are listened for; default the address of the API with the next port. Nothing listens there as
    /// long as the node is alone and no join token was made.
    pub listen: Option<SocketAddr>,
    /// Host and port under which other nodes reach this one; default where it listens.
    pub advertise: Option<String>,
    /// URL under which clients and other nodes reach the API of this one; default where it listens.
    pub api_address: Option<String>,
    /// How long a node that joined must have kept up before it votes.
    pub settle_s: u64,
    /// How long a node that was let in may take to come up; after that it is a member no more.
    pub arrive_s: u64,
    /// How long a node's certificate is good for. It is renewed at two thirds of that.
    pub certificate_s: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("keyward-data"),
            listen: Listen::default(),
            seal: Seal::default(),
            audit: Audit::default(),
            lifecycle: Lifecycle::default(),
            limits: Limits::default(),
            cluster: Cluster::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8200)),
            tls: Tls::LocalCa,
            certificate: None,
            key: None,
            names: Vec::new(),
            workers: 0,
            open_metrics: false,
        }
    }
}

impl Default for Seal {
    fn default() -> Self {
        Self { kind: SealKind::KeyFile, key_file: None, peer_unseal: false }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { durability: Durability::Fsync, segment_bytes: 64 << 20 }
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { retention_min_s: 7 * 86_400 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 << 20,
            header_bytes_max: 64 << 10,
            connections_max: 10_000,
            header_timeout_s: 60,
            body_timeout_s: 60,
            source_rate_per_s: 0,
            source_burst: 1_000,
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: "keyward".into(),
            node_name: None,
            listen: None,
            advertise: None,
            api_address: None,
            settle_s: 10,
            arrive_s: 3600,
            certificate_s: LEAF_S,
        }
    }
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not TOML, or has a key or value that is not known.
    #[error("{0}")]
    Text(#[from] toml::de::Error),
    /// The values do not go together.
    #[error("{0}")]
    Value(String),
}

impl Config {
    /// Reads a configuration and checks it.
    ///
    /// # Errors
    /// [`ConfigError`] with the place and what to do.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with what to do.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Value(text));
        if self.listen.tls == Tls::Plain && !self.listen.address.ip().is_loopback() {
            return wrong(format!(
                "listen.tls = \"plain\" on {}: everybody on the way can read secrets and tokens\n\
                 use \"local_ca\" or \"files\", or \"plain_anywhere\" if a proxy in front ends TLS",
                self.listen.address
            ));
        }
        if self.listen.tls == Tls::Files && (self.listen.certificate.is_none() || self.listen.key.is_none()) {
            return wrong("listen.tls = \"files\" needs listen.certificate and listen.key (PEM files)".into());
        }
        if !(1024..=256 << 20).contains(&self.limits.body_bytes_max) {
            return wrong("limits.body_bytes_max must be between 1024 and 268435456".into());
        }
        if !(8 << 10..=1 << 20).contains(&self.limits.header_bytes_max) {
            return wrong("limits.header_bytes_max must be between 8192 and 1048576".into());
        }
        if !CERTIFICATE_S.contains(&self.cluster.certificate_s) {
            return wrong("cluster.certificate_s must be from 10 to 604800".into());
        }
        if self.cluster.settle_s > 3600 {
            return wrong("cluster.settle_s must be at most 3600".into());
        }
        if let Some(address) = &self.cluster.advertise
            && !is_host_and_port(address)
        {
            return wrong(format!("cluster.advertise = \"{address}\" must be host:port"));
        }
        if let Some(name) = &self.cluster.node_name
            && !is_node_name(name)
        {
            return wrong("cluster.node_name must be 1 to 64 of letters, digits, `.`, `-` and `_`".into());
        }
        if self.audit.segment_bytes < 1 << 20 {
            return wrong("audit.segment_bytes must be at least 1048576".into());
        }
        Ok(())
    }

    /// The key file of the key-file seal.
    pub fn key_file(&self) -> PathBuf {
        self.seal.key_file.clone().unwrap_or_else(|| self.data.join("seal").join("key"))
    }
}

/// Whether this is a host (a name, an IPv4 address, or an IPv6 address in brackets) with a port other than 0.
pub fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_one = match bracketed {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }
    };
    host_is_one && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Whether a node can be called so: 1 to 64 letters, digits, dots, dashes and underscores.
pub fn is_node_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn unknown_and_unfit_values_are_refused() {
        for (text, why) in [
            ("dta = \"x\"", "unknown field"),
            ("[listen]\naddress = \"0.0.0.0:8200\"\ntls = \"plain\"", "plain_anywhere"),
            ("[listen]\ntls = \"files\"", "listen.certificate"),
            ("[limits]\nbody_bytes_max = 1", "between"),
            ("[seal]\nkind = \"magic\"", "unknown variant"),
            ("[cluster]\nadvertise = \"node1\"", "host:port"),
            ("[cluster]\nadvertise = \"::1:8201\"", "host:port"),
            ("[cluster]\nnode_name = \"a b\"", "node_name"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_configuration_reads_back() {
        let text = toml::to_string(&Config::default()).unwrap();
        assert_eq!(Config::parse(&text).unwrap(), Config::default());
    }
}
