//! The software meanings against the host's instructions: same results, same flags, for every operation, rounding mode,
//! DAZ and FTZ, on random and edge operands.

use super::*;
use crate::tcg::host::{fpcr, sse};
use W::*;

/// xorshift64*, enough for operands.
pub struct Random(pub u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn lane(&mut self, w: W) -> u64 {
        const EDGE32: [u32; 20] = [
            0,
            0x8000_0000,
            1,
            0x8000_0001,
            0x7f_ffff,
            0x80_0000,
            0x80_0001,
            0x3f80_0000,
            0xbf80_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0xffc0_0001,
            0x7f80_0001,
            0xffbf_ffff,
            0x4f00_0000,
            0xcf00_0000,
            0x3f00_0000,
            0x4b00_0001,
        ];
        const EDGE64: [u64; 18] = [
            0,
            1 << 63,
            1,
            0xf_ffff_ffff_ffff,
            1 << 52,
            0x8010_0000_0000_0001,
            0x3ff0_0000_0000_0000,
            0xbff0_0000_0000_0001,
            0x7fef_ffff_ffff_ffff,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0xfff0_0000_0000_0001,
            0x41df_ffff_ffc0_0000,
            0xc1e0_0000_0000_0000,
            0x43e0_0000_0000_0000,
            0x36a0_0000_0000_0000,
            0x380f_ffff_f000_0000,
        ];
        let r = self.next();
        match (r >> 60, w) {
            (0..4, B8) => EDGE64[(r % 18) as usize],
            (0..4, _) => EDGE32[(r % 20) as usize] as u64,
            // Exponents close to one another and to the limits, few significant bits.
            (4..8, B8) => (r & 1 << 63) | (1023 - 3 + (r >> 20) % 7) << 52 | (r & 0xff) << 44,
            (4..8, _) => (r & 1 << 31) | (127 - 3 + (r >> 20) % 7) << 23 | (r & 0xff) << 15,
            (8..10, B8) => (r & 1 << 63) | ((r >> 20) % 60) << 52 | self.next() & 0xf_ffff_ffff_ffff,
            (8..10, _) => (r & 1 << 31) | ((r >> 20) % 30) << 23 | r >> 5 & 0x7f_ffff,
            (10, B8) => f64::from_bits(self.next() & 0x807f_ffff_ffff_ffff | 0x4000_0000_0000_0000).to_bits(),
            (11, B8) => (f32::from_bits(self.next() as u32) as f64).to_bits(),
            _ => self.next() & w.mask(),
        }
    }
    fn vector(&mut self, w: W) -> u128 {
        (0..128 / w.bits()).fold(0, |r, i| r | (self.lane(w) as u128) << (i * w.bits()))
    }
}

fn csrs() -> impl Iterator<Item = u32> {
    (0..16).map(|i| {
        let on = |bit: u32, m: u32| if i >> bit & 1 != 0 { m } else { 0 };
        mxcsr::MASKS | (i & 3) << mxcsr::RC_SHIFT | on(2, mxcsr::DAZ) | on(3, mxcsr::FTZ)
    })
}

fn integer_ops() -> Vec<XBin> {
    use XBin::*;
    let mut v = vec![
        And,
        Andn,
        Or,
        Xor,
        MulLo16,
        MulHi16S,
        MulHi16U,
        MulU32,
        MulAdd16,
        SumAbsDiff8,
        PackUnsigned16,
        LowToHigh,
        HighToLow,
    ];
    for w in [B1, B2, B4, B8] {
        v.extend([Add(w), Sub(w), UnpackLo(w), UnpackHi(w)]);
    }
    for w in [B1, B2] {
        v.extend([AddSatS(w), AddSatU(w), SubSatS(w), SubSatU(w), Avg(w), Min(w), Max(w)]);
    }
    for w in [B1, B2, B4] {
        v.extend([CmpEq(w), CmpGt(w)]);
    }
    v.extend([PackSigned(B2), PackSigned(B4)]);
    v
}

