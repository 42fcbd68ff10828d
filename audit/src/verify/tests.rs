use std::collections::BTreeSet;
use std::fs;

use keyward_model::{Id, Secret};
use tempfile::TempDir;

use super::*;
use crate::line;
use crate::record::tests::read_event;
use crate::{AuditKey, Durability, Journal, Options};

const STREAM: &str = "11111111-1111-1111-1111-111111111111-0001";

fn key(n: u8) -> AuditKey {
    AuditKey::from_seed(&Secret::new([n; 32])).unwrap()
}

/// Writes a stream of `events` and gives its lines and head.
fn written(dir: &Path, segment_bytes: u64, events: u64, n: u8) -> (Vec<u8>, Head) {
    let options = Options { segment_bytes, durability: Durability::Kernel, key: key(n) };
    let journal = Journal::open(dir, Id([0x11; 16]), 1, options).unwrap();
    let mut batch = journal.batch();
    for event in 0..events {
        batch.push(&read_event(event + u64::from(n) * 1_000_000));
        journal.append(&mut batch).unwrap();
    }
    let (seq, hash) = journal.head();
    let now = read_event(0).ts.plus_seconds(10);
    journal.checkpoint(now).unwrap();
    drop(journal);
    let mut text = Vec::new();
    for path in files(dir) {
        text.extend(fs::read(path).unwrap());
    }
    (text, Head { stream: STREAM.into(), seq, hash, key: None })
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    paths
}

fn check(text: &[u8], expected: &Expected) -> Report {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(format!("{STREAM}.{:020}.jsonl", 1)), text).unwrap();
    verify(&[dir.path().to_owned()], expected).unwrap()
}

fn kinds(text: &[u8], expected: &Expected) -> BTreeSet<FindingKind> {
    check(text, expected).streams.into_iter().flat_map(|stream| stream.errors).map(|finding| finding.kind).collect()
}

fn keys(n: u8) -> Expected {
    Expected { keys: vec![key(n).public()], ..Expected::default() }
}

