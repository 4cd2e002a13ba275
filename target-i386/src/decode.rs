//! Decoding: bytes to a form and its operand fields, by `iced-x86`.
//!
//! Nothing decoded depends on where the page is mapped: offsets from the page stand for addresses.

use crate::{
    forms::*,
    reg::*,
    sem::{mmx, sse, string::Str, x87, x87_host},
    state::{bits, mode},
    sys,
};
use accel::tcg::{Decoded, End, PAGE, Short, W, W::*, ZERO};
use iced_x86::{
    Code, ConditionCode, Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic, OpKind, Register, RflagsBits,
};

/// Decodes the instruction at the start of `code`, at offset `off` of its page.
pub fn decode(code: &[u8], off: u32, mode: u32) -> Result<Decoded<Form>, Short> {
    let cut = &code[..code.len().min(15)];
    let mut d = Decoder::with_ip(mode::bits(mode), cut, off as u64, DecoderOptions::NONE);
    let i = d.decode();
    if i.is_invalid() {
        if d.last_error() == DecoderError::NoMoreBytes && cut.len() < 15 {
            return Err(Short);
        }
        // (As many bytes as it takes to know: if one of them is overwritten, it may be another instruction.)
        let len = if d.last_error() == DecoderError::NoMoreBytes { cut.len() } else { i.len().max(1) };
        return Ok(Translate::undefined(len as u8));
    }
    let mut t = Translate::new(&i, cut, mode, off);
    match t.run() {
        Some(()) => Ok(t.o),
        None => Ok(Translate::undefined(i.len() as u8)),
    }
}

struct Translate<'a> {
    i: &'a Instruction,
    /// Its bytes, and those that follow.
    code: &'a [u8],
    mode: u32,
    off: i64,
    o: Decoded<Form>,
}

/// EFLAGS bits of iced's flags, the arithmetic ones.
fn arith(f: u32) -> u32 {
    [
        (RflagsBits::CF, bits::CF),
        (RflagsBits::PF, bits::PF),
        (RflagsBits::AF, bits::AF),
        (RflagsBits::ZF, bits::ZF),
        (RflagsBits::SF, bits::SF),
        (RflagsBits::OF, bits::OF),
    ]
    .iter()
    .fold(0, |m, &(from, to)| if f & from != 0 { m | to } else { m })
}

fn width(bytes: usize) -> W {
    match bytes {
        1 => B1,
        2 => B2,
        8 => B8,
        _ => B4,
    }
}

impl<'a> Translate<'a> {
    fn undefined(len: u8) -> Decoded<Form> {
        Decoded {
            form: Form::new(Op::Ud, B4, Loc::No, Loc::No),
            len,
            imm: 0,
            disp: 0,
            r: [ZERO; 4],
            seg: NO_SEG,
            scale: 0,
            reads: bits::ARITH,
            writes: 0,
            faults: true,
            end: End::Stop,
        }
    }
    fn new(i: &'a Instruction, code: &'a [u8], mode: u32, off: u32) -> Self {
        let mut o = Self::undefined(i.len() as u8);
        o.reads = arith(i.rflags_read());
        o.writes = arith(i.rflags_modified());
        o.faults = false;
        o.end = End::Next;
        Translate { i, code, mode, off: off as i64, o }
    }
    fn size(&self) -> u32 {
        self.mode & mode::SIZE
    }
    fn long(&self) -> bool {
        self.size() == 2
    }

    fn run(&mut self) -> Option<()> {
        let i = self.i;
        if let Some(()) = self.control() {
            return Some(());
        }
        if let Some(()) = self.integer() {
            // LOCK is only allowed where there is a locked form.
            if i.has_lock_prefix() {
                self.lock()?;
            }
            return Some(());
        }
        if i.has_lock_prefix() {
            return None;
        }
        self.other()
    }

    // ---- operands ----

