use keyward_audit::{AuditKey, Durability, Options};
use keyward_model::{Secret, SeededEntropy};
use tempfile::TempDir;

use super::*;
use crate::record::Facts;
use crate::testing::on_a_node;

/// A stream of `node` with `records` records, and its head.
fn stream(node: Id, incarnation: u64, key: u8, records: usize) -> (TempDir, SignedHead) {
    let folder = tempfile::tempdir().unwrap();
    let key = AuditKey::from_seed(&Secret::new([key; 32])).unwrap();
    let options = Options { segment_bytes: 1 << 20, durability: Durability::Kernel, key };
    let journal = Journal::open(folder.path(), node, incarnation, options).unwrap();
    let mut batch = journal.batch();
    let entropy = SeededEntropy::new(3);
    for _ in 0..records {
        let facts = Facts::new(Id::random(&entropy), Timestamp(1), None, "system");
        let text = facts.request.to_uuid();
        let outcome = keyward_model::event::EventOutcome::Success;
        batch.push(&facts.event(&text, &entropy, Timestamp(1), outcome, None));
        journal.append(&mut batch).unwrap();
    }
    let head = journal.signed_head().unwrap().unwrap();
    (folder, head)
}

async fn given(worker: &Worker, node: Id, head: &SignedHead) -> Result<(), NotTaken> {
    keep(worker, node, head).await
}

#[test]
fn heads_only_go_forward_and_only_their_node_moves_them() {
    let (one, two) = (Id([1; 16]), Id([2; 16]));
    on_a_node(async |worker, _| {
        let (_, third) = stream(one, 1, 1, 3);
        let (_, fifth) = stream(one, 1, 1, 5);
        let other_fifth = SignedHead { hash: [9; 32], ..fifth.clone() };
        let (_, next) = stream(one, 2, 1, 1);
        let (_, forged) = stream(one, 1, 9, 8);
        let records = worker.app.journal().head();

        assert_eq!(given(worker, two, &third).await, Err(NotTaken::Foreign), "another node's stream");
        assert_eq!(given(worker, one, &fifth).await, Ok(()));
        assert_eq!(given(worker, one, &fifth).await, Ok(()), "the same again says nothing new");
        assert_eq!(given(worker, one, &third).await, Err(NotTaken::Older), "overtaken, or its end was cut off");
        assert_eq!(given(worker, one, &other_fifth).await, Err(NotTaken::Contradicts), "another record at its place");
        assert_eq!(given(worker, one, &forged).await, Err(NotTaken::Foreign), "signed with another key");
        assert_eq!(given(worker, one, &next).await, Ok(()), "the next incarnation");
        let (_, forged) = stream(one, 3, 9, 1);
        assert_eq!(given(worker, one, &forged).await, Err(NotTaken::Foreign), "with another key than the one before");

        let kept: Vec<_> = all(worker.reader()).unwrap().into_iter().map(|(head, _)| (head.stream, head.seq)).collect();
        assert_eq!(kept, [(fifth.stream, 5), (next.stream, 1)]);
        assert_eq!(worker.app.journal().head(), records, "a head that is taken has no record");
    });
}

#[test]
fn heads_are_bounded() {
    on_a_node(async |worker, clock| {
        for number in 0..HEADS_MAX + 3 {
            let mut node = [1; 16];
            node[8..].copy_from_slice(&(number as u64).to_be_bytes());
            let node = Id(node);
            assert_eq!(given(worker, node, &stream(node, 1, 1, 1).1).await, Ok(()));
            clock.advance(1);
        }
        let kept = all(worker.reader()).unwrap();
        assert_eq!(kept.len(), HEADS_MAX);
        let oldest = Id([1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 3]).to_string();
        assert!(kept.iter().all(|(head, _)| *head.stream > *oldest), "the oldest are gone");
    });
}

