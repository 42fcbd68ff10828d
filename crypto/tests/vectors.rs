//! Known answers, and sealed things that must not open: moved, flipped, cut, foreign, of a destroyed key.

use keyward_crypto::keyring::{row_epoch, wrap_epoch};
use keyward_crypto::{CryptoError, Keyring, References, RootKey, shamir};
use keyward_model::{Entropy, Id, Row, Secret, SecretBytes, SeededEntropy, Table, Timestamp};
use proptest::prelude::*;

const DOMAIN: Id = Id([0xd0; 16]);
const SECRET: Id = Id([0x5e; 16]);

fn ring() -> (Keyring, SeededEntropy) {
    let entropy = SeededEntropy::new(42);
    (Keyring::generate(DOMAIN, Timestamp(0), &entropy), entropy)
}

fn sealed_row(ring: &Keyring, entropy: &dyn Entropy) -> Row {
    let (key, group) = (b"parent and name".to_vec(), b"group".to_vec());
    let body = ring.seal_row(Table::Secrets, &key, 7, &group, Some(-1), Some(9), b"metadata", entropy);
    Row { key, rev: 7, group, due: Some(-1), head: Some(9), body }
}

#[test]
fn references_match_the_published_vectors() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("vectors/references.json")).unwrap();
    let vectors = vectors.as_array().unwrap();
    assert_eq!(vectors.len(), 7);
    for vector in vectors {
        let text = |field: &str| vector[field].as_str().unwrap();
        let key = <[u8; 32]>::try_from(hex::decode(text("key_hex")).unwrap()).unwrap();
        let epoch = u32::try_from(vector["epoch"].as_u64().unwrap()).unwrap();
        let references = References::with_key(epoch, text("tenant"), &Secret::new(key));
        let made = match text("kind") {
            "rr1" => references.resource_ref(text("message_uri")),
            _ => references.pointer_ref(text("message_uri")),
        };
        assert_eq!(made, text("ref"), "{}", text("id"));
    }
}

/// The sealed forms must stay readable: what the first build sealed, every later build must open.
#[test]
fn blobs_of_format_one_still_open() {
    let mut lines = include_str!("vectors/format-1.txt").lines().filter(|line| !line.starts_with('#'));
    let mut next = |name: &str| {
        let (found, text) = lines.next().unwrap().split_once(' ').unwrap();
        assert_eq!(found, name);
        hex::decode(text.replace(' ', "")).unwrap()
    };
    let root = RootKey::from_secret(Secret::new([1; 32]));
    let ring = Keyring::open_from(&root, DOMAIN, &next("keyring")).unwrap();
    assert_eq!(ring.names().folder(SECRET, b"prod/payments").0.to_vec(), next("folder"));
    assert_eq!(ring.names().seal(SECRET, b"stripe-api-key"), next("name"));
    let row = Row { body: next("row"), ..sealed_row(&ring, &SeededEntropy::new(0)) };
    assert_eq!(ring.open_row(Table::Secrets, &row).unwrap().expose(), b"metadata");
    assert_eq!(ring.token_hash(b"hvs.token").to_vec(), next("token"));
    let version = next("version");
    let (wrapped, payload) = version.split_at(86);
    assert_eq!(ring.open_version(SECRET, 3, wrapped, payload).unwrap().expose(), b"hunter2");
    assert_eq!(lines.next(), None);
}

