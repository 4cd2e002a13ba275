//! What is known of instructions: their forms by number, the handlers of those, and decoded instructions of pages whose code was
//! overwritten, for most of what is decoded anew there is as it was.

use super::{
    env::{Run, mark},
    target::{Decoded, Short, Target},
};
use rustc_hash::{FxHashMap, FxHashSet};

/// Instructions that are remembered.
const REMEMBERED: usize = 4096;
/// Pages known to have been overwritten.
const PAGES: usize = 1024;

/// A decoded instruction and the number of its form.
#[derive(Clone, Copy)]
pub(crate) struct Insn<F> {
    pub d: Decoded<F>,
    pub form: u16,
}
/// One that is remembered, by what it was decoded from.
#[derive(Clone, Copy)]
struct Entry<F> {
    bytes: [u8; 15],
    off: u16,
    mode: u32,
    insn: Insn<F>,
}
/// The handlers of a form: for when its flags are dead, and live; and whether it begins a pair that has one.
#[derive(Clone, Copy)]
struct Runs<T: Target> {
    run: [Option<Run<T>>; 2],
    pairs: bool,
}

/// Forms, handlers, instructions.
pub(crate) struct Known<T: Target> {
    /// All forms seen, by number: the index in ops.
    pub forms: Vec<T::Form>,
    runs: Vec<Runs<T>>,
    ids: FxHashMap<T::Form, u16>,
    handlers: FxHashMap<(T::Form, bool), Run<T>>,
    pairs: FxHashMap<(T::Form, T::Form, bool), Run<T>>,
    begins: FxHashSet<T::Form>,
    /// Host addresses of pages that were overwritten.
    overwritten: FxHashSet<usize>,
    /// By [`slot`], or empty.
    remembered: Vec<Option<Entry<T::Form>>>,
}

fn slot(code: &[u8], off: u32) -> usize {
    let mut first = [0; 8];
    let n = code.len().min(8);
    first[..n].copy_from_slice(&code[..n]);
    let h = (u64::from_le_bytes(first) ^ u64::from(off) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (h >> 48) as usize % REMEMBERED
}

impl<T: Target> Known<T> {
    pub fn new() -> Known<T> {
        let h = T::handlers();
        let rows = |t: &'static [[Option<super::Handler<T>>; 16]]| t.iter().flatten().flatten().map(|h| h.0);
        Known {
            forms: Vec::new(),
            runs: Vec::new(),
            ids: FxHashMap::default(),
            handlers: T::FORMS.iter().copied().zip(rows(h.forms)).collect(),
            pairs: T::PAIRS.iter().copied().zip(rows(h.pairs)).collect(),
            begins: T::PAIRS.iter().map(|p| p.0).collect(),
            overwritten: FxHashSet::default(),
            remembered: Vec::new(),
        }
    }
    /// The number of a form.
    ///
    /// # Panics
    /// The target has too many.
    fn id(&mut self, f: T::Form) -> u16 {
        if let Some(&id) = self.ids.get(&f) {
            return id;
        }
        let id = u16::try_from(self.forms.len()).expect("a target has fewer than 16384 forms");
        assert!(id < mark::FORM, "a target has fewer than 16384 forms");
        self.forms.push(f);
        let run = [false, true].map(|live| self.handlers.get(&(f, live)).copied());
        self.runs.push(Runs { run, pairs: self.begins.contains(&f) });
        self.ids.insert(f, id);
        id
    }
    /// The handler of an instruction, if its form has one of its own; `live`: somebody reads its flags.
    pub fn run(&self, i: &Insn<T::Form>, live: bool) -> Option<Run<T>> {
        let run = &self.runs[i.form as usize].run;
        // (Flags that are dead may be computed all the same.)
        run[live as usize].or(run[!live as usize].filter(|_| i.d.writes == 0 || !live))
    }
    /// The handler of two instructions together.
    pub fn pair(&self, a: &Insn<T::Form>, live: bool, b: &Insn<T::Form>) -> Option<Run<T>> {
        if !self.runs[a.form as usize].pairs {
            return None;
        }
        self.pairs.get(&(a.d.form, b.d.form, live)).copied()
    }
    /// The code of a page was overwritten: what is decoded there is worth remembering.
    pub fn overwritten(&mut self, host: usize) {
        if self.overwritten.len() >= PAGES {
            self.overwritten.clear()
        }
        self.overwritten.insert(host);
    }
    /// Forgets instructions.
    pub fn rest(&mut self) {
        self.overwritten = FxHashSet::default();
        self.remembered = Vec::new()
    }
    /// Decodes the instruction `code` begins with, at `off` of the page at `host`.
    ///
    /// # Errors
    /// It is longer than `code`.
    pub fn decode(&mut self, host: usize, code: &[u8], off: u32, mode: u32) -> Result<Insn<T::Form>, Short> {
        let remember = self.overwritten.contains(&host);
        if remember {
            if self.remembered.is_empty() {
                self.remembered = vec![None; REMEMBERED]
            }
            if let Some(e) = &self.remembered[slot(code, off)]
                && (u32::from(e.off), e.mode) == (off, mode)
                && code.starts_with(&e.bytes[..usize::from(e.insn.d.len).min(15)])
            {
                return Ok(e.insn);
            }
        }
        let d = T::decode(code, off, mode)?;
        let insn = Insn { d, form: self.id(d.form) };
        if remember && let (Ok(off16), n) = (u16::try_from(off), usize::from(d.len).min(15)) {
            let mut bytes = [0; 15];
            bytes[..n].copy_from_slice(&code[..n]);
            self.remembered[slot(code, off)] = Some(Entry { bytes, off: off16, mode, insn });
        }
        Ok(insn)
    }
}
