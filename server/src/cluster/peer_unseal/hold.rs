//! That people sealed this node. It stays sealed until people unseal it, also over restarts: no other node undoes what they
//! did.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::files;

/// The file that outlives the process. What stands in it does not matter.
const FILE: &str = "sealed-by-hand";

/// Whether the node was sealed by hand.
#[derive(Debug)]
pub struct Hold {
    path: PathBuf,
    is_set: AtomicBool,
}

impl Hold {
    /// As the node's folder for its cluster says.
    pub fn of_folder(folder: &Path) -> Self {
        let path = folder.join(FILE);
        // A file that cannot be looked for is one that may be there.
        Self { is_set: AtomicBool::new(path.try_exists().unwrap_or(true)), path }
    }

    /// Whether nobody but people may unseal the node.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// Sealed by hand, for this process. [`Hold::keep`] makes it so for the next ones.
    pub fn set(&self) {
        self.is_set.store(true, Ordering::Release);
    }

    /// Writes down what holds now, for the next start. A node that is alone has nobody to ask, and keeps nothing. Blocks.
    ///
    /// # Errors
    /// The file cannot be written or removed.
    pub fn keep(&self) -> io::Result<()> {
        if self.is_set() {
            let in_cluster = self.path.parent().is_some_and(Path::exists);
            return if in_cluster { files::write_private(&self.path, b"") } else { Ok(()) };
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Unsealed by people, for this process.
    pub fn clear(&self) {
        self.is_set.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_did_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let hold = Hold::of_folder(folder.path());
        assert!(!hold.is_set());
        hold.keep().unwrap();
        hold.set();
        assert!(hold.is_set() && !Hold::of_folder(folder.path()).is_set());
        hold.keep().unwrap();
        assert!(Hold::of_folder(folder.path()).is_set());
        hold.clear();
        hold.keep().unwrap();
        assert!(!hold.is_set() && !Hold::of_folder(folder.path()).is_set());
        // Alone, there is no such folder, and nobody to ask.
        let alone = Hold::of_folder(&folder.path().join("none"));
        alone.set();
        alone.keep().unwrap();
        assert!(alone.is_set());
    }
}
