//! See `fuzz_targets::ahci`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::ahci(data));
