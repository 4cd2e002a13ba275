//! Decimal adjustments. Source: Intel SDM vol. 2 (DAA, DAS, AAA, AAS, AAM, AAD). Undefined flags: OF 0; after AAA and AAS
//! also SF ZF PF follow AL; after AAM and AAD CF AF 0.

use crate::{
    exception::Exception,
    forms::Bcd,
    reg::RAX,
    state::bits::*,
    sys::{Outcome, X86Cpu},
};
use accel::tcg::Rare;

fn szp(v: u8) -> u32 {
    (if v == 0 { ZF } else { 0 })
        | (if v & 0x80 != 0 { SF } else { 0 })
        | (if v.count_ones() & 1 == 0 { PF } else { 0 })
}
/// Runs one.
pub fn run(cpu: &mut X86Cpu<'_>, op: Bcd) -> Outcome {
    let fl = cpu.state.flags(cpu.hot);
    let ax = cpu.hot.regs[RAX.index()] as u16;
    let (al, ah) = (ax as u8, (ax >> 8) as u8);
    let imm = cpu.op.imm as u8;
    let (cf, af) = (fl & CF != 0, fl & AF != 0);
    let low = al & 15 > 9 || af;
    let (ax, fl) = match op {
        Bcd::Daa | Bcd::Das => {
            let high = al > 0x99 || cf;
            let by = (if low { 6 } else { 0 }) + (if high { 0x60 } else { 0 });
            let r = if op == Bcd::Daa { al.wrapping_add(by) } else { al.wrapping_sub(by) };
            // A borrow or carry of the low adjustment counts as well.
            let c = high || low && op == Bcd::Das && al < 6;
            let c = if c { CF } else { 0 };
            ((ah as u16) << 8 | r as u16, c | if low { AF } else { 0 } | szp(r))
        }
        Bcd::Aaa | Bcd::Aas => {
            let r = match (low, op) {
                (false, _) => ax,
                (true, Bcd::Aaa) => ax.wrapping_add(0x106),
                _ => ax.wrapping_sub(6).wrapping_sub(0x100),
            } & 0xff0f;
            (r, if low { CF | AF } else { 0 } | szp(r as u8))
        }
        Bcd::Aam => {
            if imm == 0 {
                return Err(Exception::de());
            }
            let r = al % imm;
            ((al / imm) as u16 * 256 + r as u16, szp(r))
        }
        Bcd::Aad => {
            let r = al.wrapping_add(ah.wrapping_mul(imm));
            (r as u16, szp(r))
        }
    };
    let r = &mut cpu.hot.regs[RAX.index()];
    *r = *r & !0xffff | ax as u64;
    cpu.state.set_flags(cpu.hot, fl, ARITH);
    Ok(Rare::Next)
}
