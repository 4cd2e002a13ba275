//! Keyboard and mouse.

pub mod i8042;
pub mod i8042_regs;
pub mod ps2;
pub mod ps2_kbd_regs;
pub mod ps2_mouse_regs;
