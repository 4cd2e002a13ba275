//! The quick code of a page: where it lies, and the jumps from block to block.

use super::{
    super::jit::{Jit, code},
    Code, Stub, Way,
};
use std::time::Instant;

/// A piece in its place.
struct Placed {
    hot: code::Code,
    _cold: code::Code,
    handler: u16,
}
/// The code that all pieces share.
pub(in super::super) struct Common {
    code: code::Code,
    at: [usize; Stub::COUNT],
}
impl Common {
    /// Places it; nothing if there is no room.
    pub fn new(jit: &Jit, (code, at): (Vec<u8>, [usize; Stub::COUNT])) -> Option<Common> {
        let place = jit.reserve(code.len(), false)?;
        place.write(0, &code);
        Some(Common { code: place, at })
    }
    fn at(&self, what: Stub) -> *const u8 {
        self.code.at(self.at[what as usize])
    }
}
/// The pieces of a page.
#[derive(Default)]
pub(in super::super) struct Pieces {
    placed: Vec<Placed>,
    /// Those that begin a block: its offset, in order, and their number.
    blocks: Vec<(u16, u16)>,
    /// Jumps to blocks that have no code: offset of the block, piece, where the jump ends.
    waiting: Vec<(u16, u16, u32)>,
    /// Blocks that a region begins with.
    regions: Vec<u16>,
}
impl Pieces {
    /// Takes the code of `n` instructions, made since `started`, for the block at an offset or for the middle of one; `offset`
    /// gives that of the block a way leads to, `pc` is the address it is called after. Where handlers enter it, or nothing if there is no room.
    pub fn add(
        &mut self,
        jit: &Jit,
        common: &Common,
        code: &Code,
        block: Option<u16>,
        offset: impl Fn(Way) -> Option<u16>,
        (n, started, pc): (usize, Instant, u64),
    ) -> Option<*const u8> {
        let (hot, cold) = (jit.reserve(code.hot.len(), false)?, jit.reserve(code.cold.len(), true)?);
        hot.write(0, &code.hot);
        cold.write(0, &code.cold);
        jit.name_quick(&hot, &code.hot, pc);
        jit.name_quick(&cold, &code.cold, pc);
        for &(end, to) in &code.across {
            hot.link(end, cold.at(to))
        }
        for &(end, to) in &code.back {
            cold.link(end, hot.at(to))
        }
        for (part, list) in [(&hot, &code.stubs_hot), (&cold, &code.stubs_cold)] {
            list.iter().for_each(|&(end, what)| part.link(end, common.at(what)))
        }
        jit.show_quick([&hot, &cold], [code.hot.len(), code.cold.len()], pc);
        // (A page has 4096 offsets, and a piece 64 instructions.)
        let number = self.placed.len() as u16;
        let enter = hot.at(code.handler);
        self.placed.push(Placed { hot, _cold: cold, handler: code.handler as u16 });
        if let Some(off) = block {
            let at = self.blocks.partition_point(|b| b.0 < off);
            self.blocks.insert(at, (off, number));
            let (ready, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|w| w.0 == off);
            self.waiting = waiting;
            ready.into_iter().for_each(|w| self.link(w, number))
        }
        for &(end, way) in &code.ways {
            if let Some(off) = offset(way) {
                let jump = (off, number, end as u32);
                match self.block(off) {
                    Some(to) => self.link(jump, to),
                    None => self.waiting.push(jump),
                }
            }
        }
        jit.made_quick(n, code.hot.len() + code.cold.len(), started);
        Some(enter)
    }
    /// Bytes of code.
    pub fn bytes(&self) -> usize {
        self.placed.iter().map(|p| p.hot.len() + p._cold.len()).sum()
    }
    /// The piece that begins the block at an offset.
    fn block(&self, off: u16) -> Option<u16> {
        let at = self.blocks.binary_search_by_key(&off, |b| b.0).ok()?;
        Some(self.blocks[at].1)
    }
    fn link(&self, (_, piece, end): (u16, u16, u32), to: u16) {
        let [from, to] = [piece, to].map(|n| &self.placed[n as usize].hot);
        from.link(end as usize, to.at(0))
    }
    /// The region that the block at an offset began with is gone.
    pub fn no_region(&mut self, common: &Common, off: u16) {
        let Some(at) = self.regions.iter().position(|&r| r == off) else { return };
        self.regions.swap_remove(at);
        if let Some(n) = self.block(off) {
            // (What `region` replaced.)
            const JE: [u8; 2] = [0x0f, 0x84];
            let p = &self.placed[n as usize];
            let handler = p.handler as usize;
            p.hot.write(handler - 6, &JE);
            p.hot.link(handler, common.at(Stub::GotHot))
        }
    }
    /// The block at an offset begins with a region: whoever comes from other code goes to the op's handler.
    pub fn region(&mut self, common: &Common, off: u16) {
        if let Some(n) = self.block(off)
            && !self.regions.contains(&off)
        {
            // In place of the jump to the handler of hot blocks, which ends what is paid with.
            const NOP_JMP: [u8; 2] = [0x90, 0xe9];
            let p = &self.placed[n as usize];
            let handler = p.handler as usize;
            p.hot.write(handler - 6, &NOP_JMP);
            p.hot.link(handler, common.at(Stub::Handler));
            self.regions.push(off)
        }
    }
}
