//! The memory model between vCPUs, x86-TSO, in every tier: store buffering is all that may be seen; locked instructions lose
//! nothing; code that another vCPU or a device writes takes effect.
//!
//! Source: Intel SDM vol. 3 §9.2.3 (examples of memory ordering), §9.1.3 (cross-modifying code).

use accel::tcg::{Bus, Exit, FlatBus, Group, JitConfig, Vcpu};
use iced_x86::code_asm::*;
use std::sync::{Arc, Barrier};
use target_i386::{EXIT_CAUGHT, X86, testing::*};

const CODE: u64 = 0x1_0000;
/// The two variables of each round, and what each vCPU saw in it.
const X: u64 = 0x10_0000;
const Y: u64 = 0x20_0000;
const SEEN: u64 = 0x40_0000;
const ROUND: u64 = 64;
const ROUNDS: u64 = 10_000;
const RAM: usize = 16 << 20;

type Program = Result<(), IcedError>;

/// Executions until a block gets quick code, and from then on until it is compiled as a region; nothing for the interpreter.
const TIERS: [Option<(u16, u16)>; 4] = [None, Some((0, 1)), Some((1, u16::MAX)), Some((1, 4))];

fn group(tier: Option<(u16, u16)>) -> Arc<Group> {
    let g = Group::new();
    if let Some((quick, threshold)) = tier {
        g.set_jit(JitConfig { quick, threshold, cache: 1 << 20, synchronous: true, ..JitConfig::default() })
    }
    g
}
fn assemble(f: impl FnOnce(&mut CodeAssembler) -> Program) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64-bit");
    f(&mut a).expect("instructions that exist");
    a.assemble(CODE).expect("assembles")
}
/// Runs a program, which ends with UD2, at once on vCPUs with their numbers in RDI; their RAX.
fn run(tier: Option<(u16, u16)>, vcpus: u64, code: &[u8]) -> (Vec<u64>, Arc<FlatBus>) {
    let bus = Arc::new(FlatBus::new(RAM));
    assert!(bus.poke(CODE, code));
    let (group, start) = (group(tier), Barrier::new(vcpus as usize));
    let results = std::thread::scope(|s| {
        let threads: Vec<_> = (0..vcpus)
            .map(|n| {
                let mut v: Vcpu<X86> = bare_vcpu(&group, bus.clone());
                let start = &start;
                s.spawn(move || {
                    v.hot().regs[7] = n;
                    v.hot().regs[4] = 0x8_0000 + n * 0x1_0000;
                    v.set_pc(CODE);
                    start.wait();
                    assert_eq!(v.run(u64::MAX), Exit::Target(EXIT_CAUGHT));
                    v.hot().regs[0]
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("a vCPU")).collect()
    });
    (results, bus)
}
fn word(bus: &FlatBus, at: u64) -> u64 {
    let mut v = [0; 8];
    assert!(bus.peek(at, &mut v));
    u64::from_le_bytes(v)
}

/// Runs `threads` over the rounds: each is given RSI and RDI at the round's X and Y and leaves what it saw in EAX and EDX. How
/// often each outcome was seen that `count` accepts.
fn rounds(
    tier: Option<(u16, u16)>,
    threads: &[fn(&mut CodeAssembler) -> Program],
    count: impl Fn(&[(u64, u64)]) -> bool,
) -> u64 {
    let code = assemble(|a| {
        let mut labels: Vec<_> = threads.iter().map(|_| a.create_label()).collect();
        for (n, l) in labels.iter().enumerate() {
            a.cmp(edi, n as i32)?;
            a.je(*l)?;
        }
        for (n, (l, body)) in labels.iter_mut().zip(threads).enumerate() {
            let mut top = a.create_label();
            a.set_label(l)?;
            a.mov(rsi, X)?;
            a.mov(rdi, Y)?;
            a.mov(rbx, SEEN + 0x20_0000 * n as u64)?;
            a.mov(ecx, ROUNDS as u32)?;
            a.set_label(&mut top)?;
            a.xor(eax, eax)?;
            a.xor(edx, edx)?;
            body(a)?;
            a.mov(qword_ptr(rbx), rax)?;
            a.mov(qword_ptr(rbx + 8), rdx)?;
            a.add(rsi, ROUND as i32)?;
            a.add(rdi, ROUND as i32)?;
            a.add(rbx, 16)?;
            a.dec(ecx)?;
            a.jne(top)?;
            a.ud2()?
        }
        Ok(())
    });
    let mut found = 0;
    for _ in 0..4 {
        let (_, bus) = run(tier, threads.len() as u64, &code);
        for r in 0..ROUNDS {
            let seen: Vec<_> = (0..threads.len() as u64)
                .map(|n| SEEN + 0x20_0000 * n + 16 * r)
                .map(|at| (word(&bus, at), word(&bus, at + 8)))
                .collect();
            found += u64::from(count(&seen))
        }
    }
    found
}
fn never(threads: &[fn(&mut CodeAssembler) -> Program], forbidden: impl Fn(&[(u64, u64)]) -> bool) {
    for tier in TIERS {
        assert_eq!(rounds(tier, threads, &forbidden), 0, "{tier:?}");
    }
}

#[test]
fn message_passing() {
    // §9.2.3.2: neither two stores nor two loads change places.
    never(
        &[
            |a| {
                a.mov(dword_ptr(rsi), 1)?;
                a.mov(dword_ptr(rdi), 1)
            },
            |a| {
                a.mov(eax, dword_ptr(rdi))?;
                a.mov(edx, dword_ptr(rsi))
            },
        ],
        |s| s[1] == (1, 0),
    );
}
#[test]
fn load_buffering() {
    // §9.2.3.3: a store does not come before an earlier load.
    never(
        &[
            |a| {
                a.mov(eax, dword_ptr(rsi))?;
                a.mov(dword_ptr(rdi), 1)
            },
            |a| {
                a.mov(eax, dword_ptr(rdi))?;
                a.mov(dword_ptr(rsi), 1)
            },
        ],
        |s| (s[0].0, s[1].0) == (1, 1),
    );
}
#[test]
fn store_buffering() {
    // §9.2.3.4 lets loads come before earlier stores to elsewhere; a fence or a locked instruction does not, and a vCPU sees its own
    // stores (§9.2.3.5).
    let plain: [fn(&mut CodeAssembler) -> Program; 2] = [
        |a| {
            a.mov(dword_ptr(rsi), 1)?;
            a.mov(eax, dword_ptr(rdi))?;
            a.mov(edx, dword_ptr(rsi))
        },
        |a| {
            a.mov(dword_ptr(rdi), 1)?;
            a.mov(eax, dword_ptr(rsi))?;
            a.mov(edx, dword_ptr(rdi))
        },
    ];
    for tier in TIERS {
        assert_eq!(rounds(tier, &plain, |s| s[0].1 != 1 || s[1].1 != 1), 0, "own stores, {tier:?}");
    }
    never(
        &[
            |a| {
                a.mov(dword_ptr(rsi), 1)?;
                a.mfence()?;
                a.mov(eax, dword_ptr(rdi))
            },
            |a| {
                a.mov(dword_ptr(rdi), 1)?;
                a.mfence()?;
                a.mov(eax, dword_ptr(rsi))
            },
        ],
        |s| (s[0].0, s[1].0) == (0, 0),
    );
    never(
        &[
            |a| {
                a.mov(dword_ptr(rsi), 1)?;
                a.lock().or(dword_ptr(rsp), 0)?;
                a.mov(eax, dword_ptr(rdi))
            },
            |a| {
                a.mov(edx, 1)?;
                a.xchg(dword_ptr(rdi), edx)?;
                a.mov(eax, dword_ptr(rsi))
            },
        ],
        |s| (s[0].0, s[1].0) == (0, 0),
    );
}
#[test]
fn independent_reads_of_independent_writes() {
    // §9.2.3.7: two readers agree on the order of stores.
    let read: [fn(&mut CodeAssembler) -> Program; 2] = [
        |a| {
            a.mov(eax, dword_ptr(rsi))?;
            a.mov(edx, dword_ptr(rdi))
        },
        |a| {
            a.mov(eax, dword_ptr(rdi))?;
            a.mov(edx, dword_ptr(rsi))
        },
    ];
    let apart = |s: &[(u64, u64)]| (s[2], s[3]) == ((1, 0), (1, 0));
    never(&[|a| a.mov(dword_ptr(rsi), 1), |a| a.mov(dword_ptr(rdi), 1), read[0], read[1]], apart);
    let locked: [fn(&mut CodeAssembler) -> Program; 2] = [
        |a| {
            a.mov(edx, 1)?;
            a.xchg(dword_ptr(rsi), edx)
        },
        |a| a.lock().inc(dword_ptr(rdi)),
    ];
    never(&[locked[0], locked[1], read[0], read[1]], apart);
}

#[test]
fn contended_atomics_lose_nothing() {
    const N: u32 = 5000;
    let code = assemble(|a| {
        let (mut top, mut eight, mut sixteen) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(rdi, X)?;
        a.mov(esi, N)?;
        a.set_label(&mut top)?;
        a.mov(edx, 3)?;
        a.lock().xadd(qword_ptr(rdi), rdx)?;
        a.lock().add(dword_ptr(rdi + 0x3e), 1)?; // across a cache line
        a.mov(edx, 5)?;
        a.lock().xadd(qword_ptr(rdi + 0x7b), rdx)?; // across a cache line
        a.mov(eax, dword_ptr(rdi + 0x100))?;
        a.mov(edx, dword_ptr(rdi + 0x104))?;
        a.set_label(&mut eight)?;
        a.lea(ebx, dword_ptr(eax + 1))?;
        a.lea(ecx, dword_ptr(edx + 2))?;
        a.lock().cmpxchg8b(qword_ptr(rdi + 0x100))?;
        a.jne(eight)?;
        a.mov(rax, qword_ptr(rdi + 0x140))?;
        a.mov(rdx, qword_ptr(rdi + 0x148))?;
        a.set_label(&mut sixteen)?;
        a.lea(rbx, qword_ptr(rax + 1))?;
        a.lea(rcx, qword_ptr(rdx + 2))?;
        a.lock().cmpxchg16b(xmmword_ptr(rdi + 0x140))?;
        a.jne(sixteen)?;
        a.dec(esi)?;
        a.jne(top)?;
        a.ud2()
    });
    for tier in TIERS {
        for vcpus in [2, 4] {
            let (_, bus) = run(tier, vcpus, &code);
            let n = vcpus * u64::from(N);
            let all = [0, 0x7b, 0x140, 0x148].map(|at| word(&bus, X + at));
            assert_eq!(all, [3 * n, 5 * n, n, 2 * n], "{tier:?}, {vcpus} vCPUs");
            let halves = [0x3e, 0x100, 0x104].map(|at| u64::from(word(&bus, X + at) as u32));
            assert_eq!(halves, [n, n, 2 * n], "{tier:?}, {vcpus} vCPUs");
        }
    }
}

#[test]
fn code_that_another_vcpu_writes() {
    // The architected way, in each of 300 rounds: vCPU 0 writes an immediate of the function and says so; vCPU 1 serializes
    // and calls it. Before that it runs a loop that ends when a single byte of it is written.
    const N: u32 = 300;
    let code = assemble(|a| {
        let (mut second, mut wait, mut write, mut ack) =
            (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        let (mut spin, mut byte, mut next, mut told, mut f, mut wrong) = (
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
        );
        a.mov(rsi, X)?;
        a.lea(r8, qword_ptr(f))?;
        a.lea(r9, qword_ptr(byte))?;
        a.mov(r10d, 1)?;
        a.test(edi, edi)?;
        a.jne(second)?;
        a.set_label(&mut wait)?;
        a.cmp(dword_ptr(rsi + 128), 5000)?;
        a.jb(wait)?;
        a.mov(byte_ptr(r9 + 1), 7)?;
        a.set_label(&mut write)?;
        a.mov(dword_ptr(r8 + 1), r10d)?;
        a.mov(dword_ptr(rsi), r10d)?;
        a.set_label(&mut ack)?;
        a.pause()?;
        a.cmp(dword_ptr(rsi + 64), r10d)?;
        a.jb(ack)?;
        a.inc(r10d)?;
        a.cmp(r10d, N as i32)?;
        a.jbe(write)?;
        a.ud2()?;
        a.set_label(&mut second)?;
        a.nop()?;
        a.set_label(&mut spin)?;
        a.inc(dword_ptr(rsi + 128))?;
        a.set_label(&mut byte)?;
        a.mov(eax, 1)?;
        a.cmp(eax, 7)?;
        a.jne(spin)?;
        a.set_label(&mut next)?;
        a.nop()?;
        a.set_label(&mut told)?;
        a.pause()?;
        a.cmp(dword_ptr(rsi), r10d)?;
        a.jne(told)?;
        a.xor(eax, eax)?;
        a.cpuid()?;
        a.call(f)?;
        a.cmp(eax, r10d)?;
        a.jne(wrong)?;
        a.mov(dword_ptr(rsi + 64), r10d)?;
        a.inc(r10d)?;
        a.cmp(r10d, N as i32)?;
        a.jbe(next)?;
        a.ud2()?;
        // (Nobody waits for it any more.)
        a.set_label(&mut wrong)?;
        a.mov(dword_ptr(rsi + 64), -1)?;
        a.xor(eax, eax)?;
        a.ud2()?;
        a.nops_with_size(4096)?;
        a.set_label(&mut f)?;
        a.mov(eax, 0)?;
        a.ret()
    });
    for tier in TIERS {
        let (seen, _) = run(tier, 2, &code);
        assert_eq!(seen[1], u64::from(N), "{tier:?}");
    }
}

#[test]
fn code_that_a_device_writes() {
    for tier in TIERS {
        let bus = Arc::new(FlatBus::new(RAM));
        // top: inc dword [X]; mov eax, 1; cmp eax, 7; jne top; ud2
        let code = assemble(|a| {
            let mut top = a.create_label();
            a.mov(rsi, X)?;
            a.set_label(&mut top)?;
            a.inc(dword_ptr(rsi))?;
            a.mov(eax, 1)?;
            a.cmp(eax, 7)?;
            a.jne(top)?;
            a.ud2()
        });
        let at = code.windows(5).position(|w| w == [0xb8, 1, 0, 0, 0]).expect("the instruction") as u64 + 1;
        assert!(bus.poke(CODE, &code));
        let group = group(tier);
        let mut v: Vcpu<X86> = bare_vcpu(&group, bus.clone());
        v.set_pc(CODE);
        let t = std::thread::spawn(move || {
            let end = v.run(u64::MAX);
            (end, v.hot().regs[0])
        });
        while word(&bus, X) < 10_000 {
            std::thread::yield_now()
        }
        assert!(bus.poke(CODE + at, &[7]));
        let page = bus.ram(0, CODE).expect("RAM");
        group.written(page.host.addr() + at as usize, 1);
        assert_eq!(t.join().expect("a vCPU"), (Exit::Target(EXIT_CAUGHT), 7), "{tier:?}");
    }
}
