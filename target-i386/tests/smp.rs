//! Two vCPUs on one memory: locked instructions, a flag that the other sets, code that the other patches, kicks.

use accel::tcg::{Exit, FlatBus, Group, Vcpu};
use iced_x86::code_asm::*;
use std::sync::Arc;
use target_i386::{EXIT_CAUGHT, X86, testing::*};

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x4_0000;

fn assemble(f: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64-bit");
    f(&mut a);
    a.assemble(CODE).expect("assembles")
}
/// Looped where `looped.rs` runs these tests.
fn group() -> Arc<Group> {
    let g = Group::new();
    g.set_looped(env!("CARGO_CRATE_NAME") == "looped");
    g
}
/// Runs the code at once on two vCPUs with their numbers in RDI; their RAX at UD2.
fn both(code: &[u8]) -> ([u64; 2], Arc<FlatBus>) {
    let bus = Arc::new(FlatBus::new(1 << 20));
    assert!(bus.poke(CODE, code));
    let group = group();
    let run = |n: u64| {
        let mut v: Vcpu<X86> = bare_vcpu(&group, bus.clone());
        v.hot().regs[7] = n;
        v.hot().regs[4] = 0x8_0000 + n * 0x1_0000;
        v.set_pc(CODE);
        move || {
            assert_eq!(v.run(u64::MAX), Exit::Target(EXIT_CAUGHT));
            v.hot().regs[0]
        }
    };
    let (mut a, b) = (run(0), run(1));
    let r = std::thread::scope(|s| {
        let t = s.spawn(b);
        [a(), t.join().unwrap()]
    });
    (r, bus)
}
fn word(bus: &FlatBus, at: u64) -> u64 {
    let mut v = [0; 8];
    assert!(bus.peek(at, &mut v));
    u64::from_le_bytes(v)
}

#[test]
fn locked_counters_lose_nothing() {
    let (_, bus) = both(&assemble(|a| {
        let (mut top, mut again) = (a.create_label(), a.create_label());
        a.mov(rbx, DATA).unwrap();
        a.mov(ecx, 50_000).unwrap();
        a.set_label(&mut top).unwrap();
        a.lock().inc(qword_ptr(rbx)).unwrap();
        a.mov(edx, 3).unwrap();
        a.lock().xadd(qword_ptr(rbx + 8), rdx).unwrap();
        a.lock().add(dword_ptr(rbx + 0x13e), 1).unwrap(); // across a cache line
        a.mov(rax, qword_ptr(rbx + 24)).unwrap();
        a.set_label(&mut again).unwrap();
        a.lea(rdx, qword_ptr(rax + 1)).unwrap();
        a.lock().cmpxchg(qword_ptr(rbx + 24), rdx).unwrap();
        a.jne(again).unwrap();
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
    }));
    assert_eq!((word(&bus, DATA), word(&bus, DATA + 8), word(&bus, DATA + 24)), (100_000, 300_000, 100_000));
    assert_eq!(word(&bus, DATA + 0x13e) as u32, 100_000);
}

#[test]
fn locked_accesses_beside_code_lose_nothing() {
    const HERE: u64 = CODE + 0x800; // the code's own page: no store takes the quick way
    let (_, bus) = both(&assemble(|a| {
        let (mut top, mut again) = (a.create_label(), a.create_label());
        a.mov(r9, HERE).unwrap();
        a.mov(esi, 20_000).unwrap();
        a.set_label(&mut top).unwrap();
        a.mov(rax, qword_ptr(r9)).unwrap();
        a.mov(rdx, qword_ptr(r9 + 8)).unwrap();
        a.set_label(&mut again).unwrap();
        a.lea(rbx, qword_ptr(rax + 1)).unwrap();
        a.lea(rcx, qword_ptr(rdx + 1)).unwrap();
        a.lock().cmpxchg16b(xmmword_ptr(r9)).unwrap();
        a.jne(again).unwrap();
        a.lock().inc(qword_ptr(r9 + 16)).unwrap();
        a.dec(esi).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
    }));
    assert_eq!([HERE, HERE + 8, HERE + 16].map(|at| word(&bus, at)), [40_000; 3]);
}

#[test]
fn a_flag_set_by_the_other_is_seen() {
    let (r, _) = both(&assemble(|a| {
        let (mut second, mut wait) = (a.create_label(), a.create_label());
        a.mov(rbx, DATA).unwrap();
        a.test(edi, edi).unwrap();
        a.jne(second).unwrap();
        a.mov(qword_ptr(rbx), 42).unwrap();
        a.mov(qword_ptr(rbx + 64), 1).unwrap();
        a.ud2().unwrap();
        a.set_label(&mut second).unwrap();
        a.nop().unwrap();
        a.set_label(&mut wait).unwrap();
        a.cmp(qword_ptr(rbx + 64), 0).unwrap();
        a.je(wait).unwrap();
        a.mov(rax, qword_ptr(rbx)).unwrap();
        a.ud2().unwrap();
    }));
    assert_eq!(r[1], 42);
}

#[test]
fn code_patched_by_the_other_takes_effect() {
    // vCPU 1 runs a function in a loop until it returns 7; vCPU 0 patches it after a while.
    let (r, _) = both(&assemble(|a| {
        let (mut second, mut top, mut spin, mut f) =
            (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        a.mov(rbx, DATA).unwrap();
        a.test(edi, edi).unwrap();
        a.jne(second).unwrap();
        a.set_label(&mut spin).unwrap();
        a.cmp(qword_ptr(rbx), 1000).unwrap();
        a.jb(spin).unwrap();
        a.lea(rdx, qword_ptr(f)).unwrap();
        a.mov(byte_ptr(rdx + 1), 7).unwrap();
        a.ud2().unwrap();
        a.set_label(&mut second).unwrap();
        a.nop().unwrap();
        a.set_label(&mut top).unwrap();
        a.inc(qword_ptr(rbx)).unwrap();
        a.call(f).unwrap();
        a.cmp(eax, 7).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
        a.set_label(&mut f).unwrap();
        a.mov(eax, 1).unwrap();
        a.ret().unwrap();
    }));
    assert_eq!(r[1], 7);
}

#[test]
fn a_kick_stops_an_endless_loop() {
    let bus = Arc::new(FlatBus::new(1 << 20));
    assert!(bus.poke(CODE, &[0xeb, 0xfe]));
    let mut v = bare_vcpu(&group(), bus);
    v.set_pc(CODE);
    let kick = v.kick();
    let t = std::thread::spawn(move || v.run(u64::MAX));
    std::thread::sleep(std::time::Duration::from_millis(20));
    kick.stop();
    assert_eq!(t.join().unwrap(), Exit::Stopped);
}
