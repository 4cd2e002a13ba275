//! What a guest architecture tells the engine. All of it is safe code.

use super::{
    env::Hot,
    mem::{Cpu, Phys},
    ops::*,
    unit::{Image, Last},
};
use std::{fmt::Debug, hash::Hash};

/// A guest architecture.
///
/// `pc` is always a *linear* address: the target adds and subtracts its code segment's base.
pub trait Target: Sized + Send + 'static {
    /// All that is known of an instruction before its operands: operation, width, operand kinds. A plain value.
    type Form: Copy + Eq + Hash + Debug + Send + Sync + 'static;
    /// Registers that handlers do not touch.
    type State: Send + 'static;
    /// An exception on its way to [`deliver`](Self::deliver).
    type Fault: Copy + Debug + Send + 'static;
    /// Tier 0 gets one handler per row: a form, and whether its flags are kept.
    const FORMS: &'static [(Self::Form, bool)];
    /// Neighbours that run as one handler; the second sees the first's flags unstored.
    const PAIRS: &'static [(Self::Form, Self::Form, bool)];
    /// Producer and width of flags that were [settled](Self::settle).
    const SETTLED: (u8, W);
    /// The same flags by the producer [`SETTLED`](Self::SETTLED).
    fn settle(d: Deferred<u64>) -> Deferred<u64>;
    /// Which of the three values of a producer's flags mean anything: a bit each.
    fn flag_values(kind: u8) -> u8;
    /// All flags after an instruction that replaced some of the `old` ones.
    fn complete<O: Ops>(o: &mut O, old: Deferred<O::V>, p: Partly<O::V>) -> Deferred<O::V>;
    /// All flags, in the numbering of [`Decoded::reads`].
    const ALL_FLAGS: u32;
    /// Tables made by `tcg_handlers!`.
    fn handlers() -> super::tier0::Handlers<Self>;
    /// For each row of [`FORMS`](Self::FORMS) the number of its family of operations.
    const FAMILIES: &'static [u8];
    /// Likewise for the rows of [`PAIRS`](Self::PAIRS).
    const PAIR_FAMILIES: &'static [(u8, u8)];
    /// The meaning of every instruction, for every tier. Must be `#[inline(always)]`, and begin with a match on
    /// `const { K::FAMILY }`, so that a handler is compiled from its own family's code only.
    fn run<E: Emit, K: Family>(e: &mut E, f: Self::Form) -> Step<E>;
    /// The meaning of the rest, on the whole CPU; tier 0 only.
    fn rare(cpu: &mut Cpu<'_, Self>, f: Self::Form) -> Rare<Self::Fault>;
    /// Runs a rare form that touches nothing but registers, if it is one and does not fault: as [`rare`](Target::rare) would, which
    /// is not asked then. Not used while the vCPU is kicked.
    fn light(hot: &mut Hot, state: &mut Self::State, f: Self::Form) -> bool;
    /// Decodes the instruction at the start of `code`, which lies at offset `off` of its page. `code` ends at the end of
    /// the page or (for an instruction that crosses it) later. An instruction that is invalid decodes to a form that
    /// faults when run.
    fn decode(code: &[u8], off: u32, mode: u32) -> Result<Decoded<Self::Form>, Short>;
    /// General registers that the instruction at the start of `code` reads and writes, a bit for each slot. Decides what is stored where, not
    /// whether code is right.
    fn touches(code: &[u8], mode: u32) -> (u32, u32);
    /// Everything that selects code: equal bytes under equal modes decode to equal forms. Bits 24.. are free for the engine.
    fn mode(hot: &Hot, state: &Self::State) -> u32;
    /// Mask of linear addresses in a mode: all of 32 or of 64 bits.
    fn address_mask(mode: u32) -> u64;
    /// The form is always run by [`rare`](Self::rare).
    fn is_rare(f: Self::Form) -> bool;
    /// Sets the slots that follow from the state: whenever the mode is taken anew. (What a [rare](Self::rare) form changes of it is that
    /// function's own to do.)
    #[inline]
    fn follow(_hot: &mut Hot, _state: &Self::State) {}
    /// Slots and vector registers that a [rare](Self::rare) form may change when it goes on at the next instruction: a bit
    /// each.
    fn changes(f: Self::Form) -> (u32, u32);
    /// Which of the [`REGIMES`](super::tlb::REGIMES) TLBs an access of `who` uses: two accesses that the page tables may
    /// judge differently must not share one.
    fn regime(state: &Self::State, who: Who) -> usize;
    /// The fault of what is no address at all (of too many bits, say), which comes before any fault of a page.
    fn check_address(state: &Self::State, la: u64, access: Access) -> Result<(), Self::Fault>;
    /// Makes that check and walks the page tables. Sets accessed and dirty bits as the access demands.
    fn walk(state: &mut Self::State, phys: &mut Phys<'_>, la: u64, access: Access) -> Result<Leaf, Self::Fault>;
    /// Full check of an access to a segment; the linear address if it is allowed.
    fn segment(
        hot: &Hot,
        state: &Self::State,
        seg: u8,
        offset: u64,
        bytes: u32,
        write: bool,
    ) -> Result<u64, Self::Fault>;
    /// The fault of a division by zero or with overflow.
    fn divide_fault() -> Self::Fault;
    /// The fault of a vector access that must be aligned and is not.
    fn alignment_fault() -> Self::Fault;
    /// Enters the handler of `fault`, raised by the instruction at `cpu.op.ip`. Double and triple faults are its business.
    fn deliver(cpu: &mut Cpu<'_, Self>, fault: Self::Fault) -> Rare<Self::Fault>;
    /// Called at an instruction boundary (`cpu.op.ip`) after a kick: accepts an interrupt or another pending event.
    /// [`Rare::Next`] means that there is none.
    fn service(cpu: &mut Cpu<'_, Self>) -> Rare<Self::Fault>;
    /// Instructions must run one by one, with [`before`](Self::before) and [`after`](Self::after) around each: single
    /// stepping, instruction breakpoints, interrupt shadows.
    fn stepping(state: &Self::State) -> bool;
    /// Before an instruction in stepping mode, [`Rare::Next`] to run it.
    fn before(cpu: &mut Cpu<'_, Self>) -> Rare<Self::Fault>;
    /// After an instruction in stepping mode; `cpu.op.ip` is the next one's address.
    fn after(cpu: &mut Cpu<'_, Self>) -> Rare<Self::Fault>;
    /// The x87 unit, to be loaded into the host's: an instruction that runs there is next, and the mode says that all
    /// exceptions are masked.
    fn unit(state: &Self::State) -> Image;
    /// The x87 unit after such instructions; the pointers are those of `last`.
    fn set_unit(state: &mut Self::State, unit: &Image, last: Last);
    /// Disassembles code at the linear address `pc`, a line or more for each instruction
    /// ([`push_instruction`](super::insight::push_instruction)).
    fn disassemble(code: &[u8], pc: u64, mode: u32) -> String;
    /// Base of the code segment, which linear addresses contain.
    fn code_base(state: &Self::State) -> u64;
    /// The registers as text for logs, the pc being `pc`; with the floating-point ones on demand.
    fn dump(hot: &Hot, state: &Self::State, pc: u64, fpu: bool) -> String;
    /// An access touched a page whose [`Leaf::watch`] is set.
    fn watched(state: &mut Self::State, la: u64, bytes: u32, write: bool);
}

/// What is known at compile time of the form that [`Target::run`] gets.
pub trait Family {
    /// Number of its family of operations, in the target's numbering; [`ANY`](Self::ANY) if it is only known when it runs.
    const FAMILY: u8;
    /// Not known.
    const ANY: u8 = u8::MAX;
}
/// A form that is known when it runs.
pub struct AnyFamily;
impl Family for AnyFamily {
    const FAMILY: u8 = Self::ANY;
}

/// How a rare instruction ends.
#[derive(Clone, Copy, Debug)]
pub enum Rare<F> {
    /// At the next instruction. Only if the mode, the page tables and the code are what they were.
    Next,
    /// At a linear address, through the dispatcher: the mode is taken anew, kicks are looked at.
    To(u64),
    /// At itself (a repeated instruction between two pages); kicks are looked at.
    Again,
    /// By a fault; nothing has been changed that a restart would not repeat.
    Fault(F),
    /// The vCPU halts; when it wakes it goes on at this linear address.
    Halt(u64),
    /// The vCPU leaves its run loop at this linear address with a code of the target's (shutdown, reset …).
    Exit(u64, u32),
}

/// The instruction needs more bytes than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

/// Facts about one instruction; flags are bits in the target's own numbering.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<F> {
    /// What it is.
    pub form: F,
    /// Length in bytes, 1..=15.
    pub len: u8,
    /// Immediate.
    pub imm: u64,
    /// Displacement of the memory operand.
    pub disp: i32,
    /// Operand slots by field.
    pub r: [Slot; 4],
    /// Segment number 0..=5 of the memory operand, 14 for none. Also set for accesses that add no base, so that the
    /// target can tell a stack access.
    pub seg: u8,
    /// Shift count of the index, 0..=3.
    pub scale: u8,
    /// Flags it needs.
    pub reads: u32,
    /// Flags it always overwrites.
    pub writes: u32,
    /// It may fault: the flags before it must be exact.
    pub faults: bool,
    /// How control leaves it.
    pub end: End,
}

/// How control leaves an instruction; targets are linear offsets from its page and may lie outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the next one.
    Next,
    /// At a direct target.
    Goto(i64),
    /// At a direct target or the next one.
    If(i64),
    /// At a computed address.
    To,
    /// Decoding stops here: a rare instruction that never continues at the next one in the same mode.
    Stop,
}

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Reads.
    Read,
    /// Writes, or reads and writes.
    Write,
    /// Fetches code.
    Exec,
}

/// On whose behalf an access is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// The running program at its privilege level.
    Current,
    /// User mode whatever the level is.
    User,
    /// Explicit supervisor access.
    Supervisor,
    /// The processor itself, to a system structure (descriptor tables, TSS …): supervisor whatever the level is.
    Implicit,
}

/// What a page walk must judge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// What is done.
    pub kind: Kind,
    /// For whom.
    pub who: Who,
    /// A stack access, where the architecture tells them apart.
    pub stack: bool,
}

/// The result of a page walk for the 4 KiB page of the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Physical address of the 4 KiB page.
    pub pa: u64,
    /// Reads are allowed as well (always so unless the access was a fetch).
    pub read: bool,
    /// Writes are allowed and need no further bookkeeping (the dirty bit is set).
    pub write: bool,
    /// Fetches are allowed.
    pub exec: bool,
    /// Survives a flush of non-global entries.
    pub global: bool,
    /// Size of the mapping in bytes: 4 KiB or more.
    pub size: u64,
    /// Accesses must be reported to [`Target::watched`].
    pub watch: bool,
}
