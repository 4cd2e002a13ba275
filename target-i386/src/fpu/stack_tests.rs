//! Behaviour of the register stack.

use super::image::EnvLayout;
use super::stack::{Arith, MemFormat, Unary};
use super::*;

fn with(values: &[f64]) -> Fpu {
    let mut f = Fpu::default();
    for v in values {
        f.push(Fpu::operand(MemFormat::F64, v.to_bits() as u128));
    }
    f
}
fn top(f: &Fpu) -> f64 {
    f64::from_bits(f.store(MemFormat::F64, false).bits.unwrap() as u64)
}

#[test]
fn pushes_count_down_and_pops_free() {
    let mut f = with(&[1.0, 2.0]);
    assert_eq!((f.top(), f.ftw), (6, 0xc0));
    assert!(f.arith(Arith::Sub, 1, f.st(0).map(soft::Out::exact)));
    f.pop();
    assert_eq!((top(&f), f.ftw), (-1.0, 0x80));
}

#[test]
fn a_ninth_push_overflows_and_an_empty_operand_underflows() {
    let mut f = with(&[1.0; 8]);
    f.push_constant(0);
    assert_eq!(f.fsw & 0xff, 0x41);
    assert_eq!(f.fsw & sw::C1, sw::C1);
    assert_eq!(f.st(0), Some(soft::INDEFINITE));
    let mut f = Fpu::default();
    f.unary(Unary::Fsqrt);
    assert_eq!(f.fsw & (0xff | sw::C1), 0x41);
    assert_eq!(f.st(0), Some(soft::INDEFINITE));
}

#[test]
fn unmasked_invalid_leaves_everything_and_is_pending() {
    let mut f = with(&[-1.0]);
    f.set_fcw(0x37e);
    f.unary(Unary::Fsqrt);
    assert_eq!((top(&f), f.pending(), f.fsw & 0x3f), (-1.0, true, 1));
    f.clear_exceptions();
    assert!(!f.pending());
    // Stack underflow, unmasked: no register is filled.
    let mut f = Fpu::default();
    f.set_fcw(0x37e);
    f.push_st(3);
    assert_eq!((f.ftw, f.top(), f.pending()), (0, 0, true));
}

#[test]
fn unmasked_overflow_delivers_the_adjusted_result() {
    let big = F80 { sig: 1 << 63, se: 0x7ffe };
    let mut f = Fpu::default();
    f.set_fcw(0x377);
    f.push(soft::Out::exact(big));
    assert!(f.arith(Arith::Mul, 0, Some(soft::Out::exact(big))));
    // 2^16383 squared is 2^32766; minus 24576 leaves 2^8190.
    assert_eq!(f.st(0), Some(F80 { sig: 1 << 63, se: 16383 + 8190 }));
    assert_eq!((f.pending(), f.fsw & 0x3f), (true, 8));
    // A store to memory is not done instead.
    let mut f = Fpu::default();
    f.set_fcw(0x377);
    f.push(soft::Out::exact(big));
    let s = f.store(MemFormat::F64, false);
    assert_eq!(s.bits, None);
    f.stored(s, true);
    assert_eq!((f.top(), f.pending()), (7, true));
}

#[test]
fn stores_round_and_convert() {
    let f = with(&[2.5]);
    assert_eq!(f.store(MemFormat::I32, false).bits, Some(2));
    let f = with(&[-2.75]);
    assert_eq!(f.store(MemFormat::I16, false).bits.unwrap() as i16, -3);
    assert_eq!(f.store(MemFormat::I16, true).bits.unwrap() as i16, -2);
    let f = with(&[40000.0]);
    assert_eq!(f.store(MemFormat::I16, false).bits.unwrap() as u16, 0x8000);
    let f = with(&[-123456789.0]);
    let bcd = f.store(MemFormat::Bcd, false).bits.unwrap();
    assert_eq!(bcd, 0x8000_0000_0001_2345_6789);
    assert_eq!(Fpu::operand(MemFormat::Bcd, bcd).val, f.st(0).unwrap());
    assert_eq!(with(&[1e18]).store(MemFormat::Bcd, false).bits, Some(convert::BCD_INDEFINITE));
}

