//! Integer formulas on the host's own integers.

use super::ops::*;

/// `a op b` on the host's own integers.
#[inline(always)]
pub(crate) fn plain_bin(op: Bin, w: W, a: u64, b: u64) -> u64 {
    let n = w.bits();
    let r = match op {
        Bin::Add => a.wrapping_add(b),
        Bin::Sub => a.wrapping_sub(b),
        Bin::And => return a & b,
        Bin::Or => return a | b,
        Bin::Xor => return a ^ b,
        Bin::Mul => a.wrapping_mul(b),
        Bin::Shl => a << (b & 63),
        Bin::Shr => return a >> (b & 63),
        Bin::Sar => (w.signed(a) >> (b & 63)) as u64,
        Bin::Rol => match w {
            W::B1 => (a as u8).rotate_left(b as u32) as u64,
            W::B2 => (a as u16).rotate_left(b as u32) as u64,
            W::B4 => (a as u32).rotate_left(b as u32) as u64,
            W::B8 => a.rotate_left(b as u32),
        },
        Bin::Ror => return plain_bin(Bin::Rol, w, a, (n as u64).wrapping_sub(b) & (n as u64 - 1)),
    };
    r & w.mask()
}

/// Integer formulas on the host's own integers.
macro_rules! host_integers {
    () => {
        type V = u64;
        type C = bool;
        #[inline(always)]
        fn imm(&mut self, w: W, k: u64) -> u64 {
            k & w.mask()
        }
        #[inline(always)]
        fn bin(&mut self, op: Bin, w: W, a: u64, b: u64) -> u64 {
            plain_bin(op, w, a, b)
        }
        #[inline(always)]
        fn un(&mut self, op: Un, w: W, a: u64) -> u64 {
            match op {
                Un::Clz => (a.leading_zeros() - (64 - w.bits())) as u64,
                Un::Ctz => a.trailing_zeros().min(w.bits()) as u64,
                Un::Popcnt => a.count_ones() as u64,
                Un::Bswap => a.swap_bytes() >> (64 - w.bits()),
            }
        }
        #[inline(always)]
        fn cmp(&mut self, c: Cmp, w: W, a: u64, b: u64) -> bool {
            match c {
                Cmp::Eq => a == b,
                Cmp::Ne => a != b,
                Cmp::Ult => a < b,
                Cmp::Ule => a <= b,
                Cmp::Slt => w.signed(a) < w.signed(b),
                Cmp::Sle => w.signed(a) <= w.signed(b),
            }
        }
        #[inline(always)]
        fn zext(&mut self, _from: W, _to: W, v: u64) -> u64 {
            v
        }
        #[inline(always)]
        fn sext(&mut self, from: W, to: W, v: u64) -> u64 {
            from.signed(v) as u64 & to.mask()
        }
        #[inline(always)]
        fn trunc(&mut self, _from: W, to: W, v: u64) -> u64 {
            v & to.mask()
        }
        #[inline(always)]
        fn select(&mut self, _w: W, c: bool, t: u64, f: u64) -> u64 {
            if c { t } else { f }
        }
        #[inline(always)]
        fn mul_high(&mut self, w: W, signed: bool, a: u64, b: u64) -> u64 {
            let p = if signed { (w.signed(a) as i128 * w.signed(b) as i128) as u128 } else { a as u128 * b as u128 };
            (p >> w.bits()) as u64 & w.mask()
        }
        #[inline(always)]
        fn even_parity(&mut self, b1: u64) -> bool {
            (b1 as u8).count_ones() & 1 == 0
        }
        #[inline(always)]
        fn bit(&mut self, _w: W, c: bool) -> u64 {
            c as u64
        }
        #[inline(always)]
        fn both(&mut self, op: Bin, a: bool, b: bool) -> bool {
            match op {
                Bin::And => a & b,
                Bin::Or => a | b,
                _ => a ^ b,
            }
        }
        #[inline(always)]
        fn not(&mut self, c: bool) -> bool {
            !c
        }
        #[inline(always)]
        fn never(&mut self) -> bool {
            false
        }
    };
}
/// Formulas alone, without a CPU: what helpers and tests evaluate flags with.
pub struct Plain;
impl Ops for Plain {
    host_integers!();
}
pub(super) use host_integers;
