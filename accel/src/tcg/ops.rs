//! What an instruction's meaning may say: [`Ops`] for formulas, [`Emit`] for the frame around them.
//!
//! Both tiers are instances of these traits: the interpreter works on values, the compiler builds code. The meaning
//! of an instruction is therefore a function generic over them, without run-time decisions on guest values.

use super::vector::Vector;

/// Operand width.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum W {
    /// One byte.
    B1,
    /// Two bytes.
    B2,
    /// Four bytes.
    B4,
    /// Eight bytes.
    B8,
}
impl W {
    /// Size in bytes.
    pub const fn bytes(self) -> u32 {
        1 << self as u32
    }
    /// Size in bits.
    pub const fn bits(self) -> u32 {
        8 << self as u32
    }
    /// All bits of the width set.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }
    /// The sign bit of the width.
    pub const fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }
    /// Inverse of `self as u8`, of which only the low two bits count.
    pub const fn from_code(c: u8) -> W {
        match c & 3 {
            0 => W::B1,
            1 => W::B2,
            2 => W::B4,
            _ => W::B8,
        }
    }
    /// The low `self` of `v`, sign-extended.
    pub const fn signed(self, v: u64) -> i64 {
        let s = 64 - self.bits();
        ((v << s) as i64) >> s
    }
}

/// Operations of two integers. Shift and rotate counts must already be below the width in bits (64-bit shifts of
/// narrower values may count up to 63).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Bin {
    Add,
    Sub,
    And,
    Or,
    Xor,
    Mul,
    Shl,
    Shr,
    Sar,
    Rol,
    Ror,
}

/// Operations of one integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Un {
    /// Number of zero bits above the highest set bit; the width in bits for zero.
    Clz,
    /// Number of zero bits below the lowest set bit; the width in bits for zero.
    Ctz,
    /// Number of set bits.
    Popcnt,
    /// Bytes in reverse order.
    Bswap,
}

/// Comparisons; `U` unsigned, `S` signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Cmp {
    Eq,
    Ne,
    Ult,
    Ule,
    Slt,
    Sle,
}

/// Formulas. A `V` holds an integer of the width it was made with, upper bits zero.
pub trait Ops {
    /// An integer.
    type V: Copy;
    /// A condition: 0 or 1, never stored by itself.
    type C: Copy;
    /// A constant.
    fn imm(&mut self, w: W, k: u64) -> Self::V;
    /// `a op b`, cut to `w`.
    fn bin(&mut self, op: Bin, w: W, a: Self::V, b: Self::V) -> Self::V;
    /// `op a`.
    fn un(&mut self, op: Un, w: W, a: Self::V) -> Self::V;
    /// The comparison of `a` with `b`.
    fn cmp(&mut self, c: Cmp, w: W, a: Self::V, b: Self::V) -> Self::C;
    /// Zero extension.
    fn zext(&mut self, from: W, to: W, v: Self::V) -> Self::V;
    /// Sign extension.
    fn sext(&mut self, from: W, to: W, v: Self::V) -> Self::V;
    /// The low part.
    fn trunc(&mut self, from: W, to: W, v: Self::V) -> Self::V;
    /// `if c { t } else { f }`.
    fn select(&mut self, w: W, c: Self::C, t: Self::V, f: Self::V) -> Self::V;
    /// High half of the double-width product.
    fn mul_high(&mut self, w: W, signed: bool, a: Self::V, b: Self::V) -> Self::V;
    /// Whether the low byte has an even number of set bits.
    fn even_parity(&mut self, b1: Self::V) -> Self::C;
    /// The condition as an integer.
    fn bit(&mut self, w: W, c: Self::C) -> Self::V;
    /// And, or, xor of conditions.
    fn both(&mut self, op: Bin, a: Self::C, b: Self::C) -> Self::C;
    /// The opposite condition.
    fn not(&mut self, c: Self::C) -> Self::C;
    /// The condition that never holds.
    fn never(&mut self) -> Self::C;

