//! Each fuzz target for about a second: its corpus as it is, then mutations of it that a printed seed repeats.

use std::time::{Duration, Instant};

use keyward_tests::fuzz::TARGETS;
use keyward_tests::suite::Chance;

/// How long each target runs; `KEYWARD_FUZZ_S` says otherwise.
const SECONDS: u64 = 1;
/// An input longer than this is cut: time is for many inputs, not for long ones.
const BYTES_MAX: usize = 4096;
/// One input may take this long in an unoptimised build on a busy machine.
const INPUT_MAX: Duration = Duration::from_secs(5);

#[test]
fn targets_survive_a_second_each() {
    let seconds = std::env::var("KEYWARD_FUZZ_S").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let mut chance = Chance::announced("fuzz");
    for target in TARGETS {
        let corpus = (target.corpus)();
        corpus.iter().for_each(|input| (target.run)(input));
        (target.run)(&[]);
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut inputs = 0_u64;
        while Instant::now() < end {
            let input = mutated(&corpus, &mut chance);
            let start = Instant::now();
            (target.run)(&input);
            assert!(start.elapsed() < INPUT_MAX, "{}: {} bytes took {:?}", target.name, input.len(), start.elapsed());
            inputs += 1;
        }
        eprintln!("{}: {inputs} inputs", target.name);
    }
}

/// One to eight changes of an input of the corpus.
fn mutated(corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let pick = |chance: &mut Chance, length: usize| chance.below(length.max(1) as u64) as usize;
    let mut input = corpus[pick(chance, corpus.len())].clone();
    for _ in 0..=chance.below(8) {
        let at = pick(chance, input.len());
        match chance.below(7) {
            0 if !input.is_empty() => input[at] ^= 1 << chance.below(8),
            1 if !input.is_empty() => input[at] = chance.word() as u8,
            2 => input.insert(at, b"{}[]\"\\/%.,:=\n\0\xff"[pick(chance, 15)]),
            3 if !input.is_empty() => {
                let end = at + pick(chance, input.len() - at);
                input.drain(at..end);
            }
            4 if !input.is_empty() => {
                let end = at + pick(chance, input.len() - at);
                let part = input[at..end].to_vec();
                let place = pick(chance, input.len());
                input.splice(place..place, part);
            }
            5 => {
                let other = &corpus[pick(chance, corpus.len())];
                let from = pick(chance, other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.truncate(at),
        }
    }
    input.truncate(BYTES_MAX);
    input
}
