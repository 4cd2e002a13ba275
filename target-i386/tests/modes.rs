//! 16-bit and 32-bit code: addresses, segments, stacks, branches that wrap; mode switches; string instructions.

use accel::tcg::Group;
use iced_x86::code_asm::*;
use target_i386::{exception::Exception, reg, state::*, testing::*};

const CODE: u64 = 0x1_0000;
const END: Outcome = Outcome::Exception(Exception::ud());

/// Looped where `looped.rs` runs these tests.
fn bare(bits: u32, ram: usize) -> Bare {
    let g = Group::new();
    g.set_looped(env!("CARGO_CRATE_NAME") == "looped");
    Bare::in_group(&g, bits, ram)
}
fn assemble(bits: u32, ip: u64, f: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
    let mut a = CodeAssembler::new(bits).expect("16, 32 or 64");
    f(&mut a);
    a.assemble(ip).expect("assembles")
}

#[test]
fn real_mode_segments_and_wrapping_branches() {
    let mut m = bare(16, 1 << 20);
    // CS = 1000h; a call from the upper to the lower half of the segment wraps around.
    let high = assemble(16, 0xf000, |a| {
        let mut back = a.create_label();
        a.mov(ax, 0x2000u32).unwrap();
        a.mov(word_ptr(bx + si + 4), ax).unwrap();
        a.db(&[0xe8, 0xf6, 0x1f]).unwrap(); // call 1000h: f00ah + 1ff6h wraps
        a.set_label(&mut back).unwrap();
        a.ud2().unwrap();
    });
    let low = assemble(16, 0x1000, |a| {
        a.mov(cx, word_ptr(bx + si + 4)).unwrap();
        a.inc(cx).unwrap();
        a.ret().unwrap();
    });
    let next = 0xf000 + (high.len() - 2) as u64;
    let rel = (0x1000u64.wrapping_sub(next) & 0xffff) as u16;
    let mut high = high;
    let at = high.len() - 4;
    high[at..at + 2].copy_from_slice(&rel.to_le_bytes());
    m.poke(0x1_f000, &high);
    m.poke(0x1_1000, &low);
    let s = m.state();
    s.segs[reg::CS].base = 0x1_0000;
    s.segs[reg::SS] = Segment { sel: 0x3000, base: 0x3_0000, ..s.segs[reg::SS] };
    s.segs[reg::DS] = Segment { sel: 0x4000, base: 0x4_0000, ..s.segs[reg::DS] };
    m.sync();
    m.set_gpr(3, 0xfff0);
    m.set_gpr(6, 0x0020);
    m.set_gpr(4, 0x1234_0000); // the stack wraps below 0
    m.set_pc(0x1_f000);
    assert_eq!(m.run(1000), END);
    assert_eq!((m.gpr(1) as u16, m.gpr(4)), (0x2001, 0x1234_0000));
    let mut v = [0; 2];
    m.peek(0x4_0014, &mut v); // (fff0 + 20 + 4) & ffff
    assert_eq!(v, [0, 0x20]);
    m.peek(0x3_fffe, &mut v);
    assert_eq!(u16::from_le_bytes(v) as u64, next);
}

#[test]
fn a_word_across_the_segment_limit_faults() {
    let code = assemble(16, 0, |a| {
        a.mov(ax, word_ptr(bx)).unwrap();
        a.ud2().unwrap();
    });
    for (offset, fault) in [(0xfffeu64, END), (0xffff, Outcome::Exception(Exception::gp(0)))] {
        let mut m = bare(16, 1 << 20);
        m.poke(CODE, &code);
        m.state().segs[reg::CS].base = CODE;
        m.sync();
        m.set_gpr(3, offset);
        m.set_pc(CODE);
        assert_eq!(m.run(100), fault);
    }
}

#[test]
fn protected_mode_limits() {
    let code = assemble(32, 0x100, |a| {
        a.mov(eax, dword_ptr(ebx)).unwrap();
        a.mov(byte_ptr(ebx + 3), al).unwrap();
        a.ud2().unwrap();
    });
    let run = |limit: u32, attr: u16, at: u64| {
        let mut m = bare(32, 1 << 20);
        m.poke(CODE + 0x100, &code);
        let s = m.state();
        s.segs[reg::CS].base = CODE;
        s.segs[reg::DS] = Segment { sel: 0x18, base: 0x2_0000, limit, attr };
        m.sync();
        m.set_gpr(3, at);
        m.set_pc(CODE + 0x100);
        (m.run(100), m.pc() - CODE)
    };
    let (rw, ro, down) = (0x4093, 0x4091, 0x4097);
    let gp = Outcome::Exception(Exception::gp(0));
    assert_eq!(run(0xfff, rw, 0xffc).0, END);
    assert_eq!(run(0xfff, rw, 0xffd), (gp, 0x100));
    assert_eq!(run(0xffff_ffff, ro, 0), (gp, 0x102)); // readable, not writable
    assert_eq!(run(0xfff, down, 0x1000).0, END); // expand-down: above the limit only
    assert_eq!(run(0xfff, down, 0xfff), (gp, 0x100));
    assert_eq!(run(0xfff, 0x4013, 0).0, gp); // not present
}

