//! See `fuzz_targets::virtio_blk`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::virtio_blk(data));
