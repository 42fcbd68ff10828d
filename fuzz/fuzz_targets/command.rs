//! See `keyward_tests::fuzz::commands`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| keyward_tests::fuzz::commands(bytes));
