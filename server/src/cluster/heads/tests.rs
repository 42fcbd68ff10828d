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
            let node = Id([u8::try_from(number).unwrap() + 1; 16]);
            assert_eq!(given(worker, node, &stream(node, 1, 1, 1).1).await, Ok(()));
            clock.advance(1);
        }
        let kept = all(worker.reader()).unwrap();
        assert_eq!(kept.len(), HEADS_MAX);
        assert!(kept.iter().all(|(head, _)| !head.stream.starts_with("01010101")), "the oldest is gone");
    });
}

#[test]
fn one_member_takes_no_head_from_another() {
    let (one, two) = (Id([1; 16]), Id([2; 16]));
    on_a_node(async |worker, clock| {
        let (_, innocent) = stream(two, 1, 2, 3);
        assert_eq!(given(worker, two, &innocent).await, Ok(()));
        for incarnation in 1..200 {
            clock.advance(1);
            assert_eq!(given(worker, one, &stream(one, incarnation, 1, 1).1).await, Ok(()));
        }
        let (_, far) = stream(one, 5000, 1, 1);
        assert_eq!(given(worker, one, &far).await, Err(NotTaken::Foreign), "an incarnation out of nowhere");
        for name in ["-1", "-01", "-00200", "-+200", "-"] {
            let other = SignedHead { stream: format!("{one}{name}"), ..far.clone() };
            assert_eq!(given(worker, one, &other).await, Err(NotTaken::Foreign), "another name of the same: {name}");
        }
        let kept: Vec<_> = all(worker.reader()).unwrap().into_iter().map(|(head, _)| head.stream).collect();
        let own = (196..200).map(|incarnation| keyward_audit::stream_name(one, incarnation));
        assert_eq!(kept, own.chain([innocent.stream]).collect::<Vec<_>>());
    });
}

#[test]
fn a_remembered_head_of_another_key_does_not_stop_the_node() {
    let node = Id([1; 16]);
    on_a_node(async |worker, _| {
        let (_, forged) = stream(node, 1, 9, 8);
        assert_eq!(given(worker, node, &forged).await, Ok(()), "nothing was known before");
        let (folder, _) = stream(node, 1, 1, 3);
        let key = AuditKey::from_seed(&Secret::new([1; 32])).unwrap();
        let options = Options { segment_bytes: 1 << 20, durability: Durability::Kernel, key };
        let journal = Journal::open(folder.path(), node, 1, options).unwrap();
        assert_eq!(check_own(&journal, worker.reader()), Ok(8));
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