#[test]
fn a_row_opens_in_its_place_only() {
    let (ring, entropy) = ring();
    let row = sealed_row(&ring, &entropy);
    assert_eq!(ring.open_row(Table::Secrets, &row).unwrap().expose(), b"metadata");
    assert_eq!(row_epoch(&row.body), Some(1));
    let moved: [(&str, Row); 9] = [
        ("key", Row { key: b"parent and namE".to_vec(), ..row.clone() }),
        ("key to group", Row { key: b"parent and nam".to_vec(), group: b"egroup".to_vec(), ..row.clone() }),
        ("rev", Row { rev: 8, ..row.clone() }),
        ("group", Row { group: Vec::new(), ..row.clone() }),
        ("due", Row { due: Some(0), ..row.clone() }),
        ("no due", Row { due: None, ..row.clone() }),
        ("head", Row { head: Some(8), ..row.clone() }),
        ("no head", Row { head: None, ..row.clone() }),
        ("due to head", Row { due: Some(9), head: Some(u64::MAX), ..row.clone() }),
    ];
    for (what, moved) in moved {
        assert_eq!(ring.open_row(Table::Secrets, &moved).unwrap_err(), CryptoError::Integrity, "{what}");
    }
    assert_eq!(ring.open_row(Table::Folders, &row).unwrap_err(), CryptoError::Integrity);
}

#[test]
fn a_version_opens_in_its_place_only() {
    let (ring, entropy) = ring();
    let blob = ring.seal_version(SECRET, 3, b"hunter2", &entropy);
    let open = |secret, version, wrapped: &[u8], payload: &[u8]| {
        ring.open_version(secret, version, wrapped, payload).map(|text| text.expose().clone())
    };
    assert_eq!(open(SECRET, 3, &blob.wrapped, &blob.payload).unwrap(), b"hunter2");
    assert_eq!(open(Id([0x5f; 16]), 3, &blob.wrapped, &blob.payload), Err(CryptoError::Integrity));
    assert_eq!(open(SECRET, 4, &blob.wrapped, &blob.payload), Err(CryptoError::Integrity));
    // Another version's value does not open with this version's key, nor this value with that key.
    let other = ring.seal_version(SECRET, 4, b"hunter2", &entropy);
    assert_eq!(open(SECRET, 3, &blob.wrapped, &other.payload), Err(CryptoError::Integrity));
    assert_eq!(open(SECRET, 3, &other.wrapped, &blob.payload), Err(CryptoError::Integrity));
    // The same version sealed again has another key: the two halves do not mix.
    let again = ring.seal_version(SECRET, 3, b"hunter2", &entropy);
    assert_eq!(open(SECRET, 3, &blob.wrapped, &again.payload), Err(CryptoError::Integrity));
    // A payload does not pose as a row, nor a row as a payload.
    let row = Row { body: blob.payload.clone(), ..sealed_row(&ring, &entropy) };
    assert_eq!(ring.open_row(Table::Secrets, &row).unwrap_err(), CryptoError::Malformed);
}

#[test]
fn another_domain_opens_nothing() {
    let (ring, entropy) = ring();
    let elsewhere = Keyring::generate(Id([0xd1; 16]), Timestamp(0), &SeededEntropy::new(42));
    assert_eq!(ring.token_hash(b"same keys"), elsewhere.token_hash(b"same keys"));
    let row = sealed_row(&ring, &entropy);
    let blob = ring.seal_version(SECRET, 3, b"hunter2", &entropy);
    assert_eq!(elsewhere.open_row(Table::Secrets, &row).unwrap_err(), CryptoError::Integrity);
    let opened = elsewhere.open_version(SECRET, 3, &blob.wrapped, &blob.payload);
    assert_eq!(opened.unwrap_err(), CryptoError::Integrity);
    let sum = keyward_model::StateSum([1; 4]);
    assert!(!elsewhere.verify_sum(sum, &ring.sign_sum(sum)));
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let (ring, entropy) = ring();
    let row = sealed_row(&ring, &entropy);
    let blob = ring.seal_version(SECRET, 3, b"hunter2", &entropy);
    for bit in 0..row.body.len() * 8 {
        let mut changed = row.clone();
        changed.body[bit / 8] ^= 1 << (bit % 8);
        assert!(ring.open_row(Table::Secrets, &changed).is_err(), "row, bit {bit}");
    }
    for bit in 0..blob.wrapped.len() * 8 {
        let mut changed = blob.wrapped.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(ring.open_version(SECRET, 3, &changed, &blob.payload).is_err(), "wrapped, bit {bit}");
    }
    for bit in 0..blob.payload.len() * 8 {
        let mut changed = blob.payload.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(ring.open_version(SECRET, 3, &blob.wrapped, &changed).is_err(), "payload, bit {bit}");
    }
    for length in 0..row.body.len() {
        let cut = Row { body: row.body[..length].to_vec(), ..row.clone() };
        assert!(ring.open_row(Table::Secrets, &cut).is_err(), "row cut at {length}");
    }
    for length in 0..blob.wrapped.len() {
        assert!(ring.open_version(SECRET, 3, &blob.wrapped[..length], &blob.payload).is_err());
    }
    for length in 0..blob.payload.len() {
        assert!(ring.open_version(SECRET, 3, &blob.wrapped, &blob.payload[..length]).is_err());
    }
}

