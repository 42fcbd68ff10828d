//! The first part, on a node that does not run: what it knows, and the step that cannot be taken back.

use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use keyward_audit::Journal;
use keyward_model::event::{Event, EventKind, EventOutcome, ObjectChange, Subject, Ulid};
use keyward_model::{Clock, Entropy, Id};
use keyward_raft::{REMOVED, Survivor};
pub use keyward_raft::{Remains, Role};
use keyward_storage::Store;

use super::Recovery;
use crate::boot::{self, BootError};
use crate::cluster::node::ClusterError;
use crate::cluster::rows::{self, NodeRow};
use crate::config::Config;
use crate::identity::Identity;
use crate::seal;

/// A stopped node, held so that it cannot be started meanwhile.
pub struct Stopped {
    config: Config,
    node: Id,
    number: u64,
    cluster: Id,
    rows: Vec<(u64, NodeRow)>,
    survivor: Survivor,
    journal: Journal,
    _store: Store,
}

/// A member that would be left out.
#[derive(Debug, Clone)]
pub struct Other {
    /// The number that Raft knows it by.
    pub number: u64,
    /// What it counts for; `None` if it was let in and not added yet.
    pub role: Option<Role>,
    /// What the state knows of it, if it has a row.
    pub row: Option<NodeRow>,
    /// Host and port where it is reached: as its row says, or else as the log does.
    pub address: Option<String>,
}

impl Stopped {
    /// Opens the data folder of a node that does not run.
    ///
    /// # Errors
    /// It runs, is another user's, was never initialised, is damaged, is no member of a cluster with others, or was removed:
    /// the state that it would go on with says that it is none of it.
    pub fn open(config: &Config, entropy: Arc<dyn Entropy>) -> Result<Self, BootError> {
        let refuse = |why: &str| Err(ClusterError::Content(format!("{}: {why}", config.data.display())).into());
        if !config.data.join("state").exists() {
            return refuse(
                "there is no node here: name its data folder with --data, or its configuration with --config",
            );
        }
        let folder = fs::metadata(&config.data);
        let folder = folder.map_err(|source| BootError::File { path: config.data.clone(), source })?;
        if let Some(why) = of_another_user(folder.uid(), rustix::process::geteuid().as_raw()) {
            return refuse(&why);
        }
        let store = Store::open(&config.data.join("state"), &keyward_storage::Options::default())?;
        let identity = Identity::of_folder(&config.data, &*entropy)?;
        let (node, number) = (identity.node, identity.raft_id());
        let reader = store.reader()?;
        let Some(installation) = seal::installation(&reader).map_err(BootError::Start)? else {
            return refuse(
                "this node was never initialised and never got the state of a cluster: it has nothing to go on with",
            );
        };
        if rows::is_gone(&reader, number).map_err(BootError::Start)? {
            return refuse(REMOVED);
        }
        let rows = rows::nodes(&reader).map_err(BootError::Start)?;
        drop(reader);
        let log = boot::log_options(None);
        let survivor = Survivor::open(number, config.data.join("log"), log, &store, entropy)?;
        let begun = Recovery::read(&config.data.join("cluster"))?.is_some();
        if survivor.is_alone() && !begun {
            return refuse("this node is alone: it needs nobody else, there is nothing to recover from");
        }
        let journal = boot::open_journal(config, identity)?;
        let cluster = installation.cluster;
        Ok(Self { config: config.clone(), node, number, cluster, rows, survivor, journal, _store: store })
    }

    /// The node's id.
    pub fn node(&self) -> Id {
        self.node
    }

    /// The cluster that it is of.
    pub fn cluster(&self) -> Id {
        self.cluster
    }

    /// What it knows.
    pub fn remains(&self) -> &Remains {
        self.survivor.remains()
    }

    /// What it counts for; `None` if it is no member as far as it knows.
    pub fn role(&self) -> Option<Role> {
        self.remains().members.iter().find(|member| member.node == self.number).map(|member| member.role)
    }

    /// How many voters there are, this node included if it is one.
    pub fn voters(&self) -> usize {
        self.remains().members.iter().filter(|member| member.role == Role::Voter).count()
    }

    /// Everybody else, by number.
    pub fn others(&self) -> Vec<Other> {
        let members = &self.remains().members;
        let mut numbers: Vec<u64> = members.iter().map(|member| member.node).collect();
        numbers.extend(self.rows.iter().map(|(number, _)| *number));
        numbers.sort_unstable();
        numbers.dedup();
        let other = |number: u64| {
            let member = members.iter().find(|member| member.node == number);
            let row = self.rows.iter().find(|(known, _)| *known == number).map(|(_, row)| row.clone());
            let address = row.as_ref().map(|row| &row.node_address).or(member.map(|member| &member.address)).cloned();
            Other { number, role: member.map(|member| member.role), row, address }
        };
        numbers.into_iter().filter(|number| *number != self.number).map(other).collect()
    }

    /// Makes this node the only member. Recorded in its audit trail before, and after.
    ///
    /// # Errors
    /// Something cannot be written. Whatever was, it can be tried again.
    pub fn recover(self, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<Recovery, BootError> {
        let last = self.remains().last.map_or((0, 0), |last| (last.index, last.term));
        let recovery = Recovery::begin(Id::random(entropy), clock.now(), last);
        let own = self.remains().members.iter().find(|member| member.node == self.number);
        let row = || self.rows.iter().find(|(number, _)| *number == self.number).map(|(_, row)| &row.node_address);
        let address = own.map(|own| &own.address).or_else(row).cloned().unwrap_or_default();
        let left_out: Vec<String> = self.others().iter().map(|other| format!("{:016x}", other.number)).collect();
        let object = format!(
            "cluster, alone from entry {} of term {} as {}, without {}",
            recovery.index,
            recovery.term,
            recovery.cluster.to_uuid(),
            left_out.join(" ")
        );
        let record = |outcome| {
            let mut event = Event::new(Ulid::new(clock.now(), entropy), clock.now(), EventKind::SysConfig, outcome);
            event.action = Some("recover");
            event.channel = Some("cli");
            let user = rustix::process::getuid().as_raw().to_string();
            event.subject = Some(Subject { kind: "host-user", id: Cow::Owned(user) });
            event.change = Some(ObjectChange { object: Cow::Borrowed(&object) });
            let mut batch = self.journal.batch();
            batch.push(&event);
            self.journal.append(&mut batch).and_then(|()| self.journal.sync())
        };
        record(EventOutcome::Intent)?;
        recovery.keep(&self.config.data.join("cluster"))?;
        let path = self.config.data.join("log");
        let stood = self.survivor.stand_alone(&address).map_err(|source| BootError::File { path, source });
        record(if stood.is_ok() { EventOutcome::Success } else { EventOutcome::Error })?;
        stood.map(|()| recovery)
    }
}

impl std::fmt::Debug for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopped").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Why the user `me` may not work in the folder of `owner`, who could not read what it leaves there.
fn of_another_user(owner: u32, me: u32) -> Option<String> {
    (owner != me).then(|| {
        format!(
            "it belongs to the user with the number {owner}, and this is run by {me}: the server could not read what is \
             written here\nrun it as that user: sudo -u '#{owner}' keyward operator recover …"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_even_root_works_in_the_folder_of_another_user() {
        assert_eq!(of_another_user(998, 998), None);
        assert!(of_another_user(998, 0).unwrap().contains("sudo -u '#998'"));
    }
}
