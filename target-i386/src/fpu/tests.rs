//! The software against the host's own unit.

use super::*;
use accel::tcg::host::{f80::F80, x87};
use soft::Out;

/// xorshift64*, enough for operands.
pub struct Random(pub u64);
impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn f80(&mut self) -> F80 {
        const SIG: [u64; 10] = [
            0,
            1,
            1 << 63,
            1 << 63 | 1,
            u64::MAX,
            3 << 62,
            5 << 61,
            0x7fff_ffff_ffff_ffff,
            0xbfff_ffff_ffff_ffff,
            0xc000_0000_0000_0001,
        ];
        const EXP: [u16; 12] = [0, 1, 2, 64, 0x3ffe, 0x3fff, 0x4000, 0x403e, 0x7ffd, 0x7ffe, 0x7fff, 0x3fc0];
        let r = self.next();
        let sig = match r & 7 {
            0 | 1 => SIG[(r >> 8) as usize % 10],
            2 => 1 << 63 | (r >> 3) << 40,
            3 => 1 << 63 | (r >> 20) << 11 & u64::MAX >> 1,
            _ => 1 << 63 | self.next(),
        };
        let s = self.next();
        let e = match s & 7 {
            0 | 1 => EXP[(s >> 8) as usize % 12],
            2 => (s >> 8) as u16 % 80,
            3 => 0x7fff - (s >> 8) as u16 % 80,
            4 | 5 => 0x3fff - 40 + (s >> 8) as u16 % 80,
            _ => (s >> 8) as u16 & 0x7fff,
        };
        F80 { sig, se: e | (s >> 40) as u16 & 0x8000 }
    }
}
fn control_words() -> impl Iterator<Item = u16> {
    (0..16).filter(|i| i >> 2 != 1).map(|i| 0x7f | (i & 3) << 10 | (i >> 2) << 8)
}
fn out((val, sw): (F80, u16)) -> Out {
    Out { val, flags: sw as u32 & 0x3f, up: sw & 0x200 != 0 }
}

type Two = (&'static str, fn(u16, &F80, &F80) -> Out, fn(u16, u16, &F80, &F80) -> (F80, u16));
#[test]
fn arithmetic_agrees_with_the_host() {
    let ops: [Two; 5] = [
        ("add", soft::add, x87::add),
        ("sub", soft::sub, x87::sub),
        ("mul", soft::mul, x87::mul),
        ("div", soft::div, x87::div),
        ("scale", soft::scale, x87::scale),
    ];
    let mut r = Random(7);
    for (name, ours, host) in ops {
        for cw in control_words() {
            for _ in 0..20_000 {
                let (a, b) = (r.f80(), r.f80());
                assert_eq!(ours(cw, &a, &b), out(host(cw, 0, &a, &b)), "{name} {a:x?} {b:x?} cw {cw:x}");
            }
        }
    }
    for cw in control_words() {
        for _ in 0..20_000 {
            let a = r.f80();
            assert_eq!(soft::sqrt(cw, &a), out(x87::sqrt(cw, 0, &a)), "sqrt {a:x?} cw {cw:x}");
            assert_eq!(soft::rndint(cw, &a), out(x87::rndint(cw, 0, &a)), "rndint {a:x?} cw {cw:x}");
        }
    }
}

#[test]
fn remainders_agree_with_the_host() {
    let mut r = Random(8);
    for ieee in [false, true] {
        for _ in 0..200_000 {
            let (a, b) = (r.f80(), r.f80());
            let (val, sw) = if ieee { x87::prem1(0x37f, 0, &a, &b) } else { x87::prem(0x37f, 0, &a, &b) };
            let (o, c) = prem::remainder(0x37f, ieee, &a, &b);
            let host_c = (sw >> 8 & 7) as u8 | (sw >> 11 & 8) as u8;
            // NaNs and invalid operations: the manual says nothing about the condition codes.
            let special = val.se & 0x7fff == 0x7fff && val.sig << 1 != 0;
            if special {
                println!("{host_c:x}");
            }
            let host_c = if special { c } else { host_c };
            assert_eq!((o.val, o.flags, c), (val, sw as u32 & 0x3f, host_c), "ieee {ieee} {a:x?} {b:x?} sw {sw:x}");
        }
    }
}

/// Operands and correctly rounded results, computed with 700-bit arithmetic: function, x, y, result.
const VECTORS: &str = include_str!("transcendental.txt");

#[test]
fn transcendentals_are_within_one_unit_of_the_true_value() {
    let mut worse = 0;
    let mut lines = 0;
    for line in VECTORS.lines() {
        let f: Vec<&str> = line.split(' ').collect();
        let at = |i: usize| F80 {
            se: u16::from_str_radix(f[i], 16).unwrap(),
            sig: u64::from_str_radix(f[i + 1], 16).unwrap(),
        };
        let (x, y, want) = (at(1), at(3), at(5));
        let trig = |t| match t {
            transcendental::Trig::Done(o) => o,
            transcendental::Trig::OutOfRange => panic!("out of range: {line}"),
        };
        use transcendental::*;
        let got = match f[0] {
            "sin" => trig(sin(0x37f, &x)),
            "cos" => trig(cos(0x37f, &x)),
            "tan" => trig(tan(0x37f, &x)),
            "exp2m1" => exp2m1(0x37f, &x),
            "yl2x" => yl2x(0x37f, &y, &x),
            "yl2xp1" => yl2xp1(0x37f, &y, &x),
            _ => patan(0x37f, &y, &x),
        };
        let key = |v: F80| ((v.se & 0x7fff) as i128) << 63 | (v.sig << 1 >> 1) as i128;
        let ulps = key(got.val) - key(want);
        assert!(got.val.se >> 15 == want.se >> 15 && ulps.abs() <= 1, "{line}: {:x?} off by {ulps}", got.val);
        assert!(got.flags & !2 == 32, "{line}: flags {:x}", got.flags);
        worse += (ulps != 0) as u32;
        lines += 1;
    }
    // Correctly rounded but for values within 2^-50 of a tie.
    assert_eq!((worse, lines > 80), (0, true));
}
