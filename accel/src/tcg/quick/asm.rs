//! Host instructions, encoded by `cranelift-assembler-x64`: the few the quick compiler needs, chosen by operation and width.

use super::super::ops::{Bin, Cmp, W};
use cranelift_assembler_x64::{
    Amode, AmodeOffset, AmodeOffsetPlusKnownOffset, Fixed, Gpr, GprMem, NonRspGpr, Registers, Scale, inst,
};

/// Host registers are named by their numbers.
pub(super) type Reg = u8;
pub(super) const RAX: Reg = 0;
pub(super) const RCX: Reg = 1;
pub(super) const RDX: Reg = 2;
pub(super) const RSP: Reg = 4;
pub(super) const RSI: Reg = 6;
pub(super) const RDI: Reg = 7;
pub(super) const R8: Reg = 8;
pub(super) const R9: Reg = 9;
pub(super) const R10: Reg = 10;
pub(super) const R11: Reg = 11;

/// The registers of the assembler.
pub(super) struct Regs;
impl Registers for Regs {
    type ReadGpr = Reg;
    type ReadWriteGpr = Reg;
    type WriteGpr = Reg;
    type ReadXmm = Reg;
    type ReadWriteXmm = Reg;
    type WriteXmm = Reg;
}

/// A memory operand: `[base + index + disp]`.
#[derive(Clone, Copy)]
pub(super) struct At {
    base: Reg,
    index: Option<Reg>,
    disp: i32,
}
/// `[base + disp]`.
pub(super) fn at(base: Reg, disp: i32) -> At {
    At { base, index: None, disp }
}
/// `[base + index + disp]`.
pub(super) fn indexed(base: Reg, index: Reg, disp: i32) -> At {
    At { base, index: Some(index), disp }
}
impl From<At> for Amode<Reg> {
    fn from(a: At) -> Self {
        let simm32 = AmodeOffset::new(a.disp);
        match a.index {
            None => {
                Amode::ImmReg { base: a.base, simm32: AmodeOffsetPlusKnownOffset { simm32, offset: None }, trap: None }
            }
            Some(index) => Amode::ImmRegRegShift {
                base: a.base,
                index: NonRspGpr::new(index),
                scale: Scale::One,
                simm32,
                trap: None,
            },
        }
    }
}
/// A register or memory.
#[derive(Clone, Copy)]
pub(super) enum Rm {
    Reg(Reg),
    Mem(At),
}
impl From<Rm> for GprMem<Reg, Reg> {
    fn from(rm: Rm) -> Self {
        match rm {
            Rm::Reg(r) => GprMem::Gpr(r),
            Rm::Mem(m) => GprMem::Mem(m.into()),
        }
    }
}
/// A condition of the host, by its code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cc(u8);
impl Cc {
    pub const A: Cc = Cc(7);
    pub const E: Cc = Cc(4);
    pub const NE: Cc = Cc(5);
    pub const P: Cc = Cc(10);
    pub const L: Cc = Cc(12);
    /// That of a comparison.
    pub fn of(c: Cmp) -> Cc {
        Cc(match c {
            Cmp::Eq => 4,
            Cmp::Ne => 5,
            Cmp::Ult => 2,
            Cmp::Ule => 6,
            Cmp::Slt => 12,
            Cmp::Sle => 14,
        })
    }
    /// The opposite.
    pub fn not(self) -> Cc {
        Cc(self.0 ^ 1)
    }
}

/// Code under construction.
#[derive(Default)]
pub(super) struct Asm {
    pub code: Vec<u8>,
}
/// A jump whose target is not known yet: where it ends.
#[derive(Clone, Copy)]
pub(super) struct Jump(pub usize);

/// `emit!(self, form(operands))`.
macro_rules! emit {
    ($s:ident, $i:ident($($a:expr),*)) => { inst::$i::<Regs>::new($($a),*).encode(&mut $s.code) };
}
/// `emit!` of one of two forms, by the width: 64 bits or 32.
macro_rules! emit2 {
    ($s:ident, $w:expr, $q:ident $l:ident ($($a:expr),*)) => {
        if $w == W::B8 { emit!($s, $q($($a),*)) } else { emit!($s, $l($($a),*)) }
    };
}

