//! String instructions without a repeat prefix, in the interpreter and in regions, beside what the manual says of them.

use accel::tcg::{Group, JitConfig};
use target_i386::{exception::Exception, state::bits::DF, testing::*};

const RAM: usize = 1 << 20;
const CODE: u64 = 0x1000;
/// Offsets that strings begin at, upward and downward; rounds of the loop.
const SOURCE: u64 = 0x4100;
const TARGET: u64 = 0x6200;
const ROUNDS: u64 = 300;
/// Base of the segments that are not flat.
const BASE: u64 = 0x1_2340;

const MOVS: u8 = 0xa4;
const CMPS: u8 = 0xa6;
const STOS: u8 = 0xaa;
const LODS: u8 = 0xac;
const SCAS: u8 = 0xae;

/// What a run leaves: RAX, RSI, RDI, status flags, memory.
#[derive(PartialEq, Debug)]
struct Left {
    regs: [u64; 3],
    flags: u32,
    memory: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    bits: u32,
    /// Of addresses.
    address: u32,
    opcode: u8,
    bytes: u64,
    down: bool,
    /// Base of the source's segment, FS in 64-bit code, DS elsewhere; and of ES.
    based: bool,
}

fn memory() -> Vec<u8> {
    let mut x = 1u64;
    let mut next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 60) as u8
    };
    (0..RAM).map(|_| next()).collect()
}
/// The instruction, DEC of the counter, a jump back, UD2.
fn code(c: Case) -> Vec<u8> {
    let mut code = vec![];
    if c.based && c.bits == 64 {
        code.push(0x64)
    }
    if c.address != c.bits {
        code.push(0x67)
    }
    let operand = c.bytes as u32 * 8;
    if operand != 8 && operand != 64 && (operand == 16) != (c.bits == 16) {
        code.push(0x66)
    }
    if operand == 64 {
        code.push(0x48)
    }
    code.push(c.opcode + u8::from(operand != 8));
    // DEC rBP.
    code.extend(if c.bits == 64 { &[0x48, 0xff, 0xcd][..] } else { &[0x4d] });
    // (CMPS and SCAS: the flags of the last one are wanted, DEC keeps only CF.)
    let back = -(code.len() as i8 + 2);
    code.extend([0x75, back as u8, 0x0f, 0x0b]);
    code
}
fn bases(c: Case) -> [u64; 2] {
    [if c.based { BASE } else { 0 }, if c.based && c.bits != 64 { BASE + 0x10 } else { 0 }]
}
fn start(c: Case) -> [u64; 3] {
    // Upper halves that narrow addresses must not touch, or clear.
    let high = if c.bits == 64 { 0x5555_0000_0000_0000 } else { 0 };
    let [si, di] = if c.address == 64 { [SOURCE, TARGET] } else { [SOURCE | high, TARGET | high] };
    [0x1122_3344_5566_7788 & if c.bits == 64 { u64::MAX } else { 0xffff_ffff }, si, di]
}
fn run(c: Case, jit: bool) -> Left {
    let group = Group::new();
    if jit {
        let config = JitConfig { quick: 0, threshold: 20, cache: 1 << 20, synchronous: true, ..JitConfig::default() };
        group.set_jit(config);
    }
    let mut b = Bare::in_group(&group, c.bits, RAM);
    b.poke(0, &memory());
    b.poke(CODE, &code(c));
    let [source, target] = bases(c);
    let segment = if c.bits == 64 { 4 } else { 3 };
    b.state().segs[segment].base = source;
    b.state().segs[0].base = target;
    b.sync();
    b.set_flags(2 | if c.down { DF } else { 0 });
    let [ax, si, di] = start(c);
    for (r, v) in [(0, ax), (6, si), (7, di), (5, ROUNDS), (4, 0x8000)] {
        b.set_gpr(r, v)
    }
    b.set_pc(CODE);
    assert!(matches!(b.run(1_000_000), Outcome::Exception(Exception { vector: 6, .. })), "{c:?}");
    assert_eq!(b.counters().entered > 0, jit, "{c:?}");
    let mut memory = vec![0; RAM];
    b.peek(0, &mut memory);
    // CF: the one flag of the comparison that the loop's DEC keeps.
    Left { regs: [0, 6, 7].map(|r| b.gpr(r)), flags: b.flags() & 1, memory }
}
/// What the manual says.
fn expected(c: Case) -> Left {
    let mut m = memory();
    let place = |m: &mut Vec<u8>| m[CODE as usize..][..code(c).len()].copy_from_slice(&code(c));
    place(&mut m);
    let ([mut ax, mut si, mut di], n, mut carry) = (start(c), c.bytes as usize, false);
    let mask = if c.address == 64 { u64::MAX } else { (1 << c.address) - 1 };
    let width = if c.bytes == 8 { u64::MAX } else { (1 << (8 * c.bytes)) - 1 };
    let [source, target] = bases(c);
    let at = |m: &[u8], a: u64| {
        let mut v = [0; 8];
        v[..n].copy_from_slice(&m[a as usize..][..n]);
        u64::from_le_bytes(v)
    };
    let step = |r: &mut u64| {
        let v = if c.down { r.wrapping_sub(c.bytes) } else { r.wrapping_add(c.bytes) };
        *r = if c.address == 16 { *r & !mask | v & mask } else { v & mask }
    };
    for _ in 0..ROUNDS {
        let (s, d) = ((source + (si & mask)), (target + (di & mask)));
        match c.opcode {
            MOVS => {
                let v = at(&m, s);
                m[d as usize..][..n].copy_from_slice(&v.to_le_bytes()[..n])
            }
            STOS => m[d as usize..][..n].copy_from_slice(&ax.to_le_bytes()[..n]),
            LODS => {
                let v = at(&m, s);
                ax = if c.bytes >= 4 { v } else { ax & !width | v }
            }
            SCAS => carry = ax & width < at(&m, d),
            _ => carry = at(&m, s) < at(&m, d),
        }
        if matches!(c.opcode, MOVS | LODS | CMPS) {
            step(&mut si)
        }
        if c.opcode != LODS {
            step(&mut di)
        }
    }
    Left { regs: [ax, si, di], flags: carry.into(), memory: m }
}

