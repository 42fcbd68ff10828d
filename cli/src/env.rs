//! What the environment says: `KEYWARD_…` first, then `BAO_…`, then `VAULT_…`, so that habits and scripts keep working.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

use keyward_model::Secret;

use crate::error::CliError;

/// Where a client looks when nothing says otherwise.
pub(crate) const DEFAULT_ADDRESS: &str = "https://127.0.0.1:8200";

const PREFIXES: [&str; 3] = ["KEYWARD_", "BAO_", "VAULT_"];
const TOKEN_FILE: &str = ".keyward-token";
const FOREIGN_TOKEN_FILE: &str = ".vault-token";
const LOCAL_SERVER_FILE: &str = ".keyward-server";

/// Where a server of the same user on this machine is, and whose certificates to believe there. The server leaves it
/// in the home directory when it starts, so that clients find it without being told.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct LocalServer {
    /// Its address.
    pub(crate) address: String,
    /// The certificate of its own authority.
    pub(crate) ca: Option<PathBuf>,
}

/// The variables that matter here, read once in `main`.
pub(crate) struct Environment {
    variables: BTreeMap<String, String>,
}

/// A setting, with the name of where it came from so that an error can say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The setting itself.
    pub(crate) value: String,
    /// `--address`, `KEYWARD_ADDR`, `the default`, …
    pub(crate) origin: String,
}

impl Environment {
    /// Keeps those of `variables` that start with one of our prefixes, and `HOME`.
    pub(crate) fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let known = |name: &str| name == "HOME" || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        Self { variables: variables.into_iter().filter(|(name, _)| known(name)).collect() }
    }

    /// The first of `KEYWARD_<name>`, `BAO_<name>`, `VAULT_<name>` that is set and not empty.
    pub(crate) fn find(&self, name: &str) -> Option<Found> {
        PREFIXES.iter().find_map(|prefix| {
            let origin = format!("{prefix}{name}");
            let value = self.variables.get(&origin).filter(|value| !value.is_empty())?.clone();
            Some(Found { value, origin })
        })
    }

    /// A flag's value if it was given (named `flag` in errors), else what [`Environment::find`] finds.
    pub(crate) fn choose(&self, given: Option<&str>, flag: &str, name: &str) -> Option<Found> {
        match given {
            Some(value) => Some(Found { value: value.to_owned(), origin: flag.to_owned() }),
            None => self.find(name),
        }
    }

    /// A yes-or-no setting; unset is no.
    ///
    /// # Errors
    /// A value that is neither yes nor no: guessing here could switch verification off.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, CliError> {
        let Some(found) = self.find(name) else { return Ok(false) };
        match found.value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(CliError::Usage(format!("`{}` must be `true` or `false`", found.origin))),
        }
    }

    /// The token: from the environment, else from `~/.keyward-token`, else from `~/.vault-token`.
    pub(crate) fn token(&self) -> Option<Secret<String>> {
        if let Some(found) = self.find("TOKEN") {
            return Some(Secret::new(found.value));
        }
        [TOKEN_FILE, FOREIGN_TOKEN_FILE].iter().find_map(|name| {
            let text = Secret::new(fs::read_to_string(self.home()?.join(name)).ok()?);
            let token = text.expose().trim();
            (!token.is_empty()).then(|| Secret::new(token.to_owned()))
        })
    }

    /// Writes `token` to `~/.keyward-token`, readable by its owner alone, and returns the path. The file is replaced
    /// in one step: a reader sees the old token or the new one.
    ///
    /// # Errors
    /// No home directory, or the file cannot be written.
    pub(crate) fn store_token(&self, token: &str) -> Result<PathBuf, CliError> {
        let home = self.home().ok_or_else(|| {
            CliError::Local("there is no `HOME` to keep the token in: pass --no-store and set `KEYWARD_TOKEN`".into())
        })?;
        let path = home.join(TOKEN_FILE);
        let fresh = home.join(format!("{TOKEN_FILE}.{}", std::process::id()));
        let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh).and_then(
            |mut file| {
                file.set_permissions(fs::Permissions::from_mode(0o600))?;
                file.write_all(token.as_bytes())?;
                file.sync_all()?;
                fs::rename(&fresh, &path)
            },
        );
        match written {
            Ok(()) => Ok(path),
            Err(error) => {
                fs::remove_file(&fresh).ok();
                Err(CliError::file(&path, "cannot keep the token in", &error))
            }
        }
    }

    /// The server that was last started by this user on this machine.
    pub(crate) fn local_server(&self) -> Option<LocalServer> {
        let text = fs::read_to_string(self.home()?.join(LOCAL_SERVER_FILE)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Leaves word of a server that runs here. Best effort: without a home directory clients must be told.
    pub(crate) fn leave_local_server(&self, server: &LocalServer) {
        let Some(home) = self.home() else { return };
        let Ok(text) = serde_json::to_string(server) else { return };
        let path = home.join(LOCAL_SERVER_FILE);
        let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        written.and_then(|mut file| file.write_all(text.as_bytes())).ok();
    }

    fn home(&self) -> Option<PathBuf> {
        self.variables.get("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::from_variables(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn ours_wins_then_bao_then_vault() {
        let all = [("VAULT_ADDR", "v"), ("BAO_ADDR", "b"), ("KEYWARD_ADDR", "k")];
        for (variables, origin) in [(&all[..], "KEYWARD_ADDR"), (&all[..2], "BAO_ADDR"), (&all[..1], "VAULT_ADDR")] {
            assert_eq!(environment(variables).find("ADDR").unwrap().origin, origin);
        }
        assert_eq!(environment(&[("KEYWARD_ADDR", ""), ("VAULT_ADDR", "v")]).find("ADDR").unwrap().value, "v");
        assert_eq!(environment(&[("OTHER_ADDR", "x")]).find("ADDR"), None);
        assert_eq!(environment(&all).choose(Some("f"), "--address", "ADDR").unwrap().origin, "--address");
    }

    #[test]
    fn a_flag_is_never_guessed() {
        assert!(!environment(&[]).flag("SKIP_VERIFY").unwrap());
        assert!(environment(&[("VAULT_SKIP_VERIFY", "1")]).flag("SKIP_VERIFY").unwrap());
        assert!(environment(&[("VAULT_SKIP_VERIFY", "yes please")]).flag("SKIP_VERIFY").is_err());
    }

    #[test]
    fn the_token_file_is_private_and_ours_comes_first() {
        let home = tempfile::tempdir().unwrap();
        let home_text = home.path().to_str().unwrap().to_owned();
        let environment = environment(&[("HOME", &home_text)]);
        assert!(environment.token().is_none());
        fs::write(home.path().join(FOREIGN_TOKEN_FILE), "theirs\n").unwrap();
        assert_eq!(environment.token().unwrap().expose(), "theirs");
        let path = environment.store_token("ours").unwrap();
        assert_eq!(environment.token().unwrap().expose(), "ours");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
