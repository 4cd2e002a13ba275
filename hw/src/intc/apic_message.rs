//! What local APICs tell each other and what devices tell them: delivery modes, destinations, messages.
//! Source: Intel SDM vol. 3A §12.6 (interprocessor interrupts) and §12.11 (message signalled interrupts).

/// Delivery modes of ICR, LVT, I/O APIC and MSI data.
pub mod mode {
    /// The vector is requested.
    pub const FIXED: u8 = 0;
    /// Fixed, at the processor with the lowest priority.
    pub const LOWEST: u8 = 1;
    /// System management interrupt.
    pub const SMI: u8 = 2;
    /// Non-maskable interrupt.
    pub const NMI: u8 = 4;
    /// INIT.
    pub const INIT: u8 = 5;
    /// Start-up, ICR only.
    pub const SIPI: u8 = 6;
    /// The vector comes from the 8259 pair.
    pub const EXTINT: u8 = 7;
}

/// A message for local APICs: an interprocessor interrupt or an MSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Vector (start-up page for SIPI).
    pub vector: u8,
    /// Delivery mode, see [`mode`].
    pub mode: u8,
    /// Level triggered.
    pub level: bool,
    /// Who gets it.
    pub to: Target,
}

/// Destination of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// APIC ID.
    Physical(u32),
    /// Logical destination.
    Logical(u32),
    /// All APICs (8-bit physical 0xff, 32-bit 0xffffffff, or shorthand).
    All,
    /// All but the sender.
    Others,
    /// The sender.
    Own,
}

impl Message {
    /// A write of `data` to `addr` in the message window, §12.11. `None`: a reserved delivery mode.
    #[must_use]
    pub fn from_msi(addr: u64, data: u32) -> Option<Self> {
        let dest = (addr >> 12) as u32 & 0xff;
        let mode = (data >> 8 & 7) as u8;
        let to = match (addr >> 2 & 1, dest) {
            (1, d) => Target::Logical(d),
            (_, 0xff) => Target::All,
            (_, d) => Target::Physical(d),
        };
        (!matches!(mode, 3 | 6)).then_some(Self { vector: data as u8, mode, level: data & 1 << 15 != 0, to })
    }
}

/// What a processor must be told besides "look at the pending vector".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Non-maskable interrupt.
    Nmi,
    /// System management interrupt.
    Smi,
    /// INIT.
    Init,
    /// Start-up; [`ApicRegs::take_sipi`](super::apic_regs::ApicRegs::take_sipi) has the page.
    Sipi,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msi_window() {
        let m = Message::from_msi(0xfee0_3004, 0xc161).map(|m| (m.to, m.vector, m.mode, m.level));
        assert_eq!(m, Some((Target::Logical(3), 0x61, mode::LOWEST, true)));
        assert_eq!(Message::from_msi(0xfeef_f000, 0x41).map(|m| m.to), Some(Target::All));
        assert_eq!(Message::from_msi(0xfee0_0000, 0x341), None);
    }
}
