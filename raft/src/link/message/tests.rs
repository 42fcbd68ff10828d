use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use openraft::{BasicNode, EntryPayload};
use proptest::prelude::*;

use super::*;
use crate::types::{Batch, Entry, Membership, log_id};

/// What was written reads back, and no part of it does.
fn check<T: PartialEq + Debug>(value: T, encoded: &[u8], decode: impl Fn(&[u8]) -> Option<T>) {
    assert_eq!(decode(encoded), Some(value));
    for cut in 0..encoded.len() {
        assert_eq!(decode(&encoded[..cut]), None, "cut at {cut}");
    }
    assert_eq!(decode(&[encoded, &[0]].concat()), None);
}

fn entries() -> Vec<Entry> {
    let nodes = BTreeMap::from([(1, BasicNode::new("a:1")), (9, BasicNode::new("b"))]);
    let membership = Membership::new(vec![BTreeSet::from([1]), BTreeSet::from([1, 9])], nodes).unwrap();
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Batch::new(Bytes::from_static(b"commands"))),
        EntryPayload::Membership(membership),
    ];
    (5..).zip(payloads).map(|(index, payload)| Entry { log_id: log_id(3, 4, index), payload }).collect()
}

#[test]
fn an_append_reads_back_and_shares_its_bytes() {
    for entries in [Vec::new(), entries()] {
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(3, 4),
            prev_log_id: Some(log_id(2, 4, 4)),
            entries: entries.clone(),
            leader_commit: None,
        };
        let body = Bytes::from(encode_append(&request));
        let read = decode_append(&body).unwrap();
        assert_eq!((read.vote, read.prev_log_id, read.leader_commit), (request.vote, request.prev_log_id, None));
        assert_eq!(read.entries, entries);
        for cut in 0..body.len() {
            assert!(decode_append(&body.slice(..cut)).is_none(), "cut at {cut}");
        }
    }
}

#[test]
fn entries_that_do_not_follow_are_no_append() {
    let with = |prev_log_id, entries| {
        let request =
            AppendEntriesRequest { vote: Vote::new_committed(3, 4), prev_log_id, entries, leader_commit: None };
        decode_append(&Bytes::from(encode_append(&request)))
    };
    let blank = |index| Entry { log_id: log_id(3, 4, index), payload: EntryPayload::Blank };
    assert!(with(None, vec![blank(0), blank(1)]).is_some());
    assert!(with(None, vec![blank(1)]).is_none());
    assert!(with(Some(log_id(3, 4, 7)), vec![blank(9)]).is_none());
    assert!(with(Some(log_id(4, 4, 7)), vec![blank(8)]).is_none());
    assert!(with(None, vec![blank(0), blank(2)]).is_none());
}

#[test]
fn everything_else_reads_back() {
    let (vote, last) = (Vote::new_committed(7, 8), Some(log_id(1, 2, 3)));
    for (response, appended) in [
        (AppendEntriesResponse::Success, Appended::All),
        (AppendEntriesResponse::PartialSuccess(last), Appended::UpTo(last)),
        (AppendEntriesResponse::PartialSuccess(None), Appended::UpTo(None)),
        (AppendEntriesResponse::Conflict, Appended::Conflict),
        (AppendEntriesResponse::HigherVote(vote), Appended::HigherVote(vote)),
    ] {
        check(appended, &encode_appended(&response), decode_appended);
    }
    let mut request = VoteRequest::new(Vote::new(7, 8), None);
    request.leadership_transfer = true;
    check(request.clone(), &encode_vote(&request), decode_vote);
    let voted = VoteResponse::new(vote, last, false);
    check(voted.clone(), &encode_voted(&voted), decode_voted);
    let transfer = TransferLeaderRequest::new(vote, 9, last);
    check(transfer.clone(), &encode_transfer(&transfer), decode_transfer);
    for response in [
        Some(Ok(())),
        Some(Err(TransferLeaderError::VoteChanged { expected: vote, actual: Vote::new(9, 1) })),
        Some(Err(TransferLeaderError::LogNotFlushed { expected: last, actual: None })),
        None,
    ] {
        check(response.clone(), &encode_transferred(response.as_ref()), decode_transferred);
    }
    for point in [Ok(5), Err(ReadError::NoLeader), Err(ReadError::Timeout)] {
        check(point, &encode_read_point(point), decode_read_point);
    }
    for sums in [Vec::new(), vec![(1, StateSum([1, 2, 3, 4])), (2, StateSum::default())]] {
        check(sums.clone(), &encode_sums(&sums), decode_sums);
    }
    for differs in [None, Some(4)] {
        check(differs, &encode_differs(differs), decode_differs);
    }
    let offer = Offer { vote, bytes: 5, hash: [6; 32] };
    check(offer, &offer.encode(), Offer::decode);
    for bid in [Bid::From(7), Bid::HigherVote(vote)] {
        check(bid, &bid.encode(), Bid::decode);
    }
    for installed in [Installed::Yes(vote), Installed::Broken] {
        check(installed, &installed.encode(), Installed::decode);
    }
    for lane in [Lane::Log, Lane::Beat, Lane::Snapshot] {
        let hello = Hello { versions: (1, 2), lane, from: 3, to: 4, member_since: 5 };
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
    }
    for welcome in [Welcome::Yes(1), Welcome::OtherVersion, Welcome::OtherNode, Welcome::NotMember, Welcome::Removed] {
        assert_eq!(Welcome::decode(&welcome.encode()), Some(welcome));
    }
    let chunk = encode_chunk(9, b"part");
    assert_eq!(decode_chunk(&chunk.clone().into()), Some((9, Bytes::from_static(b"part"))));
    let mut broken = chunk;
    broken[13] ^= 1;
    assert_eq!(decode_chunk(&broken.into()), None);
}

proptest! {
    #[test]
    fn rubbish_never_panics(bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        drop((decode_append(&bytes), decode_appended(&bytes), decode_vote(&bytes), decode_voted(&bytes)));
        drop((decode_transfer(&bytes), decode_transferred(&bytes), decode_sums(&bytes), decode_chunk(&bytes)));
        drop((decode_append(&bytes), decode_read_point(&bytes), decode_differs(&bytes), Hello::decode(&bytes)));
        drop((decode_append(&bytes), Offer::decode(&bytes), Bid::decode(&bytes), Installed::decode(&bytes)));
        drop((decode_append(&bytes), Welcome::decode(&bytes)));
    }
}