    /// The location of operand `n`, its fields filled in.
    fn operand(&mut self, n: u32, field: usize) -> Option<Loc> {
        let i = self.i;
        Some(match i.op_kind(n) {
            OpKind::Register => {
                let r = i.op_register(n);
                self.o.r[field] = slot(r);
                if is_high(r) {
                    Loc::Rh
                } else if r.is_gpr() {
                    Loc::R
                } else if r.is_xmm() {
                    Loc::X
                } else if r.is_mm() {
                    Loc::Mm
                } else if r.is_st() {
                    Loc::St
                } else if r.is_segment_register() {
                    Loc::Sr
                } else if r.is_cr() {
                    Loc::Cr
                } else if r.is_dr() {
                    Loc::Dr
                } else {
                    return None;
                }
            }
            OpKind::Memory => self.memory()?,
            OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI => {
                // MASKMOVQ, MASKMOVDQU: DS:rDI.
                self.o.seg = seg_number(i.memory_segment())?;
                self.o.r[BASE] = RDI;
                self.o.faults = true;
                match i.op_kind(n) {
                    OpKind::MemorySegDI => Loc::G16,
                    OpKind::MemorySegEDI if self.long() => Loc::S32,
                    OpKind::MemorySegEDI => Loc::G32,
                    _ => Loc::S,
                }
            }
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => Loc::No,
            OpKind::FarBranch16 | OpKind::FarBranch32 => {
                // Selector above the offset.
                let at =
                    if i.op_kind(n) == OpKind::FarBranch16 { i.far_branch16() as u64 } else { i.far_branch32() as u64 };
                self.o.imm = (i.far_branch_selector() as u64) << 32 | at;
                Loc::I
            }
            k if (OpKind::Immediate8..=OpKind::Immediate32to64).contains(&k) => {
                self.o.imm = i.immediate(n);
                Loc::I
            }
            _ => return None,
        })
    }
    fn flat(&self, seg: u8) -> bool {
        let bit = match seg as usize {
            SS => mode::FLAT_SS,
            DS => mode::FLAT_DS,
            ES => mode::FLAT_ES,
            _ => return false,
        };
        self.mode & bit != 0
    }
    /// The memory operand.
    fn memory(&mut self) -> Option<Loc> {
        let i = self.i;
        self.o.faults = true;
        let seg = seg_number(i.memory_segment())?;
        let (base, index) = (i.memory_base(), i.memory_index());
        let long = self.long();
        let based = seg as usize == FS || seg as usize == GS;
        // In 64-bit mode the other segments have no base; the number still tells stack accesses apart.
        self.o.seg = seg;
        let address_size = if base != Register::None {
            base.size()
        } else if index != Register::None {
            index.size()
        } else {
            i.memory_displ_size() as usize
        };
        if long && is_moffs(i) {
            if !based {
                self.o.seg = NO_SEG
            }
            self.o.imm = i.memory_displacement64();
            return Some(Loc::Abs);
        }
        if i.is_ip_rel_memory_operand() {
            self.o.r[BASE] = PAGE;
            self.o.disp = i.ip_rel_memory_address() as i32;
        } else {
            if base != Register::None {
                self.o.r[BASE] = slot(base)
            }
            if index != Register::None {
                self.o.r[INDEX] = slot(index)
            }
            self.o.scale = i.memory_index_scale().trailing_zeros() as u8;
            self.o.disp = i.memory_displacement64() as i32;
        }
        let plain = index == Register::None;
        let small = address_size == 4 || base == Register::EIP;
        Some(if long {
            if small {
                if !based {
                    self.o.seg = NO_SEG
                }
                Loc::S32
            } else if based {
                Loc::S
            } else if plain {
                Loc::M
            } else {
                Loc::Mx
            }
        } else if address_size == 2 {
            Loc::G16
        } else if self.flat(seg) {
            if plain { Loc::M32 } else { Loc::Mx32 }
        } else {
            Loc::G32
        })
    }
    /// The kind of stack of the mode. An operation without another memory operand is a stack access.
    fn stack(&mut self) -> Loc {
        self.o.faults = true;
        if self.o.seg == NO_SEG {
            self.o.seg = SS as u8
        }
        if self.long() {
            Loc::M
        } else if self.mode & mode::STACK32 == 0 {
            Loc::G16
        } else if self.mode & mode::FLAT_SS != 0 {
            Loc::M32
        } else {
            Loc::G32
        }
    }
    fn two(&mut self, op: Op, w: W) -> Option<()> {
        let n = self.i.op_count();
        let dst = if n > 0 { self.operand(0, DST)? } else { Loc::No };
        let src = if n > 1 { self.operand(1, SRC)? } else { Loc::No };
        self.o.form = Form::new(op, w, dst, src);
        Some(())
    }
    /// Width of operand `n`.
    fn width(&self, n: u32) -> W {
        let i = self.i;
        match i.op_kind(n) {
            OpKind::Register => width(i.op_register(n).size()),
            OpKind::Memory => width(i.memory_size().size()),
            OpKind::Immediate8 => B1,
            OpKind::Immediate16 | OpKind::Immediate8to16 => B2,
            OpKind::Immediate64 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => B8,
            _ => B4,
        }
    }

