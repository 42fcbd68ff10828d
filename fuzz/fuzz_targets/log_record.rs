//! See `keyward_tests::fuzz::log_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| keyward_tests::fuzz::log_record(bytes));
