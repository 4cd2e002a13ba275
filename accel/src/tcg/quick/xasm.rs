//! Host instructions on vector registers (SSE2).

use super::{
    super::{
        ops::W,
        vector::{XBin, XShift, XShuffle},
    },
    asm::{Asm, At, Reg, Regs, Rm},
};
use cranelift_assembler_x64::{Gpr, Xmm, XmmMem, inst};

/// `emit!(self, form(operands))`.
macro_rules! emit {
    ($s:ident, $i:ident($($a:expr),*)) => { inst::$i::<Regs>::new($($a),*).encode(&mut $s.code) };
}
fn reg(x: Reg) -> XmmMem<Reg, Reg> {
    XmmMem::Xmm(x)
}
fn memory(m: At) -> XmmMem<Reg, Reg> {
    XmmMem::Mem(m.into())
}

/// There is an instruction for it here.
pub(super) fn knows(op: XBin) -> bool {
    Asm::default().xbin(op, 0, 0)
}
/// Likewise, if the count is a constant.
pub(super) fn knows_shift(op: XShift) -> bool {
    !matches!(
        op,
        XShift::ShlBytes | XShift::ShrBytes | XShift::Sar(W::B1 | W::B8) | XShift::Shl(W::B1) | XShift::Shr(W::B1)
    )
}

