//! The horizon: a small file beside the log that says how far the log was known to be durable. A log that ends before
//! its horizon has lost acknowledged entries, however intact it looks.
//!
//! It is written where it costs no write anything: at start, by the background thread when a segment is full, after a
//! vote and after a purge, and at a clean stop. In between it lags behind; that is allowed, it is a lower bound.
//! Two slots are written in turn, so that one is always whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{Chain, Fields};
use crate::fs::{File, Fs, Open};

const MAGIC: &[u8; 8] = b"KWHORIZ\x01";
const SLOT_BYTES: usize = 104;
const SLOTS_AT: [u64; 2] = [0, 4096];

/// How far the log is durable, and what the node had promised by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Point {
    /// The segment in which the durable records end; 0 before the first.
    pub(super) seq: u64,
    /// Where in it they end.
    pub(super) end: u32,
    /// The chain there.
    pub(super) chain: Chain,
    /// Index of the last entry, one more than it; 0 for none.
    pub(super) next_index: u64,
    /// Term of the vote.
    pub(super) vote_term: u64,
    /// Node that the vote went to.
    pub(super) vote_node: u64,
}

/// The open horizon file.
pub(super) struct Horizon {
    file: Arc<dyn File>,
    generation: u64,
    incarnation: u64,
}

/// What was found on opening.
pub(super) struct Found {
    pub(super) horizon: Horizon,
    /// The last point written; `None` if the file was not there or never completed.
    pub(super) point: Option<Point>,
}

/// Where the horizon of the log in `dir` stands.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("horizon")
}

impl Horizon {
    /// Opens the file, or makes it.
    pub(super) fn open(fs: &dyn Fs, dir: &Path, exists: bool) -> io::Result<Found> {
        if !exists {
            let file = fs.open(&path(dir), Open::New)?;
            file.write_at(0, &[0; 8192])?;
            file.sync()?;
            fs.sync_dir(dir)?;
            return Ok(Found { horizon: Self { file, generation: 0, incarnation: 0 }, point: None });
        }
        let file = fs.open(&path(dir), Open::Existing)?;
        let mut best: Option<(u64, u64, Point)> = None;
        for at in SLOTS_AT {
            let mut slot = [0; SLOT_BYTES];
            if file.read_at(at, &mut slot)? == SLOT_BYTES
                && let Some(read) = decode(&slot)
                && best.as_ref().is_none_or(|(generation, ..)| read.0 > *generation)
            {
                best = Some(read);
            }
        }
        let (generation, incarnation, point) = match best {
            Some((generation, incarnation, point)) => (generation, incarnation, Some(point)),
            None => (0, 0, None),
        };
        Ok(Found { horizon: Self { file, generation, incarnation }, point })
    }

    /// Counts this start of the node. Durable with the next [`Horizon::write`].
    pub(super) fn count_start(&mut self) -> u64 {
        self.incarnation += 1;
        self.incarnation
    }

    /// Makes `point` durable.
    pub(super) fn write(&mut self, point: &Point) -> io::Result<()> {
        self.generation += 1;
        let [even, odd] = SLOTS_AT;
        let at = if self.generation.is_multiple_of(2) { even } else { odd };
        self.file.write_at(at, &encode(self.generation, self.incarnation, point))?;
        self.file.sync()
    }
}

fn encode(generation: u64, incarnation: u64, point: &Point) -> Vec<u8> {
    let mut slot = MAGIC.to_vec();
    for number in [generation, incarnation, point.seq, point.end.into()] {
        slot.extend(number.to_le_bytes());
    }
    slot.extend(point.chain);
    for number in [point.next_index, point.vote_term, point.vote_node, 0, 0] {
        slot.extend(number.to_le_bytes());
    }
    slot.extend([0; 4]);
    slot.extend(crc32c::crc32c(&slot).to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(u64, u64, Point)> {
    let sum = crc32c::crc32c(slot.get(..SLOT_BYTES - 4)?);
    let mut fields = Fields(slot);
    if fields.array::<8>()? != *MAGIC {
        return None;
    }
    let (generation, incarnation, seq, end) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
    let point = Point {
        seq,
        end: u32::try_from(end).ok()?,
        chain: fields.array()?,
        next_index: fields.u64()?,
        vote_term: fields.u64()?,
        vote_node: fields.u64()?,
    };
    fields.take(20)?;
    (fields.u32()? == sum).then_some((generation, incarnation, point))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::sim::SimFs;

    #[test]
    fn the_newest_whole_slot_counts() {
        let fs = SimFs::new();
        let dir = Path::new("log");
        let mut horizon = Horizon::open(&fs, dir, false).unwrap().horizon;
        horizon.count_start();
        let point = |end| Point { seq: 1, end, chain: [3; 16], next_index: 4, vote_term: 5, vote_node: 6 };
        horizon.write(&point(1)).unwrap();
        horizon.write(&point(2)).unwrap();
        let found = Horizon::open(&fs, dir, true).unwrap();
        assert_eq!((found.point, found.horizon.incarnation), (Some(point(2)), 1));
        fs.damage(&path(dir), 20, &[0xff]);
        assert_eq!(Horizon::open(&fs, dir, true).unwrap().point, Some(point(1)));
        fs.damage(&path(dir), 4096 + 20, &[0xff]);
        assert_eq!(Horizon::open(&fs, dir, true).unwrap().point, None);
    }
}
