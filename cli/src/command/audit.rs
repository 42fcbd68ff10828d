//! `audit`: is the audit trail what was written? Needs no server, only its files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keyward_audit::SignedHead;
use keyward_audit::verify::{Expected, FindingKind, Head, Report, verify};
use serde_json::Value;

use super::Session;
use crate::error::CliError;
use crate::output::Format;

/// Exit code for a trail that is not whole.
const TAMPERED: u8 = 1;
/// Exit code for arguments that cannot be used.
pub(crate) const USAGE: u8 = 2;
/// Exit code for files that cannot be read.
const UNREADABLE: u8 = 3;

/// What to do with the audit trail.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Check that every record is there, unchanged and in order
    Verify(Verify),
    /// Show where the audit streams of all nodes stand, as each node signed it: keep it elsewhere
    Heads,
}

/// What to check, and against what.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 whole, 1 not whole, 2 usage, 3 cannot be read. In a pipe the report is JSON unless --format says otherwise.\n\nExamples:\n  keyward audit verify --keys audit-keys.txt /var/lib/keyward/audit\n  keyward audit heads > heads.txt\n  keyward audit verify --heads heads.txt node1/audit node2/audit node3/audit"
)]
pub(crate) struct Verify {
    /// A folder of segment files, or one segment file
    #[arg(long, value_name = "PATH", conflicts_with = "paths")]
    from: Option<PathBuf>,
    /// Folders and files, of one node or of all
    #[arg(required_unless_present = "from", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only this stream
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Records that must be there: what `keyward audit heads` showed, or one JSON object with `stream`, `seq` and `hash`
    /// on a line. Without them, a tail that was cut off cannot be missed
    #[arg(long, visible_alias = "heads", value_name = "FILE")]
    checkpoints: Option<PathBuf>,
    /// Ask the server for the heads that its cluster keeps
    #[arg(long)]
    cluster: bool,
    /// The nodes' public audit keys in hex, one on a line: without them, a signature shows an edit but not a forger
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// A trail that is not whole, and whatever keeps it from being read; the exit codes are this command's own.
pub(crate) fn run(session: &mut Session, command: &Command) -> Result<(), CliError> {
    let arguments = match command {
        Command::Verify(arguments) => arguments,
        Command::Heads => return show_heads(session),
    };
    match check(session, arguments) {
        Ok(report) => {
            show(session, &report)?;
            if report.ok { Ok(()) } else { Err(CliError::Quiet(TAMPERED)) }
        }
        Err(error) => {
            session.output.hint(error.explain().trim_end());
            Err(CliError::Quiet(if matches!(error, CliError::Usage(_)) { USAGE } else { UNREADABLE }))
        }
    }
}

fn check(session: &mut Session, arguments: &Verify) -> Result<Report, CliError> {
    let paths: Vec<PathBuf> = arguments.from.iter().chain(&arguments.paths).cloned().collect();
    let keys = arguments.keys.as_deref().map(|file| lines(file, key)).transpose()?.unwrap_or_default();
    let mut heads = arguments.checkpoints.as_deref().map(|file| lines(file, head)).transpose()?.unwrap_or_default();
    if arguments.cluster {
        let kept = of_cluster(session)?;
        for line in texts(&kept) {
            heads.push(head(line).ok_or_else(|| CliError::Unexpected("a head is not what its node signed".into()))?);
        }
    }
    let expected = Expected { stream: arguments.stream.clone(), keys, heads };
    if let Some(absent) = paths.iter().find(|path| !path.exists()) {
        return Err(CliError::file(absent, "cannot read the audit trail in", &io::ErrorKind::NotFound.into()));
    }
    let shown = || paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join("`, `");
    let report = verify(&paths, &expected)
        .map_err(|error| CliError::Local(format!("cannot read the audit trail in `{}`: {error}", shown())))?;
    if report.streams.is_empty() {
        return Err(CliError::Local(format!("there is no audit trail in `{}`: it holds no segment file", shown())));
    }
    Ok(report)
}

/// What the cluster keeps of its nodes' streams.
fn of_cluster(session: &mut Session) -> Result<Value, CliError> {
    let answer = session.client()?.get("sys/audit-heads", &[])?;
    Ok(answer.map(|answer| answer.body["data"]["heads"].clone()).unwrap_or_default())
}

/// The heads as their nodes signed them.
fn texts(heads: &Value) -> impl Iterator<Item = &str> {
    heads.as_array().into_iter().flatten().filter_map(|head| head["checkpoint"].as_str())
}

fn show_heads(session: &mut Session) -> Result<(), CliError> {
    let heads = of_cluster(session)?;
    if session.output.format() != Format::Table || session.output.field().is_some() {
        return session.output.document(&heads);
    }
    session.output.text(&texts(&heads).map(|line| format!("{line}\n")).collect::<String>())
}

fn show(session: &mut Session, report: &Report) -> Result<(), CliError> {
    let document =
        serde_json::to_value(report).map_err(|error| CliError::Local(format!("cannot show the report: {error}")))?;
    session.prefer_in_pipes(Format::Json);
    let rows: Vec<_> = report
        .streams
        .iter()
        .map(|stream| {
            let verdict = match (stream.ok, stream.torn_tail) {
                (true, false) => "whole",
                (true, true) => "whole; the last write was cut off by a crash",
                (false, _) => "NOT WHOLE",
            };
            let numbers = [stream.first, stream.last, stream.events, stream.checkpoints];
            let mut row = vec![stream.stream.clone(), stream.folder.display().to_string()];
            row.extend(numbers.map(|number| number.to_string()));
            row.push(verdict.to_owned());
            row
        })
        .collect();
    session.output.rows(
        &document,
        &["Stream", "Folder", "First", "Last", "Records", "Checkpoints", "Verdict"],
        &rows,
    )?;
    for stream in &report.streams {
        for finding in &stream.errors {
            let file = finding.file.as_ref().map(|file| format!(", {}", file.display())).unwrap_or_default();
            let what = match finding.kind {
                FindingKind::Gap if finding.seq > stream.last => "the end is missing: the heads remember later records",
                kind => words(kind),
            };
            session.output.hint(&format!("{} at record {}{file}: {what}", stream.stream, finding.seq));
        }
        if stream.errors_omitted > 0 {
            session.output.hint(&format!("{}: {} more findings", stream.stream, stream.errors_omitted));
        }
    }
    Ok(())
}

const fn words(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Gap => "records are missing here",
        FindingKind::HashMismatch => "the record was changed",
        FindingKind::PrevMismatch => "the record does not follow the one before it",
        FindingKind::BadSignature => "the checkpoint's signature is false",
        FindingKind::UnknownKey => "the checkpoint is signed with a key that is not among --keys",
        FindingKind::MissingCheckpoint => "a checkpoint is missing",
        FindingKind::MerkleMismatch => "the checkpoint does not fit the records it covers",
        FindingKind::Fork => "two different records claim this place",
        FindingKind::DuplicateSeq => "the record stands here a second time",
        FindingKind::NonCanonical => "these bytes are no record as it is written",
    }
}

