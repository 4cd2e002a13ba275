//! Which instructions make up a region: what was executed of a page and the next one, from a hot block on.
//!
//! A region follows direct branches and fall-through inside its pages, only to blocks that tier 0 has entered. It is entered
//! in the first page. It ends at code that was never run, and at a number of instructions.

use super::super::target::{Decoded, End, Target};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Longest region in instructions. (Its instructions are counted in one go before a loop is entered again.)
pub(super) const LONGEST: usize = 800;
/// The same where blocks are short.
const LONG: usize = 400;
/// Instructions in a block, on average, of regions that may be longer than that: where much is unrolled, what is kept in registers is worth
/// more, and what is compiled for nothing is less.
const UNROLLED: usize = 40;
/// Most ways into a region.
const ENTRIES: usize = 16;

/// A set of offsets in two pages.
#[derive(Clone)]
pub(crate) struct Offsets([u64; 128]);
impl Offsets {
    /// No offset.
    pub fn new() -> Offsets {
        Offsets([0; 128])
    }
    /// Adds one, below 8192.
    pub fn add(&mut self, off: u16) {
        self.0[off as usize >> 6 & 127] |= 1 << (off & 63)
    }
    /// Whether it is in.
    pub fn has(&self, off: u16) -> bool {
        self.0[off as usize >> 6 & 127] >> (off & 63) & 1 != 0
    }
}

/// A hot block: what is compiled, as it was when the block got hot.
pub(crate) struct Request {
    /// Host address of the page.
    pub host: usize,
    /// That of the next one, if it may be part of it.
    pub next: Option<usize>,
    /// Mode of the code, the regime in bits 24 and up.
    pub mode: u32,
    /// Linear address of the page where the block was met: for people, code does not depend on it.
    pub page: u64,
    /// Offset of the block.
    pub off: u16,
    /// The pages.
    pub bytes: Vec<u8>,
    /// Instructions that are decoded.
    pub decoded: Offsets,
    /// Blocks that were entered.
    pub executed: Offsets,
    /// How many regions there were.
    pub after: u64,
    /// Accesses whose checks are not to cover others: offsets of instructions, ascending.
    pub narrow: Vec<u16>,
}

impl Request {
    /// Whether a block at a linear offset from the page was entered.
    pub fn was_run(&self, off: i64) -> bool {
        inside(self.bytes.len(), off).is_some_and(|o| self.executed.has(o))
    }
}

/// An instruction of a region.
pub(super) struct Insn<T: Target> {
    pub d: Decoded<T::Form>,
    pub off: u16,
    /// Flags somebody may read after it.
    pub live_out: u32,
}
/// Where control goes at a block's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Edge {
    /// To a block of the region.
    In(usize),
    /// To a linear offset from the page.
    Out(i64),
}
/// A block of a region.
pub(super) struct Shape {
    /// Its instructions.
    pub insns: std::ops::Range<usize>,
    /// Target of the direct branch it ends with.
    pub taken: Option<Edge>,
    /// Where it goes on otherwise, unless it ends with a branch that always leaves.
    pub next: Option<Edge>,
    /// Edges to it, ways into the region included.
    pub edges: usize,
    /// It can be entered from outside.
    pub entry: bool,
    /// Flags somebody may read at its start.
    pub live_in: u32,
}
/// A region: instructions in blocks, by offset.
pub(super) struct Plan<T: Target> {
    pub insns: Vec<Insn<T>>,
    pub blocks: Vec<Shape>,
    /// Blocks that can be entered, the hot one first.
    pub entries: Vec<usize>,
    pub mode: u32,
    /// Where the second page lies, if it is part of it.
    pub next: Option<usize>,
    /// Its instructions of [`Request::narrow`].
    pub narrow: Vec<u16>,
}

