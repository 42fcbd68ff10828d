//! See `keyward_tests::fuzz::hcl`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| keyward_tests::fuzz::hcl(bytes));
