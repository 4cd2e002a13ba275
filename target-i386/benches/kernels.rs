//! The two tiers against the host: the same machine code (`kernels.c`) run by all, times native and guest MIPS.
//! Not criterion: native and other runs alternate, so that a busy machine hits all.
#![expect(unsafe_code, reason = "runs the kernels' machine code")]

use accel::tcg::{Group, JitConfig};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::time::{ClockId, clock_gettime};
use target_i386::{exception::Exception, testing::*};

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x10_0000;
const RAM: usize = 32 << 20;
/// Where a kernel returns to: UD2.
const END: u64 = 0x8000;

/// Kernel, its argument.
const RUNS: [(&str, u64); 11] = [
    ("sieve", 1 << 20),
    ("crc32", 4_000_000),
    ("list", 4_000_000),
    ("fib", 30),
    ("vm", 300_000),
    ("fields", 20_000),
    ("qsort", 200_000),
    ("axpy", 10_000),
    ("nbody", 100_000),
    ("mandel", 200),
    ("pixels", 4_000),
];

/// CPU time of this thread in ms: the machine may be busy.
fn now() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e3 + t.tv_nsec as f64 / 1e6
}

fn main() {
    let text = include_str!("kernels.hex");
    let mut lines = text.lines();
    let names: Vec<(&str, u64)> = lines
        .by_ref()
        .take(RUNS.len())
        .map(|l| l.split_once(' ').map(|(n, o)| (n, u64::from_str_radix(o, 16).expect("hex"))).expect("name offset"))
        .collect();
    let code: Vec<u8> = lines
        .flat_map(|l| l.as_bytes().chunks(2))
        .map(|p| u8::from_str_radix(str::from_utf8(p).expect("ascii"), 16).expect("hex"))
        .collect();
    let map = |prot| {
        // SAFETY: a new mapping at an address of the kernel's choice.
        unsafe { mmap_anonymous(std::ptr::null_mut(), RAM, prot, MapFlags::PRIVATE) }.expect("memory").cast::<u8>()
    };
    let data = map(ProtFlags::READ | ProtFlags::WRITE);
    let text = map(ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC);
    // SAFETY: inside the mapping made just now.
    unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), text, code.len()) };

    let only = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let mut logs = [0.0; 2];
    let mut count = 0;
    println!("{:8} {:>9} {:>13} {:>13} {:>11}", "kernel", "native ms", "tier 0 times", "tier 1 times", "MIPS");
    for (name, n) in RUNS {
        if only.as_ref().is_some_and(|o| o != name) {
            continue;
        }
        let at = names.iter().find(|k| k.0 == name).expect("a kernel").1;
        // SAFETY: the kernels take two words, return one, and touch `data` only.
        let native: extern "C" fn(*mut u8, u64) -> u64 = unsafe { std::mem::transmute(text.add(at as usize)) };
        let group = Group::new();
        group.set_jit(JitConfig::default());
        let mut machines = [Bare::new(64, RAM), Bare::in_group(&group, 64, RAM)];
        for m in &mut machines {
            m.poke(CODE, &code);
            m.poke(END, &[0x0f, 0x0b]);
        }
        let (mut best, mut executed) = ([f64::MAX; 3], 0);
        // SAFETY: inside the mapping; the guest's memory starts with zeros as well.
        unsafe { std::ptr::write_bytes(data, 0, RAM / 2) };
        for _ in 0..5 {
            let t = now();
            let want = native(data, n);
            best[0] = best[0].min(now() - t);
            let sp = RAM as u64 - 0x108;
            for (m, best) in machines.iter_mut().zip(&mut best[1..]) {
                m.poke(sp, &END.to_le_bytes());
                m.set_gpr(4, sp);
                m.set_gpr(7, DATA);
                m.set_gpr(6, n);
                m.set_pc(CODE + at);
                let t = now();
                let end = m.run(u64::MAX);
                *best = best.min(now() - t);
                executed = i64::MAX / 2 - m.cpu().budget();
                assert_eq!((end, m.gpr(0)), (Outcome::Exception(Exception::ud()), want), "{name}");
            }
        }
        let [a, b, c] = best;
        count += 1;
        logs[0] += (b / a).ln();
        logs[1] += (c / a).ln();
        let mips = |ms| executed as f64 / ms / 1e3;
        println!("{name:8} {a:9.2} {:13.1} {:13.2} {:5.0} {:5.0}", b / a, c / a, mips(b), mips(c));
        if only.is_some() {
            println!("{:?}\n{:?}\n{:?}", machines[0].counters(), machines[1].counters(), group.jit_counters());
        }
    }
    if only.is_none() {
        mmio();
        pairs();
    }
    let [a, b] = logs.map(|l| (l / count as f64).exp());
    println!("geometric mean {a:.1} and {b:.2} times native");
}

/// Instructions that are functions on the whole CPU: the time of two of them, the loop around them included.
fn pairs() {
    const N: u64 = 2_000_000;
    // Between them: dec rcx; jnz top; ud2.
    let rows: [(&str, &[u8]); 5] = [
        ("fld, fstp qword", &[0xdd, 0x03, 0xdd, 0x1b]),
        ("fld qword, fstp dword", &[0xdd, 0x03, 0xd9, 0x1b]),
        ("fadd, fmul st(0), st(1)", &[0xd8, 0xc1, 0xd8, 0xc9]),
        ("paddb, pmullw mm0, mm1", &[0x0f, 0xfc, 0xc1, 0x0f, 0xd5, 0xc1]),
        ("packsswb, psrlw mm0, mm1", &[0x0f, 0x63, 0xc1, 0x0f, 0xd1, 0xc1]),
    ];
    for (name, two) in rows {
        let back = -(two.len() as i8 + 5);
        let code = [&[0xdb, 0xe3, 0xd9, 0xe8, 0xd9, 0xe8][..], two, &[0x48, 0xff, 0xc9, 0x75, back as u8, 0x0f, 0x0b]];
        let mut m = Bare::new(64, 1 << 20);
        m.poke(CODE, &code.concat());
        m.poke(0x8_0000, &1.75f64.to_le_bytes());
        m.set_pc(CODE);
        m.set_gpr(1, N);
        m.set_gpr(3, 0x8_0000);
        let t = now();
        let end = m.run(u64::MAX);
        let ms = now() - t;
        assert_eq!(end, Outcome::Exception(Exception::ud()));
        println!("{name}: {:.1} ns", ms * 1e6 / N as f64);
    }
}

/// Loads from an address that is no RAM: the engine's part of an access to a device.
fn mmio() {
    const N: u64 = 1_000_000;
    // top: mov eax, [rbx]; dec rcx; jnz top; ud2
    let code = [0x8b, 0x03, 0x48, 0xff, 0xc9, 0x75, 0xf9, 0x0f, 0x0b];
    let mut m = Bare::new(64, 1 << 20);
    m.poke(CODE, &code);
    m.set_pc(CODE);
    m.set_gpr(1, N);
    m.set_gpr(3, 0x4000_0010);
    let t = now();
    let end = m.run(u64::MAX);
    let ms = now() - t;
    assert_eq!((end, m.gpr(0)), (Outcome::Exception(Exception::ud()), 0xffff_ffff));
    println!("load from a device's address: {:.0} ns without the device", ms * 1e6 / N as f64);
}
