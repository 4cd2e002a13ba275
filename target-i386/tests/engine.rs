//! The engine on small programs: control flow, flags across blocks, memory, budgets, self-modifying code.

use accel::tcg::Group;
use iced_x86::code_asm::*;
use std::sync::Arc;
use target_i386::{exception::Exception, testing::*};

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x4_0000;

fn assemble(f: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64-bit");
    f(&mut a);
    a.assemble(CODE).expect("assembles")
}
macro_rules! code { ($a:ident: $($e:expr;)*) => { assemble(|$a| { $($e.expect("an instruction");)* }) } }

/// Looped where `looped.rs` runs these tests.
fn group() -> Arc<Group> {
    let g = Group::new();
    g.set_looped(env!("CARGO_CRATE_NAME") == "looped");
    g
}
fn machine(code: &[u8]) -> Bare {
    let mut m = Bare::in_group(&group(), 64, 16 << 20);
    m.poke(CODE, code);
    m.set_pc(CODE);
    m.set_gpr(4, 0x80_0000);
    m
}
const END: Outcome = Outcome::Exception(Exception::ud());

#[test]
fn loop_counts_and_stops() {
    let mut m = machine(&assemble(|a| {
        let mut top = a.create_label();
        a.mov(rcx, 1_000_000u64).unwrap();
        a.xor(eax, eax).unwrap();
        a.set_label(&mut top).unwrap();
        a.add(rax, rcx).unwrap();
        a.dec(rcx).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
    }));
    assert_eq!(m.run(u64::MAX), END);
    assert_eq!(m.gpr(0), 500_000_500_000);
    assert!(m.counters().dispatches < 20, "{:?}", m.counters());
}

/// Three addresses that meet in the jump cache: one is run once, two in turn.
#[test]
fn what_is_run_no_more_leaves_its_place_in_the_jump_cache() {
    const ONCE: u64 = 0x9008;
    const ONE: u64 = 0x1000;
    const OTHER: u64 = 0x1_1011;
    let mut m = machine(&code! { a: a.jmp(rsi); });
    m.poke(ONCE, &code! { a: a.jmp(rax); });
    m.poke(ONE, &code! { a: a.jmp(rbx); });
    m.poke(OTHER, &[0x48, 0xff, 0xc9, 0x74, 2, 0xff, 0xe0, 0x0f, 0x0b]); // dec rcx; jz end; jmp rax; end: ud2
    for (r, v) in [(6, ONCE), (0, ONE), (3, OTHER), (1, 1000)] {
        m.set_gpr(r, v)
    }
    assert_eq!(m.run(u64::MAX), END);
    assert!(m.counters().dispatches < 50, "{:?}", m.counters());
}

#[test]
fn budget_is_exact() {
    let mut m = machine(&assemble(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top).unwrap();
        a.inc(rax).unwrap();
        a.inc(rbx).unwrap();
        a.jmp(top).unwrap();
    }));
    for n in [1u64, 2, 3, 7, 100, 1000] {
        m.set_gpr(0, 0);
        m.set_gpr(3, 0);
        m.set_pc(CODE);
        assert_eq!(m.run(n), Outcome::Budget);
        assert_eq!((m.gpr(0), m.gpr(3)), (n.div_ceil(3), (n + 1) / 3), "budget {n}");
    }
}

#[test]
fn budget_is_exact_before_an_instruction_that_leaves_ram() {
    const LAST: u64 = (16 << 20) - 1;
    // nop; add bh, bh (of which the second byte is read from where nothing is: FF).
    let mut m = machine(&[]);
    m.poke(LAST - 1, &[0x90, 0x00]);
    for n in [1, 2] {
        m.set_pc(LAST - 1);
        assert_eq!((m.run(n), m.pc()), (Outcome::Budget, if n == 1 { LAST } else { LAST + 2 }));
    }
}

#[test]
fn calls_and_stack() {
    let mut m = machine(&assemble(|a| {
        let (mut fib, mut base) = (a.create_label(), a.create_label());
        a.mov(edi, 20).unwrap();
        a.call(fib).unwrap();
        a.ud2().unwrap();
        a.set_label(&mut fib).unwrap();
        a.cmp(edi, 2).unwrap();
        a.jb(base).unwrap();
        a.push(rdi).unwrap();
        a.dec(edi).unwrap();
        a.call(fib).unwrap();
        a.pop(rdi).unwrap();
        a.push(rax).unwrap();
        a.sub(edi, 2).unwrap();
        a.call(fib).unwrap();
        a.pop(rdx).unwrap();
        a.add(rax, rdx).unwrap();
        a.ret().unwrap();
        a.set_label(&mut base).unwrap();
        a.mov(eax, edi).unwrap();
        a.ret().unwrap();
    }));
    assert_eq!(m.run(u64::MAX), END);
    assert_eq!((m.gpr(0), m.gpr(4)), (6765, 0x80_0000));
}

