//! `-d exec,cpu`: a vCPU that runs one instruction at a time and tells of each block it enters.
//!
//! A block is what it is in tier 0: it ends at a branch, or where control goes elsewhere. No region runs meanwhile, so nothing is
//! left out.
#![expect(unsafe_code, reason = "looks at the env between two instructions")]

use super::{
    super::{
        engine::{Exit, Vcpu},
        env::{hot, inner, pages, state},
        target::Target,
    },
    wanted,
};

/// Where the block that runs goes on.
#[derive(Clone, Copy, Default)]
pub(crate) struct Within {
    /// The instruction that was run last, unless it ended its block.
    last: Option<u64>,
    /// The one after it.
    next: u64,
    /// The pc and the budget when they were looked at last: if they still are those, nothing was run.
    at: (u64, i64),
}

/// Somebody wants to hear of every block.
pub(crate) fn is_wanted() -> bool {
    wanted!("exec") || wanted!("cpu")
}

impl<T: Target> Vcpu<T> {
    /// As the run loop, but tells of blocks.
    pub(crate) fn run_traced(&mut self) -> Exit {
        loop {
            if let Some(exit) = self.attend() {
                return exit;
            }
            if self.budget() <= 0 {
                return Exit::Budget;
            }
            self.enter_traced();
            if let Some(exit) = self.step_one() {
                return exit;
            }
        }
    }
    /// Tells of the instruction at the pc, if a block begins there.
    fn enter_traced(&mut self) {
        self.update_mode();
        let (pc, budget) = (self.pc(), self.budget());
        let within = self.within();
        if within.at == (pc, budget) {
            return;
        }
        let inside = within.last.is_some_and(|last| pc == last || pc == within.next);
        // (What cannot be fetched is not entered.)
        let Ok(op) = self.fetch_one(pc) else {
            *self.within() = Within::default();
            return;
        };
        let env = self.env();
        // SAFETY: `&mut self`: nothing runs; the op lives until the next one takes its place.
        let (len, ends, mode, group) = unsafe {
            let n = &*inner(env);
            ((*op).len_scale & 15, (*pages(env)).ends_block(op), n.mode, n.group.clone())
        };
        *self.within() = Within {
            last: (!ends).then_some(pc),
            next: pc.wrapping_add(len.into()) & T::address_mask(mode),
            at: (pc, budget),
        };
        if inside || !group.insight.covers(pc) {
            return;
        }
        // SAFETY: `&mut self`: nothing runs; distinct cells.
        let (h, s) = unsafe { (&*hot(env), &*state(env)) };
        if wanted!("exec") {
            let base = T::code_base(s);
            let cpu = self.number();
            tracing::trace!(target: "exec", "Trace {cpu}: {op:p} [{base:08x}/{pc:016x}/{mode:08x}/00000000] ");
        }
        if wanted!("cpu") {
            tracing::trace!(target: "cpu", "{}", T::dump(h, s, pc, wanted!("fpu")));
        }
    }
}
