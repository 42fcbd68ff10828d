//! Whether files of one stream in two folders tell the same story.

use std::io;
use std::path::PathBuf;
use std::slice::Iter;

use super::trail::Trail;
use crate::line;
use crate::reader::{Reader, Token};

/// The first record that both trails have and do not agree on, with its file in the second.
pub(super) fn between(one: &Trail, other: &Trail) -> io::Result<Option<(u64, PathBuf)>> {
    let (mut one, mut other) = (Walk::along(one), Walk::along(other));
    let (mut left, mut right) = (one.step()?, other.step()?);
    while let (Some((seq, hash)), Some((beside, found))) = (left, right) {
        if seq == beside && hash != found {
            return Ok(other.file.map(|file| (seq, file)));
        }
        if seq <= beside {
            left = one.step()?;
        }
        if beside <= seq {
            right = other.step()?;
        }
    }
    Ok(None)
}

/// The records of a trail, one after the other; what cannot be read is passed over, since it is found elsewhere.
struct Walk<'a> {
    segments: Iter<'a, (u64, PathBuf)>,
    reader: Option<Reader>,
    file: Option<PathBuf>,
}

impl<'a> Walk<'a> {
    fn along(trail: &'a Trail) -> Self {
        Self { segments: trail.segments.iter(), reader: None, file: None }
    }

    /// `seq` and hash of the next record.
    fn step(&mut self) -> io::Result<Option<(u64, [u8; 32])>> {
        loop {
            if let Some(reader) = &mut self.reader {
                while let Some((_, token)) = reader.token()? {
                    if let Token::Line(bytes) = token
                        && let Ok(line) = line::parse(bytes)
                    {
                        return Ok(Some((line.seq, line.hash)));
                    }
                }
            }
            let Some((_, path)) = self.segments.next() else { return Ok(None) };
            self.reader = Some(Reader::open(path)?);
            self.file = Some(path.clone());
        }
    }
}