#[test]
fn code_that_rewrites_itself() {
    // The immediate of the MOV that follows is stored just before it runs, each time with another value.
    let mut m = machine(&assemble(|a| {
        let (mut top, mut patch) = (a.create_label(), a.create_label());
        a.xor(eax, eax).unwrap();
        a.mov(ecx, 100).unwrap();
        a.set_label(&mut top).unwrap();
        a.lea(rbx, qword_ptr(patch)).unwrap();
        a.mov(dword_ptr(rbx + 1), ecx).unwrap();
        a.set_label(&mut patch).unwrap();
        a.mov(edx, 0x1234_5678).unwrap();
        a.add(eax, edx).unwrap();
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
    }));
    assert_eq!(m.run(u64::MAX), END);
    assert_eq!(m.gpr(0), 5050);
    assert!(m.counters().dropped >= 99);
}

#[test]
fn data_beside_code_is_slow_and_now_and_then_drops_it() {
    let mut m = machine(&assemble(|a| {
        let mut top = a.create_label();
        a.mov(rbx, CODE + 0x800).unwrap();
        a.mov(ecx, 1000).unwrap();
        a.set_label(&mut top).unwrap();
        a.add(qword_ptr(rbx), rcx).unwrap();
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
    }));
    assert_eq!(m.run(u64::MAX), END);
    let mut v = [0; 8];
    m.peek(CODE + 0x800, &mut v);
    assert_eq!(u64::from_le_bytes(v), 500_500);
    // (What is written beside for long might be all that is still used of a page: its code is decoded again if it is run.)
    assert!(m.counters().dropped <= 4);
}

#[test]
fn stores_to_a_page_that_held_code_get_fast_again() {
    let mut m = machine(&assemble(|a| {
        let mut top = a.create_label();
        a.mov(rbx, CODE + 0x4000).unwrap();
        // RET, called once.
        a.mov(byte_ptr(rbx), 0xc3).unwrap();
        a.call(rbx).unwrap();
        a.mov(ecx, 100_000).unwrap();
        a.set_label(&mut top).unwrap();
        a.add(qword_ptr(rbx + 0x800), rcx).unwrap();
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
    }));
    m.set_gpr(4, CODE + 0x9000);
    assert_eq!(m.run(u64::MAX), END);
    assert!(m.counters().slow < 200, "{:?}", m.counters());
}

#[test]
fn instructions_and_data_across_pages() {
    for at in 0..12 {
        let code = code! { a:
            a.mov(rax, 0x1122_3344_5566_7788u64); a.mov(rbx, DATA + 0xff8 + at);
            a.mov(qword_ptr(rbx), rax); a.add(qword_ptr(rbx), 1); a.mov(rcx, qword_ptr(rbx)); a.push(rcx); a.pop(rdx); a.ud2();
        };
        let mut m = Bare::in_group(&group(), 64, 16 << 20);
        let start = CODE + 0x1000 - 3 - at;
        m.poke(start, &code);
        m.set_pc(start);
        m.set_gpr(4, DATA + 0x3004);
        assert_eq!(m.run(u64::MAX), END);
        assert_eq!((m.gpr(1), m.gpr(2)), (0x1122_3344_5566_7789, 0x1122_3344_5566_7789), "offset {at}");
    }
}

#[test]
fn ten_million_ops_on_a_small_stack() {
    let run = || {
        let mut m = machine(&assemble(|a| {
            let mut top = a.create_label();
            a.mov(ecx, 2_500_000).unwrap();
            a.set_label(&mut top).unwrap();
            a.add(rax, rcx).unwrap();
            a.xor(rdx, rax).unwrap();
            a.sub(ecx, 1).unwrap();
            a.jne(top).unwrap();
            a.ud2().unwrap();
        }));
        assert_eq!(m.run(u64::MAX), END);
        assert_eq!(m.gpr(1), 0);
    };
    std::thread::Builder::new().stack_size(64 << 10).spawn(run).unwrap().join().unwrap();
}

#[test]
fn divide_error_is_exact() {
    let mut m = machine(&code! { a: a.mov(eax, 5); a.cdq(); a.xor(ecx, ecx); a.div(ecx); });
    assert_eq!(m.run(u64::MAX), Outcome::Exception(Exception::de()));
    assert_eq!((m.gpr(0), m.pc()), (5, CODE + 8));
}

#[test]
fn misses_and_rare_forms_leave_no_frames() {
    let run = || {
        let mut m = machine(&assemble(|a| {
            let mut top = a.create_label();
            a.mov(ecx, 300_000).unwrap();
            a.mov(rbx, DATA + 0xffe).unwrap();
            a.set_label(&mut top).unwrap();
            a.add(dword_ptr(rbx), 1).unwrap(); // across two pages
            a.mov(qword_ptr(CODE + 0x800), rcx).unwrap(); // beside code
            a.rcl(rax, 3).unwrap(); // on the whole CPU
            a.xchg(al, ah).unwrap(); // no handler of its own
            a.lock().add(dword_ptr(rbx - 0x100), 1).unwrap(); // unaligned
            a.dec(ecx).unwrap();
            a.jne(top).unwrap();
            a.ud2().unwrap();
        }));
        assert_eq!(m.run(u64::MAX), END);
        let mut v = [0; 4];
        m.peek(DATA + 0xffe, &mut v);
        assert_eq!(u32::from_le_bytes(v), 300_000);
    };
    std::thread::Builder::new().stack_size(64 << 10).spawn(run).unwrap().join().unwrap();
}
