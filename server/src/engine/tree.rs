//! The tree of names below a mount: where a path stands in the tables, and which folders exist.
//!
//! A leaf's row key is the id of its folder followed by its sealed name. The folder's id is a keyed hash of the mount
//! and the folder's path, so a look-up at any depth is one primary-key look-up; a listing is one range scan.

use keyward_crypto::Keyring;
use keyward_model::{Id, Table};
use keyward_storage::Reader;

use crate::barrier::{Columns, Draft, PIECE_BYTES_MAX, integrity, storage};
use crate::refusal::Refusal;

/// Leaves looked at at a time: their values come along, so not too many.
const LEAVES_PER_LOOK: usize = 16;
/// Folders looked at at a time.
const FOLDERS_PER_LOOK: usize = 64;
/// Bytes of a command that moving a leaf takes beside its value and its path.
const LEAF_OVERHEAD_BYTES: usize = 1024;

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
            if !draft.keys_below(self.leaves, &prefix, None, 1)?.is_empty()
                || !draft.keys_below(Table::Folders, &prefix, None, 1)?.is_empty()
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
                out.push(name_of(keyring, parent, &row.key)? + suffix);
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

    /// Removes leaves of both tables and folders below the mount, the innermost first, as many as `left` and the command
    /// take; `on_leaf` sees the table and key of each leaf before it goes. Takes from `left` what it removes, and says
    /// whether nothing is left below the mount.
    ///
    /// # Errors
    /// A row cannot be read.
    pub fn clear(
        self,
        draft: &mut Draft<'_>,
        left: &mut usize,
        mut on_leaf: impl FnMut(&mut Draft<'_>, Table, &[u8]) -> Result<(), Refusal>,
    ) -> Result<bool, Refusal> {
        let mut folder = String::new();
        // On the way from the root to this folder: names of folders that are still to be looked into, by level.
        let mut way = vec![self.some_folders(draft, "")?];
        while let Some(inner) = way.last_mut() {
            if let Some(name) = inner.pop() {
                folder = join(&folder, &name);
                way.push(self.some_folders(draft, &folder)?);
                continue;
            }
            *inner = self.some_folders(draft, &folder)?;
            if !inner.is_empty() {
                continue;
            }
            for table in [Table::Secrets, Table::Entries] {
                if !self.clear_leaves(draft, table, &folder, left, &mut on_leaf)? {
                    return Ok(false);
                }
            }
            if !folder.is_empty() {
                if *left == 0 || !draft.has_room(0) {
                    return Ok(false);
                }
                let key = self.key(draft.keyring(), &folder);
                draft.remove(Table::Folders, &key)?;
                *left -= 1;
            }
            folder = split(&folder).0.to_owned();
            way.pop();
        }
        Ok(true)
    }

    /// Removes the leaves of one folder. Whether all are gone.
    fn clear_leaves(
        self,
        draft: &mut Draft<'_>,
        table: Table,
        folder: &str,
        left: &mut usize,
        on_leaf: &mut impl FnMut(&mut Draft<'_>, Table, &[u8]) -> Result<(), Refusal>,
    ) -> Result<bool, Refusal> {
        let parent = draft.keyring().names().folder(self.mount, folder.as_bytes());
        let mut after: Option<Vec<u8>> = None;
        loop {
            let keys = draft.keys_below(table, &parent.0, after.as_deref(), LEAVES_PER_LOOK)?;
            if keys.is_empty() {
                return Ok(true);
            }
            for key in &keys {
                if *left == 0 || !draft.has_room(0) {
                    return Ok(false);
                }
                on_leaf(draft, table, key)?;
                draft.remove(table, key)?;
                *left -= 1;
            }
            after = keys.into_iter().next_back();
        }
    }

    /// Names of some of the folders in `folder`; none only if there are none.
    fn some_folders(self, draft: &mut Draft<'_>, folder: &str) -> Result<Vec<String>, Refusal> {
        let parent = draft.keyring().names().folder(self.mount, folder.as_bytes());
        let keys = draft.keys_below(Table::Folders, &parent.0, None, FOLDERS_PER_LOOK)?;
        keys.iter().map(|key| name_of(draft.keyring(), parent, key)).collect()
    }
}

/// The name that a row's key seals.
fn name_of(keyring: &Keyring, parent: Id, key: &[u8]) -> Result<String, Refusal> {
    let name = keyring.names().open(parent, key.get(parent.0.len()..).unwrap_or_default()).map_err(integrity)?;
    Ok(String::from_utf8_lossy(&name).into_owned())
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// A way through all leaves of a mount that stands still, some at a time. Remembers where it is.
#[derive(Debug, Clone)]
pub struct Walk {
    tree: Tree,
    /// Folders to go through, the next one last.
    folders: Vec<String>,
    /// The last leaf that was seen in that folder.
    after: Option<Vec<u8>>,
}

impl Walk {
    /// From the beginning.
    pub fn of(mount: Id, leaves: Table) -> Self {
        Self { tree: Tree { mount, leaves }, folders: vec![String::new()], after: None }
    }

    /// Paths of the next leaves: at most `limit`, and as many as one command of work in pieces takes when it moves them;
    /// none at the end.
    ///
    /// # Errors
    /// A row cannot be read or a name does not open.
    pub fn some(&mut self, keyring: &Keyring, reader: &Reader, limit: usize) -> Result<Vec<String>, Refusal> {
        let (mut paths, mut bytes) = (Vec::new(), 0);
        while let Some(folder) = self.folders.last().cloned() {
            let parent = keyring.names().folder(self.tree.mount, folder.as_bytes());
            let after = self.after.as_deref();
            let rows = reader.children(self.tree.leaves, &parent.0, after, LEAVES_PER_LOOK).map_err(storage)?;
            if rows.is_empty() {
                self.folders.pop();
                self.after = None;
                for row in reader.children(Table::Folders, &parent.0, None, usize::MAX).map_err(storage)? {
                    self.folders.push(join(&folder, &name_of(keyring, parent, &row.key)?));
                }
            }
            for row in rows {
                let path = join(&folder, &name_of(keyring, parent, &row.key)?);
                // The value, and the path in the names of what comes and goes.
                bytes += row.body.len() + 4 * path.len() + LEAF_OVERHEAD_BYTES;
                if !paths.is_empty() && (paths.len() == limit || bytes > PIECE_BYTES_MAX) {
                    return Ok(paths);
                }
                paths.push(path);
                self.after = Some(row.key);
            }
        }
        Ok(paths)
    }
}
