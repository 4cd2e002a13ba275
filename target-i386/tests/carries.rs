//! Arithmetic of several words in regions: carries and borrows that the next instruction takes in, products of two words.

use accel::tcg::{Exit, FlatBus, Group, JitConfig};
use iced_x86::code_asm::*;
use std::sync::Arc;
use target_i386::{EXIT_CAUGHT, testing::*};

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x3_0000;
const STACK: u64 = 0x8_0000;

/// Every way a carry comes to be and is taken in; results and flags are mixed into RAX.
fn program() -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64-bit");
    let mut top = a.create_label();
    let mix = |a: &mut CodeAssembler, r: AsmRegister64| {
        a.pushfq().unwrap();
        a.xor(rax, r).unwrap();
        a.rol(rax, 7).unwrap();
        a.pop(r).unwrap();
        a.and(r, 0x8d5).unwrap();
        a.add(rax, r).unwrap();
    };
    // New operands, now and then with few bits, so that words are equal and carries run through.
    let fresh = |a: &mut CodeAssembler| {
        for (i, r) in [rbx, rdx, rsi, rdi, r8, r9].into_iter().enumerate() {
            a.mov(r, rax).unwrap();
            a.rol(r, 11 * i as u32 + 5).unwrap();
            a.xor(r, rcx).unwrap();
            a.lea(r10, qword_ptr(r + i as u32)).unwrap();
            a.test(r10, 4).unwrap();
            a.mov(r11, r).unwrap();
            a.sar(r11, 63).unwrap();
            a.cmovne(r, r11).unwrap();
        }
    };
    a.set_label(&mut top).unwrap();
    // Additions: the carry of a register, of an operand in memory, of a constant, of a carry; and one that is kept besides.
    fresh(&mut a);
    a.add(rbx, rdx).unwrap();
    a.adc(rsi, rdi).unwrap();
    a.adc(r8, 0).unwrap();
    a.adc(r9, r9).unwrap();
    mix(&mut a, r9);
    a.xor(rax, rbx).unwrap();
    a.add(rax, rsi).unwrap();
    a.xor(rax, r8).unwrap();
    fresh(&mut a);
    a.mov(qword_ptr(DATA), rdx).unwrap();
    a.add(rbx, qword_ptr(DATA)).unwrap();
    a.adc(qword_ptr(DATA), rsi).unwrap();
    mix(&mut a, rbx);
    a.add(rdi, 1).unwrap();
    a.lea(r10, qword_ptr(rdi + rsi)).unwrap();
    a.adc(r8, -1).unwrap();
    a.xor(rax, r10).unwrap();
    mix(&mut a, r8);
    // Subtractions and comparisons.
    fresh(&mut a);
    a.sub(rbx, rdx).unwrap();
    a.sbb(rsi, rdi).unwrap();
    a.sbb(r8, 0).unwrap();
    a.sbb(r9, r9).unwrap();
    mix(&mut a, r9);
    a.xor(rax, rsi).unwrap();
    a.add(rax, r8).unwrap();
    fresh(&mut a);
    a.cmp(rbx, rdx).unwrap();
    a.sbb(rsi, rdi).unwrap();
    mix(&mut a, rsi);
    a.cmp(r8, r9).unwrap();
    a.adc(rdi, r8).unwrap();
    mix(&mut a, rdi);
    a.neg(r9).unwrap();
    a.sbb(r8, rdx).unwrap();
    mix(&mut a, r8);
    // Carries that are values, and those of other widths.
    fresh(&mut a);
    a.bt(rbx, 3).unwrap();
    a.adc(rdx, rsi).unwrap();
    a.cmc().unwrap();
    a.sbb(rdi, rdx).unwrap();
    mix(&mut a, rdi);
    a.add(bl, dl).unwrap();
    a.adc(rsi, r8).unwrap();
    a.inc(r9).unwrap();
    a.adc(esi, edx).unwrap();
    a.sbb(r8w, dx).unwrap();
    a.adc(r9, r8).unwrap();
    mix(&mut a, r9);
    // Products.
    for signed in [false, true] {
        fresh(&mut a);
        a.push(rax).unwrap();
        a.mov(rax, rbx).unwrap();
        if signed { a.imul(rsi) } else { a.mul(rsi) }.unwrap();
        a.add(rdi, rax).unwrap();
        a.adc(rdx, 0).unwrap();
        a.mov(r8, rdx).unwrap();
        a.mov(eax, ebx).unwrap();
        if signed { a.imul(esi) } else { a.mul(esi) }.unwrap();
        a.seto(cl).unwrap();
        a.lea(r9, qword_ptr(rax + rdx)).unwrap();
        a.mov(ax, bx).unwrap();
        if signed { a.imul(si) } else { a.mul(si) }.unwrap();
        a.lea(r9, qword_ptr(rax + r9)).unwrap();
        a.lea(r9, qword_ptr(rdx + r9)).unwrap();
        a.mov(al, bl).unwrap();
        if signed { a.imul(sil) } else { a.mul(sil) }.unwrap();
        a.adc(r9, rax).unwrap();
        a.pop(rax).unwrap();
        a.xor(rax, rdi).unwrap();
        a.add(rax, r8).unwrap();
        mix(&mut a, r9);
    }
    a.dec(r15).unwrap();
    a.jne(top).unwrap();
    a.ud2().unwrap();
    a.assemble(CODE).expect("assembles")
}

/// What is in RAX after so many rounds, and how often a region was entered.
fn run(jit: bool, rounds: u64) -> (u64, u64) {
    let bus = Arc::new(FlatBus::new(1 << 20));
    assert!(bus.poke(CODE, &program()));
    let group = Group::new();
    if jit {
        let config = JitConfig { quick: 0, threshold: 20, cache: 1 << 20, synchronous: true, ..JitConfig::default() };
        group.set_jit(config);
    }
    let mut v = bare_vcpu(&group, bus);
    let hot = v.hot();
    hot.regs[..16].fill(0x0123_4567_89ab_cdef);
    (hot.regs[4], hot.regs[15]) = (STACK, rounds);
    v.set_pc(CODE);
    assert_eq!(v.run(100_000_000), Exit::Target(EXIT_CAUGHT));
    (v.hot().regs[0], v.counters().entered)
}

#[test]
fn words_carry_into_words_as_in_the_interpreter() {
    let ((plain, none), (fast, entered)) = (run(false, 20_000), run(true, 20_000));
    assert!(none == 0 && entered > 0, "{none} regions entered without tier 1, {entered} with it");
    assert_eq!(plain, fast);
}
