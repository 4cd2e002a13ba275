//! Code for blocks that are warm: handlers made at run time.
//!
//! A *piece* is the code of the instructions of a block, or of some of them, and has the calling convention of a handler:
//! the op at which it begins gets it as its handler, and it ends by going to the next op's handler. An instruction it has
//! no code for (vectors, x87, division, whatever is rare) ends the piece and runs by its own handler; another piece begins
//! behind it. A piece that cannot go on (a miss in the TLB, a segment's limit) goes to the own handler of the instruction in
//! question: nothing of it has been done, and registers and flags are in the env.
//!
//! A block's code jumps straight to that of other blocks of its page, as soon as they have some: the code of a page goes as one.
//! There it enters before the place where handlers enter, and pays for the block first. Where a region begins at the block, the
//! last of those instructions is replaced by a jump to the op's handler.
//!
//! | module | what |
//! |---|---|
//! | `record` | the meaning of the instructions as a list of steps |
//! | `emit`, `vectors`, `ways` | steps as host code, on registers, on vectors, out of the piece |
//! | `uses` | which values are used |
//! | `asm`, `xasm` | host instructions, on vector registers |
//! | `pieces` | the code of a page: where it lies, jumps from block to block |
//!
//! Unlike tier 1 it compiles on the vCPU's thread, a block at a time, for less than the block costs to be interpreted some
//! hundred times; registers live in the env between blocks.

mod asm;
mod emit;
mod pieces;
mod record;
mod uses;
mod vectors;
mod ways;
mod xasm;

use super::{
    env::{Env, Hot, JC, JcEntry, Op, Shared, mark},
    jit::{self, Jit},
    ops::{Flow, W},
    target::Target,
    tier0::{got_hot, lost, stopped},
    tlb::{REGIMES, TLB, TlbEntry},
};
pub(super) use emit::{Code, Stub, Way};
use emit::{Emitter, Layout};
pub(super) use pieces::{Common, Pieces};
use record::{Ending, Piece, Recorder};
use std::mem::offset_of;

/// The host has the instructions it makes (BMI1, BMI2, LZCNT, POPCNT).
pub(super) fn available() -> bool {
    ["bmi1", "bmi2", "lzcnt", "popcnt"].iter().all(|f| match *f {
        "bmi1" => std::arch::is_x86_feature_detected!("bmi1"),
        "bmi2" => std::arch::is_x86_feature_detected!("bmi2"),
        "lzcnt" => std::arch::is_x86_feature_detected!("lzcnt"),
        _ => std::arch::is_x86_feature_detected!("popcnt"),
    })
}

/// The quick compiler of a vCPU.
pub(super) struct Quick {
    piece: Piece,
    emitter: Emitter,
    pub common: Common,
}

fn layout<T: Target>(mode: u32) -> Layout {
    let regime = (mode >> 24) as usize % REGIMES;
    let hot = |field: usize| (offset_of!(Env<T>, hot) + field) as i32;
    let tlb = |field: usize| (offset_of!(Env<T>, tlb) + regime * size_of::<TlbEntry>() * TLB + field) as i32;
    let jc = |field: usize| (offset_of!(Env<T>, jc) + field) as i32;
    let entry = size_of::<TlbEntry>().trailing_zeros();
    Layout {
        regs: hot(offset_of!(Hot, regs)),
        x: hot(offset_of!(Hot, x)),
        cc: hot(offset_of!(Hot, cc)),
        cc_v: hot(offset_of!(Hot, cc_v)),
        budget: hot(offset_of!(Hot, budget)),
        exit_request: (offset_of!(Env<T>, shared) + offset_of!(Shared, exit_request)) as i32,
        salt: hot(offset_of!(Hot, salt)),
        tlb_read: tlb(offset_of!(TlbEntry, read)),
        tlb_write: tlb(offset_of!(TlbEntry, write)),
        tlb_addend: tlb(offset_of!(TlbEntry, addend)),
        tlb_mask: ((TLB - 1) << entry) as i32,
        tlb_shift: 12 - entry as u8,
        jc_key: jc(offset_of!(JcEntry<T>, key)),
        jc_op: jc(offset_of!(JcEntry<T>, op)),
        jc_mask: JC as i32 - 1,
        jc_size_log: size_of::<JcEntry<T>>().trailing_zeros() as u8,
        op_size: size_of::<Op<T>>() as i32,
        op_run: offset_of!(Op<T>, run) as i32,
        op_imm: offset_of!(Op<T>, imm) as i32,
        op_n: offset_of!(Op<T>, n) as i32,
        op_heat: offset_of!(Op<T>, heat) as i32,
        stopped: stopped::<T> as *const () as usize,
        got_hot: got_hot::<T> as *const () as usize,
        lost: lost::<T> as *const () as usize,
        look: jit::look::<T> as *const () as usize,
        flag_values: T::flag_values,
    }
}

impl Quick {
    /// A compiler for the target; nothing if there is no room for code.
    pub fn new<T: Target>(jit: &Jit) -> Option<Quick> {
        let common = Common::new(jit, ways::stubs(&layout::<T>(0)))?;
        Some(Quick { piece: Piece::default(), emitter: Emitter::default(), common })
    }
    /// The code of the longest piece at the start of `ops`, the instructions of a block from one of them on: the number of ops
    /// it has (the one behind the last is not for a piece), and the code, if there is any. `own` gives the address of an op's
    /// own handler, `head` is the address of the first if a block begins with it, `guess` the likely
    /// producer of the flags before it.
    pub fn piece<T: Target>(
        &mut self,
        ops: &[Op<T>],
        forms: &[T::Form],
        mode: u32,
        own: impl Fn(usize) -> usize,
        head: Option<usize>,
        guess: Option<(u8, W)>,
    ) -> (usize, Option<Code>) {
        let Some(first) = ops.first() else { return (0, None) };
        let mut r = Recorder::new(&mut self.piece, *first, guess);
        let (mut n, mut end) = (0, None);
        for op in ops {
            match r.record(*op, forms[op.form()], n, op.form & mark::LIVE != 0) {
                Err(_) => {
                    end = Some(Ending::Own(n));
                    break;
                }
                Ok(Flow::Next) => n += 1,
                Ok(flow) => {
                    r.settle();
                    end = Some(match flow {
                        Flow::If(c) => Ending::If(c, n),
                        Flow::To(t) => Ending::To(r.arg(t)),
                        _ => Ending::Goto(n),
                    });
                    n += 1;
                    break;
                }
            }
        }
        r.settle();
        let end = end.unwrap_or(Ending::Next(n));
        if n == 0 {
            return (n, None);
        }
        let head = head.map(|op| (op, first.n));
        (n, self.emitter.emit(&self.piece, end, &layout::<T>(mode), own, head).ok())
    }
    /// Shows what was recorded last (`-d op`); `pc` is its address.
    pub fn show_steps(&self, pc: u64) {
        let steps = self.piece.steps.iter().enumerate();
        let text: String = steps.map(|(n, step)| format!(" v{n} = {step:?}\n")).collect();
        tracing::trace!(target: "op", "OP:\n-- guest addr {pc:#018x} quick\n{text}");
    }
}
