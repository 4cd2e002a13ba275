//! See `fuzz_targets::virtio_rng`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::virtio_rng(data));
