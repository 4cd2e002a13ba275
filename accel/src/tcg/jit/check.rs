//! Checks of memory accesses: the first level of the TLB, asked once for all that is near.
//!
//! A check finds the host's side of a page by what it has of the linear address; later accesses beside it widen it in place.

use super::{
    super::{
        env::Hot,
        ops::W,
        target::Target,
        tlb::{TLB, TlbEntry},
    },
    frame::{Clif, ENV, Term, hot_at},
    thunk::NOWHERE,
};
use cranelift_codegen::ir::{
    self, InstBuilder, InstructionData, Opcode, Value, ValueDef,
    condcodes::IntCC,
    types::{I8, I64},
};
use cranelift_frontend::FunctionBuilder;
use std::mem::offset_of;

/// A range around `root` that is checked. The check is emitted at the first access and widened in place by later ones, also of
/// blocks that only its own leads to: all of them see what the others made of it.
pub(super) struct Group {
    root: Value,
    min: i64,
    max: i64,
    host: Value,
    write: bool,
    block: usize,
    tag: ir::Inst,
    /// Address of what looks for it.
    fill: ir::Inst,
    min_k: Option<ir::Inst>,
    /// Of the comparison, and for what looks for the page.
    limits: [ir::Inst; 2],
}
/// Widest range of a group in bytes: what reaches into another page costs a side exit each time.
const GROUP: i64 = 256;
/// The same for a table that is accessed by an index.
const TABLE: i64 = 2304;

impl<T: Target> Clif<'_, '_, T> {
    /// Checks an access: the host address as a value and an offset.
    pub(super) fn check(&mut self, bytes: u32, ea: Term, write: bool) -> (Value, i32) {
        let (root, off) = match ea.root {
            Some(r) if i32::try_from(ea.off as i64).is_ok() => (r, ea.off as i64),
            _ => (self.val(W::B8, ea), 0),
        };
        // One check does for all accesses to a small table.
        if let Some((table, index, most)) = self.in_table(root)
            && !self.narrow.contains(&self.off)
            && !self.alone.contains(&table)
        {
            let (host, off) = self.check_range(table, off, off + most + bytes as i64, TABLE, write);
            return (self.b.ins().iadd(host, index), off);
        }
        self.check_range(root, off, off + bytes as i64, GROUP, write)
    }
    /// A sum of which one part is small: the other one, that part, the most it can be.
    fn in_table(&self, sum: Value) -> Option<(Value, Value, i64)> {
        let [a, b] = self.operands(sum, Opcode::Iadd)?;
        let small = |v| self.most(v).filter(|&m| m < TABLE as u64 - GROUP as u64).map(|m| m as i64);
        match (small(a), small(b)) {
            (None, Some(m)) => Some((a, b, m)),
            (Some(m), None) => Some((b, a, m)),
            _ => None,
        }
    }
    /// The most a value can be, if that is plain to see.
    fn most(&self, v: Value) -> Option<u64> {
        let dfg = &self.b.func.dfg;
        let ValueDef::Result(i, _) = dfg.value_def(v) else { return None };
        let constant = |v| match dfg.value_def(v) {
            ValueDef::Result(i, _) => match dfg.insts[i] {
                InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => Some(imm.bits() as u64),
                _ => None,
            },
            _ => None,
        };
        match (dfg.insts[i].opcode(), dfg.inst_args(i)) {
            (Opcode::Uload8, _) => Some(0xff),
            (Opcode::Uextend, &[from]) if dfg.value_type(from) == I8 => Some(0xff),
            (Opcode::Band, &[_, k]) => constant(k),
            (Opcode::Ushr, &[_, k]) if dfg.value_type(v) == I64 => Some(u64::MAX >> (constant(k)? & 63)),
            (Opcode::Ishl, &[x, k]) if dfg.value_type(v) == I64 => {
                let k = constant(k)? & 63;
                self.most(x).filter(|m| *m <= u64::MAX >> k).map(|m| m << k)
            }
            _ => None,
        }
    }
    /// The operands of a value that is the result of an operation on two.
    fn operands(&self, v: Value, of: Opcode) -> Option<[Value; 2]> {
        let dfg = &self.b.func.dfg;
        let ValueDef::Result(i, _) = dfg.value_def(v) else { return None };
        match dfg.insts[i] {
            InstructionData::Binary { opcode, args } if opcode == of => Some(args),
            _ => None,
        }
    }
    /// Checks the bytes from `off` to `end` from `root` on: the host address of `root` as a value, and `off`.
    fn check_range(&mut self, root: Value, off: i64, end: i64, widest: i64, write: bool) -> (Value, i32) {
        let bytes = end - off;
        let block = self.block;
        let known = &self.s.groups;
        if let Some(g) = known
            .iter()
            .rev()
            .map(|&i| &self.groups[i])
            .find(|g| g.root == root && g.min <= off && end <= g.max && (g.write || !write))
        {
            return (g.host, off as i32);
        }
        if self.narrow.contains(&self.off) {
            self.alone.push(root)
        }
        for &i in known.iter().rev() {
            let g = &mut self.groups[i];
            if g.root != root || self.alone.contains(&root) {
                continue;
            }
            let (min, max) = (g.min.min(off), g.max.max(end));
            // (Reads that come before a branch do not ask for a page that is written to behind it only.)
            let here = g.block == block || g.write || !write;
            // (What lies at a constant distance from the code's page is in one page or is not.)
            let fits = if root == self.base { min >> 12 == (max - 1) >> 12 } else { max - min <= widest };
            if here && fits && (min == g.min || g.min_k.is_some()) {
                (g.min, g.max) = (min, max);
                g.write |= write;
                let dfg = &mut self.b.func.dfg;
                if let Some(k) = g.min_k {
                    set_constant(dfg, k, min)
                }
                for limit in g.limits {
                    set_constant(dfg, limit, 0x1000 - (max - min))
                }
                if g.write {
                    set_constant(dfg, g.fill, self.thunks.fill[1] as i64);
                    if let InstructionData::Load { offset, .. } = &mut dfg.insts[g.tag] {
                        *offset = (self.tlb + offset_of!(TlbEntry, write) as i32).into()
                    }
                }
                return (g.host, off as i32);
            }
        }
        self.flush_vectors();
        let stub = self.leave_here();
        let (low, min_k) = if off == 0 {
            (root, None)
        } else {
            let k = self.b.ins().iconst(I64, off);
            let s = self.b.ins().iadd(root, k);
            (s, self.b.func.dfg.value_def(k).inst())
        };
        let p = self.entry_of(low);
        let tag = self.entry_field(p, if write { offset_of!(TlbEntry, write) } else { offset_of!(TlbEntry, read) });
        let x = self.b.ins().bxor(tag, low);
        let limit = self.b.ins().iconst(I64, 0x1000 - bytes);
        let c = self.b.ins().icmp(IntCC::UnsignedGreaterThan, x, limit);
        let [look, found, go_on] = [(); 3].map(|()| self.b.create_block());
        self.b.append_block_param(go_on, I64);
        self.b.ins().brif(c, look, &[], go_on, &[p.into()]);
        // The page may just not be in the first level.
        self.b.set_cold_block(look);
        self.b.switch_to_block(look);
        self.b.seal_block(look);
        let fill = self.b.ins().iconst(I64, self.thunks.fill[write as usize] as i64);
        let again = self.b.ins().iconst(I64, 0x1000 - bytes);
        self.b.ins().call_indirect(self.fill_sig, fill, &[self.env, low, again]);
        let q = self.b.ins().load(I64, ENV, self.env, hot_at(offset_of!(Hot, place)));
        let nowhere = self.k(I64, NOWHERE);
        let none = self.b.ins().icmp(IntCC::Equal, q, nowhere);
        self.b.ins().brif(none, stub, &[], found, &[]);
        // (A block of its own, so that what the compiler puts on the way back does not lie in the way of others.)
        self.b.set_cold_block(found);
        self.b.switch_to_block(found);
        self.b.seal_block(found);
        self.b.ins().jump(go_on, &[q.into()]);
        self.b.switch_to_block(go_on);
        self.b.seal_block(go_on);
        let p = self.b.block_params(go_on)[0];
        let addend = self.entry_field(p, offset_of!(TlbEntry, addend));
        let host = self.b.ins().iadd(addend, root);
        let made_by = |b: &FunctionBuilder<'_>, v| b.func.dfg.value_def(v).inst().expect("an instruction's result");
        let limits = [limit, again].map(|v| made_by(self.b, v));
        let (tag, fill) = (made_by(self.b, tag), made_by(self.b, fill));
        self.s.groups.push(self.groups.len());
        self.groups.push(Group { root, min: off, max: end, host, write, block, tag, fill, min_k, limits });
        (host, off as i32)
    }

