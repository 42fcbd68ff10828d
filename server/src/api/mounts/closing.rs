//! What closed a mount is done to its end: entries become versions, or everything below it goes.
//!
//! A mount is closed in one command and stays so until the work is done, in as many bounded commands as it takes. The
//! request that closed it does that; after a restart, or where the request ended early, the jobs do. Two at once do no
//! harm: each command looks at what is left.

use std::cell::RefCell;

use keyward_model::event::EventKind;
use keyward_model::{Id, Table};

use super::put;
use crate::api::kv2;
use crate::app::Worker;
use crate::barrier::Draft;
use crate::engine::tree::{Tree, Walk};
use crate::mounts::{Closed, Kind, Mount, decode};
use crate::record::Facts;
use crate::refusal::Refusal;

/// Leaves that one command moves, or leaves and folders that it removes, at most.
const LEAVES_PER_COMMAND: usize = 256;

/// The work on one closed mount, and where it stands.
#[derive(Debug)]
pub struct Closing {
    mount: Id,
    walk: Walk,
}

/// Whether there is more to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Another piece.
    Some,
    /// The mount is open again, or gone.
    Nothing,
}

impl Closing {
    /// The work on this mount, from its beginning.
    pub fn of(mount: &Mount) -> Self {
        Self { mount: mount.id, walk: Walk::of(mount.id, Table::Entries) }
    }

    /// Does a bounded piece, with `facts` as its record.
    ///
    /// # Errors
    /// Sealed, a row does not open, or nothing can be written: what was done before stays done.
    pub async fn step(&mut self, worker: &Worker, facts: &RefCell<Facts>) -> Result<Left, Refusal> {
        let opened = worker.app.barrier.read(worker.reader(), Table::Mounts, &self.mount.0)?;
        let mount = opened.map(|opened| decode(opened.body.expose())).transpose()?;
        match mount.and_then(|mount| mount.closed) {
            Some(Closed::Raising) => self.raise_some(worker, facts).await,
            Some(Closed::Removing) => self.remove_some(worker, facts).await,
            None => Ok(Left::Nothing),
        }
    }

    /// All pieces, for the request that closed the mount.
    ///
    /// # Errors
    /// As [`Closing::step`]; the jobs go on with what is left.
    pub async fn finish(mut self, worker: &Worker, facts: &RefCell<Facts>) -> Result<(), Refusal> {
        while self.step(worker, facts).await? == Left::Some {}
        Ok(())
    }

    /// Makes some entries of a KV v1 mount the first versions of secrets, and opens the mount as v2 when none is left.
    async fn raise_some(&mut self, worker: &Worker, facts: &RefCell<Facts>) -> Result<Left, Refusal> {
        let keys = worker.app.barrier.keyring()?;
        let (old, new) =
            (Tree { mount: self.mount, leaves: Table::Entries }, Tree { mount: self.mount, leaves: Table::Secrets });
        let mut walk = self.walk.clone();
        let paths = walk.some(&keys, worker.reader(), LEAVES_PER_COMMAND)?;
        let (left, _) = worker
            .write(facts, |draft| {
                let Some(mut mount) = self.still(draft, Closed::Raising)? else { return Ok(Left::Nothing) };
                for path in &paths {
                    let key = old.key(draft.keyring(), path);
                    let Some(entry) = draft.get(Table::Entries, &key)? else { continue };
                    draft.remove(Table::Entries, &key)?;
                    kv2::put_first_version(draft, new, path, entry.body.expose())?;
                }
                if !paths.is_empty() {
                    return Ok(Left::Some);
                }
                mount.kind = Kind::Kv2;
                mount.closed = None;
                put(draft, &mount)?;
                Ok(Left::Nothing)
            })
            .await?;
        self.walk = walk;
        Ok(left)
    }

    /// Removes some of what is below the mount, and with the last of it the mount.
    async fn remove_some(&self, worker: &Worker, facts: &RefCell<Facts>) -> Result<Left, Refusal> {
        let tree = Tree { mount: self.mount, leaves: Table::Entries };
        let (left, _) = worker
            .write(facts, |draft| {
                if self.still(draft, Closed::Removing)?.is_none() {
                    return Ok(Left::Nothing);
                }
                let mut left = LEAVES_PER_COMMAND;
                let erase = |draft: &mut Draft<'_>, table, key: &[u8]| match table {
                    Table::Secrets => kv2::erase_leaf(draft, key),
                    _ => Ok(()),
                };
                if !tree.clear(draft, &mut left, erase)? {
                    return Ok(Left::Some);
                }
                draft.remove(Table::Mounts, &self.mount.0)?;
                Ok(Left::Nothing)
            })
            .await?;
        Ok(left)
    }

    /// The mount, if it is still closed for this.
    fn still(&self, draft: &mut Draft<'_>, closed: Closed) -> Result<Option<Mount>, Refusal> {
        let Some(opened) = draft.get(Table::Mounts, &self.mount.0)? else { return Ok(None) };
        Ok(Some(decode(opened.body.expose())?).filter(|mount| mount.closed == Some(closed)))
    }
}

/// What the record says of work that the server goes on with by itself.
pub fn facts_of_server(worker: &Worker) -> Facts {
    let mut facts = Facts::of_server(&worker.app.barrier);
    facts.set(EventKind::SysConfig, "administer", "system");
    facts.object = Some("mount");
    facts
}

#[cfg(test)]
mod tests;
