//! Exceptions and interrupts on their way to delivery. Source: Intel SDM vol. 3A, table 6-1.

/// Where an event comes from: decides the return address, the error code's EXT bit and the double-fault rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Raised by an instruction, which is restarted.
    Fault,
    /// Reported after an instruction.
    Trap,
    /// INT n, INT3, INTO (checks the gate's DPL).
    Software,
    /// INT1.
    Int1,
    /// Maskable interrupt.
    External,
    /// Non-maskable interrupt.
    Nmi,
}

/// An event to deliver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// Interrupt vector.
    pub vector: u8,
    /// Error code, for the vectors that push one.
    pub error: Option<u32>,
    /// Faulting address, for CR2.
    pub cr2: Option<u64>,
    /// Bits to set in DR6.
    pub dr6: u64,
    /// Where it comes from.
    pub source: Source,
}

macro_rules! plain { ($($(#[$d:meta])* $name:ident $vector:literal $source:ident;)*) => { $($(#[$d])*
    pub const fn $name() -> Exception { Exception::new($vector, None, Source::$source) })* } }
macro_rules! coded { ($($(#[$d:meta])* $name:ident $vector:literal;)*) => { $($(#[$d])*
    pub const fn $name(error: u32) -> Exception { Exception::new($vector, Some(error), Source::Fault) })* } }

impl Exception {
    /// Any event.
    pub const fn new(vector: u8, error: Option<u32>, source: Source) -> Exception {
        Exception { vector, error, cr2: None, dr6: 0, source }
    }
    plain! {
        /// #DE, divide error.
        de 0 Fault;
        /// #BP, INT3.
        bp 3 Software;
        /// #OF, INTO.
        of 4 Software;
        /// #BR, BOUND.
        br 5 Fault;
        /// #UD, invalid opcode.
        ud 6 Fault;
        /// #NM, device not available.
        nm 7 Fault;
        /// #MF, x87 error.
        mf 16 Fault;
        /// #MC, machine check.
        mc 18 Fault;
        /// #XM, SIMD floating point.
        xm 19 Fault;
        /// NMI.
        nmi 2 Nmi;
    }
    coded! {
        /// #TS, invalid TSS.
        ts 10;
        /// #NP, segment not present.
        np 11;
        /// #SS, stack segment.
        ss 12;
        /// #GP, general protection.
        gp 13;
    }
    /// #PF at a linear address.
    pub const fn pf(error: u32, address: u64) -> Exception {
        let mut e = Exception::new(14, Some(error), Source::Fault);
        e.cr2 = Some(address);
        e
    }
    /// #AC, alignment check.
    pub const fn ac() -> Exception {
        Exception::new(17, Some(0), Source::Fault)
    }
    /// #DB with the bits it sets in DR6; `trap`: after the instruction.
    pub const fn db(dr6: u64, trap: bool) -> Exception {
        let mut e = Exception::new(1, None, if trap { Source::Trap } else { Source::Fault });
        e.dr6 = dr6;
        e
    }
    /// INT n.
    pub const fn software(vector: u8) -> Exception {
        Exception::new(vector, None, Source::Software)
    }
    /// A maskable interrupt.
    pub const fn external(vector: u8) -> Exception {
        Exception::new(vector, None, Source::External)
    }
}