#[test]
fn integer_lanes_agree_with_the_host() {
    let mut r = Random(1);
    for op in integer_ops() {
        for _ in 0..2000 {
            let w = [B4, B8][r.next() as usize % 2];
            let (a, mut b) = (r.vector(w), r.vector(B4));
            if r.next().is_multiple_of(4) {
                b = a ^ 1 << (r.next() % 128);
            }
            assert_eq!(soft_int::xbin(op, a, b), sse::xbin(op, a, b), "{op:?} {a:x} {b:x}");
        }
    }
    for op in [
        XShift::Shl(B2),
        XShift::Shl(B4),
        XShift::Shl(B8),
        XShift::Shr(B2),
        XShift::Shr(B4),
        XShift::Shr(B8),
        XShift::Sar(B2),
        XShift::Sar(B4),
    ] {
        for n in (0..70).chain([1 << 32, u64::MAX]) {
            let a = r.vector(B8);
            assert_eq!(soft_int::xshift(op, a, n), sse::xshift(op, a, n), "{op:?} {a:x} {n}");
        }
    }
    for w in [B1, B4, B8] {
        for _ in 0..100 {
            let a = r.vector(B4);
            assert_eq!(soft_int::xmask(w, a), sse::xmask(w, a), "{w:?} {a:x}");
        }
    }
}

#[test]
fn shuffles_follow_the_manual() {
    let (a, b) = (0x0f0e0d0c_0b0a0908_07060504_03020100, 0x1f1e1d1c_1b1a1918_17161514_13121110);
    assert_eq!(soft_int::xshuffle(XShuffle::D, a, b, 0x1b), 0x13121110_17161514_1b1a1918_1f1e1d1c);
    assert_eq!(soft_int::xshuffle(XShuffle::Lw, a, b, 0x1b), 0x1f1e1d1c_1b1a1918_11101312_15141716);
    assert_eq!(soft_int::xshuffle(XShuffle::Hw, a, b, 0x1b), 0x19181b1a_1d1c1f1e_17161514_13121110);
    assert_eq!(soft_int::xshuffle(XShuffle::Ps, a, b, 0x1b), 0x13121110_17161514_0b0a0908_0f0e0d0c);
    assert_eq!(soft_int::xshuffle(XShuffle::Pd, a, b, 0x1), 0x17161514_13121110_0f0e0d0c_0b0a0908);
    assert_eq!(sse::xun(XUn::DupOdd32, a), soft_int::xun(XUn::DupOdd32, a).unwrap());
    assert_eq!(sse::xun(XUn::DupEven32, a), soft_int::xun(XUn::DupEven32, a).unwrap());
}

#[test]
fn floating_point_agrees_with_the_host_in_result_and_flags() {
    let mut r = Random(2);
    let mut ops = vec![(FpBin::Resize, Fp::Ss), (FpBin::Resize, Fp::Sd)];
    use FpBin::*;
    for t in [Fp::Ps, Fp::Pd, Fp::Ss, Fp::Sd] {
        ops.extend([Add, Sub, Mul, Div, Min, Max, Sqrt].map(|o| (o, t)));
        ops.extend((0..8).map(|k| (Cmp(k), t)));
    }
    for t in [Fp::Ps, Fp::Pd] {
        ops.extend([AddSub, Hadd, Hsub].map(|o| (o, t)));
    }
    for (op, t) in ops {
        let w = if (op == Resize) ^ (t.lane() == B8) { B8 } else { B4 };
        for csr in csrs() {
            for _ in 0..1500 {
                let (a, b) = (r.vector(w), r.vector(w));
                let host = fpcr::under(csr, || sse::fp(op, t, a, b));
                assert_eq!(
                    soft_fp::fp(op, t, a, b, csr),
                    host,
                    "{op:?} {t:?} {a:032x} {b:032x} mxcsr {csr:x} host {:032x}",
                    host.0
                );
            }
        }
    }
}

