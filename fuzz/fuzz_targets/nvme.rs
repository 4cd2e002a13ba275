//! See `fuzz_targets::nvme`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::nvme(data));
