//! Register slots: which slot of the engine's register file is which x86 register.

use accel::tcg::{SEG_BASE, Slot};
use iced_x86::Register;

/// General registers, in encoding order.
pub const RAX: Slot = Slot::new(0);
/// General register 1.
pub const RCX: Slot = Slot::new(1);
/// General register 2.
pub const RDX: Slot = Slot::new(2);
/// General register 3.
pub const RBX: Slot = Slot::new(3);
/// Stack pointer.
pub const RSP: Slot = Slot::new(4);
/// General register 5.
pub const RBP: Slot = Slot::new(5);
/// Source of string instructions.
pub const RSI: Slot = Slot::new(6);
/// Destination of string instructions.
pub const RDI: Slot = Slot::new(7);
/// Which way string instructions go, as EFLAGS.DF says: 1 or -1.
pub const STEP: Slot = Slot::new(28);
/// General register 11.
pub const R11: Slot = Slot::new(11);

/// Segment register numbers, in encoding order.
pub const ES: usize = 0;
/// Code segment.
pub const CS: usize = 1;
/// Stack segment.
pub const SS: usize = 2;
/// Data segment.
pub const DS: usize = 3;
/// FS.
pub const FS: usize = 4;
/// GS.
pub const GS: usize = 5;
/// In [`Fields::seg`](accel::tcg::Fields::seg): no segment applies.
pub const NO_SEG: u8 = 14;
/// The code segment's base.
pub const CS_BASE: Slot = Slot::new(SEG_BASE + CS as u8);

/// Number of a segment register.
pub fn seg_number(r: Register) -> Option<u8> {
    Some(match r {
        Register::ES => 0,
        Register::CS => 1,
        Register::SS => 2,
        Register::DS => 3,
        Register::FS => 4,
        Register::GS => 5,
        _ => return None,
    })
}

/// Slot of a general register, or number of a vector, MMX, x87, control, debug or segment register as a slot.
pub fn slot(r: Register) -> Slot {
    if is_high(r) {
        return Slot::new(r as u8 - Register::AH as u8);
    }
    // (Byte registers are numbered apart: SPL is 8 there.)
    let whole = if r.is_gpr() { r.full_register() } else { r };
    Slot::new(whole.number() as u8 & 15)
}

/// AH, CH, DH, BH.
pub fn is_high(r: Register) -> bool {
    matches!(r, Register::AH | Register::CH | Register::DH | Register::BH)
}
