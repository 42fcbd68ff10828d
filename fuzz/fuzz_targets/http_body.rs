//! See `keyward_tests::fuzz::http_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| keyward_tests::fuzz::http_body(bytes));
