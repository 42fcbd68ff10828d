//! A file system in memory that keeps what is durable apart from what is merely written, counts every step that
//! changes something, and can lose power at any of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyward_model::{Entropy, SeededEntropy};

use super::{File, Fs, Open};

/// What a power cut leaves of the bytes that were written but not yet durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Nothing.
    All,
    /// The writes in their order up to a random byte.
    Suffix,
    /// A random choice of 512-byte sectors, in no order.
    Sectors,
}

/// An error to be given at a step instead of doing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The device answers with EIO; what was being made durable may be lost.
    Io,
    /// No step after this one does anything, this one included: the power is gone.
    PowerCut,
}

/// The simulated file system. Clones share the same files.
#[derive(Clone, Default, Debug)]
pub struct SimFs(Arc<Mutex<State>>);

#[derive(Default, Debug)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<Naming>,
    nodes: Vec<Node>,
    steps: u64,
    fault: Option<(u64, Fault)>,
    dead: bool,
    capacity: Option<u64>,
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
enum Naming {
    New(PathBuf, usize),
    Gone(PathBuf),
    Moved(PathBuf, PathBuf),
}

#[derive(Clone, Default, Debug)]
struct Node {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

impl SimFs {
    /// An empty file system without faults and without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of steps (writes, syncs, creations, removals) taken so far.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Lets `fault` happen at step number `step` (the first is 0).
    pub fn fail_at(&self, step: u64, fault: Fault) {
        self.state().fault = Some((step, fault));
    }

    /// Limits the bytes that all files together may hold; `None` lifts the limit.
    pub fn limit(&self, capacity: Option<u64>) {
        self.state().capacity = capacity;
    }

    /// The file system as it is found after a power cut now: `loss` decides what becomes of bytes that were not durable.
    pub fn after_crash(&self, loss: Loss, seed: u64) -> Self {
        let chance = SeededEntropy::new(seed);
        let state = self.state();
        let nodes = state.nodes.iter().map(|node| node.after_crash(loss, &chance)).collect();
        let mut names = state.durable_names.clone();
        let kept = match loss {
            Loss::All => 0,
            Loss::Suffix | Loss::Sectors => below(&chance, state.pending_names.len() + 1),
        };
        for naming in state.pending_names.iter().take(kept) {
            match naming {
                Naming::New(path, node) => names.insert(path.clone(), *node),
                Naming::Gone(path) => names.remove(path),
                Naming::Moved(from, to) => names.remove(from).and_then(|node| names.insert(to.clone(), node)),
            };
        }
        Self(Arc::new(Mutex::new(State {
            durable_names: names.clone(),
            names,
            nodes,
            capacity: state.capacity,
            ..State::default()
        })))
    }

    /// Overwrites bytes of a file behind everyone's back, durably: damage.
    pub fn damage(&self, path: &Path, offset: usize, bytes: &[u8]) {
        let mut state = self.state();
        if let Some(node) = state.names.get(path).copied().and_then(|id| state.nodes.get_mut(id)) {
            put(&mut node.now, offset, bytes);
            put(&mut node.durable, offset, bytes);
        }
    }

    /// A file's bytes as a reader sees them now.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(path).and_then(|id| state.nodes.get(*id)).map(|node| node.now.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a step and gives the fault that is due at it.
    fn step(&mut self) -> Result<(), Fault> {
        if self.dead {
            return Err(Fault::PowerCut);
        }
        let step = self.steps;
        self.steps += 1;
        match self.fault {
            Some((at, fault)) if at == step => {
                self.dead = fault == Fault::PowerCut;
                Err(fault)
            }
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|id| self.nodes.get(*id)).map(|node| node.now.len() as u64).sum()
    }
}

impl Node {
    fn after_crash(&self, loss: Loss, chance: &SeededEntropy) -> Self {
        let mut durable = self.durable.clone();
        match loss {
            Loss::All => {}
            Loss::Suffix => {
                let total: usize = self.pending.iter().map(|(_, bytes)| bytes.len()).sum();
                let mut left = below(chance, total + 1);
                for (offset, bytes) in &self.pending {
                    let part = left.min(bytes.len());
                    put(&mut durable, *offset, &bytes[..part]);
                    left -= part;
                }
            }
            Loss::Sectors => {
                for (offset, bytes) in &self.pending {
                    let mut at = 0;
                    while at < bytes.len() {
                        let part = (512 - (offset + at) % 512).min(bytes.len() - at);
                        if below(chance, 2) == 0 {
                            put(&mut durable, offset + at, &bytes[at..at + part]);
                        }
                        at += part;
                    }
                }
            }
        }
        Self { now: durable.clone(), durable, pending: Vec::new() }
    }
}

fn put(into: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset + bytes.len();
    if into.len() < end {
        into.resize(end, 0);
    }
    into[offset..end].copy_from_slice(bytes);
}

fn below(chance: &SeededEntropy, bound: usize) -> usize {
    let mut bytes = [0; 8];
    chance.fill(&mut bytes);
    usize::try_from(u64::from_le_bytes(bytes) % bound.max(1) as u64).unwrap_or_default()
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Io => io::Error::other("simulated input/output error"),
        Fault::PowerCut => io::Error::other("simulated power cut"),
    }
}

impl Fs for SimFs {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        let node = match (state.names.get(path).copied(), how) {
            (Some(node), Open::Existing) => node,
            (None, Open::New) => {
                state.step().map_err(error)?;
                let node = state.nodes.len();
                state.nodes.push(Node::default());
                state.names.insert(path.to_path_buf(), node);
                state.pending_names.push(Naming::New(path.to_path_buf(), node));
                node
            }
            (Some(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, Open::Existing) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimFile { fs: self.clone(), node }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let here = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step().map_err(error)?;
        let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), node);
        state.pending_names.push(Naming::Moved(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step().map_err(error)?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.pending_names.push(Naming::Gone(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step().map_err(error)?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }

    fn available(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used())))
    }
}

#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    node: usize,
}

impl File for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.fs.state();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let grows = state.nodes.get(self.node).map_or(0, |node| (offset + bytes.len()).saturating_sub(node.now.len()));
        if state.capacity.is_some_and(|capacity| state.used() + grows as u64 > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let powered = !state.dead;
        let fate = state.step();
        if powered
            && fate != Err(Fault::Io)
            && let Some(node) = state.nodes.get_mut(self.node)
        {
            // A write that the power cut interrupts may leave any part of itself behind: `after_crash` decides.
            put(&mut node.now, offset, bytes);
            node.pending.push((offset, bytes.to_vec()));
        }
        fate.map_err(error)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.fs.state();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let rest = state.nodes.get(self.node).and_then(|node| node.now.get(offset..)).unwrap_or_default();
        let size = rest.len().min(buffer.len());
        buffer[..size].copy_from_slice(&rest[..size]);
        Ok(size)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.fs.state().nodes.get(self.node).map_or(0, |node| node.now.len() as u64))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.fs.state();
        let fate = state.step();
        if let Some(node) = state.nodes.get_mut(self.node) {
            match fate {
                Ok(()) => node.durable = node.now.clone(),
                // As the kernel does it: the pages count as clean from now on, and a second sync would say all is well.
                Err(Fault::Io) => {}
                Err(Fault::PowerCut) => return Err(error(Fault::PowerCut)),
            }
            node.pending.clear();
        }
        fate.map_err(error)
    }
}
