//! The 80-bit register image. Source: Intel SDM vol. 1 §4.2.2, §8.1.2.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// A double extended-precision number as the x87 registers hold it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, Serialize, Deserialize)]
pub struct F80 {
    /// Significand, the integer bit explicit at 63. MMX registers are this field.
    pub sig: u64,
    /// Sign at bit 15, biased exponent below.
    pub se: u16,
}
