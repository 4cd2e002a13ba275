//! See `fuzz_targets::rings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::rings(data));
