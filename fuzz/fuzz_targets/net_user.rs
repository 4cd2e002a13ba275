//! See `fuzz_targets::net_user`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::net_user(data));
