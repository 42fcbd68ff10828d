//! Which file is the database. At first `state.db`; each snapshot that is installed gets a name of its own, and a small file
//! beside it says which one counts. So the readers of the old state keep it until they let go, and a name is never that of
//! another file before: what SQLite leaves beside the one can never be taken for the other's.

use std::fs::{read_dir, read_to_string, remove_file, rename};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::store::{Store, beside, private, sync_directory};
use crate::{Position, StoreError};

/// The name of the file that says so.
const POINTER: &str = "state.current";

/// Which file counts, and how it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Current {
    /// How many snapshots were installed before; 0 is the file that the node began with.
    number: u64,
    /// The last entry that the snapshot held when it was installed.
    installed: Option<u64>,
}

impl Current {
    /// What counts in `directory`.
    pub(crate) fn read(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(POINTER);
        let text = match read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self { number: 0, installed: None }),
            Err(e) => return Err(StoreError::file("reading", &path, &e)),
        };
        let mut words = text.strip_suffix('\n').into_iter().flat_map(|line| line.split(' '));
        let mut number = || words.next()?.parse::<u64>().ok();
        match (number(), number(), words.next()) {
            (Some(number), Some(installed), None) => Ok(Self { number, installed: Some(installed) }),
            _ => Err(StoreError::Foreign { path, what: "it does not say which state counts".to_owned() }),
        }
    }

    /// The one after this, which holds everything up to `applied`.
    pub(crate) fn next(&self, applied: Option<Position>) -> Self {
        Self { number: self.number + 1, installed: Some(applied.map_or(0, |at| at.index)) }
    }

    /// The last entry that the snapshot held when it was installed, if it was one.
    pub(crate) fn installed(&self) -> Option<u64> {
        self.installed
    }

    /// Its file in `directory`.
    pub(crate) fn file(&self, directory: &Path) -> PathBuf {
        directory.join(name(self.number))
    }

    /// Makes it the one that counts, durably.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), StoreError> {
        let path = directory.join(POINTER);
        let arriving = beside(&path, ".new");
        discard(&arriving)?;
        let mut file = private(&arriving)?;
        let written = writeln!(file, "{} {}", self.number, self.installed.unwrap_or(0)).and_then(|()| file.sync_all());
        written.map_err(|e| StoreError::file("writing", &arriving, &e))?;
        rename(&arriving, &path).map_err(|e| StoreError::file("renaming", &arriving, &e))?;
        sync_directory(directory)
    }

    /// Takes away what another state left in `directory`.
    pub(crate) fn clean(&self, directory: &Path) -> Result<(), StoreError> {
        let failed = |e: std::io::Error| StoreError::file("listing", directory, &e);
        let own = name(self.number);
        for entry in read_dir(directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            let base = name.strip_suffix("-wal").or_else(|| name.strip_suffix("-shm")).unwrap_or(name);
            if base != own && is_state(base) {
                discard(&directory.join(name))?;
            }
        }
        Ok(())
    }
}

/// Takes `file` away, with what SQLite keeps beside it.
pub(crate) fn discard_state(file: &Path) -> Result<(), StoreError> {
    for ending in ["", "-wal", "-shm"] {
        discard(&beside(file, ending))?;
    }
    Ok(())
}

pub(crate) fn discard(path: &Path) -> Result<(), StoreError> {
    match remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::file("removing", path, &e)),
        _ => Ok(()),
    }
}

fn name(number: u64) -> String {
    if number == 0 { Store::FILE.to_owned() } else { format!("state-{number}.db") }
}

fn is_state(name: &str) -> bool {
    let number = name.strip_prefix("state-").and_then(|rest| rest.strip_suffix(".db"));
    name == Store::FILE || number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}