impl<T: Target> Plan<T> {
    /// The region of a hot block, which ends where one of `others` begins; nothing if its first instruction cannot be in one.
    pub fn of(q: &Request, others: &Offsets) -> Option<Plan<T>> {
        let size = q.bytes.len();
        let mut found: BTreeMap<u16, Decoded<T::Form>> = BTreeMap::new();
        let (mut heads, mut entries) = (BTreeSet::from([q.off]), vec![q.off]);
        let mut todo = VecDeque::from([q.off]);
        while let Some(head) = todo.pop_front() {
            let mut off = head;
            while !found.contains_key(&off) && found.len() < longest(heads.len()) && q.decoded.has(off) {
                let Ok(d) = T::decode(&q.bytes[off as usize..], off.into(), q.mode) else { break };
                found.insert(off, d);
                let next = off + d.len as u16;
                let mut to = Vec::new();
                if let End::Goto(t) | End::If(t) = d.end
                    && let Some(t) = inside(size, t)
                {
                    to.push(t);
                    if t <= off && t < 4096 && !entries.contains(&t) && entries.len() < ENTRIES {
                        entries.push(t)
                    }
                }
                if d.end != End::Next && (next as usize) < size {
                    to.push(next);
                    // Calls come back here.
                    if !matches!(d.end, End::If(_))
                        && q.executed.has(next)
                        && next < 4096
                        && !entries.contains(&next)
                        && entries.len() < ENTRIES
                    {
                        entries.push(next)
                    }
                }
                for t in to {
                    if q.executed.has(t) && q.decoded.has(t) && !others.has(t) && heads.insert(t) {
                        todo.push_back(t)
                    }
                }
                if d.end != End::Next || next as usize >= size || others.has(next) {
                    break;
                }
                off = next;
            }
        }
        heads.retain(|h| found.contains_key(h));
        // (Where the next page lies is looked at on the way from one page to the other, not at entries.)
        entries.retain(|e| heads.contains(e) && *e as usize + found[e].len as usize <= 4096);
        if entries.first() != Some(&q.off) {
            return None;
        }
        Some(Self::build(q, found, &heads, &entries))
    }

    fn build(q: &Request, found: BTreeMap<u16, Decoded<T::Form>>, heads: &BTreeSet<u16>, entries: &[u16]) -> Plan<T> {
        let size = q.bytes.len();
        // (Instructions may overlap: a block's are those from its head on, by length.)
        let number: BTreeMap<u16, usize> = heads.iter().enumerate().map(|(i, &h)| (h, i)).collect();
        let edge = |off: i64| match inside(size, off).and_then(|o| number.get(&o)) {
            Some(&b) => Edge::In(b),
            None => Edge::Out(off),
        };
        let (mut insns, mut blocks) = (Vec::new(), Vec::new());
        for &head in heads {
            let (first, mut off) = (insns.len(), head);
            let (mut taken, mut next) = (None, None);
            while let Some(d) = found.get(&off) {
                insns.push(Insn { d: *d, off, live_out: 0 });
                off += d.len as u16;
                match d.end {
                    End::Next if (off as usize) < size && !number.contains_key(&off) && found.contains_key(&off) => {
                        continue;
                    }
                    End::Next => next = Some(edge(off.into())),
                    End::Goto(t) => taken = Some(edge(t)),
                    End::If(t) => (taken, next) = (Some(edge(t)), Some(edge(off.into()))),
                    End::To => {}
                    // A rare instruction that leaves by itself, or goes on behind it.
                    End::Stop => next = Some(Edge::Out(off.into())),
                }
                break;
            }
            let entry = entries.contains(&head);
            blocks.push(Shape { insns: first..insns.len(), taken, next, edges: 0, entry, live_in: 0 });
        }
        for i in 0..blocks.len() {
            for e in [blocks[i].taken, blocks[i].next] {
                if let Some(Edge::In(b)) = e {
                    blocks[b].edges += 1
                }
            }
            blocks[i].edges += blocks[i].entry as usize;
        }
        let entries = entries.iter().map(|e| number[e]).collect();
        let spans = insns.iter().any(|i| i.off as usize + i.d.len as usize > 4096);
        let narrow = q.narrow.iter().copied().filter(|o| insns.iter().any(|i| i.off == *o)).collect();
        let mut plan = Plan { insns, blocks, entries, mode: q.mode, next: q.next.filter(|_| spans), narrow };
        plan.flags();
        plan
    }

