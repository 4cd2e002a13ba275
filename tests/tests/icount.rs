//! `-icount`: a guest with interrupts of the PIT and the local APIC leaves the same trace whatever runs its code and however busy
//! the host is.

use iced_x86::code_asm::*;
use std::sync::atomic::{AtomicBool, Ordering};
use tests::rom;

/// Interrupts in a trace.
const INTERRUPTS: u16 = 120;
/// Nanoseconds between two of the local APIC's.
const PERIOD: u64 = 70_000;

/// Tag, time stamp and interrupted IP of every interrupt go to port E9H.
fn handler(a: &mut CodeAssembler, tag: u8, end_of_interrupt: &[u8]) -> Result<(), iced_x86::IcedError> {
    let (mut byte, mut more) = (a.create_label(), a.create_label());
    a.pushad()?;
    a.rdtsc()?;
    a.mov(ebx, eax)?;
    rom::say(a, tag)?;
    a.mov(eax, ebx)?;
    a.mov(cx, 4)?;
    a.set_label(&mut byte)?;
    a.out(0xe9, al)?;
    a.shr(eax, 8)?;
    a.loop_(byte)?;
    a.mov(bp, sp)?;
    a.mov(ax, word_ptr(bp + 32))?;
    a.out(0xe9, al)?;
    a.mov(al, ah)?;
    a.out(0xe9, al)?;
    a.db(end_of_interrupt)?;
    a.dec(word_ptr(0x600))?;
    a.jne(more)?;
    rom::end(a)?;
    a.cli()?;
    a.hlt()?;
    a.set_label(&mut more)?;
    a.popad()?;
    a.iret()
}

fn guest() -> Vec<u8> {
    rom::image(&[
        (0, &|a| {
            a.xor(ax, ax)?;
            a.mov(ss, ax)?;
            a.mov(sp, 0x7000)?;
            // DS of 4 GiB, for the local APIC.
            a.db(&[0x2e, 0x66, 0x0f, 0x01, 0x16, 0x20, 0x03])?; // lgdt cs:[0x320]
            a.mov(eax, cr0)?;
            a.or(al, 1)?;
            a.mov(cr0, eax)?;
            a.mov(bx, 8)?;
            a.mov(ds, bx)?;
            a.and(al, -2)?;
            a.mov(cr0, eax)?;
            a.mov(word_ptr(0x20), 0x200)?;
            a.mov(word_ptr(0x22), 0xf000)?;
            a.mov(word_ptr(0x100), 0x280)?;
            a.mov(word_ptr(0x102), 0xf000)?;
            a.mov(word_ptr(0x600), u32::from(INTERRUPTS))?;
            for (port, value) in
                [(0x20, 0x11), (0x21, 8), (0x21, 4), (0x21, 1), (0x21, 0xfe), (0x43, 0x34), (0x40, 101), (0x40, 0)]
            {
                a.mov(al, value)?;
                a.out(port, al)?;
            }
            // Spurious vector and switch, LINT0 for the PIC, timer: periodic, divided by 1.
            for (register, value) in
                [(0xf0, 0x1ff), (0x350, 0x700), (0x320, 0x2_0040), (0x3e0, 0xb), (0x380, PERIOD as u32)]
            {
                a.mov(ebx, 0xfee0_0000u32 + register)?;
                a.mov(dword_ptr(ebx), value)?;
            }
            a.jmp(0x100)
        }),
        (0x100, &|a| {
            let mut outer = a.create_label();
            a.xor(esi, esi)?;
            a.mov(es, si)?;
            a.sti()?;
            a.set_label(&mut outer)?;
            a.inc(esi)?;
            a.imul_3(eax, esi, 0x1e3779b1)?;
            a.mov(bx, si)?;
            a.and(bx, 0xfc)?;
            a.add(dword_ptr(bx + 0x1000), eax)?;
            a.add(edx, dword_ptr(bx + 0x1000))?;
            a.test(si, 0x3ff)?;
            a.jne(outer)?;
            // A repeated instruction, time, a device.
            a.push(si)?;
            a.mov(si, 0x1000)?;
            a.mov(di, 0x1800)?;
            a.mov(cx, 200)?;
            a.rep().movsb()?;
            a.pop(si)?;
            a.push(edx)?;
            a.rdtsc()?;
            a.pop(edx)?;
            a.add(edx, eax)?;
            a.in_(al, 0x61)?;
            a.pushf()?;
            a.cli()?;
            a.inc(edx)?;
            a.popf()?;
            a.test(esi, 0x7fff)?;
            a.jne(outer)?;
            a.hlt()?;
            a.jmp(outer)
        }),
        (0x200, &|a| handler(a, b'P', &[0xb0, 0x20, 0xe6, 0x20])), // mov al, 20h; out 20h, al
        // mov ebx, 0fee000b0h; mov dword [ebx], 0
        (0x280, &|a| handler(a, b'L', &[0x66, 0xbb, 0xb0, 0, 0xe0, 0xfe, 0x67, 0x66, 0xc7, 3, 0, 0, 0, 0])),
        (0x310, &|a| a.dq(&[0x00cf_9200_0000_ffff])),
        (0x320, &|a| a.dw(&[0xf, 0x308, 0xf])),
    ])
}

