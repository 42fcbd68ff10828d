//! The paths that ask for `sudo` on top of the ordinary capability.

/// Below `sys/`: exact names, and prefixes that end in `*`.
const PROTECTED_SYS: [&str; 22] = [
    "audit",
    "audit/*",
    "auth/*",
    "cluster/join-token",
    "cluster/members/*",
    "config/auditing/*",
    "config/cors",
    "config/ui/headers/*",
    "internal/inspect/*",
    "leases",
    "leases/lookup/*",
    "leases/revoke-force/*",
    "leases/revoke-prefix/*",
    "plugins/catalog/*",
    "raw",
    "raw/*",
    "remount",
    "revoke-force/*",
    "revoke-prefix/*",
    "rotate",
    "rotate/keyring",
    "rotate/root",
];

/// Below `auth/token/`.
const PROTECTED_TOKEN: [&str; 2] = ["accessors*", "revoke-orphan/*"];

/// Whether `path` is root-protected, for whatever operation. `path` is the decoded request path without a leading slash;
/// that of a listing ends in `/`, which is how a listing of `sys/auth` needs `sudo` and reading it does not.
pub fn needs_sudo(path: &str) -> bool {
    let (table, path): (&[&str], &str) = if let Some(path) = path.strip_prefix("sys/") {
        (&PROTECTED_SYS, path)
    } else if let Some(path) = path.strip_prefix("auth/token/") {
        (&PROTECTED_TOKEN, path)
    } else {
        return false;
    };
    table.iter().any(|entry| match entry.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == *entry,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_and_open_paths() {
        for path in [
            "sys/auth/up",
            "sys/auth/",
            "sys/remount",
            "sys/audit",
            "sys/audit/",
            "sys/audit/file",
            "sys/raw",
            "sys/raw/core/x",
            "sys/rotate",
            "sys/rotate/keyring",
            "sys/rotate/root",
            "sys/config/cors",
            "sys/config/auditing/request-headers/x",
            "sys/config/ui/headers/",
            "sys/plugins/catalog/",
            "sys/cluster/join-token",
            "sys/cluster/members/x",
            "sys/cluster/members/x/promote",
            "sys/revoke-prefix/a",
            "sys/revoke-force/a",
            "sys/leases",
            "sys/leases/lookup/",
            "sys/leases/lookup/auth/token/",
            "sys/leases/revoke-prefix/a",
            "sys/leases/revoke-force/a",
            "sys/internal/inspect/router/root",
            "auth/token/accessors",
            "auth/token/accessors/",
            "auth/token/revoke-orphan/x",
        ] {
            assert!(needs_sudo(path), "{path}");
        }
        for path in [
            "sys/auth",
            "sys/mounts",
            "sys/mounts/x",
            "sys/policies/acl/x",
            "sys/seal",
            "sys/step-down",
            "sys/rotate/root/init",
            "sys/rotate/root/update",
            "sys/rotate/config",
            "sys/generate-root-token/attempt",
            "sys/audit-hash/file",
            "sys/leases/revoke",
            "sys/leases/renew",
            "sys/leases/tidy",
            "sys/leases/count",
            "sys/leases/lookup",
            "sys/quotas/config",
            "sys/plugins/reload/backend",
            "sys/plugins/catalog",
            "sys/config/ui/headers",
            "sys/namespaces",
            "sys/host-info",
            "sys/metrics",
            "auth/token/tidy",
            "auth/token/roles",
            "auth/token/create-orphan",
            "auth/token/revoke-orphan",
            "auth/tokens/accessors",
            "secret/sys/raw",
            "",
        ] {
            assert!(!needs_sudo(path), "{path}");
        }
    }
}
