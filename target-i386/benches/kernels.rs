//! The interpreter against the host: the same machine code (`kernels.c`) run by both, times native and guest MIPS.
//! Not criterion: native and interpreted runs alternate, so that a busy machine hits both.
#![expect(unsafe_code, reason = "runs the kernels' machine code")]

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::time::{ClockId, clock_gettime};
use target_i386::{exception::Exception, testing::*};

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x10_0000;
const RAM: usize = 32 << 20;
/// Where a kernel returns to: UD2.
const END: u64 = 0x8000;

/// Kernel, its argument.
const RUNS: [(&str, u64); 8] = [
    ("sieve", 1 << 20),
    ("crc32", 4_000_000),
    ("list", 4_000_000),
    ("fib", 30),
    ("vm", 300_000),
    ("fields", 20_000),
    ("qsort", 200_000),
    ("axpy", 10_000),
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
    let mut logs = vec![];
    println!("{:8} {:>9} {:>9} {:>7} {:>8}", "kernel", "native ms", "tier0 ms", "times", "MIPS");
    for (name, n) in RUNS {
        if only.as_ref().is_some_and(|o| o != name) {
            continue;
        }
        let at = names.iter().find(|k| k.0 == name).expect("a kernel").1;
        // SAFETY: the kernels take two words, return one, and touch `data` only.
        let native: extern "C" fn(*mut u8, u64) -> u64 = unsafe { std::mem::transmute(text.add(at as usize)) };
        let mut m = Bare::new(64, RAM);
        m.poke(CODE, &code);
        m.poke(END, &[0x0f, 0x0b]);
        let (mut best, mut executed) = ([f64::MAX; 2], 0);
        // SAFETY: inside the mapping; the guest's memory starts with zeros as well.
        unsafe { std::ptr::write_bytes(data, 0, RAM / 2) };
        for _ in 0..5 {
            let t = now();
            let want = native(data, n);
            best[0] = best[0].min(now() - t);
            let sp = RAM as u64 - 0x108;
            m.poke(sp, &END.to_le_bytes());
            m.set_gpr(4, sp);
            m.set_gpr(7, DATA);
            m.set_gpr(6, n);
            m.set_pc(CODE + at);
            let t = now();
            let end = m.run(u64::MAX);
            best[1] = best[1].min(now() - t);
            executed = i64::MAX / 2 - m.cpu().budget();
            assert_eq!((end, m.gpr(0)), (Outcome::Exception(Exception::ud()), want), "{name}");
        }
        let [a, b] = best;
        logs.push((b / a).ln());
        println!("{name:8} {a:9.2} {b:9.2} {:7.1} {:8.0}   {:?}", b / a, executed as f64 / b / 1e3, m.counters());
    }
    if only.is_none() {
        mmio();
        pairs();
    }
    println!("geometric mean {:.1} times native", (logs.iter().sum::<f64>() / logs.len() as f64).exp());
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