/// One interrupt: which, time stamp, where.
type Interrupt = (u8, u32, u16);

fn trace(args: &[&str]) -> Vec<Interrupt> {
    let report = rom::run(&guest(), &[&["-rtc", "clock=vm,base=2026-01-01"], args].concat());
    let word = |b: &[u8]| b.iter().rev().fold(0u32, |v, b| v << 8 | u32::from(*b));
    report.chunks_exact(7).map(|c| (c[0], word(&c[1..5]), word(&c[5..]) as u16)).collect()
}

fn same(what: &str, a: &[Interrupt], b: &[Interrupt]) {
    let differs = a.iter().zip(b).position(|(a, b)| a != b);
    assert!(a == b, "{what}: interrupt {differs:?}: {:x?}", differs.map(|i| (&a[i], &b[i])));
}

#[test]
fn a_trace_depends_on_the_guest_alone() {
    let icount = |tier: &str, rest: &str| {
        let accel = format!("tcg,{tier}");
        let icount = format!("shift=0,{rest}");
        trace(&["-accel", &accel, "-icount", &icount])
    };
    let first = icount("tier=interp", "sleep=off");
    assert_eq!(first.len(), usize::from(INTERRUPTS));
    let busy = AtomicBool::new(true);
    let tiers = ["tier=interp", "tier=jit", "tier=auto,threshold=20", "tier=auto,threshold=200", "one-insn-per-tb=on"];
    let traces = std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        let traces = std::panic::catch_unwind(|| tiers.map(|t| icount(t, "sleep=off")));
        busy.store(false, Ordering::Relaxed);
        traces
    });
    for (tier, trace) in tiers.iter().zip(traces.expect("traces")) {
        same(tier, &first, &trace);
    }
    for tier in ["tier=interp", "tier=jit", "tier=auto"] {
        same(tier, &first, &icount(tier, "sleep=on"));
    }
    // Another clock, another trace.
    assert!(trace(&["-icount", "shift=1,sleep=off"]) != first);
}

#[test]
fn timers_expire_at_their_instructions() {
    let all = trace(&["-icount", "shift=0,sleep=off"]);
    let times = |tag: u8| all.iter().filter(|i| i.0 == tag).map(|i| u64::from(i.1)).collect::<Vec<_>>();
    let (pit, apic) = (times(b'P'), times(b'L'));
    assert!(pit.len() > 20 && apic.len() > 20, "{} {}", pit.len(), apic.len());
    // From one interrupt of a timer to another whole periods pass, but for the handler of the other timer and a repeated instruction
    // or two.
    for (times, numerator, denominator) in [(apic, PERIOD, 1), (pit, 101 * 1_000_000_000, 1_193_182)] {
        for t in &times {
            let off = (t - times[0]) * denominator % numerator / denominator;
            let period = numerator / denominator;
            assert!(off < 900 || off > period - 900, "{off} after {t}");
        }
    }
}

#[test]
fn a_counted_clock_can_go_like_the_hosts() {
    for clock in ["shift=auto", "shift=3,align=on", "shift=10"] {
        assert_eq!(trace(&["-icount", clock]).len(), usize::from(INTERRUPTS), "{clock}");
    }
}
