//! What this build says of itself.

/// Keyward's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of the API that clients of Vault and OpenBao are told: they gate features on it.
pub const API_VERSION: &str = "2.6.2";

/// The version that mounts show for their engine.
pub const PLUGIN_VERSION: &str = "v2.6.2+builtin.keyward";