    /// The halves of the double-width product, the low one first.
    #[inline(always)]
    fn mul_wide(&mut self, w: W, signed: bool, a: Self::V, b: Self::V) -> [Self::V; 2] {
        [self.bin(Bin::Mul, w, a, b), self.mul_high(w, signed, a, b)]
    }
    /// `a + b + c`, or `a - b - c`.
    #[inline(always)]
    fn carry(&mut self, op: Bin, w: W, [a, b]: [Self::V; 2], c: Self::C) -> Self::V {
        let r = self.bin(op, w, a, b);
        let c = self.bit(w, c);
        self.bin(op, w, r, c)
    }
    /// `a + b`.
    #[inline(always)]
    fn add(&mut self, w: W, a: Self::V, b: Self::V) -> Self::V {
        self.bin(Bin::Add, w, a, b)
    }
    /// `a + k`.
    #[inline(always)]
    fn add_imm(&mut self, w: W, a: Self::V, k: u64) -> Self::V {
        let k = self.imm(w, k & w.mask());
        self.bin(Bin::Add, w, a, k)
    }
    /// `a - b`.
    #[inline(always)]
    fn sub(&mut self, w: W, a: Self::V, b: Self::V) -> Self::V {
        self.bin(Bin::Sub, w, a, b)
    }
    /// `a & b`.
    #[inline(always)]
    fn and(&mut self, w: W, a: Self::V, b: Self::V) -> Self::V {
        self.bin(Bin::And, w, a, b)
    }
    /// `a & k`.
    #[inline(always)]
    fn and_imm(&mut self, w: W, a: Self::V, k: u64) -> Self::V {
        let k = self.imm(w, k & w.mask());
        self.bin(Bin::And, w, a, k)
    }
    /// `a | b`.
    #[inline(always)]
    fn or(&mut self, w: W, a: Self::V, b: Self::V) -> Self::V {
        self.bin(Bin::Or, w, a, b)
    }
    /// `a ^ b`.
    #[inline(always)]
    fn xor(&mut self, w: W, a: Self::V, b: Self::V) -> Self::V {
        self.bin(Bin::Xor, w, a, b)
    }
    /// A shift or rotate by a constant.
    #[inline(always)]
    fn shift_imm(&mut self, op: Bin, w: W, a: Self::V, k: u32) -> Self::V {
        let k = self.imm(w, k as u64);
        self.bin(op, w, a, k)
    }
    /// The sign bit.
    #[inline(always)]
    fn negative(&mut self, w: W, v: Self::V) -> Self::C {
        let z = self.imm(w, 0);
        self.cmp(Cmp::Slt, w, v, z)
    }
    /// `v == 0`.
    #[inline(always)]
    fn is_zero(&mut self, w: W, v: Self::V) -> Self::C {
        let z = self.imm(w, 0);
        self.cmp(Cmp::Eq, w, v, z)
    }
    /// `v & k != 0`.
    #[inline(always)]
    fn has_bit(&mut self, w: W, v: Self::V, k: u64) -> Self::C {
        let b = self.and_imm(w, v, k);
        let z = self.imm(w, 0);
        self.cmp(Cmp::Ne, w, b, z)
    }
}

