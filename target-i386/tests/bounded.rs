//! Guests that are bad for a code cache run correctly, in bounded memory: one that needs more than the cache holds, one that
//! rewrites its code in each round, one that jumps into the middle of instructions.

use accel::tcg::{Group, JitConfig, JitCounters};
use iced_x86::code_asm::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use std::time::Duration;
use target_i386::{exception::Exception, testing::*};

const CODE: u64 = 0x1_0000;
const RAM: usize = 16 << 20;
const STACK: u64 = 0x8000;
const END: Outcome = Outcome::Exception(Exception::ud());
/// The smallest there is.
const CACHE: usize = 1 << 20;

/// Executions until a block gets quick code, and from then on until it is compiled as a region.
const REGIONS: (u16, u16) = (0, 1);
const QUICK: (u16, u16) = (1, u16::MAX);
const MIXED: (u16, u16) = (1, 3);

fn machine((quick, threshold): (u16, u16)) -> (Arc<Group>, Bare) {
    let group = Group::new();
    group.set_jit(JitConfig { quick, threshold, cache: CACHE, synchronous: true, ..JitConfig::default() });
    let mut m = Bare::in_group(&group, 64, RAM);
    m.set_gpr(4, STACK);
    (group, m)
}
fn interpreter() -> (Arc<Group>, Bare) {
    let group = Group::new();
    group.set_decoded_limit(CACHE);
    let mut m = Bare::in_group(&group, 64, RAM);
    m.set_gpr(4, STACK);
    (group, m)
}
fn assemble(at: u64, f: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64-bit");
    f(&mut a).expect("instructions that exist");
    a.assemble(at).expect("assembles")
}
fn bounded(group: &Group, m: &Bare) -> JitCounters {
    let (j, c) = (group.jit_counters().unwrap_or_default(), m.counters());
    assert!(j.used <= j.size && j.live_kept < 4 * CACHE as u64, "{j:?}");
    // (What a run adds is seen to when it has been decoded.)
    assert!(c.decoded_bytes < CACHE as u64 * 9 / 8, "{c:?}");
    j
}

/// Functions of [`LEN`] instructions, 128 bytes apart, from the address on. (Fewer than two a page would hardly fill the cache.)
const FIRST: u64 = 0x10_0000;
const LEN: u64 = 25;
/// What a function adds: its number, for each of its instructions.
fn functions(m: &mut Bare, n: u64) {
    for k in 0..n {
        let at = FIRST + 128 * k;
        let code = assemble(at, |a| {
            for _ in 0..LEN {
                a.add(eax, k as i32)?
            }
            a.ret()
        });
        assert!(code.len() <= 128, "{} bytes", code.len());
        m.poke(at, &code)
    }
}
/// Calls all of them, and after each the first one in a loop, twice over.
fn caller(m: &mut Bare, n: u64) -> u64 {
    let code = assemble(CODE, |a| {
        let (mut round, mut next, mut hot) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(ebp, 2)?;
        a.set_label(&mut round)?;
        a.mov(rbx, FIRST)?;
        a.set_label(&mut next)?;
        a.call(rbx)?;
        a.mov(ecx, 3)?;
        a.mov(rdx, FIRST + 128)?;
        a.set_label(&mut hot)?;
        a.call(rdx)?;
        a.dec(ecx)?;
        a.jne(hot)?;
        a.add(rbx, 128)?;
        a.cmp(rbx, (FIRST + 128 * n) as i32)?;
        a.jne(next)?;
        a.dec(ebp)?;
        a.jne(round)?;
        a.ud2()
    });
    m.poke(CODE, &code);
    m.set_pc(CODE);
    2 * LEN * (n * (n - 1) / 2 + 3 * n)
}

#[test]
fn more_code_than_the_cache_holds() {
    const N: u64 = 12_000;
    for tier in [REGIONS, QUICK, MIXED] {
        let (group, mut m) = machine(tier);
        group.set_decoded_limit(RAM);
        functions(&mut m, N);
        let want = caller(&mut m, N);
        assert_eq!((m.run(u64::MAX), m.gpr(0)), (END, want), "{tier:?}");
        let j = group.jit_counters().expect("a compiler");
        assert!(j.used <= j.size && j.live_kept < 4 * CACHE as u64, "{j:?}");
        assert!(j.evictions > 4, "{tier:?}: {j:?}");
        // Some went each time, not all.
        assert!(j.used > j.size / 2, "{tier:?}: {j:?}");
        if tier == REGIONS {
            assert!(j.evicted < j.regions, "{j:?}");
            // What is used all the time stays: each function is compiled when it is met, others only at the start.
            assert!(j.regions < 2 * N + 20, "{j:?}");
        }
    }
}

#[test]
fn more_code_than_ops_may_take() {
    const N: u64 = 12_000;
    let (group, mut m) = interpreter();
    functions(&mut m, N);
    let want = caller(&mut m, N);
    assert_eq!((m.run(u64::MAX), m.gpr(0)), (END, want));
    bounded(&group, &m);
    let c = m.counters();
    assert!(c.evicted > N / 32, "{c:?}");
    // The loop's own page and the function it calls all the time stay: what is decoded once more is what went.
    assert!(c.decoded < 2 * N + 100, "{c:?}");
}

