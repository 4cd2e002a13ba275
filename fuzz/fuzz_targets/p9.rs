//! See `fuzz_targets::p9`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::p9(data));
