//! A request to join that was made, kept until everything that came of it is on the disk: whoever asks again asks as the
//! same node, with the same key, and is told the same.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_model::{Entropy, Id, Secret};
use serde::{Deserialize, Serialize};

use super::guest::JoinError;
use crate::cluster::certificate::Applicant;
use crate::cluster::node::ClusterError;
use crate::cluster::secret_text;
use crate::config::{Config, SealKind};
use crate::files;
use crate::identity::{Drafted, Identity};

/// What the node asks with.
pub(super) struct Pending {
    /// The cluster that it asks.
    pub(super) cluster: Id,
    /// Who it will be.
    pub(super) identity: Drafted,
    /// Its key, and the request for a certificate.
    pub(super) applicant: Applicant,
    /// Where the key of its own key-file seal came from, if it has one. The key itself is in its file.
    pub(super) seal_key: Option<SealKey>,
    /// It was read from the folder, and the cluster may know it already.
    pub(super) is_resumed: bool,
}

/// Where the key in the key file came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SealKey {
    /// Somebody had put it there.
    Given,
    /// It is about to be drawn: nothing was asked with it yet.
    Wanted,
    /// It was drawn for the request, and goes with it.
    Drawn,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    #[serde(with = "crate::cluster::rows::uuid")]
    cluster: Id,
    #[serde(with = "crate::cluster::rows::uuid")]
    node: Id,
    #[serde(with = "secret_text")]
    audit_key: Secret<String>,
    /// PEM: the private key of the certificate that is asked for.
    #[serde(with = "secret_text")]
    key: Secret<String>,
    /// PKCS #10 request, base64.
    csr: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seal_key: Option<SealKey>,
}

impl SealKey {
    /// Which one a node of this configuration asks with, if with any.
    pub(super) fn wanted(config: &Config) -> Option<Self> {
        match config.seal.kind {
            SealKind::KeyFile if config.key_file().exists() => Some(Self::Given),
            SealKind::KeyFile => Some(Self::Wanted),
            SealKind::Shamir | SealKind::Passphrase => None,
        }
    }

    /// Removes the key file of a node that has no use for it, if it was made for this.
    pub(super) fn discard(self, config: &Config) {
        if self != Self::Given && fs::remove_file(config.key_file()).is_ok() {
            drop(fs::remove_dir(config.data.join("seal"))); // it may be elsewhere, or hold anything else
        }
    }
}

impl Pending {
    /// A new one.
    ///
    /// # Errors
    /// The library refused.
    pub(super) fn draw(cluster: Id, seal_key: Option<SealKey>, entropy: &dyn Entropy) -> Result<Self, JoinError> {
        let (identity, applicant) = (Identity::draft(entropy), Applicant::new()?);
        Ok(Self { cluster, identity, applicant, seal_key, is_resumed: false })
    }

    /// The one in the data folder; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(data: &Path) -> Result<Option<Self>, JoinError> {
        let path = path(data);
        let text = match fs::read(&path) {
            Ok(text) => Secret::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ClusterError::File { path, source }.into()),
        };
        let wrong = |why: &dyn std::fmt::Display| {
            JoinError::from(ClusterError::Content(format!(
                "{}: {why}\nempty the data folder, and join anew",
                path.display()
            )))
        };
        let file: File = serde_json::from_slice(text.expose()).map_err(|error| wrong(&error))?;
        let audit_key = key_of(&file.audit_key).filter(|_| file.format == 1);
        let audit_key = audit_key.ok_or_else(|| wrong(&"it is not what this version writes"))?;
        let csr = STANDARD.decode(&file.csr).map_err(|error| wrong(&error))?;
        let applicant = Applicant::resume(&file.key, csr).map_err(|error| wrong(&error))?;
        let identity = Drafted::resume(file.node, audit_key);
        let (seal_key, is_resumed) = (file.seal_key, file.seal_key != Some(SealKey::Wanted));
        Ok(Some(Self { cluster: file.cluster, identity, applicant, seal_key, is_resumed }))
    }

    /// Keeps it in the data folder. Durable when this comes back.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn keep(&self, data: &Path) -> Result<(), JoinError> {
        let file = File {
            format: 1,
            cluster: self.cluster,
            node: self.identity.node(),
            audit_key: Secret::new(STANDARD.encode(self.identity.seed().expose())),
            key: self.applicant.key(),
            csr: STANDARD.encode(self.applicant.csr()),
            seal_key: self.seal_key,
        };
        let path = path(data);
        let text = Secret::new(serde_json::to_vec_pretty(&file).unwrap_or_default());
        let kept = files::make_folder(&data.join(FOLDER)).and_then(|()| files::write_private(&path, text.expose()));
        kept.map_err(|source| ClusterError::File { path, source }.into())
    }
}

/// Whether a request is kept in the data folder that nothing has come of.
pub(in crate::cluster) fn is_kept(data: &Path) -> bool {
    path(data).exists()
}

/// Forgets the request: everything that came of it is on the disk.
///
/// # Errors
/// The file cannot be removed.
pub(in crate::cluster) fn forget(data: &Path) -> io::Result<()> {
    fs::remove_file(path(data))?;
    fs::File::open(data.join(FOLDER))?.sync_all()
}

