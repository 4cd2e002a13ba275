//! x87, MMX and SSE on small programs: state that outlives an instruction, exceptions, alignment, both frames of memory.

use iced_x86::code_asm::*;
use target_i386::{exception::Exception, state::bits::*, testing::*};

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x4_0000;
const END: Outcome = Outcome::Exception(Exception::ud());

fn machine(f: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Bare {
    let mut a = CodeAssembler::new(64).expect("64-bit");
    f(&mut a).expect("instructions");
    a.ud2().expect("ud2");
    let mut m = Bare::new(64, 16 << 20);
    m.poke(CODE, &a.assemble(CODE).expect("assembles"));
    m.set_pc(CODE);
    m.set_gpr(4, 0x80_0000);
    m.set_gpr(3, DATA);
    m
}
fn f64s(lo: f64, hi: f64) -> u128 {
    (hi.to_bits() as u128) << 64 | lo.to_bits() as u128
}
fn load64(m: &Bare, at: u64) -> u64 {
    let mut b = [0; 8];
    m.peek(at, &mut b);
    u64::from_le_bytes(b)
}

#[test]
fn scalar_loop_sums_and_collects_sticky_flags() {
    let mut m = machine(|a| {
        let mut top = a.create_label();
        a.mov(ecx, 1000)?;
        a.xorps(xmm0, xmm0)?;
        a.set_label(&mut top)?;
        a.cvtsi2sd(xmm1, ecx)?;
        a.movsd_2(xmm2, qword_ptr(rbx))?;
        a.mulsd(xmm1, xmm2)?;
        a.addsd(xmm0, xmm1)?;
        a.dec(ecx)?;
        a.jne(top)?;
        a.movsd_2(qword_ptr(rbx + 8), xmm0)?;
        a.stmxcsr(dword_ptr(rbx + 16))
    });
    m.poke(DATA, &0.1f64.to_bits().to_le_bytes());
    assert_eq!(m.run(u64::MAX), END);
    let want = (1..=1000).rev().fold(0.0, |s, i| s + i as f64 * 0.1);
    assert_eq!(f64::from_bits(load64(&m, DATA + 8)), want);
    assert_eq!(load64(&m, DATA + 16) as u32, 0x1fa0);
    assert_eq!(m.mxcsr(), 0x1fa0);
    // The host's own control register is what it was.
    assert_eq!(1.0f64 / 3.0, f64::from_bits(0x3fd5_5555_5555_5555));
}

#[test]
fn rounding_control_is_the_guests() {
    for (rc, want) in [(0u32, 0x3fd5_5555_5555_5555u64), (1, 0x3fd5_5555_5555_5555), (2, 0x3fd5_5555_5555_5556)] {
        let mut m = machine(|a| a.divsd(xmm0, xmm1));
        m.set_xmm(0, f64s(1.0, 5.0));
        m.set_xmm(1, f64s(3.0, 7.0));
        m.set_mxcsr(0x1f80 | rc << 13);
        assert_eq!(m.run(100), END);
        assert_eq!(m.xmm(0), f64s(f64::from_bits(want), 5.0), "rc {rc}");
    }
}

#[test]
fn unmasked_exceptions_come_before_any_change() {
    let mut m = machine(|a| {
        a.ldmxcsr(dword_ptr(rbx))?;
        a.divpd(xmm0, xmm1)
    });
    m.poke(DATA, &0x1d80u32.to_le_bytes()); // ZE unmasked
    m.set_xmm(0, f64s(1.0, 1.0));
    m.set_xmm(1, f64s(3.0, 0.0));
    assert_eq!(m.run(100), Outcome::Exception(Exception::xm()));
    assert_eq!((m.xmm(0), m.mxcsr()), (f64s(1.0, 1.0), 0x1d84));
    // Without CR4.OSXMMEXCPT it is #UD; without an exception the instruction runs.
    m.set_pc(CODE);
    m.set_xmm(1, f64s(2.0, 4.0));
    assert_eq!(m.run(100), END);
    assert_eq!(m.xmm(0), f64s(0.5, 0.25));
}

#[test]
fn sixteen_byte_operands_must_be_aligned() {
    let gp = Outcome::Exception(Exception::gp(0));
    for (at, want) in [(DATA, END), (DATA + 8, gp), (DATA + 1, gp)] {
        let mut m = machine(|a| a.paddd(xmm0, xmmword_ptr(rbx)));
        m.set_gpr(3, at);
        assert_eq!(m.run(100), want, "{at:x}");
        let mut m = machine(|a| a.movaps(xmmword_ptr(rbx), xmm0));
        m.set_gpr(3, at);
        assert_eq!(m.run(100), want, "{at:x}");
        // Scalars, MOVUPS and LDDQU need not be.
        let mut m = machine(|a| {
            a.movups(xmm0, xmmword_ptr(rbx))?;
            a.lddqu(xmm1, xmmword_ptr(rbx))?;
            a.addsd(xmm0, qword_ptr(rbx))
        });
        m.set_gpr(3, at);
        assert_eq!(m.run(100), END);
    }
}

#[test]
fn page_crossing_vectors_move_whole() {
    let mut m = machine(|a| {
        a.movups(xmm0, xmmword_ptr(rbx))?;
        a.movups(xmmword_ptr(rbx + 0x1000), xmm0)
    });
    m.set_gpr(3, DATA + 0xff8);
    let v: Vec<u8> = (1..17).collect();
    m.poke(DATA + 0xff8, &v);
    assert_eq!(m.run(100), END);
    let mut b = [0; 16];
    m.peek(DATA + 0x1ff8, &mut b);
    assert_eq!(b[..], v[..]);
}

#[test]
fn comparisons_feed_branches() {
    let mut m = machine(|a| {
        a.ucomisd(xmm0, xmm1)?;
        a.setb(al)?;
        a.sete(cl)?;
        a.setp(dl)
    });
    for (x, y, want) in
        [(1.0, 2.0, [1, 0, 0]), (2.0, 2.0, [0, 1, 0]), (3.0, 2.0, [0, 0, 0]), (f64::NAN, 2.0, [1, 1, 1])]
    {
        m.set_xmm(0, f64s(x, 0.0));
        m.set_xmm(1, f64s(y, 0.0));
        m.set_pc(CODE);
        assert_eq!(m.run(100), END);
        assert_eq!([m.gpr(0) & 1, m.gpr(1) & 1, m.gpr(2) & 1], want, "{x} {y}");
    }
}

#[test]
fn x87_computes_a_hypotenuse() {
    let mut m = machine(|a| {
        a.fninit()?;
        a.fld(qword_ptr(rbx))?;
        a.fmul_2(st0, st0)?;
        a.fild(dword_ptr(rbx + 8))?;
        a.fmul_2(st0, st0)?;
        a.faddp(st1, st0)?;
        a.fsqrt()?;
        a.fstp(qword_ptr(rbx + 16))?;
        a.fnstsw(ax)
    });
    m.poke(DATA, &3.0f64.to_bits().to_le_bytes());
    m.poke(DATA + 8, &4u32.to_le_bytes());
    assert_eq!(m.run(100), END);
    assert_eq!((f64::from_bits(load64(&m, DATA + 16)), m.gpr(0) & 0xffff), (5.0, 0));
    assert_eq!(m.state().fpu.ftw, 0);
}

#[test]
fn pending_x87_exceptions_are_reported_by_the_next_waiting_instruction() {
    let mut m = machine(|a| {
        a.fninit()?;
        a.fldcw(word_ptr(rbx))?;
        a.fldz()?;
        a.fld1()?;
        a.fdiv_2(st0, st1)?;
        a.fnstsw(ax)?;
        a.wait()
    });
    m.poke(DATA, &0x37bu16.to_le_bytes()); // ZE unmasked
    assert_eq!(m.run(100), Outcome::Exception(Exception::mf()));
    assert_eq!(m.gpr(0) & 0x80ff, 0x8084);
    assert_eq!(m.state().fpu.fop, 0x0f1 & 0x7ff);
    // With CR0.NE = 0 the line is raised instead and execution goes on.
    m.state().cr0 &= !CR0_NE;
    m.set_pc(CODE);
    assert_eq!(m.run(100), END);
}

#[test]
fn x87_pointers_follow_what_ran_on_the_hosts_unit() {
    let mut at = [0; 3];
    let mut a = CodeAssembler::new(64).expect("64-bit");
    for (k, at) in at.iter_mut().enumerate() {
        // The first program ends after the load, the second after the addition, the third after a control instruction.
        a.reset();
        a.fld(qword_ptr(rbx + 8)).expect("fld");
        if k > 0 {
            a.fadd_2(st0, st0).expect("fadd");
        }
        if k > 1 {
            a.fnstsw(ax).expect("fnstsw");
        }
        a.ud2().expect("ud2");
        let mut m = Bare::new(64, 16 << 20);
        m.poke(CODE, &a.assemble(CODE).expect("assembles"));
        m.poke(DATA + 8, &1.5f64.to_bits().to_le_bytes());
        m.set_pc(CODE);
        m.set_gpr(3, DATA);
        assert_eq!(m.run(100), END);
        let [code, data] = [1, 3].map(|n| m.state().segs[n].sel);
        let f = &m.state().fpu;
        assert_eq!((f.fcs, f.fds, f.fdp), (code, data, DATA + 8), "program {k}");
        *at = f.fip - CODE;
        assert_eq!(f.regs[7].sig, 0xc000_0000_0000_0000);
    }
    assert_eq!(at, [0, 3, 3]);
}

#[test]
fn x87_pointers_follow_a_store_that_no_host_access_does() {
    // Across two pages, and to a device's address.
    for at in [DATA + 0xffd, 0x4000_0000] {
        let mut m = machine(|a| {
            a.fld1()?;
            a.fstp(qword_ptr(rbx))
        });
        m.set_gpr(3, at);
        assert_eq!(m.run(u64::MAX), END);
        let fpu = &m.state().fpu;
        assert_eq!((fpu.fip, fpu.fdp), (CODE + 2, at));
    }
}

#[test]
fn x87_operands_may_cross_pages_and_a_loop_may_unmask_exceptions() {
    let mut m = machine(|a| {
        let mut top = a.create_label();
        a.fninit()?;
        a.mov(ecx, 4)?;
        a.fldz()?;
        a.fld1()?;
        a.set_label(&mut top)?;
        // A sum that is stored over itself, across two pages.
        a.fld(tbyte_ptr(rbx + 0xffb))?;
        a.fadd_2(st0, st1)?;
        a.fstp(tbyte_ptr(rbx + 0xffb))?;
        a.dec(ecx)?;
        a.jne(top)?;
        a.fldcw(word_ptr(rbx))?;
        a.fdiv_2(st0, st1)?;
        a.fldz()
    });
    m.poke(DATA, &0x37bu16.to_le_bytes());
    assert_eq!(m.run(1000), Outcome::Exception(Exception::mf()));
    let mut sum = [0; 10];
    m.peek(DATA + 0xffb, &mut sum);
    // 4 in double extended precision.
    assert_eq!(sum, [0, 0, 0, 0, 0, 0, 0, 0x80, 1, 0x40]);
    let f = &m.state().fpu;
    // The quotient was not stored, and the load never ran.
    assert_eq!((f.fsw & 0xb8bf, f.ftw, f.fop), (0xb084, 0xc0, 0x0f1), "{:x}", f.fsw);
    assert_eq!(f.regs[6].sig, 1 << 63);
}

#[test]
fn mmx_shares_the_stack_and_emms_frees_it() {
    let mut m = machine(|a| {
        a.movq(mm1, qword_ptr(rbx))?;
        a.paddusb(mm1, qword_ptr(rbx + 8))?;
        a.pshufw(mm2, mm1, 0x1b)?;
        a.movq(qword_ptr(rbx + 16), mm2)?;
        a.movd(eax, mm1)?;
        a.emms()
    });
    m.poke(DATA, &0x1122_3344_5566_77f8u64.to_le_bytes());
    m.poke(DATA + 8, &0x0101_0101_0101_0110u64.to_le_bytes());
    assert_eq!(m.run(100), END);
    assert_eq!(m.gpr(0), 0x5667_78ff);
    assert_eq!(load64(&m, DATA + 16), 0x78ff_5667_3445_1223);
    assert_eq!((m.state().fpu.ftw, m.state().fpu.regs[1].se), (0, 0xffff));
}

#[test]
fn fxsave_and_fxrstor_are_inverse() {
    let mut m = machine(|a| {
        a.fld1()?;
        a.fldpi()?;
        a.fxsave64(ptr(rbx))?;
        a.fninit()?;
        a.xorps(xmm7, xmm7)?;
        a.fxrstor64(ptr(rbx))
    });
    m.set_xmm(7, 0x1234);
    m.set_xmm(15, 77);
    m.set_mxcsr(0x9fc0);
    assert_eq!(m.run(100), END);
    assert_eq!((m.xmm(7), m.xmm(15), m.mxcsr()), (0x1234, 77, 0x9fc0));
    assert_eq!((m.state().fpu.ftw, m.state().fpu.fsw), (0xc0, 6 << 11));
    let mut m = machine(|a| a.fxrstor64(ptr(rbx)));
    m.poke(DATA + 24, &0x1_0000u32.to_le_bytes());
    assert_eq!(m.run(100), Outcome::Exception(Exception::gp(0)));
}

#[test]
fn masked_stores_pick_bytes() {
    let mut m = machine(|a| a.maskmovdqu(xmm1, xmm2));
    m.set_gpr(7, DATA + 0xffa);
    m.set_xmm(1, 0x0f0e0d0c_0b0a0908_07060504_03020100);
    m.set_xmm(2, 0x80000000_00000000_80000000_00008000);
    m.poke(DATA + 0xffa, &[0xaa; 16]);
    assert_eq!(m.run(100), END);
    let mut b = [0; 16];
    m.peek(DATA + 0xffa, &mut b);
    assert_eq!(b, [0xaa, 1, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 7, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 15]);
}

#[test]
fn units_may_be_switched_off() {
    let run = |set: u64, clear: u64, code: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        let mut m = machine(code);
        m.state().cr0 |= set;
        m.state().cr4 &= !clear;
        m.run(100)
    };
    let (nm, ud) = (Outcome::Exception(Exception::nm()), END);
    assert_eq!(run(CR0_TS, 0, |a| a.fld1()), nm);
    assert_eq!(run(CR0_EM, 0, |a| a.fld1()), nm);
    assert_eq!(run(CR0_TS, 0, |a| a.paddb(mm0, mm1)), nm);
    assert_eq!(run(CR0_TS, 0, |a| a.addps(xmm0, xmm1)), nm);
    assert_eq!(run(CR0_TS | CR0_MP, 0, |a| a.wait()), nm);
    assert_eq!(run(0, CR4_OSFXSR, |a| a.addps(xmm0, xmm1)), ud);
}
