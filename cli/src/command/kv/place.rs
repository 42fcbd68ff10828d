//! Where a secret lives: its mount, the version of the engine there, and the rest of the path.

use serde_json::Value;

use crate::client::Client;
use crate::command::trim;
use crate::error::CliError;

/// The two KV engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// One value for each path.
    V1,
    /// Numbered versions.
    V2,
}

/// A secret's place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The engine at the mount.
    pub(crate) engine: Engine,
    mount: String,
    path: String,
}

impl Place {
    /// The path of a version 1 secret.
    pub(crate) fn plain(&self) -> String {
        join(&[&self.mount, &self.path])
    }

    /// The path below one of version 2's prefixes: `data`, `metadata`, `delete`, …
    pub(crate) fn below(&self, prefix: &str) -> String {
        join(&[&self.mount, prefix, &self.path])
    }

    /// The path where the value is read and written.
    pub(crate) fn value(&self) -> String {
        match self.engine {
            Engine::V1 => self.plain(),
            Engine::V2 => self.below("data"),
        }
    }

    /// As people name it.
    pub(crate) fn name(&self) -> String {
        join(&[&self.mount, &self.path])
    }

    /// What to say when there is nothing here. A `data/` typed by habit is the usual cause.
    pub(crate) fn absent(&self) -> CliError {
        let rest = self.path.strip_prefix("data/").or_else(|| self.path.strip_prefix("metadata/"));
        let hint = rest.filter(|_| self.engine == Engine::V2).map(|rest| {
            format!("it was read as `{}`; the name is without `data/`: `{}/{rest}`", self.value(), self.mount)
        });
        CliError::Absent(format!("no value found at `{}`", self.value()), hint)
    }

    /// Refuses a mount without versions.
    ///
    /// # Errors
    /// The engine is version 1.
    pub(crate) fn versioned(self) -> Result<Self, CliError> {
        match self.engine {
            Engine::V2 => Ok(self),
            Engine::V1 => Err(CliError::Usage(format!(
                "the mount `{}/` keeps no versions; `keyward kv enable-versioning {}` gives it them",
                self.mount, self.mount
            ))),
        }
    }
}

/// Asks the server which mount `path` (or `mount`) is on. Needs no capability beyond some right to anything there.
///
/// # Errors
/// Refused, or an answer that names no mount.
pub(crate) fn locate(client: &Client, mount: Option<&str>, path: &str) -> Result<Place, CliError> {
    let path = trim(path);
    let asked = mount.map_or(path, trim);
    if asked.is_empty() {
        return Err(CliError::Usage("name the secret as `mount/path`".into()));
    }
    let Some(answer) = client.get(&format!("sys/internal/ui/mounts/{asked}"), &[])? else {
        // A server older than this question has version 1 everywhere.
        let (mount, rest) = asked.split_once('/').unwrap_or((asked, ""));
        return Ok(place(Engine::V1, mount, if asked == path { rest } else { path }));
    };
    let data = &answer.body["data"];
    let Some(found) = data["path"].as_str().map(trim).filter(|found| !found.is_empty()) else {
        return Err(CliError::Unexpected(format!("the server names no mount for `{asked}`")));
    };
    let engine = match &data["options"]["version"] {
        Value::String(version) if version == "2" => Engine::V2,
        Value::Number(version) if version.as_u64() == Some(2) => Engine::V2,
        _ => Engine::V1,
    };
    if mount.is_some() {
        return Ok(place(engine, found, path));
    }
    let rest = path.strip_prefix(found).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    rest.map(|rest| place(engine, found, trim(rest)))
        .ok_or_else(|| CliError::Unexpected(format!("the server says `{asked}` is on `{found}`")))
}

fn place(engine: Engine, mount: &str, path: &str) -> Place {
    Place { engine, mount: mount.to_owned(), path: path.to_owned() }
}

fn join(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_both_engines() {
        let v2 = place(Engine::V2, "a/b", "c/d");
        assert_eq!((v2.value(), v2.below("metadata")), ("a/b/data/c/d".into(), "a/b/metadata/c/d".into()));
        assert_eq!(place(Engine::V1, "a", "c").value(), "a/c");
        assert_eq!(place(Engine::V2, "a", "").below("metadata"), "a/metadata");
        assert!(place(Engine::V1, "a", "c").versioned().is_err());
    }

    #[test]
    fn the_habit_of_data_is_named() {
        let error = place(Engine::V2, "secret", "data/app").absent().explain();
        assert!(error.contains("secret/data/data/app") && error.contains("`secret/app`"), "{error}");
    }
}
