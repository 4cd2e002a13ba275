//! The host's x87 unit standing for a guest's: loading and saving all of it, and every instruction as a routine.
//!
//! The routines are tables of machine code, one instruction and a return each, with the memory operand at `rdi`. They touch
//! the unit, the operand and the arithmetic flags, nothing else, so that generated code may call them with all registers live.
//!
//! While a guest's unit is loaded the host's register stack is not empty and its control word is the guest's, all
//! exceptions masked. Rust code does not use the unit, and nobody but the handlers and regions of that guest runs an
//! instruction of it until it has been saved.

use super::super::unit::Image;
use core::arch::{asm, naked_asm};

/// Distance between two routines in bytes.
const STRIDE: usize = 16;

/// Loads a guest's unit.
///
/// # Safety
/// The image masks all exceptions, and [`save`] follows before any code but the routines uses the unit.
pub unsafe fn load(image: &Image) {
    // SAFETY: reads the 108 bytes of the image.
    unsafe { asm!("frstor [{}]", in(reg) image, options(nostack, preserves_flags)) }
}
/// Saves a guest's unit and leaves the host's as its threads begin with it, empty.
pub fn save(image: &mut Image) {
    // SAFETY: writes the 108 bytes of the image.
    unsafe { asm!("fnsave [{}]", in(reg) image, options(nostack, preserves_flags)) }
}

/// D8–DF with a register operand: 64 routines each.
#[unsafe(naked)]
unsafe extern "C" fn registers() {
    naked_asm!(
        ".balign 16",
        ".set qomet_esc, 0xd8",
        ".rept 8",
        ".set qomet_modrm, 0xc0",
        ".rept 64",
        ".byte qomet_esc, qomet_modrm",
        "ret",
        ".balign 16, 0xcc",
        ".set qomet_modrm, qomet_modrm + 1",
        ".endr",
        ".set qomet_esc, qomet_esc + 1",
        ".endr",
    )
}
/// D8–DF with a memory operand: eight routines each.
#[unsafe(naked)]
unsafe extern "C" fn memory() {
    naked_asm!(
        ".balign 16",
        ".set qomet_esc, 0xd8",
        ".rept 8",
        ".set qomet_modrm, 7",
        ".rept 8",
        ".byte qomet_esc, qomet_modrm",
        "ret",
        ".balign 16, 0xcc",
        ".set qomet_modrm, qomet_modrm + 8",
        ".endr",
        ".set qomet_esc, qomet_esc + 1",
        ".endr",
    )
}
/// DB and DF, E8–F7 (FUCOMI and FCOMI without and with a pop): CF, ZF and PF go to three bytes at `rdi`.
#[unsafe(naked)]
unsafe extern "C" fn comparisons() {
    naked_asm!(
        ".balign 16",
        ".set qomet_esc, 0xdb",
        ".rept 2",
        ".set qomet_modrm, 0xe8",
        ".rept 16",
        ".byte qomet_esc, qomet_modrm",
        "setc byte ptr [rdi]",
        "setz byte ptr [rdi + 1]",
        "setp byte ptr [rdi + 2]",
        "ret",
        ".balign 16, 0xcc",
        ".set qomet_modrm, qomet_modrm + 1",
        ".endr",
        ".set qomet_esc, qomet_esc + 4",
        ".endr",
    )
}
/// FCMOVNE and FCMOVE of eight registers with ZF set: moves that do not happen, and moves that do.
#[unsafe(naked)]
unsafe extern "C" fn moves() {
    naked_asm!(
        ".balign 16",
        ".set qomet_esc, 0xdb",
        ".rept 2",
        ".set qomet_modrm, 0xc8",
        ".rept 8",
        "cmp esp, esp",
        ".byte qomet_esc, qomet_modrm",
        "ret",
        ".balign 16, 0xcc",
        ".set qomet_modrm, qomet_modrm + 1",
        ".endr",
        ".set qomet_esc, qomet_esc - 1",
        ".endr",
    )
}
fn nth(table: unsafe extern "C" fn(), n: usize) -> usize {
    (table as *const () as usize).next_multiple_of(STRIDE) + n * STRIDE
}

/// The routine of an instruction: the two bytes of its opcode, the second with any memory operand.
pub fn routine([esc, modrm]: [u8; 2]) -> usize {
    let (esc, modrm) = (esc as usize & 7, modrm as usize);
    if modrm < 0xc0 { nth(memory, esc << 3 | modrm >> 3 & 7) } else { nth(registers, esc << 6 | modrm & 63) }
}
/// The routine of FCOMI, FCOMIP, FUCOMI or FUCOMIP.
pub fn comparison([esc, modrm]: [u8; 2]) -> usize {
    nth(comparisons, (esc as usize >> 2 & 1) << 4 | (modrm as usize).wrapping_sub(0xe8) & 15)
}
/// The routine of FCMOVcc ST(0), ST(i) whose condition is known.
pub fn conditional_move(holds: bool, i: u8) -> usize {
    nth(moves, (holds as usize) << 3 | i as usize & 7)
}
/// Calls a routine.
///
/// # Safety
/// The guest's unit is loaded; `routine` is one of the above; the bytes of its memory operand at `at` may be read or
/// written as it does.
pub unsafe fn call(routine: usize, at: *mut u8) {
    // SAFETY: routines change nothing but the unit, the operand and the flags.
    unsafe { asm!("call {}", in(reg) routine, in("rdi") at) }
}
