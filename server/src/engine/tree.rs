//! The tree of names below a mount: where a path stands in the tables, and which folders exist.
//!
//! A leaf's row key is the id of its folder followed by its sealed name. The folder's id is a keyed hash of the mount
//! and the folder's path, so a look-up at any depth is one primary-key look-up; a listing is one range scan.

use keyward_crypto::Keyring;
use keyward_model::{Id, Table};
use keyward_storage::Reader;

use crate::barrier::{Columns, Draft, integrity, storage};
use crate::refusal::Refusal;

/// The names below one mount, with the table that holds its leaves.
#[derive(Debug, Clone, Copy)]
pub struct Tree {
    /// Id of the mount (or of the token whose cubbyhole it is).
    pub mount: Id,
    /// [`Table::Secrets`] or [`Table::Entries`].
    pub leaves: Table,
}

/// The last part of a path and the folder before it (empty at the root).
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').map_or(("", path), |(folder, name)| (folder, name))
}

impl Tree {
    /// The row key of the leaf at `path`.
    pub fn key(self, keyring: &Keyring, path: &str) -> Vec<u8> {
        let (folder, name) = split(path);
        let names = keyring.names();
        names.key(names.folder(self.mount, folder.as_bytes()), name.as_bytes())
    }

    /// Makes the folders above `path` exist. For a leaf that is about to be created.
    ///
    /// # Errors
    /// A row cannot be read.
    pub fn add_folders(self, draft: &mut Draft<'_>, path: &str) -> Result<(), Refusal> {
        let (mut folder, _) = split(path);
        while !folder.is_empty() {
            let key = self.key(draft.keyring(), folder);
            if draft.exists(Table::Folders, &key)? {
                return Ok(()); // and so do those above it
            }
            draft.put(Table::Folders, &key, Columns::default(), b"")?;
            folder = split(folder).0;
        }
        Ok(())
    }

    /// Takes away the folders above `path` that have become empty. For a leaf that was just removed.
    ///
    /// # Errors
    /// A row cannot be read.
    pub fn remove_empty_folders(self, draft: &mut Draft<'_>, path: &str) -> Result<(), Refusal> {
        let (mut folder, _) = split(path);
        while !folder.is_empty() {
            let prefix = draft.keyring().names().folder(self.mount, folder.as_bytes()).0;
            if !draft.keys_below(self.leaves, &prefix, 1)?.is_empty()
                || !draft.keys_below(Table::Folders, &prefix, 1)?.is_empty()
            {
                return Ok(());
            }
            let key = self.key(draft.keyring(), folder);
            draft.remove(Table::Folders, &key)?;
            folder = split(folder).0;
        }
        Ok(())
    }

    /// Names in `folder` (empty: the root), sorted by bytes; sub-folders end in `/`.
    ///
    /// # Errors
    /// A row cannot be read or a name does not open.
    pub fn list(self, keyring: &Keyring, reader: &Reader, folder: &str) -> Result<Vec<String>, Refusal> {
        let parent = keyring.names().folder(self.mount, folder.as_bytes());
        let mut out = Vec::new();
        for (table, suffix) in [(self.leaves, ""), (Table::Folders, "/")] {
            for row in reader.children(table, &parent.0, None, usize::MAX).map_err(storage)? {
                let sealed = row.key.get(parent.0.len()..).unwrap_or_default();
                let name = keyring.names().open(parent, sealed).map_err(integrity)?;
                out.push(String::from_utf8_lossy(&name).into_owned() + suffix);
            }
        }
        out.sort_unstable();
        Ok(out)
    }

    /// All leaves below `folder`, relative to it, sorted by bytes.
    ///
    /// # Errors
    /// A row cannot be read or a name does not open.
    pub fn scan(self, keyring: &Keyring, reader: &Reader, folder: &str) -> Result<Vec<String>, Refusal> {
        let mut out = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(below) = folders.pop() {
            let full = match (folder.is_empty(), below.is_empty()) {
                (_, true) => folder.to_owned(),
                (true, false) => below.clone(),
                (false, false) => format!("{folder}/{below}"),
            };
            for name in self.list(keyring, reader, &full)? {
                let path = if below.is_empty() { name } else { format!("{below}/{name}") };
                match path.strip_suffix('/') {
                    Some(inner) => folders.push(inner.to_owned()),
                    None => out.push(path),
                }
            }
        }
        out.sort_unstable();
        Ok(out)
    }

    /// Removes every leaf and folder of the mount, `limit` rows at a time; `on_leaf` sees each leaf's key before it goes.
    /// Returns whether anything is left.
    ///
    /// # Errors
    /// A row cannot be read.
    pub fn clear(
        self,
        draft: &mut Draft<'_>,
        limit: usize,
        mut on_leaf: impl FnMut(&mut Draft<'_>, &[u8]) -> Result<(), Refusal>,
    ) -> Result<bool, Refusal> {
        let mut folders = vec![String::new()];
        let mut removed = 0;
        while let Some(folder) = folders.pop() {
            let parent = draft.keyring().names().folder(self.mount, folder.as_bytes());
            for key in draft.keys_below(self.leaves, &parent.0, limit.saturating_sub(removed))? {
                on_leaf(draft, &key)?;
                draft.remove(self.leaves, &key)?;
                removed += 1;
            }
            if removed >= limit {
                return Ok(true);
            }
            let mut inner = Vec::new();
            for key in draft.keys_below(Table::Folders, &parent.0, usize::MAX >> 1)? {
                let sealed = key.get(parent.0.len()..).unwrap_or_default();
                let name = draft.keyring().names().open(parent, sealed).map_err(integrity)?;
                let name = String::from_utf8_lossy(&name);
                inner.push((if folder.is_empty() { name.into_owned() } else { format!("{folder}/{name}") }, key));
            }
            if inner.is_empty() {
                continue;
            }
            for (path, key) in inner {
                let below = draft.keyring().names().folder(self.mount, path.as_bytes());
                if draft.keys_below(self.leaves, &below.0, 1)?.is_empty()
                    && draft.keys_below(Table::Folders, &below.0, 1)?.is_empty()
                {
                    draft.remove(Table::Folders, &key)?;
                    removed += 1;
                } else {
                    folders.push(path);
                }
            }
            if removed >= limit {
                return Ok(true);
            }
        }
        Ok(removed > 0)
    }
}