#[test]
fn suites_and_epochs_are_named_in_the_refusal() {
    let (mut ring, entropy) = ring();
    let row = sealed_row(&ring, &entropy);
    let blob = ring.seal_version(SECRET, 3, b"hunter2", &entropy);
    let suite = Row { body: [&[9], &row.body[1..]].concat(), ..row.clone() };
    assert_eq!(ring.open_row(Table::Secrets, &suite).unwrap_err(), CryptoError::UnknownSuite(9));
    let payload = [&[9], &blob.payload[1..]].concat();
    let opened = ring.open_version(SECRET, 3, &blob.wrapped, &payload);
    assert_eq!(opened.unwrap_err(), CryptoError::UnknownSuite(9));

    let foreign = Row { body: [&row.body[..2], &[0, 0, 0, 8], &row.body[6..]].concat(), ..row.clone() };
    assert_eq!(ring.open_row(Table::Secrets, &foreign).unwrap_err(), CryptoError::UnknownEpoch(8));

    ring.rotate(Timestamp(1), &entropy);
    assert_eq!(ring.open_row(Table::Secrets, &row).unwrap().expose(), b"metadata");
    // An epoch's number cannot be exchanged for another live one.
    let other = Row { body: [&row.body[..2], &[0, 0, 0, 2], &row.body[6..]].concat(), ..row.clone() };
    assert_eq!(ring.open_row(Table::Secrets, &other).unwrap_err(), CryptoError::Integrity);
    ring.destroy_epoch(1).unwrap();
    assert_eq!(ring.open_row(Table::Secrets, &row).unwrap_err(), CryptoError::DestroyedEpoch(1));
    let opened = ring.open_version(SECRET, 3, &blob.wrapped, &blob.payload);
    assert_eq!(opened.unwrap_err(), CryptoError::DestroyedEpoch(1));
}

#[test]
fn rewrapping_leaves_the_payload_alone() {
    let (mut ring, entropy) = ring();
    let blob = ring.seal_version(SECRET, 3, b"hunter2", &entropy);
    assert_eq!(ring.rewrap(SECRET, 3, &blob.wrapped, &entropy), Ok(None));
    ring.rotate(Timestamp(1), &entropy);
    let wrapped = ring.rewrap(SECRET, 3, &blob.wrapped, &entropy).unwrap().unwrap();
    assert_eq!((wrap_epoch(&blob.wrapped), wrap_epoch(&wrapped)), (Some(1), Some(2)));
    ring.destroy_epoch(1).unwrap();
    assert_eq!(ring.open_version(SECRET, 3, &wrapped, &blob.payload).unwrap().expose(), b"hunter2");
    assert_eq!(ring.rewrap(SECRET, 4, &blob.wrapped, &entropy), Err(CryptoError::DestroyedEpoch(1)));
    assert_eq!(ring.epochs()[0].uses, 1);
}