    /// Whether the page after the region's own lies elsewhere than at `host`, or is not in the first level for fetches.
    pub(super) fn next_page_moved(&mut self, host: usize) -> Value {
        let page = self.val(W::B8, Term { root: Some(self.base), off: 0x1000 });
        let p = self.entry_of(page);
        let tag = self.entry_field(p, offset_of!(TlbEntry, exec));
        let addend = self.entry_field(p, offset_of!(TlbEntry, addend));
        let at = self.b.ins().iadd(addend, page);
        let want = self.k(I64, host as u64);
        let (a, b) = (self.b.ins().bxor(tag, page), self.b.ins().bxor(at, want));
        let differs = self.b.ins().bor(a, b);
        let zero = self.k(I64, 0);
        self.b.ins().icmp(IntCC::NotEqual, differs, zero)
    }
    /// The offset, in its TLB, of the first-level entry for an address.
    fn entry_of(&mut self, la: Value) -> Value {
        // (Turned rather than shifted: x86 hosts do that without a move. The mask takes nothing that came round.)
        let seven = self.k(I8, 7);
        let t = self.b.ins().rotr(la, seven);
        let index = self.k(I64, ((TLB - 1) << 5) as u64);
        self.b.ins().band(t, index)
    }
    /// Loads a field of the first-level entry at an offset.
    fn entry_field(&mut self, entry: Value, field: usize) -> Value {
        let e = self.b.ins().iadd(self.env, entry);
        self.b.ins().load(I64, ENV, e, self.tlb + field as i32)
    }
}
fn set_constant(dfg: &mut ir::DataFlowGraph, i: ir::Inst, v: i64) {
    if let InstructionData::UnaryImm { imm, .. } = &mut dfg.insts[i] {
        *imm = v.into()
    }
}
