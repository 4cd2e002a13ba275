//! See `fuzz_targets::qcow2`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::qcow2(data));
