//! The policies that exist without anyone writing them. The third, `root`, has no text: see [`Acl::root`](crate::Acl::root).

/// The first text of the policy `default`, which tokens get unless they ask not to; an operator may change it.
pub const DEFAULT_POLICY: &str = r#"# What every token may do with itself and its own cubbyhole.

# Look at itself, live longer, end itself.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }

# Ask what it may do.
path "sys/capabilities-self" { capabilities = ["update"] }
path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }

# Read the entity behind it.
path "identity/entity/id/{{identity.entity.id}}" { capabilities = ["read"] }
path "identity/entity/name/{{identity.entity.name}}" { capabilities = ["read"] }

# Renew and look up leases that it knows the id of.
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/lookup" { capabilities = ["update"] }

# Use its own store.
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }

# Wrap a value, look at a wrapping token, unwrap.
path "sys/wrapping/wrap" { capabilities = ["update"] }
path "sys/wrapping/lookup" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }

# Hash something.
path "sys/tools/hash" { capabilities = ["update"] }
path "sys/tools/hash/*" { capabilities = ["update"] }

# Log in to an application by way of this server.
path "identity/oidc/provider/+/authorize" { capabilities = ["read", "update"] }
"#;

/// The policy of a wrapping token: it reads what it wraps, once. Nobody can change or assign it.
pub const RESPONSE_WRAPPING_POLICY: &str = r#"path "cubbyhole/response" { capabilities = ["create", "read"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_parse() {
        assert_eq!(crate::parse(DEFAULT_POLICY).unwrap().rules.len(), 16);
        assert_eq!(crate::parse(RESPONSE_WRAPPING_POLICY).unwrap().rules.len(), 2);
    }
}
