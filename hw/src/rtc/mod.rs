//! Real-time clocks.

pub mod mc146818_regs;
pub mod mc146818rtc;