    // ---- near branches ----

    fn control(&mut self) -> Option<()> {
        let i = self.i;
        let limited = self.mode & mode::LIMIT_CS != 0;
        let m = i.mnemonic();
        let direct = matches!(i.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
            && i.op_count() == 1;
        let w = if direct {
            match i.op0_kind() {
                OpKind::NearBranch16 => B2,
                OpKind::NearBranch32 => B4,
                _ => B8,
            }
        } else {
            match m {
                Mnemonic::Jmp | Mnemonic::Call
                    if i.op_count() == 1 && i.is_jmp_near_indirect() | i.is_call_near_indirect() =>
                {
                    self.width(0)
                }
                Mnemonic::Ret => match i.code() {
                    Code::Retnw | Code::Retnw_imm16 => B2,
                    Code::Retnd | Code::Retnd_imm16 => B4,
                    _ => B8,
                },
                _ => return None,
            }
        };
        self.o.form.w = w;
        if direct {
            // A 16-bit branch in 32-bit code cuts EIP: where it leads depends on the page's address.
            let cut = w == B2 && self.mode & mode::SIZE == 1;
            return self.direct(w, limited || cut);
        }
        self.o.end = End::To;
        match m {
            Mnemonic::Ret => {
                let dst = self.stack();
                let src = if i.op_count() == 1 {
                    self.o.imm = i.immediate(0);
                    Loc::I
                } else {
                    Loc::No
                };
                self.o.form = Form::new(if limited { Op::Branch(Branch::Ret) } else { Op::Ret }, w, dst, src);
            }
            _ => {
                let src = self.operand(0, SRC)?;
                let call = m == Mnemonic::Call;
                let dst = if call { self.stack() } else { Loc::No };
                let op = match (call, limited) {
                    (true, false) => Op::CallTo,
                    (false, false) => Op::JmpTo,
                    (true, true) => Op::Branch(Branch::CallTo),
                    (false, true) => Op::Branch(Branch::JmpTo),
                };
                self.o.form = Form::new(op, w, dst, src);
            }
        }
        if limited {
            self.rare();
            self.o.end = End::Stop
        }
        Some(())
    }
    fn direct(&mut self, w: W, limited: bool) -> Option<()> {
        let i = self.i;
        // The distance, with its sign: the target was computed from the offset.
        let next = self.off + i.len() as i64;
        let rel = match w {
            B2 => (i.near_branch16() as i64 - next) as i16 as i64,
            B4 => (i.near_branch32() as i64 - next) as i32 as i64,
            _ => i.near_branch64() as i64 - next,
        };
        let to = next + rel;
        let here = (0..4096).contains(&to);
        self.o.disp = i32::try_from(to).ok()?;
        let loop_kind = match i.mnemonic() {
            Mnemonic::Loop => Some(0),
            Mnemonic::Loope => Some(1),
            Mnemonic::Loopne => Some(2),
            Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz => Some(3),
            _ => None,
        };
        let cc = condition(i);
        let m = i.mnemonic();
        if limited {
            let b = match (m, loop_kind, cc) {
                (Mnemonic::Jmp, ..) => Branch::Jmp,
                (Mnemonic::Call, ..) => Branch::Call,
                (_, Some(k), _) => {
                    self.o.imm = counter(i) as u64;
                    Branch::Loop(k)
                }
                (_, _, Some(cc)) => Branch::Jcc(cc),
                _ => return None,
            };
            let dst = if m == Mnemonic::Call { self.stack() } else { Loc::No };
            self.o.disp = rel as i32;
            self.o.form = Form::new(Op::Branch(b), w, dst, Loc::No);
            self.rare();
            if matches!(b, Branch::Jmp | Branch::Call) {
                self.o.end = End::Stop
            }
            return Some(());
        }
        match (m, loop_kind, cc) {
            (Mnemonic::Jmp, ..) => {
                self.o.form = Form::new(if here { Op::Jmp } else { Op::JmpFar }, w, Loc::No, Loc::No);
                self.o.end = if here { End::Goto(to) } else { End::To };
            }
            (Mnemonic::Call, ..) => {
                let dst = self.stack();
                self.o.form = Form::new(if here { Op::Call } else { Op::CallFar }, w, dst, Loc::No);
                self.o.end = if here { End::Goto(to) } else { End::To };
            }
            (_, Some(k), _) => {
                self.o.form = Form::new(Op::Loop(k), counter(i), Loc::No, Loc::No);
                self.o.end = End::If(to);
            }
            (_, _, Some(cc)) if w == B2 && !here => {
                self.o.form = Form::new(Op::JccFar(cc), w, Loc::No, Loc::No);
                self.o.end = End::To;
            }
            (_, _, Some(cc)) => {
                // (The width does not matter: one row serves all.)
                self.o.form = Form::new(Op::Jcc(cc), B8, Loc::No, Loc::No);
                self.o.end = End::If(to);
            }
            _ => return None,
        }
        Some(())
    }

    // ---- integer instructions ----

    /// Runs on the whole CPU: sees and may change all flags, may fault.
    fn rare(&mut self) {
        self.o.reads = bits::ARITH;
        self.o.writes = 0;
        self.o.faults = true;
    }
    fn integer(&mut self) -> Option<()> {
        use Mnemonic as M;
        let i = self.i;
        let m = i.mnemonic();
        if let Some(op) = alu(m) {
            return self.two(Op::Alu(op), self.width(0));
        }
        if let Some(op) = shift(m) {
            return self.shift(op);
        }
        match m {
            M::Mov if [0, 1].iter().all(|&n| !is_special(i, n)) => self.two(Op::Mov, self.width(0)),
            M::Movzx => self.two(Op::Zext(self.width(1)), self.width(0)),
            M::Movsx | M::Movsxd => {
                // MOVSXD with 16- or 32-bit operands is a move.
                let (from, w) = (self.width(1), self.width(0));
                self.two(if from < w { Op::Sext(from) } else { Op::Mov }, w)
            }
            M::Cbw | M::Cwde | M::Cdqe => {
                let (from, w) = match m {
                    M::Cbw => (B1, B2),
                    M::Cwde => (B2, B4),
                    _ => (B4, B8),
                };
                self.o.r[DST] = RAX;
                self.o.r[SRC] = RAX;
                self.o.form = Form::new(Op::Sext(from), w, Loc::R, Loc::R);
                Some(())
            }
            M::Cwd => self.plain(Op::SignInto, B2),
            M::Cdq => self.plain(Op::SignInto, B4),
            M::Cqo => self.plain(Op::SignInto, B8),
            M::Lea => {
                let r = self.two(Op::Lea, self.width(0));
                self.o.faults = false;
                // Only the offset counts.
                if let Some(l) = self.o.form.memory() {
                    self.o.form.src = match l {
                        Loc::S => Loc::Mx,
                        Loc::S32 | Loc::G32 => Loc::Mx32,
                        l => l,
                    };
                }
                r
            }
            M::Xchg => {
                self.two(Op::Xchg, self.width(0))?;
                // `xchg r, m` in this order does not exist; iced may give either.
                if self.o.form.src.is_memory() {
                    self.o.form = Form::new(Op::Xchg, self.o.form.w, self.o.form.src, self.o.form.dst);
                    self.o.r.swap(DST, SRC);
                }
                Some(())
            }
            M::Xadd => self.two(Op::Xadd, self.width(0)),
            M::Cmpxchg => self.two(Op::Cmpxchg, self.width(0)),
            M::Cmpxchg8b => self.two(Op::CmpxchgWide, B4),
            M::Cmpxchg16b => {
                self.rare();
                self.two(Op::CmpxchgWide, B8)?;
                Some(())
            }
            M::Not => self.two(Op::Not, self.width(0)),
            M::Neg => self.two(Op::Neg, self.width(0)),
            M::Inc => self.two(Op::Inc, self.width(0)),
            M::Dec => self.two(Op::Dec, self.width(0)),
            M::Bswap => self.two(Op::Bswap, self.width(0)),
            M::Imul if i.op_count() > 1 => {
                let w = self.width(0);
                let dst = self.operand(0, DST)?;
                let src = self.operand(1, SRC)?;
                let three = i.op_count() == 3;
                if three {
                    self.o.imm = i.immediate(2)
                }
                self.o.form = Form::new(if three { Op::Imul3 } else { Op::Imul }, w, dst, src);
                Some(())
            }
            M::Mul | M::Imul | M::Div | M::Idiv => {
                let w = self.width(0);
                let src = self.operand(0, SRC)?;
                let op = match m {
                    M::Mul => Op::MulWide(false),
                    M::Imul => Op::MulWide(true),
                    M::Div => Op::Div(false),
                    _ => Op::Div(true),
                };
                if matches!(op, Op::Div(_)) {
                    self.o.faults = true;
                    self.o.writes = 0
                }
                self.o.form = Form::new(op, w, Loc::No, src);
                Some(())
            }
            M::Shld | M::Shrd => {
                let imm = i.op2_kind() == OpKind::Immediate8;
                self.two(Op::DoubleShift(m == M::Shld, if imm { Count::Imm } else { Count::Cl }), self.width(0))?;
                if imm {
                    self.o.imm = i.immediate8() as u64
                }
                self.o.writes = 0;
                Some(())
            }
            M::Bt | M::Bts | M::Btr | M::Btc => {
                let op = match m {
                    M::Bt => Bt::Bt,
                    M::Bts => Bt::Bts,
                    M::Btr => Bt::Btr,
                    _ => Bt::Btc,
                };
                self.two(Op::Bt(op), self.width(0))
            }
            // Without BMI1 and LZCNT the prefix is ignored.
            M::Bsf | M::Tzcnt => {
                self.o.writes = bits::ARITH;
                self.two(Op::Bsf, self.width(0))
            }
            M::Bsr | M::Lzcnt => {
                self.o.writes = bits::ARITH;
                self.two(Op::Bsr, self.width(0))
            }
            M::Popcnt => self.two(Op::Popcnt, self.width(0)),
            M::Push if !is_special(i, 0) => {
                let w = push_width(i, self.long());
                let src = self.operand(0, SRC)?;
                let dst = self.stack();
                self.o.form = Form::new(Op::Push, w, dst, src);
                Some(())
            }
            M::Pop if !is_special(i, 0) => {
                let w = self.width(0);
                let dst = self.operand(0, DST)?;
                let src = self.stack();
                self.o.form = Form::new(Op::Pop, w, dst, src);
                Some(())
            }
            M::Leave => {
                let w = match i.code() {
                    Code::Leavew => B2,
                    Code::Leaved => B4,
                    _ => B8,
                };
                let src = self.stack();
                self.o.form = Form::new(Op::Leave, w, Loc::No, src);
                Some(())
            }
            M::Pusha => self.whole(Op::PushAll(false), B2),
            M::Pushad => self.whole(Op::PushAll(false), B4),
            M::Popa => self.whole(Op::PushAll(true), B2),
            M::Popad => self.whole(Op::PushAll(true), B4),
            M::Enter => {
                self.o.imm = i.immediate16() as u64 | (i.immediate8_2nd() as u64) << 16;
                let w = match i.code() {
                    Code::Enterw_imm16_imm8 => B2,
                    Code::Enterd_imm16_imm8 => B4,
                    _ => B8,
                };
                self.whole(Op::Enter, w)
            }
            M::Clc => self.plain(Op::Clc, B4),
            M::Stc => self.plain(Op::Stc, B4),
            M::Cmc => self.plain(Op::Cmc, B4),
            M::Lahf => self.plain(Op::Lahf, B1),
            M::Sahf => self.plain(Op::Sahf, B1),
            M::Cld => self.whole(Op::Cld, B4),
            M::Std => self.whole(Op::Std, B4),
            M::Salc => self.whole(Op::Salc, B1),
            M::Daa => self.whole(Op::Bcd(Bcd::Daa), B1),
            M::Das => self.whole(Op::Bcd(Bcd::Das), B1),
            M::Aaa => self.whole(Op::Bcd(Bcd::Aaa), B1),
            M::Aas => self.whole(Op::Bcd(Bcd::Aas), B1),
            M::Aam | M::Aad => {
                self.o.imm = i.immediate8() as u64;
                self.whole(Op::Bcd(if m == M::Aam { Bcd::Aam } else { Bcd::Aad }), B1)
            }
            M::Bound => {
                self.rare();
                let w = self.width(0);
                self.two(Op::Bound, w)
            }
            M::Xlatb => {
                self.rare();
                self.o.seg = seg_number(i.memory_segment())?;
                let src = self.indexed(i.memory_base().size());
                self.o.form = Form::new(Op::Xlat, B1, Loc::No, src);
                Some(())
            }
            M::Movnti => self.two(Op::Movnti, self.width(0)),
            M::Mfence | M::Lfence | M::Sfence => self.whole(Op::Fence, B4),
            M::Nop
            | M::Pause
            | M::Endbr32
            | M::Endbr64
            | M::Reservednop
            | M::Prefetch
            | M::Prefetchw
            | M::Prefetchwt1
            | M::Prefetchnta
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2 => self.plain(Op::Nop, B4),
            M::Movsb | M::Movsw | M::Movsd | M::Movsq if is_string(i) => self.string(Str::Movs),
            M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq if is_string(i) => self.string(Str::Cmps),
            M::Scasb | M::Scasw | M::Scasd | M::Scasq => self.string(Str::Scas),
            M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => self.string(Str::Lods),
            M::Stosb | M::Stosw | M::Stosd | M::Stosq => self.string(Str::Stos),
            _ => {
                let cc = condition(i)?;
                if i.op_count() == 1 {
                    self.two(Op::Setcc(cc), B1)
                } else if i.op_count() == 2 && i.op0_register().is_gpr() {
                    self.two(Op::Cmov(cc), self.width(0))
                } else {
                    None
                }
            }
        }
    }
    fn plain(&mut self, op: Op, w: W) -> Option<()> {
        self.o.form = Form::new(op, w, Loc::No, Loc::No);
        Some(())
    }
    fn whole(&mut self, op: Op, w: W) -> Option<()> {
        self.rare();
        self.plain(op, w)
    }
    fn indexed(&self, address_size: usize) -> Loc {
        match address_size {
            2 => Loc::G16,
            4 => Loc::G32,
            _ => Loc::M,
        }
    }
    fn shift(&mut self, op: Shift) -> Option<()> {
        let i = self.i;
        let w = self.width(0);
        let dst = self.operand(0, DST)?;
        let src = match i.op1_kind() {
            OpKind::Immediate8 => {
                self.o.imm = i.immediate8() as u64 & if w == B8 { 63 } else { 31 };
                if self.o.imm == 0 { Loc::No } else { Loc::I }
            }
            _ => Loc::R,
        };
        // A count that may be zero may leave the flags alone.
        if src != Loc::I {
            self.o.writes = 0
        }
        if matches!(op, Shift::Rcl | Shift::Rcr) {
            self.rare()
        }
        self.o.form = Form::new(Op::Shift(op), w, dst, src);
        Some(())
    }
    fn string(&mut self, op: Str) -> Option<()> {
        let i = self.i;
        self.rare();
        let w = match op {
            Str::Stos | Str::Movs => self.string_width(0),
            Str::Cmps => self.string_width(0),
            Str::Scas | Str::Lods => self.width(0),
        };
        let size = (0..2)
            .find_map(|n| match i.op_kind(n) {
                OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
                OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
                OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
                _ => None,
            })
            .unwrap_or(8);
        if !matches!(op, Str::Stos | Str::Scas) {
            self.o.seg = seg_number(i.memory_segment())?
        }
        let compare = matches!(op, Str::Cmps | Str::Scas);
        let rep = if i.has_repe_prefix() {
            Rep::E
        } else if i.has_repne_prefix() {
            if compare { Rep::Ne } else { Rep::E }
        } else {
            (self.o.reads, self.o.writes) = (0, if compare { bits::ARITH } else { 0 });
            let (dst, src) = (self.string_place(ES as u8, size), self.string_place(self.o.seg, size));
            self.o.form = Form::new(Op::Element(op), w, dst, src);
            return Some(());
        };
        self.o.form = Form::new(Op::Str(op, rep), w, self.indexed(size), Loc::No);
        Some(())
    }
    /// How what an index register leads to is reached.
    fn string_place(&self, seg: u8, address_size: usize) -> Loc {
        let based = seg as usize == FS || seg as usize == GS;
        match (self.long(), address_size) {
            (true, 4) if based => Loc::S32,
            (true, 4) => Loc::M32,
            (true, _) if based => Loc::S,
            (true, _) => Loc::M,
            (false, 2) => Loc::G16,
            (false, _) if self.flat(seg) => Loc::M32,
            (false, _) => Loc::G32,
        }
    }
    fn string_width(&self, _n: u32) -> W {
        width(self.i.memory_size().size())
    }
    /// The locked form of what was just decoded; nothing where LOCK is not allowed.
    fn lock(&mut self) -> Option<()> {
        let f = &mut self.o.form;
        if !f.dst.is_memory() {
            return None;
        }
        f.op = match f.op {
            Op::Alu(Alu::Cmp | Alu::Test) => return None,
            Op::Alu(a) => Op::LockAlu(a),
            Op::Not => Op::LockNot,
            Op::Neg => Op::LockNeg,
            Op::Inc => Op::LockInc,
            Op::Dec => Op::LockDec,
            Op::Xadd => Op::LockXadd,
            Op::Cmpxchg => Op::LockCmpxchg,
            Op::Bt(b) if b != Bt::Bt => Op::LockBt(b),
            op @ (Op::Xchg | Op::CmpxchgWide) => op,
            _ => return None,
        };
        if f.op == Op::LockNeg {
            self.rare()
        }
        Some(())
    }

    // ---- the other families ----

    fn other(&mut self) -> Option<()> {
        let i = self.i;
        if let Some((op, w)) = sys::classify(i, self.mode) {
            use iced_x86::FlowControl as To;
            if matches!(i.flow_control(), To::UnconditionalBranch | To::IndirectBranch | To::Return | To::Exception) {
                // Far, as are all that are classified there.
                self.o.end = End::Stop
            }
            self.rare();
            self.o.form = Form::new(Op::Sys(op), w, Loc::No, Loc::No);
            self.operands_of(Op::Sys(op), w);
            return Some(());
        }
        if self.mode & mode::X87_MASKED != 0
            && let Some((Op::X87(op), _)) = x87::classify(i)
            && let Some(op) = x87_host::classify(op, self.code)
        {
            self.operands_of(op, B2);
            return Some(());
        }
        for (found, unit, bit) in [
            (sse::classify(i, self.mode), Unit::Sse, mode::SSE),
            (mmx::classify(i), Unit::Mmx, mode::FPU),
            (x87::classify(i), Unit::X87, mode::FPU),
        ] {
            let Some((op, w)) = found else { continue };
            // (WAIT decides by itself.)
            if self.mode & bit == 0 && i.mnemonic() != Mnemonic::Wait {
                return self.whole(Op::NoFpu(unit), B4);
            }
            let (reads, writes) = (self.o.reads, self.o.writes);
            self.rare();
            self.operands_of(op, w);
            if let Op::Sse(_) = op {
                // (Unmasked exceptions and alignment: every SSE instruction may fault.)
                (self.o.reads, self.o.writes) = (reads, writes)
            }
            return Some(());
        }
        None
    }
    /// Up to three operands: the third, if any, is an immediate or implied.
    fn operands_of(&mut self, op: Op, w: W) {
        let i = self.i;
        let mut loc = [Loc::No; 2];
        // MASKMOVQ and MASKMOVDQU: an implied memory operand before the two registers.
        let implied = matches!(i.op0_kind(), OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI)
            && i.op_count() == 3;
        for n in 0..i.op_count().min(3) {
            let l = self.operand(n, if n == implied as u32 { DST } else { SRC }).unwrap_or(Loc::No);
            if n < 2 {
                loc[n as usize] = l
            }
        }
        if i.op_count() == 0 {
            self.o.seg = SS as u8
        }
        self.o.form = Form::new(op, w, loc[0], loc[1]);
    }
}

/// Segment, control and debug registers: not for the ordinary moves.
fn is_special(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Register && {
        let r = i.op_register(n);
        r.is_segment_register() || r.is_cr() || r.is_dr() || r.is_tr()
    }
}
/// MOVSD and CMPSD are also SSE instructions.
fn is_string(i: &Instruction) -> bool {
    !matches!(i.op0_kind(), OpKind::Register) && !matches!(i.op1_kind(), OpKind::Register)
}
fn counter(i: &Instruction) -> W {
    use Code::*;
    match i.code() {
        Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX | Loopne_rel8_16_CX
        | Loopne_rel8_32_CX | Jcxz_rel8_16 | Jcxz_rel8_32 => B2,
        Loop_rel8_64_RCX | Loope_rel8_64_RCX | Loopne_rel8_64_RCX | Loop_rel8_16_RCX | Loope_rel8_16_RCX
        | Loopne_rel8_16_RCX | Jrcxz_rel8_16 | Jrcxz_rel8_64 => B8,
        _ => B4,
    }
}
fn push_width(i: &Instruction, long: bool) -> W {
    match i.op0_kind() {
        OpKind::Register => width(i.op0_register().size()),
        OpKind::Memory => width(i.memory_size().size()),
        OpKind::Immediate8to16 | OpKind::Immediate16 => B2,
        OpKind::Immediate8to64 | OpKind::Immediate32to64 | OpKind::Immediate64 => B8,
        _ if long => B8,
        _ => B4,
    }
}
/// Condition in encoding order.
fn condition(i: &Instruction) -> Option<u8> {
    Some(match i.condition_code() {
        ConditionCode::o => 0,
        ConditionCode::no => 1,
        ConditionCode::b => 2,
        ConditionCode::ae => 3,
        ConditionCode::e => 4,
        ConditionCode::ne => 5,
        ConditionCode::be => 6,
        ConditionCode::a => 7,
        ConditionCode::s => 8,
        ConditionCode::ns => 9,
        ConditionCode::p => 10,
        ConditionCode::np => 11,
        ConditionCode::l => 12,
        ConditionCode::ge => 13,
        ConditionCode::le => 14,
        ConditionCode::g => 15,
        _ => return None,
    })
}
fn alu(m: Mnemonic) -> Option<Alu> {
    Some(match m {
        Mnemonic::Add => Alu::Add,
        Mnemonic::Or => Alu::Or,
        Mnemonic::Adc => Alu::Adc,
        Mnemonic::Sbb => Alu::Sbb,
        Mnemonic::And => Alu::And,
        Mnemonic::Sub => Alu::Sub,
        Mnemonic::Xor => Alu::Xor,
        Mnemonic::Cmp => Alu::Cmp,
        Mnemonic::Test => Alu::Test,
        _ => return None,
    })
}
fn shift(m: Mnemonic) -> Option<Shift> {
    Some(match m {
        Mnemonic::Shl | Mnemonic::Sal => Shift::Shl,
        Mnemonic::Shr => Shift::Shr,
        Mnemonic::Sar => Shift::Sar,
        Mnemonic::Rol => Shift::Rol,
        Mnemonic::Ror => Shift::Ror,
        Mnemonic::Rcl => Shift::Rcl,
        Mnemonic::Rcr => Shift::Rcr,
        _ => return None,
    })
}
/// MOV between the accumulator and an absolute address.
fn is_moffs(i: &Instruction) -> bool {
    use Code::*;
    matches!(
        i.code(),
        Mov_AL_moffs8
            | Mov_AX_moffs16
            | Mov_EAX_moffs32
            | Mov_RAX_moffs64
            | Mov_moffs8_AL
            | Mov_moffs16_AX
            | Mov_moffs32_EAX
            | Mov_moffs64_RAX
    )
}