#[test]
fn what_rests_gives_back_memory() {
    const N: u64 = 4_500;
    for tier in [None, Some(REGIONS), Some(QUICK)] {
        let (group, mut m) = tier.map_or_else(interpreter, machine);
        group.set_decoded_limit(RAM);
        functions(&mut m, N);
        let want = caller(&mut m, N);
        assert_eq!((m.run(u64::MAX), m.gpr(0)), (END, want), "{tier:?}");
        let before = m.counters();
        group.rest();
        // (It is seen to before the next instruction.)
        m.set_pc(CODE);
        m.run(1);
        let after = m.counters();
        // (Some MiB are kept anyway. There is less where the code cache is full of quick code.)
        let most = (before.decoded_bytes * 6 / 10).max(4 << 20);
        assert!(after.decoded_bytes < most, "{tier:?}: {before:?} {after:?}");
        assert!(tier == Some(QUICK) || after.evicted > before.evicted + 50, "{tier:?}: {after:?}");
        // At any time.
        let done = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !done.load(Relaxed) {
                    group.rest();
                    std::thread::sleep(Duration::from_millis(3))
                }
            });
            m.set_gpr(0, 0);
            m.set_pc(CODE);
            let got = (m.run(u64::MAX), m.gpr(0));
            done.store(true, Relaxed);
            assert_eq!(got, (END, want), "{tier:?}");
        });
        // Nothing is left of what was before a reset.
        assert!(group.code_pages() > 50, "{}", group.code_pages());
        group.start_anew();
        m.set_pc(CODE);
        m.run(1);
        let (c, j) = (m.counters(), group.jit_counters().unwrap_or_default());
        assert!(group.code_pages() < 3, "{tier:?}: {}", group.code_pages());
        assert!(c.decoded_bytes < 16 << 10 && c.decoded_pages < 3, "{tier:?}: {c:?}");
        assert!(j.live == 0 && j.used < 64 << 10, "{tier:?}: {j:?}");
        m.set_gpr(0, 0);
        m.set_pc(CODE);
        assert_eq!((m.run(u64::MAX), m.gpr(0)), (END, want), "{tier:?}");
    }
}

#[test]
fn code_that_is_rewritten_in_each_round() {
    const ROUNDS: u64 = 3000;
    for tier in [None, Some(REGIONS), Some(QUICK), Some(MIXED)] {
        let (group, mut m) = tier.map_or_else(interpreter, machine);
        // The immediate of an instruction in the loop itself, and a whole instruction of a function elsewhere.
        let code = assemble(CODE, |a| {
            let (mut top, mut insn, mut function) = (a.create_label(), a.create_label(), a.create_label());
            a.lea(rdi, qword_ptr(insn))?;
            a.lea(rsi, qword_ptr(function))?;
            a.mov(ecx, ROUNDS as u32)?;
            a.set_label(&mut top)?;
            a.mov(dword_ptr(rdi + 1), ecx)?;
            a.set_label(&mut insn)?;
            a.mov(eax, 0x1234_5678)?;
            a.add(rbx, rax)?;
            // inc edx, or dec edx, by turns: FF C2, FF CA.
            a.xor(byte_ptr(rsi + 1), 8)?;
            a.call(function)?;
            a.dec(ecx)?;
            a.jne(top)?;
            a.ud2()?;
            a.nops_with_size(4096)?;
            a.set_label(&mut function)?;
            a.inc(edx)?;
            a.ret()
        });
        m.poke(CODE, &code);
        m.set_gpr(3, 0);
        m.set_gpr(2, 0);
        m.set_pc(CODE);
        assert_eq!(m.run(u64::MAX), END, "{tier:?}");
        assert_eq!((m.gpr(3), m.gpr(2)), (ROUNDS * (ROUNDS + 1) / 2, 0), "{tier:?}");
        let (j, c) = (bounded(&group, &m), m.counters());
        assert!(c.dropped >= 2 * ROUNDS - 2 && c.decoded_pages <= 2, "{tier:?}: {c:?}");
        assert!(j.used < CACHE as u64 / 2 && j.live < 200 && j.evictions == 0, "{tier:?}: {j:?}");
    }
}

#[test]
fn jumps_into_the_middle_of_instructions() {
    // Random bytes, entered at every one of them, by the interpreter and by another tier at once: the same happens.
    for (seed, tier) in [REGIONS, QUICK, MIXED].into_iter().enumerate() {
        // (Each byte makes a region or two: that takes a while.)
        let len: usize = if tier == REGIONS { 10_000 } else { 40_000 };
        let mut bytes = vec![0; len];
        ChaCha8Rng::seed_from_u64(seed as u64).fill_bytes(&mut bytes);
        let (group, mut m) = machine(tier);
        let (other, mut judge) = interpreter();
        for m in [&mut m, &mut judge] {
            m.poke(FIRST, &bytes);
        }
        for at in 0..len as u64 - 64 {
            let seen = [&mut m, &mut judge].map(|m| {
                for r in 0..16 {
                    m.set_gpr(r, 0x4000 + 0x111 * r as u64)
                }
                let s = m.state();
                (s.cr0, s.halted) = (s.cr0 & !8, false);
                m.set_flags(0x202);
                m.set_pc(FIRST + at);
                let end = m.run(12);
                ((end, m.pc(), m.flags()), std::array::from_fn::<_, 16, _>(|r| m.gpr(r)))
            });
            assert_eq!(seen[0], seen[1], "tier {tier:?}, seed {seed}, byte {at}");
        }
        let (j, c) = (bounded(&group, &m), m.counters());
        bounded(&other, &judge);
        assert!(tier == REGIONS || judge.counters().evicted > 0, "{:?}", judge.counters());
        assert!(j.evictions + c.evicted > 0, "{tier:?}: {j:?} {c:?}");
    }
}
