//! The VGA core that display adapters share: registers, planar memory, the Bochs DISPI extension and rendering.

pub mod dispi;
pub mod planar;
pub mod regs;
pub mod render;
