//! What a record costs: render, link, append. The goal is 1 µs for the first two together.

#![expect(clippy::expect_used, reason = "a benchmark that cannot run must say so")]

use std::net::IpAddr;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use keyward_audit::{AuditKey, Durability, Journal, Options};
use keyward_model::event::{Auth, Event, EventKind, EventOutcome, Subject, Ulid};
use keyward_model::{Id, Secret, Timestamp};

fn read_event(n: u64) -> Event<'static> {
    Event {
        tenant_id: Some("default".into()),
        subject: Some(Subject { kind: "token", id: "root".into() }),
        auth: Some(Auth { method: "token".into(), mfa: false, token_jti_hash: Some([0xab; 16]) }),
        source_ip: Some(IpAddr::from([127, 0, 0, 1])),
        request_id: Some("ab010203-0405-0607-0809-0a0b0c0d0eff".into()),
        action: Some("read"),
        channel: Some("vault"),
        resource_ref: Some("rr1.1.AAECAwQFBgcICQoLDA0ODw".into()),
        provider: Some("keyward"),
        engine: Some("kv2"),
        kv_version: Some(n),
        decision_source: Some("pdp"),
        latency_us: Some(17),
        ..Event::new(
            Ulid(n.into()),
            Timestamp(1_764_075_600_123_456_789),
            EventKind::SecretPermit,
            EventOutcome::Success,
        )
    }
}

fn records(criterion: &mut Criterion) {
    const BATCH: u64 = 32;
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(BATCH));
    for (name, durability) in [("kernel", Durability::Kernel), ("fsync", Durability::Fsync)] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let key = AuditKey::from_seed(&Secret::new([1; 32])).expect("a key");
        let options = Options { segment_bytes: 64 << 20, durability, key };
        let journal = Journal::open(dir.path(), Id([1; 16]), 1, options).expect("a journal");
        let mut batch = journal.batch();
        if durability == Durability::Kernel {
            group.bench_function("render 32", |bencher| {
                bencher.iter(|| {
                    batch.clear();
                    (0..BATCH).for_each(|n| batch.push(&read_event(n)));
                });
            });
            batch.clear();
        }
        group.bench_function(format!("render, link and write 32, {name}"), |bencher| {
            bencher.iter(|| {
                (0..BATCH).for_each(|n| batch.push(&read_event(n)));
                journal.append(&mut batch).expect("an append");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, records);
criterion_main!(benches);
