//! The tiers against each other: random instruction sequences with loops, forward branches and faults end in the same state
//! in the interpreter, in regions compiled at once, and in a mixture of both.

use accel::tcg::{Group, JitConfig};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use target_i386::{
    exception::Exception,
    fpu::Fpu,
    testing::{Bare, Outcome},
};

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x4_0000;
const STACK: u64 = 0x8_0000;
const RAM: usize = 1 << 20;
/// Rounds of each loop.
const ROUNDS: u32 = 24;

const UD: Outcome = Outcome::Exception(Exception::ud());

/// Registers that sequences write. (RSP and RDI point at memory, R14 is a small index, R15 counts.)
const FREE: [u8; 12] = [0, 1, 2, 3, 5, 6, 8, 9, 10, 11, 12, 13];

/// Makes instructions.
struct Maker {
    rng: ChaCha8Rng,
    code: Vec<u8>,
    /// Mostly x87 instructions.
    fpu: bool,
}
impl Maker {
    fn reg(&mut self) -> u8 {
        FREE[self.rng.random_range(0..FREE.len())]
    }
    /// Prefixes, opcode, ModRM and displacement: `reg` and a register or memory operand.
    fn modrm(&mut self, prefix: &[u8], opcode: &[u8], wide: bool, reg: u8, memory: bool, tail: &[u8]) {
        self.code.extend(prefix);
        let wide = (wide as u8) << 3;
        if !memory {
            let rm = self.reg();
            self.code.push(0x40 | wide | (reg >> 3) << 2 | rm >> 3);
            self.code.extend(opcode);
            self.code.push(0xc0 | (reg & 7) << 3 | rm & 7);
        } else if self.rng.random_bool(0.5) {
            self.code.push(0x40 | wide | (reg >> 3) << 2);
            self.code.extend(opcode);
            self.code.push(0x47 | (reg & 7) << 3);
            let disp = self.rng.random::<u8>();
            self.code.push(disp);
        } else {
            // [rdi + r14 * scale + disp]
            let scale = self.rng.random_range(0..4u8);
            self.code.push(0x42 | wide | (reg >> 3) << 2);
            self.code.extend(opcode);
            self.code.extend([0x44 | (reg & 7) << 3, scale << 6 | 0x37, self.rng.random::<u8>() & 0x7f]);
        }
        self.code.extend(tail);
    }
    fn insn(&mut self) {
        let reg = self.reg();
        let (wide, memory) = (self.rng.random_bool(0.5), self.rng.random_bool(0.4));
        let short: &[u8] = if self.rng.random_bool(0.15) && !wide { &[0x66] } else { &[] };
        let byte = self.rng.random_bool(0.2) as u8;
        let op = self.rng.random_range(0..8u8);
        let imm = self.rng.random::<u8>();
        if self.fpu && self.rng.random_bool(0.7) {
            return self.x87(memory);
        }
        match self.rng.random_range(0..if self.fpu { 8 } else { 26 }) {
            0..4 => {
                let direction = self.rng.random_range(0..2u8) * 2;
                self.modrm(short, &[op << 3 | direction | (1 - byte)], wide, reg, memory, &[])
            }
            4 => self.modrm(short, &[0x80 | ((1 - byte) * 3)], wide, op, memory, &[imm]),
            5 | 6 => self.modrm(short, &[0x88 | op & 3], wide, reg, memory, &[]),
            7 => {
                let o = [0xb6, 0xb7, 0xbe, 0xbf][op as usize & 3];
                self.modrm(short, &[0x0f, o], wide, reg, memory, &[])
            }
            8 => self.modrm(short, &[0xc0 | (1 - byte)], wide, op, memory, &[imm]),
            9 => self.modrm(short, &[0xd2 | (1 - byte)], wide, op, memory, &[]),
            10 => self.modrm(short, &[0xfe | (1 - byte)], wide, op & 1, memory, &[]),
            // NOT NEG MUL IMUL, now and then DIV IDIV.
            11 => {
                let o = if op > 5 && self.rng.random_bool(0.8) { 2 } else { op.max(2) };
                self.modrm(short, &[0xf6 | (1 - byte)], wide, o, memory, &[])
            }
            12 => self.modrm(short, &[0x0f, 0xaf], wide, reg, memory, &[]),
            13 => self.modrm(short, &[0x6b], wide, reg, memory, &[imm]),
            14 => self.modrm(&[], &[0x0f, 0x90 | imm & 15], false, 0, memory, &[]),
            15 => self.modrm(short, &[0x0f, 0x40 | imm & 15], wide, reg, memory, &[]),
            16 => {
                let o: &[u8] = [&[0x87][..], &[0x0f, 0xc1], &[0x0f, 0xb1]][op as usize % 3];
                let lock: &[u8] = if memory && self.rng.random_bool(0.5) { &[0xf0] } else { short };
                self.modrm(lock, o, wide, reg, memory, &[])
            }
            17 => {
                // (In memory a bit number in a register reaches far.)
                let o = [0xa3, 0xab, 0xb3, 0xbb][op as usize & 3];
                self.modrm(short, &[0x0f, o], wide, reg, false, &[]);
                self.all_but_carry()
            }
            18 => {
                self.modrm(short, &[0x0f, 0xba], wide, 4 | op & 3, memory, &[imm]);
                self.all_but_carry()
            }
            19 => {
                let (p, o): (&[u8], u8) = [(short, 0xbc), (short, 0xbd), (&[0xf3][..], 0xb8)][op as usize % 3];
                self.modrm(p, &[0x0f, o], wide, reg, memory, &[])
            }
            20 => self.modrm(&[], &[0x8d], wide, reg, true, &[]),
            21 => {
                let (reg, other) = (self.reg(), self.reg());
                // push, push, pop, pop
                for r in [reg, other] {
                    self.code.extend([0x40 | r >> 3, 0x50 | r & 7])
                }
                for r in [reg, other] {
                    self.code.extend([0x40 | r >> 3, 0x58 | r & 7])
                }
            }
            22 => {
                // CDQE, CQO, CLC, STC, CMC, LAHF, SAHF, CPUID
                let o: &[u8] =
                    [&[0x48, 0x98][..], &[0x48, 0x99], &[0xf8], &[0xf9], &[0xf5], &[0x9f], &[0x9e], &[0x0f, 0xa2]]
                        [op as usize];
                self.code.extend(o)
            }
            23 => {
                let o = [0xa4, 0xac][op as usize & 1];
                self.modrm(short, &[0x0f, o], wide, reg, memory, &[imm])
            }
            24 => {
                // A call of the next instruction, and its return address.
                self.code.extend([0xe8, 0, 0, 0, 0, 0x40 | reg >> 3, 0x58 | reg & 7])
            }
            _ => {
                // Integer SSE and moves: paddd, pxor, movdqu both ways, movd, pshufd.
                let x = reg & 7;
                match op % 6 {
                    0 => self.vector(&[0x66], 0xfe, x, &[]),
                    1 => self.vector(&[0x66], 0xef, x, &[]),
                    2 => self.memory_vector(&[0xf3], 0x6f, x),
                    3 => self.memory_vector(&[0xf3], 0x7f, x),
                    4 => self.modrm(&[0x66], &[0x0f, 0x6e], wide, x, memory, &[]),
                    _ => self.vector(&[0x66], 0x70, x, &[imm]),
                }
            }
        }
    }
    /// INC of a register: defines all flags that BT and its like leave undefined.
    fn all_but_carry(&mut self) {
        let r = self.reg();
        self.code.extend([0x40 | r >> 3, 0xff, 0xc0 | r & 7])
    }
    /// An x87 instruction, now and then one that changes the control word.
    fn x87(&mut self, memory: bool) {
        let (esc, reg) = (0xd8 | self.rng.random_range(0..8u8), self.rng.random_range(0..8u8));
        let control = esc & 1 != 0 && matches!((esc, reg), (0xd9, 4..8) | (0xdd, 4..8));
        if memory && (!control || self.rng.random_bool(0.2)) {
            // (Not DB /4, /6; DD /5: no instructions.)
            let esc = if matches!((esc, reg), (0xdb, 4 | 6) | (0xdd, 5) | (0xd9, 1)) { 0xd8 } else { esc };
            return self.modrm(&[], &[esc], false, reg, true, &[]);
        }
        let i = self.rng.random_range(0..8u8);
        let code = match self.rng.random_range(0..12) {
            0 => [0xd9, 0xc0 | i],
            1 => [0xd9, 0xe8 | (i % 7)],
            2 => [0xdd, 0xd0 | i],
            3 => [0xdb, 0xe8 | i],
            4 => [0xdf, 0xf0 | i],
            5 => [0xda | i >> 2 & 1, 0xc0 | reg << 2 & 0x18 | i],
            6 => [0xdf, 0xe0],
            7 => [0xd9, [0xe0, 0xe1, 0xe4, 0xe5, 0xfa, 0xfc, 0xfd, 0xf8][i as usize]],
            // FXCH, F2XM1, FYL2X, FPATAN, FSIN; FNINIT, FNCLEX, FWAIT.
            8 => [
                [0xd9, 0xc9],
                [0xd9, 0xf0],
                [0xd9, 0xf1],
                [0xd9, 0xf3],
                [0xd9, 0xfe],
                [0xdb, 0xe3],
                [0xdb, 0xe2],
                [0x9b, 0x9b],
            ][i as usize],
            9 => [0xde, [0xc1, 0xc9, 0xd9, 0xe1, 0xe9, 0xf1, 0xf9, 0xc2][i as usize]],
            10 => [0xdc, [0xc0, 0xc8, 0xe0, 0xe8, 0xf0, 0xf8, 0xc1, 0xe9][i as usize]],
            _ => [0xd8, 0xc0 | reg << 3 | i],
        };
        self.code.extend(code)
    }
    fn vector(&mut self, prefix: &[u8], op: u8, x: u8, tail: &[u8]) {
        let other = self.rng.random_range(0..8u8);
        self.code.extend(prefix);
        self.code.extend([0x0f, op, 0xc0 | x << 3 | other]);
        self.code.extend(tail)
    }
    fn memory_vector(&mut self, prefix: &[u8], op: u8, x: u8) {
        self.code.extend(prefix);
        self.code.extend([0x0f, op, 0x47 | x << 3, self.rng.random::<u8>()])
    }
    /// A loop of `n` instructions with forward branches, then HLT.
    fn sequence(seed: u64, n: usize, fpu: bool) -> Vec<u8> {
        let mut m = Maker { rng: ChaCha8Rng::seed_from_u64(seed), code: vec![], fpu };
        // mov r15d, ROUNDS
        m.code.extend([0x41, 0xbf]);
        m.code.extend(ROUNDS.to_le_bytes());
        let top = m.code.len();
        // Branches over the instructions up to a number.
        let mut branch: Option<(usize, usize)> = None;
        for k in 0..n {
            if branch.is_none() && m.rng.random_bool(0.2) {
                m.code.extend([0x70 | m.rng.random::<u8>() & 15, 0]);
                branch = Some((m.code.len() - 1, k + m.rng.random_range(1..4usize)));
            }
            m.insn();
            if let Some((at, end)) = branch
                && (k >= end || k + 1 == n)
            {
                m.code[at] = u8::try_from(m.code.len() - at - 1).expect("a short branch");
                branch = None
            }
        }
        // dec r15d; jnz top; hlt
        m.code.extend([0x41, 0xff, 0xcf, 0x0f, 0x85]);
        let back = top as i32 - (m.code.len() as i32 + 4);
        m.code.extend(back.to_le_bytes());
        m.code.push(0xf4);
        m.code
    }
}

