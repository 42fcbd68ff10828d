//! Who this node is: drawn at random once per data folder, never chosen, never reused.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_audit::AuditKey;
use keyward_model::{Entropy, Id, Secret};
use serde::{Deserialize, Serialize};

use crate::files::write_private;

/// The node's identity, from `identity.json` in its data folder.
#[derive(Debug)]
pub struct Identity {
    /// The node's id.
    pub node: Id,
    /// Grows when the node is joined anew over an old folder; part of the name of its audit stream.
    pub incarnation: u64,
    /// Signs the checkpoints of its audit stream.
    pub audit_key: AuditKey,
}

/// An identity that was drawn and is not kept yet.
#[derive(Debug)]
pub struct Drafted {
    node: Id,
    seed: Secret<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    node: String,
    incarnation: u64,
    audit_key: String,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not what this version writes.
    #[error(
        "{path}: {why}\nit says who this node is and cannot be made up: restore it from a backup, or start with an empty data folder"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is data but no identity.
    #[error(
        "{0} holds a log or a state database but no identity.json: it was lost, or this is not a data folder of Keyward\nrestore the file, or start with an empty data folder"
    )]
    Lost(PathBuf),
}

impl Identity {
    /// Reads the identity, or draws one for an empty folder.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn of_folder(folder: &Path, entropy: &dyn Entropy) -> Result<Self, IdentityError> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Self::decode(&path, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if folder.join("state").exists() || folder.join("log").exists() {
                    return Err(IdentityError::Lost(folder.to_owned()));
                }
                Self::draw(&path, entropy)
            }
            Err(source) => Err(IdentityError::File { path, source }),
        }
    }

    /// The id that Raft knows the node by.
    pub fn raft_id(&self) -> u64 {
        raft_id(self.node)
    }

    /// Draws an identity that is not kept yet.
    pub fn draft(entropy: &dyn Entropy) -> Drafted {
        let mut seed = Secret::new([0u8; 32]);
        entropy.fill(seed.expose_mut());
        Drafted { node: Id::random(entropy), seed }
    }

    fn draw(path: &Path, entropy: &dyn Entropy) -> Result<Self, IdentityError> {
        Self::draft(entropy).write(path)
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self, IdentityError> {
        let damaged = |why: String| IdentityError::Damaged { path: path.to_owned(), why };
        let file: File = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if file.format != 1 {
            return Err(damaged(format!(
                "format {} is from a newer version of keyward; upgrade to use it",
                file.format
            )));
        }
        let node = Id::from_uuid(&file.node).ok_or_else(|| damaged("`node` is not an id".into()))?;
        let seed = STANDARD.decode(&file.audit_key).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let seed = Secret::new(seed.ok_or_else(|| damaged("`audit_key` is not a key".into()))?);
        let audit_key = AuditKey::from_seed(&seed).map_err(|_| damaged("`audit_key` is not a key".into()))?;
        Ok(Self { node, incarnation: file.incarnation, audit_key })
    }
}

/// The id that Raft knows a node by.
pub fn raft_id(node: Id) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&node.0[..8]);
    u64::from_be_bytes(bytes).max(1)
}

impl Drafted {
    /// One that was drawn before, and asked with.
    pub fn resume(node: Id, seed: Secret<[u8; 32]>) -> Self {
        Self { node, seed }
    }

    /// What its audit key is made of.
    pub fn seed(&self) -> &Secret<[u8; 32]> {
        &self.seed
    }

    /// The node's id.
    pub fn node(&self) -> Id {
        self.node
    }

    /// The id that Raft will know it by.
    pub fn number(&self) -> u64 {
        raft_id(self.node)
    }

    /// Keeps it in a data folder.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn keep(&self, folder: &Path) -> Result<(), IdentityError> {
        self.write(&folder.join(FILE)).map(drop)
    }

    fn write(&self, path: &Path) -> Result<Identity, IdentityError> {
        let file = File {
            format: 1,
            node: self.node.to_uuid(),
            incarnation: FIRST_INCARNATION,
            audit_key: STANDARD.encode(self.seed.expose()),
        };
        let text = serde_json::to_vec_pretty(&file).unwrap_or_default();
        write_private(path, &text).map_err(|source| IdentityError::File { path: path.to_owned(), source })?;
        Identity::decode(path, &text)
    }
}

/// The incarnation of a node that was never set up before.
pub const FIRST_INCARNATION: u64 = 1;
/// The file's name.
const FILE: &str = "identity.json";

#[cfg(test)]
mod tests {
    use keyward_model::SeededEntropy;

    use super::*;

    #[test]
    fn drawn_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::of_folder(folder.path(), &SeededEntropy::new(1)).unwrap();
        let again = Identity::of_folder(folder.path(), &SeededEntropy::new(2)).unwrap();
        assert_eq!(first.node, again.node);
        assert_eq!(first.audit_key.public(), again.audit_key.public());
    }

    #[test]
    fn a_lost_identity_is_not_made_up() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        let error = Identity::of_folder(folder.path(), &SeededEntropy::new(1)).unwrap_err();
        assert!(matches!(error, IdentityError::Lost(_)));
    }

    #[test]
    fn a_damaged_identity_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("identity.json"), "{").unwrap();
        let error = Identity::of_folder(folder.path(), &SeededEntropy::new(1)).unwrap_err();
        assert!(error.to_string().contains("identity.json"));
    }
}
