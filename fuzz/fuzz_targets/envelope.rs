//! See `keyward_tests::fuzz::envelope`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| keyward_tests::fuzz::envelope(bytes));