impl Asm {
    pub fn xload(&mut self, dst: Reg, from: At) {
        emit!(self, movups_a(Xmm::new(dst), memory(from)))
    }
    pub fn xstore(&mut self, to: At, src: Reg) {
        emit!(self, movups_b(memory(to), Xmm::new(src)))
    }
    pub fn xmov(&mut self, dst: Reg, src: Reg) {
        emit!(self, movaps_a(Xmm::new(dst), reg(src)))
    }
    /// The low `w`, 32 or 64 bits, from a general register; the rest becomes zero.
    pub fn xfrom(&mut self, w: W, dst: Reg, src: Reg) {
        let (dst, src) = (Xmm::new(dst), Rm::Reg(src));
        if w == W::B8 { emit!(self, movq_a(dst, src)) } else { emit!(self, movd_a(dst, src)) }
    }
    /// The low `w`, 32 or 64 bits, to a general register.
    pub fn xto(&mut self, w: W, dst: Reg, src: Reg) {
        let (dst, src) = (Rm::Reg(dst), Xmm::new(src));
        if w == W::B8 { emit!(self, movq_b(dst, src)) } else { emit!(self, movd_b(dst, src)) }
    }
    /// The low `w`, 32 or 64 bits, of `dst` replaced by that of `src`.
    pub fn xmerge(&mut self, w: W, dst: Reg, src: Reg) {
        let (dst, src) = (Xmm::new(dst), Xmm::new(src));
        if w == W::B8 { emit!(self, movsd_a_r(dst, src)) } else { emit!(self, movss_a_r(dst, src)) }
    }
    /// The upper half over both.
    pub fn xhigh(&mut self, dst: Reg) {
        emit!(self, punpckhqdq_a(Xmm::new(dst), reg(dst)))
    }
    /// The sign bits of all lanes.
    pub fn xmask(&mut self, w: W, dst: Reg, src: Reg) {
        let (dst, src) = (Gpr::new(dst), Xmm::new(src));
        match w {
            W::B4 => emit!(self, movmskps_rm(dst, src)),
            W::B8 => emit!(self, movmskpd_rm(dst, src)),
            _ => emit!(self, pmovmskb_rm(dst, src)),
        }
    }
    /// `dst = dst op src`; false if there is no instruction for it here.
    pub fn xbin(&mut self, op: XBin, dst: Reg, src: Reg) -> bool {
        let (d, s) = (Xmm::new(dst), reg(src));
        macro_rules! table {
            ($($p:pat => $i:ident,)*) => { match op { $($p => emit!(self, $i(d, s)),)* _ => return false } };
        }
        use W::*;
        if op == XBin::LowToHigh {
            emit!(self, movlhps_rm(d, Xmm::new(src)));
            return true;
        }
        table! {
            XBin::And => pand_a,
            XBin::Andn => pandn_a,
            XBin::Or => por_a,
            XBin::Xor => pxor_a,
            XBin::Add(B1) => paddb_a,
            XBin::Add(B2) => paddw_a,
            XBin::Add(B4) => paddd_a,
            XBin::Add(B8) => paddq_a,
            XBin::Sub(B1) => psubb_a,
            XBin::Sub(B2) => psubw_a,
            XBin::Sub(B4) => psubd_a,
            XBin::Sub(B8) => psubq_a,
            XBin::AddSatS(B1) => paddsb_a,
            XBin::AddSatS(_) => paddsw_a,
            XBin::AddSatU(B1) => paddusb_a,
            XBin::AddSatU(_) => paddusw_a,
            XBin::SubSatS(B1) => psubsb_a,
            XBin::SubSatS(_) => psubsw_a,
            XBin::SubSatU(B1) => psubusb_a,
            XBin::SubSatU(_) => psubusw_a,
            XBin::MulLo16 => pmullw_a,
            XBin::MulHi16S => pmulhw_a,
            XBin::MulHi16U => pmulhuw_a,
            XBin::MulU32 => pmuludq_a,
            XBin::MulAdd16 => pmaddwd_a,
            XBin::Avg(B1) => pavgb_a,
            XBin::Avg(_) => pavgw_a,
            XBin::Min(B1) => pminub_a,
            XBin::Min(_) => pminsw_a,
            XBin::Max(B1) => pmaxub_a,
            XBin::Max(_) => pmaxsw_a,
            XBin::CmpEq(B1) => pcmpeqb_a,
            XBin::CmpEq(B2) => pcmpeqw_a,
            XBin::CmpEq(_) => pcmpeqd_a,
            XBin::CmpGt(B1) => pcmpgtb_a,
            XBin::CmpGt(B2) => pcmpgtw_a,
            XBin::CmpGt(_) => pcmpgtd_a,
            XBin::UnpackLo(B1) => punpcklbw_a,
            XBin::UnpackLo(B2) => punpcklwd_a,
            XBin::UnpackLo(B4) => punpckldq_a,
            XBin::UnpackLo(B8) => punpcklqdq_a,
            XBin::UnpackHi(B1) => punpckhbw_a,
            XBin::UnpackHi(B2) => punpckhwd_a,
            XBin::UnpackHi(B4) => punpckhdq_a,
            XBin::UnpackHi(B8) => punpckhqdq_a,
            XBin::PackSigned(B2) => packsswb_a,
            XBin::PackSigned(_) => packssdw_a,
            XBin::PackUnsigned16 => packuswb_a,
        }
        true
    }
    /// A shift by a constant, of those it [knows](knows_shift).
    pub fn xshift(&mut self, op: XShift, dst: Reg, n: u8) {
        let d = Xmm::new(dst);
        match op {
            XShift::Shl(W::B2) => emit!(self, psllw_b(d, n)),
            XShift::Shl(W::B4) => emit!(self, pslld_b(d, n)),
            XShift::Shl(_) => emit!(self, psllq_b(d, n)),
            XShift::Shr(W::B2) => emit!(self, psrlw_b(d, n)),
            XShift::Shr(W::B4) => emit!(self, psrld_b(d, n)),
            XShift::Shr(_) => emit!(self, psrlq_b(d, n)),
            XShift::Sar(W::B2) => emit!(self, psraw_b(d, n)),
            _ => emit!(self, psrad_b(d, n)),
        }
    }
    /// `dst = dst op src` by a constant.
    pub fn xshuffle(&mut self, op: XShuffle, dst: Reg, src: Reg, k: u8) {
        let (d, s) = (Xmm::new(dst), reg(src));
        match op {
            XShuffle::D => emit!(self, pshufd_a(d, s, k)),
            XShuffle::Lw => emit!(self, pshuflw_a(d, s, k)),
            XShuffle::Hw => emit!(self, pshufhw_a(d, s, k)),
            XShuffle::Ps => emit!(self, shufps_a(d, s, k)),
            XShuffle::Pd => emit!(self, shufpd_a(d, s, k)),
        }
    }
}
