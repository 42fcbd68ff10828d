//! Which files belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::line;
use crate::reader::{Reader, Token};

/// The segments of one stream in one folder, in order.
#[derive(Debug)]
pub(super) struct Trail {
    pub(super) stream: String,
    pub(super) folder: PathBuf,
    /// The folder was given, not single files: the stream must begin with its first record.
    pub(super) whole: bool,
    /// Each with the `seq` that it claims to begin with.
    pub(super) segments: Vec<(u64, PathBuf)>,
}

impl Trail {
    /// The `seq` that it claims to begin with.
    fn first(&self) -> u64 {
        self.segments.first().map_or(0, |(first, _)| *first)
    }

    /// `seq` of the last record that can be read; where none can, what the last segment claims to begin with.
    fn last(&self) -> io::Result<u64> {
        let Some((mut last, path)) = self.segments.last().cloned() else { return Ok(0) };
        let mut reader = Reader::open(&path)?;
        while let Some((_, token)) = reader.token()? {
            if let Token::Line(bytes) = token
                && let Ok(line) = line::parse(bytes)
            {
                last = last.max(line.seq);
            }
        }
        Ok(last)
    }
}

/// Joins the trails of one stream that follow each other, as closed segments do that were moved to an archive, and what came
/// after them. Trails that overlap are copies, and stay apart.
pub(super) fn joined(mut copies: Vec<Trail>) -> io::Result<Vec<Trail>> {
    if copies.len() < 2 {
        return Ok(copies);
    }
    copies.sort_by_key(Trail::first);
    let mut out: Vec<(u64, Trail)> = Vec::new();
    for trail in copies {
        let last = trail.last()?;
        let before = out.iter_mut().filter(|(end, _)| *end < trail.first()).max_by_key(|(end, _)| *end);
        match before {
            Some((end, one)) => {
                *end = last;
                one.folder = trail.folder;
                one.segments.extend(trail.segments);
            }
            None => out.push((last, trail)),
        }
    }
    // What came before such a copy begins is in another one, which must agree with it where both go on.
    let ranges: Vec<(u64, u64)> = out.iter().map(|(last, trail)| (trail.first(), *last)).collect();
    for (_, trail) in &mut out {
        let first = trail.first();
        trail.whole &= !ranges.iter().any(|(from, to)| *from < first && first <= *to);
    }
    Ok(out.into_iter().map(|(_, trail)| trail).collect())
}

/// Sorts files into trails, by stream.
pub(super) fn trails(paths: &[PathBuf]) -> io::Result<Vec<Trail>> {
    let mut files = BTreeSet::new();
    for path in paths {
        if !path.is_dir() {
            files.insert((false, beginning(path.clone())?));
            continue;
        }
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                files.insert((true, beginning(path)?));
            }
        }
    }
    let mut trails: BTreeMap<(String, PathBuf, bool), Trail> = BTreeMap::new();
    for (whole, Segment { stream, first, path }) in files {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let trail = trails.entry((stream.clone(), folder.clone(), whole));
        trail.or_insert(Trail { stream, folder, whole, segments: Vec::new() }).segments.push((first, path));
    }
    Ok(trails.into_values().collect())
}

/// A segment file and what it claims to begin with.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Segment {
    stream: String,
    first: u64,
    path: PathBuf,
}

/// Asks the first record, or if it cannot be read the file's name, where a segment belongs.
fn beginning(path: PathBuf) -> io::Result<Segment> {
    let mut reader = Reader::open(&path)?;
    if let Some((_, Token::Line(bytes))) = reader.token()?
        && let Ok(line) = line::parse(bytes)
    {
        return Ok(Segment { stream: line.stream.to_owned(), first: line.seq, path });
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let (stream, first) = name.rsplit_once('.').unwrap_or((&name, ""));
    Ok(Segment { stream: stream.to_owned(), first: first.parse().unwrap_or(0), path })
}