#[test]
fn conversions_agree_with_the_host_in_result_and_flags() {
    let mut r = Random(3);
    use XUn::*;
    for op in [CvtDqPs, CvtPsDq, CvttPsDq, CvtDqPd, CvtPdDq, CvttPdDq, CvtPsPd, CvtPdPs] {
        let w = if matches!(op, CvtPdDq | CvttPdDq | CvtPdPs) { B8 } else { B4 };
        for csr in csrs() {
            for _ in 0..1500 {
                let x = r.vector(w);
                let host = fpcr::under(csr, || sse::xun(op, x));
                assert_eq!(soft_fp::xun(op, x, csr), Some(host), "{op:?} {x:032x} mxcsr {csr:x} host {:032x}", host.0);
            }
        }
    }
    for (from, to) in [(B4, B4), (B4, B8), (B8, B4), (B8, B8)] {
        for csr in csrs() {
            for _ in 0..1500 {
                let x = r.lane(from);
                for t in [false, true] {
                    let host = fpcr::under(csr, || sse::to_int(from, to, t, x as u128));
                    assert_eq!(soft_fp::to_int(from, to, t, x, csr), host, "to_int {from:?} {to:?} {t} {x:x} {csr:x}");
                }
                let host = fpcr::under(csr, || sse::from_int(from, to, 0, x) as u64);
                assert_eq!(soft_fp::from_int(from, to, x, csr), host, "from_int {from:?} {to:?} {x:x} {csr:x}");
                let y = r.lane(from);
                for quiet in [false, true] {
                    let host = fpcr::under(csr, || sse::compare(from, quiet, x as u128, y as u128));
                    assert_eq!(soft_fp::comis(from, x, y, csr, quiet), host, "compare {from:?} {x:x} {y:x} {csr:x}");
                }
            }
        }
    }
}

/// What tier 0 calls, on both kinds of host: results, and flags collected in the guest's MXCSR.
#[test]
fn both_native_layers_leave_the_same_mxcsr() {
    use native::{self, Fpcr, soft};
    let mut r = Random(4);
    for csr in csrs() {
        let (mut a, mut ah, mut b, mut bh) = (csr as u64, 0, csr as u64, 0);
        let before = fpcr::read();
        for _ in 0..500 {
            let (x, y) = (r.vector(B8), r.vector(B4));
            let mut f = Fpcr { guest: &mut a, host: &mut ah };
            let mut g = Fpcr { guest: &mut b, host: &mut bh };
            assert_eq!(native::xfp(&mut f, FpBin::Mul, Fp::Pd, x, y), soft::xfp(&mut g, FpBin::Mul, Fp::Pd, x, y));
            assert_eq!(native::xun(&mut f, XUn::CvtPsDq, y), soft::xun(&mut g, XUn::CvtPsDq, y));
            assert_eq!(native::xcompare(&mut f, B8, true, x, y), soft::xcompare(&mut g, B8, true, x, y));
            assert_eq!(native::xto_int(&mut f, B8, B4, true, x), soft::xto_int(&mut g, B8, B4, true, x));
            let (i, j) = (native::xfrom_int(&mut f, B8, B4, x, y as u64), soft::xfrom_int(&mut g, B8, B4, x, y as u64));
            assert_eq!(i, j);
            assert_eq!(native::xbin(XBin::MulAdd16, x, y), soft::xbin(XBin::MulAdd16, x, y));
            assert_eq!(native::xshift(XShift::Sar(B2), x, 3), soft::xshift(XShift::Sar(B2), x, 3));
            assert_eq!(native::xmask(B1, x), soft::xmask(B1, x));
        }
        Fpcr { guest: &mut a, host: &mut ah }.leave();
        assert_eq!((a, ah, fpcr::read() & !0x3f), (b, 0, before & !0x3f));
    }
}

#[test]
fn unmasked_exceptions_are_found() {
    use softfp_flags::*;
    let open = |csr: u32, f: u32| csr & !(f << mxcsr::MASK_SHIFT);
    // 2^-1074 is exact but tiny: UE only while underflow is unmasked.
    let (tiny, half) = (0x0010_0000_0000_0000u128, 0x3fe0_0000_0000_0000u128);
    let mul = |csr| soft_fp::fp(FpBin::Mul, Fp::Sd, tiny, half, csr).1;
    assert_eq!(mul(mxcsr::RESET), 0);
    let csr = open(mxcsr::RESET, UE);
    let f = mul(csr);
    assert_eq!((f, soft_fp::unmasked(csr, f)), (UE, Some(UE)));
    // A division by zero in one lane hides the inexact result of another.
    let csr = open(mxcsr::RESET, ZE);
    let f = soft_fp::fp(FpBin::Div, Fp::Ps, 0x3f80_0000_3f80_0000, 0x4040_0000_0000_0000, csr).1;
    assert_eq!(soft_fp::unmasked(csr, f), Some(IE | ZE));
    assert_eq!(soft_fp::unmasked(mxcsr::RESET, f), None);
}
use crate::tcg::softfp::flag as softfp_flags;