    /// Flags that are read before they are overwritten: at a fault, at a way out, or by an instruction.
    fn flags(&mut self) {
        let mut again = true;
        while again {
            again = false;
            for b in (0..self.blocks.len()).rev() {
                let s = &self.blocks[b];
                let at = |e: Option<Edge>| match e {
                    Some(Edge::In(t)) => self.blocks[t].live_in,
                    Some(Edge::Out(_)) => T::ALL_FLAGS,
                    None => 0,
                };
                let mut live =
                    if s.taken.is_none() && s.next.is_none() { T::ALL_FLAGS } else { at(s.taken) | at(s.next) };
                for i in self.insns[s.insns.clone()].iter_mut().rev() {
                    i.live_out = live;
                    let exact = i.d.faults || T::is_rare(i.d.form);
                    live = if exact { T::ALL_FLAGS } else { live & !i.d.writes | i.d.reads };
                }
                if self.blocks[b].live_in != live {
                    self.blocks[b].live_in = live;
                    again = true
                }
            }
        }
    }

    /// Blocks in an order in which those that only one edge leads to come after where it comes from.
    pub fn order(&self) -> Vec<usize> {
        let (mut seen, mut post) = (vec![false; self.blocks.len()], Vec::new());
        for &e in self.entries.iter().rev() {
            let mut stack = vec![(e, 0)];
            if std::mem::replace(&mut seen[e], true) {
                continue;
            }
            while let Some((b, k)) = stack.pop() {
                let s = &self.blocks[b];
                match [s.taken, s.next].get(k) {
                    None => post.push(b),
                    Some(to) => {
                        stack.push((b, k + 1));
                        if let Some(Edge::In(t)) = *to
                            && !std::mem::replace(&mut seen[t], true)
                        {
                            stack.push((t, 0))
                        }
                    }
                }
            }
        }
        post.reverse();
        post
    }
    /// By block, its place in [`order`](Self::order): each way round has an edge that does not lead to a later place.
    pub fn places(&self) -> Vec<usize> {
        let mut place = vec![usize::MAX; self.blocks.len()];
        self.order().into_iter().enumerate().for_each(|(i, b)| place[b] = i);
        place
    }
    /// By block, whether ways meet there that all come from earlier places, and none from outside.
    pub fn joins(&self, place: &[usize]) -> Vec<bool> {
        let mut joins: Vec<_> = self.blocks.iter().map(|s| !s.entry).collect();
        for (b, s) in self.blocks.iter().enumerate() {
            for e in [s.taken, s.next] {
                if let Some(Edge::In(t)) = e {
                    joins[t] &= place[b] < place[t]
                }
            }
        }
        joins
    }
    /// Control goes to the instruction at `to` from one whose bytes end at `end`: is it the first of them with bytes of the
    /// second page?
    pub fn crosses(&self, end: usize, to: &Insn<T>) -> bool {
        end <= 4096 && to.off as usize + to.d.len as usize > 4096
    }
    /// The bytes it was made from, as ranges of its pages.
    pub fn ranges(&self) -> Vec<std::ops::Range<usize>> {
        let mut all: Vec<_> = self.insns.iter().map(|i| i.off as usize..i.off as usize + i.d.len as usize).collect();
        all.sort_by_key(|r| r.start);
        let mut out: Vec<std::ops::Range<usize>> = Vec::new();
        for r in all.into_iter().flat_map(|r| [r.start..r.end.min(4096), r.start.max(4096)..r.end]) {
            match out.last_mut() {
                _ if r.is_empty() => {}
                Some(l) if r.start <= l.end && r.start != 4096 => l.end = l.end.max(r.end),
                _ => out.push(r),
            }
        }
        out
    }
}
/// The most instructions that a region with so many blocks may have.
fn longest(blocks: usize) -> usize {
    if blocks * UNROLLED <= LONG { LONGEST } else { LONG }
}
fn inside(size: usize, off: i64) -> Option<u16> {
    u16::try_from(off).ok().filter(|&o| (o as usize) < size)
}
