//! See `fuzz_targets::atapi`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::atapi(data));