/// A register slot of the vCPU's file; which slot is which register is the target's business.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(pub(crate) u8);
impl Slot {
    /// Slot `n`, below [`SLOTS`].
    pub const fn new(n: u8) -> Slot {
        assert!(n < SLOTS as u8);
        Slot(n)
    }
    /// Its index in [`Hot::regs`](super::Hot::regs).
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
/// Slots of the register file.
pub const SLOTS: usize = 32;
/// Reads as zero: absent base, index or segment.
pub const ZERO: Slot = Slot(30);
/// Linear address of the page that holds the running code: the instruction pointer is this plus an offset known to
/// the decoder.
pub const PAGE: Slot = Slot(31);
/// The slots of segment bases start here (number 14 from here is [`ZERO`]: no segment).
pub const SEG_BASE: u8 = 16;
/// The slots of segment limits start here. A slot holds the first offset that is not reachable by plain reads and
/// writes (limit + 1), or 0 to send every access through [`Target::segment`](super::Target::segment).
pub const SEG_LIMIT: u8 = 22;

/// Flags not computed yet: what made them. `kind` belongs to the target, `v` are `w` wide.
#[derive(Clone, Copy, Debug)]
pub struct Deferred<V> {
    /// Producer, in the target's numbering.
    pub kind: u8,
    /// Width of the values.
    pub w: W,
    /// The values, by the producer's convention.
    pub v: [V; 3],
}

/// Flags of an instruction that leaves some of them as they were.
#[derive(Clone, Copy, Debug)]
pub struct Partly<V> {
    /// The others; [`Target::complete`](super::Target::complete) adds those that stay.
    pub new: Deferred<V>,
    /// Flags that stay, in the numbering of [`Decoded::reads`](super::Decoded::reads).
    pub kept: u32,
}

/// How an instruction ends.
pub enum Flow<V, C> {
    /// At the next one.
    Next,
    /// At its direct target.
    Goto,
    /// At its direct target if the condition holds, else at the next one.
    If(C),
    /// At a linear address.
    To(V),
    /// It must be run by [`Target::rare`](super::Target::rare); nothing has been done.
    Rare,
}
/// What the meaning of one instruction returns.
pub type Step<E> = Result<Flow<<E as Ops>::V, <E as Ops>::C>, <E as Emit>::Miss>;

/// The frame of one instruction. Rule: no `set`, `write`, `rmw`, `cas` or `defer` before the last `place`, `divide` or
/// other call that can miss.
pub trait Emit: Vector {
    /// Tier 0: which address missed. Tier 1: the lowering has ended the block by a side exit.
    type Miss;
    /// A checked place in guest memory.
    type P: Copy;
    /// The slot in operand field `field` (0..4).
    fn slot(&self, field: usize) -> Slot;
    /// The slot that holds the base of the instruction's segment ([`ZERO`] where none applies).
    fn segment(&self) -> Slot;
    /// The immediate, cut to `w`.
    fn immediate(&mut self, w: W) -> Self::V;
    /// The displacement, sign-extended to 64 bits.
    fn disp(&mut self) -> Self::V;
    /// Shift count of the index.
    fn scale(&mut self) -> Self::V;
    /// Linear address of the next instruction.
    fn next_ip(&mut self) -> Self::V;
    /// The low `w` of a slot.
    fn get(&mut self, w: W, s: Slot) -> Self::V;
    /// Replaces a whole slot.
    fn set(&mut self, s: Slot, v: Self::V);
    /// Writes the low `w`, keeps the rest.
    fn set_part(&mut self, w: W, s: Slot, v: Self::V);
    /// A vector register.
    fn getx(&mut self, s: Slot) -> Self::X;
    /// Replaces a vector register.
    fn setx(&mut self, s: Slot, x: Self::X);
    /// Linear address of `offset` in the instruction's segment after its checks.
    fn linear(&mut self, offset: Self::V, bytes: u32, write: bool) -> Result<Self::V, Self::Miss>;
    /// Linear address of `offset` in the segment numbered `seg` after its checks.
    fn linear_in(&mut self, seg: u8, offset: Self::V, bytes: u32, write: bool) -> Result<Self::V, Self::Miss>;
    /// Misses with the target's alignment fault unless the linear address is a multiple of `bytes`, a power of two.
    fn aligned(&mut self, bytes: u64, la: Self::V) -> Result<(), Self::Miss>;
    /// A place of `bytes` bytes at a linear address, checked for reading, or for reading and writing.
    fn place(&mut self, bytes: u32, la: Self::V, write: bool) -> Result<Self::P, Self::Miss>;
    /// Reads a place; a narrower width than the place's reads its start.
    fn read(&mut self, w: W, p: Self::P) -> Self::V;
    /// Writes a place.
    fn write(&mut self, w: W, p: Self::P, v: Self::V);
    /// Reads 16 bytes.
    fn readx(&mut self, p: Self::P) -> Self::X;
    /// Writes 16 bytes.
    fn writex(&mut self, p: Self::P, x: Self::X);
    /// `old = [p]; [p] = old op v` as one atomic step (LOCK); returns `old`. `None` exchanges.
    fn rmw(&mut self, op: Option<Bin>, w: W, p: Self::P, v: Self::V) -> Self::V;
    /// `old = [p]; if old == expected { [p] = new }` as one atomic step; returns `old`.
    fn cas(&mut self, w: W, p: Self::P, expected: Self::V, new: Self::V) -> Self::V;
    /// Quotient and remainder of `hi:lo / by`; misses with the target's division fault on zero or overflow.
    fn divide(&mut self, w: W, signed: bool, hi: Self::V, lo: Self::V, by: Self::V)
    -> Result<[Self::V; 2], Self::Miss>;
    /// Somebody may read the flags of this instruction.
    fn flags_wanted(&self) -> bool;
    /// Leaves the flags to be computed on demand.
    fn defer(&mut self, d: Deferred<Self::V>);
    /// The same if `c` holds; the old ones stay otherwise.
    fn defer_if(&mut self, c: Self::C, d: Deferred<Self::V>);
    /// Leaves flags of which some are the old ones. False: they have to be completed, and deferred then.
    #[inline(always)]
    fn defer_partly(&mut self, _p: Partly<Self::V>) -> bool {
        false
    }
    /// The last deferred flags; of those that are [partly](Self::defer_partly) the old ones, what the instruction reads. Tier 1 may not know their kind and then leaves.
    fn deferred(&mut self) -> Result<Deferred<Self::V>, Self::Miss>;
    /// Misses if `c` holds: [`Target::rare`](super::Target::rare) has to run the instruction.
    fn rare_if(&mut self, c: Self::C) -> Result<(), Self::Miss>;
    /// Runs an x87 instruction of registers on the host's unit ([`unit`](super::unit)): the two bytes of its opcode.
    fn unit(&mut self, code: [u8; 2]);
    /// The same with a memory operand of `bytes` bytes, which is written or read.
    fn unit_at(&mut self, code: [u8; 2], bytes: u32, p: Self::P, write: bool);
    /// FLDCW of a word.
    fn unit_control(&mut self, v: Self::V);
    /// The status word.
    fn unit_status(&mut self) -> Self::V;
    /// FCOMI, FCOMIP, FUCOMI, FUCOMIP: CF, ZF, PF.
    fn unit_compare(&mut self, code: [u8; 2]) -> [Self::C; 3];
    /// FCMOVcc ST(0), ST(i): `c` is whether the condition holds.
    fn unit_move(&mut self, c: Self::C, i: u8);
    /// The instruction's address becomes the unit's instruction pointer, and the offset of its memory operand the data
    /// pointer.
    fn unit_note(&mut self, data: Option<Self::V>);
    /// A place read at once.
    #[inline(always)]
    fn load(&mut self, w: W, la: Self::V) -> Result<Self::V, Self::Miss> {
        let p = self.place(w.bytes(), la, false)?;
        Ok(self.read(w, p))
    }
    /// A place written at once.
    #[inline(always)]
    fn store(&mut self, w: W, la: Self::V, v: Self::V) -> Result<(), Self::Miss> {
        let p = self.place(w.bytes(), la, true)?;
        self.write(w, p, v);
        Ok(())
    }
}
