//! See `fuzz_targets::scsi`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::scsi(data));