#[test]
fn flat_32_bit_code() {
    let mut m = bare(32, 1 << 20);
    m.poke(
        CODE,
        &assemble(32, CODE, |a| {
            let (mut f, mut top) = (a.create_label(), a.create_label());
            a.mov(ecx, 1000).unwrap();
            a.xor(eax, eax).unwrap();
            a.set_label(&mut top).unwrap();
            a.push(ecx).unwrap();
            a.call(f).unwrap();
            a.pop(ecx).unwrap();
            a.loop_(top).unwrap();
            a.ud2().unwrap();
            a.set_label(&mut f).unwrap();
            a.push(ebp).unwrap();
            a.mov(ebp, esp).unwrap();
            a.add(eax, dword_ptr(ebp + 8)).unwrap();
            a.leave().unwrap();
            a.ret().unwrap();
        }),
    );
    m.set_gpr(4, 0x8_0000);
    m.set_pc(CODE);
    assert_eq!(m.run(100_000), END);
    assert_eq!((m.gpr(0), m.gpr(4)), (500_500, 0x8_0000));
}

#[test]
fn string_instructions_across_pages() {
    let mut m = bare(64, 1 << 20);
    m.poke(
        CODE,
        &assemble(64, CODE, |a| {
            a.mov(rsi, 0x2_0ffbu64).unwrap();
            a.mov(rdi, 0x3_0ff6u64).unwrap();
            a.mov(ecx, 3000).unwrap();
            a.rep().movsd().unwrap();
            a.mov(rdx, rdi).unwrap();
            a.mov(rdi, 0x5_0000u64).unwrap();
            a.mov(rax, 0x1234_5678_9abc_def0u64).unwrap();
            a.mov(ecx, 1025).unwrap();
            a.rep().stosq().unwrap();
            a.mov(r8, rdi).unwrap();
            a.mov(rdi, 0x3_0ff6u64).unwrap();
            a.mov(ecx, 20000).unwrap();
            a.mov(al, 0xeeu32).unwrap();
            a.repne().scasb().unwrap();
            a.mov(r9, rdi).unwrap();
            // An overlapping copy upwards repeats a pattern.
            a.mov(rsi, 0x5_0000u64).unwrap();
            a.mov(rdi, 0x5_0003u64).unwrap();
            a.mov(ecx, 9).unwrap();
            a.rep().movsb().unwrap();
            a.ud2().unwrap();
        }),
    );
    let data: Vec<u8> = (0..12000u32).map(|i| (i % 200) as u8).collect();
    m.poke(0x2_0ffb, &data);
    m.poke(0x2_0ffb + 7777, &[0xee]);
    m.set_pc(CODE);
    assert_eq!(m.run(100_000), END);
    let mut back = vec![0; 12000];
    m.peek(0x3_0ff6, &mut back);
    let mut want = data;
    want[7777] = 0xee;
    assert_eq!(back, want);
    assert_eq!((m.gpr(2), m.gpr(8), m.gpr(9)), (0x3_0ff6 + 12000, 0x5_0000 + 8 * 1025, 0x3_0ff6 + 7778));
    let mut v = [0; 12];
    m.peek(0x5_0000, &mut v);
    assert_eq!(v, [0xf0, 0xde, 0xbc].repeat(4)[..]);
}

#[test]
fn byte_registers_with_and_without_rex() {
    let mut m = bare(64, 1 << 20);
    m.poke(
        CODE,
        &assemble(64, CODE, |a| {
            a.mov(dil, 1u32).unwrap();
            a.mov(sil, 2u32).unwrap();
            a.mov(bh, 3u32).unwrap();
            a.mov(r9b, 4u32).unwrap();
            a.movzx(eax, dil).unwrap();
            a.add(ah, bh).unwrap();
            a.ud2().unwrap();
        }),
    );
    m.set_pc(CODE);
    assert_eq!(m.run(100), END);
    assert_eq!([0, 3, 6, 7, 9].map(|n| m.gpr(n)), [0x301, 0x300, 2, 1, 4]);
}