#[test]
fn a_whole_stream_is_found_whole() {
    let dir = TempDir::new().unwrap();
    let (text, head) = written(dir.path(), 64 << 10, 1_500, 1);
    assert!(files(dir.path()).len() > 5);
    let report = verify(&[dir.path().to_owned()], &Expected { heads: vec![head], ..keys(1) }).unwrap();
    assert_eq!((report.ok, report.streams.len()), (true, 1), "{report:?}");
    let stream = &report.streams[0];
    assert_eq!((stream.first, stream.last, stream.events), (1, stream.events, 1_500 + stream.checkpoints));
    assert!(check(&text, &keys(1)).ok, "in one file as well");
    for path in files(dir.path()) {
        let report = verify(&[path], &keys(1)).unwrap();
        assert!(report.ok, "a segment alone: {report:?}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["streams"][0]["errors"], serde_json::json!([]));
    assert_eq!(json["streams"][0].as_object().unwrap().len(), 8);
}

#[test]
fn every_changed_byte_is_found() {
    let dir = TempDir::new().unwrap();
    let (text, head) = written(dir.path(), 1 << 20, 3, 1);
    for at in 0..text.len() {
        for to in [0, b'\n', b' ', text[at] ^ 1] {
            if to == text[at] {
                continue;
            }
            let mut edited = text.clone();
            edited[at] = to;
            let report = check(&edited, &Expected { heads: vec![head.clone()], ..keys(1) });
            // Without its newline, the last record is as a crash leaves it.
            let torn = at == text.len() - 1 && report.streams[0].torn_tail;
            assert!(!report.ok || torn, "byte {at} to {to}: {report:?}");
        }
    }
}

#[test]
fn lines_out_of_place_are_found() {
    use FindingKind::*;
    let dir = TempDir::new().unwrap();
    let (text, _) = written(dir.path(), 1 << 20, 6, 1);
    let lines: Vec<&[u8]> = text.split_inclusive(|&b| b == b'\n').collect();
    assert_eq!(lines.len(), 7);
    let pick = |order: &[usize]| order.iter().flat_map(|&n| lines[n].to_vec()).collect::<Vec<u8>>();
    assert_eq!(kinds(&pick(&[0, 1, 2, 3, 4, 5, 6]), &keys(1)), BTreeSet::new());
    assert_eq!(kinds(&pick(&[0, 1, 3, 4, 5, 6]), &keys(1)), BTreeSet::from([Gap]));
    assert_eq!(kinds(&pick(&[0, 1, 1, 2, 3, 4, 5, 6]), &keys(1)), BTreeSet::from([DuplicateSeq]));
    assert!(kinds(&pick(&[0, 2, 1, 3, 4, 5, 6]), &keys(1)).contains(&Gap));
    assert_eq!(kinds(&pick(&[1, 2, 3, 4, 5, 6]), &keys(1)), BTreeSet::from([Gap]));
    assert_eq!(kinds(b"", &Expected { stream: Some(STREAM.into()), ..keys(1) }), BTreeSet::new());

    // Another history of the same stream, well formed in itself.
    let other = TempDir::new().unwrap();
    let (forged, _) = written(other.path(), 1 << 20, 6, 2);
    let forged: Vec<&[u8]> = forged.split_inclusive(|&b| b == b'\n').collect();
    let spliced = [&pick(&[0, 1, 2]), forged[3], forged[4], forged[5], forged[6]].concat();
    assert!(kinds(&spliced, &keys(1)).is_superset(&BTreeSet::from([PrevMismatch, UnknownKey])));
    let both = [&pick(&[0, 1, 2]), forged[2], &pick(&[3, 4, 5, 6])].concat();
    assert_eq!(kinds(&both, &keys(1)), BTreeSet::from([Fork]));
    assert_eq!(kinds(&forged.concat(), &keys(1)), BTreeSet::from([UnknownKey]));
    assert_eq!(kinds(&forged.concat(), &Expected::default()), BTreeSet::new());
}

#[test]
fn a_cut_tail_is_found_by_who_remembers_the_head() {
    let dir = TempDir::new().unwrap();
    let (text, head) = written(dir.path(), 1 << 20, 6, 1);
    let end = text[..text.len() - 1].iter().rposition(|&b| b == b'\n').unwrap() + 1;
    let remembers = |head: &Head| Expected { heads: vec![head.clone()], ..keys(1) };
    assert!(check(&text[..end], &remembers(&head)).ok);
    let shorter = text[..end - 1].iter().rposition(|&b| b == b'\n').unwrap() + 1;
    assert_eq!(kinds(&text[..shorter], &remembers(&head)), BTreeSet::from([FindingKind::Gap]));
    assert_eq!(kinds(&text, &remembers(&Head { hash: [0; 32], ..head.clone() })), BTreeSet::from([FindingKind::Fork]));
    let elsewhere = Head { stream: "gone-0001".into(), ..head };
    assert!(!check(&text, &remembers(&elsewhere)).ok);
}

#[test]
fn what_a_crash_leaves_is_no_tampering() {
    let dir = TempDir::new().unwrap();
    let (text, _) = written(dir.path(), 1 << 20, 3, 1);
    let zeros = check(&[&text[..], &[0; 9_000]].concat(), &keys(1));
    assert!(zeros.ok && !zeros.streams[0].torn_tail);
    let torn = check(&[&text[..text.len() - 9], &[0; 9_000]].concat(), &keys(1));
    assert!(torn.ok && torn.streams[0].torn_tail);
    // But not in front of other records.
    let mut hole = text.clone();
    hole[700..1_200].fill(0);
    assert!(!check(&hole, &keys(1)).ok);
}

#[test]
fn checkpoints_must_come_and_fit() {
    let dir = TempDir::new().unwrap();
    let (text, _) = written(dir.path(), 8 << 20, 1_200, 1);
    let lines: Vec<&[u8]> = text.split_inclusive(|&b| b == b'\n').collect();
    // Linked anew without its checkpoint: a forger who holds no key.
    let mut chain = crate::chain::Chain::start(STREAM);
    let mut forged = Vec::new();
    for (n, line) in lines.iter().filter(|line| !line.windows(16).any(|w| w == b"AUDIT_CHECKPOINT")).enumerate() {
        let line = line::parse(&line[..line.len() - 1]).unwrap();
        let bare = String::from_utf8(line.covered.concat()).unwrap();
        let bare = bare.replace(&format!("\"seq\":{}", line.seq), &format!("\"seq\":{}", n + 1));
        let hash = keyward_crypto::chain::next(&chain.hash, &[bare.as_bytes()]);
        let (head, tail) = bare.split_once(",\"id\"").unwrap();
        let (middle, tail) = tail.split_once(",\"provider\"").unwrap();
        let hex = |bytes: &[u8; 32]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let (hash_hex, prev_hex) = (hex(&hash), hex(&chain.hash));
        let text =
            format!("{head},\"hash\":\"{hash_hex}\",\"id\"{middle},\"prev\":\"{prev_hex}\",\"provider\"{tail}\n");
        forged.extend_from_slice(text.as_bytes());
        chain.hash = hash;
    }
    assert_eq!(kinds(&forged, &keys(1)), BTreeSet::from([FindingKind::MissingCheckpoint]));
}

#[test]
fn a_fork_between_folders_is_found_where_it_begins() {
    let place = TempDir::new().unwrap();
    let [one, copy, other] = ["a", "b", "c"].map(|name| place.path().join(name));
    fs::create_dir(&copy).unwrap();
    written(&one, 4 << 10, 20, 1);
    for path in files(&one) {
        fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let both = |other: &PathBuf| [one.clone(), other.clone()];
    let report = verify(&both(&copy), &keys(1)).unwrap();
    assert!(report.ok && report.streams.len() == 2, "a copy contradicts nothing: {report:?}");

    // Both go on from the same record, each in its own way.
    for (folder, n) in [(&one, 1), (&copy, 7)] {
        let options = Options { segment_bytes: 4 << 10, durability: Durability::Kernel, key: key(1) };
        let journal = Journal::open(folder, Id([0x11; 16]), 1, options).unwrap();
        let mut batch = journal.batch();
        batch.push(&read_event(n));
        journal.append(&mut batch).unwrap();
    }
    let before = verify(std::slice::from_ref(&one), &keys(1)).unwrap();
    let report = verify(&both(&copy), &keys(1)).unwrap();
    assert!(before.ok && report.streams[0].ok && !report.streams[1].ok, "{report:?}");
    let found = report.streams.iter().flat_map(|stream| &stream.errors).collect::<Vec<_>>();
    assert_eq!((found.len(), found[0].kind), (1, FindingKind::Fork), "{report:?}");
    assert_eq!(found[0].file.as_deref(), files(&copy).last().map(PathBuf::as_path));
    assert_eq!(found[0].seq, before.streams[0].last, "{report:?}");

    written(&other, 4 << 10, 20, 2);
    let report = verify(&both(&other), &Expected::default()).unwrap();
    assert_eq!(report.streams.iter().map(|stream| stream.errors.len()).sum::<usize>(), 1, "{report:?}");
}

#[test]
fn closed_segments_may_be_moved_to_an_archive() {
    let place = TempDir::new().unwrap();
    let [live, archive, copy] = ["live", "archive", "copy"].map(|name| place.path().join(name));
    let (_, head) = written(&live, 4 << 10, 60, 1);
    let all = files(&live);
    assert!(all.len() > 4);
    for folder in [&archive, &copy] {
        fs::create_dir(folder).unwrap();
    }
    for path in &all {
        fs::copy(path, copy.join(path.file_name().unwrap())).unwrap();
    }
    for path in &all[..all.len() - 2] {
        fs::rename(path, archive.join(path.file_name().unwrap())).unwrap();
    }
    let expected = Expected { heads: vec![head.clone()], ..keys(1) };
    let check = |folders: &[&PathBuf]| {
        verify(&folders.iter().map(|folder| (*folder).clone()).collect::<Vec<_>>(), &expected).unwrap()
    };
    let kinds = |report: &Report| {
        report.streams.iter().flat_map(|stream| &stream.errors).map(|found| found.kind).collect::<Vec<_>>()
    };
    for folders in [[&archive, &live], [&live, &archive]] {
        let report = check(&folders);
        assert!(report.ok && report.streams.len() == 1, "{report:?}");
        assert_eq!((report.streams[0].first, &report.streams[0].folder), (1, &live));
    }
    // An older copy beside: the furthest has to reach the head. What the archive lacks is still found.
    let report = check(&[&archive, &copy]);
    assert!(report.ok && report.streams.len() == 2, "{report:?}");
    assert_eq!(kinds(&check(&[&archive])), [FindingKind::Gap]);
    assert_eq!(kinds(&check(&[&live])), [FindingKind::Gap]);
    let report = check(&[&live, &copy]);
    assert!(report.ok, "what came before is in the copy: {report:?}");
    let moved = files(&archive).pop().unwrap();
    fs::rename(&moved, place.path().join("lost")).unwrap();
    assert_eq!(kinds(&check(&[&archive, &live])), [FindingKind::Gap]);
    fs::rename(place.path().join("lost"), &moved).unwrap();

    // Another history in the place of the newest segments.
    let other = place.path().join("other");
    written(&other, 4 << 10, 60, 2);
    for path in &files(&other)[..2] {
        fs::remove_file(path).unwrap();
    }
    let report = check(&[&archive, &other]);
    assert!(kinds(&report).contains(&FindingKind::Fork), "{report:?}");
}

#[test]
fn a_head_is_what_the_node_signed() {
    let dir = TempDir::new().unwrap();
    let options = |n| Options { segment_bytes: 4 << 10, durability: Durability::Kernel, key: key(n) };
    let journal = Journal::open(dir.path(), Id([0x11; 16]), 1, options(1)).unwrap();
    assert_eq!(journal.signed_head().unwrap(), None, "before the first record");
    let mut batch = journal.batch();
    for n in 0..30 {
        batch.push(&read_event(n));
        journal.append(&mut batch).unwrap();
    }
    let head = journal.signed_head().unwrap().unwrap();
    assert_eq!((head.seq, head.hash), journal.head());
    assert_eq!(SignedHead::read(&head.text).as_ref(), Ok(&head));
    let forged = head.text.replace(&format!("\"seq\":{}", head.seq), &format!("\"seq\":{}", head.seq - 1));
    assert_eq!(SignedHead::read(&forged), Err(crate::HeadError::BadSignature));
    for bad in ["", "{}", "[]", &head.text[1..]] {
        assert!(SignedHead::read(bad).is_err(), "{bad}");
    }
    for seq in [1, head.seq / 2, head.seq] {
        assert!(journal.hash_of(seq).unwrap().is_some(), "record {seq}");
    }
    assert_eq!(journal.hash_of(head.seq).unwrap(), Some(head.hash));
    assert_eq!(journal.hash_of(head.seq + 1).unwrap(), None);

    journal.last_checkpoint(read_event(0).ts).unwrap();
    journal.last_checkpoint(read_event(0).ts).unwrap();
    assert_eq!(journal.head().0, head.seq + 1, "one checkpoint, and no second over nothing");
    let again = journal.signed_head().unwrap().unwrap();
    drop(journal);
    let remembers = |head: &SignedHead| Expected { heads: vec![head.clone().into()], ..Expected::default() };
    let folder = [dir.path().to_owned()];
    assert!(verify(&folder, &remembers(&head)).unwrap().ok);
    assert!(verify(&folder, &remembers(&again)).unwrap().ok);
    // Whoever remembers the head also knows who signs the stream.
    let report = verify(&folder, &remembers(&SignedHead { key: key(2).public(), ..head })).unwrap();
    assert!(report.streams[0].errors.iter().all(|found| found.kind == FindingKind::UnknownKey) && !report.ok);
}
