//! What the engine's pieces cost: decoding, dispatch, the soft TLB, ways into regions and out, both compilers.
//!
//! Times are per guest instruction, access or entry, as the name says. (`kernels` measures all of it together.)
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use accel::tcg::{Group, JitConfig, JitCounters, Target};
use criterion::{Criterion, criterion_group, criterion_main};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};
use target_i386::{X86, testing::*};

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x10_0000;
const RAM: usize = 128 << 20;

/// mov eax, [rdi+8]; add eax, ecx; imul eax, eax, 77; mov [rdi+16], eax; shl edx, 3; lea rbx, [rbx+rcx*4]; cmp eax, edx; jne +0
const MIX: [u8; 25] = [
    0x8b, 0x47, 0x08, 0x01, 0xc8, 0x6b, 0xc0, 0x4d, 0x89, 0x47, 0x10, 0xc1, 0xe2, 0x03, 0x48, 0x8d, 0x1c, 0x8b, 0x39,
    0xd0, 0x75, 0x00, 0x90, 0x90, 0x90,
];
/// Its instructions.
const MIXED: u64 = 11;

fn machine(jit: Option<JitConfig>, code: &[u8]) -> Bare {
    let group = Group::new();
    if let Some(j) = jit {
        group.set_jit(j)
    }
    let mut m = Bare::in_group(&group, 64, RAM);
    m.poke(CODE, code);
    m.set_gpr(7, DATA);
    m.set_pc(CODE);
    m
}
fn config(quick: u16, threshold: u16) -> JitConfig {
    JitConfig { quick, threshold, synchronous: true, ..JitConfig::default() }
}
/// `body`, jmp to its start.
fn endless(body: &[u8]) -> Vec<u8> {
    let back = -(body.len() as i32 + 5);
    [body, &[0xe9], &back.to_le_bytes()].concat()
}
/// Time per instruction of so many, run in one go after a round of the same.
fn per_instruction(m: &mut Bare, n: u64) -> Duration {
    m.run(n);
    let start = Instant::now();
    m.run(n);
    start.elapsed()
}

fn decode(c: &mut Criterion) {
    let mode = 2; // 64-bit code
    c.bench_function("decode/mix of 11, each", |b| {
        b.iter_custom(|rounds| {
            let start = Instant::now();
            for _ in 0..rounds {
                let mut at = 0;
                while at < MIX.len() {
                    let d = X86::decode(black_box(&MIX[at..]), at as u32, mode).expect("instructions");
                    at += usize::from(d.len)
                }
            }
            start.elapsed() / MIXED as u32
        })
    });
}

fn dispatch(c: &mut Criterion) {
    // (One branch in five instructions; nothing else costs less than INC.)
    let code = endless(&[0xff, 0xc0, 0xff, 0xc3, 0xff, 0xc1, 0xff, 0xc2]);
    for (name, jit) in [("tier 0", None), ("quick code", Some(config(1, u16::MAX))), ("region", Some(config(0, 1)))] {
        c.bench_function(&format!("dispatch/{name}, each instruction"), |b| {
            let mut m = machine(jit, &code);
            b.iter_custom(|n| per_instruction(&mut m, n))
        });
    }
}

fn tlb(c: &mut Criterion) {
    // mov eax, [rdi]; add rdi, rdx; and rdi, rsi; or rdi, rbx: loads a stride apart, round and round in a range.
    let code = endless(&[0x8b, 0x07, 0x48, 0x01, 0xd7, 0x48, 0x21, 0xf7, 0x48, 0x09, 0xdf]);
    for (tier, jit) in [("tier 0", None), ("quick code", Some(config(1, u16::MAX))), ("region", Some(config(0, 1)))] {
        // A range of 64 KiB, or of as many pages as no level of the TLB holds.
        for (name, stride, range) in [("hit", 64, 0x1_0000u64), ("miss", 4096, 0x400_0000)] {
            c.bench_function(&format!("tlb/{name} in {tier}, each load and 4 others"), |b| {
                let mut m = machine(jit, &code);
                m.set_gpr(7, 0x400_0000);
                m.set_gpr(3, 0x400_0000);
                m.set_gpr(2, stride);
                m.set_gpr(6, range - 1);
                b.iter_custom(|n| per_instruction(&mut m, 5 * n))
            });
        }
    }
}

fn regions(c: &mut Criterion) {
    c.bench_function("region/entry and exit by the dispatcher", |b| {
        let mut m = machine(Some(config(0, 1)), &endless(&MIX));
        m.run(1000);
        // (A budget of a round and a bit: entered once, left at the first check.)
        b.iter(|| m.run(black_box(MIXED + 2)))
    });
    // A function in another page, called by address: two regions that go to each other by the jump cache.
    c.bench_function("region/to another and back", |b| {
        let mut m = machine(Some(config(0, 1)), &endless(&[0xff, 0xd3]));
        m.poke(CODE + 0x2000, &[0xc3]);
        m.set_gpr(3, CODE + 0x2000);
        m.set_gpr(4, 0x8000);
        b.iter_custom(|n| per_instruction(&mut m, 3 * n))
    });
}

fn compilers(c: &mut Criterion) {
    // A page of different blocks; what the compilers say of themselves.
    let code: Vec<u8> = (0..100u8).flat_map(|k| [&[0x05, k, 0, 0, 0][..], &MIX].concat()).chain([0xf4]).collect();
    let cost = |jit, of: fn(&JitCounters) -> (u64, u64), rounds: u64| {
        let (mut time, mut instructions) = (0, 0);
        for _ in 0..rounds {
            let group = Group::new();
            group.set_jit(jit);
            let mut m = Bare::in_group(&group, 64, 2 << 20);
            m.poke(CODE, &code);
            for _ in 0..3 {
                m.state().halted = false;
                m.set_gpr(7, DATA);
                m.set_pc(CODE);
                assert_eq!(m.run(u64::MAX), Outcome::Halted);
            }
            let (n, t) = of(&group.jit_counters().expect("a compiler"));
            (time, instructions) = (time + t, instructions + n)
        }
        Duration::from_nanos(time * rounds / instructions)
    };
    c.bench_function("compile/quick, each instruction", |b| {
        b.iter_custom(|n| cost(config(1, u16::MAX), |c| (c.quick_instructions, c.quick_nanoseconds), n))
    });
    c.bench_function("compile/region, each instruction", |b| {
        b.iter_custom(|n| cost(config(0, 1), |c| (c.instructions, c.nanoseconds), n))
    });
}

criterion_group!(pieces, decode, dispatch, tlb, regions, compilers);
criterion_main!(pieces);
