//! What one core does in the hot paths: rows, versions, token look-up, names.
//!
//! `cargo bench -p keyward-crypto`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use keyward_crypto::Keyring;
use keyward_model::{Id, Row, SeededEntropy, Table, Timestamp};

fn envelope(c: &mut Criterion) {
    let entropy = SeededEntropy::new(1);
    let ring = Keyring::generate(Id([1; 16]), Timestamp(0), &entropy);
    let (secret, key, text) = (Id([2; 16]), vec![3; 48], vec![4; 300]);

    let seal_row = |text: &[u8]| ring.seal_row(Table::Secrets, &key, 7, &[], None, Some(9), text, &entropy);
    let row = Row { key: key.clone(), rev: 7, group: vec![], due: None, head: Some(9), body: seal_row(&text[..200]) };
    c.bench_function("seal_row 200 B", |b| b.iter(|| seal_row(black_box(&text[..200]))));
    c.bench_function("open_row 200 B", |b| b.iter(|| ring.open_row(Table::Secrets, black_box(&row))));

    let blob = ring.seal_version(secret, 1, &text, &entropy);
    c.bench_function("seal_version 300 B", |b| b.iter(|| ring.seal_version(secret, 1, black_box(&text), &entropy)));
    c.bench_function("open_version 300 B", |b| {
        b.iter(|| ring.open_version(secret, 1, black_box(&blob.wrapped), &blob.payload));
    });

    c.bench_function("token_hash 28 B", |b| b.iter(|| ring.token_hash(black_box(&text[..28]))));
    c.bench_function("token_hash 95 B", |b| b.iter(|| ring.token_hash(black_box(&text[..95]))));
    c.bench_function("names.key 14 B", |b| b.iter(|| ring.names().key(secret, black_box(&text[..14]))));
    c.bench_function("names.folder 20 B", |b| b.iter(|| ring.names().folder(secret, black_box(&text[..20]))));
    let references = ring.references("acme");
    c.bench_function("resource_ref", |b| b.iter(|| references.resource_ref(black_box("keyward+kv2://secret/prod/db"))));
}

criterion_group!(benches, envelope);
criterion_main!(benches);
