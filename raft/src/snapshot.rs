//! What a snapshot's data is: the running database, or a file that came from another node.

use std::path::PathBuf;

use keyward_storage::Store;

/// The data behind a snapshot.
#[derive(Clone, Debug)]
pub enum SnapshotData {
    /// This node's database, which is at least as far as the snapshot says. [`Store::snapshot_into`] makes a file of it.
    Live(Store),
    /// A whole state in a file.
    File(PathBuf),
}
