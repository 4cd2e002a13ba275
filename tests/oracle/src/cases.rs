//! Cases: a form encoded with some operands, and states to run it on.

use crate::{
    forms::{Form, Prefix},
    layout::{CODE_LEN, DATA_LEN, HIGH, Layout, PAGE},
    state::{Case, Fx, Mode, State},
    values::Values,
};
use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, Instruction, MemorySize, Mnemonic, OpCodeOperandKind as K, OpKind, Register,
};

/// An encoded instruction and what its states must respect.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// As the decoder reads it back.
    pub instruction: Instruction,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Encodes `form` with random registers, addresses and immediates at a random place in the code pages.
/// `None`: this choice of operands has no encoding (a high byte register beside REX, say): try again.
pub fn encode(form: Form, mode: Mode, layout: &Layout, v: &mut Values) -> Option<Encoded> {
    // Mostly inside the first page, sometimes across the boundary.
    let ip = layout.code + if v.chance(6) { PAGE - 1 - v.below(8) } else { 0x300 + v.below(0xa00) };
    encode_at(form, mode, layout, ip, Addressing::Any, v)
}

/// Which address forms to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// All there are; the state supplies fitting registers.
    Any,
    /// Only those without registers, so that any state will do.
    Fixed,
}

/// [`encode`] for the address `ip`.
pub fn encode_at(
    form: Form,
    mode: Mode,
    layout: &Layout,
    ip: u64,
    addressing: Addressing,
    v: &mut Values,
) -> Option<Encoded> {
    let mut i = Instruction::new();
    i.set_code(form.code);
    let op = form.code.op_code();
    let address_size = match mode {
        Mode::Bits64 if v.chance(85) => 64,
        Mode::Bits16 if v.chance(75) => 16,
        _ => 32,
    };
    let short = form.code == Code::Lea_r16_m || form.code == Code::Lea_r32_m;
    for (n, &k) in op.op_kinds().iter().enumerate() {
        let n = n as u32;
        let set = |i: &mut Instruction, r: Register| {
            i.set_op_kind(n, OpKind::Register);
            i.set_op_register(n, r);
        };
        let gpr = |v: &mut Values| v.below(mode.registers() as u64) as u32;
        match k {
            _ if form.memory && crate::forms::is_choice(k) || k == K::mem => {
                i.set_op_kind(n, OpKind::Memory);
                let lea = short && addressing == Addressing::Any && mode == Mode::Bits32 && v.chance(20);
                if lea || address_size == 16 {
                    address16(&mut i, layout, addressing, v);
                } else {
                    address(&mut i, mode, address_size, layout, addressing, v);
                }
            }
            K::r8_or_mem | K::r8_reg | K::r8_opcode => {
                let all = mode == Mode::Bits64;
                let r = v.below(if all { 20 } else { 8 }) as u32;
                // iced: AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8L …
                set(&mut i, Register::AL + r);
            }
            K::r16_or_mem | K::r16_reg | K::r16_rm | K::r16_opcode | K::r16_reg_mem => {
                set(&mut i, Register::AX + gpr(v))
            }
            K::r32_or_mem | K::r32_reg | K::r32_rm | K::r32_opcode | K::r32_reg_mem => {
                set(&mut i, Register::EAX + gpr(v));
            }
            K::r64_or_mem | K::r64_reg | K::r64_rm | K::r64_opcode | K::r64_reg_mem => {
                set(&mut i, Register::RAX + gpr(v));
            }
            K::mm_or_mem | K::mm_reg | K::mm_rm => set(&mut i, Register::MM0 + v.below(8) as u32),
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm => set(&mut i, Register::XMM0 + gpr(v)),
            K::st0 => set(&mut i, Register::ST0),
            K::sti_opcode => set(&mut i, Register::ST0 + v.below(8) as u32),
            K::al => set(&mut i, Register::AL),
            K::cl => set(&mut i, Register::CL),
            K::ax => set(&mut i, Register::AX),
            K::dx => set(&mut i, Register::DX),
            K::eax => set(&mut i, Register::EAX),
            K::rax => set(&mut i, Register::RAX),
            K::imm8 | K::imm4_m2z => {
                if n > 0 && matches!(op.op_kinds()[n as usize - 1], K::imm8 | K::imm16) {
                    i.set_op_kind(n, OpKind::Immediate8_2nd);
                    i.set_immediate8_2nd(v.int() as u8);
                } else {
                    i.set_op_kind(n, OpKind::Immediate8);
                    i.set_immediate8(v.int() as u8);
                }
            }
            K::imm8_const_1 => {
                i.set_op_kind(n, OpKind::Immediate8);
                i.set_immediate8(1);
            }
            K::imm8sex16 => {
                i.set_op_kind(n, OpKind::Immediate8to16);
                i.set_immediate8to16(v.int() as i8 as i16);
            }
            K::imm8sex32 => {
                i.set_op_kind(n, OpKind::Immediate8to32);
                i.set_immediate8to32(v.int() as i8 as i32);
            }
            K::imm8sex64 => {
                i.set_op_kind(n, OpKind::Immediate8to64);
                i.set_immediate8to64(v.int() as i8 as i64);
            }
            K::imm16 => {
                i.set_op_kind(n, OpKind::Immediate16);
                let small = matches!(form.code.mnemonic(), Mnemonic::Enter | Mnemonic::Ret) && v.chance(80);
                i.set_immediate16(if small { v.below(0x200) as u16 } else { v.int() as u16 });
            }
            K::imm32 => {
                i.set_op_kind(n, OpKind::Immediate32);
                i.set_immediate32(v.int() as u32);
            }
            K::imm32sex64 => {
                i.set_op_kind(n, OpKind::Immediate32to64);
                i.set_immediate32to64(v.int() as i32 as i64);
            }
            K::imm64 => {
                i.set_op_kind(n, OpKind::Immediate64);
                i.set_immediate64(v.int());
            }
            K::mem_offs => {
                i.set_op_kind(n, OpKind::Memory);
                i.set_memory_displ_size(address_size / 8);
                let high = if address_size == 64 && v.chance(50) { HIGH } else { 0 };
                i.set_memory_displacement64(place(v, 8).wrapping_add(layout.data).wrapping_add(high));
            }

            K::es_rDI => {
                let kind = by_size(address_size, OpKind::MemoryESDI, OpKind::MemoryESEDI, OpKind::MemoryESRDI);
                i.set_op_kind(n, kind);
            }
            K::seg_rDI => {
                let kind = by_size(address_size, OpKind::MemorySegDI, OpKind::MemorySegEDI, OpKind::MemorySegRDI);
                i.set_op_kind(n, kind);
            }
            K::seg_rSI => {
                let kind = by_size(address_size, OpKind::MemorySegSI, OpKind::MemorySegESI, OpKind::MemorySegRSI);
                i.set_op_kind(n, kind);
            }
            K::seg_rBX_al => {
                i.set_op_kind(n, OpKind::Memory);
                i.set_memory_base(by_size(address_size, Register::BX, Register::EBX, Register::RBX));
                i.set_memory_index(Register::AL);
            }
            K::br16_1 | K::br32_1 | K::br64_1 | K::br16_2 | K::br32_4 | K::br64_4 => {
                let near = matches!(k, K::br16_1 | K::br32_1 | K::br64_1);
                let target = if near {
                    let d = 24 + v.below(90);
                    if addressing == Addressing::Fixed || v.chance(50) { ip + d } else { ip - d }
                } else {
                    away(layout, ip, v)
                };
                match k {
                    K::br16_1 | K::br16_2 => {
                        i.set_op_kind(n, OpKind::NearBranch16);
                        i.set_near_branch16(target as u16);
                    }
                    K::br32_1 | K::br32_4 => {
                        i.set_op_kind(n, OpKind::NearBranch32);
                        i.set_near_branch32(target as u32);
                    }
                    _ => {
                        i.set_op_kind(n, OpKind::NearBranch64);
                        i.set_near_branch64(target);
                    }
                }
            }
            // System forms, for the table of instructions; no state is made for them.
            K::seg_reg => set(&mut i, v.pick(&[Register::ES, Register::DS, Register::FS, Register::GS])),
            K::es => set(&mut i, Register::ES),
            K::cs => set(&mut i, Register::CS),
            K::ss => set(&mut i, Register::SS),
            K::ds => set(&mut i, Register::DS),
            K::fs => set(&mut i, Register::FS),
            K::gs => set(&mut i, Register::GS),
            K::cr_reg => set(&mut i, v.pick(&[Register::CR0, Register::CR2, Register::CR3, Register::CR4])),
            K::dr_reg => set(&mut i, Register::DR0 + v.below(4) as u32),
            K::farbr2_2 | K::farbr4_2 => {
                i.set_op_kind(n, if k == K::farbr2_2 { OpKind::FarBranch16 } else { OpKind::FarBranch32 });
                i.set_far_branch16(0x10);
                i.set_far_branch32(0x10);
                i.set_far_branch_selector(0x23);
            }
            _ => return None,
        }
    }
    match form.prefix {
        Prefix::None => {}
        Prefix::Lock => i.set_has_lock_prefix(true),
        Prefix::Rep => i.set_has_rep_prefix(true),
        Prefix::Repne => i.set_has_repne_prefix(true),
    }
    let mut encoder = Encoder::new(mode.bits());
    encoder.encode(&i, ip).ok()?;
    let bytes = encoder.take_buffer();
    let mut decoder = Decoder::with_ip(mode.bits(), &bytes, ip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    (instruction.code() == form.code && instruction.len() == bytes.len()).then_some(Encoded { instruction, bytes })
}

fn by_size<T>(size: u32, b16: T, b32: T, b64: T) -> T {
    match size {
        16 => b16,
        32 => b32,
        _ => b64,
    }
}

/// Is `target` so near `ip` that what an executor put behind the code may lie there, or the code itself?
fn is_near(target: u64, ip: u64) -> bool {
    target.abs_diff(ip) <= 160
}

/// A target for a branch: in the code pages, not near `ip`, where only INT3 lies.
fn away(layout: &Layout, ip: u64, v: &mut Values) -> u64 {
    loop {
        let t = layout.code + v.below(CODE_LEN as u64);
        if !is_near(t, ip) {
            return t;
        }
    }
}

/// An offset from the first data page for `size` bytes: mostly in the writable pages, some at and across each kind of page boundary.
fn place(v: &mut Values, size: u64) -> u64 {
    let align = if v.chance(60) { !(size.next_power_of_two().min(64) - 1) } else { !0 };
    let near = |v: &mut Values, edge: u64| edge.wrapping_sub(v.below(size + 2));
    match v.below(100) {
        0..=69 => v.below(2 * PAGE - size) & align,
        70..=77 => near(v, PAGE),
        78..=83 => near(v, 2 * PAGE),
        84..=86 => near(v, 3 * PAGE),
        87..=89 => near(v, 4 * PAGE),
        90..=91 => near(v, 0),
        92..=95 => (2 * PAGE + v.below(PAGE - size)) & align,
        96..=97 => 4 * PAGE + v.below(PAGE),
        _ => (3 * PAGE + v.below(PAGE - size)) & align,
    }
}

/// Chooses base, index, scale and displacement size; the registers' values come with each state.
fn address(i: &mut Instruction, mode: Mode, size: u32, layout: &Layout, addressing: Addressing, v: &mut Values) {
    let first = if size == 64 { Register::RAX } else { Register::EAX };
    let reg = |v: &mut Values| first + v.below(mode.registers() as u64) as u32;
    let index = |v: &mut Values, not: Register| loop {
        let r = reg(v);
        if r != not && r != first + 4 {
            return r;
        }
    };
    let disp32 = |v: &mut Values| if v.chance(50) { v.int() as i32 } else { v.below(0x2000) as i32 - 0x1000 };
    if mode == Mode::Bits64 && v.chance(8) {
        i.set_segment_prefix(Register::GS);
    }
    let displ = if size == 64 { 8 } else { 4 };
    let kind = if addressing == Addressing::Fixed { 10 + v.below(2) } else { v.below(12) };
    match kind {
        0..=2 => i.set_memory_base(reg(v)),
        3 | 4 => {
            i.set_memory_base(reg(v));
            i.set_memory_displ_size(1);
            i.set_memory_displacement64(v.int() as i8 as i64 as u64);
        }
        5 => {
            i.set_memory_base(reg(v));
            i.set_memory_displ_size(displ);
            i.set_memory_displacement64(disp32(v) as i64 as u64);
        }
        6..=8 => {
            let base = reg(v);
            i.set_memory_base(base);
            i.set_memory_index(index(v, base));
            i.set_memory_index_scale(1 << v.below(4));
            if v.chance(60) {
                i.set_memory_displ_size(displ);
                i.set_memory_displacement64(disp32(v) as i64 as u64);
            }
        }
        9 => {
            i.set_memory_index(index(v, Register::None));
            i.set_memory_index_scale(2 << v.below(3));
            i.set_memory_displ_size(displ);
            i.set_memory_displacement64(v.below(layout.data) & !7);
        }
        10 if mode == Mode::Bits64 => {
            i.set_memory_base(if size == 64 { Register::RIP } else { Register::EIP });
            i.set_memory_displ_size(displ);
            i.set_memory_displacement64(layout.data.wrapping_add(place(v, 16)));
        }
        _ => {
            i.set_memory_displ_size(displ);
            i.set_memory_displacement64(layout.data.wrapping_add(place(v, 16)));
        }
    }
    if i.memory_base() == Register::None && i.memory_index() == Register::None && i.has_segment_prefix() {
        i.set_memory_displacement64(i.memory_displacement64().wrapping_sub(layout.gs_base) as i32 as i64 as u64);
    }
    if size == 32 {
        i.set_memory_displacement64(i.memory_displacement64() & 0xffff_ffff);
    }
}

/// 16-bit addressing.
fn address16(i: &mut Instruction, layout: &Layout, addressing: Addressing, v: &mut Values) {
    use Register::*;
    let (base, index) = match addressing {
        Addressing::Fixed => (None, None),
        Addressing::Any => v.pick(&[
            (BX, SI),
            (BX, DI),
            (BP, SI),
            (BP, DI),
            (SI, None),
            (DI, None),
            (BP, None),
            (BX, None),
            (None, None),
        ]),
    };
    i.set_memory_base(base);
    i.set_memory_index(index);
    i.set_memory_index_scale(1);
    i.set_memory_displ_size(2);
    let displacement = if base == None { layout.data.wrapping_add(place(v, 16)) } else { v.int() };
    i.set_memory_displacement64(displacement & 0xffff);
    if base != None && v.chance(40) {
        i.set_memory_displ_size(v.below(2) as u32);
        i.set_memory_displacement64(if i.memory_displ_size() == 1 { v.int() as i8 as u64 & 0xffff } else { 0 });
    }
}

/// A random state for `e`, with its addresses solved and its memory operands filled.
pub fn state(e: &Encoded, mode: Mode, layout: &Layout, v: &mut Values) -> Case {
    let i = &e.instruction;
    let mut s = random(mode, i.ip(), v).state;
    let mut memory = vec![];
    let high = |v: &mut Values, size: u32| if size == 64 && v.chance(40) { HIGH } else { 0 };
    // Operands that name memory through fixed registers.
    let m = i.mnemonic();
    if i.code().is_string_instruction() {
        let elem = i.memory_size().size() as u64;
        let rep = i.has_rep_prefix() || i.has_repne_prefix();
        let most = if v.chance(10) { 600 } else { 24 };
        let count = if rep { v.below(most) } else { 1 };
        let size = if i.op_kinds().any(|k| matches!(k, OpKind::MemorySegRSI | OpKind::MemoryESRDI)) {
            64
        } else if i.op_kinds().any(|k| matches!(k, OpKind::MemorySegSI | OpKind::MemoryESDI)) {
            16
        } else {
            32
        };
        if rep {
            s.gpr[1] = if size == 64 { count } else { count | s.gpr[1] << size };
        }
        let span = elem * count.max(1);
        let start = |v: &mut Values| {
            let size = if v.chance(50) { elem } else { span.min(4000) };
            let p = place(v, size);
            if s.rflags & 0x400 != 0 { p.wrapping_add(span).wrapping_sub(elem) } else { p }
        };
        let si = start(v);
        let di = if v.chance(40) { si.wrapping_add(v.below(40)).wrapping_sub(20) } else { start(v) };
        let h = high(v, size);
        s.gpr[6] = layout.data.wrapping_add(si).wrapping_add(h);
        s.gpr[7] = layout.data.wrapping_add(di).wrapping_add(h);
        if matches!(
            m,
            Mnemonic::Scasb
                | Mnemonic::Scasw
                | Mnemonic::Scasd
                | Mnemonic::Scasq
                | Mnemonic::Cmpsb
                | Mnemonic::Cmpsw
                | Mnemonic::Cmpsd
                | Mnemonic::Cmpsq
        ) {
            // Long equal runs, so that the repeat goes on.
            let fill = v.int() as u8;
            for at in [si, di] {
                let lo = at.saturating_sub(span).min(DATA_LEN as u64) as usize;
                let hi = at.saturating_add(span).min(DATA_LEN as u64) as usize;
                if v.chance(70) && lo < hi {
                    memory.push((lo, vec![fill; hi - lo]));
                }
            }
            if v.chance(70) {
                s.gpr[0] = u64::from(fill) * 0x0101_0101_0101_0101;
            }
        }
        if size < 64 {
            s.gpr[6] = above(s.gpr[6], size, v);
            s.gpr[7] = above(s.gpr[7], size, v);
        }
    }
    if i.op_kinds().any(|k| matches!(k, OpKind::MemorySegRDI | OpKind::MemorySegEDI | OpKind::MemorySegDI)) {
        s.gpr[7] = layout.data.wrapping_add(place(v, 16));
    }
    if i.is_stack_instruction() {
        let p = place(v, 16);
        s.gpr[4] = layout.data.wrapping_add(p).wrapping_add(8).wrapping_add(high(v, mode.bits()));
        fill_stack(i, &s, layout, &mut memory, v);
        if mode == Mode::Bits16 {
            s.gpr[4] = above(s.gpr[4], 16, v);
        }
    }
    if matches!(m, Mnemonic::Enter | Mnemonic::Leave) {
        s.gpr[5] = layout.data.wrapping_add(place(v, 16)).wrapping_add(high(v, mode.bits()));
    }
    operands(i, &mut s, v);
    if matches!(m, Mnemonic::Jmp | Mnemonic::Call) && i.op0_kind() == OpKind::Register {
        let r = i.op0_register();
        let target = s.gpr[r.full_register().number()] & (u64::MAX >> (64 - 8 * r.size()));
        if is_near(target, i.ip()) {
            s.gpr[r.full_register().number()] = away(layout, i.ip(), v);
        }
    }
    if let Some(n) = i.op_kinds().position(|k| k == OpKind::Memory) {
        let size = i.memory_size().size().max(1) as u64;
        let mut ea = layout.data.wrapping_add(place(v, size));
        if m == Mnemonic::Fxrstor || m == Mnemonic::Fxrstor64 || m == Mnemonic::Fxsave || m == Mnemonic::Fxsave64 {
            ea &= if v.chance(85) { !15 } else { !0 };
        }
        ea = solve(i, &mut s, ea, mode, layout, v);
        if let Some(at) = data_offset(ea, layout) {
            let bytes = content(i, n as u32, size, layout, v);
            let bytes = &bytes[..bytes.len().min(DATA_LEN - at)];
            memory.push((at, bytes.to_vec()));
        }
    }
    if mode != Mode::Bits64 {
        for r in &mut s.gpr[..8] {
            *r &= 0xffff_ffff;
        }
        s.gpr[8..].fill(0);
    }
    Case { mode, code: e.bytes.clone(), count: 1, state: s, memory }
}

/// `v` in the low `bits` bits, above them now and then something that must not matter.
fn above(low: u64, bits: u32, v: &mut Values) -> u64 {
    let low = low & ((1 << bits) - 1);
    if v.chance(50) { low | v.int() << bits } else { low }
}

/// A case without code on a random state.
pub fn random(mode: Mode, rip: u64, v: &mut Values) -> Case {
    let mut s = State { rip, rflags: 0x202, ..State::default() };
    s.rflags |= u64::from(v.rng.next_u32()) & 0x8d5;
    if v.chance(30) {
        s.rflags |= 0x400;
    }
    for r in &mut s.gpr[..mode.registers()] {
        *r = v.int() & mode.mask();
    }
    s.fx = fx(mode, v);
    Case { mode, code: vec![], count: 0, state: s, memory: vec![] }
}

/// Offset into the data pages of a linear address in either mapping.
pub fn data_offset(ea: u64, layout: &Layout) -> Option<usize> {
    let low = if ea >= HIGH { ea - HIGH } else { ea };
    low.checked_sub(layout.data).filter(|&o| o < DATA_LEN as u64).map(|o| o as usize)
}

/// Linear address of operand `n` of `i`, with the registers of `case`.
pub fn effective_address(i: &Instruction, n: u32, layout: &Layout, case: &Case) -> Option<u64> {
    i.virtual_address(n, 0, |r, _, _| {
        Some(match r {
            Register::GS => layout.gs_base,
            r if r.is_segment_register() => 0,
            r if r.size() == 1 => case.state.gpr[r.full_register().number()] & 0xff,
            r => case.state.gpr[r.full_register().number()],
        })
    })
}

/// Values that make sense for some operations: small divisors' partners, bit offsets, branch targets, equal comparands.
fn operands(i: &Instruction, s: &mut State, v: &mut Values) {
    match i.mnemonic() {
        Mnemonic::Div if v.chance(60) => s.gpr[2] = if v.chance(50) { 0 } else { v.below(9) },
        Mnemonic::Idiv if v.chance(60) => {
            s.gpr[2] = ((s.gpr[0] as i64) >> 63) as u64;
            if i.op0_kind() == OpKind::Register && i.op0_register().size() == 4 || i.memory_size().size() == 4 {
                s.gpr[2] = ((s.gpr[0] as i32) >> 31) as u64;
            }
        }
        Mnemonic::Bt | Mnemonic::Btc | Mnemonic::Btr | Mnemonic::Bts
            if i.op0_kind() == OpKind::Memory && i.op1_kind() == OpKind::Register && v.chance(90) =>
        {
            let r = i.op1_register().full_register().number();
            s.gpr[r] = if v.chance(50) { v.below(128) } else { v.below(2048).wrapping_sub(1024) };
        }
        Mnemonic::Cmpxchg if v.chance(40) && i.op0_kind() == OpKind::Register => {
            let r = i.op0_register();
            if r.full_register().number() < 16 && !(Register::AH..=Register::BH).contains(&r) {
                s.gpr[0] = s.gpr[r.full_register().number()];
            }
        }
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz
            if v.chance(60) =>
        {
            s.gpr[1] = v.pick(&[0, 1, 2, 1 << 16, 1 << 32, 1 << 32 | 1, 0x1_0001]);
        }
        _ => {}
    }
}

/// Gives base and index values such that the operand lies at `ea`; returns where it really lies.
fn solve(i: &Instruction, s: &mut State, ea: u64, mode: Mode, layout: &Layout, v: &mut Values) -> u64 {
    let (base, index) = (i.memory_base(), i.memory_index());
    if matches!(base, Register::RIP | Register::EIP) {
        return i.memory_displacement64();
    }
    let bits = match (base.size(), index.size()) {
        (2, _) => 16,
        (4, _) | (_, 4) => 32,
        _ => 64,
    };
    let narrow = bits < 64;
    let high = if mode == Mode::Bits64 && !narrow && base != Register::None && v.chance(40) { HIGH } else { 0 };
    let mut want = ea.wrapping_add(high);
    if mode == Mode::Bits64 && !narrow && v.chance(2) {
        want = ea ^ 1 << 63; // not canonical
    }
    let gs = if i.segment_prefix() == Register::GS { layout.gs_base } else { 0 };
    want = want.wrapping_sub(gs);
    let disp = i.memory_displacement64();
    let scaled = |s: &State| match index {
        Register::None => 0,
        Register::AL => s.gpr[0] & 0xff,
        r => s.gpr[r.full_register().number()].wrapping_mul(u64::from(i.memory_index_scale())),
    };
    if base == Register::None && index == Register::None {
        return disp.wrapping_add(gs);
    }
    if base == Register::None {
        let scale = u64::from(i.memory_index_scale());
        s.gpr[index.full_register().number()] = want.wrapping_sub(disp) / scale;
        return scaled(s).wrapping_add(disp).wrapping_add(gs);
    }
    if index != Register::None && index != Register::AL && v.chance(60) {
        s.gpr[index.full_register().number()] = v.below(64).wrapping_sub(32);
    }
    // Stack instructions that write through rsp move it first; the solved value is as good as any.
    s.gpr[base.full_register().number()] = want.wrapping_sub(disp).wrapping_sub(scaled(s));
    if narrow {
        let r = &mut s.gpr[base.full_register().number()];
        *r = above(*r, bits, v);
        return want & ((1 << bits) - 1);
    }
    want.wrapping_add(gs)
}

/// What a return or pop finds.
fn fill_stack(i: &Instruction, s: &State, layout: &Layout, memory: &mut Vec<(usize, Vec<u8>)>, v: &mut Values) {
    let mut bytes = vec![];
    for n in 0..8 {
        let word = match i.mnemonic() {
            Mnemonic::Ret if n == 0 => away(layout, i.ip(), v),
            // TF and AC would trap in the executor's own code.
            Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => v.int() & !0x4_0100_0004_0100 & !0x1_4100_0001_4100,
            _ => v.int(),
        };
        match i.stack_pointer_increment().unsigned_abs() {
            2 => bytes.extend_from_slice(&(word as u16).to_le_bytes()),
            4 => bytes.extend_from_slice(&(word as u32).to_le_bytes()),
            _ if i.code() == Code::Retnd || i.code() == Code::Retnd_imm16 => {
                bytes.extend_from_slice(&(word as u32).to_le_bytes());
            }
            _ => bytes.extend_from_slice(&word.to_le_bytes()),
        }
    }
    if let Some(at) = data_offset(s.gpr[4], layout) {
        bytes.truncate(DATA_LEN - at);
        memory.push((at, bytes));
    }
}

/// MXCSR.MM, which AMD's processors have and Intel's have not.
const MISALIGNED: u64 = 1 << 17;

/// What the memory operand holds.
fn content(i: &Instruction, _n: u32, size: u64, layout: &Layout, v: &mut Values) -> Vec<u8> {
    match i.mnemonic() {
        Mnemonic::Jmp | Mnemonic::Call => {
            let mut bytes = away(layout, i.ip(), v).to_le_bytes().to_vec();
            bytes.resize(size as usize, 0);
            return bytes;
        }
        Mnemonic::Ldmxcsr => {
            let x = if v.chance(85) { v.int() & 0xffff } else { v.int() & !MISALIGNED };
            return (x as u32).to_le_bytes().to_vec();
        }
        Mnemonic::Fxrstor | Mnemonic::Fxrstor64 => {
            let mut f = fx(Mode::Bits64, v);
            if v.chance(10) {
                f.set_mxcsr(v.int() as u32 & !MISALIGNED as u32);
            }
            return f.0.to_vec();
        }
        Mnemonic::Fldenv | Mnemonic::Frstor | Mnemonic::Fldcw => {
            let mut bytes: Vec<u8> = (0..size).map(|_| v.int() as u8).collect();
            if v.chance(80) {
                bytes[0] |= 0x3f; // mask everything
            }
            return bytes;
        }
        Mnemonic::Fbld => {
            let mut bytes: Vec<u8> = (0..9).map(|_| (v.below(10) << 4 | v.below(10)) as u8).collect();
            bytes.push(v.int() as u8);
            return bytes;
        }
        _ => {}
    }
    let mut out = vec![];
    while (out.len() as u64) < size {
        match (size, i.memory_size()) {
            (_, MemorySize::Float80) => out.extend_from_slice(&v.f80().to_le_bytes()[..10]),
            (_, MemorySize::Float64) => out.extend_from_slice(&v.f64().to_le_bytes()),
            (4, MemorySize::Float32) => out.extend_from_slice(&v.f32().to_le_bytes()),
            (0..=8, _) if v.chance(80) => out.extend_from_slice(&v.int().to_le_bytes()),
            _ => out.extend_from_slice(&v.vector().to_le_bytes()),
        }
    }
    out.truncate(size as usize);
    out
}

/// Floating-point state: control words, sticky flags, stack, vectors.
pub fn fx(mode: Mode, v: &mut Values) -> Fx {
    let mut fx = Fx::default();
    let masks = if v.chance(85) { 0x3f } else { v.below(64) as u16 };
    let control = (v.below(16) as u16) << 8;
    // Precision control 01 is reserved.
    let control = if control & 0x300 == 0x100 { control | 0x300 } else { control };
    let control = if v.chance(40) { 0x300 } else { control };
    fx.set_fcw(0x40 | masks | control);
    let mut flags = if v.chance(70) { 0 } else { v.below(64) as u16 };
    if v.chance(90) {
        flags &= masks; // nothing pending
    }
    let stack_fault = if flags & 1 != 0 && v.chance(50) { 0x40 } else { 0 };
    let summary = if flags & !masks != 0 { 0x8080 } else { 0 };
    fx.set_fsw(flags | stack_fault | summary | (v.below(8) as u16) << 11 | (v.rng.next_u32() as u16 & 0x4700));
    let tags = match v.below(10) {
        0..=4 => 0xff,
        5 => 0,
        _ => v.rng.next_u32() as u8,
    };
    fx.set_ftw(tags);
    for i in 0..8 {
        let x = v.f80();
        fx.set_st(i, x);
    }
    for i in 0..mode.registers() {
        let x = v.vector();
        fx.set_xmm(i, x);
    }
    let masks = if v.chance(85) { 0x1f80 } else { (v.below(64) as u32) << 7 };
    let flags = if v.chance(70) { 0 } else { v.below(64) as u32 };
    let rounding = if v.chance(40) { 0 } else { (v.below(4) as u32) << 13 };
    let zeroes = match v.below(8) {
        0 => 0x8000,
        1 => 0x40,
        2 => 0x8040,
        _ => 0,
    };
    fx.set_mxcsr(masks | flags | rounding | zeroes);
    fx
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The host's way back lies behind the code: a jump into its middle would be a run of something else.
    #[test]
    fn no_register_leads_a_branch_to_itself() {
        let layout = Layout::new(0).view(Mode::Bits16);
        let mut v = Values::new(1);
        for code in [Code::Jmp_rm16, Code::Call_rm16] {
            let form = Form { code, memory: false, prefix: Prefix::None };
            for _ in 0..20_000 {
                let Some(e) = encode(form, Mode::Bits16, &layout, &mut v) else { continue };
                let case = state(&e, Mode::Bits16, &layout, &mut v);
                let target = case.state.gpr[e.instruction.op0_register().full_register().number()] & 0xffff;
                assert!(target.abs_diff(case.state.rip) > 160, "{target:#x} at {:#x}", case.state.rip);
            }
        }
    }
}