/// A cloned machine draws the same randomness: two different texts still never meet under one key.
#[test]
fn repeated_randomness_never_seals_two_texts_with_one_key() {
    let (ring, _) = ring();
    let seal = |text: &[u8]| ring.seal_row(Table::Tokens, b"k", 1, b"", None, None, text, &SeededEntropy::new(5));
    let (a, b) = (seal(b"text a"), seal(b"text b"));
    assert_ne!(a[6..38], b[6..38], "the salts differ, so the keys do");
    assert_eq!(a, seal(b"text a"), "only the very same input repeats");
}

/// Shares made here combine by schoolbook arithmetic over GF(2^8) with polynomial 0x11b, x coordinate last.
#[test]
fn shares_are_those_of_vault() {
    let key = std::array::from_fn(|i| (i * 37) as u8);
    let shares = shamir::split(&key, 5, 3, &SeededEntropy::new(9)).unwrap();
    let shares: Vec<&[u8]> = shares.iter().map(|share| share.expose().as_slice()).collect();
    assert_eq!(schoolbook(&[shares[4], shares[0], shares[2]]), key);
    assert_ne!(schoolbook(&[shares[4], shares[0]]), key);
    // And the other way: the line through (0, key) with slope 0x53, evaluated by schoolbook, combines here.
    let share = |x: u8| Secret::new(key.iter().map(|byte| byte ^ times(0x53, x)).chain([x]).collect::<Vec<u8>>());
    let shares: [SecretBytes; 2] = [share(0xca), share(0x02)];
    assert_eq!(shamir::combine(&shares).unwrap().expose(), &key);
    assert_eq!(times(0x53, 0xca), 1, "FIPS 197 §4.2: {{53}} and {{ca}} are inverse");
}

fn times(a: u8, b: u8) -> u8 {
    let mut product = 0u16;
    for bit in 0..8 {
        if b >> bit & 1 == 1 {
            product ^= u16::from(a) << bit;
        }
    }
    for bit in (8..16).rev() {
        if product >> bit & 1 == 1 {
            product ^= 0x11b << (bit - 8);
        }
    }
    product as u8
}

fn schoolbook(shares: &[&[u8]]) -> [u8; 32] {
    let inverse = |a: u8| (1..=255).find(|b| times(a, *b) == 1).unwrap_or(0);
    std::array::from_fn(|i| {
        shares.iter().fold(0, |sum, share| {
            let others = shares.iter().map(|other| other[32]).filter(|x| *x != share[32]);
            sum ^ others.fold(share[i], |term, x| times(term, times(x, inverse(x ^ share[32]))))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_come_back(key: Vec<u8>, rev: u64, group: Vec<u8>, due: Option<i64>, head: Option<u64>, text: Vec<u8>, seed: u64) {
        let (ring, _) = ring();
        let body = ring.seal_row(Table::Entries, &key, rev, &group, due, head, &text, &SeededEntropy::new(seed));
        let row = Row { key, rev, group, due, head, body };
        let opened = ring.open_row(Table::Entries, &row).unwrap();
        prop_assert_eq!(opened.expose(), &text);
    }

    #[test]
    fn versions_come_back(secret: [u8; 16], version: u64, text: Vec<u8>, seed: u64) {
        let (ring, _) = ring();
        let blob = ring.seal_version(Id(secret), version, &text, &SeededEntropy::new(seed));
        let opened = ring.open_version(Id(secret), version, &blob.wrapped, &blob.payload).unwrap();
        prop_assert_eq!(opened.expose(), &text);
    }

    #[test]
    fn rubbish_never_panics(start in 0u8..5, kind in 0u8..5, rest: Vec<u8>) {
        let (ring, entropy) = ring();
        let bytes = [&[start, kind, 0, 0, 0, 1], rest.as_slice()].concat();
        prop_assert!(ring.open_version(SECRET, 1, &bytes, &bytes).is_err());
        prop_assert!(ring.rewrap(SECRET, 1, &bytes, &entropy).unwrap_or(None).is_none());
        let row = Row { key: vec![], rev: 1, group: vec![], due: None, head: None, body: bytes };
        prop_assert!(ring.open_row(Table::Config, &row).is_err());
    }
}