#[test]
fn no_member_takes_a_head_from_another_or_its_own() {
    let (one, two) = (Id([1; 16]), Id([2; 16]));
    let most = HEADS_MAX_OF_ONE as u64;
    on_a_node(async |worker, clock| {
        let (_, innocent) = stream(two, 1, 2, 3);
        let (_, truth) = stream(one, 1, 1, 3);
        assert_eq!(given(worker, two, &innocent).await, Ok(()));
        assert_eq!(given(worker, one, &truth).await, Ok(()));
        for incarnation in 2..most + 80 {
            clock.advance(1);
            let expected = if incarnation <= most { Ok(()) } else { Err(NotTaken::Full) };
            assert_eq!(given(worker, one, &stream(one, incarnation, 1, 1).1).await, expected, "{incarnation}");
        }
        let rewritten = SignedHead { hash: [9; 32], ..truth.clone() };
        assert_eq!(given(worker, one, &rewritten).await, Err(NotTaken::Contradicts));
        let (_, longer) = stream(one, 1, 1, 9);
        assert_eq!(given(worker, one, &longer).await, Err(NotTaken::Foreign), "a stream that has ended");
        let (_, far) = stream(one, 5000, 1, 1);
        assert_eq!(given(worker, one, &far).await, Err(NotTaken::Foreign), "an incarnation out of nowhere");
        for name in ["-1", "-01", "-00017", "-+17", "-"] {
            let other = SignedHead { stream: format!("{one}{name}"), ..far.clone() };
            assert_eq!(given(worker, one, &other).await, Err(NotTaken::Foreign), "another name of the same: {name}");
        }
        let kept: Vec<_> = all(worker.reader()).unwrap().into_iter().map(|(head, _)| head.stream).collect();
        let own = (1..=most).map(|incarnation| keyward_audit::stream_name(one, incarnation));
        assert_eq!(kept, own.chain([innocent.stream]).collect::<Vec<_>>());
    });
}

#[test]
fn an_incarnation_that_was_passed_over_gets_no_head_any_more() {
    let node = Id([1; 16]);
    on_a_node(async |worker, _| {
        assert_eq!(given(worker, node, &stream(node, 3, 1, 1).1).await, Ok(()));
        assert_eq!(given(worker, node, &stream(node, 2, 1, 8).1).await, Err(NotTaken::Foreign));
        assert_eq!(given(worker, node, &stream(node, 3, 1, 2).1).await, Ok(()));
    });
}

#[test]
fn with_another_key_a_stream_has_to_hold_what_is_remembered_of_it() {
    let node = Id([1; 16]);
    let key = |n: u8| AuditKey::from_seed(&Secret::new([n; 32])).unwrap();
    let open = |folder: &TempDir, n: u8| {
        let options = Options { segment_bytes: 1 << 20, durability: Durability::Kernel, key: key(n) };
        Journal::open(folder.path(), node, 1, options).unwrap()
    };
    on_a_node(async |worker, _| {
        let (folder, head) = stream(node, 1, 1, 6);
        assert_eq!(given(worker, node, &head).await, Ok(()));
        assert_eq!(check_own(&open(&folder, 9), worker.reader()), Ok(6), "said in the log, and gone on");
        let (other, _) = stream(node, 1, 9, 3);
        let error = check_own(&open(&other, 9), worker.reader()).unwrap_err();
        assert!(error.contains("ends at record 3"), "{error}");
        let file = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let file = file.into_iter().find(|path| path.extension().is_some_and(|end| end == "jsonl")).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let shorter: String = text.split_inclusive('\n').take(4).collect();
        std::fs::write(&file, shorter).unwrap();
        let error = check_own(&open(&folder, 9), worker.reader()).unwrap_err();
        assert!(error.contains("ends at record 4"), "{error}");
    });
}

#[test]
fn a_stream_that_is_not_what_is_remembered_is_told_apart() {
    let node = Id([1; 16]);
    let key = |n: u8| AuditKey::from_seed(&Secret::new([n; 32])).unwrap();
    let open = |folder: &TempDir| {
        let options = Options { segment_bytes: 1 << 20, durability: Durability::Kernel, key: key(1) };
        Journal::open(folder.path(), node, 1, options).unwrap()
    };
    on_a_node(async |worker, _| {
        let (folder, head) = stream(node, 1, 1, 6);
        assert_eq!(check_own(&open(&folder), worker.reader()), Ok(0), "nothing is remembered");
        assert_eq!(given(worker, node, &head).await, Ok(()));
        assert_eq!(check_own(&open(&folder), worker.reader()), Ok(6));

        let file = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let file = file.into_iter().find(|path| path.extension().is_some_and(|end| end == "jsonl")).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let shorter: String = text.split_inclusive('\n').take(4).collect();
        std::fs::write(&file, shorter).unwrap();
        let error = check_own(&open(&folder), worker.reader()).unwrap_err();
        assert!(error.contains("ends at record 4") && error.contains("remembers record 6"), "{error}");

        std::fs::remove_file(&file).unwrap();
        let error = check_own(&open(&folder), worker.reader()).unwrap_err();
        assert!(error.contains("ends at record 0"), "{error}");
        assert!(error.contains("incarnation"), "{error}");
    });
}
