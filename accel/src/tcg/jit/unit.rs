//! x87 instructions in regions: calls of the host's own ([`unit`](super::super::unit)) with all registers live. The unit's
//! pointers are stored on the ways out only.

use super::{
    super::{env::Hot, ops::W, target::Target, unit::Held},
    frame::*,
};
use cranelift_codegen::ir::{InstBuilder, Value, types::I64};
use std::mem::offset_of;

/// Pointers of the unit.
#[derive(Clone, Copy)]
pub(super) struct Note {
    /// Offset of the last instruction in the page.
    off: u16,
    /// Offset and segment number of its memory operand.
    data: Option<(Term, u8)>,
}

impl<T: Target> Clif<'_, '_, T> {
    /// The guest's unit is in the host's for what follows.
    pub(super) fn hold_unit(&mut self) {
        if std::mem::replace(&mut self.s.unit, true) {
            return;
        }
        let at = hot_at(offset_of!(Hot, unit) + offset_of!(Held, held));
        let held = self.b.ins().load(I64, ENV, self.env, at);
        let (load, go_on) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(load);
        self.b.ins().brif(held, go_on, &[], load, &[]);
        self.b.switch_to_block(load);
        self.b.seal_block(load);
        let thunk = self.k(I64, self.thunks.unit as u64);
        self.call_quietly(thunk, self.env);
        self.b.ins().jump(go_on, &[]);
        self.b.switch_to_block(go_on);
        self.b.seal_block(go_on);
    }
    /// Calls an instruction's routine.
    pub(super) fn on_unit(&mut self, routine: usize, at: Option<Value>) {
        self.hold_unit();
        let routine = self.k(I64, routine as u64);
        self.call_quietly(routine, at.unwrap_or(self.env));
    }
    /// Where operands of the region's own lie.
    pub(super) fn scratch(&mut self) -> Value {
        let k = self.k(I64, hot_at(offset_of!(Hot, scratch)) as u64);
        self.b.ins().iadd(self.env, k)
    }
    /// This instruction's address and the offset of its memory operand are the unit's pointers.
    pub(super) fn note(&mut self, data: Option<Term>) {
        let old = self.s.note.and_then(|n| n.data);
        self.s.note = Some(Note { off: self.off, data: data.map(|d| (d, self.d.seg)).or(old) })
    }
    /// Stores the unit's pointers.
    pub(super) fn store_note(&mut self) {
        let Some(n) = self.s.note.take() else { return };
        let at = |field| offset_of!(Hot, unit) + field;
        let ip = self.val(W::B8, Term { root: Some(self.base), off: n.off.into() });
        self.store_hot(ip, at(offset_of!(Held, ip)));
        if let Some((offset, seg)) = n.data {
            let v = self.val(W::B8, offset);
            self.store_hot(v, at(offset_of!(Held, offset)));
            let seg = self.k(I64, seg.into());
            self.store_hot(seg, at(offset_of!(Held, seg)));
        }
    }
}