/// Each line that is neither empty nor a comment, read by `read`.
fn lines<T>(file: &Path, read: fn(&str) -> Option<T>) -> Result<Vec<T>, CliError> {
    let text = fs::read_to_string(file).map_err(|error| CliError::file(file, "cannot read", &error))?;
    text.lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            read(line).ok_or_else(|| CliError::Usage(format!("`{}` line {number} is not of its kind", file.display())))
        })
        .collect()
}

fn key(line: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    hex::decode_to_slice(line, &mut key).ok()?;
    Some(key)
}

fn head(line: &str) -> Option<Head> {
    let said: Value = serde_json::from_str(line).ok()?;
    if said.get("signature").is_some() {
        return SignedHead::read(line).ok().map(Head::from);
    }
    Some(Head {
        stream: said["stream"].as_str()?.to_owned(),
        seq: said["seq"].as_u64()?,
        hash: key(said["hash"].as_str()?)?,
        key: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_heads_are_read_strictly() {
        let hex = "00ff".repeat(16);
        assert_eq!(key(&hex).unwrap()[..2], [0, 255]);
        for bad in ["", "00", &hex[1..], &hex.replace('f', "g"), &hex.replace("00", "+1")] {
            assert!(key(bad).is_none(), "{bad}");
        }
        let line = format!(r#"{{"stream":"n1-1","seq":7,"hash":"{hex}"}}"#);
        assert_eq!(head(&line).unwrap().seq, 7);
        assert!(head("{}").is_none() && head("x").is_none());
    }
}
