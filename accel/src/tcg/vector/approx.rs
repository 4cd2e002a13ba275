//! RCPPS/SS and RSQRTPS/SS. The SDM bounds the relative error by 1.5·2⁻¹² and leaves the bits open; these are the
//! correctly truncated quotient and root of the significand, in integers, hence the same on every host.
//! A denormal operand counts as zero, a tiny result is zero, no exception is signalled and MXCSR is not read (SDM vol. 2).
#![forbid(unsafe_code)]

const QUIET: u32 = 0x0040_0000;
const DEFAULT_NAN: u32 = 0xffc0_0000;

/// RCPSS on the bits of a single.
pub fn rcp(x: u32) -> u32 {
    let (sign, exp, frac) = (x & 0x8000_0000, (x >> 23 & 0xff) as i32, x & 0x7f_ffff);
    match exp {
        0xff if frac != 0 => return x | QUIET,
        // (1/2^126, though normal, is tiny on real parts.)
        253.. => return sign,
        0 => return sign | 0x7f80_0000,
        _ => {}
    }
    // 1/m for m in [1, 2) is in (1/2, 1].
    let m = (frac | 0x80_0000) as u64;
    let q = ((1u64 << 47) / m) as u32;
    let (q, e) = if q >> 24 != 0 { (q >> 1, 254 - exp) } else { (q, 253 - exp) };
    sign | (e as u32) << 23 | q & 0x7f_ffff
}

/// RSQRTSS on the bits of a single.
pub fn rsqrt(x: u32) -> u32 {
    let (sign, exp, frac) = (x & 0x8000_0000, (x >> 23 & 0xff) as i32, x & 0x7f_ffff);
    match exp {
        0xff if frac != 0 => return x | QUIET,
        0 => return sign | 0x7f80_0000,
        _ if sign != 0 => return DEFAULT_NAN,
        0xff => return 0,
        _ => {}
    }
    // x = m · 2^e with e even and m in [1, 4); 1/√m is in (1/2, 1].
    let e = exp - 127;
    let m = ((frac | 0x80_0000) as u128) << (e & 1);
    let q = ((1u128 << (23 + 2 * 24)) / m).isqrt() as u32;
    let e = -((e - (e & 1)) / 2) + 127;
    let (q, e) = if q >> 24 != 0 { (q >> 1, e) } else { (q, e - 1) };
    (e as u32) << 23 | q & 0x7f_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_error_is_within_the_architectural_bound() {
        let bound = 1.5 / 4096.0;
        let mut x = 0x0080_0000u32;
        while x < 0x7f80_0000 {
            let v = f32::from_bits(x) as f64;
            let r = f32::from_bits(rsqrt(x)) as f64;
            assert!((r * v.sqrt() - 1.0).abs() <= bound, "rsqrt {v:e}");
            if v < 8.5e37 {
                let r = f32::from_bits(rcp(x)) as f64;
                assert!((r * v - 1.0).abs() <= bound, "rcp {v:e}");
            }
            x += 9973;
        }
    }

    #[test]
    fn special_operands() {
        assert_eq!(f32::from_bits(rcp(1f32.to_bits())), 1.0);
        assert_eq!(f32::from_bits(rsqrt(4f32.to_bits())), 0.5);
        assert_eq!(rcp(1), f32::INFINITY.to_bits());
        assert_eq!(rcp(0x8000_0000), f32::NEG_INFINITY.to_bits());
        assert_eq!(rcp(0x7f7f_ffff), 0);
        assert_eq!(rcp(0x7f80_0001), 0x7fc0_0001);
        assert_eq!(rsqrt((-1f32).to_bits()), DEFAULT_NAN);
        assert_eq!(rsqrt(0x8000_0000), f32::NEG_INFINITY.to_bits());
    }
}
