//! The pass back: which steps are needed, and how often and how long their values.

use super::{
    emit::Emitter,
    record::{Arg, Cond, Ending, Exit, Piece, Step, Val},
};

impl Emitter {
    pub(super) fn count(&mut self, p: &Piece, end: Ending) {
        let n = p.steps.len();
        for v in [&mut self.uses, &mut self.last] {
            v.clear();
            v.resize(n, 0)
        }
        self.live.clear();
        self.live.resize(n, false);
        match end {
            Ending::If(c, _) => self.use_cond(c, n as u16),
            Ending::To(a) => self.use_arg(a, n as u16),
            _ => {}
        }
        let mut exits = p.exits.iter().rev().peekable();
        // Registers that are written again before anybody can see them.
        let mut over = 0u32;
        for i in (0..n).rev() {
            let at = i as u16;
            let effect = match p.steps[i] {
                Step::Set(slot, _) => {
                    let seen = over >> slot & 1 == 0;
                    over |= 1 << slot;
                    seen
                }
                Step::Get(_, slot) => {
                    over &= !(1 << slot);
                    false
                }
                Step::Check(_) | Step::LeaveIf(_) | Step::Producer(..) => {
                    over = 0;
                    true
                }
                Step::Store(..) | Step::XStore(..) | Step::XSet(..) | Step::Flags(_) | Step::FlagsIf(..) => true,
                _ => false,
            };
            let times = self.uses[i];
            if !effect && times == 0 {
                continue;
            }
            self.live[i] = true;
            match p.steps[i] {
                Step::Const(_) | Step::Get(..) | Step::GetFlag(_) | Step::XGet(_) => {}
                Step::Producer(..) => self.use_exit(p, &mut exits, at),
                Step::Bin(_, _, a, b) => {
                    self.use_arg(a, at);
                    self.use_arg(b, at)
                }
                Step::Un(_, _, a) | Step::Sext(_, _, a) | Step::Trunc(_, a) | Step::Load(_, a, _) => {
                    self.use_val(a, at)
                }
                Step::XMask(_, a)
                | Step::XLow(_, a)
                | Step::XHigh(a)
                | Step::XLoad(a, _)
                | Step::XShift(_, a, _)
                | Step::XZext(_, a)
                | Step::XSet(_, a) => self.use_val(a, at),
                Step::Merge(_, a, b)
                | Step::MulHigh(a, b)
                | Step::XBin(_, a, b)
                | Step::XShuffle(_, a, b, _)
                | Step::XMerge(_, a, b)
                | Step::XStore(a, _, b) => {
                    self.use_val(a, at);
                    self.use_val(b, at)
                }
                Step::Select(_, c, t, f) => {
                    self.use_cond(c, at);
                    self.use_arg(t, at);
                    self.use_arg(f, at)
                }
                Step::Bit(c) => self.use_cond(c, at),
                Step::Check(g) => {
                    self.use_val(p.groups[g as usize].root, at);
                    self.use_exit(p, &mut exits, at)
                }
                Step::LeaveIf(c) => {
                    self.use_cond(c, at);
                    self.use_exit(p, &mut exits, at)
                }
                // A condition is made anew wherever it is used.
                Step::Cmp(_, _, a, b) => {
                    for _ in 0..times {
                        self.use_arg(a, self.last[i]);
                        self.use_arg(b, self.last[i])
                    }
                }
                Step::Both(_, a, b) => {
                    for _ in 0..times {
                        self.use_cond(a, self.last[i]);
                        self.use_cond(b, self.last[i])
                    }
                }
                Step::Parity(a) => {
                    for _ in 0..times {
                        self.use_val(a, self.last[i])
                    }
                }
                Step::Store(_, a, _, v) => {
                    self.use_val(a, at);
                    self.use_arg(v, at)
                }
                Step::Set(_, v) => self.use_arg(v, at),
                Step::Flags(n) => self.use_flags(p, n, at),
                Step::FlagsIf(c, n) => {
                    self.use_cond(c, at);
                    self.use_flags(p, n, at)
                }
            }
        }
    }
    fn use_val(&mut self, v: Val, by: u16) {
        self.uses[v as usize] += 1;
        self.last[v as usize] = self.last[v as usize].max(by)
    }
    fn use_arg(&mut self, a: Arg, by: u16) {
        if let Arg::V(v) = a {
            self.use_val(v, by)
        }
    }
    fn use_cond(&mut self, c: Cond, by: u16) {
        if let Cond::Of(v, _) = c {
            self.use_val(v, by)
        }
    }
    fn use_flags(&mut self, p: &Piece, n: u16, by: u16) {
        for a in p.flags[n as usize].v {
            self.use_arg(a, by)
        }
    }
    fn use_exit<'a>(&mut self, p: &Piece, exits: &mut std::iter::Peekable<impl Iterator<Item = &'a Exit>>, at: u16) {
        if let Some(e) = exits.next_if(|e| e.at == at)
            && let Some(n) = e.flags
        {
            self.use_flags(p, n, at)
        }
    }
}