#[test]
fn environment_layouts_round_trip() {
    let mut f = with(&[1.5, 0.0, f64::INFINITY]);
    (f.fip, f.fcs, f.fdp, f.fds, f.fop) = (0x1234_5678, 0x23, 0x9abc_def0, 0x2b, 0x5c1);
    assert_eq!(f.tag_word(), 0b00_01_10_11_11_11_11_11);
    for (wide, real) in [(true, false), (false, false), (true, true), (false, true)] {
        let l = EnvLayout { wide, real };
        let mut image = [0; 108];
        f.save_env(l, &mut image);
        f.save_regs(&mut image[l.bytes()..l.bytes() + image::REGISTERS]);
        let mut g = Fpu::default();
        g.load_env(l, &image);
        g.load_regs(&image[l.bytes()..l.bytes() + image::REGISTERS]);
        assert_eq!((g.regs, g.fcw, g.fsw, g.ftw), (f.regs, f.fcw, f.fsw, f.ftw), "{l:?}");
        if wide && !real {
            assert_eq!((g.fip, g.fcs, g.fdp, g.fds, g.fop), (f.fip, f.fcs, f.fdp, f.fds, f.fop));
        }
        if !wide && !real {
            assert_eq!((g.fip, g.fcs, g.fdp, g.fds), (0x5678, 0x23, 0xdef0, 0x2b));
        }
        if wide && real {
            assert_eq!((g.fip, g.fop), (0x1234_58a8, f.fop));
        }
    }
    let mut image = [0; 512];
    f.fxsave(false, &mut image);
    let mut g = Fpu::default();
    g.fxrstor(false, &image);
    assert_eq!(g, f);
}

#[test]
fn mmx_registers_are_the_significands() {
    let mut f = with(&[1.0]);
    f.enter_mmx();
    f.set_mmx(3, 0x1122_3344_5566_7788);
    assert_eq!((f.top(), f.ftw, f.mmx(3), f.regs[3].se), (0, 0xff, 0x1122_3344_5566_7788, 0xffff));
    assert_eq!(f.mmx(7), 1 << 63);
}

#[test]
fn constants_follow_rounding_control() {
    let pi = |fcw| convert::constant(fcw, 3).sig;
    assert_eq!([pi(0x37f), pi(0x77f), pi(0xb7f), pi(0xf7f)].map(|s| s & 0xff), [0x35, 0x34, 0x35, 0x34]);
    assert_eq!(convert::constant(0x37f, 0), F80 { sig: 1 << 63, se: 0x3fff });
}

#[test]
fn out_of_range_angles_set_c2_only() {
    let mut f = Fpu::default();
    f.push(soft::Out::exact(F80 { sig: 1 << 63, se: 0x3fff + 63 }));
    let before = f.st(0);
    f.unary(Unary::Fsin);
    assert_eq!((f.st(0), f.fsw & (sw::C2 | 0x3f)), (before, sw::C2));
}

#[test]
fn memory_operands_keep_signaling_nans_and_tell_denormals() {
    // The largest single denormal is 1.11…1 · 2^-127.
    let o = Fpu::operand(MemFormat::F32, 0x7f_ffff);
    assert_eq!((o.val, o.flags), (F80 { sig: 0xffff_fe00_0000_0000, se: 0x3fff - 127 }, 2));
    let o = Fpu::operand(MemFormat::F64, 1);
    assert_eq!((o.val, o.flags), (F80 { sig: 1 << 63, se: 0x3fff - 1074 }, 2));
    let o = Fpu::loaded(MemFormat::F64, 0x7ff0_0000_0000_0001);
    assert_eq!((o.val, o.flags), (F80 { sig: 0xc000_0000_0000_0800, se: 0x7fff }, 1));
    // Added to a quiet NaN it is the quiet one that results.
    let mut f = Fpu::default();
    f.push(soft::Out::exact(soft::INDEFINITE));
    f.arith(Arith::Add, 0, Some(Fpu::operand(MemFormat::F64, 0x7ff0_0000_0000_0001)));
    assert_eq!((f.st(0), f.fsw & 0x3f), (Some(soft::INDEFINITE), 1));
}

#[test]
fn massive_underflow_gives_zero() {
    let mut f = Fpu::default();
    f.set_fcw(0x36f);
    f.push(Fpu::operand(MemFormat::I32, (-60000i32) as u32 as u128));
    f.push_constant(0);
    f.unary(Unary::Fscale);
    assert_eq!((f.st(0), f.fsw & 0x3f, f.pending()), (Some(F80::default()), 0x30, true));
}

#[test]
fn f2xm1_of_one_is_rounded_from_below() {
    // What an EPYC does, by rounding control: nearest, down, up, to zero.
    let one = (0x3fff, 1 << 63, 0x220);
    let below = (0x3ffe, u64::MAX, 0x20);
    for (rc, want) in [one, below, one, below].into_iter().enumerate() {
        let mut f = with(&[1.0]);
        f.set_fcw(0x37f | (rc as u16) << 10);
        f.unary(Unary::F2xm1);
        let r = f.st(0).unwrap();
        assert_eq!((r.se, r.sig, f.fsw & 0x23f), want, "rounding control {rc}");
    }
    let mut f = with(&[-1.0]);
    f.unary(Unary::F2xm1);
    assert_eq!((top(&f), f.fsw & 0x23f), (-0.5, 0x20));
}