/// Forgets the request of a node that was refused, and the key and the folders that were made for it.
pub(super) fn undo(config: &Config, seal_key: Option<SealKey>) {
    let data = &config.data;
    let forgotten = forget(data);
    if forgotten.is_ok() || forgotten.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        if let Some(seal_key) = seal_key {
            seal_key.discard(config);
        }
        sweep(data);
        drop(fs::remove_dir(data)); // as long as it holds nothing else
    }
}

/// Removes what is left where a request was about to be kept and never was. A folder that holds anything else stays.
pub(super) fn sweep(data: &Path) {
    drop(fs::remove_file(path(data).with_extension("json.new")));
    drop(fs::remove_dir(data.join(FOLDER)));
}

fn key_of(text: &Secret<String>) -> Option<Secret<[u8; 32]>> {
    let bytes = Secret::new(STANDARD.decode(text.expose()).ok()?);
    <[u8; 32]>::try_from(bytes.expose().as_slice()).ok().map(Secret::new)
}

fn path(data: &Path) -> PathBuf {
    data.join(FOLDER).join("joining.json")
}

/// The node's folder in the data folder.
const FOLDER: &str = "cluster";

#[cfg(test)]
mod tests {
    use keyward_model::SeededEntropy;

    use super::*;
    use crate::cluster::join::guest;
    use crate::cluster::token::JoinToken;

    #[test]
    fn who_asks_again_is_the_same_node_with_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().join("data"), ..Config::default() };
        let data = config.data.clone();
        assert!(Pending::read(&data).unwrap().is_none());
        let first = Pending::draw(Id([7; 16]), SealKey::wanted(&config), &SeededEntropy::new(1)).unwrap();
        first.keep(&data).unwrap();
        let again = Pending::read(&data).unwrap().unwrap();
        assert_eq!((again.identity.node(), again.cluster), (first.identity.node(), first.cluster));
        assert_eq!(again.applicant.csr(), first.applicant.csr());
        assert_eq!(again.applicant.key().expose(), first.applicant.key().expose());
        assert_eq!(again.identity.seed().expose(), first.identity.seed().expose());
        assert_eq!(again.seal_key, Some(SealKey::Wanted));
        assert!(is_kept(&data) && !again.is_resumed, "it has not asked yet");
        Pending { seal_key: Some(SealKey::Drawn), ..again }.keep(&data).unwrap();
        let again = Pending::read(&data).unwrap().unwrap();
        assert!(again.seal_key == Some(SealKey::Drawn) && again.is_resumed);
        files::make_folder(&data.join("seal")).unwrap();
        fs::write(config.key_file(), "k").unwrap();
        assert_eq!(SealKey::wanted(&config), Some(SealKey::Given));
        undo(&config, again.seal_key);
        assert!(!data.exists(), "nothing is left of it");
    }

    /// Joins with a token of a cluster that nobody answers for.
    fn in_vain(config: &Config) -> JoinError {
        let (clock, entropy) = (keyward_model::ManualClock::new(keyward_model::Timestamp(0)), SeededEntropy::new(1));
        let expires = keyward_model::Timestamp(0).plus_seconds(60);
        let token = JoinToken::draw(Id([7; 16]), [1; 32], vec!["127.0.0.1:1".into()], expires, None, &entropy);
        guest::join(config, token.text().unwrap().expose(), &clock, &entropy).unwrap_err()
    }

    #[test]
    fn whatever_a_stop_leaves_before_the_request_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().join("data"), ..Config::default() };
        let kept = || {
            let pending = Pending::draw(Id([7; 16]), SealKey::wanted(&config), &SeededEntropy::new(1)).unwrap();
            pending.keep(&config.data).unwrap();
        };
        let half = || {
            files::make_folder(&config.data.join(FOLDER)).unwrap();
            fs::write(config.data.join(FOLDER).join("joining.json.new"), "{").unwrap();
        };
        let with_key = || {
            kept();
            crate::boot::key_file(&config, &SeededEntropy::new(2)).unwrap();
        };
        let left: [(&str, &dyn Fn()); 3] = [("half a file", &half), ("no key", &kept), ("a key", &with_key)];
        for (what, leave) in left {
            leave();
            let error = in_vain(&config);
            assert!(matches!(error, JoinError::Unreachable(_)), "{what}: {error}");
            assert!(!config.data.exists(), "{what}: nobody was reached, nothing is left");
        }
    }

    #[test]
    fn a_request_that_cannot_be_kept_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { data: folder.path().join("data"), ..Config::default() };
        fs::write(folder.path().join("file"), "").unwrap();
        config.seal.key_file = Some(folder.path().join("file/key"));
        assert!(matches!(in_vain(&config), JoinError::Place(_)));
        assert!(!config.data.exists());
        config.seal.key_file = None;
        assert!(matches!(in_vain(&config), JoinError::Unreachable(_)));
    }

    #[test]
    fn a_key_that_somebody_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { data: folder.path().join("data"), ..Config::default() };
        config.seal.key_file = Some(folder.path().join("key"));
        fs::write(config.key_file(), "k").unwrap();
        let pending = Pending::draw(Id([7; 16]), SealKey::wanted(&config), &SeededEntropy::new(1)).unwrap();
        pending.keep(&config.data).unwrap();
        undo(&config, pending.seal_key);
        assert!(config.key_file().exists() && !config.data.exists());
    }
}