/// All that a program can see.
#[derive(Debug, PartialEq)]
struct Seen {
    outcome: Outcome,
    pc: u64,
    gpr: Vec<u64>,
    xmm: Vec<u128>,
    fpu: Fpu,
    flags: u32,
    data: Vec<u8>,
    stack: Vec<u8>,
    instructions: u64,
}
/// Executions until a block gets quick code, and from then on until it is compiled as a region: regions at once or soon, quick
/// code at once or soon and no regions, one after the other.
const TIERS: [(u16, u16); 5] = [(0, 1), (0, 5), (1, u16::MAX), (3, u16::MAX), (1, 4)];
/// Runs code at `at`; what is seen at the end, and how often regions were entered.
fn run(code: &[u8], at: u64, seed: u64, jit: Option<JitConfig>) -> (Seen, u64) {
    let group = Group::new();
    if let Some(j) = jit {
        group.set_jit(j)
    }
    let mut m = Bare::in_group(&group, 64, RAM);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    m.poke(at, code);
    let mut data = [0; 512];
    rng.fill_bytes(&mut data);
    m.poke(DATA - 128, &data);
    for r in FREE {
        // Small values now and then, so that shifts and divisions do something.
        let v: u64 = rng.random();
        m.set_gpr(r.into(), if rng.random_bool(0.4) { v & 0xff } else { v })
    }
    for x in 0..16 {
        m.set_xmm(x, rng.random())
    }
    m.set_gpr(7, DATA);
    m.set_gpr(4, STACK);
    m.set_gpr(14, rng.random_range(0..16));
    m.set_pc(at);
    // (An address that a sequence computes may lie anywhere, a loop is short.)
    let outcome = m.run(100_000);
    let (mut d, mut s) = (vec![0; 1024], vec![0; 256]);
    m.peek(DATA - 512, &mut d);
    m.peek(STACK - 256, &mut s);
    let counters = m.counters();
    let seen = Seen {
        outcome,
        pc: m.pc(),
        gpr: (0..16).map(|i| m.gpr(i)).collect(),
        xmm: (0..16).map(|i| m.xmm(i)).collect(),
        fpu: m.state().fpu.clone(),
        flags: m.flags(),
        data: d,
        stack: s,
        instructions: counters.instructions,
    };
    (seen, counters.entered)
}
/// Flags that instructions of the sequences leave undefined are computed by one formula in all tiers, so all are compared; but
/// for BT and its like, see [`Maker::all_but_carry`].
fn compare(seed: u64, n: usize, fpu: bool) -> u64 {
    let code = Maker::sequence(seed, n, fpu);
    // In one page, or somewhere across its end.
    let at = if seed.is_multiple_of(3) { CODE } else { CODE + 0x1000 - seed * 7 % (code.len() as u64 + 1) };
    let (want, _) = run(&code, at, seed, None);
    let mut entered = 0;
    let plain = JitConfig { cache: 1 << 20, synchronous: true, ..JitConfig::default() };
    let tiers = TIERS.map(|(quick, threshold)| JitConfig { quick, threshold, ..plain });
    let torture = JitConfig { quick: 1, threshold: 1, torture: seed + 1, ..plain };
    for config in tiers.into_iter().chain([torture]) {
        let (got, n) = run(&code, at, seed, Some(config));
        if got != want {
            let (got, want) = (format!("{got:#x?}"), format!("{want:#x?}"));
            let lines = got.lines().zip(want.lines()).enumerate().filter(|(_, (g, w))| g != w);
            let lines: Vec<_> =
                lines.take(8).map(|(i, (g, w))| format!("line {i}: {} for {}", g.trim(), w.trim())).collect();
            panic!("seed {seed}, {config:?}, {n} entries: {lines:#?}\n{code:02x?}")
        }
        entered += n
    }
    entered
}

