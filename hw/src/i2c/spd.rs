//! Serial presence detect contents for a memory module. Source: JEDEC 21-C §4.1.2.4 (SDR SDRAM).

/// Size of the EEPROM.
pub const SIZE: usize = 256;

/// Describes RAM of `bytes` as one SDR module of at most four banks of 4 to 512 MiB each; larger RAM shows the largest
/// module, as firmware that cares sizes RAM otherwise.
pub fn sdr(bytes: u64) -> [u8; SIZE] {
    let mib = (bytes >> 20).clamp(4, 2048);
    // Row density: the largest power of two with at most eight rows; byte 31 has a bit per 4 MiB << n.
    let mut density = 512u64;
    while density > 4 && density > mib {
        density /= 2;
    }
    let rows = (mib / density).clamp(1, 4) as u8;
    let log2 = density.ilog2() as u8; // 2 (4 MiB) to 9 (512 MiB)
    let density_code = match log2 {
        2..=4 => 1 << (log2 - 2), // 4, 8, 16 MiB in bits 0, 1, 2
        _ => 1 << (log2 - 2).min(7),
    };
    let mut spd = [0; SIZE];
    let header: [u8; 64] = [
        128, // bytes used
        8,   // 256-byte EEPROM
        4,   // SDR SDRAM
        12,
        10,   // row and column address bits
        rows, // module banks
        64,
        0, // data width
        1, // LVTTL
        0x70,
        0x60, // cycle and access time at the highest CAS latency
        0,
        0x80, // no parity; 15.6 us refresh, self refresh
        8,
        0, // device width, no ECC
        1, // back-to-back random column access
        0x8f,
        4, // burst lengths, device banks
        0x06,
        1,
        1, // CAS, CS, write latencies
        0,
        0x0e, // unbuffered; precharge all, auto-precharge, write-1/read-burst
        0x75,
        0x54,
        0,
        0, // timing at lower CAS latencies
        20,
        15,
        20,
        45, // tRP, tRRD, tRCD, tRAS in ns
        density_code,
        0x20,
        0x10,
        0x20,
        0x10, // row density; set-up and hold times
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,    // reserved
        0x12, // revision 1.2
        0,    // checksum
    ];
    spd.iter_mut().zip(header).for_each(|(d, s)| *d = s);
    let sum = spd.iter().take(63).fold(0u8, |s, b| s.wrapping_add(*b));
    if let Some(checksum) = spd.get_mut(63) {
        *checksum = sum;
    }
    spd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_covers_the_first_63_bytes() {
        for mib in [1u64, 32, 128, 512, 4096] {
            let s = sdr(mib << 20);
            assert_eq!(s[63], s[..63].iter().fold(0u8, |a, b| a.wrapping_add(*b)));
            assert_eq!(s[2], 4);
        }
        assert_eq!(sdr(128 << 20)[31], 1 << 5);
    }
}
