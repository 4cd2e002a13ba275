//! The meaning of ordinary instructions, written once over [`accel::tcg::Emit`]. Source: Intel SDM vol. 2.

pub mod flags;
pub mod mmx;
pub mod sse;
pub mod string;
pub mod x87;
