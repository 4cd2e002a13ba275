//! See `fuzz_targets::formats`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::formats(data));