impl Asm {
    pub fn here(&self) -> usize {
        self.code.len()
    }
    /// `dst = src`, all of it, or its low 32 bits zero-extended.
    pub fn mov(&mut self, w: W, dst: Reg, src: Reg) {
        emit2!(self, w, movq_rm movl_rm (Gpr::new(dst), Rm::Reg(src)))
    }
    /// `dst = k`. Changes no flags.
    pub fn mov_imm(&mut self, dst: Reg, k: u64) {
        if k <= u32::MAX as u64 {
            emit!(self, movl_oi(Gpr::new(dst), k as u32))
        } else if k as i64 >= i32::MIN as i64 && k as i64 <= i32::MAX as i64 {
            emit!(self, movq_mi_sxl(Rm::Reg(dst), k as i32))
        } else {
            emit!(self, movabsq_oi(Gpr::new(dst), k))
        }
    }
    /// Zero extension of the low `w`.
    pub fn load(&mut self, w: W, dst: Reg, from: Rm) {
        let dst = Gpr::new(dst);
        match w {
            W::B1 => emit!(self, movzbl_rm(dst, from)),
            W::B2 => emit!(self, movzwl_rm(dst, from)),
            W::B4 => emit!(self, movl_rm(dst, from)),
            W::B8 => emit!(self, movq_rm(dst, from)),
        }
    }
    /// Sign extension of the low `from` to 64 bits, or to 32, zero-extended.
    pub fn sext(&mut self, from: W, to: W, dst: Reg, src: Reg) {
        let (dst, src) = (Gpr::new(dst), Rm::Reg(src));
        match (from, to == W::B8) {
            (W::B1, false) => emit!(self, movsbl_rm(dst, src)),
            (W::B1, true) => emit!(self, movsbq_rm(dst, src)),
            (W::B2, false) => emit!(self, movswl_rm(dst, src)),
            (W::B2, true) => emit!(self, movswq_rm(dst, src)),
            (W::B4, true) => emit!(self, movslq_rm(dst, src)),
            _ => emit!(self, movq_rm(dst, src)),
        }
    }
    /// Stores the low `w`.
    pub fn store(&mut self, w: W, to: At, src: Reg) {
        let (to, src) = (Rm::Mem(to), Gpr::new(src));
        match w {
            W::B1 => emit!(self, movb_mr(to, src)),
            W::B2 => emit!(self, movw_mr(to, src)),
            W::B4 => emit!(self, movl_mr(to, src)),
            W::B8 => emit!(self, movq_mr(to, src)),
        }
    }
    /// Stores a constant, of which 64 bits must be a sign extension of 32.
    pub fn store_imm(&mut self, w: W, to: At, k: u64) {
        let to = Rm::Mem(to);
        match w {
            W::B1 => emit!(self, movb_mi(to, k as u8)),
            W::B2 => emit!(self, movw_mi(to, k as u16)),
            W::B4 => emit!(self, movl_mi(to, k as u32)),
            W::B8 => emit!(self, movq_mi_sxl(to, k as i32)),
        }
    }
    /// The low byte or word of `dst` replaced by that of `src`.
    pub fn merge(&mut self, w: W, dst: Reg, src: Reg) {
        let (dst, src) = (Rm::Reg(dst), Gpr::new(src));
        if w == W::B1 { emit!(self, movb_mr(dst, src)) } else { emit!(self, movw_mr(dst, src)) }
    }
    pub fn lea(&mut self, dst: Reg, a: At) {
        emit!(self, leaq_rm(Gpr::new(dst), a))
    }
    /// `dst = dst op src`; 32 bits unless `w` is 64. Add, Sub, And, Or, Xor, Mul.
    pub fn bin(&mut self, op: Bin, w: W, dst: Reg, src: Rm) {
        let dst = Gpr::new(dst);
        match op {
            Bin::Add => emit2!(self, w, addq_rm addl_rm (dst, src)),
            Bin::Sub => emit2!(self, w, subq_rm subl_rm (dst, src)),
            Bin::And => emit2!(self, w, andq_rm andl_rm (dst, src)),
            Bin::Or => emit2!(self, w, orq_rm orl_rm (dst, src)),
            Bin::Xor => emit2!(self, w, xorq_rm xorl_rm (dst, src)),
            _ => emit2!(self, w, imulq_rm imull_rm (dst, src)),
        }
    }
    /// The same with a constant.
    pub fn bin_imm(&mut self, op: Bin, w: W, dst: Reg, k: i32) {
        let short = i8::try_from(k).ok();
        let rm = Rm::Reg(dst);
        macro_rules! alu {
            ($qb:ident $lb:ident $q:ident $l:ident) => {
                match short {
                    Some(k) => emit2!(self, w, $qb $lb (rm, k)),
                    None if w == W::B8 => emit!(self, $q(rm, k)),
                    None => emit!(self, $l(rm, k as u32)),
                }
            };
        }
        match op {
            Bin::Add => alu!(addq_mi_sxb addl_mi_sxb addq_mi_sxl addl_mi),
            Bin::Sub => alu!(subq_mi_sxb subl_mi_sxb subq_mi_sxl subl_mi),
            Bin::And => alu!(andq_mi_sxb andl_mi_sxb andq_mi_sxl andl_mi),
            Bin::Or => alu!(orq_mi_sxb orl_mi_sxb orq_mi_sxl orl_mi),
            Bin::Xor => alu!(xorq_mi_sxb xorl_mi_sxb xorq_mi_sxl xorl_mi),
            _ if w == W::B8 => emit!(self, imulq_rmi_sxl(Gpr::new(dst), rm, k)),
            _ => emit!(self, imull_rmi(Gpr::new(dst), rm, k as u32)),
        }
    }
    /// Shift or rotate by a constant: Shl, Shr, Sar in 64 or 32 bits, Rol and Ror in the width.
    pub fn shift_imm(&mut self, op: Bin, w: W, dst: Reg, n: u8) {
        let dst = Rm::Reg(dst);
        macro_rules! rotate {
            ($b:ident $v:ident $l:ident $q:ident) => {
                match w {
                    W::B1 => emit!(self, $b(dst, n)),
                    W::B2 => emit!(self, $v(dst, n)),
                    W::B4 => emit!(self, $l(dst, n)),
                    W::B8 => emit!(self, $q(dst, n)),
                }
            };
        }
        match op {
            Bin::Shl => emit2!(self, w, shlq_mi shll_mi (dst, n)),
            Bin::Shr => emit2!(self, w, shrq_mi shrl_mi (dst, n)),
            Bin::Sar => emit2!(self, w, sarq_mi sarl_mi (dst, n)),
            Bin::Rol => rotate!(rolb_mi rolw_mi roll_mi rolq_mi),
            _ => rotate!(rorb_mi rorw_mi rorl_mi rorq_mi),
        }
    }
    /// `dst = src shifted by n`: Shl, Shr, Sar in 64 or 32 bits.
    pub fn shift(&mut self, op: Bin, w: W, dst: Reg, src: Rm, n: Reg) {
        let (dst, n) = (Gpr::new(dst), Gpr::new(n));
        match op {
            Bin::Shl => emit2!(self, w, shlxq_rmv shlxl_rmv (dst, src, n)),
            Bin::Shr => emit2!(self, w, shrxq_rmv shrxl_rmv (dst, src, n)),
            _ => emit2!(self, w, sarxq_rmv sarxl_rmv (dst, src, n)),
        }
    }
    pub fn bswap(&mut self, w: W, r: Reg) {
        let r = Gpr::new(r);
        emit2!(self, w, bswapq_o bswapl_o (r))
    }
    pub fn lzcnt(&mut self, w: W, dst: Reg, src: Rm) {
        emit2!(self, w, lzcntq_rm lzcntl_rm (Gpr::new(dst), src))
    }
    pub fn tzcnt(&mut self, w: W, dst: Reg, src: Rm) {
        emit2!(self, w, tzcntq_a tzcntl_a (Gpr::new(dst), src))
    }
    pub fn popcnt(&mut self, w: W, dst: Reg, src: Rm) {
        emit2!(self, w, popcntq_rm popcntl_rm (Gpr::new(dst), src))
    }
    /// `hi` = upper 64 bits of `rdx * src`; `lo` is lost.
    pub fn mulx(&mut self, hi: Reg, lo: Reg, src: Reg) {
        emit!(self, mulxq_rvm(Gpr::new(hi), Gpr::new(lo), Rm::Reg(src), Fixed(RDX)))
    }
    pub fn cmp(&mut self, w: W, a: Reg, b: Rm) {
        let a = Gpr::new(a);
        match w {
            W::B1 => emit!(self, cmpb_rm(a, b)),
            W::B2 => emit!(self, cmpw_rm(a, b)),
            W::B4 => emit!(self, cmpl_rm(a, b)),
            W::B8 => emit!(self, cmpq_rm(a, b)),
        }
    }
    pub fn cmp_imm(&mut self, w: W, a: Rm, k: i32) {
        match (w, i8::try_from(k)) {
            (W::B1, _) => emit!(self, cmpb_mi(a, k as u8)),
            (W::B2, Ok(k)) => emit!(self, cmpw_mi_sxb(a, k)),
            (W::B2, _) => emit!(self, cmpw_mi(a, k as u16)),
            (W::B4, Ok(k)) => emit!(self, cmpl_mi_sxb(a, k)),
            (W::B4, _) => emit!(self, cmpl_mi(a, k as u32)),
            (W::B8, Ok(k)) => emit!(self, cmpq_mi_sxb(a, k)),
            (W::B8, _) => emit!(self, cmpq_mi(a, k)),
        }
    }
    pub fn test(&mut self, w: W, a: Reg, b: Reg) {
        let (a, b) = (Rm::Reg(a), Gpr::new(b));
        match w {
            W::B1 => emit!(self, testb_mr(a, b)),
            W::B2 => emit!(self, testw_mr(a, b)),
            W::B4 => emit!(self, testl_mr(a, b)),
            W::B8 => emit!(self, testq_mr(a, b)),
        }
    }
    /// The low byte of `dst` is 1 if `c` holds, else 0.
    pub fn set(&mut self, c: Cc, dst: Reg) {
        let dst = Rm::Reg(dst);
        match c.0 {
            0 => emit!(self, seto_m(dst)),
            1 => emit!(self, setno_m(dst)),
            2 => emit!(self, setb_m(dst)),
            3 => emit!(self, setae_m(dst)),
            4 => emit!(self, sete_m(dst)),
            5 => emit!(self, setne_m(dst)),
            6 => emit!(self, setbe_m(dst)),
            7 => emit!(self, seta_m(dst)),
            8 => emit!(self, sets_m(dst)),
            9 => emit!(self, setns_m(dst)),
            10 => emit!(self, setp_m(dst)),
            11 => emit!(self, setnp_m(dst)),
            12 => emit!(self, setl_m(dst)),
            13 => emit!(self, setge_m(dst)),
            14 => emit!(self, setle_m(dst)),
            _ => emit!(self, setg_m(dst)),
        }
    }
    /// `dst = src` if `c` holds; 64 or 32 bits.
    pub fn cmov(&mut self, c: Cc, w: W, dst: Reg, src: Reg) {
        let (dst, src) = (Gpr::new(dst), Rm::Reg(src));
        match c.0 {
            0 => emit2!(self, w, cmovoq_rm cmovol_rm (dst, src)),
            1 => emit2!(self, w, cmovnoq_rm cmovnol_rm (dst, src)),
            2 => emit2!(self, w, cmovbq_rm cmovbl_rm (dst, src)),
            3 => emit2!(self, w, cmovaeq_rm cmovael_rm (dst, src)),
            4 => emit2!(self, w, cmoveq_rm cmovel_rm (dst, src)),
            5 => emit2!(self, w, cmovneq_rm cmovnel_rm (dst, src)),
            6 => emit2!(self, w, cmovbeq_rm cmovbel_rm (dst, src)),
            7 => emit2!(self, w, cmovaq_rm cmoval_rm (dst, src)),
            8 => emit2!(self, w, cmovsq_rm cmovsl_rm (dst, src)),
            9 => emit2!(self, w, cmovnsq_rm cmovnsl_rm (dst, src)),
            10 => emit2!(self, w, cmovpq_rm cmovpl_rm (dst, src)),
            11 => emit2!(self, w, cmovnpq_rm cmovnpl_rm (dst, src)),
            12 => emit2!(self, w, cmovlq_rm cmovll_rm (dst, src)),
            13 => emit2!(self, w, cmovgeq_rm cmovgel_rm (dst, src)),
            14 => emit2!(self, w, cmovleq_rm cmovlel_rm (dst, src)),
            _ => emit2!(self, w, cmovgq_rm cmovgl_rm (dst, src)),
        }
    }
    pub fn jump_if(&mut self, c: Cc) -> Jump {
        macro_rules! jcc {
            ($($n:literal $i:ident)*) => { match c.0 { $($n => inst::$i::new(0).encode(&mut self.code),)* _ => inst::jg_d32::new(0).encode(&mut self.code) } };
        }
        jcc!(0 jo_d32 1 jno_d32 2 jb_d32 3 jae_d32 4 je_d32 5 jne_d32 6 jbe_d32 7 ja_d32 8 js_d32 9 jns_d32 10 jp_d32 11 jnp_d32 12 jl_d32 13 jge_d32 14 jle_d32);
        Jump(self.code.len())
    }
    /// A jump comes here.
    pub fn land(&mut self, j: Jump) {
        let d = (self.here() - j.0) as u32;
        if let Some(field) = self.code.get_mut(j.0 - 4..j.0) {
            field.copy_from_slice(&d.to_le_bytes())
        }
    }
    /// A jump that is always taken.
    pub fn jump(&mut self) -> Jump {
        inst::jmp_d32::new(0).encode(&mut self.code);
        Jump(self.here())
    }
    /// A call whose target is not known yet.
    pub fn call(&mut self) -> Jump {
        const CALL: u8 = 0xe8;
        self.code.extend([CALL, 0, 0, 0, 0]);
        Jump(self.here())
    }
    pub fn jump_to(&mut self, rm: Rm) {
        emit!(self, jmpq_m(rm))
    }
}
