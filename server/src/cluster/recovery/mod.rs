//! Going on alone when the majority of a cluster is lost for good.
//!
//! In two parts. [`offline`], on the stopped node: it says what is known, records that it is done, and makes this node the
//! only member in its own log. [`finish`], at the next start, as soon as the node is unsealed and before it serves
//! anything: the cluster gets a new id and a new node authority, and the others' rows go. In between stands a file that
//! keeps the node to itself.

pub mod offline;

pub mod finish;

use std::fs;
use std::path::Path;

use keyward_model::{Id, Timestamp};
use serde::{Deserialize, Serialize};

use super::document;
use super::node::{ClusterError, make_folder};
use crate::files;

/// That a recovery was begun on this node and is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    format: u32,
    /// The id that the cluster gets: whoever knows it by the old one is not of it.
    #[serde(with = "super::rows::uuid")]
    pub cluster: Id,
    /// When it was begun.
    pub at: Timestamp,
    /// Index of the last entry that this node had; 0 for none.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

impl Recovery {
    /// A recovery that begins now.
    fn begin(cluster: Id, at: Timestamp, (index, term): (u64, u64)) -> Self {
        Self { format: document::FORMAT, cluster, at, index, term }
    }

    /// Reads it from the node's folder; `None` if none is under way.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, ClusterError> {
        document::read(&folder.join(FILE))
    }

    /// Notes in the node's folder that it is under way.
    ///
    /// # Errors
    /// The file cannot be written.
    fn keep(&self, folder: &Path) -> Result<(), ClusterError> {
        make_folder(folder)?;
        let path = folder.join(FILE);
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        files::write_private(&path, &text).map_err(|source| ClusterError::File { path, source })
    }

    /// Notes that it is done.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(super) fn forget(folder: &Path) -> Result<(), ClusterError> {
        let path = folder.join(FILE);
        let removed = fs::remove_file(&path).and_then(|()| fs::File::open(folder)?.sync_all());
        removed.map_err(|source| ClusterError::File { path, source })
    }
}

/// The file's name.
const FILE: &str = "recovery.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_under_way_until_it_is_forgotten() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("cluster");
        assert_eq!(Recovery::read(&folder).unwrap(), None);
        let begun = Recovery::begin(Id([7; 16]), Timestamp(1), (412, 3));
        begun.keep(&folder).unwrap();
        assert_eq!(Recovery::read(&folder).unwrap(), Some(begun));
        Recovery::forget(&folder).unwrap();
        assert_eq!(Recovery::read(&folder).unwrap(), None);
        fs::write(folder.join(FILE), "{").unwrap();
        assert!(Recovery::read(&folder).is_err(), "what cannot be read is not taken for nothing");
    }
}