#[test]
fn elements_go_where_the_manual_says() {
    for bits in [16, 32, 64] {
        for address in [16, 32, 64] {
            let (short, long) = (address == 16 && bits == 64, address == 64 && bits != 64);
            if short || long {
                // (No such addresses.)
                continue;
            }
            for opcode in [MOVS, CMPS, STOS, LODS, SCAS] {
                for bytes in [1, 2, 4, 8] {
                    if bytes == 8 && bits != 64 {
                        continue;
                    }
                    for (down, based) in [(false, false), (true, false), (false, true), (true, true)] {
                        let c = Case { bits, address, opcode, bytes, down, based };
                        let want = expected(c);
                        for jit in [false, true] {
                            let got = run(c, jit);
                            assert_eq!((got.regs, got.flags), (want.regs, want.flags), "{c:x?}, tier 1: {jit}");
                            assert!(got.memory == want.memory, "{c:x?}, tier 1: {jit}: memory");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_direction_may_change_on_the_way() {
    // STD MOVSB; CLD MOVSB MOVSB MOVSB; DF by POPF, MOVSB; CLD; DEC RBP, JNZ; UD2.
    let code = [
        0xfd, 0xa4, 0xfc, 0xa4, 0xa4, 0xa4, 0x9c, 0x81, 0x0c, 0x24, 0, 4, 0, 0, 0x9d, 0xa4, 0xfc, 0x48, 0xff, 0xcd,
        0x75, 0xea, 0x0f, 0x0b,
    ];
    for jit in [false, true] {
        let group = Group::new();
        if jit {
            let config =
                JitConfig { quick: 0, threshold: 20, cache: 1 << 20, synchronous: true, ..JitConfig::default() };
            group.set_jit(config);
        }
        let mut b = Bare::in_group(&group, 64, RAM);
        b.poke(CODE, &code);
        for (r, v) in [(6, SOURCE), (7, TARGET), (5, ROUNDS), (4, 0x8000)] {
            b.set_gpr(r, v)
        }
        b.set_pc(CODE);
        assert!(matches!(b.run(1_000_000), Outcome::Exception(Exception { vector: 6, .. })));
        assert_eq!(b.counters().entered > 0, jit);
        assert_eq!([6, 7].map(|r| b.gpr(r)), [SOURCE, TARGET].map(|v| v + ROUNDS), "tier 1: {jit}");
    }
}