#[test]
fn random_sequences_end_alike_in_all_tiers() {
    let mut entered = 0;
    for seed in 0..120 {
        entered += compare(seed, 12, false)
    }
    assert!(entered > 120, "regions were entered {entered} times only");
}
#[test]
fn an_instruction_across_pages_is_rewritten() {
    // The bytes of a MOV that lie in the second page are stored in each round, with another value.
    for before in 1..5u64 {
        // top: mov [rdi], ecx; mov eax, 0; add edx, eax; dec ecx; jnz top; hlt. (RDI points at the immediate.)
        let code = [0x89, 0x0f, 0xb8, 0, 0, 0, 0, 0x01, 0xc2, 0xff, 0xc9, 0x75, 0xf3, 0xf4];
        let start = CODE + 0x1000 - 2 - before;
        for jit in std::iter::once(None).chain(TIERS.map(Some)) {
            let group = Group::new();
            if let Some((quick, threshold)) = jit {
                group.set_jit(JitConfig { quick, threshold, cache: 1 << 20, synchronous: true, ..JitConfig::default() })
            }
            let mut m = Bare::in_group(&group, 64, RAM);
            m.poke(start, &code);
            m.set_gpr(7, start + 3);
            m.set_gpr(1, 200);
            m.set_gpr(2, 0);
            m.set_pc(start);
            assert_eq!(m.run(100_000), Outcome::Halted);
            assert_eq!(m.gpr(2), 20100, "{before} bytes in the first page, thresholds {jit:?}");
            assert!(m.counters().dropped >= 199, "thresholds {jit:?}: {:?}", m.counters());
        }
    }
}
#[test]
fn pages_outside_the_tlb_are_looked_for_in_place() {
    // More pages than the first level has entries, each read and written.
    const PAGES: u64 = 40_000;
    // top: add eax, [rdi]; mov [rdi+8], eax; add rdi, 4096; dec ecx; jnz top; hlt
    let code = [0x03, 0x07, 0x89, 0x47, 0x08, 0x48, 0x81, 0xc7, 0, 0x10, 0, 0, 0xff, 0xc9, 0x75, 0xf0, 0xf4];
    for (quick, threshold) in TIERS {
        let group = Group::new();
        group.set_jit(JitConfig { quick, threshold, cache: 1 << 20, synchronous: true, ..JitConfig::default() });
        let mut m = Bare::in_group(&group, 64, (PAGES as usize + 64) << 12);
        m.poke(CODE, &code);
        m.set_gpr(0, 0);
        m.set_gpr(1, PAGES);
        m.set_gpr(7, 0x20000);
        m.poke(0x20000 + 4096 * 77, &5u32.to_le_bytes());
        m.set_pc(CODE);
        assert_eq!(m.run(300_000), Outcome::Halted);
        assert_eq!(m.gpr(0), 5, "thresholds {quick} and {threshold}");
        let n = m.counters();
        assert!(n.misses >= PAGES && n.side < 100, "thresholds {quick} and {threshold}: {n:?}");
        let mut last = [0; 4];
        m.peek(0x20000 + 4096 * (PAGES - 1) + 8, &mut last);
        assert_eq!(last, 5u32.to_le_bytes());
    }
}
#[test]
fn code_gets_hot_whose_page_has_left_the_tlb() {
    // Each round accesses a page that has the place of the code's in the first level, and the next one.
    const ROUNDS: u64 = 1000;
    const FAR: u64 = 128 << 20;
    // top: mov eax, [rdi]; mov edx, [rdi+0x1000]; dec ecx; jnz top; hlt
    let code = [0x8b, 0x07, 0x8b, 0x97, 0, 0x10, 0, 0, 0xff, 0xc9, 0x75, 0xf4, 0xf4];
    for (quick, threshold) in [(0, 5), (3, 5)] {
        let group = Group::new();
        group.set_jit(JitConfig { quick, threshold, cache: 1 << 20, synchronous: true, ..JitConfig::default() });
        let mut m = Bare::in_group(&group, 64, FAR as usize + (1 << 20));
        m.poke(CODE, &code);
        m.set_gpr(1, ROUNDS);
        m.set_gpr(7, CODE + FAR);
        m.set_pc(CODE);
        assert_eq!(m.run(100_000), Outcome::Halted);
        let n = m.counters();
        assert!(n.entered > 0 && n.entered < 10, "thresholds {quick} and {threshold}: {n:?}");
    }
}
#[test]
fn a_store_beside_code_stays_in_its_region_and_one_to_code_does_not() {
    use iced_x86::code_asm::*;
    const ROUNDS: u32 = 4000;
    // Each round stores its number: mostly to the code's page, now and then to the immediate of an instruction there.
    let mut a = CodeAssembler::new(64).expect("64-bit");
    let (mut top, mut insn) = (a.create_label(), a.create_label());
    let mut code = |a: &mut CodeAssembler| {
        a.lea(rsi, qword_ptr(insn))?;
        a.inc(rsi)?;
        a.mov(ecx, ROUNDS)?;
        a.set_label(&mut top)?;
        a.mov(edx, ecx)?;
        a.and(edx, 63)?;
        a.lea(r8, qword_ptr(rdi + rdx * 8))?;
        a.test(ecx, 0xff)?;
        a.cmove(r8, rsi)?;
        a.mov(dword_ptr(r8), ecx)?;
        a.set_label(&mut insn)?;
        a.mov(eax, 1)?;
        a.add(rbx, rax)?;
        a.dec(ecx)?;
        a.jne(top)?;
        a.hlt()
    };
    code(&mut a).expect("instructions that exist");
    let code = a.assemble(CODE).expect("assembles");
    let want = (1..=ROUNDS).rev().fold((0, 1), |(sum, now), round| {
        let now = if round % 256 == 0 { u64::from(round) } else { now };
        (sum + now, now)
    });
    for jit in std::iter::once(None).chain(TIERS.map(Some)) {
        let group = Group::new();
        if let Some((quick, threshold)) = jit {
            group.set_jit(JitConfig { quick, threshold, cache: 1 << 20, synchronous: true, ..JitConfig::default() })
        }
        let mut m = Bare::in_group(&group, 64, RAM);
        m.poke(CODE, &code);
        m.set_gpr(3, 0);
        m.set_gpr(7, CODE + 0x800);
        m.set_pc(CODE);
        assert_eq!(m.run(1_000_000), Outcome::Halted);
        assert_eq!(m.gpr(3), want.0, "thresholds {jit:?}");
        let mut last = [0; 4];
        m.peek(CODE + 0x800 + 8, &mut last);
        assert_eq!(u32::from_le_bytes(last), 1, "thresholds {jit:?}");
        // (A page is now and then taken for one that holds no code any more.)
        let n = m.counters();
        assert!(n.dropped >= u64::from(ROUNDS / 256), "thresholds {jit:?}: {n:?}");
        assert!(n.side < u64::from(ROUNDS) / 20, "thresholds {jit:?}: {n:?}");
        assert!(jit != Some(TIERS[0]) || n.entered > 0, "{n:?}");
    }
}
#[test]
fn both_ways_of_a_branch_widen_what_was_checked_before_it() {
    use iced_x86::code_asm::*;
    const NODES: u64 = 50;
    /// When both ways have been gone.
    const LATE: (u16, u16) = (0, 20);
    // One way of a branch reads a word of a list's node at `no` and goes on there, the other, at the last node, the word at `yes`.
    for (yes, no) in [(16u64, 24u64), (24, 16)] {
        // The words at 24 lie in the next page, that of the last node behind RAM, where ones are read.
        let node = |k: u64| if k + 1 == NODES { RAM as u64 - 24 } else { DATA + 4096 * (k + 1) - 24 };
        // (The pages lie the other way round, so that none lies behind another on the host as it does in the guest.)
        let moved: Vec<_> = (0..NODES).map(|k| (DATA + 4096 * k, DATA + 4096 * (NODES - 1 - k))).collect();
        let at = |la: u64| moved.iter().find(|m| m.0 == la & !0xfff).map_or(la, |m| m.1 | la & 0xfff);
        let mut a = CodeAssembler::new(64).expect("64-bit");
        let (mut walk, mut found, mut end) = (a.create_label(), a.create_label(), a.create_label());
        let mut code = |a: &mut CodeAssembler| {
            a.set_label(&mut walk)?;
            a.cmp(dword_ptr(rbp), 5)?;
            a.je(found)?;
            a.mov(rbp, qword_ptr(rbp + no as i32))?;
            a.test(rbp, rbp)?;
            a.jne(walk)?;
            a.jmp(end)?;
            a.set_label(&mut found)?;
            a.mov(rax, qword_ptr(rbp + yes as i32))?;
            a.set_label(&mut end)?;
            a.hlt()
        };
        code(&mut a).expect("instructions that exist");
        let code = a.assemble(CODE).expect("assembles");
        for jit in std::iter::once(None).chain(TIERS.map(Some)).chain([Some(LATE)]) {
            let group = Group::new();
            if let Some((quick, threshold)) = jit {
                group.set_jit(JitConfig { quick, threshold, cache: 1 << 20, synchronous: true, ..JitConfig::default() })
            }
            let mut m = Bare::in_group(&group, 64, RAM);
            m.poke(CODE, &code);
            m.paged(&moved);
            for k in 0..NODES {
                m.poke(at(node(k)), &if k + 1 == NODES { 5u64 } else { 6 }.to_le_bytes());
                m.poke(at(node(k) + 16), &7u64.to_le_bytes());
                if k + 1 < NODES {
                    m.poke(at(node(k) + no), &node(k + 1).to_le_bytes())
                }
            }
            for from in (0..NODES).rev().chain(0..NODES) {
                m.set_gpr(0, 0);
                m.set_gpr(5, node(from));
                m.state().halted = false;
                m.set_pc(CODE);
                assert_eq!(m.run(100_000), Outcome::Halted);
                let want = if yes == 24 { u64::MAX } else { 7 };
                assert_eq!(m.gpr(0), want, "{yes} and {no}, from {from}, thresholds {jit:?}");
            }
            // Regions left before the accesses until the check was found to be too wide: each of them has its own since then.
            let n = m.counters();
            assert!(
                jit != Some(LATE) || (1024..1200).contains(&n.side),
                "{yes} and {no}: not checked, or wide for ever: {n:?}"
            );
        }
    }
}
#[test]
fn an_undefined_instruction_becomes_another() {
    // FF FF is none, FF C0 is INC EAX; the second byte may lie among other bytes that are watched together.
    for start in [CODE, CODE + 0x3f, CODE + 0xffe, CODE + 0xfff] {
        for jit in std::iter::once(None).chain(TIERS.map(Some)) {
            let group = Group::new();
            if let Some((quick, threshold)) = jit {
                group.set_jit(JitConfig { quick, threshold, cache: 1 << 20, synchronous: true, ..JitConfig::default() })
            }
            let mut m = Bare::in_group(&group, 64, RAM);
            // mov [rdi], dl; hlt
            m.poke(STACK, &[0x88, 0x17, 0xf4]);
            m.poke(start, &[0xff, 0xff, 0xf4]);
            m.set_gpr(7, start + 1);
            m.set_gpr(0, 0);
            for (byte, end) in [(0xff, UD), (0xc0, Outcome::Halted), (0xff, UD), (0xc0, Outcome::Halted)] {
                m.set_gpr(2, byte);
                m.state().halted = false;
                m.set_pc(STACK);
                assert_eq!(m.run(10), Outcome::Halted);
                for _ in 0..12 {
                    m.state().halted = false;
                    m.set_pc(start);
                    assert_eq!(m.run(10), end, "FF {byte:X} at {start:#x}, thresholds {jit:?}");
                }
            }
            assert_eq!(m.gpr(0), 24);
        }
    }
}
#[test]
fn long_random_sequences_end_alike_in_all_tiers() {
    let mut entered = 0;
    for seed in 1000..1030 {
        entered += compare(seed, 80, false)
    }
    assert!(entered > 30, "regions were entered {entered} times only");
}
#[test]
fn short_random_sequences_end_alike_in_all_tiers() {
    let mut entered = 0;
    for seed in 5000..5150 {
        entered += compare(seed, 1 + seed as usize % 3, false)
    }
    assert!(entered > 150, "regions were entered {entered} times only");
}
#[test]
fn random_x87_sequences_end_alike_in_all_tiers() {
    let mut entered = 0;
    for seed in 9000..9300 {
        entered += compare(seed, 4 + seed as usize % 30, true)
    }
    assert!(entered > 300, "regions were entered {entered} times only");
}
